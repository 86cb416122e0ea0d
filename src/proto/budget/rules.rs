//! The rules: what each limit makes of a reading, with the margin before work begins again.
//!
//! Deliberately absent: memory of earlier readings, which the gates have. A limit whose sensor is absent does not bind, but
//! hours without a clock and green power without its number count as closed. A sensor that is broken closes what depends
//! on it.
//!
//! Pressure (PSI) is no rule: our own threads wait at the lowest priority, and raise it.

use std::time::Duration;

use super::{
    Cause, Ceiling, Green, Limits, Reading, Sensed, Sensor, Supply, WeekMinute,
    days::Spent,
    gate::{Gate, Verdict},
    sense,
};

/// For what changes from second to second.
const QUICK: Duration = Duration::from_secs(10);
/// For what swings with our own work, and with weather.
const SLOW: Duration = Duration::from_secs(60);
/// A charge that rose by so much is no noise of the gauge.
const CHARGE_MARGIN_PERMILLE: u16 = 50;
/// A processor cools by this within seconds after we stop: more would be pausing for the weather.
const HEAT_MARGIN_MILLICELSIUS: i32 = 5_000;
/// Of the memory in all.
const MEMORY_MARGIN_PERMILLE: u64 = 50;
/// Of the green threshold.
const GREEN_MARGIN_FRACTION: u64 = 20;

/// One rule, in the order in which people should read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Silence,
    InUse,
    Supply,
    Heat,
    Throttle,
    Others,
    Memory,
    Hours,
    DayEnergy,
    DayNetwork,
    Green,
    Quota,
}

impl Rule {
    pub(super) const ALL: [Self; 12] = [
        Self::Silence,
        Self::InUse,
        Self::Supply,
        Self::Heat,
        Self::Throttle,
        Self::Others,
        Self::Memory,
        Self::Hours,
        Self::DayEnergy,
        Self::DayNetwork,
        Self::Green,
        Self::Quota,
    ];

    /// An open gate with the rule's dwell time; who waits for the owner's own work waits no longer than must be.
    pub(super) fn gate(self, is_own: bool) -> Gate {
        Gate::new(match self {
            _ if is_own => QUICK,
            Self::Heat | Self::Throttle | Self::Memory | Self::Green => SLOW,
            _ => QUICK,
        })
    }
}

/// What the rules look at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) limits: &'a Limits,
    /// As [`sense`] lets it through.
    pub(super) reading: &'a Reading,
    /// Whether the limits for a machine in use hold.
    pub(super) is_in_use: bool,
    /// What was spent on the day on the clock; `None` where nothing is left of it.
    pub(super) spent: Option<Spent>,
}

impl View<'_> {
    /// What a rule makes of it; [`Rule::Silence`] is the machine's own.
    pub(super) fn verdict(&self, rule: Rule) -> Verdict {
        let verdict = match rule {
            Rule::Silence => Verdict::Clear,
            Rule::InUse => self.in_use(),
            Rule::Supply => self.supply(),
            Rule::Heat => self.heat(),
            Rule::Throttle => self.throttle(),
            Rule::Others => self.others(),
            Rule::Memory => self.memory(),
            Rule::Hours => self.hours(),
            Rule::DayEnergy => self.day_energy(),
            Rule::DayNetwork => self.day_network(),
            Rule::Green => self.green(),
            Rule::Quota => broken(Sensor::Quota, self.reading.quota_permille).unwrap_or(Verdict::Clear),
        };
        match verdict {
            Verdict::Over(Cause::Broken { .. }) if self.limits.is_own => Verdict::Clear,
            verdict => verdict,
        }
    }

    fn in_use(&self) -> Verdict {
        let Limits { idle, used, idle_after_s, .. } = *self.limits;
        if used == Some(idle) {
            return Verdict::Clear;
        }
        broken(Sensor::Presence, self.reading.presence).unwrap_or(match used {
            None if self.is_in_use => Verdict::Over(Cause::InUse { idle_after_s }),
            _ => Verdict::Clear,
        })
    }

    fn supply(&self) -> Verdict {
        let least = self.limits.battery_permille;
        if least == Some(0) {
            return Verdict::Clear;
        }
        let Sensed::Is(Supply::Battery { charge_permille }) = self.reading.supply else {
            return broken(Sensor::Supply, self.reading.supply).unwrap_or(Verdict::Clear);
        };
        let enough = least.map(|least| least.saturating_add(CHARGE_MARGIN_PERMILLE).min(1000));
        let cause = Cause::OnBattery { charge_permille, resumes_permille: enough };
        match (least.zip(enough), charge_permille) {
            (Some((_, enough)), Some(charge)) if charge >= enough => Verdict::Clear,
            (Some((least, _)), Some(charge)) if charge >= least => Verdict::Near(cause),
            _ => Verdict::Over(cause),
        }
    }

    fn heat(&self) -> Verdict {
        let Sensed::Is(heat) = self.reading.temperature else {
            let broken = broken(Sensor::Temperature, self.reading.temperature);
            return broken.filter(|_| self.limits.ceiling != Ceiling::Off).unwrap_or(Verdict::Clear);
        };
        let ceiling = match self.limits.ceiling {
            Ceiling::Off => return Verdict::Clear,
            Ceiling::At(ceiling) => ceiling,
            Ceiling::BelowTrip { margin, at_most } => {
                sense::trip(heat.trip_millicelsius).map_or(at_most, |trip| (trip - margin).min(at_most))
            }
        };
        let resumes = ceiling - HEAT_MARGIN_MILLICELSIUS;
        let cause = Cause::Hot { millicelsius: heat.millicelsius, resumes_millicelsius: resumes };
        match heat.millicelsius {
            now if now > ceiling => Verdict::Over(cause),
            now if now >= resumes => Verdict::Near(cause),
            _ => Verdict::Clear,
        }
    }

    fn throttle(&self) -> Verdict {
        match self.reading.throttle {
            // The owner who waits has the whole machine, slow or not.
            _ if self.limits.is_own => Verdict::Clear,
            Sensed::Is(flags) if flags.is_under_voltage => Verdict::Over(Cause::UnderVoltage),
            Sensed::Is(flags) if flags.is_throttled => Verdict::Over(Cause::Throttled),
            throttle => broken(Sensor::Throttle, throttle).unwrap_or(Verdict::Clear),
        }
    }

    /// Beyond the share everything stops, and no thread before: at the lowest priority our threads take little from
    /// others at any share, and what is begun on fewer threads only lasts longer. Who looks at the load sees either
    /// nothing of ours or what was agreed.
    fn others(&self) -> Verdict {
        let share = self.limits.others_permille;
        if share >= 1000 {
            return Verdict::Clear;
        }
        let Sensed::Is(used) = self.reading.others_permille else {
            return broken(Sensor::Others, self.reading.others_permille).unwrap_or(Verdict::Clear);
        };
        let permille = u16::try_from(used / u32::from(self.reading.cores)).unwrap_or(1000).min(1000);
        let resumes = share / 5 * 4;
        let cause = Cause::Others { permille, resumes_permille: resumes };
        match permille {
            now if now > share => Verdict::Over(cause),
            now if now > resumes => Verdict::Near(cause),
            _ => Verdict::Clear,
        }
    }

    fn memory(&self) -> Verdict {
        let least = u64::from(self.limits.memory_permille);
        if least == 0 {
            return Verdict::Clear;
        }
        let Sensed::Is(memory) = self.reading.memory else {
            return broken(Sensor::Memory, self.reading.memory).unwrap_or(Verdict::Clear);
        };
        let resumes = thousandths(memory.total_bytes, least + MEMORY_MARGIN_PERMILLE);
        let cause = Cause::Memory { available_bytes: memory.available_bytes, resumes_bytes: resumes };
        match memory.available_bytes {
            now if now < thousandths(memory.total_bytes, least) => Verdict::Over(cause),
            now if now < resumes => Verdict::Near(cause),
            _ => Verdict::Clear,
        }
    }

    fn hours(&self) -> Verdict {
        let hours = &self.limits.hours;
        if hours.is_always() {
            return Verdict::Clear;
        }
        let Sensed::Is(time) = self.reading.clock else {
            return broken(Sensor::Clock, self.reading.clock).unwrap_or(Verdict::Over(Cause::ClockUnset));
        };
        let now = WeekMinute::of(&time);
        match hours.is_open(now) {
            true => Verdict::Clear,
            false => Verdict::Over(Cause::OutsideHours { opens: hours.opens(now) }),
        }
    }

    fn day_energy(&self) -> Verdict {
        let Some(limit_mj) = self.limits.day_energy_mj else { return Verdict::Clear };
        let is_left = self.spent.is_some_and(|spent| spent.energy_mj < limit_mj);
        self.day(is_left, Cause::DayEnergy { limit_mj })
    }

    fn day_network(&self) -> Verdict {
        let Some(limit_bytes) = self.limits.day_network_bytes else { return Verdict::Clear };
        let is_left = self.spent.is_some_and(|spent| spent.network_bytes < limit_bytes);
        self.day(is_left, Cause::DayNetwork { limit_bytes })
    }

    fn day(&self, is_left: bool, cause: Cause) -> Verdict {
        let used_up = if is_left { Verdict::Clear } else { Verdict::Over(cause) };
        broken(Sensor::Clock, self.reading.clock).unwrap_or(used_up)
    }

    fn green(&self) -> Verdict {
        let Some(limit) = self.limits.green else { return Verdict::Clear };
        let margin = |limit: i64| i64::try_from(limit.unsigned_abs() / GREEN_MARGIN_FRACTION).unwrap_or(0);
        let resumes_milli = match limit {
            Green::Above(limit) => limit.saturating_add(margin(limit)),
            Green::Below(limit) => limit.saturating_sub(margin(limit)),
        };
        let Sensed::Is(milli) = self.reading.green_milli else {
            let none = Verdict::Over(Cause::NotGreen { milli: None, resumes_milli });
            return broken(Sensor::Green, self.reading.green_milli).unwrap_or(none);
        };
        let (is_enough, is_plenty) = match limit {
            Green::Above(limit) => (milli >= limit, milli >= resumes_milli),
            Green::Below(limit) => (milli <= limit, milli <= resumes_milli),
        };
        let cause = Cause::NotGreen { milli: Some(milli), resumes_milli };
        match (is_enough, is_plenty) {
            (true, true) => Verdict::Clear,
            (true, false) => Verdict::Near(cause),
            (false, _) => Verdict::Over(cause),
        }
    }
}

fn broken<T>(sensor: Sensor, sensed: Sensed<T>) -> Option<Verdict> {
    match sensed {
        Sensed::Broken(fault) => Some(Verdict::Over(Cause::Broken { sensor, fault })),
        Sensed::Is(_) | Sensed::Absent => None,
    }
}

/// So many thousandths of a number of bytes.
pub(super) fn thousandths(bytes: u64, permille: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}
