//! Lies: results of what was leased to others, and heartbeats that list what is not held.

use std::collections::BTreeMap;

use edge::{
    proto::{Attempt, Holding, LedgerEffect, LedgerEvent, Stage, Verdict},
    wire::ContentKey,
};

use super::{
    aggregator::Reply,
    network::{Fired, Ms, Planted, Up},
    truth::number,
    world::World,
};

/// How long the ledger may take the present life of a worker for a former one.
const ECHO: Ms = 60_000;

impl World {
    /// Somebody delivers what was leased to another, or another job than was leased to him.
    pub(super) fn forge(&mut self, a: usize) {
        if self.aggregators[a].ledger.is_none() || self.aggregators[a].frozen(self.now).is_some() {
            return;
        }
        let leases: Vec<(usize, Attempt, ContentKey)> = self.standing(a);
        if leases.len() < 2 {
            return;
        }
        let (holder, attempt, key) = leases[self.rng.usize(..leases.len())];
        let (_, _, other) = leases[self.rng.usize(..leases.len())];
        let thief = (holder + 1) % self.workers.len();
        let worker = self.life_of(thief, self.workers[thief].boot);
        self.fire(Fired::Forged);
        let what = self.rng.u8(..3);
        if what == 0 {
            // With a number that is over, and a proof that was never given.
            let (outcome, attempt) = (Ok(()), self.rng.u64(..attempt));
            let message = Up::Result { item: u64::MAX, serial: 0, attempt, proof: [0; 16], key, outcome };
            return self.aggregator_hears(a, thief, self.workers[thief].boot, message);
        }
        // Past the proof, which stands for a bug elsewhere: the ledger's own fence.
        let (worker, job) = match what {
            2 if other != key => (self.life_of(holder, self.workers[holder].boot), other),
            _ => (worker, key),
        };
        let event = LedgerEvent::Result { worker, attempt, job, verdict: Verdict::Right };
        let effects = self.tell_ledger(a, event, Reply::Nobody).unwrap_or_default();
        if effects
            .iter()
            .any(|effect| matches!(effect, LedgerEffect::Commit { .. } | LedgerEffect::Duplicate { .. }))
        {
            self.violate(format!("a forged result for attempt {attempt} was accepted"));
        }
    }

    /// Leases that stand at this aggregator: worker, attempt, job.
    pub(super) fn standing(&self, a: usize) -> Vec<(usize, Attempt, ContentKey)> {
        let here = &self.aggregators[a];
        let Some(ledger) = &here.ledger else { return Vec::new() };
        let mut keys: Vec<ContentKey> =
            here.granted.values().flat_map(BTreeMap::values).map(|lease| lease.0).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.iter()
            .flat_map(|key| ledger.holders(key).into_iter().map(|(life, at)| (number(&life.peer), at, *key)))
            .collect()
    }

    /// A heartbeat of a worker's present life ends whatever older lease it does not list.
    pub(super) fn check_unlisted(&mut self, a: usize, w: usize, boot: u32, holding: &[Holding]) {
        let here = &mut self.aggregators[a];
        let Some(ledger) = &here.ledger else { return };
        let Some(leases) = here.granted.get_mut(&w) else { return };
        leases.retain(|attempt, (key, _)| ledger.holders(key).iter().any(|(_, at)| at == attempt));
        // Whoever heard of older lives just now may take this one for the older.
        let is_clear = |&(newest, echo): &(u32, Ms)| newest == boot && (echo == 0 || self.now - echo > ECHO);
        if !here.boots.get(&w).is_some_and(is_clear) {
            return;
        }
        let forgotten = leases.iter().find(|(attempt, (_, at))| {
            self.now - at >= 10_000 && holding.iter().all(|held| held.attempt != **attempt)
        });
        if let Some((attempt, _)) = forgotten {
            let what =
                format!("attempt {attempt} stands, though worker {w} has said that it does not hold it");
            self.violate(what);
        }
    }

    pub(super) fn lie_about_holding(&self, a: usize, w: usize, holding: &[Holding]) -> Vec<Holding> {
        let mut told = holding.to_vec();
        if self.plan.planted == Some(Planted::KeepsDeadLeases) {
            let given = self.aggregators[a].granted.get(&w).into_iter().flat_map(BTreeMap::keys);
            let missing = given.filter(|at| holding.iter().all(|held| held.attempt != **at));
            told.extend(missing.map(|&attempt| Holding { attempt, stage: Stage::Queued }));
        }
        told
    }
}
