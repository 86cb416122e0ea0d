//! The control socket: commands beside a running node, and what becomes of them when either goes.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
        process::CommandExt,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::edge::{Edge, Running, assert_equal_outputs, lines, prose};

/// Longest wait for something that takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A node of this home, without the network around it; it listens on its socket when this returns.
fn node(edge: &Edge, arguments: &[&str]) -> Running {
    let all = [&["run", "--no-mdns"], arguments].concat();
    let running = edge.start(&all);
    let socket = socket(edge);
    until("the node listens", || UnixStream::connect(&socket).is_ok());
    running
}

fn socket(edge: &Edge) -> std::path::PathBuf {
    edge.data_dir().join("identities/default/edge.sock")
}

fn json(edge: &Edge, arguments: &[&str]) -> Value {
    let all = [arguments, &["--json"]].concat();
    serde_json::from_str(&edge.run(all).expect(0, &[]).stdout).unwrap()
}

#[test]
fn status_says_what_the_node_does_and_whether_there_is_one() {
    let edge = Edge::new();
    let before = edge.run(["status", "--json"]).expect(5, &[]);
    let before: Value = serde_json::from_str(&before.stdout).unwrap();
    assert_eq!(before["state"], "not running");
    edge.run(["status"]).expect(5, &["no node runs here; `edge run` starts one"]);
    for command in [&["peers"][..], &["jobs"], &["cancel", "1"], &["queue", "clear"]] {
        edge.run(command).expect(5, &["no node runs here", "`edge run` starts one"]);
    }
    let running = node(&edge, &["--threads", "1"]);
    assert_eq!(fs::metadata(socket(&edge)).unwrap().permissions().mode() & 0o777, 0o600);
    // Before the sensors have told twice nothing is lent.
    until("it lends", || json(&edge, &["status"])["state"] == "idle");
    let status = json(&edge, &["status"]);
    for field in [
        "peer_id",
        "version",
        "uptime_s",
        "state",
        "paused_because",
        "budget",
        "load",
        "sensors",
        "today",
        "queue",
        "aggregator",
        "swarms",
        "peers",
        "models",
        "totals",
    ] {
        assert!(status.get(field).is_some(), "no {field} in {status}");
    }
    assert_eq!(before["peer_id"], "", "looking makes no identity");
    assert_eq!(status["peer_id"], edge.run(["id"]).expect(0, &[]).stdout.trim());
    assert_eq!((&status["state"], &status["budget"]["threads"]), (&"idle".into(), &1.into()));
    assert_eq!(json(&edge, &["peers"]), Value::Array(Vec::new()));
    let pictures = edge.start(&["status", "--watch", "--json"]);
    let mut pipe = fs::File::open(format!("/proc/{}/fd/1", pictures.child.id())).unwrap();
    let mut seen = Vec::new();
    until("two pictures", || {
        // Read as anybody may who sees the pipe.
        let mut out = vec![0; 4096];
        let read = pipe.read(&mut out).unwrap();
        seen.extend_from_slice(&out[..read]);
        seen.iter().filter(|&&byte| byte == b'\n').count() >= 2
    });
    pictures.signal("INT");
    pictures.wait().expect(0, &[]);
    // Swarms are founded, shown and left while it runs.
    edge.run(["swarm", "create", "home"]).expect(0, &["founded home"]);
    edge.run(["swarm", "create", "home"]).expect(2, &["founded a swarm `home` already"]);
    let ticket = edge.run(["swarm", "invite", "home"]).expect(0, &[]).stdout;
    edge.run(["swarm", "join", ticket.trim()]).expect(0, &["a member of home already"]);
    edge.run(["swarm", "leave", "home"]).expect(2, &["may not leave"]);
    edge.run(["swarm", "leave", "away"]).expect(2, &["no swarm `away`"]);
    assert_eq!(json(&edge, &["status"])["swarms"][0]["name"], "home");
    running.signal("TERM");
    running.wait().expect(0, &["giving back what is not begun"]);
    assert!(!socket(&edge).exists(), "the socket goes with the node");
    edge.run(["swarm", "list"]).expect(0, &[]);
}

#[test]
fn a_running_node_computes_for_commands_and_gives_the_same() {
    let edge = Edge::new();
    for n in 0..3 {
        edge.document(format!("{n}.txt"), prose(n + 1, 6000));
    }
    let (_, alone) = edge.embed(&["--data-dir", "elsewhere"]);
    let running = node(&edge, &[]);
    let (ran, through) = edge.embed(&[]);
    ran.expect(0, &["3 documents"]);
    assert_equal_outputs(&alone, &through);
    // It is stored; a swarm of one is no different.
    edge.run(["swarm", "create", "home"]).expect(0, &[]);
    let (ran, again) = edge.embed(&["--swarm", "home", "--json"]);
    let summary: Value = serde_json::from_str(&ran.expect(0, &[]).stdout).unwrap();
    assert_eq!(
        (&summary["chunks_computed"], summary["chunks_stored"].as_u64()),
        (&0.into(), Some(alone.len() as u64))
    );
    assert_equal_outputs(&alone, &again);
    assert_eq!(json(&edge, &["store", "info"])["results"], 3);
    assert_eq!(json(&edge, &["store", "gc"])["results_kept"], 3);
    // What it can not do it says.
    edge.run(["embed", "docs", "-o", "x", "--swarm", "away"]).expect(2, &["no swarm `away`"]);
    edge.run(["embed", "docs", "-o", "x", "--swarm", "public"]).expect(2, &["do not go to strangers"]);
    edge.run(["embed", "docs", "-o", "x", "--others-only", "--swarm", "local"]).expect(2, &["needs others"]);
    edge.run(["run"]).expect(4, &["in use by process", "(edge run)"]);
    drop(running);
    // Killed, it leaves its socket, which is nobody's.
    assert!(socket(&edge).exists());
    edge.run(["status"]).expect(5, &[]);
    let running = node(&edge, &[]);
    let (ran, _) = edge.embed(&[]);
    ran.expect(0, &["3 documents"]);
    drop(running);
}

#[test]
fn a_command_is_cancelled_ends_with_the_node_and_goes_on_afterwards() {
    let edge = Edge::new();
    for n in 0..24 {
        edge.document(format!("{n:02}.txt"), prose(n + 1, 10_000));
    }
    // With one thread it has to do for longer than the node waits for a client.
    fs::write(edge.path("one.toml"), "[embed]\nthreads = 1\n").unwrap();
    let running = node(&edge, &["--config", "one.toml"]);
    let command = ["embed", "docs", "-o", "out.jsonl"];
    let job = || json(&edge, &["jobs"]).as_array().unwrap().first().cloned();
    let has_done = || job().is_some_and(|job| job["done"].as_u64().unwrap() > 0);
    let embed = edge.start(&command);
    until("something is done", has_done);
    let id = job().unwrap()["id"].as_u64().unwrap().to_string();
    edge.run(["cancel", id.as_str()]).expect(0, &["cancelled"]);
    embed.wait().expect(130, &["cancelled; what was computed is kept"]);
    assert!(!edge.path("out.jsonl").exists());
    // Stopped for longer than a node waits for a client, and on again.
    let embed = edge.start(&command);
    until("something is done", has_done);
    embed.signal("STOP");
    until("the node gives it up", || job().is_none());
    until("and what runs ends", || json(&edge, &["status"])["state"] == "idle");
    embed.signal("CONT");
    until("it has asked again", || job().is_some());
    until("something is done", has_done);
    // The node ends under it.
    running.signal("TERM");
    running.wait().expect(0, &[]);
    embed.wait().expect(3, &["the node has stopped", "the same command goes on from there"]);
    let (ran, lines) = edge.embed(&["--json"]);
    let summary: Value = serde_json::from_str(&ran.expect(0, &[]).stdout).unwrap();
    assert!(summary["chunks_stored"].as_u64().unwrap() > 0, "{summary}");
    // Every byte but the blanks between chunks, each once, in order.
    let mut ends: Vec<(Value, u64)> = Vec::new();
    for line in &lines {
        let (start, end) = (line["start"].as_u64().unwrap(), line["end"].as_u64().unwrap());
        match ends.last_mut().filter(|(path, _)| *path == line["path"]) {
            Some((_, before)) => {
                assert!((*before..*before + 4).contains(&start), "{line}");
                *before = end;
            }
            None => {
                assert!(start < 4, "{line}");
                ends.push((line["path"].clone(), end));
            }
        }
    }
    assert_eq!(ends.len(), 24);
    for (path, end) in ends {
        let length = fs::metadata(edge.path(path.as_str().unwrap())).unwrap().len();
        assert!((length - 4..=length).contains(&end), "{path}: {end} of {length}");
    }
}

#[test]
fn two_commands_share_a_node_that_one_of_them_brought() {
    let edge = Edge::new();
    edge.run(["swarm", "create", "home"]).expect(0, &[]);
    edge.document("a.txt", prose(1, 150_000));
    edge.document("b.txt", prose(2, 20_000));
    let first = edge.start(&["embed", "docs/a.txt", "-o", "a.jsonl", "--swarm", "home"]);
    until("the first brings a node", || UnixStream::connect(socket(&edge)).is_ok());
    assert_eq!(json(&edge, &["status"])["budget"]["threads"], 0, "it lends nothing");
    let second = edge.start(&["embed", "docs/a.txt", "docs/b.txt", "-o", "b.jsonl", "--swarm", "home"]);
    until("both are here", || json(&edge, &["jobs"]).as_array().unwrap().len() == 2);
    first.wait().expect(0, &[]);
    second.wait().expect(0, &[]);
    let read = |name: &str| lines(&fs::read_to_string(edge.path(name)).unwrap());
    let (a, b) = (read("a.jsonl"), read("b.jsonl"));
    assert_equal_outputs(&a, &b[..a.len()]);
    assert!(b.len() > a.len());
}

#[test]
fn a_detached_command_goes_on_alone() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 30_000));
    edge.run(["embed", "docs", "--detach"]).expect(2, &["--output"]);
    edge.run(["embed", "docs", "-o", "-", "--detach"]).expect(2, &["a file to write to"]);
    let said = |started: crate::edge::Ran| {
        let log = started.stderr.split_whitespace().last().unwrap().to_owned();
        move || fs::read_to_string(&log).unwrap_or_default()
    };
    let wrong = edge.run(["embed", "docs", "-o", "x.jsonl", "--detach", "--chunk-tokens", "4096"]);
    // It is said here where it goes wrong at once, else in its log.
    let (code, here) = (wrong.code, wrong.stderr.clone());
    let log = said(wrong);
    until("it says what is wrong", || (here.clone() + &log()).contains("takes at most"));
    assert!(code == 2 || code == 0, "{here}");
    let log = said(edge.run(["embed", "docs", "-o", "out.jsonl", "--detach"]).expect(0, &["background"]));
    until("its output is there", || edge.path("out.jsonl").exists());
    until("it has said so", || log().contains("1 document"));
}

#[test]
fn what_is_no_question_gets_an_answer_that_says_so() {
    let edge = Edge::new();
    let running = node(&edge, &[]);
    let ask = |text: &[u8]| {
        let mut stream = UnixStream::connect(socket(&edge)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let request = |line: &str, headers: &str, body: &str| {
        let length = body.len();
        let all = format!(
            "{line} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        ask(all.as_bytes())
    };
    assert!(ask(b"\x16\x03\x01 no HTTP at all\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(request("GET /v1/nothing", "", "").contains("there is no such page"));
    assert!(request("POST /v1/call", "", "x").contains("of another version"));
    assert!(request("POST /v1/call", "edge-call: 1\r\n", "x").contains("does not open"));
    let json = "content-type: application/json\r\n";
    assert!(request("POST /v1/swarms", json, r#"{"do":"dance"}"#).starts_with("HTTP/1.1 422"));
    assert!(request("POST /v1/dead/retry", json, r#"{"keys":["ab"]}"#).contains("0 dead letters"));
    let claimed = "POST /v1/swarms HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n{";
    assert!(ask(claimed.as_bytes()).starts_with("HTTP/1.1 413"));
    // More connections than it serves at once, that say nothing: the next waits until one goes.
    let silent: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(socket(&edge)).unwrap()).collect();
    let mut waiting = UnixStream::connect(socket(&edge)).unwrap();
    waiting.write_all(b"GET /v1/status HTTP/1.1\r\nhost: edge\r\n\r\n").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(waiting.read(&mut [0; 1]).is_err(), "nobody answers yet");
    drop(silent);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap(), 1);
    drop(waiting);
    assert!(request("GET /v1/status", "", "").starts_with("HTTP/1.1 200"));
    running.signal("TERM");
    running.wait().expect(0, &[]);
}

/// As the system's node is used: by others than who runs it.
#[test]
fn another_user_of_the_machine_may_look_and_no_more() {
    const NOBODY: u32 = 65_534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return println!("  not tried: only root can run a command as another user");
    }
    let edge = Edge::new();
    let (open, theirs) = (edge.path("open"), edge.path("theirs"));
    for place in [edge.path(""), open.clone(), theirs.clone()] {
        fs::create_dir_all(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    // Where this is built others may not go.
    let program = open.join("edge");
    fs::copy(env!("CARGO_BIN_EXE_edge"), &program).unwrap();
    let socket = open.join("edge.sock");
    let mut command = edge.command();
    command.args(["run", "--no-mdns"]).env("EDGE_CONTROL_SOCKET", &socket).env("EDGE_CONTROL_SHARED", "true");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = Running { child };
    until("the node listens", || UnixStream::connect(&socket).is_ok());
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().env("EDGE_CONTROL_SOCKET", &socket).env("EDGE_DATA_DIR", &theirs);
        let output = command.uid(NOBODY).gid(NOBODY).current_dir(&theirs).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, status, said) = as_nobody(&["status", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["process"], running.child.id());
    for command in
        [&["peers"][..], &["jobs"], &["queue", "clear"], &["swarm", "create", "home"], &["store", "gc"]]
    {
        let (code, _, said) = as_nobody(command);
        assert!(code == Some(2) && said.contains("group `edge`"), "{command:?}: {code:?} {said}");
    }
    // Who only holds it open keeps nobody out: not the others of that user beyond its share, and not the owner.
    let script = "import socket,sys,time\nheld=[]\nfor _ in range(200):\n s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)\nprint('held',flush=True)\nsys.stdin.read()";
    let mut holder = Command::new("python3")
        .args(["-c", script, socket.to_str().unwrap()])
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    let mut command = edge.command();
    command.args(["status", "--json"]).env("EDGE_CONTROL_SOCKET", &socket);
    assert!(command.output().unwrap().status.success(), "the owner is served");
    drop(holder.stdin.take());
    holder.wait().unwrap();
    running.signal("TERM");
    running.wait().expect(0, &[]);
}
