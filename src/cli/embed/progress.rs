//! Says how far a run is: a bar on a terminal, a plain line now and then elsewhere. Always on stderr.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{human, talk};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Redraws a second: a terminal over a slow line, and a Pi, have better things to do.
const DRAWS_PER_SECOND: u8 = 5;

/// Progress of one run.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    last_line: Instant,
    is_terminal: bool,
    chunks: u64,
    bytes: u64,
}

impl Progress {
    /// Nothing is known yet but that documents are being read.
    pub(super) fn new() -> Self {
        let is_terminal = stderr().is_terminal();
        let bar = if is_terminal {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND))
        } else {
            ProgressBar::hidden()
        };
        talk::attach(bar.clone());
        let now = Instant::now();
        Self { bar, begun: now, last_line: now, is_terminal, chunks: 0, bytes: 0 }
    }

    /// Documents are being read.
    pub(super) fn scanning(&self, documents: usize, of: usize) {
        self.bar.set_style(style("reading {pos}/{len} documents"));
        self.bar.set_length(of as u64);
        self.bar.set_position(documents as u64);
    }

    /// So many bytes of text are to be embedded from now on.
    pub(super) fn computing(&mut self, bytes: u64) {
        self.begun = Instant::now();
        self.last_line = self.begun;
        if bytes == 0 {
            return self.finish();
        }
        self.bar.reset();
        self.bar.set_style(style("{bar:24} {percent:>3}%  {bytes}/{total_bytes}  {msg}"));
        self.bar.set_length(bytes);
    }

    /// A segment is done.
    pub(super) fn advance(&mut self, bytes: u64, chunks: u64) {
        self.bytes += bytes;
        self.chunks += chunks;
    }

    /// Draws what has changed; call it often.
    pub(super) fn tick(&mut self) {
        let elapsed = self.begun.elapsed().as_secs_f64();
        if self.bytes == 0 || elapsed <= 0.0 {
            return;
        }
        let rate = self.chunks as f64 / elapsed;
        let total = self.bar.length().unwrap_or(self.bytes);
        let left = elapsed * (total.saturating_sub(self.bytes)) as f64 / self.bytes as f64;
        let left = human::duration(Duration::from_secs_f64(left.round()));
        if self.is_terminal {
            self.bar.set_position(self.bytes);
            self.bar.set_message(format!("{rate:.0} chunks/s, {left} left"));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = 100 * self.bytes / total.max(1);
            talk::say(&format!(
                "{percent} % of the text, {} chunks, {rate:.0} chunks/s, {left} left",
                self.chunks
            ));
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
        talk::detach();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
