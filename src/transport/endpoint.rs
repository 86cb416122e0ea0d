//! The node's one QUIC endpoint: who knocks, and whom we dial.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ed25519_dalek::SigningKey;
use quinn::{ConnectError, TokioRuntime};
use tokio::time::timeout;

use super::{
    CloseCode, Connection, Listen, TransportError,
    limits::{DRAIN_WAIT_MAX, HALF_OPEN_MAX, HALF_OPEN_RETRY, HANDSHAKE_WAIT_MAX},
    memory::Memory,
    socket,
    tls::{self, Identity, ServerKey},
};
use crate::wire::PeerId;

/// One socket, one key. Dropping it says goodbye to all peers, as far as the runtime still runs.
pub struct Endpoint {
    quinn: quinn::Endpoint,
    identity: Identity,
    address: SocketAddr,
    half_open: Arc<AtomicUsize>,
    memory: Memory,
}

impl Endpoint {
    /// Binds the socket and begins to receive, on the runtime that this is called in.
    ///
    /// # Errors
    /// [`TransportError::InUse`], [`TransportError::Bind`], [`TransportError::Identity`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time.
    pub fn bind(key: &SigningKey, listen: Listen) -> Result<Self, TransportError> {
        let identity = Identity::new(key).map_err(|source| TransportError::Identity { source })?;
        Self::bind_as(identity, listen)
    }

    pub(super) fn bind_as(identity: Identity, listen: Listen) -> Result<Self, TransportError> {
        let server = identity
            .server_tls()
            .and_then(tls::server)
            .map_err(|source| TransportError::Identity { source })?;
        let socket = socket::bind(listen)?;
        let failed = |source| TransportError::Bind {
            address: SocketAddr::new(listen.address.unwrap_or([0; 16].into()), listen.port),
            source,
        };
        let address = socket.local_addr().map_err(failed)?;
        let mut drawn = [0; 32];
        getrandom::fill(&mut drawn).map_err(|error| failed(io::Error::other(error)))?;
        let config = identity.reset.endpoint(drawn);
        let quinn =
            quinn::Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(failed)?;
        Ok(Self { quinn, identity, address, half_open: Arc::default(), memory: Memory::new() })
    }

    /// The UDP port that peers reach us on.
    pub fn local_port(&self) -> u16 {
        self.address.port()
    }

    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.identity.peer
    }

    /// The next peer that knocks; `None` once the endpoint is closed. Cancel safe.
    ///
    /// From [`HALF_OPEN_RETRY`] arrivals under way on, who knocks must first prove its address; beyond
    /// [`HALF_OPEN_MAX`] nobody is heard. An arrival counts until it is established, refused or dropped.
    pub async fn accept(&self) -> Option<Arrival> {
        loop {
            let incoming = self.quinn.accept().await?;
            let half_open = self.half_open.load(Ordering::Relaxed);
            if half_open >= HALF_OPEN_MAX {
                incoming.ignore();
            } else if half_open >= HALF_OPEN_RETRY && !incoming.remote_address_validated() {
                // It can only fail for an address that is proven already.
                let _ = incoming.retry();
            } else {
                return Some(Arrival {
                    incoming,
                    own: self.identity.peer,
                    half_open: HalfOpen::enter(&self.half_open),
                    memory: self.memory.clone(),
                });
            }
        }
    }

    /// Dials `remote`; `expected` is who must be there, where that is known. A peer that is not who was expected
    /// does not learn who we are. Cancel safe.
    ///
    /// The peer judges our key after we have judged its: one that turns us away closes the connection a moment
    /// after this returns.
    ///
    /// # Errors
    /// [`TransportError::NoAnswer`] after [`HANDSHAKE_WAIT_MAX`]; `Address`, `Refused`, `OtherProtocol`,
    /// `Handshake`, `Unexpected`, `Oneself`, `Closing`.
    pub async fn dial(
        &self,
        remote: SocketAddr,
        expected: Option<PeerId>,
    ) -> Result<Connection, TransportError> {
        self.dial_within(remote, expected, HANDSHAKE_WAIT_MAX).await
    }

    pub(super) async fn dial_within(
        &self,
        remote: SocketAddr,
        expected: Option<PeerId>,
        wait: Duration,
    ) -> Result<Connection, TransportError> {
        let own = self.identity.peer;
        let remote = socket::canonical(remote);
        if expected == Some(own) {
            return Err(TransportError::Oneself { remote });
        }
        let verifier = Arc::new(ServerKey::new(own, expected));
        let client = self
            .identity
            .client_tls(Arc::clone(&verifier))
            .and_then(tls::client)
            .map_err(|source| TransportError::Identity { source })?;
        let connecting =
            self.quinn.connect_with(client, remote, &server_name(expected)).map_err(|error| match error {
                ConnectError::EndpointStopping => TransportError::Closing,
                _ => TransportError::Address { remote },
            })?;
        let outcome = timeout(wait, connecting).await.map_err(|_| TransportError::NoAnswer { remote })?;
        let quinn = outcome.map_err(|error| match (verifier.proven(), expected) {
            (Some(found), _) if found == own => TransportError::Oneself { remote },
            (Some(found), Some(expected)) if found != expected => {
                TransportError::Unexpected { remote, expected, found }
            }
            _ => TransportError::handshake(remote, error),
        })?;
        Connection::identify(quinn, own, expected, true, &self.memory)
    }

    /// Closes every connection and takes no more.
    pub fn close(&self, code: CloseCode) {
        self.quinn.close(code.to_quic(), b"");
    }

    /// Waits until every connection has ended; whether they did within 3 s. Call [`Endpoint::close`] first.
    /// Cancel safe.
    pub async fn wait_idle(&self) -> bool {
        timeout(DRAIN_WAIT_MAX, self.quinn.wait_idle()).await.is_ok()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close(CloseCode::Leaving);
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("peer", &self.identity.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// A peer that knocks and has proven nothing yet. Dropping it refuses it.
#[derive(Debug)]
pub struct Arrival {
    incoming: quinn::Incoming,
    own: PeerId,
    half_open: HalfOpen,
    memory: Memory,
}

impl Arrival {
    /// The address it claims.
    pub fn remote(&self) -> SocketAddr {
        socket::canonical(self.incoming.remote_address())
    }

    /// Whether it receives what is sent to that address.
    pub fn address_proven(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Carries the handshake out. Run it beside [`Endpoint::accept`], not in its loop: the peer may take
    /// [`HANDSHAKE_WAIT_MAX`].
    ///
    /// # Errors
    /// `NoAnswer`, `OtherProtocol`, `Handshake`, `Oneself`, `Closing`.
    pub async fn establish(self) -> Result<Connection, TransportError> {
        self.establish_within(HANDSHAKE_WAIT_MAX).await
    }

    pub(super) async fn establish_within(self, wait: Duration) -> Result<Connection, TransportError> {
        let remote = self.remote();
        let Self { incoming, own, half_open: _until_the_end, memory } = self;
        let failed = |error| TransportError::handshake(remote, error);
        let connecting = incoming.accept().map_err(failed)?;
        let outcome = timeout(wait, connecting).await.map_err(|_| TransportError::NoAnswer { remote })?;
        Connection::identify(outcome.map_err(failed)?, own, None, false, &memory)
    }

    /// Turns it away before any work is done for it.
    pub fn refuse(self) {
        self.incoming.refuse();
    }
}

/// Counts an arrival for as long as it is one.
#[derive(Debug)]
struct HalfOpen(Arc<AtomicUsize>);

impl HalfOpen {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// TLS wants a name. It is never sent, and no name of the real world ends so (RFC 6761 §6.4).
fn server_name(expected: Option<PeerId>) -> String {
    expected.map_or_else(|| "edge.invalid".into(), |peer| format!("{peer}.edge.invalid"))
}
