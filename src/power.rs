//! What the device says of itself: CPU, memory, heat, supply, energy, who is at it, what time it is.
//!
//! Every file is read under a root that is handed in, and so is every clock: a test lays a false `/proc` and `/sys` and
//! knows the answer. A sensor that the device does not have is absent; what says nonsense, cannot be read, is too old or
//! has vanished is broken, and says which. It is never a guess and never a panic, and nothing that a file holds makes
//! memory grow beyond a bound.
//!
//! Deliberately absent: limits and decisions, which are `proto::budget`'s; threads, which are `node`'s.

mod described;
mod moment;
mod root;
mod vanish;

mod cgroup;
mod clock;
mod cpu;
mod energy;
mod frequency;
mod heat;
mod memory;
mod model;
mod pressure;
mod supply;
mod throttle;

mod dbus;
mod presence;
mod sessions;
mod terminals;
mod watch;

mod fetch;
mod green;

mod sensors;

#[cfg(test)]
mod tests;

pub use described::{Described, State};
pub use fetch::{FetchError, GreenFetch};
pub use green::{GreenError, GreenSource};
pub use model::EnergyModel;
pub use moment::Moment;
pub use sensors::Sensors;
pub use watch::{SessionWatch, WatchStop};
