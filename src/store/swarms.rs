//! What a node knows of its swarms, and where it has met their members.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::{
    proto::membership::SwarmRecord,
    wire::{self, PeerId, SwarmId},
};

// Only the type: no socket is opened here.
use std::net::SocketAddr;

const SWARMS: &str = "swarms";
const PEERS: &str = "peers";
const PORT: &[u8] = b"port";
const VERSION: u8 = 1;
/// Addresses that are remembered of one peer, newest first.
const ADDRESSES_MAX: usize = 4;
/// Peers that are remembered; the ones met last.
const PEERS_MAX: usize = 256;

/// Where a member was met. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Met {
    /// Counts meetings of all peers, so that the order is known without a clock.
    order: u64,
    addresses: Vec<SocketAddr>,
}

impl Store {
    /// Every swarm, and how many records could not be read.
    ///
    /// # Errors
    /// What reading may say.
    pub fn swarms(&self) -> Result<(Vec<SwarmRecord>, usize), StoreError> {
        self.read("the swarms", |tables, txn| {
            let (mut records, mut damaged) = (Vec::new(), 0);
            for entry in tables.swarms.iter(txn)? {
                let (key, record) = entry?;
                match wire::open::<SwarmRecord>(SWARMS, VERSION, key, record) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        tracing::error!(%error, "a swarm's record is damaged");
                        damaged += 1;
                    }
                }
            }
            Ok((records, damaged))
        })
    }

    /// Keeps a swarm; when this returns, the disk has it.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_swarm(&mut self, record: &SwarmRecord) -> Result<(), StoreError> {
        let id = record.id();
        let bytes = wire::seal(SWARMS, VERSION, id.as_bytes(), record);
        self.write("a swarm", |tables, txn| tables.swarms.put(txn, id.as_bytes(), &bytes))
    }

    /// Forgets a swarm.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn remove_swarm(&mut self, id: &SwarmId) -> Result<(), StoreError> {
        self.write("a swarm", |tables, txn| tables.swarms.delete(txn, id.as_bytes()).map(|_| ()))
    }

    /// The UDP port that this node has had from the beginning; `None` where it has none yet.
    ///
    /// # Errors
    /// What reading may say.
    pub fn port(&self) -> Result<Option<u16>, StoreError> {
        self.read("the port", |tables, txn| {
            let record = tables.meta.get(txn, PORT)?;
            Ok(record.and_then(|record| wire::open("meta", VERSION, PORT, record).ok()))
        })
    }

    /// Keeps the port.
    ///
    /// # Errors
    /// What writing may say.
    pub fn put_port(&mut self, port: u16) -> Result<(), StoreError> {
        let record = wire::seal("meta", VERSION, PORT, &port);
        self.write("the port", |tables, txn| tables.meta.put(txn, PORT, &record))
    }

    /// Where members were met, newest first.
    ///
    /// # Errors
    /// What reading may say.
    pub fn met(&self) -> Result<Vec<(PeerId, Vec<SocketAddr>)>, StoreError> {
        let mut met = self.all_met()?;
        met.sort_by_key(|(_, met)| std::cmp::Reverse(met.order));
        Ok(met.into_iter().map(|(peer, met)| (peer, met.addresses)).collect())
    }

    fn all_met(&self) -> Result<Vec<(PeerId, Met)>, StoreError> {
        self.read("the peers", |tables, txn| {
            let mut all = Vec::new();
            for entry in tables.peers.iter(txn)? {
                let (key, record) = entry?;
                let Ok(peer) = <[u8; 32]>::try_from(key).map(PeerId::from_bytes) else { continue };
                if let Ok(met) = wire::open::<Met>(PEERS, VERSION, key, record) {
                    all.push((peer, met));
                }
            }
            Ok(all)
        })
    }

    /// Remembers where a member was met. Writes nothing where that is known.
    ///
    /// # Errors
    /// What reading or writing may say.
    pub fn remember(&mut self, peer: &PeerId, address: SocketAddr) -> Result<(), StoreError> {
        let all = self.all_met()?;
        let known = all.iter().find(|(other, _)| other == peer).map(|(_, met)| met.addresses.clone());
        let mut addresses = known.unwrap_or_default();
        if addresses.first() == Some(&address) {
            return Ok(());
        }
        addresses.retain(|other| *other != address);
        addresses.insert(0, address);
        addresses.truncate(ADDRESSES_MAX);
        let order = all.iter().map(|(_, met)| met.order + 1).max().unwrap_or(0);
        let oldest = all.iter().min_by_key(|(_, met)| met.order).map(|(peer, _)| *peer);
        let bytes = wire::seal(PEERS, VERSION, peer.as_bytes(), &Met { order, addresses });
        self.write("a peer", |tables, txn| {
            if let Some(oldest) = oldest.filter(|_| all.len() >= PEERS_MAX) {
                tables.peers.delete(txn, oldest.as_bytes())?;
            }
            tables.peers.put(txn, peer.as_bytes(), &bytes)
        })
    }
}
