//! How a node hears of others: on its LAN by mDNS, beyond it by addresses that its owner gave.
//!
//! Deliberately absent: trust and dialling. Whatever stands here was said by anybody; who a peer is only
//! its QUIC handshake shows. Peer exchange itself is the node's: this room only judges what it tells.

mod addresses;
mod bootstrap;
mod error;
mod interfaces;
mod mdns;
mod meter;
mod sightings;

pub use addresses::{is_dialable, is_unicast};
pub use bootstrap::{BOOTSTRAP_PORT, BootstrapAddress, BootstrapError, Host};
pub use error::DiscoveryError;
pub use interfaces::{Interfaces, own_addresses};
pub use mdns::{Announce, Mdns, Sightings};
pub use sightings::{ADDRESSES_PER_PEER_MAX, SIGHTINGS_MAX, Sighting};
