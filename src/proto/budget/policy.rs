//! Readings and the owner's orders in, the budget for others' work out.
//!
//! Deliberately absent: sensors, clocks and the work itself. What closes, closes at once; what opens waits until the
//! cause has been gone for its dwell time. No more than this is kept of the past, so the same events give the same budget.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Cause, Limits, PauseEnd, Reading, Reason, Sensed, Share, Standing, Timestamp, WeekMinute,
    attendance::Attendance,
    days::{Days, Spent},
    gate::{Gate, Verdict},
    rules::{Rule, View, thousandths},
    sense::Heard,
    shape::{Shape, fit},
};

/// A reading that work runs on may be so old. Readings come every second while it does; who comes back is heard of sooner.
pub const STALE: Duration = Duration::from_secs(5);
/// While none runs the sensors are asked seldom, so that the device sleeps.
pub const STALE_RESTING: Duration = Duration::from_secs(90);
/// The CPU that others used is known from the second reading on.
const READINGS_MIN: u8 = 2;
/// Reasons in a budget at most: every rule, the owner's order, and that nothing is known yet.
pub const REASONS_MAX: usize = Rule::ALL.len() + 2;

/// What happens to the policy; serialisable, so that a device's day can be recorded and played again on a desk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The sensors were read.
    Reading(Box<Reading>),
    /// Work for others begins to run, or all of it has ended. A reading is taken before it begins.
    Works(bool),
    /// What was spent on a day until now: told of the day on the clock before the reading that shows it, and after
    /// whatever was spent.
    Spent(Spent),
    /// The owner wants rest.
    Pause {
        /// For how long; `None` until the owner says otherwise.
        lasting: Option<Duration>,
        /// Wall clock in milliseconds since 1970, where it is set.
        wall_ms: Option<u64>,
    },
    /// The owner takes back pause and finish.
    Resume,
    /// The owner wants what is begun to be completed and nothing more taken.
    Finish,
    /// Time has passed.
    Tick,
}

/// Which work for others may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Any that fits.
    All,
    /// What is begun.
    Begun,
    /// None: what runs stops between two operators.
    Nothing,
}

/// What may be used for others' work at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Compute threads; 0 where nothing may run.
    pub threads: u16,
    /// Share of the time in which each of them runs, in thousandths; 0 where nothing may run.
    pub duty_permille: u16,
    /// Which work may run.
    pub admission: Admission,
    /// Whether the limits for a machine in use hold.
    pub is_in_use: bool,
    /// Bytes that work may take beyond what is taken, as of the last reading; `None` where nobody knows.
    pub memory_bytes: Option<u64>,
    /// When it is known to change, at the earliest: the hours close, or the owner's pause is over.
    pub until: Option<Timestamp>,
    /// Why not all work is admitted; empty where it is. [`REASONS_MAX`] at most, the owner's order first.
    pub reasons: Vec<Reason>,
}

impl Budget {
    /// Whether as much may run, for reasons of the same kind; their numbers may differ.
    fn is_like(&self, other: &Self) -> bool {
        let key = |budget: &Self| (budget.threads, budget.duty_permille, budget.admission, budget.is_in_use);
        let codes = |budget: &Self| {
            budget.reasons.iter().map(|r| (r.cause.code(), r.settles_in_s.is_some())).collect()
        };
        let (one, two): (Vec<_>, Vec<_>) = (codes(self), codes(other));
        key(self) == key(other) && one == two
    }
}

/// Decides what may be lent.
#[derive(Clone, Debug)]
pub struct Policy {
    limits: Limits,
    standing: Standing,
    /// End of the owner's pause, where it has one.
    paused_until: Option<Timestamp>,
    now: Timestamp,
    /// The last reading as it can be used, and when it came.
    reading: Option<(Timestamp, Reading)>,
    /// Readings since the last silence, up to [`READINGS_MIN`].
    in_a_row: u8,
    /// How long the last silence was, in seconds, until readings have come again.
    silence_s: Option<u64>,
    works_since: Option<Timestamp>,
    heard: Heard,
    attendance: Attendance,
    days: Days,
    gates: [Gate; Rule::ALL.len()],
    shape: Shape,
    budget: Budget,
}

impl Policy {
    /// Nothing may run until the sensors were read. `standing` is what the owner ordered in an earlier life, `wall_ms` the
    /// wall clock in milliseconds since 1970 where it is set.
    pub fn new(now: Timestamp, limits: Limits, standing: Standing, wall_ms: Option<u64>) -> Self {
        let paused_until = match standing {
            Standing::Paused { end: Some(end) } => Some(now.after(end.left(wall_ms))),
            _ => None,
        };
        let gates = Rule::ALL.map(|rule| rule.gate(limits.is_own));
        let mut policy = Self {
            limits,
            standing,
            paused_until,
            now,
            reading: None,
            in_a_row: 0,
            silence_s: None,
            works_since: None,
            heard: Heard::default(),
            attendance: Attendance::new(),
            days: Days::default(),
            gates,
            shape: Shape::new(),
            budget: Budget {
                threads: 0,
                duty_permille: 0,
                admission: Admission::Nothing,
                is_in_use: true,
                memory_bytes: None,
                until: None,
                reasons: Vec::new(),
            },
        };
        policy.handle(now, Event::Tick);
        policy
    }

    /// What may be used now.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What is allowed.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the owner ordered last, to be kept over a restart whenever it has changed.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let gates = self.gates.iter().filter_map(Gate::opens_at);
        let silent = self.silent_at().filter(|at| *at > self.now);
        gates.chain(silent).chain(self.paused_until).chain(self.shape.rises_at()).min()
    }

    /// Takes in what happened. Tells whether the budget differs by more than the numbers of its reasons.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> bool {
        self.now = self.now.max(now);
        let now = self.now;
        // Before the reading that ends it: a silence that nobody noticed was one all the same.
        self.note_silence(now);
        match event {
            Event::Reading(reading) => self.read(now, &reading),
            Event::Works(true) => self.works_since = self.works_since.or(Some(now)),
            Event::Works(false) => self.works_since = None,
            Event::Spent(spent) => self.days.tell(spent),
            Event::Pause { lasting, wall_ms } => {
                self.standing =
                    Standing::Paused { end: lasting.map(|lasting| PauseEnd::of(lasting, wall_ms)) };
                self.paused_until = lasting.map(|lasting| now.after(lasting));
            }
            Event::Resume => (self.standing, self.paused_until) = (Standing::Lending, None),
            Event::Finish => (self.standing, self.paused_until) = (Standing::Finishing, None),
            Event::Tick => {}
        }
        // How old a reading may be depends on whether work runs.
        self.note_silence(now);
        if self.paused_until.is_some_and(|end| end <= now) {
            (self.standing, self.paused_until) = (Standing::Lending, None);
        }
        self.judge(now);
        let before = self.decide(now);
        !before.is_like(&self.budget)
    }

    fn read(&mut self, now: Timestamp, reading: &Reading) {
        let reading = self.heard.sane(reading);
        self.attendance.look(now, reading.presence, self.limits.idle_after_s);
        self.reading = Some((now, reading));
        self.in_a_row = self.in_a_row.saturating_add(1).min(READINGS_MIN);
        if self.in_a_row >= READINGS_MIN {
            self.silence_s = None;
        }
    }

    /// When the last reading is too old.
    fn silent_at(&self) -> Option<Timestamp> {
        let (read_at, _) = self.reading.as_ref()?;
        Some(match self.works_since {
            Some(since) => since.max(*read_at).after(STALE),
            None => read_at.after(STALE_RESTING),
        })
    }

    fn note_silence(&mut self, now: Timestamp) {
        let Some((read_at, _)) = self.reading.as_ref().filter(|_| !self.limits.is_own) else { return };
        if self.silent_at().is_none_or(|at| now < at) {
            return;
        }
        self.silence_s = Some(now.since(*read_at).as_secs());
        self.in_a_row = 0;
        // The machine may have slept: what was clear before says nothing of now.
        self.gates.iter_mut().for_each(Gate::restart);
    }

    fn judge(&mut self, now: Timestamp) {
        let Some((_, reading)) = &self.reading else { return };
        let view = View {
            limits: &self.limits,
            reading,
            is_in_use: self.attendance.is_in_use(),
            spent: self.days.on(reading.clock),
        };
        let for_s = self.silence_s;
        for (rule, gate) in Rule::ALL.into_iter().zip(&mut self.gates) {
            let verdict = match rule {
                Rule::Silence if for_s.is_some() => Verdict::Over(Cause::NoReading { for_s }),
                // What was last read is not the state of now: nothing settles by it.
                _ if for_s.is_some() && !gate.is_open() => continue,
                rule => view.verdict(rule),
            };
            gate.judge(now, verdict);
        }
    }

    /// Sets the budget; gives the one before.
    fn decide(&mut self, now: Timestamp) -> Budget {
        let mut reasons: Vec<Reason> = Vec::new();
        let mut say = |reason: Reason| {
            if !reasons.iter().any(|said| said.cause == reason.cause) {
                reasons.push(reason);
            }
        };
        let paused = Cause::Paused { left_s: self.paused_until.map(|end| whole_seconds(end.since(now))) };
        match self.standing {
            Standing::Lending => {}
            Standing::Paused { .. } => say(Reason { cause: paused, settles_in_s: None }),
            Standing::Finishing => say(Reason { cause: Cause::Finishing, settles_in_s: None }),
        }
        let readings_min = if self.limits.is_own { 1 } else { READINGS_MIN };
        let is_blind = self.in_a_row < readings_min;
        if is_blind && self.silence_s.is_none() {
            say(Reason { cause: Cause::NoReading { for_s: None }, settles_in_s: None });
        }
        self.gates.iter().filter_map(|gate| gate.reason(now)).for_each(&mut say);
        let is_open = !is_blind && self.gates.iter().all(Gate::is_open);
        let admission = match self.standing {
            Standing::Lending if is_open => Admission::All,
            Standing::Finishing if is_open => Admission::Begun,
            _ => Admission::Nothing,
        };
        self.aim(now);
        let granted = match admission {
            Admission::Nothing => Share { threads: 0, duty_permille: 0 },
            _ => self.shape.granted(),
        };
        let budget = Budget {
            threads: granted.threads,
            duty_permille: granted.duty_permille,
            admission,
            is_in_use: self.attendance.is_in_use(),
            memory_bytes: self.memory_bytes(),
            until: self.until(admission),
            reasons,
        };
        std::mem::replace(&mut self.budget, budget)
    }

    fn aim(&mut self, now: Timestamp) {
        let Some((_, reading)) = &self.reading else { return };
        let share = if self.attendance.is_in_use() { self.limits.used } else { Some(self.limits.idle) };
        let quota = match reading.quota_permille {
            Sensed::Is(quota) => Some(quota),
            _ => None,
        };
        let is_running = self.budget.admission != Admission::Nothing;
        let nothing = Share { threads: 0, duty_permille: 0 };
        let target = share.map_or(nothing, |share| fit(share, reading.cores, quota));
        self.shape.aim(now, target, is_running);
    }

    fn memory_bytes(&self) -> Option<u64> {
        let (_, reading) = self.reading.as_ref()?;
        let Sensed::Is(memory) = reading.memory else { return None };
        let left = thousandths(memory.total_bytes, u64::from(self.limits.memory_permille));
        Some(memory.available_bytes.saturating_sub(left))
    }

    fn until(&self, admission: Admission) -> Option<Timestamp> {
        if admission == Admission::Nothing {
            return self.paused_until;
        }
        let (read_at, reading) = self.reading.as_ref()?;
        let Sensed::Is(time) = reading.clock else { return None };
        let minutes = self.limits.hours.closes_in(WeekMinute::of(&time))?;
        // The minute on the clock may be all but over.
        Some(read_at.after(Duration::from_secs(60 * u64::from(minutes - 1))))
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
