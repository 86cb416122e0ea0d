//! `edge id`: who this node is, and who else is on this machine.

use std::{
    fs,
    io::{Write, stdout},
};

use clap::Subcommand;
use serde_json::json;

use super::{context::Context, exit::Exit, human, table::Table, talk};
use crate::store::Identity;

/// `edge id …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  edge id                     this node's peer id\n  edge id --identity second   another one; made where there is none\n  edge id list                all on this machine"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the peer id; makes the identity where there is none
    Show,
    /// Show all identities of the data directory
    List,
}

/// Runs `edge id …`.
pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Exit> {
    match arguments.command {
        None | Some(Command::Show) => show(context),
        Some(Command::List) => list(context),
    }
}

fn show(context: &Context) -> anyhow::Result<Exit> {
    // Reading needs no lock, so that a busy node can be asked who it is; making one does.
    let identity = match Identity::load(&context.config.identity_dir()) {
        Ok(identity) => identity,
        Err(error) if error.is_absent() => {
            let _lock = context.lock("id")?;
            context.identity()?
        }
        Err(error) => return Err(error.into()),
    };
    let peer = identity.peer_id();
    if context.json {
        writeln!(
            stdout(),
            "{}",
            json!({ "identity": context.config.identity(), "peer_id": peer.to_string() })
        )?;
    } else {
        writeln!(stdout(), "{peer}")?;
    }
    Ok(Exit::Done)
}

fn list(context: &Context) -> anyhow::Result<Exit> {
    let place = context.config.data_dir().join("identities");
    let mut names: Vec<String> = match fs::read_dir(&place) {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    let mut table = Table::new(&["identity", "peer id"]);
    let (mut rows, mut exit) = (Vec::new(), Exit::Done);
    for name in names {
        match Identity::load(&place.join(&name)) {
            Ok(identity) => {
                let peer = identity.peer_id().to_string();
                rows.push(json!({ "identity": name, "peer_id": peer }));
                table.row([name, peer]);
            }
            Err(error) if error.is_absent() => {}
            Err(error) => {
                talk::say(&human::chain(&error));
                exit = Exit::SomeFailed;
            }
        }
    }
    if context.json {
        writeln!(stdout(), "{}", serde_json::Value::Array(rows))?;
    } else {
        write!(stdout(), "{table}")?;
    }
    Ok(exit)
}
