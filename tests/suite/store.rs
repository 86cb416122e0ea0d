//! The data directory: locked, damaged, newer, looked at, swept.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::edge::{Edge, Running, prose, ran};

#[test]
fn a_second_command_says_who_is_first() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 3_000));
    edge.run(["id"]).expect(0, &[]);
    // As long as nobody ends its input it works.
    let mut command = edge.command();
    command.args(["embed", "-", "-o", "out.jsonl"]).stdin(Stdio::piped());
    let mut run = Running { child: command.spawn().unwrap() };
    run.runs_until(|| edge.store_file().exists());
    let who = format!("in use by process {} (edge embed)", run.child.id());
    edge.run(["embed", "docs"]).expect(4, &[&who, "--identity"]);
    edge.run(["store", "info"]).expect(4, &[&who]);
    edge.run(["id"]).expect(0, &[]);
    edge.run(["store", "info", "--identity", "other"]).expect(0, &[]);
    assert!(run.is_running());
}

#[test]
fn a_cut_off_or_strange_store_is_set_aside_and_the_work_goes_on() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 3_000));
    edge.embed(&[]).0.expect(0, &[]);
    OpenOptions::new().write(true).open(edge.store_file()).unwrap().set_len(30_000).unwrap();
    edge.embed(&[]).0.expect(0, &["the store was damaged", "data.mdb.broken-1"]);
    fs::write(edge.store_file(), "this is no database").unwrap();
    edge.embed(&[]).0.expect(0, &["the store was damaged", "data.mdb.broken-2"]);
    edge.embed(&[]).0.expect(0, &["were stored already"]);
    assert_eq!(fs::metadata(edge.store_file().with_extension("mdb.broken-1")).unwrap().len(), 30_000);
}

/// Pages overwritten anywhere in the file: results are right or computed again, never wrong. LMDB may end the
/// process over a page that it believes; after two such deaths the file is set aside and all is well again.
#[test]
fn noise_in_the_store_never_reaches_the_output() {
    let edge = Edge::new();
    for n in 0..6 {
        edge.document(format!("{n}.txt"), prose(n, 1_500));
    }
    let (_, right) = edge.embed(&[]);
    let whole = fs::read(edge.store_file()).unwrap();
    let pages = fs::metadata(edge.store_file()).unwrap().blocks() as usize * 512 / 4096;
    for page in 0..pages {
        let mut bytes = whole.clone();
        // All of a page, or a few of its bits, as a failing card does.
        if page % 2 == 0 {
            bytes[page * 4096..][..4096].fill(0xA5);
        } else {
            (0..20).for_each(|n| bytes[page * 4096 + (n * 211) % 4096] ^= 1 << (n % 8));
        }
        fs::write(edge.store_file(), &bytes).unwrap();
        let mut codes = Vec::new();
        for _ in 0..5 {
            let (ran, lines) = edge.embed(&[]);
            codes.push(ran.code);
            if ran.code == 0 {
                crate::edge::assert_equal_outputs(&lines, &right);
            }
        }
        assert_eq!(codes[4], 0, "page {page} of {pages}: {codes:?}");
        for entry in fs::read_dir(edge.store_file().parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("broken") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn a_store_that_was_removed_after_two_crashes_begins_anew() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    edge.embed(&[]).0.expect(0, &[]);
    fs::remove_file(edge.store_file()).unwrap();
    fs::write(edge.store_file().with_file_name("opening"), "2").unwrap();
    edge.embed(&[]).0.expect(0, &[]);
}

#[test]
fn gc_keeps_every_run_whatever_its_options_and_its_past() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 2_000));
    let stored = |arguments: &[&str]| -> Value {
        let (ran, _) = edge.embed(&[&["--json"], arguments].concat());
        serde_json::from_str::<Value>(&ran.expect(0, &[]).stdout).unwrap()["chunks_computed"].clone()
    };
    stored(&[]);
    stored(&["--chunk-tokens", "64"]);
    edge.run(["store", "gc"]).expect(0, &["removed 0 runs and 0 results"]);
    assert_eq!((stored(&[]), stored(&["--chunk-tokens", "64"])), (0.into(), 0.into()));
    // Another text of the same length, then the first again: its results must be named again.
    edge.document("a.txt", prose(1, 2_000).replace("keeper", "kooper"));
    stored(&[]);
    edge.document("a.txt", prose(1, 2_000));
    assert_eq!(stored(&[]), 0);
    edge.run(["store", "gc"]).expect(0, &[]);
    assert_eq!(stored(&[]), 0);
    // What has just been computed is not swept, even where nothing is kept.
    let mut command = edge.command();
    command.args(["embed", "docs", "-o", "out.jsonl"]).env("EDGE_STORE_KEEP_DAYS", "0");
    ran(command).expect(0, &[]);
    assert_eq!(stored(&[]), 0);
}

#[test]
fn info_and_gc_tell_what_is_there() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 3_000));
    edge.embed(&[]).0.expect(0, &[]);
    let info: Value =
        serde_json::from_str(&edge.run(["store", "info", "--json"]).expect(0, &[]).stdout).unwrap();
    assert_eq!((&info["results"], &info["runs"][0]["state"]), (&1.into(), &"done".into()));
    let shown = edge.run(["store", "info"]).expect(0, &[]).stdout;
    assert!(shown.contains("1 document") && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    edge.run(["store", "gc"]).expect(0, &["removed 0 runs and 0 results, kept 1 result"]);
    edge.run(["store", "gc", "--days", "0"]).expect(0, &["removed 1 run and 1 result, kept 0 results"]);
    assert_eq!(fs::metadata(edge.store_file()).unwrap().mode() & 0o777, 0o600, "compaction keeps the mode");
    let (ran, _) = edge.embed(&["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["chunks_stored"], 0);
}

/// Wherever in its opening the memory ends.
#[test]
fn a_limit_on_memory_costs_an_error_and_no_swarm() {
    let edge = Edge::new();
    edge.run(["swarm", "create", "home"]).expect(0, &[]);
    let lists = |limit: Option<u64>| {
        let mut prlimit = Command::new("prlimit");
        prlimit.args(limit.map(|bytes| format!("--as={bytes}")));
        ran(edge.command_under(prlimit).args(["swarm", "list"]))
    };
    let mut failed = 0;
    for limit in (24 << 20..256 << 20).step_by(256 << 10) {
        let ran = lists(Some(limit));
        if ran.code == 0 {
            assert!(ran.stdout.contains("home"), "{limit}: {}{}", ran.stdout, ran.stderr);
            break;
        }
        failed += 1;
    }
    assert!(failed > 0);
    let ran = lists(None).expect(0, &[]);
    assert!(ran.stdout.contains("home") && !ran.stderr.contains("damaged"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_limit_on_file_sizes_is_an_error_that_names_the_file() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    for arguments in [["embed", "docs"], ["store", "gc"]] {
        let mut prlimit = Command::new("prlimit");
        prlimit.arg("--fsize=1000000");
        let ran = ran(edge.command_under(prlimit).args(arguments));
        ran.expect(3, &["data.mdb: File too large"]);
    }
    edge.embed(&[]).0.expect(0, &[]);
}

#[test]
fn the_data_directory_is_private() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    edge.embed(&[]).0.expect(0, &[]);
    let folder = edge.data_dir().join("identities/default");
    assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    for file in ["data.mdb", "lock.mdb", "identity.pem"] {
        assert_eq!(fs::metadata(folder.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
}
