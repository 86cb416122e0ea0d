//! What its owner does with this node's swarms: found, invite, join, leave, put out.
//!
//! One function decides; it is carried out on the store where no node runs, and by the mesh where one does, so that both
//! do the same. Questions and answers are the JSON of the control socket.

use std::net::SocketAddr;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::pool;
use crate::{
    proto::membership::{
        BookError, FindError, InviteTerms, MembershipError, OwnInvite, Role, SwarmRecord, Swarms,
    },
    wire::{InviteId, PeerId, Refusal, SwarmId, SwarmSecret, Ticket},
};

const DAY_MS: u64 = 86_400_000;

/// What is to be done. A swarm is named by its name, or by the beginning of its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum SwarmCommand {
    /// Found one.
    Create {
        /// 1 to 32 of a-z, 0-9 and -.
        name: String,
    },
    /// Make a ticket.
    Invite {
        /// Which swarm.
        swarm: String,
        /// Peers that may join by it.
        uses: u32,
        /// For so many days; 0: until it is used up or revoked.
        days: u64,
    },
    /// Ask to be let in.
    Join {
        /// As an invite printed it.
        ticket: String,
    },
    /// Lend this node to the public pool.
    JoinPublic {
        /// Nodes to go to first, as ID@HOST:PORT.
        bootstrap: Vec<String>,
    },
    /// And no longer.
    LeavePublic,
    /// Go.
    Leave {
        /// Which swarm.
        swarm: String,
    },
    /// Show all.
    List,
    /// Show who is in one.
    Members {
        /// Which swarm.
        swarm: String,
    },
    /// Put a peer out.
    Kick {
        /// Of which swarm.
        swarm: String,
        /// Its id, or the beginning of it.
        peer: String,
    },
    /// Let a member invite and admit others.
    Delegate {
        /// In which swarm.
        swarm: String,
        /// Its id, or the beginning of it.
        peer: String,
        /// How many it may admit.
        quota: u32,
    },
    /// Show the invites of this node.
    Invites {
        /// Of which swarm.
        swarm: String,
    },
    /// Honour an invite no longer.
    Revoke {
        /// Of which swarm.
        swarm: String,
        /// The invite's id, or the beginning of it.
        invite: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "snake_case")]
pub enum SwarmAnswer {
    /// It was founded.
    Created(SwarmView),
    /// A ticket.
    Invited {
        /// To be given to whoever may join.
        ticket: String,
    },
    /// This node is a member already, or asks until it is.
    Joining(SwarmView),
    /// Whether this node is in the public pool now.
    Public {
        /// It is.
        joined: bool,
    },
    /// It is forgotten.
    Left(SwarmView),
    /// All swarms.
    List {
        /// By id.
        swarms: Vec<SwarmView>,
    },
    /// Who is in it, as far as this node knows.
    Members {
        /// The founder first.
        members: Vec<String>,
        /// Who founded it.
        founder: String,
    },
    /// The peer is out.
    Kicked {
        /// Who.
        peer: String,
    },
    /// The peer may invite and admit.
    Delegated {
        /// Who.
        peer: String,
    },
    /// Invites that this node signed.
    Invites {
        /// By id.
        invites: Vec<InviteView>,
    },
    /// The invite is void.
    Revoked {
        /// Which.
        invite: String,
    },
}

/// A swarm, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmView {
    /// Its founder's name for it.
    pub name: String,
    /// Its id.
    pub id: String,
    /// founder, delegate, member, unlisted, pending or kicked.
    pub role: String,
    /// Counts how often somebody was put out.
    pub epoch: u64,
    /// As far as this node knows.
    pub members: usize,
    /// Why this node is not let in by its ticket, or is in no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An invite, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// Its id.
    pub id: String,
    /// Peers that have joined by it.
    pub used: usize,
    /// Peers that may.
    pub uses: u32,
    /// No longer honoured.
    pub revoked: bool,
}

impl InviteView {
    fn of(own: &OwnInvite) -> Self {
        let (id, uses) = (own.invite.id.to_string(), own.invite.uses_max);
        Self { id, used: own.uses.len(), uses, revoked: own.revoked }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum SwarmsError {
    /// Which swarm.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Too many.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The rules forbid it.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A name or a ticket that is none.
    #[error("{0}")]
    Malformed(String),
    /// A founder knows its swarms by their names.
    #[error("this node has founded a swarm `{name}` already; give this one another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A beginning that none or several have.
    #[error("`{what}` stands for {count} {of}; `{shown_by}` shows them")]
    Prefix {
        /// What was given.
        what: String,
        /// How many begin so.
        count: usize,
        /// Of what, in which swarm.
        of: String,
        /// The command that lists them.
        shown_by: String,
    },
    /// No entropy.
    #[error("the system gave no random bytes: {0}")]
    Entropy(String),
    /// Documents do not go to strangers.
    #[error("documents do not go to strangers: their results can not be verified yet; name a swarm of yours")]
    Public,
    /// Nobody has let this node in yet.
    #[error("this node is not admitted to {what} yet; `edge run` goes on trying")]
    Pending {
        /// The swarm.
        what: String,
    },
    /// It was put out.
    #[error("this node was put out of {what}")]
    Kicked {
        /// The swarm.
        what: String,
    },
    /// What a running node said, as a text.
    #[error("{0}")]
    Told(String),
}

impl SwarmsError {
    /// Whether whoever asked should ask for something else; otherwise the machine would not.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Entropy(_) | Self::Membership(MembershipError::ClockUnset))
    }
}

/// What is to be kept.
#[derive(Debug)]
pub enum Change {
    /// A new or changed record.
    Put(Box<SwarmRecord>),
    /// This record goes.
    Remove(Box<SwarmRecord>),
    /// In the public pool, with these bootstrap addresses, or not.
    Public(Option<Vec<String>>),
}

impl SwarmView {
    /// Of this record.
    pub fn of(record: &SwarmRecord) -> Self {
        Self {
            name: record.founding().name.to_string(),
            id: record.id().to_string(),
            role: role(record.role()).to_owned(),
            epoch: record.epoch(),
            members: record.members().len(),
            refused: None,
        }
    }

    /// The same, with why this node is not in.
    pub fn refused_for(self, why: Option<&Refusal>) -> Self {
        Self { refused: why.map(ToString::to_string), ..self }
    }
}

/// The swarm in which documents may be shared; `None` for this machine alone.
///
/// # Errors
/// [`SwarmsError`]: there is no such swarm, or this node is none of its members; `public` is refused.
pub fn place(swarms: &Swarms, what: &str) -> Result<Option<SwarmId>, SwarmsError> {
    match what {
        "local" => return Ok(None),
        "public" => return Err(SwarmsError::Public),
        _ => {}
    }
    let record = swarms.find(what)?;
    match record.role() {
        Role::Pending => Err(SwarmsError::Pending { what: what.to_owned() }),
        Role::Kicked => Err(SwarmsError::Kicked { what: what.to_owned() }),
        _ => Ok(Some(record.id())),
    }
}

/// Decides what a command comes to. Nothing has happened yet: the change is to be kept first, then the answer given.
/// `addresses` are those under which this node can be reached.
///
/// # Errors
/// [`SwarmsError`]; then there is nothing to keep.
pub fn decide(
    swarms: &Swarms,
    key: &SigningKey,
    now_ms: Option<u64>,
    addresses: impl FnOnce() -> Vec<SocketAddr>,
    command: SwarmCommand,
) -> Result<(Option<Change>, SwarmAnswer), SwarmsError> {
    let me = PeerId::from_bytes(key.verifying_key().to_bytes());
    let put = |record: Option<SwarmRecord>| record.map(|record| Change::Put(Box::new(record)));
    Ok(match command {
        SwarmCommand::Create { name } => {
            let record = create(swarms, key, &name)?;
            let view = SwarmView::of(&record);
            (put(Some(record)), SwarmAnswer::Created(view))
        }
        SwarmCommand::Invite { swarm, uses, days } => {
            let record = swarms.find(&swarm)?;
            let ttl_ms = (days > 0).then(|| days.saturating_mul(DAY_MS));
            let terms = InviteTerms { uses_max: uses, ttl_ms };
            let decided = record.invite(key, InviteId::from_bytes(random()?), terms, now_ms)?;
            let admitters = vec![(me, addresses())];
            let ticket = Ticket::new(record.founding().clone(), decided.answer, admitters);
            (put(decided.record), SwarmAnswer::Invited { ticket: ticket.to_string() })
        }
        SwarmCommand::Join { ticket } => {
            let record = join(swarms, me, &ticket)?;
            let known = swarms.get(&record.id()).is_some_and(|known| *known == record);
            let view = SwarmView::of(&record);
            (put((!known).then_some(record)), SwarmAnswer::Joining(view))
        }
        SwarmCommand::JoinPublic { bootstrap } => pool::join(bootstrap)?,
        SwarmCommand::LeavePublic => (Some(Change::Public(None)), SwarmAnswer::Public { joined: false }),
        SwarmCommand::Leave { swarm } => {
            let record = swarms.find(&swarm)?;
            if !matches!(record.role(), Role::Pending | Role::Kicked) {
                record.leave()?;
            }
            (Some(Change::Remove(Box::new(record.clone()))), SwarmAnswer::Left(SwarmView::of(record)))
        }
        SwarmCommand::List => {
            (None, SwarmAnswer::List { swarms: swarms.iter().map(SwarmView::of).collect() })
        }
        SwarmCommand::Members { swarm } => {
            let record = swarms.find(&swarm)?;
            let founder = record.founding().founder;
            let mut members: Vec<PeerId> = record.members().into_iter().collect();
            members.sort_by_key(|peer| (*peer != founder, *peer));
            let members = members.iter().map(ToString::to_string).collect();
            (None, SwarmAnswer::Members { members, founder: founder.to_string() })
        }
        SwarmCommand::Kick { swarm, peer } => {
            let record = swarms.find(&swarm)?;
            let peer = member(record, &peer)?;
            let decided = record.kick(key, peer, SwarmSecret::from_bytes(random()?))?;
            (put(decided.record), SwarmAnswer::Kicked { peer: peer.to_string() })
        }
        SwarmCommand::Delegate { swarm, peer, quota } => {
            let record = swarms.find(&swarm)?;
            let peer = member(record, &peer)?;
            let decided = record.delegate(key, peer, quota)?;
            (put(decided.record), SwarmAnswer::Delegated { peer: peer.to_string() })
        }
        SwarmCommand::Invites { swarm } => {
            let invites = swarms.find(&swarm)?.invites().map(InviteView::of);
            (None, SwarmAnswer::Invites { invites: invites.collect() })
        }
        SwarmCommand::Revoke { swarm, invite } => {
            let record = swarms.find(&swarm)?;
            let name = &record.founding().name;
            let all: Vec<InviteId> = record.invites().map(|own| own.invite.id).collect();
            let of = (format!("invites of {name}"), format!("edge swarm revoke {name}"));
            let id = one(&invite, all, of)?;
            (put(record.revoke(id)?.record), SwarmAnswer::Revoked { invite: id.to_string() })
        }
    })
}

fn create(swarms: &Swarms, key: &SigningKey, name: &str) -> Result<SwarmRecord, SwarmsError> {
    let parsed = name.parse().map_err(|error| SwarmsError::Malformed(format!("{error}")))?;
    let is_own = |record: &SwarmRecord| record.role() == Role::Founder && record.founding().name == parsed;
    if swarms.iter().any(is_own) {
        return Err(SwarmsError::NameTaken { name: name.to_owned() });
    }
    let record = SwarmRecord::found(key, parsed, random()?, SwarmSecret::from_bytes(random()?));
    swarms.clone().put(record.clone())?;
    Ok(record)
}

/// The record as it is where this node is in already; else a pending one.
fn join(swarms: &Swarms, me: PeerId, ticket: &str) -> Result<SwarmRecord, SwarmsError> {
    let ticket: Ticket = ticket.trim().parse().map_err(|error| SwarmsError::Malformed(format!("{error}")))?;
    let known = swarms.get(&ticket.founding().id());
    if let Some(known) = known.filter(|known| !matches!(known.role(), Role::Pending | Role::Kicked)) {
        return Ok(known.clone());
    }
    let record = SwarmRecord::pending(ticket, me)?;
    swarms.clone().put(record.clone())?;
    Ok(record)
}

fn member(record: &SwarmRecord, what: &str) -> Result<PeerId, SwarmsError> {
    let name = &record.founding().name;
    let of = (format!("members of {name}"), format!("edge swarm members {name}"));
    one(what, record.members().into_iter().collect(), of)
}

/// The one whose id begins so.
fn one<T: ToString + Copy>(
    what: &str,
    all: Vec<T>,
    (of, shown_by): (String, String),
) -> Result<T, SwarmsError> {
    let is_meant = |id: &&T| !what.is_empty() && id.to_string().starts_with(what);
    let found: Vec<&T> = all.iter().filter(is_meant).collect();
    match found[..] {
        [id] => Ok(*id),
        _ => Err(SwarmsError::Prefix { what: what.to_owned(), count: found.len(), of, shown_by }),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Founder => "founder",
        Role::Delegate => "delegate",
        Role::Member => "member",
        Role::Pending => "pending",
        Role::Unlisted => "unlisted",
        Role::Kicked => "kicked",
    }
}

fn random<const N: usize>() -> Result<[u8; N], SwarmsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| SwarmsError::Entropy(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(swarms: &mut Swarms, key: &SigningKey, command: SwarmCommand) -> Result<SwarmAnswer, SwarmsError> {
        let now = Some(1_793_491_200_000);
        let (change, answer) = decide(swarms, key, now, || vec![([127, 0, 0, 1], 4000).into()], command)?;
        match change {
            Some(Change::Put(record)) => swarms.put(*record).unwrap(),
            Some(Change::Remove(record)) => assert!(swarms.remove(&record.id()).is_some()),
            Some(Change::Public(_)) | None => {}
        }
        Ok(answer)
    }

    #[test]
    fn a_swarm_from_its_founding_to_its_end() {
        let (founder, joiner) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let (mut here, mut there) = (Swarms::default(), Swarms::default());
        let create = || SwarmCommand::Create { name: "home".into() };
        assert!(matches!(did(&mut here, &founder, create()), Ok(SwarmAnswer::Created(_))));
        assert!(matches!(did(&mut here, &founder, create()), Err(SwarmsError::NameTaken { .. })));
        let invite = SwarmCommand::Invite { swarm: "home".into(), uses: 2, days: 1 };
        let Ok(SwarmAnswer::Invited { ticket }) = did(&mut here, &founder, invite) else { panic!() };
        let join = || SwarmCommand::Join { ticket: format!(" {ticket}\n") };
        let Ok(SwarmAnswer::Joining(view)) = did(&mut there, &joiner, join()) else { panic!() };
        assert_eq!((view.name.as_str(), view.role.as_str()), ("home", "pending"));
        assert!(
            matches!(did(&mut there, &joiner, join()), Ok(SwarmAnswer::Joining(_))),
            "joining again is free"
        );
        assert!(
            matches!(did(&mut here, &founder, join()), Ok(SwarmAnswer::Joining(v)) if v.role == "founder")
        );
        let wrong = SwarmCommand::Join { ticket: ticket[..40].to_owned() };
        assert!(matches!(did(&mut there, &joiner, wrong), Err(SwarmsError::Malformed(_))));
        let Ok(SwarmAnswer::Invites { invites }) =
            did(&mut here, &founder, SwarmCommand::Invites { swarm: view.id.clone() })
        else {
            panic!()
        };
        let revoke = |invite: &str| SwarmCommand::Revoke { swarm: "home".into(), invite: invite.into() };
        assert!(did(&mut here, &founder, revoke(&invites[0].id[..8])).is_ok());
        let none = did(&mut here, &founder, revoke("")).unwrap_err().to_string();
        assert_eq!(none, "`` stands for 0 invites of home; `edge swarm revoke home` shows them");
        let leave = |swarm: &str| SwarmCommand::Leave { swarm: swarm.into() };
        assert!(matches!(did(&mut there, &joiner, leave("home")), Ok(SwarmAnswer::Left(_))));
        assert!(matches!(did(&mut there, &joiner, leave("home")), Err(SwarmsError::Find(_))));
        assert!(matches!(did(&mut here, &founder, leave("home")), Err(SwarmsError::Membership(_))));
    }

    #[test]
    fn the_json_of_the_socket() {
        let command = SwarmCommand::Invite { swarm: "home".into(), uses: 1, days: 7 };
        let json = r#"{"do":"invite","swarm":"home","uses":1,"days":7}"#;
        assert_eq!(serde_json::to_string(&command).unwrap(), json);
        assert_eq!(serde_json::from_str::<SwarmCommand>(json).unwrap(), command);
        assert!(serde_json::from_str::<SwarmCommand>(r#"{"do":"invite","swarm":"home"}"#).is_err());
    }
}
