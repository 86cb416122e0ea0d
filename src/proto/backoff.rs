//! How long to wait before another try: exponential with full jitter, so that those who failed together do not come
//! back together (Brooker, "Exponential Backoff And Jitter", AWS 2015).

use std::time::Duration;

/// Limits of the wait.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The most that the first wait may be.
    pub base: Duration,
    /// The most that any wait may be.
    pub cap: Duration,
}

impl Backoff {
    /// A wait after `failures` failures in a row: uniform between nothing and `base * 2^(failures - 1)`, `cap` at most.
    pub fn wait(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let most = self.base.saturating_mul(1 << doublings).min(self.cap);
        Duration::from_millis(rng.u64(0..=u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_are_spread() {
        let backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) };
        let mut rng = fastrand::Rng::with_seed(7);
        for (failures, most_ms) in
            [(0, 500), (1, 500), (2, 1000), (7, 32_000), (8, 60_000), (u32::MAX, 60_000)]
        {
            let waits: Vec<u64> =
                (0..1000).map(|_| backoff.wait(failures, &mut rng).as_millis() as u64).collect();
            assert!(waits.iter().all(|&ms| ms <= most_ms), "{failures}");
            let mean = waits.iter().sum::<u64>() / 1000;
            assert!((most_ms * 4 / 10..=most_ms * 6 / 10).contains(&mean), "{failures}: {mean}");
        }
    }
}
