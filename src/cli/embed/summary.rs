//! What a run came to: a table for a terminal, a line for a log, an object for a program.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::run::{Document, Embedding};
use crate::cli::{human, table::Table};

/// Documents that the table shows one by one.
const ROWS_MAX: usize = 16;
/// A path is cut from the left to this width, so that the table keeps to 80 columns.
const PATH_COLUMNS: usize = 38;

/// Totals of a run, as `--json` prints them.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) documents: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) chunks: u64,
    /// Chunks that this run computed, by who did it.
    pub(super) chunks_computed: u64,
    /// Chunks whose results were stored by an earlier run.
    pub(super) chunks_stored: u64,
    pub(super) tokens: u64,
    pub(super) text_bytes: u64,
    pub(super) seconds: f64,
    pub(super) chunks_per_second: f64,
    /// User and system time of the whole process.
    pub(super) cpu_seconds: f64,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) model: String,
    /// This node, where the work was shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<String>,
    /// Chunks that this run computed, by peer id, where the work was shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<BTreeMap<String, u64>>,
}

impl Summary {
    /// Who computed how much; nothing where the work was not shared or there was none.
    pub(super) fn who(&self) -> Option<String> {
        let workers = self.workers.as_ref().filter(|workers| !workers.is_empty())?;
        let name = |peer: &String| match &self.own {
            Some(own) if own == peer => "this node".to_owned(),
            _ => peer[..8].to_owned(),
        };
        let parts: Vec<String> = workers
            .iter()
            .map(|(peer, chunks)| format!("{} {}", name(peer), human::count(*chunks, "chunk")))
            .collect();
        Some(format!("computed by {}", parts.join(", ")))
    }

    /// The line for people.
    pub(super) fn sentence(&self) -> String {
        let mut text = format!(
            "{}, {}, {} tokens in {}",
            human::count(self.documents, "document"),
            human::count(self.chunks, "chunk"),
            human::number(self.tokens),
            human::duration(Duration::from_secs_f64(self.seconds)),
        );
        if self.chunks_computed > 0 {
            text += &format!(" ({:.0} chunks/s)", self.chunks_per_second);
        }
        if self.chunks_stored > 0 {
            text += &format!("; {} of them were stored already", human::number(self.chunks_stored));
        }
        if self.failed > 0 {
            text += &format!("; {} failed", human::count(self.failed, "document"));
        }
        text
    }
}

/// File, chunks, tokens, time and rate of each document, and of all.
pub(super) fn table(embedding: &Embedding, summary: &Summary) -> String {
    let mut table = Table::new(&["file", "chunks", "tokens", "time", "chunks/s"]);
    let done: Vec<&Document> = embedding.documents.iter().filter(|d| d.failure.is_none()).collect();
    let shown = if done.len() > ROWS_MAX { ROWS_MAX - 1 } else { done.len() };
    for document in &done[..shown] {
        let seconds = document.elapsed.as_secs_f64();
        table.row([
            human::tail(&human::path(&document.path), PATH_COLUMNS),
            human::number(document.chunks),
            human::number(document.tokens),
            if seconds > 0.0 { human::duration(document.elapsed) } else { "stored".into() },
            if seconds > 0.0 { format!("{:.0}", document.chunks as f64 / seconds) } else { "-".into() },
        ]);
    }
    if shown < done.len() {
        let rest = &done[shown..];
        table.row([
            format!("… and {} more", human::number(rest.len() as u64)),
            human::number(rest.iter().map(|d| d.chunks).sum()),
            human::number(rest.iter().map(|d| d.tokens).sum()),
            human::duration(rest.iter().map(|d| d.elapsed).sum()),
            "-".into(),
        ]);
    }
    let rate =
        if summary.chunks_computed > 0 { format!("{:.0}", summary.chunks_per_second) } else { "-".into() };
    table.total([
        "all".into(),
        human::number(summary.chunks),
        human::number(summary.tokens),
        human::duration(Duration::from_secs_f64(summary.seconds)),
        rate,
    ]);
    table.to_string()
}
