//! Decisions without IO: who may run which job until when, what runs next, how much of the device may be lent, how long to
//! wait before another try.
//!
//! Deliberately absent: clocks, sockets, disks, entropy. A machine is handed the time and an event and gives
//! effects in the order in which `node` must carry them out; the same seed and the same events give the same
//! effects, so every run of the simulation can be played again. What promises something on the disk comes as an
//! effect of its own, before the one that relies on it.

mod backoff;
pub mod budget;
mod demand;
mod dial;
mod ledger;
pub mod membership;
mod neighbours;
mod queue;
mod rate;
mod time;

pub use backoff::Backoff;
pub use demand::REACHED_LIFE;
pub use dial::{Dialer, Dialled, Origin, TARGETS_MAX, Wanted};
pub use ledger::{
    Attempt, Effect as LedgerEffect, Event as LedgerEvent, Holding, JOBS_MAX as LEDGER_JOBS_MAX, Ledger,
    LedgerCounts, Stage, Verdict, Worker,
};
pub use neighbours::{Effect as MeshEffect, LINKS_IDLE_MAX, LINKS_MAX, Neighbours, Part};
pub use queue::{
    Delivery, Effect as QueueEffect, Event as QueueEvent, Grant, ITEMS_MAX as QUEUE_ITEMS_MAX, Item, ItemId,
    Queue, QueueCounts, Ran, State as ItemState,
};
pub use rate::RateLimit;
pub use time::Timestamp;
