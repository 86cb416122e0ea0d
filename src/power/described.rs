//! What a sensor says of itself to a person.

use crate::proto::budget::{Fault, Sensed};

/// How a sensor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It tells.
    Found,
    /// The device has none, or its system does not tell.
    Absent,
    /// It is there, and what it says cannot be used.
    Broken(Fault),
}

/// One line of `edge doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, one or two lower-case words.
    pub sensor: &'static str,
    /// How it does.
    pub state: State,
    /// Where it stands and what it says, or why there is nothing.
    pub what: String,
    /// What a person can do about it, where anything can be done.
    pub mend: Option<String>,
}

/// Characters of a text from outside that a person gets to see.
const SHOWN_CHARS_MAX: usize = 80;

impl Described {
    /// `found` words a value; `lacking` says what was looked for.
    pub(super) fn new<T>(
        sensor: &'static str,
        sensed: &Sensed<T>,
        found: impl FnOnce(&T) -> String,
        lacking: &str,
    ) -> Self {
        let (state, what) = match sensed {
            Sensed::Is(value) => (State::Found, found(value)),
            Sensed::Absent => (State::Absent, format!("none: {lacking}")),
            Sensed::Broken(fault) => (State::Broken(*fault), format!("{}: {lacking}", word(*fault))),
        };
        Self { sensor, state, what, mend: None }
    }

    /// Says what to do, unless the sensor tells.
    #[must_use]
    pub(super) fn mend(self, how: impl FnOnce(State) -> Option<String>) -> Self {
        let mend = if self.state == State::Found { None } else { how(self.state) };
        Self { mend, ..self }
    }
}

fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Nonsense => "says what cannot be",
        Fault::Vanished => "was there and is gone",
        Fault::Unreadable => "cannot be read",
        Fault::Stale => "is too old or did not answer in time",
    }
}

/// A text from outside, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    let plain = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    plain.chars().map(|c| if c.is_control() { '?' } else { c }).take(SHOWN_CHARS_MAX).collect()
}
