//! Lines for people on stderr, above the progress bar where there is one.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use indicatif::ProgressBar;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// From now on lines go above `bar`.
pub(super) fn attach(bar: ProgressBar) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
}

/// There is no bar any more.
pub(super) fn detach() {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Says a line. A stderr that nobody reads is no reason to stop.
pub(super) fn say(line: &str) {
    write(format!("edge: {line}\n").as_bytes());
}

/// Prints a line as it is: for programs that read stderr.
pub(super) fn line(line: &str) {
    write(format!("{line}\n").as_bytes());
}

fn write(bytes: &[u8]) {
    let out = || {
        let _ = io::stderr().lock().write_all(bytes);
    };
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(out),
        None => out(),
    }
}

/// Where the log writes.
pub(super) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
