//! Holds `src/` to the map in `lib.rs`: which room may import which, and what a pure room may not say.

#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Every room and the rooms it may import, lowest floor first.
const MAP: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("proto", &["wire"]),
    ("store", &["wire", "proto"]),
    ("inference", &["wire"]),
    ("transport", &["wire"]),
    ("discovery", &["wire"]),
    ("power", &["wire", "proto"]),
    ("config", &["proto"]),
    ("node", &["wire", "proto", "store", "inference", "power", "transport", "discovery"]),
    ("api", &["wire", "proto", "store", "inference", "node"]),
    ("cli", &["wire", "proto", "store", "inference", "config", "node", "api"]),
];

/// Files whose results must replay from their arguments.
const PURE: &[&str] = &[
    "src/wire.rs",
    "src/wire/",
    "src/proto.rs",
    "src/proto/",
    "src/inference/batch.rs",
    "src/inference/chunk.rs",
    "src/inference/job.rs",
    "src/inference/segment.rs",
];
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::io",
    "std::net",
    "std::thread",
    "std::env",
    "Instant",
    "SystemTime",
    "getrandom",
    "async fn",
    ".await",
    "HashMap",
    "HashSet",
];

/// A file that needs more holds more than one subject.
const LINES_MAX: usize = 500;
/// Names that say nothing.
const EMPTY_WORDS: &[&str] = &["manager", "helper", "utils", "common", "misc"];

#[test]
fn src_keeps_to_the_map() {
    let mut wrong = Vec::new();
    for file in rust_files(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> =
            text.lines().map(|l| if l.trim_start().starts_with("//") { "" } else { l }).collect();
        let name = file.display().to_string();
        let mut say = |what: String| wrong.push(format!("{name}: {what}"));
        if !text.starts_with("//!") {
            say("opens without `//!`".into());
        }
        if code.len() > LINES_MAX {
            say(format!("longer than {LINES_MAX} lines"));
        }
        if code.iter().any(|l| l.contains("super::super")) {
            say("climbs with super::super".into());
        }
        for word in EMPTY_WORDS.iter().filter(|word| name.contains(**word)) {
            say(format!("is named `{word}`"));
        }
        if PURE.iter().any(|pure| name == *pure || (pure.ends_with('/') && name.starts_with(pure))) {
            for (n, line) in code.iter().enumerate() {
                for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                    say(format!("line {}: a pure file says `{word}`", n + 1));
                }
            }
        }
        let room = room_of(&file);
        if room == "lib" || room == "main" {
            continue;
        }
        let Some((_, allowed)) = MAP.iter().find(|(name, _)| *name == room) else {
            say("is in a room that is not on the map".into());
            continue;
        };
        for import in crate_imports(&code.join("\n")) {
            if import != room && !allowed.contains(&import.as_str()) {
                say(format!("{room} may not import {import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lib_rs_names_every_room() {
    let text = fs::read_to_string("src/lib.rs").unwrap();
    for (room, _) in MAP {
        assert!(text.contains(&format!("//! {room} ")), "lib.rs does not say what `{room}` is");
        assert!(text.contains(&format!("pub mod {room};")), "lib.rs does not have `{room}`");
    }
}

#[test]
fn an_upward_import_would_be_found() {
    let code =
        "use crate::{\n    wire::{self, PeerId},\n    node::LocalRun,\n};\nfn f() { crate::store::open() }";
    assert_eq!(crate_imports(code).into_iter().collect::<Vec<_>>(), ["node", "store", "wire"]);
}

#[test]
fn what_stands_at_the_top_earns_it() {
    let allowed = [
        "Cargo.lock",
        "Cargo.toml",
        "Cross.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "cross",
        "models",
        "src",
        "systemd",
        "target",
        "tests",
    ];
    let found = fs::read_dir(".").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let strange: Vec<String> =
        found.filter(|n| !n.starts_with('.') && !allowed.contains(&n.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// `cross` compiles in containers, where nobody here has seen it: what can be held is that it is told the same.
#[test]
fn cross_toml_says_what_build_sh_says() {
    let script = fs::read_to_string("cross/build.sh").unwrap();
    let targets = fs::read_to_string("cross/targets.sh").unwrap();
    let containers = fs::read_to_string("Cross.toml").unwrap();
    let flags = script.lines().find_map(|line| line.strip_prefix("flags='")?.strip_suffix('\'')).unwrap();
    let triples: Vec<&str> =
        targets.split("triple=").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect();
    assert_eq!(triples.len(), 3);
    for triple in triples {
        let name = triple.to_uppercase().replace('-', "_");
        assert!(containers.contains(&format!("[target.{triple}.env]")), "{triple}");
        assert!(containers.contains(&format!("'CARGO_TARGET_{name}_RUSTFLAGS={flags}'")), "{triple}");
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(rust_files(&path));
        } else if path.extension().is_some_and(|x| x == "rs") {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// `src/store/env.rs` and `src/store.rs` are both in the room `store`.
fn room_of(file: &Path) -> String {
    let first = file.strip_prefix("src").unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// First path segments after `crate::`, groups in braces included.
fn crate_imports(code: &str) -> BTreeSet<String> {
    let word = |s: &str| -> String {
        s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    found.insert(word(&group[start..i]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(word(&group[start..i]));
                    start = i + 1;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}
