//! `edge model`: a folder that is not what it says is refused, with the reason.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::edge::{Edge, lines, ran};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/all-minilm-l6-v2");

/// A copy of the shipped model, under another name.
fn copy(edge: &Edge, name: &str) -> PathBuf {
    let folder = edge.path(name);
    fs::create_dir(&folder).unwrap();
    for file in ["model.onnx", "tokenizer.json", "model.toml"] {
        fs::copy(Path::new(SHIPPED).join(file), folder.join(file)).unwrap();
    }
    edit(&folder, "name = \"all-minilm-l6-v2\"", &format!("name = \"{name}\""));
    folder
}

fn edit(folder: &Path, from: &str, to: &str) {
    let manifest = folder.join("model.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(manifest, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_shipped_model_is_found_and_right() {
    let edge = Edge::new();
    let models: Value =
        serde_json::from_str(&edge.run(["model", "list", "--json"]).expect(0, &[]).stdout).unwrap();
    assert_eq!((&models[0]["name"], &models[0]["in_use"]), (&"all-minilm-l6-v2".into(), &true.into()));
    let check: Value =
        serde_json::from_str(&edge.run(["model", "check", "--json"]).expect(0, &[]).stdout).unwrap();
    assert!(check["cosine_least"].as_f64().unwrap() >= 0.999);
    assert!(check["cosine_mean"].as_f64().unwrap() >= 0.9999);
    let shown = edge.run(["model", "list"]).expect(0, &[]).stdout;
    assert!(shown.contains("all-minilm-l6-v2 *") && shown.contains("checkout"), "{shown}");
}

/// The program and `models/` beside it, as the README says; nothing of the checkout is near.
#[test]
fn an_installed_program_finds_the_model_beside_it() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    for folder in ["bin", "share/edge/models/all-minilm-l6-v2"] {
        fs::create_dir_all(edge.path(folder)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_edge"), edge.path("bin/edge")).unwrap();
    let run = || {
        let mut command = Command::new(edge.path("bin/edge"));
        command.env_clear().env("EDGE_DATA_DIR", edge.data_dir()).current_dir(edge.path(""));
        ran(command.args(["embed", "docs"]))
    };
    if !Path::new("/usr/share/edge/models").exists() {
        run().expect(3, &["there is no model `all-minilm-l6-v2`; looked in ", "share/edge/models"]);
    }
    for file in ["model.onnx", "tokenizer.json", "model.toml"] {
        let installed = edge.path("share/edge/models/all-minilm-l6-v2").join(file);
        fs::copy(Path::new(SHIPPED).join(file), installed).unwrap();
    }
    assert_eq!(lines(&run().expect(0, &[]).stdout).len(), 1);
}

#[test]
fn a_model_is_added_by_folder_and_used_by_name() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    copy(&edge, "mine");
    edge.run(["embed", "docs", "--model", "mine"])
        .expect(3, &["there is no model `mine`", "edge model add DIR"]);
    edge.run(["model", "add", "mine"]).expect(0, &["reproduces its 18 golden texts", "--model mine"]);
    edge.run(["model", "add", "mine"]).expect(3, &["there is another model `mine`"]);
    let (ran, lines) = edge.embed(&["--model", "mine"]);
    ran.expect(0, &[]);
    assert_eq!(lines[0]["model"], "mine");
    assert!(edge.run(["model", "list"]).expect(0, &[]).stdout.contains("data directory"));
}

#[test]
fn a_wrong_folder_is_refused_with_the_reason() {
    let edge = Edge::new();
    let refused = |folder: &Path, words: &[&str]| {
        edge.run(["model", "add", folder.to_str().unwrap()]).expect(3, words);
        let added = edge.data_dir().join("models").join(folder.file_name().unwrap());
        assert!(!added.exists());
    };
    refused(&edge.path("nowhere"), &["model.toml", "No such file"]);
    let folder = copy(&edge, "incomplete");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    refused(&folder, &["tokenizer.json", "No such file"]);
    let folder = copy(&edge, "cut");
    fs::OpenOptions::new().write(true).open(folder.join("model.onnx")).unwrap().set_len(1_000_000).unwrap();
    refused(&folder, &["model.onnx", "its length is 1000000, not 33624434"]);
    let folder = copy(&edge, "flipped");
    let mut bytes = fs::read(folder.join("model.onnx")).unwrap();
    bytes[20_000_000] ^= 1;
    fs::write(folder.join("model.onnx"), bytes).unwrap();
    refused(&folder, &["its SHA-256 is", "copy the folder again"]);
    let folder = copy(&edge, "other-key");
    edit(&folder, "dimension = 384", "dimensions = 384");
    refused(&folder, &["is not a model description", "dimensions"]);
    let folder = copy(&edge, "other-value");
    edit(&folder, "max_tokens = 256", "max_tokens = 3");
    refused(&folder, &["`max_tokens` must lie in 16..=8192"]);
    let folder = copy(&edge, "other-dimension");
    edit(&folder, "dimension = 384", "dimension = 192");
    refused(&folder, &["`golden.vector` is not base64 of `dimension`"]);
}

/// A graph of another model under this model's golden vectors.
#[test]
fn a_model_that_computes_something_else_is_refused() {
    let edge = Edge::new();
    let folder = copy(&edge, "liar");
    let mut text = fs::read_to_string(folder.join("model.toml")).unwrap();
    // Two golden texts change places: ids and vectors no longer belong to their texts.
    text = text.replacen("text = \"lighthouse\"", "text = \"candle\"", 1);
    fs::write(folder.join("model.toml"), text).unwrap();
    edge.run(["model", "add", "liar"])
        .expect(3, &["does not do what its model.toml says", "token 1 of its golden text"]);
    let folder = copy(&edge, "liar2");
    let text = fs::read_to_string(folder.join("model.toml")).unwrap();
    let vectors: Vec<&str> = text.lines().filter(|line| line.starts_with("vector = ")).collect();
    let swapped = text.replacen(vectors[0], vectors[1], 1);
    fs::write(folder.join("model.toml"), swapped).unwrap();
    edge.run(["model", "add", "liar2"]).expect(3, &["has cosine", "is the least"]);
}

#[test]
fn a_graph_that_is_none_does_not_end_the_process() {
    let edge = Edge::new();
    edge.document("a.txt", "A text.");
    for (name, graph) in [("noise", vec![0xA5; 5_000]), ("nothing", Vec::new())] {
        let folder = copy(&edge, name);
        let sha = {
            use sha2::{Digest, Sha256};
            data_encoding::HEXLOWER.encode(&Sha256::digest(&graph))
        };
        fs::write(folder.join("model.onnx"), &graph).unwrap();
        edit(&folder, "bytes = 33624434", &format!("bytes = {}", graph.len()));
        edit(&folder, "5fd0725f8caaf0024c1e96c30216bcb75f2a76a6671bd26d495172dbdbfcb154", &sha);
        edge.run(["model", "add", name]).expect(3, &["model.onnx does not load"]);
        edge.run(["embed", "docs", "--model", &format!("./{name}")]).expect(3, &["cannot load the model"]);
    }
}
