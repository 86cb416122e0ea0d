//! Forty nodes in two swarms, two of them bootstrap nodes, some behind a NAT: they start, restart, vanish, lose links, are
//! cut in halves and healed; now and then one has work. The promises are checked after each step; and in the end, when all
//! is quiet, that each swarm is one, and that whoever works hears of work and reaches it.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use super::{work::AGGREGATORS_MAX, *};
use crate::{
    proto::{Dialer, Dialled, Origin},
    wire::Founding,
};

const NODES: usize = 40;
const HUBS: usize = 2;
const SEEDS: u64 = 4;
/// How long things go wrong, and how long they are quiet afterwards, in milliseconds.
const WILD: u64 = 2_400_000;
const QUIET: u64 = 1_800_000;
const ASKED_WAIT: u64 = DEMAND_WAIT_MS_MAX as u64;

#[derive(Debug)]
enum What {
    Wake,
    Dialled(SocketAddr),
    /// On a link, by its number, from its other end.
    Message(u64, usize, Box<Said>),
    LinkEnds(u64),
    WorkEnds(PeerId),
    AskEnds(usize, u64),
}

#[derive(Debug)]
enum Said {
    Ask(u64),
    Answer(DemandTold),
    Push(DemandTold),
    Peers(Vec<PeerAddress>),
    PeersAsked,
}

struct Node {
    alive: bool,
    /// Which start this is: what was meant for an earlier one is dropped.
    life: u32,
    natted: bool,
    swarms: Vec<SwarmId>,
    dialer: Dialer,
    machine: Neighbours,
    remembered: BTreeMap<PeerId, SocketAddr>,
    /// By the other's number.
    links: BTreeMap<usize, Ends>,
    parked: BTreeMap<usize, (u64, u64)>,
    work: bool,
    /// When its own work ended last.
    ended: u64,
    busy: BTreeSet<PeerId>,
    dials: BTreeMap<PeerId, u64>,
    asks: usize,
    wake: Option<u64>,
}

#[derive(Clone, Copy)]
struct Ends {
    link: u64,
    /// Since when it may be idle, reckoned apart from the machine.
    idle: u64,
    demand: bool,
    closing: bool,
    asked: bool,
}

struct World {
    rng: fastrand::Rng,
    now: u64,
    seq: u64,
    events: BTreeMap<(u64, u64), (usize, u32, What)>,
    nodes: Vec<Node>,
    /// Who is on which side of the cut.
    side: Vec<bool>,
    next_link: u64,
    /// Bodies that were signed: by whom, when.
    signed: BTreeMap<(PeerId, Vec<u8>), (u64, Demand)>,
    /// When somebody was connected with a peer last.
    up: Vec<u64>,
    calm: bool,
    /// Workers that were connected with an aggregator and knew of its work.
    reached: BTreeSet<(usize, usize)>,
    seen: Seen,
}

/// What has happened at all: a life in which nothing does proves nothing.
#[derive(Debug, Default)]
struct Seen {
    links: u32,
    refused: u32,
    closed: u32,
    dials_for_work: u32,
    told: u32,
    passed_on: u32,
    ended: u32,
}

fn key(n: usize) -> SigningKey {
    SigningKey::from_bytes(&[n as u8 + 1; 32])
}

fn id(n: usize) -> PeerId {
    PeerId::from_bytes(key(n).verifying_key().to_bytes())
}

fn place(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n as u8 + 1], 4000))
}

fn number(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!(),
    }
}

fn credential(n: u8) -> Credential {
    let founding = Founding { founder: id(0), nonce: [n; 16], name: "home".parse().unwrap() };
    Credential { founding, epoch: 0, proof: None }
}

fn swarm(n: u8) -> SwarmId {
    credential(n).founding.id()
}

impl World {
    /// For how long nobody has been connected with a node.
    fn silent(&self, n: usize) -> u64 {
        let node = &self.nodes[n];
        let is_up = |other: &usize| self.nodes[*other].links.contains_key(&n) && self.reach(n, *other);
        if node.alive && node.links.keys().any(is_up) { 0 } else { self.now - self.up[n] }
    }

    /// What a node is told is for it, of its true age, and of somebody who was there.
    fn judge(&mut self, n: usize, from: usize, told: &DemandTold) {
        assert!(told.adverts.len() <= ADVERTS_TOLD_MAX);
        for advert in &told.adverts {
            let (signed, demand) = self.signed[&(advert.peer, advert.paper.body().to_vec())];
            assert!(self.nodes[n].swarms.contains(&demand.swarm), "an advert reaches one that is no member");
            assert!(self.nodes[from].swarms.contains(&demand.swarm));
            // On the way it may have grown a little older than it says.
            let age = self.now - signed;
            assert!(
                u64::from(advert.age_s) * 1000 + 5_000 >= age,
                "an advert has grown younger: {age} {advert:?}"
            );
            assert!(advert.age_s <= 180, "an advert is too old");
            for reached in &advert.reached {
                // Of a link that is dead nobody knows before a minute.
                let silent = self.silent(self.of(&advert.peer));
                assert!(u64::from(reached.age_s) * 1000 + 65_000 >= silent, "a ghost: {silent} {reached:?}");
                assert!(reached.age_s <= 600);
            }
            self.seen.told += 1;
            self.seen.passed_on += u32::from(advert.peer != id_of(from));
            self.seen.ended += u32::from(demand.level == 0);
        }
    }

    fn check(&self, n: usize) {
        let node = &self.nodes[n];
        assert!(node.links.len() <= LINKS_MAX);
        assert!(node.asks <= ASKED_MAX, "{} are asked", node.asks);
        let dials = node.dials.values().filter(|at| **at + 30_000 > self.now).count();
        assert!(dials <= AGGREGATORS_MAX, "{dials} are dialled for work");
        if part(n).serves || node.work || node.ended + 2_000 + 30_000 > self.now {
            return;
        }
        let is_plain = |other: &usize, ends: &Ends| {
            let named = *other < HUBS;
            !named && !ends.closing && !node.busy.contains(&id_of(*other)) && ends.idle + 30_000 < self.now
        };
        let plain = node.links.iter().filter(|(other, ends)| is_plain(other, ends)).count();
        assert!(plain <= LINKS_IDLE_MAX, "node {n} holds {plain} links that bring nothing");
    }

    fn members(&self, of: SwarmId) -> Vec<usize> {
        (0..NODES).filter(|n| self.nodes[*n].alive && self.nodes[*n].swarms.contains(&of)).collect()
    }

    /// Members that are reached from one of them over links of the swarm.
    fn component(&self, members: &[usize]) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([members[0]]);
        let mut rest = vec![members[0]];
        while let Some(n) = rest.pop() {
            for other in self.nodes[n].links.keys().filter(|other| members.contains(other)) {
                if found.insert(*other) {
                    rest.push(*other);
                }
            }
        }
        found
    }
}

fn part(n: usize) -> Part {
    Part { lends: n >= HUBS, serves: n < HUBS }
}

thread_local! {
    static IDS: Vec<PeerId> = (0..NODES).map(id).collect();
}

fn id_of(n: usize) -> PeerId {
    IDS.with(|ids| ids[n])
}

#[test]
fn a_mesh_keeps_its_promises_and_is_one_again_after_all() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let mut next = 0;
        while next < WILD {
            world.run_until(next);
            world.disturb();
            next += world.rng.u64(100..20_000);
        }
        world.calm = true;
        world.side = vec![false; NODES];
        // Some never come back, one of the bootstrap nodes among them in every second life.
        let gone: Vec<usize> = (0..NODES).filter(|n| (*n + seed as usize) % 9 == 1 && *n != 1).collect();
        for n in 0..NODES {
            world.wants(n, false);
            if gone.contains(&n) && world.nodes[n].alive {
                world.stop(n, false);
            } else if !gone.contains(&n) && !world.nodes[n].alive {
                world.start(n);
            }
        }
        world.run_until(next + QUIET);
        for of in [swarm(1), swarm(2)] {
            let members = world.members(of);
            let component = world.component(&members);
            assert_eq!(component.len(), members.len(), "seed {seed}: the swarm is in pieces");
        }
        let closed = world.seen.closed;
        world.run_until(world.now + 600_000);
        let restless = world.seen.closed - closed;
        assert!(restless < NODES as u32, "seed {seed}: {restless} links are closed while nothing happens");
        let links: usize = world.nodes.iter().map(|node| node.links.len()).sum::<usize>() / 2;
        let alive = |n: &usize| world.nodes[*n].alive && !world.nodes[*n].natted && n % 7 == 3;
        let with_work: Vec<usize> = (HUBS..NODES).filter(alive).collect();
        for n in with_work {
            let of = world.nodes[n].swarms[0];
            world.reached.clear();
            world.wants(n, true);
            world.run_until(world.now + 90_000);
            for member in world.members(of).into_iter().filter(|m| *m != n && part(*m).lends) {
                assert!(world.reached.contains(&(member, n)), "seed {seed}: {member} does not reach {n}");
            }
            world.wants(n, false);
            world.run_until(world.now + 120_000);
        }
        let Seen { links: made, passed_on, dials_for_work, closed, ended, .. } = world.seen;
        println!("  seed {seed}: {links} links in the end, {:?}", world.seen);
        assert!(made > 500 && passed_on > 50 && dials_for_work > 20 && closed > 20 && ended > 50);
    }
}
