//! The wall clock, where there is one.

use std::time::{SystemTime, UNIX_EPOCH};

/// No edge ran before this: 2026-11-01. A Pi without a clock battery boots in 1970, or at the date of its
/// last shutdown.
const EARLIEST_MS: u64 = 1_793_491_200_000;

/// Milliseconds since 1970, or `None` where the clock is plainly unset.
pub fn wall_clock_ms() -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().filter(|&ms| ms >= EARLIEST_MS)
}
