//! One founder, two delegates and twenty joiners, cut off from each other now and then, told late or never, whose answers
//! get lost: a seeded random life, with the promises checked after each step, and agreement once all is told.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    tests::{FOUNDER, founded, id, invite_id, key, meet, renew, request, secret},
    *,
};
use crate::wire::{Credential, Refusal, Ticket};

const DELEGATES: [u8; 2] = [2, 3];
const NODES: u8 = 23;
/// Holds what it overhears and was never admitted.
const STRANGER: u8 = 99;
const STEPS: u32 = 300;
const SEEDS: u64 = 8;

/// Knuth's MMIX generator: the test needs repetition, not quality.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn node(&mut self) -> u8 {
        1 + self.below(NODES.into()) as u8
    }
}

struct World {
    rng: Lcg,
    now: Option<u64>,
    records: BTreeMap<u8, SwarmRecord>,
    /// Who is on which side of the cut.
    side: BTreeMap<u8, bool>,
    tickets: Vec<(u8, Ticket)>,
    late: Vec<(u8, NewEpoch)>,
    secrets: u8,
    /// As they were when all promises held last: two that have not changed since still keep theirs.
    held: BTreeMap<u8, SwarmRecord>,
    /// What the rules are checked against.
    admitted: BTreeSet<u8>,
    kicked: BTreeMap<u8, u64>,
    let_in: BTreeMap<InviteId, BTreeSet<u8>>,
    seen: Tally,
}

/// What has happened at all: a life in which nothing does proves nothing.
#[derive(Default, Debug)]
struct Tally {
    joined: u32,
    refused: BTreeSet<Refusal>,
    kicked: u32,
    unlisted: u32,
    readmitted: u32,
    outdated: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Lcg(seed),
            now: Some(1000),
            records: BTreeMap::from([(FOUNDER, founded())]),
            side: BTreeMap::new(),
            tickets: Vec::new(),
            late: Vec::new(),
            secrets: 0,
            held: BTreeMap::new(),
            admitted: BTreeSet::from([FOUNDER]),
            kicked: BTreeMap::new(),
            let_in: BTreeMap::new(),
            seen: Tally::default(),
        };
        world.invite(FOUNDER);
        for delegate in DELEGATES {
            world.join(delegate, 0);
            world.grant(delegate);
        }
        world
    }

    fn reach(&self, a: u8, b: u8) -> bool {
        let side = |n| self.side.get(&n).copied().unwrap_or_default();
        a != b && side(a) == side(b)
    }

    fn step(&mut self) {
        let (a, b) = (self.rng.node(), self.rng.node());
        match self.rng.below(40) {
            0..4 => {
                let n = 1 + self.rng.below(3) as u8;
                self.invite(n);
            }
            4..16 => {
                let ticket = self.rng.below(self.tickets.len());
                self.join(a, ticket);
            }
            16..28 => self.contact(a, b),
            28 => self.kick(a),
            29 => self.leave(a),
            30..32 => {
                let n = DELEGATES[self.rng.below(2)];
                self.grant(n);
            }
            32 => self.revoke(),
            33 => {
                let cut = self.rng.one_in(2);
                self.side = (1..=NODES).map(|n| (n, cut && self.rng.one_in(3))).collect();
            }
            34 => self.now = (!self.rng.one_in(4)).then_some(u64::from(self.secrets) * 100 + 1000),
            _ if self.late.is_empty() => {}
            _ => {
                let at = self.rng.below(self.late.len());
                let (to, epoch) = self.late.swap_remove(at);
                self.tell(to, &epoch);
            }
        }
    }

    fn invite(&mut self, n: u8) {
        let terms =
            InviteTerms { uses_max: 1 + self.rng.below(4) as u32, ttl_ms: self.rng.one_in(3).then_some(300) };
        let number = self.tickets.len() as u8;
        let Some(record) = self.records.get_mut(&n) else { return };
        let Ok(made) = record.invite(&key(n), invite_id(number), terms, self.now) else { return };
        let issued = made.apply(record);
        let ticket = Ticket::new(record.founding().clone(), issued, Vec::new());
        self.tickets.push((n, ticket.to_string().parse().unwrap()));
    }

    fn join(&mut self, n: u8, ticket: usize) {
        let (admitter, ticket) = self.tickets[ticket].clone();
        if n == FOUNDER || !self.reach(n, admitter) {
            return;
        }
        let known = self.records.contains_key(&admitter) && self.records[&admitter].knows(&id(n));
        let Some(by) = self.records.get_mut(&admitter) else { return };
        let admitted = match by.admit(&key(admitter), &request(&ticket), id(n), self.now) {
            Ok(decided) => decided.apply(by),
            Err(refusal) => {
                self.seen.refused.insert(refusal);
                return;
            }
        };
        let epoch = admitted.credential.epoch;
        self.admitted.insert(n);
        if self.kicked.get(&n).is_some_and(|kicked| *kicked <= epoch) {
            self.kicked.remove(&n);
        }
        if !known {
            self.let_in.entry(ticket.facts().unwrap().id).or_default().insert(n);
        }
        if self.rng.one_in(4) {
            return; // The answer is lost: it will ask again, or never.
        }
        let fresh = || SwarmRecord::pending(ticket.clone(), id(n)).unwrap();
        let had = self.records.get(&n).filter(|had| had.role() != Role::Kicked).cloned();
        let mut record = had.unwrap_or_else(fresh);
        // Who knows a newer epoch than its admitter does not take it up.
        if let Ok(taken) = record.take_up(&admitted) {
            taken.apply(&mut record);
            self.records.insert(n, record);
            self.seen.joined += 1;
        }
    }

    /// Two peers meet and each judges the other; who is behind is brought up to date.
    fn contact(&mut self, a: u8, b: u8) {
        if !self.reach(a, b) {
            return;
        }
        for (checker, peer) in [(a, b), (b, a)] {
            let (Some(mut judge), Some(mut shown)) =
                (self.records.get(&checker).cloned(), self.records.get(&peer).cloned())
            else {
                return;
            };
            if shown.credential().is_none() {
                continue;
            }
            let unlisted = shown.role() == Role::Unlisted;
            match meet(&mut judge, &shown) {
                Ok(Seen::Same | Seen::Ahead) => {}
                Ok(Seen::Behind) | Err(Stranger::Outdated { .. }) => {
                    match renew(&mut judge, checker, &mut shown) {
                        Ok(_) => self.seen.readmitted += u32::from(unlisted),
                        Err(_) => self.seen.outdated += 1,
                    }
                }
                Err(error) => {
                    assert!(!matches!(error, Stranger::Fork { .. }), "honest delegates do not fork: {error}");
                }
            }
            self.records.insert(checker, judge);
            self.records.insert(peer, shown);
        }
    }

    fn kick(&mut self, n: u8) {
        if n == FOUNDER || (DELEGATES.contains(&n) && !self.rng.one_in(8)) {
            return;
        }
        let next = self.next_secret();
        let Some(founder) = self.records.get_mut(&FOUNDER) else { return };
        let epoch = founder.kick(&key(FOUNDER), id(n), next).unwrap().apply(founder);
        self.kicked.insert(n, founder.epoch());
        self.seen.kicked += 1;
        self.announce(&epoch);
    }

    fn revoke(&mut self) {
        let at = self.rng.below(self.tickets.len());
        let (by, ticket) = self.tickets[at].clone();
        let invite = ticket.facts().unwrap().id;
        if let Some(record) = self.records.get_mut(&by).filter(|_| self.rng.one_in(2)) {
            // Its signer may have joined anew and forgotten it, or be out.
            let _ = record.revoke(invite).map(|revoked| revoked.apply(record));
        } else if by != FOUNDER {
            let next = self.next_secret();
            let Some(founder) = self.records.get_mut(&FOUNDER) else { return };
            let revoked = founder.revoke_of_delegate(&key(FOUNDER), invite, next).unwrap();
            let epoch = revoked.apply(founder);
            self.announce(&epoch);
        }
    }

    fn next_secret(&mut self) -> crate::wire::SwarmSecret {
        self.secrets += 1;
        secret(self.secrets)
    }

    fn announce(&mut self, epoch: &NewEpoch) {
        for n in 2..=NODES {
            if self.rng.one_in(3) {
                self.tell(n, epoch);
            } else {
                self.late.push((n, epoch.clone()));
            }
        }
    }

    fn tell(&mut self, n: u8, epoch: &NewEpoch) {
        let Some(record) = self.records.get_mut(&n) else { return };
        let lists = |record: &SwarmRecord| record.learn(&epoch.notice, None).unwrap().record;
        let inside = lists(record).is_some_and(|after| after.listed.contains(&id(n)));
        let told = inside.then_some(&epoch.secret);
        let learned = record.learn(&epoch.notice, told).unwrap().apply(record);
        self.seen.unlisted += u32::from(learned == Learned::Unlisted);
        for (to, delegation) in &epoch.delegations {
            if *to == id(n) {
                // Late ones are of an epoch that has ended.
                let _ = record.accept(delegation).map(|accepted| accepted.apply(record));
            }
        }
    }

    fn leave(&mut self, n: u8) {
        if n == FOUNDER || DELEGATES.contains(&n) || !self.records.contains_key(&n) {
            return;
        }
        self.records[&n].leave().unwrap();
        self.records.remove(&n);
        if let Some(founder) = self.records.get_mut(&FOUNDER).filter(|_| self.rng.one_in(2)) {
            founder.left(id(n)).unwrap().apply(founder);
        }
    }

    fn grant(&mut self, n: u8) {
        let quota = 1 + self.rng.below(6) as u32;
        let (Some(mut founder), Some(mut delegate)) =
            (self.records.get(&FOUNDER).cloned(), self.records.get(&n).cloned())
        else {
            return;
        };
        if !self.reach(FOUNDER, n) || founder.epoch() != delegate.epoch() {
            return;
        }
        let Ok(made) = founder.delegate(&key(FOUNDER), id(n), quota) else { return };
        let delegation = made.apply(&mut founder);
        if let Ok(accepted) = delegate.accept(&delegation) {
            accepted.apply(&mut delegate);
        }
        self.records.insert(FOUNDER, founder);
        self.records.insert(n, delegate);
    }

    fn check(&mut self) {
        let changed = |n: &u8| self.held.get(n) != self.records.get(n);
        let changed: BTreeSet<u8> = self.records.keys().copied().filter(changed).collect();
        let credentials: BTreeMap<u8, Credential> =
            self.records.iter().filter_map(|(n, record)| Some((*n, record.credential()?))).collect();
        for (checker, judge) in self.records.iter().filter(|(_, judge)| judge.role().may(Deed::Judge)) {
            for (n, credential) in &credentials {
                if n == checker || !(changed.contains(n) || changed.contains(checker)) {
                    continue;
                }
                if judge.is_member(id(*n), credential).is_ok() {
                    assert!(
                        self.admitted.contains(n),
                        "{checker} takes {n} for a member: nobody admitted it"
                    );
                    let known = self.kicked.get(n).filter(|kicked| **kicked <= judge.epoch());
                    assert!(known.is_none(), "{checker} knows the kick of {n} and takes it for a member");
                    let stolen = judge.is_member(id(STRANGER), credential);
                    assert!(stolen.is_err(), "{checker} takes a stranger for a member");
                }
            }
            for own in judge.invites() {
                let uses_max = own.invite.uses_max as usize;
                assert!(own.uses.len() <= uses_max);
                let let_in = self.let_in.get(&own.invite.id).map_or(0, BTreeSet::len);
                assert!(let_in <= uses_max, "{let_in} came by an invite for {uses_max}");
            }
            assert!(judge.quota_left().is_none() || judge.role() == Role::Delegate);
            assert!(judge.secrets().len() <= 2);
        }
        self.held.clone_from(&self.records);
    }

    /// The cut heals, all notices arrive, everybody speaks with the founder and then with everybody else.
    fn settle(&mut self) {
        self.side.clear();
        while let Some((to, epoch)) = self.late.pop() {
            self.tell(to, &epoch);
        }
        let nodes: Vec<u8> = self.records.keys().copied().collect();
        for n in &nodes[1..] {
            self.contact(FOUNDER, *n);
        }
        for a in &nodes {
            for b in &nodes {
                self.contact(*a, *b);
            }
        }
        self.check();
        let mut agreed = BTreeSet::from([FOUNDER]);
        for (n, record) in &self.records {
            assert_eq!(record.epoch(), self.records[&FOUNDER].epoch(), "{n}");
            let Some(credential) = record.credential() else { continue };
            let judges = self.records.iter().filter(|(other, judge)| {
                *other != n && matches!(judge.role(), Role::Founder | Role::Delegate | Role::Member)
            });
            let verdicts: BTreeSet<bool> =
                judges.map(|(_, judge)| judge.is_member(id(*n), &credential).is_ok()).collect();
            let member = matches!(record.role(), Role::Founder | Role::Delegate | Role::Member);
            assert_eq!(verdicts, BTreeSet::from([member]), "{n}, {:?}", record.role());
            if member {
                agreed.insert(*n);
            }
        }
        // Who left, or never had its answer, may stand on lists until the next epoch; all who are there know of all.
        let agreed: BTreeSet<PeerId> = agreed.into_iter().map(id).collect();
        for record in self.records.values().filter(|record| record.secret().is_some()) {
            assert!(record.members().is_superset(&agreed), "{:?}", record.role());
        }
        assert!(self.records[&FOUNDER].members().iter().all(|peer| {
            self.admitted.iter().any(|n| id(*n) == *peer) && !self.kicked.keys().any(|n| id(*n) == *peer)
        }));
    }
}

#[test]
fn a_random_life_keeps_its_promises() {
    let mut seen = Tally::default();
    for seed in 0..SEEDS {
        println!("SEED {seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.settle();
        let Tally { joined, refused, kicked, unlisted, readmitted, outdated } = world.seen;
        seen.joined += joined;
        seen.refused.extend(refused);
        seen.kicked += kicked;
        seen.unlisted += unlisted;
        seen.readmitted += readmitted;
        seen.outdated += outdated;
    }
    let wanted = [
        Refusal::Expired,
        Refusal::Exhausted,
        Refusal::Revoked,
        Refusal::Full,
        Refusal::ClockUnset,
        Refusal::NotAdmitting,
    ];
    assert_eq!(seen.refused, BTreeSet::from(wanted), "{seen:?}");
    assert!(seen.joined > 100 && seen.kicked > 30 && seen.outdated > 10, "{seen:?}");
    assert!(seen.unlisted > 20 && seen.readmitted > 5, "{seen:?}");
}

/// The same seed is the same life, to the last byte.
#[test]
fn a_life_replays_from_its_seed() {
    let live = || {
        let mut world = World::new(7);
        (0..STEPS).for_each(|_| world.step());
        world.records
    };
    assert_eq!(live(), live());
}
