//! When a reading is made, by the clocks that `node` hands in, so that a test is exact.

use std::time::Duration;

/// One moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since the machine started, without the time it slept: `CLOCK_MONOTONIC`, by which logind counts too.
    pub monotonic: Duration,
    /// Milliseconds since 1970, or `None` where the clock is plainly unset.
    pub wall_ms: Option<u64>,
    /// The newest wall clock that the store holds, in milliseconds since 1970: a clock behind it is unset as well.
    pub newest_ms: u64,
}

impl Moment {
    /// Milliseconds since 1970 by a clock that can be believed.
    pub(super) fn believed_ms(&self) -> Option<u64> {
        self.wall_ms.filter(|&ms| ms >= self.newest_ms)
    }
}

#[cfg(test)]
impl Moment {
    /// So many milliseconds after the machine's start, the clock at 2027-01-15 08:00 UTC then.
    pub(super) fn at_ms(ms: u64) -> Self {
        Self { monotonic: Duration::from_millis(ms), wall_ms: Some(1_800_000_000_000 + ms), newest_ms: 0 }
    }
}
