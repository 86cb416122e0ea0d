//! `edge model`: list, add and check models.

use std::{
    io::{Write, stdout},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Subcommand;
use serde_json::json;

use super::{context::Context, exit::Exit, human, table::Table, talk};
use crate::{
    inference::{Engine, check_golden},
    node::{add_model, find_model, list_models},
    wire::PeerId,
};

const ADD_EXAMPLES: &str = "\
A model is a folder with model.onnx, tokenizer.json and model.toml; models/all-minilm-l6-v2 of
edge's sources is one. It is added only if its hashes hold and it reproduces its golden vectors.

Example:
  edge model add ~/models/bge-small && edge embed notes --model bge-small";

/// `edge model …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show every model and where it was found
    List,
    /// Check a model folder and copy it to the data directory
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// The folder
        dir: PathBuf,
    },
    /// Run a model on its golden texts
    Check {
        /// Its name, or a folder [default: the model in use]
        name: Option<String>,
    },
}

/// Runs `edge model …`.
pub(super) fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    match command {
        Command::List => list(context),
        Command::Add { dir } => add(&dir, context),
        Command::Check { name } => check(name, context),
    }
}

fn list(context: &Context) -> anyhow::Result<Exit> {
    let models = list_models(&context.config.data_dir());
    let mut table = Table::new(&["model", "dimension", "tokens", "size", "found"]);
    let mut wrong = Vec::new();
    let mut rows = Vec::new();
    for (place, model) in &models {
        match model {
            Ok(model) => {
                let manifest = model.manifest();
                let in_use = manifest.name == context.config.model();
                table.row([
                    format!("{}{}", manifest.name, if in_use { " *" } else { "" }),
                    manifest.dimension.to_string(),
                    manifest.max_tokens.to_string(),
                    human::bytes(model.bytes()),
                    place.why.to_owned(),
                ]);
                rows.push(json!({
                    "name": manifest.name, "hash": model.hash().to_string(), "dimension": manifest.dimension,
                    "max_tokens": manifest.max_tokens, "precision": manifest.precision,
                    "license": manifest.license, "bytes": model.bytes(), "path": model.path(), "in_use": in_use,
                }));
            }
            Err(error) => wrong.push(human::chain(error)),
        }
    }
    if context.json {
        writeln!(stdout(), "{}", serde_json::Value::Array(rows))?;
    } else {
        write!(stdout(), "{table}")?;
    }
    wrong.iter().for_each(|line| talk::say(line));
    Ok(if wrong.is_empty() { Exit::Done } else { Exit::SomeFailed })
}

fn add(dir: &Path, context: &Context) -> anyhow::Result<Exit> {
    let _lock = context.lock("model add")?;
    let (model, report) = add_model(dir, &context.config.data_dir())?;
    let name = &model.manifest().name;
    talk::say(&format!(
        "{name} reproduces its {} golden texts (least cosine {:.6}) and was copied to {}; use it with --model {name}",
        report.texts,
        report.least,
        human::path(model.path())
    ));
    Ok(Exit::Done)
}

fn check(name: Option<String>, context: &Context) -> anyhow::Result<Exit> {
    let name = name.unwrap_or_else(|| context.config.model().to_owned());
    let name = if Path::new(&name).join("model.toml").is_file() && !name.contains('/') {
        format!("./{name}")
    } else {
        name
    };
    let model = find_model(&name, &context.config.data_dir())?;
    let engine = Arc::new(Engine::load(&model, PeerId::from_bytes([0; 32]))?);
    let report = check_golden(&model, &engine)?;
    let name = &model.manifest().name;
    if context.json {
        let report = json!({
            "name": name, "hash": model.hash().to_string(), "path": model.path(),
            "texts": report.texts, "cosine_least": report.least, "cosine_mean": report.mean,
        });
        writeln!(stdout(), "{report}")?;
    } else {
        writeln!(
            stdout(),
            "{name}: {} golden texts, cosine with the reference {:.6} at the least, {:.6} in the mean",
            report.texts,
            report.least,
            report.mean
        )?;
    }
    Ok(Exit::Done)
}
