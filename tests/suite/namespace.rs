//! Runs a test in a network namespace of its own, where nothing it sends leaves and nobody else is heard.
//!
//! The test binary starts itself anew under `unshare`, for that one test. Needs `unshare` and `ip`.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

/// Tells the test, started anew, which part it plays.
const PART: &str = "EDGE_TEST_PART";
/// Lines of a part that wait for being read.
const LINES_MAX: usize = 4096;
/// Exit code of a test that says why it can not run.
const SKIPPED: i32 = 77;

/// Runs `body` as the test `name` (`module::function`) in a namespace with `lo` up. Where there can be none it
/// prints why and returns.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    match env::var(PART) {
        Ok(part) if part == "alone" => {
            if let Err(why) = ip("link set lo up") {
                println!("skipped: {why}");
                std::process::exit(SKIPPED);
            }
            // What the test prints begins a line of its own.
            println!();
            body();
        }
        Ok(_) => {}
        Err(_) => {
            let output = again(name, "alone", true).stdin(Stdio::null()).output().unwrap();
            let (out, err) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            for line in out.lines().filter(|line| line.starts_with("skipped: ") || line.starts_with("  ")) {
                println!("{line}");
            }
            if err.lines().any(|line| line.starts_with("unshare:")) {
                return println!("skipped: this machine allows no network namespace: {}", err.trim());
            }
            assert!(output.status.success() || output.status.code() == Some(SKIPPED), "{out}\n{err}");
            assert!(!out.contains("running 0 tests"), "there is no test `{name}`");
        }
    }
}

/// A second part of the test `name`, running in its own process: in a namespace of its own, or in this one.
pub(crate) struct Part {
    pub(crate) child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Part {
    pub(crate) fn start(name: &str, part: &str, apart: bool) -> Self {
        let mut command = again(name, part, apart);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = sync_channel(LINES_MAX);
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { input: child.stdin.take().unwrap(), child, lines }
    }

    /// The rest of the next line that begins with `start`.
    pub(crate) fn wait_for(&self, start: &str, wait: Duration) -> String {
        loop {
            let line = self.lines.recv_timeout(wait).unwrap_or_else(|_| panic!("no `{start}` in {wait:?}"));
            if let Some((_, rest)) = line.split_once(start) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which part this process plays, other than the first.
pub(crate) fn part() -> Option<String> {
    env::var(PART).ok().filter(|part| part != "alone")
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> Result<(), String> {
    let ran = Command::new("ip").args(words.split(' ')).output();
    let output = ran.map_err(|error| format!("`ip` does not run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {words}` fails: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// What `ip` says to these words.
pub(crate) fn ip_says(words: &str) -> String {
    String::from_utf8(Command::new("ip").args(words.split(' ')).output().unwrap().stdout).unwrap()
}

fn again(name: &str, part: &str, apart: bool) -> Command {
    let exe = env::current_exe().unwrap();
    let mut command = if apart {
        let mut unshare = Command::new("unshare");
        // Only who is not root needs a user namespace, and some systems forbid it.
        let flags = if is_root() || part != "alone" { "-n" } else { "-Urn" };
        unshare.arg(flags).arg("--").arg(exe);
        unshare
    } else {
        Command::new(exe)
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
