//! Several hosts, each in a network namespace of its own, on one cable: they find each other, share the work, and lose
//! nothing when one of them is killed.

use std::fs;

use serde_json::Value;

use crate::{
    edge::{Running, assert_equal_outputs, lines, ran},
    host::{Family, Host, alone, swarm, wait_until, write_documents},
    namespace,
};

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
        let _lent = worker.start(&["run", "--threads", "1", "-vv"]);
        worker.wait_for("listens on UDP port");
        let command = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1"];
        let delivered = || worker.log().matches("delivered job=").count();
        for _ in 0..2 {
            let (embed, before) = (founder.start(&command), delivered());
            wait_until("delivery", || delivered() > before);
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
        let third = Host::new(3, Family::V4);
        third.run(&["swarm", "join", ticket]).expect(0, &["home: pending"]);
        third.run(&["embed", "log", "--swarm", "home"]).expect(2, &["not admitted to home yet"]);
        let _admits = founder.start(&["run"]);
        founder.wait_for("listens on UDP port");
        third.run(&["swarm", "join", "-"]).expect(2, &["no ticket on stdin"]);
        // So that `ps` does not show it.
        fs::write(third.edge.path("ticket"), format!("{ticket}\n")).unwrap();
        let mut joining = third.command(&["swarm", "join", "-"]);
        joining.stdin(fs::File::open(third.edge.path("ticket")).unwrap());
        ran(joining).expect(0, &["joined home"]);
        // The ticket was for one.
        let fourth = Host::new(4, Family::V4);
        fourth.run(&["swarm", "join", ticket]).expect(2, &["not admitted to home", "used up"]);
    });
}
