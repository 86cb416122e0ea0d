//! What a worker's queue wants done, carried out in order: on its disk, its threads, the network.

use edge::proto::{Grant, Item, ItemId, ItemState, QueueEffect};

use super::{
    network::{Alarm, Fired, Planted, Up},
    worker::{OnDisk, aggregator_number},
    world::World,
};

const DELIVERY_TIMEOUT: u64 = 15_000;
/// Of so many events one ends in a crash.
const CRASH_ONE_IN: u32 = 150;

impl World {
    pub(super) fn carry_out_queue(&mut self, w: usize, effects: Vec<QueueEffect>, grants: &[Grant]) {
        let crash = self.crash_point(effects.len(), CRASH_ONE_IN);
        let count = effects.len();
        for (n, effect) in effects.into_iter().enumerate() {
            if crash == Some(n) {
                break;
            }
            self.carry_out_queue_effect(w, effect, grants);
        }
        if crash.is_some_and(|at| at <= count) {
            self.fire(Fired::WorkerCrashedBetweenEffects);
            self.crash_worker(w);
        }
    }

    fn carry_out_queue_effect(&mut self, w: usize, effect: QueueEffect, grants: &[Grant]) {
        match effect {
            QueueEffect::Store { id, item, grant } => {
                self.note(20, id, item.attempt);
                self.store(w, id, item, grants.get(grant));
            }
            QueueEffect::Keep { id, item } => {
                self.note(21, id, item.attempt);
                let here = &mut self.workers[w];
                // A new lease for what is here already.
                let was_owed = here.owed.remove(&(aggregator_number(&item.aggregator), item.attempt));
                self.fired[Fired::Renewed as usize] += u64::from(was_owed);
                match self.workers[w].disk.get_mut(&id) {
                    Some(held) => held.item = item,
                    None => self.violate(format!("worker {w} keeps item {id}, which it never stored")),
                }
            }
            QueueEffect::Computed { id } => self.write_outcome(w, id, Ok(())),
            QueueEffect::Failed { id, reason } => self.write_outcome(w, id, Err(reason)),
            QueueEffect::Remove { id } => {
                self.note(23, id, 0);
                match self.workers[w].disk.remove(&id) {
                    Some(OnDisk { item, outcome: None }) => {
                        self.workers[w].owed.insert((aggregator_number(&item.aggregator), item.attempt));
                    }
                    Some(_) => {}
                    None => self.violate(format!("worker {w} removes item {id}, which it does not have")),
                }
            }
            QueueEffect::Run { window, ids } => {
                self.note(24, window, ids.len() as u64);
                let disk = &self.workers[w].disk;
                let runs =
                    |id: &ItemId| disk.get(id).is_some_and(|held| held.item.state == ItemState::Running);
                let held = ids.iter().filter_map(|id| disk.get(id));
                let alone = held.map(|held| &held.item).find(|item| item.alone).map(|item| item.aggregator);
                if !ids.iter().all(runs) {
                    self.violate(format!("worker {w} runs what its disk does not say that it runs"));
                }
                if alone.is_some() && (ids.len() > 1 || !self.workers[w].windows.is_empty()) {
                    self.violate(format!("worker {w} runs something beside what must run alone"));
                }
                if let Some(aggregator) = alone {
                    self.fire(Fired::Announced);
                    self.beat(w, Some(aggregator));
                }
                self.run_window(w, window, ids);
            }
            QueueEffect::Deliver { id, aggregator, attempt } => {
                self.note(25, id, attempt);
                self.deliver(w, id, aggregator_number(&aggregator), attempt);
            }
            QueueEffect::Release { aggregator, attempts } => {
                self.note(26, attempts.len() as u64, 0);
                self.fire(Fired::ReleasedQueued);
                let a = aggregator_number(&aggregator);
                if self.plan.planted == Some(Planted::DropsRelease) {
                    return;
                }
                for attempt in &attempts {
                    self.workers[w].owed.remove(&(a, *attempt));
                }
                self.send_up(w, a, Up::Release { attempts });
            }
        }
    }

    fn store(&mut self, w: usize, id: ItemId, item: Item, grant: Option<&Grant>) {
        let a = aggregator_number(&item.aggregator);
        if grant.is_none_or(|grant| (grant.attempt, grant.key) != (item.attempt, item.key)) {
            self.violate(format!("worker {w} stores item {id} with the text of another"));
        }
        self.workers[w].owed.remove(&(a, item.attempt));
        if self.plan.planted == Some(Planted::SkipsStore) && self.rng.u8(..50) == 0 {
            return;
        }
        if self.workers[w].disk.insert(id, OnDisk { item, outcome: None }).is_some() {
            self.violate(format!("worker {w} uses the name {id} twice"));
        }
    }

    fn write_outcome(&mut self, w: usize, id: ItemId, outcome: Result<(), String>) {
        self.note(22, id, u64::from(outcome.is_ok()));
        match self.workers[w].disk.get_mut(&id) {
            Some(held) => {
                held.item.state = ItemState::Computed;
                held.outcome = Some(outcome);
            }
            None => self.violate(format!("worker {w} computed item {id}, which it never stored")),
        }
    }

    fn deliver(&mut self, w: usize, id: ItemId, a: usize, attempt: u64) {
        let here = &mut self.workers[w];
        let Some(OnDisk { item, outcome: Some(outcome) }) = here.disk.get(&id) else {
            return self.violate(format!("worker {w} delivers item {id} before its disk has the result"));
        };
        let (key, proof, outcome) = (item.key, item.proof, outcome.clone());
        here.next_serial += 1;
        let serial = here.next_serial;
        if here.deliveries.insert(id, (a, serial)).is_some() {
            self.violate(format!("worker {w} delivers item {id} twice at a time"));
        }
        self.alarm(DELIVERY_TIMEOUT, w, Alarm::DeliveryTimeout { item: id, serial });
        self.send_up(w, a, Up::Result { item: id, serial, attempt, proof, key, outcome });
    }

    /// What a worker took off its disk without a result has been given back, or was taken from it.
    pub(super) fn unpaid(&self, w: usize) -> Option<(usize, u64)> {
        self.workers[w].owed.first().copied()
    }
}
