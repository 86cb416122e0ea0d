//! What was spent on which calendar day, as far as the daily limits need to know.
//!
//! Deliberately absent: the account itself, which is kept over restarts. A day is known by its number in the calendar,
//! however the clock came to show it: so a clock that is set back finds what was spent, and no step of it gives a day's
//! allowance twice.

use serde::{Deserialize, Serialize};

use super::{LocalTime, Sensed};

/// Days that are known at once: today, those around it, and where a wrong clock has been lately.
const DAYS_MAX: usize = 8;

/// What work for others has taken on a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Days since 1970-01-01, as [`LocalTime`] counts them.
    pub day: u32,
    /// Energy in millijoules, without what the machine would have taken idle.
    pub energy_mj: u64,
    /// Bytes sent and received.
    pub network_bytes: u64,
}

/// What was told, the last told last.
#[derive(Clone, Debug, Default)]
pub(super) struct Days {
    told: Vec<Spent>,
    /// The latest day that was ever told.
    latest: Option<u32>,
}

impl Days {
    /// Takes the totals of a day. They never shrink: an account that lost some gives nothing back.
    pub(super) fn tell(&mut self, spent: Spent) {
        let known = self.told.iter().position(|known| known.day == spent.day).map(|at| self.told.remove(at));
        let known = known.unwrap_or_default();
        if self.told.len() >= DAYS_MAX {
            self.told.remove(0);
        }
        self.told.push(Spent {
            day: spent.day,
            energy_mj: spent.energy_mj.max(known.energy_mj),
            network_bytes: spent.network_bytes.max(known.network_bytes),
        });
        self.latest = self.latest.max(Some(spent.day));
    }

    /// What was spent on the day that the clock shows, or on the latest where it is not set.
    ///
    /// A day later than any that was told is new, nothing was spent on it. Of an earlier one that is not known any more
    /// there is nothing left: `None`.
    pub(super) fn on(&self, clock: Sensed<LocalTime>) -> Option<Spent> {
        let day = match clock {
            Sensed::Is(time) => time.day,
            _ => self.latest.unwrap_or_default(),
        };
        let known = self.told.iter().find(|known| known.day == day).copied();
        let is_new = self.latest.is_none_or(|latest| day > latest);
        known.or_else(|| is_new.then_some(Spent { day, ..Spent::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(day: u32) -> Sensed<LocalTime> {
        Sensed::Is(LocalTime { day, weekday: 0, minute: 0 })
    }

    fn spent(day: u32, energy_mj: u64) -> Spent {
        Spent { day, energy_mj, network_bytes: 0 }
    }

    #[test]
    fn a_day_is_found_again_whichever_way_the_clock_went() {
        let mut days = Days::default();
        assert_eq!(days.on(Sensed::Absent), Some(spent(0, 0)));
        days.tell(spent(10, 500));
        assert_eq!(days.on(clock(11)), Some(spent(11, 0)), "a new day");
        days.tell(spent(11, 200));
        assert_eq!(days.on(clock(10)), Some(spent(10, 500)), "set back");
        assert_eq!(days.on(clock(11)), Some(spent(11, 200)), "and forth");
        assert_eq!(days.on(Sensed::Absent), Some(spent(11, 200)), "without a clock no new day comes");
        assert_eq!(days.on(clock(9)), None, "of a day that is not known nothing is left");
        days.tell(spent(11, 100));
        assert_eq!(days.on(clock(11)), Some(spent(11, 200)), "totals do not shrink");
    }

    #[test]
    fn a_clock_that_was_far_ahead_does_not_close_the_days_before() {
        let mut days = Days::default();
        days.tell(spent(50_000, 500));
        assert_eq!(days.on(clock(11)), None, "nobody has told of it");
        days.tell(spent(11, 0));
        assert_eq!(days.on(clock(11)), Some(spent(11, 0)));
        for day in 12..40 {
            days.tell(spent(day, 1));
            assert_eq!(days.on(clock(day)), Some(spent(day, 1)));
        }
        assert_eq!(days.told.len(), DAYS_MAX);
        assert_eq!(days.on(clock(50_000)), None, "what was forgotten is not new");
        assert_eq!(days.on(clock(12)), None);
    }
}
