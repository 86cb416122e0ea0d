//! The engine with embedders that fail on purpose, and with the real model.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    inference::{Carry, ChunkOptions, SEGMENT_BYTES_MAX, Syntax, Unpaced, check_golden, content_key},
    wire::ModelHash,
};

const DIMENSION: usize = 4;

/// Gives each sequence a vector of its own making, and fails as its text says.
struct Fake {
    poison: HashMap<u32, &'static str>,
    calls: Arc<Mutex<Vec<usize>>>,
}

impl Embedder for Fake {
    fn embed(&mut self, batch: &[&[u32]], stop: &Stop) -> Result<Vec<f32>, EmbedError> {
        self.calls.lock().unwrap().push(batch.iter().map(|ids| ids.len()).sum());
        if stop.is_asked() {
            return Err(EmbedError::Stopped);
        }
        let mut out = Vec::new();
        for ids in batch {
            match ids.iter().find_map(|id| self.poison.get(id)) {
                // As a panic, without the hook: what a passing test prints is read by whoever looks for one that fails.
                Some(&"panic") => std::panic::resume_unwind(Box::new("poisoned")),
                Some(&"error") => return Err(EmbedError::Run("poisoned".into())),
                Some(&"nan") => out.extend([f32::NAN; DIMENSION]),
                _ => {
                    let angle = ids.iter().sum::<u32>() as f32;
                    out.extend([angle.sin(), angle.cos(), 0.0, 0.0]);
                }
            }
        }
        Ok(out)
    }
}

fn folder() -> ModelFolder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-minilm-l6-v2");
    ModelFolder::read(&path).unwrap()
}

/// An engine with the real tokenizer and the fake embedder; the words of `poison` trigger it.
fn engine(poison: &[(&str, &'static str)]) -> (Engine, Arc<Mutex<Vec<usize>>>) {
    let tokens = Tokens::from_bytes(&folder().tokenizer().unwrap().1).unwrap();
    let poison: HashMap<u32, &str> =
        poison.iter().map(|(word, what)| (tokens.ids(word).unwrap()[1], *what)).collect();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let make = move || -> Result<Box<dyn Embedder>, EmbedError> {
        Ok(Box::new(Fake { poison: poison.clone(), calls: Arc::clone(&seen) }))
    };
    let peer = PeerId::from_bytes([9; 32]);
    let engine = Engine {
        tokens,
        make: Box::new(make),
        prefix: String::new(),
        dimension: DIMENSION,
        max_tokens: 256,
        peer,
        tokens_done: Arc::default(),
    };
    (engine, calls)
}

fn job(text: &str) -> Job {
    let key =
        content_key("", text, Syntax::Plain, Carry::default(), OPTIONS, &ModelHash::from_bytes([0; 32]), "");
    let (options, syntax, carry) = (OPTIONS, Syntax::Plain, Carry::default());
    Job { key, text: text.to_owned(), body_start: 0, options, syntax, carry }
}

const OPTIONS: ChunkOptions = ChunkOptions { tokens_max: 62, overlap_tokens: 0 };

fn run(engine: &Engine, jobs: &[Job]) -> Vec<Result<SegmentResult, JobError>> {
    let mut embedder = engine.embedder().unwrap();
    engine
        .run(&mut embedder, &mut Unpaced, jobs, &Stop::default())
        .into_iter()
        .map(|(result, _)| result)
        .collect()
}

#[test]
fn one_bad_job_never_takes_its_neighbours_along() {
    for what in ["panic", "error", "nan"] {
        let (engine, _) = engine(&[("poison", what)]);
        let jobs = [job("A good text."), job("Some poison in it."), job("Another good text."), job("")];
        let results = run(&engine, &jobs);
        assert_eq!(results[0].as_ref().unwrap().chunks.len(), 1, "{what}");
        assert_eq!(results[2].as_ref().unwrap().chunks.len(), 1, "{what}");
        assert!(results[3].as_ref().unwrap().chunks.is_empty(), "{what}");
        let right = match (&results[1], what) {
            (Err(JobError::Panic), "panic") | (Err(JobError::Embed(_)), "error") => true,
            (Err(JobError::Result(ResultError::Norm { norm, .. })), "nan") => norm.is_nan(),
            _ => false,
        };
        assert!(right, "{what}: {:?}", results[1]);
    }
}

#[test]
fn vectors_go_to_their_own_chunks() {
    let (engine, calls) = engine(&[]);
    let texts = ["One.", "A rather longer sentence about lighthouses and the sea.", "Two words.", "One."];
    let jobs: Vec<Job> = texts.map(job).into();
    let together = run(&engine, &jobs);
    for (job, together) in jobs.iter().zip(&together) {
        let alone = run(&engine, std::slice::from_ref(job)).remove(0).unwrap();
        assert_eq!(&alone, together.as_ref().unwrap());
    }
    assert_eq!(calls.lock().unwrap().len(), 1 + texts.len(), "short texts share a batch");
}

#[test]
fn batches_keep_to_their_bound() {
    let (engine, calls) = engine(&[]);
    let text = "This sentence is one of very many in this text. ".repeat(300);
    let results = run(&engine, &[job(&text), job(&text)]);
    assert!(results.iter().all(|result| result.as_ref().unwrap().chunks.len() > 40));
    let calls = calls.lock().unwrap();
    assert!(calls.iter().all(|&tokens| tokens <= BATCH_TOKENS_MAX), "{calls:?}");
    assert!(calls.len() < 12, "{calls:?}");
}

/// Lets a thread go on at once, for so many tokens, and writes down what it tells.
#[derive(Default)]
struct Told {
    tokens: usize,
    told: Vec<usize>,
    is_in: bool,
}

impl Pace for Told {
    fn enter(&mut self, _: &Stop) -> usize {
        assert!(!std::mem::replace(&mut self.is_in, true), "entered twice");
        self.tokens
    }

    fn leave(&mut self, tokens: usize, _: Duration) {
        assert!(std::mem::replace(&mut self.is_in, false), "left twice");
        self.told.push(tokens);
    }
}

#[test]
fn a_thread_asks_before_each_part_and_tells_after_it() {
    let (engine, calls) = engine(&[("poison", "error")]);
    let mut pace = Told { tokens: 80, ..Told::default() };
    let jobs = [job(&"This sentence is one of very many. ".repeat(40)), job("Some poison."), job("More.")];
    let mut embedder = engine.embedder().unwrap();
    let results = engine.run(&mut embedder, &mut pace, &jobs, &Stop::default());
    assert!(results[0].0.is_ok() && results[1].0.is_err() && results[2].0.is_ok());
    assert!(results[0].1.cpu > Duration::ZERO && results[0].1.cpu <= results[0].1.wall * 2);
    let calls = calls.lock().unwrap();
    assert!(calls.iter().all(|&tokens| tokens <= 80), "{calls:?}");
    assert!(pace.told.len() >= 3 + calls.len() && !pace.is_in, "three jobs were cut, and each batch run");
    assert_eq!(pace.told.iter().sum::<usize>() as u64, engine.tokens_done());
}

#[test]
fn stopping_is_no_failure() {
    let (engine, _) = engine(&[]);
    let stop = Stop::default();
    stop.ask();
    let mut embedder = engine.embedder().unwrap();
    let results = engine.run(&mut embedder, &mut Unpaced, &[job("A text.")], &stop);
    assert!(matches!(results[0].0, Err(JobError::Stopped)));
}

#[test]
fn a_prefix_counts_and_stays_out_of_the_chunk() {
    let (mut engine, calls) = engine(&[]);
    engine.prefix = "passage: ".into();
    let result = run(&engine, &[job("text")]).remove(0).unwrap();
    assert_eq!((result.chunks[0].start, result.chunks[0].end, result.chunks[0].tokens), (0, 4, 5));
    assert_eq!(*calls.lock().unwrap(), [5]);
}

/// What is embedded is the chunk's own text, tokenised alone: anybody can check a vector from the text.
#[test]
fn chunks_of_real_text_fit_the_model() {
    let (engine, _) = engine(&[]);
    let text =
        include_str!("../segment.rs").to_owned() + include_str!("../../../models/all-minilm-l6-v2/README.md");
    let text = &text[..text.floor_char_boundary(SEGMENT_BYTES_MAX)];
    let mut embedder = engine.embedder().unwrap();
    let job = Job { options: ChunkOptions { tokens_max: 254, overlap_tokens: 40 }, ..job(text) };
    let (result, _) = engine.run(&mut embedder, &mut Unpaced, &[job], &Stop::default()).remove(0);
    let result = result.unwrap();
    for span in &result.chunks {
        let ids = engine.tokens().ids(&text[span.start as usize..span.end as usize]).unwrap();
        assert_eq!(ids.len(), usize::from(span.tokens));
        assert!(ids.len() <= 256);
    }
}

#[test]
fn the_shipped_model_reproduces_its_golden_vectors() {
    let folder = folder();
    let engine = Arc::new(Engine::load(&folder, PeerId::from_bytes([0; 32])).unwrap());
    let report = check_golden(&folder, &engine).unwrap();
    assert!(report.texts >= 16 && report.least >= 0.999 && report.mean >= 0.9999, "{report:?}");
}

#[test]
fn neighbours_in_a_batch_change_nothing() {
    let engine = Engine::load(&folder(), PeerId::from_bytes([0; 32])).unwrap();
    let mut embedder = engine.embedder().unwrap();
    let texts =
        ["A lighthouse.", "The sea is calm tonight.", "A lighthouse.", "x", "Le phare éclaire la mer."];
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| engine.tokens().ids(text).unwrap()).collect();
    let batch: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let together = embedder.embed(&batch, &Stop::default()).unwrap();
    for (ids, together) in batch.iter().zip(together.chunks_exact(384)) {
        let alone = embedder.embed(&[ids], &Stop::default()).unwrap();
        let cosine: f32 = alone.iter().zip(together).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99999, "{cosine}");
    }
}
