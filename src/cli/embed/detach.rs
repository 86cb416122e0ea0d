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
    exit::{Exit, UsageError},
    human, talk,
};

/// What goes wrong at once is said at once.
const WATCHED: Duration = Duration::from_millis(700);
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a log that are repeated.
const LOG_BYTES_MAX: u64 = 4096;

/// Starts the command anew without `--detach`.
pub(super) fn detach(arguments: &Arguments) -> anyhow::Result<Exit> {
    let output = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    let Some(output) = output else {
        return Err(UsageError("--detach needs a file to write to: name one with -o".into()).into());
    };
    if arguments.paths.iter().any(|path| path == Path::new("-")) {
        return Err(UsageError("--detach cannot read stdin: it ends with this terminal".into()).into());
    }
    let log = log_path(output);
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", human::path(&log)))?;
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
            let mut said = String::new();
            fs::File::open(&log)?.take(LOG_BYTES_MAX).read_to_string(&mut said)?;
            talk::line(said.trim_end());
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

fn log_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".log");
    output.with_file_name(name)
}
