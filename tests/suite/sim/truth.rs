//! What is so, whatever the machines believe: each job, what became of it, and who may see it.

use std::collections::BTreeMap;

use edge::wire::{ContentKey, PeerId, SwarmId};

use super::network::Ms;

/// What happens when somebody runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    /// It fails with a reason.
    Fails,
    /// The process that runs it dies.
    Kills,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) aggregator: usize,
    /// `None`: only the aggregator's own node.
    pub(super) swarm: Option<SwarmId>,
    pub(super) tokens: u32,
    pub(super) kind: Kind,
    /// In which life of the aggregator it was last submitted.
    pub(super) submitted: Option<u32>,
    pub(super) cancelled: bool,
    pub(super) dead: Option<String>,
    pub(super) settled_at: Option<Ms>,
}

impl Job {
    /// Whether nobody waits for it any more, other than by a commit.
    pub(super) fn is_over(&self) -> bool {
        self.cancelled || self.dead.is_some()
    }
}

#[derive(Debug)]
pub(super) struct Truth {
    pub(super) jobs: Vec<Job>,
    /// Disks of the aggregators: who committed what.
    pub(super) committed: BTreeMap<usize, PeerId>,
}

impl Truth {
    pub(super) fn key(job: usize) -> ContentKey {
        let mut bytes = [7; 32];
        // Their order among keys is not the one in which they are submitted.
        bytes[..4].copy_from_slice(&(job as u32).wrapping_mul(0x9E37_79B1).to_be_bytes());
        bytes[4..8].copy_from_slice(&(job as u32).to_be_bytes());
        ContentKey::from_bytes(bytes)
    }

    pub(super) fn job(key: &ContentKey) -> usize {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&key.as_bytes()[4..8]);
        u32::from_be_bytes(bytes) as usize
    }

    /// Whether somebody still waits for this job.
    pub(super) fn is_wanted(&self, job: usize) -> bool {
        !self.jobs[job].is_over() && !self.committed.contains_key(&job)
    }

    pub(super) fn is_settled(&self) -> bool {
        (0..self.jobs.len()).all(|job| !self.is_wanted(job))
    }
}

pub(super) fn peer(n: usize) -> PeerId {
    let mut bytes = [3; 32];
    bytes[..2].copy_from_slice(&(n as u16).to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// The number of which [`peer`] made this.
pub(super) fn number(peer: &PeerId) -> usize {
    usize::from(u16::from_be_bytes([peer.as_bytes()[0], peer.as_bytes()[1]]))
}
