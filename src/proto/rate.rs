//! How often somebody may ask: a token bucket a key, in a book that does not grow.
//!
//! Deliberately absent: clocks, and what is asked for. Keys cost a peer nothing, so a limit a key bounds one peer only; what
//! all of them together may cost is a second limit, with the key `()`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Timestamp;

/// Token buckets by key. Each holds `burst` tokens, and one more is there every `per` until it is full.
///
/// A bucket is the time at which it is full again (the generic cell rate algorithm, ITU-T I.371): nothing else needs to
/// be known of it, and who is not in the book has a full one.
#[derive(Clone, Debug)]
pub struct RateLimit<K> {
    per: Duration,
    burst: u32,
    keys_max: usize,
    full_at: BTreeMap<K, Timestamp>,
    in_order: BTreeSet<(Timestamp, K)>,
}

impl<K: Ord + Copy> RateLimit<K> {
    /// Buckets of `burst` tokens, at least one, of which one comes back every `per`, in whole milliseconds; `keys_max` are known at most, at
    /// least one. Where there are more the fullest is forgotten, which gives its key the few tokens that it had spent.
    pub fn new(per: Duration, burst: u32, keys_max: usize) -> Self {
        let (burst, keys_max) = (burst.max(1), keys_max.max(1));
        Self { per, burst, keys_max, full_at: BTreeMap::new(), in_order: BTreeSet::new() }
    }

    /// Takes a token of this key.
    ///
    /// # Errors
    /// How long until there is one; nothing was taken.
    pub fn allow(&mut self, now: Timestamp, key: K) -> Result<(), Duration> {
        let full_at = self.full_at.get(&key).copied().unwrap_or(now).max(now);
        let spent_max = self.per.saturating_mul(self.burst - 1);
        if let Some(wait) = full_at.since(now).checked_sub(spent_max).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.set(now, key, full_at.after(self.per));
        Ok(())
    }

    fn set(&mut self, now: Timestamp, key: K, full_at: Timestamp) {
        if let Some(before) = self.full_at.insert(key, full_at) {
            self.in_order.remove(&(before, key));
        }
        // Whose bucket is full need not be known.
        while let Some(&(at, full)) = self.in_order.first()
            && (at <= now || self.in_order.len() >= self.keys_max)
        {
            self.in_order.pop_first();
            self.full_at.remove(&full);
        }
        self.in_order.insert((full_at, key));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(seconds * 1000)
    }

    #[test]
    fn a_burst_and_then_one_every_so_often() {
        let mut limit = RateLimit::new(Duration::from_secs(10), 3, 8);
        for _ in 0..3 {
            assert_eq!(limit.allow(at(0), 'a'), Ok(()));
        }
        assert_eq!(limit.allow(at(0), 'a'), Err(Duration::from_secs(10)));
        assert_eq!(
            limit.allow(at(4), 'a'),
            Err(Duration::from_secs(6)),
            "who asks in vain waits no longer for it"
        );
        assert_eq!(limit.allow(at(4), 'b'), Ok(()), "each key for itself");
        assert_eq!(limit.allow(at(10), 'a'), Ok(()));
        assert_eq!(limit.allow(at(10), 'a'), Err(Duration::from_secs(10)));
        for _ in 0..3 {
            assert_eq!(limit.allow(at(1000), 'a'), Ok(()), "no more than a burst is saved up");
        }
        assert!(limit.allow(at(1000), 'a').is_err());
    }

    #[test]
    fn the_fullest_bucket_makes_room() {
        let mut limit = RateLimit::new(Duration::from_secs(10), 2, 2);
        limit.allow(at(0), 1).unwrap();
        limit.allow(at(0), 1).unwrap();
        limit.allow(at(0), 2).unwrap();
        limit.allow(at(0), 3).unwrap();
        assert!(limit.allow(at(0), 1).is_err(), "who has spent most is remembered longest");
        assert_eq!(limit.full_at.keys().copied().collect::<Vec<_>>(), [1, 3]);
        limit.allow(at(30), 4).unwrap();
        assert_eq!(limit.full_at.len(), 1, "whose bucket is full again is forgotten");
    }

    #[test]
    fn what_makes_no_sense_still_lets_one_through() {
        let mut limit = RateLimit::new(Duration::MAX, 0, 0);
        assert_eq!(limit.allow(at(1), ()), Ok(()));
        assert!(limit.allow(at(1), ()).is_err());
        let mut none = RateLimit::new(Duration::ZERO, 1, 1);
        assert!((0..100).all(|_| none.allow(at(1), ()).is_ok()));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_never_more_keys(
            asks in proptest::collection::vec((0u64..2000, 0u8..6), 1..200),
            burst in 1u32..5,
            keys_max in 6usize..9,
        ) {
            let per = Duration::from_millis(500);
            let mut limit = RateLimit::new(per, burst, keys_max);
            let (mut now, mut taken) = (Timestamp::default(), BTreeMap::<u8, Vec<Timestamp>>::new());
            for (later, key) in asks {
                now = now.after(Duration::from_millis(later));
                if limit.allow(now, key).is_ok() {
                    taken.entry(key).or_default().push(now);
                }
                prop_assert!(limit.full_at.len() <= keys_max);
                prop_assert_eq!(limit.full_at.len(), limit.in_order.len());
            }
            for times in taken.values() {
                for (first, &from) in times.iter().enumerate() {
                    for (more, until) in times[first..].iter().enumerate() {
                        let earned = (until.since(from).as_millis() / per.as_millis()) as usize;
                        prop_assert!(more < burst as usize + earned, "{} in {:?}", more + 1, until.since(from));
                    }
                }
            }
        }
    }
}
