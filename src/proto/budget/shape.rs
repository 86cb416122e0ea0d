//! How much runs while work runs: threads and duty, from the owner's share, the cores and the cgroup's quota.
//!
//! Deliberately absent: whether work runs at all, which is for the gates.

use std::time::Duration;

use super::{Share, Timestamp};

/// How long there must have been room for more before more is taken.
const RISE: Duration = Duration::from_secs(10);

/// Threads and duty as they are granted. They fall at once and rise when they could have for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    granted: Share,
    rises_since: Option<Timestamp>,
}

impl Shape {
    pub(super) fn new() -> Self {
        Self { granted: Share { threads: 0, duty_permille: 0 }, rises_since: None }
    }

    pub(super) fn granted(&self) -> Share {
        self.granted
    }

    /// Takes what may be granted now. What is granted never exceeds it, neither in threads nor in duty.
    pub(super) fn aim(&mut self, now: Timestamp, target: Share, is_running: bool) {
        if !is_running {
            // Nothing runs that could be disturbed.
            (self.granted, self.rises_since) = (target, None);
            return;
        }
        let least = Share {
            threads: target.threads.min(self.granted.threads),
            duty_permille: target.duty_permille.min(self.granted.duty_permille),
        };
        if work(least) >= work(target) {
            (self.granted, self.rises_since) = (target, None);
            return;
        }
        if work(least) < work(self.granted) {
            // What falls has not settled, even where there is room for more of the other kind.
            self.rises_since = None;
        }
        let since = *self.rises_since.get_or_insert(now);
        let has_settled = now.since(since) >= RISE;
        self.granted = if has_settled { target } else { least };
        self.rises_since = self.rises_since.filter(|_| !has_settled);
    }

    /// When more is granted, unless there is no room for it by then.
    pub(super) fn rises_at(&self) -> Option<Timestamp> {
        self.rises_since.map(|since| since.after(RISE))
    }
}

/// What of a share there is on so many cores under so much quota: the least threads that can use the quota up, so that half
/// a core is one thread at half its time.
pub(super) fn fit(share: Share, cores: u16, quota_permille: Option<u32>) -> Share {
    let mut threads = if share.threads == 0 { cores } else { share.threads.min(cores) };
    let mut duty_permille = share.duty_permille.min(1000);
    if let Some(quota) = quota_permille.filter(|&quota| quota > 0) {
        threads = threads.min(u16::try_from(quota.div_ceil(1000)).unwrap_or(u16::MAX));
        let each = quota / u32::from(threads.max(1));
        duty_permille = duty_permille.min(u16::try_from(each).unwrap_or(u16::MAX));
    }
    Share { threads, duty_permille }
}

fn work(share: Share) -> u32 {
    u32::from(share.threads) * u32::from(share.duty_permille)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(threads: u16, duty_permille: u16) -> Share {
        Share { threads, duty_permille }
    }

    #[test]
    fn a_quota_is_used_up_by_the_fewest_threads() {
        for (quota, expected) in [
            (None, share(4, 1000)),
            (Some(500), share(1, 500)),
            (Some(1), share(1, 1)),
            (Some(1000), share(1, 1000)),
            (Some(1500), share(2, 750)),
            (Some(2500), share(3, 833)),
            (Some(64_000), share(4, 1000)),
            (Some(u32::MAX), share(4, 1000)),
        ] {
            assert_eq!(fit(Share::ALL, 4, quota), expected, "{quota:?}");
        }
        assert_eq!(fit(share(8, 300), 4, Some(2000)), share(2, 300), "the owner's share holds as well");
        assert_eq!(fit(share(1, 500), 4, Some(800)), share(1, 500));
    }

    #[test]
    fn less_is_at_once_and_more_after_a_while() {
        let (mut shape, at) = (Shape::new(), |s: u64| Timestamp::from_ms(s * 1000));
        shape.aim(at(0), share(4, 1000), false);
        assert_eq!(shape.granted(), share(4, 1000), "nothing runs yet");
        shape.aim(at(1), share(1, 500), true);
        assert_eq!(shape.granted(), share(1, 500));
        shape.aim(at(2), share(4, 1000), true);
        assert_eq!((shape.granted(), shape.rises_at()), (share(1, 500), Some(at(12))));
        shape.aim(at(11), share(1, 500), true);
        shape.aim(at(12), share(4, 1000), true);
        assert_eq!(shape.granted(), share(1, 500), "it did not last");
        shape.aim(at(22), share(4, 1000), true);
        assert_eq!((shape.granted(), shape.rises_at()), (share(4, 1000), None));
        shape.aim(at(23), share(1, 1000), true);
        shape.aim(at(24), share(8, 1000), true);
        shape.aim(at(30), share(8, 400), true);
        assert_eq!(shape.granted(), share(1, 400), "more work, but neither more threads nor more duty");
        assert_eq!(shape.rises_at(), Some(at(40)), "what falls settles anew");
    }
}
