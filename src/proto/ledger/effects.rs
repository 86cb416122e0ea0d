//! What a ledger is told, and what it wants done.

use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::wire::{ContentKey, PeerId, SwarmId};
pub use crate::wire::{Holding, Stage};

/// A worker in one life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Worker {
    /// Its key.
    pub peer: PeerId,
    /// Drawn when its process started.
    pub boot: [u8; 16],
}

/// What a result came to, after the cheap checks (DESIGN 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be right.
    Right,
    /// It is wrong, or the worker could not; why, for a person.
    Failed(String),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job is asked for, of about so many tokens; members of `swarm` may have it, without one only this node.
    Submit {
        /// The job.
        job: ContentKey,
        /// Whose members may see its text.
        swarm: Option<SwarmId>,
        /// Tokens, about.
        tokens: u32,
    },
    /// From now on members of this swarm may have the job, without one only this node. Whoever holds it keeps it.
    Move {
        /// The job.
        job: ContentKey,
        /// Whose members may see its text.
        swarm: Option<SwarmId>,
    },
    /// Nobody wants the job any more.
    Cancel {
        /// The job.
        job: ContentKey,
    },
    /// A worker asks for work.
    Pull {
        /// Who.
        worker: Worker,
        /// The swarms in which it is known to be a member; `None` is this node itself, which may have any job.
        swarms: Option<Vec<SwarmId>>,
        /// It has room for so many tokens …
        tokens: u32,
        /// … and so many jobs.
        jobs: usize,
        /// Its speed; 0 where it does not know yet.
        tokens_per_s: u32,
    },
    /// A worker lives, has embedded so many tokens since its start, and holds these leases.
    Heartbeat {
        /// Who.
        worker: Worker,
        /// Tokens since its start: that they grow is its progress.
        tokens_done: u64,
        /// All that it holds.
        holding: Vec<Holding>,
    },
    /// A worker delivers. That the lease was once this worker's was checked.
    Result {
        /// Who.
        worker: Worker,
        /// Under which lease.
        attempt: Attempt,
        /// For which job.
        job: ContentKey,
        /// What it is worth.
        verdict: Verdict,
    },
    /// A worker gives back what it has not begun.
    Release {
        /// Who.
        worker: Worker,
        /// Its leases.
        attempts: Vec<Attempt>,
    },
    /// A worker said goodbye.
    Left {
        /// Who.
        worker: Worker,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Give the job to the worker.
    Lease {
        /// To whom.
        worker: Worker,
        /// Fencing number.
        attempt: Attempt,
        /// The job.
        job: ContentKey,
        /// Nothing else may run beside it.
        alone: bool,
    },
    /// Write the result durably; then say to the worker that it is accepted, and to whoever asked that it is done.
    Commit {
        /// From whom.
        worker: Worker,
        /// Under which lease.
        attempt: Attempt,
        /// The job, which the ledger has forgotten.
        job: ContentKey,
    },
    /// Say that the result is not wanted. The job is done, cancelled or dead; or nobody has asked for it again since this
    /// process started: then it may be kept, for whoever will.
    Duplicate {
        /// To whom.
        worker: Worker,
        /// Of which lease.
        attempt: Attempt,
    },
    /// Say that the failure was noted.
    Noted {
        /// To whom.
        worker: Worker,
        /// Of which lease.
        attempt: Attempt,
    },
    /// Say that this was never leased to it.
    Refuse {
        /// To whom.
        worker: Worker,
        /// Which number.
        attempt: Attempt,
    },
    /// With its next heartbeat, whoever holds this hears that it is not wanted any more.
    Withdraw {
        /// The lease.
        attempt: Attempt,
    },
    /// The job has failed for good.
    Dead {
        /// The job, which the ledger has forgotten.
        job: ContentKey,
        /// Why, for a person.
        reason: String,
    },
    /// Something is ready: workers that wait may ask again.
    Wake,
}
