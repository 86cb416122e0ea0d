//! Records as they lie on people's disks.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// A founder with something in every field that a founder has, and a delegate likewise.
fn rich() -> [SwarmRecord; 3] {
    let (mut founder, [mut delegate, mut kicked]) = swarm([2, 3]);
    make_delegate(&mut founder, &mut delegate, 2, 4);
    let guests = open_ticket(&mut delegate, 2, 1);
    let guest = join(&mut delegate, 2, &guests, 5);
    meet(&mut founder, &guest).unwrap();
    meet(&mut delegate, &kicked).unwrap();
    let epoch = founder.kick(&key(FOUNDER), id(3), secret(1)).unwrap().apply(&mut founder);
    tell(&mut kicked, &epoch);
    let epoch =
        founder.revoke_of_delegate(&key(FOUNDER), invite_id(1), secret(2)).unwrap().apply(&mut founder);
    tell(&mut delegate, &epoch);
    renew(&mut founder, FOUNDER, &mut delegate).unwrap();
    let more = ticket(&mut delegate, 2, 2, InviteTerms { uses_max: 3, ttl_ms: Some(1000) });
    join(&mut delegate, 2, &more, 6);
    [founder, delegate, SwarmRecord::pending(more, id(7)).unwrap()]
}

/// These bytes lie on people's disks: a change here is a new version with an upgrade.
#[test]
fn bytes_of_version_1() {
    let sealed = |record: &SwarmRecord| crate::wire::seal("swarms", 1, record.id().as_bytes(), record);
    let founded = sealed(&founded());
    assert_eq!(
        HEXLOWER.encode(&founded),
        "01176c6a8a43d798878a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c02020202020202020202020202020202036c61628a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c00000000000000010000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    );
    let hashes = rich().each_ref().map(|record| blake3::hash(&sealed(record)).to_string());
    assert_eq!(hashes[0], "58e1ad3ab0f5d202eda15f9499e769776d291857ef2da61b11a0c9a1b5546421");
    assert_eq!(hashes[1], "50b33ea2ce577be4f95a327a7bc391edd3f63bf18a13a9eea971301d5788abb2");
    assert_eq!(hashes[2], "30f3739c559a537e2bce151156bd3924c1ff8c0a7d18f6137ec82e725729f262");
    for record in rich() {
        let bytes = sealed(&record);
        let opened = crate::wire::open::<SwarmRecord>("swarms", 1, record.id().as_bytes(), &bytes);
        assert_eq!(opened, Ok(record));
    }
}

proptest! {
    #[test]
    fn arbitrary_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = postcard::from_bytes::<SwarmRecord>(&bytes);
    }

    /// What a peer sends, with any byte changed, is refused or harmless, and never a panic.
    #[test]
    fn a_changed_byte_makes_no_member(at in 0usize..4096, with in 1u8..=255) {
        let [founder, delegate, pending] = rich();
        let request = request(pending.ticket().unwrap());
        let admitted = delegate.admit(&key(2), &request, id(7), Some(NOW)).unwrap().answer;
        let mut bytes = postcard::to_allocvec(&admitted).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= with;
        if let Ok(changed) = postcard::from_bytes::<Admitted>(&bytes) {
            prop_assert!(pending.take_up(&changed).is_err(), "byte {at}");
            let _ = founder.learn(changed.notice.as_ref().unwrap_or(founder.notice().unwrap()), None);
            if changed.credential != admitted.credential {
                prop_assert!(founder.is_member(id(7), &changed.credential).is_err(), "byte {at}");
            }
        }
        let mut bytes = postcard::to_allocvec(&request).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= with;
        if let Ok(changed) = postcard::from_bytes::<JoinRequest>(&bytes) {
            prop_assert!(delegate.admit(&key(2), &changed, id(7), Some(NOW)).is_err(), "byte {at}");
        }
    }
}
