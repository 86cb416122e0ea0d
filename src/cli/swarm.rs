//! `edge swarm`: swarms are founded, joined, left; members are invited and put out.

use std::{
    io::{IsTerminal, Read, Write, stdin, stdout},
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
    node::{Duty, OwnNode, Seat, Threads},
    table::Table,
    talk,
};
use crate::{
    api::{Client, view::PeerView},
    inference::Stop,
    node::{SwarmAnswer, SwarmCommand, SwarmView, find_model},
    wire::TICKET_CHARS_MAX,
};

/// The one swarm that needs no ticket.
const PUBLIC: &str = "public";
/// How long `join` waits for somebody who admits.
const JOIN_WAIT: Duration = Duration::from_secs(10);
/// How long `leave` looks for the founder, who should know.
const LEAVE_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether it has come to that.
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
    /// Join the swarm of a ticket, or the public pool
    #[command(
        after_help = "Examples:\n  edge swarm join -                          the ticket comes by stdin, where `ps` does not show it\n  edge swarm join public                     lend this machine to strangers"
    )]
    Join {
        /// As `edge swarm invite` printed it; `-` for stdin; or `public`, to lend this machine to strangers
        ticket: String,
        /// A node of the public pool to go to first; may be given several times
        #[arg(long, value_name = "ID@HOST:PORT")]
        bootstrap: Vec<String>,
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
    /// Let a member invite and admit others
    Delegate {
        /// Which swarm
        name: String,
        /// The peer's id, or its beginning as `members` shows it
        peer: String,
        /// How many it may admit
        #[arg(long, default_value_t = 16, value_name = "N")]
        quota: u32,
    },
    /// Show the invites of this node, or revoke one
    Revoke {
        /// Which swarm
        name: String,
        /// The invite's id, or its beginning; without one the invites are shown
        invite: Option<String>,
    },
}

/// Runs `edge swarm …`. A swarm is named by its name, or by the beginning of its id.
pub(super) fn run(mut command: Command, context: &Context) -> anyhow::Result<Exit> {
    if let Command::Join { ticket, .. } = &mut command
        && ticket == "-"
    {
        *ticket = ticket_from_stdin()?;
    }
    let stop = stop_on_signals()?;
    let mut seat = Seat::take(context, "swarm", &stop)?;
    let (swarm, uses, days) = match command {
        Command::Join { ref ticket, ref bootstrap } if ticket != PUBLIC => {
            if !bootstrap.is_empty() {
                bail!(UsageError("--bootstrap is for `public`; a ticket has its own addresses".into()));
            }
            return join(seat, ticket.clone(), context, &stop);
        }
        Command::Leave { name } if name != PUBLIC => return leave(seat, name, context, &stop),
        Command::Invite { ref name, uses, days } => (name.clone(), uses, days),
        Command::Members { ref name } | Command::Kick { ref name, .. } => (name.clone(), 0, 0),
        _ => (String::new(), 0, 0),
    };
    let asked = match command {
        Command::Create { name } => SwarmCommand::Create { name },
        Command::Invite { name, .. } => SwarmCommand::Invite { swarm: name, uses, days },
        Command::Join { bootstrap, .. } => SwarmCommand::JoinPublic { bootstrap },
        Command::Leave { .. } => SwarmCommand::LeavePublic,
        Command::List => SwarmCommand::List,
        Command::Members { name } => SwarmCommand::Members { swarm: name },
        Command::Kick { name, peer } => SwarmCommand::Kick { swarm: name, peer },
        Command::Delegate { name, peer, quota } => SwarmCommand::Delegate { swarm: name, peer, quota },
        Command::Revoke { name, invite: Some(invite) } => SwarmCommand::Revoke { swarm: name, invite },
        Command::Revoke { name, invite: None } => SwarmCommand::Invites { swarm: name },
    };
    match seat.swarm(context, asked)? {
        SwarmAnswer::Created(view) => created(&view, context)?,
        SwarmAnswer::Invited { ticket } => {
            writeln!(stdout(), "{ticket}")?;
            let within =
                if days > 0 { format!(" within {}", human::count(days, "day")) } else { String::new() };
            let peers = human::count(u64::from(uses), "peer");
            talk::say(&format!("`edge swarm join` with this lets {peers} in{within}, while this node runs"));
        }
        SwarmAnswer::List { swarms } => list(&swarms, context)?,
        SwarmAnswer::Public { joined: true } => {
            talk::say("in the public pool: `edge run` lends this machine to strangers too");
        }
        SwarmAnswer::Public { joined: false } => talk::say("left the public pool"),
        SwarmAnswer::Members { members, founder } => show_members(&members, &founder, context)?,
        SwarmAnswer::Kicked { peer } => talk::say(&format!(
            "{} is out of {swarm}; members hear of it when they meet this node or each other",
            short(&peer)
        )),
        SwarmAnswer::Delegated { peer } => talk::say(&format!(
            "{} may invite and admit others; it hears of it when it meets this node",
            short(&peer)
        )),
        SwarmAnswer::Invites { invites } => {
            for invite in invites {
                if context.json {
                    writeln!(stdout(), "{}", serde_json::to_string(&invite)?)?;
                } else {
                    let state = if invite.revoked { "  revoked" } else { "" };
                    writeln!(stdout(), "{}  used {} of {}{state}", invite.id, invite.used, invite.uses)?;
                }
            }
        }
        SwarmAnswer::Revoked { invite } => {
            talk::say(&format!("nobody joins by {} any more", short(&invite)));
        }
        other => bail!("the running node answers something else: {other:?}"),
    }
    Ok(Exit::Done)
}

fn created(view: &SwarmView, context: &Context) -> anyhow::Result<()> {
    if context.json {
        writeln!(stdout(), "{}", json!({ "name": view.name, "id": view.id }))?;
    } else {
        let (name, id) = (&view.name, short(&view.id));
        talk::say(&format!("founded {name} ({id}); `edge swarm invite {name}` lets others in"));
    }
    Ok(())
}

/// What was handed over, of which no more is read than a ticket can have. The ticket itself minds no line ends.
fn ticket_from_stdin() -> anyhow::Result<String> {
    if stdin().is_terminal() {
        talk::say("the ticket, then Ctrl-D:");
    }
    let mut ticket = String::new();
    let read = stdin().take(2 * TICKET_CHARS_MAX as u64 + 1).read_to_string(&mut ticket);
    read.map_err(|error| UsageError(format!("there is no ticket on stdin: {error}")))?;
    match ticket.trim() {
        "" => bail!(UsageError("there is no ticket on stdin".into())),
        ticket => Ok(ticket.to_owned()),
    }
}

/// Asks to be let in, and waits a while for the answer.
fn join(mut seat: Seat, ticket: String, context: &Context, stop: &Stop) -> anyhow::Result<Exit> {
    let SwarmAnswer::Joining(view) = seat.swarm(context, SwarmCommand::Join { ticket })? else {
        bail!("the running node answers something else");
    };
    let name = &view.name;
    if view.role != "pending" {
        talk::say(&format!("this node is a member of {name} already"));
        if matches!(seat, Seat::Alone(_)) && view.role != "founder" {
            talk::say("if it was put out since, repeat this beside `edge run`, which will know");
        }
        return Ok(Exit::Done);
    }
    let (mut role, mut refused) = (view.role.clone(), None);
    with_node(seat, context, stop, |client| {
        let begun = Instant::now();
        while role == "pending" && begun.elapsed() < JOIN_WAIT && !stop.is_asked() {
            thread::park_timeout(LOOK);
            let SwarmAnswer::List { swarms } = client.post("/v1/swarms", &SwarmCommand::List)? else {
                bail!("the running node answers something else");
            };
            if let Some(now) = swarms.into_iter().find(|other| other.id == view.id) {
                (role, refused) = (now.role, now.refused);
            }
            if refused.is_some() {
                // This ticket lets nobody in any more.
                let _: SwarmAnswer =
                    client.post("/v1/swarms", &SwarmCommand::Leave { swarm: view.id.clone() })?;
                break;
            }
        }
        Ok(())
    })?;
    if let Some(why) = refused {
        bail!(UsageError(format!("not admitted to {name}: {why}")));
    }
    if role != "pending" {
        let id = short(&view.id);
        talk::say(&format!("joined {name} ({id}); `edge run` lends it this machine"));
        return Ok(Exit::Done);
    }
    if stop.is_asked() {
        talk::say(&format!("{name}: pending; `edge run` goes on trying"));
        return Ok(Exit::Interrupted);
    }
    talk::say(&format!("{name}: pending; nobody who admits was reached, `edge run` goes on trying"));
    Ok(Exit::Done)
}

/// Goes, and tells the founder where that one is found in time.
fn leave(mut seat: Seat, swarm: String, context: &Context, stop: &Stop) -> anyhow::Result<Exit> {
    let members = seat.swarm(context, SwarmCommand::Members { swarm: swarm.clone() });
    let founder = match members {
        Ok(SwarmAnswer::Members { founder, .. }) => founder,
        Ok(other) => bail!("the running node answers something else: {other:?}"),
        Err(error) => return Err(error),
    };
    let SwarmAnswer::List { swarms } = seat.swarm(context, SwarmCommand::List)? else {
        bail!("the running node answers something else");
    };
    let named = swarms.iter().find(|view| view.name == swarm);
    let meant = named.or_else(|| swarms.iter().find(|view| view.id.starts_with(&swarm)));
    let role = meant.map_or("", |view| view.role.as_str());
    let command = SwarmCommand::Leave { swarm };
    let answer = if matches!(role, "member" | "delegate") {
        let mut answer = None;
        with_node(seat, context, stop, |client| {
            look_for(client, &founder, stop)?;
            if !stop.is_asked() {
                answer = Some(client.post("/v1/swarms", &command)?);
            }
            Ok(())
        })?;
        answer
    } else {
        Some(seat.swarm(context, command)?)
    };
    let Some(SwarmAnswer::Left(view)) = answer else { return Ok(Exit::Interrupted) };
    talk::say(&format!("left {}", view.name));
    Ok(Exit::Done)
}

/// Waits a while for this peer to be connected.
fn look_for(client: &mut Client, peer: &str, stop: &Stop) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LEAVE_WAIT && !stop.is_asked() {
        let peers: Vec<PeerView> = client.get("/v1/peers")?;
        if peers.iter().any(|other| other.peer_id == peer) {
            break;
        }
        thread::park_timeout(LOOK);
    }
    Ok(())
}

/// With the running node, or with one in this process for as long as this takes.
fn with_node(
    seat: Seat,
    context: &Context,
    stop: &Stop,
    body: impl FnOnce(&mut Client) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match seat {
        Seat::Running(mut client) => body(&mut client),
        Seat::Alone(alone) => {
            let folder = find_model(context.config.model(), &context.config.data_dir())?;
            let node =
                OwnNode::start(Duty::default(), context, alone, folder, Threads { lent: 0, own: 0 }, || ())?;
            let done = node.client(context).and_then(|mut client| body(&mut client));
            node.finish(stop)?;
            done
        }
    }
}

fn list(swarms: &[SwarmView], context: &Context) -> anyhow::Result<()> {
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(swarms)?)?;
    } else if swarms.is_empty() {
        talk::say("this node is in no swarm; `edge swarm create NAME` founds one");
    } else {
        write!(stdout(), "{}", table(swarms))?;
        for (view, why) in swarms.iter().filter_map(|view| Some((view, view.refused.as_ref()?))) {
            talk::say(&format!("{}: {why}", view.name));
        }
    }
    Ok(())
}

/// A table of swarms.
pub(super) fn table(swarms: &[SwarmView]) -> Table<4> {
    let mut table = Table::new(&["swarm", "id", "role", "members"]);
    for view in swarms {
        let members = human::number(view.members as u64);
        let role = if view.refused.is_some() { "refused" } else { &view.role };
        table.row([view.name.clone(), short(&view.id).to_owned(), role.to_owned(), members]);
    }
    table
}

fn show_members(members: &[String], founder: &str, context: &Context) -> anyhow::Result<()> {
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(members)?)?;
        return Ok(());
    }
    for member in members {
        let what = if member == founder { "  founder" } else { "" };
        writeln!(stdout(), "{member}{what}")?;
    }
    Ok(())
}

/// What people read of an id.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
