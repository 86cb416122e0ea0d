//! `edge run`: lends this machine to the swarms it is in, until it is told to stop.

use std::{thread, time::Duration};

use super::{
    context::{Context, FlagSetting, stop_on_signals},
    exit::{Exit, UsageError},
    swarm, talk,
};
use crate::node::{Node, find_model};

const EXAMPLES: &str = "\
Examples:
  edge run                           compute for the members of our swarms, with every core
  edge run --threads 1 --port 4500   with one, on a port that a firewall lets through

Ctrl-C gives back what is not begun, delivers what is done, and ends.";

/// How long the main thread sleeps between two looks at the signals.
const LOOK: Duration = Duration::from_millis(500);

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
pub(super) fn run(_arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    let folder = find_model(context.config.model(), &context.config.data_dir())?;
    let lock = context.lock("run")?;
    let mut store = context.store(&lock)?;
    let (swarms, _) = store.swarms()?;
    if swarms.is_empty() {
        return Err(UsageError(
            "this node is in no swarm, so there is nobody to work for; `edge swarm create NAME` founds one, `edge swarm join TICKET` joins one".into(),
        )
        .into());
    }
    let identity = context.identity()?;
    let lent = context
        .config
        .lent_threads()
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let options = swarm::options(context, &mut store, lent, 0)?;
    let node = Node::start(store, &identity, folder, options)?;
    let names: Vec<String> = swarms.iter().map(|record| record.founding().name.to_string()).collect();
    talk::say(&format!(
        "node {} listens on UDP port {}, lends {} to {}",
        identity.peer_id().short(),
        node.port(),
        super::human::count(lent as u64, "thread"),
        names.join(", "),
    ));
    while !stop.is_asked() && !node.is_over() {
        thread::park_timeout(LOOK);
    }
    let was_asked = stop.is_asked();
    if was_asked {
        talk::say("giving back what is not begun, delivering what is done");
    }
    node.stop()?;
    Ok(if was_asked { Exit::Done } else { Exit::Unable })
}
