//! Whatever a file, a disk or a user does: a clear error, or it is survived; the other documents are done.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStringExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::edge::{Edge, Ran, Running, lines, prose, ran};

fn paths(lines: &[Value]) -> Vec<&str> {
    let mut paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    paths.dedup();
    paths
}

#[test]
fn bad_encodings_are_named_and_the_rest_is_done() {
    let edge = Edge::new();
    edge.document("binary.bin", b"PNG\0\x01\x02");
    edge.document("good.txt", "A good text.");
    edge.document("latin1.txt", b"Ein sch\xF6ner Tag");
    edge.document("late.txt", [vec![b'a'; 100_000], b"\xFF".to_vec()].concat());
    edge.document("utf16.txt", b"\xFF\xFEH\0i\0");
    edge.document("cut.txt", b"caf\xC3");
    edge.document("bom.txt", b"\xEF\xBB\xBFWith a mark.");
    let (ran, lines) = edge.embed(&[]);
    ran.expect(
        1,
        &[
            "skipped docs/binary.bin: is binary (a zero byte at 3)",
            "failed docs/latin1.txt: is not UTF-8 at byte 7",
            "failed docs/late.txt: is not UTF-8 at byte 100000",
            "failed docs/utf16.txt: is UTF-16",
            "failed docs/cut.txt: is not UTF-8 at byte 3",
            "4 documents failed",
        ],
    );
    assert_eq!(paths(&lines), ["docs/bom.txt", "docs/good.txt"]);
    assert_eq!(lines[0]["start"], 3);
    assert_eq!(lines[0]["text"], "With a mark.");
}

#[test]
fn binary_files_alone_are_no_failure() {
    let edge = Edge::new();
    edge.document("a.bin", [0; 64]);
    let (ran, lines) = edge.embed(&[]);
    ran.expect(0, &["skipped docs/a.bin", "0 documents"]);
    assert!(lines.is_empty());
}

#[test]
fn strange_things_in_a_folder_are_left_out() {
    let edge = Edge::new();
    edge.document("good.txt", "A good text.");
    assert!(Command::new("mkfifo").arg(edge.path("docs/pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(edge.path("docs/socket")).unwrap();
    symlink(".", edge.path("docs/loop")).unwrap();
    symlink("good.txt", edge.path("docs/link")).unwrap();
    symlink("nowhere", edge.path("docs/dangling")).unwrap();
    let (ran, lines) = edge.embed(&[]);
    ran.expect(
        0,
        &["docs/pipe: is a named pipe", "docs/socket: is a socket", "docs/loop: is a symbolic link"],
    );
    assert_eq!(paths(&lines), ["docs/good.txt"]);
    // As arguments they are what the user meant: a link is followed, a pipe would never end.
    edge.run(["embed", "docs/link", "docs/loop/loop/good.txt"]).expect(0, &["named twice"]);
    edge.run(["embed", "docs/pipe", "docs/good.txt"])
        .expect(1, &["failed docs/pipe: is a named pipe", "1 document,"]);
    edge.run(["embed", "/dev/zero"]).expect(1, &["failed /dev/zero: is a device"]);
}

#[test]
fn a_missing_path_fails_alone() {
    let edge = Edge::new();
    edge.document("good.txt", "A good text.");
    let ran = edge.run(["embed", "nowhere.txt", "docs/good.txt", "docs"]);
    let ran = ran.expect(1, &["failed nowhere.txt: No such file", "skipped docs/good.txt: was named twice"]);
    assert_eq!(paths(&lines(&ran.stdout)), ["docs/good.txt"]);
}

#[test]
fn unreadable_files_and_folders_fail_alone() {
    let edge = Edge::new();
    edge.document("good.txt", "A good text.");
    let secret = edge.document("secret.txt", "Not for you.");
    let inner = edge.document("closed/inner.txt", "Nor this.");
    let closed = inner.parent().unwrap().to_owned();
    let mut command = edge.command();
    if rustix::process::geteuid().is_root() {
        // Root reads everything, so the program runs as nobody.
        open_to_all(&edge.path(""));
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(command.get_program());
        wrapped.current_dir(edge.path("")).env("EDGE_DATA_DIR", edge.data_dir()).env("HOME", edge.path(""));
        wrapped.env("EDGE_MODEL", concat!(env!("CARGO_MANIFEST_DIR"), "/models/all-minilm-l6-v2"));
        command = wrapped;
    }
    for path in [&secret, &closed] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    command.args(["embed", "docs"]);
    let ran = ran(command);
    // Who is not root could not remove the folder.
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    let ran =
        ran.expect(1, &["failed docs/closed: ", "failed docs/secret.txt: cannot be read: Permission denied"]);
    assert_eq!(paths(&lines(&ran.stdout)), ["docs/good.txt"]);
}

fn open_to_all(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            open_to_all(&path);
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
}

#[test]
fn a_path_that_is_not_utf8_keeps_its_bytes() {
    let edge = Edge::new();
    edge.document(OsString::from_vec(b"caf\xE9.txt".to_vec()), "A good text.");
    let (ran, lines) = edge.embed(&[]);
    ran.expect(0, &[]);
    assert_eq!(lines[0]["path"], "docs/caf\u{FFFD}.txt");
    assert_eq!(lines[0]["path_bytes"], "ZG9jcy9jYWbpLnR4dA==");
}

#[test]
fn a_name_can_not_speak_to_the_terminal() {
    let edge = Edge::new();
    edge.document("a\x1b[2Jb.txt", b"\xFF");
    let (ran, _) = edge.embed(&[]);
    assert!(!ran.expect(1, &["failed docs/a"]).stderr.contains('\x1b'));
}

#[test]
fn a_line_of_ten_megabytes_is_cut_and_covered() {
    let edge = Edge::new();
    edge.document("line.txt", vec![b'x'; 10_000_000]);
    let peak = peak_of(&edge, "docs");
    assert!(peak < 400 << 20, "{} MB", peak >> 20);
    let lines = lines(&fs::read_to_string(edge.path("small.jsonl")).unwrap());
    let mut next = 0;
    for line in &lines {
        assert_eq!(line["start"], next, "all text is covered");
        next = line["end"].as_u64().unwrap();
    }
    assert_eq!(next, 10_000_000);
}

/// A gigabyte costs no more memory than a kilobyte, stops at once, and goes on where it was.
#[test]
fn a_gigabyte_flows_through() {
    const BLOCKS: usize = 1000;
    let edge = Edge::new();
    edge.document("small.txt", prose(1, 40_000));
    let peak_small = peak_of(&edge, "docs");
    let path = edge.document("big.txt", "");
    let mut file = File::create(&path).unwrap();
    let block = prose(1, 1_000_000);
    for n in 0..BLOCKS {
        // Each block is another text, so nothing of it is computed only once.
        let text = block.replace("keeper", &format!("keeper{n}"));
        file.write_all(text.as_bytes()).unwrap();
    }
    drop(file);
    assert!(fs::metadata(&path).unwrap().len() > 1_000_000_000);
    let first = interrupt_when_stored(&edge, 0);
    assert!(first.1 < peak_small + (96 << 20), "{} MB, small {} MB", first.1 >> 20, peak_small >> 20);
    let second = interrupt_when_stored(&edge, first.0);
    assert!(second.0 > first.0, "{first:?} {second:?}");
}

fn peak_of(edge: &Edge, path: &str) -> u64 {
    let mut run = edge.start(&["embed", path, "-o", "small.jsonl"]);
    let mut peak = 0;
    while run.is_running() {
        let status = fs::read_to_string(format!("/proc/{}/status", run.child.id())).unwrap_or_default();
        if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
            peak = peak.max(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    run.wait().expect(0, &[]);
    peak
}

/// Runs until the store has grown, then Ctrl-C: chunks kept, and the peak of memory.
fn interrupt_when_stored(edge: &Edge, kept_before: u64) -> (u64, u64) {
    let blocks = || fs::metadata(edge.store_file()).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m));
    let mut run = edge.start(&["embed", "docs/big.txt", "-o", "big.jsonl"]);
    let begun = Instant::now();
    let mut grown_from = None;
    while run.is_running() && begun.elapsed() < Duration::from_secs(200) {
        // The run's list of keys comes first; results follow while compute runs.
        let computing = fs::read_to_string(format!("/proc/{}/status", run.child.id()))
            .is_ok_and(|status| status.lines().any(|l| l.starts_with("Threads") && !l.ends_with("\t1")));
        if computing {
            let from = *grown_from.get_or_insert_with(blocks);
            if blocks() >= from + 300 {
                break;
            }
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let peak = run.peak_memory();
    run.signal("INT");
    let ran = run.wait().expect(130, &["interrupted"]);
    let kept = ran.stderr.split("results of ").nth(1).unwrap();
    let kept: u64 = kept.split_whitespace().next().unwrap().replace(',', "").parse().unwrap();
    assert!(kept >= kept_before, "{kept} < {kept_before}");
    (kept, peak)
}

#[test]
fn a_closed_pipe_is_quiet() {
    let edge = Edge::new();
    for n in 0..30 {
        edge.document(format!("{n}.txt"), prose(n, 400));
    }
    let program = env!("CARGO_BIN_EXE_edge");
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; {program} embed docs | head -n 1 > first")]);
    command.current_dir(edge.path("")).env("EDGE_DATA_DIR", edge.data_dir()).env("HOME", edge.path(""));
    command.stdin(Stdio::null());
    let ran = ran(command).expect(0, &[]);
    assert!(!ran.stderr.contains("rror") && !ran.stderr.contains("pipe"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(edge.path("first")).unwrap().lines().count(), 1);
}

#[test]
fn an_output_that_cannot_be_written_is_said_before_work_begins() {
    let edge = Edge::new();
    edge.document("a.txt", "A good text.");
    edge.run(["embed", "docs", "-o", "no/such/folder/out.jsonl"])
        .expect(3, &["cannot write no/such/folder/out.jsonl"]);
    fs::create_dir(edge.path("folder")).unwrap();
    edge.run(["embed", "docs", "-o", "folder"]).expect(3, &["cannot write folder", "it is a folder"]);
    edge.run(["embed", "docs", "-o", "/proc/out.jsonl"]).expect(3, &["cannot write /proc/out.jsonl"]);
    edge.run(["embed", "docs", "-o", "/dev/full"]).expect(3, &["cannot write /dev/full", "is kept"]);
    edge.run(["embed", "docs", "-o", "/dev/null"]).expect(0, &["1 document"]);
}

#[test]
fn an_output_keeps_its_link_and_its_mode() {
    let edge = Edge::new();
    edge.document("a.txt", "A good text.");
    fs::write(edge.path("real.jsonl"), "old").unwrap();
    fs::set_permissions(edge.path("real.jsonl"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("real.jsonl", edge.path("out.jsonl")).unwrap();
    edge.run(["embed", "docs", "-o", "out.jsonl"]).expect(0, &[]);
    assert!(fs::symlink_metadata(edge.path("out.jsonl")).unwrap().is_symlink());
    assert!(fs::read_to_string(edge.path("real.jsonl")).unwrap().starts_with("{\"id\""));
    assert_eq!(fs::metadata(edge.path("real.jsonl")).unwrap().permissions().mode() & 0o777, 0o600);
}

/// On a disk of its own, which is small: in a mount namespace, where the machine allows one.
fn on_a_small_disk(edge: &Edge, mount: &str, script: &str) -> Option<Ran> {
    fs::create_dir(edge.path("disk")).unwrap();
    let program = env!("CARGO_BIN_EXE_edge");
    let script =
        format!("mount -t tmpfs {mount} none disk || exit 77; edge() {{ {program} \"$@\"; }}; {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "bash", "-c", &script]);
    command.current_dir(edge.path("")).env("EDGE_DATA_DIR", edge.data_dir()).env("HOME", edge.path(""));
    command.stdin(Stdio::null());
    let ran = ran(command);
    if ran.code == 77 || ran.stderr.contains("unshare:") {
        println!("skipped: this machine allows no mount namespace: {}", ran.stderr);
        return None;
    }
    Some(ran)
}

#[test]
fn a_full_disk_under_the_output_keeps_what_was_computed() {
    let edge = Edge::new();
    edge.document("a.txt", prose(1, 30_000));
    let script = "edge embed docs -o disk/out.jsonl; code=$?; ls -A disk >&2; edge embed docs -o out.jsonl; exit $code";
    let Some(ran) = on_a_small_disk(&edge, "-o size=64k", script) else { return };
    ran.expect(3, &["cannot write disk/out.jsonl", "No space left", "were stored already"]);
}

#[test]
fn a_full_disk_under_the_store_is_said_and_survived() {
    let edge = Edge::new();
    for n in 0..40 {
        edge.document(format!("{n:02}.txt"), prose(n, 3_000));
    }
    let script = "edge embed docs --data-dir disk/data -o out.jsonl; code=$?; test -e out.jsonl && exit 9; \
        mount -o remount,size=64m disk; edge embed docs --data-dir disk/data -o out.jsonl || exit 8; exit $code";
    let Some(ran) = on_a_small_disk(&edge, "-o size=300k", script) else { return };
    ran.expect(3, &["the disk of the store is full", "40 documents"]);
}

#[test]
fn a_read_only_disk_is_said() {
    let edge = Edge::new();
    edge.document("a.txt", "A good text.");
    let script = "mount -o remount,ro disk; edge embed docs -o disk/out.jsonl; a=$?; \
        edge embed docs --data-dir disk/data; b=$?; test $a = 3 && test $b = 3 || exit 9";
    let Some(ran) = on_a_small_disk(&edge, "-o size=1m", script) else { return };
    ran.expect(
        0,
        &["cannot write disk/out.jsonl", "Read-only file system", "cannot prepare the data directory"],
    );
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let edge = Edge::new();
    // More than is computed before results are first stored.
    for n in 0..60 {
        edge.document(format!("{n:02}.txt"), prose(n, 2_000));
    }
    let last = edge.document("zz.txt", prose(99, 2_000));
    let mut run = edge.start(&["embed", "docs", "-o", "out.jsonl", "--threads", "1"]);
    // With the first stored result all documents have been scanned, and the last has not been read again.
    let blocks = || fs::metadata(edge.store_file()).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m));
    let mut floor = None;
    while run.is_running() {
        let threads = fs::read_to_string(format!("/proc/{}/status", run.child.id())).unwrap_or_default();
        if threads.lines().any(|l| l.starts_with("Threads") && !l.ends_with("\t1")) {
            let from = *floor.get_or_insert_with(blocks);
            if blocks() > from {
                break;
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    fs::write(&last, prose(98, 2_000)).unwrap();
    run.wait().expect(1, &["failed docs/zz.txt: changed while it was read; run the same command again"]);
    let lines = lines(&fs::read_to_string(edge.path("out.jsonl")).unwrap());
    assert_eq!(paths(&lines).len(), 60);
    edge.run(["embed", "docs", "-o", "out.jsonl"]).expect(0, &["61 documents"]);
}

#[test]
fn an_output_that_is_an_input_is_refused_before_anything_is_written() {
    let edge = Edge::new();
    let document = edge.document("a.txt", "A good text.");
    edge.run(["embed", "docs/a.txt", "-o", "docs/a.txt"])
        .expect(2, &["docs/a.txt is an input and the output as well"]);
    edge.run(["embed", "docs/a.txt", "--format", "npy", "-o", "./docs/a.txt"]).expect(2, &["as well"]);
    assert_eq!(fs::read_to_string(document).unwrap(), "A good text.");
}

#[test]
fn stdin_fails_alone_and_stands_in_its_place() {
    let edge = Edge::new();
    edge.document("a.txt", "A good text.");
    let with_stdin = |stdin: File, arguments: &[&str]| {
        let mut command = edge.command();
        command.args(arguments).stdin(stdin);
        ran(command)
    };
    let folder = with_stdin(File::open("/").unwrap(), &["embed", "-", "docs/a.txt"]);
    assert_eq!(
        paths(&lines(&folder.expect(1, &["failed -: cannot be read: Is a directory"]).stdout)),
        ["docs/a.txt"]
    );
    let text = edge.document("b.txt", "Another text.");
    let in_order = with_stdin(File::open(text).unwrap(), &["embed", "docs/a.txt", "-"]).expect(0, &[]);
    assert_eq!(paths(&lines(&in_order.stdout)), ["docs/a.txt", "-"]);
    with_stdin(File::open("/dev/zero").unwrap(), &["embed", "-"]).expect(0, &["skipped -: is binary"]);
}

/// What a shell, an ssh session or a pty proxy may leave behind: it is a property of the open file, not of ours.
#[test]
fn streams_that_do_not_block_are_waited_for() {
    let edge = Edge::new();
    let (stdin, mut text) = std::io::pipe().unwrap();
    let (mut printed, stdout) = std::io::pipe().unwrap();
    for end in [stdin.as_fd(), stdout.as_fd()] {
        rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK).unwrap();
    }
    // Nobody has written yet when it reads first, and nobody reads yet when it has filled a pipe.
    let mut command = edge.command();
    command.args(["embed", "-"]).stdin(stdin.try_clone().unwrap()).stdout(stdout).stderr(Stdio::piped());
    let mut run = Running { child: command.spawn().unwrap() };
    drop(command);
    let held = |end: BorrowedFd<'_>| rustix::io::ioctl_fionread(end).unwrap();
    let long = prose(3, 40_000);
    let (one, other) = long.split_at(1_000);
    text.write_all(one.as_bytes()).unwrap();
    run.runs_until(|| held(stdin.as_fd()) == 0);
    text.write_all(other.as_bytes()).unwrap();
    drop((stdin, text));
    run.runs_until(|| held(printed.as_fd()) > 60_000);
    let mut got = String::new();
    printed.read_to_string(&mut got).unwrap();
    assert_eq!(
        run.ended(),
        Some(0),
        "{}",
        std::io::read_to_string(run.child.stderr.take().unwrap()).unwrap()
    );
    assert!(got.len() > 70_000, "{} bytes fit a pipe", got.len());
    assert_eq!(lines(&got).last().unwrap()["end"], long.trim_end().len());
}

#[test]
fn ctrl_c_ends_an_endless_stdin() {
    let edge = Edge::new();
    let mut command = edge.command();
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    command.args(["embed", "-"]).stdin(yes.stdout.take().unwrap());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = Running { child: command.spawn().unwrap() };
    let spooled = |id: u32| {
        let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten();
        open.filter_map(|fd| fs::metadata(fd.ok()?.path()).ok())
            .any(|file| file.is_file() && file.len() > 9 << 20)
    };
    while !spooled(run.child.id()) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    run.signal("INT");
    run.wait().expect(130, &["interrupted"]);
    yes.kill().unwrap();
    yes.wait().unwrap();
}

#[test]
fn a_signal_that_nohup_switched_off_stays_off() {
    let edge = Edge::new();
    for n in 0..20 {
        edge.document(format!("{n}.txt"), prose(n, 800));
    }
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_edge")).args(["embed", "docs", "-o", "out.jsonl"]);
    command.current_dir(edge.path("")).env("EDGE_DATA_DIR", edge.data_dir()).env("HOME", edge.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = Running { child: command.spawn().unwrap() };
    run.runs_until(|| edge.store_file().exists());
    run.signal("HUP");
    run.wait().expect(0, &["20 documents"]);
}

#[test]
fn outputs_that_nobody_reads_end_nothing_in_a_panic() {
    let edge = Edge::new();
    let program = env!("CARGO_BIN_EXE_edge");
    for command in ["completions bash", "config show", "--help", "model list", "store info"] {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -o pipefail; {program} {command} | true")]);
        bash.current_dir(edge.path("")).env("EDGE_DATA_DIR", edge.data_dir()).env("HOME", edge.path(""));
        let ran = ran(bash);
        assert!(ran.code == 0 && ran.stderr.is_empty(), "{command}: {} {}", ran.code, ran.stderr);
        let mut full = edge.command();
        full.args(command.split(' ')).stdout(File::options().write(true).open("/dev/full").unwrap());
        let status = full.stderr(Stdio::null()).status().unwrap();
        assert_ne!(status.code(), Some(101), "{command}");
    }
}

#[test]
fn a_device_in_a_folder_is_left_out() {
    // Only root makes devices; everybody has some in /dev.
    let edge = Edge::new();
    let ran = edge.run(["embed", "/dev/pts", "-o", "out.jsonl"]).expect(0, &[]);
    assert!(
        ran.stderr.contains("is a device") || ran.stderr.contains("found no documents"),
        "{}",
        ran.stderr
    );
}
