//! What a second of our CPU takes: by the machine's counter where it has one, else by a figure for its kind.
//!
//! A counter counts all of the machine. Between two readings its energy is taken to be what the machine takes when nothing
//! runs, and beyond that the share of it that our CPU time has in all CPU time. Deliberately absent: counters.

use super::{Reading, Sensed, Timestamp};
use crate::wire::{Energy, EnergySource};

/// Below so much CPU in all, in thousandths of a core, the machine counts as idle; and nothing of its energy is ours.
const IDLE_PERMILLE: u32 = 100;
/// Two readings that are closer say little, for counters step.
const SPAN_MS_MIN: u64 = 400;
/// Two that are further apart say little of now.
const SPAN_MS_MAX: u64 = 60_000;
/// No processor that lends itself takes more, in milliwatts a core: what says so is a counter gone wrong.
const MILLIWATTS_MAX: u64 = 100_000;

/// What one of our cores takes while it is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Beyond what the machine takes idle, in milliwatts.
    pub milliwatts: u64,
    /// Its part of what the machine takes idle, in milliwatts.
    pub idle_milliwatts: u64,
    /// Where that is from.
    pub source: EnergySource,
}

impl Draw {
    /// What so much CPU time takes, and the idle part beside it in millijoules.
    pub fn cost(&self, cpu_ms: u64) -> (Energy, u64) {
        let mj = |milliwatts: u64| cpu_ms.saturating_mul(milliwatts) / 1000;
        (Energy { mj: mj(self.milliwatts), source: self.source }, mj(self.idle_milliwatts))
    }
}

/// Follows readings.
#[derive(Clone, Debug)]
pub struct Meter {
    draw: Draw,
    last: Option<(Timestamp, u64)>,
    /// What the machine takes when nothing runs, as a moving mean in milliwatts.
    idle: Option<u64>,
}

impl Meter {
    /// `milliwatts`: what a busy core takes by the figure for this kind of machine, until a counter says better.
    pub fn new(milliwatts: u64) -> Self {
        let draw = Draw { milliwatts, idle_milliwatts: 0, source: EnergySource::Model };
        Self { draw, last: None, idle: None }
    }

    /// What our CPU takes, by the last reading that told.
    pub fn draw(&self) -> Draw {
        self.draw
    }

    /// Takes in a reading.
    pub fn read(&mut self, now: Timestamp, reading: &Reading) {
        let Sensed::Is(mj) = reading.energy_mj else {
            self.last = None;
            return;
        };
        let Some((then, before)) = self.last else {
            self.last = Some((now, mj));
            return;
        };
        let span_ms = u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX);
        if span_ms < SPAN_MS_MIN {
            return;
        }
        self.last = Some((now, mj));
        let (Some(spent), true) = (mj.checked_sub(before), span_ms <= SPAN_MS_MAX) else { return };
        let (Sensed::Is(ours), Sensed::Is(others)) = (reading.ours_permille, reading.others_permille) else {
            return;
        };
        let milliwatts = spent.saturating_mul(1000) / span_ms;
        let busy = u64::from(ours) + u64::from(others);
        if milliwatts > MILLIWATTS_MAX.saturating_mul(u64::from(reading.cores.max(1))) {
            return;
        }
        if busy < u64::from(IDLE_PERMILLE) {
            self.idle = Some(self.idle.map_or(milliwatts, |idle| mean(idle, milliwatts)));
            return;
        }
        if ours < IDLE_PERMILLE {
            return;
        }
        // Until the machine was seen idle, all that it takes counts as the work's: too much rather than too little.
        let idle = self.idle.unwrap_or(0).min(milliwatts);
        let of_core = |milliwatts: u64| milliwatts.saturating_mul(1000) / busy;
        let (work, beside) = (of_core(milliwatts - idle), of_core(idle));
        let is_first = self.draw.source == EnergySource::Model;
        let (work, beside) = match is_first {
            true => (work, beside),
            false => (mean(self.draw.milliwatts, work), mean(self.draw.idle_milliwatts, beside)),
        };
        self.draw = Draw { milliwatts: work, idle_milliwatts: beside, source: EnergySource::Counter };
    }
}

fn mean(before: u64, now: u64) -> u64 {
    before.saturating_mul(4).saturating_add(now) / 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::budget::Fault;

    fn reading(mj: Sensed<u64>, ours: u32, others: u32) -> Reading {
        let (ours_permille, others_permille) = (Sensed::Is(ours), Sensed::Is(others));
        Reading { cores: 4, energy_mj: mj, ours_permille, others_permille, ..Reading::default() }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(seconds * 1000)
    }

    #[test]
    fn a_counter_is_shared_by_cpu_time_beyond_what_the_machine_takes_idle() {
        let mut meter = Meter::new(1234);
        assert_eq!(meter.draw().cost(2000), (Energy { mj: 2468, source: EnergySource::Model }, 0));
        // Idle at 2 W; then two cores of ours and one of others make 8 W of it.
        meter.read(at(0), &reading(Sensed::Is(0), 0, 50));
        meter.read(at(10), &reading(Sensed::Is(20_000), 0, 50));
        assert_eq!(meter.draw().source, EnergySource::Model, "nothing of ours has run");
        meter.read(at(11), &reading(Sensed::Is(28_000), 2000, 1000));
        let draw = Draw { milliwatts: 2000, idle_milliwatts: 666, source: EnergySource::Counter };
        assert_eq!(meter.draw(), draw);
        assert_eq!(meter.draw().cost(500).0.mj, 1000);
    }

    #[test]
    fn a_counter_that_goes_wrong_says_nothing() {
        let mut meter = Meter::new(1000);
        let before = meter.draw();
        let wrong = [
            (1, Sensed::Is(5000)),
            (2, Sensed::Is(10)),
            (3, Sensed::Broken(Fault::Nonsense)),
            (4, Sensed::Is(10)),
            // A thousand kilowatts, and a reading after a night of sleep.
            (5, Sensed::Is(1_000_000_000)),
            (40_000, Sensed::Is(1_000_400_000)),
        ];
        for (seconds, mj) in wrong {
            meter.read(at(seconds), &reading(mj, 1000, 0));
            assert_eq!(meter.draw(), before, "{seconds}");
        }
        meter.read(Timestamp::from_ms(40_000_100), &reading(Sensed::Is(1_000_500_000), 1000, 0));
        assert_eq!(meter.draw(), before, "too close to say anything");
    }
}
