//! The socket: taken ports, floods, rubbish, and leaving.

use super::*;
use crate::transport::{CloseCode, Closed, HALF_OPEN_MAX, HALF_OPEN_RETRY};

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    run(async {
        let first = Endpoint::bind(&key(1), Listen::default()).unwrap();
        for address in [None, Some(Ipv4Addr::LOCALHOST.into())] {
            let again = Listen { address, port: first.local_port() };
            let error = Endpoint::bind(&key(2), again).unwrap_err();
            assert!(matches!(error, TransportError::InUse { .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains(&first.local_port().to_string()) && text.contains("another port"),
                "{text}"
            );
        }
        // The same the other way round: one family in use is enough.
        let v4 = endpoint(3);
        let again = Listen { address: None, port: v4.local_port() };
        let error = Endpoint::bind(&key(2), again).unwrap_err();
        assert!(matches!(error, TransportError::InUse { .. }), "{error:?}");
    });
}

#[test]
fn an_address_of_another_machine_can_not_be_bound() {
    run(async {
        let elsewhere = Listen { address: Some("192.0.2.1".parse().unwrap()), port: 0 };
        let error = Endpoint::bind(&key(1), elsewhere).unwrap_err();
        assert!(matches!(error, TransportError::Bind { .. }), "{error:?}");
    });
}

#[test]
fn what_can_not_be_dialled_is_said_at_once() {
    run(async {
        let a = endpoint(1);
        for remote in ["127.0.0.1:0", "0.0.0.0:7", "[::1]:7"] {
            let error = a.dial(remote.parse().unwrap(), None).await.unwrap_err();
            assert!(matches!(error, TransportError::Address { .. }), "{remote}: {error:?}");
        }
    });
}

#[test]
fn rubbish_at_the_socket_does_not_disturb() {
    run(async {
        let pair = pair().await;
        let thrower = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            // xorshift64: any bytes will do, the same ones each time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..50 {
            for _ in 0..20 {
                let bytes = (next() % 1500) as usize;
                let mut datagram: Vec<u8> = (0..bytes).map(|_| next() as u8).collect();
                // A third looks like first packets of QUIC version 1, a third like later ones.
                match (next() % 3, datagram.len()) {
                    (0, 1200..) => {
                        datagram[..7].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8, next() as u8]);
                    }
                    (1, 1..) => datagram[0] = 0x40 | (datagram[0] & 0x3f),
                    _ => {}
                }
                for endpoint in [&pair.a, &pair.b] {
                    thrower.send_to(&datagram, address(endpoint)).unwrap();
                }
            }
            if round % 10 == 0 {
                pair.assert_works().await;
            }
        }
        pair.assert_works().await;
        let (again, _arrived) = meet(&pair.a, &pair.b, Some(id(2))).await;
        again.unwrap();
    });
}

#[test]
fn an_arrival_that_is_refused_or_dropped_knows_at_once() {
    run(async {
        let (a, b) = (endpoint(1), endpoint(2));
        for refuse in [true, false] {
            let turn_away = async {
                let arrival = b.accept().await.unwrap();
                if refuse {
                    arrival.refuse();
                }
            };
            let (dialled, ()) = tokio::join!(a.dial(address(&b), None), turn_away);
            assert!(matches!(dialled, Err(TransportError::Refused { .. })), "{dialled:?}");
        }
    });
}

#[test]
fn a_crowd_at_the_door_must_prove_its_addresses_and_then_wait() {
    run(async {
        let (a, b) = (Arc::new(endpoint(1)), endpoint(2));
        let to = address(&b);
        let mut dialling = tokio::task::JoinSet::new();
        let mut arrivals = Vec::new();
        for n in 0..HALF_OPEN_MAX {
            let a = Arc::clone(&a);
            dialling.spawn(async move { a.dial(to, Some(id(2))).await });
            let arrival = b.accept().await.unwrap();
            assert_eq!(arrival.address_proven(), n >= HALF_OPEN_RETRY, "arrival {n}");
            arrivals.push(arrival);
        }
        // One more is not heard...
        let one_more = tokio::join!(a.dial_within(to, None, SHORT), timeout(SHORT, b.accept()));
        assert!(matches!(one_more, (Err(TransportError::NoAnswer { .. }), Err(_))), "{one_more:?}");
        // ... until somebody is done with.
        arrivals.pop().unwrap().establish().await.unwrap();
        let (dialled, arrived) = meet(&a, &b, Some(id(2))).await;
        assert!(dialled.is_ok() && arrived.is_ok());
        // The first of them, who have waited all the while, are served now.
        arrivals.swap_remove(0).establish().await.unwrap();
        drop(arrivals);
        let mut served = 0;
        while let Some(dialled) = dialling.join_next().await {
            served += usize::from(dialled.unwrap().is_ok());
        }
        assert_eq!(served, 2);
    });
}

#[test]
fn a_closed_endpoint_says_goodbye_and_takes_nobody() {
    run(async {
        let pair = pair().await;
        pair.b.close(CloseCode::Leaving);
        assert_eq!(pair.ab.closed().await, Closed::ByPeer(CloseCode::Leaving));
        assert_eq!(pair.ba.closed().await, Closed::Oneself);
        assert!(pair.b.accept().await.is_none());
        let dialled = pair.b.dial(address(&pair.a), None).await;
        assert!(matches!(dialled, Err(TransportError::Closing)), "{dialled:?}");
        assert!(pair.b.wait_idle().await);
        let dialled = pair.a.dial(address(&pair.b), None).await;
        assert!(matches!(dialled, Err(TransportError::Refused { .. })), "{dialled:?}");
    });
}

#[test]
fn waiting_for_the_end_has_one() {
    run(async {
        let pair = pair().await;
        assert!(!pair.b.wait_idle().await, "nobody has closed the connection");
    });
}

#[test]
fn a_dropped_endpoint_says_goodbye_and_frees_its_port() {
    run(async {
        let Pair { a, b, ab, ba } = pair().await;
        let port = b.local_port();
        drop(b);
        assert_eq!(ab.closed().await, Closed::ByPeer(CloseCode::Leaving));
        assert_eq!(ba.closed().await, Closed::Oneself);
        drop(ba);
        // The socket goes once QUIC has waited for stragglers.
        let again = async {
            loop {
                match Endpoint::bind(&key(3), Listen { port, ..LOOPBACK }) {
                    Ok(endpoint) => break endpoint,
                    Err(TransportError::InUse { .. }) => tokio::time::sleep(SHORT / 10).await,
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        let again = timeout(LONG, again).await.unwrap();
        let (dialled, _arrived) = meet(&a, &again, Some(id(3))).await;
        dialled.unwrap();
    });
}

/// An endpoint of seed 2 in a process of its own, as far as anybody can see: it takes one connection, and dies without a
/// word when `die` is told or dropped.
fn mortal(
    die: tokio::sync::oneshot::Receiver<()>,
    port: std::sync::mpsc::SyncSender<u16>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let alive = runtime.block_on(async {
            let endpoint = endpoint(2);
            port.send(endpoint.local_port()).unwrap();
            let connection = establish(&endpoint).await.unwrap();
            let _ = die.await;
            (endpoint, connection)
        });
        // Whatever is said now, nobody sends it.
        drop(runtime);
        drop(alive);
    })
}

#[test]
fn a_node_that_was_started_anew_is_noticed_with_the_next_packet() {
    run(async {
        let a = endpoint(1);
        let (die, dies) = tokio::sync::oneshot::channel();
        let (sender, port) = std::sync::mpsc::sync_channel(1);
        let mortal = mortal(dies, sender);
        let port = port.recv().unwrap();
        let before = a.dial((Ipv4Addr::LOCALHOST, port).into(), Some(id(2))).await.unwrap();
        die.send(()).unwrap();
        mortal.join().unwrap();
        assert!(timeout(SHORT, before.closed()).await.is_err(), "it has not said goodbye");
        let _again = Endpoint::bind(&key(2), Listen { port, ..LOOPBACK }).unwrap();
        let mut exchange = before.open().await.unwrap();
        exchange.send(b"are you there?", BYTES_MAX, LONG).await.unwrap();
        let closed = timeout(Duration::from_secs(2), before.closed()).await.expect("it is noticed");
        assert!(
            matches!(closed, Closed::Broken { why: "the peer has forgotten the connection", .. }),
            "{closed:?}"
        );
    });
}

#[test]
fn who_has_another_key_ends_no_connection() {
    run(async {
        let a = endpoint(1);
        let (die, dies) = tokio::sync::oneshot::channel();
        let (sender, port) = std::sync::mpsc::sync_channel(1);
        let mortal = mortal(dies, sender);
        let port = port.recv().unwrap();
        let before = a.dial((Ipv4Addr::LOCALHOST, port).into(), Some(id(2))).await.unwrap();
        die.send(()).unwrap();
        mortal.join().unwrap();
        let _other = Endpoint::bind(&key(3), Listen { port, ..LOOPBACK }).unwrap();
        let mut exchange = before.open().await.unwrap();
        exchange.send(b"are you there?", BYTES_MAX, LONG).await.unwrap();
        assert!(timeout(2 * SHORT, before.closed()).await.is_err());
    });
}
