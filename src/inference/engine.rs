//! From jobs to results, on one thread: chunk, tokenise, sort by length, batch, embed, check.
//!
//! A panic or an error costs one batch's attempt. The sequences of that batch then run alone, so that only
//! the job that is the cause fails, with its reason.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    BATCH_TOKENS_MAX, BertModel, EmbedError, Embedder, Job, ModelError, ModelFolder, Pace, Stop, TokenError,
    Tokens, TractModel, batch, chunks,
    golden::{COSINE_LEAST, cosine},
    pace::thread_cpu,
};
use crate::wire::{ChunkSpan, PeerId, ResultError, SegmentResult};

/// How often a chunk limit is lowered because a tokenizer splits a chunk alone into more tokens than in
/// its text. WordPiece never does; for others one step nearly always suffices.
const REFITS_MAX: usize = 4;

/// Why a job has no result. Stands for the segment, never for its neighbours.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Compute was asked to stop; the job can be run again.
    #[error("stopped")]
    Stopped,
    /// The tokenizer failed.
    #[error("cannot be tokenised")]
    Tokens(#[source] TokenError),
    /// No limit makes a chunk fit.
    #[error("cannot be cut into chunks of {tokens_max} tokens")]
    Chunk {
        /// Content tokens in a chunk.
        tokens_max: u32,
    },
    /// The model failed on it, alone.
    #[error("cannot be embedded")]
    Embed(#[source] EmbedError),
    /// A panic, alone.
    #[error("made the model panic; this is a bug, please report it with the document")]
    Panic,
    /// The vectors are none.
    #[error("got no right vectors")]
    Result(#[source] ResultError),
}

type MakeEmbedder = Box<dyn Fn() -> Result<Box<dyn Embedder>, EmbedError> + Send + Sync>;

/// A model ready to run, shared by all compute threads.
pub struct Engine {
    tokens: Tokens,
    make: MakeEmbedder,
    prefix: String,
    dimension: usize,
    max_tokens: usize,
    peer: PeerId,
    tokens_done: Arc<AtomicU64>,
}

/// What a job took of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// Time, with rests.
    pub wall: Duration,
    /// CPU time.
    pub cpu: Duration,
}

/// What one thread runs jobs with.
struct Lane<'a> {
    embedder: &'a mut Box<dyn Embedder>,
    pace: &'a mut dyn Pace,
    stop: &'a Stop,
}

impl Engine {
    /// Loads the model of `folder`; results will be signed off by `peer`.
    ///
    /// # Errors
    /// [`ModelError`] names the file and the reason.
    pub fn load(folder: &ModelFolder, peer: PeerId) -> Result<Self, ModelError> {
        let (path, json) = folder.tokenizer()?;
        let tokens = Tokens::from_bytes(&json).map_err(|source| ModelError::Tokenizer { path, source })?;
        let manifest = folder.manifest();
        let (path, bytes) = folder.graph()?;
        let encoder = BertModel::from_onnx(&bytes, manifest.dimension).map(Arc::new);
        let make: MakeEmbedder = match encoder.filter(|model| is_right(folder, model.embedder())) {
            Some(model) => {
                tracing::info!(kernel = model.kernel(), "encoder on matrix kernels");
                Box::new(move || Ok(model.embedder()))
            }
            None => {
                tracing::info!("graph on tract");
                let model = Arc::new(TractModel::from_onnx(folder, path, bytes)?);
                Box::new(move || model.embedder())
            }
        };
        Ok(Self {
            tokens,
            make,
            prefix: manifest.prefix.document.clone(),
            dimension: manifest.dimension,
            max_tokens: manifest.max_tokens,
            peer,
            tokens_done: Arc::default(),
        })
    }

    /// With a count of tokens that goes on where an engine before it has ended.
    #[must_use]
    pub fn counting(self, tokens_done: Arc<AtomicU64>) -> Self {
        Self { tokens_done, ..self }
    }

    /// Floats in a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Tokens that all threads have embedded so far: that they grow is the progress of a long job.
    pub fn tokens_done(&self) -> u64 {
        self.tokens_done.load(Ordering::Relaxed)
    }

    /// The tokenizer.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A new embedder, for one thread.
    ///
    /// # Errors
    /// [`EmbedError::Run`].
    pub fn embedder(&self) -> Result<Box<dyn Embedder>, EmbedError> {
        (self.make)()
    }

    /// Runs `jobs` together, so that short chunks of many jobs share batches, at the pace that it is given. Results stand
    /// in the order of the jobs, each with its share of the time.
    ///
    /// `embedder` is replaced when a panic may have left it in pieces.
    pub fn run(
        &self,
        embedder: &mut Box<dyn Embedder>,
        pace: &mut dyn Pace,
        jobs: &[Job],
        stop: &Stop,
    ) -> Vec<(Result<SegmentResult, JobError>, Took)> {
        let (begun, cpu_before) = (Instant::now(), thread_cpu());
        let mut lane = Lane { embedder, pace, stop };
        let mut window = Window { sequences: Vec::new(), jobs: Vec::new() };
        for (at, job) in jobs.iter().enumerate() {
            lane.pace.enter(stop);
            let before = thread_cpu();
            let cut = match stop.is_asked() {
                true => Ok(Err(JobError::Stopped)),
                false => catch_unwind(AssertUnwindSafe(|| self.chunk(job))),
            };
            lane.pace.leave(0, thread_cpu().saturating_sub(before));
            let state = match cut.unwrap_or(Err(JobError::Panic)) {
                Ok(sequences) => {
                    window.sequences.extend(sequences.into_iter().map(|s| Sequence { job: at, ..s }));
                    Ok(())
                }
                Err(error) => Err(error),
            };
            window.jobs.push(state);
        }
        self.embed(&mut lane, &mut window);
        let (wall, cpu) = (begun.elapsed(), thread_cpu().saturating_sub(cpu_before));
        let all: usize = window.sequences.iter().map(|s| s.ids.len()).sum();
        let mut sequences = window.sequences.into_iter().peekable();
        let mut out = Vec::with_capacity(jobs.len());
        for (at, (job, state)) in jobs.iter().zip(window.jobs).enumerate() {
            let own: Vec<Sequence> = std::iter::from_fn(|| sequences.next_if(|s| s.job == at)).collect();
            let tokens: usize = own.iter().map(|s| s.ids.len()).sum();
            let share = tokens as f64 / all.max(1) as f64;
            let took = Took { wall: wall.mul_f64(share), cpu: cpu.mul_f64(share) };
            out.push((state.and_then(|()| self.assemble(job, own)), took));
        }
        out
    }

    fn chunk(&self, job: &Job) -> Result<Vec<Sequence>, JobError> {
        let offsets = self.tokens.offsets(&job.text).map_err(JobError::Tokens)?;
        let mut fitted = job.options;
        for _ in 0..REFITS_MAX {
            let ranges = chunks(&job.text, job.body_start, &offsets, job.syntax, job.carry, fitted);
            let mut sequences = Vec::with_capacity(ranges.len());
            let mut excess = 0;
            for range in ranges {
                let ids = self.ids(&job.text[range.clone()])?;
                excess = excess.max(ids.len().saturating_sub(self.max_tokens));
                sequences.push(Sequence { job: 0, span: span(&range, ids.len()), ids, vector: Vec::new() });
            }
            if excess == 0 {
                return Ok(sequences);
            }
            fitted.tokens_max = fitted.tokens_max.saturating_sub(excess as u32).max(8);
            fitted.overlap_tokens = fitted.overlap_tokens.min(fitted.tokens_max / 2);
        }
        Err(JobError::Chunk { tokens_max: job.options.tokens_max })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, JobError> {
        let ids = if self.prefix.is_empty() {
            self.tokens.ids(text)
        } else {
            self.tokens.ids(&[&self.prefix, text].concat())
        };
        ids.map_err(JobError::Tokens)
    }

    fn embed(&self, lane: &mut Lane<'_>, window: &mut Window) {
        let Window { sequences, jobs } = window;
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        // Longest first: what comes last, and alone, is cheap.
        order.sort_by_key(|&at| std::cmp::Reverse(sequences[at].ids.len()));
        let lengths: Vec<usize> = order.iter().map(|&at| sequences[at].ids.len()).collect();
        let mut next = 0;
        while next < order.len() {
            let tokens_max = lane.pace.enter(lane.stop).min(BATCH_TOKENS_MAX);
            let members = &order[next..next + batch(&lengths[next..], tokens_max)];
            next += members.len();
            if self.attempt(lane, sequences, members).is_ok() {
                continue;
            }
            for &member in members {
                let job = sequences[member].job;
                if jobs[job].is_err() {
                    continue;
                }
                lane.pace.enter(lane.stop);
                if let Err(error) = self.attempt(lane, sequences, &[member]) {
                    jobs[job] = Err(error);
                }
            }
        }
    }

    fn attempt(
        &self,
        lane: &mut Lane<'_>,
        sequences: &mut [Sequence],
        members: &[usize],
    ) -> Result<(), JobError> {
        let batch: Vec<&[u32]> = members.iter().map(|&at| sequences[at].ids.as_slice()).collect();
        let tokens: usize = batch.iter().map(|ids| ids.len()).sum();
        let before = thread_cpu();
        let embedded = match lane.stop.is_asked() {
            true => Ok(Err(EmbedError::Stopped)),
            false => catch_unwind(AssertUnwindSafe(|| lane.embedder.embed(&batch, lane.stop))),
        };
        // What was stopped half way says nothing of the speed.
        let speaking = if matches!(embedded, Ok(Ok(_))) { tokens } else { 0 };
        lane.pace.leave(speaking, thread_cpu().saturating_sub(before));
        let vectors = match embedded {
            Ok(Ok(vectors)) => vectors,
            Ok(Err(EmbedError::Stopped)) => return Err(JobError::Stopped),
            Ok(Err(error)) => return Err(JobError::Embed(error)),
            Err(_) => {
                *lane.embedder = self.embedder().map_err(JobError::Embed)?;
                return Err(JobError::Panic);
            }
        };
        self.tokens_done.fetch_add(tokens as u64, Ordering::Relaxed);
        for (&at, vector) in members.iter().zip(vectors.chunks_exact(self.dimension)) {
            sequences[at].vector = vector.to_vec();
        }
        Ok(())
    }

    fn assemble(&self, job: &Job, sequences: Vec<Sequence>) -> Result<SegmentResult, JobError> {
        let result = SegmentResult {
            computed_by: self.peer,
            verified: true,
            chunks: sequences.iter().map(|s| s.span).collect(),
            vectors: sequences.into_iter().flat_map(|s| s.vector).collect(),
        };
        result.check(job.text.len(), self.dimension).map_err(JobError::Result)?;
        Ok(result)
    }
}

/// Whether an embedder gives the golden vector of the shortest text. Kernels differ from machine to machine, and not all of them
/// have been seen at work: one short text, a millisecond or two, keeps a wrong one from ever giving a vector.
fn is_right(folder: &ModelFolder, mut embedder: Box<dyn Embedder>) -> bool {
    let shortest = folder.manifest().golden().min_by_key(|(_, ids, _)| ids.len());
    let Some((_, ids, expected)) = shortest else { return false };
    let found = catch_unwind(AssertUnwindSafe(|| embedder.embed(&[ids], &Stop::default())));
    let is_right = matches!(found, Ok(Ok(found)) if cosine(&found, &expected) >= COSINE_LEAST);
    if !is_right {
        tracing::warn!("the encoder for this machine is wrong, tract takes its place; please report it");
    }
    is_right
}

/// Jobs that are computed together, and the sequences of their chunks in the order of the jobs.
struct Window {
    sequences: Vec<Sequence>,
    jobs: Vec<Result<(), JobError>>,
}

struct Sequence {
    job: usize,
    span: ChunkSpan,
    ids: Vec<u32>,
    vector: Vec<f32>,
}

fn span(range: &std::ops::Range<usize>, tokens: usize) -> ChunkSpan {
    // A segment with its lead stays below 128 KiB, and a chunk below the model's 8,192 tokens.
    ChunkSpan { start: range.start as u32, end: range.end as u32, tokens: tokens as u16 }
}

#[cfg(test)]
mod tests;
