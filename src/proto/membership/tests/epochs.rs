//! Epochs: kicks, notices, secrets, and members that the founder had not heard of.

use super::*;
use crate::wire::{EpochNotice, Membership, Signed};

fn kick(founder: &mut SwarmRecord, peer: u8, next: u8) -> NewEpoch {
    founder.kick(&key(FOUNDER), id(peer), secret(next)).unwrap().apply(founder)
}

#[test]
fn a_kick_holds_where_it_is_known() {
    let (mut founder, [mut two, mut three, mut out]) = swarm([2, 3, 4]);
    let epoch = kick(&mut founder, 4, 1);
    assert_eq!(tell(&mut two, &epoch), Learned::Stays);
    let outdated = || Err(Stranger::Outdated { theirs: 0, ours: 1 });
    assert_eq!(meet(&mut two, &out), outdated());
    // Nor does it help to lie about the epoch.
    for epoch in [1, 2] {
        let lie = Credential { epoch, ..out.credential().unwrap() };
        assert!(two.is_member(id(4), &lie).is_err(), "{epoch}");
    }
    assert_eq!(meet(&mut founder, &out), outdated());
    assert_eq!(renew(&mut founder, FOUNDER, &mut out), Err(Stranger::Outdated { theirs: 0, ours: 1 }));
    // Three has not heard of it yet.
    assert_eq!(meet(&mut three, &out), Ok(Seen::Same));
    // Two is listed in no notice that three knows, but has a membership of epoch 0 no more: three asks for the notice.
    assert_eq!(meet(&mut three, &two), Err(Stranger::Ahead { theirs: 1, ours: 0 }));
    assert_eq!(meet(&mut two, &three), Ok(Seen::Behind));
    assert_eq!(renew(&mut two, 2, &mut three), Ok(Learned::Stays));
    assert_eq!(meet(&mut three, &out), outdated());
    assert_eq!(meet(&mut three, &two), Ok(Seen::Same));
    assert_eq!(tell(&mut out, &epoch), Learned::Kicked);
    assert_eq!((out.role(), out.credential()), (Role::Kicked, None));
    assert_eq!(out.is_member(id(2), &two.credential().unwrap()), Err(Stranger::CanNotJudge));
    // The secret is another, and the old one is kept only for those who lag.
    for member in [&founder, &two, &three] {
        let secrets: Vec<_> = member.secrets().iter().map(|s| s.secret.clone()).collect();
        assert_eq!(secrets, [secret(1), secret(0)]);
        assert_eq!(member.members(), [FOUNDER, 2, 3].map(id).into());
    }
    assert_eq!(out.secrets().len(), 1);
}

#[test]
fn who_was_put_out_comes_back_only_by_a_newer_invite() {
    let mut founder = founded();
    let came_by = open_ticket(&mut founder, FOUNDER, 1);
    let older = open_ticket(&mut founder, FOUNDER, 2);
    let mut two = join(&mut founder, FOUNDER, &older, 2);
    join(&mut founder, FOUNDER, &came_by, 4);
    let first = kick(&mut founder, 4, 1);
    tell(&mut two, &first);
    assert_eq!(admit(&mut founder, FOUNDER, &came_by, 4), Err(Refusal::Revoked));
    assert_eq!(admit(&mut founder, FOUNDER, &older, 4), Err(Refusal::Revoked));
    // Under another key, by the invite that it knew.
    assert_eq!(admit(&mut founder, FOUNDER, &came_by, 5), Err(Refusal::Revoked));
    assert!(admit(&mut founder, FOUNDER, &older, 6).is_ok());
    let newer = open_ticket(&mut founder, FOUNDER, 3);
    let mut back = join(&mut founder, FOUNDER, &newer, 4);
    assert_eq!(meet(&mut two, &back), Ok(Seen::Same));
    let second = kick(&mut founder, 6, 2);
    let facts: EpochNotice = second.notice.open(&id(FOUNDER)).unwrap();
    assert_eq!(facts.put_out, [(id(6), 2)]);
    assert_eq!(tell(&mut back, &second), Learned::Stays);
    tell(&mut two, &second);
    assert_eq!(meet(&mut two, &back), Ok(Seen::Same));
}

/// A delegate admits where the founder is not heard; the founder kicks somebody else meanwhile.
#[test]
fn who_the_founder_had_not_heard_of_is_renewed() {
    let (mut founder, [mut delegate, two, other]) = swarm([2, 3, 4]);
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let [mut late, mut guest, mut last] = [5, 6, 7].map(|n| join(&mut delegate, 2, &ticket, n));
    assert_eq!(admit(&mut delegate, 2, &ticket, 8), Err(Refusal::Full));
    // The founder meets one of the three, so two of the quota are left as far as it knows.
    assert_eq!(meet(&mut founder, &last), Ok(Seen::Same));
    let epoch = kick(&mut founder, 4, 1);
    assert_eq!(tell(&mut last, &epoch), Learned::Stays);
    assert_eq!(tell(&mut late, &epoch), Learned::Unlisted);
    assert_eq!(late.role(), Role::Unlisted);
    let mut two = two;
    tell(&mut two, &epoch);
    assert_eq!(meet(&mut two, &late), Err(Stranger::Outdated { theirs: 0, ours: 1 }));
    assert_eq!(renew(&mut two, 3, &mut late), Err(Stranger::Outdated { theirs: 0, ours: 1 }));
    assert_eq!(renew(&mut founder, FOUNDER, &mut late), Ok(Learned::Stays));
    assert_eq!(meet(&mut two, &late), Ok(Seen::Same));
    assert_eq!(founder.renew(&key(FOUNDER), id(5), &late.credential().unwrap()).unwrap().record, None);
    // The delegate has its next delegation with what was left, and its invite lives on.
    tell(&mut delegate, &epoch);
    assert_eq!(delegate.role(), Role::Member);
    assert_eq!(admit(&mut delegate, 2, &ticket, 8), Err(Refusal::NotAdmitting));
    assert_eq!(renew(&mut founder, FOUNDER, &mut delegate), Ok(Learned::Known));
    assert_eq!(delegate.quota_left(), Some(2));
    let eight = join(&mut delegate, 2, &ticket, 8);
    assert_eq!(meet(&mut two, &eight), Ok(Seen::Same));
    // Once the delegate is out, whom it admitted unseen is out with it, and so is who was put out unseen.
    let epoch = kick(&mut founder, 2, 2);
    assert_eq!(tell(&mut guest, &epoch), Learned::Unlisted);
    let refused = Err(Stranger::Outdated { theirs: 0, ours: 2 });
    assert_eq!(renew(&mut founder, FOUNDER, &mut guest), refused);
    assert_eq!(other.role(), Role::Member);
}

#[test]
fn an_unseen_guest_that_was_put_out_stays_out() {
    let (mut founder, [mut delegate]) = swarm([2]);
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let [mut guest, mut friend] = [5, 6].map(|n| join(&mut delegate, 2, &ticket, n));
    kick(&mut founder, 5, 1);
    assert!(renew(&mut founder, FOUNDER, &mut guest).is_err());
    let epoch =
        founder.revoke_of_delegate(&key(FOUNDER), invite_id(1), secret(2)).unwrap().apply(&mut founder);
    assert!(renew(&mut founder, FOUNDER, &mut friend).is_err());
    tell(&mut delegate, &epoch);
    renew(&mut founder, FOUNDER, &mut delegate).unwrap();
    assert_eq!(admit(&mut delegate, 2, &ticket, 7), Err(Refusal::Revoked));
    let fresh = open_ticket(&mut delegate, 2, 9);
    assert_eq!(join(&mut delegate, 2, &fresh, 7).role(), Role::Member);
    // The kicked key, by an invite of the epoch that put it out or a later one.
    assert!(admit(&mut delegate, 2, &fresh, 5).is_ok());
}

#[test]
fn one_serial_for_two_peers_is_a_fork() {
    let (mut founder, [mut delegate, mut checker]) = swarm([2, 3]);
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let mut twin = delegate.clone();
    let one = join(&mut delegate, 2, &ticket, 5);
    let other = join(&mut twin, 2, &ticket, 6);
    assert_eq!(meet(&mut checker, &one), Ok(Seen::Same));
    let fork = Stranger::Fork { delegate: id(2), serial: 0, first: id(5), second: id(6) };
    assert_eq!(meet(&mut checker, &other), Err(fork));
    assert_eq!(meet(&mut checker, &one), Ok(Seen::Same));
    // Whoever sees only one can not tell; the founder neither, until it sees both.
    assert_eq!(meet(&mut founder, &other), Ok(Seen::Same));
    assert!(matches!(meet(&mut founder, &one), Err(Stranger::Fork { .. })));
    // And it still can after the epoch has ended.
    kick(&mut founder, 9, 1);
    let mut one = one;
    assert!(matches!(renew(&mut founder, FOUNDER, &mut one), Err(Stranger::Fork { .. })));
}

/// A delegate whose records are gone counts from 0 again, in a delegation that has a serial of its own.
#[test]
fn a_new_delegation_counts_anew() {
    let (mut founder, [mut delegate, mut checker]) = swarm([2, 3]);
    make_delegate(&mut founder, &mut delegate, 2, 1);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let one = join(&mut delegate, 2, &ticket, 5);
    assert_eq!(admit(&mut delegate, 2, &ticket, 6), Err(Refusal::Full));
    make_delegate(&mut founder, &mut delegate, 2, 1);
    let other = join(&mut delegate, 2, &ticket, 6);
    assert_eq!(meet(&mut checker, &one), Ok(Seen::Same));
    assert_eq!(meet(&mut checker, &other), Ok(Seen::Same));
    // What the old delegation covered, the new one pays for again.
    make_delegate(&mut founder, &mut delegate, 2, 2);
    let five = admit(&mut delegate, 2, &ticket, 5).unwrap();
    assert_eq!(delegate.quota_left(), Some(1));
    assert_eq!(admit(&mut delegate, 2, &ticket, 5), Ok(five));
    let seven = join(&mut delegate, 2, &ticket, 7);
    assert_eq!(meet(&mut checker, &seven), Ok(Seen::Same));
    // It counts itself among the members, or it would admit one too many.
    for peer in [&one, &other, &seven] {
        meet(&mut founder, peer).unwrap();
    }
    meet(&mut delegate, &checker).unwrap();
    assert_eq!((founder.taken_places(), delegate.taken_places()), (5, 5));
}

/// The founder hears too late that a delegate has let in again whom it had put out.
#[test]
fn who_was_let_in_again_unseen_was_not_put_out() {
    let (mut founder, [mut delegate, mut back]) = swarm([2, 3]);
    let first = kick(&mut founder, 3, 1);
    assert_eq!(tell(&mut back, &first), Learned::Kicked);
    tell(&mut delegate, &first);
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let mut back = join(&mut delegate, 2, &ticket, 3);
    let second = kick(&mut founder, 9, 2);
    assert_eq!(tell(&mut back, &second), Learned::Unlisted);
    let right = founder.renew(&key(FOUNDER), id(3), &back.credential().unwrap()).unwrap().answer;
    let lied = Admitted { notice: None, secret: secret(9), ..right };
    assert_eq!(back.take_up(&lied), Err(TakeUpError::Another));
    assert_eq!(renew(&mut founder, FOUNDER, &mut back), Ok(Learned::Stays));
    assert_eq!(meet(&mut founder, &back), Ok(Seen::Same));
}

#[test]
fn a_kick_revokes_the_invite_of_a_delegate_as_well() {
    let (mut founder, [mut delegate]) = swarm([2]);
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let [came_by, other] = [1, 2].map(|n| open_ticket(&mut delegate, 2, n));
    let guest = join(&mut delegate, 2, &came_by, 5);
    meet(&mut founder, &guest).unwrap();
    let epoch = kick(&mut founder, 5, 1);
    tell(&mut delegate, &epoch);
    renew(&mut founder, FOUNDER, &mut delegate).unwrap();
    // The same person under another key.
    assert_eq!(admit(&mut delegate, 2, &came_by, 6), Err(Refusal::Revoked));
    assert_eq!(admit(&mut delegate, 2, &other, 5), Err(Refusal::Revoked));
    assert!(admit(&mut delegate, 2, &other, 6).is_ok());
}

#[test]
fn a_delegate_that_signs_too_much_is_refused() {
    let (mut founder, [mut delegate, checker]) = swarm([2, 3]);
    make_delegate(&mut founder, &mut delegate, 2, 1);
    let ticket = open_ticket(&mut delegate, 2, 1);
    let mut credential = join(&mut delegate, 2, &ticket, 5).credential().unwrap();
    let swarm = founder.id();
    let beyond = Membership { swarm, peer: id(6), epoch: 0, serial: 1, invite: None };
    credential.proof.as_mut().unwrap().paper = Signed::sign(&key(2), &beyond);
    let found = checker.is_member(id(6), &credential);
    assert!(matches!(found, Err(Stranger::Forged(crate::wire::IssuedError::Quota { serial: 1, quota: 1 }))));
    // Nor does a member make delegates.
    assert_eq!(Stranger::Full.refusal(), Refusal::Full);
    let own = crate::wire::Delegation { swarm, epoch: 0, delegate: id(3), quota: 9, serial: 0 };
    assert!(matches!(checker.accept(&Signed::sign(&key(3), &own)), Err(GrantError::Forged(_))));
    let given = Signed::sign(&key(FOUNDER), &own);
    assert_eq!(delegate.accept(&given), Err(GrantError::NotMine));
    let later = Signed::sign(&key(FOUNDER), &crate::wire::Delegation { epoch: 1, ..own });
    assert_eq!(checker.accept(&later), Err(GrantError::Epoch { theirs: 1, ours: 0 }));
    assert_eq!(checker.accept(&given).unwrap().record.unwrap().role(), Role::Delegate);
}

#[test]
fn a_notice_is_believed_once_and_only_from_the_founder() {
    let (mut founder, [mut two, mut lagging]) = swarm([2, 3]);
    let mut restored = founder.clone();
    let (epoch, next) = (kick(&mut founder, 8, 1), kick(&mut founder, 9, 2));
    let wrong = lagging.learn(&epoch.notice, Some(&secret(9)));
    assert_eq!(wrong, Err(NoticeError::WrongSecret));
    // The notice may come first, and the secret later.
    assert_eq!(lagging.learn(&epoch.notice, None).unwrap().apply(&mut lagging), Learned::Stays);
    assert_eq!(lagging.secrets().len(), 1);
    let credential = two.credential().unwrap();
    assert_eq!(lagging.renew(&key(3), id(2), &credential), Err(Stranger::CanNotJudge));
    assert_eq!(tell(&mut lagging, &epoch), Learned::Known);
    assert_eq!(lagging.secrets().len(), 2);
    assert_eq!(tell(&mut two, &next), Learned::Stays);
    assert_eq!(tell(&mut two, &epoch), Learned::Old);
    assert_eq!(two.epoch(), 2);
    // A founder whose records were restored signs epoch 1 again.
    let fork = kick(&mut restored, 3, 7);
    assert_eq!(lagging.learn(&fork.notice, None), Err(NoticeError::Fork { epoch: 1 }));
    assert_eq!(lagging.role(), Role::Member);
    // And finds the thread again where it meets a member.
    assert_eq!(renew(&mut two, 2, &mut restored), Ok(Learned::Stays));
    assert_eq!((restored.role(), restored.epoch()), (Role::Founder, 2));
    // Once: what it knows already lets it in nowhere.
    let known = two.renew(&key(2), id(FOUNDER), &restored.credential().unwrap()).unwrap().answer;
    assert_eq!(restored.take_up(&known).err(), Some(TakeUpError::Another));
    assert_eq!(restored.members(), founder.members());
    let mut facts: EpochNotice = next.notice.open(&id(FOUNDER)).unwrap();
    facts.epoch = 9;
    let learn = |facts: &EpochNotice, by| two.learn(&Signed::sign(&key(by), facts), None).map(|_| ());
    assert!(matches!(learn(&facts, 2), Err(NoticeError::Forged(_))));
    facts.members.reverse();
    assert_eq!(learn(&facts, FOUNDER), Err(NoticeError::Malformed));
    facts.swarm = crate::wire::SwarmId::from_bytes([0; 32]);
    assert_eq!(learn(&facts, FOUNDER), Err(NoticeError::OtherSwarm));
}

#[test]
fn an_admission_is_not_taken_on_trust() {
    let mut founder = founded();
    let ticket = open_ticket(&mut founder, FOUNDER, 1);
    join(&mut founder, FOUNDER, &ticket, 3);
    kick(&mut founder, 9, 1);
    let pending = SwarmRecord::pending(ticket.clone(), id(2)).unwrap();
    let right = admit(&mut founder, FOUNDER, &ticket, 2).unwrap();
    let foreign = admit(&mut founder, FOUNDER, &ticket, 4).unwrap();
    let refused = |admitted: Admitted| pending.take_up(&admitted).unwrap_err();
    assert_eq!(refused(Admitted { credential: foreign.credential, ..right.clone() }), TakeUpError::Another);
    assert_eq!(refused(Admitted { notice: None, ..right.clone() }), TakeUpError::Another);
    let wrong = refused(Admitted { secret: secret(9), ..right.clone() });
    assert_eq!(wrong, TakeUpError::Notice(NoticeError::WrongSecret));
    let bare = Credential { proof: None, ..right.credential.clone() };
    assert_eq!(refused(Admitted { credential: bare, ..right.clone() }), TakeUpError::NotListed);
    let mut forged = right.clone();
    forged.credential.proof.as_mut().unwrap().by = id(4);
    assert!(matches!(refused(forged), TakeUpError::Forged(_)));
    assert_eq!(pending.take_up(&right).unwrap().answer, Learned::Stays);
    let own = SwarmRecord::pending(ticket, id(FOUNDER));
    assert_eq!(own, Err(MembershipError::IsFounder { peer: id(FOUNDER) }));
}

#[test]
fn who_left_is_not_listed_any_more() {
    let (mut founder, [two, three]) = swarm([2, 3]);
    assert_eq!(three.leave(), Ok(()));
    founder.left(id(3)).unwrap().apply(&mut founder);
    assert_eq!(founder.members(), [FOUNDER, 2].map(id).into());
    let epoch = kick(&mut founder, 9, 1);
    let mut three = three;
    assert_eq!(tell(&mut three, &epoch), Learned::Unlisted);
    assert!(renew(&mut founder, FOUNDER, &mut three).is_err());
    // Still free to come again by the invite that it once used.
    let mut two = two;
    tell(&mut two, &epoch);
    let ticket = open_ticket(&mut founder, FOUNDER, 7);
    let back = join(&mut founder, FOUNDER, &ticket, 3);
    assert_eq!(meet(&mut two, &back), Ok(Seen::Same));
}
