//! This node's own threads, which ask the ledger as any worker does, but may have any job.

use std::time::Instant;

use super::{Aggregator, ClientEvent, HEARTBEAT, results::Arrival};
use crate::{
    inference::{Computed, Job},
    node::compute::ComputeEvent,
    proto::{Attempt, LedgerEffect, LedgerEvent, Verdict},
    wire::{ContentKey, Holding, Stage},
};

/// Tokens of one window of this node's own threads.
const WINDOW_TOKENS: u32 = 8192;
/// Jobs of one window.
const WINDOW_JOBS_MAX: usize = 16;

impl Aggregator {
    /// Own threads that have to wait, for the device is hot, give back what they have: others may do it now, and a result that
    /// comes when they go on is taken all the same. By their leases they would be taken for dead.
    pub(super) fn follow_limits(&mut self) {
        let waits = self.limits.waits_because().is_some();
        if std::mem::replace(&mut self.is_waiting, waits) || !waits {
            return;
        }
        let attempts: Vec<Attempt> = self.windows.values().flatten().map(|&(attempt, _)| attempt).collect();
        if !attempts.is_empty() {
            self.tell(LedgerEvent::Release { worker: self.own, attempts });
        }
    }

    /// Own threads ask the ledger as any worker does, but for any placement.
    pub(super) fn feed_own_threads(&mut self) {
        if self.is_waiting {
            return;
        }
        while self.windows.len() < 2 * self.compute.threads() {
            let effects = self.decide(LedgerEvent::Pull {
                worker: self.own,
                swarms: None,
                tokens: WINDOW_TOKENS,
                jobs: WINDOW_JOBS_MAX,
                tokens_per_s: self.speed.tokens_per_s(self.compute.threads()),
            });
            let (mut window, mut jobs) = (Vec::new(), Vec::new());
            for effect in effects {
                match effect {
                    LedgerEffect::Lease { attempt, job, .. } => {
                        // It has waited here for its device to cool down: the lease is for that.
                        let waited = self.windows.values_mut().flatten().find(|(_, key)| *key == job);
                        if let Some((held, _)) = waited {
                            *held = attempt;
                            continue;
                        }
                        let Some(asked) = self.jobs.get(&job) else { continue };
                        let prefix = &self.engine.folder().manifest().prefix.document;
                        match Job::from_spec((*asked.spec).clone(), &self.model, prefix) {
                            Ok(spec) => {
                                window.push((attempt, job));
                                jobs.push(spec);
                            }
                            Err(error) => self.failed(attempt, job, error.to_string()),
                        }
                    }
                    other => self.carry_out(other),
                }
            }
            if jobs.is_empty() {
                return;
            }
            self.windows.insert(self.next_window, window);
            self.compute.run(self.next_window, jobs);
            self.next_window += 1;
        }
    }

    pub(super) fn failed(&mut self, attempt: Attempt, job: ContentKey, reason: String) {
        let worker = self.own;
        self.batch.arrived(attempt, None, None);
        self.tell(LedgerEvent::Result { worker, attempt, job, verdict: Verdict::Failed(reason) });
    }

    pub(super) fn keep_own_leases(&mut self) {
        if self.is_waiting || self.windows.is_empty() || self.beaten.elapsed() < HEARTBEAT {
            return;
        }
        self.beaten = Instant::now();
        let running = self.windows.values().flatten();
        let holding = running.map(|&(attempt, _)| Holding { attempt, stage: Stage::Running }).collect();
        let tokens_done = self.engine.tokens_done();
        self.tell(LedgerEvent::Heartbeat { worker: self.own, tokens_done, holding });
    }

    pub(super) fn computed(&mut self, event: ComputeEvent) {
        match event {
            ComputeEvent::Ready(threads) => {
                if let Err(error) = self.compute.ready(threads) {
                    self.compute.give_up();
                    let error: &dyn std::error::Error = &error;
                    let reason =
                        format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
                    tracing::error!(reason, "this node can not compute");
                    // No job is to blame: whoever else is there may have them.
                    let attempts =
                        std::mem::take(&mut self.windows).into_values().flatten().map(|(attempt, _)| attempt);
                    let (worker, attempts) = (self.own, attempts.collect());
                    self.tell(LedgerEvent::Release { worker, attempts });
                    let clients: Vec<_> = self.clients.keys().copied().collect();
                    for client in clients {
                        self.batch.tell(client, ClientEvent::NoCompute { reason: reason.clone() });
                    }
                }
            }
            ComputeEvent::LetGo => {
                let unbegun = self.compute.ended();
                let leases = unbegun.iter().filter_map(|window| self.windows.remove(window)).flatten();
                let attempts: Vec<Attempt> = leases.map(|(attempt, _)| attempt).collect();
                if !attempts.is_empty() {
                    self.tell(LedgerEvent::Release { worker: self.own, attempts });
                }
            }
            ComputeEvent::Computed(window, outcomes) => {
                let leases = self.windows.remove(&window).unwrap_or_default();
                self.is_woken = true;
                self.compute.computed(window);
                for ((attempt, job), Computed { result, took, .. }) in leases.into_iter().zip(outcomes) {
                    match result {
                        Ok(result) => {
                            let tokens = result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
                            self.speed.note(tokens, took.wall);
                            self.batch.arrived(attempt, Some(Arrival::own(job, result, took.wall)), None);
                            let (worker, verdict) = (self.own, Verdict::Right);
                            self.tell(LedgerEvent::Result { worker, attempt, job, verdict });
                        }
                        Err(error) => {
                            let source = std::error::Error::source(&error).map(|e| format!(": {e}"));
                            self.failed(attempt, job, format!("{error}{}", source.unwrap_or_default()));
                        }
                    }
                }
            }
        }
    }
}
