//! The aggregator: hands jobs out, takes results in, and tells whoever asked (DESIGN 5).
//!
//! Deliberately absent: decisions, which are the [`Ledger`]'s, and connections, which are the mesh's. The actor owns the
//! ledger and the texts; a batch of messages is handled, then written in one transaction, and only then answered.

mod asked;
mod client;
mod clients;
mod demand;
mod own;
mod results;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use asked::{Asked, Remains};
use client::Client;
pub use client::{AggregatorClient, ClientAbout, ClientDesk, ClientEvent, ClientId, ClientInfo};
use results::{Arrival, Expected, Proofs};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    compute::{Compute, ComputeEvent, SharedEngine},
    disk::{Disk, DiskError},
    own_limits::OwnLimits,
};
use crate::{
    inference::CHUNKER_VERSION,
    proto::{Attempt, Ledger, LedgerCounts, LedgerEffect, LedgerEvent, Timestamp, Verdict, Worker},
    wire::{
        ContentKey, Deliver, Delivered, Granted, HOLDING_MAX, Heartbeat, JobSpec, LEASES_PER_PULL_MAX, Lease,
        ModelHash, PULL_WAIT_MS_MAX, Pull, SwarmId, Withdrawn,
    },
};

/// Messages that wait for the actor: one or two of each of 256 workers. Whoever finds it full waits.
const MESSAGES_MAX: usize = 512;
/// Messages that share one transaction.
const BATCH_MAX: usize = 64;
/// Pulls that wait for work: one a worker.
const PARKED_MAX: usize = 256;
/// Between two looks at what has become possible while nothing happened.
const LOOK: Duration = Duration::from_secs(3);
/// Between two signs of life of this node's own threads to its own ledger.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The swarms that a peer has shown to be a member of. They change while it is connected, and whoever holds this
/// sees that: a pull that waits gets no text of a swarm that its worker has left meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<SwarmId>>>);

impl Shared {
    pub(super) fn new(swarms: Vec<SwarmId>) -> Self {
        Self(Arc::new(Mutex::new(swarms)))
    }

    pub(super) fn get(&self) -> Vec<SwarmId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, swarms: Vec<SwarmId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = swarms;
    }
}

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A worker asks for work; the answer comes when there is some, or in time.
    Pull(Worker, Shared, Pull, oneshot::Sender<Granted>),
    /// A worker lives.
    Heartbeat(Worker, Heartbeat, oneshot::Sender<Withdrawn>),
    /// A worker delivers; the answer comes after the disk has it.
    Deliver(Worker, Shared, Box<Deliver>, oneshot::Sender<Option<Delivered>>),
    /// A worker gives back.
    Release(Worker, Vec<Attempt>, oneshot::Sender<()>),
    /// A worker said goodbye.
    Left(Worker),
    /// Somebody will ask for jobs and hear of them here.
    Attach(ClientId, ClientAbout, mpsc::Sender<ClientEvent>),
    /// And no longer: what only it had asked for is cancelled.
    Detach(ClientId),
    /// Jobs, each with its tokens, for members of the swarm; gives back what there is no room for.
    Submit(ClientId, Option<SwarmId>, Vec<JobSpec>, oneshot::Sender<Vec<JobSpec>>),
    /// Numbers for people.
    Counts(oneshot::Sender<(LedgerCounts, AggregatorTotals)>),
    /// Who asks for jobs, for people.
    Clients(oneshot::Sender<Vec<ClientInfo>>),
    /// All that this client asks for is not wanted any more; says whether there is one.
    CancelClient(ClientId, oneshot::Sender<bool>),
    /// Dead letters are to be tried again, these or all; says how many there were.
    Raise(Vec<ContentKey>, oneshot::Sender<u64>),
}

/// What an aggregator has come to since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregatorTotals {
    /// Jobs whose results are on the disk.
    pub done: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Dead letters that are kept, of earlier lives too.
    pub dead_letters: usize,
}

#[derive(Debug)]
struct Parked {
    worker: Worker,
    swarms: Shared,
    pull: Pull,
    until: Instant,
    answer: oneshot::Sender<Granted>,
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(super) struct AggregatorHandle(pub(super) mpsc::Sender<Message>);

pub(super) struct Aggregator {
    own: Worker,
    ledger: Ledger,
    disk: Disk,
    proofs: Proofs,
    begun: Instant,
    jobs: BTreeMap<ContentKey, Asked>,
    clients: BTreeMap<ClientId, Client>,
    /// Jobs that failed for good, and why; the store has them too.
    dead: BTreeMap<ContentKey, String>,
    totals: AggregatorTotals,
    parked: Vec<Parked>,
    compute: Compute,
    limits: OwnLimits,
    /// Own threads wait: what they have is leased to others meanwhile.
    is_waiting: bool,
    model: ModelHash,
    windows: BTreeMap<u64, Vec<(Attempt, ContentKey)>>,
    next_window: u64,
    speed: Speed,
    beaten: Instant,
    looked: Instant,
    /// Something has become ready, somebody asks for the first time, or a thread is free.
    is_woken: bool,
    batch: results::Batch,
    engine: SharedEngine,
    demand: watch::Sender<BTreeMap<SwarmId, u8>>,
    /// Jobs there were when demand was said last; none where there are others now.
    jobs_said: Option<usize>,
}

/// What an aggregator starts with.
pub(super) struct Start {
    pub(super) own: Worker,
    /// The identity's secret: leases are proved with a key that is derived from it.
    pub(super) secret: [u8; 32],
    pub(super) disk: Disk,
    pub(super) engine: SharedEngine,
    /// Of own compute threads, of which there may be none.
    pub(super) limits: OwnLimits,
    /// Attempts of another process need not be larger, only others: a random upper half sees to that.
    pub(super) first_attempt: Attempt,
    /// Where it says what waits for members, by swarm.
    pub(super) demand: watch::Sender<BTreeMap<SwarmId, u8>>,
    pub(super) seed: u64,
}

/// Tokens per second of one thread, as a moving mean.
#[derive(Debug, Default)]
pub(super) struct Speed(f64);

impl Speed {
    pub(super) fn note(&mut self, tokens: u64, elapsed: Duration) {
        if elapsed > Duration::ZERO {
            let now = tokens as f64 / elapsed.as_secs_f64();
            self.0 = if self.0 == 0.0 { now } else { self.0.mul_add(0.8, now * 0.2) };
        }
    }

    pub(super) fn tokens_per_s(&self, threads: usize) -> u32 {
        (self.0 * threads as f64) as u32
    }
}

impl Aggregator {
    /// Starts the actor.
    pub(super) fn start(
        start: Start,
        tasks: &mut tokio::task::JoinSet<Result<(), super::NodeError>>,
        cancelled: CancellationToken,
    ) -> AggregatorHandle {
        let Start { own, secret, disk, engine, limits, first_attempt, demand, seed } = start;
        let ((sender, messages), threads) = (mpsc::channel(MESSAGES_MAX), limits.threads());
        let (computed, events) = mpsc::channel(4 * threads.max(1) + 1);
        let actor = Self {
            own,
            ledger: Ledger::new(first_attempt, seed),
            disk,
            proofs: Proofs::new(&secret),
            begun: Instant::now(),
            jobs: BTreeMap::new(),
            clients: BTreeMap::new(),
            dead: BTreeMap::new(),
            totals: AggregatorTotals::default(),
            parked: Vec::new(),
            is_waiting: false,
            model: engine.folder().hash(),
            compute: Compute::new(engine.clone(), threads, limits.pace(), computed),
            limits,
            windows: BTreeMap::new(),
            next_window: 0,
            speed: Speed::default(),
            beaten: Instant::now(),
            looked: Instant::now(),
            is_woken: false,
            batch: results::Batch::default(),
            engine,
            demand,
            jobs_said: None,
        };
        tasks.spawn_local(actor.run(messages, events, cancelled));
        AggregatorHandle(sender)
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: mpsc::Receiver<ComputeEvent>,
        cancelled: CancellationToken,
    ) -> Result<(), super::NodeError> {
        let letters = self.disk.call(|store| store.dead_letters()).await?;
        self.dead = letters.into_iter().map(|(key, letter)| (key, letter.reason)).collect();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                count = messages.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for message in batch.drain(..) {
                        self.take_in(message);
                    }
                }
                Some(event) = events.recv() => self.computed(event),
                () = wait_until(deadline) => self.tell(LedgerEvent::Tick),
            }
            if self.compute.let_go_at().is_some_and(|at| at <= Instant::now()) {
                self.compute.let_go();
            }
            self.follow_limits();
            self.keep_own_leases();
            self.say_demand();
            // A pull that finds nothing costs most, so they are asked again only when something has changed.
            let is_worth_it = std::mem::take(&mut self.is_woken) || self.looked.elapsed() >= LOOK;
            self.answer_parked(is_worth_it);
            if is_worth_it {
                self.looked = Instant::now();
                self.feed_own_threads();
            }
            self.write().await?;
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.begun.elapsed().as_millis() as u64)
    }

    fn deadline(&self) -> Option<Instant> {
        let ledger = self.ledger.next_deadline().map(|at| self.begun + Duration::from_millis(at.as_ms()));
        let parked = self.parked.iter().map(|parked| parked.until).min();
        let heartbeat = (!self.windows.is_empty()).then(|| self.beaten + HEARTBEAT);
        // Some of what may be leased becomes so by time alone: a straggler's job, one left to a worker that is gone.
        let look = (!self.jobs.is_empty()).then(|| self.looked + LOOK);
        let unused = self.compute.let_go_at();
        ledger.into_iter().chain(parked).chain(heartbeat).chain(look).chain(unused).min()
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Pull(worker, swarms, pull, answer) => self.park(worker, swarms, pull, answer),
            Message::Heartbeat(worker, heartbeat, answer) => {
                let Heartbeat { tokens_done, holding } = heartbeat;
                let mut attempts = Vec::new();
                for effect in self.decide(LedgerEvent::Heartbeat { worker, tokens_done, holding }) {
                    match effect {
                        LedgerEffect::Withdraw { attempt } => attempts.push(attempt),
                        other => self.carry_out(other),
                    }
                }
                // Or it would not fit its frame; the next heartbeat brings the rest.
                attempts.truncate(HOLDING_MAX);
                let _ = answer.send(Withdrawn { attempts });
            }
            Message::Deliver(worker, swarms, deliver, answer) => {
                self.delivered(worker, &swarms.get(), *deliver, answer);
            }
            Message::Release(worker, attempts, answer) => {
                self.tell(LedgerEvent::Release { worker, attempts });
                let _ = answer.send(());
            }
            Message::Left(worker) => {
                self.parked.retain(|parked| parked.worker != worker);
                self.tell(LedgerEvent::Left { worker });
            }
            Message::Attach(client, about, events) => {
                self.clients.insert(client, Client::new(about, events));
            }
            Message::Detach(client) => self.detach(client),
            Message::Submit(client, swarm, specs, answer) => {
                let refused = self.submit(client, swarm, specs);
                let _ = answer.send(refused);
            }
            Message::Counts(answer) => {
                let totals = AggregatorTotals { dead_letters: self.dead.len(), ..self.totals };
                let _ = answer.send((self.ledger.counts(), totals));
            }
            Message::Clients(answer) => {
                let _ = answer.send(self.infos());
            }
            Message::CancelClient(client, answer) => {
                let _ = answer.send(self.cancel(client));
            }
            Message::Raise(keys, answer) => self.raise(keys, answer),
        }
    }

    fn park(&mut self, worker: Worker, swarms: Shared, pull: Pull, answer: oneshot::Sender<Granted>) {
        // A worker waits once: an older question of it was given up.
        self.parked.retain(|parked| parked.worker.peer != worker.peer && !parked.answer.is_closed());
        if self.parked.len() >= PARKED_MAX {
            // Dropping the answer says `full`.
            return;
        }
        self.is_woken = true;
        let wait = Duration::from_millis(u64::from(pull.wait_ms.min(PULL_WAIT_MS_MAX)));
        self.parked.push(Parked { worker, swarms, pull, until: Instant::now() + wait, answer });
    }

    /// Gives pulls that wait what there is for them, all of them or those whose time is over.
    fn answer_parked(&mut self, all: bool) {
        let now = Instant::now();
        let mut waiting = Vec::new();
        let mut parked = std::mem::take(&mut self.parked);
        // Who has the choice has it computed where power is plenty.
        parked.sort_by_key(|parked| demand::dearness(parked.pull.budget.power));
        for parked in parked {
            if parked.answer.is_closed() {
                continue;
            }
            if !all && parked.until > now {
                waiting.push(parked);
                continue;
            }
            let leases = self.pull(&parked);
            if leases.is_empty() && parked.until > now {
                waiting.push(parked);
                continue;
            }
            let attempts: Vec<Attempt> = leases.iter().map(|lease| lease.attempt).collect();
            if parked.answer.send(Granted { leases }).is_err() {
                self.tell(LedgerEvent::Release { worker: parked.worker, attempts });
            }
        }
        self.parked = waiting;
    }

    fn pull(&mut self, parked: &Parked) -> Vec<Lease> {
        let Parked { worker, swarms, pull, .. } = parked;
        if !pull.models.contains(&self.model) || pull.chunker != CHUNKER_VERSION {
            return Vec::new();
        }
        let effects = self.decide(LedgerEvent::Pull {
            worker: *worker,
            swarms: Some(swarms.get()),
            tokens: pull.tokens,
            jobs: usize::from(pull.jobs).min(LEASES_PER_PULL_MAX),
            tokens_per_s: pull.budget.tokens_per_s,
        });
        let mut leases = Vec::new();
        for effect in effects {
            match effect {
                LedgerEffect::Lease { worker, attempt, job, alone } => {
                    let Some(asked) = self.jobs.get(&job) else { continue };
                    let Some(swarm) = asked.swarm() else { continue };
                    leases.push(Lease {
                        attempt,
                        proof: self.proofs.proof(&worker.peer, attempt, &job),
                        swarm,
                        tokens: estimated_tokens(&asked.spec.text),
                        alone,
                        job: (*asked.spec).clone(),
                    });
                }
                other => self.carry_out(other),
            }
        }
        leases
    }

    fn delivered(
        &mut self,
        worker: Worker,
        swarms: &[SwarmId],
        deliver: Deliver,
        answer: oneshot::Sender<Option<Delivered>>,
    ) {
        let Deliver { attempt, proof, job, outcome } = deliver;
        let asked = self.jobs.get(&job);
        if !self.proofs.holds(&worker.peer, attempt, &job, &proof) {
            let _ = answer.send(None);
            return;
        }
        let (aggregator, dimension) = (self.own.peer, self.engine.folder().manifest().dimension);
        let expected = Expected { job, asked, worker: worker.peer, swarms, aggregator, dimension };
        let (verdict, arrival) = Arrival::judge(outcome, &expected);
        if let Verdict::Failed(reason) = &verdict {
            tracing::warn!(peer = %worker.peer.short(), %job, reason, "job failed on a worker");
        }
        self.batch.arrived(attempt, arrival, Some(answer));
        self.tell(LedgerEvent::Result { worker, attempt, job, verdict });
    }

    /// The ledger's effects of an event, carried out.
    fn tell(&mut self, event: LedgerEvent) {
        for effect in self.decide(event) {
            self.carry_out(effect);
        }
    }

    fn decide(&mut self, event: LedgerEvent) -> Vec<LedgerEffect> {
        let mut effects = Vec::new();
        let now = self.now();
        self.ledger.handle(now, event, &mut effects);
        effects
    }

    fn carry_out(&mut self, effect: LedgerEffect) {
        match effect {
            // Only pulls are answered with leases; they take them out before.
            LedgerEffect::Lease { worker, attempt, .. } => {
                self.tell(LedgerEvent::Release { worker, attempts: vec![attempt] });
            }
            LedgerEffect::Commit { attempt, job, worker } => {
                let clients = self.jobs.remove(&job).map(Asked::into_clients).unwrap_or_default();
                self.totals.done += 1;
                if self.dead.remove(&job).is_some() {
                    self.batch.raised.push(job);
                }
                self.batch.commit(attempt, job, worker.peer, clients);
            }
            LedgerEffect::Duplicate { attempt, .. } => self.batch.unasked(attempt),
            LedgerEffect::Noted { attempt, .. } => self.batch.answer(attempt, Some(Delivered::Noted)),
            LedgerEffect::Refuse { attempt, .. } => self.batch.answer(attempt, None),
            // Whoever holds it lists it in its next heartbeat, and hears then that it is not wanted.
            LedgerEffect::Withdraw { .. } => {}
            LedgerEffect::Dead { job, reason } => {
                self.bury(job, reason);
            }
            LedgerEffect::Wake => self.is_woken = true,
        }
    }

    /// Writes what has arrived, and only then says so.
    async fn write(&mut self) -> Result<(), DiskError> {
        let (written, told) = std::mem::take(&mut self.batch).split();
        if !written.is_empty() {
            let made_room = self.disk.call(move |store| written.write(store)).await?;
            made_room.iter().for_each(|key| {
                self.dead.remove(key);
            });
        }
        for client in told.carry_out(&mut self.clients) {
            tracing::warn!(client, "a client that does not listen is dropped");
            self.detach(client);
        }
        Ok(())
    }
}

/// Tokens of a text, about: English has four to five bytes a token, and only proportions matter.
fn estimated_tokens(text: &str) -> u32 {
    u32::try_from(text.len() / 4).unwrap_or(u32::MAX).max(1)
}

/// Waits until then; for ever without a time. Cancel safe.
pub(super) async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(TokioInstant::from_std(deadline)).await,
        None => std::future::pending().await,
    }
}
