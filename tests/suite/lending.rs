//! What a lent machine gives: it stops when its sensors or its owner say so, says why, gives way, and loses nothing. The
//! sensors are files of the test's own.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    edge::{Edge, Running, assert_equal_outputs, lines, prose, shares},
    host::{Host, PATIENCE, alone, swarm, wait_until, write_documents},
    namespace,
};

/// The founder computes with one thread, so that the worker has its part.
const EMBED: &[&str] = &["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--threads", "1", "--json"];
const OTHERS_ONLY: &[&str] =
    &["embed", "docs", "-o", "out.jsonl", "--swarm", "home", "--others-only", "--json"];
const DELIVERED: &str = "delivered job=";

/// Files of a laptop on mains, in a root of their own.
fn laptop(edge: &Edge) -> std::path::PathBuf {
    let root = edge.path("machine");
    put(&root, "sys/class/power_supply/AC/type", "Mains");
    put(&root, "sys/class/power_supply/AC/online", "1");
    put(&root, "sys/class/power_supply/BAT0/type", "Battery");
    put(&root, "sys/class/power_supply/BAT0/present", "1");
    put(&root, "sys/class/power_supply/BAT0/capacity", "64");
    put(&root, "sys/class/power_supply/BAT0/status", "Charging");
    put(&root, "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp");
    put(&root, "sys/class/thermal/thermal_zone0/temp", "48000");
    root
}

/// In one step, as the kernel's files change.
fn put(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, format!("{text}\n")).unwrap();
    fs::rename(new, path).unwrap();
}

fn unplug(root: &Path) {
    put(root, "sys/class/power_supply/BAT0/status", "Discharging");
    put(root, "sys/class/power_supply/AC/online", "0");
}

fn plug_in(root: &Path) {
    put(root, "sys/class/power_supply/AC/online", "1");
    put(root, "sys/class/power_supply/BAT0/status", "Charging");
}

fn status(edge: &Edge) -> Value {
    let ran = edge.run(["status", "--json"]);
    if ran.code == 0 { serde_json::from_str(&ran.stdout).unwrap() } else { Value::Null }
}

fn reasons(status: &Value) -> Vec<&str> {
    let reasons = status["budget"]["reasons"].as_array().into_iter().flatten();
    reasons.filter_map(|reason| reason["code"].as_str()).collect()
}

/// A node of its own whose sensors are these files, with the ordinary limits for all that they tell.
fn node(edge: &Edge, root: &Path) -> Running {
    let mut command = edge.command();
    command
        .args(["run", "--no-mdns", "--threads", "1"])
        .env("EDGE_TEST_SENSORS", root)
        .env_remove("EDGE_BUDGET_BATTERY_PERCENT")
        .env_remove("EDGE_BUDGET_TEMPERATURE");
    let running = edge.spawn(command, "");
    wait_until("lending", || status(edge)["state"] == "idle");
    running
}

#[test]
fn a_machine_that_is_unplugged_or_hot_rests_and_says_why() {
    let edge = Edge::new();
    let root = laptop(&edge);
    let running = node(&edge, &root);
    let now = status(&edge);
    assert_eq!(
        (&now["sensors"]["power"], &now["sensors"]["charge_permille"]),
        (&"mains".into(), &640.into())
    );
    unplug(&root);
    edge.run(["resume"]).expect(0, &[]);
    wait_until("a rest on battery", || status(&edge)["state"] == "paused");
    let now = status(&edge);
    assert_eq!(now["paused_because"], "on battery 64 %, resumes on mains");
    assert_eq!((&now["budget"]["threads"], reasons(&now)), (&0.into(), vec!["on_battery"]));
    edge.run(["status"]).expect(0, &[]).stdout.lines().for_each(|line| {
        assert!(line.chars().count() <= 80, "{line}");
    });
    put(&root, "sys/class/thermal/thermal_zone0/temp", "81000");
    wait_until("heat", || {
        reasons(&status(&edge)) == ["hot", "on_battery"] || reasons(&status(&edge)) == ["on_battery", "hot"]
    });
    put(&root, "sys/class/thermal/thermal_zone0/temp", "-127000");
    wait_until("nonsense", || reasons(&status(&edge)).contains(&"sensor_broken"));
    let doctor = edge.command_with(&["doctor"], "EDGE_TEST_SENSORS", &root);
    assert!(doctor.stdout.contains("broken  temperature"), "{}", doctor.stdout);
    assert_eq!(doctor.code, 1);
    running.signal("TERM");
    running.ended_well();
}

#[test]
fn what_its_owner_orders_outlives_a_restart() {
    let edge = Edge::new();
    let root = laptop(&edge);
    edge.run(["pause", "45x"]).expect(2, &["30m"]);
    edge.run(["pause"]).expect(0, &["no node runs here; the next one keeps to it"]);
    let mut command = edge.command();
    command.args(["run", "--no-mdns", "--threads", "1"]).env("EDGE_TEST_SENSORS", &root);
    let running = edge.spawn(command, "");
    wait_until("the node", || !status(&edge).is_null());
    wait_until("both readings", || reasons(&status(&edge)) == ["paused"]);
    edge.run(["resume"]).expect(0, &["idle"]);
    edge.run(["finish"]).expect(0, &["finishing what is begun"]);
    edge.run(["pause", "30m"]).expect(0, &["paused by you for 30 min more"]);
    running.signal("KILL");
    drop(running);
    let running = node_that(&edge, &root, "paused");
    assert!(status(&edge)["paused_because"].as_str().unwrap().starts_with("paused by you for "));
    edge.run(["resume"]).expect(0, &[]);
    wait_until("lending", || status(&edge)["state"] == "idle");
    running.signal("TERM");
    running.ended_well();
    edge.run(["pause", "1h"]).expect(0, &["the next one keeps to it"]);
}

fn node_that(edge: &Edge, root: &Path, state: &str) -> Running {
    let mut command = edge.command();
    command.args(["run", "--no-mdns", "--threads", "1"]).env("EDGE_TEST_SENSORS", root);
    let running = edge.spawn(command, "");
    wait_until(state, || status(edge)["state"] == state);
    running
}

#[test]
fn heat_holds_up_the_owners_own_work_too_and_nothing_else_does() {
    let edge = Edge::new();
    // More than is computed before the first reading, however busy the machine is.
    edge.document("a.txt", prose(1, 24_000));
    let root = laptop(&edge);
    let temperature = |celsius: u32| {
        put(&root, "sys/class/thermal/thermal_zone0/temp", &format!("{celsius}000"));
    };
    let start = |name: &str, arguments: &[&str]| {
        let mut command = edge.command();
        command.args(arguments).env("EDGE_TEST_SENSORS", &root).env_remove("EDGE_BUDGET_TEMPERATURE");
        edge.spawn(command, name)
    };
    unplug(&root);
    temperature(99);
    let mut stopped = start("stopped", &["embed", "docs", "-o", "out.jsonl"]);
    edge.wait_for("stopped", "waits: 99 °C, resumes below 90 °C");
    stopped.signal("INT");
    assert_eq!(stopped.ended(), Some(130));
    let mut patient = start("patient", &["embed", "docs", "-o", "out.jsonl"]);
    edge.wait_for("patient", "waits: 99 °C");
    temperature(60);
    assert_eq!(patient.ended(), Some(0), "{}", edge.log("patient"));
    assert!(edge.log("patient").contains("goes on"), "{}", edge.log("patient"));
    // A node computes for its owner by the same rule, and says so to whoever asks.
    temperature(98);
    let running = start("node", &["run", "--no-mdns", "--threads", "1"]);
    wait_until("a node that rests", || status(&edge)["state"] == "paused");
    edge.document("b.txt", prose(2, 24_000));
    let mut through_it = start("through", &["embed", "docs", "-o", "both.jsonl"]);
    edge.wait_for("through", "this node waits: 98 °C");
    assert_eq!(status(&edge)["aggregator"]["waits_because"], "98 °C, resumes below 90 °C");
    let seen = edge.run(["status"]).expect(0, &[]).stdout;
    assert!(seen.contains("own threads wait: 98 °C, resumes below 90 °C"), "{seen}");
    temperature(60);
    assert_eq!(through_it.ended(), Some(0), "{}", edge.log("through"));
    assert_eq!(status(&edge)["aggregator"]["waits_because"], Value::Null);
    running.signal("TERM");
    running.ended_well();
}

#[test]
fn who_waits_for_heat_leaves_the_work_to_the_others() {
    namespace::alone("lending::who_waits_for_heat_leaves_the_work_to_the_others", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 6);
        let root = laptop(&founder.edge);
        put(&root, "sys/class/thermal/thermal_zone0/temp", "99000");
        let mut command = founder.command(EMBED);
        command.env("EDGE_TEST_SENSORS", &root).env_remove("EDGE_BUDGET_TEMPERATURE");
        let mut embed = founder.edge.spawn(command, "");
        founder.wait_for("this node waits: 99 °C");
        let lent = lend(worker, Path::new("/"), "normal");
        assert_eq!(embed.ended(), Some(0), "{}", founder.log());
        let summary: Value = serde_json::from_str(&founder.printed()).unwrap();
        // Before the first reading it may have begun.
        let shares = shares(&summary);
        let (own, all) = (shares.get("this node").copied().unwrap_or(0), shares.values().sum::<u64>());
        assert!(own * 4 < all, "{shares:?}");
        assert_eq!(summary["failed"], 0);
        lent.signal("TERM");
        lent.ended_well();
    });
}

/// CPU time of a process so far, in hundredths of a second.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn lend(worker: &Host, root: &Path, priority: &str) -> Running {
    let mut command = worker.command(&["run", "--threads", "1", "-vv"]);
    command
        .env("EDGE_TEST_SENSORS", root)
        .env("EDGE_LEND_PRIORITY", priority)
        .env_remove("EDGE_BUDGET_BATTERY_PERCENT");
    let lent = worker.edge.spawn(command, "");
    worker.wait_for("listens on UDP port");
    lent
}

fn ended_as_alone(founder: &Host, mut embed: Running) -> Value {
    assert_eq!(embed.ended(), Some(0), "{}", founder.log());
    let summary: Value = serde_json::from_str(&founder.printed()).unwrap();
    let shared = lines(&fs::read_to_string(founder.edge.path("out.jsonl")).unwrap());
    assert_equal_outputs(&shared, &alone(founder));
    summary
}

#[test]
fn an_unplugged_worker_stops_at_once_and_nothing_is_lost() {
    namespace::alone("lending::an_unplugged_worker_stops_at_once_and_nothing_is_lost", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 16);
        let root = laptop(&worker.edge);
        let lent = lend(worker, &root, "normal");
        let mut embed = founder.start(EMBED);
        worker.wait_for(DELIVERED);
        let loaded = |worker: &Host| status(&worker.edge)["models"][0]["loaded"].clone();
        assert_eq!(loaded(worker), true);
        unplug(&root);
        let begun = Instant::now();
        worker.wait_for("on battery 64 %");
        let noticed = begun.elapsed();
        // What is computed after that is none of others' work: a second without any is the end of it.
        let process = lent.child.id();
        let (mut last, mut since) = (ticks(process), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            std::thread::park_timeout(Duration::from_millis(10));
            let now = ticks(process);
            if now > last + 1 {
                (last, since) = (now, Instant::now());
            }
        }
        let computed = since.duration_since(begun);
        println!("  noticed after {noticed:?}, computed for {computed:?}");
        // Half a second and a batch; a busy machine takes its time, but not as long as the work would.
        assert!(computed < Duration::from_secs(4), "{computed:?}");
        assert!(embed.is_running(), "there was too little to do");
        let now = status(&worker.edge);
        assert_eq!(
            (&now["state"], &now["queue"]["running"], &now["queue"]["queued"]),
            (&"paused".into(), &0.into(), &0.into())
        );
        wait_until("the model out of memory", || loaded(worker) == false);
        ended_as_alone(founder, embed);
        // It takes part again when it is plugged in.
        let before = worker.log().matches(DELIVERED).count();
        plug_in(&root);
        wait_until("lending", || status(&worker.edge)["state"] == "idle");
        let again = founder.start(&[EMBED, &["--fresh"]].concat());
        wait_until("work", || worker.log().matches(DELIVERED).count() > before);
        let summary = ended_as_alone(founder, again);
        assert_eq!(shares(&summary).len(), 2, "{summary}");
        let today = &status(&worker.edge)["today"];
        assert!(today["jobs"].as_u64() > Some(0) && today["energy_mj"].as_u64() > Some(0), "{today}");
        assert_eq!(today["energy_source"], "model");
        lent.signal("TERM");
        lent.ended_well();
        // What that took is known after a restart.
        let lent = lend(worker, &root, "normal");
        wait_until("lending", || status(&worker.edge)["state"] == "idle");
        assert_eq!(&status(&worker.edge)["today"]["jobs"], &today["jobs"]);
        lent.signal("TERM");
        lent.ended_well();
    });
}

/// Jobs of lines that say this.
fn jobs_of(log: &str, words: &str) -> BTreeSet<String> {
    let told = log.lines().filter(|line| line.contains(words));
    told.filter_map(|line| Some(line.split_once("job=")?.1.split(' ').next()?.to_owned())).collect()
}

#[test]
fn what_a_killed_worker_had_taken_goes_on_under_the_same_leases() {
    namespace::alone("lending::what_a_killed_worker_had_taken_goes_on_under_the_same_leases", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 8);
        let root = laptop(&worker.edge);
        let lent = lend(worker, &root, "normal");
        let embed = founder.start(OTHERS_ONLY);
        let kept = || {
            let log = worker.log();
            &jobs_of(&log, " taken ") - &jobs_of(&log, "delivered")
        };
        worker.wait_for(DELIVERED);
        wait_until("two jobs in the queue", || kept().len() >= 2);
        lent.signal("KILL");
        drop(lent);
        // What it sent with its last breath may or may not have arrived.
        let before = kept();
        let lent = lend(worker, &root, "normal");
        wait_until("what was kept comes without a new lease", || {
            let log = worker.log();
            let kept = &jobs_of(&log, DELIVERED) & &before;
            !kept.is_subset(&jobs_of(&log, " taken "))
        });
        ended_as_alone(founder, embed);
        lent.signal("TERM");
        lent.ended_well();
    });
}

/// How the kernel schedules a thread: nice value and policy, of proc(5).
#[derive(Debug)]
struct Thread {
    name: String,
    runs_at: (String, String),
}

fn threads(process: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let of = |stat: String| {
        let (head, tail) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let name = head.split_once('(').unwrap().1.to_owned();
        Thread { name, runs_at: (fields[16].to_owned(), fields[38].to_owned()) }
    };
    stats.map(of).collect()
}

/// Who leads its session is no process that it can see, as in a container.
#[test]
fn a_node_whose_session_is_led_from_outside_lends_all_the_same() {
    namespace::alone("lending::a_node_whose_session_is_led_from_outside_lends_all_the_same", || {
        let edge = Edge::new();
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--"]);
        let mut command = edge.command_under(unshare);
        command.args(["run", "--no-mdns", "--threads", "1"]).env("EDGE_LEND_PRIORITY", "idle");
        let _running = edge.spawn(command, "");
        edge.wait_for("", "listens on UDP port");
        wait_until("the node", || status(&edge)["state"] == "idle");
    });
}

#[test]
fn the_rest_of_a_lent_node_does_not_give_way() {
    namespace::alone("lending::the_rest_of_a_lent_node_does_not_give_way", || {
        let hosts = swarm(2);
        let (founder, worker) = (&hosts[0], &hosts[1]);
        write_documents(&founder.edge, 12);
        let lent = lend(worker, &laptop(&worker.edge), "idle");
        let _embed = founder.start(OTHERS_ONLY);
        let gives_way = |thread: &Thread| thread.runs_at == ("19".into(), "5".into());
        let is_compute = |thread: &Thread| thread.name.starts_with("compute-");
        let look = || threads(lent.child.id());
        // Where something else keeps all cores busy it gets none: that is what it is for. So only the threads are looked at.
        let begun = Instant::now();
        while !look().iter().any(|thread| is_compute(thread) && gives_way(thread)) {
            assert!(begun.elapsed() < PATIENCE, "none gives way: {:?}\n{}", look(), worker.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // Neither by the one nor by the other, unless whoever runs the tests has ordered it for them all.
        let all = look();
        let (nice, policy) = &threads(std::process::id())[0].runs_at;
        for thread in all.iter().filter(|thread| !is_compute(thread)) {
            assert!(thread.runs_at.0 != "19" || nice == "19", "{all:?}");
            assert!(thread.runs_at.1 != "5" || policy == "5", "{all:?}");
        }
    });
}
