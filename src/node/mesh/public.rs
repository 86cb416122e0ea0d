//! The public pool: who is in it with us, and what its peers get: lists of each other, now and then.

use std::{
    cell::RefCell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{Event, Mesh};
use crate::{
    discovery::BootstrapAddress,
    node::{NodeError, bootstrap::resolved},
    proto::{Origin, RateLimit, Timestamp},
    wire::{Credential, PUBLIC_SWARM, PeerId, SwarmId},
};

/// Links to peers that share only the pool with us: a quarter of all, so that members find room.
pub(super) const LINKS_MAX: usize = 64;
/// Longest question of such a peer: a request to join a closed swarm.
pub(super) const BYTES_MAX: usize = 2048;
/// Such a peer gets a list of others once in so long …
const LIST_PER: Duration = Duration::from_secs(60);
/// … after so many at once: it may lose its connection and come back.
const LISTS_BURST: u32 = 3;
/// Peers of the pool that are remembered for that; a key costs nothing, so there is a limit for all of them too.
const PEERS_MAX: usize = 1024;
/// All of them together get a list so often: 32 addresses, 2 KiB.
const ALL_PER: Duration = Duration::from_millis(100);
/// At once, as when many start.
const ALL_BURST: u32 = 128;

/// Bootstrap nodes of the pool.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Whose names do not resolve yet.
    finding: Vec<AbortHandle>,
    /// Where the others are, as far as nobody else has named these places, and what they were known by before.
    found: Vec<(SocketAddr, Origin)>,
}

impl Names {
    /// Its owner names a place otherwise too.
    pub(super) fn forget(&mut self, address: &SocketAddr) {
        self.found.retain(|(found, _)| found != address);
    }
}

/// What a peer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// It shares nothing with us.
    Stranger,
    /// The public pool, and nothing else.
    Public,
    /// A closed swarm.
    Member,
}

impl Rank {
    pub(super) fn of(swarms: &[SwarmId]) -> Self {
        match swarms {
            [] => Self::Stranger,
            swarms if is_only_public(swarms) => Self::Public,
            _ => Self::Member,
        }
    }
}

/// Whether a peer shares nothing but the pool.
pub(super) fn is_only_public(swarms: &[SwarmId]) -> bool {
    !swarms.is_empty() && swarms.iter().all(|swarm| *swarm == PUBLIC_SWARM)
}

/// Counts lists.
#[derive(Debug)]
pub(super) struct Lists {
    begun: Instant,
    peers: RefCell<RateLimit<PeerId>>,
    all: RefCell<RateLimit<()>>,
}

impl Lists {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            peers: RefCell::new(RateLimit::new(LIST_PER, LISTS_BURST, PEERS_MAX)),
            all: RefCell::new(RateLimit::new(ALL_PER, ALL_BURST, 1)),
        }
    }

    /// Counts one, or says when to come again.
    pub(super) fn enter(&self, peer: PeerId) -> Result<(), Duration> {
        let now = Timestamp::from_ms(self.begun.elapsed().as_millis() as u64);
        self.peers.borrow_mut().allow(now, peer)?;
        self.all.borrow_mut().allow(now, ())
    }
}

impl Mesh {
    /// The swarms that a peer shares with us: those of which it has shown to be a member, and the pool.
    pub(super) async fn shared(
        &mut self,
        peer: PeerId,
        credentials: &[Credential],
        is_public: bool,
    ) -> Result<Vec<SwarmId>, NodeError> {
        let mut shared = self.judge(peer, credentials).await?;
        if is_public && self.is_public {
            shared.push(PUBLIC_SWARM);
        }
        Ok(shared)
    }

    /// Joins the pool, or leaves it; the disk has it first.
    pub(super) async fn set_public(&mut self, bootstrap: Option<Vec<String>>) -> Result<(), NodeError> {
        let kept = bootstrap.clone();
        self.disk.call(move |store| store.put_public(kept.as_deref())).await?;
        self.is_public = bootstrap.is_some();
        let Names { finding, found } = std::mem::take(&mut self.pool_names);
        finding.iter().for_each(AbortHandle::abort);
        found.iter().for_each(|(address, before)| self.dialer.demote(address, *before));
        self.learn_tickets();
        self.find(bootstrap.into_iter().flatten().filter_map(|text| text.parse().ok()));
        self.judge_links().await?;
        self.dialer.retry_all(self.now());
        Ok(())
    }

    /// Looks for bootstrap nodes of the pool.
    pub(super) fn find(&mut self, addresses: impl IntoIterator<Item = BootstrapAddress>) {
        for address in addresses {
            let task =
                self.tasks.spawn_local(async move { Event::Found(address.peer, resolved(&address).await) });
            self.pool_names.finding.push(task);
        }
    }

    /// A bootstrap node of the pool is there.
    pub(super) fn found(&mut self, peer: PeerId, found: &[SocketAddr]) {
        let now = self.now();
        for &at in found {
            if !self.is_public {
                return;
            }
            let before = self.dialer.learn_named(now, at, peer);
            // What its owner named otherwise too stays when the pool is left.
            if before != Origin::Bootstrap {
                self.pool_names.found.push((at, before));
            }
        }
    }

    /// Whether there is room for one more link to a peer with these swarms in common.
    pub(super) fn has_room_for(&self, swarms: &[SwarmId]) -> bool {
        let public = self.links.values().filter(|link| is_only_public(&link.standing.swarms.get()));
        !is_only_public(swarms) || public.count() < LINKS_MAX
    }
}
