//! The aggregator's ledger: which job is ready, who holds it until when, and what became of it (DESIGN 5).
//!
//! Deliberately absent: texts and results, which `node` keeps, and the question who is a member. Nothing here
//! outlives the process: what is done lies in the store under its content key, and whoever asked for the rest asks
//! again. A result is taken from whoever held a lease of that job at any time, once.

mod effects;
mod failures;
mod sharing;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use effects::{Effect, Event, Holding, Stage, Verdict, Worker};
use failures::{Blame, Failures};
use workers::WorkerState;

use super::{Backoff, Timestamp};
use crate::wire::{ContentKey, PeerId, SwarmId};

/// Fencing number of a lease: every lease has another one, later ones are larger.
pub type Attempt = u64;

/// Jobs that a ledger holds at most. Their texts lie in memory, up to 36 KiB each: 72 MiB; enough for a minute of
/// forty small devices. Who has more hands it over as room is made.
pub const JOBS_MAX: usize = 2048;
/// Workers that are known at most, as many as are served (DESIGN 4); one that holds nothing makes room for another.
const WORKERS_MAX: usize = 256;
/// Leases that one worker holds at most, in all of its lives: half of what its queue takes.
const LEASES_PER_WORKER_MAX: usize = 128;
/// Holders of one job at most.
const HOLDERS_MAX: usize = 2;
/// The shortest visibility timeout: several heartbeats, and a reconnection after a short cut.
const VISIBILITY_MIN: Duration = Duration::from_secs(30);
/// The longest, for the slowest device with the longest job.
const VISIBILITY_MAX: Duration = Duration::from_secs(600);
/// How many times the expected time a lease lasts.
const VISIBILITY_FACTOR: u32 = 4;
/// No heartbeat extends a lease beyond this, however much its holder says that it does: six of the longest timeouts.
const LEASE_MAX: Duration = Duration::from_secs(3600);
/// The heartbeat that extends no more when so many in a row have shown no progress.
const STALLED_MAX: u32 = 3;
/// Leases of a job that end in silence before any heartbeat has called it running, before it runs alone. One that kills
/// its process at once would else go from worker to worker for ever; what runs alone is announced before it begins.
const UNHEARD_MAX: u32 = 2;
/// How old a lease must be before its absence from a heartbeat says that the worker does not have it: the grant
/// may have crossed the heartbeat on its way.
const UNLISTED_AFTER: Duration = Duration::from_secs(10);
/// A worker that holds nothing and has not asked for so long does not count as another one.
const ABSENT_AFTER: Duration = Duration::from_secs(60);
/// How long messages of a worker's former lives are ignored: the idle time-out of its connections. Lives have no order, so
/// it is not for ever: an older echo is taken for a new life, and then it is the present one that is ignored.
const ECHO: Duration = Duration::from_secs(60);
/// Former lives that are remembered: whoever dies more often in that time is busy with that.
const BOOTS_BEFORE_MAX: usize = 8;
/// Wait before a failed job is leased again.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(60) };

/// Numbers for `edge status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Jobs that wait, those that wait for another try included.
    pub ready: usize,
    /// Jobs that somebody holds.
    pub leased: usize,
    /// Tokens of all of them, about.
    pub tokens: u64,
    /// Workers that hold leases.
    pub workers: usize,
}

#[derive(Clone, Debug)]
struct Job {
    swarm: Option<SwarmId>,
    tokens: u32,
    /// Place in the queue: jobs that die alone go behind all others.
    order: (bool, u64),
    state: State,
    failures: Failures,
    /// A process died while it ran this and others: it runs alone until it has succeeded.
    alone: bool,
    /// Leases that ended in silence before they were known to have begun.
    unheard: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Delayed(Timestamp),
    /// Held; two holders at most, when a straggler's job was leased again.
    Leased(Vec<Attempt>),
}

#[derive(Clone, Debug)]
struct Lease {
    job: ContentKey,
    worker: Worker,
    stage: Stage,
    /// Since when it is in this stage.
    since: Timestamp,
    granted: Timestamp,
    deadline: Timestamp,
    alone: bool,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    jobs: BTreeMap<ContentKey, Job>,
    ready: BTreeSet<((bool, u64), ContentKey)>,
    /// Tokens of all that is ready.
    ready_tokens: u64,
    delayed: BTreeSet<(Timestamp, ContentKey)>,
    /// In the order in which they were given.
    leases: BTreeMap<Attempt, Lease>,
    deadlines: BTreeSet<(Timestamp, Attempt)>,
    workers: BTreeMap<PeerId, WorkerState>,
    next_attempt: Attempt,
    next_order: u64,
    rng: fastrand::Rng,
}

impl Ledger {
    /// An empty ledger. `first_attempt` must lie above every attempt of the processes before; `seed` decides the waits.
    pub fn new(first_attempt: Attempt, seed: u64) -> Self {
        Self {
            jobs: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_tokens: 0,
            delayed: BTreeSet::new(),
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            workers: BTreeMap::new(),
            next_attempt: first_attempt,
            next_order: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Jobs that may still be submitted.
    pub fn room(&self) -> usize {
        JOBS_MAX - self.jobs.len()
    }

    /// Whether a job is known and not done.
    pub fn has(&self, job: &ContentKey) -> bool {
        self.jobs.contains_key(job)
    }

    /// Who holds a job, and under which lease; two at most.
    pub fn holders(&self, job: &ContentKey) -> Vec<(Worker, Attempt)> {
        let Some(Job { state: State::Leased(attempts), .. }) = self.jobs.get(job) else { return Vec::new() };
        attempts.iter().filter_map(|at| self.leases.get(at).map(|lease| (lease.worker, *at))).collect()
    }

    /// Numbers for people.
    pub fn counts(&self) -> LedgerCounts {
        let leased = self.jobs.values().filter(|job| matches!(job.state, State::Leased(_))).count();
        LedgerCounts {
            ready: self.jobs.len() - leased,
            leased,
            tokens: self.jobs.values().map(|job| u64::from(job.tokens)).sum(),
            workers: self.workers.values().filter(|worker| !worker.leases.is_empty()).count(),
        }
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let leases = self.deadlines.first().map(|&(until, _)| until);
        let delayed = self.delayed.first().map(|&(until, _)| until);
        leases.into_iter().chain(delayed).min()
    }

    /// Takes in what happened; adds what follows from it to `out`, to be carried out in that order.
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Submit { job, swarm, tokens } => self.submit(job, swarm, tokens, out),
            Event::Move { job: key, swarm } => {
                if let Some(job) = self.jobs.get_mut(&key) {
                    job.swarm = swarm;
                    out.push(Effect::Wake);
                }
            }
            Event::Cancel { job } => self.cancel(&job, out),
            Event::Pull { worker, swarms, tokens, jobs, tokens_per_s } => {
                // Who has no room does not count as one who will take what has failed elsewhere.
                if tokens > 0
                    && jobs > 0
                    && let Some(state) = self.worker(now, worker)
                {
                    (state.tokens_per_s, state.swarms) = (tokens_per_s, swarms);
                    self.share(now, worker, tokens, jobs, out);
                }
            }
            Event::Heartbeat { worker, tokens_done, holding } => {
                self.heartbeat(now, worker, tokens_done, &holding, out);
            }
            Event::Result { worker, attempt, job, verdict } => {
                self.result(now, worker, attempt, job, verdict, out);
            }
            Event::Release { worker, attempts } => {
                // What a worker's queue had kept may go back before its new life has said that it holds it.
                for attempt in attempts {
                    if self.leases.get(&attempt).is_some_and(|lease| lease.worker.peer == worker.peer) {
                        self.end_lease(now, attempt, None, out);
                    }
                }
            }
            Event::Left { worker } => self.forget(now, worker, out),
            Event::Tick => {}
        }
        self.pass_deadlines(now, out);
    }

    fn submit(&mut self, key: ContentKey, swarm: Option<SwarmId>, tokens: u32, out: &mut Vec<Effect>) {
        if self.jobs.len() >= JOBS_MAX || self.jobs.contains_key(&key) {
            return;
        }
        let order = (false, self.next_order);
        self.next_order += 1;
        let failures = Failures::default();
        self.jobs.insert(
            key,
            Job { swarm, tokens, order, state: State::Ready, failures, alone: false, unheard: 0 },
        );
        self.make_ready(key, out);
    }

    fn make_ready(&mut self, key: ContentKey, out: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.state = State::Ready;
        if self.ready.insert((job.order, key)) {
            self.ready_tokens += u64::from(job.tokens);
        }
        if out.last() != Some(&Effect::Wake) {
            out.push(Effect::Wake);
        }
    }

    fn take_ready(&mut self, order: (bool, u64), key: ContentKey, tokens: u32) {
        if self.ready.remove(&(order, key)) {
            self.ready_tokens = self.ready_tokens.saturating_sub(u64::from(tokens));
        }
    }

    fn cancel(&mut self, key: &ContentKey, out: &mut Vec<Effect>) {
        for attempt in self.remove(key) {
            self.drop_lease(attempt);
            out.push(Effect::Withdraw { attempt });
        }
    }

    /// Takes a job out; gives the leases that still stand.
    fn remove(&mut self, key: &ContentKey) -> Vec<Attempt> {
        let Some(job) = self.jobs.remove(key) else { return Vec::new() };
        match job.state {
            State::Ready => {
                self.take_ready(job.order, *key, job.tokens);
                Vec::new()
            }
            State::Delayed(until) => {
                self.delayed.remove(&(until, *key));
                Vec::new()
            }
            State::Leased(attempts) => attempts,
        }
    }

    fn drop_lease(&mut self, attempt: Attempt) -> Option<Lease> {
        let lease = self.leases.remove(&attempt)?;
        self.deadlines.remove(&(lease.deadline, attempt));
        if let Some(worker) = self.workers.get_mut(&lease.worker.peer) {
            worker.leases.remove(&attempt);
        }
        Some(lease)
    }

    fn result(
        &mut self,
        now: Timestamp,
        worker: Worker,
        attempt: Attempt,
        key: ContentKey,
        verdict: Verdict,
        out: &mut Vec<Effect>,
    ) {
        // A number that names another job, or another worker's lease, is a mistake of whoever sent it.
        let is_current = match self.leases.get(&attempt) {
            Some(lease) if lease.job != key || lease.worker.peer != worker.peer => {
                return out.push(Effect::Refuse { worker, attempt });
            }
            lease => lease.is_some(),
        };
        if let Some(state) = self.workers.get_mut(&worker.peer) {
            state.stalled = 0;
        }
        match verdict {
            Verdict::Right if self.jobs.contains_key(&key) => {
                for other in self.remove(&key) {
                    self.drop_lease(other);
                    if other != attempt {
                        out.push(Effect::Withdraw { attempt: other });
                    }
                }
                out.push(Effect::Commit { worker, attempt, job: key });
            }
            Verdict::Right => out.push(Effect::Duplicate { worker, attempt }),
            // A late failure says nothing that its lease's end did not say before.
            Verdict::Failed(reason) => {
                if is_current {
                    self.end_lease(now, attempt, Some(Blame::Failed(reason)), out);
                }
                out.push(Effect::Noted { worker, attempt });
            }
        }
    }

    /// Ends a lease; its job goes back, waits, or is dead.
    fn end_lease(&mut self, now: Timestamp, attempt: Attempt, blame: Option<Blame>, out: &mut Vec<Effect>) {
        let Some(lease) = self.drop_lease(attempt) else { return };
        let key = lease.job;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if let State::Leased(attempts) = &mut job.state {
            attempts.retain(|&other| other != attempt);
        }
        if let Some(blame) = blame {
            let died = matches!(blame, Blame::Died);
            if died && !lease.alone {
                job.alone = true;
            } else {
                job.failures.count(lease.worker.peer, blame);
                job.order.0 |= died;
            }
            if let Some(reason) = job.failures.dead() {
                for other in self.remove(&key) {
                    self.drop_lease(other);
                    out.push(Effect::Withdraw { attempt: other });
                }
                return out.push(Effect::Dead { job: key, reason });
            }
        }
        if matches!(&job.state, State::Leased(attempts) if !attempts.is_empty()) {
            return;
        }
        let failures = job.failures.total();
        if failures == 0 {
            self.make_ready(key, out);
        } else {
            let until = now.after(RETRY.wait(failures, &mut self.rng));
            job.state = State::Delayed(until);
            self.delayed.insert((until, key));
        }
    }

    fn pass_deadlines(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while let Some(&(until, attempt)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            self.expire(now, attempt, out);
        }
        while let Some(&(until, key)) = self.delayed.first()
            && until <= now
        {
            self.delayed.pop_first();
            self.make_ready(key, out);
        }
    }

    /// Ends a lease of which nothing was heard any more: whoever had begun it is taken for dead.
    fn expire(&mut self, now: Timestamp, attempt: Attempt, out: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get(&attempt) else { return };
        if lease.stage == Stage::Queued
            && let Some(job) = self.jobs.get_mut(&lease.job)
        {
            job.unheard += 1;
            job.alone |= job.unheard >= UNHEARD_MAX;
        }
        let blame = (lease.stage == Stage::Running).then_some(Blame::Died);
        self.end_lease(now, attempt, blame, out);
    }

    /// A lease lasts until then.
    fn set_deadline(&mut self, attempt: Attempt, until: Timestamp) {
        let Some(lease) = self.leases.get_mut(&attempt) else { return };
        self.deadlines.remove(&(lease.deadline, attempt));
        lease.deadline = until;
        self.deadlines.insert((until, attempt));
    }
}
