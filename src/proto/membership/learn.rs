//! What a node learns of its swarm from others: notices, delegations, its own admission.
//!
//! Deliberately absent: who sent them. Each proves itself, or is answered by a peer that was asked.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decided, Deed, Grant, MembershipError, Role, SwarmRecord};
use crate::wire::{
    Admitted, Delegation, EpochNotice, IssuedError, Membership, PeerId, Signed, SignedError, SwarmSecret,
};

/// What a notice means for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Older than what is known.
    Old,
    /// The one that is known; a secret that was missing has been filled in.
    Known,
    /// New, and this node is a member.
    Stays,
    /// New, and the founder has not heard of this node: it asks to be renewed.
    Unlisted,
    /// New, and this node was put out.
    Kicked,
}

/// Why a notice is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoticeError {
    /// It is not the founder's.
    #[error("the notice does not open")]
    Forged(#[source] SignedError),
    /// It belongs to another swarm.
    #[error("the notice is of another swarm")]
    OtherSwarm,
    /// The founder signed lists out of order: a bug of the founder's.
    #[error("the notice is malformed")]
    Malformed,
    /// The secret that came with it is not the one it names.
    #[error("a wrong secret came with the notice")]
    WrongSecret,
    /// The founder signed two notices of one epoch: its records were restored or its key is in two places. The first one
    /// stays. An operator wants to know.
    #[error("the founder signed two different notices of epoch {epoch}")]
    Fork {
        /// Of which.
        epoch: u64,
    },
}

/// Why a delegation is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GrantError {
    /// It is not the founder's.
    #[error("the delegation does not open")]
    Forged(#[source] SignedError),
    /// It is for another swarm or peer, or this node is no member.
    #[error("the delegation is not for this node")]
    NotMine,
    /// It is not of the epoch that this node knows.
    #[error("the delegation is of epoch {theirs}, this node knows {ours}")]
    Epoch {
        /// Its epoch.
        theirs: u64,
        /// That of this node.
        ours: u64,
    },
}

/// Why an admission is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TakeUpError {
    /// It is for another swarm, epoch or peer than that of this node.
    #[error("the admission is for another swarm, epoch or peer")]
    Another,
    /// Its notice is not believed.
    #[error("the admission brings a wrong notice")]
    Notice(#[source] NoticeError),
    /// It brings neither a place in the notice nor a membership with force.
    #[error("the admission brings no membership with force")]
    Forged(#[source] IssuedError),
    /// It brings neither a place in the notice nor a membership.
    #[error("the admission brings no membership")]
    NotListed,
    /// Its delegation is not taken.
    #[error("the admission brings a wrong delegation")]
    Grant(#[source] GrantError),
}

impl SwarmRecord {
    /// Takes a delegation for this node. An older one than it has changes nothing.
    ///
    /// # Errors
    /// [`GrantError`]; after [`GrantError::Epoch`] with a newer one, ask for the notice first.
    pub fn accept(&self, delegation: &Signed) -> Result<Decided<()>, GrantError> {
        let opened: Delegation = delegation.open(&self.founding.founder).map_err(GrantError::Forged)?;
        let Delegation { swarm, epoch, delegate, quota, serial } = opened;
        let member = matches!(self.role, Role::Member | Role::Delegate);
        if swarm != self.id() || delegate != self.me || !member {
            return Err(GrantError::NotMine);
        }
        if epoch != self.epoch {
            return Err(GrantError::Epoch { theirs: epoch, ours: self.epoch });
        }
        let mut next = self.clone();
        if self.grant.as_ref().is_none_or(|had| had.serial < serial) {
            next.grant = Some(Grant { delegation: delegation.clone(), serial, quota, issued: 0 });
            next.role = Role::Delegate;
        }
        Ok(Decided::new(self, next, ()))
    }

    /// Takes note of a new epoch. `secret` comes with it for members; without one they are not found by their tags, and
    /// admit nobody, until it comes.
    ///
    /// # Errors
    /// [`NoticeError`]; then nothing has changed.
    pub fn learn(
        &self,
        notice: &Signed,
        secret: Option<&SwarmSecret>,
    ) -> Result<Decided<Learned>, NoticeError> {
        let opened = self.opened(notice)?;
        if opened.swarm != self.id() {
            return Err(NoticeError::OtherSwarm);
        }
        if !opened.is_well_formed() {
            return Err(NoticeError::Malformed);
        }
        if secret.is_some_and(|secret| secret.fingerprint() != opened.secret) {
            return Err(NoticeError::WrongSecret);
        }
        if opened.epoch < self.epoch {
            return Ok(Decided { record: None, answer: Learned::Old });
        }
        let mut next = self.clone();
        let known = opened.epoch == self.epoch;
        if known {
            let had = self.notice.as_ref().map(|had| self.opened(had)).transpose()?;
            if had.is_some_and(|had| had != opened) {
                return Err(NoticeError::Fork { epoch: opened.epoch });
            }
        } else {
            next.notice = Some(notice.clone());
            next.move_to(opened);
        }
        let inside = matches!(next.role, Role::Founder | Role::Delegate | Role::Member);
        if let Some(secret) = secret.filter(|_| inside && next.secret().is_none()) {
            next.add_secret(secret.clone());
        }
        let answer = match next.role {
            _ if known => Learned::Known,
            Role::Kicked => Learned::Kicked,
            Role::Unlisted | Role::Pending => Learned::Unlisted,
            Role::Founder | Role::Delegate | Role::Member => Learned::Stays,
        };
        Ok(Decided::new(self, next, answer))
    }

    fn opened(&self, notice: &Signed) -> Result<EpochNotice, NoticeError> {
        notice.open(&self.founding.founder).map_err(NoticeError::Forged)
    }

    fn move_to(&mut self, notice: EpochNotice) {
        let founder = self.role == Role::Founder;
        self.listed = notice.listed();
        self.epoch = notice.epoch;
        self.put_out = notice.put_out.into_iter().collect();
        // Since when matters to the founder alone, who learns a notice only after its records were restored.
        self.revoked = notice.revoked.into_iter().map(|id| (id, notice.epoch)).collect();
        self.grant = None;
        self.grants = BTreeMap::new();
        self.spent = BTreeMap::new();
        let kept: BTreeSet<PeerId> = if founder { self.listed.clone() } else { BTreeSet::new() };
        self.roster.retain(|peer, _| kept.contains(peer));
        for peer in kept {
            self.note_listed(peer);
        }
        self.role = match self.put_out.get(&self.me) {
            _ if founder => Role::Founder,
            _ if self.listed.contains(&self.me) => Role::Member,
            _ if self.role == Role::Pending => Role::Pending,
            Some(out) if self.member_epoch < *out => Role::Kicked,
            _ if self.role == Role::Kicked => Role::Kicked,
            _ => Role::Unlisted,
        };
        if matches!(self.role, Role::Founder | Role::Member) {
            self.member_epoch = self.epoch;
            self.paper = None;
            self.ticket = None;
        }
    }

    /// Takes up what [`SwarmRecord::admit`] or [`SwarmRecord::renew`] of another node answered.
    ///
    /// # Errors
    /// [`TakeUpError`]; then nothing has changed.
    pub fn take_up(&self, admitted: &Admitted) -> Result<Decided<Learned>, TakeUpError> {
        let Admitted { credential, notice, secret, delegation } = admitted;
        if credential.founding != self.founding {
            return Err(TakeUpError::Another);
        }
        if self.role == Role::Founder {
            // It lets itself in nowhere; but where its records were restored, members know what it signed since then.
            let notice = notice.as_ref().ok_or(TakeUpError::Another)?;
            let learned = self.learn(notice, Some(secret)).map_err(TakeUpError::Notice)?;
            return if learned.answer == Learned::Stays { Ok(learned) } else { Err(TakeUpError::Another) };
        }
        let mut next = self.clone();
        let mut answer = Learned::Known;
        if let Some(notice) = notice {
            let learned = self.learn(notice, Some(secret)).map_err(TakeUpError::Notice)?;
            answer = learned.apply(&mut next);
        }
        if answer == Learned::Old || credential.epoch != next.epoch || notice.is_none() != (next.epoch == 0) {
            return Err(TakeUpError::Another);
        }
        if !next.listed.contains(&self.me) {
            let proof = credential.proof.as_ref().ok_or(TakeUpError::NotListed)?;
            let (membership, _) = proof.open::<Membership>(&self.founding).map_err(TakeUpError::Forged)?;
            if membership.peer != self.me || membership.epoch != next.epoch {
                return Err(TakeUpError::Another);
            }
            if next.role != Role::Delegate {
                next.role = Role::Member;
            }
            next.paper = Some(proof.clone());
            next.member_epoch = next.epoch;
            next.ticket = None;
            if next.secret().is_none() {
                next.add_secret(secret.clone());
            }
            answer = Learned::Stays;
        }
        if let Some(delegation) = delegation {
            next.accept(delegation).map_err(TakeUpError::Grant)?.apply(&mut next);
        }
        Ok(Decided::new(self, next, answer))
    }

    /// Whether this node may go. Its record is then dropped, and the founder told.
    ///
    /// # Errors
    /// [`MembershipError::MayNot`]: the founder stays.
    pub fn leave(&self) -> Result<(), MembershipError> {
        self.allow(Deed::Leave)
    }
}
