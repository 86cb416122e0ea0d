//! A bounded number of connections to the control socket, in all and of each user.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use super::{
    rights::{self, Caller},
    sessions::SESSIONS_MAX,
};
use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        UnixListener, UnixStream,
        unix::{SocketAddr, UCred},
    },
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Connections at once, two for each command that asks for jobs and some for those that look; one more waits.
const CONNECTIONS_MAX: usize = 2 * SESSIONS_MAX + 32;

/// Of a user who may only look: a shared socket is not filled by one who only holds it open …
const OF_USER_MAX: usize = 16;
/// … nor by several of them.
const OF_OTHERS_MAX: usize = CONNECTIONS_MAX / 2;

/// A listener that holds back when there are [`CONNECTIONS_MAX`] connections.
pub(super) struct Bounded {
    listener: UnixListener,
    permits: Arc<Semaphore>,
    owner: u32,
    is_shared: bool,
    others: Others,
}

/// Connections of other users.
#[derive(Clone, Debug, Default)]
struct Others(Arc<Mutex<BTreeMap<u32, usize>>>);

impl Others {
    fn enter(&self, user: u32) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.get(&user).copied().unwrap_or(0);
        if own >= OF_USER_MAX || counts.values().sum::<usize>() >= OF_OTHERS_MAX {
            return None;
        }
        counts.insert(user, own + 1);
        Some(Place { others: self.clone(), user })
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Place {
    others: Others,
    user: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.others.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

impl Bounded {
    /// `owner` is who runs the node; on a shared socket a group may do as much.
    pub(super) fn new(listener: UnixListener, owner: u32, is_shared: bool) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { listener, permits, owner, is_shared, others: Others::default() }
    }

    fn group(&self) -> String {
        if self.is_shared { rights::group() } else { String::new() }
    }
}

impl Listener for Bounded {
    type Io = Permitted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Permitted, SocketAddr) {
        loop {
            // The semaphore is never closed; were it, nobody would be served.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let caller = Caller::of(stream.peer_cred().ok());
            if caller.may_all(self.owner, &self.group()) {
                return (Permitted { stream, _permit: permit, _place: None }, address);
            }
            // Of whom the kernel says nothing is somebody else.
            let user = caller.user().unwrap_or(u32::MAX);
            if let Some(place) = self.others.enter(user) {
                return (Permitted { stream, _permit: permit, _place: Some(place) }, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts.
pub(super) struct Permitted {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
    _place: Option<Place>,
}

impl Permitted {
    pub(super) fn peer_cred(&self) -> io::Result<UCred> {
        self.stream.peer_cred()
    }
}

impl AsyncRead for Permitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Permitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_users_do_not_fill_it() {
        let others = Others::default();
        let one: Vec<_> = (0..99).filter_map(|_| others.enter(1000)).collect();
        assert_eq!(one.len(), OF_USER_MAX);
        let all: Vec<_> = (1001..9999).filter_map(|user| others.enter(user)).collect();
        assert_eq!(one.len() + all.len(), OF_OTHERS_MAX);
        drop((one, all));
        assert!(others.0.lock().unwrap().is_empty());
        assert!(others.enter(1000).is_some());
    }
}
