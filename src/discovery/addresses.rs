//! Which addresses are worth dialling when somebody else names them.
//!
//! Deliberately absent: whether one answers. Private ranges are fine, for that is where most nodes are; what a
//! stranger could gain by naming one is a handshake of ours that fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses.
#[derive(Clone, Copy)]
struct Range {
    network: IpAddr,
    prefix: u32,
}

const fn v4(a: u8, b: u8, c: u8, prefix: u32) -> Range {
    Range { network: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), prefix }
}

const fn v6(a: u16, b: u16, prefix: u32) -> Range {
    Range { network: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), prefix }
}

/// Where no single node can be (RFC 6890).
const NOT_UNICAST: &[Range] = &[
    v4(0, 0, 0, 8),   // unspecified, "this network"
    v4(224, 0, 0, 4), // multicast
    v4(240, 0, 0, 4), // reserved, broadcast
    v6(0, 0, 128),    // unspecified
    v6(0xff00, 0, 8), // multicast
];

/// Where a node can be, but none that anybody means: documentation, and the range that discards.
const NOWHERE: &[Range] = &[
    v4(192, 0, 2, 24),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v6(0x2001, 0x0db8, 32),
    v6(0x3fff, 0, 20), // RFC 9637
    v6(0x0100, 0, 64), // RFC 6666
];

/// IPv4 addresses that hold on one link only (RFC 3927).
const LINK_V4: Range = v4(169, 254, 0, 16);
/// IPv6 addresses that hold on one link only, and mean nothing without the interface.
const LINK_V6: Range = v6(0xfe80, 0, 10);

impl Range {
    fn contains(self, addr: IpAddr) -> bool {
        match (self.network, addr) {
            (IpAddr::V4(network), IpAddr::V4(addr)) => {
                (network.to_bits() ^ addr.to_bits()).leading_zeros() >= self.prefix
            }
            (IpAddr::V6(network), IpAddr::V6(addr)) => {
                (network.to_bits() ^ addr.to_bits()).leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

/// Whether a single node can be there: neither unspecified, multicast, broadcast nor reserved. IPv4 addresses
/// in IPv6 form are judged as IPv4.
pub fn is_unicast(addr: &IpAddr) -> bool {
    let addr = addr.to_canonical();
    !NOT_UNICAST.iter().any(|range| range.contains(addr))
}

/// Whether to dial `addr` on the word of a peer that is at `teller`.
///
/// Loopback counts only among nodes of one machine, an IPv4 link-local address only between two of them, and an
/// IPv6 one never, for its interface is not told.
pub fn is_dialable(addr: &IpAddr, teller: &IpAddr) -> bool {
    let (addr, teller) = (addr.to_canonical(), teller.to_canonical());
    if !is_unicast(&addr) || NOWHERE.iter().any(|range| range.contains(addr)) || is_link_local(&addr) {
        return LINK_V4.contains(addr) && LINK_V4.contains(teller);
    }
    !addr.is_loopback() || teller.is_loopback()
}

/// Whether an address needs its interface to be dialled: an IPv6 link-local one does. IPv4 ones count too.
pub(super) fn is_link_local(addr: &IpAddr) -> bool {
    LINK_V4.contains(*addr) || LINK_V6.contains(*addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_peer_may_tell() {
        let far = ["10.0.0.7", "192.168.1.2", "172.31.255.255", "100.64.0.1", "8.8.8.8", "198.18.0.1"];
        let far6 = ["fd00::1", "2001:4860:4860::8888", "2a00::1", "::ffff:10.0.0.7", "64:ff9b::808:808"];
        for addr in far.iter().chain(&far6) {
            assert!(is_dialable(&ip(addr), &ip("10.0.0.1")), "{addr}");
            assert!(is_dialable(&ip(addr), &ip("::1")), "{addr}");
        }
    }

    #[test]
    fn what_a_peer_may_not_tell() {
        let nowhere = [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.251",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.51.100.200",
            "203.0.113.9",
            "::",
            "ff02::fb",
            "ff0e::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "3fff::1",
            "3fff:fff::1",
            "100::1",
            "fe80::1",
            "febf::1",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "::ffff:255.255.255.255",
            "::ffff:192.0.2.1",
        ];
        for addr in nowhere {
            for teller in ["10.0.0.1", "127.0.0.1", "::1", "fe80::1"] {
                assert!(!is_dialable(&ip(addr), &ip(teller)), "{addr} from {teller}");
            }
        }
        // The neighbours of a range are not in it.
        for addr in ["1.0.0.0", "223.255.255.255", "192.0.3.0", "3fff:1000::1", "100:0:0:1::1", "fec0::1"] {
            assert!(is_dialable(&ip(addr), &ip("10.0.0.1")), "{addr}");
        }
    }

    #[test]
    fn loopback_and_link_stay_where_they_hold() {
        let table = [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::1", true),
            ("127.9.9.9", "::ffff:127.0.0.1", true),
            ("::1", "127.0.0.1", true),
            ("::ffff:127.0.0.1", "10.0.0.1", false),
            ("127.0.0.1", "10.0.0.1", false),
            ("::1", "fd00::1", false),
            ("169.254.1.1", "169.254.7.7", true),
            ("169.254.169.254", "10.0.0.1", false),
            ("169.254.1.1", "127.0.0.1", false),
            ("::ffff:169.254.169.254", "192.168.1.1", false),
        ];
        for (addr, teller, dialable) in table {
            assert_eq!(is_dialable(&ip(addr), &ip(teller)), dialable, "{addr} from {teller}");
        }
    }

    #[test]
    fn one_node_can_be_there() {
        for (addr, unicast) in [
            ("192.0.2.1", true),
            ("127.0.0.1", true),
            ("fe80::1", true),
            ("::1", true),
            ("::", false),
            ("255.255.255.255", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_unicast(&ip(addr)), unicast, "{addr}");
        }
    }
}
