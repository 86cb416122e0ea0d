//! What a device lends to others at this moment, and why no more.
//!
//! The owner allows ([`Limits`]), the sensors tell ([`Reading`]).
//!
//! Deliberately absent: files and sensors, which `power` reads, and the wire's form of a budget. Work of the owner's own
//! runs under [`Limits::own`].

mod hours;
mod limits;
mod reading;
mod settings;

pub use hours::{Hours, WeekMinute};
pub use limits::{Ceiling, Green, Limits, Profile, Share, THREADS_MAX};
pub use reading::{Fault, LocalTime, Memory, Presence, Reading, Sensed, Supply, Temperature, Throttle};
pub use settings::{BUDGET_SETTINGS, BudgetSetting, LimitError};
