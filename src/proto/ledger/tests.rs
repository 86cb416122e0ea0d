//! The ledger, event by event.

mod any_events;

use std::time::Duration;

use super::*;

const HOME: SwarmId = SwarmId::from_bytes([1; 32]);
const OTHER: SwarmId = SwarmId::from_bytes([2; 32]);

fn worker(n: u8) -> Worker {
    Worker { peer: PeerId::from_bytes([n; 32]), boot: [n; 16] }
}

fn reborn(n: u8) -> Worker {
    Worker { boot: [n + 100; 16], ..worker(n) }
}

fn key(n: usize) -> ContentKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    ContentKey::from_bytes(bytes)
}

/// A ledger, a clock, and what came out.
struct Desk {
    ledger: Ledger,
    now: Timestamp,
}

impl Desk {
    /// `jobs` jobs of 100 tokens.
    fn with(jobs: usize) -> Self {
        let mut desk = Self { ledger: Ledger::new(1, 7), now: Timestamp::from_ms(1) };
        (0..jobs).for_each(|n| {
            desk.submit(n, Some(HOME), 100);
        });
        desk
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.ledger.handle(self.now, event, &mut out);
        self.check();
        out
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.handle(Event::Tick)
    }

    fn submit(&mut self, n: usize, swarm: Option<SwarmId>, tokens: u32) -> Vec<Effect> {
        self.handle(Event::Submit { job: key(n), swarm, tokens })
    }

    fn pull_as(
        &mut self,
        worker: Worker,
        swarms: Option<Vec<SwarmId>>,
        jobs: usize,
        speed: u32,
    ) -> Vec<Effect> {
        self.handle(Event::Pull { worker, swarms, tokens: 1_000_000, jobs, tokens_per_s: speed })
    }

    /// Pulls up to `jobs` jobs; gives job and attempt of each, and whether it runs alone.
    fn pull(&mut self, worker: Worker, jobs: usize) -> Vec<(ContentKey, Attempt, bool)> {
        leases(&self.pull_as(worker, Some(vec![HOME]), jobs, 100))
    }

    fn beat(&mut self, worker: Worker, tokens_done: u64, held: &[(Attempt, Stage)]) -> Vec<Effect> {
        let holding = held.iter().map(|&(attempt, stage)| Holding { attempt, stage }).collect();
        self.handle(Event::Heartbeat { worker, tokens_done, holding })
    }

    fn result(&mut self, worker: Worker, attempt: Attempt, job: ContentKey) -> Vec<Effect> {
        self.handle(Event::Result { worker, attempt, job, verdict: Verdict::Right })
    }

    fn nack(&mut self, worker: Worker, attempt: Attempt, job: ContentKey) -> Vec<Effect> {
        let verdict = Verdict::Failed("bad tokens".into());
        self.handle(Event::Result { worker, attempt, job, verdict })
    }

    /// One worker pulls one job, runs it and goes silent until its lease has ended.
    fn die(&mut self, worker: Worker) -> Vec<Effect> {
        let (_, attempt, _) = self.pull(worker, 1)[0];
        self.beat(worker, 1, &[(attempt, Stage::Running)]);
        self.wait(31)
    }

    /// What must hold after every event.
    fn check(&self) {
        let ledger = &self.ledger;
        assert!(ledger.jobs.len() <= JOBS_MAX && ledger.workers.len() <= WORKERS_MAX);
        let mut leased = 0;
        for (key, job) in &ledger.jobs {
            match &job.state {
                State::Ready => assert!(ledger.ready.contains(&(job.order, *key))),
                State::Delayed(until) => assert!(ledger.delayed.contains(&(*until, *key))),
                State::Leased(attempts) => {
                    assert!((1..=HOLDERS_MAX).contains(&attempts.len()));
                    assert!(attempts.iter().all(|attempt| ledger.leases[attempt].job == *key));
                    leased += 1;
                }
            }
        }
        assert_eq!(ledger.jobs.len(), ledger.ready.len() + ledger.delayed.len() + leased);
        let tokens = |(_, key): &(_, ContentKey)| u64::from(ledger.jobs[key].tokens);
        assert_eq!(ledger.ready_tokens, ledger.ready.iter().map(tokens).sum::<u64>());
        assert_eq!(ledger.deadlines.len(), ledger.leases.len());
        let held: usize = ledger.workers.values().map(|state| state.leases.len()).sum();
        assert_eq!(held, ledger.leases.len());
        for (attempt, lease) in &ledger.leases {
            assert!(ledger.deadlines.contains(&(lease.deadline, *attempt)));
            assert!(ledger.workers[&lease.worker.peer].leases.contains(attempt));
            let job = ledger.jobs.get(&lease.job).map(|job| &job.state);
            assert!(matches!(job, Some(State::Leased(attempts)) if attempts.contains(attempt)));
        }
        assert!(ledger.workers.values().all(|state| state.leases.len() <= LEASES_PER_WORKER_MAX));
        assert!(ledger.next_deadline().is_none_or(|due| due > self.now));
    }
}

fn leases(effects: &[Effect]) -> Vec<(ContentKey, Attempt, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Lease { attempt, job, alone, .. } => Some((*job, *attempt, *alone)),
            _ => None,
        })
        .collect()
}

fn is_dead(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Dead { .. }))
}

#[test]
fn a_job_is_leased_and_committed_once() {
    let mut desk = Desk::with(1);
    let (job, attempt, alone) = desk.pull(worker(1), 5)[0];
    assert!(!alone);
    assert_eq!(desk.ledger.holders(&job), [(worker(1), attempt)]);
    assert!(desk.pull(worker(2), 5).is_empty());
    assert_eq!(desk.result(worker(1), attempt, job), [Effect::Commit { worker: worker(1), attempt, job }]);
    assert!(!desk.ledger.has(&job));
    // The acknowledgement was lost.
    assert_eq!(desk.result(worker(1), attempt, job), [Effect::Duplicate { worker: worker(1), attempt }]);
}

#[test]
fn a_silent_worker_loses_its_lease_and_its_late_result_counts_once() {
    let mut desk = Desk::with(1);
    let (job, first, _) = desk.pull(worker(1), 1)[0];
    assert!(desk.wait(29).is_empty());
    assert_eq!(desk.wait(1), [Effect::Wake]);
    let (_, second, _) = desk.pull(worker(2), 1)[0];
    assert!(second > first);
    let effects = desk.result(worker(1), first, job);
    let commit = Effect::Commit { worker: worker(1), attempt: first, job };
    assert_eq!(effects, [Effect::Withdraw { attempt: second }, commit]);
    assert_eq!(
        desk.result(worker(2), second, job),
        [Effect::Duplicate { worker: worker(2), attempt: second }]
    );
}

#[test]
fn heartbeats_with_progress_extend_but_not_for_ever() {
    let mut desk = Desk::with(1);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    let mut seconds = 0;
    while desk.ledger.holders(&job).len() == 1 {
        desk.wait(20);
        desk.beat(worker(1), seconds, &[(attempt, Stage::Running)]);
        seconds += 20;
        assert!(seconds <= 3620);
    }
    assert!(seconds >= 3600, "{seconds}");
}

#[test]
fn the_third_heartbeat_without_progress_does_not_extend() {
    for stage in [Stage::Queued, Stage::Running] {
        let mut desk = Desk::with(1);
        let (job, attempt, _) = desk.pull(worker(1), 1)[0];
        for _ in 0..3 {
            desk.wait(3);
            desk.beat(worker(1), 0, &[(attempt, stage)]);
        }
        // Two of them did: the lease ends 30 s after the second.
        assert!(!desk.ledger.holders(&job).is_empty());
        desk.wait(26);
        assert!(!desk.ledger.holders(&job).is_empty());
        desk.wait(1);
        assert!(desk.ledger.holders(&job).is_empty(), "{stage:?}");
    }
}

#[test]
fn a_result_on_its_way_needs_no_progress() {
    let mut desk = Desk::with(1);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    for _ in 0..30 {
        desk.wait(3);
        desk.beat(worker(1), 0, &[(attempt, Stage::Computed)]);
    }
    assert_eq!(desk.ledger.holders(&job).len(), 1);
    // Nobody computes it again because of it, until it is much too late.
    assert!(desk.pull(worker(2), 1).is_empty());
    for _ in 0..20 {
        desk.wait(3);
        desk.beat(worker(1), 0, &[(attempt, Stage::Computed)]);
    }
    assert_eq!(desk.pull(worker(2), 1).len(), 1);
}

#[test]
fn release_and_goodbye_count_nothing() {
    let mut desk = Desk::with(1);
    for n in 1..20 {
        let (job, attempt, alone) = desk.pull(worker(n), 1)[0];
        assert!(!alone);
        desk.beat(worker(n), 1, &[(attempt, Stage::Running)]);
        let effects = if n % 2 == 0 {
            desk.handle(Event::Release { worker: worker(n), attempts: vec![attempt] })
        } else {
            desk.handle(Event::Left { worker: worker(n) })
        };
        assert_eq!(effects, [Effect::Wake]);
        assert_eq!(desk.ledger.jobs[&job].failures.total(), 0);
    }
}

#[test]
fn a_stranger_neither_releases_nor_delivers_another_ones_lease() {
    let mut desk = Desk::with(2);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    let evil = worker(2);
    let (other, own, _) = desk.pull(evil, 1)[0];
    assert!(desk.handle(Event::Release { worker: evil, attempts: vec![attempt] }).is_empty());
    assert_eq!(desk.result(evil, attempt, job), [Effect::Refuse { worker: evil, attempt }]);
    assert_eq!(desk.result(evil, own, job), [Effect::Refuse { worker: evil, attempt: own }]);
    assert_eq!(desk.nack(evil, attempt, job), [Effect::Refuse { worker: evil, attempt }]);
    assert_eq!(desk.beat(evil, 1, &[(attempt, Stage::Running)]), [Effect::Withdraw { attempt }]);
    assert_eq!(desk.ledger.holders(&job), [(worker(1), attempt)]);
    assert_eq!(desk.ledger.holders(&other), [(evil, own)]);
}

#[test]
fn failing_on_two_workers_is_death_with_the_reason() {
    let mut desk = Desk::with(1);
    desk.pull(worker(2), 0);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    // Another one is here, so it is his now.
    desk.submit(1, Some(HOME), 100);
    desk.pull(worker(2), 1);
    assert_eq!(desk.nack(worker(1), attempt, job), [Effect::Noted { worker: worker(1), attempt }]);
    desk.wait(1);
    assert!(desk.pull(worker(1), 1).is_empty());
    let (_, attempt, _) = desk.pull(worker(2), 1)[0];
    let effects = desk.nack(worker(2), attempt, job);
    let dead = Effect::Dead { job, reason: "bad tokens".into() };
    assert_eq!(effects, [dead, Effect::Noted { worker: worker(2), attempt }]);
    assert!(!desk.ledger.has(&job));
}

#[test]
fn failing_five_times_on_the_only_worker_is_death() {
    let mut desk = Desk::with(1);
    // One who may not have the job does not count as another.
    desk.pull_as(worker(9), Some(vec![OTHER]), 1, 100);
    for n in 1..=5 {
        let (job, attempt, _) = desk.pull(worker(1), 1)[0];
        assert_eq!(is_dead(&desk.nack(worker(1), attempt, job)), n == 5);
        desk.wait(10);
    }
    assert_eq!(desk.ledger.counts(), LedgerCounts::default());
}

#[test]
fn a_late_failure_counts_nothing() {
    let mut desk = Desk::with(1);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    desk.wait(31);
    assert_eq!(desk.nack(worker(1), attempt, job), [Effect::Noted { worker: worker(1), attempt }]);
    assert_eq!(desk.ledger.jobs[&job].failures.total(), 0);
}

#[test]
fn a_death_among_several_marks_alone_and_a_death_alone_goes_last() {
    let mut desk = Desk::with(3);
    let held: Vec<_> = desk.pull(worker(1), 1).iter().map(|l| (l.1, Stage::Running)).collect();
    desk.beat(worker(1), 1, &held);
    desk.wait(31);
    // The first is still the first, and alone.
    let granted = desk.pull(worker(2), 3);
    assert_eq!(granted.iter().map(|l| (l.0, l.2)).collect::<Vec<_>>(), [(key(0), true)]);
    desk.beat(worker(2), 1, &[(granted[0].1, Stage::Running)]);
    desk.wait(60);
    desk.wait(60);
    let order: Vec<_> = (0..3).map(|_| desk.pull(worker(3), 1)[0]).map(|l| (l.0, l.2)).collect();
    assert_eq!(order, [(key(1), false), (key(2), false), (key(0), true)]);
}

#[test]
fn two_workers_on_which_it_died_are_not_stuck_with_it() {
    let mut desk = Desk::with(1);
    let mut deaths = 0;
    while desk.ledger.has(&key(0)) {
        let dead = is_dead(&desk.die(worker(1 + deaths % 2)));
        deaths += 1;
        // The first one was no death alone; two of three say little, the third is enough.
        assert_eq!(dead, deaths == 4);
        desk.wait(70);
    }
}

#[test]
fn what_kills_before_any_heartbeat_runs_alone_the_third_time() {
    let mut desk = Desk::with(1);
    let alone = [1, 2, 3].map(|n| {
        let (_, _, alone) = desk.pull(worker(n), 1)[0];
        desk.wait(31);
        alone
    });
    assert_eq!(alone, [false, false, true]);
    assert_eq!(desk.ledger.jobs[&key(0)].failures.total(), 0, "nobody saw it run");
}

#[test]
fn a_new_life_goes_on_with_what_it_lists() {
    let mut desk = Desk::with(8);
    let (kept, gone) = (desk.pull(worker(1), 1)[0], desk.pull(worker(1), 1)[0]);
    desk.beat(worker(1), 50, &[(kept.1, Stage::Running), (gone.1, Stage::Running)]);
    desk.beat(reborn(1), 0, &[(kept.1, Stage::Queued)]);
    assert_eq!(desk.ledger.holders(&kept.0), [(reborn(1), kept.1)]);
    assert!(desk.ledger.holders(&gone.0).is_empty() && desk.ledger.jobs[&gone.0].alone);
    // What the life before still had on its way changes nothing.
    desk.beat(worker(1), 60, &[(gone.1, Stage::Running)]);
    assert!(desk.pull(worker(1), 1).is_empty());
    desk.handle(Event::Left { worker: worker(1) });
    assert_eq!(desk.ledger.holders(&kept.0), [(reborn(1), kept.1)]);
    // It may give back what was leased to its life before, and deliver it.
    desk.handle(Event::Release { worker: reborn(1), attempts: vec![kept.1] });
    assert!(desk.ledger.holders(&kept.0).is_empty());
}

#[test]
fn echoes_of_former_lives_lock_nobody_out_for_long() {
    let mut desk = Desk::with(3);
    let lives = [1, 2, 3].map(|boot| Worker { boot: [boot; 16], ..worker(1) });
    for life in [lives[0], lives[1], lives[2], lives[0], lives[1]] {
        desk.beat(life, 0, &[]);
    }
    assert!(desk.pull(lives[0], 1).is_empty() && desk.pull(lives[2], 1).len() == 1);
    // What comes so late is taken for a new life; but not for ever.
    desk.wait(60);
    assert!(desk.pull(lives[0], 1).len() == 1 && desk.pull(lives[2], 1).is_empty());
    desk.wait(60);
    assert_eq!(desk.pull(lives[2], 1).len(), 1);
}

#[test]
fn a_grant_that_got_lost_comes_back() {
    let mut desk = Desk::with(2);
    let lost = desk.pull(worker(1), 1)[0];
    desk.wait(9);
    desk.beat(worker(1), 1, &[]);
    assert_eq!(desk.ledger.holders(&lost.0).len(), 1);
    desk.wait(1);
    assert_eq!(desk.beat(worker(1), 2, &[]), [Effect::Wake]);
    assert!(desk.ledger.holders(&lost.0).is_empty());
}

#[test]
fn a_stragglers_job_is_leased_again_and_whoever_is_first_wins() {
    let mut desk = Desk::with(1);
    let (job, slow, _) = desk.pull(worker(1), 1)[0];
    desk.wait(2);
    assert!(desk.pull(worker(2), 1).is_empty());
    desk.wait(1);
    let (_, fast, _) = desk.pull(worker(2), 1)[0];
    desk.wait(5);
    assert!(desk.pull(worker(3), 1).is_empty(), "two hold it");
    // The failure of one leaves it to the other.
    desk.nack(worker(1), slow, job);
    assert_eq!(desk.ledger.holders(&job), [(worker(2), fast)]);
    assert!(matches!(desk.result(worker(2), fast, job)[..], [Effect::Commit { .. }]));
}

#[test]
fn shares_follow_speed_and_shrink() {
    let mut desk = Desk::with(202);
    let mut ask = |n: u8, jobs: usize| {
        leases(&desk.pull_as(worker(n), Some(vec![HOME]), jobs, if n == 1 { 300 } else { 100 })).len()
    };
    // Both are known now; 200 jobs are left.
    assert_eq!((ask(1, 1), ask(2, 1)), (1, 1));
    // Half of three quarters, then half of a quarter of what is left, and so on, up to 128 leases.
    let shares: Vec<usize> = (0..6).map(|n| ask(1 + n % 2, 1000)).collect();
    assert_eq!(shares, [75, 16, 41, 9, 11, 6]);
}

#[test]
fn what_a_peer_says_of_its_speed_never_overflows() {
    let mut desk = Desk::with(0);
    (0..200).for_each(|n| {
        desk.submit(n, Some(HOME), u32::MAX);
    });
    assert!(!leases(&desk.pull_as(worker(1), Some(vec![HOME]), 9, u32::MAX)).is_empty());
    assert!(!leases(&desk.pull_as(worker(2), Some(vec![HOME]), 9, 1)).is_empty());
}

#[test]
fn texts_go_to_members_and_to_this_node_only() {
    let mut desk = Desk::with(0);
    desk.submit(0, None, 100);
    desk.submit(1, Some(OTHER), 100);
    for swarms in [vec![], vec![HOME]] {
        desk.wait(10);
        assert!(leases(&desk.pull_as(worker(1), Some(swarms), 9, 100)).is_empty());
    }
    assert_eq!(leases(&desk.pull_as(worker(2), Some(vec![HOME, OTHER]), 9, 100))[0].0, key(1));
    // A straggler's job is no exception.
    desk.wait(10);
    assert!(leases(&desk.pull_as(worker(1), Some(vec![HOME]), 9, 100)).is_empty());
    assert_eq!(leases(&desk.pull_as(worker(3), None, 9, 100))[0].0, key(0));
}

#[test]
fn a_cancelled_job_is_withdrawn() {
    let mut desk = Desk::with(2);
    let (job, attempt, _) = desk.pull(worker(1), 1)[0];
    assert_eq!(desk.handle(Event::Cancel { job }), [Effect::Withdraw { attempt }]);
    assert!(desk.handle(Event::Cancel { job: key(1) }).is_empty());
    assert_eq!(desk.ledger.counts(), LedgerCounts { workers: 0, ..LedgerCounts::default() });
    assert_eq!(
        desk.beat(worker(1), 1, &[(attempt, Stage::Running)]),
        [Effect::Withdraw { attempt }],
        "and again, where the first word was lost"
    );
    assert_eq!(desk.result(worker(1), attempt, job), [Effect::Duplicate { worker: worker(1), attempt }]);
}

#[test]
fn jobs_and_workers_are_bounded() {
    let mut desk = Desk::with(JOBS_MAX + 5);
    assert_eq!((desk.ledger.room(), desk.ledger.counts().ready), (0, JOBS_MAX));
    let many = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        Worker { peer: PeerId::from_bytes(bytes), boot: [0; 16] }
    };
    for n in 0..WORKERS_MAX {
        assert_eq!(desk.pull(many(n), 1).len(), 1);
    }
    // All hold something: one more gets nothing, until one of them holds nothing.
    assert!(desk.pull(many(WORKERS_MAX), 1).is_empty());
    desk.beat(many(WORKERS_MAX), 1, &[(9999, Stage::Queued)]);
    desk.handle(Event::Left { worker: many(3) });
    assert_eq!(desk.pull(many(WORKERS_MAX), 1).len(), 1);
    // A peer that claims a new life each time has one.
    for n in 0..200 {
        desk.pull(Worker { boot: [n; 16], ..many(0) }, 1);
    }
    assert_eq!(desk.ledger.workers[&many(0).peer].leases.len(), LEASES_PER_WORKER_MAX);
}

#[test]
fn a_job_that_moves_is_given_to_nobody_else_from_then_on() {
    let mut desk = Desk::with(2);
    let held = desk.pull(worker(1), 1)[0];
    for n in 0..2 {
        desk.handle(Event::Move { job: key(n), swarm: Some(OTHER) });
    }
    assert_eq!(desk.pull(worker(2), 9), []);
    assert_eq!(leases(&desk.pull_as(worker(3), Some(vec![OTHER]), 9, 100)).len(), 1);
    assert!(desk.handle(Event::Move { job: key(9), swarm: None }).is_empty(), "it knows no such job");
    // Whoever had it may finish, and what goes back goes where it may go now.
    let effects = desk.handle(Event::Release { worker: worker(1), attempts: vec![held.1] });
    assert_eq!(effects, [Effect::Wake]);
    assert_eq!(desk.pull(worker(1), 9), []);
    desk.handle(Event::Move { job: held.0, swarm: None });
    assert_eq!(leases(&desk.pull_as(worker(3), Some(vec![HOME, OTHER]), 9, 100)), []);
    assert_eq!(leases(&desk.pull_as(worker(4), None, 9, 100)).len(), 1);
}
