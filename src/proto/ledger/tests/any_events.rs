//! Events in any order, drawn from a seed: whatever comes, the ledger's parts agree with each other.

use super::*;

const STAGES: [Stage; 3] = [Stage::Queued, Stage::Running, Stage::Computed];

#[test]
fn events_of_any_kind_keep_the_ledger_whole() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut desk = Desk::with(40);
    let mut granted: Vec<(Worker, Attempt, ContentKey)> = Vec::new();
    for step in 0..20_000 {
        desk.now = desk.now.after(Duration::from_millis(rng.u64(0..4000)));
        let who = if rng.bool() { worker(rng.u8(1..8)) } else { reborn(rng.u8(1..8)) };
        let some = if granted.is_empty() { None } else { Some(granted[rng.usize(..granted.len())]) };
        let swarm = [None, Some(HOME), Some(OTHER)][rng.usize(..3)];
        let effects = match (rng.u8(..10), some) {
            (0, _) => desk.submit(40 + step, swarm, rng.u32(..5000)),
            (1, Some((_, _, job))) => desk.handle(Event::Cancel { job }),
            (2 | 3, _) => {
                let swarms = [None, Some(vec![HOME]), Some(vec![OTHER])][rng.usize(..3)].clone();
                desk.pull_as(who, swarms, rng.usize(..40), rng.u32(..2000))
            }
            (4, _) => {
                let own = granted.iter().filter(|lease| lease.0.peer == who.peer);
                let own = own.map(|lease| (lease.1, STAGES[rng.usize(..3)], rng.bool()));
                let held: Vec<_> = own.filter(|held| held.2).map(|held| (held.0, held.1)).collect();
                desk.beat(who, rng.u64(..3), &held)
            }
            (5, Some((by, attempt, job))) => desk.result(by, attempt, job),
            (6, Some((by, attempt, job))) => desk.nack(by, attempt, job),
            (7, Some((_, attempt, _))) => {
                desk.handle(Event::Release { worker: who, attempts: vec![attempt] })
            }
            (8, Some((_, _, job))) if rng.bool() => desk.handle(Event::Move { job, swarm }),
            (8, _) if rng.u8(..8) == 0 => desk.handle(Event::Left { worker: who }),
            _ => desk.handle(Event::Tick),
        };
        granted.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Lease { worker, attempt, job, .. } => Some((*worker, *attempt, *job)),
            _ => None,
        }));
        granted.drain(..granted.len().saturating_sub(200));
    }
}
