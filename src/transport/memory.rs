//! How many bytes of long frames lie in memory at once: all peers together, and each for itself.
//!
//! A frame has its place before it grows, so two that are half here never wait for each other. Short ones need none: how
//! many there are is bounded by the streams.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{FRAME_BYTES_MAX, LONG_FRAMES_BYTES_MAX, SHORT_FRAME_BYTES_MAX};
use crate::wire::PeerId;

/// The places of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    all: Arc<Semaphore>,
    /// Of those who have connections now.
    peers: Arc<Mutex<BTreeMap<PeerId, Weak<Semaphore>>>>,
}

/// The places that one peer may take, on all its connections.
#[derive(Debug, Clone)]
pub(super) struct Share {
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// The place of one frame.
#[derive(Debug)]
pub(super) struct Place(
    #[expect(dead_code, reason = "dropping them gives them back")] [OwnedSemaphorePermit; 2],
);

impl Memory {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(LONG_FRAMES_BYTES_MAX)), peers: Arc::default() }
    }

    /// The share of a peer, the same for each of its connections.
    pub(super) fn share(&self, peer: PeerId) -> Share {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, share| share.strong_count() > 0);
        let known = peers.get(&peer).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| Arc::new(Semaphore::new(FRAME_BYTES_MAX)));
        peers.insert(peer, Arc::downgrade(&own));
        Share { own, all: Arc::clone(&self.all) }
    }
}

impl Share {
    /// Waits for the place of a frame of so many bytes, [`FRAME_BYTES_MAX`] at most; `None` for a short one. Whoever came
    /// first is served first. Cancel safe.
    pub(super) async fn place(&self, bytes: usize) -> Option<Place> {
        if bytes <= SHORT_FRAME_BYTES_MAX {
            return None;
        }
        let bytes = u32::try_from(bytes.min(FRAME_BYTES_MAX)).unwrap_or(u32::MAX);
        // In this order: who waits for itself keeps nobody else waiting. Neither is ever closed.
        let own = Arc::clone(&self.own).acquire_many_owned(bytes).await.ok()?;
        let all = Arc::clone(&self.all).acquire_many_owned(bytes).await.ok()?;
        Some(Place([own, all]))
    }
}
