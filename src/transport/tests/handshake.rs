//! Who is let in, who is not, and what each side learns.

use super::*;
use crate::transport::{CloseCode, Closed};

/// The code of a handshake that failed.
fn broken(outcome: Result<Connection, TransportError>) -> u64 {
    match outcome.unwrap_err() {
        TransportError::Handshake { source: Closed::Broken { code, .. }, .. } => code,
        other => panic!("{other:?}"),
    }
}

/// Alerts of TLS as QUIC carries them.
const BAD_CERTIFICATE: u64 = 0x12a;
const DECRYPT_ERROR: u64 = 0x133;
const ACCESS_DENIED: u64 = 0x131;

#[test]
fn both_sides_learn_who_the_other_is() {
    run(async {
        let (a, b) = (endpoint(1), endpoint(2));
        assert_eq!((a.peer_id(), b.peer_id()), (id(1), id(2)));
        for expected in [None, Some(id(2))] {
            let (ab, ba) = meet(&a, &b, expected).await;
            let (ab, ba) = (ab.unwrap(), ba.unwrap());
            assert_eq!((ab.peer(), ba.peer()), (id(2), id(1)));
            assert_eq!((ab.remote(), ba.remote()), (address(&b), address(&a)));
            assert!(ab.dialled_by_us() && !ba.dialled_by_us());
        }
    });
}

#[test]
fn the_exporter_is_shared_by_both_ends_and_by_no_other_connection() {
    run(async {
        let Pair { a, b, ab, ba } = pair().await;
        assert_eq!(ab.exporter(), ba.exporter());
        assert_ne!(ab.exporter(), [0; 32]);
        let (again, _) = meet(&a, &b, None).await;
        assert_ne!(again.unwrap().exporter(), ab.exporter());
    });
}

#[test]
fn one_socket_serves_both_address_families_and_names_ipv4_as_such() {
    run(async {
        let (a, b) = (endpoint(1), Endpoint::bind(&key(2), Listen::default()).unwrap());
        let (ab, ba) = meet(&a, &b, None).await;
        assert_eq!(ba.unwrap().remote(), address(&a));
        drop(ab);

        let dual = Endpoint::bind(&key(3), Listen::default()).unwrap();
        let (cb, bc) = tokio::join!(dual.dial(address(&b), None), establish(&b));
        assert_eq!((cb.unwrap().remote(), bc.unwrap().remote()), (address(&b), address(&dual)));

        let v6 = Listen { address: Some("::1".parse().unwrap()), port: 0 };
        let Ok(v6) = Endpoint::bind(&key(4), v6) else { return println!("skipped: no IPv6 here") };
        let to: SocketAddr = format!("[::1]:{}", b.local_port()).parse().unwrap();
        let (db, bd) = tokio::join!(v6.dial(to, Some(id(2))), establish(&b));
        assert_eq!(db.unwrap().remote(), to);
        let from: SocketAddr = format!("[::1]:{}", v6.local_port()).parse().unwrap();
        assert_eq!(bd.unwrap().remote(), from);
    });
}

#[test]
fn a_server_that_shows_a_key_it_does_not_hold_is_refused() {
    run(async {
        let a = endpoint(1);
        let liar = Endpoint::bind_as(liar(id(2), 3), LOOPBACK).unwrap();
        for expected in [None, Some(id(2)), Some(id(3))] {
            let (dialled, arrived) = meet(&a, &liar, expected).await;
            assert_eq!(broken(dialled), DECRYPT_ERROR);
            arrived.unwrap_err();
        }
    });
}

#[test]
fn a_client_that_shows_a_key_it_does_not_hold_is_refused() {
    run(async {
        let b = endpoint(2);
        let liar = Endpoint::bind_as(liar(id(1), 3), LOOPBACK).unwrap();
        let (dialled, arrived) = meet(&liar, &b, None).await;
        assert_eq!(broken(arrived), DECRYPT_ERROR);
        // It has judged us before we have judged it.
        let closed = dialled.unwrap().closed().await;
        assert!(matches!(closed, Closed::Broken { code: DECRYPT_ERROR, .. }), "{closed:?}");
    });
}

#[test]
fn a_key_with_which_nothing_can_be_proven_is_refused_on_both_sides() {
    run(async {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let honest = endpoint(1);
        let weak = Endpoint::bind_as(liar(PeerId::from_bytes(neutral), 3), LOOPBACK).unwrap();
        let (dialled, arrived) = meet(&honest, &weak, None).await;
        assert_eq!(broken(dialled), BAD_CERTIFICATE);
        arrived.unwrap_err();
        let (_, arrived) = meet(&weak, &honest, None).await;
        assert_eq!(broken(arrived), BAD_CERTIFICATE);
    });
}

#[test]
fn whoever_was_not_expected_is_named_and_does_not_learn_who_asked() {
    run(async {
        let (a, b) = (endpoint(1), endpoint(2));
        let (dialled, arrived) = meet(&a, &b, Some(id(3))).await;
        match dialled.unwrap_err() {
            TransportError::Unexpected { remote, expected, found } => {
                assert_eq!((remote, expected, found), (address(&b), id(3), id(2)));
            }
            other => panic!("{other:?}"),
        }
        // It fails at the server's own signature, before the client has shown anything.
        assert_eq!(broken(arrived), ACCESS_DENIED);
    });
}

#[test]
fn nobody_talks_to_itself() {
    run(async {
        let a = endpoint(1);
        let (dialled, arrived) = meet(&a, &a, None).await;
        assert!(matches!(dialled, Err(TransportError::Oneself { .. })), "{dialled:?}");
        assert_eq!(broken(arrived), ACCESS_DENIED);
        let dialled = a.dial("192.0.2.1:7".parse().unwrap(), Some(id(1))).await;
        assert!(matches!(dialled, Err(TransportError::Oneself { .. })), "{dialled:?}");
    });
}

#[test]
fn a_copy_of_our_key_that_dials_us_is_turned_away() {
    run(async {
        let a = endpoint(1);
        let lax = Arc::new(ServerKey::new(id(9), None));
        let copy = raw_client(Identity::new(&key(1)).unwrap().client_tls(lax).unwrap());
        let dialling = copy.connect(address(&a), "edge.invalid").unwrap();
        let (dialled, arrived) = tokio::join!(dialling, establish(&a));
        assert!(matches!(arrived, Err(TransportError::Oneself { .. })), "{arrived:?}");
        let closed = Closed::from(dialled.unwrap().closed().await);
        assert_eq!(closed, Closed::ByPeer(CloseCode::Refused));
    });
}

#[test]
fn nobody_there_is_no_answer() {
    run(async {
        let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let a = endpoint(1);
        let dialled = a.dial_within(silent.local_addr().unwrap(), None, SHORT).await;
        assert!(matches!(dialled, Err(TransportError::NoAnswer { .. })), "{dialled:?}");
    });
}

#[test]
fn a_client_that_falls_silent_within_the_handshake_does_not_hold_us() {
    run(async {
        let (a, b) = (endpoint(1), endpoint(2));
        // Passes the first datagram on and nothing after it.
        let between = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let dialling = a.dial_within(between.local_addr().unwrap(), None, LONG);
        let pass = async {
            let mut datagram = [0; 2000];
            let bytes = between.recv(&mut datagram).await.unwrap();
            between.send_to(&datagram[..bytes], address(&b)).await.unwrap();
            let arrival = b.accept().await.unwrap();
            assert_eq!(arrival.remote(), between.local_addr().unwrap());
            arrival.establish_within(SHORT).await
        };
        tokio::select! {
            dialled = dialling => panic!("{dialled:?}"),
            arrived = pass => {
                assert!(matches!(arrived, Err(TransportError::NoAnswer { .. })), "{arrived:?}");
            }
        }
    });
}
