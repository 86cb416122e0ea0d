//! One connection: its end, its bounds, its figures.

use std::collections::HashSet;

use super::*;
use crate::transport::{CloseCode, Closed, EXCHANGES_MAX};

const CODES: [CloseCode; 5] =
    [CloseCode::Leaving, CloseCode::Duplicate, CloseCode::Full, CloseCode::Refused, CloseCode::Protocol];

/// One of ours that was dialled by a bare QUIC client.
async fn with_bare_client() -> (quinn::Endpoint, quinn::Connection, Endpoint, Connection) {
    let (client, server) = (raw_client(client_tls(1)), endpoint(2));
    let dialling = client.connect(address(&server), "edge.invalid").unwrap();
    let (theirs, ours) = tokio::join!(dialling, establish(&server));
    (client, theirs.unwrap(), server, ours.unwrap())
}

#[test]
fn both_sides_know_why_it_ended() {
    run(async {
        let (a, b) = (endpoint(1), endpoint(2));
        for (n, code) in CODES.into_iter().enumerate() {
            let (ab, ba) = meet(&a, &b, None).await;
            let (ab, ba) = (ab.unwrap(), ba.unwrap());
            let (closer, other) = if n % 2 == 0 { (&ab, &ba) } else { (&ba, &ab) };
            closer.close(code);
            closer.close(CloseCode::Protocol);
            assert_eq!(other.closed().await, Closed::ByPeer(code));
            assert_eq!(closer.closed().await, Closed::Oneself);
            let opened = other.open().await;
            assert!(
                matches!(opened, Err(TransportError::Lost(Closed::ByPeer(c))) if c == code),
                "{opened:?}"
            );
            let accepted = other.accept().await;
            assert!(matches!(accepted, Err(TransportError::Lost(_))), "{accepted:?}");
        }
    });
}

#[test]
fn an_unknown_code_and_a_silent_drop_are_told_apart() {
    run(async {
        let (_client, theirs, _server, ours) = with_bare_client().await;
        theirs.close(77u32.into(), b"\x1b[31m text that belongs into no log");
        assert_eq!(ours.closed().await, Closed::ByPeerUnknown(77));
        assert!(!ours.closed().await.to_string().contains("text"));

        let Pair { a: _a, b: _b, ab, ba } = pair().await;
        let clone = ab.clone();
        drop(ab);
        assert!(timeout(SHORT, ba.closed()).await.is_err(), "a clone is left");
        drop(clone);
        assert_eq!(ba.closed().await, Closed::ByPeerUnknown(0));
    });
}

#[test]
fn a_peer_that_falls_silent_is_noticed() {
    run(async {
        let (client, server) = (raw_client(client_tls(1)), endpoint(2));
        // The shorter idle time-out of the two holds for both.
        let mut impatient = crate::transport::limits::connections();
        impatient.max_idle_timeout(Some(quinn::VarInt::from_u32(500).into())).keep_alive_interval(None);
        let mut config = tls::client(client_tls(1)).unwrap();
        config.transport_config(Arc::new(impatient));
        let dialling = client.connect_with(config, address(&server), "edge.invalid").unwrap();
        let (theirs, ours) = tokio::join!(dialling, establish(&server));
        assert_eq!(ours.unwrap().closed().await, Closed::TimedOut);
        assert_eq!(Closed::from(theirs.unwrap().closed().await), Closed::TimedOut);
    });
}

#[test]
fn a_flood_of_exchanges_waits_and_does_not_grow() {
    run(async {
        let pair = pair().await;
        let mut ours = Vec::new();
        for n in 0..EXCHANGES_MAX {
            let mut exchange = pair.ab.open().await.unwrap();
            exchange.send(&[n as u8], BYTES_MAX, LONG).await.unwrap();
            ours.push(exchange);
        }
        for _ in 0..3 {
            let more = pair.ab.open_within(SHORT).await;
            assert!(matches!(more, Err(TransportError::TimedOut { .. })), "{more:?}");
        }
        let mut theirs = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..EXCHANGES_MAX {
            let mut exchange = pair.ba.accept().await.unwrap();
            seen.insert(exchange.receive(1, LONG).await.unwrap().unwrap());
            theirs.push(exchange);
        }
        assert_eq!(seen.len(), EXCHANGES_MAX as usize);
        assert!(timeout(SHORT, pair.ba.accept()).await.is_err());
        // Three that are over on both sides make room again.
        ours.truncate(EXCHANGES_MAX as usize - 3);
        theirs.truncate(EXCHANGES_MAX as usize - 3);
        let _room = pair.ab.open_within(LONG).await.unwrap();
        // The other direction has a count of its own.
        pair.ba.open().await.unwrap();
    });
}

#[test]
fn there_are_no_one_way_streams_and_no_datagrams() {
    run(async {
        let (_client, theirs, _server, _ours) = with_bare_client().await;
        assert!(timeout(SHORT, theirs.open_uni()).await.is_err());
        assert_eq!(theirs.max_datagram_size(), None);
    });
}

#[test]
fn accepting_may_be_cancelled() {
    run(async {
        let pair = pair().await;
        for _ in 0..3 {
            assert!(timeout(SHORT / 10, pair.ba.accept()).await.is_err());
        }
        pair.assert_works().await;
    });
}

#[test]
fn the_figures_grow_with_what_is_sent() {
    run(async {
        let pair = pair().await;
        let before = pair.ab.stats();
        let (mut ours, mut theirs) = pair.exchange().await;
        let frame = vec![7; 100_000];
        let (sent, received) =
            tokio::join!(ours.send(&frame, BYTES_MAX, LONG), theirs.receive(BYTES_MAX, LONG));
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), frame);
        let after = pair.ab.stats();
        assert!(after.sent_bytes - before.sent_bytes > 100_000, "{before:?} {after:?}");
        assert!(after.received_bytes > before.received_bytes);
        assert!(after.rtt > Duration::ZERO && after.rtt < LONG);
    });
}

#[test]
fn the_exporter_is_not_printed() {
    run(async {
        let pair = pair().await;
        let text = format!("{:?}", pair.ab);
        assert!(text.contains(&id(2).to_string()) && !text.contains("exporter"), "{text}");
    });
}
