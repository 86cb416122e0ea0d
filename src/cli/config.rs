//! `edge config`: every setting, its value, and who said so.

use std::{
    env,
    io::{Write, stdout},
};

use clap::Subcommand;
use serde_json::json;

use super::{context::Context, exit::Exit, talk};
use crate::config::{SETTINGS, Setting, example, nearest};

const EXAMPLE: &str = "\
A setting is read from, later ones winning: its default; ~/.config/edge/config.toml or
/etc/edge/config.toml, or the file of --config; EDGE_… in the environment; a flag.

Example of a file:
  model = \"all-minilm-l6-v2\"
  [embed]
  threads = 2";

/// `edge config …`
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLE)]
pub(super) enum Command {
    /// Show each setting, its value and where it comes from
    Show,
    /// Say whether the settings are right, and what is wrong
    Check,
    /// Print a file with every setting and its default, to edit
    Example,
}

/// Runs `edge config …`; `context` is an error where the settings are.
pub(super) fn run(command: Command, context: anyhow::Result<Context>, json: bool) -> anyhow::Result<Exit> {
    if let Command::Example = command {
        // Who has a wrong file needs this the most.
        write!(stdout(), "{}", example()?)?;
        return Ok(Exit::Done);
    }
    let context = context?;
    for name in unknown_variables() {
        let meant = nearest(&name, SETTINGS.iter().map(Setting::variable));
        let hint = meant.map(|right| format!("; did you mean {right}?")).unwrap_or_default();
        talk::say(&format!("the environment has {name}, which is no setting and is ignored{hint}"));
    }
    match command {
        Command::Check => talk::say("the settings are right"),
        Command::Show if json => writeln!(stdout(), "{}", as_json(&context))?,
        Command::Show => show(&context)?,
        Command::Example => {}
    }
    Ok(Exit::Done)
}

fn show(context: &Context) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    for setting in SETTINGS.iter() {
        let Some(value) = context.config.value(setting.key) else { continue };
        writeln!(out, "{} = {}  ({})", setting.key, value.text, value.source)?;
        writeln!(out, "    {}; also {}", setting.help, setting.variable())?;
    }
    Ok(())
}

fn as_json(context: &Context) -> serde_json::Value {
    let setting = |key: &str| {
        let value = context.config.value(key)?;
        Some((key.to_owned(), json!({ "value": value.text, "source": value.source.to_string() })))
    };
    SETTINGS.iter().filter_map(|s| setting(s.key)).collect::<serde_json::Map<_, _>>().into()
}

fn unknown_variables() -> Vec<String> {
    let known = |name: &str| {
        ["EDGE_CONFIG", "EDGE_TEST_SENSORS"].contains(&name)
            || SETTINGS.iter().any(|setting| setting.variable() == name)
    };
    env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("EDGE_") && !known(name))
        .collect()
}
