//! What the sensors say of the device, in the terms in which the policy decides.
//!
//! Deliberately absent: files, paths and devices, which `power` knows, and any limit. What the device does not have is
//! [`Sensed::Absent`], never a guess; what it says and cannot be is [`Sensed::Broken`], never a number.

use serde::{Deserialize, Serialize};

/// What one sensor said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sensed<T> {
    /// The device has none, or its system does not tell.
    #[default]
    Absent,
    /// This.
    Is(T),
    /// It was there, and what it says cannot be used.
    Broken(Fault),
}

/// Why what a sensor says cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It cannot be: −127 °C, 110 % charge, a counter that ran backwards, a text where a number belongs.
    Nonsense,
    /// It was there and is not any more.
    Vanished,
    /// The system does not let us read it, or the reading failed.
    Unreadable,
    /// It is older than its owner allows, or did not come in time.
    Stale,
}

/// Whether somebody uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Somebody does, on some seat or terminal.
    InUse,
    /// Nobody, for so many seconds as far as is known; the whole uptime where no session is open.
    Idle {
        /// Seconds.
        for_s: u64,
    },
}

/// Where the power comes from, as far as the device knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supply {
    /// The mains, or a supply that is not a battery.
    Mains {
        /// Charge of the machine's own battery in thousandths, where it has one.
        charge_permille: Option<u16>,
    },
    /// A battery, or a UPS whose mains are out.
    Battery {
        /// Charge in thousandths, where it is known.
        charge_permille: Option<u16>,
    },
}

/// The hottest place that matters to a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temperature {
    /// Thousandths of a degree Celsius.
    pub millicelsius: i32,
    /// At which the device itself slows down or worse, where it says so; the lowest of them.
    pub trip_millicelsius: Option<i32>,
}

/// Memory of the machine, or of the cgroup where that has less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes that can be had without pushing others out.
    pub available_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What the firmware of a Raspberry Pi says at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The supply is too weak.
    pub is_under_voltage: bool,
    /// It slows the processor down, for heat or for voltage.
    pub is_throttled: bool,
}

/// Time of day where the owner lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalTime {
    /// Days since 1970-01-01, local calendar: a new one begins a new account.
    pub day: u32,
    /// 0 is Monday.
    pub weekday: u8,
    /// Minutes since midnight, 0 to 1439.
    pub minute: u16,
}

/// One look at the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Cores on which this process may run, at least 1.
    pub cores: u16,
    /// CPU that its cgroup lets it have, in thousandths of a core; absent where there is no limit.
    pub quota_permille: Sensed<u32>,
    /// CPU that others had since the reading before, in thousandths of a core: user and system time of the machine
    /// without the nice column, in which our compute threads stand.
    pub others_permille: Sensed<u32>,
    /// CPU that this process had since the reading before, in thousandths of a core.
    pub ours_permille: Sensed<u32>,
    /// Share of the last 10 s in which somebody waited for a CPU, in thousandths (PSI, `some avg10`).
    pub pressure_permille: Sensed<u16>,
    /// Memory.
    pub memory: Sensed<Memory>,
    /// Whether somebody uses the machine.
    pub presence: Sensed<Presence>,
    /// Where the power comes from.
    pub supply: Sensed<Supply>,
    /// How hot it is.
    pub temperature: Sensed<Temperature>,
    /// What a Raspberry Pi's firmware says.
    pub throttle: Sensed<Throttle>,
    /// Mean clock of the cores in megahertz.
    pub frequency_mhz: Sensed<u32>,
    /// Energy that the machine's processors took since this program started, in millijoules, by a counter of the machine.
    pub energy_mj: Sensed<u64>,
    /// The number of the owner's own that says how green the power is, in thousandths.
    pub green_milli: Sensed<i64>,
    /// Time of day; absent where the clock is not set.
    pub clock: Sensed<LocalTime>,
}
