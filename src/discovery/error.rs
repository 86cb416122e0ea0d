//! What can go wrong while looking for others, one variant an operation.

use std::time::Duration;

/// Why others were not looked for, or a name led nowhere.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The caller's label is none: it must not carry anything but random bits.
    #[error("the mDNS label `{label}` is not 16 characters of 0-9 and a-f")]
    Label {
        /// What was handed in.
        label: String,
    },
    /// The system does not list its interfaces. Under systemd `RestrictAddressFamilies=` must allow `AF_NETLINK`.
    #[error(
        "mDNS does not work here: the network interfaces cannot be listed; bootstrap addresses still work"
    )]
    Interfaces(#[source] std::io::Error),
    /// Nothing but container and VPN interfaces, or none at all.
    #[error("mDNS does not work here: there is no network interface for it; bootstrap addresses still work")]
    NoInterface,
    /// Another program holds the port and does not share it.
    #[error(
        "mDNS does not work here: another program keeps UDP port {port} to itself; bootstrap addresses still work"
    )]
    Port {
        /// The port of mDNS.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No interface takes part in multicast.
    #[error(
        "mDNS does not work here: no interface joins its multicast group; bootstrap addresses still work"
    )]
    Multicast(#[source] std::io::Error),
    /// The mDNS thread does not start or has ended.
    #[error("mDNS does not work here: it cannot {action}; bootstrap addresses still work")]
    Daemon {
        /// What was tried.
        action: &'static str,
        /// What mdns-sd said.
        #[source]
        source: mdns_sd::Error,
    },
    /// The name of a bootstrap node has no address, or the resolver does not answer.
    #[error("cannot look up the bootstrap node's host `{host}`")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: std::io::Error,
    },
    /// The resolver took too long.
    #[error("no answer within {} s when looking up the bootstrap node's host `{host}`", waited.as_secs())]
    LookupTimeout {
        /// The name.
        host: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The resolver answered with nothing that can be dialled.
    #[error("the bootstrap node's host `{host}` has no address that can be dialled")]
    NoAddress {
        /// The name.
        host: String,
    },
}
