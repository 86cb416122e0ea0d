//! The book alone.

use ed25519_dalek::SigningKey;

use super::*;
use crate::wire::{EpochNotice, Founding, Issued};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn id(n: u8) -> PeerId {
    PeerId::from_bytes(key(n).verifying_key().to_bytes())
}

fn credential(n: u8) -> Credential {
    let founding = Founding { founder: id(200), nonce: [n; 16], name: "home".parse().unwrap() };
    Credential { founding, epoch: 0, proof: None }
}

fn swarm(n: u8) -> SwarmId {
    credential(n).founding.id()
}

fn teller(n: u8, shared: u8) -> Teller {
    Teller { peer: id(n), address: place(n.into()), shared: vec![swarm(shared)] }
}

fn place(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n))
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_ms(seconds * 1000)
}

fn advert(by: u8, of: u8, level: u8, serial: u64) -> Advert {
    let paper = Signed::sign(&key(by), &Demand { swarm: swarm(of), level, serial });
    let reached = vec![Reached { address: place(7), age_s: 5 }];
    Advert { peer: id(by), paper, credential: credential(of), age_s: 0, reached }
}

fn hear(book: &mut Demands, seconds: u64, advert: &Advert) -> bool {
    book.hear(at(seconds), &teller(2, 1), advert, |_, _| true)
}

#[test]
fn what_is_later_counts_and_an_end_is_no_demand() {
    let mut book = Demands::new(id(1));
    assert!(hear(&mut book, 0, &advert(3, 1, 9, 5)));
    assert!(!hear(&mut book, 0, &advert(3, 1, 9, 5)), "known");
    assert!(!hear(&mut book, 0, &advert(3, 1, 0, 4)), "earlier");
    assert_eq!(book.with_work(at(0), &[swarm(1)]), [(id(3), vec![place(7)])]);
    assert_eq!(book.with_work(at(0), &[swarm(2)]), []);
    assert!(hear(&mut book, 1, &advert(3, 1, 0, 6)));
    assert!(!book.has_work(at(1), &id(3), &[swarm(1)]));
    assert!(!hear(&mut book, 1, &advert(3, 1, 9, 5)), "an echo from before the end");
}

#[test]
fn what_is_forged_foreign_old_or_unreached_is_not_taken_in() {
    let mut book = Demands::new(id(1));
    let right = advert(3, 1, 9, 5);
    for wrong in [
        Advert { peer: id(4), ..right.clone() },
        Advert { age_s: 181, ..right.clone() },
        Advert { reached: Vec::new(), ..right.clone() },
        Advert { reached: vec![Reached { address: place(7), age_s: 601 }], ..right.clone() },
        Advert { credential: credential(2), ..right.clone() },
        advert(3, 2, 9, 5),
        advert(1, 1, 9, 5),
    ] {
        assert!(!hear(&mut book, 0, &wrong), "{wrong:?}");
    }
    let key = key(3);
    let long = Signed::sign(
        &key,
        &EpochNotice {
            swarm: swarm(1),
            epoch: 1,
            members: vec![id(9); 300],
            put_out: Vec::new(),
            revoked: Vec::new(),
            secret: [0; 32],
        },
    );
    let proof = Some(Issued { by: id(3), delegation: None, paper: long });
    let heavy = Advert { credential: Credential { proof, ..credential(1) }, ..right.clone() };
    assert!(!hear(&mut book, 0, &heavy), "nobody could pass that on");
    let knows_nobody = |_: &PeerId, _: &Credential| false;
    assert!(!book.hear(at(0), &teller(2, 1), &right, knows_nobody), "no member");
    assert_eq!(book.len(), 0);
    assert!(hear(&mut book, 0, &right));
    // The same paper by somebody who is not in that swarm tells us nothing new either.
    let again = Advert { reached: vec![Reached { address: place(8), age_s: 0 }], ..right };
    assert!(!book.hear(at(0), &teller(2, 2), &again, |_, _| true));
    assert_eq!(book.with_work(at(0), &[swarm(1)]), [(id(3), vec![place(7)])]);
}

#[test]
fn ages_only_grow_on_the_way_and_end_it() {
    let mut book = Demands::new(id(1));
    hear(&mut book, 0, &Advert { age_s: 100, ..advert(3, 1, 9, 5) });
    let tell = |book: &Demands, seconds| book.tell(at(seconds), &id(4), &[swarm(1)], 0, |_| None);
    let told = tell(&book, 10).unwrap();
    assert_eq!((told.adverts[0].age_s, told.adverts[0].reached[0].age_s), (110, 15));
    // By another way it is younger; by a third it is not.
    hear(&mut book, 10, &Advert { age_s: 20, ..advert(3, 1, 9, 5) });
    hear(&mut book, 10, &Advert { age_s: 90, ..advert(3, 1, 9, 5) });
    assert_eq!(tell(&book, 10).unwrap().adverts[0].age_s, 20);
    assert!(tell(&book, 170).is_some());
    assert_eq!(tell(&book, 171), None);
    assert!(!book.has_work(at(171), &id(3), &[swarm(1)]));
    assert_eq!(book.next_expiry(), Some(Timestamp::from_ms(170_001)));
    book.expire(at(171));
    assert_eq!((book.len(), book.reached.len()), (0, 0));
}

#[test]
fn a_peer_is_told_what_is_new_to_it_of_swarms_that_it_is_in_and_not_of_itself() {
    let mut book = Demands::new(id(1));
    for by in 3..3 + ADVERTS_TOLD_MAX as u8 + 2 {
        hear(&mut book, 0, &advert(by, 1, 9, 5));
    }
    let tell = |asker, swarms: &[SwarmId], after| book.tell(at(0), &asker, swarms, after, |_| None);
    let first = tell(id(4), &[swarm(1)], 0).unwrap();
    assert_eq!(first.adverts.len(), ADVERTS_TOLD_MAX);
    assert!(first.adverts.iter().all(|advert| advert.peer != id(4)));
    let rest = tell(id(4), &[swarm(1)], first.upto).unwrap();
    assert_eq!(rest.adverts.len(), 1);
    assert_eq!(tell(id(4), &[swarm(1)], rest.upto), None);
    assert_eq!(tell(id(4), &[swarm(2)], 0), None);
    assert_eq!(tell(id(4), &[], 0), None);
}

#[test]
fn the_book_is_bounded_and_keeps_its_own() {
    let mut book = Demands::new(id(1));
    let demand = Demand { swarm: swarm(1), level: 3, serial: 1 };
    book.say(at(0), demand, Signed::sign(&key(1), &demand), credential(1));
    for by in 2..=255 {
        hear(&mut book, 100 + u64::from(by), &advert(by, 1, 9, 5));
    }
    assert_eq!(book.len(), ADVERTS_MAX);
    assert!(book.reached.len() <= ADVERTS_MAX);
    let told = book.tell_own(at(100), &[swarm(1)]).unwrap();
    assert_eq!((told.adverts.len(), told.adverts[0].peer), (1, id(1)));
    assert_eq!(book.tell_own(at(100), &[swarm(2)]), None);
}
#[test]
fn one_swarm_with_many_members_does_not_displace_the_demand_of_another() {
    let mut book = Demands::new(id(1));
    let both = Teller { shared: vec![swarm(1), swarm(2)], ..teller(2, 1) };
    assert!(book.hear(at(0), &both, &Advert { age_s: 90, ..advert(3, 1, 9, 5) }, |_, _| true));
    for by in 4..=255 {
        assert!(book.hear(at(1), &both, &advert(by, 2, 9, 5), |_, _| true));
    }
    assert_eq!(book.len(), ADVERTS_MAX);
    assert!(book.has_work(at(1), &id(3), &[swarm(1)]));
}

#[test]
fn one_teller_does_not_hide_where_a_peer_is() {
    let mut book = Demands::new(id(1));
    let places =
        |from: u16, age_s| (from..from + 4).map(|n| Reached { address: place(n), age_s }).collect::<Vec<_>>();
    let right = Advert { reached: places(100, 60), ..advert(3, 1, 9, 5) };
    hear(&mut book, 0, &right);
    let lie = Advert { reached: places(200, 0), ..right.clone() };
    book.hear(at(0), &teller(9, 1), &lie, |_, _| true);
    let known = |book: &Demands| book.with_work(at(0), &[swarm(1)]).remove(0).1;
    assert_eq!(known(&book), [place(200), place(201), place(100), place(101)]);
    book.met(at(0), id(3), place(7));
    book.hear(at(0), &teller(10, 1), &Advert { reached: places(300, 0), ..right }, |_, _| true);
    assert_eq!(known(&book)[0], place(7), "where this node saw it itself");
    // Nor does one that names the right place last, behind two of its own.
    let mut reached = places(1, 0);
    reached.truncate(2);
    reached.push(Reached { address: place(7), age_s: 0 });
    book.hear(at(0), &teller(11, 1), &Advert { reached, ..advert(3, 1, 9, 5) }, |_, _| true);
    assert_eq!(known(&book)[0], place(7));
}
