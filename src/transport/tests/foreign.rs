//! Peers that speak QUIC, but not as we do: other protocols, other ways to show who one is.

use rustls::{
    SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    server::ResolvesServerCert,
};

use super::*;
use crate::transport::Closed;

/// A self-signed X.509 certificate of an Ed25519 key.
const X509: &str = "MIHUMIGHAhQSjf7YE0NMVqXqX7v+mEHkuD8jEzAFBgMrZXAwDDEKMAgGA1UEAwwBeDAgFw0yNjExMjAxOTM2MzlaGA8yMTI2MTAyNzE5MzYzOVowDDEKMAgGA1UEAwwBeDAqMAUGAytlcAMhAHwvUmGwkmbunJ/U++fyIityw99/3HwHUB4+JDndbHy+MAUGAytlcANBAFDGvZwoMy7WKYAZwGH8TimUCc5reHUyPvzg2H3sg0B2VpqaFeyKRYPEj/FVCQytg6x0NPHO8X6uP/KLPqWJvQY=";

/// Shows one thing, or nothing, as a raw public key or as X.509.
#[derive(Debug)]
struct Shows {
    certified: Option<Arc<CertifiedKey>>,
    raw: bool,
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified.clone()
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified.clone()
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw
    }
}

fn x509() -> Option<Arc<CertifiedKey>> {
    let der = data_encoding::BASE64.decode(X509.as_bytes()).unwrap();
    Some(Arc::new(CertifiedKey::new(vec![der.into()], tls::signing_key(&key(3)).unwrap())))
}

/// Several keys of which the first is proven.
fn two_keys() -> Option<Arc<CertifiedKey>> {
    let shown = [3, 4].map(|seed| CertificateDer::from(public_key::to_spki(&id(seed))));
    Some(Arc::new(CertifiedKey::new(shown.to_vec(), tls::signing_key(&key(3)).unwrap())))
}

/// How we answer a client with that configuration, and how it sees its end.
async fn answer(tls: rustls::ClientConfig) -> (TransportError, Closed) {
    let (server, client) = (endpoint(2), raw_client(tls));
    let theirs = async {
        match client.connect(address(&server), "edge.invalid").unwrap().await {
            Ok(connected) => connected.closed().await.into(),
            Err(error) => error.into(),
        }
    };
    let (arrived, closed) = tokio::join!(establish(&server), theirs);
    (arrived.unwrap_err(), closed)
}

/// How we dial a server with that configuration.
async fn dial(tls: rustls::ServerConfig) -> TransportError {
    let (server, to) = raw_server(tls);
    let theirs = async { server.accept().await.unwrap().await };
    let us = endpoint(1);
    let (dialled, arrived) = tokio::join!(us.dial(to, None), theirs);
    arrived.unwrap_err();
    dialled.unwrap_err()
}

#[test]
fn other_protocols_are_told_so() {
    run(async {
        for protocols in [vec![], vec![b"edge/2".to_vec()], vec![b"h3".to_vec()]] {
            let mut tls = client_tls(1);
            tls.alpn_protocols = protocols.clone();
            let (error, _) = answer(tls).await;
            assert!(matches!(error, TransportError::OtherProtocol { .. }), "{error:?}");

            let mut tls = server_tls(2);
            tls.alpn_protocols = protocols;
            let error = dial(tls).await;
            assert!(matches!(error, TransportError::OtherProtocol { .. }), "{error:?}");
        }
    });
}

#[test]
fn whoever_shows_nothing_is_refused() {
    run(async {
        for raw in [true, false] {
            let mut tls = client_tls(1);
            tls.client_auth_cert_resolver = Arc::new(Shows { certified: None, raw });
            let (error, closed) = answer(tls).await;
            assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");
            assert!(matches!(closed, Closed::Broken { .. }), "{closed:?}");
        }
    });
}

#[test]
fn certificates_are_refused_as_such_and_as_keys() {
    run(async {
        for raw in [true, false] {
            let mut tls = client_tls(1);
            tls.client_auth_cert_resolver = Arc::new(Shows { certified: x509(), raw });
            let (error, _) = answer(tls).await;
            assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");

            let mut tls = server_tls(2);
            tls.cert_resolver = Arc::new(Shows { certified: x509(), raw });
            let error = dial(tls).await;
            assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");
        }
    });
}

#[test]
fn more_than_one_key_is_refused() {
    run(async {
        let mut tls = client_tls(1);
        tls.client_auth_cert_resolver = Arc::new(Shows { certified: two_keys(), raw: true });
        let (error, _) = answer(tls).await;
        assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");

        let mut tls = server_tls(2);
        tls.cert_resolver = Arc::new(Shows { certified: two_keys(), raw: true });
        let error = dial(tls).await;
        assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");
    });
}

#[test]
fn a_server_that_asks_for_no_key_gets_ours_nowhere() {
    run(async {
        let identity = Identity::new(&key(2)).unwrap();
        let mut tls = server_tls(2);
        tls = rustls::ServerConfig::builder_with_provider(tls.crypto_provider().clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shows { certified: Some(identity.certified), raw: true }));
        tls.alpn_protocols = vec![tls::ALPN.to_vec()];
        let error = dial(tls).await;
        assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");
    });
}

#[test]
fn nothing_of_one_connection_is_resumed_in_the_next() {
    run(async {
        let server = endpoint(2);
        let mut tls = client_tls(1);
        tls.resumption = Resumption::in_memory_sessions(8);
        tls.enable_early_data = true;
        let client = raw_client(tls);
        for _ in 0..3 {
            let connecting = client.connect(address(&server), "edge.invalid").unwrap();
            let Err(connecting) = connecting.into_0rtt() else { panic!("a session was kept") };
            let (ours, theirs) = tokio::join!(connecting, establish(&server));
            let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
            // A ticket would have come before the first frame.
            let mut exchange = theirs.open().await.unwrap();
            exchange.send(b"hello", BYTES_MAX, LONG).await.unwrap();
            let mut frame = [0; 9];
            ours.accept_bi().await.unwrap().1.read_exact(&mut frame).await.unwrap();
            assert_eq!(&frame, b"\0\0\0\x05hello");
        }
    });
}

#[test]
fn the_server_name_is_not_sent() {
    run(async {
        let (server, to) = raw_server(server_tls(2));
        let theirs = async { server.accept().await.unwrap().await.unwrap() };
        let us = endpoint(1);
        let (_ours, theirs) = tokio::join!(us.dial(to, Some(id(2))), theirs);
        let seen = theirs.handshake_data().unwrap();
        let seen = seen.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
        assert_eq!(seen.protocol.as_deref(), Some(tls::ALPN));
        assert_eq!(seen.server_name, None);
    });
}
