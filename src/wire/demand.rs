//! Who has work to give: adverts that aggregators sign and members of the same swarm pass on (DESIGN 4).
//!
//! Asked for by long poll, and told unasked by an aggregator whose own demand begins or ends. Ages cross the wire, not
//! times of day; each who passes an advert on adds for how long it has had it.

use serde::{Deserialize, Serialize};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::frame::messages;
use super::{Credential, PeerId, Signed, SignedKind, SwarmId};

/// A question for demand waits so long at most, in milliseconds: below the idle time-out of a connection, and as long as
/// that allows, so that an idle node sleeps.
pub const DEMAND_WAIT_MS_MAX: u32 = 50_000;
/// Adverts in one answer.
pub const ADVERTS_TOLD_MAX: usize = 16;
/// Addresses that stand beside an advert.
pub const ADVERT_ADDRESSES_MAX: usize = 4;

/// How much work an aggregator has for a swarm; it signs this with the key that is its id. Version 1, frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// For whom.
    pub swarm: SwarmId,
    /// [`Demand::level_of`] the tokens that wait; 0 says that there is nothing any more.
    pub level: u8,
    /// The larger one is the later one, over restarts too.
    pub serial: u64,
}

impl Demand {
    /// Coarse, so that it tells little of its owner: the binary digits of the number of tokens.
    pub fn level_of(tokens: u64) -> u8 {
        (u64::BITS - tokens.leading_zeros()) as u8
    }
}

impl SignedKind for Demand {
    const KIND: &'static str = "demand";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 64;
}

/// Where an aggregator was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Where.
    pub address: SocketAddr,
    /// How long ago, in seconds.
    pub age_s: u32,
}

/// A [`Demand`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// Who signed it.
    pub peer: PeerId,
    /// The signed [`Demand`].
    pub paper: Signed,
    /// What proves that it is a member of the swarm for which it has work: a key alone costs nothing, and whoever
    /// hears of work goes there.
    pub credential: Credential,
    /// Seconds since it was signed.
    pub age_s: u32,
    /// By whom it came, or others whose word was passed on; [`ADVERT_ADDRESSES_MAX`] at most. None where the aggregator
    /// speaks for itself: whoever hears it sees where it is.
    pub reached: Vec<Reached>,
}

/// Asks for adverts of the swarms that both are in. Answered when there is one, or in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandAsked {
    /// What the last answer on this connection ended with; 0 for all.
    pub after: u64,
    /// Milliseconds to wait; [`DEMAND_WAIT_MS_MAX`] at most.
    pub wait_ms: u32,
}

/// The answer; unasked, what its sender itself demands, answered with [`Done`](super::Done).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandTold {
    /// For the next question.
    pub upto: u64,
    /// [`ADVERTS_TOLD_MAX`] at most.
    pub adverts: Vec<Advert>,
}

messages! {
    DemandAsked 25 32;
    DemandTold 26 (32 + ADVERTS_TOLD_MAX * 1024);
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Delegation, Founding, InviteId, Issued, Membership, Message};

    fn advert(level: u8, serial: u64, reached: Vec<Reached>) -> Advert {
        let key = SigningKey::from_bytes(&[7; 32]);
        let demand = Demand { swarm: SwarmId::from_bytes([3; 32]), level, serial };
        let peer = PeerId::from_bytes(key.verifying_key().to_bytes());
        let founding =
            Founding { founder: PeerId::from_bytes([4; 32]), nonce: [5; 16], name: "home".parse().unwrap() };
        let credential = Credential { founding, epoch: 9, proof: None };
        Advert { peer, paper: Signed::sign(&key, &demand), credential, age_s: 300, reached }
    }

    #[test]
    fn a_level_is_coarse() {
        let levels = [0, 1, 2, 3, 1000, 1024, u64::MAX].map(Demand::level_of);
        assert_eq!(levels, [0, 1, 2, 2, 10, 11, 64]);
    }

    /// These bytes cross sockets: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let hex = |frame: Vec<u8>| HEXLOWER.encode(&frame);
        assert_eq!(hex(wire::encode(&DemandAsked { after: 300, wait_ms: 50_000 })), "0119ac02d08603");
        let reached = vec![Reached { address: "10.0.0.1:443".parse().unwrap(), age_s: 7 }];
        let advert = advert(11, 300, reached);
        let peer = HEXLOWER.encode(advert.peer.as_bytes());
        let body = format!("01{}0bac02", "03".repeat(32));
        assert_eq!(HEXLOWER.encode(advert.paper.body()), body);
        let signature = HEXLOWER.encode(advert.paper.signature());
        let credential = format!("{}{}04686f6d650900", "04".repeat(32), "05".repeat(16));
        assert_eq!(
            hex(wire::encode(&DemandTold { upto: 9, adverts: vec![advert] })),
            format!("011a0901{peer}24{body}{signature}{credential}ac0201000a000001bb0307")
        );
    }

    #[test]
    fn the_largest_of_each_fits_its_frame() {
        let asked = DemandAsked { after: u64::MAX, wait_ms: u32::MAX };
        assert!(wire::encode(&asked).len() <= DemandAsked::BYTES_MAX);
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        let reached = vec![Reached { address, age_s: u32::MAX }; ADVERT_ADDRESSES_MAX];
        let (key, swarm) = (SigningKey::from_bytes(&[7; 32]), SwarmId::from_bytes([3; 32]));
        let peer = PeerId::from_bytes([255; 32]);
        let (epoch, serial) = (u64::MAX, u64::MAX);
        let delegation = Delegation { swarm, epoch, delegate: peer, quota: u32::MAX, serial };
        let membership =
            Membership { swarm, peer, epoch, serial, invite: Some(InviteId::from_bytes([255; 16])) };
        let proof = Issued {
            by: peer,
            delegation: Some(Signed::sign(&key, &delegation)),
            paper: Signed::sign(&key, &membership),
        };
        let mut largest = Advert { age_s: u32::MAX, ..advert(u8::MAX, u64::MAX, reached) };
        largest.credential.founding.name = "x".repeat(32).parse().unwrap();
        largest.credential.epoch = epoch;
        largest.credential.proof = Some(proof);
        assert!(largest.paper.body().len() <= Demand::BYTES_MAX);
        let told = DemandTold { upto: u64::MAX, adverts: vec![largest; ADVERTS_TOLD_MAX] };
        let frame = wire::encode(&told);
        assert!(frame.len() <= DemandTold::BYTES_MAX, "{}", frame.len());
        assert_eq!(wire::decode(&frame), Ok(told));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 25u8..27, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = [&[1, kind][..], &bytes].concat();
            let _ = wire::decode::<DemandAsked>(&frame);
            let _ = wire::decode::<DemandTold>(&frame);
        }
    }
}
