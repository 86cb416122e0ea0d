//! What waits for members of each swarm, for the mesh to tell them.

use std::collections::BTreeMap;

use super::{Aggregator, estimated_tokens};
use crate::wire::{Demand, PowerSource, SwarmId};

impl Aggregator {
    /// Says what of its jobs members may have, done ones left out, where that has changed by much.
    pub(super) fn say_demand(&mut self) {
        let jobs = Some(self.jobs.len());
        if std::mem::replace(&mut self.jobs_said, jobs) == jobs {
            return;
        }
        let mut tokens: BTreeMap<SwarmId, u64> = BTreeMap::new();
        for asked in self.jobs.values() {
            if let Some(swarm) = asked.swarm() {
                *tokens.entry(swarm).or_default() += u64::from(estimated_tokens(&asked.spec.text));
            }
        }
        let levels = tokens.into_iter().map(|(swarm, tokens)| (swarm, Demand::level_of(tokens)));
        let demand: BTreeMap<SwarmId, u8> = levels.collect();
        self.demand.send_if_modified(|before| {
            let is_new = *before != demand;
            if is_new {
                *before = demand;
            }
            is_new
        });
    }
}

/// How dear the power is that a worker says it has.
pub(super) fn dearness(power: PowerSource) -> u8 {
    match power {
        PowerSource::Green => 0,
        PowerSource::Mains => 1,
        PowerSource::Unknown => 2,
        PowerSource::Battery => 3,
    }
}
