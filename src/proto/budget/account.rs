//! What work for others took, by calendar day and swarm.
//!
//! Deliberately absent: meters, and the disk. A cost is booked on the day that the clock shows, whichever way the clock
//! went, and on the latest day where it is not set: a day's total is found again, and none is begun by guessing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LocalTime, Spent};
use crate::wire::{Energy, EnergySource, SwarmId};

/// Days that are kept: a year and what its owner compares it with. The earliest is forgotten first.
pub const DAYS_MAX: usize = 400;
/// Swarms that are told apart on a day; what comes from others stands together.
pub const SWARMS_MAX: usize = 64;

/// What something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Jobs that ended well.
    pub jobs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Their tokens.
    pub tokens: u64,
    /// CPU time of the compute threads in milliseconds.
    pub cpu_ms: u64,
    /// Energy beyond what the machine would have taken idle; `None` where nobody measured or reckoned it.
    pub energy: Option<Energy>,
    /// Energy that the machine would have taken meanwhile in any case, in millijoules.
    pub idle_mj: u64,
    /// Bytes sent and received.
    pub network_bytes: u64,
}

/// Sums of costs. They stay at the greatest number rather than begin anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs that ended well.
    pub jobs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Their tokens.
    pub tokens: u64,
    /// CPU time of the compute threads in milliseconds.
    pub cpu_ms: u64,
    /// Energy by a counter of the machine, in millijoules, without the idle share.
    pub counted_mj: u64,
    /// Energy by a model of the device, in millijoules, without the idle share.
    pub modelled_mj: u64,
    /// Energy that the machine would have taken idle, in millijoules.
    pub idle_mj: u64,
    /// Bytes sent and received.
    pub network_bytes: u64,
}

impl Totals {
    /// Energy of the work, in millijoules, without the idle share.
    pub fn energy_mj(&self) -> u64 {
        self.counted_mj.saturating_add(self.modelled_mj)
    }

    /// Energy of 1,000 chunks; `None` where there is nothing to divide. The source is the machine's counter only where all
    /// of it was counted.
    pub fn per_1000_chunks(&self) -> Option<PerThousand> {
        let each = |mj: u64| {
            let mj = (u128::from(mj) * 1000).checked_div(u128::from(self.chunks))?;
            Some(u64::try_from(mj).unwrap_or(u64::MAX))
        };
        let source = if self.modelled_mj == 0 { EnergySource::Counter } else { EnergySource::Model };
        let energy = Energy { mj: each(self.energy_mj())?, source };
        let idle_mj = each(self.idle_mj)?;
        (self.energy_mj() > 0).then_some(PerThousand { energy, idle_mj })
    }

    fn add(&mut self, more: &Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.jobs, more.jobs);
        add(&mut self.chunks, more.chunks);
        add(&mut self.tokens, more.tokens);
        add(&mut self.cpu_ms, more.cpu_ms);
        add(&mut self.counted_mj, more.counted_mj);
        add(&mut self.modelled_mj, more.modelled_mj);
        add(&mut self.idle_mj, more.idle_mj);
        add(&mut self.network_bytes, more.network_bytes);
    }
}

impl From<&Cost> for Totals {
    fn from(cost: &Cost) -> Self {
        let of = |source| cost.energy.filter(|energy| energy.source == source).map_or(0, |energy| energy.mj);
        Self {
            jobs: cost.jobs,
            chunks: cost.chunks,
            tokens: cost.tokens,
            cpu_ms: cost.cpu_ms,
            counted_mj: of(EnergySource::Counter),
            modelled_mj: of(EnergySource::Model),
            idle_mj: cost.idle_mj,
            network_bytes: cost.network_bytes,
        }
    }
}

/// What 1,000 chunks took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerThousand {
    /// For the work.
    pub energy: Energy,
    /// What the machine would have taken idle meanwhile, in millijoules.
    pub idle_mj: u64,
}

/// One line of the account, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Days since 1970-01-01.
    pub day: u32,
    /// Whose work it was; `None` for all that came when [`SWARMS_MAX`] others were there.
    pub swarm: Option<SwarmId>,
    /// What it took.
    pub totals: Totals,
}

/// The account: [`DAYS_MAX`] days, [`SWARMS_MAX`] swarms on each and the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Row>", into = "Vec<Row>")]
pub struct Account {
    days: BTreeMap<u32, BTreeMap<Option<SwarmId>, Totals>>,
}

impl Account {
    /// Books a cost; gives the line that it changed.
    pub fn book(&mut self, clock: Option<LocalTime>, swarm: SwarmId, cost: &Cost) -> Row {
        self.add(self.today(clock), Some(swarm), &Totals::from(cost))
    }

    /// The day on which costs are booked: that of the clock, or the latest known where it is not set.
    pub fn today(&self, clock: Option<LocalTime>) -> u32 {
        let latest = self.days.last_key_value().map_or(0, |(&day, _)| day);
        clock.map_or(latest, |time| time.day)
    }

    /// Sums of a day over all swarms.
    pub fn of_day(&self, day: u32) -> Totals {
        let mut sum = Totals::default();
        self.days.get(&day).into_iter().flat_map(BTreeMap::values).for_each(|totals| sum.add(totals));
        sum
    }

    /// What each swarm took on a day; at the end `None`, for all that there was no line for.
    pub fn by_swarm(&self, day: u32) -> impl Iterator<Item = (Option<SwarmId>, Totals)> {
        let (rest, told_apart): (Vec<_>, Vec<_>) =
            self.days.get(&day).into_iter().flatten().partition(|(swarm, _)| swarm.is_none());
        told_apart.into_iter().chain(rest).map(|(&swarm, &totals)| (swarm, totals))
    }

    /// What the daily limits need to know of a day; `None` where it was forgotten, and nothing is left of it.
    pub fn spent(&self, day: u32) -> Option<Spent> {
        let is_forgotten =
            self.is_full() && self.days.first_key_value().is_some_and(|(&first, _)| day < first);
        let totals = self.of_day(day);
        let spent = Spent { day, energy_mj: totals.energy_mj(), network_bytes: totals.network_bytes };
        (!is_forgotten).then_some(spent)
    }

    /// Every line, by day and swarm.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let of_day =
            |(&day, swarms)| BTreeMap::iter(swarms).map(move |(&swarm, &totals)| Row { day, swarm, totals });
        self.days.iter().flat_map(of_day)
    }

    fn is_full(&self) -> bool {
        self.days.len() >= DAYS_MAX
    }

    fn add(&mut self, day: u32, swarm: Option<SwarmId>, totals: &Totals) -> Row {
        // A clock that shows what lies before all that is kept forgets nothing for it.
        let first = self.days.first_key_value().map(|(&first, _)| first).filter(|_| self.is_full());
        let day = day.max(first.unwrap_or(0));
        if self.is_full() && !self.days.contains_key(&day) {
            self.days.pop_first();
        }
        let swarms = self.days.entry(day).or_default();
        let is_known = swarms.contains_key(&swarm);
        let told_apart = swarms.keys().flatten().count();
        let swarm = if is_known || told_apart < SWARMS_MAX { swarm } else { None };
        let sum = swarms.entry(swarm).or_default();
        sum.add(totals);
        Row { day, swarm, totals: *sum }
    }
}

impl From<Vec<Row>> for Account {
    /// Lines in any order; its bounds hold whatever they are.
    fn from(rows: Vec<Row>) -> Self {
        let mut account = Self::default();
        for row in rows {
            account.add(row.day, row.swarm, &row.totals);
        }
        account
    }
}

impl From<Account> for Vec<Row> {
    fn from(account: Account) -> Self {
        account.rows().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swarm(n: u8) -> SwarmId {
        SwarmId::from_bytes([n; 32])
    }

    fn clock(day: u32) -> Option<LocalTime> {
        Some(LocalTime { day, weekday: 0, minute: 0 })
    }

    fn cost(mj: u64, source: EnergySource) -> Cost {
        let energy = Some(Energy { mj, source });
        Cost { jobs: 1, chunks: 10, tokens: 1000, cpu_ms: 500, energy, idle_mj: 30, network_bytes: 7 }
    }

    #[test]
    fn days_and_swarms_are_told_apart_and_so_is_the_source() {
        let mut account = Account::default();
        account.book(clock(10), swarm(1), &cost(100, EnergySource::Counter));
        account.book(clock(10), swarm(2), &cost(50, EnergySource::Model));
        let row = account.book(clock(11), swarm(1), &cost(100, EnergySource::Counter));
        assert_eq!((row.day, row.swarm, row.totals.counted_mj), (11, Some(swarm(1)), 100));
        assert_eq!(account.spent(10), Some(Spent { day: 10, energy_mj: 150, network_bytes: 14 }));
        assert_eq!(account.spent(12), Some(Spent { day: 12, energy_mj: 0, network_bytes: 0 }));
        let (first, second) = (account.of_day(10), account.of_day(11));
        assert_eq!((first.jobs, first.tokens, first.cpu_ms, first.idle_mj), (2, 2000, 1000, 60));
        let of = |n| account.by_swarm(10).find(|line| line.0 == Some(swarm(n))).map(|line| line.1.jobs);
        assert_eq!((account.by_swarm(10).count(), of(1), of(2), of(3)), (2, Some(1), Some(1), None));
        let energy = Energy { mj: 7500, source: EnergySource::Model };
        assert_eq!(first.per_1000_chunks(), Some(PerThousand { energy, idle_mj: 3000 }));
        assert_eq!(second.per_1000_chunks().unwrap().energy.source, EnergySource::Counter);
        assert_eq!(Totals::default().per_1000_chunks(), None);
    }

    #[test]
    fn no_step_of_the_clock_begins_a_day_anew() {
        let mut account = Account::default();
        assert_eq!(account.today(None), 0);
        for day in [10, 11, 10] {
            account.book(clock(day), swarm(1), &cost(100, EnergySource::Counter));
        }
        account.book(None, swarm(1), &cost(100, EnergySource::Counter));
        let spent = |day| account.spent(day).unwrap().energy_mj;
        assert_eq!((spent(10), spent(11)), (200, 200), "without a clock it is the latest day's");
    }

    #[test]
    fn the_earliest_day_is_forgotten_first_and_late_swarms_stand_together() {
        let mut account = Account::default();
        let cost = cost(1, EnergySource::Counter);
        for day in 100..100 + DAYS_MAX as u32 {
            account.book(clock(day), swarm(1), &cost);
        }
        let row = account.book(clock(99), swarm(1), &cost);
        assert_eq!((row.day, row.totals.jobs), (100, 2), "what lies before all forgets nothing");
        account.book(clock(1000), swarm(1), &cost);
        assert_eq!((account.days.len(), account.spent(100)), (DAYS_MAX, None));
        for n in 1..=u8::MAX {
            account.book(clock(1000), swarm(n), &cost);
        }
        assert_eq!(account.days[&1000].len(), SWARMS_MAX + 1);
        assert_eq!(account.of_day(1000).jobs, 256, "but nothing is lost");
        let bytes = postcard::to_allocvec(&account).unwrap();
        assert_eq!(postcard::from_bytes::<Account>(&bytes).unwrap(), account);
        let full = Cost { jobs: u64::MAX, ..cost };
        assert_eq!(account.book(clock(1000), swarm(1), &full).totals.jobs, u64::MAX);
    }
}
