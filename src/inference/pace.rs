//! When a compute thread may go on, and how much at a time.
//!
//! Deliberately absent: why. Whoever lends a machine bounds what runs on it; see `node`.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{BATCH_TOKENS_MAX, MakePace, Stop};

/// What one compute thread asks before it begins something, and tells when that has ended.
pub trait Pace: Send {
    /// Waits until this thread may compute, or until `stop` is asked. Gives how many tokens a batch may have.
    fn enter(&mut self, stop: &Stop) -> usize;

    /// What has been computed since: so many tokens, in so much of this thread's CPU time.
    fn leave(&mut self, tokens: usize, cpu: Duration);
}

/// As fast as it goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpaced;

impl Pace for Unpaced {
    fn enter(&mut self, _: &Stop) -> usize {
        BATCH_TOKENS_MAX
    }

    fn leave(&mut self, _: usize, _: Duration) {}
}

/// As fast as it goes, for every thread.
pub fn unpaced() -> Arc<MakePace> {
    Arc::new(|| Box::new(Unpaced))
}

/// CPU time of the calling thread since it began.
pub(super) fn thread_cpu() -> Duration {
    let at = clock_gettime(ClockId::ThreadCPUTime);
    // The kernel gives neither below zero.
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}
