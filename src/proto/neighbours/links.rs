//! Links: which of them stay, and how many are wanted.

use std::{collections::BTreeMap, time::Duration};

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use super::{ASIDE, Effect, IDLE_LINK, LINKS_IDLE_MAX, LINKS_LOW, LINKS_MAX, LOOK_AROUND, Neighbours};
use crate::{
    proto::Timestamp,
    wire::{PeerId, SwarmId},
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
    pub(super) fn links_kept(&self) -> usize {
        if self.part.serves { LINKS_MAX } else { LINKS_IDLE_MAX }
    }

    /// Closes links of which there are more than an idle node keeps.
    pub(super) fn let_go(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        if self.has_own_demand() {
            return;
        }
        let plain = self.links.values().filter(|link| link.is_plain(now)).count();
        let may_go = |link: &Link| link.is_plain(now) && link.has_rested(now) && !link.named;
        let mut rested: Vec<PeerId> =
            self.links.iter().filter(|(_, link)| may_go(link)).map(|(peer, _)| *peer).collect();
        self.rng.shuffle(&mut rested);
        for peer in rested.into_iter().take(plain.saturating_sub(self.links_kept())) {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            link.closing = true;
            if link.demand {
                self.aside.insert(peer, now.after(ASIDE));
            }
            out.push(Effect::Close { peer });
        }
    }

    pub(super) fn count_wanted(&mut self, now: Timestamp, known: usize) {
        let links = self.links.values().filter(|link| !link.closing).count();
        let most = if self.has_own_demand() {
            LINKS_MAX
        } else if known <= LINKS_IDLE_MAX {
            LINKS_IDLE_MAX
        } else {
            LINKS_LOW
        };
        self.wanted = most.saturating_sub(links);
        if self.wanted > 0 || known <= links {
            return;
        }
        if self.look.is_some_and(|look| look <= now) {
            self.wanted = 1;
            self.look = None;
        }
        let wait = LOOK_AROUND + Duration::from_millis(self.rng.u64(0..=LOOK_AROUND.as_millis() as u64));
        self.look.get_or_insert_with(|| now.after(wait));
    }
}
