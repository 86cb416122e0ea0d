//! How often peers may ask to be let in or renewed: each such question costs signatures to check, and whoever has a key may
//! put it.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use crate::{
    proto::{RateLimit, Timestamp},
    wire::PeerId,
};

/// A peer may ask once in so long …
const PEER_PER: Duration = Duration::from_secs(5);
/// … after so many at once: one for each swarm in which it lags, or to which it has a ticket.
const PEER_BURST: u32 = 16;
/// A member may tell of its own demand once in so long …
const TOLD_PER: Duration = Duration::from_secs(1);
/// … after so many at once: a script runs one short command after the other, each a beginning and an end.
const TOLD_BURST: u32 = 32;
/// Peers that are remembered: as many as are connected, and those that come back in the minutes of a bucket.
const PEERS_MAX: usize = 1024;
/// All strangers together ask once in so long: ten times a second, each with three signatures of 0.3 ms on a Pi, are a
/// hundredth of one core.
const STRANGERS_PER: Duration = Duration::from_millis(100);
/// At once, as when a class joins with one ticket.
const STRANGERS_BURST: u32 = 64;
/// Who must wait is not told less: many who do come back together.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Counts the questions.
#[derive(Debug)]
pub(super) struct Doors {
    begun: Instant,
    limits: RefCell<Limits>,
}

#[derive(Debug)]
struct Limits {
    peers: RateLimit<PeerId>,
    told: RateLimit<PeerId>,
    /// A stranger's keys cost it nothing.
    strangers: RateLimit<()>,
}

impl Doors {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), limits: RefCell::new(Limits::new()) }
    }

    /// Counts a question, or says when to come again.
    pub(super) fn enter(&self, peer: PeerId, is_member: bool) -> Result<(), Duration> {
        let now = Timestamp::from_ms(self.begun.elapsed().as_millis() as u64);
        self.limits.borrow_mut().enter(now, peer, is_member)
    }

    /// Counts what a member tells of its demand, or says when to come again.
    pub(super) fn hear(&self, peer: PeerId) -> Result<(), Duration> {
        let now = Timestamp::from_ms(self.begun.elapsed().as_millis() as u64);
        self.limits.borrow_mut().told.allow(now, peer).map_err(|wait| wait.max(WAIT_MIN))
    }
}

impl Limits {
    fn new() -> Self {
        Self {
            peers: RateLimit::new(PEER_PER, PEER_BURST, PEERS_MAX),
            told: RateLimit::new(TOLD_PER, TOLD_BURST, PEERS_MAX),
            strangers: RateLimit::new(STRANGERS_PER, STRANGERS_BURST, 1),
        }
    }

    fn enter(&mut self, now: Timestamp, peer: PeerId, is_member: bool) -> Result<(), Duration> {
        // In this order: one that asks too often does not take from what others may.
        let allowed = self.peers.allow(now, peer);
        let allowed = allowed.and_then(|()| if is_member { Ok(()) } else { self.strangers.allow(now, ()) });
        allowed.map_err(|wait| wait.max(WAIT_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_is_bounded_and_so_are_all_strangers() {
        let mut limits = Limits::new();
        let peer = |n: u32| PeerId::from_bytes(std::array::from_fn(|at| n.to_le_bytes()[at % 4]));
        let now = Timestamp::default();
        let one = (0..1000).filter(|_| limits.enter(now, peer(0), false).is_ok()).count();
        assert_eq!(one, 16);
        assert_eq!(limits.enter(now, peer(0), false), Err(Duration::from_secs(5)));
        let others = (1..1000).filter(|&n| limits.enter(now, peer(n), false).is_ok()).count();
        assert_eq!(others, 64 - 16, "many keys do not help");
        assert_eq!(limits.enter(now, peer(1000), false), Err(WAIT_MIN));
        assert_eq!(limits.enter(now, peer(2000), true), Ok(()), "strangers keep no member out");
        assert_eq!(limits.enter(now.after(STRANGERS_PER), peer(2001), false), Ok(()));
    }
}
