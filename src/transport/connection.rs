//! One authenticated connection to one peer, and its streams.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{
    CloseCode, Closed, Exchange, TransportError,
    limits::OPEN_WAIT_MAX,
    memory::{Memory, Share},
    public_key, socket,
};
use crate::wire::PeerId;

/// Label under which both sides derive the same 32 bytes (RFC 8446 §7.5). Frozen.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-edge swarm tags";

/// A connection whose peer has proven its key. Cheap to clone; when the last clone and the last exchange are
/// dropped, it is closed without a word.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    quinn: quinn::Connection,
    peer: PeerId,
    exporter: [u8; 32],
    share: Share,
    dialled_by_us: bool,
}

/// What a connection has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Estimated round trip.
    pub rtt: Duration,
    /// Bytes of UDP sent.
    pub sent_bytes: u64,
    /// Bytes of UDP received.
    pub received_bytes: u64,
}

impl Connection {
    /// Looks who is at the other end of `quinn`, and closes it if that is nobody we talk to.
    ///
    /// # Errors
    /// [`TransportError::Oneself`], [`TransportError::Unexpected`]; [`TransportError::Handshake`] if no key was
    /// shown, which the handshake does not allow.
    pub(super) fn identify(
        quinn: quinn::Connection,
        own: PeerId,
        expected: Option<PeerId>,
        dialled_by_us: bool,
        memory: &Memory,
    ) -> Result<Self, TransportError> {
        let remote = socket::canonical(quinn.remote_address());
        let refuse = |error| {
            quinn.close(CloseCode::Refused.to_quic(), b"");
            error
        };
        let unproven = || TransportError::Handshake {
            remote,
            source: Closed::Broken { why: "the peer has shown no key", code: 0 },
        };
        let peer = shown_peer(&quinn).ok_or_else(|| refuse(unproven()))?;
        if peer == own {
            return Err(refuse(TransportError::Oneself { remote }));
        }
        if let Some(expected) = expected.filter(|expected| *expected != peer) {
            return Err(refuse(TransportError::Unexpected { remote, expected, found: peer }));
        }
        let mut exporter = [0; 32];
        quinn.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").map_err(|_| refuse(unproven()))?;
        Ok(Self(Arc::new(Inner { quinn, peer, exporter, share: memory.share(peer), dialled_by_us })))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// Where the peer is now; a peer that changes its network changes it.
    pub fn remote(&self) -> SocketAddr {
        socket::canonical(self.0.quinn.remote_address())
    }

    /// 32 secret bytes that both ends of this connection know, and nobody else; other ones for each connection.
    pub fn exporter(&self) -> [u8; 32] {
        self.0.exporter
    }

    /// Whether we dialled.
    pub fn dialled_by_us(&self) -> bool {
        self.0.dialled_by_us
    }

    /// Opens an exchange. The peer hears of it with the first frame. Waits at most 10 s for the peer to allow one
    /// more. Cancel safe.
    ///
    /// # Errors
    /// [`TransportError::TimedOut`], [`TransportError::Lost`].
    pub async fn open(&self) -> Result<Exchange, TransportError> {
        self.open_within(OPEN_WAIT_MAX).await
    }

    pub(super) async fn open_within(&self, wait: Duration) -> Result<Exchange, TransportError> {
        let (send, receive) = timeout(wait, self.0.quinn.open_bi())
            .await
            .map_err(|_| TransportError::TimedOut { what: "allow another exchange" })?
            .map_err(TransportError::lost)?;
        Ok(Exchange::new(send, receive, self.0.share.clone()))
    }

    /// The next exchange that the peer has opened and sent something on. Waits as long as the connection lives.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TransportError::Lost`].
    pub async fn accept(&self) -> Result<Exchange, TransportError> {
        let (send, receive) = self.0.quinn.accept_bi().await.map_err(TransportError::lost)?;
        Ok(Exchange::new(send, receive, self.0.share.clone()))
    }

    /// Closes at once: what is not yet delivered is lost, see [`Exchange::delivered`]. The second call does
    /// nothing.
    pub fn close(&self, code: CloseCode) {
        self.0.quinn.close(code.to_quic(), b"");
    }

    /// Whether it has ended, by either side.
    pub fn is_closed(&self) -> bool {
        self.0.quinn.close_reason().is_some()
    }

    /// Waits for the end and says how it came. Cancel safe.
    pub async fn closed(&self) -> Closed {
        self.0.quinn.closed().await.into()
    }

    /// What it has cost so far.
    pub fn stats(&self) -> Stats {
        let stats = self.0.quinn.stats();
        Stats { rtt: self.0.quinn.rtt(), sent_bytes: stats.udp_tx.bytes, received_bytes: stats.udp_rx.bytes }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The exporter is a secret.
        f.debug_struct("Connection")
            .field("peer", &self.0.peer)
            .field("remote", &self.remote())
            .field("dialled_by_us", &self.0.dialled_by_us)
            .finish_non_exhaustive()
    }
}

fn shown_peer(quinn: &quinn::Connection) -> Option<PeerId> {
    let shown = quinn.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match shown.as_slice() {
        [key] => public_key::peer_from_spki(key),
        _ => None,
    }
}
