//! The worker's queue: what was pulled, what runs next, what waits to be delivered (DESIGN 5).
//!
//! Deliberately absent: texts and results, which the store keeps under the item's id, and the network. Each step of
//! an item is one effect `Keep`, `Computed` or `Remove` that is on the disk before anything relies on it: so the
//! queue survives the loss of power, and after a start goes on where it was.

mod effects;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use effects::{Delivery, Effect, Event, Grant, Item, ItemId, Ran, State};

use super::{Backoff, Timestamp};
use crate::wire::PeerId;

/// Items at most, in all states: their texts and results lie in the store, up to 9 MiB each in the worst case and 100 KiB
/// mostly.
pub const ITEMS_MAX: usize = 256;
/// Results that wait for delivery before no more work is pulled: an aggregator that is away must not fill the disk.
const OUTBOX_MAX: usize = 192;
/// Results of these for aggregators that do not take them, as long as another is here: else those who went away would
/// keep all others from being served.
const OUTBOX_STUCK_MAX: usize = 64;
/// Tries after which an aggregator counts as one that does not take the result: some minutes.
const TRIES_STUCK: u8 = 10;
/// Deliveries to one aggregator at the same time.
const DELIVERIES_MAX: usize = 4;
/// How long a result waits for an aggregator that is away. Whoever comes back later computes it again.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are held for each thread's second of speed, so that the network is never waited for.
const PREFETCH: Duration = Duration::from_secs(8);
/// Tokens that are asked for where the speed is not known.
const PREFETCH_TOKENS_MIN: u32 = 8192;
/// Tokens of a window: a few batches, so that short texts share them.
const WINDOW_TOKENS: u64 = 8192;
/// Starts of the process that an item survives while it runs alone.
const DEATHS_MAX: u8 = 3;
/// How long what runs alone lets others go first: it needs all threads idle, so it comes last, but it comes.
const ALONE_WAITS: Duration = Duration::from_secs(60);
/// After a start nothing runs alone for so long: what was running when the process died may not be wanted any more, which
/// the answers to the first heartbeats say. It also keeps a node that dies of one job from doing nothing else.
const ALONE_AFTER_START: Duration = Duration::from_secs(10);
/// Between tries to deliver.
const REDELIVER: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// Numbers for `edge status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Items that wait to run.
    pub queued: usize,
    /// Items that run.
    pub running: usize,
    /// Results that wait to be delivered.
    pub outbox: usize,
    /// Tokens that wait or run.
    pub tokens: u64,
}

/// How an aggregator is reached and what it has had.
#[derive(Clone, Debug, Default)]
struct Aggregator {
    is_connected: bool,
    /// Tokens that were run for it: whoever had least comes next. Who had nothing to run for a while starts where the
    /// others are (start-time fair queueing, Goyal et al. 1996), or a newcomer would have all until it has caught up.
    tokens_run: u64,
    delivering: usize,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    items: BTreeMap<ItemId, Item>,
    aggregators: BTreeMap<PeerId, Aggregator>,
    next_id: ItemId,
    threads: usize,
    tokens_per_s: u32,
    /// Whether more may be taken than is begun.
    takes_more: bool,
    /// Threads run one window each.
    windows: BTreeMap<u64, Vec<ItemId>>,
    window: u64,
    /// `tokens_run` of whoever came last.
    tokens_run: u64,
    /// When something last ran alone.
    ran_alone: Timestamp,
    /// Nothing runs alone before this; `None` when it has passed.
    alone_from: Option<Timestamp>,
    is_draining: bool,
    rng: fastrand::Rng,
}

impl Queue {
    /// What the store had kept. What ran when the process died is queued again, and runs alone from now on; what has
    /// died alone too often is given back as failed.
    pub fn restore(items: Vec<(ItemId, Item)>, now: Timestamp, seed: u64, out: &mut Vec<Effect>) -> Self {
        let mut queue = Self {
            items: BTreeMap::new(),
            aggregators: BTreeMap::new(),
            next_id: items.iter().map(|&(id, _)| id + 1).max().unwrap_or(0),
            threads: 0,
            tokens_per_s: 0,
            takes_more: true,
            windows: BTreeMap::new(),
            window: 0,
            tokens_run: 0,
            ran_alone: now,
            alone_from: Some(now.after(ALONE_AFTER_START)),
            is_draining: false,
            rng: fastrand::Rng::with_seed(seed),
        };
        let ran_together = items.iter().filter(|(_, item)| item.state == State::Running).count() > 1;
        for (id, mut item) in items {
            item.since = now;
            item.tries = 0;
            item.is_delivering = false;
            if item.state == State::Running {
                item.state = State::Queued;
                item.deaths = item.deaths.saturating_add(u8::from(!ran_together));
                item.alone = true;
                if item.deaths >= DEATHS_MAX {
                    item.state = State::Computed;
                    out.push(Effect::Failed {
                        id,
                        reason: format!("the worker died {DEATHS_MAX} times while it ran this alone"),
                    });
                } else {
                    out.push(Effect::Keep { id, item: item.clone() });
                }
            }
            queue.items.insert(id, item);
        }
        queue
    }

    /// Numbers for people.
    pub fn counts(&self) -> QueueCounts {
        let mut counts = QueueCounts::default();
        for item in self.items.values() {
            match item.state {
                State::Queued => counts.queued += 1,
                State::Running => counts.running += 1,
                State::Computed => counts.outbox += 1,
            }
            if item.state != State::Computed {
                counts.tokens += u64::from(item.tokens);
            }
        }
        counts
    }

    /// What is known of an item.
    pub fn item(&self, id: ItemId) -> Option<&Item> {
        self.items.get(&id)
    }

    /// Every item, for people.
    pub fn items(&self) -> impl Iterator<Item = (ItemId, &Item)> {
        self.items.iter().map(|(&id, item)| (id, item))
    }

    /// Everything held for this aggregator, for a heartbeat.
    pub fn holding(&self, aggregator: &PeerId) -> Vec<(u64, State)> {
        let own = self.items.values().filter(|item| item.aggregator == *aggregator);
        own.map(|item| (item.attempt, item.state)).collect()
    }

    /// Aggregators for whom something is held.
    pub fn aggregators(&self) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> = self.items.values().map(|item| item.aggregator).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Tokens and jobs to ask for; zero when there is enough.
    pub fn wanted(&self) -> (u32, usize) {
        let counts = self.counts();
        let room = ITEMS_MAX.saturating_sub(self.items.len()).min(OUTBOX_MAX.saturating_sub(counts.outbox));
        if self.is_closed() || room == 0 {
            return (0, 0);
        }
        let ahead = u64::from(self.tokens_per_s) * PREFETCH.as_secs();
        let target = ahead.max(u64::from(PREFETCH_TOKENS_MIN) * self.threads as u64);
        let missing = target.saturating_sub(counts.tokens);
        (u32::try_from(missing).unwrap_or(u32::MAX), if missing == 0 { 0 } else { room })
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let is_waiting = |item: &Item| item.state == State::Queued && item.alone;
        let alone = self.alone_from.filter(|_| self.items.values().any(is_waiting));
        let deliverable = self.items.values().filter(|item| self.is_deliverable(item));
        deliverable.map(|item| item.not_before).chain(alone).min()
    }

    /// Takes in what happened; adds what follows from it to `out`, to be carried out in that order.
    pub fn handle(&mut self, now: Timestamp, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Granted { aggregator, grants } => self.granted(now, aggregator, grants, out),
            Event::Budget { threads, tokens_per_s, takes_more } => {
                (self.threads, self.tokens_per_s, self.takes_more) = (threads, tokens_per_s, takes_more);
                if self.is_closed() {
                    self.release_queued(out);
                }
            }
            Event::Ended { window, outcomes } => self.ended(now, window, outcomes, out),
            Event::Connected { aggregator } => {
                let state = self.aggregators.entry(aggregator).or_default();
                state.is_connected = true;
                for item in self.items.values_mut().filter(|item| item.aggregator == aggregator) {
                    item.not_before = now;
                }
            }
            Event::Disconnected { aggregator } => {
                if let Some(state) = self.aggregators.get_mut(&aggregator) {
                    state.is_connected = false;
                }
                // Whom nothing is held for is forgotten.
                let held = self.aggregators();
                self.aggregators.retain(|peer, state| state.is_connected || held.binary_search(peer).is_ok());
            }
            Event::Delivered { id, delivery } => self.delivered(now, id, delivery, out),
            Event::Withdrawn { aggregator, attempts } => self.withdrawn(aggregator, &attempts, out),
            Event::GiveBack => self.release_queued(out),
            Event::Drain => {
                self.is_draining = true;
                self.release_queued(out);
            }
            Event::Tick => {}
        }
        self.alone_from = self.alone_from.filter(|from| *from > now);
        self.expire(now, out);
        self.fill_threads(now, out);
        self.deliver(now, out);
    }

    /// Whether nothing more is begun.
    fn is_closed(&self) -> bool {
        self.threads == 0 || !self.takes_more || self.is_draining
    }

    fn granted(&mut self, now: Timestamp, aggregator: PeerId, grants: Vec<Grant>, out: &mut Vec<Effect>) {
        for grant in grants {
            let is_own = |item: &&Item| item.aggregator == aggregator;
            let is_held = self.items.values().filter(is_own).any(|item| item.attempt == grant.attempt);
            if is_held || self.renewed(aggregator, &grant, out) {
                continue;
            }
            if self.items.len() >= ITEMS_MAX || self.is_closed() {
                out.push(Effect::Release { aggregator, attempts: vec![grant.attempt] });
                continue;
            }
            if !self.items.values().filter(is_own).any(|item| item.state != State::Computed) {
                let state = self.aggregators.entry(aggregator).or_default();
                state.tokens_run = state.tokens_run.max(self.tokens_run);
            }
            let id = self.next_id;
            self.next_id += 1;
            let item = Item::new(aggregator, &grant, now);
            self.items.insert(id, item.clone());
            out.push(Effect::Store { id, item, grant: grant.index });
        }
    }

    /// Whether the job is here under a lease that must have ended, for nobody is given two: then it goes on under the new
    /// one. So a worker that was away for a while, or whose aggregator was, computes nothing twice.
    fn renewed(&mut self, aggregator: PeerId, grant: &Grant, out: &mut Vec<Effect>) -> bool {
        let is_same = |item: &Item| {
            (item.aggregator, item.key) == (aggregator, grant.key) && item.state != State::Computed
        };
        let Some((&id, item)) = self.items.iter_mut().find(|(_, item)| is_same(item)) else { return false };
        (item.attempt, item.proof) = (grant.attempt, grant.proof);
        item.alone |= grant.alone;
        out.push(Effect::Keep { id, item: item.clone() });
        true
    }

    fn ended(&mut self, now: Timestamp, window: u64, outcomes: Vec<(ItemId, Ran)>, out: &mut Vec<Effect>) {
        let (ids, is_closed) = (self.windows.remove(&window).unwrap_or_default(), self.is_closed());
        let mut outcomes: BTreeMap<ItemId, _> = outcomes.into_iter().collect();
        for id in ids {
            let Some(item) = self.items.get_mut(&id) else { continue };
            // Of what was not spoken nothing is known but that it does not run any more.
            let ran = outcomes.remove(&id).unwrap_or(Ran::Stopped);
            match ran {
                Ran::Stopped if !is_closed => {
                    item.state = State::Queued;
                    out.push(Effect::Keep { id, item: item.clone() });
                }
                Ran::Stopped | Ran::Unfit => {
                    let (aggregator, attempt) = (item.aggregator, item.attempt);
                    self.items.remove(&id);
                    out.push(Effect::Remove { id });
                    out.push(Effect::Release { aggregator, attempts: vec![attempt] });
                }
                Ran::Right => {
                    (item.state, item.since, item.not_before) = (State::Computed, now, now);
                    out.push(Effect::Computed { id });
                }
                Ran::Failed(reason) => {
                    (item.state, item.since, item.not_before) = (State::Computed, now, now);
                    out.push(Effect::Failed { id, reason });
                }
            }
        }
    }

    fn delivered(&mut self, now: Timestamp, id: ItemId, delivery: Delivery, out: &mut Vec<Effect>) {
        let Some(item) = self.items.get_mut(&id).filter(|item| item.is_delivering) else { return };
        item.is_delivering = false;
        if let Some(state) = self.aggregators.get_mut(&item.aggregator) {
            state.delivering = state.delivering.saturating_sub(1);
        }
        match delivery {
            Delivery::Ended => {
                self.items.remove(&id);
                out.push(Effect::Remove { id });
            }
            Delivery::Missed => {
                item.tries = item.tries.saturating_add(1);
                item.not_before = now.after(REDELIVER.wait(u32::from(item.tries), &mut self.rng));
            }
        }
    }

    /// What is not wanted any more: gone where it waits, ignored where it runs.
    fn withdrawn(&mut self, aggregator: PeerId, attempts: &[u64], out: &mut Vec<Effect>) {
        let is_meant = |item: &Item| {
            item.aggregator == aggregator && attempts.contains(&item.attempt) && item.state == State::Queued
        };
        let ids: Vec<ItemId> =
            self.items.iter().filter(|(_, item)| is_meant(item)).map(|(&id, _)| id).collect();
        for id in ids {
            self.items.remove(&id);
            out.push(Effect::Remove { id });
        }
    }

    fn release_queued(&mut self, out: &mut Vec<Effect>) {
        let mut given_back: BTreeMap<PeerId, Vec<u64>> = BTreeMap::new();
        self.items.retain(|&id, item| {
            if item.state == State::Queued {
                given_back.entry(item.aggregator).or_default().push(item.attempt);
                out.push(Effect::Remove { id });
            }
            item.state != State::Queued
        });
        let releases =
            given_back.into_iter().map(|(aggregator, attempts)| Effect::Release { aggregator, attempts });
        out.extend(releases);
    }

    /// Forgets results that nobody takes. What is on its way stays until it is known what became of it.
    fn expire(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let connected: Vec<PeerId> =
            self.aggregators.iter().filter(|(_, state)| state.is_connected).map(|(&peer, _)| peer).collect();
        let is_old = |item: &Item| item.state != State::Running && now.since(item.since) >= KEPT;
        let is_in_the_way = |item: &Item| {
            item.state == State::Computed
                && (item.tries >= TRIES_STUCK || !connected.contains(&item.aggregator))
                && connected.iter().any(|peer| *peer != item.aggregator)
        };
        let waiting = || self.items.iter().filter(|(_, item)| !item.is_delivering);
        let mut forgotten: BTreeSet<ItemId> =
            waiting().filter(|(_, item)| is_old(item)).map(|(&id, _)| id).collect();
        let stuck: Vec<ItemId> =
            waiting().filter(|(_, item)| is_in_the_way(item)).map(|(&id, _)| id).collect();
        // The oldest first: they have most likely been computed again.
        forgotten.extend(&stuck[..stuck.len().saturating_sub(OUTBOX_STUCK_MAX)]);
        for id in forgotten {
            self.items.remove(&id);
            out.push(Effect::Remove { id });
        }
    }

    /// Gives every free thread a window, of whichever aggregator had least.
    fn fill_threads(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        while !self.is_draining && self.windows.len() < self.threads {
            let ids = self.next_window(now);
            let Some(head) = ids.first().and_then(|id| self.items.get(id)) else { return };
            let state = self.aggregators.entry(head.aggregator).or_default();
            self.tokens_run = self.tokens_run.max(state.tokens_run);
            if head.alone {
                self.ran_alone = now;
            }
            for id in &ids {
                let Some(item) = self.items.get_mut(id) else { continue };
                (item.state, item.since) = (State::Running, now);
                state.tokens_run += u64::from(item.tokens);
                out.push(Effect::Keep { id: *id, item: item.clone() });
            }
            out.push(Effect::Run { window: self.window, ids: ids.clone() });
            self.windows.insert(self.window, ids);
            self.window += 1;
        }
    }

    /// Items that run together: of one aggregator, as many as fill a few batches, no more than a thread's part.
    fn next_window(&self, now: Timestamp) -> Vec<ItemId> {
        let is_alone = |id: &ItemId| self.items.get(id).is_some_and(|item| item.alone);
        if self.windows.values().flatten().any(is_alone) {
            return Vec::new();
        }
        let had = |item: &Item| self.aggregators.get(&item.aggregator).map_or(0, |state| state.tokens_run);
        let queued = || self.items.iter().filter(|(_, item)| item.state == State::Queued);
        // What runs alone comes last, when nothing else runs; or first, when it has waited long enough.
        let is_due = |item: &Item| item.alone && now.since(item.since.max(self.ran_alone)) >= ALONE_WAITS;
        let turn = |item: &Item| if is_due(item) { 0 } else { 1 + u8::from(item.alone) };
        let Some((&first, head)) = queued().min_by_key(|(id, item)| (turn(item), had(item), **id)) else {
            return Vec::new();
        };
        if head.alone {
            let may_run = self.windows.is_empty() && self.alone_from.is_none();
            return if may_run { vec![first] } else { Vec::new() };
        }
        let tokens = |item: &Item| u64::from(item.tokens);
        let all: u64 = queued().map(|(_, item)| tokens(item)).sum();
        let most = (all / self.threads.max(1) as u64).min(WINDOW_TOKENS);
        let mut sum = 0;
        let own = queued().filter(|(_, item)| item.aggregator == head.aggregator && !item.alone);
        own.take_while(|(_, item)| {
            let fits = sum == 0 || sum + tokens(item) <= most;
            sum += tokens(item);
            fits
        })
        .map(|(&id, _)| id)
        .collect()
    }

    fn is_deliverable(&self, item: &Item) -> bool {
        item.state == State::Computed
            && !item.is_delivering
            && self
                .aggregators
                .get(&item.aggregator)
                .is_some_and(|state| state.is_connected && state.delivering < DELIVERIES_MAX)
    }

    fn deliver(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        let due: Vec<ItemId> = self
            .items
            .iter()
            .filter(|(_, item)| self.is_deliverable(item) && item.not_before <= now)
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(item) = self.items.get_mut(&id) else { continue };
            let Some(state) = self.aggregators.get_mut(&item.aggregator) else { continue };
            if state.delivering < DELIVERIES_MAX {
                state.delivering += 1;
                item.is_delivering = true;
                out.push(Effect::Deliver { id, aggregator: item.aggregator, attempt: item.attempt });
            }
        }
    }
}
