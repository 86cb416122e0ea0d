//! The room on real loopback sockets, with seeded keys, and with peers that misbehave.

mod connection;
mod endpoint;
mod exchange;
mod foreign;
mod handshake;
mod memory;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use tokio::time::timeout;

use super::{
    Connection, Endpoint, Exchange, Listen, TransportError, public_key,
    reset::ResetKey,
    tls::{self, Identity, ServerKey},
};
use crate::wire::PeerId;

/// Long enough for what must happen, on a busy machine.
const LONG: Duration = Duration::from_secs(20);
/// How long is waited for what must not happen.
const SHORT: Duration = Duration::from_millis(300);
/// A frame's limit where it does not matter.
const BYTES_MAX: usize = 1 << 20;

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(2 * LONG, test).await.expect("the test hangs") })
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn id(seed: u8) -> PeerId {
    PeerId::from_bytes(key(seed).verifying_key().to_bytes())
}

const LOOPBACK: Listen = Listen { address: Some(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 0 };

fn endpoint(seed: u8) -> Endpoint {
    Endpoint::bind(&key(seed), LOOPBACK).unwrap()
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, endpoint.local_port()).into()
}

/// Shows the key `shown` and signs with the one of `signer`.
fn liar(shown: PeerId, signer: u8) -> Identity {
    let spki = CertificateDer::from(public_key::to_spki(&shown));
    let signing = tls::signing_key(&key(signer)).unwrap();
    let reset = ResetKey::new(&[signer; 32]);
    Identity { peer: shown, certified: Arc::new(CertifiedKey::new(vec![spki], signing)), reset }
}

fn raw_client(tls: rustls::ClientConfig) -> quinn::Endpoint {
    let mut client = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    client.set_default_client_config(tls::client(tls).unwrap());
    client
}

fn raw_server(tls: rustls::ServerConfig) -> (quinn::Endpoint, SocketAddr) {
    let server = quinn::Endpoint::server(tls::server(tls).unwrap(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

/// A well-meant client configuration of `seed`, to be spoilt.
fn client_tls(seed: u8) -> rustls::ClientConfig {
    let verifier = Arc::new(ServerKey::new(id(seed), None));
    Identity::new(&key(seed)).unwrap().client_tls(verifier).unwrap()
}

/// A well-meant server configuration of `seed`, to be spoilt.
fn server_tls(seed: u8) -> rustls::ServerConfig {
    Identity::new(&key(seed)).unwrap().server_tls().unwrap()
}

async fn establish(endpoint: &Endpoint) -> Result<Connection, TransportError> {
    endpoint.accept().await.unwrap().establish().await
}

/// What both sides make of it when `a` dials `b`.
async fn meet(
    a: &Endpoint,
    b: &Endpoint,
    expected: Option<PeerId>,
) -> (Result<Connection, TransportError>, Result<Connection, TransportError>) {
    tokio::join!(a.dial(address(b), expected), establish(b))
}

struct Pair {
    a: Endpoint,
    b: Endpoint,
    ab: Connection,
    ba: Connection,
}

/// 1 has dialled 2.
async fn pair() -> Pair {
    let (a, b) = (endpoint(1), endpoint(2));
    let (ab, ba) = meet(&a, &b, Some(id(2))).await;
    Pair { a, b, ab: ab.unwrap(), ba: ba.unwrap() }
}

impl Pair {
    /// An exchange that 1 has opened with the frame `hello`, which 2 has read.
    async fn exchange(&self) -> (Exchange, Exchange) {
        let mut ours = self.ab.open().await.unwrap();
        ours.send(b"hello", BYTES_MAX, LONG).await.unwrap();
        let mut theirs = self.ba.accept().await.unwrap();
        assert_eq!(theirs.receive(BYTES_MAX, LONG).await.unwrap().unwrap(), b"hello");
        (ours, theirs)
    }

    /// Whether frames still travel both ways.
    async fn assert_works(&self) {
        let (mut ours, mut theirs) = self.exchange().await;
        theirs.send(b"hello too", BYTES_MAX, LONG).await.unwrap();
        assert_eq!(ours.receive(BYTES_MAX, LONG).await.unwrap().unwrap(), b"hello too");
    }
}
