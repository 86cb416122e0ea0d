//! Hosts for tests: network namespaces on one cable, each with a home of its own.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Edge, Ran, Running, lines, prose, ran},
    namespace,
};

/// Longest wait for something that takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network namespace with a cable to the bridge, and a home.
pub(crate) struct Host {
    holder: Child,
    pub(crate) edge: Edge,
}

impl Host {
    /// Host `n` of this test, at 10.77.0.n.
    pub(crate) fn new(n: usize) -> Self {
        let holder = Command::new("unshare").args(["-n", "--", "sleep", "infinity"]).spawn().unwrap();
        let inside = holder.id().to_string();
        // `unshare` has not always made its namespace yet.
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let begun = Instant::now();
        while fs::read_link(format!("/proc/{inside}/ns/net")).map_or(true, |ns| ns == own) {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        namespace::ip(&format!("link add cable{n} type veth peer name eth0 netns {inside}")).unwrap();
        namespace::ip(&format!("link set cable{n} master bridge up")).unwrap();
        let host = Self { holder, edge: Edge::new() };
        for words in [
            format!("addr add 10.77.0.{n}/24 dev eth0"),
            "link set eth0 up".into(),
            "link set lo up".into(),
            "route add default dev eth0".into(),
        ] {
            let status = host.within("ip").args(words.split(' ')).status().unwrap();
            assert!(status.success(), "ip {words}");
        }
        host
    }

    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "--", program]);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let plain = self.edge.command();
        let mut command = self.within(plain.get_program().to_str().unwrap());
        command.args(arguments).current_dir(self.edge.path("")).stdin(Stdio::null());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let log = fs::File::create(self.edge.path("log")).unwrap();
        let mut command = self.command(arguments);
        Running { child: command.stdout(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    /// Waits until what was started last has said this.
    pub(crate) fn wait_for(&self, words: &str) {
        let begun = Instant::now();
        loop {
            let log = fs::read_to_string(self.edge.path("log")).unwrap();
            if log.contains(words) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no {words:?} in: {log}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// So many hosts on one cable, all members of the swarm `home` that the first one founded.
pub(crate) fn swarm(hosts: usize) -> Vec<Host> {
    namespace::ip("link add bridge type bridge").unwrap();
    namespace::ip("link set bridge up").unwrap();
    let hosts: Vec<Host> = (1..=hosts).map(Host::new).collect();
    let founder = &hosts[0];
    founder.run(&["swarm", "create", "home"]).expect(0, &["founded home"]);
    let ticket = founder.run(&["swarm", "invite", "home", "--uses", "9"]).expect(0, &[]).stdout;
    let mut admits = founder.start(&["run"]);
    founder.wait_for("listens on UDP port");
    for host in &hosts[1..] {
        host.run(&["swarm", "join", ticket.trim()]).expect(0, &["joined home"]);
    }
    admits.signal("TERM");
    assert_eq!(admits.child.wait().unwrap().code(), Some(0));
    hosts
}

/// Text for `segments` jobs, in a few documents.
pub(crate) fn write_documents(edge: &Edge, segments: usize) {
    for n in 0..segments {
        edge.document(format!("{n:02}.txt"), prose(n as u64 + 1, 24_000));
    }
}

/// The output of one machine alone.
pub(crate) fn alone(host: &Host) -> Vec<Value> {
    host.run(&["embed", "docs", "-o", "alone.jsonl", "--data-dir", "elsewhere"]).expect(0, &[]);
    lines(&fs::read_to_string(host.edge.path("alone.jsonl")).unwrap())
}
