//! Hosts for tests: network namespaces on one cable, each with a home of its own.

use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Edge, Ran, Running, lines, prose, ran},
    namespace,
};

/// Longest wait for something that takes seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which addresses the hosts have, other than link-local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A network namespace with a cable to the bridge, and a home.
pub(crate) struct Host {
    n: usize,
    holder: Child,
    pub(crate) edge: Edge,
}

impl Host {
    /// Host `n` of this test, at 10.77.0.n or fd00::n.
    pub(crate) fn new(n: usize, family: Family) -> Self {
        let holder = Command::new("unshare").args(["-n", "--", "sleep", "infinity"]).spawn().unwrap();
        let inside = holder.id().to_string();
        // `unshare` has not always made its namespace yet.
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        wait_until("a namespace", || {
            fs::read_link(format!("/proc/{inside}/ns/net")).is_ok_and(|ns| ns != own)
        });
        let host = Self { n, holder, edge: Edge::new() };
        // IPv6 addresses can be used at once, so that nothing waits for the kernel.
        host.succeeds("sh", &["-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"]);
        namespace::ip(&format!("link add cable{n} type veth peer name eth0 netns {inside}")).unwrap();
        namespace::ip(&format!("link set cable{n} master bridge up")).unwrap();
        let (address, default) = match family {
            Family::V4 => (format!("addr add 10.77.0.{n}/24 dev eth0"), "route add default dev eth0"),
            Family::V6 => (format!("addr add fd00::{n}/64 dev eth0"), "-6 route add default dev eth0"),
        };
        for words in [&address, "link set eth0 up", "link set lo up", default] {
            host.succeeds("ip", &words.split(' ').collect::<Vec<_>>());
        }
        wait_until("a carrier", || {
            let link = host.within("ip").args(["-o", "link", "show", "dev", "eth0"]).output().unwrap();
            String::from_utf8_lossy(&link.stdout).contains("state UP")
        });
        host
    }

    /// Another program, at this host.
    pub(crate) fn within(&self, program: &str) -> Command {
        let mut command = self.enters();
        command.arg(program);
        command
    }

    /// What starts a program at this host, without that program.
    fn enters(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-n", "--"]);
        command
    }

    fn succeeds(&self, program: &str, arguments: &[&str]) {
        let status = self.within(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }

    /// edge at this host, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.edge.command_under(self.enters());
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    /// Starts edge and leaves it running; what it says goes to the files of [`Host::log`] and [`Host::printed`].
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.edge.spawn(self.command(arguments), "")
    }

    /// What was started last has said this on stderr …
    pub(crate) fn log(&self) -> String {
        self.edge.log("")
    }

    /// … and this on stdout.
    pub(crate) fn printed(&self) -> String {
        self.edge.printed("")
    }

    /// Waits until what was started last has said this.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &str) {
        self.edge.wait_for("", words);
    }

    /// Pulls the cable out, or puts it in again.
    pub(crate) fn plug(&self, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        namespace::ip(&format!("link set cable{} {state}", self.n)).unwrap();
    }

    /// Blocks that the store takes on the disk: they grow with each batch of results.
    pub(crate) fn stored_blocks(&self) -> u64 {
        let file = fs::metadata(self.edge.store_file());
        file.map_or(0, |file| std::os::unix::fs::MetadataExt::blocks(&file))
    }

    /// The id of its identity, which nothing may be using.
    pub(crate) fn id(&self) -> String {
        self.run(&["id"]).expect(0, &[]).stdout.trim().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A number from the environment, which makes a test longer than it is in an ordinary run.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// So many hosts on one cable, all members of the swarm `home` that the first one founded.
pub(crate) fn swarm(hosts: usize) -> Vec<Host> {
    swarm_over(hosts, Family::V4)
}

/// The same with addresses of one family.
pub(crate) fn swarm_over(hosts: usize, family: Family) -> Vec<Host> {
    namespace::ip("link add bridge type bridge").unwrap();
    namespace::ip("link set bridge up").unwrap();
    let hosts: Vec<Host> = (1..=hosts).map(|n| Host::new(n, family)).collect();
    let founder = &hosts[0];
    founder.run(&["swarm", "create", "home"]).expect(0, &["founded home"]);
    let ticket = founder.run(&["swarm", "invite", "home", "--uses", "9"]).expect(0, &[]).stdout;
    let mut admits = founder.start(&["run"]);
    founder.wait_for("listens on UDP port");
    for host in &hosts[1..] {
        host.run(&["swarm", "join", ticket.trim()]).expect(0, &["joined home"]);
    }
    admits.signal("TERM");
    assert_eq!(admits.ended(), Some(0));
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
