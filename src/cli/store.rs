//! `edge store`: what is stored, and how to make room.

use std::{
    io::{Write, stdout},
    time::Duration,
};

use clap::Subcommand;
use serde_json::json;

use super::{context::Context, exit::Exit, human, talk};
use crate::{node::wall_clock_ms, wire::RunState};

/// Runs that are shown.
const RUNS_SHOWN_MAX: usize = 10;

/// `edge store …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show size, results and runs
    Info,
    /// Remove results of old runs and give the room back to the disk
    #[command(
        after_help = "Examples:\n  edge store gc            runs older than store.keep_days\n  edge store gc --days 0   everything"
    )]
    Gc {
        /// Forget runs that nobody repeated for so many days [default: store.keep_days]
        #[arg(long, value_name = "N")]
        days: Option<u64>,
    },
}

/// Runs `edge store …`.
pub(super) fn run(command: &Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::Info => info(context),
        Command::Gc { days } => gc(*days, context),
    }
}

fn info(context: &Context) -> anyhow::Result<Exit> {
    let lock = context.lock("store info")?;
    let store = context.store(&lock)?;
    let report = store.report()?;
    let mut runs = store.runs()?;
    runs.sort_by_key(|(id, run)| (std::cmp::Reverse(run.touched_ms), *id));
    if context.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|(id, run)| {
                json!({
                    "id": id.to_string(), "title": run.title, "state": state(run.state), "touched_ms": run.touched_ms,
                    "documents": run.documents, "segments": run.segments, "text_bytes": run.text_bytes,
                })
            })
            .collect();
        let info = json!({
            "path": report.path, "disk_bytes": report.disk_bytes, "used_bytes": report.used_bytes,
            "results": report.results, "runs": runs,
        });
        writeln!(stdout(), "{info}")?;
        return Ok(Exit::Done);
    }
    let mut out = stdout().lock();
    writeln!(out, "store    {}", human::path(&report.path))?;
    writeln!(
        out,
        "size     {}, {} in use",
        human::bytes(report.disk_bytes),
        human::bytes(report.used_bytes)
    )?;
    writeln!(out, "results  {}", human::count(report.results, "segment"))?;
    writeln!(out, "runs     {}", human::number(report.runs))?;
    for (_, run) in runs.iter().take(RUNS_SHOWN_MAX) {
        let title = human::tail(&run.title, 40);
        let documents = human::count(u64::from(run.documents), "document");
        writeln!(out, "  {title:<40}  {documents}, {}, {}", human::bytes(run.text_bytes), state(run.state))?;
    }
    if runs.len() > RUNS_SHOWN_MAX {
        writeln!(out, "  … and {} more", runs.len() - RUNS_SHOWN_MAX)?;
    }
    Ok(Exit::Done)
}

fn gc(days: Option<u64>, context: &Context) -> anyhow::Result<Exit> {
    let lock = context.lock("store gc")?;
    let mut store = context.store(&lock)?;
    let before = store.report()?.disk_bytes;
    let keep = days.map_or(context.config.keep(), |days| Duration::from_secs(86_400u64.saturating_mul(days)));
    let report = store.gc(wall_clock_ms(), keep, None)?;
    // A copy of the whole store wears the card: only where there is room to be won.
    let store = if report.results > 0 { store.compacted()? } else { store };
    let after = store.report()?.disk_bytes;
    if context.json {
        let report = json!({
            "runs_removed": report.runs, "results_removed": report.results, "results_kept": report.results_kept,
            "disk_bytes_before": before, "disk_bytes_after": after,
        });
        writeln!(stdout(), "{report}")?;
    } else {
        talk::say(&format!(
            "removed {} and {}, kept {}; {} -> {}",
            human::count(report.runs, "run"),
            human::count(report.results, "result"),
            human::count(report.results_kept, "result"),
            human::bytes(before),
            human::bytes(after)
        ));
    }
    Ok(Exit::Done)
}

fn state(state: RunState) -> &'static str {
    match state {
        RunState::Begun => "not finished",
        RunState::Done => "done",
        RunState::DoneWithFailures => "done, some failed",
    }
}
