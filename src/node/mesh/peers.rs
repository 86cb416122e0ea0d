//! Who is connected, for people.

use std::{net::SocketAddr, time::Duration};

use super::Mesh;
use crate::wire::{PUBLIC_SWARM, PeerId, SwarmId};

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
    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        let name = |id: &SwarmId| match *id {
            PUBLIC_SWARM => Some("public".to_owned()),
            _ => self.swarms.get(id).map(|record| record.founding().name.to_string()),
        };
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
