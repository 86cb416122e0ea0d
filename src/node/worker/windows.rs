//! A window on its way through the compute threads, and its results to whoever asked.

use std::{error::Error, time::Instant};

use super::{Answer, PULL_AGAIN, Running, Worker};
use crate::{
    inference::{Computed, Job, JobError, SpecError},
    node::{
        NodeError,
        ask::{ANSWER_WAIT, AskError, ask},
        caught::caught,
        compute::ComputeEvent,
        disk::{Disk, DiskError},
        governor::Took,
    },
    proto::{Delivery, Item, ItemId, QueueEvent, Ran},
    transport::Connection,
    wire::{
        Deliver, Delivered, Energy, Outcome, PeerId, REASON_BYTES_MAX, Receipt, RefusalReason, SegmentResult,
        Signed,
    },
};

impl Worker {
    /// Reads the jobs of a window and hands them to the threads. What is none fails at once, alone.
    pub(super) async fn start_window(&mut self, window: u64, ids: Vec<ItemId>) -> Result<(), DiskError> {
        let read = ids.clone();
        let jobs = self
            .disk
            .call(move |store| read.iter().map(|&id| store.queued_job(id)).collect::<Result<Vec<_>, _>>())
            .await?;
        let model = self.engine.folder().hash();
        let prefix = self.engine.folder().manifest().prefix.document.clone();
        let (mut sound, mut specs) = (Vec::new(), Vec::new());
        for (id, leased) in ids.into_iter().zip(jobs) {
            let Some(aggregator) = self.queue.item(id).map(|item| item.aggregator) else { continue };
            let job = match leased {
                Some(leased) => {
                    self.running.insert(id, Running { swarm: leased.swarm, aggregator });
                    Job::from_spec(leased.job, &model, &prefix).map_err(|error| match error {
                        // It was leased to this node before it had another model, or without being asked for.
                        SpecError::Chunker { .. } | SpecError::Model { .. } => Ran::Unfit,
                        error => Ran::Failed(error.to_string()),
                    })
                }
                None => Err(Ran::Failed("its text was damaged on the worker's disk".to_owned())),
            };
            match job {
                Ok(job) => {
                    sound.push(id);
                    specs.push(job);
                }
                Err(ran) => {
                    if ran == Ran::Unfit {
                        self.let_rest(&aggregator);
                    }
                    self.running.remove(&id);
                    self.unsound.push((window, id, ran));
                }
            }
        }
        self.windows.insert(window, sound);
        if specs.is_empty() {
            self.empty_windows.push(window);
        } else {
            self.compute.run(window, specs);
        }
        Ok(())
    }

    /// Windows of which no item could be run have ended at once.
    pub(super) async fn end_empty_windows(&mut self) -> Result<(), NodeError> {
        while let Some(window) = self.empty_windows.pop() {
            self.windows.remove(&window);
            let outcomes = self.failed_at_once(window);
            self.tell(QueueEvent::Ended { window, outcomes }).await?;
        }
        Ok(())
    }

    /// Windows that no thread will begin: what they held was stopped, and goes back.
    pub(super) async fn end_unbegun(&mut self, windows: Vec<u64>) -> Result<(), NodeError> {
        for window in windows {
            self.windows.remove(&window);
            let outcomes = self.failed_at_once(window);
            self.tell(QueueEvent::Ended { window, outcomes }).await?;
        }
        Ok(())
    }

    /// Who leases what this node can not run is asked less and less often, or it would lease the same again.
    fn let_rest(&mut self, aggregator: &PeerId) {
        let Some(state) = self.aggregators.get_mut(aggregator) else { return };
        state.unfit = state.unfit.saturating_add(1);
        state.not_before = state.not_before.max(Instant::now() + PULL_AGAIN.wait(state.unfit, &mut self.rng));
        if state.unfit == 1 {
            tracing::warn!(peer = %aggregator.short(), "leases what this node has no model or chunker for");
        }
    }

    fn failed_at_once(&mut self, window: u64) -> Vec<(ItemId, Ran)> {
        let mut outcomes = Vec::new();
        self.unsound.retain(|(of, id, ran)| {
            if *of == window {
                outcomes.push((*id, ran.clone()));
            }
            *of != window
        });
        outcomes
    }

    pub(super) async fn computed(&mut self, event: ComputeEvent) -> Result<(), NodeError> {
        match event {
            ComputeEvent::Ready(threads) => {
                let Err(error) = self.compute.ready(threads) else { return Ok(()) };
                let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                tracing::error!(error = %format!("{error}{source}"), "this node can not compute for others");
                // First, or the queue would begin the next windows; and no job is to blame.
                self.break_down().await?;
                let windows = self.windows.keys().copied().collect();
                self.end_unbegun(windows).await
            }
            ComputeEvent::LetGo => {
                let unbegun = self.compute.ended();
                self.end_unbegun(unbegun).await
            }
            ComputeEvent::Computed(window, computed) => {
                let ids = self.windows.remove(&window).unwrap_or_default();
                self.compute.computed(window);
                let mut outcomes = self.failed_at_once(window);
                for (id, computed) in ids.into_iter().zip(computed) {
                    outcomes.push((id, self.outcome(id, computed)));
                }
                self.tell(QueueEvent::Ended { window, outcomes }).await?;
                if self.draining.is_some() { Ok(()) } else { self.set_budget().await }
            }
        }
    }

    fn outcome(&mut self, id: ItemId, computed: Computed) -> Ran {
        let Computed { result, took, .. } = computed;
        let running = self.running.remove(&id);
        let cpu_ms = u64::try_from(took.cpu.as_millis()).unwrap_or(u64::MAX);
        // Also what came to nothing was taken of this machine.
        let chunks = result.as_ref().map_or(&[][..], |result| &result.chunks);
        let tokens = chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let vectors = result.as_ref().map_or(0, |result| 4 * result.vectors.len());
        let energy = running.as_ref().and_then(|running| {
            let (swarm, is_right) = (running.swarm, result.is_ok());
            let (chunks, bytes) = (chunks.len() as u64, vectors as u64);
            self.account(Took { swarm, is_right, chunks, tokens, cpu_ms, bytes })
        });
        match (result, running, self.queue.item(id)) {
            (Ok(result), Some(running), Some(item)) => {
                self.speed.note(tokens, took.wall);
                self.breakdowns = 0;
                self.counts.jobs_done += 1;
                self.counts.tokens_done += tokens;
                let receipt = receipt(&result, &running, item, (tokens, cpu_ms), energy);
                let signed = Signed::sign(&self.key, &receipt);
                if let Some(aggregator) = self.aggregators.get_mut(&running.aggregator) {
                    aggregator.unfit = 0;
                }
                self.outcomes.insert(id, Outcome::Result(result, signed));
                Ran::Right
            }
            (Err(JobError::Stopped), ..) => Ran::Stopped,
            (Err(error), ..) => {
                self.counts.jobs_failed += 1;
                let source = error.source().map(|source| format!(": {source}"));
                Ran::Failed(format!("{error}{}", source.unwrap_or_default()))
            }
            (Ok(_), ..) => Ran::Stopped,
        }
    }

    /// Sends a result from the disk.
    pub(super) fn deliver(&mut self, id: ItemId, aggregator: PeerId) {
        let connection = self.aggregators.get(&aggregator).map(|aggregator| aggregator.connection.clone());
        let (item, disk) = (self.queue.item(id).cloned(), self.disk.clone());
        self.tasks.spawn_local(caught(Answer::Delivered(id, Delivery::Missed), async move {
            let delivery = match (connection, item) {
                (Some(connection), Some(item)) => delivered(&connection, &disk, id, &item).await,
                _ => Delivery::Missed,
            };
            Answer::Delivered(id, delivery)
        }));
    }
}

fn receipt(
    result: &SegmentResult,
    running: &Running,
    item: &Item,
    (tokens, cpu_ms): (u64, u64),
    energy: Option<Energy>,
) -> Receipt {
    Receipt {
        job: item.key,
        result: result.hash(),
        aggregator: running.aggregator,
        swarm: running.swarm,
        tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
        cpu_ms: u32::try_from(cpu_ms).unwrap_or(u32::MAX),
        energy,
    }
}

/// As much of a reason as goes to whoever asked.
pub(super) fn shortened(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    reason
}

/// One delivery: whatever the aggregator answers, it is over; without an answer it comes again.
async fn delivered(connection: &Connection, disk: &Disk, id: ItemId, item: &Item) -> Delivery {
    let outcome = match disk.call(move |store| store.outcome(id)).await {
        Ok(Some(outcome)) => outcome,
        // Damaged on our disk: the lease ends, and somebody computes it again.
        Ok(None) => return Delivery::Ended,
        Err(_) => return Delivery::Missed,
    };
    let deliver = Deliver { attempt: item.attempt, proof: item.proof, job: item.key, outcome };
    match ask::<_, Delivered>(connection, &deliver, ANSWER_WAIT).await {
        Ok(answer) => {
            tracing::debug!(job = %item.key, ?answer, "delivered");
            Delivery::Ended
        }
        Err(AskError::Refused(refused)) if refused.reason == RefusalReason::Wrong => {
            tracing::warn!(job = %item.key, "the aggregator knows nothing of this lease");
            Delivery::Ended
        }
        Err(error) => {
            tracing::debug!(job = %item.key, %error, "delivery missed");
            Delivery::Missed
        }
    }
}
