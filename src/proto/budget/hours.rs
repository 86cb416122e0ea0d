//! The hours of the week in which an owner lends the device.
//!
//! Deliberately absent: the calendar and time zones; the time of day comes with each reading. A change to summer time
//! is a step of the clock like any other: what counts is what the clock shows.

use std::{fmt, str::FromStr};

use super::{LimitError, LocalTime};

/// Entries between commas that a text may have: two a weekday, and some.
const ENTRIES_MAX: usize = 32;
const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EVERY_DAY: &str = "mon-sun";

/// A minute of the week, 0 to 10,079; 0 is Monday 00:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeekMinute(u16);

impl WeekMinute {
    /// That of a time of day.
    pub fn of(time: &LocalTime) -> Self {
        Self((u16::from(time.weekday) * DAY_MINUTES + time.minute) % WEEK_MINUTES)
    }

    /// Minutes until `later` comes; a whole week where it is now.
    fn until(self, later: u16) -> u16 {
        match (later + WEEK_MINUTES - self.0) % WEEK_MINUTES {
            0 => WEEK_MINUTES,
            minutes => minutes,
        }
    }
}

impl fmt::Display for WeekMinute {
    /// `Sat 22:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, minute) = (self.0 / DAY_MINUTES, self.0 % DAY_MINUTES);
        let weekday = WEEKDAYS[usize::from(day) % WEEKDAYS.len()];
        write!(f, "{weekday} {:02}:{:02}", minute / 60, minute % 60)
    }
}

/// The open hours of a week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Minutes of the week from which and until which they are open: in order, apart from each other.
    open: Vec<(u16, u16)>,
}

impl Hours {
    /// The whole week.
    pub fn always() -> Self {
        Self { open: vec![(0, WEEK_MINUTES)] }
    }

    /// Whether they are the whole week, so that no clock is needed.
    pub fn is_always(&self) -> bool {
        self.open == [(0, WEEK_MINUTES)]
    }

    /// Whether they are open.
    pub fn is_open(&self, at: WeekMinute) -> bool {
        self.range(at).is_some()
    }

    /// When they open next, where they ever close.
    pub fn opens(&self, at: WeekMinute) -> Option<WeekMinute> {
        let starts = self.open.iter().map(|&(from, _)| from);
        // The range that begins the week may go on from the one that ends it, and is then no opening.
        let is_opening = |&from: &u16| from > 0 || self.open.last().is_none_or(|last| last.1 < WEEK_MINUTES);
        starts.filter(is_opening).min_by_key(|&from| at.until(from)).map(WeekMinute)
    }

    /// Minutes until they close, the present one included; `None` where they are closed or never close.
    pub fn closes_in(&self, at: WeekMinute) -> Option<u16> {
        let (_, until) = self.range(at)?;
        if self.is_always() {
            return None;
        }
        let first = self.open.first().filter(|first| first.0 == 0);
        match first.filter(|_| until == WEEK_MINUTES) {
            Some(next) => Some(until - at.0 + next.1),
            None => Some(until - at.0),
        }
    }

    fn range(&self, at: WeekMinute) -> Option<(u16, u16)> {
        self.open.iter().copied().find(|&(from, until)| (from..until).contains(&at.0))
    }

    /// Lays ranges together that touch or overlap.
    fn of(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut open: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (from, until) in ranges {
            match open.last_mut().filter(|last| from <= last.1) {
                Some(last) => last.1 = last.1.max(until),
                None => open.push((from, until)),
            }
        }
        Self { open }
    }
}

impl FromStr for Hours {
    type Err = LimitError;

    /// `always`, or entries with commas between: days, where not all are meant, and from when to when. A range that ends
    /// no later than it begins crosses midnight, and belongs to the day on which it begins: `fri-sat 22:00-07:00`.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let text = text.trim().to_ascii_lowercase();
        if text == "always" {
            return Ok(Self::always());
        }
        let mut ranges = Vec::new();
        for (n, entry) in text.split(',').enumerate() {
            if n == ENTRIES_MAX {
                return Err(LimitError::HoursTooMany { entries_max: ENTRIES_MAX });
            }
            let mut words = entry.split_whitespace();
            let (days, times) = match (words.next(), words.next(), words.next()) {
                (Some(times), None, _) => (EVERY_DAY, times),
                (Some(days), Some(times), None) => (days, times),
                _ => return Err(wrong(entry)),
            };
            let (from, until) = times.split_once('-').ok_or_else(|| wrong(times))?;
            let (from, until) = (minute(from)?, minute(until)?);
            if from == DAY_MINUTES || from == until {
                return Err(wrong(times));
            }
            for day in weekdays(days)? {
                let start = day * DAY_MINUTES;
                if from < until {
                    ranges.push((start + from, start + until));
                    continue;
                }
                ranges.push((start + from, start + DAY_MINUTES));
                let next = (start + DAY_MINUTES) % WEEK_MINUTES;
                if until > 0 {
                    ranges.push((next, next + until));
                }
            }
        }
        Ok(Self::of(ranges))
    }
}

fn wrong(part: &str) -> LimitError {
    LimitError::Hours { part: part.trim().chars().take(40).collect() }
}

/// `fri-mon` -> 4, 5, 6, 0.
fn weekdays(text: &str) -> Result<Vec<u16>, LimitError> {
    let number = |name: &str| {
        let at = WEEKDAYS.iter().position(|weekday| weekday.eq_ignore_ascii_case(name));
        at.and_then(|at| u16::try_from(at).ok()).ok_or_else(|| wrong(name))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    Ok((0..=(last + 7 - first) % 7).map(|n| (first + n) % 7).collect())
}

/// `22:00` -> 1320; `24:00` is the end of a day.
fn minute(text: &str) -> Result<u16, LimitError> {
    let is_digits = |text: &&str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let parts = text.split_once(':').filter(|(hour, minute)| is_digits(hour) && is_digits(minute));
    let parsed = parts.and_then(|(hour, minute)| {
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        (minute < 60).then_some(hour * 60 + minute)
    });
    parsed.filter(|&minute| minute <= DAY_MINUTES).ok_or_else(|| wrong(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    fn at(weekday: u8, hour: u16, minute: u16) -> WeekMinute {
        WeekMinute::of(&LocalTime { day: 0, weekday, minute: hour * 60 + minute })
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let nights = hours("mon-fri 22:00-07:00, sat-sun 00:00-24:00");
        assert!(!nights.is_open(at(0, 21, 59)));
        assert!(nights.is_open(at(0, 22, 0)) && nights.is_open(at(1, 6, 59)));
        assert!(!nights.is_open(at(1, 7, 0)));
        assert!(
            nights.is_open(at(4, 23, 0)) && nights.is_open(at(5, 12, 0)),
            "Friday night is followed by Saturday"
        );
        assert!(!nights.is_open(at(0, 3, 0)), "no night began on Sunday");
        assert_eq!(nights.closes_in(at(4, 22, 0)), Some(2 * 60 + 2 * 24 * 60), "until Sunday is over");
        assert_eq!(nights.opens(at(1, 12, 0)).unwrap().to_string(), "Tue 22:00");
    }

    #[test]
    fn the_week_has_no_seam() {
        let hours = hours("sun 20:00-08:00");
        assert!(hours.is_open(at(6, 23, 59)) && hours.is_open(at(0, 7, 59)) && !hours.is_open(at(0, 8, 0)));
        assert_eq!(hours.closes_in(at(6, 20, 0)), Some(12 * 60));
        assert_eq!(hours.closes_in(at(0, 7, 59)), Some(1));
        assert_eq!(hours.opens(at(0, 8, 0)).unwrap().to_string(), "Sun 20:00");
        assert_eq!(hours.opens(at(6, 19, 59)).unwrap().to_string(), "Sun 20:00", "not Monday 00:00");
        let round: Hours = "fri-mon 10:00-11:00".parse().unwrap();
        assert!(
            [4, 5, 6, 0].iter().all(|&day| round.is_open(at(day, 10, 0))) && !round.is_open(at(1, 10, 0))
        );
    }

    #[test]
    fn every_minute_that_is_written_as_open_is_open_and_no_other() {
        for (text, minutes) in [
            ("always", WEEK_MINUTES),
            ("00:00-24:00", WEEK_MINUTES),
            ("mon-sun 12:00-12:01", 7),
            ("23:30-00:00", 7 * 30),
            ("MON 1:00-2:00, mon 01:30-3:00", 120),
            ("wed 12:00-11:00", 23 * 60),
        ] {
            let hours = hours(text);
            let open = (0..WEEK_MINUTES).filter(|&minute| hours.is_open(WeekMinute(minute))).count();
            assert_eq!(open, usize::from(minutes), "{text}");
            assert_eq!(hours.is_always(), minutes == WEEK_MINUTES, "{text}");
        }
        assert_eq!(
            (hours("always").opens(at(0, 0, 1)), hours("always").closes_in(at(3, 0, 0))),
            (None, None)
        );
    }

    #[test]
    fn what_closes_and_opens_agrees_with_what_is_open() {
        for text in
            ["mon-fri 22:00-07:00, sat-sun 00:00-24:00", "sun 20:00-08:00", "tue 00:00-24:00", "12:00-13:00"]
        {
            let hours = hours(text);
            for minute in 0..WEEK_MINUTES {
                let ahead = |n: u16| hours.is_open(WeekMinute((minute + n) % WEEK_MINUTES));
                match hours.closes_in(WeekMinute(minute)) {
                    Some(left) => assert!(ahead(0) && ahead(left - 1) && !ahead(left), "{text} {minute}"),
                    None => assert!(!ahead(0), "{text} {minute}"),
                }
                let opens = hours.opens(WeekMinute(minute)).unwrap();
                assert!(
                    hours.is_open(opens)
                        && !hours.is_open(WeekMinute((opens.0 + WEEK_MINUTES - 1) % WEEK_MINUTES))
                );
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "``"),
            ("mon", "`mon`"),
            ("mon-fri 22:00-25:00", "`25:00`"),
            ("mon-fry 22:00-07:00", "`fry`"),
            ("mon 22:00-07:00 always", "`mon 22:00-07:00 always`"),
            ("12:00-12:00", "`12:00-12:00`"),
            ("24:00-07:00", "`24:00-07:00`"),
            ("12:60-13:00", "`12:60`"),
            ("+1:00-2:00", "`+1:00`"),
            ("mon 1:00-2:00,", "``"),
        ] {
            let error = text.parse::<Hours>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("not {part}")), "{text}: {error}");
            assert!(error.starts_with("takes "), "{error}");
        }
        let many = vec!["1:00-2:00"; ENTRIES_MAX + 1].join(",");
        assert_eq!(many.parse::<Hours>().unwrap_err().to_string(), "takes 32 entries at most");
    }
}
