//! One device, and what each thing that its sensors say does to the budget.

use super::*;
use crate::proto::budget::{Fault, LocalTime, Memory, Presence, Profile, Supply, Temperature, Throttle};

mod clocks;
mod signals;

const NOON: LocalTime = LocalTime { day: 20_000, weekday: 2, minute: 12 * 60 };
const MAINS: Sensed<Supply> = Sensed::Is(Supply::Mains { charge_permille: None });

/// A board with everything that it could have, at rest, and nobody there.
fn calm() -> Reading {
    Reading {
        cores: 4,
        quota_permille: Sensed::Absent,
        others_permille: Sensed::Is(100),
        ours_permille: Sensed::Is(0),
        pressure_permille: Sensed::Absent,
        memory: Sensed::Is(Memory { available_bytes: 800, total_bytes: 1000 }),
        presence: Sensed::Is(Presence::Idle { for_s: 3600 }),
        supply: MAINS,
        temperature: heat(50_000),
        throttle: Sensed::Is(Throttle { is_under_voltage: false, is_throttled: false }),
        frequency_mhz: Sensed::Absent,
        energy_mj: Sensed::Absent,
        green_milli: Sensed::Is(600_000),
        clock: Sensed::Is(NOON),
    }
}

fn heat(millicelsius: i32) -> Sensed<Temperature> {
    Sensed::Is(Temperature { millicelsius, trip_millicelsius: Some(80_000) })
}

struct Desk {
    policy: Policy,
    ms: u64,
}

impl Desk {
    /// Two seconds after the start, when two readings have come.
    fn new(limits: Limits) -> Self {
        Self::after(limits, Standing::Lending, None)
    }

    fn after(limits: Limits, standing: Standing, wall_ms: Option<u64>) -> Self {
        let mut desk = Self { policy: Policy::new(Timestamp::default(), limits, standing, wall_ms), ms: 0 };
        desk.run(2, &calm());
        desk
    }

    fn gentle() -> Self {
        Self::new(Limits::of(Profile::Gentle))
    }

    fn handle(&mut self, event: Event) -> bool {
        self.policy.handle(Timestamp::from_ms(self.ms), event)
    }

    /// A reading a second, so many times.
    fn run(&mut self, seconds: u64, reading: &Reading) {
        for _ in 0..seconds {
            self.ms += 1000;
            self.handle(Event::Reading(Box::new(reading.clone())));
        }
    }

    /// One reading, a second later.
    fn read(&mut self, reading: Reading) {
        self.run(1, &reading);
    }

    /// Time passes, and what is due is done.
    fn wait(&mut self, seconds: u64) {
        let end = self.ms + seconds * 1000;
        while let Some(at) = self.policy.next_deadline().filter(|at| at.as_ms() <= end) {
            assert!(at.as_ms() > self.ms, "a deadline that has passed");
            self.ms = at.as_ms();
            self.handle(Event::Tick);
        }
        self.ms = end;
    }

    fn codes(&self) -> Vec<&'static str> {
        self.policy.budget().reasons.iter().map(|reason| reason.cause.code()).collect()
    }

    fn said(&self) -> Vec<String> {
        self.policy.budget().reasons.iter().map(ToString::to_string).collect()
    }

    fn share(&self) -> (u16, u16) {
        (self.policy.budget().threads, self.policy.budget().duty_permille)
    }

    fn is_open(&self) -> bool {
        let budget = self.policy.budget();
        assert_eq!(budget.admission == Admission::All, budget.reasons.is_empty());
        assert_eq!(budget.admission == Admission::Nothing, budget.threads == 0 && budget.duty_permille == 0);
        budget.admission == Admission::All
    }
}

/// It closes at once and says so; stays closed while the signal is between its thresholds; and opens `dwell_s` after the
/// cause has gone, not before.
fn closes_and_opens(limits: &Limits, over: &Reading, near: Option<&Reading>, says: &str, dwell_s: u64) {
    let clear = calm();
    let mut desk = Desk::new(limits.clone());
    assert!(desk.is_open(), "{:?}", desk.said());
    if let Some(near) = near {
        desk.run(100, near);
        assert!(desk.is_open(), "near is no reason to stop: {:?}", desk.said());
    }
    desk.read(over.clone());
    assert!(!desk.is_open());
    assert_eq!(desk.said(), [says]);
    let code = desk.codes();
    if let Some(near) = near {
        desk.run(300, near);
        assert!(!desk.is_open(), "near is no reason to begin: {says}");
    }
    desk.run(dwell_s, &clear);
    assert!(!desk.is_open(), "{says}: it has not settled");
    assert_eq!(desk.codes(), code, "the reason stays until it opens");
    assert!(desk.said()[0].ends_with(" a moment ago, resumes in 1 s"), "{:?}", desk.said());
    desk.read(over.clone());
    desk.run(dwell_s, &clear);
    assert!(!desk.is_open(), "{says}: it came back, and settles anew");
    desk.wait(1);
    assert!(desk.is_open(), "{says}: {:?}", desk.said());
}

#[test]
fn nothing_runs_before_two_readings() {
    let limits = Limits::of(Profile::Gentle);
    let mut desk = Desk { policy: Policy::new(Timestamp::default(), limits, Standing::Lending, None), ms: 0 };
    assert_eq!(desk.said(), ["no reading yet"]);
    assert!(!desk.is_open());
    desk.read(calm());
    assert_eq!(desk.said(), ["no reading yet"], "what others use is known from the second one on");
    desk.read(calm());
    assert!(desk.is_open());
    assert_eq!(desk.share(), (4, 1000));
    assert_eq!(desk.policy.budget().memory_bytes, Some(700), "a tenth is left to others");
}

#[test]
fn what_the_device_does_not_have_does_not_bind() {
    let nothing = Reading { cores: 2, ..Reading::default() };
    let mut desk = Desk {
        policy: Policy::new(Timestamp::default(), Limits::of(Profile::IdleOnly), Standing::Lending, None),
        ms: 0,
    };
    desk.run(2, &nothing);
    assert!(desk.is_open(), "{:?}", desk.said());
    assert_eq!((desk.share(), desk.policy.budget().memory_bytes), ((2, 1000), None));
}

#[test]
fn a_machine_in_use_lends_less_or_nothing() {
    let used = Reading { presence: Sensed::Is(Presence::InUse), ..calm() };
    let mut desk = Desk::gentle();
    desk.read(used.clone());
    assert_eq!((desk.is_open(), desk.share()), (true, (1, 500)), "gentle lends a little");
    assert!(desk.policy.budget().is_in_use);
    desk.run(299, &calm());
    assert_eq!(desk.share(), (1, 500), "the sensor forgot him at once, our own watch did not");
    desk.run(11, &calm());
    assert_eq!(desk.share(), (4, 1000));

    let mut desk = Desk::new(Limits::of(Profile::IdleOnly));
    desk.read(used);
    assert_eq!(desk.said(), ["in use, resumes when nobody has been there for 5 min"]);
    assert_eq!(desk.share(), (0, 0));
    desk.run(309, &calm());
    assert_eq!(desk.codes(), ["in_use"]);
    desk.wait(1);
    assert!(desk.is_open());
}

#[test]
fn half_a_core_is_one_thread_at_half_its_time() {
    let mut desk = Desk::gentle();
    desk.read(Reading { quota_permille: Sensed::Is(500), ..calm() });
    assert_eq!((desk.is_open(), desk.share()), (true, (1, 500)));
    desk.read(Reading { quota_permille: Sensed::Is(2500), ..calm() });
    assert_eq!(desk.share(), (1, 500), "more waits");
    desk.run(10, &Reading { quota_permille: Sensed::Is(2500), ..calm() });
    assert_eq!(desk.share(), (3, 833));
    desk.read(Reading { cores: 2, ..calm() });
    assert_eq!(desk.share(), (2, 833), "cores can be taken offline");
}

#[test]
fn an_order_of_the_owner_holds_at_once_and_after_a_restart() {
    let mut desk = Desk::gentle();
    let minute = 60_000;
    let pause = Event::Pause { lasting: Some(Duration::from_secs(1800)), wall_ms: Some(100 * minute) };
    assert!(desk.handle(pause), "the budget has changed");
    assert_eq!((desk.said(), desk.share()), (vec!["paused by you for 30 min more".to_owned()], (0, 0)));
    desk.run(8 * 60, &calm());
    assert_eq!(desk.said(), ["paused by you for 22 min more"]);
    let standing = desk.policy.standing();
    let later = Desk::after(Limits::of(Profile::Gentle), standing, Some(125 * minute));
    assert_eq!(later.said(), ["paused by you for 5 min more"]);
    assert!(Desk::after(Limits::of(Profile::Gentle), standing, Some(130 * minute)).is_open());
    desk.run(22 * 60, &calm());
    assert_eq!((desk.is_open(), desk.policy.standing()), (true, Standing::Lending));

    desk.handle(Event::Finish);
    let budget = desk.policy.budget();
    assert_eq!((budget.admission, budget.threads), (Admission::Begun, 4), "what is begun goes on");
    assert_eq!(desk.said(), ["finishing what is begun, takes more with `edge resume`"]);
    let later = Desk::after(Limits::of(Profile::Gentle), desk.policy.standing(), None);
    assert_eq!(later.policy.budget().admission, Admission::Begun);
    desk.read(Reading { temperature: heat(90_000), ..calm() });
    assert_eq!(desk.codes(), ["finishing", "hot"]);
    assert_eq!(desk.policy.budget().admission, Admission::Nothing, "but not through everything");

    let mut desk = Desk::gentle();
    desk.handle(Event::Pause { lasting: None, wall_ms: None });
    desk.run(100_000, &calm());
    assert_eq!(desk.said(), ["paused by you, resumes with `edge resume`"]);
    assert!(!Desk::after(Limits::of(Profile::Gentle), desk.policy.standing(), None).is_open());
    desk.handle(Event::Resume);
    assert!(desk.is_open(), "nobody waits for his own word");
}

#[test]
fn the_owners_own_work_is_bound_by_heat_and_memory_alone() {
    let mut own =
        Desk { policy: Policy::new(Timestamp::default(), Limits::own(), Standing::Lending, None), ms: 0 };
    let bad = Reading {
        others_permille: Sensed::Is(4000),
        presence: Sensed::Is(Presence::InUse),
        supply: Sensed::Is(Supply::Battery { charge_permille: Some(10) }),
        throttle: Sensed::Is(Throttle { is_under_voltage: true, is_throttled: true }),
        green_milli: Sensed::Absent,
        clock: Sensed::Absent,
        ..calm()
    };
    own.read(bad.clone());
    assert!(own.is_open(), "{:?}", own.said());
    assert_eq!(own.share(), (4, 1000));
    own.read(Reading { temperature: Sensed::Broken(Fault::Nonsense), ..bad.clone() });
    own.handle(Event::Works(true));
    own.wait(1000);
    assert!(own.is_open(), "no sensor that fails stops who waits: {:?}", own.said());
    own.read(Reading { temperature: heat(80_001), ..bad.clone() });
    assert_eq!(own.said(), ["81 °C, resumes below 75 °C"]);
    own.run(11, &bad);
    assert!(own.is_open(), "{:?}", own.said());
    own.read(Reading { memory: Sensed::Is(Memory { available_bytes: 49, total_bytes: 1000 }), ..bad });
    assert_eq!(own.codes(), ["low_memory"]);
}

#[test]
fn a_change_is_told_and_a_number_is_none() {
    let mut desk = Desk::gentle();
    let mut tell = |reading: Reading| {
        desk.ms += 1000;
        desk.handle(Event::Reading(Box::new(reading)))
    };
    assert!(!tell(calm()));
    assert!(tell(Reading { temperature: heat(80_000), ..calm() }));
    assert!(!tell(Reading { temperature: heat(81_000), ..calm() }), "the same cause, hotter");
    assert!(tell(Reading { supply: Sensed::Is(Supply::Battery { charge_permille: None }), ..calm() }));
}

#[test]
fn a_recorded_trace_plays_the_same() {
    let used = Reading { presence: Sensed::Is(Presence::InUse), others_permille: Sensed::Is(3000), ..calm() };
    let pause = Event::Pause { lasting: Some(Duration::from_secs(5)), wall_ms: Some(7) };
    let spent = Spent { day: NOON.day, energy_mj: 5, network_bytes: 6 };
    let of = |reading: &Reading| Event::Reading(Box::new(reading.clone()));
    let mut trace: Vec<(Timestamp, Event)> = Vec::new();
    for event in
        [of(&calm()), of(&calm()), Event::Works(true), of(&used), pause, Event::Spent(spent), of(&calm())]
    {
        trace.push((Timestamp::from_ms(1000 * trace.len() as u64), event));
    }
    trace
        .extend([Event::Finish, Event::Resume, Event::Tick].map(|event| (Timestamp::from_ms(17_000), event)));
    let recorded = postcard::to_allocvec(&trace).unwrap();
    let play = |trace: Vec<(Timestamp, Event)>| {
        let mut policy =
            Policy::new(Timestamp::default(), Limits::of(Profile::Gentle), Standing::Lending, None);
        let mut budgets = Vec::new();
        for (now, event) in trace {
            policy.handle(now, event);
            budgets.push(policy.budget().clone());
        }
        budgets
    };
    let budgets = play(trace);
    assert_eq!(play(postcard::from_bytes(&recorded).unwrap()), budgets);
    assert!(budgets.iter().any(|budget| budget.admission == Admission::Nothing));
    assert!(budgets.iter().any(|budget| budget.admission == Admission::All));
}
