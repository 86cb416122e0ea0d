//! What happens to hosts while they work together: cables, freezing, ends of workers, and how they find each other. In
//! each case the output is that of one machine alone.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Running, assert_equal_outputs, lines, shares},
    host::{Family, Host, alone, number, swarm, swarm_over, wait_until, write_documents},
    namespace,
};

/// One own thread, so that the workers have their part: none at all can not be asked for.
const EMBED: &[&str] = &["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1", "--json"];
/// One thread, and a word of each delivery.
const LEND: &[&str] = &["run", "--threads", "1", "-vv"];
/// What a worker logs of a result that was taken.
const DELIVERED: &str = "delivered job=";

/// Waits for an embed to end well, and holds its output against that of one machine; chunks by who computed them.
fn ended_as_alone(founder: &Host, mut embed: Running) -> BTreeMap<String, u64> {
    assert_eq!(embed.ended(), Some(0), "{}", founder.log());
    let summary: Value = serde_json::from_str(&founder.printed()).unwrap();
    let shares = shares(&summary);
    println!("  {} chunks in {:.1} s: {shares:?}", summary["chunks"], summary["seconds"].as_f64().unwrap());
    let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
    assert_equal_outputs(&shared, &alone(founder));
    shares
}

fn lend(worker: &Host) -> Running {
    let lent = worker.start(LEND);
    worker.wait_for("listens on UDP port");
    lent
}

/// What others than this node have computed.
fn of_others(shares: &BTreeMap<String, u64>) -> u64 {
    shares.iter().filter(|(who, _)| *who != "this node").map(|(_, chunks)| chunks).sum()
}

#[test]
fn a_worker_that_is_cut_off_comes_back_when_the_cable_does() {
    namespace::alone("hosts::a_worker_that_is_cut_off_comes_back_when_the_cable_does", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 7);
        let _lent = lend(worker);
        let mut embed = founder.start(EMBED);
        worker.wait_for(DELIVERED);
        worker.plug(false);
        let (before, delivered) = (founder.stored_blocks(), worker.log().matches(DELIVERED).count());
        wait_until("work of the founder alone", || founder.stored_blocks() > before || !embed.is_running());
        worker.plug(true);
        let healed = Instant::now();
        let is_back = || worker.log().matches(DELIVERED).count() > delivered;
        wait_until("delivery after the cut", || is_back() || !embed.is_running());
        match is_back() {
            true => println!("  the worker delivered again {:?} after the cable was in", healed.elapsed()),
            false => println!("  the founder had ended {:?} after the cable was in", healed.elapsed()),
        }
        let shares = ended_as_alone(founder, embed);
        assert!(of_others(&shares) > 0, "{shares:?}");
    });
}

#[test]
fn a_frozen_worker_holds_nobody_up_and_its_late_results_do_no_harm() {
    namespace::alone("hosts::a_frozen_worker_holds_nobody_up_and_its_late_results_do_no_harm", || {
        // Its leases end as soon as somebody else has delivered, or after 30 s: FREEZE=40 waits for that.
        let freeze = number("FREEZE");
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 8 + freeze.unwrap_or(0) as usize);
        let lent = lend(worker);
        let mut embed = founder.start(EMBED);
        worker.wait_for(DELIVERED);
        lent.signal("STOP");
        let frozen = Instant::now();
        let before = worker.log().matches(DELIVERED).count();
        if let Some(seconds) = freeze {
            while frozen.elapsed() < Duration::from_secs(seconds) {
                assert!(embed.is_running(), "too little work for so long");
                std::thread::park_timeout(Duration::from_millis(100));
            }
        } else {
            embed.ended();
            println!("  the founder had all {:?} after the worker froze", frozen.elapsed());
            ended_as_alone(founder, embed);
            // What the worker computed under its old leases comes while the same is asked for again.
            embed = founder.start(&[EMBED, &["--fresh"]].concat());
        }
        lent.signal("CONT");
        ended_as_alone(founder, embed);
        let log = worker.log();
        let late: Vec<&str> =
            log.split(DELIVERED).skip(1 + before).filter_map(|line| line.split_whitespace().nth(1)).collect();
        println!("  afterwards the worker delivered {} results: {late:?}", late.len());
    });
}

#[test]
fn without_its_workers_an_embed_goes_on_alone() {
    namespace::alone("hosts::without_its_workers_an_embed_goes_on_alone", || {
        let hosts = swarm(3);
        let founder = &hosts[0];
        write_documents(&founder.edge, 10);
        let mut lent: Vec<Running> = hosts[1..].iter().map(lend).collect();
        let mut embed = founder.start(EMBED);
        hosts[1..].iter().for_each(|host| host.wait_for(DELIVERED));
        // One of them says goodbye, the other one dies.
        lent[0].signal("TERM");
        assert_eq!(lent[0].ended(), Some(0));
        drop(lent);
        let left = Instant::now();
        embed.ended();
        println!("  all was computed {:?} after the last worker had gone", left.elapsed());
        let shares = ended_as_alone(founder, embed);
        assert!(shares["this node"] > 0);
    });
}

#[test]
fn others_compute_all_where_the_founder_computes_nothing() {
    namespace::alone("hosts::others_compute_all_where_the_founder_computes_nothing", || {
        let hosts = swarm(3);
        let founder = &hosts[0];
        write_documents(&founder.edge, 6);
        let _lent: Vec<Running> = hosts[1..].iter().map(lend).collect();
        let arguments = ["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--others-only", "--json"];
        let shares = ended_as_alone(founder, founder.start(&arguments));
        assert!(!shares.contains_key("this node"), "{shares:?}");
        assert!(of_others(&shares) > 0, "{shares:?}");
    });
}

#[test]
fn three_hosts_meet_by_mdns_alone() {
    namespace::alone("hosts::three_hosts_meet_by_mdns_alone", || {
        let hosts = swarm(3);
        let ids: Vec<String> = hosts.iter().map(Host::id).collect();
        // The ports that the ticket names, and that they remember, are closed.
        let begun = Instant::now();
        let lent: Vec<Running> =
            hosts.iter().map(|host| host.start(&["run", "--port", "4501", "-v"])).collect();
        hosts.iter().for_each(|host| host.wait_for("listens on UDP port"));
        let listening = begun.elapsed();
        for (host, own) in hosts.iter().zip(&ids) {
            for other in ids.iter().filter(|id| *id != own) {
                host.wait_for(&format!("peer connected peer={}", &other[..8]));
            }
        }
        let all = begun.elapsed();
        println!(
            "  each of three hosts knew the others {all:?} after their start, and listened after {listening:?}"
        );
        drop(lent);
    });
}

#[test]
fn hosts_without_ipv4_share_the_work() {
    namespace::alone("hosts::hosts_without_ipv4_share_the_work", || {
        let hosts = swarm_over(2, Family::V6);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 3);
        let _lent = lend(worker);
        let embed = founder.start(EMBED);
        worker.wait_for(DELIVERED);
        let shares = ended_as_alone(founder, embed);
        assert!(of_others(&shares) > 0, "{shares:?}");
    });
}

/// Python's zeroconf, as an implementation of mDNS that is neither ours nor mdns-sd.
const BROWSE: &str = r"
import queue, zeroconf
found = queue.Queue()
class Listener(zeroconf.ServiceListener):
    def add_service(self, zc, kind, name): found.put((kind, name))
    def update_service(self, zc, kind, name): pass
    def remove_service(self, zc, kind, name): pass
with zeroconf.Zeroconf() as zc:
    browser = zeroconf.ServiceBrowser(zc, '_edge._udp.local.', Listener())
    info = zc.get_service_info(*found.get(timeout=20), timeout=5000)
    print(info.name, info.server, info.port, info.parsed_addresses(), info.properties)
";

#[test]
fn another_program_sees_the_announcement() {
    namespace::alone("hosts::another_program_sees_the_announcement", || {
        let has_zeroconf = Command::new("python3").args(["-c", "import zeroconf"]).output();
        if !has_zeroconf.is_ok_and(|output| output.status.success()) {
            return println!("  not tried: python3 has no zeroconf here");
        }
        let hosts = swarm(2);
        let _lent = hosts[0].start(&["run", "--port", "4502"]);
        hosts[0].wait_for("listens on UDP port");
        let seen = hosts[1].within("python3").args(["-c", BROWSE]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&seen.stdout), String::from_utf8_lossy(&seen.stderr));
        println!("  zeroconf sees {}", out.trim());
        assert!(out.contains("._edge._udp.local.") && out.contains(" 4502 "), "{out}\n{err}");
        assert!(out.contains("10.77.0.1") && out.contains("b'v': b'1'"), "{out}\n{err}");
    });
}
