//! Frames: whole ones, and all the ways in which they are not.

use super::*;
use crate::transport::{CloseCode, Closed};

#[test]
fn frames_arrive_whole_and_in_order_and_end() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        // Above the windows of the stream and of the connection: what is read makes room.
        let sizes = [0, 1, 4, 1199, 65_535, 65_536, 65_537, 6 << 20, 0];
        let frames: Vec<Vec<u8>> =
            sizes.iter().map(|n| (0..*n).map(|i| (i * 7 + n) as u8).collect()).collect();
        let send = async {
            for frame in &frames {
                ours.send(frame, 8 << 20, LONG).await.unwrap();
            }
            ours.finish().unwrap();
        };
        let receive = async {
            for frame in &frames {
                assert!(
                    theirs.receive(8 << 20, LONG).await.unwrap().as_ref() == Some(frame),
                    "{}",
                    frame.len()
                );
            }
            assert_eq!(theirs.receive(8 << 20, LONG).await.unwrap(), None);
            assert_eq!(theirs.receive(8 << 20, LONG).await.unwrap(), None);
            // One direction has ended, the other has not.
            theirs.send(b"thanks", BYTES_MAX, LONG).await.unwrap();
        };
        tokio::join!(send, receive);
        assert_eq!(ours.receive(BYTES_MAX, LONG).await.unwrap().unwrap(), b"thanks");
        ours.delivered(LONG).await.unwrap();
    });
}

#[test]
fn the_frame_has_four_bytes_before_it() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        ours.send(b"abc", BYTES_MAX, LONG).await.unwrap();
        let mut bytes = [0; 7];
        theirs.bare().1.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"\0\0\0\x03abc");
    });
}

#[test]
fn too_large_a_frame_is_not_sent() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        let sent = ours.send(b"12345", 4, LONG).await;
        assert!(matches!(sent, Err(TransportError::TooLarge { bytes: 5, bytes_max: 4 })), "{sent:?}");
        ours.send(b"1234", 4, LONG).await.unwrap();
        assert_eq!(theirs.receive(4, LONG).await.unwrap().unwrap(), b"1234");
    });
}

#[test]
fn a_length_of_4_gib_is_refused_before_anything_is_allocated() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        ours.bare().0.write_all(&[0xff; 4]).await.unwrap();
        let received = theirs.receive(BYTES_MAX, LONG).await;
        assert_eq!(theirs.inbound_bytes(), 0);
        match received.unwrap_err() {
            TransportError::TooLarge { bytes, bytes_max } => {
                assert_eq!((bytes, bytes_max), (u32::MAX.into(), BYTES_MAX));
            }
            other => panic!("{other:?}"),
        }
        let again = theirs.receive(BYTES_MAX, LONG).await;
        assert!(matches!(again, Err(TransportError::Ended)), "{again:?}");
        // The sender is told to stop, and the connection stays.
        let stopped = ours.bare().0.stopped().await.unwrap();
        assert_eq!(stopped, Some(1u32.into()));
        let sent = ours.send(b"more", BYTES_MAX, LONG).await;
        assert!(matches!(sent, Err(TransportError::Declined)), "{sent:?}");
        pair.assert_works().await;
    });
}

#[test]
fn memory_grows_with_what_arrives_and_not_with_what_is_promised() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        let promised = 16 << 20;
        ours.bare().0.write_all(&u32::to_be_bytes(promised)).await.unwrap();
        for arrived in [0_usize, 1000, 300_000] {
            ours.bare().0.write_all(&vec![1; arrived]).await.unwrap();
            let received = theirs.receive(1 << 30, SHORT).await;
            assert!(matches!(received, Err(TransportError::TimedOut { .. })), "{received:?}");
            let held = theirs.inbound_bytes();
            assert!(held >= arrived && held <= 4 * (arrived + 1000), "{held} bytes for {arrived}");
        }
    });
}

#[test]
fn a_frame_that_is_cut_short_is_no_end() {
    run(async {
        let pair = pair().await;
        for sent in [&b"\0"[..], b"\0\0\0", b"\0\0\0\x05", b"\0\0\0\x05hell"] {
            let (mut ours, mut theirs) = pair.exchange().await;
            ours.bare().0.write_all(sent).await.unwrap();
            ours.bare().0.finish().unwrap();
            let received = theirs.receive(BYTES_MAX, LONG).await;
            assert!(matches!(received, Err(TransportError::Truncated)), "{sent:?}: {received:?}");
            let again = theirs.receive(BYTES_MAX, LONG).await;
            assert!(matches!(again, Err(TransportError::Ended)), "{again:?}");
        }
    });
}

#[test]
fn a_peer_that_stalls_within_a_frame_is_not_waited_for_and_may_go_on() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        for piece in [&b"\0\0"[..], b"\0\x05", b"he", b"l"] {
            ours.bare().0.write_all(piece).await.unwrap();
            let received = theirs.receive(BYTES_MAX, SHORT).await;
            assert!(matches!(received, Err(TransportError::TimedOut { .. })), "{received:?}");
        }
        ours.bare().0.write_all(b"lo\0\0\0\x01!").await.unwrap();
        assert_eq!(theirs.receive(BYTES_MAX, LONG).await.unwrap().unwrap(), b"hello");
        assert_eq!(theirs.receive(BYTES_MAX, LONG).await.unwrap().unwrap(), b"!");
    });
}

#[test]
fn a_trickle_does_not_prolong_the_wait() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        let trickle = async {
            ours.bare().0.write_all(&1000_u32.to_be_bytes()).await.unwrap();
            loop {
                ours.bare().0.write_all(b".").await.unwrap();
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        tokio::select! {
            () = trickle => {}
            received = theirs.receive(BYTES_MAX, SHORT) => {
                assert!(matches!(received, Err(TransportError::TimedOut { .. })), "{received:?}");
            }
        }
    });
}

#[test]
fn a_slow_peer_is_waited_for_as_long_as_it_moves() {
    run(async {
        let (wait, pause) = (Duration::from_secs(1), Duration::from_millis(150));
        let pair = pair().await;
        let frame = vec![3; 3 << 20];
        let (mut ours, mut theirs) = pair.exchange().await;
        let slowly = async {
            while let Some(chunk) = theirs.bare().1.read_chunk(128 << 10, true).await.unwrap() {
                tokio::time::sleep(pause * chunk.bytes.len() as u32 / (128 << 10)).await;
            }
        };
        let send = async {
            let begun = std::time::Instant::now();
            ours.send(&frame, frame.len(), wait).await.unwrap();
            ours.finish().unwrap();
            begun.elapsed()
        };
        let (elapsed, ()) = tokio::join!(send, slowly);
        assert!(elapsed > wait, "{elapsed:?}");

        let (mut ours, mut theirs) = pair.exchange().await;
        let slowly = async {
            ours.bare().0.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
            for piece in frame.chunks(256 << 10) {
                tokio::time::sleep(pause).await;
                ours.bare().0.write_all(piece).await.unwrap();
            }
        };
        let begun = std::time::Instant::now();
        let (received, ()) = tokio::join!(theirs.receive(frame.len(), wait), slowly);
        assert!(received.unwrap() == Some(frame) && begun.elapsed() > wait);
    });
}

#[test]
fn a_peer_that_never_reads_does_not_hold_us() {
    run(async {
        let pair = pair().await;
        let (mut ours, _theirs) = pair.exchange().await;
        let frame = vec![0; 16 << 20];
        let sent = ours.send(&frame, frame.len(), SHORT).await;
        assert!(matches!(sent, Err(TransportError::TimedOut { .. })), "{sent:?}");
        let again = ours.send(b"", BYTES_MAX, LONG).await;
        assert!(matches!(again, Err(TransportError::Ended)), "{again:?}");
        assert!(matches!(ours.finish(), Err(TransportError::Ended)));
        // One that is stuck leaves room for others.
        pair.assert_works().await;
    });
}

#[test]
fn a_send_that_was_cancelled_within_a_frame_never_passes_for_an_end() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        let frame = vec![0; 16 << 20];
        assert!(timeout(SHORT, ours.send(&frame, frame.len(), LONG)).await.is_err());
        assert!(matches!(ours.finish(), Err(TransportError::Ended)));
        let received = theirs.receive(frame.len(), LONG).await;
        assert!(matches!(received, Err(TransportError::GivenUp { code: 0 })), "{received:?}");
        // QUIC itself would now say that the stream has ended.
        let again = theirs.receive(BYTES_MAX, LONG).await;
        assert!(matches!(again, Err(TransportError::Ended)), "{again:?}");
    });
}

#[test]
fn an_exchange_that_is_dropped_is_given_up_and_one_that_is_declined_says_so() {
    run(async {
        let pair = pair().await;
        let (ours, mut theirs) = pair.exchange().await;
        drop(ours);
        let received = theirs.receive(BYTES_MAX, LONG).await;
        assert!(matches!(received, Err(TransportError::GivenUp { code: 0 })), "{received:?}");

        let (mut ours, theirs) = pair.exchange().await;
        theirs.decline();
        let received = ours.receive(BYTES_MAX, LONG).await;
        assert!(matches!(received, Err(TransportError::Declined)), "{received:?}");
        let delivered = ours.delivered(LONG).await;
        assert!(matches!(delivered, Err(TransportError::Declined)), "{delivered:?}");
        let sent = ours.send(b"more", BYTES_MAX, LONG).await;
        assert!(matches!(sent, Err(TransportError::Declined)), "{sent:?}");
        pair.assert_works().await;
    });
}

#[test]
fn what_was_finished_is_delivered_though_the_exchange_is_dropped() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        let frame = vec![5; 500_000];
        ours.send(&frame, BYTES_MAX, LONG).await.unwrap();
        ours.finish().unwrap();
        assert!(matches!(ours.finish(), Err(TransportError::Ended)));
        assert!(matches!(ours.send(b"", 0, LONG).await, Err(TransportError::Ended)));
        drop(ours);
        assert!(theirs.receive(BYTES_MAX, LONG).await.unwrap() == Some(frame));
        assert_eq!(theirs.receive(BYTES_MAX, LONG).await.unwrap(), None);
    });
}

#[test]
fn what_was_delivered_survives_the_close() {
    run(async {
        let pair = pair().await;
        let (mut ours, mut theirs) = pair.exchange().await;
        ours.send(b"last words", BYTES_MAX, LONG).await.unwrap();
        ours.finish().unwrap();
        let (delivered, received) = tokio::join!(ours.delivered(LONG), theirs.receive(BYTES_MAX, LONG));
        delivered.unwrap();
        assert_eq!(received.unwrap().unwrap(), b"last words");
        pair.ab.close(CloseCode::Leaving);
        let received = theirs.receive(BYTES_MAX, LONG).await;
        assert!(
            matches!(received, Ok(None) | Err(TransportError::Lost(Closed::ByPeer(CloseCode::Leaving)))),
            "{received:?}"
        );
        pair.ba.closed().await;
        let sent = theirs.send(b"too late", BYTES_MAX, LONG).await;
        assert!(matches!(sent, Err(TransportError::Lost(_))), "{sent:?}");
    });
}

#[test]
fn a_lost_connection_ends_what_waits_on_it() {
    run(async {
        let pair = pair().await;
        let (mut ours, _theirs) = pair.exchange().await;
        let frame = vec![0; 16 << 20];
        let (sent, ()) = tokio::join!(ours.send(&frame, frame.len(), LONG), async {
            pair.ba.close(CloseCode::Protocol);
        });
        assert!(matches!(sent, Err(TransportError::Lost(Closed::ByPeer(CloseCode::Protocol)))), "{sent:?}");
        let received = ours.receive(BYTES_MAX, LONG).await;
        assert!(matches!(received, Err(TransportError::Lost(_))), "{received:?}");
    });
}
