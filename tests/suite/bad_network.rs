//! Whatever ports, names, clocks and strangers' packets do to a node: a clear error, or it goes on.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::Command,
    time::Instant,
};

use serde_json::Value;

use crate::{
    edge::{Edge, Running, assert_equal_outputs, lines, prose, shares},
    host::wait_until,
    namespace,
};

/// A data directory whose identity `default` has founded the swarm `home`, and a ticket for others.
fn founder() -> (Edge, String) {
    let edge = Edge::new();
    edge.run(["swarm", "create", "home"]).expect(0, &["founded home"]);
    let ticket = edge.run(["swarm", "invite", "home", "--uses", "9"]).expect(0, &[]).stdout;
    (edge, ticket.trim().to_owned())
}

/// Starts it under a name, with its log in a file.
fn start(edge: &Edge, name: &str, arguments: &[&str]) -> Running {
    let mut command = edge.command();
    command.args(arguments);
    edge.spawn(command, name)
}

/// `edge run` of the founder, when it listens.
fn serving(edge: &Edge, arguments: &[&str]) -> Running {
    let running = start(edge, "", &[&["run", "--threads", "1"], arguments].concat());
    edge.wait_for("", "listens on UDP port");
    running
}

fn ends_well(mut running: Running) {
    running.signal("TERM");
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn a_udp_port_in_use_is_named() {
    namespace::alone("bad_network::a_udp_port_in_use_is_named", || {
        let (edge, _) = founder();
        for taken in ["[::]:4600", "0.0.0.0:4600", "127.0.0.1:4600"] {
            let _taken = UdpSocket::bind(taken).unwrap();
            edge.run(["run", "--port", "4600"])
                .expect(3, &["UDP port 4600", "is in use", "choose another port"]);
        }
        let _running = serving(&edge, &["--port", "4600"]);
        // Another node on the same port, which would else never hear a thing.
        edge.run(["swarm", "create", "work", "--identity", "second"]).expect(0, &[]);
        edge.run(["run", "--port", "4600", "--identity", "second"]).expect(3, &["UDP port 4600"]);
    });
}

#[test]
fn a_bootstrap_host_that_does_not_resolve_is_named_and_the_node_goes_on() {
    namespace::alone(
        "bad_network::a_bootstrap_host_that_does_not_resolve_is_named_and_the_node_goes_on",
        || {
            let (edge, ticket) = founder();
            let id = edge.run(["id", "--identity", "other"]).expect(0, &[]).stdout;
            let bootstrap = format!("{}@nowhere.invalid:4601", id.trim());
            edge.run(["run", "--bootstrap", "nowhere.invalid:4601"]).expect(2, &["ID@HOST:PORT"]);
            let begun = Instant::now();
            let running = serving(&edge, &["--bootstrap", &bootstrap]);
            edge.wait_for("", "nowhere.invalid");
            println!("  said after {:?}: {}", begun.elapsed(), edge.log("").lines().last().unwrap());
            edge.run(["swarm", "join", &ticket, "--identity", "other"]).expect(0, &["joined home"]);
            ends_well(running);
        },
    );
}

/// What answers in place of libc when a program asks for the time of day.
const WRONG_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *time) {
    long failed = syscall(SYS_clock_gettime, which, time);
    if (!failed && which == CLOCK_REALTIME) time->tv_sec += atol(getenv("TEST_CLOCK_SHIFT_S"));
    return failed;
}
"#;
const YEAR_S: i64 = 31_557_600;

/// A library that puts the clock of one process wrong, where there is a C compiler.
fn wrong_clock(edge: &Edge) -> Option<PathBuf> {
    let (source, library) = (edge.path("clock.c"), edge.path("clock.so"));
    fs::write(&source, WRONG_CLOCK).unwrap();
    let compiler =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    compiler.is_ok_and(|status| status.success()).then_some(library)
}

#[test]
fn clocks_that_are_wrong_by_years_stop_nobody() {
    namespace::alone("bad_network::clocks_that_are_wrong_by_years_stop_nobody", || {
        let (edge, ticket) = founder();
        let Some(library) = wrong_clock(&edge) else {
            return println!("  not tried: no C compiler makes a wrong clock here");
        };
        let wrong = |years: i64, arguments: &[&str]| {
            let mut command = edge.command();
            let shift = (years * YEAR_S).to_string();
            command.args(arguments).env("LD_PRELOAD", &library).env("TEST_CLOCK_SHIFT_S", shift);
            command
        };
        // Who dates an invite needs a clock, and says so; who is let in needs none.
        let unset = crate::edge::ran(wrong(-50, &["swarm", "invite", "home"]));
        unset.expect(3, &["the clock is not set"]);
        crate::edge::ran(wrong(-50, &["swarm", "invite", "home", "--days", "0"])).expect(0, &[]);
        let running = serving(&edge, &[]);
        for (name, years) in [("past", -50), ("future", 30)] {
            crate::edge::ran(wrong(years, &["swarm", "join", &ticket, "--identity", name]))
                .expect(0, &["joined home"]);
        }
        ends_well(running);
        // To one whose clock says that the invite is over it is.
        let late = edge.spawn(wrong(1, &["run", "--threads", "1"]), "");
        edge.wait_for("", "listens on UDP port");
        edge.run(["swarm", "join", &ticket, "--identity", "late"])
            .expect(2, &["not admitted to home", "expired"]);
        ends_well(late);
        // They share the work all the same.
        for n in 0..3 {
            edge.document(format!("{n}.txt"), prose(n + 1, 24_000));
        }
        let mut lent = Vec::new();
        for (name, years) in [("past", -50), ("future", 30)] {
            lent.push(edge.spawn(wrong(years, &["run", "--threads", "1", "--identity", name]), name));
            edge.wait_for(name, "listens on UDP port");
        }
        let embed = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1", "--json"];
        let summary: Value = serde_json::from_str(&edge.run(embed).expect(0, &[]).stdout).unwrap();
        println!("  with clocks 50 years behind and 30 ahead: {:?}", shares(&summary));
        assert!(shares(&summary).len() > 1, "nobody helped");
        lent.into_iter().for_each(ends_well);
        edge.run(["embed", "docs", "-o", "alone.jsonl", "--data-dir", "elsewhere"]).expect(0, &[]);
        let read = |name: &str| lines(&fs::read_to_string(edge.path(name)).unwrap());
        assert_equal_outputs(&read("out.jsonl"), &read("alone.jsonl"));
    });
}

fn resident_kib(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Datagrams that have been received at the node's port, and those that found no room.
fn received(port: u16) -> (u64, u64) {
    let sockets = fs::read_to_string("/proc/net/udp6").unwrap();
    let own = format!(":{port:04X} ");
    let line = sockets.lines().find(|line| line.contains(&own)).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, waiting) = fields[4].split_once(':').unwrap();
    (u64::from_str_radix(waiting, 16).unwrap(), fields[12].parse().unwrap())
}

#[test]
fn garbage_at_its_port_changes_nothing_for_a_node() {
    namespace::alone("bad_network::garbage_at_its_port_changes_nothing_for_a_node", || {
        const DATAGRAMS: u32 = 10_000;
        let (edge, ticket) = founder();
        // Whoever wants to join has the ticket's address alone.
        let running = serving(&edge, &["--no-mdns"]);
        let log = edge.log("");
        let port = log.split("UDP port ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let seed = fastrand::u64(..);
        println!("  seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let before = resident_kib(&running);
        let (begun, mut sent) = (Instant::now(), 0u64);
        let mut from = Vec::new();
        for n in 0..DATAGRAMS {
            // Each some from a port of its own, as many strangers would.
            if n % 100 == 0 {
                from.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
            }
            let mut bytes = vec![0; rng.usize(..1500)];
            rng.fill(&mut bytes);
            // A third opens as first packets of QUIC do, full size and with the right version: these are looked into.
            if rng.u8(..3) == 0 {
                bytes.resize(1200 + rng.usize(..200), 7);
                bytes[..6].copy_from_slice(&[0xc0 | rng.u8(..4), 0, 0, 0, 1, 8]);
                bytes[14] = 8;
            }
            // The kernel keeps some hundred of them; what finds no room was never there.
            while received(port).0 > 100_000 {
                std::thread::yield_now();
            }
            sent += from.last().unwrap().send_to(&bytes, (Ipv4Addr::LOCALHOST, port)).unwrap() as u64;
        }
        wait_until("end of the garbage", || received(port).0 == 0);
        let (grown, lost) = (resident_kib(&running).saturating_sub(before), received(port).1);
        println!(
            "  {DATAGRAMS} datagrams, {sent} bytes, in {:?}: {lost} found no room, {grown} KiB more",
            begun.elapsed()
        );
        assert!(lost < u64::from(DATAGRAMS) / 10, "{lost}");
        assert!(grown < 32 << 10, "{grown} KiB");
        let joined = Instant::now();
        edge.run(["swarm", "join", &ticket, "--identity", "second"]).expect(0, &["joined home"]);
        println!("  a peer joined {:?} later", joined.elapsed());
        ends_well(running);
    });
}

#[test]
fn a_data_directory_in_use_is_refused_by_name_and_left_alone() {
    namespace::alone("bad_network::a_data_directory_in_use_is_refused_by_name_and_left_alone", || {
        let (edge, ticket) = founder();
        let running = serving(&edge, &[]);
        let process = format!("process {} (edge run)", running.child.id());
        edge.run(["run"]).expect(4, &["in use by", &process, "--identity"]);
        edge.document("a.txt", "A text.");
        // What needs the directory goes through the node that has it.
        edge.run(["embed", "docs", "-o", "out.jsonl", "--swarm", "home"]).expect(0, &["1 document"]);
        edge.run(["swarm", "join", &ticket, "--identity", "second"]).expect(0, &["joined home"]);
        ends_well(running);
    });
}

#[test]
fn of_two_embeds_at_once_one_is_done_and_one_refused() {
    let edge = Edge::new();
    // Longer than the second waits for the first to end.
    for n in 0..16 {
        edge.document(format!("{n:02}.txt"), prose(n + 1, 12_000));
    }
    let mut first = start(&edge, "first", &["embed", "docs", "-o", "first.jsonl"]);
    wait_until("store", || edge.store_file().exists() || !first.is_running());
    let process = format!("process {} (edge embed)", first.child.id());
    edge.run(["embed", "docs", "-o", "second.jsonl"]).expect(4, &["in use by", &process]);
    assert_eq!(first.ended(), Some(0), "{}", edge.log("first"));
    // All is stored now.
    edge.run(["embed", "docs", "-o", "second.jsonl"]).expect(0, &["were stored already"]);
    let read = |name: &str| fs::read_to_string(edge.path(name)).unwrap();
    assert_eq!(read("first.jsonl"), read("second.jsonl"));
}

#[test]
fn an_embed_over_a_swarm_that_is_told_to_stop_goes_on_later() {
    namespace::alone("bad_network::an_embed_over_a_swarm_that_is_told_to_stop_goes_on_later", || {
        let (edge, ticket) = founder();
        let mut admits = serving(&edge, &[]);
        edge.run(["swarm", "join", &ticket, "--identity", "second"]).expect(0, &["joined home"]);
        admits.signal("TERM");
        assert_eq!(admits.ended(), Some(0));
        let lent = start(&edge, "second", &["run", "--threads", "1", "-vv", "--identity", "second"]);
        edge.wait_for("second", "listens on UDP port");
        for n in 0..6 {
            edge.document(format!("{n}.txt"), prose(n + 1, 24_000));
        }
        let embed = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1"];
        let mut stopped = start(&edge, "", &embed);
        edge.wait_for("second", "delivered job=");
        let asked = Instant::now();
        stopped.signal("TERM");
        assert_eq!(stopped.ended(), Some(130), "{}", edge.log(""));
        println!("  ended {:?} after it was told: {}", asked.elapsed(), edge.log("").trim());
        assert!(edge.log("").contains("are kept"), "{}", edge.log(""));
        assert!(!edge.path("out.jsonl").exists());
        let ran = edge.run(embed).expect(0, &["were stored already"]);
        println!("  {}", ran.stderr.trim());
        ends_well(lent);
        edge.run(["embed", "docs", "-o", "alone.jsonl", "--data-dir", "elsewhere"]).expect(0, &[]);
        let read = |name: &str| lines(&fs::read_to_string(edge.path(name)).unwrap());
        assert_equal_outputs(&read("out.jsonl"), &read("alone.jsonl"));
    });
}
