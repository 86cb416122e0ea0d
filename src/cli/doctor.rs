//! `edge doctor`: what this device offers, what is missing, and how to mend it.

use std::{
    fs,
    io::{Write, stdout},
};

use serde_json::json;

use super::{context::Context, exit::Exit, human, node};
use crate::{
    node::{Checked, Described, DescribedState, check_machine, describe_sensors, find_model, wall_clock_ms},
    store::{DirectoryLock, LockError},
};

/// Runs `edge doctor`.
pub(super) fn run(context: &Context) -> anyhow::Result<Exit> {
    let mut lines: Vec<Line> = describe_sensors(&node::lending(context)?, &node::sensors_root())
        .iter()
        .map(Line::of_sensor)
        .collect();
    lines.extend(unset_clock());
    lines.push(store(context));
    lines.push(model(context));
    lines.push(running(context));
    let port = context.config.port().unwrap_or(0);
    lines.extend(check_machine(port, context.config.mdns()).into_iter().map(Line::of_check));
    lines.push(cgroup());
    let is_well = lines.iter().all(|line| line.state != "broken");
    if context.json {
        let all: Vec<_> = lines.iter().map(Line::json).collect();
        writeln!(stdout(), "{}", serde_json::to_string(&all)?)?;
    } else {
        let mut out = stdout().lock();
        for line in &lines {
            writeln!(out, "{:<7} {:<14} {}", line.state, line.name, line.what)?;
            if let Some(mend) = &line.mend {
                writeln!(out, "{:22} -> {mend}", "")?;
            }
        }
    }
    Ok(if is_well { Exit::Done } else { Exit::SomeFailed })
}

struct Line {
    name: String,
    /// `ok`, `none` or `broken`.
    state: &'static str,
    what: String,
    mend: Option<String>,
}

impl Line {
    fn new(name: &str, state: &'static str, what: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, what: what.into(), mend: None }
    }

    fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: Some(mend.into()), ..self }
    }

    fn of_sensor(sensor: &Described) -> Self {
        let state = match sensor.state {
            DescribedState::Found => "ok",
            DescribedState::Absent => "none",
            // Since 2020 only root may read it; nothing depends on it.
            DescribedState::Broken(_) if sensor.sensor == "energy" => "none",
            DescribedState::Broken(_) => "broken",
        };
        let (name, what, mend) = (sensor.sensor.to_owned(), sensor.what.clone(), sensor.mend.clone());
        Self { name, state, what, mend }
    }

    fn of_check(check: Checked) -> Self {
        let state = if check.is_well { "ok" } else { "broken" };
        Self { name: check.name.to_owned(), state, what: check.what, mend: check.mend }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "name": self.name, "state": self.state, "what": self.what, "mend": self.mend })
    }
}

fn unset_clock() -> Option<Line> {
    let mend = "let systemd-timesyncd or chrony set it; hours of the day count as closed until then";
    let what = "earlier than this program: it is not set";
    wall_clock_ms().is_none().then(|| Line::new("clock", "broken", what).mend(mend))
}

fn store(context: &Context) -> Line {
    let directory = context.config.identity_dir();
    let what = directory.display().to_string();
    match context.lock("doctor") {
        Ok(lock) => of_store(context, &lock, what),
        Err(error) => match error.downcast_ref() {
            Some(LockError::Held { holder, .. }) => {
                Line::new("store", "ok", format!("{what}, held by {holder}"))
            }
            _ => Line::new("store", "broken", human::chain(error.as_ref())),
        },
    }
}

fn of_store(context: &Context, lock: &DirectoryLock, what: String) -> Line {
    match context.store(lock) {
        Ok(_) => Line::new("store", "ok", what),
        Err(error) => Line::new("store", "broken", human::chain(error.as_ref())),
    }
}

fn model(context: &Context) -> Line {
    match find_model(context.config.model(), &context.config.data_dir()) {
        Ok(folder) => {
            let name = folder.manifest().name.clone();
            Line::new("model", "ok", format!("{name}; `edge model check` runs its golden texts"))
        }
        Err(error) => Line::new("model", "broken", human::chain(&error)),
    }
}

fn running(context: &Context) -> Line {
    match node::running(context) {
        Ok(Some(_)) => Line::new("node", "ok", "runs; `edge status` shows it"),
        Ok(None) => Line::new("node", "none", "runs not").mend("`edge run` starts one"),
        Err(error) => Line::new("node", "broken", human::chain(error.as_ref())),
    }
}

/// Whether the system lets others go before us even between services: only the weight of a cgroup does that.
fn cgroup() -> Line {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let place = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().trim().to_owned();
    let idle = fs::read_to_string(format!("/sys/fs/cgroup{place}/cpu.idle")).unwrap_or_default();
    match (place.is_empty(), idle.trim()) {
        (true, _) => Line::new("cgroup", "none", "no cgroup v2 here"),
        (_, "1") => Line::new("cgroup", "ok", format!("{place} gives way to all others")),
        _ => Line::new("cgroup", "none", format!("{place} has the weight of any other"))
            .mend("as a systemd service `edge run` gets one that gives way (CPUWeight=idle)"),
    }
}
