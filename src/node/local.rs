//! A run in this process: jobs go to compute threads, their results to the store, in durable batches.
//!
//! A key is reported as done only after the disk has its result. The model is loaded with the first job, so
//! a run whose results are all stored costs no inference.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::own_limits::OwnLimits;
use crate::{
    inference::{Computed, Engine, Job, JobError, ModelError, ModelFolder, Pool, Stop},
    proto::budget::Limits,
    store::{DirectoryLock, Found, GcReport, Store, StoreError, is_expired},
    wire::{ContentKey, PeerId, Run, RunId, RunState, SegmentResult},
};

/// A batch is written when it holds so many results …
const BATCH_RESULTS_MAX: usize = 256;
/// … or when its oldest result has waited so long: what a power cut may cost, against an SD card's wear.
const BATCH_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a run can not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model does not load.
    #[error("cannot load the model")]
    Model(#[source] ModelError),
    /// The running node is gone, or says why it does not go on.
    #[error("{0}")]
    Node(String),
    /// Somebody cancelled it.
    #[error("cancelled; what was computed is kept, the same command goes on from there")]
    Cancelled,
    /// This node can not compute.
    #[error("{reason}")]
    NoCompute {
        /// Why, for a person.
        reason: String,
    },
    /// No compute threads.
    #[error("cannot start compute threads")]
    Threads(#[source] std::io::Error),
    /// All compute threads, or the node, ended while jobs were waiting.
    #[error("whoever computed has ended; the log says why")]
    Ended,
}

/// Why a key has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Compute was asked to stop; nothing is wrong.
    Stopped,
    /// Whoever was asked has forgotten it, as a node does whose client was not heard for long: ask again.
    Forgotten,
    /// Why, for a person.
    Failed(String),
}

impl Failure {
    fn of(error: &JobError) -> Self {
        if matches!(error, JobError::Stopped) {
            return Self::Stopped;
        }
        let source = std::error::Error::source(error).map(|source| format!(": {source}"));
        Self::Failed(format!("{error}{}", source.unwrap_or_default()))
    }
}

/// What became of one key.
#[derive(Debug)]
pub struct Outcome {
    /// The key.
    pub key: ContentKey,
    /// Chunks and tokens of its result, or why there is none.
    pub result: Result<(u64, u64), Failure>,
    /// Time that one thread spent on it.
    pub elapsed: Duration,
    /// Who computed it.
    pub worker: PeerId,
}

/// What a command asks for jobs: this process alone, or a swarm.
pub trait Runner {
    /// What is known of a run.
    ///
    /// # Errors
    /// [`RunError`].
    fn known(&self, id: &RunId) -> Result<Option<Run>, RunError>;

    /// Keeps the run and its keys, before its first job.
    ///
    /// # Errors
    /// [`RunError`].
    fn begin(&mut self, id: &RunId, run: &Run, keys: &[ContentKey]) -> Result<(), RunError>;

    /// Keeps how the run ended. Everything that it reported as done is on the disk already.
    ///
    /// # Errors
    /// [`RunError`].
    fn end(&mut self, id: &RunId, run: &Run) -> Result<(), RunError>;

    /// Forgets runs that nobody repeated for `keep`, and their results, but not the run `current`. Looks first
    /// whether there is any. A clock that is behind the newest run is wrong, and nothing is too old by it.
    ///
    /// # Errors
    /// [`RunError`].
    fn sweep(
        &mut self,
        now_ms: Option<u64>,
        keep: Duration,
        current: &RunId,
    ) -> Result<Option<GcReport>, RunError>;

    /// The stored result of `key`, whose lead and body have `text_bytes`, if it is whole and can be right. One
    /// that is not is logged and counts as absent.
    ///
    /// # Errors
    /// [`RunError`].
    fn result(&self, key: &ContentKey, text_bytes: usize) -> Result<Option<SegmentResult>, RunError>;

    /// Hands over a window of jobs; gives it back where there is no room yet.
    ///
    /// # Errors
    /// [`RunError`]; a model that does not load shows here.
    fn try_submit(&mut self, window: Vec<Job>) -> Result<Option<Vec<Job>>, RunError>;

    /// Jobs whose outcome has not been reported.
    fn outstanding(&self) -> usize;

    /// Outcomes whose results are on the disk; waits up to `wait` for the first. May be empty.
    ///
    /// # Errors
    /// [`RunError`]: what was not written is lost and was not reported.
    fn poll(&mut self, wait: Duration) -> Result<Vec<Outcome>, RunError>;

    /// What a person should know of who computes, where that has changed. To be asked now and then.
    fn remark(&mut self) -> Option<String> {
        None
    }

    /// Stops compute between two operators, keeps what is whole, and reports it.
    ///
    /// # Errors
    /// [`RunError`].
    fn stop(&mut self) -> Result<Vec<Outcome>, RunError>;
}

/// A run in this process.
pub struct LocalRun {
    store: Store,
    folder: ModelFolder,
    peer: PeerId,
    threads: usize,
    stop: Stop,
    pool: Option<Pool>,
    limits: OwnLimits,
    /// Whether a person was told that it waits.
    is_waiting: bool,
    submitted: usize,
    unsaved: Vec<(ContentKey, SegmentResult)>,
    unsaved_since: Instant,
    waiting: Vec<Outcome>,
    /// Until the run is over nobody else opens the store.
    _lock: DirectoryLock,
}

impl LocalRun {
    /// Over an open store, whose directory's lock this keeps; heat and memory are held to `limits`, by files under `sensors`,
    /// `/` in real life. Nothing is loaded or started yet.
    pub fn new(
        store: Store,
        folder: ModelFolder,
        peer: PeerId,
        threads: usize,
        stop: Stop,
        lock: DirectoryLock,
        (sensors, limits): (&Path, Limits),
    ) -> Self {
        Self {
            _lock: lock,
            limits: OwnLimits::new(sensors, limits, threads),
            is_waiting: false,
            store,
            folder,
            peer,
            threads,
            stop,
            pool: None,
            submitted: 0,
            unsaved: Vec::new(),
            unsaved_since: Instant::now(),
            waiting: Vec::new(),
        }
    }

    /// Whether every thread has ended though nobody asked it to.
    fn is_deserted(&self) -> bool {
        !self.stop.is_asked() && self.pool.as_ref().is_some_and(Pool::is_over)
    }

    fn take_in(&mut self, computed: Vec<Computed>) {
        for Computed { key, result, took } in computed {
            let counted = result.map(|result| {
                let tokens = result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
                let chunks = result.chunks.len() as u64;
                if self.unsaved.is_empty() {
                    self.unsaved_since = Instant::now();
                }
                self.unsaved.push((key, result));
                (chunks, tokens)
            });
            let result = counted.map_err(|error| Failure::of(&error));
            self.waiting.push(Outcome { key, result, elapsed: took.wall, worker: self.peer });
        }
    }

    fn commit(&mut self) -> Result<Vec<Outcome>, RunError> {
        if !self.unsaved.is_empty() {
            self.store.put_results(&self.unsaved)?;
            tracing::debug!(results = self.unsaved.len(), "results stored");
            self.unsaved.clear();
        }
        self.submitted -= self.waiting.len();
        Ok(std::mem::take(&mut self.waiting))
    }
}

impl Runner for LocalRun {
    fn known(&self, id: &RunId) -> Result<Option<Run>, RunError> {
        Ok(self.store.run(id)?)
    }

    fn result(&self, key: &ContentKey, text_bytes: usize) -> Result<Option<SegmentResult>, RunError> {
        Ok(checked(key, self.store.result(key)?, text_bytes, self.folder.manifest().dimension))
    }

    fn sweep(
        &mut self,
        now_ms: Option<u64>,
        keep: Duration,
        current: &RunId,
    ) -> Result<Option<GcReport>, RunError> {
        match is_anything_expired(&self.store, now_ms, keep, current)? {
            Some(now_ms) => Ok(Some(self.store.gc(now_ms, keep, Some(current))?)),
            None => Ok(None),
        }
    }

    fn begin(&mut self, id: &RunId, run: &Run, keys: &[ContentKey]) -> Result<(), RunError> {
        Ok(self.store.put_run(id, run, keys)?)
    }

    fn end(&mut self, id: &RunId, run: &Run) -> Result<(), RunError> {
        debug_assert_ne!(run.state, RunState::Begun);
        Ok(self.store.put_run_state(id, run)?)
    }

    fn try_submit(&mut self, window: Vec<Job>) -> Result<Option<Vec<Job>>, RunError> {
        if self.pool.is_none() {
            let engine = Arc::new(Engine::load(&self.folder, self.peer).map_err(RunError::Model)?);
            let pool = Pool::start(&engine, self.threads, self.stop.clone(), self.limits.pace());
            self.pool = Some(pool.map_err(RunError::Threads)?);
        }
        let jobs = window.len();
        match self.pool.as_ref().map_or(Ok(()), |pool| pool.try_submit(0, window)) {
            Ok(()) => {
                self.submitted += jobs;
                Ok(None)
            }
            Err(_) if self.is_deserted() => Err(RunError::Ended),
            Err(window) => Ok(Some(window)),
        }
    }

    fn outstanding(&self) -> usize {
        self.submitted
    }

    fn poll(&mut self, wait: Duration) -> Result<Vec<Outcome>, RunError> {
        if let Some(computed) = self.pool.as_ref().and_then(|pool| pool.receive(wait)) {
            self.take_in(computed);
        } else if self.submitted > self.waiting.len() && self.is_deserted() {
            return Err(RunError::Ended);
        }
        let is_due = self.unsaved.len() >= BATCH_RESULTS_MAX
            || self.unsaved_since.elapsed() >= BATCH_WAIT_MAX
            || self.submitted == self.waiting.len();
        if is_due { self.commit() } else { Ok(Vec::new()) }
    }

    fn remark(&mut self) -> Option<String> {
        said_of_waiting(&mut self.is_waiting, self.limits.waits_because())
    }

    fn stop(&mut self) -> Result<Vec<Outcome>, RunError> {
        self.stop.ask();
        self.limits.wake();
        if let Some(mut pool) = self.pool.take() {
            pool.stop();
            while !pool.is_over() {
                if let Some(computed) = pool.receive(Duration::from_millis(50)) {
                    self.take_in(computed);
                }
            }
            while let Some(computed) = pool.receive(Duration::ZERO) {
                self.take_in(computed);
            }
        }
        self.commit()
    }
}

/// What a person should know of own work that waits, where that has changed.
pub fn said_of_waiting(is_waiting: &mut bool, because: Option<String>) -> Option<String> {
    let was_waiting = std::mem::replace(is_waiting, because.is_some());
    match because {
        Some(because) if !was_waiting => Some(format!("waits: {because}")),
        None if was_waiting => Some("goes on".to_owned()),
        _ => None,
    }
}

/// Whether any run but `current` is too old, by a clock that can be believed: then that clock.
pub(super) fn is_anything_expired(
    store: &Store,
    now_ms: Option<u64>,
    keep: Duration,
    current: &RunId,
) -> Result<Option<Option<u64>>, StoreError> {
    let runs = store.runs()?;
    let newest = runs.iter().filter_map(|(_, run)| run.touched_ms).max();
    let now_ms = now_ms.filter(|&now| newest.is_none_or(|newest| newest <= now));
    let is_old = runs.iter().any(|(id, run)| id != current && is_expired(run, now_ms, keep));
    Ok(is_old.then_some(now_ms))
}

/// What was found under a key, if it can be right.
pub(super) fn checked(
    key: &ContentKey,
    found: Found,
    text_bytes: usize,
    dimension: usize,
) -> Option<SegmentResult> {
    match found {
        Found::Result(result) => match result.check(text_bytes, dimension) {
            Ok(()) => Some(result),
            Err(error) => {
                tracing::warn!(%key, %error, "stored result is wrong, it is computed again");
                None
            }
        },
        Found::Nothing => None,
        Found::Damaged(error) => {
            tracing::warn!(%key, %error, "stored result is damaged, it is computed again");
            None
        }
    }
}
