//! What may be taken of this machine: the worker follows it at once.

use std::time::{Duration, Instant};

use super::Worker;
use crate::{
    node::{
        NodeError,
        governor::{Lent, Message as ToGovernor, Took},
    },
    proto::{Backoff, QueueEvent, budget::Admission},
    wire::{Budget, Energy, PowerSource},
};

/// Before a model is loaded again that did not load.
const LOAD_AGAIN: Backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(1800) };

impl Worker {
    /// What is lent has changed. Where nothing is lent any more what runs stops between two operators of the model, and goes
    /// back with what was not begun; the model goes out of memory.
    pub(super) async fn follow(&mut self) -> Result<(), NodeError> {
        if self.draining.is_some() {
            return Ok(());
        }
        // What nothing is known of yet is neither taken nor given back.
        let Some(lent) = self.lent().filter(|_| self.compute.threads() > 0) else {
            return if self.compute.threads() == 0 { self.set_budget().await } else { Ok(()) };
        };
        let before = self.threads;
        self.threads = match lent.admission {
            _ if self.broken.is_some() => 0,
            Admission::Nothing => 0,
            Admission::All | Admission::Begun => lent.threads.min(self.compute.threads()),
        };
        self.valve.set(self.threads, lent.duty_permille);
        // First, for the disk may take its time.
        let mut unbegun = Vec::new();
        if self.threads == 0 && before > 0 {
            unbegun = self.compute.let_go();
            self.valve.wake();
        }
        self.set_budget().await?;
        self.end_unbegun(unbegun).await
    }

    pub(super) fn lent(&self) -> Option<Lent> {
        *self.ends.lent.borrow()
    }

    /// The model does not load: nothing is taken for a while, and then it is tried again.
    pub(super) async fn break_down(&mut self) -> Result<(), NodeError> {
        self.breakdowns = self.breakdowns.saturating_add(1);
        self.broken = Some(Instant::now() + LOAD_AGAIN.wait(self.breakdowns, &mut self.rng));
        self.follow().await
    }

    /// Whether it is time to try again.
    pub(super) async fn recover(&mut self) -> Result<(), NodeError> {
        if self.broken.is_some_and(|until| until <= Instant::now()) {
            self.broken = None;
            self.compute.retry();
            self.follow().await?;
        }
        Ok(())
    }

    pub(super) async fn set_budget(&mut self) -> Result<(), NodeError> {
        let (threads, tokens_per_s) = (self.threads, self.tokens_per_s());
        let takes_more = self.lent().is_some_and(|lent| lent.admission == Admission::All);
        self.tell(QueueEvent::Budget { threads, tokens_per_s, takes_more }).await
    }

    /// Of all threads that may run, at the speed that they had last.
    pub(super) fn tokens_per_s(&self) -> u32 {
        self.speed.tokens_per_s(self.threads)
    }

    /// As aggregators are told: coarse, and nothing else of this machine.
    pub(super) fn advert(&self) -> Budget {
        let lent = self.lent();
        let lasts = lent
            .and_then(|lent| lent.until)
            .map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        Budget {
            threads: u16::try_from(self.threads).unwrap_or(u16::MAX),
            duty_permille: lent.map_or(0, |lent| lent.duty_permille),
            tokens_per_s: self.tokens_per_s(),
            power: lent.map_or(PowerSource::Unknown, |lent| lent.power),
            lasts_s: lasts.map(|lasts| u32::try_from(lasts).unwrap_or(u32::MAX)),
        }
    }

    /// The governor hears whether work runs, or waits to.
    pub(super) fn say_works(&self) {
        let counts = self.queue.counts();
        let works = counts.running + counts.queued > 0;
        self.ends.works.send_if_modified(|before| std::mem::replace(before, works) != works);
    }

    /// Tokens and jobs to ask for: no more than can be done before what is lent ends, as far as that is known.
    pub(super) fn wanted(&self) -> (u32, usize) {
        let (tokens, jobs) = self.queue.wanted();
        if self.is_short_of_memory() {
            return (0, 0);
        }
        let advert = self.advert();
        let tokens = match (advert.lasts_s, advert.tokens_per_s) {
            (Some(lasts), speed) if speed > 0 => tokens.min(lasts.saturating_mul(speed)),
            _ => tokens,
        };
        (tokens, if tokens == 0 { 0 } else { jobs })
    }

    /// Whether the model is not in memory and there is no room for it.
    pub(super) fn is_short_of_memory(&self) -> bool {
        !self.engine.is_loaded() && self.lent().is_some_and(|lent| lent.memory_bytes.is_some())
    }

    /// What a job took goes to the account; gives its energy, for the receipt.
    pub(super) fn account(&self, took: Took) -> Option<Energy> {
        let (draw, governor) = ((*self.ends.draw.borrow())?, self.governor.as_ref()?);
        // An account that is far behind is worth less than work that waits for it.
        let _ = governor.0.try_send(ToGovernor::Took(took));
        Some(draw.cost(took.cpu_ms).0)
    }
}
