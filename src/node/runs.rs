//! What a running node keeps of the runs of its clients: as [`Runner`](super::Runner) asks for it, over the store's thread.

use std::time::Duration;

use super::{
    Disk, DiskError,
    local::{checked, is_anything_expired},
};
use crate::{
    store::GcReport,
    wire::{ContentKey, Run, RunId, SegmentResult},
};

impl Disk {
    /// What is known of a run.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn run(&self, id: RunId) -> Result<Option<Run>, DiskError> {
        self.call(move |store| store.run(&id)).await
    }

    /// Keeps a run and its keys, before its first job.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn begin_run(&self, id: RunId, run: Run, keys: Vec<ContentKey>) -> Result<(), DiskError> {
        self.call(move |store| store.put_run(&id, &run, &keys)).await
    }

    /// Keeps how a run ended.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn end_run(&self, id: RunId, run: Run) -> Result<(), DiskError> {
        self.call(move |store| store.put_run_state(&id, &run)).await
    }

    /// Forgets runs that nobody repeated for `keep`, and their results, but not the run `current`.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn sweep(
        &self,
        now_ms: Option<u64>,
        keep: Duration,
        current: RunId,
    ) -> Result<Option<GcReport>, DiskError> {
        self.call(move |store| match is_anything_expired(store, now_ms, keep, &current)? {
            Some(now_ms) => store.gc(now_ms, keep, Some(&current)).map(Some),
            None => Ok(None),
        })
        .await
    }

    /// The stored result of `key`, whose text has so many bytes, if it is whole and can be right.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn result(
        &self,
        key: ContentKey,
        text_bytes: usize,
        dimension: usize,
    ) -> Result<Option<SegmentResult>, DiskError> {
        let found = self.call(move |store| store.result(&key)).await?;
        Ok(checked(&key, found, text_bytes, dimension))
    }
}
