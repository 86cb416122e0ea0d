//! Long frames have their places, and whoever keeps one for nothing loses it.

use super::*;
use crate::{
    transport::{CloseCode, FRAME_BYTES_MAX},
    wire::{Deliver, Granted, Message},
};

const LONG_FRAME: u32 = 12 << 20;

/// An exchange that `from` has opened and on which it has promised a frame of so many bytes, and sent the first of them.
async fn promise(from: &Connection, to: &Connection, bytes: u32) -> (Exchange, Exchange) {
    let mut theirs = from.open().await.unwrap();
    theirs.bare().0.write_all(&bytes.to_be_bytes()).await.unwrap();
    theirs.bare().0.write_all(&[1; 1000]).await.unwrap();
    (theirs, to.accept().await.unwrap())
}

/// What has arrived of a frame after a moment.
async fn arrived(exchange: &mut Exchange) -> usize {
    let received = exchange.receive(FRAME_BYTES_MAX, SHORT).await;
    assert!(matches!(received, Err(TransportError::TimedOut { .. })), "{received:?}");
    exchange.inbound_bytes()
}

#[test]
fn one_peer_has_a_share_on_all_its_connections_and_short_frames_need_none() {
    run(async {
        let pair = pair().await;
        let (_first_sender, mut first) = promise(&pair.ab, &pair.ba, LONG_FRAME).await;
        assert!(arrived(&mut first).await >= 1000);
        let (_second_sender, mut second) = promise(&pair.ab, &pair.ba, LONG_FRAME).await;
        assert_eq!(arrived(&mut second).await, 0, "not a byte of it is kept");
        let (ab, ba) = meet(&pair.a, &pair.b, None).await;
        let (_third_sender, mut third) = promise(&ab.unwrap(), &ba.unwrap(), LONG_FRAME).await;
        assert_eq!(arrived(&mut third).await, 0, "another connection is the same peer");
        pair.assert_works().await;
        // Another peer has its own.
        let other = endpoint(3);
        let (cb, bc) = meet(&other, &pair.b, None).await;
        let (cb, bc) = (cb.unwrap(), bc.unwrap());
        let (_other_sender, mut others) = promise(&cb, &bc, LONG_FRAME).await;
        assert!(arrived(&mut others).await >= 1000);
        // Who is given up makes room.
        drop(first);
        assert!(arrived(&mut second).await >= 1000);
        assert_eq!(arrived(&mut third).await, 0);
    });
}

#[test]
fn all_peers_together_have_a_limit() {
    run(async {
        let b = endpoint(2);
        let mut kept = Vec::new();
        for seed in 10..15 {
            let peer = endpoint(seed);
            let (ab, ba) = meet(&peer, &b, None).await;
            let (ab, ba) = (ab.unwrap(), ba.unwrap());
            let (theirs, mut ours) = promise(&ab, &ba, FRAME_BYTES_MAX as u32).await;
            let is_kept = arrived(&mut ours).await >= 1000;
            assert_eq!(is_kept, seed < 14, "peer {seed}");
            kept.push((peer, ab, ba, theirs, ours));
        }
        // A connection that ends gives back what its streams had.
        let (_, first, ..) = &kept[0];
        first.close(CloseCode::Leaving);
        let (.., gone) = &mut kept[0];
        let received = gone.receive(FRAME_BYTES_MAX, LONG).await;
        assert!(matches!(received, Err(TransportError::Lost(_))), "{received:?}");
        let (.., last) = &mut kept[4];
        assert!(arrived(last).await >= 1000);
    });
}

#[test]
fn a_frame_keeps_its_place_until_it_is_answered() {
    run(async {
        let pair = pair().await;
        let frame = vec![7; LONG_FRAME as usize];
        let (mut theirs, mut ours) = promise(&pair.ab, &pair.ba, LONG_FRAME).await;
        let rest = async { theirs.bare().0.write_all(&frame[1000..]).await.unwrap() };
        let (received, ()) = tokio::join!(ours.receive(FRAME_BYTES_MAX, LONG), rest);
        assert_eq!(received.unwrap().unwrap().len(), frame.len());
        let (_next_sender, mut next) = promise(&pair.ab, &pair.ba, LONG_FRAME).await;
        assert_eq!(arrived(&mut next).await, 0, "what was made of the first one is still here");
        ours.send(b"thanks", BYTES_MAX, LONG).await.unwrap();
        assert_eq!(arrived(&mut next).await, 0);
        drop(ours);
        assert!(arrived(&mut next).await >= 1000);
    });
}

#[test]
fn no_frame_is_longer_than_a_share() {
    run(async {
        let pair = pair().await;
        let (_sender, mut ours) = promise(&pair.ab, &pair.ba, FRAME_BYTES_MAX as u32 + 1).await;
        let received = ours.receive(usize::MAX, LONG).await;
        assert!(
            matches!(received, Err(TransportError::TooLarge { bytes_max: FRAME_BYTES_MAX, .. })),
            "{received:?}"
        );
        let longest = Deliver::BYTES_MAX.max(Granted::BYTES_MAX);
        assert!(longest <= FRAME_BYTES_MAX, "the longest message has a place");
    });
}
