//! A swarm in one thread: the real ledger and the real queue of 3 aggregators and 23 workers, with simulated clocks,
//! disks, networks and faults, all of it decided by a seed.
//!
//! Deliberately absent: sockets, LMDB, tract; `net`, `store` and `embed` run those. A failure prints `SEED=n` and the
//! step; `SEED=n cargo test --test suite sim` plays it again. `SEEDS=n` tries more of them than a test run does.

mod aggregator;
mod disk;
mod forgery;
mod invariants;
mod links;
mod network;
mod truth;
mod worker;
mod world;

use std::time::Instant;

use network::{FIRED, Planted};
use world::{Outcome, Plan, World};

/// Seeds of an ordinary test run: some seconds of CPU time.
const SEEDS: u64 = 40;
/// A planted bug must be found within so many.
const SEEDS_TO_FIND: u64 = 6;

fn run(seed: u64, planted: Option<Planted>) -> Outcome {
    World::new(seed, Plan { jobs: 500, noisy: 600_000, planted, crash_at: None }).run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_job_is_lost_and_none_done_twice_whatever_fails() {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let (begun, mut steps, mut longest, mut falsely_dead, mut fired) =
        (Instant::now(), 0, 0, 0, [0; FIRED.len()]);
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = run(seed, None);
        assert!(outcome.violation.is_none(), "SEED={seed} {}", outcome.violation.unwrap());
        steps += outcome.steps;
        falsely_dead += outcome.falsely_dead;
        longest = longest.max(outcome.settled_after);
        fired.iter_mut().zip(outcome.fired).for_each(|(sum, one)| *sum += one);
    }
    let per_s = steps as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {steps} steps, {per_s:.0} steps/s, all settled {longest} ms after the last fault"
    );
    println!("{:?}", FIRED.iter().zip(fired).collect::<Vec<_>>());
    // Three times silence while it runs alone is rare even here: less than one of 50,000 good jobs.
    println!("{falsely_dead} good jobs were declared dead and asked for again");
    assert!(falsely_dead <= count / 100, "{falsely_dead} good jobs declared dead");
    if count >= SEEDS {
        let never: Vec<_> = FIRED.iter().zip(fired).filter(|(_, times)| *times == 0).collect();
        assert!(never.is_empty(), "never happened: {never:?}");
    }
}

/// Few jobs, no other fault, and one crash: before the first effect, after the last, and everywhere between.
#[test]
fn a_crash_at_any_boundary_of_effects_loses_nothing() {
    let run =
        |crash_at| World::new(5, Plan { jobs: 24, noisy: 1, planted: None, crash_at: Some(crash_at) }).run();
    let mut crashes = 0;
    loop {
        let outcome = run(crashes);
        assert!(outcome.violation.is_none(), "boundary {crashes}: {}", outcome.violation.unwrap());
        if outcome.boundaries <= crashes {
            break;
        }
        crashes += 1;
    }
    println!("{crashes} boundaries, a crash at each");
    assert!(crashes > 200, "{crashes}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..3 {
        let (first, second) = (run(seed, None), run(seed, None));
        assert_eq!((first.steps, first.hash), (second.steps, second.hash), "SEED={seed}");
        assert_ne!(first.hash, run(seed + 100, None).hash);
    }
}

#[test]
fn planted_bugs_are_found() {
    let planted = [
        Planted::SkipsStore,
        Planted::SkipsCommit,
        Planted::AcksBeforeCommit,
        Planted::RunsBeforeKeep,
        Planted::DoubleAccept,
        Planted::KeepsDeadLeases,
        Planted::ReusesAttempts,
        Planted::DropsRelease,
        Planted::IgnoresPlacement,
        Planted::LosesJobs,
        Planted::TrustsForgery,
    ];
    for seed in 0..SEEDS_TO_FIND {
        assert!(run(seed, None).violation.is_none(), "SEED={seed} without a planted bug");
    }
    for bug in planted {
        let found =
            (0..SEEDS_TO_FIND).find_map(|seed| run(seed, Some(bug)).violation.map(|what| (seed, what)));
        let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        println!("{bug:?}: SEED={seed} {what}");
    }
}
