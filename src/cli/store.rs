//! `edge store`: what is stored, and how to make room.

use std::{
    io::{Write, stdout},
    time::Duration,
};

use clap::Subcommand;

use super::{
    context::{Context, stop_on_signals},
    exit::Exit,
    human,
    node::{Alone, Seat},
    talk,
};
use crate::{
    api::view::{Gc, GcView, StoreView},
    node::wall_clock_ms,
};

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
    let stop = stop_on_signals()?;
    let view = match Seat::take(context, "store info", &stop)? {
        Seat::Running(mut client) => client.get("/v1/store")?,
        Seat::Alone(alone) => StoreView::of(&alone.store)?,
    };
    let mut out = stdout().lock();
    if context.json {
        writeln!(out, "{}", serde_json::to_string(&view)?)?;
        return Ok(Exit::Done);
    }
    let (size, used) = (human::bytes(view.disk_bytes), human::bytes(view.used_bytes));
    writeln!(out, "store    {}", human::path(&view.path))?;
    writeln!(out, "size     {size}, {used} in use")?;
    writeln!(out, "results  {}", human::count(view.results, "segment"))?;
    writeln!(out, "runs     {}", human::number(view.runs.len() as u64))?;
    for run in view.runs.iter().take(RUNS_SHOWN_MAX) {
        let title = human::tail(&run.title, 40);
        let documents = human::count(u64::from(run.documents), "document");
        writeln!(out, "  {title:<40}  {documents}, {}, {}", human::bytes(run.text_bytes), run.state)?;
    }
    if view.runs.len() > RUNS_SHOWN_MAX {
        writeln!(out, "  … and {} more", view.runs.len() - RUNS_SHOWN_MAX)?;
    }
    Ok(Exit::Done)
}

fn gc(days: Option<u64>, context: &Context) -> anyhow::Result<Exit> {
    let keep = days.map_or(context.config.keep(), |days| Duration::from_secs(86_400u64.saturating_mul(days)));
    let now_ms = wall_clock_ms();
    let stop = stop_on_signals()?;
    let gone = match Seat::take(context, "store gc", &stop)? {
        Seat::Running(mut client) => {
            let days = keep.as_secs() / 86_400;
            client.post("/v1/store/gc", &Gc { days, now_ms })?
        }
        Seat::Alone(alone) => {
            let Alone { lock: _lock, mut store } = alone;
            let gone = GcView::carry_out(&mut store, now_ms, keep)?;
            // A copy of the whole store wears the card: only where there is room to be won.
            let store = if gone.results_removed > 0 { store.compacted()? } else { store };
            GcView { disk_bytes_after: store.report()?.disk_bytes, ..gone }
        }
    };
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(&gone)?)?;
        return Ok(Exit::Done);
    }
    talk::say(&format!(
        "removed {} and {}, kept {}; {} -> {}",
        human::count(gone.runs_removed, "run"),
        human::count(gone.results_removed, "result"),
        human::count(gone.results_kept, "result"),
        human::bytes(gone.disk_bytes_before),
        human::bytes(gone.disk_bytes_after)
    ));
    Ok(Exit::Done)
}
