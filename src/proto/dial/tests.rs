//! One book of addresses, and what is dialled of it when.

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
fn peers_of_the_pool_take_no_place_of_members() {
    let mut dialer = Dialer::new(peer(0), 1);
    for n in 1..5 {
        dialer.learn(at(0), address(n), Some(peer(n as u8)), Origin::Pool);
    }
    dialer.learn(at(0), address(9), Some(peer(9)), Origin::Told);
    assert_eq!(dialer.known(), 1);
    assert_eq!(dialer.due(at(0), 5), [(address(9), Some(peer(9)))]);
    assert_eq!(dialer.next_deadline(5), None);
    let wanted = Wanted { members: 5, pool: 2 };
    assert_eq!(dialer.due(at(0), wanted).len(), 2);
    assert_eq!(dialer.next_deadline(wanted), None);
    // One that was met in an earlier life may be either; once it is met, it is known.
    dialer.learn(at(0), address(10), Some(peer(10)), Origin::Remembered);
    assert_eq!(dialer.due(at(0), Wanted { members: 0, pool: 3 }).len(), 1);
    dialer.ended(at(1), &address(10), Dialled::Member(peer(10)));
    dialer.shares(peer(10), true);
    assert_eq!(dialer.known(), 1);
    dialer.lost(at(2), &peer(10));
    assert_eq!(dialer.due(at(9), 5), []);
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

#[test]
fn peers_of_the_pool_do_not_fill_the_book() {
    let mut dialer = Dialer::new(peer(0), 1);
    for n in 0..100 {
        dialer.learn(at(0), address(n), None, Origin::Told);
    }
    for n in 1000..3000 {
        dialer.learn(at(0), address(n), None, Origin::Pool);
    }
    assert_eq!(dialer.targets.len(), TARGETS_MAX);
    assert_eq!(dialer.targets.values().filter(|target| !target.is_pool).count(), 100);
    for n in 3000..3000 + TARGETS_MAX as u16 {
        dialer.learn(at(0), address(n), None, Origin::Lan);
    }
    assert_eq!(dialer.targets.values().filter(|target| target.is_pool).count(), 0);
    dialer.learn(at(0), address(4000), Some(peer(3)), Origin::Pool);
    assert!(!dialer.targets.contains_key(&address(4000)), "there is no room for it");
}

#[test]
fn who_is_connected_or_needed_stays_in_the_book() {
    let mut dialer = Dialer::new(peer(0), 1);
    dialer.learn(at(0), address(1), Some(peer(1)), Origin::Remembered);
    dialer.learn(at(0), address(2), Some(peer(2)), Origin::Told);
    dialer.need(&BTreeSet::from([peer(2)]));
    dialer.connected(peer(1));
    dialer.shares(peer(1), true);
    for n in 100..2000 {
        dialer.learn(at(0), address(n), None, Origin::Lan);
    }
    assert!(dialer.targets.contains_key(&address(1)) && dialer.targets.contains_key(&address(2)));
    // However often it fails.
    let (mut tries, mut now) = (0, 0);
    while now < 7200 {
        if dialer.due(at(now), 0).iter().any(|(at, _)| *at == address(2)) {
            dialer.ended(at(now), &address(2), Dialled::Failed);
            tries += 1;
        }
        now += 1;
    }
    assert!(tries >= 20, "{tries}: at least once in five minutes");
    dialer.need(&BTreeSet::new());
    dialer.lost(at(now), &peer(1));
    for n in 2000..4000 {
        dialer.learn(at(now), address(n), None, Origin::Lan);
    }
    assert!(!dialer.targets.contains_key(&address(1)));
}

#[test]
fn who_had_no_place_for_a_joiner_is_asked_again_soon() {
    let mut dialer = Dialer::new(peer(0), 1);
    dialer.learn(at(0), address(1), Some(peer(1)), Origin::Ticket);
    dialer.due(at(0), ALL);
    dialer.ended(at(0), &address(1), Dialled::Stranger(peer(1)));
    assert_eq!(dialer.due(at(500), ALL), []);
    dialer.rest_briefly(at(500), &peer(1), &address(1));
    assert_eq!(dialer.due(at(504), ALL), []);
    assert_eq!(dialer.due(at(530), ALL), [(address(1), Some(peer(1)))]);
}

#[test]
fn what_was_named_for_the_pool_is_not_dialled_in_any_case_once_it_was_left() {
    let mut dialer = Dialer::new(peer(0), 1);
    let before = dialer.learn_named(at(0), address(1), peer(1));
    assert!(dialer.is_named(&peer(1)));
    dialer.demote(&address(1), before);
    dialer.retry_all(at(0));
    assert!(!dialer.is_named(&peer(1)));
    // What was known otherwise too is known as before.
    dialer.learn(at(0), address(2), Some(peer(2)), Origin::Ticket);
    let before = dialer.learn_named(at(0), address(2), peer(2));
    dialer.demote(&address(2), before);
    assert_eq!(dialer.targets[&address(2)].origin, Origin::Ticket);
    dialer.ended(at(0), &address(2), Dialled::Member(peer(2)));
    assert_eq!(dialer.due(at(0), 8), []);
    assert_eq!(dialer.due(at(0), Wanted { members: 0, pool: 1 }).len(), 1);
}

#[test]
fn one_peer_has_a_few_places_and_what_is_wished_for_always_one() {
    let mut dialer = Dialer::new(peer(0), 1);
    dialer.connected(peer(1));
    for n in 0..600 {
        let origin = [Origin::Pool, Origin::Told, Origin::Remembered][usize::from(n) % 3];
        dialer.learn(at(0), address(n), Some(peer(1)), origin);
    }
    assert_eq!(dialer.targets.len(), PLACES_OF_PEER_MAX);
    // A book full of what is worth more.
    for n in 1000..1000 + TARGETS_MAX as u16 {
        dialer.learn(at(0), address(n), None, Origin::Lan);
    }
    dialer.learn(at(0), address(5000), Some(peer(2)), Origin::Told);
    assert!(!dialer.targets.contains_key(&address(5000)));
    dialer.wish(at(0), peer(2), &[address(5000), address(5001)]);
    assert_eq!(dialer.targets.len(), TARGETS_MAX);
    let due = dialer.due(at(0), 0);
    assert!(due.contains(&(address(5000), Some(peer(2)))) && due.contains(&(address(5001), Some(peer(2)))));
    dialer.wish(at(0), peer(0), &[address(6000)]);
    assert!(!dialer.targets.contains_key(&address(6000)), "nobody dials itself");
}
