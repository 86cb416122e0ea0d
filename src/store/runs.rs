//! Runs and their content keys, and the sweep of results that no run names any more.

use std::{collections::BTreeSet, time::Duration};

use super::{Store, StoreError};
use crate::wire::{self, ContentKey, Run, RunId};

const TABLE: &str = "runs";
const KEYS_TABLE: &str = "run_keys";
const VERSION: u8 = 1;
/// Content keys in one page of a run: 32 KiB, a few LMDB overflow pages.
const KEYS_PER_PAGE: usize = 1024;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Runs forgotten.
    pub runs: u64,
    /// Results removed.
    pub results: u64,
    /// Results that stay.
    pub results_kept: u64,
}

impl Store {
    /// The record of a run; `None` where there is none or it is damaged.
    ///
    /// # Errors
    /// What reading may say.
    pub fn run(&self, id: &RunId) -> Result<Option<Run>, StoreError> {
        self.read("a run", |tables, txn| {
            let record = tables.runs.get(txn, id.as_bytes())?;
            Ok(record.and_then(|bytes| wire::open(TABLE, VERSION, id.as_bytes(), bytes).ok()))
        })
    }

    /// Every run that can be read, in no order that means anything.
    ///
    /// # Errors
    /// What reading may say.
    pub fn runs(&self) -> Result<Vec<(RunId, Run)>, StoreError> {
        self.read("the runs", |tables, txn| {
            let mut runs = Vec::new();
            for entry in tables.runs.iter(txn)? {
                let (key, record) = entry?;
                let Ok(id) = <[u8; 32]>::try_from(key).map(RunId::from_bytes) else { continue };
                if let Ok(run) = wire::open(TABLE, VERSION, key, record) {
                    runs.push((id, run));
                }
            }
            Ok(runs)
        })
    }

    /// Keeps a run and all its keys, in place of what the same id had before.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_run(&mut self, id: &RunId, run: &Run, keys: &[ContentKey]) -> Result<(), StoreError> {
        let record = wire::seal(TABLE, VERSION, id.as_bytes(), run);
        self.write("a run", |tables, txn| {
            tables.run_keys.delete_range(txn, &key_pages(id).as_bounds())?;
            for (page, keys) in (0u32..).zip(keys.chunks(KEYS_PER_PAGE)) {
                let key = page_key(id, page);
                let record = wire::seal(KEYS_TABLE, VERSION, &key, &keys);
                tables.run_keys.put(txn, &key, &record)?;
            }
            tables.runs.put(txn, id.as_bytes(), &record)
        })
    }

    /// Keeps how a run stands; its keys stay.
    ///
    /// # Errors
    /// What writing may say.
    pub fn put_run_state(&mut self, id: &RunId, run: &Run) -> Result<(), StoreError> {
        let record = wire::seal(TABLE, VERSION, id.as_bytes(), run);
        self.write("a run", |tables, txn| tables.runs.put(txn, id.as_bytes(), &record))
    }

    /// Forgets runs that nobody repeated for `keep`, and results that no remaining run names.
    ///
    /// `spared` is kept however old it is. Without a clock (`now_ms` is `None`), and for runs that were made without one, nothing is too old.
    /// A damaged page of keys protects nothing: its results are computed again when they are asked for.
    ///
    /// # Errors
    /// What reading or writing may say; the store is then as it was before.
    pub fn gc(
        &mut self,
        now_ms: Option<u64>,
        keep: Duration,
        spared: Option<&RunId>,
    ) -> Result<GcReport, StoreError> {
        let (old, kept): (Vec<_>, Vec<_>) = self
            .runs()?
            .into_iter()
            .partition(|(id, run)| Some(id) != spared && is_expired(run, now_ms, keep));
        let mut named = BTreeSet::new();
        for (id, _) in &kept {
            named.extend(self.run_keys(id)?);
        }
        self.write("the sweep", |tables, txn| {
            let mut report = GcReport { runs: old.len() as u64, ..GcReport::default() };
            for (id, _) in &old {
                tables.runs.delete(txn, id.as_bytes())?;
                tables.run_keys.delete_range(txn, &key_pages(id).as_bounds())?;
            }
            let mut unnamed = Vec::new();
            for entry in tables.results.iter(txn)? {
                let (key, _) = entry?;
                match <[u8; 32]>::try_from(key).map(ContentKey::from_bytes) {
                    Ok(key) if named.contains(&key) => report.results_kept += 1,
                    _ => unnamed.push(key.to_vec()),
                }
            }
            for key in &unnamed {
                tables.results.delete(txn, key)?;
                tables.receipts.delete(txn, key)?;
            }
            report.results = unnamed.len() as u64;
            Ok(report)
        })
    }

    fn run_keys(&self, id: &RunId) -> Result<Vec<ContentKey>, StoreError> {
        self.read("a run's keys", |tables, txn| {
            let mut keys = Vec::new();
            for entry in tables.run_keys.range(txn, &key_pages(id).as_bounds())? {
                let (key, record) = entry?;
                let page: Result<Vec<ContentKey>, _> = wire::open(KEYS_TABLE, VERSION, key, record);
                keys.extend(page.unwrap_or_default());
            }
            Ok(keys)
        })
    }
}

/// Whether nobody repeated a run for `keep`. Without a clock, then or now, only a `keep` of zero tells.
pub fn is_expired(run: &Run, now_ms: Option<u64>, keep: Duration) -> bool {
    let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    match (now_ms, run.touched_ms) {
        (Some(now), Some(touched)) => now.saturating_sub(touched) >= keep_ms,
        _ => keep.is_zero(),
    }
}

fn page_key(id: &RunId, page: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(id.as_bytes());
    // Big-endian, so that LMDB's order is the order of the pages.
    key[32..].copy_from_slice(&page.to_be_bytes());
    key
}

struct KeyPages {
    first: [u8; 36],
    last: [u8; 36],
}

impl KeyPages {
    fn as_bounds(&self) -> (std::ops::Bound<&[u8]>, std::ops::Bound<&[u8]>) {
        (std::ops::Bound::Included(&self.first), std::ops::Bound::Included(&self.last))
    }
}

fn key_pages(id: &RunId) -> KeyPages {
    KeyPages { first: page_key(id, 0), last: page_key(id, u32::MAX) }
}
