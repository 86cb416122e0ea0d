//! Work of others: who of the linked has some, and whom to dial for it.

use std::{collections::BTreeMap, time::Duration};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::{ASIDE, Effect, Neighbours};
use crate::{
    proto::Timestamp,
    wire::{PeerId, SwarmId},
};

/// Aggregators that a worker dials, or works for after it has dialled them, at a time.
pub(super) const AGGREGATORS_MAX: usize = 4;
/// Longest wait before a worker dials who has work, so that not all come at once.
const DIAL_SPREAD: Duration = Duration::from_millis(1500);
/// For so long a dial for work may take.
const DIAL_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) at: Timestamp,
    pub(super) until: Option<Timestamp>,
}

impl Neighbours {
    /// No address of an aggregator that was to be dialled answers.
    pub fn unreached(&mut self, now: Timestamp, peer: &PeerId) {
        if self.wishes.remove(peer).is_some() {
            self.aside.insert(*peer, now.after(ASIDE));
        }
    }

    pub(super) fn see_demand(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for (&peer, link) in &mut self.links {
            let demand = self.demands.has_work(now, &peer, &link.swarms);
            if demand != link.demand {
                (link.demand, link.used) = (demand, now);
                out.push(Effect::Demand { peer, demand });
            }
        }
    }

    /// Chooses whom to dial for work, and dials whose time has come.
    pub(super) fn wish(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.part.lends || !self.is_open {
            return;
        }
        let swarms: Vec<SwarmId> = self.swarms.keys().copied().collect();
        let with_work: BTreeMap<PeerId, Vec<SocketAddr>> =
            self.demands.with_work(now, &swarms).into_iter().collect();
        let Self { wishes, aside, .. } = self;
        wishes.retain(|peer, wish| {
            let is_late = wish.until.is_some_and(|until| until <= now);
            if is_late {
                aside.insert(*peer, now.after(ASIDE));
            }
            !is_late && with_work.contains_key(peer)
        });
        let working = self.links.values().filter(|link| link.is_for_work(now)).count();
        while working + self.wishes.len() < AGGREGATORS_MAX {
            let is_free = |peer: &&PeerId| {
                !self.links.contains_key(peer)
                    && !self.wishes.contains_key(peer)
                    && !self.aside.contains_key(peer)
            };
            let free: Vec<PeerId> = with_work.keys().filter(is_free).copied().collect();
            // First the swarm, then the aggregator: one with a thousand of them gets no more of this worker than others.
            let of = |swarm: &SwarmId| -> Vec<PeerId> {
                let has_work = |peer: &&PeerId| self.demands.has_work(now, peer, &[*swarm]);
                free.iter().filter(has_work).copied().collect()
            };
            let by_swarm: Vec<Vec<PeerId>> = swarms.iter().map(of).filter(|free| !free.is_empty()).collect();
            let chosen = self.rng.choice(&by_swarm).and_then(|free| self.rng.choice(free));
            let Some(&peer) = chosen else { break };
            let wait = Duration::from_millis(self.rng.u64(0..=DIAL_SPREAD.as_millis() as u64));
            self.wishes.insert(peer, Wish { at: now.after(wait), until: None });
        }
        for (&peer, wish) in &mut self.wishes {
            if wish.until.is_none() && wish.at <= now {
                wish.until = Some(now.after(DIAL_WAIT));
                let addresses = with_work.get(&peer).cloned().unwrap_or_default();
                out.push(Effect::Dial { peer, addresses });
            }
        }
    }
}
