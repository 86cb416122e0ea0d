//! A run by a node that listens on a control socket: in another process, or in this one.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Client, ClientError,
    call::{Answer, Call, Told},
    view::Status,
};
use crate::{
    inference::Job,
    node::{Failure, Outcome, RunError, Runner, said_of_waiting},
    proto::LEDGER_JOBS_MAX,
    store::GcReport,
    wire::{ContentKey, JobSpec, ModelHash, PeerId, Run, RunId, SegmentResult},
};

/// Jobs that are handed over at most: half of what a ledger holds, so that two commands find room. 36 MiB of text.
const OUTSTANDING_MAX: usize = LEDGER_JOBS_MAX / 2;
/// Between two looks at who is connected.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long a question for events waits at the node, in milliseconds.
const EVENTS_WAIT_MS: u32 = 2000;

/// What a run says of itself to the node.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// What it works on, for people.
    pub title: String,
    /// `local`, or a swarm's name or the beginning of its id.
    pub swarm: String,
    /// Ask again for what has failed for good.
    pub retries_dead: bool,
    /// For which model.
    pub model: ModelHash,
}

/// A run by a node.
pub struct RemoteRun {
    /// Questions of the trait take `&self`.
    client: RefCell<Client>,
    options: RemoteOptions,
    id: u64,
    peer: PeerId,
    threads: usize,
    /// Its name.
    swarm: Option<String>,
    /// Other members that were connected when we looked last.
    members: Option<usize>,
    looked: Instant,
    /// Whether a person was told that the node's own threads wait.
    is_waiting: bool,
    events: Events,
    /// What the node had no room for.
    held: Vec<JobSpec>,
    outstanding: BTreeSet<ContentKey>,
}

/// A thread that asks for events all the time, so that the node knows that this command lives, whatever else it waits for.
struct Events {
    batches: Receiver<Result<Vec<Told>, Lost>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

enum Lost {
    /// The node does not know this client, or no more.
    Forgotten,
    Failed(ClientError),
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It ends with its present question; nobody waits for that.
        drop(self.thread.take());
    }
}

impl RemoteRun {
    /// Through a node that runs.
    ///
    /// # Errors
    /// [`ClientError`]; one of usage where the swarm or the model is none of the node's.
    pub fn new(mut client: Client, options: RemoteOptions) -> Result<Self, ClientError> {
        let (id, peer, threads, swarm) = attach(&mut client, &options)?;
        let events = Events::start(client.another()?, id)?;
        let (held, outstanding) = (Vec::new(), BTreeSet::new());
        let client = RefCell::new(client);
        let (members, looked, is_waiting) = (None, Instant::now(), false);
        Ok(Self {
            client,
            options,
            id,
            peer,
            threads,
            swarm,
            members,
            looked,
            is_waiting,
            events,
            held,
            outstanding,
        })
    }

    /// Who runs the node.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Compute threads of the node for its own commands.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn call(&self, call: &Call) -> Result<Answer, RunError> {
        self.client.borrow_mut().call(call).map_err(gone)
    }

    fn submit(&mut self, jobs: Vec<JobSpec>) -> Result<(), RunError> {
        let call = Call::Submit { client: self.id, jobs };
        let answer = self.call(&call)?;
        let Call::Submit { jobs, .. } = call else { return Ok(()) };
        let mut jobs: Vec<Option<JobSpec>> = jobs.into_iter().map(Some).collect();
        match answer {
            Answer::Submitted { refused } => {
                let refused = refused.into_iter().filter_map(|at| jobs.get_mut(at as usize)?.take());
                self.held = refused.collect();
                Ok(())
            }
            // The thread that asks for events hears the same: all that is outstanding is then asked for again.
            Answer::Unknown => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The node has forgotten this client: a new one asks for all that is outstanding.
    fn attach_again(&mut self) -> Result<Vec<Outcome>, RunError> {
        tracing::info!("the node had given this command up; it asks again");
        let mut client = self.client.borrow_mut();
        (self.id, self.peer, self.threads, self.swarm) = attach(&mut client, &self.options).map_err(gone)?;
        self.events = Events::start(client.another().map_err(gone)?, self.id).map_err(gone)?;
        self.held.clear();
        let (elapsed, worker) = (Duration::ZERO, self.peer);
        let forgotten = std::mem::take(&mut self.outstanding).into_iter();
        let outcome = |key| Outcome { key, result: Err(Failure::Forgotten), elapsed, worker };
        Ok(forgotten.map(outcome).collect())
    }

    fn taken_in(&mut self, batch: Vec<Told>) -> Result<Vec<Outcome>, RunError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for told in batch {
            let outcome = match told {
                Told::Done { key, worker, chunks, tokens, elapsed_ms } => {
                    let elapsed = Duration::from_millis(elapsed_ms);
                    Outcome { key, result: Ok((chunks, tokens)), elapsed, worker }
                }
                Told::Dead { key, reason } => {
                    let (result, elapsed) = (Err(Failure::Failed(reason)), Duration::ZERO);
                    Outcome { key, result, elapsed, worker: self.peer }
                }
                Told::NoCompute { reason } => return Err(RunError::NoCompute { reason }),
                Told::Cancelled => return Err(RunError::Cancelled),
                Told::Stopping => return Err(stopped()),
            };
            // Of what was asked for twice the second answer says nothing new.
            if self.outstanding.remove(&outcome.key) {
                outcomes.push(outcome);
            }
        }
        Ok(outcomes)
    }
}

impl Drop for RemoteRun {
    fn drop(&mut self) {
        self.events.stop.store(true, Ordering::Relaxed);
        // A node that is gone has forgotten it.
        let _ = self.call(&Call::Detach { client: self.id });
    }
}

impl Events {
    fn start(client: Client, id: u64) -> Result<Self, ClientError> {
        // Never full: each event but the last is the only one of its job, and of those there are half as many.
        let (sender, batches) = sync_channel(LEDGER_JOBS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let body = {
            let stop = Arc::clone(&stop);
            move || ask_for_events(client, id, &stop, &sender)
        };
        let thread =
            thread::Builder::new().name("events".into()).spawn(body).map_err(ClientError::Runtime)?;
        Ok(Self { batches, stop, thread: Some(thread) })
    }
}

fn ask_for_events(
    mut client: Client,
    id: u64,
    stop: &AtomicBool,
    batches: &SyncSender<Result<Vec<Told>, Lost>>,
) {
    while !stop.load(Ordering::Relaxed) {
        let batch = match client.call(&Call::Events { client: id, wait_ms: EVENTS_WAIT_MS }) {
            Ok(Answer::Events(told)) if told.is_empty() => continue,
            Ok(Answer::Events(told)) => {
                let is_last = told.iter().any(|told| matches!(told, Told::Stopping | Told::Cancelled));
                if batches.send(Ok(told)).is_err() || is_last {
                    return;
                }
                continue;
            }
            Ok(_) => Lost::Forgotten,
            Err(error) => Lost::Failed(error),
        };
        // Whoever listened may have gone.
        let _ = batches.send(Err(batch));
        return;
    }
}

type Attached = (u64, PeerId, usize, Option<String>);

fn attach(client: &mut Client, options: &RemoteOptions) -> Result<Attached, ClientError> {
    let RemoteOptions { title, swarm, retries_dead, model } = options.clone();
    let process = std::process::id();
    match client.call(&Call::Attach { title, process, swarm, retries_dead, model })? {
        Answer::Attached { client, peer, threads, swarm } => Ok((client, peer, threads as usize, swarm)),
        other => Err(ClientError::Malformed(format!("{other:?}"))),
    }
}

fn gone(error: ClientError) -> RunError {
    match error {
        ClientError::Gone(_) => stopped(),
        other => {
            let source = std::error::Error::source(&other).map(|source| format!(": {source}"));
            RunError::Node(format!("{other}{}", source.unwrap_or_default()))
        }
    }
}

fn stopped() -> RunError {
    RunError::Node(
        "the node has stopped; what was computed is kept, the same command goes on from there".into(),
    )
}

fn unexpected(answer: &Answer) -> RunError {
    RunError::Node(format!("the running node answers something else: {answer:?}"))
}

impl Runner for RemoteRun {
    fn known(&self, id: &RunId) -> Result<Option<Run>, RunError> {
        match self.call(&Call::Known { run: *id })? {
            Answer::Known(run) => Ok(run),
            other => Err(unexpected(&other)),
        }
    }

    fn begin(&mut self, id: &RunId, run: &Run, keys: &[ContentKey]) -> Result<(), RunError> {
        let call = Call::Begin { id: *id, run: run.clone(), keys: keys.to_vec() };
        self.call(&call).map(drop)
    }

    fn end(&mut self, id: &RunId, run: &Run) -> Result<(), RunError> {
        self.call(&Call::End { id: *id, run: run.clone() }).map(drop)
    }

    fn sweep(
        &mut self,
        now_ms: Option<u64>,
        keep: Duration,
        current: &RunId,
    ) -> Result<Option<GcReport>, RunError> {
        match self.call(&Call::Sweep { now_ms, keep_s: keep.as_secs(), current: *current })? {
            Answer::Swept(swept) => {
                Ok(swept.map(|(runs, results, results_kept)| GcReport { runs, results, results_kept }))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn result(&self, key: &ContentKey, text_bytes: usize) -> Result<Option<SegmentResult>, RunError> {
        let text_bytes = u32::try_from(text_bytes).unwrap_or(u32::MAX);
        match self.call(&Call::Result { key: *key, text_bytes })? {
            Answer::Result(result) => Ok(result.map(|result| *result)),
            other => Err(unexpected(&other)),
        }
    }

    fn try_submit(&mut self, window: Vec<Job>) -> Result<Option<Vec<Job>>, RunError> {
        // A window may be larger than all that is usual: alone it is taken, and what finds no place is held.
        let outstanding = self.outstanding.len();
        let is_full = outstanding > 0 && outstanding + window.len() > OUTSTANDING_MAX;
        if !self.held.is_empty() || is_full {
            return Ok(Some(window));
        }
        self.outstanding.extend(window.iter().map(|job| job.key));
        let model = self.options.model;
        self.submit(window.into_iter().map(|job| job.into_spec(model)).collect())?;
        Ok(None)
    }

    fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    fn poll(&mut self, wait: Duration) -> Result<Vec<Outcome>, RunError> {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.submit(held)?;
        }
        match self.events.batches.recv_timeout(wait) {
            Ok(Ok(batch)) => self.taken_in(batch),
            Ok(Err(Lost::Forgotten)) => self.attach_again(),
            Ok(Err(Lost::Failed(error))) => Err(gone(error)),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => Err(stopped()),
        }
    }

    fn remark(&mut self) -> Option<String> {
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        let status: Status = self.client.borrow_mut().get("/v1/status").ok()?;
        let waits = said_of_waiting(&mut self.is_waiting, status.aggregator.waits_because);
        if waits.is_some() {
            return waits.map(|what| format!("this node {what}"));
        }
        let swarm = self.swarm.as_ref()?;
        let now = status.peers.iter().filter(|peer| peer.swarms.contains(swarm)).count();
        let before = self.members.replace(now);
        match (before, now, self.threads) {
            (None | Some(0), 1.., _) => Some(format!("other members of {swarm} are connected: {now}")),
            (None | Some(1..), 0, 0) => {
                Some(format!("no other member of {swarm} is connected: waiting for one"))
            }
            (None, 0, _) => {
                Some(format!("no other member of {swarm} is connected: this node computes alone"))
            }
            (Some(1..), 0, _) => {
                Some(format!("the other members of {swarm} are gone: this node goes on alone"))
            }
            _ => None,
        }
    }

    fn stop(&mut self) -> Result<Vec<Outcome>, RunError> {
        // What is done is on the disk; what is not goes back with the client.
        let mut outcomes = Vec::new();
        while let Ok(Ok(batch)) = self.events.batches.try_recv() {
            outcomes.extend(self.taken_in(batch).unwrap_or_default());
        }
        Ok(outcomes)
    }
}
