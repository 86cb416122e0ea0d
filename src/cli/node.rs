//! The node that a command goes to: the user's, the system's, or one in this process for as long as the command takes.

use std::{
    env,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{
    context::Context,
    exit::{Exit, UsageError},
    human, talk,
};
use crate::{
    api::{Client, ClientError, SYSTEM_SOCKET, Server, SocketPlace, view::PeerView},
    inference::{ModelFolder, Stop},
    node::{
        BootstrapAddress, Change, GreenSource, Lending, Node, NodeOptions, Supervisor, SwarmAnswer,
        SwarmCommand, decide, free_port, own_addresses, wall_clock_ms,
    },
    proto::{budget::Limits, membership::Swarms},
    store::{DirectoryLock, Identity, LockError, Store},
};

/// How long a command waits for whoever holds the directory: to end, or to listen.
const HOLDER_WAIT: Duration = Duration::from_secs(3);
/// As long as a node may take to deliver what is done when it ends.
const NODE_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(50);

/// Where a command finds what it needs.
pub(super) enum Seat {
    /// A node runs.
    Running(Client),
    /// None does: the directory is this command's.
    Alone(Alone),
}

/// A directory that is this command's.
pub(super) struct Alone {
    // Dropped in this order.
    pub(super) store: Store,
    pub(super) lock: DirectoryLock,
}

impl Seat {
    /// Finds it. A command that holds the directory, and listens nowhere, is waited for a moment.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    pub(super) fn take(context: &Context, purpose: &str, stop: &Stop) -> anyhow::Result<Self> {
        let begun = Instant::now();
        loop {
            if let Some(client) = running(context)? {
                return Ok(Self::Running(client));
            }
            match context.lock(purpose) {
                Ok(lock) => return Ok(Self::Alone(Alone { store: context.store(&lock)?, lock })),
                Err(error) => {
                    let Some(wait) = patience(&error) else { return Err(error) };
                    if begun.elapsed() >= wait || stop.is_asked() {
                        return Err(error);
                    }
                }
            }
            thread::park_timeout(LOOK);
        }
    }

    /// Does something with the swarms of the node.
    pub(super) fn swarm(&mut self, context: &Context, command: SwarmCommand) -> anyhow::Result<SwarmAnswer> {
        match self {
            Self::Running(client) => Ok(client.post("/v1/swarms", &command)?),
            Self::Alone(Alone { store, .. }) => {
                let identity = context.identity()?;
                let port = port(context, store)?;
                let book = book(store)?;
                let addresses = || own_addresses(port);
                let (change, answer) =
                    decide(&book, identity.signing_key(), wall_clock_ms(), addresses, command)?;
                match change {
                    Some(Change::Put(record)) => store.put_swarm(&record)?,
                    Some(Change::Remove(record)) => store.remove_swarm(&record.id())?,
                    Some(Change::Public(bootstrap)) => store.put_public(bootstrap.as_deref())?,
                    None => {}
                }
                Ok(answer.with_public(store.public()?.is_some()))
            }
        }
    }
}

/// How long to wait for whoever holds the directory.
fn patience(error: &anyhow::Error) -> Option<Duration> {
    match error.downcast_ref() {
        Some(LockError::Held { holder, .. }) if holder.contains("(edge run)") => Some(NODE_WAIT),
        Some(LockError::Held { .. }) => Some(HOLDER_WAIT),
        _ => None,
    }
}

/// The user's node; the system's, where this user has never had one and may use it.
pub(super) fn running(context: &Context) -> anyhow::Result<Option<Client>> {
    found(context, |client| client.get::<Vec<PeerView>>("/v1/peers").is_ok())
}

/// The same, to look at its status, which every user may.
pub(super) fn to_look_at(context: &Context) -> anyhow::Result<Option<Client>> {
    found(context, |_| true)
}

fn found(context: &Context, may: impl FnOnce(&mut Client) -> bool) -> anyhow::Result<Option<Client>> {
    let own = place(context);
    if let Some(client) = Client::connect(&own)? {
        return Ok(Some(client));
    }
    let is_first = matches!(Identity::load(&context.config.identity_dir()), Err(error) if error.is_absent());
    if !is_first || context.config.socket().is_some() {
        return Ok(None);
    }
    let Some(mut client) = Client::connect(&SocketPlace::at(SYSTEM_SOCKET.into(), true))? else {
        return Ok(None);
    };
    if !may(&mut client) {
        return Ok(None);
    }
    talk::say(&format!("through the system's node at {SYSTEM_SOCKET}"));
    Ok(Some(client))
}

/// Where this user's node listens, or would.
pub(super) fn place(context: &Context) -> SocketPlace {
    match context.config.socket() {
        // Identities share their settings, but not a socket.
        Some(path) if context.config.identity() == "default" => {
            SocketPlace::at(path, context.config.is_socket_shared())
        }
        _ => SocketPlace::of_identity(&context.config.identity_dir()),
    }
}

/// A node in this process, with its control socket: others may come and use it meanwhile.
pub(super) struct OwnNode {
    // Dropped in this order: the node waits for the store, and that for all ways to it; the lock goes last.
    server: Server,
    node: Node,
    _lock: DirectoryLock,
}

impl OwnNode {
    /// Starts one.
    pub(super) fn start(
        duty: Duty,
        context: &Context,
        alone: Alone,
        folder: ModelFolder,
        threads: Threads,
        ended: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<Self> {
        let Alone { lock, mut store } = alone;
        let identity: Identity = context.identity()?;
        let options = options(duty, context, &mut store, threads)?;
        let node = Node::start(store, &identity, folder, options, ended)?;
        let server = Server::start(node.control()?, place(context))?;
        Ok(Self { server, node, _lock: lock })
    }

    /// The way to it, as any other command has it.
    pub(super) fn client(&self, context: &Context) -> anyhow::Result<Client> {
        Ok(Client::connect(&place(context))?.ok_or(ClientError::Gone(None))?)
    }

    /// UDP port.
    pub(super) fn port(&self) -> u16 {
        self.node.control().map_or(0, |control| control.port())
    }

    /// Waits until nobody uses it any more, then gives back what is not begun, delivers what is done, says goodbye.
    pub(super) fn finish(self, stop: &Stop) -> anyhow::Result<()> {
        let others = self.server.clients();
        if others > 0 && !stop.is_asked() {
            let who = human::count(others as u64, "other command");
            talk::say(&format!("done; waiting for {who} that this one computes for (Ctrl-C stops them)"));
        }
        while self.server.clients() > 0 && !stop.is_asked() {
            thread::park_timeout(LOOK);
        }
        self.stop()
    }

    /// As [`OwnNode::finish`], but now.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        let Self { server, node, _lock } = self;
        drop(server);
        Ok(node.stop()?)
    }
}

/// Compute threads of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threads {
    /// For others.
    pub(super) lent: usize,
    /// For commands of this machine.
    pub(super) own: usize,
}

/// What a node is for beside this machine's own work.
#[derive(Clone, Debug, Default)]
pub(super) struct Duty {
    /// Others find each other through it.
    pub(super) serves: bool,
    /// It is in the public pool.
    pub(super) public: bool,
    /// Somebody watches over it.
    pub(super) supervisor: Option<Supervisor>,
}

/// How a node of this process takes part.
fn options(
    duty: Duty,
    context: &Context,
    store: &mut Store,
    threads: Threads,
) -> anyhow::Result<NodeOptions> {
    let parse = |text: &str| -> anyhow::Result<BootstrapAddress> {
        Ok(text.parse().map_err(|error| UsageError(format!("{text}: {error}")))?)
    };
    let bootstrap = context.config.bootstrap().map(parse).collect::<Result<_, _>>()?;
    let of_pool = duty.public.then(|| store.public()).transpose()?.map(Option::unwrap_or_default);
    let public = of_pool.map(|of_pool| of_pool.iter().map(|text| parse(text)).collect()).transpose()?;
    let (port, mdns) = (port(context, store)?, context.config.mdns());
    let (lent_threads, own_threads) = (threads.lent, threads.own);
    let lending = if lent_threads > 0 { Some(lending(context)?) } else { None };
    let (serves, gives_way) = (duty.serves, context.config.gives_way());
    let supervisor = duty.supervisor;
    Ok(NodeOptions {
        port,
        lent_threads,
        gives_way,
        lending,
        own_threads,
        own_limits: own_limits(context)?,
        sensors: sensors_root(),
        mdns,
        bootstrap,
        serves,
        public,
        supervisor,
    })
}

/// How this machine is lent, as its owner set it.
pub(super) fn lending(context: &Context) -> anyhow::Result<Lending> {
    let limits = context.config.limits().map_err(UsageError)?;
    let green = context.config.green_source();
    let green = green.map(|text| GreenSource::parse(text, context.config.green_age())).transpose();
    let green = green.map_err(|error| UsageError(error.to_string()))?;
    Ok(Lending { limits, green })
}

/// What binds the owner's own work.
pub(super) fn own_limits(context: &Context) -> anyhow::Result<Limits> {
    Ok(context.config.limits().map_err(UsageError)?.own_beside())
}

/// Where the system's files are; tests lay false ones elsewhere.
pub(super) fn sensors_root() -> PathBuf {
    env::var_os("EDGE_TEST_SENSORS").map_or_else(|| PathBuf::from("/"), PathBuf::from)
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

/// The swarms in a store that no node has open.
pub(super) fn book(store: &Store) -> anyhow::Result<Swarms> {
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

/// What a command that needs a running node says where there is none.
pub(super) fn not_running(what: &str) -> Exit {
    talk::say(&format!("no node runs here, so {what}; `edge run` starts one"));
    Exit::NotRunning
}
