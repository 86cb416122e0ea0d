//! Several hosts, each in a network namespace of its own, on one cable: they find each other, share the work, and lose
//! nothing when one of them is killed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Edge, Ran, Running, assert_equal_outputs, lines, prose, ran},
    namespace,
};

/// Longest wait for something that takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network namespace with a cable to the bridge, and a home.
struct Host {
    holder: Child,
    edge: Edge,
}

impl Host {
    /// Host `n` of this test, at 10.77.0.n.
    fn new(n: usize) -> Self {
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

    fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let log = fs::File::create(self.edge.path("log")).unwrap();
        let mut command = self.command(arguments);
        Running { child: command.stdout(Stdio::null()).stderr(log).spawn().unwrap() }
    }

    /// Waits until what was started last has said this.
    fn wait_for(&self, words: &str) {
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
fn swarm(hosts: usize) -> Vec<Host> {
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
fn write_documents(edge: &Edge, segments: usize) {
    for n in 0..segments {
        edge.document(format!("{n:02}.txt"), prose(n as u64 + 1, 24_000));
    }
}

/// The output of one machine alone.
fn alone(host: &Host) -> Vec<Value> {
    host.run(&["embed", "docs", "-o", "alone.jsonl", "--data-dir", "elsewhere"]).expect(0, &[]);
    lines(&fs::read_to_string(host.edge.path("alone.jsonl")).unwrap())
}

#[test]
fn three_hosts_find_each_other_and_share_the_work() {
    namespace::alone("swarm::three_hosts_find_each_other_and_share_the_work", || {
        let hosts = swarm(3);
        let founder = &hosts[0];
        write_documents(&founder.edge, 10);
        let _lent: Vec<Running> =
            hosts[1..].iter().map(|host| host.start(&["run", "--threads", "1"])).collect();
        for host in &hosts[1..] {
            host.wait_for("listens on UDP port");
        }
        let ran =
            founder.run(&["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--json"]).expect(0, &[]);
        let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
        let workers = summary["workers"].as_object().unwrap();
        println!("  chunks by worker: {workers:?}");
        assert_eq!(workers.len(), 3, "{workers:?}");
        assert!(workers.values().all(|chunks| chunks.as_u64().unwrap() > 0));
        let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
        assert_equal_outputs(&shared, &alone(founder));
        // All of it is stored: the same command costs nothing, and needs nobody.
        let again =
            founder.run(&["embed", "docs", "-o", "again.jsonl", "--swarm", "home", "--json"]).expect(0, &[]);
        let summary: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!(summary["chunks_computed"], 0);
    });
}

#[test]
fn a_worker_that_is_killed_loses_nothing_and_doubles_nothing() {
    namespace::alone("swarm::a_worker_that_is_killed_loses_nothing_and_doubles_nothing", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 8);
        let mut embed =
            founder.start(&["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1"]);
        for _ in 0..2 {
            let lent = worker.start(&["run", "--threads", "1", "-v"]);
            worker.wait_for("encoder on matrix kernels");
            if !embed.is_running() {
                break;
            }
            // Dropping it kills it by SIGKILL, with a job on its thread.
            drop(lent);
        }
        assert_eq!(embed.child.wait().unwrap().code(), Some(0));
        let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
        assert_equal_outputs(&shared, &alone(founder));
    });
}

#[test]
fn an_aggregator_that_is_killed_goes_on_where_it_was() {
    namespace::alone("swarm::an_aggregator_that_is_killed_goes_on_where_it_was", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 6);
        let _lent = worker.start(&["run", "--threads", "1"]);
        worker.wait_for("listens on UDP port");
        let command = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1"];
        for _ in 0..2 {
            let embed = founder.start(&command);
            founder.wait_for("chunks/s");
            drop(embed);
            assert!(!founder.edge.path("out.jsonl").exists(), "an output is whole or not there");
        }
        founder.run(&command).expect(0, &["were stored already"]);
        let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
        assert_equal_outputs(&shared, &alone(founder));
    });
}

#[test]
fn tickets_that_are_none_are_refused_with_the_reason() {
    namespace::alone("swarm::tickets_that_are_none_are_refused_with_the_reason", || {
        let hosts = swarm(2);
        let (founder, member) = (&hosts[0], &hosts[1]);
        let ticket = founder.run(&["swarm", "invite", "home"]).expect(0, &[]).stdout;
        let ticket = ticket.trim();
        let mut mistyped = ticket.to_owned();
        mistyped.replace_range(100..101, if &ticket[100..101] == "a" { "b" } else { "a" });
        member.run(&["swarm", "join", &mistyped]).expect(2, &["mistyped"]);
        member.run(&["swarm", "join", &ticket[..200]]).expect(2, &["cut off"]);
        member.run(&["swarm", "join", "hello"]).expect(2, &["ticket"]);
        member.run(&["swarm", "join", ticket]).expect(0, &["is a member of home already"]);
        member.run(&["swarm", "invite", "home"]).expect(2, &["may not invite"]);
        member.run(&["embed", "log", "--swarm", "work"]).expect(2, &["in no swarm `work`"]);
        member.run(&["embed", "log", "--swarm", "public"]).expect(2, &["do not go to strangers"]);
        founder.run(&["swarm", "create", "public"]).expect(2, &["reserved"]);
        founder.run(&["swarm", "create", "home"]).expect(2, &["founded a swarm `home` already"]);
        // Nobody is there who admits.
        let third = Host::new(3);
        third.run(&["swarm", "join", ticket]).expect(0, &["home: pending"]);
        third.run(&["embed", "log", "--swarm", "home"]).expect(2, &["not admitted to home yet"]);
        let _admits = founder.start(&["run"]);
        founder.wait_for("listens on UDP port");
        third.run(&["swarm", "join", ticket]).expect(0, &["joined home"]);
        // The ticket was for one.
        let fourth = Host::new(4);
        fourth.run(&["swarm", "join", ticket]).expect(0, &["used up", "pending"]);
    });
}
