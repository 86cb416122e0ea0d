//! The one UDP socket of a node: both address families where the system has them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::TransportError;

/// Where to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listen {
    /// One address of this machine; `None` for all of them, IPv6 and IPv4 by one socket.
    pub address: Option<IpAddr>,
    /// UDP port; 0 takes any that is free.
    pub port: u16,
}

/// Binds, and falls back to IPv4 alone only where the system has no IPv6 and no address was asked for.
///
/// # Errors
/// [`TransportError::InUse`], [`TransportError::Bind`].
pub(super) fn bind(listen: Listen) -> Result<UdpSocket, TransportError> {
    let at = |ip| bind_to(SocketAddr::new(ip, listen.port));
    match listen.address {
        Some(ip) => at(ip.to_canonical()),
        None => match at(Ipv6Addr::UNSPECIFIED.into()) {
            Err(TransportError::Bind { .. }) => at(Ipv4Addr::UNSPECIFIED.into()),
            bound => bound,
        },
    }
}

/// `preferred` if it is free now, else another UDP port that is.
///
/// # Errors
/// [`TransportError::Bind`] where the system gives none.
pub fn free_port(preferred: u16) -> Result<u16, TransportError> {
    let socket = match bind(Listen { address: None, port: preferred }) {
        Err(TransportError::InUse { .. }) => bind(Listen::default())?,
        bound => bound?,
    };
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), preferred);
    Ok(socket.local_addr().map_err(|source| TransportError::Bind { address: any, source })?.port())
}

fn bind_to(address: SocketAddr) -> Result<UdpSocket, TransportError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    bound().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => TransportError::InUse { address },
        _ => TransportError::Bind { address, source },
    })
}

/// IPv4 as IPv4, even where it came through a socket for both families.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        // The whole address is kept: a link-local one is nothing without its interface.
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_ipv4_and_a_link_local_one_keeps_its_interface() {
        assert_eq!(canonical("[::ffff:192.0.2.1]:7".parse().unwrap()), "192.0.2.1:7".parse().unwrap());
        let link_local: SocketAddr = "[fe80::1%3]:7".parse().unwrap();
        assert_eq!(canonical(link_local), link_local);
    }
}
