//! The governor: asks the sensors, lets the policy decide, and tells the worker what it may take (DESIGN 7).
//!
//! Deliberately absent: decisions, which are [`Policy`]'s, and files, which are `power`'s. The sensors are read on a thread of
//! their own, which a stuck one holds up alone; while work runs twice a second, else seldom, so that an idle node sleeps.

mod book;
mod sensing;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use book::Book;
use sensing::Sensing;
pub(super) use sensing::moment;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{NodeError, aggregator::wait_until, disk::Disk, valve::Valve, wall_clock_ms};
use crate::{
    power::GreenSource,
    proto::{
        Timestamp,
        budget::{
            Admission, Budget, Draw, Event, Limits, LocalTime, Meter, Policy, Reading, Sensed, Standing,
            Supply, Totals,
        },
    },
    wire::{PowerSource, SwarmId},
};

/// Messages that wait for the actor.
const MESSAGES_MAX: usize = 256;
/// Between two readings while work runs: what changes is seen within it, and has its effect within a second.
const EVERY_WORKING: Duration = Duration::from_millis(500);
/// While nothing may be lent: lending begins again that much later.
const EVERY_CLOSED: Duration = Duration::from_secs(10);
/// While work may run and there is none.
const EVERY_IDLE: Duration = Duration::from_secs(30);
/// Between a reading and the next, however often something is heard.
const LOOKS_APART: Duration = Duration::from_millis(100);
/// Between the first two readings, from which on the CPU that others use is known.
const EVERY_FIRST: Duration = Duration::from_millis(250);
/// Memory that a model takes with one thread; where there is less it is not loaded.
pub(super) const MODEL_BYTES: u64 = 128 << 20;
/// A sensor that takes longer is not asked again meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// How this machine is lent.
#[derive(Clone, Debug)]
pub struct Lending {
    /// What its owner allows.
    pub limits: Limits,
    /// Where the owner's own number is, that says how green the power is.
    pub green: Option<GreenSource>,
}

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Its owner wants it to rest, for so long; `None` until it says otherwise. Answered when the disk has it.
    Pause(Option<Duration>, oneshot::Sender<()>),
    /// … to lend again.
    Resume(oneshot::Sender<()>),
    /// … to complete what is begun and take nothing new.
    Finish(oneshot::Sender<()>),
    /// Something has changed that the sensors see.
    Look,
    /// What a job took.
    Took(Took),
    /// Everything, for people.
    Status(oneshot::Sender<BudgetStatus>),
    /// The node ends: the account goes to the disk.
    Drain(oneshot::Sender<()>),
}

/// What a job of others took, however it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) swarm: SwarmId,
    /// Whether it has a result.
    pub(super) is_right: bool,
    pub(super) chunks: u64,
    pub(super) tokens: u64,
    pub(super) cpu_ms: u64,
    /// Bytes of texts that have come, and of results.
    pub(super) bytes: u64,
}

impl Took {
    pub(super) fn nothing(swarm: SwarmId) -> Self {
        Self { swarm, is_right: false, chunks: 0, tokens: 0, cpu_ms: 0, bytes: 0 }
    }
}

/// What may be taken now, as the worker needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lent {
    pub(super) threads: usize,
    pub(super) duty_permille: u16,
    pub(super) admission: Admission,
    pub(super) power: PowerSource,
    /// What may be taken of the memory, where that is less than a model takes.
    pub(super) memory_bytes: Option<u64>,
    /// When it ends, where that is known.
    pub(super) until: Option<Instant>,
}

impl Lent {
    /// Whether more may be taken.
    pub(super) fn is_open(self) -> bool {
        self.admission == Admission::All
    }
}

/// Everything about lending, for people.
#[derive(Clone, Debug)]
pub struct BudgetStatus {
    /// What may be used, and why no more.
    pub budget: Budget,
    /// What the owner ordered last.
    pub standing: Standing,
    /// What is allowed.
    pub limits: Limits,
    /// What the sensors said last, and how long ago.
    pub reading: Option<(Reading, Duration)>,
    /// What work for others took today …
    pub today: Totals,
    /// … and for which swarm; `None` for all that there was no line for.
    pub today_by_swarm: Vec<(Option<SwarmId>, Totals)>,
    /// What a busy core takes.
    pub draw: Draw,
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(super) struct GovernorHandle(pub(super) mpsc::Sender<Message>);

/// What it hears and says without being asked.
#[derive(Debug)]
pub(super) struct Signals {
    /// Whether work for others runs, or waits to.
    pub(super) works: watch::Receiver<bool>,
    /// Where it says what may be taken …
    pub(super) lent: watch::Sender<Option<Lent>>,
    /// … and what that takes in energy.
    pub(super) draw: watch::Sender<Option<Draw>>,
}

/// The worker's ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) works: watch::Sender<bool>,
    pub(super) lent: watch::Receiver<Option<Lent>>,
    pub(super) draw: watch::Receiver<Option<Draw>>,
}

impl Signals {
    /// With the ends of the worker.
    pub(super) fn new() -> (Self, Ends) {
        let (working, works) = watch::channel(false);
        let (lent, lending) = watch::channel(None);
        let (draw, drawn) = watch::channel(None);
        (Self { works, lent, draw }, Ends { works: working, lent: lending, draw: drawn })
    }
}

pub(super) struct Governor {
    policy: Policy,
    meter: Meter,
    book: Book,
    disk: Disk,
    sensing: Sensing,
    /// The last reading, and when it came.
    reading: Option<(Instant, Reading)>,
    readings: u64,
    /// When the sensors were asked, where they have not answered yet.
    asked: Option<Instant>,
    look_at: Instant,
    works: bool,
    /// What the owner ordered, as the disk has it.
    kept: Standing,
    /// Closed here, so that no thread waits for whatever the worker is busy with.
    valve: Valve,
    signals: Signals,
    begun: Instant,
}

impl Governor {
    /// Starts the actor with what the store has of orders and accounts.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(super) async fn start(
        (lending, root, disk, valve): (Lending, PathBuf, Disk, Valve),
        signals: Signals,
        tasks: &mut JoinSet<Result<(), NodeError>>,
        cancelled: CancellationToken,
    ) -> Result<GovernorHandle, NodeError> {
        let (standing, account) = disk.call(|store| Ok((store.standing()?, store.account()?))).await?;
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (sensing, heard) = Sensing::start(&lending, &root, sender.clone()).map_err(NodeError::Thread)?;
        let begun = Instant::now();
        let actor = Self {
            policy: Policy::new(Timestamp::default(), lending.limits, standing, wall_clock_ms()),
            meter: Meter::new(u64::from(sensing.milliwatts)),
            book: Book::new(account),
            disk,
            sensing,
            reading: None,
            readings: 0,
            asked: None,
            // CPU shares are differences, and not known sooner.
            look_at: begun + EVERY_FIRST,
            kept: standing,
            valve,
            works: false,
            signals,
            begun,
        };
        tasks.spawn_local(actor.run(messages, heard, cancelled));
        Ok(GovernorHandle(sender))
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut heard: mpsc::Receiver<Reading>,
        cancelled: CancellationToken,
    ) -> Result<(), NodeError> {
        self.tell_spent();
        loop {
            self.ask();
            self.say();
            self.keep().await?;
            let deadline = self.deadline();
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                message = messages.recv() => match message {
                    Some(message) => self.take_in(message).await?,
                    None => return Ok(()),
                },
                Some(reading) = heard.recv() => self.read(reading),
                Ok(()) = self.signals.works.changed() => {
                    self.works = *self.signals.works.borrow_and_update();
                    self.tell(Event::Works(self.works));
                    self.book.works(self.works);
                    self.look_soon();
                }
                () = wait_until(deadline) => self.tell(Event::Tick),
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.begun.elapsed().as_millis() as u64)
    }

    fn tell(&mut self, event: Event) {
        let now = self.now();
        if self.policy.handle(now, event) {
            let budget = self.policy.budget();
            let why = budget.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let Budget { threads, duty_permille, .. } = *budget;
            tracing::info!(threads_max = threads, duty_permille, why, "what is lent has changed");
        }
    }

    /// Asks the sensors, where it is time and they have answered before.
    fn ask(&mut self) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| asked + PATIENCE > now) || self.look_at > now {
            return;
        }
        if self.sensing.ask() {
            self.asked = Some(now);
        }
        self.look_at = now + self.every();
    }

    fn every(&self) -> Duration {
        match self.policy.budget().admission {
            _ if self.readings < 2 => EVERY_FIRST,
            Admission::All | Admission::Begun if !self.works => EVERY_IDLE,
            Admission::All | Admission::Begun => EVERY_WORKING,
            Admission::Nothing => EVERY_CLOSED,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let policy = self.policy.next_deadline().map(|at| self.begun + Duration::from_millis(at.as_ms()));
        let look = self.look_at.max(self.asked.map_or(self.look_at, |asked| asked + PATIENCE));
        policy.into_iter().chain([look]).chain(self.book.due()).min()
    }

    fn read(&mut self, reading: Reading) {
        let now = self.now();
        self.asked = None;
        self.readings += 1;
        self.meter.read(now, &reading);
        self.signals.draw.send_replace(Some(self.meter.draw()));
        let day = self.clock_of(&reading).map(|clock| clock.day);
        let is_new_day = day != self.clock().map(|clock| clock.day);
        self.reading = Some((Instant::now(), reading.clone()));
        if is_new_day {
            self.tell_spent();
        }
        self.tell(Event::Reading(Box::new(reading)));
        self.look_at = self.look_at.min(Instant::now() + self.every());
    }

    fn clock_of(&self, reading: &Reading) -> Option<LocalTime> {
        if let Sensed::Is(clock) = reading.clock { Some(clock) } else { None }
    }

    fn clock(&self) -> Option<LocalTime> {
        self.reading.as_ref().and_then(|(_, reading)| self.clock_of(reading))
    }

    fn tell_spent(&mut self) {
        if let Some(spent) = self.book.spent(self.clock()) {
            self.tell(Event::Spent(spent));
        }
    }

    async fn take_in(&mut self, message: Message) -> Result<(), NodeError> {
        match message {
            Message::Pause(lasting, answer) => {
                self.order(Event::Pause { lasting, wall_ms: wall_clock_ms() }, answer).await
            }
            Message::Resume(answer) => self.order(Event::Resume, answer).await,
            Message::Finish(answer) => self.order(Event::Finish, answer).await,
            Message::Look => {
                self.look_soon();
                Ok(())
            }
            Message::Took(took) => {
                let (energy, idle_mj) = self.meter.draw().cost(took.cpu_ms);
                self.book.note(self.clock(), &took, energy, idle_mj);
                self.tell_spent();
                Ok(())
            }
            Message::Status(answer) => {
                let _ = answer.send(self.status());
                // Who looks again sees what is so now.
                self.look_soon();
                Ok(())
            }
            Message::Drain(answer) => {
                self.book.write(&self.disk).await?;
                let _ = answer.send(());
                Ok(())
            }
        }
    }

    /// Sessions may come and go, and people look, as often as they like.
    fn look_soon(&mut self) {
        let (last, now) = (self.reading.as_ref().map(|(at, _)| *at + LOOKS_APART), Instant::now());
        self.look_at = self.look_at.min(last.map_or(now, |last| last.max(now)));
    }

    /// What its owner orders is on the disk before the answer; it has its effect at once.
    async fn order(&mut self, event: Event, answer: oneshot::Sender<()>) -> Result<(), NodeError> {
        self.tell(event);
        self.say();
        self.keep().await?;
        self.look_soon();
        let _ = answer.send(());
        Ok(())
    }

    fn status(&self) -> BudgetStatus {
        BudgetStatus {
            budget: self.policy.budget().clone(),
            standing: self.policy.standing(),
            limits: self.policy.limits().clone(),
            reading: self.reading.as_ref().map(|(at, reading)| (reading.clone(), at.elapsed())),
            today: self.book.today(self.clock()),
            today_by_swarm: self.book.today_by_swarm(self.clock()),
            draw: self.meter.draw(),
        }
    }

    /// Tells the worker, where that has changed; not before anything is known, or what it kept over a restart would go back.
    fn say(&self) {
        if self.readings < 2 && self.policy.standing() == Standing::Lending {
            return;
        }
        let budget = self.policy.budget();
        if budget.admission == Admission::Nothing {
            self.valve.set(0, 1);
        }
        let lent = Lent {
            memory_bytes: budget.memory_bytes.filter(|bytes| *bytes < MODEL_BYTES),
            threads: usize::from(budget.threads),
            duty_permille: budget.duty_permille.max(1),
            admission: budget.admission,
            power: self.power(),
            until: budget.until.map(|at| self.begun + Duration::from_millis(at.as_ms())),
        };
        self.signals.lent.send_if_modified(|before| {
            let is_new = *before != Some(lent);
            *before = Some(lent);
            is_new
        });
    }

    fn power(&self) -> PowerSource {
        let Some((_, reading)) = &self.reading else { return PowerSource::Unknown };
        match reading.supply {
            // Where its owner set a threshold, work runs only above it.
            _ if self.policy.limits().green.is_some() => PowerSource::Green,
            Sensed::Is(Supply::Mains { .. }) => PowerSource::Mains,
            Sensed::Is(Supply::Battery { .. }) => PowerSource::Battery,
            _ => PowerSource::Unknown,
        }
    }

    /// What has changed, and is to outlive this process.
    async fn keep(&mut self) -> Result<(), NodeError> {
        let standing = self.policy.standing();
        // A pause that is over is none after a restart either.
        if standing != self.kept {
            self.disk.call(move |store| store.put_standing(standing)).await?;
            self.kept = standing;
        }
        if self.book.due().is_some_and(|at| at <= Instant::now()) {
            self.book.write(&self.disk).await?;
        }
        Ok(())
    }
}
