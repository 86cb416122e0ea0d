//! One node among scripted neighbours.

use super::{work::AGGREGATORS_MAX, *};
use crate::wire::{Founding, PUBLIC_SWARM};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(n: u8) -> PeerId {
    PeerId::from_bytes(key(n).verifying_key().to_bytes())
}

fn place(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 4000))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_ms(seconds * 1000)
}

fn credential(n: u8) -> Credential {
    let founding = Founding { founder: id(200), nonce: [n; 16], name: "home".parse().unwrap() };
    Credential { founding, epoch: 0, proof: None }
}

fn swarm(n: u8) -> SwarmId {
    credential(n).founding.id()
}

fn anybody(_: &PeerId, _: &Credential) -> bool {
    true
}

fn node(lends: bool) -> Neighbours {
    let mut node = Neighbours::new(key(1), Part { lends, serves: false }, 1, 7);
    node.joined([(swarm(1), credential(1))]);
    node
}

fn settle(node: &mut Neighbours, seconds: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    node.settle(at(seconds), 100, &mut effects);
    effects
}

fn connect(node: &mut Neighbours, seconds: u64, peers: std::ops::RangeInclusive<u8>) {
    for n in peers {
        node.connected(at(seconds), id(n), place(n), vec![swarm(1)], false);
    }
}

fn advert(by: u8, level: u8, serial: u64) -> crate::wire::Advert {
    let paper = Signed::sign(&key(by), &Demand { swarm: swarm(1), level, serial });
    let reached = vec![crate::wire::Reached { address: place(by), age_s: 3 }];
    crate::wire::Advert { peer: id(by), paper, credential: credential(1), age_s: 0, reached }
}

fn told(adverts: Vec<crate::wire::Advert>) -> DemandTold {
    DemandTold { upto: 9, adverts }
}

fn asked(effects: &[Effect]) -> Vec<PeerId> {
    effects.iter().filter_map(|e| if let Effect::Ask { peer, .. } = e { Some(*peer) } else { None }).collect()
}

fn closed(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Close { .. })).count()
}

#[test]
fn three_are_asked_and_an_empty_answer_lets_another_be_asked_but_not_in_a_circle() {
    let mut node = node(true);
    connect(&mut node, 0, 2..=6);
    let first = asked(&settle(&mut node, 0));
    assert_eq!(first.len(), 3);
    assert_eq!(asked(&settle(&mut node, 1)), []);
    node.answered(at(50), &first[0], Some(&told(Vec::new())), anybody);
    assert_eq!(asked(&settle(&mut node, 50)).len(), 1);
    // Those that answer at once with nothing rest.
    let mut count = 0;
    for _ in 0..100 {
        let all: Vec<PeerId> = (2..=6).map(id).collect();
        all.iter().for_each(|peer| node.answered(at(51), peer, Some(&told(Vec::new())), anybody));
        count += asked(&settle(&mut node, 51)).len();
    }
    assert!(count <= 5, "{count}");
    assert!(node.next_deadline().is_some_and(|deadline| deadline > at(51)));
}

#[test]
fn its_own_demand_is_told_to_all_links_of_the_swarm_and_so_is_its_end() {
    let mut node = node(false);
    connect(&mut node, 0, 2..=4);
    node.connected(at(0), id(5), place(5), vec![swarm(2)], false);
    settle(&mut node, 0);
    let tells = |effects: &[Effect]| effects.iter().filter(|e| matches!(e, Effect::Tell { .. })).count();
    node.wants(at(1), swarm(1), 12);
    assert_eq!(tells(&settle(&mut node, 1)), 3);
    assert_eq!(tells(&settle(&mut node, 2)), 0);
    node.connected(at(2), id(6), place(6), vec![swarm(1)], false);
    assert_eq!(tells(&settle(&mut node, 2)), 1, "whoever comes later");
    assert_eq!(node.wanted().members, LINKS_MAX - 5);
    assert_eq!(tells(&settle(&mut node, 61)), 4, "before it grows old");
    node.wants(at(70), swarm(1), 0);
    node.wants(at(71), swarm(1), 3);
    assert_eq!(tells(&settle(&mut node, 75)), 0, "a pause is no end");
    node.wants(at(80), swarm(1), 0);
    assert_eq!(tells(&settle(&mut node, 81)), 0);
    assert_eq!(node.next_deadline(), Some(at(82)));
    assert_eq!(tells(&settle(&mut node, 82)), 4);
    node.connected(at(83), id(7), place(7), vec![swarm(1)], false);
    assert_eq!(tells(&settle(&mut node, 83)), 0, "who never heard of it needs no end");
}

#[test]
fn who_has_work_is_dialled_after_a_while_four_at_a_time_and_not_again_at_once() {
    let mut node = node(true);
    connect(&mut node, 0, 2..=2);
    settle(&mut node, 0);
    node.answered(at(1), &id(2), Some(&told((10..16).map(|by| advert(by, 9, 1)).collect())), anybody);
    let mut dialled = Vec::new();
    for ms in (1000..4000).step_by(10) {
        let mut effects = Vec::new();
        node.settle(Timestamp::from_ms(ms), 100, &mut effects);
        for effect in effects {
            if let Effect::Dial { peer, addresses } = effect {
                assert_eq!(addresses.len(), 1);
                dialled.push((ms, peer));
            }
        }
    }
    assert_eq!(dialled.len(), AGGREGATORS_MAX);
    assert!(dialled.iter().any(|(ms, _)| *ms > 1000), "not all at once: {dialled:?}");
    // One is not reached, one is and has work: one more is dialled.
    node.unreached(at(5), &dialled[0].1);
    node.connected(at(5), dialled[1].1, place(99), vec![swarm(1)], false);
    let effects = settle(&mut node, 5);
    assert!(effects.contains(&Effect::Demand { peer: dialled[1].1, demand: true }));
    let effects = settle(&mut node, 7);
    let Some(Effect::Dial { peer, .. }) = effects.first() else { panic!("{effects:?}") };
    assert!(dialled.iter().all(|(_, before)| before != peer));
}

#[test]
fn who_lends_nothing_dials_nobody_for_work_but_hears_and_passes_on() {
    let mut node = node(false);
    connect(&mut node, 0, 2..=3);
    node.connected(at(0), id(5), place(5), vec![swarm(2)], false);
    settle(&mut node, 0);
    node.answered(at(1), &id(2), Some(&told(vec![advert(10, 9, 1)])), anybody);
    assert!(!settle(&mut node, 10).iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    let passed = node.tell(at(10), &id(3), 0).unwrap();
    assert_eq!((passed.adverts.len(), passed.adverts[0].age_s), (1, 9));
    assert_eq!(node.tell(at(10), &id(5), 0), None, "of another swarm");
    assert_eq!(node.tell(at(10), &id(77), 0), None);
    assert_eq!(node.tell(at(10), &id(3), passed.upto), None);
}

#[test]
fn unasked_only_its_own_demand_is_heard() {
    let mut node = node(true);
    connect(&mut node, 0, 2..=2);
    node.told(at(1), &id(2), &told(vec![advert(10, 9, 1), advert(2, 9, 1)]), anybody);
    assert_eq!(settle(&mut node, 1)[0], Effect::Demand { peer: id(2), demand: true });
    assert!(!settle(&mut node, 30).iter().any(|effect| matches!(effect, Effect::Dial { .. })));
    node.lost(at(31), &id(2), true);
    assert_eq!(node.version(), 1);
    connect(&mut node, 32, 2..=2);
    assert!(!settle(&mut node, 32).contains(&Effect::Demand { peer: id(2), demand: true }), "it had left");
}

#[test]
fn links_that_bring_nothing_go_but_never_those_that_do() {
    let mut node = node(true);
    node.connected(at(0), id(100), place(100), vec![swarm(1)], true);
    connect(&mut node, 0, 2..=13);
    let busy = BTreeSet::from([id(2)]);
    node.busy_with(at(0), &busy);
    assert_eq!(closed(&settle(&mut node, 29)), 0);
    assert_eq!(node.next_deadline(), Some(at(30)));
    let effects = settle(&mut node, 30);
    assert_eq!(closed(&effects), 4, "of 13, one works and eight stay");
    for kept in [2, 100] {
        assert!(!effects.contains(&Effect::Close { peer: id(kept) }));
    }
    assert_eq!(node.wanted().members, 0);
    // With work of its own it keeps what comes.
    let mut node = self::node(false);
    connect(&mut node, 0, 2..=30);
    node.wants(at(0), swarm(1), 1);
    assert_eq!(closed(&settle(&mut node, 40)), 0);
    node.wants(at(50), swarm(1), 0);
    assert_eq!(closed(&settle(&mut node, 52)), 0, "it has just ended");
    assert_eq!(closed(&settle(&mut node, 82)), 21);
    // A bootstrap node keeps all.
    let mut node = Neighbours::new(key(1), Part { lends: false, serves: true }, 1, 7);
    connect(&mut node, 0, 2..=100);
    assert_eq!(closed(&settle(&mut node, 100)), 0);
}

#[test]
fn a_small_swarm_is_wholly_connected_and_a_large_one_leaves_room() {
    let mut node = node(true);
    let wanted = |node: &mut Neighbours, known| {
        node.settle(at(0), known, &mut Vec::new());
        node.wanted().members
    };
    assert_eq!(wanted(&mut node, 3), 8);
    assert_eq!(wanted(&mut node, 100), 5);
    connect(&mut node, 0, 2..=6);
    assert_eq!(wanted(&mut node, 8), 3);
    assert_eq!(wanted(&mut node, 100), 0);
    // Seldom one more is tried, so that halves that were apart find each other.
    let mut looks = 0;
    for seconds in 0..6000 {
        settle(&mut node, seconds);
        looks += node.wanted().members;
    }
    assert!((5..=10).contains(&looks), "{looks}");
}

#[test]
fn an_idle_node_sleeps() {
    let mut node = node(true);
    connect(&mut node, 0, 2..=5);
    node.settle(at(0), 4, &mut Vec::new());
    assert_eq!(node.next_deadline(), None, "the answers wake it");
}

#[test]
fn those_that_were_met_are_told_of_with_their_age_until_ten_minutes() {
    let mut node = node(true);
    connect(&mut node, 0, 2..=4);
    node.connected(at(0), id(5), place(5), vec![swarm(2)], false);
    node.lost(at(10), &id(3), false);
    node.lost(at(10), &id(4), true);
    let told = |node: &mut Neighbours, seconds| {
        let mut peers: Vec<_> =
            node.peers_for(at(seconds), &id(2)).into_iter().map(|p| (p.peer, p.age_s)).collect();
        peers.sort();
        peers
    };
    assert_eq!(told(&mut node, 100), [(id(3), 90)], "not who left, nor of another swarm, nor itself");
    assert_eq!(told(&mut node, 611), []);
    connect(&mut node, 611, 4..=4);
    assert_eq!(told(&mut node, 700), [(id(4), 0)]);
    connect(&mut node, 700, 10..=80);
    assert_eq!(told(&mut node, 700).len(), PEERS_TOLD_MAX);
}

#[test]
fn the_pool_takes_no_place_of_members_and_no_demand_comes_from_it() {
    let mut node = node(true);
    node.in_pool(true);
    for n in 2..=20 {
        node.connected(at(0), id(n), place(n), vec![PUBLIC_SWARM], false);
    }
    assert_eq!(asked(&settle(&mut node, 0)), []);
    assert_eq!(node.wanted(), Wanted { members: 5, pool: 0 });
    let paper = Signed::sign(&key(2), &Demand { swarm: PUBLIC_SWARM, level: 9, serial: 1 });
    let public = crate::wire::Advert { paper, ..advert(2, 9, 1) };
    node.told(at(1), &id(2), &told(vec![public, advert(2, 9, 2)]), anybody);
    assert_eq!(settle(&mut node, 1), []);
    assert_eq!(node.version(), 0);
    connect(&mut node, 2, 30..=34);
    assert_eq!(closed(&settle(&mut node, 40)), 13);
    // Members hear of members, and peers of the pool of their like.
    let of = |node: &mut Neighbours, asker| node.peers_for(at(40), &asker).len();
    assert_eq!((of(&mut node, id(2)), of(&mut node, id(30))), (18, 4));
}

#[test]
fn who_shares_a_closed_swarm_is_not_told_of_the_pool_and_the_pool_makes_room_first() {
    let mut node = node(false);
    connect(&mut node, 0, 2..=3);
    let both = vec![swarm(1), PUBLIC_SWARM];
    node.connected(at(0), id(4), place(4), both.clone(), false);
    node.connected(at(0), id(5), place(5), both, false);
    for n in 6..10 {
        node.connected(at(0), id(n), place(n), vec![PUBLIC_SWARM], false);
    }
    let told = |node: &mut Neighbours, asker: u8| {
        let mut told: Vec<_> = node.peers_for(at(0), &id(asker)).iter().map(|told| told.address).collect();
        told.sort();
        told
    };
    assert_eq!(told(&mut node, 4), [place(2), place(3), place(5)]);
    assert_eq!(told(&mut node, 6), [place(4), place(5), place(7), place(8), place(9)]);
    // Who was lost long ago is still known where the pool's peers come and go.
    node.lost(at(0), &id(2), false);
    for n in 0..2 * MET_MAX {
        let peer = PeerId::from_bytes(std::array::from_fn(|at| (n >> (8 * (at % 2))) as u8));
        node.connected(at(1), peer, place(100), vec![PUBLIC_SWARM], false);
        node.lost(at(1), &peer, false);
    }
    assert_eq!(node.met.len(), MET_MAX);
    assert_eq!(told(&mut node, 4), [place(2), place(3), place(5)]);
}

#[test]
fn demand_in_a_swarm_that_was_left_is_none() {
    let mut node = node(false);
    connect(&mut node, 0, 2..=40);
    node.wants(at(0), swarm(1), 9);
    settle(&mut node, 0);
    assert_eq!(node.wanted().members, LINKS_MAX - 39);
    node.joined([(swarm(2), credential(2))]);
    settle(&mut node, 1);
    node.wants(at(2), swarm(1), 0);
    settle(&mut node, 10);
    assert_eq!(node.wanted().members, 0, "it is idle again");
    settle(&mut node, 200);
    assert!(node.own.is_empty());
}
