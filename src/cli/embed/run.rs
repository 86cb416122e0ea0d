//! One embed: scan, find out what is stored, have the rest computed, write everything in source order.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use data_encoding::{BASE64, HEXLOWER};

use super::{
    progress::Progress,
    scan::{Origin, Reader, ScanError, ScanOptions, Segment},
    sink::{Line, Sink, SinkError},
};
use crate::{
    cli::{human, talk},
    inference::{Job, SEGMENT_BYTES_MAX, Stop},
    node::{Failure, Outcome, RunError, Runner},
    wire::{ContentKey, PeerId, SegmentResult},
};

/// How long one look at the compute threads may take; Ctrl-C is noticed as often.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Windows below this are not worth handing over.
const WINDOW_BYTES_MIN: usize = 4 * 1024;
/// Jobs of a window: a ledger has room for eight of them.
const WINDOW_JOBS_MAX: usize = 256;
/// Each thread gets at least so many windows of a short run, so that all end at about the same time.
const WINDOWS_PER_THREAD: usize = 4;

/// One document of the run.
pub(super) struct Document {
    /// As it was named or found.
    pub(super) path: PathBuf,
    origin: Origin,
    segments: Range<usize>,
    /// Segments without a result so far.
    open: usize,
    /// Why it is not in the output.
    pub(super) failure: Option<String>,
    pub(super) chunks: u64,
    pub(super) tokens: u64,
    /// Time of one thread that this run spent on it.
    pub(super) elapsed: Duration,
}

/// How the computing and writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    /// A signal; results so far are kept.
    Interrupted,
    /// Whoever read our output has had enough.
    Closed,
}

/// Why a run ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmbedError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// All documents, their segments, and what is known of them.
pub(super) struct Embedding {
    pub(super) documents: Vec<Document>,
    segments: Vec<Segment>,
    options: ScanOptions,
    /// Segments that have a key, by key, where this run has to compute it.
    missing: HashMap<ContentKey, Vec<usize>>,
    /// The first segment of each missing key, in source order.
    order: Vec<usize>,
    reader: Reader,
    stop: Stop,
    /// Chunks that were found in the store.
    pub(super) chunks_stored: u64,
    pub(super) chunks_computed: u64,
    /// Chunks by who computed them in this run.
    pub(super) workers: BTreeMap<PeerId, u64>,
}

impl Embedding {
    pub(super) fn new(options: ScanOptions, stop: Stop) -> Self {
        Self {
            documents: Vec::new(),
            segments: Vec::new(),
            options,
            missing: HashMap::new(),
            order: Vec::new(),
            reader: Reader::default(),
            stop,
            chunks_stored: 0,
            chunks_computed: 0,
            workers: BTreeMap::new(),
        }
    }

    /// Scans a document and adds it.
    ///
    /// # Errors
    /// Why it is none; nothing was added.
    pub(super) fn add(&mut self, path: PathBuf, mut origin: Origin) -> Result<(), ScanError> {
        let segments = origin.scan(&self.options, &self.stop)?;
        let first = self.segments.len();
        self.segments.extend(segments);
        self.documents.push(Document {
            path,
            origin,
            segments: first..self.segments.len(),
            open: 0,
            failure: None,
            chunks: 0,
            tokens: 0,
            elapsed: Duration::ZERO,
        });
        Ok(())
    }

    /// Options that decide keys, as bytes: another set of them is another run.
    pub(super) fn options_bytes(&self) -> Vec<u8> {
        let chunk = self.options.chunk;
        let numbers = [chunk.tokens_max.to_le_bytes(), chunk.overlap_tokens.to_le_bytes()].concat();
        [&numbers, self.options.prefix.as_bytes()].concat()
    }

    /// Content keys in source order.
    pub(super) fn keys(&self) -> Vec<ContentKey> {
        self.segments.iter().map(|segment| segment.key).collect()
    }

    /// Bytes of text in all documents.
    pub(super) fn text_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.body_bytes)).sum()
    }

    /// Finds out which results are stored. `fresh`: none counts. Gives the bytes of text to be embedded; `None` where it was
    /// interrupted.
    ///
    /// # Errors
    /// What the store may say.
    pub(super) fn look_up(&mut self, run: &dyn Runner, fresh: bool) -> Result<Option<u64>, RunError> {
        let mut bytes = 0;
        for document in &mut self.documents {
            for at in document.segments.clone() {
                if self.stop.is_asked() {
                    return Ok(None);
                }
                let segment = &self.segments[at];
                if let Some(same) = self.missing.get_mut(&segment.key) {
                    same.push(at);
                    document.open += 1;
                    continue;
                }
                let text_bytes = segment.lead_bytes + segment.body_bytes;
                match if fresh { None } else { run.result(&segment.key, text_bytes as usize)? } {
                    Some(result) => {
                        document.chunks += result.chunks.len() as u64;
                        document.tokens += tokens(&result);
                        self.chunks_stored += result.chunks.len() as u64;
                    }
                    None => {
                        self.missing.insert(segment.key, vec![at]);
                        self.order.push(at);
                        document.open += 1;
                        bytes += u64::from(segment.body_bytes);
                    }
                }
            }
        }
        Ok(Some(bytes))
    }

    /// Computes what is missing and writes each document when it is whole and its turn has come.
    ///
    /// # Errors
    /// [`EmbedError`] when store, model or output fail; a document that fails is none.
    pub(super) fn execute(
        &mut self,
        run: &mut dyn Runner,
        sink: &mut Sink,
        model: &str,
        threads: usize,
        progress: &mut Progress,
    ) -> Result<Ending, EmbedError> {
        let missing_bytes: usize = self.order.iter().map(|&at| self.segments[at].body_bytes as usize).sum();
        let window_bytes =
            (missing_bytes / (threads * WINDOWS_PER_THREAD)).clamp(WINDOW_BYTES_MIN, SEGMENT_BYTES_MAX);
        let (mut next_missing, mut next_document, mut refused) = (0, 0, None);
        while next_document < self.documents.len() {
            if self.stop.is_asked() {
                let outcomes = run.stop()?;
                self.take_in(outcomes, progress);
                return Ok(Ending::Interrupted);
            }
            let document = &self.documents[next_document];
            if document.failure.is_some() || document.open == 0 {
                match self.write(next_document, run, sink, model) {
                    Err(EmbedError::Sink(SinkError::Closed)) => {
                        run.stop()?;
                        return Ok(Ending::Closed);
                    }
                    other => other?,
                }
                next_document += 1;
                continue;
            }
            while let Some(window) = refused.take().or_else(|| self.window(&mut next_missing, window_bytes)) {
                refused = run.try_submit(window)?;
                if refused.is_some() {
                    break;
                }
            }
            if run.outstanding() > 0 {
                let outcomes = run.poll(POLL_WAIT)?;
                self.take_in(outcomes, progress);
            }
            if let Some(remark) = run.remark() {
                talk::say(&remark);
            }
            progress.tick();
        }
        Ok(Ending::Complete)
    }

    /// The next jobs, together about `bytes` long.
    fn window(&mut self, next: &mut usize, bytes: usize) -> Option<Vec<Job>> {
        let (mut window, mut filled) = (Vec::new(), 0);
        while filled < bytes && window.len() < WINDOW_JOBS_MAX && *next < self.order.len() {
            let segment = self.segments[self.order[*next]];
            *next += 1;
            if let Some(job) = self.job(&segment.key) {
                filled += job.text.len();
                window.push(job);
            }
        }
        (!window.is_empty()).then_some(window)
    }

    /// The job of a key, read from the first document that still has its text. Documents that have changed
    /// fail; when none is left the key is dropped.
    fn job(&mut self, key: &ContentKey) -> Option<Job> {
        let places = self.missing.get(key)?.clone();
        for at in places {
            let document = owner(&mut self.documents, at);
            if document.failure.is_some() {
                continue;
            }
            match self.reader.job(&mut document.origin, &self.segments[at], &self.options) {
                Ok(job) => return Some(job),
                Err(error) => document.failure = Some(human::chain(&error)),
            }
        }
        None
    }

    fn take_in(&mut self, outcomes: Vec<Outcome>, progress: &mut Progress) {
        for Outcome { key, result, elapsed, worker } in outcomes {
            if result == Err(Failure::Stopped) {
                continue;
            }
            if result == Err(Failure::Forgotten) {
                // It goes to the end of what is still to be handed over.
                self.order.extend(self.missing.get(&key).and_then(|places| places.first()));
                continue;
            }
            let places = self.missing.remove(&key).unwrap_or_default();
            for (nth, &at) in places.iter().enumerate() {
                let document = owner(&mut self.documents, at);
                document.open -= 1;
                match &result {
                    Ok((chunks, tokens)) => {
                        document.chunks += chunks;
                        document.tokens += tokens;
                        if nth == 0 {
                            document.elapsed += elapsed;
                            self.chunks_computed += chunks;
                            *self.workers.entry(worker).or_default() += chunks;
                            progress.advance(u64::from(self.segments[at].body_bytes), *chunks);
                        }
                    }
                    Err(Failure::Failed(why)) => {
                        let segment = &self.segments[at];
                        let (start, end) = (segment.offset, segment.offset + u64::from(segment.body_bytes));
                        document.failure = Some(format!("bytes {start}..{end}: {why}"));
                    }
                    Err(Failure::Stopped | Failure::Forgotten) => {}
                }
            }
        }
    }

    /// Writes a document whose results are all stored; a failed one is only named.
    fn write(&mut self, at: usize, run: &dyn Runner, sink: &mut Sink, model: &str) -> Result<(), EmbedError> {
        if self.documents[at].failure.is_some() || matches!(sink, Sink::Nothing) {
            return Ok(());
        }
        sink.begin_document()?;
        let mut index = 0;
        for segment_at in self.documents[at].segments.clone() {
            let segment = self.segments[segment_at];
            let document = &mut self.documents[at];
            let text = self.reader.text(&mut document.origin, &segment, &self.options);
            let text_bytes = segment.lead_bytes + segment.body_bytes;
            let failure = match (text, run.result(&segment.key, text_bytes as usize)?) {
                (Ok(text), Some(result)) => {
                    write_segment(&document.path, &segment, &text, &result, model, &mut index, sink)?;
                    continue;
                }
                (Err(error), _) => human::chain(&error),
                (Ok(_), None) => "its stored result is damaged; run the same command again".to_owned(),
            };
            let lost = sink.abort_document()?;
            let already = if lost > 0 {
                format!(" ({index} of its chunks are in the output already)")
            } else {
                String::new()
            };
            self.documents[at].failure = Some(failure + &already);
            break;
        }
        Ok(())
    }
}

fn write_segment(
    path: &Path,
    segment: &Segment,
    text: &str,
    result: &SegmentResult,
    model: &str,
    index: &mut u64,
    sink: &mut Sink,
) -> Result<(), EmbedError> {
    let dimension = result.vectors.len() / result.chunks.len().max(1);
    let name = path.to_string_lossy();
    for (span, vector) in result.rows(dimension.max(1)) {
        let Some(chunk) = text.get(span.start as usize..span.end as usize) else {
            tracing::error!(start = span.start, end = span.end, "a stored chunk does not fit its text");
            continue;
        };
        let (start, end) =
            (segment.text_offset() + u64::from(span.start), segment.text_offset() + u64::from(span.end));
        sink.chunk(Line {
            id: chunk_id(path, start, end, chunk),
            path: &name,
            path_bytes: path.to_str().is_none().then(|| BASE64.encode(path.as_os_str().as_bytes())),
            index: *index,
            start,
            end,
            text: chunk,
            tokens: span.tokens,
            model,
            vector: Some(vector),
        })?;
        *index += 1;
    }
    Ok(())
}

/// The same chunk of the same file always has the same id: 128 bits of BLAKE3, in hex.
fn chunk_id(path: &Path, start: u64, end: u64, text: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("edge 2026-11 chunk id, version 1");
    let path = path.as_os_str().as_bytes();
    hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
    hasher.update(&start.to_le_bytes()).update(&end.to_le_bytes()).update(text.as_bytes());
    HEXLOWER.encode(&hasher.finalize().as_bytes()[..16])
}

/// The document that a segment belongs to.
fn owner(documents: &mut [Document], segment: usize) -> &mut Document {
    // Documents without segments share their start with the next one and end before the segment.
    let at = documents.partition_point(|document| document.segments.end <= segment);
    &mut documents[at]
}

fn tokens(result: &SegmentResult) -> u64 {
    result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum()
}
