//! A run that is spread over a swarm: jobs go to this node's aggregator, and results come back through its store.

use std::time::Duration;

use super::{
    AggregatorClient, ClientEvent, Disk, Node, NodeError, RunError,
    local::{Failure, Outcome, Runner, checked, is_anything_expired},
};
use crate::{
    inference::{Job, ModelFolder},
    store::{GcReport, StoreError},
    wire::{ContentKey, JobSpec, PeerId, Run, RunId, SegmentResult, SwarmId},
};

/// Jobs that are handed over at most: half of what a ledger holds, so that two commands find room. 36 MiB of text.
const OUTSTANDING_MAX: usize = crate::proto::LEDGER_JOBS_MAX / 2;

/// A run over a swarm, by a node in this process.
pub struct SwarmRun {
    // Dropped in this order: the node waits for the store, and that for all ways to it.
    client: AggregatorClient,
    disk: Disk,
    node: Node,
    folder: ModelFolder,
    swarm: SwarmId,
    peer: PeerId,
    /// What the ledger had no room for.
    held: Vec<JobSpec>,
    outstanding: usize,
}

impl SwarmRun {
    /// Through a node that runs.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub fn new(node: Node, folder: ModelFolder, swarm: SwarmId, peer: PeerId) -> Result<Self, NodeError> {
        let (client, disk) = (node.client()?, node.disk()?);
        Ok(Self { client, disk, node, folder, swarm, peer, held: Vec::new(), outstanding: 0 })
    }

    /// Members that are connected now.
    ///
    /// # Errors
    /// [`NodeError::Ended`].
    pub fn members(&self) -> Result<Vec<PeerId>, NodeError> {
        Ok(self.node.status()?.peers.into_iter().map(|info| info.peer).collect())
    }

    fn submit(&mut self, jobs: Vec<JobSpec>) -> Result<(), RunError> {
        self.held = self.client.submit(Some(self.swarm), jobs).ok_or(RunError::Ended)?;
        Ok(())
    }

    fn call<T: Send + 'static>(
        &self,
        body: impl FnOnce(&mut crate::store::Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, RunError> {
        self.disk.call_blocking(body).map_err(RunError::Disk)
    }

    fn taken_in(&mut self, events: Vec<ClientEvent>) -> Result<Vec<Outcome>, RunError> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            outcomes.push(match event {
                ClientEvent::Done { key, worker, chunks, tokens, elapsed } => {
                    Outcome { key, result: Ok((chunks, tokens)), elapsed, worker }
                }
                ClientEvent::Dead { key, reason } => {
                    let (result, elapsed) = (Err(Failure::Failed(reason)), Duration::ZERO);
                    Outcome { key, result, elapsed, worker: self.peer }
                }
                ClientEvent::NoCompute { reason } => return Err(RunError::NoCompute { reason }),
            });
        }
        self.outstanding -= outcomes.len().min(self.outstanding);
        Ok(outcomes)
    }
}

impl Runner for SwarmRun {
    fn known(&self, id: &RunId) -> Result<Option<Run>, RunError> {
        let id = *id;
        self.call(move |store| store.run(&id))
    }

    fn begin(&mut self, id: &RunId, run: &Run, keys: &[ContentKey]) -> Result<(), RunError> {
        let (id, run, keys) = (*id, run.clone(), keys.to_vec());
        self.call(move |store| store.put_run(&id, &run, &keys))
    }

    fn end(&mut self, id: &RunId, run: &Run) -> Result<(), RunError> {
        let (id, run) = (*id, run.clone());
        self.call(move |store| store.put_run_state(&id, &run))
    }

    fn sweep(
        &mut self,
        now_ms: Option<u64>,
        keep: Duration,
        current: &RunId,
    ) -> Result<Option<GcReport>, RunError> {
        let current = *current;
        self.call(move |store| match is_anything_expired(store, now_ms, keep, &current)? {
            Some(now_ms) => store.gc(now_ms, keep, Some(&current)).map(Some),
            None => Ok(None),
        })
    }

    fn result(&self, key: &ContentKey, text_bytes: usize) -> Result<Option<SegmentResult>, RunError> {
        let wanted = *key;
        let found = self.call(move |store| store.result(&wanted))?;
        Ok(checked(key, found, text_bytes, self.folder.manifest().dimension))
    }

    fn try_submit(&mut self, window: Vec<Job>) -> Result<Option<Vec<Job>>, RunError> {
        // A window may be larger than all that is usual: alone it is taken, and what finds no place is held.
        let is_full = self.outstanding > 0 && self.outstanding + window.len() > OUTSTANDING_MAX;
        if !self.held.is_empty() || is_full {
            return Ok(Some(window));
        }
        self.outstanding += window.len();
        let model = self.folder.hash();
        self.submit(window.into_iter().map(|job| job.into_spec(model)).collect())?;
        Ok(None)
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn poll(&mut self, wait: Duration) -> Result<Vec<Outcome>, RunError> {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.submit(held)?;
        }
        match self.client.events(wait) {
            Some(events) => self.taken_in(events),
            None => Err(RunError::Node(Box::new(self.node.failure()))),
        }
    }

    fn stop(&mut self) -> Result<Vec<Outcome>, RunError> {
        // What is done is on the disk; what is not goes back with the client.
        let events = self.client.events(Duration::ZERO).unwrap_or_default();
        self.taken_in(events)
    }
}
