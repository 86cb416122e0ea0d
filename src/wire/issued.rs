//! The chain of right: what the founder signed, or a delegate whom the founder gave a delegation.
//!
//! Deliberately absent: whether its epoch is still the newest, and whether two peers show the same serial.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Founding, PeerId, Signed, SignedError, SignedKind, SwarmId};

/// That a peer may invite and admit so many others in the founder's place: signed by the founder. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Where.
    pub swarm: SwarmId,
    /// When: it ends with this epoch.
    pub epoch: u64,
    /// Who.
    pub delegate: PeerId,
    /// Admissions it may sign: their serials run from 0 to below this.
    pub quota: u32,
    /// Counted by the founder, no two alike: the serials that a delegate signs count within one delegation.
    pub serial: u64,
}

impl SignedKind for Delegation {
    const KIND: &'static str = "delegation";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 128;
}

/// What founder and delegates sign.
pub trait Paper: SignedKind + DeserializeOwned {
    /// Swarm and epoch that it belongs to.
    fn place(&self) -> (SwarmId, u64);

    /// What is counted against a delegate's quota; none where nothing is.
    fn serial(&self) -> Option<u64>;
}

/// Why a paper has no force, whatever the epoch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IssuedError {
    /// Its own signature or form.
    #[error("the paper does not open")]
    Paper(#[source] SignedError),
    /// A delegate signed it and brings no delegation, or the founder did and brings one.
    #[error("{} shows the wrong papers for its part", by.short())]
    Part {
        /// Who signed.
        by: PeerId,
    },
    /// The delegation is not the founder's.
    #[error("the delegation does not open")]
    Delegation(#[source] SignedError),
    /// The delegation is for somebody else, another epoch or another swarm than the paper.
    #[error("the delegation does not fit the paper")]
    Fit,
    /// It belongs to another swarm.
    #[error("belongs to another swarm")]
    Swarm,
    /// The delegate signed more than it was allowed to.
    #[error("serial {serial} is beyond the quota of {quota}")]
    Quota {
        /// Serial found, counted from 0.
        serial: u64,
        /// Serials allowed.
        quota: u32,
    },
}

/// Something signed by the founder or a delegate, with all that shows its right to. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Who signed.
    pub by: PeerId,
    /// The founder's [`Delegation`] to who signed; none where that is the founder.
    pub delegation: Option<Signed>,
    /// The [`Paper`].
    pub paper: Signed,
}

impl Issued {
    /// The paper, and the delegation that it rests on, if all signatures hold and it belongs to this swarm.
    ///
    /// # Errors
    /// [`IssuedError`]: the first link that does not hold.
    pub fn open<T: Paper>(&self, founding: &Founding) -> Result<(T, Option<Delegation>), IssuedError> {
        let swarm = founding.id();
        let paper: T = self.paper.open(&self.by).map_err(IssuedError::Paper)?;
        if paper.place().0 != swarm {
            return Err(IssuedError::Swarm);
        }
        let delegation = match &self.delegation {
            None if self.by == founding.founder => return Ok((paper, None)),
            Some(delegation) if self.by != founding.founder => delegation,
            _ => return Err(IssuedError::Part { by: self.by }),
        };
        let delegation: Delegation = delegation.open(&founding.founder).map_err(IssuedError::Delegation)?;
        let Delegation { delegate, epoch, quota, .. } = delegation;
        if delegate != self.by || (delegation.swarm, epoch) != paper.place() {
            return Err(IssuedError::Fit);
        }
        match paper.serial() {
            Some(serial) if serial >= u64::from(quota) => Err(IssuedError::Quota { serial, quota }),
            _ => Ok((paper, Some(delegation))),
        }
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Membership;

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn id(n: u8) -> PeerId {
        PeerId::from_bytes(key(n).verifying_key().to_bytes())
    }

    fn founding() -> Founding {
        Founding { founder: id(1), nonce: [2; 16], name: "lab".parse().unwrap() }
    }

    fn delegation() -> Delegation {
        Delegation { swarm: founding().id(), epoch: 3, delegate: id(2), quota: 5, serial: 9 }
    }

    fn membership(serial: u64) -> Membership {
        Membership { swarm: founding().id(), peer: id(4), epoch: 3, serial, invite: None }
    }

    fn delegated(delegation: &Delegation, membership: &Membership) -> Issued {
        Issued {
            by: id(2),
            delegation: Some(Signed::sign(&key(1), delegation)),
            paper: Signed::sign(&key(2), membership),
        }
    }

    #[test]
    fn founder_and_delegate_open() {
        let by_founder =
            Issued { by: id(1), delegation: None, paper: Signed::sign(&key(1), &membership(u64::MAX)) };
        assert_eq!(by_founder.open(&founding()), Ok((membership(u64::MAX), None)));
        let by_delegate = delegated(&delegation(), &membership(4));
        assert_eq!(by_delegate.open(&founding()), Ok((membership(4), Some(delegation()))));
    }

    #[test]
    fn every_broken_link_is_told_apart() {
        let open = |issued: Issued| issued.open::<Membership>(&founding()).unwrap_err();
        let right = delegated(&delegation(), &membership(4));
        assert_eq!(open(Issued { by: id(1), ..right.clone() }).to_string(), "the paper does not open");
        assert_eq!(open(Issued { delegation: None, ..right.clone() }), IssuedError::Part { by: id(2) });
        let own = Signed::sign(&key(2), &delegation());
        assert!(matches!(open(Issued { delegation: Some(own), ..right }), IssuedError::Delegation(_)));
        let wrong = [
            Delegation { delegate: id(3), ..delegation() },
            Delegation { epoch: 4, ..delegation() },
            Delegation { swarm: SwarmId::from_bytes([0; 32]), ..delegation() },
        ];
        for wrong in wrong {
            assert_eq!(open(delegated(&wrong, &membership(4))), IssuedError::Fit, "{wrong:?}");
        }
        assert_eq!(
            open(delegated(&delegation(), &membership(5))),
            IssuedError::Quota { serial: 5, quota: 5 }
        );
        let foreign = Membership { swarm: SwarmId::from_bytes([0; 32]), ..membership(1) };
        assert_eq!(open(delegated(&delegation(), &foreign)), IssuedError::Swarm);
        let paper = Signed::sign(&key(1), &membership(1));
        let both = Issued { by: id(1), delegation: Some(Signed::sign(&key(1), &delegation())), paper };
        assert_eq!(open(both), IssuedError::Part { by: id(1) });
    }

    /// These bytes cross sockets and lie on people's disks: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        let hex = |bytes: Vec<u8>| HEXLOWER.encode(&bytes);
        assert_eq!(
            hex(postcard::to_allocvec(&delegation()).unwrap()),
            "909f5dd6d8158539ebc6a77a8cedb0112f99281a160100fe22964c887433b3e4038139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3940509"
        );
        let issued = delegated(&delegation(), &membership(4));
        assert_eq!(
            hex(postcard::to_allocvec(&issued).unwrap()),
            "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394014401909f5dd6d8158539ebc6a77a8cedb0112f99281a160100fe22964c887433b3e4038139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394050944506bf98aea5c8238b3a60c9dded1a7cd0deac4484a36f378c040e1d2494f4b4a14ba7e4c0981ee1b150c594731b6fac93030bd2417148c6ec032a5d00b6d084401909f5dd6d8158539ebc6a77a8cedb0112f99281a160100fe22964c887433b3e4ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c030400651efae54020cb5f8422bcac3d59dc4293ef33a7e736994a30cc9963d16623acc3a9aa89dd8f307830837d52c350bca6d194820b03efdb3ea529119669f0fd0d"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(issued) = postcard::from_bytes::<Issued>(&bytes) {
                prop_assert!(issued.open::<Membership>(&founding()).is_err());
            }
        }
    }
}
