//! The account on its way to the disk: lines that have changed wait for a while, for an SD card wears with every write.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Took;
use crate::{
    node::disk::{Disk, DiskError},
    proto::budget::{Account, Cost, LocalTime, Row, Spent, Totals},
    wire::{Energy, SwarmId},
};

/// What a loss of power may cost the account; the queue loses nothing.
const WRITE_AFTER: Duration = Duration::from_secs(600);
/// When work has ended for so long it is written too: an idle node writes nothing.
const QUIET_FOR: Duration = Duration::from_secs(30);

pub(super) struct Book {
    account: Account,
    changed: BTreeMap<(u32, Option<SwarmId>), Row>,
    /// Since when something waits to be written.
    since: Option<Instant>,
    /// Since when no work runs.
    quiet: Option<Instant>,
}

impl Book {
    pub(super) fn new(account: Account) -> Self {
        Self { account, changed: BTreeMap::new(), since: None, quiet: None }
    }

    pub(super) fn note(&mut self, clock: Option<LocalTime>, took: &Took, energy: Energy, idle_mj: u64) {
        let cost = Cost {
            jobs: u64::from(took.is_right),
            chunks: took.chunks,
            tokens: took.tokens,
            cpu_ms: took.cpu_ms,
            energy: Some(energy),
            idle_mj,
            network_bytes: took.bytes,
        };
        let row = self.account.book(clock, took.swarm, &cost);
        self.changed.insert((row.day, row.swarm), row);
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) fn today(&self, clock: Option<LocalTime>) -> Totals {
        self.account.of_day(self.account.today(clock))
    }

    pub(super) fn today_by_swarm(&self, clock: Option<LocalTime>) -> Vec<(Option<SwarmId>, Totals)> {
        self.account.by_swarm(self.account.today(clock)).collect()
    }

    pub(super) fn spent(&self, clock: Option<LocalTime>) -> Option<Spent> {
        self.account.spent(self.account.today(clock))
    }

    /// Work runs from now on, or has ended.
    pub(super) fn works(&mut self, works: bool) {
        self.quiet = (!works).then(Instant::now);
    }

    /// When [`Book::write`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let quiet = self.quiet.map(|quiet| quiet + QUIET_FOR);
        self.since.map(|since| quiet.map_or(since + WRITE_AFTER, |quiet| quiet.min(since + WRITE_AFTER)))
    }

    pub(super) async fn write(&mut self, disk: &Disk) -> Result<(), DiskError> {
        if self.since.take().is_none() {
            return Ok(());
        }
        let rows: Vec<Row> = std::mem::take(&mut self.changed).into_values().collect();
        let first = self.account.rows().next().map_or(0, |row| row.day);
        disk.call(move |store| store.put_account(&rows, first)).await
    }
}
