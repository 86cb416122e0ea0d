//! What can go wrong between two nodes, one variant an operation.

use std::net::SocketAddr;

use quinn::{ConnectionError, TransportErrorCode};

use super::Closed;
use crate::wire::PeerId;

/// The alert of TLS for "no application protocol" (120), as QUIC carries it.
const NO_SHARED_PROTOCOL: u64 = 0x178;

/// Why the transport could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another program, or another edge, has the port.
    #[error(
        "UDP port {} of {} is in use: end what uses it, or choose another port (0 takes any that is free)",
        address.port(),
        address.ip()
    )]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// The socket can not be made or bound.
    #[error("cannot listen on UDP {address}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The identity is of no use to TLS.
    #[error("cannot use the identity for TLS")]
    Identity {
        /// What TLS said.
        #[source]
        source: rustls::Error,
    },
    /// No packet can go there: port 0, no address, or IPv6 from a socket for IPv4.
    #[error("cannot dial {remote}: no address that this node can reach")]
    Address {
        /// What was to be dialled.
        remote: SocketAddr,
    },
    /// The endpoint was closed.
    #[error("the node is leaving the network")]
    Closing,
    /// The peer has no room, or does not want us, and said so before TLS.
    #[error("{remote} refused the connection")]
    Refused {
        /// Its address.
        remote: SocketAddr,
    },
    /// Whoever answered speaks another protocol, or another version of ours.
    #[error("{remote} speaks no version of our protocol")]
    OtherProtocol {
        /// Its address.
        remote: SocketAddr,
    },
    /// The handshake failed: a key was not shown or not proven, or packets were damaged.
    #[error("no connection with {remote}")]
    Handshake {
        /// The address of the other side.
        remote: SocketAddr,
        /// How it ended.
        #[source]
        source: Closed,
    },
    /// The handshake took too long, or nobody is there.
    #[error("{remote} does not answer")]
    NoAnswer {
        /// The address of the other side.
        remote: SocketAddr,
    },
    /// Another peer than the one we were told is at that address. It has proven its key, and has not seen ours.
    #[error("{remote} is {found}, not {expected}")]
    Unexpected {
        /// The address dialled.
        remote: SocketAddr,
        /// Who was asked for.
        expected: PeerId,
        /// Who answered.
        found: PeerId,
    },
    /// The other side has our own key: an address of ours, or a copied identity.
    #[error("{remote} has the key of this node")]
    Oneself {
        /// Its address.
        remote: SocketAddr,
    },
    /// The connection is gone.
    #[error("the connection is gone")]
    Lost(#[source] Closed),
    /// A frame is longer than its reader takes; nothing of it was kept.
    #[error("a frame of {bytes} bytes is too large, {bytes_max} are allowed")]
    TooLarge {
        /// What its prefix says.
        bytes: u64,
        /// What was allowed.
        bytes_max: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The peer was too slow.
    #[error("the peer took too long to {what}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
    },
    /// The peer declined this exchange, and keeps the connection.
    #[error("the peer declined the exchange")]
    Declined,
    /// The peer gave this exchange up.
    #[error("the peer gave up the exchange (code {code})")]
    GivenUp {
        /// Its QUIC application error code.
        code: u64,
    },
    /// We have ended this direction ourselves: finished, declined, or stopped within a frame.
    #[error("the exchange was ended on this side")]
    Ended,
}

impl TransportError {
    /// A handshake with `remote` that ended so.
    pub(super) fn handshake(remote: SocketAddr, error: ConnectionError) -> Self {
        match Closed::from(error) {
            Closed::TimedOut => Self::NoAnswer { remote },
            Closed::Oneself => Self::Closing,
            Closed::Broken { code: NO_SHARED_PROTOCOL, .. } => Self::OtherProtocol { remote },
            Closed::Broken { code, .. } if code == u64::from(TransportErrorCode::CONNECTION_REFUSED) => {
                Self::Refused { remote }
            }
            source => Self::Handshake { remote, source },
        }
    }

    pub(super) fn lost(error: ConnectionError) -> Self {
        Self::Lost(error.into())
    }
}
