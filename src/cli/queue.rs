//! `edge queue`, `edge jobs`, `edge cancel`: the work of others that is here, and the work that was asked for here.

use std::{
    io::{Write, stdout},
    time::Duration,
};

use clap::Subcommand;

use super::{
    context::{Context, stop_on_signals},
    exit::{Exit, UsageError},
    human,
    node::{self, Seat},
    swarm,
    table::Table,
    talk,
};
use crate::{
    api::view::{Count, DeadView, ItemView, JobView, Keys},
    wire::ContentKey,
};

/// `edge queue …`
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the jobs of others that are here
    List,
    /// Show the jobs asked for here that nobody could compute, and why
    Dead,
    /// Let dead letters be tried again when they are asked for: these, or all
    #[command(
        after_help = "Examples:\n  edge queue retry            all\n  edge queue retry 5e3219ad   one, by the beginning of its key"
    )]
    Retry {
        /// Keys, or their beginnings, as `edge queue dead` shows them
        keys: Vec<String>,
    },
    /// Give the jobs of others back that are not begun; somebody else computes them
    Clear,
}

/// Runs `edge queue …`.
pub(super) fn run(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    match Seat::take(context, "queue", &stop)? {
        Seat::Running(mut client) => match command {
            Command::List => list(&client.get::<Vec<ItemView>>("/v1/queue")?, context)?,
            Command::Dead => dead(&client.get::<Vec<DeadView>>("/v1/dead")?, context)?,
            Command::Retry { keys } => {
                raised(client.post::<_, Count>("/v1/dead/retry", &Keys { keys })?.count)
            }
            Command::Clear => {
                let count = client.post::<_, Count>("/v1/queue/give-back", &())?.count;
                talk::say(&format!("gave back {}", human::count(count, "job")));
            }
        },
        // What the store has of it, where nobody else does.
        Seat::Alone(mut alone) => match command {
            Command::List => {
                let items: Vec<ItemView> =
                    alone.store.queue()?.iter().map(|(_, item)| ItemView::of(item)).collect();
                list(&items, context)?;
            }
            Command::Dead => {
                let letters = alone.store.dead_letters()?;
                let letters: Vec<DeadView> =
                    letters.iter().map(|(key, letter)| DeadView::of(key, letter)).collect();
                dead(&letters, context)?;
            }
            Command::Retry { keys } => {
                let all: Vec<ContentKey> =
                    alone.store.dead_letters()?.into_iter().map(|(key, _)| key).collect();
                let meant = Keys { keys }.of(&all).map_err(UsageError)?;
                raised(alone.store.raise(&meant)?);
            }
            Command::Clear => return Ok(node::not_running("nothing can be given back")),
        },
    }
    Ok(Exit::Done)
}

fn raised(count: u64) {
    talk::say(&format!("{} will be tried again when asked for", human::count(count, "job")));
}

fn list(items: &[ItemView], context: &Context) -> anyhow::Result<()> {
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(items)?)?;
        return Ok(());
    }
    if items.is_empty() {
        talk::say("nothing of others is here");
        return Ok(());
    }
    let mut table = Table::new(&["job", "of", "state", "tokens"]);
    for item in items {
        let state = if item.alone { format!("{}, alone", item.state) } else { item.state.clone() };
        let (key, of) = (swarm::short(&item.key).to_owned(), swarm::short(&item.aggregator).to_owned());
        table.row([key, of, state, human::number(u64::from(item.tokens))]);
    }
    write!(stdout(), "{table}")?;
    Ok(())
}

fn dead(letters: &[DeadView], context: &Context) -> anyhow::Result<()> {
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(letters)?)?;
        return Ok(());
    }
    if letters.is_empty() {
        talk::say("there are no dead letters");
    }
    for letter in letters {
        let title = human::tail(&letter.title, 30);
        writeln!(stdout(), "{}  {title}: {}", swarm::short(&letter.key), letter.reason)?;
    }
    Ok(())
}

/// Runs `edge jobs`.
pub(super) fn jobs(context: &Context) -> anyhow::Result<Exit> {
    let Some(mut client) = node::running(context)? else {
        return Ok(node::not_running("no command asks it for anything"));
    };
    let jobs: Vec<JobView> = client.get("/v1/jobs")?;
    if context.json {
        writeln!(stdout(), "{}", serde_json::to_string(&jobs)?)?;
        return Ok(Exit::Done);
    }
    if jobs.is_empty() {
        talk::say("no command asks this node for anything");
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["id", "what", "swarm", "since", "open", "done", "chunks"]);
    for job in jobs {
        table.row([
            job.id.to_string(),
            human::tail(&job.title, 24),
            human::tail(&job.swarm, 12),
            human::duration(Duration::from_secs(job.since_s)),
            human::number(job.open),
            human::number(job.done),
            human::number(job.chunks),
        ]);
    }
    write!(stdout(), "{table}")?;
    Ok(Exit::Done)
}

/// Runs `edge cancel`.
pub(super) fn cancel(id: u64, context: &Context) -> anyhow::Result<Exit> {
    let Some(mut client) = node::running(context)? else {
        return Ok(node::not_running("there is nothing to cancel"));
    };
    let _: Count = client.post(&format!("/v1/jobs/{id}/cancel"), &())?;
    talk::say(&format!("cancelled {id}; what was computed is kept"));
    Ok(Exit::Done)
}
