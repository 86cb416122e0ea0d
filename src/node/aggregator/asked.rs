//! A job that somebody asks for: who, and where its text may go for each of them.
//!
//! Deliberately absent: what is done about it, which is the actor's and the ledger's.

use std::sync::Arc;

use super::ClientId;
use crate::wire::{JobSpec, SwarmId};

/// One job, and whoever asks for it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) spec: Arc<JobSpec>,
    /// Each with the placement that it named, in the order in which they came. The first one's stands: that may be the
    /// narrower one, but it is always one that somebody named who still asks.
    clients: Vec<(ClientId, Option<SwarmId>)>,
    /// Swarms whose members may have been given it.
    placed: Vec<SwarmId>,
}

/// What remains when a client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    /// All as it was.
    Same,
    /// Others ask, and its text may go elsewhere from now on.
    Moved(Option<SwarmId>),
    /// Nobody asks for it any more.
    Nobody,
}

impl Asked {
    pub(super) fn new(spec: JobSpec, client: ClientId, swarm: Option<SwarmId>) -> Self {
        Self { spec: Arc::new(spec), clients: vec![(client, swarm)], placed: swarm.into_iter().collect() }
    }

    /// Whose members may be given it now; without one only this node.
    pub(super) fn swarm(&self) -> Option<SwarmId> {
        self.clients.first().and_then(|&(_, swarm)| swarm)
    }

    /// Whether members of this swarm may have been given it. Where it was never for others it was in another life of this
    /// process, or was asked for before by whoever has gone: then nothing is known.
    pub(super) fn may_have_been_for(&self, swarm: &SwarmId) -> bool {
        self.placed.is_empty() || self.placed.contains(swarm)
    }

    /// One more asks for the same. Who asks twice is counted once, with what it said first.
    pub(super) fn join(&mut self, client: ClientId, swarm: Option<SwarmId>) {
        if self.clients.iter().all(|&(other, _)| other != client) {
            self.clients.push((client, swarm));
        }
    }

    /// A client asks no more.
    pub(super) fn leave(&mut self, client: ClientId) -> Remains {
        let before = self.swarm();
        self.clients.retain(|&(other, _)| other != client);
        let now = self.swarm();
        if self.clients.is_empty() {
            return Remains::Nobody;
        }
        if now == before {
            return Remains::Same;
        }
        if let Some(swarm) = now.filter(|swarm| !self.placed.contains(swarm)) {
            self.placed.push(swarm);
        }
        Remains::Moved(now)
    }

    /// Whether this client asks for it.
    pub(super) fn is_for(&self, client: ClientId) -> bool {
        self.clients.iter().any(|&(other, _)| other == client)
    }

    /// Who is to be told what became of it.
    pub(super) fn into_clients(self) -> Vec<ClientId> {
        self.clients.into_iter().map(|(client, _)| client).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Carry, ChunkOptions, ContentKey, ModelHash, Syntax};

    const HOME: SwarmId = SwarmId::from_bytes([1; 32]);
    const WORK: SwarmId = SwarmId::from_bytes([2; 32]);

    fn asked(client: ClientId, swarm: Option<SwarmId>) -> Asked {
        let spec = JobSpec {
            key: ContentKey::from_bytes([1; 32]),
            model: ModelHash::from_bytes([2; 32]),
            chunker: 1,
            options: ChunkOptions { tokens_max: 254, overlap_tokens: 0 },
            syntax: Syntax::Plain,
            carry: Carry::default(),
            body_start: 0,
            text: "text".into(),
        };
        Asked::new(spec, client, swarm)
    }

    #[test]
    fn text_goes_nowhere_that_nobody_named_who_still_asks() {
        let mut job = asked(1, Some(HOME));
        job.join(2, None);
        job.join(2, Some(WORK));
        job.join(3, Some(WORK));
        assert_eq!(job.swarm(), Some(HOME), "the first one named it");
        assert_eq!(job.leave(7), Remains::Same, "it never asked");
        assert_eq!(job.leave(1), Remains::Moved(None), "whoever came next wants it kept here");
        assert_eq!(job.swarm(), None);
        assert_eq!(job.leave(2), Remains::Moved(Some(WORK)));
        assert_eq!(job.leave(3), Remains::Nobody);
    }

    #[test]
    fn who_goes_changes_nothing_for_those_who_want_the_same() {
        let mut job = asked(1, Some(HOME));
        job.join(2, Some(HOME));
        job.join(3, None);
        assert_eq!(job.leave(3), Remains::Same);
        assert_eq!(job.leave(1), Remains::Same);
        assert_eq!((job.swarm(), job.into_clients()), (Some(HOME), vec![2]));
    }

    #[test]
    fn a_result_may_come_from_wherever_it_was() {
        let mut job = asked(1, Some(HOME));
        assert!(job.may_have_been_for(&HOME) && !job.may_have_been_for(&WORK));
        job.join(2, Some(WORK));
        assert!(!job.may_have_been_for(&WORK), "it is not there yet");
        job.leave(1);
        assert!(job.may_have_been_for(&HOME) && job.may_have_been_for(&WORK));
        assert!(asked(1, None).may_have_been_for(&HOME), "nothing is known of an earlier life");
    }
}
