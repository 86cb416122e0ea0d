//! What a founder does with the rights in its swarm, between running hosts: puts a peer out, lets another admit, takes an
//! invite back, and hears what it had signed when it comes back from an old copy.

use std::process::Command;

use serde_json::Value;

use crate::{
    edge::{Running, shares},
    host::{Family, Host, swarm, wait_until, write_documents},
    namespace,
};

/// The only swarm of a host, as its node or else its store shows it; `null` where the command fails.
fn home(host: &Host) -> Value {
    let ran = host.run(&["swarm", "list", "--json"]);
    let swarms: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    swarms[0].clone()
}

fn lend(host: &Host) -> Running {
    let lent = host.start(&["run", "--threads", "1"]);
    host.wait_for("listens on UDP port");
    lent
}

fn stop(running: Running) {
    running.signal("TERM");
    running.ended_well();
}

fn invite(host: &Host) -> String {
    host.run(&["swarm", "invite", "home", "--uses", "2"]).expect(0, &[]).stdout.trim().to_owned()
}

#[test]
fn whoever_is_put_out_hears_of_it_and_gets_no_more_work() {
    namespace::alone("rights::whoever_is_put_out_hears_of_it_and_gets_no_more_work", || {
        let hosts = swarm(3);
        let (founder, stays, goes) = (&hosts[0], &hosts[1], &hosts[2]);
        let out = goes.id();
        write_documents(&founder.edge, 6);
        let _lent: Vec<Running> = hosts.iter().map(lend).collect();
        let before = invite(founder);
        founder
            .run(&["swarm", "kick", "home", "nobody"])
            .expect(2, &["`edge swarm members home` shows them"]);
        founder.run(&["swarm", "kick", "home", &out[..10]]).expect(0, &["is out of home"]);
        wait_until("news of it", || home(goes)["refused"].is_string());
        let list = goes.run(&["swarm", "list"]).expect(0, &["home: no longer"]);
        assert!(list.stdout.contains("refused"), "{}", list.stdout);
        let status = goes.run(&["status"]).expect(0, &[]).stdout;
        assert!(status.contains("refused"), "{status}");
        goes.run(&["embed", "log", "--swarm", "home"]).expect(2, &["put out of home"]);
        assert_eq!(home(founder)["epoch"], 1);
        wait_until("a new epoch", || home(stays)["epoch"] == 1);
        assert_eq!(home(stays)["role"], "member");
        // Through the founder's node, which may compute as well.
        let embed = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--json"];
        let summary: Value = serde_json::from_str(&founder.run(&embed).expect(0, &[]).stdout).unwrap();
        let shares = shares(&summary);
        assert!(shares.keys().all(|worker| !out.starts_with(worker.as_str())), "{shares:?}");
        // A ticket from before the kick may be what it was put out for.
        goes.run(&["swarm", "join", &before]).expect(2, &["no longer honoured"]);
        goes.run(&["swarm", "join", &invite(founder)]).expect(0, &["joined home"]);
        assert_eq!((&home(goes)["epoch"], &home(goes)["role"]), (&1.into(), &"member".into()));
    });
}

#[test]
fn a_founder_that_comes_back_from_an_old_copy_hears_what_it_signed() {
    namespace::alone("rights::a_founder_that_comes_back_from_an_old_copy_hears_what_it_signed", || {
        let hosts = swarm(3);
        let (founder, member, goes) = (&hosts[0], &hosts[1], &hosts[2]);
        let out = goes.id();
        let copy = |from: &str, to: &str| {
            let (from, to) = (founder.edge.path(from), founder.edge.path(to));
            assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        };
        copy("data", "copy");
        let _lent = lend(member);
        let first = lend(founder);
        founder.run(&["swarm", "kick", "home", &out]).expect(0, &[]);
        wait_until("a new epoch", || home(member)["epoch"] == 1);
        stop(first);
        std::fs::remove_dir_all(founder.edge.data_dir()).unwrap();
        copy("copy", "data");
        assert_eq!(home(founder)["epoch"], 0);
        let _again = lend(founder);
        wait_until("what it had signed", || home(founder)["epoch"] == 1);
        let members = founder.run(&["swarm", "members", "home"]).expect(0, &[]).stdout;
        assert!(!members.contains(&out[..10]), "{members}");
        // The next epoch is one that nobody has seen.
        founder.run(&["swarm", "kick", "home", &member.id()]).expect(0, &[]);
        assert_eq!(home(founder)["epoch"], 2);
        wait_until("news of it", || home(member)["refused"].is_string());
    });
}

#[test]
fn a_delegate_admits_while_the_founder_is_away_by_invites_it_may_take_back() {
    namespace::alone(
        "rights::a_delegate_admits_while_the_founder_is_away_by_invites_it_may_take_back",
        || {
            let hosts = swarm(2);
            let (founder, delegate) = (&hosts[0], &hosts[1]);
            let id = delegate.id();
            let _lent = lend(delegate);
            let first = lend(founder);
            founder
                .run(&["swarm", "delegate", "home", &id, "--quota", "3"])
                .expect(0, &["may invite and admit others"]);
            wait_until("the right", || home(delegate)["role"] == "delegate");
            stop(first);
            let ticket = invite(delegate);
            let third = Host::new(3, Family::V4);
            third.run(&["swarm", "join", &ticket]).expect(0, &["joined home"]);
            let invites = delegate.run(&["swarm", "revoke", "home"]).expect(0, &[]).stdout;
            assert!(invites.contains("used 1 of 2"), "{invites}");
            let invite = invites.split_whitespace().next().unwrap();
            delegate.run(&["swarm", "revoke", "home", &invite[..8]]).expect(0, &["nobody joins by"]);
            let fourth = Host::new(4, Family::V4);
            fourth.run(&["swarm", "join", &ticket]).expect(2, &["no longer honoured"]);
            // Who was admitted while it was away is known to it when they meet.
            let _others = [lend(&third), lend(founder)];
            wait_until("who was admitted meanwhile", || home(founder)["members"] == 3);
        },
    );
}
