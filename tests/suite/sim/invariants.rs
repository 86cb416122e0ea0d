//! What must hold after every step, and in the end.

use std::collections::BTreeMap;

use edge::proto::{ItemState, LEDGER_JOBS_MAX, QUEUE_ITEMS_MAX};

use super::{
    network::Ms,
    truth::{Kind, Truth},
    worker::aggregator_id,
    world::{AGGREGATORS, World},
};

/// Bounds of the ledger that are not its public ones.
const LEASES_PER_WORKER_MAX: usize = 128;
const HOLDERS_MAX: usize = 2;
/// And of the queue.
const DELIVERIES_MAX: usize = 4;

impl World {
    /// After each step of an aggregator: as many jobs as are wanted, each once.
    pub(super) fn check_aggregator(&mut self, a: usize) {
        let Some(ledger) = &self.aggregators[a].ledger else { return };
        let counts = ledger.counts();
        if counts.ready + counts.leased > LEDGER_JOBS_MAX {
            self.violate(format!("aggregator {a} holds too many jobs"));
        }
    }

    /// After each step of a worker: its disk has what its queue has, and nothing vanished between them.
    pub(super) fn check_worker(&mut self, w: usize) {
        let here = &self.workers[w];
        let Some(queue) = &here.queue else { return };
        let mut on_disk = [const { Vec::new() }; AGGREGATORS];
        for held in here.disk.values() {
            let state = if held.outcome.is_some() { ItemState::Computed } else { held.item.state };
            for (a, items) in on_disk.iter_mut().enumerate() {
                if held.item.aggregator == aggregator_id(a) {
                    items.push((held.item.attempt, state));
                }
            }
        }
        let differs = (0..AGGREGATORS).any(|a| queue.holding(&aggregator_id(a)) != on_disk[a]);
        let too_many = here.disk.len() > QUEUE_ITEMS_MAX
            || (0..AGGREGATORS)
                .any(|a| here.deliveries.values().filter(|to| to.0 == a).count() > DELIVERIES_MAX);
        if differs {
            self.violate(format!("worker {w}: the disk has not what the queue has"));
        }
        if too_many {
            self.violate(format!("worker {w}: more items or deliveries than there may be"));
        }
        if let Some((a, attempt)) = self.unpaid(w) {
            self.violate(format!(
                "worker {w} neither has attempt {attempt} of aggregator {a} nor gave it back"
            ));
        }
    }

    /// Every job by name: it is where it must be, and nowhere else; and all bounds of the ledgers.
    pub(super) fn check_everything(&mut self) {
        let mut wrong = Vec::new();
        let mut wanted = [0; AGGREGATORS];
        for (n, job) in self.truth.jobs.iter().enumerate() {
            let here = &self.aggregators[job.aggregator];
            let Some(ledger) = &here.ledger else { continue };
            // A client that was cut off with its aggregator has not asked again for all of them yet.
            let must = job.submitted == Some(here.life) && self.truth.is_wanted(n);
            wanted[job.aggregator] += usize::from(must);
            if must != ledger.has(&Truth::key(n)) {
                wrong.push(format!("job {n} is {} at its aggregator", if must { "lost" } else { "kept" }));
            }
        }
        for (a, wanted) in wanted.into_iter().enumerate() {
            let Some(ledger) = &self.aggregators[a].ledger else { continue };
            let counts = ledger.counts();
            if counts.ready + counts.leased != wanted {
                wrong.push(format!("aggregator {a} counts {counts:?}, {wanted} are wanted"));
            }
            let mut held: BTreeMap<usize, usize> = BTreeMap::new();
            for (worker, _, key) in self.standing(a) {
                *held.entry(worker).or_default() += 1;
                if !self.may(worker, Truth::job(&key)) || ledger.holders(&key).len() > HOLDERS_MAX {
                    wrong.push(format!("job {} is held by whom it must not be", Truth::job(&key)));
                }
            }
            if held.values().any(|&leases| leases > LEASES_PER_WORKER_MAX) {
                wrong.push(format!("a worker holds more leases of aggregator {a} than it may"));
            }
        }
        if let Some(first) = wrong.into_iter().next() {
            self.violate(first);
        }
    }

    /// In the end every good job is committed, and every other is dead with its reason; unless nobody wants it.
    pub(super) fn check_end(&mut self) {
        for n in 0..self.truth.jobs.len() {
            let job = &self.truth.jobs[n];
            let is_right = match job.kind {
                _ if job.cancelled => true,
                Kind::Good => self.truth.committed.contains_key(&n) && job.dead.is_none(),
                Kind::Fails | Kind::Kills => job.dead.as_ref().is_some_and(|reason| !reason.is_empty()),
            };
            if !is_right {
                let what = format!("in the end job {n} is {job:?}");
                self.violate(what);
            }
        }
    }

    /// What is still to be done, where it should be.
    pub(super) fn what_is_open(&self) -> String {
        let since: Ms = self.now.saturating_sub(self.plan.noisy);
        let open: Vec<String> = (0..self.truth.jobs.len())
            .filter(|&n| self.truth.is_wanted(n))
            .take(3)
            .map(|n| {
                let job = &self.truth.jobs[n];
                let ledger = self.aggregators[job.aggregator].ledger.as_ref();
                let holders = ledger.map(|ledger| ledger.holders(&Truth::key(n)));
                format!("job {n} {job:?} held by {holders:?}")
            })
            .collect();
        let busy: Vec<usize> = (0..self.workers.len()).filter(|&w| !self.workers[w].is_idle()).collect();
        format!("not settled {since} ms after the last fault: workers {busy:?} are busy; {}", open.join("; "))
    }
}
