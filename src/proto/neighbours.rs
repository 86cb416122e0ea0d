//! Which members to stay connected with, whom to ask for demand, whom to dial for work, and what to tell (DESIGN 4).
//!
//! Deliberately absent: addresses in general, which are the [`Dialer`](super::Dialer)'s, and sockets. A node without work
//! keeps few links and sleeps: an aggregator tells its own demand to all its links, and each node hears of the others'
//! from three. Which three changes with every answer, so that no circle keeps to itself for long.
//!
//! Whoever holds this machine hands every event in, then calls [`Neighbours::settle`] and carries out what it says.

mod effects;
mod links;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use ed25519_dalek::SigningKey;

pub use effects::{Effect, Part};
use links::Link;
use work::Wish;

use super::{
    Timestamp, Wanted,
    demand::{Demands, REACHED_LIFE},
};
use crate::wire::{
    ADVERTS_TOLD_MAX, Credential, DEMAND_WAIT_MS_MAX, Demand, DemandTold, PEERS_TOLD_MAX, PUBLIC_SWARM,
    PeerAddress, PeerId, Signed, SwarmId,
};

/// Connections to members at most: workers that an aggregator serves, nodes that a bootstrap node does.
pub const LINKS_MAX: usize = 256;
/// Links to members without work that an idle node keeps. A swarm of no more is wholly connected.
pub const LINKS_IDLE_MAX: usize = 8;
/// Below so many links a node dials. Lower than what it keeps, so that there is room for who comes later.
const LINKS_LOW: usize = 5;
/// Links that an idle node keeps to peers with which it shares only the public pool, beside those to members; nobody may
/// place work there yet, so they are for finding each other.
const POOL_LINKS_MAX: usize = 6;
/// And those that a bootstrap node keeps: below what it takes in, so that newcomers find a place to ask at.
const POOL_LINKS_SERVED: usize = 48;
/// Below so many of these it dials.
const POOL_LINKS_LOW: usize = 3;
/// Neighbours that are asked for demand at a time.
const ASKED_MAX: usize = 3;
/// Of these, nodes that this one's owner named: they know most, but may be wrong about it.
const ASKED_NAMED_MAX: usize = 2;
/// A link that has brought no work for so long may go.
const IDLE_LINK: Duration = Duration::from_secs(30);
/// Before an aggregator that was not reached, or had nothing for us, is dialled for work again.
const ASIDE: Duration = Duration::from_secs(60);
/// Between two adverts of one demand that goes on.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Demand has ended when nothing has come for so long: documents come one after the other.
const SAY_END: Duration = Duration::from_secs(2);
/// Between two questions to a neighbour that had news.
const ASK_GAP: Duration = Duration::from_secs(1);
/// Before a neighbour is asked again that gave no answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// A node that knows more members than it is connected with tries another one so often, and up to twice as late: halves
/// of a swarm that were apart find each other by it.
const LOOK_AROUND: Duration = Duration::from_secs(600);
/// Members of whom it is remembered where they were met.
const MET_MAX: usize = 256;

#[derive(Clone, Copy, Debug, Default)]
struct Own {
    level: u8,
    /// What the newest advert says, when it was signed, and as what.
    said: u8,
    signed: Timestamp,
    serial: u64,
    empty: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Met {
    address: SocketAddr,
    swarms: Vec<SwarmId>,
    at: Timestamp,
}

/// The machine.
#[derive(Debug)]
pub struct Neighbours {
    key: SigningKey,
    part: Part,
    /// The swarms of this node, and what proves it.
    swarms: BTreeMap<SwarmId, Credential>,
    links: BTreeMap<PeerId, Link>,
    demands: Demands,
    met: BTreeMap<PeerId, Met>,
    own: BTreeMap<SwarmId, Own>,
    serial: u64,
    wishes: BTreeMap<PeerId, Wish>,
    aside: BTreeMap<PeerId, Timestamp>,
    look: Option<Timestamp>,
    in_pool: bool,
    /// Whether there is anything to lend now.
    is_open: bool,
    wanted: Wanted,
    deadline: Option<Timestamp>,
    rng: fastrand::Rng,
}

impl Neighbours {
    /// A node that has just started, for the `start`th time: adverts of a later start are later ones.
    pub fn new(key: SigningKey, part: Part, start: u32, seed: u64) -> Self {
        let me = PeerId::from_bytes(key.verifying_key().to_bytes());
        Self {
            key,
            part,
            swarms: BTreeMap::new(),
            links: BTreeMap::new(),
            demands: Demands::new(me),
            met: BTreeMap::new(),
            own: BTreeMap::new(),
            serial: u64::from(start) << 32,
            wishes: BTreeMap::new(),
            aside: BTreeMap::new(),
            look: None,
            in_pool: false,
            is_open: part.lends,
            wanted: Wanted::default(),
            deadline: None,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The closed swarms of this node are these, with what it shows to prove it.
    pub fn joined(&mut self, swarms: impl IntoIterator<Item = (SwarmId, Credential)>) {
        self.swarms = swarms.into_iter().collect();
    }

    /// Whether there is anything to lend at this moment: without it nobody is dialled for work.
    pub fn lends(&mut self, is_open: bool) {
        self.is_open = is_open;
        if !is_open {
            self.wishes.clear();
        }
    }

    /// Whether this node is in the public pool.
    pub fn in_pool(&mut self, in_pool: bool) {
        self.in_pool = in_pool;
    }

    /// A member is connected, by another connection perhaps than before. `named`: this node's owner gave its address.
    pub fn connected(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        address: SocketAddr,
        swarms: Vec<SwarmId>,
        named: bool,
    ) {
        self.met.remove(&peer);
        self.wishes.remove(&peer);
        self.demands.met(now, peer, address);
        let link = Link {
            swarms,
            address,
            named,
            used: now,
            busy: false,
            demand: false,
            asked: None,
            ask_at: now,
            cursor: 0,
            told: BTreeMap::new(),
            closing: false,
        };
        self.links.insert(peer, link);
    }

    /// What a member shares with us has changed.
    pub fn changed(&mut self, peer: &PeerId, swarms: Vec<SwarmId>) {
        if let Some(link) = self.links.get_mut(peer) {
            link.swarms = swarms;
        }
    }

    /// A member is not connected any more; `left`: it said goodbye. Says whether its link was let go by [`Effect::Close`].
    pub fn lost(&mut self, now: Timestamp, peer: &PeerId, left: bool) -> bool {
        let Some(link) = self.links.remove(peer) else { return false };
        if left {
            self.demands.forget(peer);
        } else if !link.swarms.is_empty() {
            self.demands.met(now, *peer, link.address);
            self.met.insert(*peer, Met { address: link.address, swarms: link.swarms, at: now });
            if self.met.len() > MET_MAX {
                // Peers of the pool, of whom there may be any number, make room first.
                let worth = |met: &Met| (met.swarms.iter().any(|swarm| *swarm != PUBLIC_SWARM), met.at);
                let first = self.met.iter().min_by_key(|(_, met)| worth(met)).map(|(peer, _)| *peer);
                first.and_then(|first| self.met.remove(&first));
            }
        }
        link.closing
    }

    /// We hold work of these peers, and of no others.
    pub fn busy_with(&mut self, now: Timestamp, peers: &BTreeSet<PeerId>) {
        for (peer, link) in &mut self.links {
            let busy = peers.contains(peer);
            if link.busy && !busy {
                link.used = now;
            }
            link.busy = busy;
        }
    }

    /// Work of this node's own waits, for members of the swarm; [`Demand::level_of`] its tokens.
    pub fn wants(&mut self, now: Timestamp, swarm: SwarmId, level: u8) {
        let own = self.own.entry(swarm).or_default();
        own.level = level;
        own.empty = match level {
            0 => own.empty.or(Some(now)),
            _ => None,
        };
    }

    /// What a question for demand came to; nothing where there was no answer. `is_member` judges what those show of whom
    /// it tells.
    pub fn answered(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        told: Option<&DemandTold>,
        is_member: impl Fn(&PeerId, &Credential) -> bool,
    ) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let Some(asked) = link.asked.take() else { return };
        let Some(told) = told else {
            link.ask_at = now.after(ASK_AGAIN);
            return;
        };
        link.cursor = told.upto;
        let teller = link.teller(*peer);
        let mut is_news = false;
        for advert in told.adverts.iter().take(ADVERTS_TOLD_MAX) {
            is_news |= self.demands.hear(now, &teller, advert, &is_member);
        }
        // Whoever answers at once with nothing is not asked in a circle.
        let gap = if is_news { ASK_GAP } else { Duration::from_millis(u64::from(DEMAND_WAIT_MS_MAX / 2)) };
        if let Some(link) = self.links.get_mut(peer) {
            link.ask_at = asked.after(gap).max(now);
        }
    }

    /// A member says unasked what it itself demands.
    pub fn told(
        &mut self,
        now: Timestamp,
        peer: &PeerId,
        told: &DemandTold,
        is_member: impl Fn(&PeerId, &Credential) -> bool,
    ) {
        let Some(teller) = self.links.get(peer).map(|link| link.teller(*peer)) else { return };
        for advert in told.adverts.iter().take(ADVERTS_TOLD_MAX).filter(|advert| advert.peer == *peer) {
            self.demands.hear(now, &teller, advert, &is_member);
        }
    }

    /// What to tell a member that asks, once there is something.
    pub fn tell(&self, now: Timestamp, peer: &PeerId, after: u64) -> Option<DemandTold> {
        let link = self.links.get(peer)?;
        let linked = |peer: &PeerId| self.links.get(peer).map(|link| link.address);
        self.demands.tell(now, peer, &link.swarms, after, linked)
    }

    /// Grows with everything that there is to tell.
    pub fn version(&self) -> u64 {
        self.demands.version()
    }

    /// Links that are to be dialled for, beyond what must be; as of the last [`Neighbours::settle`].
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// When [`Neighbours::settle`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Members that share a swarm with the asker and are connected, or were in the last 10 minutes. Who shares a closed
    /// swarm with us is told of its members alone, and so knows what they are.
    pub fn peers_for(&mut self, now: Timestamp, asker: &PeerId) -> Vec<PeerAddress> {
        let Some(link) = self.links.get(asker) else { return Vec::new() };
        let shared = if link.is_pool() { link.swarms.clone() } else { link.closed_swarms() };
        let shares = |swarms: &[SwarmId]| swarms.iter().any(|swarm| shared.contains(swarm));
        let links = self.links.iter().filter(|(peer, link)| *peer != asker && shares(&link.swarms));
        let mut peers: Vec<PeerAddress> =
            links.map(|(&peer, link)| PeerAddress { peer, address: link.address, age_s: 0 }).collect();
        let lately = |met: &Met| now.since(met.at) <= REACHED_LIFE;
        let met = self.met.iter().filter(|(peer, met)| *peer != asker && shares(&met.swarms) && lately(met));
        let mut met: Vec<PeerAddress> = met
            .map(|(&peer, met)| {
                let age_s = now.since(met.at).as_millis().div_ceil(1000);
                PeerAddress { peer, address: met.address, age_s: u32::try_from(age_s).unwrap_or(u32::MAX) }
            })
            .collect();
        // Not the same ones to everybody: who is told dials them.
        self.rng.shuffle(&mut peers);
        self.rng.shuffle(&mut met);
        peers.extend(met);
        peers.truncate(PEERS_TOLD_MAX);
        peers
    }

    /// This node is about to go: what it wanted, it wants no more. Nothing else is settled.
    pub fn leaves(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for own in self.own.values_mut() {
            (own.level, own.empty) = (0, Some(Timestamp::default()));
        }
        self.say(now.after(SAY_END), out);
    }

    /// Adds what follows from all that was handed in. `known`: members that the dialler knows, or takes for such.
    pub fn settle(&mut self, now: Timestamp, known: usize, out: &mut Vec<Effect>) {
        self.demands.expire(now);
        self.aside.retain(|_, until| *until > now);
        self.say(now, out);
        self.see_demand(now, out);
        self.ask(now, out);
        self.wish(now, out);
        self.let_go(now, out);
        self.count_wanted(now, known);
        self.deadline = self.deadlines(now).min();
    }

    /// Signs what has changed or grown old, and tells it to all links that it is for.
    fn say(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for (&swarm, own) in &mut self.own {
            if own.level == 0 && !self.swarms.contains_key(&swarm) {
                own.said = 0;
            }
            let is_over = own.empty.is_some_and(|since| now >= since.after(SAY_END));
            let is_due = match (own.level, own.said) {
                (0, 0) => false,
                (0, _) => is_over,
                (_, 0) => true,
                _ => now >= own.signed.after(SAY_AGAIN),
            };
            // Who is no member any more has nobody to tell.
            let credential = self.swarms.get(&swarm).filter(|_| is_due);
            if let Some(credential) = credential {
                self.serial += 1;
                (own.said, own.signed, own.serial) = (own.level, now, self.serial);
                let demand = Demand { swarm, level: own.level, serial: self.serial };
                self.demands.say(now, demand, Signed::sign(&self.key, &demand), credential.clone());
                if own.level == 0 {
                    // What was kept for this work is not needed any more.
                    for link in self.links.values_mut() {
                        link.used = link.used.max(now);
                    }
                }
            }
        }
        for (&peer, link) in &mut self.links {
            let mut news = false;
            for (swarm, own) in self.own.iter().filter(|(swarm, _)| link.swarms.contains(swarm)) {
                let before = link.told.get(swarm).copied();
                // Who never heard of a demand needs not hear of its end.
                if own.serial != before.unwrap_or(0) && (own.said > 0 || before.is_some()) {
                    link.told.insert(*swarm, own.serial);
                    news = true;
                }
            }
            let told = news.then(|| self.demands.tell_own(now, &link.swarms)).flatten();
            if let Some(told) = told.filter(|_| !link.closing) {
                out.push(Effect::Tell { peer, told });
            }
        }
        self.own.retain(|_, own| own.level > 0 || own.said > 0 || own.signed.after(SAY_AGAIN) > now);
    }

    fn has_own_demand(&self) -> bool {
        let is_said = |own: &Own| own.level > 0 || own.said > 0;
        self.own.iter().any(|(swarm, own)| is_said(own) && self.swarms.contains_key(swarm))
    }

    fn ask(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        loop {
            let asked = self.links.values().filter(|link| link.asked.is_some());
            let (all, named) =
                asked.fold((0, 0), |(all, named), link| (all + 1, named + usize::from(link.named)));
            if all >= ASKED_MAX {
                return;
            }
            let is_free =
                |link: &Link| link.asked.is_none() && !link.closing && !link.is_pool() && link.ask_at <= now;
            let free: Vec<(PeerId, bool)> = self
                .links
                .iter()
                .filter(|(_, link)| is_free(link))
                .map(|(peer, link)| (*peer, link.named))
                .collect();
            let (of_named, others): (Vec<_>, Vec<_>) = free.into_iter().partition(|(_, named)| *named);
            let from = if named < ASKED_NAMED_MAX && !of_named.is_empty() || others.is_empty() {
                of_named
            } else {
                others
            };
            let Some(&(peer, _)) = self.rng.choice(&from) else { return };
            let Some(link) = self.links.get_mut(&peer) else { return };
            link.asked = Some(now);
            out.push(Effect::Ask { peer, after: link.cursor });
        }
    }

    fn deadlines(&self, now: Timestamp) -> impl Iterator<Item = Timestamp> {
        let own = self.own.iter().filter(|(swarm, _)| self.swarms.contains_key(swarm));
        let own = own.filter_map(|(_, own)| match (own.level, own.said) {
            (0, 0) => Some(own.signed.after(SAY_AGAIN)),
            (0, _) => own.empty.map(|since| since.after(SAY_END)),
            _ => Some(own.signed.after(SAY_AGAIN)),
        });
        let asking = self.links.values().filter(|link| link.asked.is_some()).count();
        let later = |at: &Timestamp| *at > now;
        let can_be_asked = |link: &&Link| link.asked.is_none() && !link.closing && !link.is_pool();
        let unasked = self.links.values().filter(can_be_asked);
        let asks = unasked.map(|link| link.ask_at).filter(later).min().filter(|_| asking < ASKED_MAX);
        let wishes = self.wishes.values().map(|wish| wish.until.unwrap_or(wish.at));
        let resting = self.links.values().filter(|link| !link.busy && !link.closing);
        let rests = resting.clone().map(|link| link.used.after(IDLE_LINK)).filter(later).min();
        let is_over = |(is_pool, kept): (bool, usize)| {
            resting.clone().filter(|link| link.is_pool() == is_pool).count() > kept
        };
        let is_crowded = !self.has_own_demand() && self.links_kept().into_iter().any(is_over);
        let few_work = self.links.values().any(|link| link.is_for_work(now) && !link.busy);
        let rests = rests.filter(|_| is_crowded || few_work);
        let look = self.look.filter(later);
        own.chain(asks)
            .chain(wishes)
            .chain(rests)
            .chain(look)
            .chain(self.aside.values().copied())
            .chain(self.demands.next_expiry())
    }
}
