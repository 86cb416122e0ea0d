//! Addresses of nodes that the owner named: `ID@HOST:PORT`, read, written and looked up.
//!
//! Deliberately absent: any address of ours. No bootstrap node is shipped.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use tokio::{net::lookup_host, time::timeout};

use super::{DiscoveryError, addresses::is_unicast};
use crate::wire::{IdError, PeerId};

/// UDP port of a bootstrap node that names none. In the user range, so it needs no privilege; below 32768, where
/// Linux begins to hand ports out, so nothing sits on it by chance; in a gap of IANA's list (23334 to 23399); and
/// ending as a telephone spells EDGE.
pub const BOOTSTRAP_PORT: u16 = 23343;
/// Longest host name (RFC 1035), in characters.
const NAME_MAX: usize = 253;
/// Longest label of a host name (RFC 1035), in characters.
const NAME_LABEL_MAX: usize = 63;
/// Longest wait for the resolver: its own is 5 s for each server that does not answer.
const LOOKUP_MAX: Duration = Duration::from_secs(8);
/// Addresses taken of one name: both families of a few machines.
const RESOLVED_MAX: usize = 8;

/// A peer and where to dial it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BootstrapAddress {
    /// Who must answer there.
    pub peer: PeerId,
    /// Where.
    pub host: Host,
    /// UDP port.
    pub port: u16,
}

/// A host, as the owner wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name to look up.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// Why a text is no bootstrap address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootstrapError {
    /// Nothing separates the peer from its host.
    #[error("`{text}` has no `@`: a bootstrap address is ID@HOST or ID@HOST:PORT")]
    NoPeer {
        /// What was given.
        text: String,
    },
    /// What stands before the `@` is no peer id.
    #[error("`{text}`, before the `@`, is no peer id")]
    Peer {
        /// What stands there.
        text: String,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
    /// What stands behind the `@` is no host.
    #[error("`{host}` is no host: {wrong}")]
    Host {
        /// What stands there.
        host: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// What stands behind the last `:` is no port.
    #[error("`{port}` is no port: it must be 1 to 65535")]
    Port {
        /// What stands there.
        port: String,
    },
}

impl BootstrapAddress {
    /// The addresses to dial, at most 8, those that cannot be dialled left out. A name is asked of the system's
    /// resolver, in a thread of tokio's that outlives a time-out by as long as the resolver takes. Needs a tokio
    /// runtime with time. Cancel safe.
    ///
    /// # Errors
    /// [`DiscoveryError::Lookup`], [`DiscoveryError::LookupTimeout`] and [`DiscoveryError::NoAddress`] name the
    /// host.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let name = match &self.host {
            Host::Ip(ip) => return dialable([SocketAddr::new(*ip, self.port)], &ip.to_string()),
            Host::Name(name) => name,
        };
        match timeout(LOOKUP_MAX, lookup_host((name.as_str(), self.port))).await {
            Ok(Ok(found)) => dialable(found, name),
            Ok(Err(source)) => Err(DiscoveryError::Lookup { host: name.clone(), source }),
            Err(_) => Err(DiscoveryError::LookupTimeout { host: name.clone(), waited: LOOKUP_MAX }),
        }
    }
}

fn dialable(
    found: impl IntoIterator<Item = SocketAddr>,
    host: &str,
) -> Result<Vec<SocketAddr>, DiscoveryError> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for mut addr in found {
        addr.set_ip(addr.ip().to_canonical());
        if is_unicast(&addr.ip()) && !addresses.contains(&addr) && addresses.len() < RESOLVED_MAX {
            addresses.push(addr);
        }
    }
    if addresses.is_empty() {
        return Err(DiscoveryError::NoAddress { host: host.to_owned() });
    }
    Ok(addresses)
}

impl fmt::Display for BootstrapAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.peer, self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl FromStr for BootstrapAddress {
    type Err = BootstrapError;

    fn from_str(text: &str) -> Result<Self, BootstrapError> {
        let Some((peer, place)) = text.split_once('@') else {
            return Err(BootstrapError::NoPeer { text: text.to_owned() });
        };
        let peer = peer.parse().map_err(|source| BootstrapError::Peer { text: peer.to_owned(), source })?;
        let wrong = |wrong| BootstrapError::Host { host: place.to_owned(), wrong };
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (ip, behind) = rest.split_once(']').ok_or_else(|| wrong("its `[` is not closed"))?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| wrong("in `[` and `]` stands no IPv6 address"))?;
            let port = match behind.strip_prefix(':') {
                None if !behind.is_empty() => return Err(wrong("something but a port follows its `]`")),
                port => port,
            };
            (Host::Ip(ip.into()), port)
        } else if place.matches(':').count() > 1 {
            return Err(wrong("an IPv6 address stands in `[` and `]`"));
        } else {
            match place.split_once(':') {
                Some((host, port)) => (host.parse()?, Some(port)),
                None => (place.parse()?, None),
            }
        };
        Ok(Self { peer, host, port: port.map_or(Ok(BOOTSTRAP_PORT), parse_port)? })
    }
}

impl FromStr for Host {
    type Err = BootstrapError;

    /// Reads a name or an IPv4 address; IPv6 stands in brackets, and these belong to the whole address.
    fn from_str(host: &str) -> Result<Self, BootstrapError> {
        let wrong = |wrong| Err(BootstrapError::Host { host: host.to_owned(), wrong });
        if let Ok(ip) = host.parse() {
            return Ok(Self::Ip(ip));
        }
        let labels = || host.strip_suffix('.').unwrap_or(host).split('.');
        if host.is_empty() {
            return wrong("it is empty");
        }
        if host.len() > NAME_MAX || labels().any(|label| label.len() > NAME_LABEL_MAX) {
            return wrong("a name has at most 253 characters, and 63 between two dots");
        }
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return wrong("a name has only a-z, 0-9, `-`, `_` and `.`");
        }
        if labels().any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
            return wrong("a part of its name is empty, or begins or ends with `-`");
        }
        // The resolver would take `10.1` for 10.0.0.1, and `0x7f.1` for loopback.
        if labels().next_back().is_some_and(is_number) {
            return wrong("it ends in a number but is no IPv4 address");
        }
        Ok(Self::Name(host.to_owned()))
    }
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn parse_port(port: &str) -> Result<u16, BootstrapError> {
    match port.parse() {
        // `parse` also takes a sign.
        Ok(number) if number != 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(BootstrapError::Port { port: port.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
