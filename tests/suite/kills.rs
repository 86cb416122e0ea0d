//! SIGKILL at random moments, for whoever works: nothing is lost and nothing doubled.
//!
//! `KILLS=100 SEED=7 cargo test --test suite kills` kills so often, in that order. More work is handed over as
//! long as there are kills to come, so that there is always something to kill.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use crate::{
    edge::{Running, assert_equal_outputs, lines, prose},
    host::{Host, alone, number, swarm},
    namespace,
};

/// Kills of an ordinary test run.
const KILLS: u64 = 6;
/// Between two kills.
const WAIT_MS: std::ops::Range<u64> = 0..1_500;
/// Three of four kills wait so long for their victim to compute, if it does not yet.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Documents that are handed over at once.
const DOCUMENTS: u64 = 5;
const EMBED: &[&str] = &["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1", "-v"];
const LEND: &[&str] = &["run", "--threads", "1", "-v"];

fn start(hosts: &[Host], at: usize) -> Running {
    hosts[at].start(if at == 0 { EMBED } else { LEND })
}

fn more_documents(founder: &Host, documents: &mut u64) {
    for n in *documents..*documents + DOCUMENTS {
        founder.edge.document(format!("{n:04}.txt"), prose(n + 1, 24_000));
    }
    *documents += DOCUMENTS;
}

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    namespace::alone("kills::kills_at_random_moments_lose_nothing_and_double_nothing", || {
        let kills = number("KILLS").unwrap_or(KILLS);
        let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        println!("  SEED={seed} KILLS={kills}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let hosts = swarm(3);
        let founder = &hosts[0];
        let begun = Instant::now();
        let mut documents = 0;
        more_documents(founder, &mut documents);
        let mut running: Vec<Running> = (0..hosts.len()).map(|at| start(&hosts, at)).collect();
        let (mut killed, mut computing, mut dead) = (vec![0; hosts.len()], 0, 0);
        while killed.iter().sum::<u64>() < kills {
            let victim = rng.usize(..hosts.len());
            let due = Instant::now() + Duration::from_millis(rng.u64(WAIT_MS));
            let idle_max = if rng.u8(..4) > 0 { IDLE_MAX } else { Duration::ZERO };
            while Instant::now() < due || (!has_computed(&hosts[victim]) && Instant::now() < due + idle_max) {
                if !running[0].is_running() {
                    dead += ended(founder, &mut running[0]);
                    more_documents(founder, &mut documents);
                    running[0] = start(&hosts, 0);
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            if !running[victim].is_running() {
                assert_eq!(victim, 0, "a worker has ended by itself: {}", hosts[victim].log());
                continue;
            }
            killed[victim] += 1;
            computing += u64::from(has_computed(&hosts[victim]));
            running[victim].child.kill().unwrap();
            running[victim].child.wait().unwrap();
            running[victim] = start(&hosts, victim);
        }
        // It is over when nothing was given up; what a kill made look deadly is asked for again.
        let killing = begun.elapsed();
        let mut last = ended(founder, &mut running[0]);
        while last > 0 {
            dead += last;
            running[0] = start(&hosts, 0);
            last = ended(founder, &mut running[0]);
        }
        println!(
            "  killed {killed:?} (aggregator first), {computing} of them had computed, in {killing:.0?}; \
             the last run ended after {:.0?}; {dead} times one ended with documents that had failed",
            begun.elapsed()
        );
        let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
        let ids: BTreeSet<&str> = shared.iter().map(|line| line["id"].as_str().unwrap()).collect();
        let alone = alone(founder);
        println!(
            "  {documents} documents: {} chunks, {} different ones, {} by one machine alone",
            shared.len(),
            ids.len(),
            alone.len()
        );
        assert_eq!(ids.len(), shared.len(), "doubled");
        assert_equal_outputs(&shared, &alone);
    });
}

/// Whether the process that was started last has begun to compute.
fn has_computed(host: &Host) -> bool {
    host.log().contains("encoder on matrix kernels")
}

/// Waits for the end of an embed: 0, or 1 where documents had failed.
fn ended(founder: &Host, embed: &mut Running) -> u64 {
    match embed.ended() {
        Some(0) => 0,
        Some(1) => {
            println!("  {}", founder.log().lines().last().unwrap_or_default());
            1
        }
        other => panic!("{other:?}: {}", founder.log()),
    }
}
