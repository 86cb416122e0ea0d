//! What a command that embeds asks of a running node, in postcard: texts and results are too much for JSON.
//!
//! Both ends are of one machine, and may be of two versions after an upgrade: the version stands in a header, and another
//! one is refused before a byte is read.

use serde::{Deserialize, Serialize};

use crate::wire::{ContentKey, JobSpec, ModelHash, PeerId, Run, RunId, SegmentResult};

/// Header that carries [`VERSION`].
pub const HEADER: &str = "edge-call";
/// Changes with every change of the types below.
pub const VERSION: &str = "1";

/// A question.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// May this command ask for jobs?
    Attach {
        /// What it works on, for people.
        title: String,
        /// Its process.
        process: u32,
        /// Who shares the work: `local`, or a swarm's name or the beginning of its id.
        swarm: String,
        /// Ask again for what has failed for good.
        retries_dead: bool,
        /// For which model.
        model: ModelHash,
    },
    /// Asks for jobs.
    Submit {
        /// The client.
        client: u64,
        /// Jobs.
        jobs: Vec<JobSpec>,
    },
    /// What has become of them? Asked all the time: a client that does not ask is taken for gone.
    Events {
        /// The client.
        client: u64,
        /// Waits so long for the first, in milliseconds.
        wait_ms: u32,
    },
    /// No more is wanted.
    Detach {
        /// The client.
        client: u64,
    },
    /// What is known of a run.
    Known {
        /// Which.
        run: RunId,
    },
    /// A run begins.
    Begin {
        /// Which.
        id: RunId,
        /// Its record.
        run: Run,
        /// Its keys.
        keys: Vec<ContentKey>,
    },
    /// A run has ended.
    End {
        /// Which.
        id: RunId,
        /// Its record.
        run: Run,
    },
    /// Forget what is old.
    Sweep {
        /// By this clock.
        now_ms: Option<u64>,
        /// Kept for so many seconds.
        keep_s: u64,
        /// But not this run.
        current: RunId,
    },
    /// A stored result.
    Result {
        /// Under which key.
        key: ContentKey,
        /// Of so many bytes of text.
        text_bytes: u32,
    },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It may.
    Attached {
        /// Its name.
        client: u64,
        /// Who runs this node.
        peer: PeerId,
        /// Compute threads of the node for its own commands.
        threads: u32,
        /// The swarm's name; none for this machine alone.
        swarm: Option<String>,
    },
    /// Places in the question of the jobs for which there is no room yet.
    Submitted {
        /// From 0.
        refused: Vec<u32>,
    },
    /// What has become of jobs.
    Events(Vec<Told>),
    /// There is no such client: it was not heard for too long, or the node is another.
    Unknown,
    /// What is known of a run.
    Known(Option<Run>),
    /// It is on the disk.
    Kept,
    /// Removed runs, results, and results that stay.
    Swept(Option<(u64, u64, u64)>),
    /// The result.
    Result(Option<Box<SegmentResult>>),
}

/// What has become of a job.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// Its result is on the disk.
    Done {
        /// The job.
        key: ContentKey,
        /// Who computed it.
        worker: PeerId,
        /// Chunks of its result.
        chunks: u64,
        /// Tokens of its result.
        tokens: u64,
        /// Milliseconds that one thread spent on it.
        elapsed_ms: u64,
    },
    /// It has failed for good.
    Dead {
        /// The job.
        key: ContentKey,
        /// Why.
        reason: String,
    },
    /// The node can not compute.
    NoCompute {
        /// Why.
        reason: String,
    },
    /// Somebody cancelled all.
    Cancelled,
    /// The node ends.
    Stopping,
}
