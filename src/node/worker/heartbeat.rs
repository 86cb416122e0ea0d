//! Signs of life to whoever lent us something, and what of it we hold.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{Answer, HEARTBEAT, Worker};
use crate::{
    node::ask::{ANSWER_WAIT, ask},
    proto::{ItemId, ItemState},
    transport::Connection,
    wire::{HOLDING_MAX, Heartbeat, Holding, PeerId, Stage, Withdrawn},
};

/// How long an aggregator may take to hear that something runs alone.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);

impl Worker {
    fn heartbeat(&self, peer: &PeerId) -> Option<(Connection, Heartbeat)> {
        let aggregator = self.aggregators.get(peer)?;
        let holding = self.queue.holding(peer).into_iter().take(HOLDING_MAX);
        let holding = holding.map(|(attempt, state)| Holding { attempt, stage: stage(state) }).collect();
        let tokens_done = self.engine.tokens_done();
        Some((aggregator.connection.clone(), Heartbeat { tokens_done, holding }))
    }

    /// What runs alone may kill this process: its aggregator hears of it first, or it would never know whom to blame.
    /// Rare, so this actor may wait for it.
    pub(super) async fn announce_alone(&self, ids: &[ItemId]) {
        let alone = ids.iter().filter_map(|&id| self.queue.item(id)).find(|item| item.alone);
        if let Some((connection, heartbeat)) = alone.and_then(|item| self.heartbeat(&item.aggregator)) {
            // All of it: also a stream that is not granted, or a peer that does not read.
            let asked = ask::<_, Withdrawn>(&connection, &heartbeat, ANNOUNCE_WAIT);
            let _ = timeout(ANNOUNCE_WAIT, asked).await;
        }
    }

    /// The mesh keeps connections to those whose work is here, and finds those that are not connected.
    pub(super) fn say_busy(&self) {
        let held: BTreeSet<PeerId> = self.queue.aggregators().into_iter().collect();
        self.busy.send_if_modified(|before| {
            let is_new = *before != held;
            if is_new {
                *before = held;
            }
            is_new
        });
    }

    pub(super) fn beat(&mut self) {
        if self.beaten.elapsed() < HEARTBEAT || !self.holds_any() {
            return;
        }
        self.beaten = Instant::now();
        for peer in self.queue.aggregators() {
            let Some((connection, heartbeat)) = self.heartbeat(&peer) else { continue };
            self.tasks.spawn_local(async move {
                Answer::Beaten(peer, ask(&connection, &heartbeat, ANSWER_WAIT).await)
            });
        }
    }
}

fn stage(state: ItemState) -> Stage {
    match state {
        ItemState::Queued => Stage::Queued,
        ItemState::Running => Stage::Running,
        ItemState::Computed => Stage::Computed,
    }
}
