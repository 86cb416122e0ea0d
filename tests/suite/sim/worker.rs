//! A worker: the real queue, a disk, threads that take their time, and connections.

use std::collections::{BTreeMap, BTreeSet};

use edge::{
    proto::{
        Delivery, Grant, Holding, Item, ItemId, ItemState, Queue, QueueEffect, QueueEvent, Ran, Stage,
        Timestamp,
    },
    wire::{PeerId, SwarmId},
};

use super::{
    network::{Alarm, Down, Event, Fired, Ms, Planted, Up},
    truth::{Kind, Truth, number, peer},
    world::{AGGREGATORS, World, swarm},
};

const HEARTBEAT: Ms = 3000;
const DRAIN_TIMEOUT: Ms = 20_000;
/// A slow worker is so many times slower.
const SLOW_FACTOR: u64 = 8;
/// What ends a window that makes no progress.
const WATCHDOG: Ms = 120_000;

/// What the disk has of an item.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    pub(super) item: Item,
    /// What it came to, in place of its text.
    pub(super) outcome: Option<Result<(), String>>,
}

#[derive(Debug)]
pub(super) struct Window {
    ids: Vec<ItemId>,
    begun: Ms,
    ends: Ms,
    tokens: u64,
    is_stopped: bool,
    is_hung: bool,
    kills: bool,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) queue: Option<Queue>,
    pub(super) boot: u32,
    pub(super) disk: BTreeMap<ItemId, OnDisk>,
    /// For each aggregator that is connected, its life.
    pub(super) links: [Option<u32>; AGGREGATORS],
    pub(super) swarms: Vec<SwarmId>,
    /// The aggregator whose own worker this is.
    pub(super) own_aggregator: Option<usize>,
    pub(super) frozen_until: Ms,
    pub(super) slow_until: Ms,
    /// Deliveries at one time to each aggregator, for the bound.
    pub(super) deliveries: BTreeMap<ItemId, (usize, u64)>,
    pub(super) windows: BTreeMap<u64, Window>,
    pub(super) pulls: [Option<u64>; AGGREGATORS],
    threads: usize,
    threads_max: usize,
    pub(super) tokens_per_s: u64,
    tokens_done: u64,
    is_draining: bool,
    begun: Ms,
    tick_at: Option<Ms>,
    pub(super) next_serial: u64,
    /// Leases that were taken off the disk or never put on it, and must be given back: aggregator and attempt.
    pub(super) owed: BTreeSet<(usize, u64)>,
}

impl Worker {
    pub(super) fn new(n: usize, swarms: u8, rng: &mut fastrand::Rng) -> Self {
        Self {
            queue: None,
            boot: 0,
            disk: BTreeMap::new(),
            links: [None; AGGREGATORS],
            // Every third is in two swarms.
            swarms: (0..swarms)
                .filter(|s| n as u8 % swarms == *s || (n % 9 < 3 && n as u8 % 2 == *s))
                .map(swarm)
                .collect(),
            own_aggregator: (n < AGGREGATORS).then_some(n),
            frozen_until: 0,
            slow_until: 0,
            deliveries: BTreeMap::new(),
            windows: BTreeMap::new(),
            pulls: [None; AGGREGATORS],
            threads: 0,
            threads_max: rng.usize(1..5),
            tokens_per_s: rng.u64(150..2000),
            tokens_done: 0,
            is_draining: false,
            begun: 0,
            tick_at: None,
            next_serial: 0,
            owed: BTreeSet::new(),
        }
    }

    pub(super) fn frozen(&self, now: Ms) -> Option<Ms> {
        (now < self.frozen_until).then_some(self.frozen_until)
    }

    pub(super) fn is_life(&self, boot: u32) -> bool {
        self.boot == boot && self.queue.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_some() && self.disk.is_empty()
    }

    fn progress(&self, now: Ms) -> u64 {
        let part = |window: &Window| {
            let total = (window.ends - window.begun).max(1);
            if window.is_hung { 0 } else { window.tokens * (now - window.begun).min(total) / total }
        };
        self.tokens_done + self.windows.values().map(part).sum::<u64>()
    }
}

/// Ids of aggregators lie apart from those of workers.
pub(super) fn aggregator_id(n: usize) -> PeerId {
    peer(1000 + n)
}

pub(super) fn aggregator_number(id: &PeerId) -> usize {
    number(id) - 1000
}

impl World {
    pub(super) fn start_worker(&mut self, w: usize) {
        let seed = self.rng.u64(..);
        let here = &mut self.workers[w];
        here.boot += 1;
        (here.begun, here.tick_at, here.is_draining, here.tokens_done) = (self.now, None, false, 0);
        let items: Vec<(ItemId, Item)> =
            here.disk.iter().map(|(id, held)| (*id, held.item.clone())).collect();
        let ran = items.iter().any(|(_, item)| item.state == ItemState::Running);
        let mut effects = Vec::new();
        here.queue = Some(Queue::restore(items, Timestamp::from_ms(0), seed, &mut effects));
        if ran {
            self.fire(Fired::RestoredRunning);
        }
        let boot = self.workers[w].boot;
        self.carry_out_queue(w, effects, &[]);
        if self.workers[w].is_life(boot) {
            self.alarm(1, w, Alarm::Look);
            self.alarm(HEARTBEAT, w, Alarm::Heartbeat);
            self.open_budget(w);
        }
    }

    /// The process is gone, and with it all that is not on the disk.
    pub(super) fn crash_worker(&mut self, w: usize) {
        // Two of three stay away for longer than their leases last.
        let most = if self.rng.u8(..3) > 0 { 200_000 } else { 20_000 };
        let wait = if self.is_quiet { 2000 } else { self.rng.u64(500..most) };
        self.stop_worker(w);
        self.after(wait, Event::StartWorker(w));
    }

    fn killed(&mut self, w: usize) {
        self.fire(Fired::PoisonKilled);
        // On the only worker of a job it takes twenty deaths.
        if !self.is_slow_to_return || self.workers[w].own_aggregator.is_some() {
            return self.crash_worker(w);
        }
        let wait = self.rng.u64(60_000..200_000);
        self.stop_worker(w);
        self.after(wait, Event::StartWorker(w));
    }

    fn stop_worker(&mut self, w: usize) {
        let here = &mut self.workers[w];
        here.queue = None;
        (here.links, here.pulls, here.threads) = ([None; AGGREGATORS], [None; AGGREGATORS], 0);
        here.windows.clear();
        here.deliveries.clear();
        here.owed.clear();
    }

    pub(super) fn open_budget(&mut self, w: usize) {
        let here = &mut self.workers[w];
        here.threads = here.threads_max;
        let tokens_per_s = here.tokens_per_s as u32;
        self.tell_queue(
            w,
            QueueEvent::Budget { threads: self.workers[w].threads, tokens_per_s, takes_more: true },
            &[],
        );
    }

    pub(super) fn close_budget(&mut self, w: usize, long: Ms) {
        if self.workers[w].queue.is_none() || self.workers[w].frozen(self.now).is_some() {
            return;
        }
        self.fire(Fired::BudgetClosed);
        self.workers[w].threads = 0;
        self.stop_windows(w);
        let tokens_per_s = self.workers[w].tokens_per_s as u32;
        self.alarm(long, w, Alarm::BudgetOpens);
        self.tell_queue(w, QueueEvent::Budget { threads: 0, tokens_per_s, takes_more: true }, &[]);
    }

    pub(super) fn drain(&mut self, w: usize) {
        let here = &mut self.workers[w];
        if here.queue.is_some() && !here.is_draining && here.frozen(self.now).is_none() {
            here.is_draining = true;
            self.fire(Fired::Drained);
            self.alarm(100, w, Alarm::Leave { deadline: self.now + DRAIN_TIMEOUT });
            self.tell_queue(w, QueueEvent::Drain, &[]);
        }
    }

    pub(super) fn hang(&mut self, w: usize) {
        let now = self.now;
        let Some((&id, window)) = self.workers[w].windows.first_key_value() else { return };
        if window.is_stopped || window.is_hung {
            return;
        }
        self.workers[w].windows.entry(id).and_modify(|window| {
            window.is_hung = true;
            window.ends = now + WATCHDOG;
        });
        self.fire(Fired::Hung);
        self.alarm(WATCHDOG, w, Alarm::WindowEnds(id));
    }

    /// Between two operators of the model; a hung one does not hear of it.
    fn stop_windows(&mut self, w: usize) {
        let wait = self.rng.u64(5..500);
        let ids: Vec<u64> = self.workers[w].windows.keys().copied().collect();
        for id in ids {
            if let Some(window) = self.workers[w].windows.get_mut(&id).filter(|window| !window.is_hung) {
                window.is_stopped = true;
                window.ends = window.ends.min(self.now + wait);
                self.alarm(wait, w, Alarm::WindowEnds(id));
            }
        }
    }

    pub(super) fn worker_hears(&mut self, w: usize, a: usize, message: Down) {
        match message {
            Down::Granted { serial, grants } => {
                // An answer that comes twice is one; one that comes too late is given back with the connection's end.
                let here = &mut self.workers[w];
                if here.pulls[a] == Some(serial) {
                    here.pulls[a] = None;
                }
                let held: BTreeSet<u64> = here
                    .disk
                    .values()
                    .filter(|held| held.item.aggregator == aggregator_id(a))
                    .map(|held| held.item.attempt)
                    .collect();
                here.owed
                    .extend(grants.iter().map(|g| (a, g.attempt)).filter(|owed| !held.contains(&owed.1)));
                let event = QueueEvent::Granted { aggregator: aggregator_id(a), grants: grants.clone() };
                self.tell_queue(w, event, &grants);
            }
            Down::Withdrawn { attempts } => {
                self.tell_queue(w, QueueEvent::Withdrawn { aggregator: aggregator_id(a), attempts }, &[]);
            }
            Down::Ended { item, serial, is_unasked } => {
                if self.workers[w].deliveries.get(&item) == Some(&(a, serial)) {
                    if !is_unasked {
                        self.check_acknowledged(w, item);
                    }
                    self.delivered(w, item, Delivery::Ended);
                }
            }
            Down::Refused { item } => {
                if item != u64::MAX {
                    self.violate(format!("worker {w} was refused an honest result, item {item}"));
                }
            }
        }
    }

    /// A result is forgotten only when the aggregator's disk has one, or nobody will ever want it.
    fn check_acknowledged(&mut self, w: usize, item: ItemId) {
        let Some(held) = self.workers[w].disk.get(&item) else { return };
        let job = Truth::job(&held.item.key);
        if matches!(held.outcome, Some(Ok(()))) && self.truth.is_wanted(job) {
            self.violate(format!("worker {w} was told that job {job} is done, but no disk has it"));
        }
    }

    pub(super) fn delivered(&mut self, w: usize, id: ItemId, delivery: Delivery) {
        if self.workers[w].deliveries.remove(&id).is_some() {
            if delivery == Delivery::Missed {
                self.fire(Fired::DeliveryMissed);
            }
            self.tell_queue(w, QueueEvent::Delivered { id, delivery }, &[]);
        }
    }

    pub(super) fn worker_alarm(&mut self, w: usize, alarm: Alarm) {
        match alarm {
            Alarm::Tick => {
                if self.workers[w].tick_at.is_some_and(|at| at <= self.now) {
                    self.workers[w].tick_at = None;
                    self.tell_queue(w, QueueEvent::Tick, &[]);
                }
            }
            Alarm::Heartbeat => {
                self.alarm(HEARTBEAT, w, Alarm::Heartbeat);
                self.beat(w, None);
            }
            Alarm::Look => self.look(w),
            Alarm::WindowEnds(window) => self.window_ends(w, window),
            Alarm::Killed(window) => {
                if self.workers[w].windows.get(&window).is_some_and(|window| !window.is_stopped) {
                    self.killed(w);
                }
            }
            Alarm::PullTimeout { aggregator, serial } => {
                let pull = &mut self.workers[w].pulls[aggregator];
                if *pull == Some(serial) {
                    *pull = None;
                    self.pull(w);
                }
            }
            Alarm::DeliveryTimeout { item, serial } => {
                if self.workers[w].deliveries.get(&item).is_some_and(|delivery| delivery.1 == serial) {
                    self.delivered(w, item, Delivery::Missed);
                }
            }
            Alarm::BudgetOpens => {
                if self.workers[w].threads == 0 {
                    self.open_budget(w);
                }
            }
            Alarm::Leave { deadline } => self.leave(w, deadline),
        }
    }

    fn leave(&mut self, w: usize, deadline: Ms) {
        let Some(counts) = self.workers[w].queue.as_ref().map(Queue::counts) else { return };
        if self.now >= deadline {
            self.stop_windows(w);
        }
        let is_done = counts.running == 0 && (counts.outbox == 0 || self.now >= deadline);
        if !is_done && self.now < deadline + WATCHDOG {
            return self.alarm(100, w, Alarm::Leave { deadline });
        }
        (0..AGGREGATORS).for_each(|a| self.send_up(w, a, Up::Left));
        self.stop_worker(w);
        let wait = self.rng.u64(1000..40_000);
        self.after(wait, Event::StartWorker(w));
    }

    /// Says to one aggregator, or to all of whom something is held, what is.
    pub(super) fn beat(&mut self, w: usize, to: Option<PeerId>) {
        let here = &self.workers[w];
        let Some(queue) = &here.queue else { return };
        let tokens_done = here.progress(self.now);
        let stage = |state| match state {
            ItemState::Queued => Stage::Queued,
            ItemState::Running => Stage::Running,
            ItemState::Computed => Stage::Computed,
        };
        let messages: Vec<(usize, Up)> = queue
            .aggregators()
            .iter()
            .filter(|id| to.is_none_or(|to| to == **id))
            .map(|id| {
                let held = queue.holding(id).into_iter();
                let holding = held.map(|(attempt, state)| Holding { attempt, stage: stage(state) }).collect();
                (aggregator_number(id), Up::Heartbeat { tokens_done, holding })
            })
            .collect();
        for (a, message) in messages {
            self.send_up(w, a, message);
        }
    }

    pub(super) fn run_window(&mut self, w: usize, id: u64, ids: Vec<ItemId>) {
        let here = &self.workers[w];
        let jobs: Vec<usize> =
            ids.iter().filter_map(|id| here.disk.get(id)).map(|held| Truth::job(&held.item.key)).collect();
        let tokens: u64 = jobs.iter().map(|&job| u64::from(self.truth.jobs[job].tokens)).sum();
        let slow = if self.now < here.slow_until { SLOW_FACTOR } else { 1 };
        let long = tokens * 1000 * here.threads_max as u64 * slow / here.tokens_per_s + 20;
        let kills = jobs.iter().any(|&job| self.truth.jobs[job].kind == Kind::Kills);
        let window = Window {
            ids,
            begun: self.now,
            ends: self.now + long,
            tokens,
            is_stopped: false,
            is_hung: false,
            kills,
        };
        self.workers[w].windows.insert(id, window);
        if kills {
            self.alarm(long / 2, w, Alarm::Killed(id));
        }
        self.alarm(long, w, Alarm::WindowEnds(id));
    }

    fn window_ends(&mut self, w: usize, window: u64) {
        let here = &mut self.workers[w];
        if here.windows.get(&window).is_none_or(|held| held.ends > self.now) {
            return;
        }
        let Some(ended) = here.windows.remove(&window) else { return };
        // A frozen process may miss the moment at which it should have died.
        if ended.kills && !ended.is_stopped && !ended.is_hung {
            return self.killed(w);
        }
        let fails = |id: &ItemId| {
            let job = Truth::job(&here.disk[id].item.key);
            self.truth.jobs[job].kind == Kind::Fails
        };
        let outcomes: Vec<(ItemId, Ran)> = ended
            .ids
            .iter()
            .map(|id| match (ended.is_stopped || ended.is_hung, fails(id)) {
                (true, _) => (*id, Ran::Stopped),
                (false, true) => (*id, Ran::Failed("the text can not be read".into())),
                (false, false) => (*id, Ran::Right),
            })
            .collect();
        if !ended.is_stopped && !ended.is_hung {
            self.workers[w].tokens_done += ended.tokens;
        }
        if outcomes.iter().any(|(_, outcome)| matches!(outcome, Ran::Failed(_))) {
            self.fire(Fired::PoisonFailed);
        }
        self.tell_queue(w, QueueEvent::Ended { window, outcomes }, &[]);
    }

    /// What follows from an event, carried out.
    pub(super) fn tell_queue(&mut self, w: usize, event: QueueEvent, grants: &[Grant]) {
        let withdrawn = match &event {
            QueueEvent::Withdrawn { aggregator, attempts } => {
                attempts.iter().map(|at| (aggregator_number(aggregator), *at)).collect()
            }
            _ => Vec::new(),
        };
        let mut effects = Vec::new();
        let here = &mut self.workers[w];
        let now = Timestamp::from_ms(self.now - here.begun);
        let Some(queue) = &mut here.queue else { return };
        queue.handle(now, event, &mut effects);
        if self.plan.planted == Some(Planted::RunsBeforeKeep) {
            effects.sort_by_key(|effect| !matches!(effect, QueueEffect::Run { .. }));
        }
        let boot = self.workers[w].boot;
        self.carry_out_queue(w, effects, grants);
        if !self.workers[w].is_life(boot) {
            return;
        }
        for gone in withdrawn {
            self.workers[w].owed.remove(&gone);
        }
        self.check_worker(w);
        self.pull(w);
        let here = &mut self.workers[w];
        let due = here.queue.as_ref().and_then(Queue::next_deadline).map(|at| here.begun + at.as_ms());
        if let Some(due) = due.filter(|due| here.tick_at.is_none_or(|at| *due < at)) {
            here.tick_at = Some(due);
            let wait = due.saturating_sub(self.now).max(1);
            self.alarm(wait, w, Alarm::Tick);
        }
    }
}
