//! The command line: one file a subcommand.
//!
//! Data goes to stdout, talk to stderr. This room reads what the user names and writes what it asked for,
//! with the user's rights; everything else is asked of `node`.

mod bench;
mod config;
mod context;
mod doctor;
mod embed;
mod exit;
mod guide;
mod human;
mod id;
mod lend;
mod logs;
mod man;
mod model;
mod names;
mod node;
mod patient;
mod process;
mod queue;
mod run;
mod status;
mod store;
mod swarm;
mod table;
mod talk;

use std::{
    io::{self, Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use context::Context;
use exit::Exit;

use crate::api::view::LendOrder;

const EXAMPLES: &str = "\
Examples:
  edge embed README.md src              what would come out, as a table
  edge embed ~/notes -o notes.jsonl     chunks and vectors, one JSON object a line
  edge embed ~/notes --format npy -o notes.npy
  edge swarm create home                machines of yours that work for each other
  edge swarm invite home                a ticket that lets another one in
  edge run                              lend this machine to its swarms
  edge embed ~/notes --swarm home -o notes.jsonl
  edge status                           load, queue, swarms, peers
  edge bench                            how fast this device is
  edge guide                            pages for who lends, asks, or runs a swarm

Exit codes: 0 all done, 1 some documents failed, 2 wrong usage or configuration,
3 the machine would not (model, store, disk, output), 4 data directory in use,
5 no node runs here, 130 interrupted (what was computed is kept).";

/// Turns documents into chunks and vectors on low-power devices.
#[derive(Debug, Parser)]
#[command(name = "edge", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Where identities, results and added models are kept
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which identity to use; each has its own store
    #[arg(long, global = true, value_name = "NAME")]
    identity: Option<String>,
    /// Read settings from this file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print results for programs
    #[arg(long, global = true)]
    json: bool,
    /// Log more: -v events, -vv jobs, -vvv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn files and folders into chunks and vectors
    Embed(embed::Arguments),
    /// Lend this machine to the swarms it is in
    Run(run::Arguments),
    /// Found swarms, invite to them, join them
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// Show what this node does: load, queue, swarms, peers
    Status(status::Arguments),
    /// Rest: compute nothing for others
    #[command(
        after_help = "Examples:\n  edge pause 30m     for half an hour\n  edge pause         until `edge resume`\n\nIt outlives a restart; what runs stops within a second and goes back to whoever asked."
    )]
    Pause {
        /// For how long: 45s, 30m, 2h, 1d [default: until `edge resume`]
        #[arg(value_parser = lend::lasting, value_name = "TIME")]
        lasting: Option<u64>,
    },
    /// Lend again after `edge pause` or `edge finish`
    Resume,
    /// Complete what is begun for others, and take nothing new
    Finish,
    /// Say what this device offers, what is missing, and how to mend it
    Doctor,
    /// Show who is connected
    Peers,
    /// Show jobs of others that are here, and jobs that nobody could compute
    #[command(subcommand)]
    Queue(queue::Command),
    /// Show the commands that this node computes for
    Jobs,
    /// End what a command asks for; what was computed is kept
    Cancel {
        /// As `edge jobs` shows it
        id: u64,
    },
    /// Measure how fast this device runs the model
    Bench(bench::Arguments),
    /// List, add and check models
    #[command(subcommand)]
    Model(model::Command),
    /// Look at what is stored, and make room
    #[command(subcommand)]
    Store(store::Command),
    /// Show this node's identity, or all on this machine
    Id(id::Arguments),
    /// Show or check the settings and where each comes from
    #[command(subcommand)]
    Config(config::Command),
    /// Explain lending, asking, and running a swarm, a page each
    #[command(after_help = guide::EXAMPLES)]
    Guide {
        /// Which page [default: a list of them]
        #[arg(value_enum)]
        page: Option<guide::Page>,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  edge completions bash > ~/.local/share/bash-completion/completions/edge"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each command and each page of `edge guide` into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Parses, runs, prints the error chain, gives the exit code.
pub fn main() -> ExitCode {
    names::stay_inside();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe behind `--help` is nobody's problem.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match run(arguments) {
        Ok(exit) => exit.into(),
        // Whoever read our output has had enough, as `head` has.
        Err(error) if error.chain().any(is_closed_pipe) => Exit::Done.into(),
        Err(error) => {
            talk::detach();
            talk::say(&human::chain(error.as_ref()));
            Exit::of(&error).into()
        }
    }
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let Arguments { global, command } = arguments;
    if let Command::Completions { shell } = command {
        // Into memory first: clap_complete panics where its output fails.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "edge", &mut script);
        stdout().write_all(&script)?;
        return Ok(Exit::Done);
    }
    if let Command::Guide { page } = command {
        return guide::run(page);
    }
    if let Command::Man { folder } = command {
        return man::run(Arguments::command(), &folder);
    }
    let context = match &command {
        Command::Embed(embed) => Context::new(&global, embed.settings()),
        Command::Bench(bench) => Context::new(&global, bench.settings()),
        Command::Run(run) => Context::new(&global, run.settings()),
        _ => Context::new(&global, Vec::new()),
    };
    // `config` looks at settings that may be wrong, so it can not need them to be right.
    if let Command::Config(command) = command {
        return config::run(command, context, global.json);
    }
    let context = context?;
    context::outlive_file_limit()?;
    logs::start(&context.config);
    match command {
        Command::Embed(arguments) => embed::run(arguments, &context),
        Command::Run(arguments) => run::run(&arguments, &context),
        Command::Swarm(command) => swarm::run(command, &context),
        Command::Status(arguments) => status::run(&arguments, &context),
        Command::Pause { lasting } => lend::run(&LendOrder::Pause { seconds: lasting }, &context),
        Command::Resume => lend::run(&LendOrder::Resume, &context),
        Command::Finish => lend::run(&LendOrder::Finish, &context),
        Command::Doctor => doctor::run(&context),
        Command::Peers => status::peers(&context),
        Command::Queue(command) => queue::run(command, &context),
        Command::Jobs => queue::jobs(&context),
        Command::Cancel { id } => queue::cancel(id, &context),
        Command::Bench(arguments) => bench::run(&arguments, &context),
        Command::Model(command) => model::run(command, &context),
        Command::Store(command) => store::run(&command, &context),
        Command::Id(arguments) => id::run(&arguments, &context),
        Command::Config(_) | Command::Guide { .. } | Command::Completions { .. } | Command::Man { .. } => {
            Ok(Exit::Done)
        }
    }
}
