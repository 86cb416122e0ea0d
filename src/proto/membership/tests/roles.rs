//! Who may what, as a table and as the functions answer; and the book of swarms.

use super::*;

#[test]
fn who_may_what() {
    use Deed::*;
    let table = [
        (Role::Founder, vec![Invite, Admit, Revoke, Kick, Delegate, Judge]),
        (Role::Delegate, vec![Invite, Admit, Revoke, Judge, Leave]),
        (Role::Member, vec![Revoke, Judge, Leave]),
        (Role::Unlisted, vec![Revoke, Judge, Leave]),
        (Role::Pending, vec![Leave]),
        (Role::Kicked, vec![Leave]),
    ];
    for (role, may) in table {
        for deed in [Invite, Admit, Revoke, Kick, Delegate, Judge, Leave] {
            assert_eq!(role.may(deed), may.contains(&deed), "{role:?} {deed:?}");
        }
    }
}

/// Each role is asked for each deed; what is refused says `MayNot`, what is not is refused for no reason or another.
#[test]
fn the_functions_keep_to_the_table() {
    let (mut founder, [mut delegate, member, mut kicked]) = swarm([2, 3, 4]);
    let ticket = open_ticket(&mut founder, FOUNDER, 1);
    let pending = SwarmRecord::pending(ticket, id(6)).unwrap();
    make_delegate(&mut founder, &mut delegate, 2, 3);
    let guests = open_ticket(&mut delegate, 2, 1);
    let mut unlisted = join(&mut delegate, 2, &guests, 5);
    let mut later = founder.clone();
    let epoch = later.kick(&key(FOUNDER), id(4), secret(1)).unwrap().apply(&mut later);
    tell(&mut kicked, &epoch);
    tell(&mut unlisted, &epoch);
    let roles = [
        (FOUNDER, Role::Founder, &founder),
        (2, Role::Delegate, &delegate),
        (3, Role::Member, &member),
        (5, Role::Unlisted, &unlisted),
        (6, Role::Pending, &pending),
        (4, Role::Kicked, &kicked),
    ];
    let credential = member.credential().unwrap();
    for (n, role, record) in roles {
        assert_eq!(record.role(), role);
        let key = key(n);
        let terms = InviteTerms { uses_max: 1, ttl_ms: None };
        let asked = [
            (Deed::Invite, record.invite(&key, invite_id(50), terms, None).err()),
            (Deed::Revoke, record.revoke(invite_id(60)).err()),
            (Deed::Kick, record.kick(&key, id(3), secret(9)).err()),
            (Deed::Kick, record.revoke_of_delegate(&key, invite_id(1), secret(9)).err()),
            (Deed::Kick, record.left(id(3)).err()),
            (Deed::Delegate, record.delegate(&key, id(3), 1).err()),
            (Deed::Leave, record.leave().err()),
        ];
        for (deed, refused) in asked {
            let may_not = refused == Some(MembershipError::MayNot { role, deed });
            assert_eq!(may_not, !role.may(deed), "{role:?} {deed:?} {refused:?}");
        }
        let can_not = record.is_member(id(3), &credential) == Err(Stranger::CanNotJudge);
        assert_eq!(can_not, !role.may(Deed::Judge), "{role:?}");
    }
    // A member that signs an invite all the same is not asked, and would not admit.
    let mut own = request(&guests);
    own.invite.by = id(3);
    let refused = member.admit(&key(3), &own, id(9), None);
    assert_eq!(refused, Err(Refusal::NotAdmitting));
    let refusal = MembershipError::MayNot { role: Role::Member, deed: Deed::Kick };
    assert_eq!(refusal.to_string(), "this node may not kick: here it is a member");
}

#[test]
fn what_a_founder_asks_for_in_vain() {
    let (founder, _) = swarm([2]);
    let key = key(FOUNDER);
    let peer = id(FOUNDER);
    assert_eq!(founder.kick(&key, peer, secret(1)), Err(MembershipError::IsFounder { peer }));
    assert_eq!(founder.delegate(&key, peer, 1), Err(MembershipError::IsFounder { peer }));
    assert_eq!(founder.left(peer), Err(MembershipError::IsFounder { peer }));
    let peer = id(9);
    assert_eq!(founder.delegate(&key, peer, 1), Err(MembershipError::NotAMember { peer }));
    for asked in [0, 1025] {
        assert_eq!(founder.delegate(&key, id(2), asked), Err(MembershipError::Quota { asked }));
    }
    let mut founder = founded();
    let ticket = open_ticket(&mut founder, FOUNDER, 1);
    for n in 0..=DELEGATES_MAX as u8 {
        join(&mut founder, FOUNDER, &ticket, 100 + n);
        let made = founder.delegate(&key, id(100 + n), 1).map(|made| made.apply(&mut founder));
        let full = made == Err(MembershipError::TooManyDelegates);
        assert_eq!(full, usize::from(n) == DELEGATES_MAX, "{n}");
    }
}

#[test]
fn the_book_is_bounded_and_says_which_names_are_not_clear() {
    let mut book = Swarms::default();
    let record =
        |n: u8, name: &str| SwarmRecord::found(&key(FOUNDER), name.parse().unwrap(), [n; 16], secret(0));
    for n in 0..SWARMS_MAX as u8 {
        book.put(record(n, &format!("lab-{n}"))).unwrap();
    }
    assert_eq!(book.put(record(200, "more")), Err(BookError::Full));
    let other = record(3, "lab-3");
    assert_eq!(book.put(other.clone()), Ok(()));
    assert_eq!(book.find("lab-3"), Ok(&other));
    assert_eq!(book.find(&other.id().to_string()[..20]), Ok(&other));
    assert_eq!(book.find("lab-99"), Err(FindError::Unknown { what: "lab-99".into() }));
    assert_eq!(book.find(""), Err(FindError::Unknown { what: String::new() }));
    // Two founders may have had the same idea.
    book.remove(&id_of(&book, "lab-5"));
    let same = record(201, "lab-3");
    book.put(same.clone()).unwrap();
    let mut ids = vec![other.id(), same.id()];
    ids.sort_unstable();
    assert_eq!(book.find("lab-3"), Err(FindError::Ambiguous { what: "lab-3".into(), ids }));
    assert_eq!(book.find(&same.id().short()), Ok(&same));
    assert_eq!(book.remove(&other.id()), Some(other));
    assert_eq!(book.iter().count(), SWARMS_MAX - 1);
    book.put(record(200, "more")).unwrap();
}

fn id_of(book: &Swarms, name: &str) -> crate::wire::SwarmId {
    book.find(name).unwrap().id()
}
