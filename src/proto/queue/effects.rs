//! What a queue is told, and what it wants done.

use serde::{Deserialize, Serialize};

use crate::{
    proto::Timestamp,
    wire::{ContentKey, PeerId},
};

/// Name of an item in this node's queue; never used twice in one life of the process.
pub type ItemId = u64;

/// How far an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It waits for a thread.
    Queued,
    /// A thread has it.
    Running,
    /// It has a result, or a reason why not, which waits to be delivered.
    Computed,
}

/// One job in the queue. What is serialised is version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Who asked.
    pub aggregator: PeerId,
    /// Fencing number of the lease.
    pub attempt: u64,
    /// Proves to the aggregator that it gave this lease.
    pub proof: [u8; 16],
    /// The job.
    pub key: ContentKey,
    /// Tokens, about.
    pub tokens: u32,
    /// Nothing else may run beside it.
    pub alone: bool,
    /// How far it is.
    pub state: State,
    /// Processes that died while it ran alone.
    pub deaths: u8,
    /// Since when it is in this state.
    #[serde(skip)]
    pub(super) since: Timestamp,
    /// Deliveries that did not reach the aggregator.
    #[serde(skip)]
    pub(super) tries: u8,
    /// Not delivered before this.
    #[serde(skip)]
    pub(super) not_before: Timestamp,
    /// Whether it is on its way.
    #[serde(skip)]
    pub(super) is_delivering: bool,
}

impl Item {
    pub(super) fn new(aggregator: PeerId, grant: &Grant, now: Timestamp) -> Self {
        Self {
            aggregator,
            attempt: grant.attempt,
            proof: grant.proof,
            key: grant.key,
            tokens: grant.tokens,
            alone: grant.alone,
            state: State::Queued,
            deaths: 0,
            since: now,
            tries: 0,
            not_before: now,
            is_delivering: false,
        }
    }
}

/// A lease that an aggregator gave.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Fencing number.
    pub attempt: u64,
    /// Proves to the aggregator that it gave this lease.
    pub proof: [u8; 16],
    /// The job.
    pub key: ContentKey,
    /// Tokens, about.
    pub tokens: u32,
    /// Nothing else may run beside it.
    pub alone: bool,
    /// Place in the answer, by which `node` finds the text.
    pub index: usize,
}

/// How a delivery went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The aggregator has it, or will never want it.
    Ended,
    /// It was not reached, or had no time.
    Missed,
}

/// How the run of an item ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It has a result.
    Right,
    /// It has none, and why.
    Failed(String),
    /// It was stopped: it can be run again, here or elsewhere.
    Stopped,
    /// It is nothing that this node can run, and others may: it goes back, and no failure is counted.
    Unfit,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// An aggregator gave leases. Each comes to a [`Effect::Store`], to a [`Effect::Keep`] where its job is here already,
    /// to a [`Effect::Release`], or to nothing where this very lease is here.
    Granted {
        /// Who.
        aggregator: PeerId,
        /// Its leases.
        grants: Vec<Grant>,
    },
    /// So many threads may compute, at about this speed together. With none, or where no more may be taken than is begun,
    /// the rest goes back.
    Budget {
        /// Threads.
        threads: usize,
        /// Tokens per second of all of them; 0 where it is not known.
        tokens_per_s: u32,
        /// Whether more may be taken than is begun.
        takes_more: bool,
    },
    /// A window has run. What is not spoken of was stopped.
    Ended {
        /// Which.
        window: u64,
        /// One outcome an item.
        outcomes: Vec<(ItemId, Ran)>,
    },
    /// An aggregator can be reached.
    Connected {
        /// Which.
        aggregator: PeerId,
    },
    /// It can not any more.
    Disconnected {
        /// Which.
        aggregator: PeerId,
    },
    /// A delivery has ended.
    Delivered {
        /// Of which item.
        id: ItemId,
        /// How.
        delivery: Delivery,
    },
    /// An aggregator does not want these any more.
    Withdrawn {
        /// Who.
        aggregator: PeerId,
        /// Its leases.
        attempts: Vec<u64>,
    },
    /// Its owner wants what waits to go back to whoever asked.
    GiveBack,
    /// The node ends: nothing more is begun, what waits goes back.
    Drain,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write a new item and its text durably.
    Store {
        /// Its name.
        id: ItemId,
        /// What is known of it.
        item: Item,
        /// Place of its text in the answer of the aggregator.
        grant: usize,
    },
    /// Write what has changed of an item.
    Keep {
        /// Its name.
        id: ItemId,
        /// What is known of it.
        item: Item,
    },
    /// Write the item's result, which `node` has, in place of its text.
    Computed {
        /// Its name.
        id: ItemId,
    },
    /// Write why the item has no result, in place of its text.
    Failed {
        /// Its name.
        id: ItemId,
        /// Why.
        reason: String,
    },
    /// Forget the item and all that belongs to it.
    Remove {
        /// Its name.
        id: ItemId,
    },
    /// Run these on one thread. Before one that is `alone` its aggregator gets a heartbeat, and a moment for it to arrive:
    /// if that job kills the process at once, the aggregator must have heard that it ran.
    Run {
        /// Name of the window.
        window: u64,
        /// Items.
        ids: Vec<ItemId>,
    },
    /// Send the result. Exactly one [`Event::Delivered`] answers this, also when the connection ends.
    Deliver {
        /// Of which item.
        id: ItemId,
        /// To whom.
        aggregator: PeerId,
        /// Under which lease.
        attempt: u64,
    },
    /// Give leases back.
    Release {
        /// To whom.
        aggregator: PeerId,
        /// Leases.
        attempts: Vec<u64>,
    },
}
