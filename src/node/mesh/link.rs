//! Connections to peers that have introduced themselves: how they begin, which of two stays, how they end.

use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::{
    Event, Mesh,
    greet::Greeted,
    public::Rank,
    serve::{self, Standing},
};
use crate::{
    node::{
        NodeError,
        aggregator::{Message as ToAggregator, Shared},
        ask::{ANSWER_WAIT, ask},
        caught::caught,
        worker::Message as ToWorker,
    },
    proto::{Dialled, Origin, Worker},
    transport::{CloseCode, Closed, Connection},
    wire::{Credential, PeerId, PeersAsked, PeersTold, SwarmId},
};

/// Connections of peers that share nothing with us: they may ask to join, and go.
pub(super) const STRANGERS_MAX: usize = 32;
/// How long a stranger may stay.
const STRANGER_STAYS: Duration = Duration::from_secs(30);
/// What it came for it asks at once: after so long it makes room where there is none.
const STRANGER_ASKS: Duration = Duration::from_secs(5);
/// How long a peer has to close one of two connections that it dialled.
const DUPLICATE_WAIT: Duration = Duration::from_secs(1);

/// A connection to a peer that has introduced itself.
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) connection: Connection,
    pub(super) standing: Rc<Standing>,
    pub(super) credentials: Vec<Credential>,
    /// Both were in the public pool when they met.
    pub(super) is_public: bool,
    pub(super) program: String,
    pub(super) since: Instant,
    pub(super) service: AbortHandle,
}

impl Link {
    /// Whether the peer shares a swarm with us.
    pub(super) fn is_member(&self) -> bool {
        !self.standing.swarms.get().is_empty()
    }

    pub(super) fn rank(&self) -> Rank {
        Rank::of(&self.standing.swarms.get())
    }
}

/// Which of two connections to one peer stays.
pub(super) enum Choice {
    Newer,
    Older,
    /// Whoever dialled both decides: it closes one of them.
    Theirs,
}

/// Both ends judge alike: the connection that the smaller id dialled stays; of two such, the one that its dialler
/// had first, for a dialler knows best which is dead.
pub(super) fn choose(
    me: PeerId,
    before: &Link,
    connection: &Connection,
    greeted: &Greeted,
    is_member: bool,
) -> Choice {
    let peer = connection.peer();
    let keeps = |connection: &Connection| connection.dialled_by_us() == (me < peer);
    let is_dead = before.connection.is_closed() || before.standing.worker.boot != greeted.boot;
    // What a stranger may not, a member may: both ends see that the same peer has become one.
    if is_dead || (!before.is_member() && is_member) {
        return Choice::Newer;
    }
    match (keeps(&before.connection), keeps(connection)) {
        (true, false) => Choice::Older,
        (false, true) => Choice::Newer,
        _ if connection.dialled_by_us() => Choice::Older,
        _ => Choice::Theirs,
    }
}

impl Mesh {
    /// Two nodes know each other's keys and what each has shown.
    pub(super) async fn met(
        &mut self,
        dialled: Option<SocketAddr>,
        connection: Connection,
        greeted: Greeted,
    ) -> Result<(), NodeError> {
        let peer = connection.peer();
        let swarms = self.shared(peer, &greeted.credentials, greeted.is_public).await?;
        if let Some(address) = dialled {
            let how = if swarms.is_empty() { Dialled::Stranger(peer) } else { Dialled::Member(peer) };
            self.dialer.ended(self.now(), &address, how);
        }
        if self.is_out_of_date(&greeted) {
            connection.close(CloseCode::Duplicate);
            if !self.links.contains_key(&peer) {
                self.dialer.lost(self.now(), &peer);
            }
            return Ok(());
        }
        if let Some(before) = self.links.get(&peer) {
            match choose(self.me, before, &connection, &greeted, !swarms.is_empty()) {
                Choice::Newer => before.connection.close(CloseCode::Duplicate),
                Choice::Older => {
                    connection.close(CloseCode::Duplicate);
                    return Ok(());
                }
                // A third one would tell no more than the second.
                Choice::Theirs if !self.rivals.insert(peer) => {
                    connection.close(CloseCode::Duplicate);
                    return Ok(());
                }
                Choice::Theirs => {
                    self.tasks.spawn_local(async move {
                        tokio::time::sleep(DUPLICATE_WAIT).await;
                        let is_kept = !connection.is_closed();
                        Event::Chosen(peer, is_kept.then_some((connection, greeted)))
                    });
                    return Ok(());
                }
            }
        }
        self.take(connection, greeted, swarms).await
    }

    /// A new epoch began between the introduction and now: the peer would never hear of it, for links that there were then
    /// have been closed, and this one has been shown what was so before.
    fn is_out_of_date(&self, greeted: &Greeted) -> bool {
        greeted.generation != self.generation && !greeted.credentials.is_empty()
    }

    /// Its dialler has kept this one of two.
    pub(super) async fn chosen(&mut self, connection: Connection, greeted: Greeted) -> Result<(), NodeError> {
        let swarms = self.shared(connection.peer(), &greeted.credentials, greeted.is_public).await?;
        if connection.is_closed() {
            return Ok(());
        }
        if self.is_out_of_date(&greeted) {
            connection.close(CloseCode::Duplicate);
            return Ok(());
        }
        if let Some(before) = self.links.get(&connection.peer()) {
            before.connection.close(CloseCode::Duplicate);
        }
        self.take(connection, greeted, swarms).await
    }

    /// Whether there is room for one more link to a peer with these swarms in common. A stranger that has had its time
    /// makes room for the next.
    fn make_room_for(&self, swarms: &[SwarmId]) -> bool {
        if !swarms.is_empty() {
            return true;
        }
        let strangers =
            || self.links.values().filter(|link| !link.is_member() && !link.connection.is_closed());
        if strangers().count() < STRANGERS_MAX {
            return true;
        }
        let idle = strangers().filter(|link| link.since.elapsed() >= STRANGER_ASKS);
        let longest = idle.min_by_key(|link| link.since);
        longest.inspect(|link| link.connection.close(CloseCode::Full)).is_some()
    }

    /// Makes a connection the one to its peer.
    pub(super) async fn take(
        &mut self,
        connection: Connection,
        greeted: Greeted,
        mut swarms: Vec<SwarmId>,
    ) -> Result<(), NodeError> {
        if !self.has_room_for(&swarms) {
            // It may still ask to be let in, or brought up to date, as any stranger may.
            swarms.clear();
        }
        let (peer, address, boot) = (connection.peer(), connection.remote(), greeted.boot);
        let before = self.links.remove(&peer).filter(Link::is_member);
        let rank = Rank::of(&swarms);
        let worked = before.as_ref().filter(|before| before.rank() == Rank::Member);
        let has_room = self.make_room_for(&swarms);
        if let Some(worked) = worked.filter(|_| rank != Rank::Member || !has_room) {
            self.end_work(worked.standing.worker).await;
        }
        if rank == Rank::Stranger || !has_room {
            self.around.machine.lost(self.now(), &peer, false);
        }
        if !has_room {
            connection.close(CloseCode::Full);
            let now = self.now();
            self.dialer.lost(now, &peer);
            if self.is_to_admit(&peer) {
                self.dialer.rest_briefly(now, &peer, &address);
            } else {
                self.dialer.rest(now, &peer);
            }
            return Ok(());
        }
        self.ask_to_renew(&connection, &greeted.credentials);
        self.ask_to_join(&connection);
        self.tell_delegate(&connection);
        let id = self.link(connection.clone(), greeted, swarms.clone());
        let now = self.now();
        if swarms.is_empty() {
            self.tasks.spawn_local(async move {
                tokio::time::sleep(STRANGER_STAYS).await;
                Event::Expired(peer, id)
            });
            return Ok(());
        }
        // Where both dial at once one connection takes the place of the other, which is no news.
        if before.is_none_or(|before| before.standing.worker.boot != boot) {
            tracing::info!(peer = %peer.short(), %address, swarms = swarms.len(), "peer connected");
        }
        self.dialer.connected(peer);
        let is_only_public = rank == Rank::Public;
        // Where it dialled from it listens too. Any number of keys may come from the pool: they are not taken for more.
        let is_told = is_only_public && !connection.dialled_by_us();
        let origin = if is_told { Origin::Pool } else { Origin::Remembered };
        self.dialer.learn(now, address, Some(peer), origin);
        self.dialer.shares(peer, is_only_public);
        self.around.machine.connected(now, peer, address, swarms, self.dialer.is_named(&peer));
        // Peers of the pool, of whom there may be many, do not displace members on the disk either.
        if !is_only_public || (!is_told && self.swarms.iter().next().is_none()) {
            self.disk.call(move |store| store.remember(&peer, address)).await?;
        }
        // In what it tells of they are members, too, by which it is one itself.
        let of = if rank == Rank::Member { Origin::Told } else { Origin::Pool };
        if rank == Rank::Member {
            self.tell_worker(ToWorker::Connected(peer, connection.clone())).await;
        }
        self.tasks.spawn_local(async move {
            let told = ask::<_, PeersTold>(&connection, &PeersAsked {}, ANSWER_WAIT).await;
            told.map_or(Event::Nothing, |told| Event::Told(address, of, told))
        });
        Ok(())
    }

    /// Takes a connection in and serves it; gives the link's name.
    pub(super) fn link(&mut self, connection: Connection, greeted: Greeted, swarms: Vec<SwarmId>) -> u64 {
        let peer = connection.peer();
        let id = self.next_link;
        self.next_link += 1;
        let worker = Worker { peer, boot: greeted.boot };
        let standing = Rc::new(Standing { worker, swarms: Shared::new(swarms) });
        let service = {
            let (connection, standing, desk) =
                (connection.clone(), Rc::clone(&standing), Rc::clone(&self.desk));
            self.tasks.spawn_local(async move {
                tokio::select! {
                    () = caught((), serve::serve(connection.clone(), standing, desk)) => {}
                    _ = connection.closed() => {}
                }
                // It is open only where serving it has panicked.
                connection.close(CloseCode::Leaving);
                Event::Ended(peer, id, connection.closed().await)
            })
        };
        let Greeted { credentials, program, is_public, .. } = greeted;
        let since = Instant::now();
        let link = Link { id, connection, standing, credentials, is_public, program, since, service };
        self.links.insert(peer, link);
        id
    }

    pub(super) async fn ended(&mut self, peer: PeerId, id: u64, closed: Closed) -> Result<(), NodeError> {
        if self.links.get(&peer).is_none_or(|link| link.id != id) {
            return Ok(());
        }
        let Some(link) = self.links.remove(&peer) else { return Ok(()) };
        link.service.abort();
        let (now, was_member) = (self.now(), link.is_member());
        self.dialer.lost(now, &peer);
        let let_go = self.around.machine.lost(now, &peer, closed == Closed::ByPeer(CloseCode::Leaving));
        // Where there is no place, or none for us, we are not back at once.
        let is_unwanted =
            matches!(closed, Closed::ByPeer(CloseCode::Surplus | CloseCode::Full | CloseCode::Refused));
        if is_unwanted && self.is_to_admit(&peer) {
            self.dialer.rest_briefly(now, &peer, &link.connection.remote());
        } else if let_go || is_unwanted {
            self.dialer.rest(now, &peer);
        }
        if !was_member {
            return Ok(());
        }
        tracing::info!(peer = %peer.short(), %closed, "peer gone");
        if link.rank() != Rank::Member {
            return Ok(());
        }
        if closed == Closed::ByPeer(CloseCode::Leaving) {
            self.end_work(link.standing.worker).await;
        } else {
            self.tell_worker(ToWorker::Disconnected(peer)).await;
        }
        Ok(())
    }

    /// A peer has gone for good, as far as work is concerned: it gets none, and gives none.
    pub(super) async fn end_work(&self, worker: Worker) {
        self.tell_worker(ToWorker::Disconnected(worker.peer)).await;
        // An actor that has ended takes the node down by itself.
        let _ = self.aggregator.0.send(ToAggregator::Left(worker)).await;
    }
}
