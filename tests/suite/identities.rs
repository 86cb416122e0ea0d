//! Ten identities of one user on one machine, in one swarm and at the same time.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Edge, Running, assert_equal_outputs, lines, prose, shares},
    namespace,
};

const IDENTITIES: usize = 10;
/// Links that each of them has then.
const LINKS_MIN: usize = 4;
/// Longest that they may take to meet, on a machine with two cores and other things to do.
const MEET_MAX: Duration = Duration::from_secs(20);

fn start(edge: &Edge, name: &str) -> Running {
    let mut command = edge.command();
    command.args(["run", "--threads", "1", "-v", "--identity", name]);
    let running = edge.spawn(command, name);
    edge.wait_for(name, "listens on UDP port");
    running
}

#[test]
fn ten_identities_on_one_machine_find_each_other_and_share_the_work() {
    namespace::alone("identities::ten_identities_on_one_machine_find_each_other_and_share_the_work", || {
        let edge = Edge::new();
        let names: Vec<String> = (0..IDENTITIES).map(|n| format!("n{n}")).collect();
        let founder = &names[0];
        let run = |name: &str, arguments: &[&str]| edge.run([arguments, &["--identity", name]].concat());
        run(founder, &["swarm", "create", "home"]).expect(0, &["founded home"]);
        let ticket = run(founder, &["swarm", "invite", "home", "--uses", "9"]).expect(0, &[]).stdout;
        let mut lent = vec![start(&edge, founder)];
        for name in &names[1..] {
            run(name, &["swarm", "join", ticket.trim()]).expect(0, &["joined home"]);
        }
        let begun = Instant::now();
        lent.extend(names[1..].iter().map(|name| start(&edge, name)));
        // An idle node keeps a few links, not one to each.
        let links = |name: &str| {
            let peers = run(name, &["peers", "--json"]).expect(0, &[]).stdout;
            serde_json::from_str::<Value>(&peers).unwrap().as_array().unwrap().len()
        };
        let mut counts: Vec<usize>;
        loop {
            counts = names.iter().map(|name| links(name)).collect();
            if counts.iter().all(|&count| count >= LINKS_MIN) {
                break;
            }
            assert!(begun.elapsed() < MEET_MAX, "{counts:?}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        println!("  ten identities had {counts:?} links {:?} after the second one's start", begun.elapsed());
        // One of them asks now, the others compute.
        lent[0].signal("TERM");
        assert_eq!(lent[0].ended(), Some(0));
        for n in 0..4 {
            edge.document(format!("{n}.txt"), prose(n + 1, 24_000));
        }
        let asked = run(
            founder,
            &["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1", "--json"],
        )
        .expect(0, &[]);
        let summary: Value = serde_json::from_str(&asked.stdout).unwrap();
        println!("  {} chunks in {} s: {:?}", summary["chunks"], summary["seconds"], shares(&summary));
        assert!(shares(&summary).len() > 1, "nobody helped");
        lent.iter().skip(1).for_each(|lent| lent.signal("TERM"));
        lent.iter_mut().for_each(|lent| assert_eq!(lent.ended(), Some(0)));
        run("alone", &["embed", "docs", "-o", "alone.jsonl"]).expect(0, &[]);
        let read = |name: &str| lines(&fs::read_to_string(edge.path(name)).unwrap());
        assert_equal_outputs(&read("out.jsonl"), &read("alone.jsonl"));
    });
}
