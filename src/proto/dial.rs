//! Whom to dial next, and when again: addresses that were seen, told, remembered or given, each with its backoff.
//!
//! Deliberately absent: dialling, and how many links are wanted, which [`Neighbours`](super::Neighbours) says. What its
//! owner named, and who is wished for, is dialled in any case. The book is bounded; what was never reached makes room first.

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
/// Addresses of members that were met once and do not answer any more, which are tried now and then all the same: both
/// halves of a swarm that was cut for an hour would else have forgotten each other.
const SELDOM_MAX: usize = 16;
/// How often, at the most; at the least half as often.
const SELDOM: Duration = Duration::from_secs(1800);
/// Before a peer is dialled again that needs us no more, or that we do not need.
const REST: Duration = Duration::from_secs(600);

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
    /// Somebody lives there who shares nothing with us.
    is_stranger: bool,
    /// It is dialled though no link is wanted.
    is_wished: bool,
}

/// The book of addresses.
#[derive(Debug)]
pub struct Dialer {
    me: PeerId,
    targets: BTreeMap<SocketAddr, Target>,
    connected: BTreeSet<PeerId>,
    /// Peers that must be reached, whatever is wanted otherwise.
    needed: BTreeSet<PeerId>,
    rng: fastrand::Rng,
}

impl Dialer {
    /// An empty book of this node.
    pub fn new(me: PeerId, seed: u64) -> Self {
        let (connected, needed) = (BTreeSet::new(), BTreeSet::new());
        Self { me, targets: BTreeMap::new(), connected, needed, rng: fastrand::Rng::with_seed(seed) }
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
        let target = Target {
            expected,
            origin,
            node: None,
            failures: 0,
            not_before: now,
            is_dialling: false,
            is_stranger: false,
            is_wished: false,
        };
        self.targets.insert(address, target);
    }

    /// Has a peer dialled that has work, at the places where it was reached; the first ones are tried first.
    pub fn wish(&mut self, now: Timestamp, peer: PeerId, addresses: &[SocketAddr]) {
        for &address in addresses {
            self.learn(now, address, Some(peer), Origin::Told);
        }
        for target in self.targets.values_mut().filter(|target| target.expected == Some(peer)) {
            (target.is_wished, target.not_before) = (true, now);
        }
    }

    /// These peers are dialled in any case, where an address of theirs is known: we hold work of theirs.
    pub fn need(&mut self, peers: &BTreeSet<PeerId>) {
        if self.needed != *peers {
            self.needed.clone_from(peers);
        }
    }

    /// Whether it is dialled though no link is wanted.
    fn is_needed(&self, target: &Target) -> bool {
        let is_needed = target.expected.is_some_and(|peer| self.needed.contains(&peer));
        is_needed || target.is_wished || target.origin == Origin::Bootstrap
    }

    /// Whether a peer that was wished for may still be reached.
    pub fn is_trying(&self, peer: &PeerId) -> bool {
        let mut of_peer = self.targets.values().filter(|target| target.expected == Some(*peer));
        of_peer.any(|target| target.is_wished)
    }

    /// Whether this node's owner named an address of this peer.
    pub fn is_named(&self, peer: &PeerId) -> bool {
        let is_named = |target: &Target| target.expected == Some(*peer) && target.origin == Origin::Bootstrap;
        self.targets.values().any(is_named)
    }

    /// Peers that are members as far as is known, connected ones included.
    pub fn known(&self) -> usize {
        let (mut peers, mut nodes, mut others) = (self.connected.clone(), BTreeSet::new(), 0);
        for target in self.targets.values().filter(|target| !target.is_stranger) {
            match (target.expected, target.node) {
                (Some(peer), _) => {
                    peers.insert(peer);
                }
                (None, Some(node)) => {
                    nodes.insert(node);
                }
                (None, None) => others += 1,
            }
        }
        peers.len() + nodes.len() + others
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

    /// Addresses to dial now, and whom to expect there; they count as being dialled until [`Dialer::ended`]. At most
    /// `wanted` of them are such as need not be.
    pub fn due(&mut self, now: Timestamp, wanted: usize) -> Vec<(SocketAddr, Option<PeerId>)> {
        let dialling = self.targets.values().filter(|target| target.is_dialling);
        let room = DIALS_MAX.saturating_sub(dialling.clone().count());
        let mut wanted = wanted.saturating_sub(dialling.filter(|target| !self.is_needed(target)).count());
        let mut busy = self.busy();
        let is_ready = |target: &Target| {
            let is_connected = target.expected.is_some_and(|peer| self.connected.contains(&peer));
            !target.is_dialling && !is_connected && target.not_before <= now
        };
        let mut ready: Vec<SocketAddr> =
            self.targets.iter().filter(|(_, target)| is_ready(target)).map(|(at, _)| *at).collect();
        // Were all to begin with the lowest address, it would have all links.
        if ready.len() > wanted.min(room) {
            self.rng.shuffle(&mut ready);
        }
        let mut due = Vec::new();
        for address in ready {
            let Some(target) = self.targets.get(&address) else { continue };
            let is_busy = target.node.is_some_and(|node| busy.contains(&node));
            let is_needed = self.is_needed(target);
            if due.len() < room && !is_busy && (is_needed || wanted > 0) {
                wanted -= usize::from(!is_needed);
                let Some(target) = self.targets.get_mut(&address) else { continue };
                target.is_dialling = true;
                busy.extend(target.node);
                due.push((address, target.expected));
            }
        }
        due
    }

    /// When [`Dialer::due`] has something new at the earliest.
    pub fn next_deadline(&self, wanted: usize) -> Option<Timestamp> {
        let busy = self.busy();
        let dialling = self.targets.values().filter(|target| target.is_dialling);
        if dialling.clone().count() >= DIALS_MAX {
            return None;
        }
        let is_wanted = dialling.filter(|target| !self.is_needed(target)).count() < wanted;
        let is_waiting = |target: &&Target| {
            !target.is_dialling
                && (is_wanted || self.is_needed(target))
                && target.expected.is_none_or(|peer| !self.connected.contains(&peer))
                && target.node.is_none_or(|node| !busy.contains(&node))
        };
        self.targets.values().filter(is_waiting).map(|target| target.not_before).min()
    }

    /// Nodes of which an address is being dialled.
    fn busy(&self) -> BTreeSet<u64> {
        self.targets.values().filter(|target| target.is_dialling).filter_map(|target| target.node).collect()
    }

    /// A dial has ended. Gives back who was expected there.
    pub fn ended(&mut self, now: Timestamp, address: &SocketAddr, how: Dialled) -> Option<PeerId> {
        let is_seldom = |at: &SocketAddr, target: &Target| at != address && target.failures >= FAILURES_MAX;
        let seldom = self.targets.iter().filter(|(at, target)| is_seldom(at, target)).count();
        let target = self.targets.get_mut(address)?;
        let expected = target.expected;
        (target.is_dialling, target.is_wished) = (false, false);
        if let (Some(node), Dialled::Member(_) | Dialled::Stranger(_)) = (target.node, how) {
            // The other addresses lead to the same peer.
            let others = self.targets.values_mut().filter(|other| other.node == Some(node));
            for other in others {
                match how {
                    Dialled::Member(peer) => other.expected = Some(peer),
                    _ => (other.is_stranger, other.not_before) = (true, now.after(STRANGER_AGAIN)),
                }
            }
        }
        let target = self.targets.get_mut(address)?;
        match how {
            Dialled::Member(peer) => {
                target.expected = Some(peer);
                target.failures = 0;
                target.is_stranger = false;
                target.not_before = now;
                // It was met: it is worth more than what was only told.
                if target.origin == Origin::Told {
                    target.origin = Origin::Remembered;
                }
                self.connected.insert(peer);
            }
            Dialled::Stranger(_) => {
                // Its key is no promise: whoever sits there next week may be one of ours.
                target.expected = None;
                target.failures = 0;
                target.is_stranger = true;
                target.not_before = now.after(STRANGER_AGAIN);
            }
            Dialled::Oneself => {
                self.targets.remove(address);
            }
            Dialled::Failed => {
                target.failures += 1;
                target.not_before = now.after(AGAIN.wait(target.failures, &mut self.rng));
                if target.origin >= Origin::Remembered && target.failures >= FAILURES_MAX {
                    if target.origin == Origin::Remembered && seldom < SELDOM_MAX {
                        let longer = Duration::from_millis(self.rng.u64(0..=SELDOM.as_millis() as u64));
                        target.not_before = now.after(SELDOM + longer);
                    } else {
                        self.targets.remove(address);
                    }
                }
            }
        }
        expected
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

    /// A link was closed because it was not needed: its peer is not dialled at once, unless it is wished for.
    pub fn rest(&mut self, now: Timestamp, peer: &PeerId) {
        for target in self.targets.values_mut().filter(|target| target.expected == Some(*peer)) {
            target.not_before = now.after(REST);
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
            target.is_stranger = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;

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
        assert_eq!(dialer.due(at(0), ALL), [(address(1), None)]);
        assert_eq!(dialer.due(at(0), ALL), [], "it is being dialled");
        dialer.ended(at(1), &address(1), Dialled::Member(peer(1)));
        assert_eq!(dialer.due(at(1000), ALL), []);
        assert_eq!(dialer.next_deadline(ALL), None);
        dialer.lost(at(1000), &peer(1));
        assert_eq!(dialer.due(at(1010), ALL), [(address(1), Some(peer(1)))]);
    }

    #[test]
    fn one_address_of_a_node_is_dialled_at_a_time() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.sighted(at(0), 7, &[address(1), address(2)]);
        dialer.sighted(at(0), 8, &[address(3)]);
        assert_eq!(dialer.due(at(0), ALL), [(address(1), None), (address(3), None)]);
        dialer.ended(at(1), &address(1), Dialled::Failed);
        assert_eq!(dialer.due(at(1), ALL), [(address(2), None)], "the next one");
        dialer.ended(at(2), &address(2), Dialled::Member(peer(1)));
        assert_eq!(dialer.due(at(100), ALL), [], "the other one leads to the same peer");
        dialer.ended(at(2), &address(3), Dialled::Stranger(peer(2)));
        assert_eq!(dialer.due(at(100), ALL), []);
    }

    #[test]
    fn strangers_are_left_alone_until_our_swarms_change() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), None, Origin::Lan);
        dialer.due(at(0), ALL);
        dialer.ended(at(0), &address(1), Dialled::Stranger(peer(1)));
        dialer.learn(at(5), address(1), None, Origin::Lan);
        assert_eq!(dialer.due(at(599), ALL), []);
        dialer.retry_all(at(599));
        assert_eq!(dialer.due(at(599), ALL), [(address(1), None)]);
    }

    #[test]
    fn what_does_not_answer_is_tried_less_and_less_and_what_was_told_forgotten() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), Some(peer(1)), Origin::Told);
        dialer.learn(at(0), address(2), Some(peer(2)), Origin::Bootstrap);
        let (mut now, mut tries) = (0, 0);
        while now < 10_000 {
            for (address, _) in dialer.due(at(now), ALL) {
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
    fn no_more_are_dialled_than_are_wanted_but_those_that_must_be() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), Some(peer(1)), Origin::Bootstrap);
        for n in 2..10 {
            dialer.learn(at(0), address(n), Some(peer(n as u8)), Origin::Told);
        }
        assert_eq!(dialer.known(), 9);
        assert_eq!(dialer.due(at(0), 0), [(address(1), Some(peer(1)))]);
        assert_eq!(dialer.next_deadline(0), None);
        assert_eq!(dialer.due(at(0), 2).len(), 2);
        assert_eq!(dialer.due(at(0), 2).len(), 0, "two are being dialled");
        let wished = (2..10).find(|n| !dialer.targets[&address(*n)].is_dialling).unwrap();
        dialer.wish(at(5), peer(wished as u8), &[address(wished)]);
        assert_eq!(dialer.due(at(5), 0), [(address(wished), Some(peer(wished as u8)))]);
        assert!(dialer.is_trying(&peer(wished as u8)));
        dialer.ended(at(6), &address(wished), Dialled::Failed);
        assert!(!dialer.is_trying(&peer(wished as u8)));
        assert!(dialer.is_named(&peer(1)) && !dialer.is_named(&peer(2)));
    }

    #[test]
    fn whose_link_was_not_needed_rests_until_it_is_wished_for() {
        let mut dialer = Dialer::new(peer(0), 1);
        dialer.learn(at(0), address(1), Some(peer(1)), Origin::Told);
        dialer.due(at(0), ALL);
        dialer.ended(at(0), &address(1), Dialled::Member(peer(1)));
        dialer.lost(at(9), &peer(1));
        dialer.rest(at(9), &peer(1));
        assert_eq!(dialer.due(at(600), ALL), []);
        dialer.wish(at(600), peer(1), &[]);
        assert_eq!(dialer.due(at(600), ALL), [(address(1), Some(peer(1)))]);
    }

    #[test]
    fn who_was_met_once_is_tried_now_and_then() {
        let mut dialer = Dialer::new(peer(0), 1);
        for n in 0..40 {
            dialer.learn(at(0), address(n), Some(peer(n as u8 + 1)), Origin::Remembered);
        }
        let (mut tries, mut now) = (0, 0);
        while now < 86_400 {
            for (address, _) in dialer.due(at(now), ALL) {
                dialer.ended(at(now), &address, Dialled::Failed);
                tries += u32::from(now > 43_200);
            }
            now += 1;
        }
        assert_eq!(dialer.targets.len(), SELDOM_MAX);
        // 16 addresses, each 12 to 24 times in 12 hours.
        assert!((190..=390).contains(&tries), "{tries}");
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
        assert_eq!(dialer.due(at(0), ALL).len(), DIALS_MAX);
        assert_eq!(dialer.due(at(0), ALL).len(), 0);
        dialer.learn(at(0), address(1), Some(peer(0)), Origin::Told);
        dialer.ended(at(0), &address(1), Dialled::Oneself);
        assert!(!dialer.targets.contains_key(&address(1)), "nobody dials itself twice");
    }
}
