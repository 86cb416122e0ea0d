//! What a worker has done and has to do, in numbers.

use std::time::Duration;

use super::Worker;
use crate::proto::QueueCounts;

/// Numbers for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCounts {
    /// The queue.
    pub queue: QueueCounts,
    /// Threads that compute for others.
    pub threads: usize,
    /// Their speed together; 0 where it is not known.
    pub tokens_per_s: u32,
    /// Jobs computed for others since the start.
    pub jobs_done: u64,
    /// Jobs of others that failed here since the start.
    pub jobs_failed: u64,
    /// Tokens computed for others since the start.
    pub tokens_done: u64,
    /// CPU time of the compute threads for others since the start.
    pub cpu: Duration,
    /// The model does not load; it is tried again.
    pub is_broken: bool,
    /// There is no room for the model in memory.
    pub is_short_of_memory: bool,
}

impl Worker {
    pub(super) fn numbers(&self) -> WorkerCounts {
        WorkerCounts {
            queue: self.queue.counts(),
            threads: self.threads,
            tokens_per_s: self.tokens_per_s(),
            cpu: self.valve.cpu(),
            is_broken: self.broken.is_some(),
            is_short_of_memory: self.is_short_of_memory(),
            ..self.counts
        }
    }
}
