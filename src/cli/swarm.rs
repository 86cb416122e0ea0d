//! `edge swarm`: swarms are founded, joined, left; members are invited and put out.

use std::{
    io::{Write, stdout},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use super::{
    context::{Context, stop_on_signals},
    exit::{Exit, UsageError},
    human,
    table::Table,
    talk,
};
use crate::{
    inference::ModelFolder,
    node::{
        BootstrapAddress, Node, NodeOptions, SwarmRun, find_model, free_port, own_addresses, wall_clock_ms,
    },
    proto::membership::{InviteTerms, Role, SwarmRecord, Swarms},
    store::{Identity, Store},
    wire::{InviteId, PeerId, SwarmId, SwarmName, SwarmSecret, Ticket},
};

/// How long `join` waits for somebody who admits.
const JOIN_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// `edge swarm …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Found a swarm; its id is bound to this node's key
    Create {
        /// 1 to 32 of a-z, 0-9 and -
        name: String,
    },
    /// Print a ticket that lets others join
    #[command(
        after_help = "Examples:\n  edge swarm invite home                     one peer, within a week\n  edge swarm invite home --uses 10 --days 1  ten, within a day"
    )]
    Invite {
        /// Which swarm
        name: String,
        /// How many peers may join by it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
        /// For how many days; 0: until it is used up or revoked
        #[arg(long, default_value_t = 7, value_name = "N")]
        days: u64,
    },
    /// Join the swarm of a ticket
    Join {
        /// As `edge swarm invite` printed it
        ticket: String,
    },
    /// Leave a swarm
    Leave {
        /// Which
        name: String,
    },
    /// Show the swarms of this node
    List,
    /// Show the members of a swarm, as far as this node knows them
    Members {
        /// Which swarm
        name: String,
    },
    /// Put a peer out: a new epoch begins, with a new secret
    Kick {
        /// Which swarm
        name: String,
        /// The peer's id, or its beginning as `members` shows it
        peer: String,
    },
    /// Show the invites of this node, or revoke one
    Revoke {
        /// Which swarm
        name: String,
        /// The invite's id, or its beginning; without one the invites are shown
        invite: Option<String>,
    },
}

/// Runs `edge swarm …`.
pub(super) fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let lock = context.lock("swarm")?;
    let mut store = context.store(&lock)?;
    let identity = context.identity()?;
    match command {
        Command::Create { name } => create(&name, &mut store, &identity, context),
        Command::Invite { name, uses, days } => invite(&name, uses, days, &mut store, &identity, context),
        Command::Join { ticket } => join(&ticket, store, &identity, context),
        Command::Leave { name } => leave(&name, &mut store),
        Command::List => list(&store, context),
        Command::Members { name } => members(&name, &store, context),
        Command::Kick { name, peer } => kick(&name, &peer, &mut store, &identity),
        Command::Revoke { name, invite } => revoke(&name, invite.as_deref(), &mut store, context),
    }
}

fn create(name: &str, store: &mut Store, identity: &Identity, context: &Context) -> anyhow::Result<Exit> {
    let name = swarm_name(name)?;
    let secret = SwarmSecret::from_bytes(random()?);
    let record = SwarmRecord::found(identity.signing_key(), name.clone(), random()?, secret);
    book(store)?.put(record.clone())?;
    store.put_swarm(&record)?;
    if context.json {
        writeln!(stdout(), "{}", json!({ "name": name.as_str(), "id": record.id().to_string() }))?;
    } else {
        talk::say(&format!(
            "founded {name} ({}); `edge swarm invite {name}` lets others in",
            record.id().short()
        ));
    }
    Ok(Exit::Done)
}

fn invite(
    name: &str,
    uses_max: u32,
    days: u64,
    store: &mut Store,
    identity: &Identity,
    context: &Context,
) -> anyhow::Result<Exit> {
    let record = named(store, name)?;
    let ttl_ms = (days > 0).then(|| days.saturating_mul(86_400_000));
    let terms = InviteTerms { uses_max, ttl_ms };
    let id = InviteId::from_bytes(random()?);
    let decided = record.invite(identity.signing_key(), id, terms, wall_clock_ms())?;
    if let Some(record) = &decided.record {
        store.put_swarm(record)?;
    }
    let addresses = own_addresses(port(context, store)?);
    let admitters = vec![(identity.peer_id(), addresses)];
    let ticket = Ticket::new(record.founding().clone(), decided.answer, admitters);
    writeln!(stdout(), "{ticket}")?;
    talk::say(&format!(
        "`edge swarm join` with this lets {} in{}, while this node runs",
        human::count(u64::from(uses_max), "peer"),
        if days > 0 { format!(" within {}", human::count(days, "day")) } else { String::new() },
    ));
    Ok(Exit::Done)
}

fn join(ticket: &str, mut store: Store, identity: &Identity, context: &Context) -> anyhow::Result<Exit> {
    let ticket: Ticket = ticket.trim().parse().map_err(|error| UsageError(format!("{error}")))?;
    let name = ticket.founding().name.clone();
    let id = ticket.founding().id();
    let mut book = book(&store)?;
    let known = book.get(&id).map(SwarmRecord::role);
    if known.is_some_and(|role| !matches!(role, Role::Pending | Role::Kicked)) {
        talk::say(&format!("this node is a member of {name} already"));
        return Ok(Exit::Done);
    }
    let record = SwarmRecord::pending(ticket, identity.peer_id())?;
    book.put(record.clone())?;
    store.put_swarm(&record)?;
    let folder = find_model(context.config.model(), &context.config.data_dir())?;
    let stop = stop_on_signals()?;
    let options = options(context, &mut store, 0, 0)?;
    let node = Node::start(store, identity, folder, options)?;
    let begun = Instant::now();
    let mut role = Role::Pending;
    while role == Role::Pending && begun.elapsed() < JOIN_WAIT && !stop.is_asked() {
        thread::park_timeout(LOOK);
        let swarms = node.status()?.swarms;
        role = swarms.iter().find(|record| record.id() == id).map_or(Role::Pending, SwarmRecord::role);
    }
    node.stop()?;
    if role == Role::Pending && stop.is_asked() {
        talk::say(&format!("{name}: pending; `edge run` goes on trying"));
        return Ok(Exit::Interrupted);
    }
    if role == Role::Pending {
        talk::say(&format!("{name}: pending; nobody who admits was reached, `edge run` goes on trying"));
    } else {
        talk::say(&format!("joined {name} ({}); `edge run` lends it this machine", id.short()));
    }
    Ok(Exit::Done)
}

fn leave(name: &str, store: &mut Store) -> anyhow::Result<Exit> {
    let record = named(store, name)?;
    if !matches!(record.role(), Role::Pending | Role::Kicked) {
        record.leave()?;
    }
    store.remove_swarm(&record.id())?;
    talk::say(&format!("left {name}"));
    Ok(Exit::Done)
}

fn list(store: &Store, context: &Context) -> anyhow::Result<Exit> {
    let swarms = book(store)?;
    if context.json {
        let all: Vec<_> = swarms
            .iter()
            .map(|record| {
                json!({
                    "name": record.founding().name.as_str(), "id": record.id().to_string(),
                    "role": role(record.role()), "epoch": record.epoch(), "members": record.members().len(),
                })
            })
            .collect();
        writeln!(stdout(), "{}", serde_json::to_string(&all)?)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["swarm", "id", "role", "members"]);
    let mut is_empty = true;
    for record in swarms.iter() {
        is_empty = false;
        table.row([
            record.founding().name.to_string(),
            record.id().short(),
            role(record.role()).into(),
            human::number(record.members().len() as u64),
        ]);
    }
    if is_empty {
        talk::say("this node is in no swarm; `edge swarm create NAME` founds one");
    } else {
        write!(stdout(), "{table}")?;
    }
    Ok(Exit::Done)
}

fn members(name: &str, store: &Store, context: &Context) -> anyhow::Result<Exit> {
    let record = named(store, name)?;
    let members: Vec<PeerId> = record.members().into_iter().collect();
    if context.json {
        let all: Vec<String> = members.iter().map(ToString::to_string).collect();
        writeln!(stdout(), "{}", serde_json::to_string(&all)?)?;
        return Ok(Exit::Done);
    }
    for member in members {
        let what = if member == record.founding().founder { "  founder" } else { "" };
        writeln!(stdout(), "{member}{what}")?;
    }
    Ok(Exit::Done)
}

fn kick(name: &str, peer: &str, store: &mut Store, identity: &Identity) -> anyhow::Result<Exit> {
    let record = named(store, name)?;
    let found: Vec<PeerId> =
        record.members().into_iter().filter(|member| member.to_string().starts_with(peer)).collect();
    let [peer] = found[..] else {
        bail!(UsageError(match found.len() {
            0 => format!("{name} has no member {peer}; `edge swarm members {name}` shows them"),
            n => format!("{peer} stands for {n} members of {name}; give more of its id"),
        }));
    };
    let decided = record.kick(identity.signing_key(), peer, SwarmSecret::from_bytes(random()?))?;
    if let Some(record) = &decided.record {
        store.put_swarm(record)?;
    }
    talk::say(&format!(
        "{} is out of {name}; members hear of it when they meet this node or each other",
        peer.short()
    ));
    Ok(Exit::Done)
}

fn revoke(name: &str, invite: Option<&str>, store: &mut Store, context: &Context) -> anyhow::Result<Exit> {
    let record = named(store, name)?;
    let Some(invite) = invite else {
        for own in record.invites() {
            let (id, used, most) = (own.invite.id, own.uses.len(), own.invite.uses_max);
            if context.json {
                let line =
                    json!({ "id": id.to_string(), "used": used, "uses": most, "revoked": own.revoked });
                writeln!(stdout(), "{line}")?;
            } else {
                let state = if own.revoked { "  revoked" } else { "" };
                writeln!(stdout(), "{id}  used {used} of {most}{state}")?;
            }
        }
        return Ok(Exit::Done);
    };
    let found: Vec<InviteId> =
        record.invites().map(|own| own.invite.id).filter(|id| id.to_string().starts_with(invite)).collect();
    let [id] = found[..] else {
        bail!(UsageError(format!(
            "{invite} stands for {} invites of {name}; `edge swarm revoke {name}` shows them",
            found.len()
        )));
    };
    if let Some(record) = record.revoke(id)?.record {
        store.put_swarm(&record)?;
    }
    talk::say(&format!("nobody joins {name} by {} any more", id.short()));
    Ok(Exit::Done)
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

fn swarm_name(name: &str) -> Result<SwarmName, UsageError> {
    name.parse().map_err(|error| UsageError(format!("{error}")))
}

fn book(store: &Store) -> anyhow::Result<Swarms> {
    let (records, damaged) = store.swarms()?;
    if damaged > 0 {
        talk::say(&format!("the records of {} are damaged", human::count(damaged as u64, "swarm")));
    }
    let mut swarms = Swarms::default();
    for record in records {
        swarms.put(record)?;
    }
    Ok(swarms)
}

fn named(store: &Store, name: &str) -> anyhow::Result<SwarmRecord> {
    let found = book(store)?.named(&swarm_name(name)?).cloned();
    Ok(found.ok_or_else(|| {
        UsageError(format!("this node is in no swarm `{name}`; `edge swarm list` shows them"))
    })?)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("the system gave no random bytes: {error}"))?;
    Ok(bytes)
}

/// The swarm in which documents may be shared; `None` for this machine alone.
pub(super) fn place(store: &Store, name: &str) -> anyhow::Result<Option<SwarmId>> {
    match name {
        "local" => Ok(None),
        "public" => bail!(UsageError(
            "documents do not go to strangers: their results can not be verified yet; name a swarm of yours"
                .into()
        )),
        name => {
            let record = named(store, name)?;
            match record.role() {
                Role::Pending => bail!(UsageError(format!(
                    "this node is not admitted to {name} yet; `edge run` goes on trying"
                ))),
                Role::Kicked => bail!(UsageError(format!("this node was put out of {name}"))),
                _ => Ok(Some(record.id())),
            }
        }
    }
}

/// How a node of this command takes part.
pub(super) fn options(
    context: &Context,
    store: &mut Store,
    lent_threads: usize,
    own_threads: usize,
) -> anyhow::Result<NodeOptions> {
    let mut bootstrap = Vec::new();
    for text in context.config.bootstrap() {
        let address: BootstrapAddress =
            text.parse().map_err(|error| UsageError(format!("{text}: {error}")))?;
        bootstrap.push(address);
    }
    let (port, mdns) = (port(context, store)?, context.config.mdns());
    Ok(NodeOptions { port, lent_threads, own_threads, mdns, bootstrap })
}

/// The port that was set; else the one that this node has had from the beginning, so that tickets and peers that
/// remember it find it again.
fn port(context: &Context, store: &mut Store) -> anyhow::Result<u16> {
    if let Some(port) = context.config.port() {
        return Ok(port);
    }
    let before = store.port()?;
    let port = free_port(before.unwrap_or(0))?;
    // Where the usual one is taken for once, tickets and peers still know it.
    if before.is_none() {
        store.put_port(port)?;
    }
    Ok(port)
}

/// A run over the members of a swarm, by a node in this process.
pub(super) fn run_over(
    swarm: SwarmId,
    mut store: Store,
    identity: &Identity,
    folder: ModelFolder,
    context: &Context,
) -> anyhow::Result<SwarmRun> {
    let options = options(context, &mut store, 0, context.threads())?;
    let node = Node::start(store, identity, folder.clone(), options)?;
    Ok(SwarmRun::new(node, folder, swarm, identity.peer_id())?)
}
