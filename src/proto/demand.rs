//! The book of demand: which aggregators have work, as they signed it, and where they were reached (DESIGN 4).
//!
//! Deliberately absent: whom to ask and to dial; see `neighbours`. What is wrong, old, of a swarm that the teller does not
//! share with us, or of somebody whom nobody has reached lately, is not taken in; so nothing of that is passed on.

use std::{collections::BTreeMap, time::Duration};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::Timestamp;
use crate::wire::{
    ADVERT_ADDRESSES_MAX, ADVERTS_TOLD_MAX, Advert, Credential, Demand, DemandTold, PeerId, Reached, Signed,
    SwarmId,
};

/// Adverts that are kept at most; the oldest of the swarm that has most make room.
pub(super) const ADVERTS_MAX: usize = 128;
/// Nobody believes an advert that is older: its aggregator signs a new one three times as often while it has work.
pub(super) const ADVERT_LIFE: Duration = Duration::from_secs(180);
/// Nobody tells of a peer that nobody has reached for longer: else ghosts come back.
pub const REACHED_LIFE: Duration = Duration::from_secs(600);

/// Places of one peer that one other may tell of: two tellers at least must lie to hide where it is.
const PLACES_OF_TELLER_MAX: usize = ADVERT_ADDRESSES_MAX / 2;

/// Something of which an age was told, and when that was.
#[derive(Clone, Copy, Debug)]
struct Aged {
    age_s: u32,
    at: Timestamp,
}

impl Aged {
    /// Its age by now, rounded up: whoever passes something on makes it no younger.
    fn age_s(self, now: Timestamp) -> u32 {
        let since = now.since(self.at).as_millis().div_ceil(1000);
        self.age_s.saturating_add(u32::try_from(since).unwrap_or(u32::MAX))
    }

    fn is_within(self, now: Timestamp, life: Duration) -> bool {
        u64::from(self.age_s(now)) <= life.as_secs()
    }

    fn ends(self, life: Duration) -> Timestamp {
        let left = life.as_secs().saturating_sub(u64::from(self.age_s));
        self.at.after(Duration::from_secs(left) + Duration::from_millis(1))
    }
}

#[derive(Clone, Debug)]
struct Heard {
    demand: Demand,
    paper: Signed,
    credential: Credential,
    age: Aged,
    /// What this counts up to orders what is told.
    version: u64,
}

impl Heard {
    fn advert(&self, peer: PeerId, age_s: u32, reached: Vec<Reached>) -> Advert {
        Advert { peer, paper: self.paper.clone(), credential: self.credential.clone(), age_s, reached }
    }
}

/// A place where a peer was reached, by whoever says so.
#[derive(Clone, Copy, Debug)]
struct Known {
    address: SocketAddr,
    age: Aged,
    teller: PeerId,
}

/// Who tells: a peer at the other end of a link.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    pub(super) peer: PeerId,
    pub(super) address: SocketAddr,
    /// The closed swarms that it shares with us.
    pub(super) shared: Vec<SwarmId>,
}

/// The book.
#[derive(Clone, Debug)]
pub(super) struct Demands {
    me: PeerId,
    heard: BTreeMap<(PeerId, SwarmId), Heard>,
    reached: BTreeMap<PeerId, Vec<Known>>,
    version: u64,
}

impl Demands {
    pub(super) fn new(me: PeerId) -> Self {
        Self { me, heard: BTreeMap::new(), reached: BTreeMap::new(), version: 0 }
    }

    /// Grows with everything that there is to tell.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// What this node itself demands, just signed.
    pub(super) fn say(&mut self, now: Timestamp, demand: Demand, paper: Signed, credential: Credential) {
        self.put(now, self.me, demand, paper, credential, 0);
    }

    /// Takes in an advert that a peer told of, who shares these swarms with us; whether it is news. `is_member` judges
    /// what whoever signed it shows.
    pub(super) fn hear(
        &mut self,
        now: Timestamp,
        teller: &Teller,
        advert: &Advert,
        is_member: impl Fn(&PeerId, &Credential) -> bool,
    ) -> bool {
        let Teller { peer: teller, address: at, shared } = teller;
        let Advert { peer, paper, credential, age_s, reached } = advert;
        let within = |age_s: u32, life| Aged { age_s, at: now }.is_within(now, life);
        if *peer == self.me || !within(*age_s, ADVERT_LIFE) {
            return false;
        }
        let mut reached: Vec<Reached> = reached
            .iter()
            .take(ADVERT_ADDRESSES_MAX)
            .filter(|r| within(r.age_s, REACHED_LIFE))
            .copied()
            .collect();
        if peer == teller {
            reached = vec![Reached { address: *at, age_s: 0 }];
        }
        if reached.is_empty() {
            return false;
        }
        // One that is known needs no second proof, and may have come by a shorter way.
        if let Some(known) =
            self.heard.iter_mut().find(|(key, known)| key.0 == *peer && known.paper == *paper)
        {
            let (key, known) = known;
            if shared.contains(&key.1) {
                if *age_s < known.age.age_s(now) {
                    known.age = Aged { age_s: *age_s, at: now };
                }
                self.reached_at(now, *peer, *teller, &reached);
            }
            return false;
        }
        let Ok(demand) = paper.open::<Demand>(peer) else { return false };
        let is_later = |known: &Heard| known.demand.serial < demand.serial;
        if !shared.contains(&demand.swarm) || !self.heard.get(&(*peer, demand.swarm)).is_none_or(is_later) {
            return false;
        }
        let is_whole = credential.is_of_size() && credential.founding.id() == demand.swarm;
        if !is_whole || !is_member(peer, credential) {
            return false;
        }
        self.put(now, *peer, demand, paper.clone(), credential.clone(), *age_s);
        self.reached_at(now, *peer, *teller, &reached);
        true
    }

    fn put(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        demand: Demand,
        paper: Signed,
        credential: Credential,
        age_s: u32,
    ) {
        self.version += 1;
        let age = Aged { age_s, at: now };
        let heard = Heard { demand, paper, credential, age, version: self.version };
        self.heard.insert((peer, demand.swarm), heard);
        if self.heard.len() > ADVERTS_MAX {
            let others = self.heard.iter().filter(|(key, _)| key.0 != self.me);
            let of_swarm = |swarm: SwarmId| self.heard.keys().filter(|key| key.1 == swarm).count();
            // A swarm may have as many members as its founder likes; it does not displace the demand of another.
            let oldest = others.max_by_key(|(key, heard)| (of_swarm(key.1), key.1, heard.age.age_s(now)));
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.heard.remove(&oldest);
            }
        }
        self.tidy();
    }

    /// A peer was reached at these places, as `teller` says. Counts only while there is an advert of it.
    fn reached_at(&mut self, now: Timestamp, peer: PeerId, teller: PeerId, places: &[Reached]) {
        if !self.heard.keys().any(|key| key.0 == peer) {
            return;
        }
        let known = self.reached.entry(peer).or_default();
        for place in places {
            let age = Aged { age_s: place.age_s, at: now };
            match known.iter_mut().find(|known| known.address == place.address) {
                // Whoever said so first has said it: a second one takes no place of the first.
                Some(known) => {
                    if teller == self.me {
                        known.teller = teller;
                    }
                    if known.age.age_s(now) > place.age_s {
                        known.age = age;
                    }
                }
                None => known.push(Known { address: place.address, age, teller }),
            }
        }
        let me = self.me;
        // Where this node saw it itself stands before what anybody says.
        known.sort_by_key(|known| (known.teller != me, known.age.age_s(now), known.address));
        let mut told: BTreeMap<PeerId, usize> = BTreeMap::new();
        known.retain(|known| {
            let places = told.entry(known.teller).or_default();
            *places += 1;
            *places <= PLACES_OF_TELLER_MAX
        });
        known.truncate(ADVERT_ADDRESSES_MAX);
    }

    /// A peer is, or was until now, at the other end of a connection.
    pub(super) fn met(&mut self, now: Timestamp, peer: PeerId, address: SocketAddr) {
        self.reached_at(now, peer, self.me, &[Reached { address, age_s: 0 }]);
    }

    /// A peer has gone for good: what it wanted, it wants no more. That it has said so is still passed on.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.heard.retain(|key, heard| key.0 != *peer || heard.demand.level == 0);
        self.tidy();
    }

    /// Drops what is too old.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let before = self.heard.len();
        self.heard.retain(|_, heard| heard.age.is_within(now, ADVERT_LIFE));
        if self.heard.len() < before {
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        let Self { heard, reached, .. } = self;
        reached.retain(|peer, _| heard.keys().any(|key| key.0 == *peer));
    }

    /// When something becomes too old.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.heard.values().map(|heard| heard.age.ends(ADVERT_LIFE)).min()
    }

    /// Whether a peer has work for one of these swarms.
    pub(super) fn has_work(&self, now: Timestamp, peer: &PeerId, swarms: &[SwarmId]) -> bool {
        swarms.iter().any(|swarm| {
            let heard = self.heard.get(&(*peer, *swarm));
            heard.is_some_and(|heard| heard.demand.level > 0 && heard.age.is_within(now, ADVERT_LIFE))
        })
    }

    /// Who has work for one of these swarms, and where it was reached, what this node knows itself first.
    pub(super) fn with_work(&self, now: Timestamp, swarms: &[SwarmId]) -> Vec<(PeerId, Vec<SocketAddr>)> {
        let places = self.reached.iter().filter(|(peer, _)| self.has_work(now, peer, swarms));
        let lately = |places: &[Known]| -> Vec<SocketAddr> {
            let lately = places.iter().filter(|known| known.age.is_within(now, REACHED_LIFE));
            lately.map(|known| known.address).collect()
        };
        places.map(|(peer, places)| (*peer, lately(places))).filter(|(_, at)| !at.is_empty()).collect()
    }

    /// What is new of others since `after` for a peer that shares these swarms with us; `linked` says where a peer is
    /// connected. What this node itself demands it says by [`Demands::tell_own`].
    pub(super) fn tell(
        &self,
        now: Timestamp,
        asker: &PeerId,
        shared: &[SwarmId],
        after: u64,
        linked: impl Fn(&PeerId) -> Option<SocketAddr>,
    ) -> Option<DemandTold> {
        let is_for = |((peer, swarm), heard): &(&(PeerId, SwarmId), &Heard)| {
            peer != asker && *peer != self.me && shared.contains(swarm) && heard.version > after
        };
        let mut new: Vec<_> = self.heard.iter().filter(is_for).collect();
        new.sort_by_key(|(_, heard)| heard.version);
        let mut told = DemandTold { upto: after, adverts: Vec::new() };
        for (&(peer, _), heard) in new {
            if told.adverts.len() == ADVERTS_TOLD_MAX {
                break;
            }
            let age_s = heard.age.age_s(now);
            let reached = self.places(now, &peer, linked(&peer));
            if u64::from(age_s) <= ADVERT_LIFE.as_secs() && !reached.is_empty() {
                told.upto = heard.version;
                told.adverts.push(heard.advert(peer, age_s, reached));
            }
        }
        (!told.adverts.is_empty()).then_some(told)
    }

    /// What this node itself demands, for a peer that shares these swarms with us.
    pub(super) fn tell_own(&self, now: Timestamp, shared: &[SwarmId]) -> Option<DemandTold> {
        let own = self.heard.iter().filter(|((peer, swarm), _)| *peer == self.me && shared.contains(swarm));
        let adverts: Vec<Advert> = own
            .take(ADVERTS_TOLD_MAX)
            .map(|(_, heard)| heard.advert(self.me, heard.age.age_s(now), Vec::new()))
            .collect();
        (!adverts.is_empty()).then_some(DemandTold { upto: 0, adverts })
    }

    fn places(&self, now: Timestamp, peer: &PeerId, linked: Option<SocketAddr>) -> Vec<Reached> {
        let known = self.reached.get(peer).into_iter().flatten();
        let known = known
            .filter(|known| Some(known.address) != linked && known.age.is_within(now, REACHED_LIFE))
            .map(|known| Reached { address: known.address, age_s: known.age.age_s(now) });
        let linked = linked.map(|address| Reached { address, age_s: 0 });
        linked.into_iter().chain(known).take(ADVERT_ADDRESSES_MAX).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heard.len()
    }
}

#[cfg(test)]
mod tests;
