//! An aggregator: the real ledger, a disk, and a client that asks again for what is not done.

use std::collections::{BTreeMap, BTreeSet};

use edge::{
    proto::{Attempt, Grant, Ledger, LedgerEffect, LedgerEvent, Timestamp, Verdict, Worker as Life},
    wire::ContentKey,
};

use super::{
    network::{Bell, Down, Event, Fired, Ms, Planted, Up},
    truth::{Truth, number, peer},
    world::World,
};

/// Jobs in one answer, as `wire` has it.
const LEASES_PER_PULL_MAX: usize = 32;
/// How long a pull waits.
const PULL_WAIT: Ms = 25_000;
/// Of so many events one ends in a crash.
const CRASH_ONE_IN: u32 = 300;

#[derive(Clone, Copy, Debug)]
struct Parked {
    worker: usize,
    boot: u32,
    serial: u64,
    tokens: u32,
    jobs: usize,
    tokens_per_s: u32,
    until: Ms,
}

/// Who waits for what comes of an event.
pub(super) enum Reply {
    Nobody,
    Pull(usize),
    Heartbeat,
    Result { boot: u32, item: u64, serial: u64, key: ContentKey },
}

#[derive(Debug)]
pub(super) struct Aggregator {
    pub(super) ledger: Option<Ledger>,
    pub(super) life: u32,
    pub(super) frozen_until: Ms,
    /// Leases by worker, as long as they stand: the job and the time.
    pub(super) granted: BTreeMap<usize, BTreeMap<Attempt, (ContentKey, Ms)>>,
    begun: Ms,
    tick_at: Option<Ms>,
    parked: Vec<Parked>,
    is_serving: bool,
    /// The newest life of each worker that was heard of, and when an older one last was.
    pub(super) boots: BTreeMap<usize, (u32, Ms)>,
    last_attempt: Attempt,
    /// Who was ever given what, in all lives.
    given: BTreeSet<(usize, usize)>,
    /// The smallest job that the client has not handed over in this life.
    next_job: usize,
}

impl Aggregator {
    pub(super) fn new() -> Self {
        Self {
            ledger: None,
            life: 0,
            frozen_until: 0,
            granted: BTreeMap::new(),
            begun: 0,
            tick_at: None,
            parked: Vec::new(),
            is_serving: false,
            boots: BTreeMap::new(),
            last_attempt: 0,
            given: BTreeSet::new(),
            next_job: 0,
        }
    }

    pub(super) fn frozen(&self, now: Ms) -> Option<Ms> {
        (now < self.frozen_until).then_some(self.frozen_until)
    }

    /// Whether it holds no job and no lease.
    pub(super) fn is_idle(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.counts().leased + ledger.counts().ready == 0)
    }
}

/// What an aggregator shows that a lease was its own: not a secret here, but nobody forges it by chance.
fn proof(aggregator: usize, worker: usize, attempt: Attempt, job: usize) -> [u8; 16] {
    let sum = (aggregator as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (worker as u64 + 1).wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
        ^ attempt.wrapping_mul(0x1656_67B1_9E37_79F9);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sum.to_be_bytes());
    bytes[8..].copy_from_slice(&(job as u64).to_be_bytes());
    bytes
}

impl World {
    pub(super) fn life_of(&self, worker: usize, boot: u32) -> Life {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&boot.wrapping_mul(0x85EB_CA6B).to_be_bytes());
        bytes[4..8].copy_from_slice(&boot.to_be_bytes());
        Life { peer: peer(worker), boot: bytes }
    }

    /// Whether this worker may see the text of this job.
    pub(super) fn may(&self, worker: usize, job: usize) -> bool {
        let asked = &self.truth.jobs[job];
        let is_own = self.workers[worker].own_aggregator == Some(asked.aggregator);
        is_own || asked.swarm.is_some_and(|swarm| self.workers[worker].swarms.contains(&swarm))
    }

    pub(super) fn start_aggregator(&mut self, a: usize) {
        let reuses = self.plan.planted == Some(Planted::ReusesAttempts);
        let seed = self.rng.u64(..);
        let here = &mut self.aggregators[a];
        here.life += 1;
        let first = if reuses { 1 } else { u64::from(here.life) << 32 };
        here.ledger = Some(Ledger::new(first, seed));
        (here.begun, here.tick_at, here.is_serving, here.next_job) = (self.now, None, false, 0);
        let wait = self.rng.u64(1..5000);
        self.bell(wait, a, Bell::Submit);
    }

    pub(super) fn crash_aggregator(&mut self, a: usize) {
        let here = &mut self.aggregators[a];
        here.ledger = None;
        here.life += 1;
        here.parked.clear();
        here.granted.clear();
        let wait = if self.is_quiet { 1000 } else { self.rng.u64(500..20_000) };
        self.after(wait, Event::StartAggregator(a));
    }

    pub(super) fn aggregator_hears(&mut self, a: usize, w: usize, boot: u32, message: Up) {
        let worker = self.life_of(w, boot);
        if !matches!(message, Up::Left) {
            let now = self.now;
            let (newest, quiet_since) = self.aggregators[a].boots.entry(w).or_default();
            if boot < *newest {
                *quiet_since = now;
            }
            *newest = boot.max(*newest);
        }
        match message {
            Up::Pull { serial, tokens, jobs, tokens_per_s } => {
                let until = self.now + PULL_WAIT;
                let parked = &mut self.aggregators[a].parked;
                parked.retain(|other| other.worker != w);
                parked.push(Parked { worker: w, boot, serial, tokens, jobs, tokens_per_s, until });
                self.serve_soon(a, 1);
            }
            Up::Heartbeat { tokens_done, holding } => {
                let told = self.lie_about_holding(a, w, &holding);
                let event = LedgerEvent::Heartbeat { worker, tokens_done, holding: told };
                if let Some(effects) = self.tell_ledger(a, event, Reply::Heartbeat) {
                    let attempts: Vec<Attempt> = effects
                        .iter()
                        .filter_map(|effect| match effect {
                            LedgerEffect::Withdraw { attempt } => Some(*attempt),
                            _ => None,
                        })
                        .collect();
                    if !attempts.is_empty() {
                        self.fire(Fired::Withdrawn);
                        self.send_down(a, w, boot, Down::Withdrawn { attempts });
                    }
                    self.check_unlisted(a, w, boot, &holding);
                }
            }
            Up::Result { item, serial, attempt, proof: shown, key, outcome } => {
                if shown != proof(a, w, attempt, Truth::job(&key))
                    && self.plan.planted != Some(Planted::TrustsForgery)
                {
                    return self.send_down(a, w, boot, Down::Refused { item });
                }
                let verdict = outcome.map_or_else(Verdict::Failed, |()| Verdict::Right);
                let event = LedgerEvent::Result { worker, attempt, job: key, verdict };
                self.tell_ledger(a, event, Reply::Result { boot, item, serial, key });
            }
            Up::Release { attempts } => {
                self.tell_ledger(a, LedgerEvent::Release { worker, attempts }, Reply::Nobody);
            }
            Up::Left => {
                self.aggregators[a].parked.retain(|other| (other.worker, other.boot) != (w, boot));
                self.tell_ledger(a, LedgerEvent::Left { worker }, Reply::Nobody);
            }
        }
    }

    pub(super) fn aggregator_alarm(&mut self, a: usize, alarm: Bell) {
        match alarm {
            Bell::Tick => {
                if self.aggregators[a].tick_at.is_some_and(|at| at <= self.now) {
                    self.aggregators[a].tick_at = None;
                    self.tell_ledger(a, LedgerEvent::Tick, Reply::Nobody);
                }
            }
            Bell::Submit => self.submit(a),
            Bell::Serve => self.serve(a),
            Bell::LateCommit { job, worker } => self.write_commit(job, worker),
        }
    }

    /// The client hands over some of what it has not yet, in this life of the aggregator.
    fn submit(&mut self, a: usize) {
        let life = self.aggregators[a].life;
        let mut burst = self.rng.usize(1..16);
        while burst > 0 && self.aggregators[a].life == life {
            let job = self.aggregators[a].next_job;
            let Some(asked) = self.truth.jobs.get_mut(job) else { return };
            self.aggregators[a].next_job += 1;
            if asked.aggregator != a || asked.submitted == Some(life) || !self.truth.is_wanted(job) {
                continue;
            }
            burst -= 1;
            let asked = &mut self.truth.jobs[job];
            asked.submitted = Some(life);
            let (swarm, tokens) = (asked.swarm, asked.tokens);
            if self.plan.planted == Some(Planted::LosesJobs) && self.rng.u8(..50) == 0 {
                continue;
            }
            self.tell_ledger(a, LedgerEvent::Submit { job: Truth::key(job), swarm, tokens }, Reply::Nobody);
        }
        let wait = if self.is_quiet { 10 } else { self.rng.u64(10..60_000) };
        self.bell(wait, a, Bell::Submit);
    }

    pub(super) fn cancel(&mut self, a: usize) {
        let job = self.rng.usize(..self.truth.jobs.len());
        let is_asked = self.truth.jobs[job].aggregator == a && self.truth.is_wanted(job);
        if is_asked && self.aggregators[a].ledger.is_some() && self.aggregators[a].frozen(self.now).is_none()
        {
            self.fire(Fired::Cancelled);
            self.truth.jobs[job].cancelled = true;
            self.tell_ledger(a, LedgerEvent::Cancel { job: Truth::key(job) }, Reply::Nobody);
        }
    }

    fn serve_soon(&mut self, a: usize, wait: Ms) {
        if !self.aggregators[a].is_serving {
            self.aggregators[a].is_serving = true;
            self.bell(wait, a, Bell::Serve);
        }
    }

    /// Asks again for everybody who waits.
    fn serve(&mut self, a: usize) {
        self.aggregators[a].is_serving = false;
        let life = self.aggregators[a].life;
        let mut waiting = Vec::new();
        for parked in std::mem::take(&mut self.aggregators[a].parked) {
            let Parked { worker: w, boot, serial, tokens, jobs, tokens_per_s, until } = parked;
            if self.aggregators[a].boots.get(&w).is_some_and(|newest| newest.0 > boot) {
                // The connection it came on ended with the process behind it.
                continue;
            }
            let own = self.workers[w].own_aggregator == Some(a);
            let everybody = own || self.plan.planted == Some(Planted::IgnoresPlacement);
            let swarms = (!everybody).then(|| self.workers[w].swarms.clone());
            let jobs = jobs.min(LEASES_PER_PULL_MAX);
            let worker = self.life_of(w, boot);
            let event = LedgerEvent::Pull { worker, swarms, tokens, jobs, tokens_per_s };
            let Some(effects) = self.tell_ledger(a, event, Reply::Pull(w)) else { return };
            let grants: Vec<Grant> = effects
                .iter()
                .filter_map(|effect| match effect {
                    LedgerEffect::Lease { attempt, job, alone, .. } => Some((*attempt, *job, *alone)),
                    _ => None,
                })
                .enumerate()
                .map(|(index, (attempt, key, alone))| {
                    let job = Truth::job(&key);
                    let tokens = self.truth.jobs[job].tokens;
                    Grant { attempt, proof: proof(a, w, attempt, job), key, tokens, alone, index }
                })
                .collect();
            if grants.is_empty() && self.now < until {
                waiting.push(parked);
            } else {
                self.send_down(a, w, boot, Down::Granted { serial, grants });
            }
        }
        if self.aggregators[a].life == life {
            self.aggregators[a].parked.extend(waiting);
            if !self.aggregators[a].parked.is_empty() {
                // Nothing tells when a job becomes a straggler's.
                self.serve_soon(a, 2000);
            }
        }
    }

    /// What follows from an event, carried out; none where the process died over it.
    pub(super) fn tell_ledger(
        &mut self,
        a: usize,
        event: LedgerEvent,
        reply: Reply,
    ) -> Option<Vec<LedgerEffect>> {
        let mut effects = Vec::new();
        let here = &mut self.aggregators[a];
        let now = Timestamp::from_ms(self.now - here.begun);
        here.ledger.as_mut()?.handle(now, event, &mut effects);
        let crash = self.crash_point(effects.len(), CRASH_ONE_IN);
        for (n, effect) in effects.iter().enumerate() {
            if crash == Some(n) {
                break;
            }
            self.carry_out_ledger(a, effect, &reply);
        }
        if crash.is_some() {
            self.fire(Fired::AggregatorCrashedBetweenEffects);
            self.crash_aggregator(a);
            return None;
        }
        self.check_aggregator(a);
        let here = &mut self.aggregators[a];
        let due = here.ledger.as_ref()?.next_deadline().map(|at| here.begun + at.as_ms());
        if let Some(due) = due.filter(|due| here.tick_at.is_none_or(|at| *due < at)) {
            here.tick_at = Some(due);
            let wait = due.saturating_sub(self.now).max(1);
            self.bell(wait, a, Bell::Tick);
        }
        Some(effects)
    }

    fn carry_out_ledger(&mut self, a: usize, effect: &LedgerEffect, reply: &Reply) {
        match effect {
            LedgerEffect::Lease { worker, attempt, job, alone } => {
                self.note(10, *attempt, Truth::job(job) as u64);
                self.leased(a, number(&worker.peer), *attempt, *job, *alone, reply);
            }
            LedgerEffect::Commit { worker, attempt, job } => {
                let (job, w) = (Truth::job(job), number(&worker.peer));
                self.note(11, *attempt, job as u64);
                self.commit(a, w, job, *attempt);
                self.acknowledge(a, w, reply, false);
                if self.plan.planted == Some(Planted::DoubleAccept) {
                    let asked = &self.truth.jobs[job];
                    let again = LedgerEvent::Submit {
                        job: Truth::key(job),
                        swarm: asked.swarm,
                        tokens: asked.tokens,
                    };
                    let now = Timestamp::from_ms(self.now - self.aggregators[a].begun);
                    if let Some(ledger) = &mut self.aggregators[a].ledger {
                        ledger.handle(now, again, &mut Vec::new());
                    }
                }
            }
            LedgerEffect::Duplicate { worker, attempt } => {
                self.note(12, *attempt, 0);
                self.fire(Fired::NotWanted);
                let w = number(&worker.peer);
                let is_unasked = self.is_unasked(a, reply);
                self.acknowledge(a, w, reply, is_unasked);
            }
            LedgerEffect::Noted { worker, attempt } => {
                self.note(13, *attempt, 0);
                self.acknowledge(a, number(&worker.peer), reply, false);
            }
            LedgerEffect::Refuse { worker, attempt } => {
                self.note(14, *attempt, 0);
                if let Reply::Result { boot, item, .. } = reply {
                    self.send_down(a, number(&worker.peer), *boot, Down::Refused { item: *item });
                }
            }
            LedgerEffect::Withdraw { attempt } => self.note(15, *attempt, 0),
            LedgerEffect::Dead { job, reason } => {
                let job = Truth::job(job);
                self.note(16, job as u64, 0);
                self.fire(if reason.contains("went silent") {
                    Fired::DeadOfDeaths
                } else {
                    Fired::DeadOfFailure
                });
                self.declared_dead(a, job, reason);
            }
            LedgerEffect::Wake => self.serve_soon(a, 1),
        }
    }

    fn leased(&mut self, a: usize, w: usize, attempt: Attempt, key: ContentKey, alone: bool, reply: &Reply) {
        let job = Truth::job(&key);
        if !matches!(reply, Reply::Pull(asker) if *asker == w) {
            self.violate(format!("job {job} was leased to worker {w} that did not ask"));
        }
        if !self.may(w, job) {
            self.violate(format!("job {job} was leased to worker {w}, which may not see it"));
        }
        if !self.truth.is_wanted(job) {
            self.violate(format!("job {job} was leased, which nobody wants"));
        }
        let here = &mut self.aggregators[a];
        if attempt <= std::mem::replace(&mut here.last_attempt, attempt) {
            self.violate(format!("attempt {attempt} was given twice"));
        }
        let here = &mut self.aggregators[a];
        let had = here.granted.values().flat_map(BTreeMap::values).any(|(other, _)| *other == key);
        here.granted.entry(w).or_default().insert(attempt, (key, self.now));
        here.given.insert((w, job));
        let holders = here.ledger.as_ref().map_or(0, |ledger| ledger.holders(&key).len());
        if holders == 2 {
            self.fire(Fired::SecondLease);
        } else if had {
            self.fire(Fired::LeasedAgain);
        }
        if alone {
            self.fire(Fired::LeasedAlone);
        }
    }

    fn commit(&mut self, a: usize, w: usize, job: usize, attempt: Attempt) {
        // The lease may have ended, or have been given by a life of the aggregator before this.
        let had_lease =
            self.aggregators[a].granted.get(&w).is_some_and(|leases| leases.contains_key(&attempt));
        if !self.may(w, job) {
            self.violate(format!("job {job} was taken from worker {w}, which may not see it"));
        }
        if !self.aggregators[a].given.contains(&(w, job)) {
            self.violate(format!("job {job} was taken from worker {w}, which never had it"));
        }
        if self.truth.jobs[job].is_over() {
            self.violate(format!("job {job} was committed, but it was cancelled or dead"));
        }
        if self.truth.jobs[job].kind != super::truth::Kind::Good {
            self.violate(format!("job {job} can not succeed and was committed"));
        }
        match self.plan.planted {
            Some(Planted::SkipsCommit) if self.rng.u8(..20) == 0 => {}
            Some(Planted::AcksBeforeCommit) => self.bell(300, a, Bell::LateCommit { job, worker: w }),
            _ => self.write_commit(job, w),
        }
        if !had_lease {
            self.fire(Fired::LateCommit);
        }
    }

    fn write_commit(&mut self, job: usize, w: usize) {
        if self.truth.committed.insert(job, peer(w)).is_some() {
            self.violate(format!("job {job} was committed twice"));
        }
        self.truth.jobs[job].settled_at = Some(self.now);
    }

    /// Whether nobody has asked for the job again since the aggregator was started: then its result goes to waste, but
    /// the job is not lost. A job that was asked for and is still wanted must be known to the ledger.
    fn is_unasked(&mut self, a: usize, reply: &Reply) -> bool {
        let Reply::Result { key, .. } = reply else { return false };
        let job = Truth::job(key);
        let is_asked = self.truth.jobs[job].submitted == Some(self.aggregators[a].life);
        if self.truth.is_wanted(job) && is_asked {
            self.violate(format!("a result of job {job} was not wanted, but the job is"));
        }
        let is_unasked = self.truth.is_wanted(job) && !is_asked;
        if is_unasked {
            self.fire(Fired::WastedUnasked);
        }
        is_unasked
    }

    fn declared_dead(&mut self, a: usize, job: usize, reason: &str) {
        if self.truth.jobs[job].kind == super::truth::Kind::Good {
            if !reason.contains("went silent") {
                self.violate(format!("job {job} is good and was declared dead: {reason}"));
            }
            // Workers did go silent while it ran alone, so often that it was taken for the cause. A person asks again.
            self.falsely_dead += 1;
            self.truth.jobs[job].submitted = None;
            let next = &mut self.aggregators[a].next_job;
            *next = job.min(*next);
            return self.bell(1000, a, Bell::Submit);
        }
        if reason.is_empty() || !self.truth.is_wanted(job) {
            self.violate(format!("job {job} died without a reason, or twice"));
        }
        self.truth.jobs[job].dead = Some(reason.to_owned());
        self.truth.jobs[job].settled_at = Some(self.now);
    }

    fn acknowledge(&mut self, a: usize, w: usize, reply: &Reply, is_unasked: bool) {
        if let Reply::Result { boot, item, serial, .. } = reply {
            self.send_down(a, w, *boot, Down::Ended { item: *item, serial: *serial, is_unasked });
        }
    }
}
