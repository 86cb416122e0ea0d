//! Whether a peer is a member, by what this node knows and what the peer shows.

use super::{Decided, Deed, Place, Role, SPENT_MAX, SwarmRecord};
use crate::wire::{Credential, IssuedError, MEMBERS_MAX, Membership, PeerId, Refusal};

/// A member, and who of the two knows the newer epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Neither.
    Same,
    /// It lags: [`SwarmRecord::renew`] has what it needs.
    Behind,
    /// This node lags, and asks it to be renewed.
    Ahead,
}

/// Why a peer is not taken for a member.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Stranger {
    /// It shows the credential of another swarm.
    #[error("shows a credential of another swarm")]
    OtherSwarm,
    /// This node can not judge.
    #[error("this node is itself no member, or lacks the newest secret")]
    CanNotJudge,
    /// It shows a newer epoch and is not listed in ours: perhaps it is one. Ask it, or the founder, for the notice.
    #[error("shows epoch {theirs}, this node knows {ours}")]
    Ahead {
        /// Its epoch.
        theirs: u64,
        /// That of this node.
        ours: u64,
    },
    /// Its membership ended: it was kicked, or admitted by a delegate the founder had not heard of; then that renews it.
    #[error("shows epoch {theirs}, which has ended: this is epoch {ours}")]
    Outdated {
        /// Its epoch.
        theirs: u64,
        /// That of this node.
        ours: u64,
    },
    /// It says that the notice lists it.
    #[error("is not listed in the newest notice")]
    NotListed,
    /// What it shows has no force.
    #[error("shows a membership without force")]
    Forged(#[source] IssuedError),
    /// What it shows was signed for another peer or epoch.
    #[error("shows a membership of another peer or epoch")]
    Another,
    /// One delegate signed one serial for two peers. An operator wants to know.
    #[error("delegate {} signed serial {serial} for {} and for {}", delegate.short(), first.short(), second.short())]
    Fork {
        /// Who signed.
        delegate: PeerId,
        /// What.
        serial: u64,
        /// Who came first, and stays.
        first: PeerId,
        /// Who came second.
        second: PeerId,
    },
    /// [`MEMBERS_MAX`], or more serials than can be remembered.
    #[error("the swarm is full")]
    Full,
}

impl Stranger {
    /// What it is told: less than the log says.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::OtherSwarm => Refusal::OtherSwarm,
            Self::CanNotJudge => Refusal::NotAdmitting,
            Self::Full => Refusal::Full,
            Self::Forged(_) => Refusal::Forged,
            _ => Refusal::NotMember,
        }
    }
}

impl SwarmRecord {
    /// Whether the peer, whose identity the connection has proved, is a member. A delegate's serial that is new to this
    /// node is remembered, so that it is not taken from a second peer; with the founder, the peer is on the list from then on.
    ///
    /// # Errors
    /// [`Stranger`]; then nothing has changed.
    pub fn is_member(&self, peer: PeerId, credential: &Credential) -> Result<Decided<Seen>, Stranger> {
        if !self.role.may(Deed::Judge) {
            return Err(Stranger::CanNotJudge);
        }
        if credential.founding != self.founding {
            return Err(Stranger::OtherSwarm);
        }
        let (theirs, ours) = (credential.epoch, self.epoch);
        let seen = match theirs.cmp(&ours) {
            std::cmp::Ordering::Less => Seen::Behind,
            std::cmp::Ordering::Equal => Seen::Same,
            std::cmp::Ordering::Greater => Seen::Ahead,
        };
        let unchanged = Decided { record: None, answer: seen };
        if peer == self.founding.founder {
            return Ok(unchanged);
        }
        if self.listed.contains(&peer) {
            if self.role != Role::Founder || self.roster.contains_key(&peer) {
                return Ok(unchanged);
            }
            let mut next = self.clone();
            next.note_listed(peer);
            return Ok(Decided::new(self, next, seen));
        }
        match seen {
            Seen::Behind => return Err(Stranger::Outdated { theirs, ours }),
            Seen::Ahead => return Err(Stranger::Ahead { theirs, ours }),
            Seen::Same => {}
        }
        let place = self.shown_place(peer, credential)?;
        if self.taken_places() >= MEMBERS_MAX && !self.roster.contains_key(&peer) {
            return Err(Stranger::Full);
        }
        if self.roster.get(&peer) == Some(&place) {
            return Ok(unchanged);
        }
        let mut next = self.clone();
        next.note(peer, place)?;
        Ok(Decided::new(self, next, seen))
    }

    /// The place that a credential proves, in the epoch that it names.
    pub(super) fn shown_place(&self, peer: PeerId, credential: &Credential) -> Result<Place, Stranger> {
        let issued = credential.proof.as_ref().ok_or(Stranger::NotListed)?;
        let (membership, delegation) = issued.open::<Membership>(&self.founding).map_err(Stranger::Forged)?;
        if membership.peer != peer || membership.epoch != credential.epoch {
            return Err(Stranger::Another);
        }
        let Membership { epoch, serial, invite, .. } = membership;
        Ok(Place { by: issued.by, delegation: delegation.map(|d| d.serial), epoch, serial, invite })
    }

    /// Puts a place on the list, unless its serial is another's.
    pub(super) fn note(&mut self, peer: PeerId, place: Place) -> Result<(), Stranger> {
        self.spend(peer, &place)?;
        let before = self.roster.get(&peer);
        // A peer that has two papers of one epoch may show them in turn: the first stays, or each would cost a write.
        if before.is_none_or(|before| before.epoch < place.epoch || place.by == self.me) {
            self.roster.insert(peer, place);
        }
        if self.role == Role::Founder && self.put_out.get(&peer).is_some_and(|out| *out <= place.epoch) {
            self.put_out.remove(&peer);
        }
        Ok(())
    }

    /// Remembers whose a delegate's serial is.
    pub(super) fn spend(&mut self, peer: PeerId, place: &Place) -> Result<(), Stranger> {
        let Some(delegation) = place.delegation else { return Ok(()) };
        let (delegate, serial) = (place.by, place.serial);
        match self.spent.get(&(delegate, delegation, serial)) {
            Some((_, first)) if *first == peer => Ok(()),
            Some((_, first)) => Err(Stranger::Fork { delegate, serial, first: *first, second: peer }),
            None if self.spent.len() >= SPENT_MAX => Err(Stranger::Full),
            None => {
                self.spent.insert((delegate, delegation, serial), (place.epoch, peer));
                Ok(())
            }
        }
    }

    /// The founder lists whom it sees: who had left and is still listed has come back.
    pub(super) fn note_listed(&mut self, peer: PeerId) {
        if self.role == Role::Founder {
            let (by, epoch) = (self.me, self.epoch);
            let place = Place { by, delegation: None, epoch, serial: 0, invite: None };
            self.roster.entry(peer).or_insert(place);
        }
    }
}
