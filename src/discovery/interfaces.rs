//! Which interfaces mDNS uses, judged by their names, and whether one of them can take part at all.
//!
//! Deliberately absent: the kind of driver. In a container the one way out is a veth named `eth0`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use if_addrs::Interface;
use mdns_sd::{IfKind, IfPredicate, MDNS_PORT};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    DiscoveryError,
    meter::{GROUP_V4, GROUP_V6},
};

/// Beginnings of the names of containers, virtual machines, VPNs and tunnels: who is there is no neighbour on
/// the LAN, and their addresses would tell the LAN what runs on this machine.
const SKIPPED: &[&str] = &[
    "docker",
    "veth",
    "virbr",
    "cni",
    "flannel",
    "tun",
    "tap",
    "wg",
    "tailscale",
    "zt",
    "podman",
    "lxc",
    "lxdbr",
    "incusbr",
    "cali",
    "kube-",
    "vnet",
    "vmnet",
    "vboxnet",
    "utun",
    "ppp",
];
/// A Docker network's bridge is `br-` and 12 hex characters; `br-lan` is a router's LAN.
const DOCKER_BRIDGE_HEX: usize = 12;

/// Where to look for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interfaces {
    /// On every interface but those of containers, VPNs and tunnels; on loopback while there is no other. Judged
    /// anew at every look at the interfaces, so a node that starts before its network is found later.
    Lan,
    /// On loopback only: nodes of one machine.
    Loopback,
}

impl Interfaces {
    /// Selects, for mdns-sd, what is not used.
    pub(super) fn unused(self) -> IfKind {
        IfKind::Predicate(IfPredicate::new(move |interface| match self {
            Self::Loopback => !interface.is_loopback(),
            Self::Lan if interface.is_loopback() => {
                if_addrs::get_if_addrs().is_ok_and(|all| all.iter().any(is_lan))
            }
            Self::Lan => !is_lan(interface),
        }))
    }

    /// The addresses of the interfaces that are used now.
    ///
    /// # Errors
    /// What the system says when it does not list its interfaces.
    pub(super) fn used(self) -> io::Result<Vec<Interface>> {
        let (lan, rest): (Vec<_>, Vec<_>) = if_addrs::get_if_addrs()?.into_iter().partition(is_lan);
        if self == Self::Lan && !lan.is_empty() {
            return Ok(lan);
        }
        Ok(rest.into_iter().filter(|interface| interface.is_loopback() && interface.is_oper_up()).collect())
    }

    /// Tries what mDNS needs, for mdns-sd itself keeps silent about what it lacks.
    ///
    /// # Errors
    /// Those variants of [`DiscoveryError`] that begin with "mDNS does not work here".
    pub fn probe(self) -> Result<(), DiscoveryError> {
        let mut outcome = Err(DiscoveryError::NoInterface);
        for interface in self.used().map_err(DiscoveryError::Interfaces)? {
            outcome = join(&interface);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// Addresses of this machine at which others may reach `port`, those of the LAN alone where there is one; link-local
/// IPv6 ones are left out, for their interface means nothing elsewhere.
pub fn own_addresses(port: u16) -> Vec<SocketAddr> {
    let interfaces = Interfaces::Lan.used().unwrap_or_default();
    let addresses = interfaces.into_iter().map(|interface| interface.ip());
    let is_told = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addresses.filter(is_told).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Whether an interface leads to a LAN, as far as its name and state tell.
fn is_lan(interface: &Interface) -> bool {
    interface.is_oper_up() && !interface.is_p2p() && !interface.is_loopback() && !is_skipped(&interface.name)
}

fn is_skipped(name: &str) -> bool {
    let docker_bridge = name
        .strip_prefix("br-")
        .is_some_and(|rest| rest.len() == DOCKER_BRIDGE_HEX && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    docker_bridge || SKIPPED.iter().any(|prefix| name.starts_with(prefix))
}

/// Binds and joins as mdns-sd will, and leaves again.
fn join(interface: &Interface) -> Result<(), DiscoveryError> {
    let port = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => DiscoveryError::Port { port: MDNS_PORT, source },
        _ => DiscoveryError::Multicast(source),
    };
    let (domain, any): (_, IpAddr) = match interface.ip() {
        IpAddr::V4(_) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(DiscoveryError::Multicast)?;
    let shared = socket.set_reuse_address(true).and_then(|()| socket.set_reuse_port(true));
    shared.and_then(|()| socket.bind(&SocketAddr::new(any, MDNS_PORT).into())).map_err(port)?;
    match interface.ip() {
        IpAddr::V4(ip) => socket.join_multicast_v4(&GROUP_V4, &ip),
        IpAddr::V6(_) => socket.join_multicast_v6(&GROUP_V6, interface.index.unwrap_or_default()),
    }
    .map_err(DiscoveryError::Multicast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_and_tunnels_are_skipped() {
        let skipped = [
            "docker0",
            "docker_gwbridge",
            "br-0f1e2d3c4b5a",
            "veth12ab34c",
            "virbr0",
            "virbr0-nic",
            "cni0",
            "cni-podman0",
            "flannel.1",
            "tun0",
            "tap3",
            "wg0",
            "wg-home",
            "tailscale0",
            "ztabcdef12",
            "podman1",
            "lxcbr0",
            "lxdbr0",
            "cali1234",
            "vnet7",
            "ppp0",
        ];
        for name in skipped {
            assert!(is_skipped(name), "{name}");
        }
        let used = ["eth0", "enp3s0", "wlan0", "wlp2s0", "end0", "br0", "br-lan", "bond0", "usb0", "eno1.20"];
        for name in used {
            assert!(!is_skipped(name), "{name}");
        }
    }
}
