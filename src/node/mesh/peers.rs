//! Who is connected: for people, and for members that ask.

use std::{net::SocketAddr, time::Duration};

use super::Mesh;
use crate::wire::{PEERS_TOLD_MAX, PeerAddress, PeerId, PeersTold, SwarmId};

/// A connected peer, for people.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
    /// Version of its program.
    pub program: String,
    /// Names of the swarms that both are in.
    pub swarms: Vec<String>,
    /// For how long it has been connected.
    pub since: Duration,
    /// Round trip.
    pub rtt: Duration,
}

impl Mesh {
    /// Members that share a swarm with the asker and are connected now.
    pub(super) fn peers_for(&self, asker: &PeerId) -> PeersTold {
        let Some(link) = self.links.get(asker) else { return PeersTold { peers: Vec::new() } };
        let shared = link.standing.swarms.get();
        let others = self.links.iter().filter(|(peer, other)| {
            *peer != asker && other.standing.swarms.get().iter().any(|swarm| shared.contains(swarm))
        });
        let peers = others.take(PEERS_TOLD_MAX).map(|(&peer, other)| PeerAddress {
            peer,
            address: other.connection.remote(),
            age_s: 0,
        });
        PeersTold { peers: peers.collect() }
    }

    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        let name = |id: &SwarmId| self.swarms.get(id).map(|record| record.founding().name.to_string());
        let members = self.links.values().filter(|link| link.is_member());
        members
            .map(|link| PeerInfo {
                peer: link.standing.worker.peer,
                address: link.connection.remote(),
                program: link.program.clone(),
                swarms: link.standing.swarms.get().iter().filter_map(name).collect(),
                since: link.since.elapsed(),
                rtt: link.connection.stats().rtt,
            })
            .collect()
    }
}
