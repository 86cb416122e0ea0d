//! A device whose sensors say anything, from a seed.

use std::{collections::BTreeMap, time::Duration};

use edge::proto::budget::{
    Event, Fault, Limits, LocalTime, Memory, Presence, Profile, Reading, Sensed, Share, Spent, Supply,
    Temperature, Throttle,
};

/// Whether hours are open at a weekday and a minute.
pub(super) type OpenHours = fn(u8, u16) -> bool;

const HOURS: [(&str, OpenHours); 3] = [
    ("always", |_, _| true),
    ("22:00-07:00", |_, minute| !(420..1320).contains(&minute)),
    ("mon-fri 22:00-07:00, sat-sun 00:00-24:00", |day, minute| match day {
        0 => minute >= 1320,
        1..=4 => !(420..1320).contains(&minute),
        _ => true,
    }),
];
/// Signals that [`Device::swing`] can move.
pub(super) const SIGNALS: usize = 7;
/// A Saturday, so that every week of [`HOURS`] has hours ahead.
const CALM_MINUTE: u16 = 23 * 60;
const FAULTS: [Fault; 4] = [Fault::Nonsense, Fault::Vanished, Fault::Unreadable, Fault::Stale];

/// What happens next.
pub(super) enum Step {
    Event(Event),
    Restart { wall_ms: Option<u64> },
}

pub(super) struct Device {
    rng: fastrand::Rng,
    pub(super) limits: Limits,
    pub(super) hours: OpenHours,
    pub(super) ms: u64,
    reading: Reading,
    /// Bits of the sensors that this device has.
    has: u16,
    /// Minutes that its clock is ahead of the time since the trace began.
    clock_ahead: i64,
    is_clock_set: bool,
    days: BTreeMap<u32, (u64, u64)>,
    /// What is to happen before anything else.
    next: Vec<Step>,
    /// One signal is moved at every reading.
    swinging: Option<usize>,
}

impl Device {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (limits, hours) = limits(&mut rng);
        let has = if rng.bool() { u16::MAX } else { rng.u16(..) };
        let swinging = (rng.u8(..3) == 0).then(|| rng.usize(..SIGNALS));
        let clock_ahead = rng.i64(0..40_000) + 28_000_000;
        let mut device = Self {
            rng,
            limits,
            hours,
            ms: 0,
            reading: Reading::default(),
            has,
            clock_ahead,
            is_clock_set: true,
            days: BTreeMap::new(),
            next: Vec::new(),
            swinging,
        };
        device.calm_reading();
        device.clock();
        device
    }

    /// One with every sensor, under the default limits and a few more, on which nothing happens by itself.
    pub(super) fn gentle() -> Self {
        let mut device = Self::new(0);
        let text = |key: &str| match key {
            "budget.green" => Some("above 500"),
            "budget.battery_percent" => Some("50"),
            "budget.profile" => Some("idle-only"),
            "budget.idle_after_minutes" => Some("0"),
            _ => None,
        };
        device.limits = Limits::resolve(text).unwrap();
        device.has = u16::MAX;
        device.calm_reading();
        device
    }

    pub(super) fn reading(&self) -> Reading {
        self.reading.clone()
    }

    pub(super) fn step(&mut self) -> Step {
        if let Some(step) = self.next.pop() {
            return step;
        }
        self.ms += match self.rng.u8(..40) {
            0 => self.rng.u64(90_000..200_000),
            1 => self.rng.u64(3_600_000..90_000_000),
            2 | 3 => self.rng.u64(5_000..30_000),
            4..=9 => self.rng.u64(0..1000),
            10..=19 => self.rng.u64(1000..5000),
            _ => 1000,
        };
        match self.rng.u8(..40) {
            0 => Step::Event(Event::Works(self.rng.bool())),
            1 => Step::Event(Event::Works(true)),
            2 => Step::Event(self.order()),
            3 if self.rng.bool() => self.restart(),
            4 | 5 => {
                let (energy, bytes) = (self.rng.u64(0..40_000_000), self.rng.u64(0..60_000_000));
                let (day, sum) = (self.day(), self.days.entry(self.day()).or_default());
                *sum = (sum.0 + energy, sum.1 + bytes);
                let spent = Spent { day, energy_mj: sum.0, network_bytes: sum.1 };
                Step::Event(Event::Spent(spent))
            }
            6 => Step::Event(Event::Tick),
            _ => self.read(),
        }
    }

    fn order(&mut self) -> Event {
        let wall_ms = self.wall();
        match self.rng.u8(..6) {
            0 => Event::Finish,
            1 => Event::Pause { lasting: None, wall_ms },
            2 | 3 => Event::Pause { lasting: Some(Duration::from_millis(self.rng.u64(0..100_000))), wall_ms },
            _ => Event::Resume,
        }
    }

    fn wall(&mut self) -> Option<u64> {
        (self.rng.u8(..8) > 0).then_some(1_800_000_000_000 + self.ms)
    }

    fn restart(&mut self) -> Step {
        // A new process is told of the latest day, and of today.
        let latest = self.days.last_key_value().map(|(&day, &sum)| (day, sum));
        let today = (self.day(), self.days.get(&self.day()).copied().unwrap_or_default());
        for (day, (energy_mj, network_bytes)) in latest.into_iter().chain([today]) {
            self.next.push(Step::Event(Event::Spent(Spent { day, energy_mj, network_bytes })));
        }
        Step::Restart { wall_ms: self.wall() }
    }

    fn read(&mut self) -> Step {
        if self.rng.u8(..5) == 0 {
            self.change();
        }
        if let Some(signal) = self.swinging {
            let is_over = self.rng.u8(..8) == 0;
            self.swing(signal, is_over);
        }
        let day = self.day();
        self.clock();
        let read = Step::Event(Event::Reading(Box::new(self.reading())));
        if self.day() == day && self.days.contains_key(&day) {
            return read;
        }
        // Whoever reads the clock tells of its day first.
        self.next.push(read);
        let (energy_mj, network_bytes) = *self.days.entry(self.day()).or_default();
        Step::Event(Event::Spent(Spent { day: self.day(), energy_mj, network_bytes }))
    }

    /// One sensor says something else.
    fn change(&mut self) {
        let rng = &mut self.rng;
        let reading = &mut self.reading;
        let trip_millicelsius = [None, Some(80_000), Some(95_000)][rng.usize(..3)];
        match rng.u8(..20) {
            0 => reading.cores = rng.u16(1..=8),
            1 => reading.quota_permille = some(rng, |rng| rng.u32(1..9000)),
            2 => reading.others_permille = some(rng, |rng| rng.u32(0..9000)),
            3 => {
                reading.memory = some(rng, |rng| Memory {
                    available_bytes: rng.u64(0..1050) << 20,
                    total_bytes: 1000 << 20,
                });
            }
            4 | 5 => {
                reading.presence = some(rng, |rng| match rng.bool() {
                    true => Presence::InUse,
                    false => Presence::Idle { for_s: rng.u64(0..400) },
                });
            }
            6 => {
                reading.supply = some(rng, |rng| match rng.u8(..5) {
                    0 | 1 => Supply::Mains { charge_permille: None },
                    2 => Supply::Battery { charge_permille: None },
                    _ => Supply::Battery { charge_permille: Some(rng.u16(0..1050)) },
                });
            }
            7 => {
                reading.temperature = some(rng, |rng| {
                    let millicelsius = if rng.u8(..10) == 0 { -127_000 } else { rng.i32(40_000..90_000) };
                    Temperature { millicelsius, trip_millicelsius }
                });
            }
            8 => {
                reading.throttle = some(rng, |rng| Throttle {
                    is_under_voltage: rng.bool() && rng.bool(),
                    is_throttled: rng.bool(),
                });
            }
            9 => reading.green_milli = some(rng, |rng| rng.i64(-1_000_000..1_000_000)),
            10 => self.clock_ahead += rng.i64(-3000..3000),
            11 => self.is_clock_set = rng.u8(..4) > 0,
            12 => reading.ours_permille = some(rng, |rng| rng.u32(0..9000)),
            _ => {
                let cores = reading.cores;
                self.calm_reading();
                self.reading.cores = cores;
            }
        }
        self.mask();
    }

    /// One signal goes over its threshold, or to the other side of it.
    pub(super) fn swing(&mut self, signal: usize, is_over: bool) {
        let reading = &mut self.reading;
        let either = |over: i64, clear: i64| if is_over { over } else { clear };
        match signal {
            0 => {
                let millicelsius = either(75_500, 69_500) as i32;
                reading.temperature = Sensed::Is(Temperature { millicelsius, trip_millicelsius: None });
            }
            1 => reading.others_permille = Sensed::Is(u32::from(reading.cores) * either(255, 195) as u32),
            2 => {
                let available_bytes = either(99, 151) as u64;
                reading.memory = Sensed::Is(Memory { available_bytes, total_bytes: 1000 });
            }
            3 => {
                let charge_permille = Some(either(499, 551) as u16);
                reading.supply = Sensed::Is(Supply::Battery { charge_permille });
            }
            4 => reading.green_milli = Sensed::Is(either(499_000, 526_000)),
            5 => {
                let is_throttled = is_over;
                reading.throttle = Sensed::Is(Throttle { is_under_voltage: false, is_throttled });
            }
            _ => {
                let presence = if is_over { Presence::InUse } else { Presence::Idle { for_s: 600 } };
                reading.presence = Sensed::Is(presence);
            }
        }
        self.mask();
    }

    /// What the device never had it has not now.
    fn mask(&mut self) {
        fn keep<T>(sensed: &mut Sensed<T>, has: bool) {
            if !has {
                *sensed = Sensed::Absent;
            }
        }
        let (reading, has) = (&mut self.reading, self.has);
        keep(&mut reading.others_permille, has & 1 > 0);
        keep(&mut reading.memory, has & 2 > 0);
        keep(&mut reading.presence, has & 4 > 0);
        keep(&mut reading.supply, has & 8 > 0);
        keep(&mut reading.temperature, has & 16 > 0);
        keep(&mut reading.throttle, has & 32 > 0);
    }

    fn minutes(&self) -> i64 {
        (self.clock_ahead + (self.ms / 60_000) as i64).max(0)
    }

    fn day(&self) -> u32 {
        match self.reading.clock {
            Sensed::Is(time) => time.day,
            _ => self.days.keys().next_back().copied().unwrap_or(0),
        }
    }

    fn clock(&mut self) {
        let (day, minute) = (self.minutes() / 1440, self.minutes() % 1440);
        let time = LocalTime { day: day as u32, weekday: (day % 7) as u8, minute: minute as u16 };
        self.reading.clock = match (self.is_clock_set, self.rng.u8(..30)) {
            (true, 0) if self.rng.bool() => Sensed::Broken(Fault::Nonsense),
            (true, _) => Sensed::Is(time),
            (false, _) => Sensed::Absent,
        };
    }

    fn calm_reading(&mut self) {
        self.reading = Reading {
            cores: 4,
            quota_permille: Sensed::Absent,
            others_permille: Sensed::Is(50),
            memory: Sensed::Is(Memory { available_bytes: 990, total_bytes: 1000 }),
            presence: Sensed::Is(Presence::Idle { for_s: 100_000 }),
            supply: Sensed::Is(Supply::Mains { charge_permille: Some(500) }),
            temperature: Sensed::Is(Temperature { millicelsius: 40_000, trip_millicelsius: None }),
            throttle: Sensed::Is(Throttle { is_under_voltage: false, is_throttled: false }),
            green_milli: Sensed::Is(600_000),
            clock: self.reading.clock,
            ..Reading::default()
        };
        self.mask();
    }

    /// What must run when all is calm.
    pub(super) fn calm_share(&self) -> Share {
        let Share { threads, duty_permille } = self.limits.idle;
        Share { threads: if threads == 0 { 4 } else { threads.min(4) }, duty_permille }
    }

    /// Every cause goes: a later Saturday night, on which nothing was spent.
    pub(super) fn become_calm(&mut self) -> Vec<Step> {
        self.calm_reading();
        let latest = self.days.keys().next_back().copied().unwrap_or(0);
        let day = (latest / 7 + 2) * 7 + 5;
        self.reading.clock = Sensed::Is(LocalTime { day, weekday: 5, minute: CALM_MINUTE });
        vec![
            Step::Event(Event::Resume),
            Step::Event(Event::Spent(Spent { day, energy_mj: 0, network_bytes: 0 })),
        ]
    }

    pub(super) fn calm_step(&mut self) -> Step {
        self.ms += 4000;
        Step::Event(Event::Reading(Box::new(self.reading())))
    }
}

/// A value, now and then a fault or nothing.
fn some<T>(rng: &mut fastrand::Rng, value: impl Fn(&mut fastrand::Rng) -> T) -> Sensed<T> {
    match rng.u8(..12) {
        0 => Sensed::Broken(FAULTS[rng.usize(..FAULTS.len())]),
        1 => Sensed::Absent,
        _ => Sensed::Is(value(rng)),
    }
}

fn limits(rng: &mut fastrand::Rng) -> (Limits, OpenHours) {
    let (hours, is_open) = HOURS[rng.usize(..HOURS.len())];
    let mut pick = |texts: &[&'static str]| texts[rng.usize(..texts.len())];
    let mut chosen: BTreeMap<&str, &'static str> = BTreeMap::new();
    chosen.insert("budget.profile", pick(&[Profile::Gentle.name(), Profile::IdleOnly.name()]));
    chosen.insert("budget.idle.threads", pick(&["0", "1", "3", "256"]));
    chosen.insert("budget.idle.duty_percent", pick(&["100", "100", "60", "5"]));
    chosen.insert("budget.used.threads", pick(&["0", "1", "2", "none", "none"]));
    chosen.insert("budget.used.duty_percent", pick(&["100", "50", "5"]));
    chosen.insert("budget.idle_after_minutes", pick(&["0", "1", "1", "5"]));
    chosen.insert("budget.others_percent", pick(&["25", "25", "60", "100"]));
    chosen.insert("budget.memory_percent", pick(&["10", "10", "0", "40"]));
    chosen.insert("budget.temperature", pick(&["auto", "auto", "60", "off"]));
    chosen.insert("budget.battery_percent", pick(&["never", "50", "0", "100"]));
    chosen.insert("budget.hours", hours);
    chosen.insert("budget.day_energy_wh", pick(&["0", "0", "20"]));
    chosen.insert("budget.day_network_mb", pick(&["0", "0", "100"]));
    chosen.insert("budget.green", pick(&["", "", "above 500", "below 650"]));
    (Limits::resolve(|key| chosen.get(key).copied()).unwrap(), is_open)
}
