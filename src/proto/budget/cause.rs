//! Why work for others rests, with the numbers of it and with what ends it: for people, and as a code for programs.
//!
//! Deliberately absent: the decision; a cause is only what the rules found.

use std::fmt;

use super::{Fault, WeekMinute, settings::MJ_PER_WH};

/// What a limit is measured with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sensor {
    /// The cgroup's quota of CPU.
    Quota,
    /// The CPU that others use.
    Others,
    /// Memory.
    Memory,
    /// Whether somebody is there.
    Presence,
    /// Mains or battery.
    Supply,
    /// Temperature.
    Temperature,
    /// What a Raspberry Pi's firmware says of heat and voltage.
    Throttle,
    /// The owner's own number.
    Green,
    /// The time of day.
    Clock,
}

impl Sensor {
    fn name(self) -> &'static str {
        match self {
            Self::Quota => "the cgroup's CPU quota",
            Self::Others => "the CPU meter",
            Self::Memory => "the memory meter",
            Self::Presence => "the presence sensor",
            Self::Supply => "the power supply's sensor",
            Self::Temperature => "the temperature sensor",
            Self::Throttle => "the firmware's throttle flag",
            Self::Green => "the green-power number",
            Self::Clock => "the clock",
        }
    }
}

/// Why work for others rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The owner said so.
    Paused {
        /// For so many more seconds; `None` until the owner says otherwise.
        left_s: Option<u64>,
    },
    /// The owner wants what is begun to be finished, and nothing more.
    Finishing,
    /// The sensors are silent.
    NoReading {
        /// For so many seconds; `None` where they have not yet said enough to begin with.
        for_s: Option<u64>,
    },
    /// A sensor on which a limit depends can not be used.
    Broken {
        /// Which.
        sensor: Sensor,
        /// Why.
        fault: Fault,
    },
    /// Somebody is there.
    InUse {
        /// Until nobody has been for so many seconds.
        idle_after_s: u64,
    },
    /// Others use too much of the CPU.
    Others {
        /// Thousandths of all cores.
        permille: u16,
        /// Until it is this.
        resumes_permille: u16,
    },
    /// Too little memory is left.
    Memory {
        /// Bytes available.
        available_bytes: u64,
        /// Until so many are.
        resumes_bytes: u64,
    },
    /// Too hot.
    Hot {
        /// Thousandths of a degree Celsius.
        millicelsius: i32,
        /// Until it is below this.
        resumes_millicelsius: i32,
    },
    /// The firmware says that the supply is too weak.
    UnderVoltage,
    /// The firmware slows the processor down.
    Throttled,
    /// On battery.
    OnBattery {
        /// Charge in thousandths, where it is known.
        charge_permille: Option<u16>,
        /// Until the mains are back, or the charge is this where that would do.
        resumes_permille: Option<u16>,
    },
    /// Outside the hours of the week.
    OutsideHours {
        /// When they open.
        opens: Option<WeekMinute>,
    },
    /// There are hours, and no clock to tell them by.
    ClockUnset,
    /// The day's energy is used up.
    DayEnergy {
        /// Millijoules that a day has.
        limit_mj: u64,
    },
    /// The day's network bytes are used up.
    DayNetwork {
        /// Bytes that a day has.
        limit_bytes: u64,
    },
    /// The power is not green enough.
    NotGreen {
        /// The owner's number in thousandths; `None` where its source has none.
        milli: Option<i64>,
        /// Until it is this.
        resumes_milli: i64,
    },
}

impl Cause {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "paused",
            Self::Finishing => "finishing",
            Self::NoReading { .. } => "no_reading",
            Self::Broken { .. } => "sensor_broken",
            Self::InUse { .. } => "in_use",
            Self::Others { .. } => "others_busy",
            Self::Memory { .. } => "low_memory",
            Self::Hot { .. } => "hot",
            Self::UnderVoltage => "under_voltage",
            Self::Throttled => "throttled",
            Self::OnBattery { .. } => "on_battery",
            Self::OutsideHours { .. } => "outside_hours",
            Self::ClockUnset => "clock_unset",
            Self::DayEnergy { .. } => "day_energy",
            Self::DayNetwork { .. } => "day_network",
            Self::NotGreen { .. } => "not_green",
        }
    }

    /// What is so, or was so a moment ago.
    fn what(&self, is_past: bool) -> String {
        let word = |now: &'static str, past: &'static str| if is_past { past } else { now };
        match *self {
            Self::Paused { left_s: Some(left) } => format!("paused by you for {} more", lasting(left)),
            Self::Paused { left_s: None } => "paused by you".to_owned(),
            Self::Finishing => "finishing what is begun".to_owned(),
            Self::NoReading { for_s: Some(silence) } => format!("no reading for {}", lasting(silence)),
            Self::NoReading { for_s: None } => "no reading yet".to_owned(),
            Self::Broken { sensor, fault } => {
                let fault = match fault {
                    Fault::Nonsense => word("says nonsense", "said nonsense"),
                    Fault::Vanished => word("is gone", "was gone"),
                    Fault::Unreadable => word("can not be read", "could not be read"),
                    Fault::Stale => word("is out of date", "was out of date"),
                };
                format!("{} {fault}", sensor.name())
            }
            Self::InUse { .. } => "in use".to_owned(),
            Self::Others { permille, .. } => {
                format!("others {} {} % of the CPU", word("use", "used"), permille.div_ceil(10))
            }
            Self::Memory { available_bytes, .. } => format!("{} of memory available", mib(available_bytes)),
            // A ceiling of 75 that was passed by a little is not shown as 75.
            Self::Hot { millicelsius, .. } => format!("{} °C", -(-millicelsius).div_euclid(1000)),
            Self::UnderVoltage => "the power supply is too weak".to_owned(),
            Self::Throttled => "the firmware slows the processor down".to_owned(),
            Self::OnBattery { charge_permille: Some(charge), .. } => format!("on battery {} %", charge / 10),
            Self::OnBattery { charge_permille: None, .. } => "on battery, its charge unknown".to_owned(),
            Self::OutsideHours { .. } => "outside its hours".to_owned(),
            Self::ClockUnset => "clock not set, so its hours count as closed".to_owned(),
            Self::DayEnergy { limit_mj } => format!("today's {} Wh are used up", limit_mj / MJ_PER_WH),
            Self::DayNetwork { limit_bytes } => {
                format!("today's {} MB of network are used up", limit_bytes / 1_000_000)
            }
            Self::NotGreen { milli: Some(milli), .. } => format!("green power at {}", decimal(milli)),
            Self::NotGreen { milli: None, .. } => "no green-power number".to_owned(),
        }
    }

    /// What ends it, where that needs saying.
    fn ends(&self) -> Option<String> {
        Some(match *self {
            Self::Paused { left_s: None } => "resumes with `edge resume`".to_owned(),
            Self::Finishing => "takes more with `edge resume`".to_owned(),
            Self::Paused { .. } | Self::NoReading { .. } | Self::Broken { .. } | Self::ClockUnset => {
                return None;
            }
            Self::InUse { idle_after_s } => {
                format!("resumes when nobody has been there for {}", lasting(idle_after_s))
            }
            Self::Others { resumes_permille, .. } => format!("resumes at {} %", resumes_permille / 10),
            Self::Memory { resumes_bytes, .. } => format!("resumes at {}", mib(resumes_bytes)),
            Self::Hot { resumes_millicelsius, .. } => {
                format!("resumes below {} °C", resumes_millicelsius.div_euclid(1000))
            }
            Self::UnderVoltage | Self::Throttled => "resumes when that has ended".to_owned(),
            Self::OnBattery { resumes_permille: Some(charge), .. } => {
                format!("resumes on mains or at {} %", charge.div_ceil(10))
            }
            Self::OnBattery { resumes_permille: None, .. } => "resumes on mains".to_owned(),
            Self::OutsideHours { opens } => format!("resumes {}", opens?),
            Self::DayEnergy { .. } | Self::DayNetwork { .. } => "resumes tomorrow".to_owned(),
            Self::NotGreen { resumes_milli, .. } => format!("resumes at {}", decimal(resumes_milli)),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what(false))?;
        self.ends().map_or(Ok(()), |ends| write!(f, ", {ends}"))
    }
}

/// A cause, and how far its end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Why; with the last numbers for which it was so.
    pub cause: Cause,
    /// It has gone, and work resumes in so many seconds unless it comes back.
    pub settles_in_s: Option<u64>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.settles_in_s {
            Some(left) => write!(f, "{} a moment ago, resumes in {}", self.cause.what(true), lasting(left)),
            None => write!(f, "{}", self.cause),
        }
    }
}

/// `40 s`, `22 min`, `8 h 5 min`; begun minutes count.
fn lasting(seconds: u64) -> String {
    match (seconds, seconds.div_ceil(60)) {
        (..=90, _) => format!("{seconds} s"),
        (_, minutes @ ..=90) => format!("{minutes} min"),
        (_, minutes) if minutes % 60 == 0 => format!("{} h", minutes / 60),
        (_, minutes) => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// 120500 -> `120.5`.
fn decimal(milli: i64) -> String {
    let (sign, size) = (if milli < 0 { "-" } else { "" }, milli.unsigned_abs());
    let part = format!("{:03}", size % 1000);
    match part.trim_end_matches('0') {
        "" => format!("{sign}{}", size / 1000),
        part => format!("{sign}{}.{part}", size / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::budget::LocalTime;

    #[test]
    fn every_cause_says_what_is_so_and_what_ends_it() {
        for (cause, code, text) in [
            (Cause::Paused { left_s: Some(1310) }, "paused", "paused by you for 22 min more"),
            (Cause::Paused { left_s: None }, "paused", "paused by you, resumes with `edge resume`"),
            (Cause::Finishing, "finishing", "finishing what is begun, takes more with `edge resume`"),
            (Cause::NoReading { for_s: Some(6) }, "no_reading", "no reading for 6 s"),
            (Cause::NoReading { for_s: None }, "no_reading", "no reading yet"),
            (
                Cause::Broken { sensor: Sensor::Temperature, fault: Fault::Nonsense },
                "sensor_broken",
                "the temperature sensor says nonsense",
            ),
            (Cause::ClockUnset, "clock_unset", "clock not set, so its hours count as closed"),
            (
                Cause::UnderVoltage,
                "under_voltage",
                "the power supply is too weak, resumes when that has ended",
            ),
            (
                Cause::Throttled,
                "throttled",
                "the firmware slows the processor down, resumes when that has ended",
            ),
        ] {
            assert_eq!((cause.code(), cause.to_string().as_str()), (code, text));
        }
    }

    #[test]
    fn a_cause_with_numbers_says_which_number_ends_it() {
        let saturday = WeekMinute::of(&LocalTime { day: 0, weekday: 5, minute: 22 * 60 });
        let charge_permille = Some(645);
        for (cause, code, text) in [
            (
                Cause::InUse { idle_after_s: 300 },
                "in_use",
                "in use, resumes when nobody has been there for 5 min",
            ),
            (
                Cause::Others { permille: 868, resumes_permille: 200 },
                "others_busy",
                "others use 87 % of the CPU, resumes at 20 %",
            ),
            (
                Cause::Memory { available_bytes: 100 << 20, resumes_bytes: 150 << 20 },
                "low_memory",
                "100 MiB of memory available, resumes at 150 MiB",
            ),
            (
                Cause::Hot { millicelsius: 70_001, resumes_millicelsius: 65_000 },
                "hot",
                "71 °C, resumes below 65 °C",
            ),
            (
                Cause::OnBattery { charge_permille, resumes_permille: Some(800) },
                "on_battery",
                "on battery 64 %, resumes on mains or at 80 %",
            ),
            (
                Cause::OnBattery { charge_permille: None, resumes_permille: None },
                "on_battery",
                "on battery, its charge unknown, resumes on mains",
            ),
            (
                Cause::OutsideHours { opens: Some(saturday) },
                "outside_hours",
                "outside its hours, resumes Sat 22:00",
            ),
            (
                Cause::DayEnergy { limit_mj: 20 * MJ_PER_WH },
                "day_energy",
                "today's 20 Wh are used up, resumes tomorrow",
            ),
            (
                Cause::DayNetwork { limit_bytes: 500_000_000 },
                "day_network",
                "today's 500 MB of network are used up, resumes tomorrow",
            ),
            (
                Cause::NotGreen { milli: Some(-312_050), resumes_milli: 525_000 },
                "not_green",
                "green power at -312.05, resumes at 525",
            ),
        ] {
            assert_eq!((cause.code(), cause.to_string().as_str()), (code, text));
        }
    }

    #[test]
    fn a_cause_that_has_gone_says_when_work_resumes() {
        let cause = Cause::Others { permille: 870, resumes_permille: 200 };
        let reason = Reason { cause, settles_in_s: Some(7) };
        assert_eq!(reason.to_string(), "others used 87 % of the CPU a moment ago, resumes in 7 s");
        assert_eq!(Reason { settles_in_s: None, ..reason }.to_string(), cause.to_string());
        assert_eq!([90, 91, 5400, 7200, 7500].map(lasting), ["90 s", "2 min", "90 min", "2 h", "2 h 5 min"]);
    }
}
