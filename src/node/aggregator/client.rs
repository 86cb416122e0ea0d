//! How a command in the same process, or the control socket, asks an aggregator for jobs.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{AggregatorHandle, ClientId, Message};
use crate::{
    proto::LEDGER_JOBS_MAX,
    wire::{ContentKey, JobSpec, PeerId, SwarmId},
};

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
}

/// Somebody who asks for jobs. Dropping it cancels what only it had asked for.
#[derive(Debug)]
pub struct AggregatorClient {
    id: ClientId,
    aggregator: AggregatorHandle,
    events: Receiver<ClientEvent>,
}

impl AggregatorClient {
    /// `id` must be new. `None` where the node ends. Blocks for a moment: not for a thread with a runtime.
    pub(in crate::node) fn attach(id: ClientId, aggregator: AggregatorHandle) -> Option<Self> {
        // As many as it may have jobs, so that the aggregator never waits for whoever listens.
        let (sender, events) = sync_channel(2 * LEDGER_JOBS_MAX);
        aggregator.0.blocking_send(Message::Attach(id, sender)).ok()?;
        Some(Self { id, aggregator, events })
    }

    /// Asks for jobs, for members of `swarm`, or for this node alone; gives back those for which there is no room yet.
    /// `None` where the node ends. Blocks for a moment.
    pub fn submit(&self, swarm: Option<SwarmId>, jobs: Vec<JobSpec>) -> Option<Vec<JobSpec>> {
        let (answer, answered) = oneshot::channel();
        self.aggregator.0.blocking_send(Message::Submit(self.id, swarm, jobs, answer)).ok()?;
        answered.blocking_recv().ok()
    }

    /// What has become of jobs since the last call; waits up to `wait` for the first. `None` where the node has ended and
    /// all is told.
    pub fn events(&mut self, wait: Duration) -> Option<Vec<ClientEvent>> {
        match self.events.recv_timeout(wait) {
            Ok(first) => Some(std::iter::once(first).chain(self.events.try_iter()).collect()),
            Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
}

impl Drop for AggregatorClient {
    fn drop(&mut self) {
        // A full queue of messages belongs to a node that ends; with it all clients go.
        let _ = self.aggregator.0.try_send(Message::Detach(self.id));
    }
}
