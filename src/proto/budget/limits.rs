//! What an owner allows: the limits by which readings are judged.
//!
//! Deliberately absent: the margins and dwell times that keep a decision from flapping; nobody turns those, and they
//! stand with the rules.

use super::Hours;

/// Compute threads that can be asked for at most, as everywhere in edge.
pub const THREADS_MAX: u16 = 256;

/// How much of the processor may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Compute threads; 0 for one a core. Never more than there are cores.
    pub threads: u16,
    /// Share of the time in which each of them runs, in thousandths.
    pub duty_permille: u16,
}

impl Share {
    /// Every core, all of the time.
    pub const ALL: Self = Self { threads: 0, duty_permille: 1000 };
}

/// Where heat ends the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// Nowhere; the sensor is not minded either.
    Off,
    /// At so many thousandths of a degree Celsius.
    At(i32),
    /// Below the point at which the device itself slows down, and never above a fixed one: the trip point of some
    /// devices is the one at which they switch off.
    BelowTrip {
        /// Thousandths of a degree below.
        margin: i32,
        /// Thousandths of a degree Celsius, where that is less or no trip point is told.
        at_most: i32,
    },
}

/// How green power must be, in thousandths of the unit of the owner's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Green {
    /// So much at least: sun on the roof, the share of wind in the grid.
    Above(i64),
    /// So much at most: grams of carbon dioxide a kilowatt hour, a price.
    Below(i64),
}

/// Named sets of the same settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// A little while the machine is in use, all of it when nobody is there.
    #[default]
    Gentle,
    /// Nothing while the machine is in use.
    IdleOnly,
}

impl Profile {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gentle => "gentle",
            Self::IdleOnly => "idle-only",
        }
    }
}

/// What an owner allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// While nobody is there.
    pub idle: Share,
    /// While somebody is; `None` for nothing.
    pub used: Option<Share>,
    /// How long nobody must have been there, in seconds.
    pub idle_after_s: u64,
    /// Share of all cores beyond which the CPU that others use ends the work, in thousandths; 1000 for never.
    pub others_permille: u16,
    /// Share of the memory that must be left available, in thousandths; 0 for none.
    pub memory_permille: u16,
    /// Where heat ends the work.
    pub ceiling: Ceiling,
    /// Charge of the battery down to which work may drain it, in thousandths; `None` for not at all.
    pub battery_permille: Option<u16>,
    /// Hours of the week.
    pub hours: Hours,
    /// Energy a calendar day, in millijoules.
    pub day_energy_mj: Option<u64>,
    /// Bytes over the network a calendar day.
    pub day_network_bytes: Option<u64>,
    /// How green the power must be.
    pub green: Option<Green>,
    /// Whether the work is the owner's own. Then only heat and memory bind, and only where they are known: who waits
    /// before the machine is not stopped by a sensor that failed.
    pub is_own: bool,
}

impl Limits {
    /// For the owner's own foreground command: every core, bound by heat and memory alone.
    pub fn own() -> Self {
        Self {
            idle: Share::ALL,
            used: Some(Share::ALL),
            idle_after_s: 0,
            others_permille: 1000,
            // What is left is for the shell in which the owner would stop it.
            memory_permille: 50,
            // Where the device would slow down by itself: there is little to gain beyond it.
            ceiling: Ceiling::BelowTrip { margin: 0, at_most: 95_000 },
            battery_permille: Some(0),
            hours: Hours::always(),
            day_energy_mj: None,
            day_network_bytes: None,
            green: None,
            is_own: true,
        }
    }

    /// What of these limits binds the owner's own work too: a sensor that is not minded for others is not for it either.
    pub fn own_beside(&self) -> Self {
        let own = Self::own();
        Self {
            ceiling: if self.ceiling == Ceiling::Off { Ceiling::Off } else { own.ceiling },
            memory_permille: own.memory_permille.min(self.memory_permille),
            ..own
        }
    }
}
