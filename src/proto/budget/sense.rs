//! What is made of a reading before it is judged: numbers that can not be are faults, and what has fallen silent has
//! vanished.
//!
//! Deliberately absent: limits. The sensors look at what they read themselves; this is the second look, so that no
//! number of another's making opens what should be closed.

use std::ops::RangeInclusive;

use super::{Fault, LocalTime, Reading, Sensed, Supply};

/// Thousandths of a degree Celsius that a running processor can have. An unset sensor says −127 or 0 kelvin.
const MILLICELSIUS: RangeInclusive<i32> = -40_000..=150_000;
/// Thousandths of a degree at which a device can mean to slow down; others are switched off or never set.
const TRIP_MILLICELSIUS: RangeInclusive<i32> = 40_000..=150_000;
const DAY_MINUTES: u16 = 24 * 60;

/// Which sensors have ever had something to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    others: bool,
    memory: bool,
    presence: bool,
    supply: bool,
    temperature: bool,
    throttle: bool,
}

impl Heard {
    /// The reading as it can be used. A quota that is absent has been lifted, a clock that is absent is not set, and a
    /// green number that is absent counts as none: of these it is no fault.
    pub(super) fn sane(&mut self, reading: &Reading) -> Reading {
        Reading {
            cores: reading.cores.max(1),
            quota_permille: checked(reading.quota_permille, |&quota| quota > 0),
            others_permille: heard(&mut self.others, reading.others_permille),
            memory: heard(
                &mut self.memory,
                checked(reading.memory, |memory| {
                    memory.total_bytes > 0 && memory.available_bytes <= memory.total_bytes
                }),
            ),
            presence: heard(&mut self.presence, reading.presence),
            supply: heard(
                &mut self.supply,
                checked(reading.supply, |supply| match supply {
                    Supply::Battery { charge_permille } => {
                        charge_permille.is_none_or(|charge| charge <= 1000)
                    }
                    Supply::Mains { .. } => true,
                }),
            ),
            temperature: heard(
                &mut self.temperature,
                checked(reading.temperature, |heat| MILLICELSIUS.contains(&heat.millicelsius)),
            ),
            throttle: heard(&mut self.throttle, reading.throttle),
            clock: checked(reading.clock, |time: &LocalTime| time.weekday < 7 && time.minute < DAY_MINUTES),
            ..reading.clone()
        }
    }
}

/// The trip point, where it can be one.
pub(super) fn trip(millicelsius: Option<i32>) -> Option<i32> {
    millicelsius.filter(|trip| TRIP_MILLICELSIUS.contains(trip))
}

fn checked<T>(sensed: Sensed<T>, can_be: impl Fn(&T) -> bool) -> Sensed<T> {
    match sensed {
        Sensed::Is(value) if !can_be(&value) => Sensed::Broken(Fault::Nonsense),
        sensed => sensed,
    }
}

fn heard<T>(was_heard: &mut bool, sensed: Sensed<T>) -> Sensed<T> {
    *was_heard |= matches!(sensed, Sensed::Is(_));
    match sensed {
        Sensed::Absent if *was_heard => Sensed::Broken(Fault::Vanished),
        sensed => sensed,
    }
}
