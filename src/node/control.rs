//! Everything that a running node can be asked, from any thread: what `api` serves.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    AggregatorClient, Disk, NodeError, WorkerCounts,
    aggregator::{
        AggregatorHandle, AggregatorTotals, ClientAbout, ClientId, ClientInfo, Message as ToAggregator,
    },
    compute::SharedEngine,
    governor::{BudgetStatus, GovernorHandle, Message as ToGovernor},
    mesh::{MeshHandle, Message as ToMesh, PeerInfo},
    own_limits::OwnLimits,
    swarms::{SwarmAnswer, SwarmCommand, SwarmsError},
    worker::{Message as ToWorker, WorkerHandle},
};
use crate::{
    inference::ModelFolder,
    proto::{Item, LedgerCounts, membership::SwarmRecord},
    wire::{ContentKey, PeerId, Refusal, SwarmId},
};

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) peer: PeerId,
    pub(super) port: u16,
    /// Of the threads for work that is asked for here.
    pub(super) limits: OwnLimits,
    pub(super) engine: SharedEngine,
}

/// Everything that `edge status` shows.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Who this is.
    pub peer: PeerId,
    /// UDP port.
    pub port: u16,
    /// Compute threads for work that is asked for here.
    pub own_threads: usize,
    /// Why these wait, where they do.
    pub own_waits_because: Option<String>,
    /// How long it has run.
    pub uptime: Duration,
    /// The queue of work for others.
    pub worker: WorkerCounts,
    /// The ledger of work asked for here.
    pub aggregator: LedgerCounts,
    /// What that has come to.
    pub totals: AggregatorTotals,
    /// Connected members.
    pub peers: Vec<PeerInfo>,
    /// Swarms.
    pub swarms: Vec<SwarmRecord>,
    /// Those that do not let it in, or put it out, and why.
    pub refused: BTreeMap<SwarmId, Refusal>,
    /// Whether it is in the public pool.
    pub is_public: bool,
    /// What it lends and why no more; nothing where it lends nothing in any case.
    pub lending: Option<BudgetStatus>,
    /// Whether the model is in memory.
    pub is_model_loaded: bool,
}

/// What an owner orders about lending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Rest, for so long; `None` until it says otherwise.
    Pause(Option<Duration>),
    /// Lend again.
    Resume,
    /// Complete what is begun, and take nothing new.
    Finish,
}

/// The way to a running node. Cheap to clone; every clone keeps the store open.
#[derive(Clone, Debug)]
pub struct Control {
    facts: Arc<Facts>,
    disk: Disk,
    aggregator: AggregatorHandle,
    worker: WorkerHandle,
    mesh: MeshHandle,
    governor: Option<GovernorHandle>,
    begun: Instant,
    clients: Arc<AtomicU64>,
}

impl Control {
    pub(super) fn new(
        facts: Facts,
        disk: Disk,
        aggregator: AggregatorHandle,
        worker: WorkerHandle,
        mesh: MeshHandle,
        governor: Option<GovernorHandle>,
    ) -> Self {
        let clients = Arc::new(AtomicU64::new(1));
        let begun = Instant::now();
        Self { facts: Arc::new(facts), disk, aggregator, worker, mesh, governor, begun, clients }
    }

    /// Who this is.
    pub fn peer(&self) -> PeerId {
        self.facts.peer
    }

    /// UDP port on which it listens.
    pub fn port(&self) -> u16 {
        self.facts.port
    }

    /// The model that it runs.
    pub fn folder(&self) -> &ModelFolder {
        self.facts.engine.folder()
    }

    /// The store.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Everything that `edge status` shows.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn status(&self) -> Result<NodeStatus, NodeError> {
        let (aggregator, totals) = asked(&self.aggregator.0, ToAggregator::Counts).await?;
        let known = asked(&self.mesh.0, ToMesh::Swarms).await?;
        Ok(NodeStatus {
            peer: self.facts.peer,
            port: self.facts.port,
            own_threads: self.facts.limits.threads(),
            own_waits_because: self.facts.limits.waits_because(),
            uptime: self.begun.elapsed(),
            worker: asked(&self.worker.0, ToWorker::Counts).await?,
            aggregator,
            totals,
            peers: self.peers().await?,
            swarms: known.records,
            refused: known.refused,
            is_public: known.is_public,
            lending: self.lending().await?,
            is_model_loaded: self.facts.engine.is_loaded(),
        })
    }

    /// Connected members.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, NodeError> {
        asked(&self.mesh.0, ToMesh::Peers).await
    }

    /// Does something with this node's swarms; what changes is on the disk when this returns.
    ///
    /// # Errors
    /// [`NodeError::Ended`]; why nothing was done is in the answer.
    pub async fn swarm(&self, command: SwarmCommand) -> Result<Result<SwarmAnswer, SwarmsError>, NodeError> {
        asked(&self.mesh.0, |answer| ToMesh::Swarm(command, answer)).await
    }

    /// Jobs of others that are here.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn queue(&self) -> Result<Vec<Item>, NodeError> {
        asked(&self.worker.0, ToWorker::Items).await
    }

    /// Gives back what is not begun; says how many jobs that are.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn give_back(&self) -> Result<usize, NodeError> {
        asked(&self.worker.0, ToWorker::GiveBack).await
    }

    /// Lets dead letters be tried again, these or all; says how many there were.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn raise(&self, keys: Vec<ContentKey>) -> Result<u64, NodeError> {
        asked(&self.aggregator.0, |answer| ToAggregator::Raise(keys, answer)).await
    }

    /// What is lent, and why no more.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn lending(&self) -> Result<Option<BudgetStatus>, NodeError> {
        let Some(governor) = &self.governor else { return Ok(None) };
        Ok(Some(asked(&governor.0, ToGovernor::Status).await?))
    }

    /// Carries out what the owner orders about lending; the disk has it when this returns. Says whether there is anything
    /// to lend.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn order(&self, order: Order) -> Result<bool, NodeError> {
        let Some(governor) = &self.governor else { return Ok(false) };
        asked(&governor.0, |answer| match order {
            Order::Pause(lasting) => ToGovernor::Pause(lasting, answer),
            Order::Resume => ToGovernor::Resume(answer),
            Order::Finish => ToGovernor::Finish(answer),
        })
        .await?;
        Ok(true)
    }

    /// Who asks for jobs here.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn clients(&self) -> Result<Vec<ClientInfo>, NodeError> {
        asked(&self.aggregator.0, ToAggregator::Clients).await
    }

    /// Ends what a client asks for; says whether there is such a client.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn cancel(&self, client: ClientId) -> Result<bool, NodeError> {
        asked(&self.aggregator.0, |answer| ToAggregator::CancelClient(client, answer)).await
    }

    /// A new client, who may ask for jobs.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub async fn attach(&self, about: ClientAbout) -> Result<AggregatorClient, NodeError> {
        let id = self.clients.fetch_add(1, Ordering::Relaxed);
        AggregatorClient::attach(id, about, self.aggregator.clone()).await.ok_or(NodeError::Ended)
    }
}

/// One question to an actor.
async fn asked<M, A>(
    actor: &mpsc::Sender<M>,
    question: impl FnOnce(oneshot::Sender<A>) -> M,
) -> Result<A, NodeError> {
    let (answer, answered) = oneshot::channel();
    actor.send(question(answer)).await.map_err(|_| NodeError::Ended)?;
    answered.await.map_err(|_| NodeError::Ended)
}
