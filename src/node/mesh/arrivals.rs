//! Who knocks and has not introduced itself yet: how many at a time, in all and from one place.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

/// Arrivals at a time: each may keep a window full of bytes.
const ARRIVALS_MAX: usize = 64;
/// From one address, or one IPv6 network of a home: a class behind one router still gets in, one hostile host does not
/// keep everybody else out.
const OF_SOURCE_MAX: usize = 16;

/// Counts them.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals(Rc<RefCell<BTreeMap<IpAddr, usize>>>);

/// One that counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Arriving {
    arrivals: Arrivals,
    source: IpAddr,
}

impl Arrivals {
    /// Counts one from there; `None` where there is no place.
    pub(super) fn enter(&self, at: SocketAddr) -> Option<Arriving> {
        let source = source(at.ip());
        let mut counts = self.0.borrow_mut();
        let of_source = counts.get(&source).copied().unwrap_or(0);
        if of_source >= OF_SOURCE_MAX || counts.values().sum::<usize>() >= ARRIVALS_MAX {
            return None;
        }
        counts.insert(source, of_source + 1);
        Some(Arriving { arrivals: self.clone(), source })
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut counts = self.arrivals.0.borrow_mut();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_keep_others_out() {
        let arrivals = Arrivals::default();
        let enter = |at: &str| arrivals.enter(at.parse().unwrap());
        let network: Vec<_> = (0..99).filter_map(|n| enter(&format!("[fd00::{n}]:1"))).collect();
        assert_eq!(network.len(), OF_SOURCE_MAX);
        let one = enter("10.0.0.1:9").unwrap();
        let others: Vec<_> = (2..99).filter_map(|n| enter(&format!("10.0.0.{n}:1"))).collect();
        assert_eq!(network.len() + others.len() + 1, ARRIVALS_MAX);
        assert!(enter("10.0.1.1:1").is_none());
        drop(one);
        assert!(enter("[::ffff:10.0.1.1]:1").is_some());
        drop((network, others));
        assert!(arrivals.0.borrow().is_empty(), "what is over is not remembered");
    }
}
