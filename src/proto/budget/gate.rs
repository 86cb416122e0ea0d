//! A gate that one cause closes: at once, and open again only when the cause has been gone for a while.
//!
//! Deliberately absent: what the cause is. The margin between closing and opening is in the verdict, the while is the
//! gate's: together they bound how often a signal that swings about its threshold can start and stop work.

use std::time::Duration;

use super::{Cause, Reason, Timestamp};

/// What a rule makes of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Work must not be.
    Over(Cause),
    /// Too close to the limit to begin again; no reason to stop.
    Near(Cause),
    /// Nothing speaks against it.
    Clear,
}

/// One gate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate {
    /// Why it is closed.
    cause: Option<Cause>,
    clear_since: Option<Timestamp>,
    /// How long the cause must have been gone.
    dwell: Duration,
}

impl Gate {
    pub(super) fn new(dwell: Duration) -> Self {
        Self { cause: None, clear_since: None, dwell }
    }

    pub(super) fn is_open(&self) -> bool {
        self.cause.is_none()
    }

    pub(super) fn judge(&mut self, now: Timestamp, verdict: Verdict) {
        match verdict {
            Verdict::Over(cause) => (self.cause, self.clear_since) = (Some(cause), None),
            Verdict::Near(_) if self.cause.is_none() => {}
            // The last word on why it is closed, with the number of now.
            Verdict::Near(cause) => (self.cause, self.clear_since) = (Some(cause), None),
            Verdict::Clear if self.cause.is_none() => {}
            Verdict::Clear => {
                let since = *self.clear_since.get_or_insert(now);
                if now.since(since) >= self.dwell {
                    (self.cause, self.clear_since) = (None, None);
                }
            }
        }
    }

    /// Begins to wait anew: nobody looked for a while.
    pub(super) fn restart(&mut self) {
        self.clear_since = None;
    }

    /// When it opens, unless its cause comes back.
    pub(super) fn opens_at(&self) -> Option<Timestamp> {
        self.clear_since.map(|since| since.after(self.dwell))
    }

    /// Why it is closed.
    pub(super) fn reason(&self, now: Timestamp) -> Option<Reason> {
        let settles_in_s = self.opens_at().map(|at| at.since(now).as_millis().div_ceil(1000));
        let settles_in_s = settles_in_s.map(|s| u64::try_from(s).unwrap_or(u64::MAX));
        self.cause.map(|cause| Reason { cause, settles_in_s })
    }
}
