//! `edge embed` as a person with documents meets it.

use std::{fs, process::Stdio};

use serde_json::Value;

use crate::edge::{Edge, assert_equal_outputs, cosine, lines, prose, ran, vector};

#[test]
fn a_folder_becomes_chunks_and_vectors_in_order() {
    let edge = Edge::new();
    edge.document("b.md", "# The sea\n\nIt is calm.\n");
    edge.document("a.txt", prose(1, 3_000));
    edge.document("sub/c.rs", "fn main() {}\n");
    edge.document("empty.txt", "");
    edge.document("ignored.txt", "never");
    edge.document(".gitignore", "ignored.txt\n");
    edge.document(".hidden", "never");
    let (ran, lines) = edge.embed(&["--chunk-tokens", "64"]);
    ran.expect(0, &["4 documents", "-> out.jsonl"]);
    let mut before = (String::new(), 0, 0);
    for line in &lines {
        let path = line["path"].as_str().unwrap();
        let text = fs::read_to_string(edge.path(path)).unwrap();
        let (start, end) = (line["start"].as_u64().unwrap(), line["end"].as_u64().unwrap());
        assert_eq!(&text[start as usize..end as usize], line["text"].as_str().unwrap());
        assert!(line["tokens"].as_u64().unwrap() <= 64);
        assert_eq!(line["model"], "all-minilm-l6-v2");
        let vector = vector(line);
        assert_eq!(vector.len(), 384);
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-4);
        let index = line["index"].as_u64().unwrap();
        if before.0 == path {
            assert!(index == before.1 + 1 && start >= before.2, "{line}");
        } else {
            assert!(index == 0 && path > before.0.as_str(), "{line}");
        }
        before = (path.to_owned(), index, end);
    }
    let mut paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    paths.dedup();
    assert_eq!(paths, ["docs/a.txt", "docs/b.md", "docs/sub/c.rs"]);
    let ids: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lines.len());
}

#[test]
fn vectors_mean_what_the_text_means() {
    let edge = Edge::new();
    edge.document("1.txt", "The cat sat on the mat.");
    edge.document("2.txt", "A kitten was sitting on a rug.");
    edge.document("3.txt", "Interest rates rose in the third quarter.");
    let (_, lines) = edge.embed(&[]);
    let vectors: Vec<Vec<f64>> = lines.iter().map(vector).collect();
    assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]) + 0.3);
}

#[test]
fn stdout_stdin_and_file_give_the_same() {
    let edge = Edge::new();
    edge.document("a.txt", prose(2, 1_500));
    let (_, from_file) = edge.embed(&[]);
    let to_stdout = edge.run(["embed", "docs"]).expect(0, &["1 document"]);
    assert_equal_outputs(&from_file, &lines(&to_stdout.stdout));
    let mut command = edge.command();
    command.args(["embed", "-"]).stdin(fs::File::open(edge.path("docs/a.txt")).unwrap());
    let from_stdin = lines(&ran(command).expect(0, &[]).stdout);
    assert_eq!(from_stdin.len(), from_file.len());
    for (a, b) in from_stdin.iter().zip(&from_file) {
        assert_eq!((&a["path"], &a["text"], &a["vector"]), (&Value::from("-"), &b["text"], &b["vector"]));
    }
}

#[test]
fn how_many_threads_changes_nothing() {
    let edge = Edge::new();
    for n in 0..6 {
        edge.document(format!("{n}.txt"), prose(n, 700 * (n as usize + 1)));
    }
    let (_, one) = edge.embed(&["--threads", "1"]);
    let (_, three) = edge.embed(&["--threads", "3", "--fresh"]);
    assert_equal_outputs(&one, &three);
}

#[test]
fn overlap_repeats_the_end_of_the_chunk_before() {
    let edge = Edge::new();
    edge.document("a.txt", prose(3, 4_000));
    let (_, lines) = edge.embed(&["--chunk-tokens", "64", "--overlap", "16"]);
    let overlapping =
        lines.windows(2).filter(|pair| pair[1]["start"].as_u64() < pair[0]["end"].as_u64()).count();
    assert!(overlapping * 10 >= lines.len() * 8, "{overlapping} of {}", lines.len());
}

#[test]
fn npy_is_a_matrix_that_numpy_reads() {
    let edge = Edge::new();
    edge.document("a.txt", prose(4, 1_500));
    let (_, lines) = edge.embed(&[]);
    edge.run(["embed", "docs", "--format", "npy", "-o", "v.npy"]).expect(0, &[]);
    let bytes = fs::read(edge.path("v.npy")).unwrap();
    assert_eq!(bytes.len(), 128 + lines.len() * 384 * 4);
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    let row = |n: usize| -> Vec<f64> {
        let row = &bytes[128 + n * 384 * 4..][..384 * 4];
        row.chunks_exact(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect()
    };
    let ids = crate::edge::lines(&fs::read_to_string(edge.path("v.ids.jsonl")).unwrap());
    for (n, line) in lines.iter().enumerate() {
        assert!(cosine(&row(n), &vector(line)) > 0.999999);
        assert_eq!(ids[n]["id"], line["id"]);
        assert!(ids[n].get("vector").is_none());
    }
    edge.run(["embed", "docs", "--format", "npy"]).expect(2, &["-o FILE.npy"]);
}

#[test]
fn the_output_is_not_its_own_input() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    for _ in 0..2 {
        edge.run(["embed", "docs", "-o", "docs/out.jsonl"]).expect(0, &["1 document,"]);
    }
    edge.run(["embed", ".", "-o", "all.jsonl"]).expect(0, &["2 documents,"]);
}

#[test]
fn json_sums_up_for_programs() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    edge.document("b.txt", b"caf\xE9");
    let (ran, _) = edge.embed(&["--json"]);
    let summary: Value = serde_json::from_str(&ran.expect(1, &["failed docs/b.txt"]).stdout).unwrap();
    assert_eq!(
        (&summary["documents"], &summary["failed"], &summary["chunks"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!((&summary["chunks_computed"], &summary["chunks_stored"]), (&1.into(), &0.into()));
    assert!(summary["chunks_per_second"].as_f64().unwrap() > 0.0);
}

/// What a person sees who tries the first command of the README: `script` makes the terminal.
#[test]
fn a_terminal_gets_a_table() {
    let edge = Edge::new();
    for n in 0..20 {
        edge.document(format!("a-rather-long-name-for-a-file-of-this-kind-{n:02}.txt"), "A text.");
    }
    let mut command = std::process::Command::new("script");
    let program = format!("{} embed docs", env!("CARGO_BIN_EXE_edge"));
    command
        .args(["-qec", &program, "/dev/null"])
        .current_dir(edge.path(""))
        .env("EDGE_DATA_DIR", edge.data_dir());
    command.env("HOME", edge.path("")).stdin(Stdio::null());
    let ran = ran(command).expect(0, &[]);
    assert!(ran.stdout.contains("chunks/s") && ran.stdout.contains("-o out.jsonl"), "{}", ran.stdout);
    assert!(ran.stdout.contains("… and 5 more"), "{}", ran.stdout);
    let table = ran.stdout.lines().skip_while(|line| !line.contains("file  ")).skip(1);
    for line in table {
        assert!(line.trim_end().chars().count() <= 80, "{line:?}");
    }
    assert!(!edge.path("out.jsonl").exists());
}
