//! Epochs, as the founder begins them: who is put out, who stays, who is taken in again, who may admit.
//!
//! Deliberately absent: how members hear of it; see `learn`.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::{
    DELEGATES_MAX, Decided, Deed, EpochSecret, Grant, MembershipError, RENEWED_EPOCHS_MAX, Role, Stranger,
    SwarmRecord, record::SECRETS_MAX,
};
use crate::wire::{
    Admitted, Credential, Delegation, EpochNotice, InviteId, Issued, MEMBERS_MAX, PUT_OUT_MAX, PeerId,
    Refusal, Signed, SwarmSecret,
};

/// What goes out when an epoch has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// For all members, and for who was put out: it is the proof.
    pub notice: Signed,
    /// For members alone.
    pub secret: SwarmSecret,
    /// For each delegate that stays and had something left.
    pub delegations: Vec<(PeerId, Signed)>,
}

impl SwarmRecord {
    /// Puts a peer out, known or not, and begins a new epoch with `secret`, 32 random bytes. The invite that it came by
    /// is revoked, and older ones do not let it in again.
    ///
    /// # Errors
    /// [`MembershipError`]: this node is not the founder, or the peer is.
    pub fn kick(
        &self,
        key: &SigningKey,
        peer: PeerId,
        secret: SwarmSecret,
    ) -> Result<Decided<NewEpoch>, MembershipError> {
        self.allow(Deed::Kick)?;
        if peer == self.founding.founder {
            return Err(MembershipError::IsFounder { peer });
        }
        let mut next = self.clone();
        if let Some(id) = next.roster.remove(&peer).and_then(|place| place.invite) {
            match next.invites.get_mut(&id) {
                Some(own) => own.revoked = true,
                None => next.revoke_from(id, self.epoch + 1),
            }
        }
        next.put_out.insert(peer, self.epoch + 1);
        if next.put_out.len() > PUT_OUT_MAX {
            forget_oldest(&mut next.put_out);
        }
        let answer = next.begin_epoch(key, secret);
        Ok(Decided::new(self, next, answer))
    }

    /// Revokes an invite that a delegate signed. It takes a new epoch for the delegate to hear of it.
    ///
    /// # Errors
    /// [`MembershipError`]: this node is not the founder.
    pub fn revoke_of_delegate(
        &self,
        key: &SigningKey,
        id: InviteId,
        secret: SwarmSecret,
    ) -> Result<Decided<NewEpoch>, MembershipError> {
        self.allow(Deed::Kick)?;
        let mut next = self.clone();
        next.revoke_from(id, self.epoch + 1);
        let answer = next.begin_epoch(key, secret);
        Ok(Decided::new(self, next, answer))
    }

    fn revoke_from(&mut self, id: InviteId, epoch: u64) {
        self.revoked.insert(id, epoch);
        if self.revoked.len() > PUT_OUT_MAX {
            forget_oldest(&mut self.revoked);
        }
    }

    fn begin_epoch(&mut self, key: &SigningKey, secret: SwarmSecret) -> NewEpoch {
        let ended = self.epoch;
        self.epoch = ended + 1;
        self.member_epoch = self.epoch;
        self.listed = self.roster.keys().copied().collect();
        let notice = EpochNotice {
            swarm: self.id(),
            epoch: self.epoch,
            members: self.listed.iter().copied().collect(),
            put_out: self.put_out.iter().map(|(peer, epoch)| (*peer, *epoch)).collect(),
            revoked: self.revoked.keys().copied().collect(),
            secret: secret.fingerprint(),
        };
        let notice = Signed::sign(key, &notice);
        self.notice = Some(notice.clone());
        self.add_secret(secret.clone());
        let grants = std::mem::take(&mut self.grants);
        for (delegate, grant) in grants {
            let slots = (delegate, grant.serial, 0)..=(delegate, grant.serial, u64::MAX);
            let spent = u32::try_from(self.spent.range(slots).count()).unwrap_or(u32::MAX);
            let left = grant.quota.saturating_sub(spent);
            if left > 0 && self.roster.contains_key(&delegate) {
                self.grant_to(key, delegate, left);
            }
        }
        let oldest = self.epoch.saturating_sub(RENEWED_EPOCHS_MAX);
        self.spent.retain(|_, (epoch, _)| *epoch >= oldest);
        let delegations = self.grants.iter().map(|(peer, grant)| (*peer, grant.delegation.clone())).collect();
        NewEpoch { notice, secret, delegations }
    }

    pub(super) fn add_secret(&mut self, secret: SwarmSecret) {
        self.secrets.insert(0, EpochSecret { epoch: self.epoch, secret });
        self.secrets.truncate(SECRETS_MAX);
    }

    /// Lets a member invite and admit `quota` peers, in place of what it may have had left. The answer is for it.
    ///
    /// # Errors
    /// [`MembershipError`]: the role, the peer, the quota, or [`DELEGATES_MAX`].
    pub fn delegate(
        &self,
        key: &SigningKey,
        peer: PeerId,
        quota: u32,
    ) -> Result<Decided<Signed>, MembershipError> {
        self.allow(Deed::Delegate)?;
        if peer == self.founding.founder {
            return Err(MembershipError::IsFounder { peer });
        }
        if quota == 0 || quota as usize > MEMBERS_MAX {
            return Err(MembershipError::Quota { asked: quota });
        }
        if !self.roster.contains_key(&peer) {
            return Err(MembershipError::NotAMember { peer });
        }
        if self.grants.len() >= DELEGATES_MAX && !self.grants.contains_key(&peer) {
            return Err(MembershipError::TooManyDelegates);
        }
        let mut next = self.clone();
        let answer = next.grant_to(key, peer, quota);
        Ok(Decided::new(self, next, answer))
    }

    fn grant_to(&mut self, key: &SigningKey, delegate: PeerId, quota: u32) -> Signed {
        let serial = self.issued;
        self.issued += 1;
        let delegation = Delegation { swarm: self.id(), epoch: self.epoch, delegate, quota, serial };
        let delegation = Signed::sign(key, &delegation);
        self.grants.insert(delegate, Grant { delegation: delegation.clone(), serial, quota, issued: 0 });
        delegation
    }

    /// Brings a member up to date. The founder also takes in who shows a delegate's membership of an epoch that has
    /// ended, unless it, its delegate or its invite is out.
    ///
    /// # Errors
    /// [`Stranger`]; then nothing has changed.
    pub fn renew(
        &self,
        key: &SigningKey,
        peer: PeerId,
        credential: &Credential,
    ) -> Result<Decided<Admitted>, Stranger> {
        let (next, proof) = match self.is_member(peer, credential) {
            Ok(seen) => {
                let listed = self.listed.contains(&peer);
                let proof = credential.proof.clone().filter(|_| !listed && peer != self.founding.founder);
                (seen.record.unwrap_or_else(|| self.clone()), proof)
            }
            Err(Stranger::Outdated { .. }) if self.role == Role::Founder => {
                let mut next = self.clone();
                let proof = next.readmit(key, peer, credential)?;
                (next, proof)
            }
            Err(stranger) => return Err(stranger),
        };
        let answer = next.welcome(peer, proof).ok_or(Stranger::CanNotJudge)?;
        Ok(Decided::new(self, next, answer))
    }

    fn readmit(
        &mut self,
        key: &SigningKey,
        peer: PeerId,
        credential: &Credential,
    ) -> Result<Option<Issued>, Stranger> {
        let outdated = Stranger::Outdated { theirs: credential.epoch, ours: self.epoch };
        let shown = self.shown_place(peer, credential)?;
        // What the founder signed itself, it knew of: then the peer was put out, or has left.
        let delegated = shown.delegation.is_some();
        let ancient = shown.epoch + RENEWED_EPOCHS_MAX < self.epoch;
        let out = |peer: &PeerId| self.put_out.get(peer).is_some_and(|out| shown.epoch < *out);
        let revoked = shown.invite.is_some_and(|id| self.revoked.contains_key(&id));
        // Admitted anew in this epoch already: it asks again because our answer was lost.
        let again = self.roster.get(&peer).is_some_and(|had| had.by == self.me && had.epoch == self.epoch);
        if (!delegated && !again) || ancient || revoked || out(&peer) || out(&shown.by) {
            return Err(outdated);
        }
        self.spend(peer, &shown)?;
        self.place(key, peer, shown.invite).map_err(|refusal| match refusal {
            Refusal::Full => Stranger::Full,
            _ => outdated,
        })
    }

    /// The founder takes off the list who has left. It stays a member for those who do not know, until the next epoch.
    ///
    /// # Errors
    /// [`MembershipError`]: this node is not the founder, or the peer is.
    pub fn left(&self, peer: PeerId) -> Result<Decided<()>, MembershipError> {
        self.allow(Deed::Kick)?;
        if peer == self.founding.founder {
            return Err(MembershipError::IsFounder { peer });
        }
        let mut next = self.clone();
        next.roster.remove(&peer);
        next.grants.remove(&peer);
        Ok(Decided::new(self, next, ()))
    }
}

fn forget_oldest<K: Ord + Copy>(since: &mut BTreeMap<K, u64>) {
    let oldest = since.iter().min_by_key(|(_, epoch)| **epoch).map(|(key, _)| *key);
    if let Some(key) = oldest {
        since.remove(&key);
    }
}
