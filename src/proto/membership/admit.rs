//! Invites: signed, counted, revoked by one node, and honoured by it alone.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;

use super::{
    Decided, Deed, INVITES_MAX, MembershipError, OwnInvite, Place, SwarmRecord, USES_MAX, USES_TOTAL_MAX,
};
use crate::wire::{
    Admitted, Credential, Invite, InviteId, Issued, IssuedError, JoinRequest, MEMBERS_MAX, Membership,
    PUT_OUT_MAX, PeerId, Refusal, Signed,
};

/// What an invite allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InviteTerms {
    /// Peers that may join by it, 1 to [`USES_MAX`].
    pub uses_max: u32,
    /// How long it is honoured, in milliseconds; none: until it is used up or revoked.
    pub ttl_ms: Option<u64>,
}

impl SwarmRecord {
    /// Signs an invite under `id`, 16 random bytes. The answer goes into a ticket.
    ///
    /// `now_wall` is the wall clock in milliseconds since 1970, none where it is unset.
    ///
    /// # Errors
    /// [`MembershipError`]: the role, the terms, the clock, or too many that are open.
    pub fn invite(
        &self,
        key: &SigningKey,
        id: InviteId,
        terms: InviteTerms,
        now_wall: Option<u64>,
    ) -> Result<Decided<Issued>, MembershipError> {
        self.allow(Deed::Invite)?;
        if terms.uses_max == 0 || terms.uses_max > USES_MAX {
            return Err(MembershipError::Uses { asked: terms.uses_max });
        }
        let expires_ms = match (terms.ttl_ms, now_wall) {
            (None, _) => None,
            (Some(_), None) => return Err(MembershipError::ClockUnset),
            (Some(ttl), Some(now)) => Some(now.saturating_add(ttl)),
        };
        if self.invites.contains_key(&id) {
            return Err(MembershipError::InviteExists { id });
        }
        let mut next = self.clone();
        next.make_room(terms.uses_max, now_wall)?;
        let invite = Invite { swarm: self.id(), id, expires_ms, uses_max: terms.uses_max, epoch: self.epoch };
        let paper = Signed::sign(key, &invite);
        next.invites.insert(id, OwnInvite { invite, revoked: false, uses: BTreeSet::new() });
        let delegation = self.grant.as_ref().map(|grant| grant.delegation.clone());
        Ok(Decided::new(self, next, Issued { by: self.me, delegation, paper }))
    }

    /// Revokes an invite of this node's own, at once and for all who bring it. It stays in the list until its place is
    /// needed.
    ///
    /// # Errors
    /// [`MembershipError::NoInvite`]; what a delegate signed, the founder revokes with
    /// [`SwarmRecord::revoke_of_delegate`].
    pub fn revoke(&self, id: InviteId) -> Result<Decided<()>, MembershipError> {
        self.allow(Deed::Revoke)?;
        let mut next = self.clone();
        next.invites.get_mut(&id).ok_or(MembershipError::NoInvite { id })?.revoked = true;
        Ok(Decided::new(self, next, ()))
    }

    /// Admits the peer `joiner`, whose identity the connection has proved, or says why not. One that joins again gets
    /// the same answer and counts no use.
    ///
    /// # Errors
    /// The [`Refusal`] to answer; then nothing has changed. A node that has no record of the swarm asked for answers
    /// [`Refusal::NotAdmitting`] as well, so that nobody learns from it who is a member of what.
    pub fn admit(
        &self,
        key: &SigningKey,
        request: &JoinRequest,
        joiner: PeerId,
        now_wall: Option<u64>,
    ) -> Result<Decided<Admitted>, Refusal> {
        if request.swarm != self.id() {
            return Err(Refusal::OtherSwarm);
        }
        let by_me = request.invite.by == self.me && joiner != self.me;
        if !by_me || !self.role.may(Deed::Admit) {
            return Err(Refusal::NotAdmitting);
        }
        let own = self.honoured(&request.invite, &joiner)?;
        let id = own.invite.id;
        let again = own.uses.contains(&joiner) || self.knows(&joiner);
        if !again {
            own.judge(now_wall)?;
        }
        let mut next = self.clone();
        if let Some(own) = next.invites.get_mut(&id).filter(|_| !again) {
            own.uses.insert(joiner);
        }
        let proof = next.place(key, joiner, Some(id))?;
        let answer = next.welcome(joiner, proof).ok_or(Refusal::NotAdmitting)?;
        Ok(Decided::new(self, next, answer))
    }

    /// The invite as this node signed it, if it still has force for `joiner`.
    fn honoured(&self, shown: &Issued, joiner: &PeerId) -> Result<&OwnInvite, Refusal> {
        let (invite, _) = shown.open::<Invite>(&self.founding).map_err(|error| match error {
            IssuedError::Swarm => Refusal::OtherSwarm,
            _ => Refusal::Forged,
        })?;
        // Signed by us and not known any more: it was dead, and made room.
        let own = self.invites.get(&invite.id).ok_or(Refusal::Revoked)?;
        if own.invite != invite {
            return Err(Refusal::Forged);
        }
        let put_out_since = self.put_out.get(joiner).is_some_and(|epoch| invite.epoch < *epoch);
        if own.revoked || put_out_since || self.revoked.contains_key(&invite.id) || self.is_ancient(&invite) {
            return Err(Refusal::Revoked);
        }
        Ok(own)
    }

    /// Whether a kick since this invite may have been forgotten: see [`PUT_OUT_MAX`].
    fn is_ancient(&self, invite: &Invite) -> bool {
        self.epoch.saturating_sub(invite.epoch) >= PUT_OUT_MAX as u64
    }

    /// Gives `peer` a place in this epoch, that which it has or a new one. The answer is its proof; none where the notice
    /// lists it.
    pub(super) fn place(
        &mut self,
        key: &SigningKey,
        peer: PeerId,
        invite: Option<InviteId>,
    ) -> Result<Option<Issued>, Refusal> {
        if peer == self.founding.founder {
            return Ok(None);
        }
        let delegation = self.grant.as_ref().map(|grant| grant.serial);
        if self.listed.contains(&peer) {
            self.note_listed(peer);
            return Ok(None);
        }
        let mine = (self.me, delegation, self.epoch);
        let had = self.roster.get(&peer).filter(|place| (place.by, place.delegation, place.epoch) == mine);
        let place = match had {
            Some(place) => *place,
            None => {
                if self.taken_places() >= MEMBERS_MAX && !self.roster.contains_key(&peer) {
                    return Err(Refusal::Full);
                }
                let serial = self.next_serial()?;
                let place = Place { by: self.me, delegation, epoch: self.epoch, serial, invite };
                self.note(peer, place).map_err(|_| Refusal::Full)?;
                place
            }
        };
        let membership = Membership {
            swarm: self.id(),
            peer,
            epoch: place.epoch,
            serial: place.serial,
            invite: place.invite,
        };
        let delegation = self.grant.as_ref().map(|grant| grant.delegation.clone());
        Ok(Some(Issued { by: self.me, delegation, paper: Signed::sign(key, &membership) }))
    }

    fn next_serial(&mut self) -> Result<u64, Refusal> {
        match &mut self.grant {
            Some(grant) if grant.issued >= grant.quota => Err(Refusal::Full),
            Some(grant) => {
                grant.issued += 1;
                Ok(u64::from(grant.issued - 1))
            }
            None => {
                self.issued += 1;
                Ok(self.issued - 1)
            }
        }
    }

    /// All that `peer` needs; none while this node itself lacks the newest secret.
    pub(super) fn welcome(&self, peer: PeerId, proof: Option<Issued>) -> Option<Admitted> {
        let credential = Credential { founding: self.founding.clone(), epoch: self.epoch, proof };
        let delegation = self.grants.get(&peer).map(|grant| grant.delegation.clone());
        Some(Admitted { credential, notice: self.notice.clone(), secret: self.secret()?.clone(), delegation })
    }

    /// Forgets dead invites where the bounds ask for it.
    fn make_room(&mut self, uses_max: u32, now_wall: Option<u64>) -> Result<(), MembershipError> {
        let fits = |invites: &BTreeMap<InviteId, OwnInvite>| {
            let uses: u64 = invites.values().map(|own| u64::from(own.invite.uses_max)).sum();
            invites.len() < INVITES_MAX && uses + u64::from(uses_max) <= USES_TOTAL_MAX
        };
        if !fits(&self.invites) {
            let epoch = self.epoch;
            self.invites.retain(|_, own| {
                let ancient = epoch.saturating_sub(own.invite.epoch) >= PUT_OUT_MAX as u64;
                let alive = matches!(own.judge(now_wall), Ok(()) | Err(Refusal::ClockUnset));
                alive && !own.revoked && !ancient
            });
        }
        match fits(&self.invites) {
            true => Ok(()),
            false => Err(MembershipError::TooManyInvites),
        }
    }
}

impl OwnInvite {
    /// Whether it lets in one more.
    fn judge(&self, now_wall: Option<u64>) -> Result<(), Refusal> {
        let Invite { expires_ms, uses_max, .. } = self.invite;
        match (expires_ms, now_wall) {
            (Some(expires), Some(now)) if now >= expires => Err(Refusal::Expired),
            _ if self.uses.len() >= uses_max as usize => Err(Refusal::Exhausted),
            (Some(_), None) => Err(Refusal::ClockUnset),
            _ => Ok(()),
        }
    }
}
