//! What is said when a peer asks to be let in, or to be told how its swarm has moved on.
//!
//! Deliberately absent: frames and their limits, which belong to `transport`.

use serde::{Deserialize, Serialize};

use super::{Credential, Issued, Signed, SwarmId, SwarmSecret};

/// Asks whoever signed an invite to be admitted. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Where.
    pub swarm: SwarmId,
    /// The invite of the ticket, as it came.
    pub invite: Issued,
}

/// What one who joins, or who was away, needs to be a member of the newest epoch. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// What it shows from now on.
    pub credential: Credential,
    /// The newest notice; none in epoch 0.
    pub notice: Option<Signed>,
    /// The secret of that epoch.
    pub secret: SwarmSecret,
    /// Its delegation of that epoch, where it has one and the founder answers.
    pub delegation: Option<Signed>,
}

/// Why somebody is not let in; what it is told, and no more than that. Version 1, frozen: variants are only appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// By the clock of who admits.
    #[error("the invite has expired: ask for a new ticket")]
    Expired,
    /// As many as it allows have joined by it.
    #[error("the invite is used up: ask for a new ticket")]
    Exhausted,
    /// By who signed it or by the founder, or because it is older than a kick.
    #[error("the invite is no longer honoured: ask for a new ticket")]
    Revoked,
    /// A signature does not hold.
    #[error("the invite is forged")]
    Forged,
    /// It belongs to a swarm that was not asked for.
    #[error("the invite is for another swarm")]
    OtherSwarm,
    /// The swarm has no place left, or the delegate's quota is spent.
    #[error("no place is left: the founder can make one")]
    Full,
    /// Who admits does not know the time, and the invite expires.
    #[error("whoever admits does not know the time yet: the invite waits")]
    ClockUnset,
    /// The peer that was asked did not sign the invite, or may not admit now.
    #[error("the peer that was asked does not admit by this invite now")]
    NotAdmitting,
    /// What was shown proves no membership of the newest epoch.
    #[error("no longer, or not yet, a member: ask the founder, or for a new ticket")]
    NotMember,
}

impl Refusal {
    /// Whether asking again later may end better, with the same ticket.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Full | Self::ClockUnset | Self::NotAdmitting)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Delegation, Founding, PeerId};

    const REFUSALS: [Refusal; 9] = [
        Refusal::Expired,
        Refusal::Exhausted,
        Refusal::Revoked,
        Refusal::Forged,
        Refusal::OtherSwarm,
        Refusal::Full,
        Refusal::ClockUnset,
        Refusal::NotAdmitting,
        Refusal::NotMember,
    ];

    /// These bytes cross sockets: a change here is a new version.
    #[test]
    fn bytes_of_version_1() {
        assert_eq!(postcard::to_allocvec(&REFUSALS).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let key = SigningKey::from_bytes(&[7; 32]);
        let founder = PeerId::from_bytes(key.verifying_key().to_bytes());
        let founding = Founding { founder, nonce: [2; 16], name: "lab".parse().unwrap() };
        let swarm = founding.id();
        let paper =
            Signed::sign(&key, &Delegation { swarm, epoch: 3, delegate: founder, quota: 5, serial: 9 });
        let invite = Issued { by: founder, delegation: None, paper: paper.clone() };
        let request = JoinRequest { swarm, invite: invite.clone() };
        assert_eq!(
            HEXLOWER.encode(&postcard::to_allocvec(&request).unwrap()),
            "4d1b844acb7fa91d0255e66e873884028bba51d9ba5751b03579c8e58ac85a82ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0044014d1b844acb7fa91d0255e66e873884028bba51d9ba5751b03579c8e58ac85a8203ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0509188a2e9faae98156059c8c2973112ecc8b700a67cbe9991437e3d2551585910189c85d637cc39b8b9617417b1f4d978ccac06097ef8d3b4da023ab5af9bd0705"
        );
        let admitted = Admitted {
            credential: Credential { founding, epoch: 0, proof: Some(invite) },
            notice: None,
            secret: SwarmSecret::from_bytes([5; 32]),
            delegation: Some(paper),
        };
        assert_eq!(
            HEXLOWER.encode(&postcard::to_allocvec(&admitted).unwrap()),
            "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c02020202020202020202020202020202036c61620001ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0044014d1b844acb7fa91d0255e66e873884028bba51d9ba5751b03579c8e58ac85a8203ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0509188a2e9faae98156059c8c2973112ecc8b700a67cbe9991437e3d2551585910189c85d637cc39b8b9617417b1f4d978ccac06097ef8d3b4da023ab5af9bd07050005050505050505050505050505050505050505050505050505050505050505050144014d1b844acb7fa91d0255e66e873884028bba51d9ba5751b03579c8e58ac85a8203ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c0509188a2e9faae98156059c8c2973112ecc8b700a67cbe9991437e3d2551585910189c85d637cc39b8b9617417b1f4d978ccac06097ef8d3b4da023ab5af9bd0705"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = postcard::from_bytes::<JoinRequest>(&bytes);
            let _ = postcard::from_bytes::<Admitted>(&bytes);
            let _ = postcard::from_bytes::<Refusal>(&bytes);
        }
    }
}
