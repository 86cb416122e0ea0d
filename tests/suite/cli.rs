//! Help, settings, identities, exit codes.

use std::fs;

use serde_json::Value;

use crate::edge::Edge;

/// What `--help` says is part of the product: a change of it is seen in the diff. `UPDATE=1 cargo test` writes it.
#[test]
fn help_is_as_it_was() {
    let edge = Edge::new();
    let commands: [&[&str]; 19] = [
        &[],
        &["embed"],
        &["bench"],
        &["model"],
        &["model", "add"],
        &["model", "check"],
        &["store"],
        &["store", "gc"],
        &["id"],
        &["config"],
        &["completions"],
        &["store", "info"],
        &["run"],
        &["swarm"],
        &["swarm", "invite"],
        &["swarm", "join"],
        &["pause"],
        &["queue"],
        &["guide"],
    ];
    let mut help = String::new();
    for command in commands {
        let ran = edge.run(command.iter().chain(&["--help"])).expect(0, &[]);
        assert!(!ran.stdout.is_empty());
        help += &format!("$ edge {}\n{}\n", [command, &["--help"]].concat().join(" "), ran.stdout.trim_end());
        help.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/help.txt");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &help).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(help == expected, "--help has changed; look, then run: UPDATE=1 cargo test\n{help}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let edge = Edge::new();
    edge.run(["embed"]).expect(2, &["PATH"]);
    edge.run(["embde"]).expect(2, &["similar", "embed"]);
    edge.run(["embed", "docs", "--chunk-tokens", "9"]).expect(2, &["--chunk-tokens", "takes 16 to 8192"]);
    edge.run(["embed", "docs", "--chunk-tokens", "500"]).expect(2, &["takes at most 256"]);
    edge.run(["embed", "docs", "--chunk-tokens", "64", "--overlap", "60"]).expect(2, &["overlap"]);
    edge.run(["embed", "docs", "--threads", "9999"]).expect(2, &["--threads", "takes 1 to 256"]);
    edge.run(["--identity", "../x", "id"]).expect(2, &["--identity", "begins with a letter"]);
}

#[test]
fn settings_are_shown_with_their_source_and_checked_with_their_line() {
    let edge = Edge::new();
    fs::write(edge.path("edge.toml"), "[embed]\nthreads = 1\n\n[log]\nlevel = \"info\"\n").unwrap();
    let show = |arguments: &[&str]| -> Value {
        let ran = edge.run([&["config", "show", "--json", "--config", "edge.toml"], arguments].concat());
        serde_json::from_str(&ran.expect(0, &[]).stdout).unwrap()
    };
    assert_eq!(show(&[])["embed.threads"], serde_json::json!({ "value": "1", "source": "edge.toml:2" }));
    assert_eq!(show(&[])["data_dir"]["source"], "EDGE_DATA_DIR");
    assert_eq!(show(&["-vv"])["log.level"], serde_json::json!({ "value": "debug", "source": "-v" }));
    edge.run(["config", "check", "--config", "edge.toml"]).expect(0, &["the settings are right"]);
    edge.run(["config", "check", "--config", "nowhere.toml"])
        .expect(2, &["cannot read the configuration nowhere.toml"]);
    fs::write(edge.path("edge.toml"), "[embed]\nthread = 1\n").unwrap();
    let words = ["edge.toml:2", "did you mean `embed.threads`?"];
    edge.run(["config", "check", "--config", "edge.toml"]).expect(2, &words);
    edge.run(["embed", "docs", "--config", "edge.toml"]).expect(2, &words);
    fs::create_dir_all(edge.path(".config/edge")).unwrap();
    fs::write(edge.path(".config/edge/config.toml"), "identity = \"second\"\n").unwrap();
    let ran = edge.run(["id", "--json"]).expect(0, &[]);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["identity"], "second");
}

#[test]
fn identities_persist_and_are_listed() {
    let edge = Edge::new();
    let first = edge.run(["id"]).expect(0, &[]).stdout;
    assert_eq!(first.trim_end().len(), 52);
    assert_eq!(edge.run(["id"]).expect(0, &[]).stdout, first);
    let names: Vec<String> = (0..10).map(|n| format!("node{n}")).collect();
    for name in &names {
        assert_ne!(edge.run(["id", "--identity", name]).expect(0, &[]).stdout, first);
    }
    let list: Value =
        serde_json::from_str(&edge.run(["id", "list", "--json"]).expect(0, &[]).stdout).unwrap();
    let ids: std::collections::BTreeSet<&str> =
        list.as_array().unwrap().iter().map(|id| id["peer_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 11);
    assert!(ids.contains(first.trim_end()));
}

#[test]
fn logs_are_events_and_never_text() {
    let edge = Edge::new();
    edge.document("a.txt", "A secret about the lighthouse keeper.");
    let mut command = edge.command();
    command.args(["embed", "docs", "-o", "out.jsonl", "-vvv"]).env("EDGE_LOG_FORMAT", "json");
    let ran = crate::edge::ran(command).expect(0, &["run begins", "results stored", "run ends"]);
    assert!(!ran.stderr.contains("lighthouse"), "{}", ran.stderr);
    let events = ran.stderr.lines().filter(|line| line.starts_with('{'));
    let events: Vec<Value> = events.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["fields"]["message"] == "run ends"), "{}", ran.stderr);
    let (ran, _) = edge.embed(&["--fresh"]);
    assert_eq!(ran.stderr.lines().count(), 1, "without -v one line sums up: {}", ran.stderr);
}

#[test]
fn completions_and_version_print() {
    let edge = Edge::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(edge.run(["completions", shell]).expect(0, &[]).stdout.contains("embed"));
    }
    assert!(edge.run(["--version"]).expect(0, &[]).stdout.starts_with("edge 0."));
    let bench = edge.run(["bench", "--chunks", "4", "--json"]).expect(0, &[]).stdout;
    let bench: Value = serde_json::from_str(&bench).unwrap();
    assert!(
        bench["chunks_per_s"].as_f64().unwrap() > 0.0
            && bench["peak_memory_bytes"].as_u64().unwrap() > 1 << 20
    );
}
