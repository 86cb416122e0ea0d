//! The program in a home of its own, and what it said.

use std::{
    borrow::BorrowMut,
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than any run of this suite takes on a slow machine; a hang fails instead of blocking.
const RUN_MAX: Duration = Duration::from_secs(240);

/// What this machine is like is for the tests of the budget alone: in all others it is lent whole, whatever else it does.
pub(crate) const LENDS_ALL: [(&str, &str); 8] = [
    ("EDGE_LEND_PRIORITY", "normal"),
    ("EDGE_BUDGET_USED_THREADS", "0"),
    ("EDGE_BUDGET_USED_DUTY_PERCENT", "100"),
    ("EDGE_BUDGET_OTHERS_PERCENT", "100"),
    ("EDGE_BUDGET_MEMORY_PERCENT", "0"),
    ("EDGE_BUDGET_TEMPERATURE", "off"),
    ("EDGE_BUDGET_BATTERY_PERCENT", "0"),
    ("EDGE_TEST_SENSORS", "/"),
];

/// Longest wait for something that a run says after some seconds.
const SAY_MAX: Duration = Duration::from_secs(60);

/// A data directory, a folder of documents, and the program.
pub(crate) struct Edge {
    home: TempDir,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Edge {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("docs")).unwrap();
        Self { home }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn store_file(&self) -> PathBuf {
        self.data_dir().join("identities/default/data.mdb")
    }

    /// Writes a file below the folder of documents; gives its path.
    pub(crate) fn document(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("docs").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("EDGE_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.home.path())
            .env("EDGE_DATA_DIR", self.data_dir())
            .envs(LENDS_ALL)
            .env("HOME", self.home.path())
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null());
        command
    }

    /// The same, started by another program: `starter` with its arguments, then edge.
    pub(crate) fn command_under(&self, mut starter: Command) -> Command {
        let plain = self.command();
        starter.arg(plain.get_program()).current_dir(self.home.path()).stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => starter.env(name, value),
                None => starter.env_remove(name),
            };
        }
        starter
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        ran(command)
    }

    /// As [`Edge::run`], with one more variable.
    pub(crate) fn command_with(&self, arguments: &[&str], name: &str, value: &Path) -> Ran {
        let mut command = self.command();
        command.args(arguments).env(name, value);
        ran(command)
    }

    /// Embeds the folder of documents with these arguments; the lines of its output.
    pub(crate) fn embed(&self, arguments: &[&str]) -> (Ran, Vec<Value>) {
        let out = self.path("out.jsonl");
        let _ = fs::remove_file(&out);
        let mut all = vec!["embed", "docs", "-o", "out.jsonl"];
        all.extend(arguments);
        let ran = self.run(all);
        let lines = if out.exists() { lines(&fs::read_to_string(&out).unwrap()) } else { Vec::new() };
        (ran, lines)
    }

    /// Starts a command and leaves it running; what it says goes to files, of which `name` tells one run's from
    /// another's.
    pub(crate) fn spawn(&self, mut command: Command, name: &str) -> Running {
        let file = |what| File::create(self.path(&format!("{what}{name}"))).unwrap();
        let child = command.stdout(file("printed")).stderr(file("log")).spawn().unwrap();
        Running { child }
    }

    /// What the run of this name has said on stderr …
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("log{name}"))).unwrap()
    }

    /// … and on stdout.
    pub(crate) fn printed(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("printed{name}"))).unwrap()
    }

    /// Waits until the run of this name has said this on stderr.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, words: &str) {
        let begun = Instant::now();
        while !self.log(name).contains(words) {
            assert!(begun.elapsed() < SAY_MAX, "no {words:?} in: {}", self.log(name));
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Starts the program and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap() }
    }
}

/// A run that is going on; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
}

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Waits until it has ended as it should.
    pub(crate) fn ended_well(mut self) {
        assert_eq!(self.ended(), Some(0));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `is_enough` or its end, whichever comes first.
    pub(crate) fn runs_until(&mut self, mut is_enough: impl FnMut() -> bool) {
        while self.is_running() && !is_enough() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// The high-water mark of its resident memory, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Waits for its end; gives its exit code, where it was not killed.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        wait(&mut self.child).code()
    }

    pub(crate) fn wait(mut self) -> Ran {
        let status = wait(&mut self.child);
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        std::io::Read::read_to_end(&mut self.child.stdout.take().unwrap(), &mut output.stdout).unwrap();
        std::io::Read::read_to_end(&mut self.child.stderr.take().unwrap(), &mut output.stderr).unwrap();
        read(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > RUN_MAX {
            child.kill().unwrap();
            panic!("the program did not end within {RUN_MAX:?}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs a command to its end. Its output goes through files, so that no full pipe can block it.
pub(crate) fn ran(mut command: impl BorrowMut<Command>) -> Ran {
    let command = command.borrow_mut();
    let (stdout, stderr) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    command.stdout(stdout.reopen().unwrap()).stderr(stderr.reopen().unwrap());
    let status = wait(&mut command.spawn().unwrap());
    read(Output { status, stdout: fs::read(stdout).unwrap(), stderr: fs::read(stderr).unwrap() })
}

fn read(output: Output) -> Ran {
    use std::os::unix::process::ExitStatusExt;
    let ran = Ran {
        code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap()),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

impl Ran {
    /// Asserts the exit code and that stderr has each of `words`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        self
    }
}

/// The values of JSON lines.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Equal outputs, as DESIGN 5 defines them: every field but the vector equal, vectors of cosine 0.9999 at least.
#[track_caller]
pub(crate) fn assert_equal_outputs(a: &[Value], b: &[Value]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        let without = |line: &Value| {
            let mut line = line.clone();
            line.as_object_mut().unwrap().remove("vector");
            line
        };
        assert_eq!(without(a), without(b));
        let cosine = cosine(&vector(a), &vector(b));
        assert!(cosine >= 0.9999, "{cosine}");
    }
}

/// Chunks by who computed them, as the summary of an embed over a swarm tells.
pub(crate) fn shares(summary: &Value) -> BTreeMap<String, u64> {
    let own = summary["own"].as_str().unwrap();
    let name = |peer: &String| if peer == own { "this node".to_owned() } else { peer[..8].to_owned() };
    let workers = summary["workers"].as_object().unwrap();
    workers.iter().map(|(peer, chunks)| (name(peer), chunks.as_u64().unwrap())).collect()
}

pub(crate) fn vector(line: &Value) -> Vec<f64> {
    line["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Prose of about so many bytes, another one for each seed.
pub(crate) fn prose(seed: u64, bytes: usize) -> String {
    const WORDS: &[&str] = &[
        "sea", "tower", "light", "ship", "wind", "keeper", "stone", "night", "storm", "calm", "harbour",
        "lamp",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    while text.len() < bytes {
        for word in 0..9 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text += WORDS[(state % WORDS.len() as u64) as usize];
            text.push(if word == 8 { '.' } else { ' ' });
        }
        text += if state.is_multiple_of(5) { "\n\n" } else { " " };
    }
    text
}

impl Write for Running {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.child.stdin.as_mut().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
