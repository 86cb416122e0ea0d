//! Hours and days, and clocks that do not go as they should.

use super::*;

fn time(day: u32, hour: u16, minute: u16) -> Reading {
    // Day 20,001 is a Thursday here.
    let weekday = u8::try_from((day + 1) % 7).unwrap();
    Reading { clock: Sensed::Is(LocalTime { day, weekday, minute: hour * 60 + minute }), ..calm() }
}

fn nights() -> Limits {
    let hours = "mon-fri 22:00-07:00, sat-sun 00:00-24:00".parse().unwrap();
    Limits { hours, ..Limits::of(Profile::Gentle) }
}

fn a_day(energy_mj: u64) -> Limits {
    Limits { day_energy_mj: Some(energy_mj), ..Limits::of(Profile::Gentle) }
}

fn spent(day: u32, energy_mj: u64) -> Event {
    Event::Spent(Spent { day, energy_mj, network_bytes: 0 })
}

#[test]
fn hours_open_and_close_and_say_until_when() {
    let mut desk = Desk::new(nights());
    assert_eq!(desk.said(), ["outside its hours, resumes Wed 22:00"]);
    desk.run(10, &time(20_000, 22, 0));
    assert!(!desk.is_open());
    desk.read(time(20_000, 22, 0));
    assert!(desk.is_open());
    let left = |desk: &Desk| desk.policy.budget().until.unwrap().since(Timestamp::from_ms(desk.ms));
    assert_eq!(left(&desk), Duration::from_secs(9 * 3600 - 60), "the minute that has begun is not counted");
    desk.read(time(20_001, 6, 59));
    assert!(desk.is_open());
    desk.read(time(20_001, 7, 0));
    assert_eq!(desk.said(), ["outside its hours, resumes Thu 22:00"]);
    desk.run(11, &time(20_002, 23, 0));
    let weekend = Duration::from_secs(49 * 3600 - 60);
    assert_eq!(left(&desk), weekend, "Friday night goes on until Sunday is over");
}

#[test]
fn a_clock_about_its_hour_does_not_flap() {
    let mut desk = Desk::new(nights());
    desk.run(11, &time(20_000, 22, 0));
    let mut changes = 0;
    for n in 0..600 {
        let was = desk.is_open();
        desk.read(time(20_000, 21 + n % 2, 59 * (1 - n % 2)));
        changes += usize::from(desk.is_open() != was);
    }
    assert_eq!(changes, 1, "it closes, and opens when the clock goes on");
}

#[test]
fn hours_without_a_clock_are_closed() {
    let unset = Reading { clock: Sensed::Absent, ..calm() };
    let mut desk = Desk::new(nights());
    desk.read(unset.clone());
    assert_eq!(desk.said(), ["clock not set, so its hours count as closed"]);
    let mut desk = Desk::gentle();
    desk.read(unset);
    assert!(desk.is_open(), "where there are none it is not needed");
    let strange = LocalTime { day: 0, weekday: 7, minute: 0 };
    let mut desk = Desk::new(nights());
    desk.read(Reading { clock: Sensed::Is(strange), ..calm() });
    assert_eq!(desk.said(), ["the clock says nonsense"]);
}

#[test]
fn a_day_has_its_energy_once_however_the_clock_is_set() {
    let mut desk = Desk::new(a_day(72_000_000));
    desk.handle(spent(20_000, 71_999_999));
    assert!(desk.is_open());
    desk.handle(spent(20_000, 72_000_000));
    assert_eq!(desk.said(), ["today's 20 Wh are used up, resumes tomorrow"]);
    desk.run(100, &time(20_001, 0, 0));
    assert!(desk.is_open(), "a new day");
    desk.handle(spent(20_001, 1000));
    desk.read(time(20_000, 23, 59));
    assert_eq!(desk.codes(), ["day_energy"], "set back: that day is used up");
    desk.run(11, &time(20_001, 0, 0));
    assert!(desk.is_open());
    desk.handle(spent(20_001, 72_000_000));
    desk.run(100, &time(20_001, 9, 0));
    assert!(!desk.is_open());
    desk.read(time(19_999, 9, 0));
    assert_eq!(desk.codes(), ["day_energy"], "of a day that nobody told of nothing is left");
    desk.run(100, &Reading { clock: Sensed::Absent, ..calm() });
    assert_eq!(desk.codes(), ["day_energy"], "no clock, no new day");
    desk.handle(spent(20_001, 0));
    desk.run(100, &time(20_001, 9, 0));
    assert!(!desk.is_open(), "an account that lost its total gives nothing back");
}

#[test]
fn a_day_has_its_network_bytes() {
    let limits = Limits { day_network_bytes: Some(500_000_000), ..Limits::of(Profile::Gentle) };
    let mut desk = Desk::new(limits);
    desk.handle(Event::Spent(Spent { day: 20_000, energy_mj: u64::MAX, network_bytes: 500_000_000 }));
    assert_eq!(desk.said(), ["today's 500 MB of network are used up, resumes tomorrow"]);
}

#[test]
fn time_that_runs_backwards_is_time_that_stands() {
    let mut desk = Desk::gentle();
    desk.read(Reading { temperature: heat(90_000), ..calm() });
    let at = desk.ms;
    desk.run(30, &calm());
    desk.ms = at;
    desk.run(60, &calm());
    assert!(!desk.is_open(), "only half a minute has passed twice");
    desk.run(31, &calm());
    assert!(desk.is_open());
}
