//! `edge run`: lends this machine to the swarms it is in, until it is told to stop.

use std::{
    env, process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    context::{Bell, Context, FlagSetting, stop_on_signals},
    exit::Exit,
    node::{Alone, Duty, OwnNode, Threads},
    talk,
};
use crate::{
    api::Client,
    inference::Stop,
    node::{BOOTSTRAP_PORT, SUPERVISOR_VARIABLES, Supervisor, find_model, session_gives_way},
    store::{DirectoryLock, LockError},
};

const EXAMPLES: &str = "\
Examples:
  edge run                           compute for the members of our swarms, with every core
  edge run --threads 1 --port 4500   with one, on a port that a firewall lets through
  edge run --bootstrap-node          where others of our swarms find each other

Ctrl-C gives back what is not begun, delivers what is done, and ends. A service manager that waits for
the node (NOTIFY_SOCKET, as systemd sets it) hears when it is ready, lives and ends.";

/// What is done when it is told to stop.
const ENDS: &str = "giving back what is not begun, delivering what is done";
/// How long it waits for a command that has the data directory.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `edge run`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Compute threads for others [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// UDP port [default: a free one, remembered]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Neither announce this node on the network nor look for others there
    #[arg(long)]
    no_mdns: bool,
    /// A node to go to first; may be given several times
    #[arg(long, value_name = "ID@HOST:PORT")]
    bootstrap: Vec<String>,
    /// Be a node that others go to first: on UDP port 23343 and without lending, unless --port or --threads say otherwise
    #[arg(long)]
    bootstrap_node: bool,
    /// `public`: lend to the public pool too, for this run
    #[arg(long, value_name = "public", value_parser = ["public"])]
    swarm: Option<String>,
}

impl Arguments {
    /// Settings that flags give.
    pub(super) fn settings(&self) -> Vec<FlagSetting> {
        let mut settings = Vec::new();
        if let Some(threads) = self.threads {
            settings.push(("lend.threads", "--threads", threads.to_string()));
        }
        if let Some(port) = self.port {
            settings.push(("network.port", "--port", port.to_string()));
        } else if self.bootstrap_node {
            settings.push(("network.port", "--bootstrap-node", BOOTSTRAP_PORT.to_string()));
        }
        if self.no_mdns {
            settings.push(("network.mdns", "--no-mdns", "false".into()));
        }
        if !self.bootstrap.is_empty() {
            settings.push(("network.bootstrap", "--bootstrap", self.bootstrap.join(",")));
        }
        settings
    }
}

/// Runs `edge run`.
pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    let supervisor = supervisor();
    let stop = stop_on_signals()?;
    let mut bell = Bell::on_signals()?;
    let folder = find_model(context.config.model(), &context.config.data_dir())?;
    let lock = match lock(context, &stop) {
        Err(_) if stop.is_asked() => return Ok(Exit::Interrupted),
        other => other?,
    };
    let alone = Alone { store: context.store(&lock)?, lock };
    let (swarms, _) = alone.store.swarms()?;
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let lent = match arguments.threads {
        None if arguments.bootstrap_node => 0,
        _ => context.config.lent_threads().unwrap_or_else(cores),
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = {
        let (is_over, rope) = (Arc::clone(&is_over), bell.rope()?);
        move || {
            is_over.store(true, Ordering::SeqCst);
            rope();
        }
    };
    let threads = Threads { lent, own: context.threads() };
    let public = arguments.swarm.is_some() || alone.store.public()?.is_some();
    let duty = Duty { serves: arguments.bootstrap_node, public, supervisor: supervisor.clone() };
    if context.config.gives_way() {
        session_gives_way();
    }
    let node = OwnNode::start(duty, context, alone, folder, threads, ended)?;
    let names = swarms.iter().map(|record| record.founding().name.to_string());
    let names: Vec<String> = names.chain(public.then(|| "public".to_owned())).collect();
    let (id, port) = (context.identity()?.peer_id().short(), node.port());
    let threads = super::human::count(lent as u64, "thread");
    let begins = match names.is_empty() {
        false => {
            format!("node {id} listens on UDP port {port}, lends up to {threads} to {}", names.join(", "))
        }
        true => format!(
            "node {id} listens on UDP port {port}; it is in no swarm yet and lends to nobody: `edge swarm create NAME` founds one, `edge swarm join TICKET` joins one"
        ),
    };
    talk::say(&begins);
    supervisor.iter().for_each(|supervisor| supervisor.ready(&begins));
    while !stop.is_asked() && !is_over.load(Ordering::SeqCst) {
        bell.wait();
    }
    let was_asked = stop.is_asked();
    let ends = if was_asked { ENDS } else { "the node has ended; the log says why" };
    if was_asked {
        talk::say(ends);
    }
    supervisor.iter().for_each(|supervisor| supervisor.stopping(ends));
    node.stop()?;
    Ok(if was_asked { Exit::Done } else { Exit::Unable })
}

/// Whoever started this process and wants to hear of it. Only threads that this one starts come after it: nobody reads the
/// environment meanwhile.
fn supervisor() -> Option<Supervisor> {
    let found = Supervisor::named_by(|name| env::var_os(name), process::id());
    for name in SUPERVISOR_VARIABLES {
        // SAFETY: this process has one thread yet.
        #[expect(unsafe_code, reason = "a child would speak in our name")]
        unsafe {
            env::remove_var(name);
        }
    }
    found.unwrap_or_else(|error| {
        talk::say(&super::human::chain(&error));
        None
    })
}

/// Takes the lock; waits a while for a command that has it, but not for another node.
fn lock(context: &Context, stop: &Stop) -> anyhow::Result<DirectoryLock> {
    let begun = Instant::now();
    let mut has_said = false;
    loop {
        let error = match context.lock("run") {
            Ok(lock) => return Ok(lock),
            Err(error) => error,
        };
        let held = error.downcast_ref();
        let is_held = matches!(held, Some(LockError::Held { .. }));
        let is_node = matches!(held, Some(LockError::Held { holder, .. }) if holder.contains("(edge run)"));
        let is_up = || Client::connect(&super::node::place(context)).is_ok_and(|client| client.is_some());
        if !is_held || is_node && is_up() || begun.elapsed() >= LOCK_WAIT || stop.is_asked() {
            return Err(error);
        }
        if !has_said {
            talk::say(&format!("{error}; waiting for {} s", LOCK_WAIT.as_secs()));
            has_said = true;
        }
        thread::park_timeout(LOOK);
    }
}
