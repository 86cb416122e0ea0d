//! Whom a worker asks for work.

use std::time::{Duration, Instant};

use super::{Answer, PULL_GRACE, Worker};
use crate::{
    inference::CHUNKER_VERSION,
    node::{
        ask::{AskError, ask},
        caught::caught,
    },
    wire::{PULL_WAIT_MS_MAX, PeerId, Pull},
};

impl Worker {
    /// An aggregator has work from now on, or none any more.
    pub(super) fn demand(&mut self, peer: &PeerId, has_work: bool) {
        if let Some(aggregator) = self.aggregators.get_mut(peer) {
            (aggregator.has_work, aggregator.failures) = (has_work, 0);
            aggregator.not_before = Instant::now();
        }
    }

    /// Asks every aggregator that has work and is not being asked, where there is room.
    pub(super) fn pull(&mut self) {
        let (tokens, jobs) = self.wanted();
        if jobs == 0 || self.draining.is_some() {
            return;
        }
        let pull = Pull {
            budget: self.advert(),
            models: vec![self.engine.folder().hash()],
            chunker: CHUNKER_VERSION,
            tokens,
            jobs: u16::try_from(jobs).unwrap_or(u16::MAX),
            wait_ms: PULL_WAIT_MS_MAX,
        };
        let now = Instant::now();
        for (&peer, aggregator) in &mut self.aggregators {
            if !aggregator.has_work || aggregator.is_pulling || aggregator.not_before > now {
                continue;
            }
            aggregator.is_pulling = true;
            let (connection, generation, pull) =
                (aggregator.connection.clone(), aggregator.generation, pull.clone());
            let wait = Duration::from_millis(u64::from(PULL_WAIT_MS_MAX)) + PULL_GRACE;
            let missed = Answer::Pulled(peer, generation, Err(AskError::Nothing));
            let task = self.tasks.spawn_local(caught(missed, async move {
                Answer::Pulled(peer, generation, ask(&connection, &pull, wait).await)
            }));
            self.pulls.insert(peer, task);
        }
    }
}
