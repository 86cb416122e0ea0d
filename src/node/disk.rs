//! The store on a thread of its own, asked over a bounded channel: no transaction ever lives across an await, and
//! no fsync of an SD card holds up the network.

use std::{io, thread};

use tokio::sync::{mpsc, oneshot};

use crate::store::{Store, StoreError};

/// Calls that wait. Each of the few actors has one or two under way; more would mean that the disk is far behind,
/// and then whoever calls waits.
const CALLS_MAX: usize = 64;

type Call = Box<dyn FnOnce(&mut Store) + Send>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The store's thread has ended, because the node ends.
    #[error("the store is closed")]
    Closed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The way to the store. When the last clone is dropped, the store is closed.
#[derive(Clone, Debug)]
pub struct Disk {
    calls: mpsc::Sender<Call>,
}

impl Disk {
    /// Moves the store to its thread. The thread gives it back when the last clone of this is gone.
    ///
    /// # Errors
    /// What the system says when it refuses a thread.
    pub fn start(mut store: Store) -> io::Result<(Self, thread::JoinHandle<Store>)> {
        let (calls, mut due) = mpsc::channel::<Call>(CALLS_MAX);
        let body = move || {
            while let Some(call) = due.blocking_recv() {
                call(&mut store);
            }
            store
        };
        Ok((Self { calls }, thread::Builder::new().name("store".into()).spawn(body)?))
    }

    /// Runs `body` on the store's thread. Not cancel safe: the body runs even where nobody waits for its answer.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn call<T: Send + 'static>(
        &self,
        body: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let (answer, answered) = oneshot::channel();
        let call: Call = Box::new(move |store| {
            // Whoever asked may have gone.
            let _ = answer.send(body(store));
        });
        self.calls.send(call).await.map_err(|_| DiskError::Closed)?;
        Ok(answered.await.map_err(|_| DiskError::Closed)??)
    }
}
