//! What is known of each worker, and what its heartbeats do to its leases.
//!
//! A worker has one life at a time. What its queue had kept when it was started anew goes on under the leases that it
//! had; what the new life does not list has ended with the one before.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    ABSENT_AFTER, Attempt, BOOTS_BEFORE_MAX, Blame, ECHO, Effect, Holding, Job, LEASE_MAX, Ledger,
    STALLED_MAX, Stage, UNLISTED_AFTER, VISIBILITY_FACTOR, VISIBILITY_MAX, VISIBILITY_MIN, WORKERS_MAX,
    Worker, sharing::may_have,
};
use crate::{
    proto::Timestamp,
    wire::{PeerId, SwarmId},
};

#[derive(Clone, Debug)]
pub(super) struct WorkerState {
    /// Its present life …
    pub(super) boot: [u8; 16],
    /// … and those before, with the time at which each was over: their messages may still be on their way.
    pub(super) boots_before: VecDeque<([u8; 16], Timestamp)>,
    pub(super) leases: BTreeSet<Attempt>,
    /// Where it is a member, as of its last question; nowhere before it.
    pub(super) swarms: Option<Vec<SwarmId>>,
    pub(super) tokens_per_s: u32,
    pub(super) tokens_done: u64,
    pub(super) stalled: u32,
    pub(super) seen: Timestamp,
}

impl Ledger {
    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        worker: Worker,
        tokens_done: u64,
        holding: &[Holding],
        out: &mut Vec<Effect>,
    ) {
        let held: BTreeMap<Attempt, Stage> = holding.iter().map(|held| (held.attempt, held.stage)).collect();
        let is_its_own = |attempt: &Attempt| {
            self.leases.get(attempt).is_some_and(|lease| lease.worker.peer == worker.peer)
        };
        let unknown = held.keys().filter(|attempt| !is_its_own(attempt));
        out.extend(unknown.map(|&attempt| Effect::Withdraw { attempt }));

        let Some(state) = self.worker(now, worker) else { return };
        let has_moved = tokens_done != std::mem::replace(&mut state.tokens_done, tokens_done);
        // Who has work and a thread for it makes progress; results that wait for delivery make none.
        let is_busy = holding.iter().any(|held| held.stage != Stage::Computed);
        state.stalled = if has_moved || !is_busy { 0 } else { state.stalled.saturating_add(1) };
        let (extends, speed) = (state.stalled < STALLED_MAX, state.tokens_per_s);
        let leases: Vec<Attempt> = state.leases.iter().copied().collect();
        let mut tokens = 0;
        for attempt in leases {
            tokens += self.lease_tokens(attempt);
            let Some(lease) = self.leases.get_mut(&attempt) else { continue };
            let Some(&stage) = held.get(&attempt) else {
                if lease.worker != worker {
                    let blame = (lease.stage == Stage::Running).then_some(Blame::Died);
                    self.end_lease(now, attempt, blame, out);
                } else if now.since(lease.granted) >= UNLISTED_AFTER {
                    self.end_lease(now, attempt, None, out);
                }
                continue;
            };
            lease.worker = worker;
            if lease.stage != stage {
                (lease.stage, lease.since) = (stage, now);
            }
            if extends {
                let until = now.after(visibility(tokens, speed)).min(lease.granted.after(LEASE_MAX));
                let until = until.max(lease.deadline);
                self.set_deadline(attempt, until);
            }
        }
    }

    /// A worker that said goodbye: all of its leases end, and nothing counts as a failure.
    pub(super) fn forget(&mut self, now: Timestamp, worker: Worker, out: &mut Vec<Effect>) {
        let Some(state) = self.workers.get(&worker.peer) else { return };
        let is_present = state.boot == worker.boot;
        let leases: Vec<Attempt> = state.leases.iter().copied().collect();
        if is_present {
            self.workers.remove(&worker.peer);
        }
        for attempt in leases {
            if is_present || self.leases.get(&attempt).is_some_and(|lease| lease.worker == worker) {
                self.end_lease(now, attempt, None, out);
            }
        }
    }

    /// The state of a worker, made where it is new: whoever was silent longest and holds nothing makes room. None where
    /// nobody does, and for a life that has just ended.
    pub(super) fn worker(&mut self, now: Timestamp, worker: Worker) -> Option<&mut WorkerState> {
        if !self.workers.contains_key(&worker.peer) && self.workers.len() >= WORKERS_MAX {
            let idle = self.workers.iter().filter(|(_, state)| state.leases.is_empty());
            let oldest = idle.min_by_key(|(_, state)| state.seen).map(|(&peer, _)| peer)?;
            self.workers.remove(&oldest);
        }
        let state = self.workers.entry(worker.peer).or_insert_with(|| WorkerState {
            boot: worker.boot,
            boots_before: VecDeque::new(),
            leases: BTreeSet::new(),
            swarms: Some(Vec::new()),
            tokens_per_s: 0,
            tokens_done: 0,
            stalled: 0,
            seen: now,
        });
        if state.boots_before.iter().any(|&(boot, over)| boot == worker.boot && now.since(over) < ECHO) {
            return None;
        }
        if state.boot != worker.boot {
            state.boots_before.truncate(BOOTS_BEFORE_MAX - 1);
            state.boots_before.push_front((std::mem::replace(&mut state.boot, worker.boot), now));
            state.stalled = 0;
        }
        state.seen = now;
        Some(state)
    }

    /// Tokens of all that a worker holds.
    pub(super) fn tokens_held(&self, peer: &PeerId) -> u64 {
        self.workers
            .get(peer)
            .map_or(0, |state| state.leases.iter().map(|attempt| self.lease_tokens(*attempt)).sum())
    }

    fn lease_tokens(&self, attempt: Attempt) -> u64 {
        let job = self.leases.get(&attempt).and_then(|lease| self.jobs.get(&lease.job));
        job.map_or(0, |job| u64::from(job.tokens))
    }

    /// Whether a job that has failed on this peer is left to another that is here, may have it and has not failed.
    pub(super) fn is_left_to_others(&self, now: Timestamp, peer: &PeerId, job: &Job) -> bool {
        let is_here = |state: &WorkerState| !state.leases.is_empty() || now.since(state.seen) < ABSENT_AFTER;
        job.failures.has_failed_on(peer)
            && self.workers.iter().any(|(other, state)| {
                !job.failures.has_failed_on(other) && is_here(state) && may_have(&state.swarms, job.swarm)
            })
    }
}

/// How long a lease lasts without a heartbeat, when so many tokens come before its end.
pub(super) fn visibility(tokens: u64, tokens_per_s: u32) -> Duration {
    if tokens_per_s == 0 {
        // Nothing is known of a new worker: it will be by its next heartbeat.
        return VISIBILITY_MIN;
    }
    let expected = Duration::from_millis(tokens.saturating_mul(1000) / u64::from(tokens_per_s));
    expected.saturating_mul(VISIBILITY_FACTOR).clamp(VISIBILITY_MIN, VISIBILITY_MAX)
}
