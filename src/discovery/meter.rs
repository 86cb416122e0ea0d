//! Notices a flood of mDNS datagrams at no cost while there is none.
//!
//! mdns-sd keeps what it hears without a bound and tells nobody. To ask it every second would wake an idle node
//! twice a second; so the kernel tosses a die for every datagram, and only one in 64 ever wakes us.
//!
//! What it does not help against is a flood that leaves mdns-sd no pause (from some 70 Mbit/s on one core of a PC):
//! it then hears none of our commands and grows by about 100 MB/s until the flood ends. Only a limit on the process
//! bounds that.
//!
//! Deliberately absent: a look into any datagram. Where no such socket can be had, the caller's timer is left.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    task::{Context, Poll},
};

use mdns_sd::MDNS_PORT;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::Interfaces;

/// Group of mDNS over IPv4 (RFC 6762 §3).
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// Group of mDNS over IPv6 (RFC 6762 §3).
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// One datagram of so many passes. 64 of them hold at most 64,000 records, some 6 MB in mdns-sd's memory.
const PASSES_ONE_IN: u32 = 64;
/// Interfaces whose IPv6 is metered; more of them belong to routers.
const METERED_V6_MAX: usize = 8;
/// Datagrams read at once; what more there is only says the same.
const DRAINED_MAX: usize = 64;

/// Sockets that see one datagram in 64.
pub(super) struct Meter {
    sockets: Vec<UdpSocket>,
}

impl Meter {
    /// Opens a socket for IPv4 and one for every interface's IPv6. Must be called within a tokio runtime with IO.
    pub(super) fn open(interfaces: Interfaces) -> Self {
        let mut places = vec![SockAddr::from(SocketAddrV4::new(GROUP_V4, MDNS_PORT))];
        let used = interfaces.used().unwrap_or_default();
        let v6: BTreeSet<u32> =
            used.iter().filter(|i| i.ip().is_ipv6()).filter_map(|interface| interface.index).collect();
        places.extend(
            v6.into_iter()
                .take(METERED_V6_MAX)
                .map(|index| SockAddr::from(SocketAddrV6::new(GROUP_V6, MDNS_PORT, 0, index))),
        );
        let sockets = places.iter().filter_map(|place| {
            open(place).inspect_err(|error| tracing::debug!(%error, "mdns traffic is not metered")).ok()
        });
        Self { sockets: sockets.collect() }
    }

    /// Ready when a datagram has passed. Wakes the task of the last call.
    pub(super) fn poll_passed(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Every socket is polled, so that each of them wakes the task.
        let ready = self.sockets.iter().filter(|socket| socket.poll_recv_ready(cx).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Throws away what has passed; whether there was any.
    pub(super) fn drain(&self) -> bool {
        let mut passed = false;
        for socket in &self.sockets {
            passed |= (0..DRAINED_MAX).take_while(|_| socket.try_recv(&mut [0]).is_ok()).count() > 0;
        }
        passed
    }
}

/// A socket on the group's address, which gets nothing that was meant for one program: datagrams to this machine
/// alone reach only one of those that share the port. It joins no group, for Linux shows it those that others
/// joined.
fn open(place: &SockAddr) -> io::Result<UdpSocket> {
    let domain = if place.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.attach_filter(&one_in(PASSES_ONE_IN))?;
    socket.bind(place)?;
    UdpSocket::from_std(socket.into())
}

/// A classic BPF program (Linux `networking/filter`) that lets one datagram of `n` pass, `n` a power of two.
fn one_in(n: u32) -> [SockFilter; 5] {
    const LOAD_WORD: u16 = 0x20;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_RANDOM`: a random word.
    const RANDOM: u32 = (-0x1000_i32 + 56) as u32;
    [
        SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
        SockFilter::new(AND, 0, 0, n - 1),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
