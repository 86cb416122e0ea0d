//! `edge embed`: files and folders become chunks and vectors.

mod detach;
mod documents;
mod place;
mod progress;
mod run;
mod scan;
mod sink;
mod summary;

use std::{
    fs,
    io::{IsTerminal, Write, stdout},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use clap::ValueEnum;

use self::{
    documents::{Documents, Exclude, Remark},
    place::{Placed, placed},
    progress::Progress,
    run::{EmbedError, Embedding, Ending},
    scan::{Origin, ScanError, ScanOptions},
    sink::{Sink, SinkError},
    summary::Summary,
};
use super::{
    context::{Context, FlagSetting, stop_on_signals},
    exit::{Exit, UsageError},
    human,
    node::{OwnNode, Seat},
    process, talk,
};
use crate::{
    inference::{ChunkOptions, ModelFolder, Stop},
    node::{RunError, Runner, find_model, wall_clock_ms},
    wire::{ContentKey, PeerId, Run, RunId, RunState},
};

const EXAMPLES: &str = "\
Examples:
  edge embed README.md src                  a table of what would come out
  edge embed ~/notes -o notes.jsonl         one JSON object a chunk
  edge embed ~/notes | jq -r .text          the same into a pipe
  man ls | edge embed - > ls.jsonl          text from stdin
  edge embed ~/notes --format npy -o v.npy  a float32 matrix; v.ids.jsonl names its rows
  edge embed ~/notes --swarm home -o n.jsonl  computed by all of the swarm

A line has id, path, index, start, end, text, tokens, model, vector; start and end are bytes
of the file. Results are stored: the same command again, after Ctrl-C or a power cut, goes on
where it was, and costs only what has changed.";

/// Skipped documents that are named one by one.
const SKIPPED_NAMED_MAX: usize = 5;
/// Failed documents that are named one by one.
const FAILED_NAMED_MAX: usize = 100;
/// Bytes of a run's title.
const TITLE_BYTES_MAX: usize = 200;
/// Tokens of its own that a chunk must have room for.
const CONTENT_TOKENS_MIN: u32 = 8;

/// Arguments of `edge embed`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Files and folders (honouring .gitignore); `-` is stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Write here; `-` is stdout [default: stdout, or only a table on a terminal]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Embed with this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Tokens in a chunk at most, special ones included [default: the model's limit]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<u32>,
    /// Tokens that a chunk repeats of the one before [default: 0]
    #[arg(long, value_name = "N")]
    overlap: Option<u32>,
    /// Compute threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<u32>,
    /// Compute everything, whatever is stored
    #[arg(long)]
    fresh: bool,
    /// Share the work, and with it the text, with the members of this swarm; `local` shares nothing
    #[arg(long, value_name = "NAME", default_value = "local")]
    swarm: String,
    /// Compute nothing here: leave all to the others of the swarm
    #[arg(long, requires = "swarm", conflicts_with = "threads")]
    others_only: bool,
    /// Go on in the background; says which file its messages go to
    #[arg(long, requires = "output")]
    detach: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a chunk
    Jsonl,
    /// A NumPy matrix of float32, and a JSONL of ids beside it
    Npy,
}

impl Arguments {
    /// Settings that flags give.
    pub(super) fn settings(&self) -> Vec<FlagSetting> {
        let number = |n: u32| n.to_string();
        [
            ("model", "--model", self.model.clone()),
            ("embed.chunk_tokens", "--chunk-tokens", self.chunk_tokens.map(number)),
            ("embed.overlap_tokens", "--overlap", self.overlap.map(number)),
            ("embed.threads", "--threads", self.threads.map(number)),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
        .collect()
    }
}

/// Runs `edge embed`.
pub(super) fn run(arguments: Arguments, context: &Context) -> anyhow::Result<Exit> {
    if arguments.detach {
        return detach::detach(&arguments, context);
    }
    let begun = Instant::now();
    let stop = stop_on_signals()?;
    let folder = find_model(context.config.model(), &context.config.data_dir())?;
    let options = scan_options(context, &folder)?;
    let found = find_documents(&arguments, context)?;
    let mut sink = open_sink(&arguments, folder.manifest().dimension)?;
    let seat = Seat::take(context, "embed", &stop)?;
    let directory = context.directory()?;
    let mut progress = Progress::new();
    let mut embedding = Embedding::new(options, stop.clone());
    let remarks = match collect(found, &directory, &mut embedding, &progress, &stop) {
        Ok(remarks) => remarks,
        Err(ScanError::Interrupted) => return Ok(interrupted(&progress, &embedding, arguments.fresh)),
        Err(error) => return Err(error.into()),
    };
    // Dropped in the reverse order: the run before its node.
    let Placed { node, mut run, threads, own } = placed(seat, &arguments, context, &folder, &stop)?;
    let keys = embedding.keys();
    let Some(missing_bytes) = embedding.look_up(&*run, arguments.fresh)? else {
        return Ok(interrupted(&progress, &embedding, arguments.fresh));
    };
    let (id, mut record) = describe_run(&arguments.paths, &embedding, &keys, &folder);
    let known = run.known(&id)?;
    let is_repeated = known.is_some_and(|known| is_repetition(&known, &record)) && missing_bytes == 0;
    if !is_repeated && !keys.is_empty() {
        run.begin(&id, &record, &keys)?;
    }
    progress.computing(missing_bytes);
    tracing::info!(documents = embedding.documents.len(), missing_bytes, "run begins");
    let name = &folder.manifest().name;
    let ending = match embedding.execute(&mut *run, &mut sink, name, threads, &mut progress) {
        Err(EmbedError::Run(error @ RunError::Cancelled)) => {
            progress.finish();
            talk::say(&error.to_string());
            drop(run);
            finish(node, &stop)?;
            return Ok(Exit::Interrupted);
        }
        other => other?,
    };
    match ending {
        Ending::Complete => {}
        Ending::Closed => {
            drop(run);
            finish(node, &stop)?;
            return Ok(Exit::Done);
        }
        Ending::Interrupted => return Ok(interrupted(&progress, &embedding, arguments.fresh)),
    }
    match sink.finish() {
        Err(SinkError::Closed) => return Ok(Exit::Done),
        other => other?,
    }
    progress.finish();
    let failed = report_remarks(&remarks, &embedding);
    record.state = if failed > 0 { RunState::DoneWithFailures } else { RunState::Done };
    if !is_repeated && !keys.is_empty() {
        run.end(&id, &record)?;
    }
    sweep(&mut *run, context, &id);
    drop(run);
    let own = (arguments.swarm != "local").then_some(own);
    let summary = summarise(&embedding, &remarks, failed, begun, &folder, own);
    tracing::info!(chunks = summary.chunks, failed, "run ends");
    print(&arguments, context, &embedding, &summary)?;
    finish(node, &stop)?;
    Ok(if failed > 0 { Exit::SomeFailed } else { Exit::Done })
}

/// Forgets what is old. All that was asked for is written, so a failure of this is only said.
fn sweep(run: &mut dyn Runner, context: &Context, id: &RunId) {
    match run.sweep(wall_clock_ms(), context.config.keep(), id) {
        Ok(Some(report)) => {
            tracing::info!(runs = report.runs, results = report.results, "old results removed");
        }
        Ok(None) => {}
        Err(error) => talk::say(&format!("old results are not removed: {}", human::chain(&error))),
    }
}

/// Ends the node that this command brought, when nobody else uses it.
fn finish(node: Option<OwnNode>, stop: &Stop) -> anyhow::Result<()> {
    node.map_or(Ok(()), |node| node.finish(stop))
}

/// Chunks leave room for the special tokens and the prefix that the model puts around them.
fn scan_options(context: &Context, folder: &ModelFolder) -> anyhow::Result<ScanOptions> {
    let limit = u32::try_from(folder.manifest().max_tokens).unwrap_or(u32::MAX);
    let asked = context.config.chunk_tokens().unwrap_or(limit);
    if asked > limit {
        let name = &folder.manifest().name;
        return Err(
            UsageError(format!("a chunk can not have {asked} tokens: {name} takes at most {limit}")).into()
        );
    }
    let around = around_tokens(folder)?;
    let tokens_max = asked.saturating_sub(around);
    if tokens_max < CONTENT_TOKENS_MIN {
        let least = around + CONTENT_TOKENS_MIN;
        return Err(UsageError(format!(
            "a chunk needs at least {least} tokens, {around} of them around its text"
        ))
        .into());
    }
    let chunk = ChunkOptions { tokens_max, overlap_tokens: context.config.overlap_tokens() };
    if chunk.overlap_tokens > tokens_max / 2 {
        let most = tokens_max / 2;
        return Err(UsageError(format!(
            "an overlap can not have more than {most} tokens where a chunk has {asked}"
        ))
        .into());
    }
    chunk.validate().map_err(|error| UsageError(error.to_string()))?;
    Ok(ScanOptions { chunk, model: folder.hash(), prefix: folder.manifest().prefix.document.clone() })
}

/// Special tokens and those of the prefix.
fn around_tokens(folder: &ModelFolder) -> anyhow::Result<u32> {
    let (_, json) = folder.tokenizer()?;
    let tokens = crate::inference::Tokens::from_bytes(&json).context("cannot load the tokenizer")?;
    let around = tokens.ids(&folder.manifest().prefix.document)?.len();
    Ok(u32::try_from(around).unwrap_or(u32::MAX))
}

fn open_sink(arguments: &Arguments, dimension: usize) -> anyhow::Result<Sink> {
    let to_stdout = arguments.output.as_deref().is_none_or(|path| path == Path::new("-"));
    Ok(match (&arguments.output, arguments.format) {
        (_, Format::Npy) if to_stdout => {
            let why = "--format npy writes two files: name one with -o FILE.npy, the ids go beside it";
            return Err(UsageError(why.into()).into());
        }
        (None, Format::Jsonl) if stdout().is_terminal() => Sink::Nothing,
        (Some(path), Format::Jsonl) if !to_stdout => Sink::lines(path)?,
        (Some(path), Format::Npy) => Sink::npy(path, dimension)?,
        _ => Sink::stdout(),
    })
}

/// Finds and scans every document. Only an interruption ends it early.
fn collect(
    mut found: Documents,
    directory: &Path,
    embedding: &mut Embedding,
    progress: &Progress,
    stop: &Stop,
) -> Result<Documents, ScanError> {
    let files = std::mem::take(&mut found.files);
    for (at, path) in files.iter().enumerate() {
        progress.scanning(at, files.len());
        let origin = match path.to_str() {
            Some("-") => Origin::from_stdin(directory, stop),
            _ => Ok(Origin::File(path.clone())),
        };
        let path = path.clone();
        match origin.and_then(|origin| embedding.add(path.clone(), origin)) {
            Ok(()) => {}
            Err(ScanError::Interrupted) => return Err(ScanError::Interrupted),
            Err(error @ ScanError::Binary { .. }) => found.skip(&path, &error.to_string()),
            Err(error) => found.fail(&path, human::chain(&error)),
        }
    }
    Ok(found)
}

/// Finds the documents, and refuses to destroy one by writing over it.
fn find_documents(arguments: &Arguments, context: &Context) -> Result<Documents, UsageError> {
    let output = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let ids = output.filter(|_| arguments.format == Format::Npy).map(sink::ids_path);
    let outputs = output.map(Path::to_owned).into_iter().chain(ids).filter_map(|path| real_path(&path));
    let exclude = Exclude { outputs: outputs.collect(), data_dir: real_path(&context.config.data_dir()) };
    let found = documents::find(&arguments.paths, &exclude).map_err(|path| {
        UsageError(format!(
            "{} is an input and the output as well: it would be overwritten",
            human::path(&path)
        ))
    })?;
    if found.files.is_empty() && found.skipped.is_empty() && found.failed.is_empty() {
        talk::say("found no documents; in folders, hidden files and what .gitignore names are left out");
    }
    Ok(found)
}

/// The canonical path, also of a file that does not exist yet.
fn real_path(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok().or_else(|| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
    })
}

fn describe_run(
    paths: &[PathBuf],
    embedding: &Embedding,
    keys: &[ContentKey],
    folder: &ModelFolder,
) -> (RunId, Run) {
    let mut hasher = blake3::Hasher::new_derive_key("edge 2026-11 run of paths, version 1");
    hasher.update(folder.hash().as_bytes()).update(&embedding.options_bytes());
    for path in paths {
        let real = real_path(path).unwrap_or_else(|| path.clone());
        let bytes = real.as_os_str().as_encoded_bytes();
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        // Whatever came from stdin another time was another document.
        if let (true, Some(first)) = (path == Path::new("-"), keys.first()) {
            hasher.update(first.as_bytes());
        }
    }
    let id = RunId::from_bytes(*hasher.finalize().as_bytes());
    let mut title = paths.iter().map(|path| human::path(path)).collect::<Vec<_>>().join(" ");
    title.truncate(title.floor_char_boundary(TITLE_BYTES_MAX));
    let record = Run {
        touched_ms: wall_clock_ms(),
        state: RunState::Begun,
        title,
        model: folder.hash(),
        documents: embedding.documents.len() as u32,
        segments: keys.len() as u32,
        text_bytes: embedding.text_bytes(),
        keys_hash: keys_hash(keys),
    };
    (id, record)
}

fn keys_hash(keys: &[ContentKey]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    keys.iter().for_each(|key| {
        hasher.update(key.as_bytes());
    });
    *hasher.finalize().as_bytes()
}

/// Whether the store need not be told again: nothing but the time has changed, and that by less than a day.
fn is_repetition(known: &Run, now: &Run) -> bool {
    const DAY_MS: u64 = 86_400_000;
    let is_recent = match (known.touched_ms, now.touched_ms) {
        (Some(known), Some(now)) => now.saturating_sub(known) < DAY_MS,
        (known, now) => known == now,
    };
    let same = Run { touched_ms: known.touched_ms, state: known.state, ..now.clone() };
    is_recent && known.state != RunState::Begun && same == *known
}

fn interrupted(progress: &Progress, embedding: &Embedding, fresh: bool) -> Exit {
    progress.finish();
    let again = if fresh { "the same command without --fresh" } else { "the same command" };
    match embedding.chunks_computed + embedding.chunks_stored {
        0 => talk::say("interrupted before anything was computed; what earlier runs stored is kept"),
        kept => talk::say(&format!(
            "interrupted; the results of {} are kept, {again} goes on from there",
            human::count(kept, "chunk")
        )),
    }
    Exit::Interrupted
}

/// Names what failed and what was left out; gives the number of failures.
fn report_remarks(remarks: &Documents, embedding: &Embedding) -> u64 {
    let late = embedding
        .documents
        .iter()
        .filter_map(|document| Some(Remark { path: document.path.clone(), why: document.failure.clone()? }));
    let failed: Vec<Remark> = remarks.failed.iter().cloned().chain(late).collect();
    name(&remarks.skipped, "skipped", SKIPPED_NAMED_MAX);
    name(&failed, "failed", FAILED_NAMED_MAX);
    failed.len() as u64
}

fn name(remarks: &[Remark], what: &str, most: usize) {
    for remark in remarks.iter().take(most) {
        talk::say(&format!("{what} {}: {}", human::path(&remark.path), remark.why));
    }
    if remarks.len() > most {
        talk::say(&format!("{what} {} more", human::number((remarks.len() - most) as u64)));
    }
}

fn summarise(
    embedding: &Embedding,
    remarks: &Documents,
    failed: u64,
    begun: Instant,
    folder: &ModelFolder,
    own: Option<PeerId>,
) -> Summary {
    let done = || embedding.documents.iter().filter(|document| document.failure.is_none());
    let seconds = begun.elapsed().as_secs_f64();
    Summary {
        documents: done().count() as u64,
        failed,
        skipped: remarks.skipped.len() as u64,
        chunks: done().map(|document| document.chunks).sum(),
        chunks_computed: embedding.chunks_computed,
        chunks_stored: embedding.chunks_stored,
        tokens: done().map(|document| document.tokens).sum(),
        text_bytes: embedding.text_bytes(),
        seconds,
        chunks_per_second: embedding.chunks_computed as f64 / seconds.max(1e-9),
        cpu_seconds: process::cpu_time().as_secs_f64(),
        peak_memory_bytes: process::peak_memory_bytes(),
        model: folder.manifest().name.clone(),
        own: own.map(|peer| peer.to_string()),
        workers: own.map(|_| embedding.workers.iter().map(|(peer, n)| (peer.to_string(), *n)).collect()),
    }
}

fn print(
    arguments: &Arguments,
    context: &Context,
    embedding: &Embedding,
    summary: &Summary,
) -> anyhow::Result<()> {
    let output = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let shows_table = arguments.output.is_none() && stdout().is_terminal();
    if context.json {
        let text = serde_json::to_string(summary)?;
        // stdout carries the chunks where no file was named.
        if output.is_some() || shows_table {
            writeln!(stdout(), "{text}")?;
        } else {
            talk::line(&text);
        }
    } else if shows_table {
        write!(stdout(), "{}", summary::table(embedding, summary))?;
        talk::say("nothing was written; all is stored, so `-o out.jsonl` writes it at once");
    } else {
        let whither = output.map(|path| format!(" -> {}", human::path(path))).unwrap_or_default();
        talk::say(&(summary.sentence() + &whither));
    }
    if !context.json
        && let Some(line) = summary.who()
    {
        talk::say(&line);
    }
    Ok(())
}
