//! The mesh: connections to members of our swarms, who they are and what they may (DESIGN 2 and 4).
//!
//! Deliberately absent: decisions, which are [`Dialer`]'s and `proto::membership`'s, and work, which goes from a
//! connection straight to the aggregator. The actor owns swarms and links; reading and writing streams is done by
//! tasks, which tell it what came of it.

mod arrivals;
mod command;
mod delegate;
mod demand;
mod doors;
mod greet;
mod judge;
mod link;
mod peers;
mod public;
mod serve;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

use arrivals::Arrivals;
use demand::Around;
pub(super) use demand::Signals;
use ed25519_dalek::SigningKey;
use greet::{Greeted, Greeting, MeetError, in_time};
use link::{Link, STRANGERS_MAX};
pub use peers::PeerInfo;
use serve::Desk;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    NodeError,
    aggregator::{AggregatorHandle, wait_until},
    ask::AskError,
    caught::caught,
    disk::Disk,
    governor::Lent,
    swarms::{SwarmAnswer, SwarmCommand, SwarmsError},
    worker::{Message as ToWorker, WorkerHandle},
};
use crate::{
    discovery::{BootstrapAddress, Sighting},
    proto::{
        Dialer, Dialled, LINKS_MAX, Neighbours, Origin, Part, Timestamp,
        membership::{SwarmRecord, Swarms},
    },
    transport::{CloseCode, Closed, Connection, Endpoint, TransportError},
    wire::{
        Admitted, Credential, Delegated, DemandAsked, DemandTold, JoinRequest, PeerId, PeersTold, Refusal,
        SwarmId,
    },
};

/// Messages that wait for the actor.
const MESSAGES_MAX: usize = 256;

/// What this node is in.
#[derive(Debug)]
pub(super) struct KnownSwarms {
    pub(super) records: Vec<SwarmRecord>,
    /// Where it is not let in, or was put out.
    pub(super) refused: BTreeMap<SwarmId, Refusal>,
    /// In the public pool.
    pub(super) is_public: bool,
}

/// What the actor is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A peer with an invite asks to be let in.
    Join(PeerId, Box<JoinRequest>, oneshot::Sender<Result<Box<Admitted>, Refusal>>),
    /// A member lags.
    Renew(PeerId, Box<Credential>, oneshot::Sender<Result<Box<Admitted>, Refusal>>),
    /// A member asks who else is there.
    PeersAsked(PeerId, oneshot::Sender<PeersTold>),
    /// A member asks who has work.
    DemandAsked(PeerId, DemandAsked, oneshot::Sender<DemandTold>),
    /// A member has work, or none any more.
    DemandTold(PeerId, DemandTold),
    /// The founder says that this node may invite and admit.
    Delegated(PeerId, Box<Delegated>),
    /// A member leaves a swarm of ours.
    LeftSwarm(PeerId, SwarmId),
    /// Somebody announces itself on the LAN, or no more.
    Sighted(Sighting),
    /// An address to try.
    Learn(SocketAddr, Option<PeerId>, Origin),
    /// For people and commands.
    Swarms(oneshot::Sender<KnownSwarms>),
    /// Links, for people.
    Peers(oneshot::Sender<Vec<PeerInfo>>),
    /// What its owner does with this node's swarms.
    Swarm(SwarmCommand, oneshot::Sender<Result<SwarmAnswer, SwarmsError>>),
    /// Goodbye to all.
    Leave(oneshot::Sender<()>),
}

/// What a task came back with.
#[derive(Debug)]
enum Event {
    /// A connection was made, or not; with the address where this node dialled.
    Met(Option<SocketAddr>, Result<(Connection, Greeted), MeetError>),
    /// Of two connections that the same peer dialled, it has kept this one; none where it has closed it.
    Chosen(PeerId, Option<(Connection, Greeted)>),
    /// A connection has ended.
    Ended(PeerId, u64, Closed),
    /// A stranger's time is over.
    Expired(PeerId, u64),
    /// An answer to a request to join, or to be renewed.
    Admission(PeerId, SwarmId, Result<Box<Admitted>, AskError>),
    /// Others, as the peer at this address tells, and what its word is worth.
    Told(SocketAddr, Origin, PeersTold),
    /// The founder knows, or is not here: a swarm can be forgotten.
    Leaving(SwarmId, SwarmAnswer, oneshot::Sender<Result<SwarmAnswer, SwarmsError>>),
    /// Demand, as a neighbour tells on this link.
    Heard(PeerId, u64, Result<DemandTold, AskError>),
    /// Where a bootstrap node of the pool is.
    Found(PeerId, Vec<SocketAddr>),
    Nothing,
}

/// The way to the actor.
#[derive(Clone, Debug)]
pub(super) struct MeshHandle(pub(super) mpsc::Sender<Message>);

pub(super) struct Mesh {
    key: SigningKey,
    me: PeerId,
    boot: [u8; 16],
    endpoint: Rc<Endpoint>,
    swarms: Swarms,
    links: BTreeMap<PeerId, Link>,
    next_link: u64,
    dialer: Dialer,
    around: Around,
    /// Whether this node is in the public pool.
    is_public: bool,
    pool_names: public::Names,
    /// Peers of which a second connection waits for their choice.
    rivals: BTreeSet<PeerId>,
    sighted: BTreeMap<String, Vec<SocketAddr>>,
    disk: Disk,
    worker: WorkerHandle,
    aggregator: AggregatorHandle,
    desk: Rc<Desk>,
    /// Why this node is not let in, and will not be by the same ticket.
    refused: BTreeMap<SwarmId, Refusal>,
    /// Counts new epochs: what was shown before one is out of date.
    generation: u64,
    arrivals: Arrivals,
    tasks: JoinSet<Event>,
    begun: Instant,
}

/// What a mesh starts with.
pub(super) struct Start {
    pub(super) key: SigningKey,
    pub(super) boot: [u8; 16],
    pub(super) endpoint: Endpoint,
    pub(super) disk: Disk,
    pub(super) worker: WorkerHandle,
    pub(super) aggregator: AggregatorHandle,
    pub(super) signals: Signals,
    pub(super) part: Part,
    /// In the public pool, by way of these nodes; `None` where it is not.
    pub(super) public: Option<Vec<BootstrapAddress>>,
    pub(super) seed: u64,
}

impl Mesh {
    /// Starts the actor with what the store knows of swarms and members.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(super) async fn start(
        start: Start,
        tasks: &mut JoinSet<Result<(), NodeError>>,
        cancelled: CancellationToken,
    ) -> Result<MeshHandle, NodeError> {
        let Start { key, boot, endpoint, disk, worker, aggregator, signals, part, public, seed } = start;
        let ((records, _), met, starts) =
            disk.call(|store| Ok((store.swarms()?, store.met()?, store.begin()?))).await?;
        let mut swarms = Swarms::default();
        for record in records {
            if let Err(error) = swarms.put(record) {
                tracing::error!(%error, "a swarm is left out");
            }
        }
        let me = endpoint.peer_id();
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let desk = Rc::new(Desk::new(aggregator.clone(), sender.clone()));
        let around = Around::new(Neighbours::new(key.clone(), part, starts, !seed));
        let mut actor = Self {
            key,
            me,
            boot,
            endpoint: Rc::new(endpoint),
            swarms,
            links: BTreeMap::new(),
            next_link: 0,
            dialer: Dialer::new(me, seed),
            around,
            is_public: public.is_some(),
            pool_names: public::Names::default(),
            rivals: BTreeSet::new(),
            sighted: BTreeMap::new(),
            disk,
            worker,
            aggregator,
            desk,
            refused: BTreeMap::new(),
            generation: 0,
            arrivals: Arrivals::default(),
            tasks: JoinSet::new(),
            begun: Instant::now(),
        };
        for (peer, addresses) in met {
            for address in addresses {
                actor.dialer.learn(actor.now(), address, Some(peer), Origin::Remembered);
            }
        }
        // The governor has not decided yet.
        actor.around.machine.lends(false);
        actor.learn_tickets();
        actor.find(public.unwrap_or_default());
        tasks.spawn_local(actor.run(messages, signals, cancelled));
        Ok(MeshHandle(sender))
    }

    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut signals: Signals,
        cancelled: CancellationToken,
    ) -> Result<(), NodeError> {
        let endpoint = Rc::clone(&self.endpoint);
        loop {
            let deadline = self.settle().await;
            tokio::select! {
                () = cancelled.cancelled() => return Ok(()),
                message = messages.recv() => match message {
                    Some(Message::Leave(answer)) => {
                        self.end_demand().await;
                        self.endpoint.close(CloseCode::Leaving);
                        self.endpoint.wait_idle().await;
                        let _ = answer.send(());
                        return Ok(());
                    }
                    Some(message) => self.take_in(message).await?,
                    None => return Ok(()),
                },
                arrival = endpoint.accept() => match arrival {
                    Some(arrival) if self.links.len() < LINKS_MAX + public::LINKS_MAX + STRANGERS_MAX => {
                        let greeting = self.greeting();
                        let Some(arriving) = self.arrivals.enter(arrival.remote()) else {
                            arrival.refuse();
                            continue;
                        };
                        self.tasks.spawn_local(async move {
                            let _until_it_is_met = arriving;
                            let met = async {
                                let connection = arrival.establish().await?;
                                let greeted = greeting.accept(&connection).await?;
                                Ok((connection, greeted))
                            };
                            Event::Met(None, in_time(met).await)
                        });
                    }
                    Some(arrival) => arrival.refuse(),
                    // The socket is gone: without it this is no node.
                    None => return Err(NodeError::Ended),
                },
                Some(event) = self.tasks.join_next() => {
                    // Of one that panicked somewhere else than `caught` nothing is left; its connection was dropped.
                    if let Ok(event) = event {
                        self.happened(event).await?;
                    }
                }
                Ok(()) = signals.demand.changed() => {
                    let demand = signals.demand.borrow_and_update().clone();
                    self.around.demands(self.now(), demand);
                }
                Ok(()) = signals.lent.changed() => {
                    let is_open = signals.lent.borrow_and_update().is_some_and(Lent::is_open);
                    self.around.machine.lends(is_open);
                }
                Ok(()) = signals.busy.changed() => {
                    self.around.busy.clone_from(&signals.busy.borrow_and_update());
                }
                () = wait_until(deadline) => {}
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.begun.elapsed().as_millis() as u64)
    }

    fn greeting(&self) -> Greeting {
        Greeting::new(self.me, self.boot, &self.swarms, self.is_public, self.generation)
    }

    /// A node that is in no swarm dials nobody.
    fn may_dial(&self) -> bool {
        (self.is_public || self.swarms.iter().next().is_some()) && self.links.len() < LINKS_MAX
    }

    fn dial(&mut self) {
        if !self.may_dial() {
            return;
        }
        for (address, expected) in self.dialer.due(self.now(), self.wanted()) {
            let (endpoint, greeting) = (Rc::clone(&self.endpoint), self.greeting());
            let not_met = Event::Met(Some(address), Err(MeetError::Panicked));
            self.tasks.spawn_local(caught(not_met, async move {
                let met = async {
                    let connection = endpoint.dial(address, expected).await?;
                    let greeted = greeting.open(&connection).await?;
                    Ok((connection, greeted))
                };
                Event::Met(Some(address), in_time(met).await)
            }));
        }
    }

    async fn take_in(&mut self, message: Message) -> Result<(), NodeError> {
        match message {
            Message::Join(peer, request, answer) => self.admit(peer, &request, answer).await,
            Message::Renew(peer, credential, answer) => self.renew(peer, &credential, answer).await,
            Message::Delegated(peer, told) => self.delegated(peer, &told).await,
            Message::LeftSwarm(peer, swarm) => self.left(peer, swarm).await,
            Message::PeersAsked(peer, answer) => {
                let peers = self.around.machine.peers_for(self.now(), &peer);
                let _ = answer.send(PeersTold { peers });
                Ok(())
            }
            Message::DemandAsked(peer, asked, answer) => {
                self.asked_for_demand(peer, asked, answer);
                Ok(())
            }
            Message::DemandTold(peer, told) => {
                self.told_demand(&peer, &told);
                Ok(())
            }
            Message::Sighted(Sighting::Found { label, addresses }) => {
                // Any number that stands for the label alone.
                let hash = blake3::hash(label.as_bytes());
                let node = u64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]));
                self.dialer.sighted(self.now(), node, &addresses);
                self.sighted.insert(label, addresses);
                Ok(())
            }
            Message::Sighted(Sighting::Lost { label }) => {
                for address in self.sighted.remove(&label).unwrap_or_default() {
                    self.dialer.forget(&address);
                }
                Ok(())
            }
            Message::Learn(address, expected, origin) => {
                if origin == Origin::Bootstrap {
                    self.pool_names.forget(&address);
                }
                self.dialer.learn(self.now(), address, expected, origin);
                Ok(())
            }
            Message::Swarms(answer) => {
                let (records, refused) = (self.swarms.iter().cloned().collect(), self.refused.clone());
                let _ = answer.send(KnownSwarms { records, refused, is_public: self.is_public });
                Ok(())
            }
            Message::Peers(answer) => {
                let _ = answer.send(self.peers());
                Ok(())
            }
            Message::Swarm(command, answer) => self.command(command, answer).await,
            Message::Leave(_) => Ok(()),
        }
    }

    async fn happened(&mut self, event: Event) -> Result<(), NodeError> {
        match event {
            Event::Met(dialled, Ok((connection, greeted))) => self.met(dialled, connection, greeted).await,
            Event::Met(dialled, Err(error)) => {
                if let Some(address) = dialled {
                    let how = match &error {
                        MeetError::Transport(TransportError::Oneself { .. }) => Dialled::Oneself,
                        _ => Dialled::Failed,
                    };
                    tracing::debug!(%address, %error, "not met");
                    let expected = self.dialer.ended(self.now(), &address, how);
                    if let Some(peer) = expected.filter(|peer| !self.dialer.is_trying(peer)) {
                        self.around.machine.unreached(self.now(), &peer);
                    }
                } else {
                    tracing::debug!(%error, "an arrival was not met");
                }
                Ok(())
            }
            Event::Chosen(peer, chosen) => {
                self.rivals.remove(&peer);
                match chosen {
                    Some((connection, greeted)) => self.chosen(connection, greeted).await,
                    None => Ok(()),
                }
            }
            Event::Ended(peer, id, closed) => self.ended(peer, id, closed).await,
            Event::Expired(peer, id) => {
                if let Some(link) = self.links.get(&peer)
                    && link.id == id
                    && !link.is_member()
                {
                    link.connection.close(CloseCode::Refused);
                }
                Ok(())
            }
            Event::Admission(peer, swarm, answer) => self.admission(peer, swarm, answer).await,
            Event::Told(at, origin, told) => {
                self.told(&at, origin, told);
                Ok(())
            }
            Event::Leaving(swarm, answer, waiting) => self.forget(swarm, answer, waiting).await,
            Event::Heard(peer, link, answer) => {
                self.heard(&peer, link, answer);
                Ok(())
            }
            Event::Found(peer, found) => {
                self.found(peer, &found);
                Ok(())
            }
            Event::Nothing => Ok(()),
        }
    }

    async fn tell_worker(&self, message: ToWorker) {
        // An actor that has ended takes the node down by itself.
        let _ = self.worker.0.send(message).await;
    }

    fn learn_tickets(&mut self) {
        let now = self.now();
        for record in self.swarms.iter() {
            for (peer, addresses) in record.ticket().into_iter().flat_map(|ticket| ticket.admitters()) {
                for &address in addresses {
                    self.dialer.learn(now, address, Some(*peer), Origin::Ticket);
                }
            }
        }
    }
}
