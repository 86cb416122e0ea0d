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
/// Addresses of one peer, beside what its owner gave: a machine has two or three.
const PLACES_OF_PEER_MAX: usize = 4;
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
/// Before a peer is dialled again that had no place, where a place is for moments; in milliseconds, drawn anew each time.
const FULL_AGAIN_MS: std::ops::RangeInclusive<u64> = 5_000..=30_000;
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
    /// A peer told of it that shares only the public pool with us.
    Pool,
}

/// Links to dial for, beyond what must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// To members of closed swarms.
    pub members: usize,
    /// To peers of the public pool.
    pub pool: usize,
}

impl From<usize> for Wanted {
    fn from(members: usize) -> Self {
        Self { members, pool: 0 }
    }
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
    /// Whoever lives there shares only the public pool with us.
    is_pool: bool,
}

impl Target {
    fn new(now: Timestamp, expected: Option<PeerId>, origin: Origin) -> Self {
        Self {
            expected,
            origin,
            node: None,
            failures: 0,
            not_before: now,
            is_dialling: false,
            is_stranger: false,
            is_wished: false,
            is_pool: origin == Origin::Pool,
        }
    }

    /// What goes first where there is no room is largest: what the pool's peers tell, then what was only told, and of
    /// that what failed most.
    fn worth(&self) -> (bool, bool, u32, Origin) {
        (self.is_pool, self.origin > Origin::Lan, self.failures, self.origin)
    }

    /// Whether it is one of those that are wanted; takes it off.
    fn is_among(&self, wanted: &mut Wanted) -> bool {
        // What announces itself, or was met in an earlier life, may be either.
        let may_be_member = !self.is_pool;
        let may_be_pool = self.is_pool || matches!(self.origin, Origin::Remembered | Origin::Lan);
        let left = match wanted {
            Wanted { members, .. } if may_be_member && *members > 0 => members,
            Wanted { pool, .. } if may_be_pool && *pool > 0 => pool,
            _ => return false,
        };
        *left -= 1;
        true
    }
}

/// The book of addresses.
#[derive(Debug)]
pub struct Dialer {
    me: PeerId,
    targets: BTreeMap<SocketAddr, Target>,
    connected: BTreeSet<PeerId>,
    /// Those of them that share only the public pool with us.
    pool: BTreeSet<PeerId>,
    /// Peers that must be reached, whatever is wanted otherwise.
    needed: BTreeSet<PeerId>,
    rng: fastrand::Rng,
}

impl Dialer {
    /// An empty book of this node.
    pub fn new(me: PeerId, seed: u64) -> Self {
        let (connected, pool, needed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { me, targets: BTreeMap::new(), connected, pool, needed, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Takes note of an address. One that is known is due at once where it announces itself anew.
    pub fn learn(&mut self, now: Timestamp, address: SocketAddr, expected: Option<PeerId>, origin: Origin) {
        if expected == Some(self.me) {
            return;
        }
        if let Some(known) = self.targets.get_mut(&address) {
            // What others tell does not overrule what its owner gave.
            let is_given = known.origin <= Origin::Ticket;
            let is_trusted = origin <= known.origin || (known.expected.is_none() && !is_given);
            known.origin = known.origin.min(origin);
            // A peer of the pool may be one of a closed swarm as well.
            known.is_pool &= !matches!(origin, Origin::Bootstrap | Origin::Ticket | Origin::Told);
            if is_trusted && expected.is_some() && known.expected != expected {
                (known.expected, known.failures, known.not_before) = (expected, 0, now);
            } else if origin == Origin::Lan && known.failures > 0 {
                (known.failures, known.not_before) = (0, now);
            }
            return;
        }
        let target = Target::new(now, expected, origin);
        self.insert(address, target);
    }

    /// Takes a new target in, where there is room for it or something is worth less. Keys and addresses cost nobody
    /// anything: those of one peer, or of the pool's, do not fill the book.
    fn insert(&mut self, address: SocketAddr, target: Target) {
        let is_of_peer = |other: &Target| {
            other.expected == target.expected
                && other.origin > Origin::Ticket
                && target.origin > Origin::Ticket
        };
        let of_peer =
            || self.targets.iter().filter(|(_, other)| target.expected.is_some() && is_of_peer(other));
        let worst = if of_peer().count() >= PLACES_OF_PEER_MAX {
            let free = of_peer().filter(|(_, other)| !other.is_dialling);
            Some(free.max_by_key(|(_, other)| other.worth()))
        } else if self.targets.len() >= TARGETS_MAX {
            let removable = self.targets.iter().filter(|(_, other)| self.is_removable(other));
            Some(removable.max_by_key(|(_, other)| other.worth()))
        } else {
            None
        };
        if let Some(worst) = worst {
            // What is wished for is to be dialled now, whatever else is known.
            let is_worth_less = |other: &Target| target.is_wished || target.worth() <= other.worth();
            let Some(&worst) = worst.filter(|(_, other)| is_worth_less(other)).map(|(at, _)| at) else {
                return;
            };
            self.targets.remove(&worst);
        }
        self.targets.insert(address, target);
    }

    fn is_removable(&self, target: &Target) -> bool {
        let is_met = target.origin == Origin::Remembered
            && target.expected.is_some_and(|peer| self.connected.contains(&peer));
        target.origin >= Origin::Remembered && !target.is_dialling && !is_met && !self.is_needed(target)
    }

    /// Its owner names this peer at this address, for the pool; gives what it was known by, [`Origin::Pool`] where it was
    /// not.
    pub fn learn_named(&mut self, now: Timestamp, address: SocketAddr, peer: PeerId) -> Origin {
        let before = self.targets.get(&address).map_or(Origin::Pool, |target| target.origin);
        self.learn(now, address, Some(peer), Origin::Bootstrap);
        before
    }

    /// Has a peer dialled that has work, at the places where it was reached; the first ones are tried first.
    pub fn wish(&mut self, now: Timestamp, peer: PeerId, addresses: &[SocketAddr]) {
        if peer == self.me {
            return;
        }
        for &address in addresses {
            if self.targets.contains_key(&address) {
                self.learn(now, address, Some(peer), Origin::Told);
            } else {
                let target = Target { is_wished: true, ..Target::new(now, Some(peer), Origin::Told) };
                self.insert(address, target);
            }
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
        let members: BTreeSet<PeerId> = self.connected.difference(&self.pool).copied().collect();
        let (mut peers, mut nodes, mut others) = (members, BTreeSet::new(), 0);
        for target in self.targets.values().filter(|target| !target.is_stranger && !target.is_pool) {
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
            // What its owner named, or was met before, no announcement may tie to a node of its choice.
            if let Some(target) = self.targets.get_mut(&address).filter(|target| target.origin == Origin::Lan)
            {
                target.node = Some(node);
            }
        }
    }

    /// Addresses to dial now, and whom to expect there; they count as being dialled until [`Dialer::ended`]. At most
    /// `wanted` of them are such as need not be.
    pub fn due(&mut self, now: Timestamp, wanted: impl Into<Wanted>) -> Vec<(SocketAddr, Option<PeerId>)> {
        let dialling = self.targets.values().filter(|target| target.is_dialling);
        let room = DIALS_MAX.saturating_sub(dialling.clone().count());
        let mut wanted = wanted.into();
        dialling.filter(|target| !self.is_needed(target)).for_each(|target| {
            target.is_among(&mut wanted);
        });
        let mut busy = self.busy();
        let is_ready = |target: &Target| {
            let is_connected = target.expected.is_some_and(|peer| self.connected.contains(&peer));
            !target.is_dialling && !is_connected && target.not_before <= now
        };
        let mut ready: Vec<SocketAddr> =
            self.targets.iter().filter(|(_, target)| is_ready(target)).map(|(at, _)| *at).collect();
        // Were all to begin with the lowest address, it would have all links.
        if ready.len() > wanted.members.saturating_add(wanted.pool).min(room) {
            self.rng.shuffle(&mut ready);
        }
        let mut due = Vec::new();
        for address in ready {
            let Some(target) = self.targets.get(&address) else { continue };
            let is_busy = target.node.is_some_and(|node| busy.contains(&node));
            let has_room = due.len() < room && !is_busy;
            if has_room && (self.is_needed(target) || target.is_among(&mut wanted)) {
                let Some(target) = self.targets.get_mut(&address) else { continue };
                target.is_dialling = true;
                busy.extend(target.node);
                due.push((address, target.expected));
            }
        }
        due
    }

    /// When [`Dialer::due`] has something new at the earliest.
    pub fn next_deadline(&self, wanted: impl Into<Wanted>) -> Option<Timestamp> {
        let busy = self.busy();
        let dialling = self.targets.values().filter(|target| target.is_dialling);
        if dialling.clone().count() >= DIALS_MAX {
            return None;
        }
        let mut wanted = wanted.into();
        dialling.filter(|target| !self.is_needed(target)).for_each(|target| {
            target.is_among(&mut wanted);
        });
        let is_waiting = |target: &&Target| {
            !target.is_dialling
                && (self.is_needed(target) || target.is_among(&mut wanted.clone()))
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
        let needed = &self.needed;
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
                if target.origin >= Origin::Told {
                    target.origin = Origin::Remembered;
                }
                self.connected.insert(peer);
            }
            Dialled::Stranger(_) => {
                // Its key is no promise: whoever sits there next week may be one of ours. But who was named with an
                // address is expected there and nobody else.
                if target.origin > Origin::Ticket {
                    target.expected = None;
                }
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
                let is_needed = target.expected.is_some_and(|peer| needed.contains(&peer));
                if target.origin >= Origin::Remembered && target.failures >= FAILURES_MAX && !is_needed {
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
        for target in self.targets.values_mut().filter(|target| target.expected == Some(peer)) {
            target.is_wished = false;
        }
    }

    /// What a connected peer shares with us: nothing but the public pool, or more.
    pub fn shares(&mut self, peer: PeerId, only_pool: bool) {
        if only_pool {
            self.pool.insert(peer);
        } else {
            self.pool.remove(&peer);
        }
        for target in self.targets.values_mut().filter(|target| target.expected == Some(peer)) {
            target.is_pool = only_pool;
        }
    }

    /// A peer is not connected any more; its addresses are due after a moment, so that both ends do not dial at once.
    pub fn lost(&mut self, now: Timestamp, peer: &PeerId) {
        self.connected.remove(peer);
        self.pool.remove(peer);
        for target in self.targets.values_mut().filter(|target| target.expected == Some(*peer)) {
            target.not_before = now.after(AGAIN.wait(1, &mut self.rng));
        }
    }

    /// A link was closed because it was not needed, or there was no place for it: its peer is not dialled at once, unless
    /// it is wished for.
    pub fn rest(&mut self, now: Timestamp, peer: &PeerId) {
        for target in self.targets.values_mut().filter(|target| target.expected == Some(*peer)) {
            target.not_before = now.after(REST);
        }
    }

    /// There was no place at a peer that is to let us in: it is dialled again soon, for its places are for moments.
    pub fn rest_briefly(&mut self, now: Timestamp, peer: &PeerId, at: &SocketAddr) {
        let wait = Duration::from_millis(self.rng.u64(FULL_AGAIN_MS));
        for (address, target) in &mut self.targets {
            // One that announces itself is a stranger there, and nobody is expected.
            if target.expected == Some(*peer) || address == at {
                target.not_before = now.after(wait);
            }
        }
    }

    /// What its owner named it names no more: it is known as it was before, which is what [`Dialer::learn_named`] gave.
    pub fn demote(&mut self, address: &SocketAddr, before: Origin) {
        let target = self.targets.get_mut(address).filter(|target| target.origin == Origin::Bootstrap);
        if let Some(target) = target {
            (target.origin, target.is_pool) = (before, before == Origin::Pool);
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
            (target.is_stranger, target.is_pool) = (false, target.origin == Origin::Pool);
        }
    }
}

#[cfg(test)]
mod tests;
