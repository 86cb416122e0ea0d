//! Carries out what [`Neighbours`] decides: whom to ask for demand, whom to tell, whom to dial for it, which links go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{Event, Mesh};
use crate::{
    discovery::is_dialable,
    node::{
        ask::{ANSWER_WAIT, AskError, ask},
        caught::caught,
        governor::Lent,
        worker::Message as ToWorker,
    },
    proto::{
        LINKS_MAX, MeshEffect, Neighbours, Timestamp, Wanted,
        membership::{Role, Swarms},
    },
    transport::{CloseCode, Connection},
    wire::{Credential, DEMAND_WAIT_MS_MAX, DemandAsked, DemandTold, Done, PeerId, Refused, SwarmId},
};

/// How much longer than the long poll its answer may take.
const ASK_GRACE: Duration = Duration::from_secs(15);
/// Long polls that end within so long of each other are answered together: one wake-up instead of several.
const TOGETHER: Duration = Duration::from_secs(5);
/// How often one is told that has no time, and the longest wait between two tries.
const TELL_TRIES: u32 = 3;
const TELL_WAIT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for neighbours to hear, before the goodbye, that there is no work any more.
const END_WAIT: Duration = Duration::from_secs(1);

/// What the other actors say without being asked: they keep the newest, and whoever reads it sees that.
#[derive(Debug)]
pub(in crate::node) struct Signals {
    /// Work of this node's own that waits, by swarm: [`Demand::level_of`](crate::wire::Demand::level_of) its tokens.
    pub(in crate::node) demand: watch::Receiver<BTreeMap<SwarmId, u8>>,
    /// Of whom we hold work.
    pub(in crate::node) busy: watch::Receiver<BTreeSet<PeerId>>,
    /// What is lent at this moment.
    pub(in crate::node) lent: watch::Receiver<Option<Lent>>,
}

type DemandSender = watch::Sender<BTreeMap<SwarmId, u8>>;
type BusySender = watch::Sender<BTreeSet<PeerId>>;

impl Signals {
    /// With the ends at which the aggregator and the worker speak.
    pub(in crate::node) fn new(lent: watch::Receiver<Option<Lent>>) -> (Self, DemandSender, BusySender) {
        let (demand, demanded) = watch::channel(BTreeMap::new());
        let (busy, of_whom) = watch::channel(BTreeSet::new());
        (Self { demand: demanded, busy: of_whom, lent }, demand, busy)
    }
}

/// The machine, and who waits for what it has to tell.
pub(super) struct Around {
    pub(super) machine: Neighbours,
    parked: BTreeMap<PeerId, Parked>,
    /// Up to which of the machine's versions those that wait were answered.
    answered: u64,
    demand: BTreeMap<SwarmId, u8>,
    pub(super) busy: BTreeSet<PeerId>,
}

struct Parked {
    after: u64,
    until: Timestamp,
    answer: oneshot::Sender<DemandTold>,
}

impl Around {
    pub(super) fn new(machine: Neighbours) -> Self {
        let (parked, demand, busy) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { machine, parked, answered: 0, demand, busy }
    }

    /// This node's own demand is this.
    pub(super) fn demands(&mut self, now: Timestamp, demand: BTreeMap<SwarmId, u8>) {
        let before = std::mem::replace(&mut self.demand, demand);
        for swarm in before.keys().filter(|swarm| !self.demand.contains_key(swarm)) {
            self.machine.wants(now, *swarm, 0);
        }
        for (&swarm, &level) in &self.demand {
            self.machine.wants(now, swarm, level);
        }
    }
}

impl Mesh {
    /// Carries out what follows from all that has happened; says when something is due again.
    pub(super) async fn settle(&mut self) -> Option<Instant> {
        let now = self.now();
        let shown = self.swarms.iter().filter_map(|record| Some((record.id(), record.credential()?)));
        self.around.machine.joined(shown);
        self.around.machine.in_pool(self.is_public);
        self.around.machine.busy_with(now, &self.around.busy);
        self.dialer.need(&self.around.busy);
        let mut effects = Vec::new();
        self.around.machine.settle(now, self.dialer.known(), &mut effects);
        for effect in effects {
            self.carry_out(effect).await;
        }
        self.answer_parked();
        self.dial();
        let machine = self.around.machine.next_deadline();
        // What may not be dialled is not due either, or this would spin.
        let dials = self.dialer.next_deadline(self.wanted()).filter(|_| self.may_dial());
        let parked = self.around.parked.values().map(|parked| parked.until).min();
        let due = machine.into_iter().chain(dials).chain(parked).min();
        due.map(|at| self.begun + Duration::from_millis(at.as_ms()))
    }

    /// Links to dial for. Who waits to be let in, or to hear of a new epoch, dials whoever may say so.
    pub(super) fn wanted(&self) -> Wanted {
        let waits = |role| matches!(role, Role::Pending | Role::Unlisted);
        let wanted = self.around.machine.wanted();
        match self.swarms.iter().any(|record| waits(record.role())) {
            true => Wanted { members: LINKS_MAX, ..wanted },
            false => wanted,
        }
    }

    async fn carry_out(&mut self, effect: MeshEffect) {
        match effect {
            MeshEffect::Ask { peer, after } => {
                let Some(link) = self.links.get(&peer) else { return };
                let (connection, id) = (link.connection.clone(), link.id);
                let question = DemandAsked { after, wait_ms: DEMAND_WAIT_MS_MAX };
                let wait = Duration::from_millis(u64::from(DEMAND_WAIT_MS_MAX)) + ASK_GRACE;
                let missed = Event::Heard(peer, id, Err(AskError::Nothing));
                self.tasks.spawn_local(caught(missed, async move {
                    Event::Heard(peer, id, ask(&connection, &question, wait).await)
                }));
            }
            MeshEffect::Tell { peer, told } => {
                let Some(link) = self.links.get(&peer) else { return };
                let connection = link.connection.clone();
                self.tasks.spawn_local(async move {
                    tell(&connection, &told).await;
                    Event::Nothing
                });
            }
            MeshEffect::Demand { peer, demand } => self.tell_worker(ToWorker::Demand(peer, demand)).await,
            MeshEffect::Dial { peer, addresses } => self.dialer.wish(self.now(), peer, &addresses),
            MeshEffect::Close { peer } => {
                if let Some(link) = self.links.get(&peer) {
                    link.connection.close(CloseCode::Surplus);
                }
            }
        }
    }

    /// A neighbour has answered, or not.
    pub(super) fn heard(&mut self, peer: &PeerId, link: u64, answer: Result<DemandTold, AskError>) {
        let Some(link) = self.links.get(peer).filter(|current| current.id == link) else { return };
        let at = link.connection.remote();
        let told =
            answer.inspect_err(|error| tracing::debug!(peer = %peer.short(), %error, "no demand told"));
        let told = told.ok().map(|told| dialable(told, at));
        let (now, swarms) = (self.now(), &self.swarms);
        self.around.machine.answered(now, peer, told.as_ref(), |peer, shown| is_member(swarms, peer, shown));
    }

    /// A member says unasked what it demands.
    pub(super) fn told_demand(&mut self, peer: &PeerId, told: &DemandTold) {
        let (now, swarms) = (self.now(), &self.swarms);
        self.around.machine.told(now, peer, told, |peer, shown| is_member(swarms, peer, shown));
    }

    /// A member asks for demand; it waits once, an older question of it was given up.
    pub(super) fn asked_for_demand(
        &mut self,
        peer: PeerId,
        asked: DemandAsked,
        answer: oneshot::Sender<DemandTold>,
    ) {
        let now = self.now();
        if let Some(told) = self.around.machine.tell(now, &peer, asked.after) {
            let _ = answer.send(told);
        } else if self.links.contains_key(&peer) {
            let wait = Duration::from_millis(u64::from(asked.wait_ms.min(DEMAND_WAIT_MS_MAX)));
            let parked = Parked { after: asked.after, until: now.after(wait), answer };
            self.around.parked.insert(peer, parked);
        }
    }

    fn answer_parked(&mut self) {
        let now = self.now();
        let Around { machine, parked, answered, .. } = &mut self.around;
        let is_due = parked.values().any(|parked| parked.until <= now);
        if !is_due && *answered == machine.version() {
            return;
        }
        *answered = machine.version();
        let soon = if is_due { now.after(TOGETHER) } else { now };
        for (peer, waiting) in std::mem::take(parked) {
            let told = match machine.tell(now, &peer, waiting.after) {
                Some(told) => told,
                None if waiting.until > soon && self.links.contains_key(&peer) => {
                    parked.insert(peer, waiting);
                    continue;
                }
                None => DemandTold { upto: waiting.after, adverts: Vec::new() },
            };
            let _ = waiting.answer.send(told);
        }
    }

    /// Before the goodbye: what was wanted is wanted no more, so that nobody looks for this node in vain.
    pub(super) async fn end_demand(&mut self) {
        let (mut effects, mut tells) = (Vec::new(), JoinSet::new());
        self.around.machine.leaves(self.now(), &mut effects);
        for effect in effects {
            if let MeshEffect::Tell { peer, told } = effect
                && let Some(link) = self.links.get(&peer)
            {
                let connection = link.connection.clone();
                tells.spawn_local(async move { tell(&connection, &told).await });
            }
        }
        let _ = timeout(END_WAIT, async { while tells.join_next().await.is_some() {} }).await;
    }
}

/// What is learned from it is learned when the peer itself shows it.
fn is_member(swarms: &Swarms, peer: &PeerId, shown: &Credential) -> bool {
    let record = swarms.get(&shown.founding.id());
    record.is_some_and(|record| record.is_member(*peer, shown).is_ok())
}

/// Who does not hear it hears it from others, or sees it grow old. Who has no time for it now is told again.
async fn tell(connection: &Connection, told: &DemandTold) {
    for _ in 0..TELL_TRIES {
        let answer: Result<Done, _> = ask(connection, told, ANSWER_WAIT).await;
        let Err(error) = answer else { return };
        tracing::debug!(peer = %connection.peer().short(), %error, "demand was not heard");
        let AskError::Refused(Refused { retry_ms, .. }) = error else { return };
        if retry_ms == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(retry_ms.into()).min(TELL_WAIT_MAX)).await;
    }
}

/// Nobody is sent to an address that this teller can not have reached for us.
fn dialable(mut told: DemandTold, teller: SocketAddr) -> DemandTold {
    for advert in &mut told.adverts {
        advert.reached.retain(|reached| is_dialable(&reached.address.ip(), &teller.ip()));
    }
    told
}
