//! What a node keeps of one swarm, and what follows from it alone.
//!
//! Deliberately absent: whatever changes it; see the other files of this room.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::{Deed, MembershipError, Role};
use crate::wire::{
    Credential, Founding, Invite, InviteId, Issued, PeerId, Signed, SwarmId, SwarmName, SwarmSecret, Ticket,
};

/// Secrets that are kept: that of the newest epoch and the one before, by which members that lag are still known.
pub(super) const SECRETS_MAX: usize = 2;

/// The secret of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSecret {
    /// Of which.
    pub epoch: u64,
    /// What its members share.
    pub secret: SwarmSecret,
}

/// An admission that this node knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who signed it.
    pub by: PeerId,
    /// Serial of the delegation by which; none where the founder did.
    pub delegation: Option<u64>,
    /// In which epoch.
    pub epoch: u64,
    /// Serial of the membership.
    pub serial: u64,
    /// The invite that it came by.
    pub invite: Option<InviteId>,
}

/// An invite that this node signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnInvite {
    /// As it was signed.
    pub invite: Invite,
    /// No longer honoured.
    pub revoked: bool,
    /// Who has joined by it.
    pub uses: BTreeSet<PeerId>,
}

/// A delegation: that of this node, or, with the founder, that of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// As the founder signed it.
    pub delegation: Signed,
    /// Its serial.
    pub serial: u64,
    /// Admissions that it allows.
    pub quota: u32,
    /// Admissions that its holder has signed; 0 with the founder, who counts what it sees.
    pub issued: u32,
}

/// All that a node keeps of one swarm. Version 1 of the record, frozen.
///
/// Bounded: lists of peers by [`MEMBERS_MAX`](crate::wire::MEMBERS_MAX), invites and their uses by the constants of
/// `membership`; the largest takes less than a megabyte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmRecord {
    pub(super) founding: Founding,
    pub(super) me: PeerId,
    pub(super) role: Role,
    /// The newest that is known.
    pub(super) epoch: u64,
    /// The newest in which this node was a member.
    pub(super) member_epoch: u64,
    /// The newest notice and what it says; nothing in epoch 0.
    pub(super) notice: Option<Signed>,
    pub(super) listed: BTreeSet<PeerId>,
    /// Who was put out, with the epoch that did.
    pub(super) put_out: BTreeMap<PeerId, u64>,
    /// Invites of delegates that the founder revoked, with the epoch that did.
    pub(super) revoked: BTreeMap<InviteId, u64>,
    /// Newest first.
    pub(super) secrets: Vec<EpochSecret>,
    /// This node's own membership; none where it is listed.
    pub(super) paper: Option<Issued>,
    pub(super) ticket: Option<Ticket>,
    pub(super) grant: Option<Grant>,
    /// Who was admitted in this epoch, as far as this node has seen; with the founder, all members.
    pub(super) roster: BTreeMap<PeerId, Place>,
    /// Serials of delegates, by delegate, delegation and serial: the epoch, and whose they are.
    pub(super) spent: BTreeMap<(PeerId, u64, u64), (u64, PeerId)>,
    pub(super) invites: BTreeMap<InviteId, OwnInvite>,
    /// The founder's: delegations of this epoch.
    pub(super) grants: BTreeMap<PeerId, Grant>,
    /// The founder's: serials it has signed.
    pub(super) issued: u64,
}

impl SwarmRecord {
    /// Founds a swarm. `nonce` and `secret` are random bytes, drawn for this swarm alone.
    pub fn found(key: &SigningKey, name: SwarmName, nonce: [u8; 16], secret: SwarmSecret) -> Self {
        let me = PeerId::from_bytes(key.verifying_key().to_bytes());
        let mut record = Self::empty(Founding { founder: me, nonce, name }, me, Role::Founder);
        record.secrets = vec![EpochSecret { epoch: 0, secret }];
        record
    }

    /// A swarm that this node has a ticket for and is not admitted to yet.
    ///
    /// # Errors
    /// [`MembershipError::IsFounder`] where the ticket is for a swarm that this node's own key founded.
    pub fn pending(ticket: Ticket, me: PeerId) -> Result<Self, MembershipError> {
        if ticket.founding().founder == me {
            return Err(MembershipError::IsFounder { peer: me });
        }
        let mut record = Self::empty(ticket.founding().clone(), me, Role::Pending);
        record.ticket = Some(ticket);
        Ok(record)
    }

    fn empty(founding: Founding, me: PeerId, role: Role) -> Self {
        Self {
            founding,
            me,
            role,
            epoch: 0,
            member_epoch: 0,
            notice: None,
            listed: BTreeSet::new(),
            put_out: BTreeMap::new(),
            revoked: BTreeMap::new(),
            secrets: Vec::new(),
            paper: None,
            ticket: None,
            grant: None,
            roster: BTreeMap::new(),
            spent: BTreeMap::new(),
            invites: BTreeMap::new(),
            grants: BTreeMap::new(),
            issued: 0,
        }
    }

    /// The swarm.
    pub fn id(&self) -> SwarmId {
        self.founding.id()
    }

    /// What its id stands for.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// The part that this node plays.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The newest epoch that this node knows.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The newest notice, for who lags; none in epoch 0.
    pub fn notice(&self) -> Option<&Signed> {
        self.notice.as_ref()
    }

    /// The ticket, while this node waits to be admitted.
    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    /// Invites of this node's own.
    pub fn invites(&self) -> impl Iterator<Item = &OwnInvite> {
        self.invites.values()
    }

    /// Secrets, newest first: tags are made and known with each, so that members an epoch apart find each other.
    pub fn secrets(&self) -> &[EpochSecret] {
        &self.secrets
    }

    /// The delegation that the founder has signed for a peer, to tell it.
    pub fn delegation_of(&self, peer: &PeerId) -> Option<&Signed> {
        self.grants.get(peer).map(|grant| &grant.delegation)
    }

    /// Admissions that this node may still sign: as a delegate what is left of its quota, none without a quota.
    pub fn quota_left(&self) -> Option<u32> {
        self.grant.as_ref().map(|grant| grant.quota.saturating_sub(grant.issued))
    }

    /// What this node shows to members; none before it was admitted and after it was put out.
    pub fn credential(&self) -> Option<Credential> {
        match self.role {
            Role::Pending | Role::Kicked => None,
            _ => Some(Credential {
                founding: self.founding.clone(),
                epoch: self.member_epoch,
                proof: self.paper.clone(),
            }),
        }
    }

    /// Members that this node knows of, itself and the founder included. Only the founder knows them all, and leaves
    /// out who has left; what delegates have admitted, the others see when they meet it.
    pub fn members(&self) -> BTreeSet<PeerId> {
        let mut members: BTreeSet<PeerId> = self.roster.keys().copied().collect();
        members.insert(self.founding.founder);
        if self.role != Role::Founder {
            members.extend(&self.listed);
        }
        if matches!(self.role, Role::Delegate | Role::Member) {
            members.insert(self.me);
        }
        members
    }

    /// Whether a peer is a member as far as is known, without its showing anything.
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        *peer == self.founding.founder || self.listed.contains(peer) || self.roster.contains_key(peer)
    }

    /// Members besides the founder, those who left and are still listed included.
    pub(super) fn taken_places(&self) -> usize {
        let me = matches!(self.role, Role::Delegate | Role::Member).then_some(&self.me);
        let unlisted = self.roster.keys().chain(me).filter(|peer| !self.listed.contains(peer));
        self.listed.len() + unlisted.count()
    }

    /// The secret of the newest epoch, where it is known.
    pub(super) fn secret(&self) -> Option<&SwarmSecret> {
        self.secrets.first().filter(|newest| newest.epoch == self.epoch).map(|newest| &newest.secret)
    }

    pub(super) fn allow(&self, deed: Deed) -> Result<(), MembershipError> {
        match self.role.may(deed) {
            true => Ok(()),
            false => Err(MembershipError::MayNot { role: self.role, deed }),
        }
    }
}
