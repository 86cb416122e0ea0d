//! Turns what mdns-sd reports into news of other nodes: bounded, without repetition, without ourselves.
//!
//! Deliberately absent: time and IO. What a datagram said is judged here before anybody acts on it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use mdns_sd::{ResolvedService, ScopedIp, ServiceEvent};

use super::addresses::{is_link_local, is_unicast};

/// Service type (RFC 6763).
pub(super) const SERVICE: &str = "_edge._udp.local.";
/// Version of what is announced; others are not guessed at.
pub(super) const VERSION: &str = "1";
/// Characters of a label: 64 random bits, which nobody on a LAN has twice.
const LABEL_CHARACTERS: usize = 16;
/// Nodes remembered. As many as an aggregator serves; on a larger LAN peers tell each other of the rest.
pub const SIGHTINGS_MAX: usize = 256;
/// Addresses told of one node: IPv4, a few IPv6 prefixes and the link-local one, on two interfaces.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Searches that mdns-sd begins (at 0, 0.05, 1 and 3 s) until who has not answered a new subscription is gone.
const SEARCHES_UNTIL_GONE: u32 = 4;

/// News of another node. Anybody on the LAN can forge one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A node is there, or its addresses have changed.
    Found {
        /// Its random label, new at every start of its network.
        label: String,
        /// Where it says it is, at most [`ADDRESSES_PER_PEER_MAX`]: IPv4 first, link-local last.
        addresses: Vec<SocketAddr>,
    },
    /// A node has said goodbye, or not answered any more.
    Lost {
        /// Its label.
        label: String,
    },
}

struct Seen {
    addresses: Vec<SocketAddr>,
    /// Confirmed since the subscription began.
    confirmed: bool,
}

/// The nodes that are there, and the news not yet told: at most one of each node.
pub(super) struct Table {
    own: String,
    seen: BTreeMap<String, Seen>,
    news: VecDeque<Sighting>,
    searches: u32,
}

/// Whether a text is a label; nothing else of a datagram's names is ever kept.
pub(super) fn is_label(text: &str) -> bool {
    text.len() == LABEL_CHARACTERS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name of the service that `label` announces.
pub(super) fn full_name(label: &str) -> String {
    format!("{label}.{SERVICE}")
}

impl Table {
    /// A table that does not tell of `own`.
    pub(super) fn new(own: String) -> Self {
        Self { own, seen: BTreeMap::new(), news: VecDeque::new(), searches: 0 }
    }

    /// The next news.
    pub(super) fn pop(&mut self) -> Option<Sighting> {
        self.news.pop_front()
    }

    /// A new subscription begins: who does not answer it is lost, though nobody said so.
    pub(super) fn begin(&mut self) {
        self.searches = 0;
        for seen in self.seen.values_mut() {
            seen.confirmed = false;
        }
    }

    /// Takes one report.
    pub(super) fn take(&mut self, event: &ServiceEvent) {
        match event {
            ServiceEvent::SearchStarted(_) => self.search_started(),
            ServiceEvent::ServiceResolved(service) => self.resolved(service),
            ServiceEvent::ServiceRemoved(_, name) => {
                if let Some(label) = label_of(name) {
                    self.lose(label);
                }
            }
            _ => {}
        }
    }

    fn search_started(&mut self) {
        self.searches = self.searches.saturating_add(1);
        if self.searches == SEARCHES_UNTIL_GONE {
            let gone: Vec<String> = self
                .seen
                .iter()
                .filter(|(_, seen)| !seen.confirmed)
                .map(|(label, _)| label.clone())
                .collect();
            for label in gone {
                self.lose(&label);
            }
        }
    }

    fn resolved(&mut self, service: &ResolvedService) {
        let Some(label) = label_of(&service.fullname) else { return };
        if label == self.own || service.get_property_val_str("v") != Some(VERSION) {
            return;
        }
        let addresses = addresses(service);
        if addresses.is_empty() {
            return self.lose(label);
        }
        let room = self.seen.len() < SIGHTINGS_MAX;
        match self.seen.get_mut(label) {
            Some(seen) if seen.addresses == addresses => return seen.confirmed = true,
            None if !room => return tracing::debug!(label, "more nodes on the lan than are remembered"),
            _ => {}
        }
        self.seen.insert(label.to_owned(), Seen { addresses: addresses.clone(), confirmed: true });
        self.news.push_back(Sighting::Found { label: label.to_owned(), addresses });
    }

    fn lose(&mut self, label: &str) {
        if self.seen.remove(label).is_some() {
            self.news.push_back(Sighting::Lost { label: label.to_owned() });
        }
    }
}

fn label_of(full_name: &str) -> Option<&str> {
    let label = full_name.strip_suffix(SERVICE)?.strip_suffix('.')?;
    is_label(label).then_some(label)
}

/// What can be dialled of a service's addresses, in an order that does not change from report to report.
fn addresses(service: &ResolvedService) -> Vec<SocketAddr> {
    if service.port == 0 {
        return Vec::new();
    }
    let mut found: Vec<SocketAddr> =
        service.addresses.iter().filter_map(|scoped| address(scoped, service.port)).collect();
    found.sort_by_key(|addr| (is_link_local(&addr.ip()), *addr));
    found.dedup();
    found.truncate(ADDRESSES_PER_PEER_MAX);
    found
}

fn address(scoped: &ScopedIp, port: u16) -> Option<SocketAddr> {
    let ip = scoped.to_ip_addr().to_canonical();
    if !is_unicast(&ip) {
        return None;
    }
    let (from_loopback, scope) = match scoped {
        ScopedIp::V4(v4) => (v4.interface_ids().iter().any(|id| is_loopback(&id.name)), 0),
        ScopedIp::V6(v6) => (is_loopback(&v6.scope_id().name), v6.scope_id().index),
        _ => return None,
    };
    match ip {
        // A datagram that came over the LAN must not send us to ourselves.
        ip if ip.is_loopback() && !from_loopback => None,
        IpAddr::V6(v6) if is_link_local(&ip) => {
            (scope != 0).then(|| SocketAddrV6::new(v6, port, 0, scope).into())
        }
        ip => Some(SocketAddr::new(ip, port)),
    }
}

/// Linux names it `lo`, other systems `lo0`; mdns-sd tells the name only.
fn is_loopback(interface: &str) -> bool {
    interface == "lo" || interface == "lo0"
}

#[cfg(test)]
mod tests;
