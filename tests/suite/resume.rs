//! Nothing is lost: kill, Ctrl-C, a second run, changed files.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::edge::{Edge, assert_equal_outputs, prose};

fn summary(edge: &Edge, arguments: &[&str]) -> (Value, Vec<Value>) {
    let mut all = vec!["--json"];
    all.extend(arguments);
    let (ran, lines) = edge.embed(&all);
    (serde_json::from_str(&ran.expect(0, &[]).stdout).unwrap(), lines)
}

#[test]
fn a_second_run_costs_no_inference_and_a_change_costs_what_changed() {
    let edge = Edge::new();
    for n in 0..4 {
        edge.document(format!("{n}.txt"), prose(n, 900));
    }
    let (first, lines) = summary(&edge, &[]);
    assert_eq!(first["chunks_stored"], 0);
    let written = fs::metadata(edge.store_file()).unwrap().modified().unwrap();
    let (second, again) = summary(&edge, &[]);
    assert_eq!((&second["chunks_computed"], &second["chunks_stored"]), (&0.into(), &first["chunks"]));
    assert_eq!(lines, again);
    assert_eq!(
        fs::metadata(edge.store_file()).unwrap().modified().unwrap(),
        written,
        "a second run writes nothing"
    );
    edge.document("2.txt", prose(77, 900));
    edge.document("4.txt", prose(0, 900));
    let (third, _) = summary(&edge, &[]);
    let of = |name: &str| lines.iter().filter(|line| line["path"] == name).count();
    assert_eq!(
        third["chunks_computed"],
        of("docs/2.txt"),
        "only the changed file is computed, a copy is not"
    );
    let (fresh, _) = summary(&edge, &["--fresh"]);
    assert_eq!(fresh["chunks_stored"], 0);
    // Another model's worth of options is other work.
    let (other, _) = summary(&edge, &["--chunk-tokens", "64"]);
    assert_eq!(other["chunks_stored"], 0);
}

#[test]
fn only_the_changed_end_of_a_long_document_is_computed_again() {
    let edge = Edge::new();
    let text = prose(5, 70_000);
    edge.document("log.txt", &text);
    let (first, _) = summary(&edge, &["--chunk-tokens", "256"]);
    edge.document("log.txt", text + "\n\nOne more line at the end.\n");
    let (second, _) = summary(&edge, &["--chunk-tokens", "256"]);
    let (computed, all) = (second["chunks_computed"].as_u64().unwrap(), first["chunks"].as_u64().unwrap());
    assert!(computed > 0 && computed < all / 2, "{computed} of {all}");
}

/// Five kills while it starts and loads, five each time it has stored more.
#[test]
fn killed_at_any_moment_it_goes_on_and_ends_the_same() {
    const DOCUMENTS: u64 = 120;
    let edge = Edge::new();
    for n in 0..DOCUMENTS {
        edge.document(format!("{n:03}.txt"), prose(n, 900));
    }
    let arguments = ["embed", "docs", "-o", "killed.jsonl", "--json"];
    let stored = || fs::metadata(edge.store_file()).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m));
    let mut kills = 0;
    for round in 0..10u64 {
        let mut run = edge.start(&arguments);
        let (begun, before) = (Instant::now(), stored());
        let early = Duration::from_millis(5 << (2 * round));
        // A batch of results takes more than the list of keys that comes first.
        let is_due = || if round < 5 { begun.elapsed() >= early } else { stored() > before + 60 };
        run.runs_until(is_due);
        kills += u32::from(run.is_running());
        drop(run);
    }
    assert!(kills >= 4, "only {kills} kills came in time");
    let last = edge.run(arguments).expect(0, &[]);
    let last: Value = serde_json::from_str(&last.stdout).unwrap();
    assert!(last["chunks_stored"].as_u64().unwrap() > 0, "{last}");
    let killed = crate::edge::lines(&fs::read_to_string(edge.path("killed.jsonl")).unwrap());
    let calm = Edge::new();
    for n in 0..DOCUMENTS {
        calm.document(format!("{n:03}.txt"), prose(n, 900));
    }
    let (_, undisturbed) = calm.embed(&[]);
    assert_equal_outputs(&killed, &undisturbed);
    let left: Vec<_> = fs::read_dir(edge.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("part")),
        "a kill leaves nothing behind: {left:?}"
    );
}

#[test]
fn ctrl_c_says_what_is_kept_and_leaves_no_half_file() {
    let edge = Edge::new();
    for n in 0..60 {
        edge.document(format!("{n:02}.txt"), prose(n, 1_000));
    }
    let mut run = edge.start(&["embed", "docs", "-o", "out.jsonl", "--threads", "1"]);
    let store = edge.store_file();
    // Results are in the store once it holds more than its first pages.
    let begun = Instant::now();
    let blocks = || fs::metadata(&store).map_or(0, |m| std::os::unix::fs::MetadataExt::blocks(&m));
    while blocks() < 200 && run.is_running() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let asked = Instant::now();
    run.signal("INT");
    run.wait().expect(130, &["interrupted", "are kept"]);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!edge.path("out.jsonl").exists());
    let parts = fs::read_dir(edge.path(""))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with("-part"));
    assert_eq!(parts.count(), 0);
    let (after, _) = summary(&edge, &[]);
    assert!(after["chunks_stored"].as_u64().unwrap() > 0, "{after}");
}
