//! How the control socket asks an aggregator for jobs, for a command.

use std::time::{Duration, Instant};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{AggregatorHandle, Message};
use crate::{
    proto::LEDGER_JOBS_MAX,
    wire::{ContentKey, JobSpec, PeerId, SwarmId},
};

/// Name of whoever asks for jobs; never used twice in one life of the node.
pub type ClientId = u64;

/// What a client says of itself, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAbout {
    /// What it works on.
    pub title: String,
    /// Its process.
    pub process: u32,
    /// Name of the swarm that shares the work; `None` for this machine alone.
    pub swarm: Option<String>,
    /// What to do with jobs that have failed for good before: ask again instead of saying so.
    pub retries_dead: bool,
}

/// A client and how far it is, for people.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// Its name.
    pub id: ClientId,
    /// As it said.
    pub about: ClientAbout,
    /// How long it has been here.
    pub since: Duration,
    /// Jobs that are asked for and not done.
    pub open: u64,
    /// Jobs whose results are on the disk.
    pub done: u64,
    /// Jobs that have failed for good.
    pub dead: u64,
    /// Chunks of those that are done.
    pub chunks: u64,
}

/// What became of a job.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// Its result is on the disk.
    Done {
        /// The job.
        key: ContentKey,
        /// Who computed it.
        worker: PeerId,
        /// Chunks of its result.
        chunks: u64,
        /// Tokens of its result.
        tokens: u64,
        /// Time that one thread spent on it.
        elapsed: Duration,
    },
    /// This node can not compute, and why: what others do not compute is not computed.
    NoCompute {
        /// For a person.
        reason: String,
    },
    /// It has failed for good.
    Dead {
        /// The job.
        key: ContentKey,
        /// Why, for a person.
        reason: String,
    },
    /// Somebody cancelled all that this client asks for.
    Cancelled,
}

/// A client as the actor knows it.
#[derive(Debug)]
pub(super) struct Client {
    about: ClientAbout,
    events: mpsc::Sender<ClientEvent>,
    since: Instant,
    done: u64,
    dead: u64,
    chunks: u64,
}

impl Client {
    pub(super) fn new(about: ClientAbout, events: mpsc::Sender<ClientEvent>) -> Self {
        Self { about, events, since: Instant::now(), done: 0, dead: 0, chunks: 0 }
    }

    pub(super) fn title(&self) -> String {
        self.about.title.clone()
    }

    pub(super) fn retries_dead(&self) -> bool {
        self.about.retries_dead
    }

    /// Tells it; `false` where it is gone, or does not listen.
    pub(super) fn tell(&mut self, event: ClientEvent) -> bool {
        match &event {
            ClientEvent::Done { chunks, .. } => {
                self.done += 1;
                self.chunks += chunks;
            }
            ClientEvent::Dead { .. } => self.dead += 1,
            ClientEvent::NoCompute { .. } | ClientEvent::Cancelled => {}
        }
        self.events.try_send(event).is_ok()
    }

    pub(super) fn info(&self, id: ClientId, open: u64) -> ClientInfo {
        let (about, since) = (self.about.clone(), self.since.elapsed());
        ClientInfo { id, about, since, open, done: self.done, dead: self.dead, chunks: self.chunks }
    }
}

/// Somebody who asks for jobs. Dropping it cancels what only it had asked for.
#[derive(Debug)]
pub struct AggregatorClient {
    id: ClientId,
    aggregator: AggregatorHandle,
    events: mpsc::Receiver<ClientEvent>,
}

impl AggregatorClient {
    /// `id` must be new. `None` where the node ends.
    pub(in crate::node) async fn attach(
        id: ClientId,
        about: ClientAbout,
        aggregator: AggregatorHandle,
    ) -> Option<Self> {
        // As many as it may have jobs, so that the aggregator never waits for whoever listens.
        let (sender, events) = mpsc::channel(2 * LEDGER_JOBS_MAX);
        aggregator.0.send(Message::Attach(id, about, sender)).await.ok()?;
        Some(Self { id, aggregator, events })
    }

    /// Its name.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// A way to ask for jobs while somebody else waits for events.
    pub fn desk(&self) -> ClientDesk {
        ClientDesk { id: self.id, aggregator: self.aggregator.clone() }
    }

    /// What has become of jobs since the last call; waits up to `wait` for the first. `None` where the node has ended and
    /// all is told. Cancel safe.
    pub async fn events(&mut self, wait: Duration) -> Option<Vec<ClientEvent>> {
        let Ok(first) = timeout(wait, self.events.recv()).await else { return Some(Vec::new()) };
        let mut events = vec![first?];
        while let Ok(event) = self.events.try_recv() {
            events.push(event);
        }
        Some(events)
    }
}

impl Drop for AggregatorClient {
    fn drop(&mut self) {
        let message = Message::Detach(self.id);
        if let Err(mpsc::error::TrySendError::Full(message)) = self.aggregator.0.try_send(message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let aggregator = self.aggregator.clone();
            runtime.spawn(async move { aggregator.0.send(message).await });
        }
    }
}

/// Asks for jobs in the name of a client.
#[derive(Clone, Debug)]
pub struct ClientDesk {
    id: ClientId,
    aggregator: AggregatorHandle,
}

impl ClientDesk {
    /// Asks for jobs, for members of `swarm`, or for this node alone; gives back those for which there is no room yet.
    /// `None` where the node ends.
    pub async fn submit(&self, swarm: Option<SwarmId>, jobs: Vec<JobSpec>) -> Option<Vec<JobSpec>> {
        let (answer, answered) = oneshot::channel();
        self.aggregator.0.send(Message::Submit(self.id, swarm, jobs, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Cancels what only this client had asked for, now.
    pub async fn detach(&self) {
        // A node that has ended has no clients.
        let _ = self.aggregator.0.send(Message::Detach(self.id)).await;
    }
}
