//! Hosts that do not hear each other by mDNS: they meet through a bootstrap node, hear of work through it, and go on when it
//! is gone. And a delegate, through which others come in.

use std::process::Command;

use serde_json::Value;

use crate::{
    edge::{Ran, Running, ran},
    host::{Family, Host, swarm, write_documents},
    namespace,
};

/// A command of a host that has heard of one bootstrap node and nothing else.
fn command(host: &Host, hub: &str, arguments: &[&str]) -> Command {
    let mut command = host.command(arguments);
    command.env("EDGE_NETWORK_MDNS", "false").env("EDGE_NETWORK_BOOTSTRAP", hub);
    command
}

/// Lends a thread.
fn start(host: &Host, hub: &str) -> Running {
    host.edge.spawn(command(host, hub, &["run", "--threads", "1", "-v"]), "")
}

/// Runs `ip` on a host.
fn ip(host: &Host, words: &str) {
    assert!(host.within("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

/// Embeds in the swarm; who computed chunks.
fn embed(host: &Host, hub: &str, out: &str) -> Vec<String> {
    let arguments = ["embed", "docs", "-o", out, "--swarm", "home", "--threads", "1", "--json", "--fresh"];
    let ran: Ran = ran(command(host, hub, &arguments));
    let ran = ran.expect(0, &[]);
    let summary: Value = serde_json::from_str(&ran.stdout).unwrap();
    let workers = summary["workers"].as_object().unwrap();
    println!("  chunks by worker: {workers:?}");
    workers.iter().filter(|(_, chunks)| chunks.as_u64().unwrap() > 0).map(|(id, _)| id.clone()).collect()
}

/// Starts the first host as a bootstrap node; its address.
fn bootstrap_node(host: &Host) -> (Running, String) {
    let running = host.start(&["run", "--bootstrap-node", "--no-mdns"]);
    host.wait_for("listens on UDP port 23343");
    (running, format!("{}@10.77.0.1", host.id()))
}

#[test]
fn members_meet_through_a_bootstrap_node_and_go_on_without_it() {
    namespace::alone("mesh::members_meet_through_a_bootstrap_node_and_go_on_without_it", || {
        let hosts = swarm(3);
        let (hub, worker, asker) = (&hosts[0], &hosts[1], &hosts[2]);
        write_documents(&asker.edge, 6);
        let (running, address) = bootstrap_node(hub);
        let mut lent = start(worker, &address);
        worker.wait_for("peer connected");
        let workers = embed(asker, &address, "one.jsonl");
        assert_eq!(workers.len(), 2, "the bootstrap node lends nothing: {workers:?}");
        // It is killed, without a goodbye.
        drop(running);
        assert_eq!(embed(asker, &address, "two.jsonl"), workers);
        // The worker too has not forgotten whom it met.
        lent.signal("TERM");
        lent.child.wait().unwrap();
        let _lent = start(worker, &address);
        worker.wait_for("listens on UDP port");
        assert_eq!(embed(asker, &address, "three.jsonl"), workers);
    });
}

#[test]
fn work_reaches_a_worker_that_nobody_can_dial() {
    namespace::alone("mesh::work_reaches_a_worker_that_nobody_can_dial", || {
        let hosts = swarm(3);
        let (hub, worker, asker) = (&hosts[0], &hosts[1], &hosts[2]);
        write_documents(&asker.edge, 6);
        // The asker can not reach the worker where others know it; the worker dials from another address.
        ip(asker, "route add blackhole 10.77.0.2/32");
        ip(worker, "addr add 10.78.0.2/24 dev eth0");
        ip(worker, "route add 10.77.0.3/32 dev eth0 src 10.78.0.2");
        let (_running, address) = bootstrap_node(hub);
        let _lent = start(worker, &address);
        worker.wait_for("peer connected");
        let workers = embed(asker, &address, "one.jsonl");
        assert_eq!(workers.len(), 2, "it was dialled by the worker: {workers:?}");
    });
}

#[test]
fn a_delegate_invites_and_admits_while_the_founder_is_away() {
    namespace::alone("mesh::a_delegate_invites_and_admits_while_the_founder_is_away", || {
        let hosts = swarm(2);
        let (founder, delegate) = (&hosts[0], &hosts[1]);
        delegate.run(&["swarm", "invite", "home"]).expect(2, &["may not invite"]);
        founder
            .run(&["swarm", "delegate", "home", &delegate.id(), "--quota", "1"])
            .expect(0, &["may invite"]);
        let mut running = founder.start(&["run", "--threads", "1"]);
        founder.wait_for("listens on UDP port");
        let mut other = delegate.start(&["run", "--threads", "1", "-v"]);
        delegate.wait_for("this node may invite and admit");
        for running in [&mut running, &mut other] {
            running.signal("TERM");
            running.child.wait().unwrap();
        }
        let ticket = delegate.run(&["swarm", "invite", "home", "--uses", "2"]).expect(0, &[]).stdout;
        let _admits = delegate.start(&["run", "--threads", "1"]);
        delegate.wait_for("listens on UDP port");
        let third = Host::new(3, Family::V4);
        third.run(&["swarm", "join", ticket.trim()]).expect(0, &["joined home"]);
        // Its quota was one.
        let fourth = Host::new(4, Family::V4);
        fourth.run(&["swarm", "join", ticket.trim()]).expect(0, &["pending"]);
    });
}
