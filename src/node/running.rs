//! A node on a thread of its own: starts the actors, watches them, drains them in order.

use std::{
    io,
    path::PathBuf,
    sync::mpsc as std_mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use tokio::{
    sync::oneshot,
    task::{JoinSet, LocalSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError,
    aggregator::{Aggregator, Start as AggregatorStart},
    bootstrap::resolved,
    compute::SharedEngine,
    control::{Control, Facts},
    disk::Disk,
    governor::{Governor, GovernorHandle, Lending, Message as ToGovernor, Signals as GovernorSignals},
    mesh::{Mesh, MeshHandle, Message as ToMesh, Signals, Start as MeshStart},
    own_limits::OwnLimits,
    supervisor::Supervisor,
    valve::Valve,
    worker::{Message as ToWorker, Start as WorkerStart, Worker, WorkerHandle},
};
use crate::{
    discovery::{Announce, BootstrapAddress, Interfaces, Mdns, Sightings},
    inference::ModelFolder,
    proto::{Origin, Part, Worker as WorkerId, budget::Limits},
    store::{Identity, Store},
    transport::{Endpoint, Listen},
};

/// Longest wait for the worker to give back or deliver what it has.
const DRAIN_WAIT: Duration = Duration::from_secs(12);
/// Longest wait for peers to hear the goodbye.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// UDP port on which it listens, on all addresses of the machine.
    pub port: u16,
    /// Threads that compute for others at most.
    pub lent_threads: usize,
    /// Whether these give way to everything else on this machine.
    pub gives_way: bool,
    /// How this machine is lent; of no use without such threads.
    pub lending: Option<Lending>,
    /// Threads that compute what is asked for here.
    pub own_threads: usize,
    /// What binds these.
    pub own_limits: Limits,
    /// Under which the files of the system are read: `/`, but in tests.
    pub sensors: PathBuf,
    /// Whether it announces itself and looks for others on the LAN.
    pub mdns: bool,
    /// Nodes whose addresses its owner gave.
    pub bootstrap: Vec<BootstrapAddress>,
    /// Others find each other through it: it keeps all links.
    pub serves: bool,
    /// It is in the public pool, by way of these nodes; `None` where it is not.
    pub public: Option<Vec<BootstrapAddress>>,
    /// Who started this process and wants to hear that the node lives.
    pub supervisor: Option<Supervisor>,
}

/// A running node. Dropping it drains it and waits.
pub struct Node {
    control: Option<Control>,
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), NodeError>>>,
    store: Option<JoinHandle<Store>>,
}

impl Node {
    /// Starts a node over an open store, whose directory's lock the caller holds until the node has ended. Returns when
    /// it listens; peers are found after that. `ended` is called when it ends, however that comes about.
    ///
    /// # Errors
    /// [`NodeError`]: the port, a thread, or the store.
    pub fn start(
        store: Store,
        identity: &Identity,
        folder: ModelFolder,
        options: NodeOptions,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<Self, NodeError> {
        let key = identity.signing_key().clone();
        let stop = CancellationToken::new();
        let (ready, started) = std_mpsc::sync_channel(1);
        let body = {
            let stop = stop.clone();
            move || -> Result<(), NodeError> {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(NodeError::Thread)?;
                let body = run(store, key, folder, options, stop, ready);
                let result = runtime.block_on(LocalSet::new().run_until(body));
                ended();
                result
            }
        };
        let thread = thread::Builder::new().name("node".into()).spawn(body).map_err(NodeError::Thread)?;
        match started.recv() {
            Ok((control, store)) => {
                let (control, thread, store) = (Some(control), Some(thread), Some(store));
                Ok(Self { control, stop, thread, store })
            }
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(NodeError::Ended),
            },
        }
    }

    /// The way to everything that it does. All clones must be gone before the node is dropped.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub fn control(&self) -> Result<Control, NodeError> {
        self.control.clone().ok_or(NodeError::Ended)
    }

    /// Gives back what is not begun, delivers what is done, says goodbye, and waits for all that, within limits.
    ///
    /// # Errors
    /// [`NodeError`]: why it had ended by itself.
    pub fn stop(mut self) -> Result<(), NodeError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), NodeError> {
        self.control = None;
        self.stop.cancel();
        let ended = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(NodeError::Ended),
            None => Ok(()),
        };
        // Whoever holds the directory's lock must not let go of it before the store is closed.
        if let Some(store) = self.store.take() {
            let _ = store.join();
        }
        ended
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "node ended");
        }
    }
}

async fn run(
    store: Store,
    key: SigningKey,
    folder: ModelFolder,
    options: NodeOptions,
    stop: CancellationToken,
    ready: std_mpsc::SyncSender<(Control, JoinHandle<Store>)>,
) -> Result<(), NodeError> {
    let endpoint =
        Endpoint::bind(&key, Listen { address: None, port: options.port }).map_err(NodeError::Transport)?;
    let (peer, port) = (endpoint.peer_id(), endpoint.local_port());
    let (disk, store_thread) = Disk::start(store).map_err(NodeError::Thread)?;
    let engine = SharedEngine::new(folder, peer);
    let boot: [u8; 16] = entropy()?;
    let (governor_signals, ends) = GovernorSignals::new();
    let (signals, demand, busy) = Signals::new(ends.lent.clone());
    let (cancelled, mut actors) = (CancellationToken::new(), JoinSet::new());
    let limits = OwnLimits::new(&options.sensors, options.own_limits, options.own_threads);
    let aggregator = Aggregator::start(
        AggregatorStart {
            own: WorkerId { peer, boot },
            secret: key.to_bytes(),
            disk: disk.clone(),
            engine: engine.clone(),
            limits: limits.clone(),
            first_attempt: u64::from(u32::from_le_bytes(entropy()?)) << 32,
            demand,
            seed: u64::from_le_bytes(entropy()?),
        },
        &mut actors,
        cancelled.clone(),
    );
    let valve = Valve::new(options.lent_threads, options.gives_way);
    let mut governor = None;
    if let Some(lending) = options.lending.filter(|_| options.lent_threads > 0) {
        let start = (lending, options.sensors, disk.clone(), valve.clone());
        governor = Some(Governor::start(start, governor_signals, &mut actors, cancelled.clone()).await?);
    }
    let worker = WorkerStart {
        key: key.clone(),
        disk: disk.clone(),
        engine: engine.clone(),
        threads: options.lent_threads,
        valve,
        ends,
        governor: governor.clone(),
        busy,
        seed: u64::from_le_bytes(entropy()?),
    };
    let worker = Worker::start(worker, &mut actors, cancelled.clone()).await?;
    let start = MeshStart {
        key,
        boot,
        endpoint,
        disk: disk.clone(),
        worker: worker.clone(),
        aggregator: aggregator.clone(),
        signals,
        public: options.public,
        part: Part { lends: options.lent_threads > 0, serves: options.serves },
        seed: u64::from_le_bytes(entropy()?),
    };
    let mesh = Mesh::start(start, &mut actors, cancelled.clone()).await?;
    let mdns = if options.mdns { announce(port, &mesh, &mut actors) } else { None };
    look_for(options.bootstrap, &mesh, &mut actors, &cancelled);
    tracing::info!(peer = %peer.short(), port, "node listens");
    let facts = Facts { peer, port, limits, engine };
    let control = Control::new(facts, disk, aggregator, worker.clone(), mesh.clone(), governor.clone());
    options.supervisor.into_iter().for_each(|supervisor| supervisor.watch(&control, &mut actors, &cancelled));
    ready.send((control, store_thread)).map_err(|_| NodeError::Ended)?;
    let ended = until_over(&stop, &mut actors).await;
    drain(&worker, governor.as_ref(), &mesh, mdns).await;
    cancelled.cancel();
    drop((worker, mesh, governor));
    while actors.join_next().await.is_some() {}
    ended
}

/// Until it is asked to end, or an actor ends early: without it the node is none.
async fn until_over(
    stop: &CancellationToken,
    actors: &mut JoinSet<Result<(), NodeError>>,
) -> Result<(), NodeError> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(result) = actors.join_next() => match result {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(NodeError::Ended),
            },
        }
    }
}

/// In order: nothing new is begun and what waits is given back or delivered; what that took is kept; then nobody finds this
/// node any more; then goodbye.
async fn drain(
    worker: &WorkerHandle,
    governor: Option<&GovernorHandle>,
    mesh: &MeshHandle,
    mdns: Option<Mdns>,
) {
    let (answer, drained) = oneshot::channel();
    if worker.0.send(ToWorker::Drain(answer)).await.is_ok() {
        let _ = timeout(DRAIN_WAIT, drained).await;
    }
    if let Some(governor) = governor {
        let (answer, kept) = oneshot::channel();
        if governor.0.send(ToGovernor::Drain(answer)).await.is_ok() {
            let _ = timeout(DRAIN_WAIT, kept).await;
        }
    }
    if let Some(mdns) = mdns {
        mdns.withdraw().await;
    }
    let (answer, left) = oneshot::channel();
    if mesh.0.send(ToMesh::Leave(answer)).await.is_ok() {
        let _ = timeout(LEAVE_WAIT, left).await;
    }
}

/// Announces this node on the LAN, where that is possible.
fn announce(port: u16, mesh: &MeshHandle, actors: &mut JoinSet<Result<(), NodeError>>) -> Option<Mdns> {
    let label = data_encoding::HEXLOWER.encode(&entropy::<8>().ok()?);
    match Mdns::start(Announce { label, port }, Interfaces::Lan) {
        Ok((mdns, sightings)) => {
            actors.spawn_local(pass_on(sightings, mesh.clone()));
            Some(mdns)
        }
        Err(error) => {
            tracing::warn!(%error, "this node is not found by mDNS");
            None
        }
    }
}

async fn pass_on(mut sightings: Sightings, mesh: MeshHandle) -> Result<(), NodeError> {
    while let Some(sighting) = sightings.next().await {
        if mesh.0.send(ToMesh::Sighted(sighting)).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn look_for(
    bootstrap: Vec<BootstrapAddress>,
    mesh: &MeshHandle,
    actors: &mut JoinSet<Result<(), NodeError>>,
    cancelled: &CancellationToken,
) {
    for address in bootstrap {
        actors.spawn_local(find_bootstrap(address, mesh.clone(), cancelled.clone()));
    }
}

async fn find_bootstrap(
    address: BootstrapAddress,
    mesh: MeshHandle,
    cancelled: CancellationToken,
) -> Result<(), NodeError> {
    tokio::select! {
        () = cancelled.cancelled() => {}
        found = resolved(&address) => for at in found {
            // A mesh that has ended takes the node down by itself.
            let _ = mesh.0.send(ToMesh::Learn(at, Some(address.peer), Origin::Bootstrap)).await;
        }
    }
    Ok(())
}

fn entropy<const N: usize>() -> Result<[u8; N], NodeError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| NodeError::Thread(io::Error::other(error)))?;
    Ok(bytes)
}
