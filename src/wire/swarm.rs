//! What a swarm is made of: its founding, its secret, the papers of its members and the notices that end them.
//!
//! Deliberately absent: who knows which epoch, and who may do what. That is decided in `proto::membership`.
//!
//! **Who is a member.** Of epoch E is who the newest notice (E) lists, and who shows a [`Membership`] of exactly E,
//! signed by the founder, or by a delegate whose [`Delegation`](super::Delegation) of E has room for its serial. Epoch 0
//! has no notice. The founder is always one. So a membership is checked while the founder is away, without a clock.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Delegation, InviteId, Issued, Paper, PeerId, SIGNED_BYTES_MAX, SignedKind, SwarmId};

/// Most characters of a swarm's name: a column of a table.
pub const SWARM_NAME_CHARS_MAX: usize = 32;
/// Most members besides the founder: their ids make 32 KiB of a notice, which every member keeps and passes on.
pub const MEMBERS_MAX: usize = 1024;
/// Most peers that a notice puts out, and most invites that it revokes: each epoch adds one at the most, and an invite
/// lives through no more epochs than this, so what is forgotten has no force left.
pub const PUT_OUT_MAX: usize = 256;

/// Why a text names no swarm.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SwarmNameError {
    /// Nothing.
    #[error("a swarm's name has at least one character")]
    Empty,
    /// More than [`SWARM_NAME_CHARS_MAX`].
    #[error("a swarm's name has at most {SWARM_NAME_CHARS_MAX} characters, this has {found}")]
    TooLong {
        /// Characters found.
        found: usize,
    },
    /// Something else than `a-z 0-9 -`.
    #[error("a swarm's name is made of a-z, 0-9 and -, character {at} is {found:?}")]
    Character {
        /// Position, counted from 1.
        at: usize,
        /// What stands there.
        found: char,
    },
    /// A place for documents that is no swarm of one's own.
    #[error("{name:?} is a reserved name, no swarm can have it")]
    Reserved {
        /// Which.
        name: &'static str,
    },
}

/// A name that people give a swarm. Two swarms may share one; their ids differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SwarmName(String);

impl SwarmName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SwarmName {
    type Error = SwarmNameError;

    fn try_from(name: String) -> Result<Self, SwarmNameError> {
        if name.is_empty() {
            return Err(SwarmNameError::Empty);
        }
        let foreign = |c: &char| !matches!(c, 'a'..='z' | '0'..='9' | '-');
        if let Some((at, found)) = name.chars().enumerate().find(|(_, c)| foreign(c)) {
            return Err(SwarmNameError::Character { at: at + 1, found });
        }
        if name.len() > SWARM_NAME_CHARS_MAX {
            return Err(SwarmNameError::TooLong { found: name.len() });
        }
        match ["local", "public"].into_iter().find(|reserved| *reserved == name) {
            Some(name) => Err(SwarmNameError::Reserved { name }),
            None => Ok(Self(name)),
        }
    }
}

impl FromStr for SwarmName {
    type Err = SwarmNameError;

    fn from_str(name: &str) -> Result<Self, SwarmNameError> {
        name.to_owned().try_into()
    }
}

impl From<SwarmName> for String {
    fn from(name: SwarmName) -> Self {
        name.0
    }
}

impl fmt::Display for SwarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a swarm's id stands for. Nobody can show another founder or name for the same id. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// Whose signature rules the swarm.
    pub founder: PeerId,
    /// Random bytes, so that one key can found many swarms of one name.
    pub nonce: [u8; 16],
    /// What its founder called it.
    pub name: SwarmName,
}

impl Founding {
    /// BLAKE3, with a context of its own, of founder, nonce and name.
    pub fn id(&self) -> SwarmId {
        let mut hasher = blake3::Hasher::new_derive_key("edge/1 swarm id");
        hasher.update(self.founder.as_bytes()).update(&self.nonce).update(self.name.as_str().as_bytes());
        SwarmId::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// What the members of one epoch share, and strangers do not know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmSecret([u8; 32]);

impl SwarmSecret {
    /// Takes random bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What a hello carries in place of the swarm's id: keyed BLAKE3 of the connection's exporter and its sender. Who
    /// does not know the secret learns nothing from it, and it says nothing on another connection or from the other side.
    pub fn tag(&self, exporter: &[u8; 32], sender: &PeerId) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"edge/1 tag\0").update(exporter).update(sender.as_bytes());
        let mut tag = [0; 16];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        tag
    }

    /// Stands in an [`EpochNotice`], so that nobody hands on a wrong secret with it.
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, b"edge/1 secret\0").as_bytes()
    }
}

impl fmt::Debug for SwarmSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SwarmSecret(..)")
    }
}

/// That a peer was admitted: signed by the founder or a delegate. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Where.
    pub swarm: SwarmId,
    /// Who.
    pub peer: PeerId,
    /// When: it ends with this epoch.
    pub epoch: u64,
    /// Counted by who signed; a delegate's run from 0 to below its quota, each for one peer.
    pub serial: u64,
    /// The invite it came by, so that who kicks a peer can revoke that too; none where the founder renewed it.
    pub invite: Option<InviteId>,
}

impl SignedKind for Membership {
    const KIND: &'static str = "membership";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

impl Paper for Membership {
    fn place(&self) -> (SwarmId, u64) {
        (self.swarm, self.epoch)
    }

    fn serial(&self) -> Option<u64> {
        Some(self.serial)
    }
}

/// That a new epoch has begun, and who is in it: signed by the founder. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochNotice {
    /// Where.
    pub swarm: SwarmId,
    /// Number of the epoch, at least 1.
    pub epoch: u64,
    /// Who stays, ascending, without the founder; at most [`MEMBERS_MAX`].
    pub members: Vec<PeerId>,
    /// Who was kicked, ascending, and with which epoch; at most [`PUT_OUT_MAX`], the newest. Who is neither here nor
    /// among the members was admitted by a delegate that had not yet said so, and may ask the founder.
    pub put_out: Vec<(PeerId, u64)>,
    /// Invites of delegates that nobody honours any more, ascending; at most [`PUT_OUT_MAX`], the newest.
    pub revoked: Vec<InviteId>,
    /// [`SwarmSecret::fingerprint`] of the secret of this epoch, which is told to its members alone.
    pub secret: [u8; 32],
}

impl SignedKind for EpochNotice {
    const KIND: &'static str = "epoch";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = SIGNED_BYTES_MAX;
}

impl EpochNotice {
    /// Whether its lists are in order and within their bounds.
    pub fn is_well_formed(&self) -> bool {
        self.epoch > 0
            && self.members.len() <= MEMBERS_MAX
            && self.put_out.len() <= PUT_OUT_MAX
            && self.revoked.len() <= PUT_OUT_MAX
            && self.members.is_sorted_by(|a, b| a < b)
            && self.put_out.is_sorted_by(|a, b| a.0 < b.0)
            && self.put_out.iter().all(|(_, epoch)| *epoch <= self.epoch)
            && self.revoked.is_sorted_by(|a, b| a < b)
    }

    /// Who stays, as a set.
    pub fn listed(&self) -> BTreeSet<PeerId> {
        self.members.iter().copied().collect()
    }
}

/// What a peer shows to prove that it is a member. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Of which swarm.
    pub founding: Founding,
    /// The newest epoch that it knows itself to be a member of.
    pub epoch: u64,
    /// Its [`Membership`] of that epoch; none for the founder, and for whom the notice lists.
    pub proof: Option<Issued>,
}

impl Credential {
    /// Whether its papers are no longer than such papers are: whoever passes it on must know that it fits.
    pub fn is_of_size(&self) -> bool {
        let is_of_size = |proof: &Issued| {
            let delegation = proof.delegation.as_ref().map_or(0, |paper| paper.body().len());
            proof.paper.body().len() <= Membership::BYTES_MAX && delegation <= Delegation::BYTES_MAX
        };
        self.proof.as_ref().is_none_or(is_of_size)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Signed;

    fn founding(name: &str) -> Founding {
        Founding { founder: PeerId::from_bytes([1; 32]), nonce: [2; 16], name: name.parse().unwrap() }
    }

    fn hex<T: Serialize>(value: &T) -> String {
        HEXLOWER.encode(&postcard::to_allocvec(value).unwrap())
    }

    #[test]
    fn a_name_says_what_is_wrong_with_it() {
        for right in ["a", "lab-2", "--", &"x".repeat(32)] {
            assert_eq!(right.parse::<SwarmName>().unwrap().as_str(), right);
        }
        let wrong = |name: &str| name.parse::<SwarmName>().unwrap_err();
        assert_eq!(wrong(""), SwarmNameError::Empty);
        assert_eq!(wrong(&"x".repeat(33)), SwarmNameError::TooLong { found: 33 });
        assert_eq!(wrong("laB"), SwarmNameError::Character { at: 3, found: 'B' });
        assert_eq!(wrong("é"), SwarmNameError::Character { at: 1, found: 'é' });
        assert_eq!(wrong("a b"), SwarmNameError::Character { at: 2, found: ' ' });
        assert_eq!(wrong("local"), SwarmNameError::Reserved { name: "local" });
        assert_eq!(wrong("public"), SwarmNameError::Reserved { name: "public" });
        // A name that may not be is not decoded either.
        assert!(postcard::from_bytes::<SwarmName>(b"\x05local").is_err());
        assert!(postcard::from_bytes::<SwarmName>(b"\x03lab").is_ok());
    }

    #[test]
    fn an_id_is_bound_to_founder_nonce_and_name() {
        let lab = founding("lab");
        let ids = [
            lab.id(),
            founding("lab2").id(),
            Founding { founder: PeerId::from_bytes([3; 32]), ..lab.clone() }.id(),
            Founding { nonce: [3; 16], ..lab }.id(),
        ];
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn a_tag_is_of_one_secret_one_connection_and_one_sender() {
        let (one, other) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
        let secret = SwarmSecret::from_bytes([7; 32]);
        let tags = [
            secret.tag(&[1; 32], &one),
            secret.tag(&[1; 32], &other),
            secret.tag(&[2; 32], &one),
            SwarmSecret::from_bytes([8; 32]).tag(&[1; 32], &one),
        ];
        assert_eq!(tags.into_iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(format!("{secret:?}"), "SwarmSecret(..)");
    }

    #[test]
    fn a_notice_in_disorder_is_none() {
        let peers = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        let right = notice();
        assert!(right.is_well_formed());
        let wrong = [
            EpochNotice { epoch: 0, put_out: Vec::new(), ..right.clone() },
            EpochNotice { members: vec![peers[1], peers[0]], ..right.clone() },
            EpochNotice { members: vec![peers[1], peers[1]], ..right.clone() },
            EpochNotice { put_out: vec![(peers[1], 1), (peers[1], 2)], ..right.clone() },
            EpochNotice { put_out: vec![(peers[1], right.epoch + 1)], ..right.clone() },
            EpochNotice { revoked: vec![InviteId::from_bytes([1; 16]); 2], ..right.clone() },
            EpochNotice { members: vec![peers[1]; MEMBERS_MAX + 1], ..right },
        ];
        for notice in wrong {
            assert!(!notice.is_well_formed(), "{notice:?}");
        }
    }

    /// A full notice must fit into what is read, or the largest swarm could kick nobody.
    #[test]
    fn the_largest_notice_opens() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let id = PeerId::from_bytes(key.verifying_key().to_bytes());
        let peer = |n: usize| {
            let mut bytes = [0xff; 32];
            bytes[..4].copy_from_slice(&(n as u32).to_be_bytes());
            PeerId::from_bytes(bytes)
        };
        let notice = EpochNotice {
            epoch: u64::MAX,
            members: (0..MEMBERS_MAX).map(peer).collect(),
            put_out: (0..PUT_OUT_MAX).map(|n| (peer(n), u64::MAX)).collect(),
            revoked: (0..PUT_OUT_MAX).map(|n| InviteId::from_bytes((n as u128).to_be_bytes())).collect(),
            ..notice()
        };
        assert!(notice.is_well_formed());
        let signed = Signed::sign(&key, &notice);
        assert!(signed.body().len() <= SIGNED_BYTES_MAX, "{}", signed.body().len());
        assert_eq!(signed.open(&id), Ok(notice));
    }

    fn notice() -> EpochNotice {
        EpochNotice {
            swarm: SwarmId::from_bytes([9; 32]),
            epoch: 3,
            members: vec![PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32])],
            put_out: vec![(PeerId::from_bytes([3; 32]), 2)],
            revoked: vec![InviteId::from_bytes([4; 16])],
            secret: [5; 32],
        }
    }

    /// These bytes cross sockets and lie on people's disks: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let founding = founding("lab");
        assert_eq!(
            hex(&founding),
            "010101010101010101010101010101010101010101010101010101010101010102020202020202020202020202020202036c6162"
        );
        assert_eq!(founding.id().to_string(), "smhpxdd5urrp46omlwxwx6qnhnop46svqm64svu6ahltnj2kzcxq");
        let secret = SwarmSecret::from_bytes([7; 32]);
        assert_eq!(
            HEXLOWER.encode(&secret.fingerprint()),
            "defd8501b24e64587bd070f4e56bd34dd1ce729ee3fc3b03350e4dc2fcfda8ba"
        );
        assert_eq!(
            HEXLOWER.encode(&secret.tag(&[1; 32], &PeerId::from_bytes([2; 32]))),
            "924f6f43ac6ea50f66f9fa3dbaee1dcb"
        );
        assert_eq!(
            hex(&notice()),
            "09090909090909090909090909090909090909090909090909090909090909090302010101010101010101010101010101010101010101010101010101010101010102020202020202020202020202020202020202020202020202020202020202020103030303030303030303030303030303030303030303030303030303030303030201040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505"
        );
        let membership = Membership {
            swarm: SwarmId::from_bytes([9; 32]),
            peer: PeerId::from_bytes([1; 32]),
            epoch: 3,
            serial: 300,
            invite: Some(InviteId::from_bytes([4; 16])),
        };
        assert_eq!(
            hex(&membership),
            "0909090909090909090909090909090909090909090909090909090909090909010101010101010101010101010101010101010101010101010101010101010103ac020104040404040404040404040404040404"
        );
        let credential = Credential { founding, epoch: 3, proof: None };
        assert_eq!(
            hex(&credential),
            "010101010101010101010101010101010101010101010101010101010101010102020202020202020202020202020202036c61620300"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = postcard::from_bytes::<Credential>(&bytes);
            let _ = postcard::from_bytes::<Membership>(&bytes);
            if let Ok(notice) = postcard::from_bytes::<EpochNotice>(&bytes) {
                notice.is_well_formed();
            }
        }
    }
}
