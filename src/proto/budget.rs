//! What a device lends to others at this moment, why no more, and what it cost.
//!
//! The owner allows ([`Limits`]), the sensors tell ([`Reading`]), the [`Policy`] decides ([`Budget`]), a [`Pacer`] holds each
//! compute thread to it, and the [`Account`] adds up what it took.
//!
//! Deliberately absent: files and sensors, which `power` reads, threads, and the wire's form of a budget. Work of the
//! owner's own runs under [`Limits::own`].

mod account;
mod attendance;
mod cause;
mod days;
mod gate;
mod hours;
mod limits;
mod meter;
mod pacer;
mod policy;
mod reading;
mod rules;
mod sense;
mod settings;
mod shape;
mod standing;

pub use account::{Account, Cost, DAYS_MAX, PerThousand, Row, SWARMS_MAX, Totals};
pub use cause::{Cause, Reason, Sensor};
pub use days::Spent;
pub use hours::{Hours, WeekMinute};
pub use limits::{Ceiling, Green, Limits, Profile, Share, THREADS_MAX};
pub use meter::{Draw, Meter};
pub use pacer::{Pacer, SLICE_MS_MAX, SLICE_TOKENS_MIN};
pub use policy::{Admission, Budget, Event, Policy, REASONS_MAX, STALE, STALE_RESTING};
pub use reading::{Fault, LocalTime, Memory, Presence, Reading, Sensed, Supply, Temperature, Throttle};
pub use settings::{BUDGET_SETTINGS, BudgetSetting, LimitError};
pub use standing::{PauseEnd, Standing};

use super::Timestamp;
