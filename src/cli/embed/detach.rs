//! `edge embed --detach`: the same command goes on in the background.
//!
//! It stays this user's process: it alone reads the documents and writes the output, with this user's rights, whether a node
//! computes for it or not.

use std::{
    env, fs,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::Arguments;
use crate::cli::{
    context::Context,
    exit::{Exit, UsageError},
    human, talk,
};

/// What goes wrong at once is said at once.
const WATCHED: Duration = Duration::from_millis(700);
const LOOK: Duration = Duration::from_millis(20);
/// Logs that are kept; the oldest make room.
const LOGS_MAX: usize = 16;
/// Bytes of a log that are repeated.
const LOG_BYTES_MAX: u64 = 4096;

/// Starts the command anew without `--detach`.
pub(super) fn detach(arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    let output = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    if output.is_none() {
        return Err(UsageError("--detach needs a file to write to: name one with -o".into()).into());
    }
    if arguments.paths.iter().any(|path| path == Path::new("-")) {
        return Err(UsageError("--detach cannot read stdin: it ends with this terminal".into()).into());
    }
    let directory = context.directory()?;
    forget_old_logs(&directory);
    // Not named by a process: two in containers may have the same number and one directory.
    let log = tempfile::Builder::new().prefix("detached-").suffix(".log").tempfile_in(&directory);
    let log = log.and_then(|log| log.keep().map_err(|error| error.error));
    let (file, log) = log.with_context(|| format!("cannot write a log to {}", human::path(&directory)))?;
    let program = env::current_exe().context("cannot find this program")?;
    let mut child = Command::new(program)
        .args(env::args_os().skip(1).filter(|argument| argument != "--detach"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        // Ctrl-C and the end of the terminal are for its own group.
        .process_group(0)
        .spawn()
        .context("cannot start in the background")?;
    let begun = Instant::now();
    while begun.elapsed() < WATCHED {
        if let Some(status) = child.try_wait()? {
            let mut said = Vec::new();
            fs::File::open(&log)?.take(LOG_BYTES_MAX).read_to_end(&mut said)?;
            talk::line(String::from_utf8_lossy(&said).trim_end());
            return Ok(match status.code() {
                Some(0) => Exit::Done,
                Some(1) => Exit::SomeFailed,
                Some(2) => Exit::Usage,
                Some(4) => Exit::Busy,
                _ => Exit::Unable,
            });
        }
        thread::park_timeout(LOOK);
    }
    talk::say(&format!(
        "goes on in the background as process {}; what it says goes to {}",
        child.id(),
        human::path(&log)
    ));
    Ok(Exit::Done)
}

/// Makes room for one more log.
fn forget_old_logs(directory: &Path) {
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("detached-") && name.ends_with(".log")
    };
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut logs: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_log).collect();
    logs.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    for old in logs.iter().take((logs.len() + 1).saturating_sub(LOGS_MAX)) {
        // One that stays does no harm.
        let _ = fs::remove_file(old);
    }
}
