//! Who computes: this process alone, the node that runs, or a node in this process with its swarm.

use super::Arguments;
use crate::{
    api::{RemoteOptions, RemoteRun},
    cli::{
        context::Context,
        exit::UsageError,
        human,
        node::{Alone, Duty, OwnNode, Seat, Threads, book, own_limits, sensors_root},
        talk,
    },
    inference::{ModelFolder, Stop},
    node::{LocalRun, Runner, place},
    wire::PeerId,
};

/// Where a run takes place.
pub(super) struct Placed {
    // Dropped in this order.
    pub(super) run: Box<dyn Runner>,
    /// A node in this process.
    pub(super) node: Option<OwnNode>,
    /// Compute threads of this machine.
    pub(super) threads: usize,
    /// Who this machine is.
    pub(super) own: PeerId,
}

/// Finds who computes. Documents go to no one but the swarm that was named.
pub(super) fn placed(
    seat: Seat,
    arguments: &Arguments,
    context: &Context,
    folder: &ModelFolder,
    stop: &Stop,
) -> anyhow::Result<Placed> {
    if arguments.others_only && arguments.swarm == "local" {
        return Err(UsageError("--others-only needs others: name a swarm with --swarm".into()).into());
    }
    let options = RemoteOptions {
        title: title(arguments),
        swarm: arguments.swarm.clone(),
        retries_dead: arguments.fresh,
        model: folder.hash(),
    };
    match seat {
        Seat::Running(client) if client.is_gone() => {
            // It ended while this command looked for documents.
            placed(Seat::take(context, "embed", stop)?, arguments, context, folder, stop)
        }
        Seat::Running(client) => {
            if arguments.others_only {
                let why = "--others-only: the running node computes too; stop it first";
                return Err(UsageError(why.into()).into());
            }
            let run = RemoteRun::new(client, options)?;
            let (threads, own) = (run.threads().max(1), run.peer());
            if arguments.threads.is_some_and(|asked| asked as usize != threads) {
                let n = human::count(threads as u64, "thread");
                talk::say(&format!("the running node computes this, with {n}: --threads does not count"));
            }
            Ok(Placed { run: Box::new(run), node: None, threads, own })
        }
        Seat::Alone(alone) => {
            let Alone { lock, store } = alone;
            let (own, threads) = (context.identity()?.peer_id(), context.threads());
            if place(&book(&store)?, &arguments.swarm)?.is_none() {
                let run = LocalRun::new(
                    store,
                    folder.clone(),
                    own,
                    threads,
                    stop.clone(),
                    lock,
                    (&sensors_root(), own_limits(context)?),
                );
                return Ok(Placed { run: Box::new(run), node: None, threads, own });
            }
            let lent = Threads { lent: 0, own: if arguments.others_only { 0 } else { threads } };
            let node =
                OwnNode::start(Duty::default(), context, Alone { store, lock }, folder.clone(), lent, || ())?;
            let run = RemoteRun::new(node.client(context)?, options)?;
            Ok(Placed { run: Box::new(run), node: Some(node), threads, own })
        }
    }
}

/// What people read in `edge jobs`.
fn title(arguments: &Arguments) -> String {
    let paths = arguments.paths.iter().map(|path| human::path(path)).collect::<Vec<_>>().join(" ");
    paths.chars().take(200).collect()
}
