//! What two nodes say when they meet: hello, introduction, who else is there, who may join (DESIGN 2 and 3).
//!
//! The one that dialled opens a stream and says [`Hello`]; the other answers with its own; each finds by the tags
//! what they share, and shows its credentials for that and for nothing else. So a stranger sees an edge's version, a
//! random number and random tags.

use serde::{Deserialize, Serialize};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::frame::messages;
use super::{Admitted, Credential, JoinRequest, PeerId, Refusal, SIGNED_BYTES_MAX, Signed, SwarmId};

/// Tags of a hello, always so many: a node in fewer swarms fills up with random ones, so that nobody counts its swarms.
/// 64 swarms with two secrets each.
pub const TAGS: usize = 128;
/// Characters of a version.
pub const PROGRAM_BYTES_MAX: usize = 32;
/// Credentials that are shown to one peer.
pub const CREDENTIALS_MAX: usize = 64;
/// Peers in one answer.
pub const PEERS_TOLD_MAX: usize = 32;

/// The first message on a connection, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Drawn when the process started: another one says that all it held in memory is gone.
    pub boot: [u8; 16],
    /// Version of the program, for people.
    pub program: String,
    /// [`TAGS`] tags: [`SwarmSecret::tag`](super::SwarmSecret::tag) of this connection and sender, and random ones.
    pub tags: Vec<[u8; 16]>,
}

/// What the sender shows for the swarms that both are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// [`CREDENTIALS_MAX`] at most.
    pub credentials: Vec<Credential>,
}

/// Asks for other members of the swarms that both are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersAsked {}

/// Where a member was reached by the sender, not longer than 10 minutes ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddress {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
    /// How long ago, in seconds.
    pub age_s: u32,
}

/// The answer: members that the sender is connected with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersTold {
    /// [`PEERS_TOLD_MAX`] at most.
    pub peers: Vec<PeerAddress>,
}

/// A member that lags shows what it has, and asks for what is newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// What it has.
    pub credential: Credential,
}

/// Tells the founder that the sender leaves a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaveSwarm {
    /// Which.
    pub swarm: SwarmId,
}

/// The founder tells a member that it may invite and admit; answered with [`Done`](super::Done).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// Where.
    pub swarm: SwarmId,
    /// The signed [`Delegation`](super::Delegation).
    pub delegation: Signed,
}

/// The answer to who is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotAdmitted {
    /// Why.
    pub refusal: Refusal,
}

messages! {
    Hello 1 (128 + TAGS * 16);
    Introduction 2 (16 + CREDENTIALS_MAX * 1024);
    PeersAsked 3 16;
    PeersTold 4 (16 + PEERS_TOLD_MAX * 64);
    JoinRequest 5 2048;
    Admitted 6 (SIGNED_BYTES_MAX + 4096);
    NotAdmitted 7 16;
    Renew 8 2048;
    LeaveSwarm 9 64;
    Delegated 27 512;
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::wire::{self, Delegation, Founding, FrameError, Message};

    /// These bytes cross sockets: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let hello = Hello { boot: [1; 16], program: "0.1.0".into(), tags: vec![[2; 16]; 2] };
        assert_eq!(
            HEXLOWER.encode(&wire::encode(&hello)),
            format!("0101{}05302e312e3002{}", "01".repeat(16), "02".repeat(32))
        );
        let founding =
            Founding { founder: PeerId::from_bytes([3; 32]), nonce: [4; 16], name: "home".parse().unwrap() };
        let credential = Credential { founding, epoch: 300, proof: None };
        let shown = format!("{}{}04686f6d65ac0200", "03".repeat(32), "04".repeat(16));
        let introduction = Introduction { credentials: vec![credential.clone()] };
        assert_eq!(HEXLOWER.encode(&wire::encode(&introduction)), format!("010201{shown}"));
        assert_eq!(HEXLOWER.encode(&wire::encode(&Renew { credential })), format!("0108{shown}"));
        assert_eq!(wire::encode(&PeersAsked {}), [1, 3]);
        let told = |address: &str| {
            let address = address.parse().unwrap();
            PeersTold { peers: vec![PeerAddress { peer: PeerId::from_bytes([5; 32]), address, age_s: 7 }] }
        };
        let peer = "05".repeat(32);
        assert_eq!(
            HEXLOWER.encode(&wire::encode(&told("10.0.0.1:443"))),
            format!("010401{peer}000a000001bb0307")
        );
        assert_eq!(
            HEXLOWER.encode(&wire::encode(&told("[::1]:443"))),
            format!("010401{peer}01{}01bb0307", "00".repeat(15))
        );
        let key = SigningKey::from_bytes(&[7; 32]);
        let (swarm, delegate) = (SwarmId::from_bytes([6; 32]), PeerId::from_bytes([5; 32]));
        let delegation = Delegation { swarm, epoch: u64::MAX, delegate, quota: u32::MAX, serial: u64::MAX };
        let delegated = Delegated { swarm, delegation: Signed::sign(&key, &delegation) };
        let frame = wire::encode(&delegated);
        assert!(frame.len() <= Delegated::BYTES_MAX);
        let signed = delegated.delegation;
        assert_eq!(
            HEXLOWER.encode(&frame),
            format!(
                "011b{}{:02x}{}{}",
                "06".repeat(32),
                signed.body().len(),
                HEXLOWER.encode(signed.body()),
                HEXLOWER.encode(signed.signature())
            )
        );
        assert_eq!(wire::encode(&NotAdmitted { refusal: Refusal::Exhausted }), [1, 7, 1]);
        let leave = LeaveSwarm { swarm: SwarmId::from_bytes([6; 32]) };
        assert_eq!(HEXLOWER.encode(&wire::encode(&leave)), format!("0109{}", "06".repeat(32)));
    }

    #[test]
    fn the_largest_hello_fits_its_frame() {
        let program = "x".repeat(PROGRAM_BYTES_MAX);
        let hello = Hello { boot: [255; 16], program, tags: vec![[255; 16]; TAGS] };
        let frame = wire::encode(&hello);
        assert_eq!(wire::decode(&frame), Ok(hello));
    }

    #[test]
    fn another_kind_version_or_length_is_refused() {
        let frame = wire::encode(&PeersAsked {});
        assert_eq!(wire::decode::<PeersAsked>(&frame), Ok(PeersAsked {}));
        assert!(matches!(wire::decode::<Hello>(&frame), Err(FrameError::Kind { found: 3, .. })));
        assert_eq!(wire::decode::<PeersAsked>(&[2, 3]), Err(FrameError::Version { found: 2 }));
        assert_eq!(wire::decode::<PeersAsked>(&[1]), Err(FrameError::Truncated { bytes: 1 }));
        let trailing = wire::decode::<PeersAsked>(&[1, 3, 0]);
        assert!(matches!(trailing, Err(FrameError::Trailing { bytes: 1, .. })));
        assert!(matches!(wire::decode::<PeersAsked>(&[1; 99]), Err(FrameError::Kind { .. })));
        let long = [&[1, 3][..], &[0; 99]].concat();
        assert!(matches!(wire::decode::<PeersAsked>(&long), Err(FrameError::TooLong { bytes: 101, .. })));
    }
}
