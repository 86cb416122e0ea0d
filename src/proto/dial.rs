//! Whom to dial next, and when again: addresses that were seen, told, remembered or given, each with its backoff.
//!
//! Deliberately absent: dialling. The book is bounded; what was never reached makes room first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::{Backoff, Timestamp};
use crate::wire::PeerId;

/// Addresses that are known at most.
pub const TARGETS_MAX: usize = 512;
/// Dials under way at once.
const DIALS_MAX: usize = 8;
/// Before an address that did not answer is tried again.
const AGAIN: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) };
/// Before an address where nobody of ours lives is tried again: swarms change seldom, and when ours do, all are tried.
const STRANGER_AGAIN: Duration = Duration::from_secs(600);
/// Failures after which an address that others told of is forgotten.
const FAILURES_MAX: u32 = 6;

/// Where an address comes from; the first ones are never forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Its owner named it.
    Bootstrap,
    /// It stands in a ticket.
    Ticket,
    /// It was reached before.
    Remembered,
    /// It announces itself on this network.
    Lan,
    /// A member told of it.
    Told,
}

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// A peer that shares something with us; while it is connected its addresses rest.
    Member(PeerId),
    /// A peer that shares nothing with us.
    Stranger(PeerId),
    /// This node itself.
    Oneself,
    /// Nobody.
    Failed,
}

#[derive(Clone, Debug)]
struct Target {
    expected: Option<PeerId>,
    origin: Origin,
    /// Addresses of one node share it: one of them is dialled at a time.
    node: Option<u64>,
    failures: u32,
    not_before: Timestamp,
    is_dialling: bool,
}

/// The book of addresses.
#[derive(Debug)]
pub struct Dialer {
    me: PeerId,
    targets: BTreeMap<SocketAddr, Target>,
    connected: BTreeSet<PeerId>,
    rng: fastrand::Rng,
}

impl Dialer {
    /// An empty book of this node.
    pub fn new(me: PeerId, seed: u64) -> Self {
        Self { me, targets: BTreeMap::new(), connected: BTreeSet::new(), rng: fastrand::Rng::with_seed(seed) }
    }

    /// Takes note of an address. One that is known is due at once where it announces itself anew.
    pub fn learn(&mut self, now: Timestamp, address: SocketAddr, expected: Option<PeerId>, origin: Origin) {
        if expected == Some(self.me) {
            return;
        }
        if let Some(known) = self.targets.get_mut(&address) {
            // What others tell does not overrule what its owner gave.
            let is_trusted = origin <= known.origin || known.expected.is_none();
            known.origin = known.origin.min(origin);
            if is_trusted && expected.is_some() && known.expected != expected {
                (known.expected, known.failures, known.not_before) = (expected, 0, now);
            } else if origin == Origin::Lan && known.failures > 0 {
                (known.failures, known.not_before) = (0, now);
            }
            return;
        }
        if self.targets.len() >= TARGETS_MAX {
            let removable = self
                .targets
                .iter()
                .filter(|(_, target)| target.origin >= Origin::Remembered && !target.is_dialling);
            let worst = removable.max_by_key(|(_, target)| (target.failures, target.origin));
            let Some(address) = worst.map(|(&address, _)| address) else { return };
            self.targets.remove(&address);
        }
        let target =
            Target { expected, origin, node: None, failures: 0, not_before: now, is_dialling: false };
        self.targets.insert(address, target);
    }

    /// Takes note of a node that announces itself, and of all its addresses: they are dialled one after the other.
    /// `node` is any number that stands for it alone.
    pub fn sighted(&mut self, now: Timestamp, node: u64, addresses: &[SocketAddr]) {
        for &address in addresses {
            self.learn(now, address, None, Origin::Lan);
            if let Some(target) = self.targets.get_mut(&address) {
                target.node = Some(node);
            }
        }
    }

    /// Addresses to dial now, and whom to expect there; they count as being dialled until [`Dialer::ended`].
    pub fn due(&mut self, now: Timestamp) -> Vec<(SocketAddr, Option<PeerId>)> {
        let dialling = self.targets.values().filter(|target| target.is_dialling).count();
        let mut busy = self.busy();
        let mut due = Vec::new();
        for (&address, target) in &mut self.targets {
            if due.len() + dialling >= DIALS_MAX {
                break;
            }
            let is_connected = target.expected.is_some_and(|peer| self.connected.contains(&peer));
            let is_busy = target.is_dialling || target.node.is_some_and(|node| busy.contains(&node));
            if !is_busy && !is_connected && target.not_before <= now {
                target.is_dialling = true;
                busy.extend(target.node);
                due.push((address, target.expected));
            }
        }
        due
    }

    /// When [`Dialer::due`] has something new at the earliest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let busy = self.busy();
        let is_waiting = |target: &&Target| {
            !target.is_dialling
                && target.expected.is_none_or(|peer| !self.connected.contains(&peer))
                && target.node.is_none_or(|node| !busy.contains(&node))
        };
        let dialling = self.targets.values().filter(|target| target.is_dialling).count();
        if dialling >= DIALS_MAX {
            return None;
        }
        self.targets.values().filter(is_waiting).map(|target| target.not_before).min()
    }

    /// Nodes of which an address is being dialled.
    fn busy(&self) -> BTreeSet<u64> {
        self.targets.values().filter(|target| target.is_dialling).filter_map(|target| target.node).collect()
    }

    /// A dial has ended.
    pub fn ended(&mut self, now: Timestamp, address: &SocketAddr, how: Dialled) {
        let Some(target) = self.targets.get_mut(address) else { return };
        target.is_dialling = false;
        if let (Some(node), Dialled::Member(_) | Dialled::Stranger(_)) = (target.node, how) {
            // The other addresses lead to the same peer.
            let others = self.targets.values_mut().filter(|other| other.node == Some(node));
            for other in others {
                match how {
                    Dialled::Member(peer) => other.expected = Some(peer),
                    _ => other.not_before = now.after(STRANGER_AGAIN),
                }
            }
        }
        let Some(target) = self.targets.get_mut(address) else { return };
        match how {
            Dialled::Member(peer) => {
                target.expected = Some(peer);
                target.failures = 0;
                target.not_before = now;
                self.connected.insert(peer);
            }
            Dialled::Stranger(peer) => {
                // Its key is no promise: whoever sits there next week may be one of ours.
                target.expected = None;
                target.failures = 0;
                target.not_before = now.after(STRANGER_AGAIN);
                let _ = peer;
            }
            Dialled::Oneself => {
                self.targets.remove(address);
            }
            Dialled::Failed => {
                target.failures += 1;
                target.not_before = now.after(AGAIN.wait(target.failures, &mut self.rng));
                if target.origin >= Origin::Remembered && target.failures >= FAILURES_MAX {
                    self.targets.remove(address);
                }
            }
        }
    }

    /// A peer is connected, whoever dialled.
    pub fn connected(&mut self, peer: PeerId) {
        self.connected.insert(peer);
    }

    /// A peer is not connected any more; its addresses are due after a moment, so that both ends do not dial at once.
    pub fn lost(&mut self, now: Timestamp, peer: &PeerId) {
        self.connected.remove(peer);
        for target in self.targets.values_mut().filter(|target| target.expected == Some(*peer)) {
            target.not_before = now.after(AGAIN.wait(1, &mut self.rng));
        }
    }

    /// An address is announced no more.
    pub fn forget(&mut self, address: &SocketAddr) {
        if self.targets.get(address).is_some_and(|target| target.origin == Origin::Lan && !target.is_dialling)
        {
            self.targets.remove(address);
        }
    }

    /// Our swarms have changed: a stranger may be one of ours now.
    pub fn retry_all(&mut self, now: Timestamp) {
        for target in self.targets.values_mut() {
            target.not_before = target.not_before.min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(seconds * 1000)
    }

    #[test]
    fn a_member_rests_until_it_is_lost() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), None, Origin::Lan);
        assert_eq!(dialer.due(at(0)), [(address(1), None)]);
        assert_eq!(dialer.due(at(0)), [], "it is being dialled");
        dialer.ended(at(1), &address(1), Dialled::Member(peer(1)));
        assert_eq!(dialer.due(at(1000)), []);
        assert_eq!(dialer.next_deadline(), None);
        dialer.lost(at(1000), &peer(1));
        assert_eq!(dialer.due(at(1010)), [(address(1), Some(peer(1)))]);
    }

    #[test]
    fn one_address_of_a_node_is_dialled_at_a_time() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.sighted(at(0), 7, &[address(1), address(2)]);
        dialer.sighted(at(0), 8, &[address(3)]);
        assert_eq!(dialer.due(at(0)), [(address(1), None), (address(3), None)]);
        dialer.ended(at(1), &address(1), Dialled::Failed);
        assert_eq!(dialer.due(at(1)), [(address(2), None)], "the next one");
        dialer.ended(at(2), &address(2), Dialled::Member(peer(1)));
        assert_eq!(dialer.due(at(100)), [], "the other one leads to the same peer");
        dialer.ended(at(2), &address(3), Dialled::Stranger(peer(2)));
        assert_eq!(dialer.due(at(100)), []);
    }

    #[test]
    fn strangers_are_left_alone_until_our_swarms_change() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), None, Origin::Lan);
        dialer.due(at(0));
        dialer.ended(at(0), &address(1), Dialled::Stranger(peer(1)));
        dialer.learn(at(5), address(1), None, Origin::Lan);
        assert_eq!(dialer.due(at(599)), []);
        dialer.retry_all(at(599));
        assert_eq!(dialer.due(at(599)), [(address(1), None)]);
    }

    #[test]
    fn what_does_not_answer_is_tried_less_and_less_and_what_was_told_forgotten() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), Some(peer(1)), Origin::Told);
        dialer.learn(at(0), address(2), Some(peer(2)), Origin::Bootstrap);
        let (mut now, mut tries) = (0, 0);
        while now < 10_000 {
            for (address, _) in dialer.due(at(now)) {
                dialer.ended(at(now), &address, Dialled::Failed);
                tries += 1;
            }
            now += 1;
        }
        assert!((20..400).contains(&tries), "{tries}");
        assert!(!dialer.targets.contains_key(&address(1)));
        assert!(dialer.targets.contains_key(&address(2)));
    }

    #[test]
    fn the_book_is_bounded_and_keeps_what_its_owner_gave() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), None, Origin::Bootstrap);
        for n in 0..2000 {
            dialer.learn(at(0), address(100 + n), None, Origin::Told);
        }
        assert_eq!(dialer.targets.len(), TARGETS_MAX);
        assert!(dialer.targets.contains_key(&address(1)));
        assert_eq!(dialer.due(at(0)).len(), DIALS_MAX);
        assert_eq!(dialer.due(at(0)).len(), 0);
        dialer.learn(at(0), address(1), Some(peer(0)), Origin::Told);
        dialer.ended(at(0), &address(1), Dialled::Oneself);
        assert!(!dialer.targets.contains_key(&address(1)), "nobody dials itself twice");
    }
}
