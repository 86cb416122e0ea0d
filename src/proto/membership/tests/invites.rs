//! Invites: what lets in, what is refused, and why.

use super::*;
use crate::wire::{Invite, MEMBERS_MAX, PUT_OUT_MAX, Signed};

#[test]
fn who_is_admitted_is_a_member_for_all_and_a_stranger_for_none() {
    let (mut founder, [mut two, mut three]) = swarm([2, 3]);
    assert_eq!(meet(&mut two, &three), Ok(Seen::Same));
    assert_eq!(meet(&mut three, &two), Ok(Seen::Same));
    assert_eq!(meet(&mut three, &founder), Ok(Seen::Same));
    assert_eq!(meet(&mut founder, &three), Ok(Seen::Same));
    let all = [FOUNDER, 2, 3].map(id).into();
    for record in [&founder, &two, &three] {
        assert_eq!(record.members(), all);
    }
    // The same papers in a stranger's hand.
    let stolen = three.credential().unwrap();
    assert_eq!(two.is_member(id(9), &stolen), Err(Stranger::Another));
    let none = Credential { proof: None, ..stolen };
    assert_eq!(two.is_member(id(9), &none), Err(Stranger::NotListed));
    assert_eq!(two.secrets(), founder.secrets());
    assert_eq!(two.role(), Role::Member);
    assert_eq!(two.ticket(), None);
}

#[test]
fn joining_again_is_free() {
    let mut founder = founded();
    let once = ticket(&mut founder, FOUNDER, 1, InviteTerms { uses_max: 1, ttl_ms: Some(10) });
    let first = founder.admit(&key(FOUNDER), &request(&once), id(2), Some(NOW)).unwrap();
    // The answer was lost before the record was kept: nothing was counted.
    assert_eq!(founder.admit(&key(FOUNDER), &request(&once), id(2), Some(NOW)).unwrap(), first);
    let answer = first.apply(&mut founder);
    // And lost after it: the same answer, nothing to keep, even when the invite is over.
    for now in [Some(NOW), Some(NOW + 100), None] {
        let again = founder.admit(&key(FOUNDER), &request(&once), id(2), now).unwrap();
        assert_eq!(again, Decided { record: None, answer: answer.clone() });
    }
    assert_eq!(founder.invites().next().unwrap().uses.len(), 1);
    assert_eq!(admit(&mut founder, FOUNDER, &once, 3), Err(Refusal::Exhausted));
    // A member that brings another invite counts no use of it either.
    let other = open_ticket(&mut founder, FOUNDER, 2);
    assert_eq!(admit(&mut founder, FOUNDER, &other, 2).unwrap().credential, answer.credential);
    assert_eq!(founder.invites().last().unwrap().uses.len(), 0);
}

#[test]
fn every_refusal_has_its_own_reason() {
    let (mut founder, [member, mut delegate]) = swarm([2, 3]);
    make_delegate(&mut founder, &mut delegate, 3, 5);
    let short = ticket(&mut founder, FOUNDER, 1, InviteTerms { uses_max: 2, ttl_ms: Some(1000) });
    let ask = |record: &SwarmRecord, n: u8, request: &JoinRequest, now| {
        record.admit(&key(n), request, id(9), now).map(|_| ())
    };
    let asked = request(&short);
    assert_eq!(ask(&founder, FOUNDER, &asked, Some(NOW + 999)), Ok(()));
    assert_eq!(ask(&founder, FOUNDER, &asked, Some(NOW + 1000)), Err(Refusal::Expired));
    assert_eq!(ask(&founder, FOUNDER, &asked, None), Err(Refusal::ClockUnset));
    let itself = founder.admit(&key(FOUNDER), &asked, id(FOUNDER), Some(NOW));
    assert_eq!(itself, Err(Refusal::NotAdmitting));
    // Whoever did not sign it: a member, another delegate.
    assert_eq!(ask(&member, 2, &asked, Some(NOW)), Err(Refusal::NotAdmitting));
    assert_eq!(ask(&delegate, 3, &asked, Some(NOW)), Err(Refusal::NotAdmitting));
    let mut revoked = founder.clone();
    revoked.revoke(invite_id(1)).unwrap().apply(&mut revoked);
    assert_eq!(ask(&revoked, FOUNDER, &asked, Some(NOW)), Err(Refusal::Revoked));
    let mut used = founder.clone();
    for joiner in [4, 5] {
        admit(&mut used, FOUNDER, &short, joiner).unwrap();
    }
    assert_eq!(ask(&used, FOUNDER, &asked, Some(NOW)), Err(Refusal::Exhausted));
    assert_eq!(ask(&used, FOUNDER, &asked, None), Err(Refusal::Exhausted));
    // Another swarm of the same founder, asked under either id.
    let mut other = SwarmRecord::found(&key(FOUNDER), "lab".parse().unwrap(), [3; 16], secret(0));
    let foreign = request(&open_ticket(&mut other, FOUNDER, 1));
    assert_eq!(ask(&founder, FOUNDER, &foreign, Some(NOW)), Err(Refusal::OtherSwarm));
    let foreign = JoinRequest { swarm: founder.id(), ..foreign };
    assert_eq!(ask(&founder, FOUNDER, &foreign, Some(NOW)), Err(Refusal::OtherSwarm));
    // Signed by a stranger in the founder's name; and by the founder, with other facts under a known id.
    let facts = short.facts().unwrap();
    let forged = |by: u8, invite: &Invite| {
        let mut forged = asked.clone();
        forged.invite.paper = Signed::sign(&key(by), invite);
        forged
    };
    assert_eq!(ask(&founder, FOUNDER, &forged(9, &facts), Some(NOW)), Err(Refusal::Forged));
    let changed = Invite { uses_max: 1000, ..facts.clone() };
    assert_eq!(ask(&founder, FOUNDER, &forged(FOUNDER, &changed), Some(NOW)), Err(Refusal::Forged));
    // An invite that this node signed and has forgotten.
    let forgotten = Invite { id: invite_id(77), ..facts };
    assert_eq!(ask(&founder, FOUNDER, &forged(FOUNDER, &forgotten), Some(NOW)), Err(Refusal::Revoked));
    // A delegate's invite with a delegation that it made itself.
    let right = open_ticket(&mut delegate, 3, 5);
    assert_eq!(ask(&delegate, 3, &request(&right), Some(NOW)), Ok(()));
    let mut own = request(&right);
    own.invite.delegation = None;
    assert_eq!(ask(&delegate, 3, &own, Some(NOW)), Err(Refusal::Forged));
    assert!(!Refusal::Forged.is_passing() && Refusal::ClockUnset.is_passing());
}

#[test]
fn an_invite_waits_until_the_clock_is_set() {
    let mut founder = founded();
    let short = ticket(&mut founder, FOUNDER, 1, InviteTerms { uses_max: 1, ttl_ms: Some(1000) });
    let ask = |founder: &SwarmRecord, now| founder.admit(&key(FOUNDER), &request(&short), id(2), now);
    assert_eq!(ask(&founder, None), Err(Refusal::ClockUnset));
    ask(&founder, Some(NOW)).unwrap().apply(&mut founder);
    // One that never expires needs no clock.
    let open = open_ticket(&mut founder, FOUNDER, 2);
    assert!(founder.admit(&key(FOUNDER), &request(&open), id(3), None).is_ok());
    // And none is dated without one.
    let terms = InviteTerms { uses_max: 1, ttl_ms: Some(1) };
    let undated = founder.invite(&key(FOUNDER), invite_id(3), terms, None);
    assert_eq!(undated, Err(MembershipError::ClockUnset));
}

#[test]
fn invites_are_bounded_and_dead_ones_make_room() {
    let mut founder = founded();
    let invite = |founder: &mut SwarmRecord, n: u16, uses_max, ttl_ms, now| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        let id = InviteId::from_bytes(bytes);
        founder.invite(&key(FOUNDER), id, InviteTerms { uses_max, ttl_ms }, Some(now)).map(|decided| {
            decided.apply(founder);
            id
        })
    };
    let refused = |asked| Err(MembershipError::Uses { asked });
    assert_eq!(invite(&mut founder, 0, 0, None, NOW), refused(0));
    assert_eq!(invite(&mut founder, 0, USES_MAX + 1, None, NOW), refused(USES_MAX + 1));
    for n in 0..INVITES_MAX as u16 {
        invite(&mut founder, n, 1, (n == 0).then_some(10), NOW).unwrap();
    }
    let again = invite(&mut founder, 5, 1, None, NOW);
    assert!(matches!(again, Err(MembershipError::InviteExists { .. })));
    assert_eq!(invite(&mut founder, 999, 1, None, NOW), Err(MembershipError::TooManyInvites));
    let late = invite(&mut founder, 999, 1, None, NOW + 10).unwrap();
    founder.revoke(late).unwrap().apply(&mut founder);
    invite(&mut founder, 998, 1, None, NOW + 10).unwrap();
    assert_eq!(founder.revoke(late), Err(MembershipError::NoInvite { id: late }));
    assert_eq!(founder.invites().count(), INVITES_MAX);
    // Their uses together are bounded as well.
    let mut founder = founded();
    for n in 0..4 {
        invite(&mut founder, n, USES_MAX, None, NOW).unwrap();
    }
    assert_eq!(invite(&mut founder, 4, 1, None, NOW), Err(MembershipError::TooManyInvites));
}

#[test]
fn a_swarm_holds_so_many_and_no_more() {
    let mut founder = founded();
    let wide = ticket(&mut founder, FOUNDER, 1, InviteTerms { uses_max: USES_MAX, ttl_ms: None });
    let wider = ticket(&mut founder, FOUNDER, 2, InviteTerms { uses_max: USES_MAX, ttl_ms: None });
    let peer = |n: usize| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&(n as u32).to_be_bytes());
        PeerId::from_bytes(bytes)
    };
    for n in 0..MEMBERS_MAX {
        founder.admit(&key(FOUNDER), &request(&wide), peer(n), None).unwrap().apply(&mut founder);
    }
    let ask =
        |founder: &SwarmRecord, n| founder.admit(&key(FOUNDER), &request(&wider), peer(n), None).is_ok();
    assert!(!ask(&founder, MEMBERS_MAX));
    assert!(ask(&founder, 7));
    founder.kick(&key(FOUNDER), peer(0), secret(1)).unwrap().apply(&mut founder);
    assert!(ask(&founder, MEMBERS_MAX));
    let bytes = postcard::to_allocvec(&founder).unwrap();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    // An invite is void before the kick that bars somebody from it may be forgotten.
    for n in 0..PUT_OUT_MAX as u16 {
        assert!(ask(&founder, 5000), "epoch {}", founder.epoch());
        founder.left(peer(usize::from(n) + 1)).unwrap().apply(&mut founder);
        let gone = peer(6000 + usize::from(n));
        founder.kick(&key(FOUNDER), gone, secret(1)).unwrap().apply(&mut founder);
        if founder.epoch() == PUT_OUT_MAX as u64 {
            break;
        }
    }
    assert_eq!(
        founder.admit(&key(FOUNDER), &request(&wider), peer(5000), None).map(|_| ()),
        Err(Refusal::Revoked)
    );
}
