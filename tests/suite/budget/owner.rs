//! Whoever owns the device and looks at it himself: what must not run now, said again in other words than the policy's.

use std::collections::{BTreeMap, BTreeSet};

use edge::proto::budget::{
    Cause, Ceiling, Event, Fault, Green, Limits, Presence, Reading, Sensed, Sensor, Share, Supply,
};

use super::trace::{Device, OpenHours};

/// Causes that share a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Order,
    Silence,
    InUse,
    Supply,
    Heat,
    Throttle,
    Others,
    Memory,
    Clock,
    Green,
    Quota,
}

impl Group {
    const ALL: [Self; 11] = [
        Self::Order,
        Self::Silence,
        Self::InUse,
        Self::Supply,
        Self::Heat,
        Self::Throttle,
        Self::Others,
        Self::Memory,
        Self::Clock,
        Self::Green,
        Self::Quota,
    ];

    /// `None` for what needs no proof: nothing was read yet, or it is being finished.
    pub(super) fn of(cause: &Cause) -> Option<Self> {
        Some(match cause {
            Cause::Finishing | Cause::NoReading { for_s: None } => return None,
            Cause::Paused { .. } => Self::Order,
            Cause::NoReading { .. } => Self::Silence,
            Cause::InUse { .. } | Cause::Broken { sensor: Sensor::Presence, .. } => Self::InUse,
            Cause::OnBattery { .. } | Cause::Broken { sensor: Sensor::Supply, .. } => Self::Supply,
            Cause::Hot { .. } | Cause::Broken { sensor: Sensor::Temperature, .. } => Self::Heat,
            Cause::UnderVoltage | Cause::Throttled | Cause::Broken { sensor: Sensor::Throttle, .. } => {
                Self::Throttle
            }
            Cause::Others { .. } | Cause::Broken { sensor: Sensor::Others, .. } => Self::Others,
            Cause::Memory { .. } | Cause::Broken { sensor: Sensor::Memory, .. } => Self::Memory,
            Cause::OutsideHours { .. }
            | Cause::ClockUnset
            | Cause::DayEnergy { .. }
            | Cause::DayNetwork { .. } => Self::Clock,
            Cause::Broken { sensor: Sensor::Clock, .. } => Self::Clock,
            Cause::NotGreen { .. } | Cause::Broken { sensor: Sensor::Green, .. } => Self::Green,
            Cause::Broken { sensor: Sensor::Quota, .. } => Self::Quota,
        })
    }

    pub(super) fn dwell_ms(self) -> u64 {
        match self {
            Self::Order => 0,
            Self::Heat | Self::Throttle | Self::Memory | Self::Green => 60_000,
            _ => 10_000,
        }
    }
}

/// What the owner sees at one moment.
pub(super) struct Sight {
    /// For these nothing may run.
    pub(super) over: Vec<Group>,
    /// For these nothing may begin.
    pub(super) near: Vec<Group>,
    pub(super) share: Option<Share>,
    pub(super) quota_permille: u32,
    pub(super) is_in_use: bool,
    pub(super) is_finishing: bool,
    pub(super) is_silent: bool,
}

pub(super) struct Owner {
    limits: Limits,
    hours: OpenHours,
    last: Option<(u64, Reading)>,
    /// Readings without a silence between them.
    in_a_row: u32,
    works_since: Option<u64>,
    in_use_at: Option<u64>,
    is_in_use: bool,
    heard: BTreeSet<Sensor>,
    /// Energy and bytes of every day that was ever told.
    days: BTreeMap<u32, (u64, u64)>,
    /// Until when the owner wants rest.
    rest: Option<u64>,
    /// How long that is in all, and when it ends by the clock on the wall, which shows the same time as ours.
    length: Option<(u64, Option<u64>)>,
    is_finishing: bool,
    not_clear: BTreeMap<Group, u64>,
}

impl Owner {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            limits: device.limits.clone(),
            hours: device.hours,
            last: None,
            in_a_row: 0,
            works_since: None,
            in_use_at: None,
            is_in_use: true,
            heard: BTreeSet::new(),
            days: BTreeMap::new(),
            rest: None,
            length: None,
            is_finishing: false,
            not_clear: BTreeMap::new(),
        }
    }

    /// The program starts anew; the owner's word stands.
    pub(super) fn restart(&mut self, ms: u64, wall_ms: Option<u64>) {
        if !self.is_paused(ms) {
            self.rest = None;
        }
        if let (Some(until), Some((length, wall_until))) = (&mut self.rest, self.length) {
            *until = wall_until.filter(|_| wall_ms.is_some()).unwrap_or(ms + length);
        }
        (self.last, self.in_a_row, self.works_since, self.in_use_at) = (None, 0, None, None);
        (self.is_in_use, self.heard) = (true, BTreeSet::new());
        self.not_clear.clear();
    }

    pub(super) fn is_paused(&self, ms: u64) -> bool {
        self.rest.is_some_and(|until| ms < until)
    }

    pub(super) fn last_not_clear(&self, group: Group) -> u64 {
        self.not_clear.get(&group).copied().unwrap_or(0)
    }

    pub(super) fn hear(&mut self, ms: u64, event: &Event) {
        if self.is_silent(ms) {
            self.in_a_row = 0;
            // Nobody saw whether it stayed clear.
            for group in Group::ALL {
                self.not_clear.insert(group, ms);
            }
            self.not_clear.remove(&Group::Order);
        }
        match event {
            Event::Reading(reading) => self.read(ms, reading),
            Event::Works(true) => self.works_since = self.works_since.or(Some(ms)),
            Event::Works(false) => self.works_since = None,
            Event::Spent(spent) => {
                let day = self.days.entry(spent.day).or_default();
                *day = (day.0.max(spent.energy_mj), day.1.max(spent.network_bytes));
            }
            Event::Pause { lasting, wall_ms } => {
                let length = lasting.map(|lasting| lasting.as_millis() as u64);
                self.rest = Some(length.map_or(u64::MAX, |length| ms + length));
                self.length = length.map(|length| (length, wall_ms.map(|_| ms + length)));
                self.is_finishing = false;
            }
            Event::Resume => (self.rest, self.is_finishing) = (None, false),
            Event::Finish => (self.rest, self.is_finishing) = (None, true),
            Event::Tick => {}
        }
        let sight = self.look(ms);
        for group in sight.over.iter().chain(&sight.near) {
            self.not_clear.insert(*group, ms);
        }
    }

    fn read(&mut self, ms: u64, reading: &Reading) {
        self.last = Some((ms, reading.clone()));
        self.in_a_row += 1;
        for (sensor, is_there) in [
            (Sensor::Others, matches!(reading.others_permille, Sensed::Is(_))),
            (
                Sensor::Memory,
                matches!(reading.memory, Sensed::Is(memory) if memory.available_bytes <= memory.total_bytes),
            ),
            (Sensor::Presence, matches!(reading.presence, Sensed::Is(_))),
            (
                Sensor::Supply,
                matches!(reading.supply, Sensed::Is(supply) if charge(supply).is_none_or(|c| c <= 1000)),
            ),
            (
                Sensor::Temperature,
                matches!(reading.temperature, Sensed::Is(heat) if heat.millicelsius > -40_000),
            ),
            (Sensor::Throttle, matches!(reading.throttle, Sensed::Is(_))),
        ] {
            if is_there {
                self.heard.insert(sensor);
            }
        }
        let idle_after_s = self.limits.idle_after_s;
        if reading.presence == Sensed::Is(Presence::InUse) {
            self.in_use_at = Some(ms);
        }
        let was_here = self.in_use_at.is_some_and(|at| ms - at < idle_after_s * 1000);
        self.is_in_use = match reading.presence {
            Sensed::Is(Presence::InUse) | Sensed::Broken(_) => true,
            Sensed::Is(Presence::Idle { for_s }) => for_s < idle_after_s || (was_here && self.is_in_use),
            Sensed::Absent => self.heard.contains(&Sensor::Presence),
        };
    }

    /// Nobody has looked for too long.
    fn is_silent(&self, ms: u64) -> bool {
        let Some((at, _)) = &self.last else { return false };
        match self.works_since {
            Some(since) => ms - *at.max(&since) >= 5_000,
            None => ms - at >= 90_000,
        }
    }

    pub(super) fn look(&self, ms: u64) -> Sight {
        let quota = |reading: &Reading| match reading.quota_permille {
            Sensed::Is(quota) => quota,
            _ => u32::MAX,
        };
        let mut sight = Sight {
            over: Vec::new(),
            near: Vec::new(),
            share: None,
            quota_permille: self.last.as_ref().map_or(u32::MAX, |(_, reading)| quota(reading)),
            is_in_use: self.is_in_use,
            is_finishing: self.is_finishing,
            is_silent: self.in_a_row < 2,
        };
        if self.is_paused(ms) {
            sight.over.push(Group::Order);
        }
        if self.in_a_row < 2 || self.is_silent(ms) {
            sight.over.push(Group::Silence);
        }
        let Some((_, reading)) = &self.last else { return sight };
        let share = if self.is_in_use { self.limits.used } else { Some(self.limits.idle) };
        sight.share = share.map(|share| {
            let threads = if share.threads == 0 { reading.cores } else { share.threads.min(reading.cores) };
            Share { threads, ..share }
        });
        for (group, height) in self.heights(reading, share) {
            match height {
                Height::Over => sight.over.push(group),
                Height::Near => sight.near.push(group),
                Height::Clear => {}
            }
        }
        sight
    }

    fn heights(&self, reading: &Reading, share: Option<Share>) -> [(Group, Height); 9] {
        let limits = &self.limits;
        let gone = |sensor| self.heard.contains(&sensor);
        let others = sense(reading.others_permille, gone(Sensor::Others), |used| {
            let share = f64::from(used) / f64::from(reading.cores) / f64::from(limits.others_permille);
            height(share.min(1e9).floor_to(f64::from(limits.others_permille)), 1.0, 0.8)
        });
        let supply =
            sense(reading.supply, gone(Sensor::Supply), |supply| match (supply, limits.battery_permille) {
                (Supply::Mains { .. }, _) => Height::Clear,
                (_, None) => Height::Over,
                (Supply::Battery { charge_permille: None }, _) => Height::Over,
                (Supply::Battery { charge_permille: Some(1001..) }, _) => Height::Over,
                (Supply::Battery { charge_permille: Some(charge) }, Some(least)) => {
                    height(-f64::from(charge), -f64::from(least), -f64::from((least + 50).min(1000)))
                }
            });
        let heat = sense(reading.temperature, gone(Sensor::Temperature), |heat| {
            let trip = heat.trip_millicelsius.unwrap_or(i32::MAX);
            let ceiling = match limits.ceiling {
                Ceiling::Off => return Height::Clear,
                Ceiling::At(ceiling) => ceiling,
                Ceiling::BelowTrip { margin, at_most } => trip.saturating_sub(margin).min(at_most),
            };
            match heat.millicelsius {
                ..-40_000 => Height::Over,
                now if now == ceiling - 5_000 => Height::Near,
                now => height(f64::from(now), f64::from(ceiling), f64::from(ceiling - 5_000)),
            }
        });
        let memory = sense(reading.memory, gone(Sensor::Memory), |memory| {
            let left = memory.available_bytes as f64 / memory.total_bytes as f64 * 1000.0;
            let least = f64::from(limits.memory_permille);
            if left > 1000.0 { Height::Over } else { height(-left, -least, -(least + 50.0)) }
        });
        let throttle = sense(reading.throttle, gone(Sensor::Throttle), |flags| {
            if flags.is_under_voltage || flags.is_throttled { Height::Over } else { Height::Clear }
        });
        let in_use = match share {
            _ if limits.used == Some(limits.idle) => Height::Clear,
            None => Height::Over,
            Some(_) => sense(reading.presence, gone(Sensor::Presence), |_| Height::Clear),
        };
        let unless = |never: bool, height| if never { Height::Clear } else { height };
        [
            (Group::Others, unless(limits.others_permille >= 1000, others)),
            (Group::Supply, unless(limits.battery_permille == Some(0), supply)),
            (Group::Heat, unless(limits.ceiling == Ceiling::Off, heat)),
            (Group::Memory, unless(limits.memory_permille == 0, memory)),
            (Group::Throttle, throttle),
            (Group::InUse, in_use),
            (Group::Clock, self.clock(reading)),
            (Group::Green, self.green(reading)),
            (Group::Quota, sense(reading.quota_permille, false, |_| Height::Clear)),
        ]
    }

    fn clock(&self, reading: &Reading) -> Height {
        let limits = &self.limits;
        let has_days = limits.day_energy_mj.is_some() || limits.day_network_bytes.is_some();
        let is_open = match reading.clock {
            Sensed::Is(time) => (self.hours)(time.weekday, time.minute),
            Sensed::Absent => limits.hours.is_always(),
            Sensed::Broken(_) => limits.hours.is_always() && !has_days,
        };
        let latest = self.days.keys().next_back().copied().unwrap_or(0);
        let day = match reading.clock {
            Sensed::Is(time) => time.day,
            _ => latest,
        };
        let (energy, bytes) = self.days.get(&day).copied().unwrap_or_default();
        let is_left = limits.day_energy_mj.is_none_or(|limit| energy < limit)
            && limits.day_network_bytes.is_none_or(|limit| bytes < limit);
        if is_open && is_left { Height::Clear } else { Height::Over }
    }

    fn green(&self, reading: &Reading) -> Height {
        match (self.limits.green, reading.green_milli) {
            (None, _) => Height::Clear,
            (Some(_), Sensed::Absent | Sensed::Broken(_)) => Height::Over,
            (Some(Green::Above(least)), Sensed::Is(now)) => {
                height(-(now as f64), -(least as f64), -(least as f64 * 1.05))
            }
            (Some(Green::Below(most)), Sensed::Is(now)) => {
                height(now as f64, most as f64, most as f64 * 0.95)
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Height {
    Over,
    Near,
    Clear,
}

/// Over is above the limit, clear at `resumes` or below it.
fn height(now: f64, limit: f64, resumes: f64) -> Height {
    match now {
        now if now > limit => Height::Over,
        now if now > resumes => Height::Near,
        _ => Height::Clear,
    }
}

fn sense<T: Copy>(sensed: Sensed<T>, was_heard: bool, judge: impl Fn(T) -> Height) -> Height {
    match sensed {
        Sensed::Is(value) => judge(value),
        Sensed::Absent if !was_heard => Height::Clear,
        Sensed::Absent
        | Sensed::Broken(Fault::Nonsense | Fault::Vanished | Fault::Unreadable | Fault::Stale) => {
            Height::Over
        }
    }
}

fn charge(supply: Supply) -> Option<u16> {
    match supply {
        Supply::Battery { charge_permille } => charge_permille,
        Supply::Mains { .. } => None,
    }
}

trait FloorTo {
    /// Whole thousandths, as the policy counts them.
    fn floor_to(self, limit: f64) -> f64;
}

impl FloorTo for f64 {
    fn floor_to(self, limit: f64) -> f64 {
        (self * limit).min(1000.0).floor() / limit
    }
}
