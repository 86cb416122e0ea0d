//! Links: which of them stay, and how many are wanted.

use std::{collections::BTreeMap, time::Duration};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::{
    ASIDE, Effect, IDLE_LINK, LINKS_IDLE_MAX, LINKS_LOW, LINKS_MAX, LOOK_AROUND, Neighbours, POOL_LINKS_LOW,
    POOL_LINKS_MAX, POOL_LINKS_SERVED,
};
use crate::{
    proto::{Timestamp, demand::Teller},
    wire::{PUBLIC_SWARM, PeerId, SwarmId},
};

/// A connected member.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) swarms: Vec<SwarmId>,
    pub(super) address: SocketAddr,
    /// This node's owner named it.
    pub(super) named: bool,
    /// Since when it may be idle.
    pub(super) used: Timestamp,
    /// We hold something that it gave us.
    pub(super) busy: bool,
    /// It has work, as the worker was told.
    pub(super) demand: bool,
    pub(super) asked: Option<Timestamp>,
    pub(super) ask_at: Timestamp,
    pub(super) cursor: u64,
    /// Serials of our adverts that it was told.
    pub(super) told: BTreeMap<SwarmId, u64>,
    pub(super) closing: bool,
}

impl Link {
    /// Whether it shares only the public pool with us.
    pub(super) fn is_pool(&self) -> bool {
        self.swarms.iter().all(|swarm| *swarm == PUBLIC_SWARM)
    }

    /// The closed swarms that it shares with us: demand is told in these alone, for nobody may place work in the pool yet.
    pub(super) fn closed_swarms(&self) -> Vec<SwarmId> {
        self.swarms.iter().filter(|swarm| **swarm != PUBLIC_SWARM).copied().collect()
    }

    /// It, as the one that tells of demand.
    pub(super) fn teller(&self, peer: PeerId) -> Teller {
        Teller { peer, address: self.address, shared: self.closed_swarms() }
    }

    pub(super) fn has_rested(&self, now: Timestamp) -> bool {
        now >= self.used.after(IDLE_LINK)
    }

    /// Whether it counts among those of which few are kept.
    pub(super) fn is_plain(&self, now: Timestamp) -> bool {
        !self.closing && !self.busy && (!self.demand || self.has_rested(now))
    }

    /// Whether it is one of the aggregators that this node works for.
    pub(super) fn is_for_work(&self, now: Timestamp) -> bool {
        !self.closing && self.demand && (self.busy || !self.has_rested(now))
    }
}

impl Neighbours {
    /// Links that an idle node keeps, with members and with peers of the pool.
    pub(super) fn links_kept(&self) -> [(bool, usize); 2] {
        match self.part.serves {
            true => [(false, LINKS_MAX), (true, POOL_LINKS_SERVED)],
            false => [(false, LINKS_IDLE_MAX), (true, POOL_LINKS_MAX)],
        }
    }

    /// Closes links of which there are more than an idle node keeps.
    pub(super) fn let_go(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.has_own_demand() {
            return;
        }
        for (is_pool, kept) in self.links_kept() {
            let of_kind =
                self.links.iter().filter(|(_, link)| link.is_pool() == is_pool && link.is_plain(now));
            let plain = of_kind.clone().count();
            let may_go = |link: &Link| link.has_rested(now) && !link.named;
            let mut rested: Vec<PeerId> =
                of_kind.filter(|(_, link)| may_go(link)).map(|(peer, _)| *peer).collect();
            self.rng.shuffle(&mut rested);
            for peer in rested.into_iter().take(plain.saturating_sub(kept)) {
                let Some(link) = self.links.get_mut(&peer) else { continue };
                link.closing = true;
                if link.demand {
                    self.aside.insert(peer, now.after(ASIDE));
                }
                out.push(Effect::Close { peer });
            }
        }
    }

    pub(super) fn count_wanted(&mut self, now: Timestamp, known: usize) {
        let open = self.links.values().filter(|link| !link.closing);
        let (pool, members): (Vec<_>, Vec<_>) = open.partition(|link| link.is_pool());
        let links = members.len();
        self.wanted.pool = if self.in_pool { POOL_LINKS_LOW.saturating_sub(pool.len()) } else { 0 };
        if self.swarms.is_empty() {
            self.wanted.members = 0;
            return;
        }
        let most = if self.has_own_demand() {
            LINKS_MAX
        } else if known <= LINKS_IDLE_MAX {
            LINKS_IDLE_MAX
        } else {
            LINKS_LOW
        };
        self.wanted.members = most.saturating_sub(links);
        if self.wanted.members > 0 || known <= links {
            return;
        }
        if self.look.is_some_and(|look| look <= now) {
            self.wanted.members = 1;
            self.look = None;
        }
        let wait = LOOK_AROUND + Duration::from_millis(self.rng.u64(0..=LOOK_AROUND.as_millis() as u64));
        self.look.get_or_insert_with(|| now.after(wait));
    }
}
