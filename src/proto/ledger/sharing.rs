//! Who gets how much: guided self-scheduling (Polychronopoulos and Kuck 1987) by measured speed, and a second lease
//! for what a straggler holds when nothing else is left.

use std::time::Duration;

use super::{
    Attempt, Effect, HOLDERS_MAX, LEASES_PER_WORKER_MAX, Lease, Ledger, Stage, State, Worker,
    workers::{WorkerState, visibility},
};
use crate::{
    proto::Timestamp,
    wire::{ContentKey, PeerId, SwarmId},
};

/// A worker takes one part in so many of what is left, in proportion to its speed: large parts first, small ones
/// towards the end, so that all end together.
const SHARE_DIVISOR: u64 = 2;
/// A job is leased again when its holder has had it so many times longer than the asker would need …
const STRAGGLER_FACTOR: u32 = 3;
/// … and at least so long.
const STRAGGLER_MIN: Duration = Duration::from_secs(3);
/// A result that has been on its way for so long, through several tries, may never come.
const COMPUTED_LATE: Duration = Duration::from_secs(120);
/// How long a worker that holds nothing counts when the work is divided.
const RECENT: Duration = Duration::from_secs(10);

impl Ledger {
    /// Grants as much as is this worker's part, out of what it may have.
    pub(super) fn share(
        &mut self,
        now: Timestamp,
        worker: Worker,
        tokens_max: u32,
        jobs_max: usize,
        out: &mut Vec<Effect>,
    ) {
        let held = self.workers.get(&worker.peer).map_or(0, |state| state.leases.len());
        let jobs_max = jobs_max.min(LEASES_PER_WORKER_MAX.saturating_sub(held));
        if jobs_max == 0 {
            return;
        }
        let most = u64::from(tokens_max).min(self.fair_share(now, &worker.peer));
        let before = self.tokens_held(&worker.peer);
        let mut tokens = 0;
        let mut granted = 0;
        for (key, alone) in self.candidates(now, &worker.peer, jobs_max) {
            if granted > 0 && (alone || tokens >= most) {
                break;
            }
            tokens += self.grant(now, worker, key, before + tokens, out);
            granted += 1;
            if alone {
                break;
            }
        }
        if granted == 0
            && let Some(key) = self.straggler(now, &worker.peer)
        {
            self.grant(now, worker, key, before, out);
        }
    }

    /// Ready jobs that the worker may have, in their order, and whether they run alone.
    fn candidates(&self, now: Timestamp, peer: &PeerId, jobs_max: usize) -> Vec<(ContentKey, bool)> {
        let Some(state) = self.workers.get(peer) else { return Vec::new() };
        let fits = |key: &ContentKey| {
            let job = self.jobs.get(key)?;
            (may_have(&state.swarms, job.swarm) && !self.is_left_to_others(now, peer, job))
                .then_some((*key, job.alone))
        };
        self.ready.iter().filter_map(|(_, key)| fits(key)).take(jobs_max).collect()
    }

    /// Tokens of what is left that are this worker's part.
    fn fair_share(&self, now: Timestamp, peer: &PeerId) -> u64 {
        let counts = |state: &WorkerState| !state.leases.is_empty() || now.since(state.seen) < RECENT;
        let speed = |state: &WorkerState| u64::from(state.tokens_per_s.max(1));
        let all: u64 = self.workers.values().filter(|state| counts(state)).map(speed).sum();
        let own = self.workers.get(peer).map_or(1, speed);
        // Speeds are what peers say.
        (self.ready_tokens.saturating_mul(own) / (SHARE_DIVISOR * all.max(own))).max(1)
    }

    /// Leases a job; gives its tokens. `tokens_before` of the worker's other leases come first.
    fn grant(
        &mut self,
        now: Timestamp,
        worker: Worker,
        key: ContentKey,
        tokens_before: u64,
        out: &mut Vec<Effect>,
    ) -> u64 {
        let Some(job) = self.jobs.get_mut(&key) else { return 0 };
        let Some(state) = self.workers.get_mut(&worker.peer) else { return 0 };
        let attempt = self.next_attempt;
        let (alone, order, tokens) = (job.alone, job.order, job.tokens);
        let was_ready = job.state == State::Ready;
        match &mut job.state {
            State::Ready => job.state = State::Leased(vec![attempt]),
            State::Leased(attempts) => attempts.push(attempt),
            State::Delayed(_) => return 0,
        }
        self.next_attempt += 1;
        state.leases.insert(attempt);
        let wait = visibility(tokens_before + u64::from(tokens), state.tokens_per_s);
        let deadline = now.after(wait);
        let lease =
            Lease { job: key, worker, stage: Stage::Queued, since: now, granted: now, deadline, alone };
        self.leases.insert(attempt, lease);
        self.deadlines.insert((deadline, attempt));
        if was_ready {
            self.take_ready(order, key, tokens);
        }
        out.push(Effect::Lease { worker, attempt, job: key, alone });
        u64::from(tokens)
    }

    /// The job that another worker has held longest beyond what this one would need.
    fn straggler(&self, now: Timestamp, peer: &PeerId) -> Option<ContentKey> {
        let asker = self.workers.get(peer)?;
        let is_late = |attempt: &Attempt, lease: &Lease| {
            let job = self.jobs.get(&lease.job)?;
            let State::Leased(attempts) = &job.state else { return None };
            let is_first = attempts.first() == Some(attempt) && attempts.len() < HOLDERS_MAX;
            let own =
                Duration::from_millis(u64::from(job.tokens) * 1000 / u64::from(asker.tokens_per_s.max(1)));
            let is_late = match lease.stage {
                Stage::Queued | Stage::Running => {
                    now.since(lease.granted) >= own.saturating_mul(STRAGGLER_FACTOR)
                }
                Stage::Computed => now.since(lease.since) >= COMPUTED_LATE,
            };
            let may = may_have(&asker.swarms, job.swarm) && !job.failures.has_failed_on(peer);
            (is_first && is_late && may && lease.worker.peer != *peer).then_some(lease.job)
        };
        // Leases stand in the order of their age.
        self.leases
            .iter()
            .take_while(|(_, lease)| now.since(lease.granted) >= STRAGGLER_MIN)
            .find_map(|(attempt, lease)| is_late(attempt, lease))
    }
}

/// Whether who is a member of these swarms may see a text of that one.
pub(super) fn may_have(swarms: &Option<Vec<SwarmId>>, wanted: Option<SwarmId>) -> bool {
    match (swarms, wanted) {
        (None, _) => true,
        (Some(swarms), Some(wanted)) => swarms.contains(&wanted),
        (Some(_), None) => false,
    }
}
