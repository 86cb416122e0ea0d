//! Messages and what the network does to them.

use edge::{
    proto::{Grant, Holding, ItemId},
    wire::ContentKey,
};

/// Milliseconds since the simulation began.
pub(super) type Ms = u64;

/// From a worker to an aggregator.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Pull {
        serial: u64,
        tokens: u32,
        jobs: usize,
        tokens_per_s: u32,
    },
    Heartbeat {
        tokens_done: u64,
        holding: Vec<Holding>,
    },
    Result {
        item: ItemId,
        serial: u64,
        attempt: u64,
        proof: [u8; 16],
        key: ContentKey,
        outcome: Result<(), String>,
    },
    Release {
        attempts: Vec<u64>,
    },
    Left,
}

/// From an aggregator to a worker.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Granted {
        serial: u64,
        grants: Vec<Grant>,
    },
    Withdrawn {
        attempts: Vec<u64>,
    },
    /// Accepted, noted, or not wanted: perhaps only because nobody has asked again since the aggregator was started.
    Ended {
        item: ItemId,
        serial: u64,
        is_unasked: bool,
    },
    Refused {
        item: ItemId,
    },
}

/// Everything that happens at some time. A message belongs to a connection, so to one life of each side.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Up {
        aggregator: usize,
        life: u32,
        worker: usize,
        boot: u32,
        message: Up,
    },
    Down {
        worker: usize,
        boot: u32,
        aggregator: usize,
        life: u32,
        message: Down,
    },
    /// To a worker's process.
    Worker {
        worker: usize,
        boot: u32,
        alarm: Alarm,
    },
    /// To an aggregator's process.
    Aggregator {
        aggregator: usize,
        life: u32,
        alarm: Bell,
    },
    StartWorker(usize),
    StartAggregator(usize),
    Chaos,
    Quiet,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    Tick,
    Heartbeat,
    /// Looks which aggregators can be reached.
    Look,
    WindowEnds(u64),
    /// A poison job kills the process, if that window still runs.
    Killed(u64),
    PullTimeout {
        aggregator: usize,
        serial: u64,
    },
    DeliveryTimeout {
        item: ItemId,
        serial: u64,
    },
    BudgetOpens,
    /// Drained, or the time for it is over?
    Leave {
        deadline: Ms,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Bell {
    Tick,
    /// The client hands over more.
    Submit,
    /// Pulls that wait are asked again.
    Serve,
    /// Planted: a commit that is written after its acknowledgement.
    LateCommit {
        job: usize,
        worker: usize,
    },
}

macro_rules! counted {
    ($($name:ident)*) => {
        /// What was done to the swarm, and what it was seen to do about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Fired {
            $($name),*
        }

        /// All of it: each must have happened over the seeds.
        pub(super) const FIRED: &[Fired] = &[$(Fired::$name),*];
    };
}
counted! {
    Lost
    Duplicated
    Reordered
    Delayed
    Cut
    Partition
    DroppedByCut
    WorkerFrozen
    AggregatorFrozen
    Slow
    Hung
    BudgetClosed
    Drained
    Forged
    Cancelled
    WorkerCrashedBetweenEffects
    WorkerCrashedOutside
    AggregatorCrashedBetweenEffects
    AggregatorCrashedOutside
    RestoredRunning
    PoisonFailed
    PoisonKilled
    DeadOfFailure
    DeadOfDeaths
    LeasedAgain
    SecondLease
    LeasedAlone
    Withdrawn
    NotWanted
    WastedUnasked
    LateCommit
    DeliveryMissed
    ReleasedQueued
    Renewed
    Announced
}

/// A bug that is planted on purpose: the simulation must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    /// A worker does not write some of what it was granted.
    SkipsStore,
    /// An aggregator does not write some of what it commits.
    SkipsCommit,
    /// An aggregator acknowledges first and writes a moment later.
    AcksBeforeCommit,
    /// A worker begins to run before the disk says so.
    RunsBeforeKeep,
    /// An aggregator takes a job that is done for one that is asked for.
    DoubleAccept,
    /// An aggregator believes that a worker holds all that it ever was given.
    KeepsDeadLeases,
    /// An aggregator that was started anew counts from 1 again.
    ReusesAttempts,
    /// A worker forgets what it does not begin without giving it back.
    DropsRelease,
    /// An aggregator takes everybody for a member.
    IgnoresPlacement,
    /// An aggregator loses some of what it was asked for.
    LosesJobs,
    /// An aggregator takes whoever delivers at his word.
    TrustsForgery,
}
