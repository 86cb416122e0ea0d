//! One node's swarms: who founds, invites, admits, kicks; who is a member, and who was.
//!
//! Every decision takes a [`SwarmRecord`] and gives back an answer with the record that has to be kept **before** the
//! answer is sent ([`Decided`]). Deliberately absent: whom to dial, when to ask again, and the public pool, which has no
//! members.
//!
//! The rules, beside that of `wire::Membership`:
//! - An invite is honoured only by who signed it, so its uses are counted in one place. One that has used it, or is a
//!   member already, is free to join again.
//! - A kick begins a new epoch, with a new secret. Its notice lists who stays and who was put out. Who is neither was
//!   admitted by a delegate that had not yet told the founder: it shows the founder its old membership and is admitted
//!   anew ([`SwarmRecord::renew`]), unless it, its delegate or its invite is out.
//! - Delegations end with their epoch; the founder renews them with what it has not seen spent. A delegate's invites
//!   outlive its delegation as soon as it has the next one.
//! - A kick also revokes the invite that the peer came by, and bars its key from all invites older than the kick.

mod admit;
mod book;
mod check;
mod epoch;
mod learn;
mod record;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use admit::InviteTerms;
pub use book::{BookError, FindError, SWARMS_MAX, Swarms};
pub use check::{Seen, Stranger};
pub use epoch::NewEpoch;
pub use learn::{GrantError, Learned, NoticeError, TakeUpError};
pub use record::{EpochSecret, Grant, OwnInvite, Place, SwarmRecord};

use serde::{Deserialize, Serialize};

use crate::wire::{InviteId, PeerId};

/// Most invites that one node keeps of one swarm; dead ones make room for new ones.
pub const INVITES_MAX: usize = 256;
/// Most peers that one invite lets in: a swarm holds no more.
pub const USES_MAX: u32 = 1024;
/// Most uses of all invites of one node and swarm together: their users make 128 KiB of a record.
pub const USES_TOTAL_MAX: u64 = 4096;
/// Most delegates of a swarm: their delegations are signed anew in each epoch.
pub const DELEGATES_MAX: usize = 32;
/// Most serials of delegates that a node remembers so as to find forks: four for each member that there can be.
pub const SPENT_MAX: usize = 4096;
/// Oldest membership of a delegate that the founder still renews, in epochs. It remembers their serials for so long.
pub const RENEWED_EPOCHS_MAX: u64 = 8;

/// The record that has to be kept, and what may be said once it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided<A> {
    /// What replaces the record; none where nothing changed.
    pub record: Option<SwarmRecord>,
    /// What to say or do then.
    pub answer: A,
}

impl<A> Decided<A> {
    fn new(before: &SwarmRecord, after: SwarmRecord, answer: A) -> Self {
        Self { record: (after != *before).then_some(after), answer }
    }

    /// Puts the new record, if any, in the place of the old one, as tests and whoever has kept it do.
    pub fn apply(self, record: &mut SwarmRecord) -> A {
        if let Some(after) = self.record {
            *record = after;
        }
        self.answer
    }
}

/// The part that this node plays in a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Its key rules the swarm.
    Founder,
    /// A member that holds a delegation of the newest epoch.
    Delegate,
    /// A member.
    Member,
    /// Has a ticket, and has not been admitted yet.
    Pending,
    /// Was a member; the newest notice neither lists nor puts it out, so it shows the founder what it has.
    Unlisted,
    /// Was put out.
    Kicked,
}

/// What not every role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Sign an invite.
    Invite,
    /// Let in who brings an invite of one's own.
    Admit,
    /// Revoke an invite of one's own.
    Revoke,
    /// Put a peer out, or revoke another's invite.
    Kick,
    /// Let another invite and admit.
    Delegate,
    /// Judge whether a peer is a member, and bring it up to date.
    Judge,
    /// Go.
    Leave,
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Invite => "invite",
            Self::Admit => "admit",
            Self::Revoke => "revoke an invite",
            Self::Kick => "kick",
            Self::Delegate => "delegate",
            Self::Judge => "judge who is a member",
            Self::Leave => "leave",
        })
    }
}

impl Role {
    /// Who may what.
    pub fn may(self, deed: Deed) -> bool {
        match deed {
            Deed::Kick | Deed::Delegate => self == Self::Founder,
            Deed::Invite | Deed::Admit => matches!(self, Self::Founder | Self::Delegate),
            Deed::Revoke => !matches!(self, Self::Pending | Self::Kicked),
            Deed::Judge => matches!(self, Self::Founder | Self::Delegate | Self::Member | Self::Unlisted),
            Deed::Leave => self != Self::Founder,
        }
    }
}

/// Why something that this node's owner asks for is not done.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MembershipError {
    /// It is for another role.
    #[error("this node may not {deed}: here it is {}", described(*.role))]
    MayNot {
        /// What this node is.
        role: Role,
        /// What it was asked for.
        deed: Deed,
    },
    /// None, or more than [`USES_MAX`].
    #[error("an invite is for 1 to {USES_MAX} peers, not {asked}")]
    Uses {
        /// How many were asked for.
        asked: u32,
    },
    /// An expiry needs a date.
    #[error("the clock is not set: an invite that expires can not be dated")]
    ClockUnset,
    /// [`INVITES_MAX`] or [`USES_TOTAL_MAX`] are open.
    #[error("too many invites are open: revoke some first")]
    TooManyInvites,
    /// An id was drawn that is taken.
    #[error("an invite {} exists already", id.short())]
    InviteExists {
        /// Which.
        id: InviteId,
    },
    /// No invite of this node has that id.
    #[error("there is no invite {} of this node", id.short())]
    NoInvite {
        /// Which.
        id: InviteId,
    },
    /// The founder is the one peer that can not be kicked, and needs no delegation.
    #[error("{} is the founder", peer.short())]
    IsFounder {
        /// Who.
        peer: PeerId,
    },
    /// Only members are delegates.
    #[error("{} is no member", peer.short())]
    NotAMember {
        /// Who.
        peer: PeerId,
    },
    /// None, or more than a swarm holds.
    #[error("a delegate may admit 1 to {} peers, not {asked}", crate::wire::MEMBERS_MAX)]
    Quota {
        /// How many were asked for.
        asked: u32,
    },
    /// [`DELEGATES_MAX`].
    #[error("the swarm has {DELEGATES_MAX} delegates, as many as it can")]
    TooManyDelegates,
}

fn described(role: Role) -> &'static str {
    match role {
        Role::Founder => "the founder",
        Role::Delegate => "a delegate",
        Role::Member => "a member",
        Role::Pending => "not admitted yet",
        Role::Unlisted => "waiting for the founder to renew its membership",
        Role::Kicked => "no longer a member",
    }
}
