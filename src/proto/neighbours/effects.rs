//! What the machine is for, and what it asks its holder to do.

// Only the type: no socket is opened here.
use core::net::SocketAddr;

use crate::wire::{DemandTold, PeerId};

/// The part that a node plays among its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// It computes for others: it dials who has work.
    pub lends: bool,
    /// It is a bootstrap node: it keeps every link.
    pub serves: bool,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a neighbour for demand, and hand in what comes of it by [`Neighbours::answered`](super::Neighbours::answered).
    Ask {
        /// Whom.
        peer: PeerId,
        /// What is known already.
        after: u64,
    },
    /// Tell a neighbour what this node demands.
    Tell {
        /// Whom.
        peer: PeerId,
        /// What.
        told: DemandTold,
    },
    /// A connected member has work from now on, or none any more.
    Demand {
        /// Who.
        peer: PeerId,
        /// Whether it has.
        demand: bool,
    },
    /// Dial an aggregator that has work.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where it was reached, latest first.
        addresses: Vec<SocketAddr>,
    },
    /// Close a link that is not needed.
    Close {
        /// Whose.
        peer: PeerId,
    },
}
