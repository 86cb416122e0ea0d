//! What a node lends and why no more, what its sensors say, and what that took today.

use serde::{Deserialize, Serialize};

use crate::{
    node::{BudgetStatus, WorkerCounts},
    proto::budget::{Admission, Presence, Reading, Sensed, Supply, Totals},
    wire::{EnergySource, SwarmId},
};

/// What a node lends at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetView {
    /// Compute threads for others.
    pub threads: usize,
    /// Share of the time in which each of them runs, in thousandths.
    pub duty_permille: u16,
    /// Tokens per second of all of them, as measured; 0 before the first job.
    pub tokens_per_s: u32,
    /// `all`, `begun` or `nothing`: which work may run.
    pub admission: String,
    /// Whether the limits for a machine in use hold.
    pub in_use: bool,
    /// Bytes that work may take beyond what is taken, where that is known.
    pub memory_bytes: Option<u64>,
    /// Why no more, most important first; empty where all work is admitted.
    pub reasons: Vec<ReasonView>,
}

/// Why no more is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonView {
    /// A stable word.
    pub code: String,
    /// For a person.
    pub text: String,
    /// It has gone, and work resumes in so many seconds unless it comes back.
    pub settles_in_s: Option<u64>,
}

/// What the sensors said last. What the device does not have is absent; what can not be used is among `broken`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SensorsView {
    /// Seconds since then.
    pub age_s: u64,
    /// Cores on which this process may run.
    pub cores: u16,
    /// CPU that its cgroup lets it have, in thousandths of a core.
    pub quota_permille: Option<u32>,
    /// CPU that others had, in thousandths of a core.
    pub others_permille: Option<u32>,
    /// CPU that this process had, in thousandths of a core.
    pub ours_permille: Option<u32>,
    /// Share of the last 10 s in which somebody waited for a CPU, in thousandths.
    pub pressure_permille: Option<u16>,
    /// Mean clock of the cores.
    pub frequency_mhz: Option<u32>,
    /// Bytes of memory that can be had.
    pub memory_available_bytes: Option<u64>,
    /// Bytes of memory in all.
    pub memory_total_bytes: Option<u64>,
    /// For how many seconds nobody has been there; 0 while somebody is.
    pub idle_s: Option<u64>,
    /// `mains` or `battery`.
    pub power: Option<String>,
    /// Charge of the battery in thousandths.
    pub charge_permille: Option<u16>,
    /// Thousandths of a degree Celsius.
    pub millicelsius: Option<i32>,
    /// At which the device slows down.
    pub trip_millicelsius: Option<i32>,
    /// The firmware says that the supply is too weak.
    pub is_under_voltage: Option<bool>,
    /// The firmware slows the processor down.
    pub is_throttled: Option<bool>,
    /// The owner's own number, in thousandths.
    pub green_milli: Option<i64>,
    /// Sensors that are there and can not be used.
    pub broken: Vec<String>,
}

/// What work for others took today.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TodayView {
    /// Jobs.
    pub jobs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Their tokens.
    pub tokens: u64,
    /// CPU time of the compute threads.
    pub cpu_ms: u64,
    /// Energy beyond what the machine would have taken idle, in millijoules.
    pub energy_mj: u64,
    /// What the machine would have taken meanwhile in any case, as far as that is known.
    pub idle_mj: u64,
    /// `counter` where all of it was counted by the machine, else `model`: an estimate.
    pub energy_source: String,
    /// Energy of 1,000 chunks, in millijoules.
    pub mj_per_1000_chunks: Option<u64>,
    /// Energy of a job, in millijoules.
    pub mj_per_job: Option<u64>,
    /// What a busy core takes, in milliwatts beyond what the machine would have taken idle.
    pub milliwatts_per_core: u64,
    /// Energy that a day has, in millijoules.
    pub limit_mj: Option<u64>,
    /// Bytes of texts and results.
    pub network_bytes: u64,
    /// Bytes that a day has.
    pub limit_bytes: Option<u64>,
    /// The same by swarm.
    pub swarms: Vec<SwarmDayView>,
}

/// What work for one swarm took today.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmDayView {
    /// Its id; nothing for all swarms beyond those that are told apart.
    pub id: Option<String>,
    /// Jobs.
    pub jobs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// CPU time of the compute threads.
    pub cpu_ms: u64,
    /// Energy, in millijoules.
    pub energy_mj: u64,
}

impl BudgetView {
    pub(super) fn of(lending: Option<&BudgetStatus>, worker: &WorkerCounts) -> Self {
        let Some(BudgetStatus { budget, .. }) = lending else { return Self::default() };
        let reasons = budget.reasons.iter().map(|reason| ReasonView {
            code: reason.cause.code().to_owned(),
            text: reason.to_string(),
            settles_in_s: reason.settles_in_s,
        });
        let own = |code: &str, text: &str| ReasonView {
            code: code.to_owned(),
            text: text.to_owned(),
            settles_in_s: None,
        };
        let broken = worker
            .is_broken
            .then(|| own("model_broken", "the model does not load; it is tried again (the log says why)"));
        let short =
            worker.is_short_of_memory.then(|| own("low_memory", "there is no room in memory for the model"));
        let reasons = reasons.chain(broken).chain(short);
        Self {
            threads: worker.threads,
            duty_permille: budget.duty_permille,
            tokens_per_s: worker.tokens_per_s,
            admission: admission(budget.admission).to_owned(),
            in_use: budget.is_in_use,
            memory_bytes: budget.memory_bytes,
            reasons: reasons.collect(),
        }
    }

    /// All reasons, for a person; none where all work is admitted.
    pub fn why(&self) -> Option<String> {
        let texts: Vec<&str> = self.reasons.iter().map(|reason| reason.text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

fn admission(admission: Admission) -> &'static str {
    match admission {
        Admission::All => "all",
        Admission::Begun => "begun",
        Admission::Nothing => "nothing",
    }
}

impl SensorsView {
    pub(super) fn of(lending: &BudgetStatus) -> Option<Self> {
        let (reading, age) = lending.reading.as_ref()?;
        let mut broken = Vec::new();
        let mut of = Told { broken: &mut broken };
        let memory = of.told("memory", reading.memory);
        let (power, charge_permille) = match of.told("power supply", reading.supply) {
            Some(Supply::Mains { charge_permille }) => (Some("mains"), charge_permille),
            Some(Supply::Battery { charge_permille }) => (Some("battery"), charge_permille),
            None => (None, None),
        };
        let idle_s = of.told("presence", reading.presence).map(|presence| match presence {
            Presence::InUse => 0,
            Presence::Idle { for_s } => for_s.max(1),
        });
        let heat = of.told("temperature", reading.temperature);
        let throttle = of.told("firmware", reading.throttle);
        let Reading { cores, .. } = *reading;
        Some(Self {
            age_s: age.as_secs(),
            cores,
            quota_permille: of.told("cpu limit", reading.quota_permille),
            others_permille: of.told("cpu of others", reading.others_permille),
            ours_permille: of.told("cpu of this process", reading.ours_permille),
            pressure_permille: of.told("cpu pressure", reading.pressure_permille),
            frequency_mhz: of.told("frequency", reading.frequency_mhz),
            memory_available_bytes: memory.map(|memory| memory.available_bytes),
            memory_total_bytes: memory.map(|memory| memory.total_bytes),
            idle_s,
            power: power.map(str::to_owned),
            charge_permille,
            millicelsius: heat.map(|heat| heat.millicelsius),
            trip_millicelsius: heat.and_then(|heat| heat.trip_millicelsius),
            is_under_voltage: throttle.map(|throttle| throttle.is_under_voltage),
            is_throttled: throttle.map(|throttle| throttle.is_throttled),
            green_milli: of.told("green power", reading.green_milli),
            broken,
        })
    }
}

struct Told<'a> {
    broken: &'a mut Vec<String>,
}

impl Told<'_> {
    fn told<T>(&mut self, sensor: &str, sensed: Sensed<T>) -> Option<T> {
        match sensed {
            Sensed::Is(value) => Some(value),
            Sensed::Absent => None,
            Sensed::Broken(_) => {
                self.broken.push(sensor.to_owned());
                None
            }
        }
    }
}

impl TodayView {
    pub(super) fn of(lending: &BudgetStatus) -> Self {
        let BudgetStatus { today, today_by_swarm, limits, draw, .. } = lending;
        let Totals { jobs, chunks, tokens, cpu_ms, idle_mj, network_bytes, .. } = *today;
        let each = today.per_1000_chunks();
        let is_counted = each.is_some_and(|each| each.energy.source == EnergySource::Counter);
        Self {
            jobs,
            chunks,
            tokens,
            cpu_ms,
            energy_mj: today.energy_mj(),
            idle_mj,
            energy_source: if is_counted { "counter" } else { "model" }.to_owned(),
            mj_per_1000_chunks: each.map(|each| each.energy.mj),
            mj_per_job: today.energy_mj().checked_div(jobs),
            milliwatts_per_core: draw.milliwatts,
            limit_mj: limits.day_energy_mj,
            network_bytes,
            limit_bytes: limits.day_network_bytes,
            swarms: today_by_swarm.iter().map(SwarmDayView::of).collect(),
        }
    }
}

impl SwarmDayView {
    fn of((swarm, totals): &(Option<SwarmId>, Totals)) -> Self {
        let Totals { jobs, chunks, cpu_ms, .. } = *totals;
        let id = swarm.map(|swarm| swarm.to_string());
        Self { id, jobs, chunks, cpu_ms, energy_mj: totals.energy_mj() }
    }
}
