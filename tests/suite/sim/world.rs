//! The clock, the dice, the network and the faults.

use std::collections::BTreeMap;

use edge::wire::SwarmId;

use super::{
    aggregator::Aggregator,
    network::{Alarm, Bell, Down, Event, FIRED, Fired, Ms, Planted, Up},
    truth::{Job, Kind, Truth},
    worker::Worker,
};

pub(super) const WORKERS: usize = 23;
pub(super) const AGGREGATORS: usize = 3;
const SWARMS: u8 = 3;
/// Within so long after the last fault everything must be settled and given back. The slowest of 3,000 seeds took 1,840 s:
/// two jobs that kill, each twenty times, the only worker that may have them, and that worker among the slowest.
pub(super) const SETTLED_WITHIN: Ms = 3_600_000;
/// A seed that needs more goes round in circles.
const STEPS_MAX: u64 = 3_000_000;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) jobs: usize,
    /// Faults happen for so long.
    pub(super) noisy: Ms,
    pub(super) planted: Option<Planted>,
    /// The only crash is at this boundary of effects, counted over all processes; without it they come by chance.
    pub(super) crash_at: Option<u64>,
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) steps: u64,
    /// Of everything that happened, in order.
    pub(super) hash: u64,
    pub(super) violation: Option<String>,
    /// From the end of the faults until the last job was settled.
    pub(super) settled_after: Ms,
    /// Good jobs that were declared dead because workers went silent over them, and were asked for again.
    pub(super) falsely_dead: u64,
    /// Boundaries of effects that there were.
    pub(super) boundaries: u64,
    pub(super) fired: [u64; FIRED.len()],
}

pub(super) struct World {
    pub(super) now: Ms,
    pub(super) rng: fastrand::Rng,
    pub(super) truth: Truth,
    pub(super) aggregators: Vec<Aggregator>,
    pub(super) workers: Vec<Worker>,
    pub(super) is_quiet: bool,
    pub(super) plan: Plan,
    pub(super) violation: Option<String>,
    pub(super) fired: [u64; FIRED.len()],
    pub(super) falsely_dead: u64,
    events: BTreeMap<(Ms, u64), Event>,
    next_event: u64,
    /// No message passes between worker and aggregator before this.
    cut_until: [[Ms; AGGREGATORS]; WORKERS],
    last_arrival: [[Ms; AGGREGATORS]; WORKERS],
    steps: u64,
    hash: u64,
    /// A process that a poison job killed stays away for longer than its leases last.
    pub(super) is_slow_to_return: bool,
    /// Mean time between faults.
    gap: Ms,
    /// Of effects, so far.
    boundaries: u64,
}

pub(super) fn swarm(n: u8) -> SwarmId {
    SwarmId::from_bytes([n; 32])
}

fn random_job(tokens_max: u32, rng: &mut fastrand::Rng) -> Job {
    let (kind, tokens_max) = match rng.u8(..100) {
        // The slowest worker dies of it twenty times before it is declared dead: that should not take hours.
        0 | 1 => (Kind::Kills, tokens_max.min(1000)),
        2..5 => (Kind::Fails, tokens_max),
        _ => (Kind::Good, tokens_max),
    };
    Job {
        aggregator: rng.usize(..AGGREGATORS),
        swarm: (rng.u8(..10) > 0).then(|| swarm(rng.u8(..SWARMS))),
        tokens: rng.u32(tokens_max / 10..tokens_max),
        kind,
        submitted: None,
        cancelled: false,
        dead: None,
        settled_at: None,
    }
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let tokens_max = [100, 1500, 4000][rng.usize(..3)];
        let jobs = (0..plan.jobs).map(|_| random_job(tokens_max, &mut rng)).collect();
        let workers = (0..WORKERS).map(|n| Worker::new(n, SWARMS, &mut rng)).collect();
        let gap = [200, 600, 2000][rng.usize(..3)];
        let is_slow_to_return = rng.u8(..3) == 0;
        let mut world = Self {
            now: 0,
            truth: Truth { jobs, committed: BTreeMap::new() },
            aggregators: (0..AGGREGATORS).map(|_| Aggregator::new()).collect(),
            workers,
            is_quiet: false,
            plan,
            violation: None,
            fired: [0; FIRED.len()],
            falsely_dead: 0,
            events: BTreeMap::new(),
            next_event: 0,
            cut_until: [[0; AGGREGATORS]; WORKERS],
            last_arrival: [[0; AGGREGATORS]; WORKERS],
            steps: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            is_slow_to_return,
            gap,
            boundaries: 0,
            rng,
        };
        (0..AGGREGATORS).for_each(|n| world.after(1, Event::StartAggregator(n)));
        for n in 0..WORKERS {
            let wait = world.rng.u64(1..5000);
            world.after(wait, Event::StartWorker(n));
        }
        world.after(2000, Event::Chaos);
        world.after(plan.noisy, Event::Quiet);
        world
    }

    /// Runs until all is settled and given back, or something is wrong.
    pub(super) fn run(mut self) -> Outcome {
        while self.violation.is_none() && !self.is_finished() {
            let Some(((at, _), event)) = self.events.pop_first() else {
                self.violate("nothing happens any more".into());
                break;
            };
            self.now = at;
            self.steps += 1;
            self.step(event);
            if self.steps.is_multiple_of(64) {
                self.check_everything();
            }
            if self.now > self.plan.noisy + SETTLED_WITHIN || self.steps > STEPS_MAX {
                let what = self.what_is_open();
                self.violate(what);
            }
        }
        if self.violation.is_none() {
            self.check_everything();
            self.check_end();
        }
        let last = self.truth.jobs.iter().filter_map(|job| job.settled_at).max().unwrap_or(0);
        Outcome {
            steps: self.steps,
            hash: self.hash,
            violation: self.violation.map(|what| format!("step {} at {} ms: {what}", self.steps, self.now)),
            settled_after: last.saturating_sub(self.plan.noisy),
            boundaries: self.boundaries,
            falsely_dead: self.falsely_dead,
            fired: self.fired,
        }
    }

    fn is_finished(&self) -> bool {
        self.is_quiet
            && self.truth.is_settled()
            && self.workers.iter().all(Worker::is_idle)
            && self.aggregators.iter().all(Aggregator::is_idle)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Up { aggregator, life, worker, boot, message } => {
                if let Some(until) = self.aggregators[aggregator].frozen(self.now) {
                    return self.at(until, Event::Up { aggregator, life, worker, boot, message });
                }
                if self.aggregators[aggregator].life == life {
                    self.note(1, worker as u64, u64::from(boot));
                    self.aggregator_hears(aggregator, worker, boot, message);
                }
            }
            Event::Down { worker, boot, aggregator, life, message } => {
                if let Some(until) = self.workers[worker].frozen(self.now) {
                    return self.at(until, Event::Down { worker, boot, aggregator, life, message });
                }
                if self.workers[worker].is_life(boot) && self.workers[worker].links[aggregator] == Some(life)
                {
                    self.note(2, worker as u64, aggregator as u64);
                    self.worker_hears(worker, aggregator, message);
                }
            }
            Event::Worker { worker, boot, alarm } => {
                if let Some(until) = self.workers[worker].frozen(self.now) {
                    return self.at(until, Event::Worker { worker, boot, alarm });
                }
                if self.workers[worker].is_life(boot) {
                    self.note(3, worker as u64, 0);
                    self.worker_alarm(worker, alarm);
                }
            }
            Event::Aggregator { aggregator, life, alarm } => {
                if let Some(until) = self.aggregators[aggregator].frozen(self.now) {
                    return self.at(until, Event::Aggregator { aggregator, life, alarm });
                }
                if self.aggregators[aggregator].life == life {
                    self.note(4, aggregator as u64, 0);
                    self.aggregator_alarm(aggregator, alarm);
                }
            }
            Event::StartWorker(worker) => self.start_worker(worker),
            Event::StartAggregator(aggregator) => self.start_aggregator(aggregator),
            Event::Chaos => self.chaos(),
            Event::Quiet => self.quiet(),
        }
    }

    pub(super) fn after(&mut self, wait: Ms, event: Event) {
        self.at(self.now + wait, event);
    }

    fn at(&mut self, at: Ms, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    pub(super) fn alarm(&mut self, wait: Ms, worker: usize, alarm: Alarm) {
        let boot = self.workers[worker].boot;
        self.after(wait, Event::Worker { worker, boot, alarm });
    }

    pub(super) fn bell(&mut self, wait: Ms, aggregator: usize, alarm: Bell) {
        let life = self.aggregators[aggregator].life;
        self.after(wait, Event::Aggregator { aggregator, life, alarm });
    }

    pub(super) fn send_up(&mut self, worker: usize, aggregator: usize, message: Up) {
        let Some(life) = self.workers[worker].links[aggregator] else { return };
        let boot = self.workers[worker].boot;
        for wait in self.transit(worker, aggregator) {
            self.after(wait, Event::Up { aggregator, life, worker, boot, message: message.clone() });
        }
    }

    pub(super) fn send_down(&mut self, aggregator: usize, worker: usize, boot: u32, message: Down) {
        let life = self.aggregators[aggregator].life;
        for wait in self.transit(worker, aggregator) {
            self.after(wait, Event::Down { worker, boot, aggregator, life, message: message.clone() });
        }
    }

    /// How long each copy of a message is on its way; none arrives where it is lost.
    fn transit(&mut self, worker: usize, aggregator: usize) -> Vec<Ms> {
        if self.now < self.cut_until[worker][aggregator] {
            self.fire(Fired::DroppedByCut);
            return Vec::new();
        }
        if self.is_quiet {
            return vec![self.rng.u64(1..100)];
        }
        let copies = match self.rng.u8(..100) {
            0 | 1 => 0,
            2 => 2,
            _ => 1,
        };
        match copies {
            0 => self.fire(Fired::Lost),
            2 => self.fire(Fired::Duplicated),
            _ => {}
        }
        let mut waits = Vec::new();
        for _ in 0..copies {
            let most = match self.rng.u8(..200) {
                0 => 20_000,
                1..10 => 3000,
                _ => 150,
            };
            if most > 150 {
                self.fire(Fired::Delayed);
            }
            let wait = self.rng.u64(1..most);
            let last = &mut self.last_arrival[worker][aggregator];
            if self.now + wait < *last {
                self.fired[Fired::Reordered as usize] += 1;
            } else {
                *last = self.now + wait;
            }
            waits.push(wait);
        }
        waits
    }

    pub(super) fn is_reachable(&self, worker: usize, aggregator: usize) -> bool {
        self.now >= self.cut_until[worker][aggregator] && self.aggregators[aggregator].ledger.is_some()
    }

    /// After how many of so many effects the process dies, if it does.
    pub(super) fn crash_point(&mut self, effects: usize, one_in: u32) -> Option<usize> {
        if effects == 0 {
            return None;
        }
        let first = self.boundaries;
        self.boundaries += effects as u64 + 1;
        match self.plan.crash_at {
            Some(at) => (first..self.boundaries).contains(&at).then(|| (at - first) as usize),
            None => (!self.is_quiet && self.rng.u32(..one_in) == 0).then(|| self.rng.usize(..=effects)),
        }
    }

    pub(super) fn fire(&mut self, what: Fired) {
        self.fired[what as usize] += 1;
    }

    pub(super) fn note(&mut self, what: u64, a: u64, b: u64) {
        for word in [self.now, what, a, b] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    pub(super) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn chaos(&mut self) {
        if self.is_quiet {
            return;
        }
        let wait = self.rng.u64(1..2 * self.gap);
        self.after(wait, Event::Chaos);
        let (worker, aggregator) = (self.rng.usize(..WORKERS), self.rng.usize(..AGGREGATORS));
        let (now, long) = (self.now, self.rng.u64(1000..60_000));
        let fault = self.rng.u8(..100);
        self.note(5, u64::from(fault), worker as u64);
        match fault {
            0..15 => {
                self.cut_until[worker][aggregator] = now + long;
                self.fire(Fired::Cut);
            }
            15..18 => {
                let first = self.rng.usize(..WORKERS - 8);
                for cut in &mut self.cut_until[first..first + 8] {
                    cut.fill(now + long);
                }
                self.fire(Fired::Partition);
            }
            18..30 => {
                let until = &mut self.workers[worker].frozen_until;
                *until = (*until).max(now + long);
                self.fire(Fired::WorkerFrozen);
            }
            30..33 => {
                let until = &mut self.aggregators[aggregator].frozen_until;
                *until = (*until).max(now + long / 3);
                self.fire(Fired::AggregatorFrozen);
            }
            33..40 => {
                self.workers[worker].slow_until = now + 2 * long;
                self.fire(Fired::Slow);
            }
            40..55 => self.close_budget(worker, long),
            55..62 => self.drain(worker),
            62..75 => self.forge(aggregator),
            75..78 => self.cancel(aggregator),
            78..88 => {
                if self.workers[worker].queue.is_some() {
                    self.fire(Fired::WorkerCrashedOutside);
                    self.crash_worker(worker);
                }
            }
            88..90 => {
                if self.aggregators[aggregator].ledger.is_some() {
                    self.fire(Fired::AggregatorCrashedOutside);
                    self.crash_aggregator(aggregator);
                }
            }
            _ => self.hang(worker),
        }
    }

    /// The faults are over: everybody runs, or will when it has thawed, and reaches everybody.
    fn quiet(&mut self) {
        self.is_quiet = true;
        self.cut_until = [[0; AGGREGATORS]; WORKERS];
        for worker in 0..WORKERS {
            self.workers[worker].slow_until = 0;
            if self.workers[worker].queue.is_some() {
                self.open_budget(worker);
            }
        }
    }
}
