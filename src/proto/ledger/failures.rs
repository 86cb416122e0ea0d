//! When a job is dead: after failures on two workers, or five on the only one (DESIGN 5).

use std::collections::BTreeMap;

use crate::wire::PeerId;

/// Different workers on which a job fails before it is dead.
const WORKERS_MAX: usize = 2;
/// Failures on one worker, where there is no other.
const FAILURES_MAX: u32 = 5;
/// Deaths of processes, each with nothing but this job running: a plug that is pulled says less than an error does.
const DEATHS_MIN: u32 = 3;
/// Characters of a reason that are kept: a person reads it, a peer wrote it.
const REASON_CHARS_MAX: usize = 300;

/// Why a lease that had begun ended without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The worker said why.
    Failed(String),
    /// Nothing more was heard.
    Died,
}

/// Failures of one job.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    by_peer: BTreeMap<PeerId, u32>,
    deaths: u32,
    reason: Option<String>,
}

impl Failures {
    /// Notes one.
    pub(super) fn count(&mut self, peer: PeerId, blame: Blame) {
        *self.by_peer.entry(peer).or_default() += 1;
        match blame {
            Blame::Failed(reason) => self.reason = Some(reason.chars().take(REASON_CHARS_MAX).collect()),
            Blame::Died => self.deaths += 1,
        }
    }

    /// How many there were.
    pub(super) fn total(&self) -> u32 {
        self.by_peer.values().sum()
    }

    /// Whether it has failed on this worker.
    pub(super) fn has_failed_on(&self, peer: &PeerId) -> bool {
        self.by_peer.contains_key(peer)
    }

    /// Why it is dead, if it is.
    pub(super) fn dead(&self) -> Option<String> {
        let (total, workers) = (self.total(), self.by_peer.len());
        let only_deaths = self.reason.is_none();
        let is_dead =
            total >= FAILURES_MAX || (workers >= WORKERS_MAX && (!only_deaths || self.deaths >= DEATHS_MIN));
        is_dead.then(|| {
            self.reason.clone().unwrap_or_else(|| {
                format!("{workers} workers went silent while they ran it alone, {total} times")
            })
        })
    }
}
