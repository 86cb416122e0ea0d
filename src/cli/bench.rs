//! `edge bench`: how fast this device runs a model, with nothing but compute in the way.

use std::{
    io::{Write, stdout},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    context::{Context, FlagSetting, stop_on_signals},
    exit::Exit,
    human,
    process::{cpu_time, peak_memory_bytes},
};
use crate::{
    inference::{Carry, ChunkOptions, Engine, Job, JobError, Pool, SEGMENT_BYTES_MAX, Stop, Syntax, unpaced},
    node::find_model,
    wire::{ContentKey, PeerId},
};

const EXAMPLES: &str = "\
Examples:
  edge bench                     one thread a core
  edge bench --threads 1 --json  one thread, for a program";

/// Words of the benchmark's text: common English, so that the tokenizer works as it does on prose.
const WORDS: &str = "the of and to in is that it was for on are as with they at be this have from or one had by \
    word but not what all were we when your can said there use each which she do how their if will up other about \
    out many then them these so some her would make like him into time has look two more write go see number no way \
    could people my than first water been call who oil its now find long down day did get come made may part system \
    energy battery vector document computer network measure tomorrow language understanding temperature";

/// Arguments of `edge bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Chunks to embed, about
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    chunks: u64,
    /// Measure this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Compute threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
}

impl Arguments {
    /// Settings that flags give.
    pub(super) fn settings(&self) -> Vec<FlagSetting> {
        let model = self.model.clone().map(|model| ("model", "--model", model));
        let threads = self.threads.map(|threads| ("embed.threads", "--threads", threads.to_string()));
        model.into_iter().chain(threads).collect()
    }
}

/// Runs `edge bench`.
pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    let folder = find_model(context.config.model(), &context.config.data_dir())?;
    let begun = Instant::now();
    let engine = Arc::new(Engine::load(&folder, PeerId::from_bytes([0; 32]))?);
    let load = begun.elapsed();
    let tokens_max = folder.manifest().max_tokens - engine.tokens().specials();
    let options = ChunkOptions { tokens_max: tokens_max as u32, overlap_tokens: 0 };
    let threads = context.threads();
    let jobs = Prose::new(arguments.chunks, options);
    let pool =
        Pool::start(&engine, threads, stop.clone(), unpaced()).context("cannot start compute threads")?;
    let Some(measured) = measure(&pool, jobs, &stop)? else { return Ok(Exit::Interrupted) };
    print(&folder.manifest().name, threads, load, &measured, context.json)?;
    Ok(Exit::Done)
}

/// What the run came to.
struct Measured {
    chunks: u64,
    tokens: u64,
    wall: Duration,
    cpu: Duration,
}

/// Runs all jobs; `None` where the user had enough.
fn measure(pool: &Pool, mut jobs: Prose, stop: &Stop) -> anyhow::Result<Option<Measured>> {
    let mut submitted = 0;
    let (cpu_before, begun) = (cpu_time(), Instant::now());
    let (mut done, mut chunks, mut tokens) = (0, 0u64, 0u64);
    let mut refused: Option<Vec<Job>> = None;
    while done < submitted || refused.is_some() || jobs.bytes_left > 0 {
        if stop.is_asked() {
            return Ok(None);
        }
        while let Some(window) = refused.take().or_else(|| jobs.next().map(|job| vec![job])) {
            if let Err(window) = pool.try_submit(0, window) {
                refused = Some(window);
                break;
            }
            submitted += 1;
        }
        let Some(computed) = pool.receive(Duration::from_millis(100)) else {
            if pool.is_over() {
                bail!("every compute thread has ended; the log says why");
            }
            continue;
        };
        for outcome in computed {
            let result = match outcome.result {
                Err(JobError::Stopped) => return Ok(None),
                other => other?,
            };
            done += 1;
            chunks += result.chunks.len() as u64;
            tokens += result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum::<u64>();
        }
    }
    let cpu = cpu_time().saturating_sub(cpu_before);
    Ok(Some(Measured { chunks, tokens, wall: begun.elapsed(), cpu }))
}

fn print(model: &str, threads: usize, load: Duration, measured: &Measured, json: bool) -> anyhow::Result<()> {
    let Measured { chunks, tokens, wall, cpu } = *measured;
    let (wall_s, cpu_s) = (wall.as_secs_f64(), cpu.as_secs_f64());
    let (rate, token_rate) = (chunks as f64 / wall_s, tokens as f64 / wall_s);
    let cpu_ms = cpu_s * 1e3 / chunks as f64;
    let peak = peak_memory_bytes();
    if json {
        let report = json!({
            "model": model, "threads": threads, "chunks": chunks, "tokens": tokens, "load_s": load.as_secs_f64(),
            "wall_s": wall_s, "cpu_s": cpu_s, "chunks_per_s": rate, "tokens_per_s": token_rate,
            "cpu_ms_per_chunk": cpu_ms, "peak_memory_bytes": peak,
        });
        writeln!(stdout(), "{report}")?;
        return Ok(());
    }
    let mut out = stdout().lock();
    let mean = tokens as f64 / chunks as f64;
    writeln!(
        out,
        "{model} on {}, loaded in {}",
        human::count(threads as u64, "thread"),
        human::duration(load)
    )?;
    writeln!(out, "  {rate:>9.1} chunks/s, {mean:.0} tokens each in the mean")?;
    writeln!(out, "  {token_rate:>9.0} tokens/s")?;
    writeln!(out, "  {cpu_ms:>9.1} CPU ms a chunk ({cpu_s:.1} CPU s in {})", human::duration(wall))?;
    if let Some(peak) = peak {
        writeln!(out, "  {:>9} peak memory", human::bytes(peak))?;
    }
    Ok(())
}

/// Segments of made-up prose, the same every time, that come to about so many chunks.
struct Prose {
    words: Vec<&'static str>,
    options: ChunkOptions,
    bytes_left: usize,
    made: u64,
    state: u64,
}

impl Prose {
    fn new(chunks: u64, options: ChunkOptions) -> Self {
        const BYTES_PER_TOKEN: usize = 5;
        let bytes_left = chunks as usize * options.tokens_max as usize * BYTES_PER_TOKEN;
        let words = WORDS.split_whitespace().collect();
        Self { words, options, bytes_left, made: 0, state: 0x2545_F491_4F6C_DD1D }
    }

    /// xorshift64 (Marsaglia 2003): any fixed sequence serves.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state % bound as u64) as usize
    }

    fn next(&mut self) -> Option<Job> {
        // A sentence of 24 of the longest words stays below this.
        const SENTENCE_BYTES: usize = 400;
        if self.bytes_left == 0 {
            return None;
        }
        let bytes = self.bytes_left.min(SEGMENT_BYTES_MAX - SENTENCE_BYTES);
        let mut text = String::with_capacity(bytes + SENTENCE_BYTES);
        while text.len() < bytes {
            for _ in 0..5 + self.below(20) {
                let at = self.below(self.words.len());
                text += self.words[at];
                text.push(' ');
            }
            text.pop();
            text += if self.below(6) == 0 { ".\n\n" } else { ". " };
        }
        self.bytes_left = self.bytes_left.saturating_sub(text.len());
        self.made += 1;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.made.to_le_bytes());
        let key = ContentKey::from_bytes(key);
        let (syntax, carry) = (Syntax::Plain, Carry::default());
        Some(Job { key, text, body_start: 0, options: self.options, syntax, carry })
    }
}
