//! What may be taken of this machine: the worker follows it at once.

use std::time::Instant;

use super::Worker;
use crate::{
    node::{
        NodeError,
        governor::{Lent, Message as ToGovernor, Took},
    },
    proto::{QueueEvent, budget::Admission},
    wire::{Budget, Energy},
};

impl Worker {
    /// What is lent has changed. Where nothing is lent any more what runs stops between two operators of the model, and goes
    /// back with what was not begun; the model goes out of memory.
    pub(super) async fn follow(&mut self) -> Result<(), NodeError> {
        if self.draining.is_some() || self.compute.threads() == 0 {
            return Ok(());
        }
        let lent = self.lent();
        self.valve.set(lent.threads.min(self.compute.threads()), lent.duty_permille);
        let before = self.threads;
        self.threads = match lent.admission {
            Admission::Nothing => 0,
            Admission::All | Admission::Begun => lent.threads.min(self.compute.threads()),
        };
        self.set_budget().await?;
        if self.threads == 0 && before > 0 {
            let unbegun = self.compute.let_go();
            self.valve.wake();
            self.end_unbegun(unbegun).await?;
        }
        Ok(())
    }

    pub(super) fn lent(&self) -> Lent {
        *self.ends.lent.borrow()
    }

    pub(super) async fn set_budget(&mut self) -> Result<(), NodeError> {
        let (threads, tokens_per_s) = (self.threads, self.tokens_per_s());
        let takes_more = self.lent().admission == Admission::All;
        self.tell(QueueEvent::Budget { threads, tokens_per_s, takes_more }).await
    }

    /// Of all threads that may run, at the speed that they had last.
    pub(super) fn tokens_per_s(&self) -> u32 {
        self.speed.tokens_per_s(self.threads)
    }

    /// As aggregators are told: coarse, and nothing else of this machine.
    pub(super) fn advert(&self) -> Budget {
        let lent = self.lent();
        let lasts = lent.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        Budget {
            threads: u16::try_from(self.threads).unwrap_or(u16::MAX),
            duty_permille: lent.duty_permille,
            tokens_per_s: self.tokens_per_s(),
            power: lent.power,
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
        let advert = self.advert();
        let tokens = match (advert.lasts_s, advert.tokens_per_s) {
            (Some(lasts), speed) if speed > 0 => tokens.min(lasts.saturating_mul(speed)),
            _ => tokens,
        };
        (tokens, if tokens == 0 { 0 } else { jobs })
    }

    /// What a job took goes to the account; gives its energy, for the receipt.
    pub(super) fn account(&self, took: Took) -> Option<Energy> {
        let (draw, governor) = ((*self.ends.draw.borrow())?, self.governor.as_ref()?);
        // An account that is far behind is worth less than work that waits for it.
        let _ = governor.0.try_send(ToGovernor::Took(took));
        Some(draw.cost(took.cpu_ms).0)
    }
}
