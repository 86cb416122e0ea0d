//! `edge status` and `edge peers`: what the node does, and with whom.

mod machine;

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write, stdout},
    thread,
    time::{Duration, Instant},
};

use super::{
    context::{Context, stop_on_signals},
    exit::Exit,
    human, node,
    node::{Seat, book},
    swarm,
    table::Table,
    talk,
};
use crate::{
    api::{
        ClientError,
        view::{PeerView, Status, SwarmView},
    },
    node::find_model,
    store::{Identity, Store},
};

/// Between two pictures of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `edge status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edge status             what this node does now\n  edge status --watch     the same, every second, until Ctrl-C\n  edge status --json      for programs; with --watch a line a second\n\nExit code 5: no node runs here."
)]
pub(super) struct Arguments {
    /// Show it anew every second
    #[arg(short, long)]
    watch: bool,
}

/// Runs `edge status`.
pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    let seat = match node::to_look_at(context)? {
        Some(client) => Seat::Running(client),
        None => Seat::take(context, "status", &stop)?,
    };
    let mut client = match seat {
        Seat::Running(client) => client,
        Seat::Alone(alone) => {
            let status = at_rest(&alone.store, context)?;
            print(&status, None, false, context)?;
            talk::say("no node runs here; `edge run` starts one");
            return Ok(Exit::NotRunning);
        }
    };
    let mut before: Option<(Instant, Status)> = None;
    loop {
        let status: Status = match client.get("/v1/status") {
            Err(ClientError::Gone(_)) if before.is_some() => {
                talk::say("the node has ended");
                return Ok(Exit::NotRunning);
            }
            other => other?,
        };
        let is_screen = arguments.watch && stdout().is_terminal();
        if is_screen && before.is_none() && !context.json {
            write!(stdout(), "\x1b[2J")?;
        }
        let now = Instant::now();
        let used = before.as_ref().map(|(then, old)| {
            let seconds = now.duration_since(*then).as_secs_f64();
            (status.load.cpu_seconds - old.load.cpu_seconds) / seconds.max(1e-3)
        });
        print(&status, used, is_screen, context)?;
        if !arguments.watch {
            return Ok(Exit::Done);
        }
        stdout().flush()?;
        before = Some((now, status));
        while now.elapsed() < WATCH_EVERY {
            thread::park_timeout(Duration::from_millis(100));
            if stop.is_asked() {
                return Ok(Exit::Done);
            }
        }
    }
}

/// What is known where no node runs: no network, no model in memory.
fn at_rest(store: &Store, context: &Context) -> anyhow::Result<Status> {
    let models = find_model(context.config.model(), &context.config.data_dir())
        .map(|folder| crate::api::view::ModelView {
            name: folder.manifest().name.clone(),
            hash: folder.hash().to_string(),
            loaded: false,
        })
        .into_iter()
        .collect();
    let letters = store.dead_letters()?.len();
    let book = book(store)?;
    let swarms = book.iter().map(SwarmView::of);
    let pool = store.public()?.map(|_| SwarmView::of_pool());
    let mut status = Status {
        peer_id: Identity::load(&context.config.identity_dir())
            .map_or_else(|_| String::new(), |identity| identity.peer_id().to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        port: store.port()?.unwrap_or(0),
        state: "not running".to_owned(),
        swarms: swarms.chain(pool).collect(),
        models,
        ..Status::default()
    };
    status.aggregator.dead = letters;
    for (_, item) in store.queue()? {
        match item.state {
            crate::proto::ItemState::Computed => status.queue.outbox += 1,
            _ => status.queue.queued += 1,
        }
    }
    Ok(status)
}

/// In one write; on a screen over what stood there, so that nothing flickers.
fn print(status: &Status, used: Option<f64>, is_screen: bool, context: &Context) -> anyhow::Result<()> {
    let text = match context.json {
        true => format!("{}\n", serde_json::to_string(status)?),
        false => picture(status, used)?,
    };
    let text = match is_screen && !context.json {
        true => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
        false => text,
    };
    Ok(stdout().write_all(text.as_bytes())?)
}

/// The state and why. What the owner ordered begins with the state itself.
pub(super) fn state(status: &Status, why: Option<&str>) -> String {
    match why {
        None => status.state.clone(),
        Some(why) if why.starts_with(&format!("{} ", status.state)) => why.to_owned(),
        Some(why) => format!("{}: {why}", status.state),
    }
}

/// `used`: CPUs in use since the picture before.
fn picture(status: &Status, used: Option<f64>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let number = |n: usize| human::number(n as u64);
    let mut line = |name: &str, what: String| writeln!(out, "{name:<11} {what}");
    let uptime = human::duration(Duration::from_secs(status.uptime_s));
    let since = if status.uptime_s > 0 { format!(", up {uptime}") } else { String::new() };
    let id = if status.peer_id.is_empty() { "no identity yet" } else { swarm::short(&status.peer_id) };
    line("node", format!("{id}, edge {}{since}", status.version))?;
    let mut reasons = status.budget.reasons.iter().map(|reason| reason.text.as_str());
    line("state", state(status, reasons.next()))?;
    for why in reasons {
        line("", format!("and {why}"))?;
    }
    if status.process > 0 {
        for (name, text) in machine::lines(status) {
            line(name, text)?;
        }
        let used = used.map(|used| format!(", {used:.2} CPUs now")).unwrap_or_default();
        let cpu = human::duration(Duration::from_secs_f64(status.load.cpu_seconds));
        line("load", format!("{} memory, {cpu} of CPU{used}", human::bytes(status.load.memory_bytes)))?;
        let (jobs, tokens) =
            (human::count(status.totals.jobs, "job"), human::count(status.totals.tokens, "token"));
        line("for others", format!("{jobs}, {tokens} since the start"))?;
    }
    let queue = &status.queue;
    line(
        "queue",
        format!(
            "{} queued, {} running, {} to deliver, {} failed",
            number(queue.queued),
            number(queue.running),
            number(queue.outbox),
            human::number(queue.dead)
        ),
    )?;
    let own = &status.aggregator;
    line(
        "asked for",
        format!(
            "{} ready, {} leased, {} done, {} dead",
            number(own.ready),
            number(own.leased),
            human::number(own.done),
            number(own.dead)
        ),
    )?;
    if let Some(why) = &own.waits_because {
        line("", format!("own threads wait: {why}"))?;
    }
    if !status.swarms.is_empty() {
        write!(out, "\n{}", swarm::table(&status.swarms))?;
    }
    if !status.peers.is_empty() {
        write!(out, "\n{}", table(&status.peers))?;
    }
    Ok(out)
}

/// Runs `edge peers`.
pub(super) fn peers(context: &Context) -> anyhow::Result<Exit> {
    let Some(mut client) = node::running(context)? else {
        return Ok(node::not_running("it is connected to nobody"));
    };
    let peers: Vec<PeerView> = client.get("/v1/peers")?;
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(&peers)?)?;
    } else if peers.is_empty() {
        talk::say("no member of our swarms is connected");
    } else {
        write!(stdout(), "{}", table(&peers))?;
    }
    Ok(Exit::Done)
}

fn table(peers: &[PeerView]) -> Table<5> {
    let mut table = Table::new(&["peer", "address", "swarms", "connected", "round trip"]);
    for peer in peers {
        table.row([
            swarm::short(&peer.peer_id).to_owned(),
            peer.address.clone(),
            human::tail(&peer.swarms.join(" "), 16),
            human::duration(Duration::from_secs(peer.connected_s)),
            format!("{:.1} ms", peer.rtt_ms),
        ]);
    }
    table
}
