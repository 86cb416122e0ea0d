//! Whether somebody uses the machine: logind where there is one, else the terminals.
//!
//! To ask logind wakes it and the bus, so its answer is kept for as long as nothing says otherwise: no signal of its own
//! while a [`SessionWatch`] listens, no keystroke at a terminal, and not longer than half a minute. Without a watch it is
//! asked in every reading.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    described::{Described, State},
    moment::Moment,
    root::{Found, Lack, Root, sensed},
    sessions::{Joined, Sessions},
    terminals::{STAMP_GRAIN, Terminals, Typed},
    vanish::Seen,
    watch::SessionWatch,
};
use crate::proto::budget::{Fault, Presence, Sensed};

/// Where the system bus listens (`/var/run` is a link to `/run` wherever systemd or elogind is).
pub(super) const BUS: &str = "/run/dbus/system_bus_socket";
/// Longest that an answer is kept while a watch listens: a terminal becomes idle without a signal.
const ANSWER_LIFE: Duration = Duration::from_secs(30);
/// After a bus that hung: a reading that waits for it each time would be late itself.
const SILENCE_WAIT: Duration = Duration::from_secs(10);

/// What the watch tells the sensor.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Rises with every sign of a change.
    pub(super) changes: AtomicU64,
    /// The watch is connected and hears them.
    pub(super) is_heard: AtomicBool,
}

/// What logind said, and when.
#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Duration,
    changes: u64,
    said: Found<Joined>,
}

/// The sensor.
#[derive(Debug, Default)]
pub(super) struct PresenceSensor {
    sessions: Sessions,
    terminals: Terminals,
    signals: Arc<Signals>,
    answer: Option<Answer>,
    has_logind: bool,
    seen: Seen,
    said: String,
}

impl PresenceSensor {
    /// What hears of changes at once.
    pub(super) fn watch(&self, root: &Root) -> SessionWatch {
        SessionWatch::new(root.at(BUS), Arc::clone(&self.signals))
    }

    /// Takes at most a second, and that at most every 10 s.
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Sensed<Presence> {
        let typed = self.terminals.read(root, now);
        let answer = self.ask(root, now, typed.is_ok_and(|typed| typed.is_new));
        let found = match answer.said {
            Ok(joined) => {
                self.has_logind = true;
                self.said = format!("logind, {} sessions", joined.counted);
                Ok(presence(now, joined.is_used, joined.since))
            }
            Err(Lack::Missing) if !self.has_logind => typed.map(|typed| {
                let Typed { last, count, .. } = typed;
                self.said = format!("no logind; {count} terminals by their access times");
                // Zero is nobody since the start, not somebody just after it.
                let is_used = !last.is_zero() && now.monotonic.saturating_sub(last) < STAMP_GRAIN;
                presence(now, is_used, last)
            }),
            // Terminals know nothing of a desktop: they do not stand in for a logind that was there.
            Err(lack) => Err(lack),
        };
        self.seen.judge(sensed(found))
    }

    fn ask(&mut self, root: &Root, now: &Moment, is_typed: bool) -> Answer {
        // Before the question: a change while it is under way asks again.
        let changes = self.signals.changes.load(Ordering::Acquire);
        let is_heard = self.signals.is_heard.load(Ordering::Acquire);
        if let Some(answer) = self.answer {
            let age = now.monotonic.saturating_sub(answer.at);
            let is_quiet = is_heard && !is_typed && answer.changes == changes;
            let stands = match answer.said {
                Ok(_) => is_quiet && age < ANSWER_LIFE,
                Err(Lack::Broken(Fault::Stale)) => age < SILENCE_WAIT,
                Err(_) => false,
            };
            if stands {
                return answer;
            }
        }
        let said = self.sessions.ask(&root.at(BUS), now.monotonic).map_err(|error| error.lack());
        let answer = Answer { at: now.monotonic, changes, said };
        self.answer = Some(answer);
        answer
    }

    pub(super) fn describe(&self, said: &Sensed<Presence>) -> Described {
        let worded = |presence: &Presence| match presence {
            Presence::InUse => format!("somebody is there ({})", self.said),
            Presence::Idle { for_s } => format!("nobody for {for_s} s ({})", self.said),
        };
        let lacking = format!("{BUS} (logind), /dev/pts, /dev/tty1");
        Described::new("presence", said, worded, &lacking).mend(|state| match state {
            State::Broken(Fault::Stale) => Some("see why the system bus hangs: busctl list".into()),
            State::Broken(_) => Some("see that systemd-logind runs: loginctl list-sessions".into()),
            _ => None,
        })
    }
}

fn presence(now: &Moment, is_used: bool, since: Duration) -> Presence {
    if is_used {
        Presence::InUse
    } else {
        Presence::Idle { for_s: now.monotonic.saturating_sub(since).as_secs() }
    }
}

#[cfg(test)]
mod tests;
