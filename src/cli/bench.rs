//! `edge bench`: how fast this device runs a model, with nothing but compute in the way.

use std::{
    fs,
    io::{Write, stdout},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::{
    context::{Context, FlagSetting, stop_on_signals},
    exit::Exit,
    human,
};
use crate::{
    inference::{Carry, ChunkOptions, Engine, Job, Pool, SEGMENT_BYTES_MAX, Syntax},
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
    let mut jobs = jobs(arguments.chunks, tokens_max);
    let total = jobs.len();
    let (cpu_before, begun) = (cpu_time(), Instant::now());
    let pool =
        Pool::start(&engine, options, threads, stop.clone()).context("cannot start compute threads")?;
    let (mut done, mut chunks, mut tokens) = (0, 0u64, 0u64);
    let mut refused = None;
    while done < total {
        if stop.is_asked() {
            return Ok(Exit::Interrupted);
        }
        while let Some(window) = refused.take().or_else(|| jobs.pop().map(|job| vec![job])) {
            if let Err(window) = pool.try_submit(window) {
                refused = Some(window);
                break;
            }
        }
        let Some(computed) = pool.receive(Duration::from_millis(100)) else {
            if pool.is_over() {
                bail!("every compute thread has ended; -v says why");
            }
            continue;
        };
        for outcome in computed {
            let result = outcome.result?;
            done += 1;
            chunks += result.chunks.len() as u64;
            tokens += result.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum::<u64>();
        }
    }
    let (wall, cpu) = (begun.elapsed(), cpu_time().saturating_sub(cpu_before));
    let rate = chunks as f64 / wall.as_secs_f64();
    let token_rate = tokens as f64 / wall.as_secs_f64();
    let peak = peak_memory_bytes();
    let model = &folder.manifest().name;
    if context.json {
        let report = json!({
            "model": model, "threads": threads, "chunks": chunks, "tokens": tokens, "load_s": load.as_secs_f64(),
            "wall_s": wall.as_secs_f64(), "cpu_s": cpu.as_secs_f64(), "chunks_per_s": rate, "tokens_per_s": token_rate,
            "cpu_ms_per_chunk": cpu.as_secs_f64() * 1e3 / chunks as f64, "peak_memory_bytes": peak,
        });
        writeln!(stdout(), "{report}")?;
        return Ok(Exit::Done);
    }
    let mut out = stdout().lock();
    writeln!(
        out,
        "{model} on {}, loaded in {}",
        human::count(threads as u64, "thread"),
        human::duration(load)
    )?;
    writeln!(
        out,
        "  {:>9.1} chunks/s   {} of {:.0} tokens in the mean",
        rate,
        human::count(chunks, "chunk"),
        tokens as f64 / chunks as f64
    )?;
    writeln!(out, "  {token_rate:>9.0} tokens/s")?;
    writeln!(
        out,
        "  {:>9.1} CPU ms a chunk, {:.1} CPU s in {}",
        cpu.as_secs_f64() * 1e3 / chunks as f64,
        cpu.as_secs_f64(),
        human::duration(wall)
    )?;
    if let Some(peak) = peak {
        writeln!(out, "  {:>9} peak memory", human::bytes(peak))?;
    }
    Ok(Exit::Done)
}

/// Segments of made-up prose, the same every time, that come to about so many chunks.
fn jobs(chunks: u64, tokens_max: usize) -> Vec<Job> {
    const BYTES_PER_TOKEN: usize = 5;
    let mut left = chunks as usize * tokens_max * BYTES_PER_TOKEN;
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    // xorshift64 (Marsaglia 2003): any fixed sequence serves.
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut out = Vec::new();
    while left > 0 {
        let bytes = left.min(SEGMENT_BYTES_MAX - 64);
        let mut text = String::with_capacity(bytes + 64);
        while text.len() < bytes {
            for _ in 0..5 + next(20) {
                text += words[next(words.len())];
                text.push(' ');
            }
            text.pop();
            text += if next(6) == 0 { ".\n\n" } else { ". " };
        }
        left = left.saturating_sub(text.len());
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(out.len() as u64).to_le_bytes());
        out.push(Job {
            key: ContentKey::from_bytes(key),
            text,
            body_start: 0,
            syntax: Syntax::Plain,
            carry: Carry::default(),
        });
    }
    out
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The high-water mark of resident memory, where the kernel tells it.
fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
