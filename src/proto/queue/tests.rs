//! The queue, event by event, beside a disk that its effects write.

use super::*;
use crate::wire::ContentKey;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn grant(attempt: u64, tokens: u32, alone: bool) -> Grant {
    Grant { attempt, proof: [0; 16], key: key(attempt), tokens, alone, index: 0 }
}

fn key(n: u64) -> ContentKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    ContentKey::from_bytes(bytes)
}

/// A queue, a clock, the disk that its effects write, and what is on its way.
struct Desk {
    queue: Queue,
    now: Timestamp,
    disk: BTreeMap<ItemId, Item>,
    windows: BTreeMap<u64, Vec<ItemId>>,
    deliveries: BTreeMap<ItemId, PeerId>,
}

impl Desk {
    /// A worker of so many threads, connected to two aggregators.
    fn new(threads: usize) -> Self {
        let mut desk = Self::restored(BTreeMap::new());
        desk.wait(10);
        desk.budget(threads);
        for n in [1, 2] {
            desk.handle(Event::Connected { aggregator: peer(n) });
        }
        desk
    }

    fn restored(disk: BTreeMap<ItemId, Item>) -> Self {
        let mut out = Vec::new();
        let now = Timestamp::from_ms(0);
        let queue = Queue::restore(disk.clone().into_iter().collect(), now, 3, &mut out);
        let (windows, deliveries) = (BTreeMap::new(), BTreeMap::new());
        let mut desk = Self { queue, now, disk, windows, deliveries };
        desk.carry_out(&out);
        desk
    }

    /// The process dies and is started anew.
    fn crash(&mut self) -> Vec<Effect> {
        let mut out = Vec::new();
        let items = self.disk.clone().into_iter().collect();
        self.queue = Queue::restore(items, Timestamp::from_ms(0), 3, &mut out);
        (self.now, self.windows, self.deliveries) = (Timestamp::from_ms(0), BTreeMap::new(), BTreeMap::new());
        self.carry_out(&out);
        out
    }

    fn carry_out(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Store { id, item, .. } => assert!(self.disk.insert(*id, item.clone()).is_none()),
                Effect::Keep { id, item } => assert!(self.disk.insert(*id, item.clone()).is_some()),
                Effect::Computed { id } | Effect::Failed { id, .. } => {
                    self.disk.get_mut(id).unwrap().state = State::Computed;
                }
                Effect::Remove { id } => assert!(self.disk.remove(id).is_some()),
                Effect::Run { window, ids } => {
                    assert!(ids.iter().all(|id| self.disk[id].state == State::Running));
                    self.windows.insert(*window, ids.clone());
                }
                Effect::Deliver { id, aggregator, .. } => {
                    assert!(self.deliveries.insert(*id, *aggregator).is_none());
                }
                Effect::Release { attempts, aggregator } => {
                    let mut own = self.disk.values().filter(|item| item.aggregator == *aggregator);
                    assert!(!own.any(|item| attempts.contains(&item.attempt)), "gone from the disk first");
                }
            }
        }
        let states = |items: &BTreeMap<ItemId, Item>| -> Vec<_> {
            let deaths = |item: &Item| if item.state == State::Computed { 0 } else { item.deaths };
            items.iter().map(|(id, item)| (*id, item.attempt, item.state, deaths(item))).collect()
        };
        assert_eq!(states(&self.queue.items), states(&self.disk), "the disk has what the queue has");
        assert!(self.queue.items.len() <= ITEMS_MAX);
    }

    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.queue.handle(self.now, event, &mut out);
        self.carry_out(&out);
        out
    }

    fn budget(&mut self, threads: usize) -> Vec<Effect> {
        self.handle(Event::Budget { threads, tokens_per_s: 0, takes_more: true })
    }

    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.handle(Event::Tick)
    }

    fn granted(&mut self, from: u8, grants: Vec<Grant>) -> Vec<Effect> {
        self.handle(Event::Granted { aggregator: peer(from), grants })
    }

    /// The oldest window ends, every item of it like this.
    fn end(&mut self, outcome: Ran) -> Vec<Effect> {
        let (window, ids) = self.windows.pop_first().unwrap();
        let outcomes = ids.into_iter().map(|id| (id, outcome.clone())).collect();
        self.handle(Event::Ended { window, outcomes })
    }

    fn deliver(&mut self, delivery: Delivery) -> Vec<Effect> {
        let (id, _) = self.deliveries.pop_first().unwrap();
        self.handle(Event::Delivered { id, delivery })
    }
}

fn released(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .flat_map(|effect| match effect {
            Effect::Release { attempts, .. } => attempts.clone(),
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn an_item_goes_from_the_grant_to_the_acknowledgement() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(7, 100, false)]);
    assert_eq!(desk.queue.holding(&peer(1)), [(7, State::Running)]);
    desk.end(Ran::Right);
    assert_eq!(desk.deliveries, [(0, peer(1))].into());
    assert_eq!(desk.deliver(Delivery::Ended), [Effect::Remove { id: 0 }]);
    assert_eq!(desk.queue.counts(), QueueCounts::default());
    assert!(desk.queue.aggregators().is_empty());
}

#[test]
fn the_same_grant_twice_is_one_item() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(7, 100, false), grant(7, 100, false)]);
    assert!(desk.granted(1, vec![grant(7, 100, false)]).is_empty(), "nor is it given back");
    // Another aggregator counts for itself.
    desk.granted(2, vec![grant(7, 100, false)]);
    assert_eq!(desk.disk.len(), 2);
}

#[test]
fn a_job_that_is_here_goes_on_under_its_new_lease() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    let again = |attempt| Grant { attempt, proof: [9; 16], ..grant(1, 100, false) };
    assert!(
        matches!(&desk.granted(1, vec![again(5)])[..], [Effect::Keep { id: 0, item }] if item.attempt == 5)
    );
    // Another aggregator's is another.
    assert!(matches!(desk.granted(2, vec![again(6)])[..], [Effect::Store { id: 1, .. }]));
    let delivered = desk.end(Ran::Right);
    assert!(delivered.contains(&Effect::Deliver { id: 0, aggregator: peer(1), attempt: 5 }));
    // What has a result is delivered as it is: it may be a failure, and the new lease another chance.
    assert!(desk.granted(1, vec![again(7)]).iter().any(|effect| matches!(effect, Effect::Store { .. })));
}

#[test]
fn what_ran_with_others_when_the_process_died_runs_alone_and_nobody_is_to_blame() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    desk.granted(1, vec![grant(2, 100, false), grant(3, 100, false)]);
    desk.end(Ran::Right);
    assert_eq!(desk.windows[&1], [1, 2]);
    desk.crash();
    assert_eq!(
        desk.queue.counts(),
        QueueCounts { queued: 2, outbox: 1, tokens: 200, ..QueueCounts::default() }
    );
    assert!(desk.disk.values().all(|item| item.deaths == 0));
    desk.budget(4);
    // Not at once, for it may not be wanted any more.
    assert!(desk.windows.is_empty());
    assert_eq!(desk.queue.next_deadline(), Some(Timestamp::from_ms(10_000)));
    desk.wait(10);
    // One after the other, though four threads are free, and after whatever came since.
    assert_eq!(desk.windows, [(0, vec![1])].into());
    desk.granted(2, vec![grant(9, 100, false)]);
    desk.end(Ran::Right);
    assert_eq!(desk.windows, [(1, vec![3])].into());
    desk.end(Ran::Right);
    assert_eq!(desk.windows, [(2, vec![2])].into());
}

#[test]
fn what_dies_alone_three_times_is_given_back_as_failed() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    for deaths in 1..DEATHS_MAX {
        assert!(matches!(&desk.crash()[..], [Effect::Keep { item, .. }] if item.deaths == deaths));
        desk.budget(1);
        desk.wait(10);
        assert_eq!(desk.windows.len(), 1);
    }
    assert!(matches!(&desk.crash()[..], [Effect::Failed { id: 0, reason }] if reason.contains("3 times")));
    desk.budget(1);
    assert!(desk.windows.is_empty());
    let effects = desk.handle(Event::Connected { aggregator: peer(1) });
    assert_eq!(effects, [Effect::Deliver { id: 0, aggregator: peer(1), attempt: 1 }]);
}

#[test]
fn what_runs_alone_waits_for_the_others_but_not_for_ever() {
    let mut desk = Desk::new(2);
    desk.granted(1, vec![grant(1, 8000, false), grant(2, 8000, false), grant(3, 8000, true)]);
    let mut ran_alone = Vec::new();
    // There is always other work.
    for n in 10..40 {
        desk.granted(2, vec![grant(n, 8000, false), grant(n + 100, 8000, false)]);
        if desk.windows.values().flatten().any(|id| desk.disk[id].alone) {
            assert_eq!(desk.windows.len(), 1, "nothing beside it");
            ran_alone.push(n);
        }
        desk.wait(10);
        desk.end(Ran::Right);
        while desk.queue.counts().outbox > 0 {
            desk.deliver(Delivery::Ended);
        }
    }
    // After a minute, and when what ran by then had ended.
    assert_eq!(ran_alone, [17]);
}

#[test]
fn when_the_budget_closes_what_is_not_begun_goes_back() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 8000, false), grant(2, 8000, false)]);
    desk.granted(2, vec![grant(3, 8000, false)]);
    let effects = desk.budget(0);
    assert_eq!(released(&effects), [2, 3]);
    assert_eq!(desk.queue.wanted(), (0, 0));
    // What comes late goes back as well, and so does what was stopped.
    assert_eq!(released(&desk.granted(1, vec![grant(4, 100, false)])), [4]);
    assert_eq!(released(&desk.end(Ran::Stopped)), [1]);
    assert!(desk.disk.is_empty());
}

#[test]
fn what_this_node_can_not_run_goes_back_and_is_no_failure() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    let effects = desk.end(Ran::Unfit);
    assert_eq!(released(&effects), [1]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Failed { .. } | Effect::Deliver { .. })));
    assert!(desk.disk.is_empty() && desk.windows.is_empty());
}

#[test]
fn a_stopped_window_runs_again_when_the_budget_is_open_by_then() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    desk.budget(0);
    desk.budget(1);
    assert!(desk.windows.len() == 1);
    desk.end(Ran::Stopped);
    assert_eq!(desk.windows, [(1, vec![0])].into());
    // An end that says nothing of the item is no end of it.
    desk.windows.clear();
    desk.handle(Event::Ended { window: 1, outcomes: Vec::new() });
    assert_eq!(desk.windows, [(2, vec![0])].into());
    // Nor does the end of another window.
    assert!(desk.handle(Event::Ended { window: 1, outcomes: vec![(0, Ran::Right)] }).is_empty());
}

#[test]
fn a_drain_finishes_what_runs_and_returns_the_rest() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 8000, false), grant(2, 8000, false)]);
    assert_eq!(released(&desk.handle(Event::Drain)), [2]);
    assert_eq!(desk.queue.wanted(), (0, 0));
    assert_eq!(released(&desk.granted(1, vec![grant(3, 100, false)])), [3]);
    desk.end(Ran::Right);
    assert!(desk.windows.is_empty());
    desk.deliver(Delivery::Ended);
    assert_eq!(desk.queue.counts(), QueueCounts::default());
}

#[test]
fn what_its_owner_gives_back_is_not_run_and_more_may_come() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 8000, false), grant(2, 8000, false)]);
    assert_eq!(released(&desk.handle(Event::GiveBack)), [2]);
    assert!(desk.queue.wanted().1 > 0);
    desk.granted(1, vec![grant(3, 100, false)]);
    desk.end(Ran::Right);
    assert_eq!(desk.queue.counts().running, 1);
}

#[test]
fn two_aggregators_get_the_same_and_a_newcomer_no_more() {
    let mut desk = Desk::new(1);
    let run = |desk: &mut Desk| {
        let from = desk.disk[&desk.windows.first_key_value().unwrap().1[0]].aggregator;
        desk.end(Ran::Right);
        while desk.queue.counts().outbox > 0 {
            desk.deliver(Delivery::Ended);
        }
        from
    };
    desk.granted(1, (0..60).map(|n| grant(n, 8000, false)).collect());
    (0..20).for_each(|_| assert_eq!(run(&mut desk), peer(1)));
    desk.granted(2, (0..40).map(|n| grant(n, 4000, false)).collect());
    let turns: Vec<PeerId> = (0..20).map(|_| run(&mut desk)).collect();
    // Windows of the second hold two jobs of half the length.
    let second = turns.iter().filter(|&&from| from == peer(2)).count();
    assert!((9..=11).contains(&second), "{second}");
}

#[test]
fn windows_hold_a_few_batches_or_a_threads_part() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 9000, false)]);
    desk.granted(1, (2..40).map(|n| grant(n, 1000, false)).collect());
    assert_eq!(desk.windows[&0].len(), 1, "a long one goes by itself");
    desk.end(Ran::Right);
    assert_eq!(desk.windows[&1].len(), 8);

    let mut desk = Desk::new(4);
    desk.granted(1, (0..8).map(|n| grant(n, 100, false)).collect());
    let sizes: Vec<usize> = desk.windows.values().map(Vec::len).collect();
    assert_eq!(sizes.len(), 4, "every thread has something: {sizes:?}");
}

#[test]
fn a_missed_delivery_is_tried_again_later_and_at_once_on_reconnection() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    desk.end(Ran::Right);
    let mut tries = 0;
    for _ in 0..600 {
        if !desk.deliveries.is_empty() {
            tries += 1;
            desk.deliver(Delivery::Missed);
        }
        desk.wait(1);
    }
    assert!((10..60).contains(&tries), "{tries} tries in ten minutes");
    desk.handle(Event::Disconnected { aggregator: peer(1) });
    while !desk.deliveries.is_empty() {
        desk.deliver(Delivery::Missed);
    }
    assert!(desk.wait(600).is_empty() && desk.queue.next_deadline().is_none());
    assert!(matches!(desk.handle(Event::Connected { aggregator: peer(1) })[..], [Effect::Deliver { .. }]));
}

#[test]
fn four_deliveries_at_a_time_to_each() {
    let mut desk = Desk::new(1);
    desk.granted(1, (0..9).map(|n| grant(n, 100, false)).collect());
    desk.granted(2, (0..9).map(|n| grant(n, 100, false)).collect());
    while !desk.windows.is_empty() {
        desk.end(Ran::Right);
    }
    assert_eq!(desk.deliveries.len(), 2 * DELIVERIES_MAX);
    desk.deliver(Delivery::Ended);
    assert_eq!(desk.deliveries.len(), 2 * DELIVERIES_MAX);
    // An answer to nothing changes nothing.
    assert!(desk.handle(Event::Delivered { id: 17, delivery: Delivery::Ended }).is_empty());
}

#[test]
fn what_is_withdrawn_is_not_run_and_what_has_begun_goes_on() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(3, 8000, false)]);
    desk.end(Ran::Right);
    desk.granted(1, vec![grant(1, 8000, false), grant(2, 8000, false)]);
    desk.granted(2, vec![grant(2, 8000, false)]);
    let effects = desk.handle(Event::Withdrawn { aggregator: peer(1), attempts: vec![1, 2, 3, 99] });
    assert_eq!(effects, [Effect::Remove { id: 2 }]);
    // A result that is there may still be the first.
    assert_eq!(desk.queue.holding(&peer(1)), [(3, State::Computed), (1, State::Running)]);
    assert_eq!(desk.queue.holding(&peer(2)), [(2, State::Queued)]);
}

#[test]
fn a_full_outbox_stops_pulling() {
    let mut desk = Desk::new(1);
    assert_eq!(desk.queue.wanted(), (PREFETCH_TOKENS_MIN, OUTBOX_MAX));
    desk.handle(Event::Budget { threads: 2, tokens_per_s: 5000, takes_more: true });
    assert_eq!(desk.queue.wanted(), (40_000, OUTBOX_MAX));
    desk.handle(Event::Disconnected { aggregator: peer(1) });
    desk.handle(Event::Disconnected { aggregator: peer(2) });
    desk.granted(1, (0..OUTBOX_MAX as u64).map(|n| grant(n, 10, false)).collect());
    while !desk.windows.is_empty() {
        desk.end(Ran::Right);
    }
    assert_eq!(desk.queue.wanted(), (0, 0));
    // What one who is away left there does not keep another from being served.
    desk.handle(Event::Connected { aggregator: peer(2) });
    assert_eq!(desk.queue.counts().outbox, OUTBOX_STUCK_MAX);
    assert_eq!(desk.queue.wanted().1, OUTBOX_MAX - OUTBOX_STUCK_MAX);
    // A day later the rest is gone too, and nothing is remembered of it.
    desk.wait(24 * 3600);
    desk.handle(Event::Disconnected { aggregator: peer(2) });
    assert!(desk.disk.is_empty() && desk.queue.aggregators.is_empty());
}

#[test]
fn items_are_bounded() {
    let mut desk = Desk::new(1);
    let effects = desk.granted(1, (0..ITEMS_MAX as u64 + 9).map(|n| grant(n, 10, false)).collect());
    assert_eq!(released(&effects).len(), 9);
    assert_eq!(desk.queue.wanted(), (0, 0));
}

#[test]
fn an_old_result_on_its_way_is_not_forgotten_under_way() {
    let mut desk = Desk::new(1);
    desk.granted(1, vec![grant(1, 100, false)]);
    desk.end(Ran::Right);
    assert!(desk.wait(25 * 3600).is_empty());
    assert_eq!(desk.deliver(Delivery::Missed), [Effect::Remove { id: 0 }]);
    assert_eq!(desk.queue.aggregators[&peer(1)].delivering, 0);
}
