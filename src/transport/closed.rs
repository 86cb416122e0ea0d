//! How a connection ended, in our words: a peer's own text is never kept, so that it never reaches a log.

use quinn::{ConnectionError, TransportErrorCode, VarInt};

/// Why one side closes a connection. The number is the QUIC application error code and is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The node leaves: what it was lent goes back at once.
    Leaving,
    /// Another connection to the same peer stays.
    Duplicate,
    /// No room for another peer.
    Full,
    /// This peer is not wanted.
    Refused,
    /// The peer broke the protocol.
    Protocol,
    /// The connection is not needed at the moment; to be dialled again when there is work.
    Surplus,
}

impl CloseCode {
    const ALL: [Self; 6] =
        [Self::Leaving, Self::Duplicate, Self::Full, Self::Refused, Self::Protocol, Self::Surplus];

    pub(super) const fn to_quic(self) -> VarInt {
        // 0 is what QUIC sends for a connection that was dropped without a word.
        VarInt::from_u32(match self {
            Self::Leaving => 1,
            Self::Duplicate => 2,
            Self::Full => 3,
            Self::Refused => 4,
            Self::Protocol => 5,
            Self::Surplus => 6,
        })
    }

    fn from_quic(code: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.to_quic() == code)
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The peer closed it and said why.
    #[error("the peer closed the connection ({0:?})")]
    ByPeer(CloseCode),
    /// The peer closed it with a code that we do not know; 0 if it just dropped it.
    #[error("the peer closed the connection (code {0})")]
    ByPeerUnknown(u64),
    /// We closed it.
    #[error("we closed the connection")]
    Oneself,
    /// Nothing was heard of the peer for too long.
    #[error("the peer fell silent")]
    TimedOut,
    /// QUIC or TLS gave up.
    #[error("{why} (QUIC error {code:#x})")]
    Broken {
        /// In words.
        why: &'static str,
        /// QUIC transport error code (RFC 9000 §20.1); from 0x100 on, the alert of TLS plus 0x100.
        code: u64,
    },
}

impl From<ConnectionError> for Closed {
    fn from(error: ConnectionError) -> Self {
        let broken = |why, code: TransportErrorCode| Self::Broken { why, code: code.into() };
        match error {
            ConnectionError::ApplicationClosed(close) => CloseCode::from_quic(close.error_code)
                .map_or(Self::ByPeerUnknown(close.error_code.into_inner()), Self::ByPeer),
            ConnectionError::LocallyClosed => Self::Oneself,
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::ConnectionClosed(close) => {
                broken("the peer found fault with what we sent", close.error_code)
            }
            ConnectionError::TransportError(error) => {
                broken("we found fault with what the peer sent", error.code)
            }
            ConnectionError::Reset => {
                broken("the peer has forgotten the connection", TransportErrorCode::NO_ERROR)
            }
            ConnectionError::VersionMismatch => {
                broken("the peer speaks another version of QUIC", TransportErrorCode::NO_ERROR)
            }
            ConnectionError::CidsExhausted => {
                broken("no connection id is left", TransportErrorCode::INTERNAL_ERROR)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_frozen() {
        let codes = CloseCode::ALL.map(|code| code.to_quic().into_inner());
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_quic(code.to_quic()), Some(code));
        }
        assert_eq!(CloseCode::from_quic(VarInt::from_u32(0)), None);
        assert_eq!(CloseCode::from_quic(VarInt::from_u32(7)), None);
    }
}
