//! The worker: pulls jobs from aggregators of its swarms, runs them, delivers what they came to (DESIGN 5).
//!
//! Deliberately absent: decisions, which are the [`Queue`]'s, and connections, which are the mesh's. What the queue wants
//! kept is on the disk before anything that relies on it leaves this actor.

mod counts;
mod heartbeat;
mod lent;
mod pull;
mod windows;

pub use counts::WorkerCounts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError,
    aggregator::{Speed, wait_until},
    ask::{ANSWER_WAIT, AskError, ask},
    compute::{Compute, ComputeEvent, SharedEngine},
    disk::{Disk, DiskError},
    governor::{Ends as GovernorEnds, GovernorHandle, Took},
    valve::Valve,
};
use crate::{
    proto::{Backoff, Delivery, Grant, Item, ItemId, Queue, QueueEffect, QueueEvent, Ran, Timestamp},
    store::{LeasedJob, QueueWrite},
    transport::Connection,
    wire::{Done, Granted, LEASES_PER_PULL_MAX, Outcome, PeerId, Release, SwarmId, Withdrawn},
};

/// Messages that wait for the actor.
const MESSAGES_MAX: usize = 128;
/// Between two heartbeats while leases are out.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How much longer than the long poll its answer may take.
const PULL_GRACE: Duration = Duration::from_secs(15);
/// Before an aggregator that refused or failed is asked again.
const PULL_AGAIN: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };
/// Longest wait for what runs and for deliveries when the node ends; below systemd's TimeoutStopSec.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A member of a swarm of ours can be asked for work.
    Connected(PeerId, Connection),
    /// It can not any more.
    Disconnected(PeerId),
    /// It has work from now on, or none any more.
    Demand(PeerId, bool),
    /// Numbers for people.
    Counts(oneshot::Sender<WorkerCounts>),
    /// What is in the queue, for people.
    Items(oneshot::Sender<Vec<Item>>),
    /// What is not begun goes back; says how many that are.
    GiveBack(oneshot::Sender<usize>),
    /// The node ends; answered when everything is given back or delivered, or time is over.
    Drain(oneshot::Sender<()>),
}

/// What a task of the actor came back with.
#[derive(Debug)]
enum Answer {
    Pulled(PeerId, u64, Result<Granted, AskError>),
    Beaten(PeerId, Result<Withdrawn, AskError>),
    Delivered(ItemId, Delivery),
    Released,
}

struct Aggregator {
    connection: Connection,
    /// Which of the connections to this peer: a question on an earlier one says nothing about this.
    generation: u64,
    /// It has said that it has work; it is asked for it only then.
    has_work: bool,
    is_pulling: bool,
    failures: u32,
    /// Jobs in a row that this node could not run.
    unfit: u32,
    not_before: Instant,
}

/// What is known of an item while it runs.
struct Running {
    swarm: SwarmId,
    aggregator: PeerId,
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(super) struct WorkerHandle(pub(super) mpsc::Sender<Message>);

pub(super) struct Worker {
    key: SigningKey,
    queue: Queue,
    disk: Disk,
    engine: SharedEngine,
    compute: Compute,
    speed: Speed,
    /// Threads that may run now.
    threads: usize,
    /// Holds all of them to what is lent.
    valve: Valve,
    /// What may be taken, as the governor says; what is taken, as this says.
    ends: GovernorEnds,
    /// Until when no model is loaded, because it did not load.
    broken: Option<Instant>,
    breakdowns: u32,
    /// None where nothing is lent in any case.
    governor: Option<GovernorHandle>,
    begun: Instant,
    aggregators: BTreeMap<PeerId, Aggregator>,
    running: BTreeMap<ItemId, Running>,
    windows: BTreeMap<u64, Vec<ItemId>>,
    outcomes: BTreeMap<ItemId, Outcome>,
    /// Items that were none, of windows that run.
    unsound: Vec<(u64, ItemId, Ran)>,
    empty_windows: Vec<u64>,
    tasks: JoinSet<Answer>,
    beaten: Instant,
    rng: fastrand::Rng,
    counts: WorkerCounts,
    generation: u64,
    busy: watch::Sender<BTreeSet<PeerId>>,
    pulls: BTreeMap<PeerId, AbortHandle>,
    draining: Option<(Instant, oneshot::Sender<()>)>,
}

/// What a worker starts with.
pub(super) struct Start {
    pub(super) key: SigningKey,
    pub(super) disk: Disk,
    pub(super) engine: SharedEngine,
    /// Threads that compute for others; may be none.
    pub(super) threads: usize,
    /// Holds them to what is lent.
    pub(super) valve: Valve,
    /// What may be taken, whether that is done, and who decides; nobody where there are no threads.
    pub(super) ends: GovernorEnds,
    pub(super) governor: Option<GovernorHandle>,
    /// Where it says of whom it holds work.
    pub(super) busy: watch::Sender<BTreeSet<PeerId>>,
    pub(super) seed: u64,
}

impl Worker {
    /// Starts the actor with what the store had kept.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(super) async fn start(
        start: Start,
        tasks: &mut JoinSet<Result<(), NodeError>>,
        cancelled: CancellationToken,
    ) -> Result<WorkerHandle, NodeError> {
        let Start { key, disk, engine, threads, valve, ends, governor, busy, seed } = start;
        let items = disk
            .call(|store| {
                store.tidy_queue()?;
                store.queue()
            })
            .await?;
        let mut effects = Vec::new();
        let queue = Queue::restore(items, Timestamp::default(), seed, &mut effects);
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (computed, events) = mpsc::channel(4 * threads.max(1) + 1);
        let pace = {
            let valve = valve.clone();
            Arc::new(move || valve.pace())
        };
        let mut actor = Self {
            key,
            queue,
            disk,
            compute: Compute::new(engine.clone(), threads, pace, computed),
            engine,
            speed: Speed::default(),
            threads: 0,
            valve,
            broken: None,
            breakdowns: 0,
            ends,
            governor,
            begun: Instant::now(),
            aggregators: BTreeMap::new(),
            running: BTreeMap::new(),
            windows: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            unsound: Vec::new(),
            empty_windows: Vec::new(),
            tasks: JoinSet::new(),
            beaten: Instant::now(),
            rng: fastrand::Rng::with_seed(seed),
            counts: WorkerCounts::default(),
            generation: 0,
            busy,
            pulls: BTreeMap::new(),
            draining: None,
        };
        actor.carry_out(effects, &[]).await?;
        actor.follow().await?;
        tasks.spawn_local(actor.run(messages, events, cancelled));
        Ok(WorkerHandle(sender))
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: mpsc::Receiver<ComputeEvent>,
        cancelled: CancellationToken,
    ) -> Result<(), NodeError> {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                message = messages.recv() => match message {
                    Some(message) => self.take_in(message).await?,
                    None => return Ok(()),
                },
                Some(event) = events.recv() => self.computed(event).await?,
                Some(answer) = self.tasks.join_next() => {
                    // One that was aborted says nothing, and one that panics has an answer.
                    if let Ok(answer) = answer {
                        self.answered(answer).await?;
                    }
                }
                Ok(()) = self.ends.lent.changed() => {
                    self.ends.lent.mark_unchanged();
                    self.follow().await?;
                }
                () = wait_until(deadline) => self.tell(QueueEvent::Tick).await?,
            }
            self.recover().await?;
            if self.compute.let_go_at().is_some_and(|at| at <= Instant::now()) {
                self.compute.let_go();
            }
            self.end_empty_windows().await?;
            self.beat();
            self.pull();
            self.say_busy();
            self.say_works();
            if self.is_drained() {
                // A window that no thread has begun says nothing; what it held was not at fault.
                let left = self.windows.keys().copied().collect();
                self.end_unbegun(left).await?;
                if let Some((_, answer)) = self.draining.take() {
                    let _ = answer.send(());
                }
                return Ok(());
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.begun.elapsed().as_millis() as u64)
    }

    fn deadline(&self) -> Option<Instant> {
        let queue = self.queue.next_deadline().map(|at| self.begun + Duration::from_millis(at.as_ms()));
        let heartbeat = self.holds_any().then(|| self.beaten + HEARTBEAT);
        let pulls = self.wants_any().then(|| {
            let resting = self.aggregators.values().filter(|other| other.has_work && !other.is_pulling);
            resting.map(|aggregator| aggregator.not_before).min()
        });
        let drained = self.draining.as_ref().map(|(until, _)| *until);
        let unused = self.compute.let_go_at();
        queue
            .into_iter()
            .chain(heartbeat)
            .chain(pulls.flatten())
            .chain(drained)
            .chain(unused)
            .chain(self.broken)
            .min()
    }

    fn holds_any(&self) -> bool {
        self.queue.aggregators().iter().any(|peer| self.aggregators.contains_key(peer))
    }

    fn wants_any(&self) -> bool {
        self.wanted().1 > 0
    }

    async fn take_in(&mut self, message: Message) -> Result<(), NodeError> {
        match message {
            Message::Connected(peer, connection) => {
                let not_before = Instant::now();
                self.generation += 1;
                let generation = self.generation;
                let (has_work, is_pulling, failures, unfit) = (false, false, 0, 0);
                let aggregator =
                    Aggregator { connection, generation, has_work, is_pulling, failures, unfit, not_before };
                self.aggregators.insert(peer, aggregator);
                self.tell(QueueEvent::Connected { aggregator: peer }).await
            }
            Message::Disconnected(peer) => {
                self.aggregators.remove(&peer);
                self.tell(QueueEvent::Disconnected { aggregator: peer }).await
            }
            Message::Demand(peer, has_work) => {
                self.demand(&peer, has_work);
                Ok(())
            }
            Message::Counts(answer) => {
                let _ = answer.send(self.numbers());
                Ok(())
            }
            Message::Items(answer) => {
                let _ = answer.send(self.queue.items().map(|(_, item)| item.clone()).collect());
                Ok(())
            }
            Message::GiveBack(answer) => {
                let _ = answer.send(self.queue.counts().queued);
                self.tell(QueueEvent::GiveBack).await
            }
            Message::Drain(answer) => {
                self.draining = Some((Instant::now() + DRAIN_MAX, answer));
                // A long poll would hold the end up; the goodbye returns what it may have been given.
                self.pulls.values().for_each(AbortHandle::abort);
                self.pulls.clear();
                let unbegun = self.compute.stop();
                self.valve.wake();
                self.tell(QueueEvent::Drain).await?;
                self.end_unbegun(unbegun).await
            }
        }
    }

    /// Whether there is nothing more to wait for.
    fn is_drained(&mut self) -> bool {
        let Some((until, _)) = &self.draining else { return false };
        let counts = self.queue.counts();
        let reachable = self.queue.aggregators().iter().any(|peer| self.aggregators.contains_key(peer));
        let is_busy = counts.running > 0 || (counts.outbox > 0 && reachable) || !self.tasks.is_empty();
        if is_busy && Instant::now() < *until {
            return false;
        }
        true
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), NodeError> {
        match answer {
            Answer::Pulled(peer, generation, answer) => self.pulled(peer, generation, answer).await,
            Answer::Beaten(aggregator, Ok(Withdrawn { attempts })) if !attempts.is_empty() => {
                self.tell(QueueEvent::Withdrawn { aggregator, attempts }).await
            }
            Answer::Beaten(peer, Err(error)) => {
                tracing::debug!(peer = %peer.short(), %error, "heartbeat missed");
                Ok(())
            }
            Answer::Delivered(id, delivery) => self.tell(QueueEvent::Delivered { id, delivery }).await,
            Answer::Beaten(..) | Answer::Released => Ok(()),
        }
    }

    async fn pulled(
        &mut self,
        peer: PeerId,
        generation: u64,
        answer: Result<Granted, AskError>,
    ) -> Result<(), NodeError> {
        let Some(aggregator) = self.aggregators.get_mut(&peer) else { return Ok(()) };
        let is_current = aggregator.generation == generation;
        if is_current {
            aggregator.is_pulling = false;
        }
        let leases = match answer {
            Ok(Granted { mut leases }) => {
                // Beyond it nobody gives any who means well.
                leases.truncate(LEASES_PER_PULL_MAX);
                leases
            }
            Err(_) if !is_current => return Ok(()),
            Err(error) => {
                aggregator.failures = aggregator.failures.saturating_add(1);
                let told = match &error {
                    AskError::Refused(refused) => Duration::from_millis(u64::from(refused.retry_ms)),
                    _ => Duration::ZERO,
                };
                let wait = PULL_AGAIN.wait(aggregator.failures, &mut self.rng).max(told.min(PULL_AGAIN.cap));
                aggregator.not_before = Instant::now() + wait;
                tracing::debug!(peer = %peer.short(), %error, "pull failed");
                return Ok(());
            }
        };
        aggregator.failures = 0;
        let grants = leases.iter().enumerate().map(|(index, lease)| Grant {
            attempt: lease.attempt,
            proof: lease.proof,
            key: lease.job.key,
            // What it weighs is seen here, whatever the aggregator says.
            tokens: lease.tokens.min(lease.job.text.len() as u32).max(1),
            alone: lease.alone,
            index,
        });
        let event = QueueEvent::Granted { aggregator: peer, grants: grants.collect() };
        // They have come, whatever becomes of them.
        let mut bytes: BTreeMap<SwarmId, u64> = BTreeMap::new();
        for lease in &leases {
            *bytes.entry(lease.swarm).or_default() += lease.job.text.len() as u64;
        }
        for (swarm, bytes) in bytes {
            self.account(Took { bytes, ..Took::nothing(swarm) });
        }
        let jobs: Vec<LeasedJob> =
            leases.into_iter().map(|lease| LeasedJob { swarm: lease.swarm, job: lease.job }).collect();
        let mut effects = Vec::new();
        self.queue.handle(self.now(), event, &mut effects);
        self.carry_out(effects, &jobs).await?;
        Ok(())
    }

    async fn tell(&mut self, event: QueueEvent) -> Result<(), NodeError> {
        let mut effects = Vec::new();
        self.queue.handle(self.now(), event, &mut effects);
        Ok(self.carry_out(effects, &[]).await?)
    }

    /// Carries out effects in their order; those of the disk that follow each other share a transaction.
    async fn carry_out(&mut self, effects: Vec<QueueEffect>, jobs: &[LeasedJob]) -> Result<(), DiskError> {
        let mut steps = Vec::new();
        for effect in effects {
            match effect {
                QueueEffect::Store { id, item, grant } => {
                    let Some(job) = jobs.get(grant) else { continue };
                    tracing::debug!(job = %item.key, attempt = item.attempt, "taken");
                    steps.push(QueueWrite::Store(id, item, job.clone()));
                }
                QueueEffect::Keep { id, item } => steps.push(QueueWrite::Keep(id, item)),
                QueueEffect::Computed { id } => {
                    let outcome = self.outcomes.remove(&id);
                    if let (Some(outcome), Some(item)) = (outcome, self.queue.item(id)) {
                        steps.push(QueueWrite::Computed(id, item.clone(), outcome));
                    }
                }
                QueueEffect::Failed { id, reason } => {
                    if let Some(item) = self.queue.item(id) {
                        steps.push(QueueWrite::Computed(
                            id,
                            item.clone(),
                            Outcome::Failed(windows::shortened(reason)),
                        ));
                    }
                }
                QueueEffect::Remove { id } => steps.push(QueueWrite::Remove(id)),
                QueueEffect::Run { window, ids } => {
                    self.write(&mut steps).await?;
                    self.announce_alone(&ids).await;
                    self.start_window(window, ids).await?;
                }
                QueueEffect::Deliver { id, aggregator, .. } => {
                    self.write(&mut steps).await?;
                    self.deliver(id, aggregator);
                }
                QueueEffect::Release { aggregator, attempts } => {
                    self.write(&mut steps).await?;
                    let Some(aggregator) = self.aggregators.get(&aggregator) else { continue };
                    let (connection, release) = (aggregator.connection.clone(), Release { attempts });
                    self.tasks.spawn_local(async move {
                        // Where it is not heard, the next heartbeat does not list them.
                        let _: Result<Done, _> = ask(&connection, &release, ANSWER_WAIT).await;
                        Answer::Released
                    });
                }
            }
        }
        self.write(&mut steps).await
    }

    async fn write(&self, steps: &mut Vec<QueueWrite>) -> Result<(), DiskError> {
        let steps = std::mem::take(steps);
        if steps.is_empty() {
            return Ok(());
        }
        self.disk.call(move |store| store.write_queue(&steps)).await
    }
}
