//! The budget policy over random traces of a device: sensors that swing, break and fall silent, an owner who orders, clocks
//! that step, restarts; all of it decided by a seed.
//!
//! Deliberately absent: sensors and threads, which `node` runs. `TRACES=100000 cargo test --test suite budget` tries more
//! than a test run does; a failure prints `SEED=n`, and `SEED=n` plays that one again.

mod owner;
mod trace;

use std::time::Instant;

use edge::proto::{
    Timestamp,
    budget::{Admission, Budget, Event, Policy, REASONS_MAX, Share},
};
use owner::{Group, Owner, Sight};
use trace::{Device, Step};

use super::host::number;

/// Traces of an ordinary test run: a second of CPU time.
const TRACES: u64 = 2000;
/// Steps before everything becomes calm.
const STEPS: usize = 50;
/// Between two changes to more, in milliseconds.
const DWELL_MS: u64 = 10_000;

/// One policy under test beside the owner who watches it.
struct World {
    device: Device,
    policy: Policy,
    owner: Owner,
    /// What the policy said after every event.
    said: Vec<Budget>,
    /// When it closed, or gave less, the last time.
    fell_at: Option<u64>,
    openings: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let device = Device::new(seed);
        let policy = Policy::new(at(0), device.limits.clone(), Default::default(), None);
        let owner = Owner::new(&device);
        Self { device, policy, owner, said: Vec::new(), fell_at: None, openings: 0 }
    }

    fn run(mut self) -> Self {
        for _ in 0..STEPS {
            let step = self.device.step();
            self.take(step);
        }
        self.settle();
        self
    }

    fn take(&mut self, step: Step) {
        let until = self.device.ms;
        while let Some(due) = self.policy.next_deadline().filter(|due| due.as_ms() <= until) {
            self.handle(due.as_ms(), Event::Tick, false);
        }
        match step {
            Step::Event(event) => {
                let is_order = matches!(event, Event::Pause { .. } | Event::Resume | Event::Finish);
                self.handle(until, event, is_order);
            }
            Step::Restart { wall_ms } => {
                let (limits, standing) = (self.device.limits.clone(), self.policy.standing());
                self.policy = Policy::new(at(until), limits, standing, wall_ms);
                self.owner.restart(until, wall_ms);
                self.fell_at = None;
            }
        }
    }

    fn handle(&mut self, ms: u64, event: Event, is_order: bool) {
        let before = self.policy.budget().clone();
        let was_paused = self.owner.is_paused(ms.saturating_sub(1));
        self.owner.hear(ms, &event);
        let has_changed = self.policy.handle(at(ms), event);
        let budget = self.policy.budget().clone();
        // A pause that ends is an order too.
        let is_order = is_order || was_paused != self.owner.is_paused(ms);
        let sight = self.owner.look(ms);
        self.held(ms, &budget, &sight);
        self.reasoned(&budget, &sight);
        self.dwelt(ms, &before, &budget, is_order);
        let more = (before.admission, before.threads, before.duty_permille)
            != (budget.admission, budget.threads, budget.duty_permille);
        assert!(has_changed || !more, "a change was not told");
        let due = self.policy.next_deadline();
        assert!(due.is_none_or(|due| due.as_ms() > ms), "a deadline of the past: {due:?} at {ms}");
        assert!(!self.policy.handle(at(ms), Event::Tick), "the same moment, judged twice");
        assert_eq!(self.policy.budget(), &budget);
        self.said.push(budget);
    }

    /// Nothing is above a limit.
    fn held(&self, ms: u64, budget: &Budget, sight: &Sight) {
        if budget.admission == Admission::Nothing {
            assert_eq!((budget.threads, budget.duty_permille), (0, 0));
            return;
        }
        assert_eq!(sight.over, [], "{ms}: it runs, though the owner forbade it");
        let Share { threads, duty_permille } = sight.share.unwrap();
        assert!((1..=threads).contains(&budget.threads), "{ms}: {} threads of {threads}", budget.threads);
        assert!((1..=duty_permille).contains(&budget.duty_permille), "{ms}: {}", budget.duty_permille);
        let sum = u32::from(budget.threads) * u32::from(budget.duty_permille);
        assert!(sum <= sight.quota_permille, "{ms}: {sum} of a quota of {}", sight.quota_permille);
        assert_eq!(budget.is_in_use, sight.is_in_use, "{ms}: whether somebody is there");
        assert_eq!(budget.admission == Admission::Begun, sight.is_finishing);
    }

    /// It is never paused without a reason, and every reason is one.
    fn reasoned(&self, budget: &Budget, sight: &Sight) {
        assert!(budget.reasons.len() <= REASONS_MAX);
        assert_eq!(budget.admission == Admission::All, budget.reasons.is_empty());
        for reason in &budget.reasons {
            assert!(!reason.to_string().is_empty() && !reason.cause.code().is_empty());
            let Some(group) = Group::of(&reason.cause) else { continue };
            let is_so = sight.over.contains(&group) || sight.near.contains(&group);
            match reason.settles_in_s {
                // While nobody looks, what was so is taken to be so.
                None => assert!(is_so || sight.is_silent, "no reason: {reason}"),
                // Hours and days are gates of their own behind one clock.
                Some(left) => {
                    let is_gone = group == Group::Clock || !sight.over.contains(&group);
                    assert!(is_gone && left <= 60, "it has not gone: {reason}");
                }
            }
        }
        for group in &sight.over {
            let is_said = budget.reasons.iter().any(|reason| Group::of(&reason.cause) == Some(*group));
            assert!(is_said || *group == Group::Silence, "{group:?} is not said: {:?}", budget.reasons);
        }
    }

    /// What goes, goes at once; what comes, comes after a while.
    fn dwelt(&mut self, ms: u64, before: &Budget, budget: &Budget, is_order: bool) {
        let groups = |budget: &Budget| {
            budget.reasons.iter().filter_map(|reason| Group::of(&reason.cause)).collect::<Vec<_>>()
        };
        let now = groups(budget);
        for gone in groups(before).into_iter().filter(|group| !now.contains(group)) {
            let clear_ms = ms - self.owner.last_not_clear(gone);
            assert!(clear_ms >= gone.dwell_ms(), "{ms}: {gone:?} went after {clear_ms} ms");
        }
        let work = |budget: &Budget| u32::from(budget.threads) * u32::from(budget.duty_permille);
        if work(budget) > work(before) && !is_order {
            let since = self.fell_at.map_or(u64::MAX, |fell| ms - fell);
            assert!(since >= DWELL_MS, "{ms}: more again after {since} ms");
            self.openings += u64::from(work(before) == 0);
        }
        if work(budget) < work(before) && !is_order {
            self.fell_at = Some(ms);
        }
    }

    /// All causes go: it resumes, within what each takes to settle.
    fn settle(&mut self) {
        let begun = self.device.ms;
        let patience_ms = self.device.limits.idle_after_s * 1000 + 70_000 + 3 * 4000;
        let whole = self.device.calm_share();
        for step in self.device.become_calm() {
            self.take(step);
        }
        loop {
            let step = self.device.calm_step();
            self.take(step);
            let budget = self.policy.budget();
            if budget.admission == Admission::All
                && (budget.threads, budget.duty_permille) == (whole.threads, whole.duty_permille)
            {
                return;
            }
            assert!(self.device.ms - begun <= patience_ms, "it does not resume: {budget:?}");
        }
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

#[test]
fn no_trace_breaks_a_limit_or_pauses_for_nothing_or_for_ever() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TRACES").unwrap_or(TRACES),
    };
    let (begun, count) = (Instant::now(), seeds.end - seeds.start);
    let (mut events, mut openings, mut paused) = (0, 0, 0);
    for seed in seeds {
        let run = || World::new(seed).run();
        let world = std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("SEED={seed}"));
        assert_eq!(run().said, world.said, "SEED={seed}: played again it went otherwise");
        events += world.said.len();
        openings += world.openings;
        paused += world.said.iter().filter(|budget| budget.admission == Admission::Nothing).count();
    }
    let per_s = count as f64 / begun.elapsed().as_secs_f64();
    println!("{count} traces, {events} events, {per_s:.0} traces/s, each played twice");
    println!("paused after {paused} events, resumed {openings} times");
    if count >= TRACES {
        assert!(
            openings > 2 * count && paused > events / 10 && paused < events * 9 / 10,
            "traces that try nothing"
        );
    }
}

/// Every signal swings about its threshold, at every pace: the budget changes seldom.
#[test]
fn a_signal_that_swings_about_its_threshold_does_not_flap() {
    const SECONDS: u64 = 1200;
    for signal in 0..trace::SIGNALS {
        for half_period_s in [1, 2, 5, 9, 10, 11, 15, 30, 61] {
            let mut device = Device::gentle();
            let mut policy = Policy::new(at(0), device.limits.clone(), Default::default(), None);
            let (mut changes, mut open_ms, mut was_open) = (0, 0, false);
            for second in 0..SECONDS {
                device.swing(signal, second > 2 && second / half_period_s % 2 == 1);
                let reading = device.reading();
                policy.handle(at(second * 1000), Event::Reading(Box::new(reading)));
                let is_open = policy.budget().admission == Admission::All;
                changes += u64::from(is_open != was_open);
                open_ms += u64::from(is_open) * 1000;
                was_open = is_open;
            }
            // Twice a period where each half of it is longer than the dwell time, else not at all.
            let changes_max = if half_period_s <= 10 { 3 } else { SECONDS / half_period_s + 2 };
            assert!(changes <= changes_max, "signal {signal}, {half_period_s} s: {changes} changes");
            assert!(open_ms > 0, "signal {signal} never lets it run");
        }
    }
}
