//! Who is a member: what peers show, who is let in, who is brought up to date. Whatever a decision changes is on the
//! disk before anybody hears of it.

use std::{net::SocketAddr, time::Duration};

use tokio::sync::oneshot;

use super::{Event, Mesh, public::Rank};
use crate::{
    node::{
        NodeError,
        ask::{ANSWER_WAIT, AskError, SEND_WAIT},
        wall_clock_ms,
        worker::Message as ToWorker,
    },
    proto::{
        Origin, REACHED_LIFE,
        membership::{Decided, Role, Seen, Stranger, SwarmRecord},
    },
    transport::{CloseCode, Connection},
    wire::{
        self, Admitted, Credential, JoinRequest, Message, NotAdmitted, PEERS_TOLD_MAX, PeerAddress, PeerId,
        PeersTold, Refusal, Refused, Renew, SwarmId,
    },
};

/// How often one is asked on one connection: a stranger may not stay longer than that takes.
const ADMISSION_TRIES_MAX: u32 = 3;
/// Longest wait between two tries, whatever the peer says.
const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<Box<Admitted>, Refusal>>;

impl Mesh {
    /// The swarms of which the peer has shown to be a member. Where it knows a newer epoch it is asked for it.
    pub(super) async fn judge(
        &mut self,
        peer: PeerId,
        credentials: &[Credential],
    ) -> Result<Vec<SwarmId>, NodeError> {
        let mut shared = Vec::new();
        for credential in credentials {
            let id = credential.founding.id();
            let Some(record) = self.swarms.get(&id) else { continue };
            match record.is_member(peer, credential) {
                Ok(decided) => {
                    self.keep(decided).await?;
                    shared.push(id);
                }
                Err(error) => tracing::warn!(peer = %peer.short(), %error, "not taken for a member"),
            }
        }
        Ok(shared)
    }

    /// Writes a changed record before it counts.
    pub(super) async fn keep<A>(&mut self, decided: Decided<A>) -> Result<A, NodeError> {
        let Decided { record, answer } = decided;
        if let Some(record) = record {
            self.replace(record).await?;
        }
        Ok(answer)
    }

    pub(super) async fn replace(&mut self, record: SwarmRecord) -> Result<(), NodeError> {
        let kept = record.clone();
        self.disk.call(move |store| store.put_swarm(&kept)).await?;
        if self.swarms.get(&record.id()).is_some_and(|before| before.epoch() != record.epoch()) {
            self.generation += 1;
        }
        if let Err(error) = self.swarms.put(record) {
            tracing::error!(%error, "a swarm is not kept");
        }
        Ok(())
    }

    /// Lets a peer in that brings an invite of ours, or says why not.
    pub(super) async fn admit(
        &mut self,
        peer: PeerId,
        request: &JoinRequest,
        waiting: Answer,
    ) -> Result<(), NodeError> {
        let decided = match self.swarms.get(&request.swarm) {
            Some(record) => record.admit(&self.key, request, peer, wall_clock_ms()),
            None => Err(Refusal::NotAdmitting),
        };
        let answer = match decided {
            Ok(decided) => Ok(Box::new(self.keep(decided).await?)),
            Err(refusal) => Err(refusal),
        };
        let how = answer.as_ref().map_or_else(ToString::to_string, |_| "admitted".to_owned());
        tracing::info!(peer = %peer.short(), swarm = %request.swarm.short(), how, "a peer asked to join");
        let _ = waiting.send(answer);
        Ok(())
    }

    /// Brings a member up to date.
    pub(super) async fn renew(
        &mut self,
        peer: PeerId,
        credential: &Credential,
        waiting: Answer,
    ) -> Result<(), NodeError> {
        let decided = match self.swarms.get(&credential.founding.id()) {
            Some(record) => record.renew(&self.key, peer, credential),
            None => Err(Stranger::CanNotJudge),
        };
        let answer = match decided {
            Ok(decided) => Ok(Box::new(self.keep(decided).await?)),
            Err(stranger) => Err(stranger.refusal()),
        };
        let _ = waiting.send(answer);
        Ok(())
    }

    /// The founder hears that a member has left.
    pub(super) async fn left(&mut self, peer: PeerId, swarm: SwarmId) -> Result<(), NodeError> {
        if let Some(record) = self.swarms.get(&swarm)
            && record.role() == Role::Founder
            && let Ok(decided) = record.left(peer)
        {
            self.keep(decided).await?;
        }
        if let Some(link) = self.links.get(&peer) {
            let left = link.standing.swarms.get().into_iter().filter(|id| *id != swarm).collect();
            self.set_swarms(peer, left).await;
        }
        Ok(())
    }

    /// What a peer shares with us has changed; who no longer shares anything goes, who begins to is met anew.
    async fn set_swarms(&mut self, peer: PeerId, swarms: Vec<SwarmId>) {
        let Some(link) = self.links.get(&peer) else { return };
        let (before, after) = (link.rank(), Rank::of(&swarms));
        self.around.machine.changed(&peer, swarms.clone());
        self.dialer.shares(peer, after == Rank::Public);
        link.standing.swarms.set(swarms);
        if before == after {
            return;
        }
        let (connection, worker) = (link.connection.clone(), link.standing.worker);
        match (before, after) {
            (Rank::Stranger, _) => connection.close(CloseCode::Duplicate),
            (_, Rank::Stranger) => connection.close(CloseCode::Refused),
            _ => {}
        }
        match (before, after) {
            (Rank::Member, _) => self.end_work(worker).await,
            (Rank::Public, Rank::Member) => self.tell_worker(ToWorker::Connected(peer, connection)).await,
            _ => {}
        }
    }

    /// Whether we wait to be let in by this peer, which has not said that it will not.
    pub(super) fn is_to_admit(&self, peer: &PeerId) -> bool {
        let is_asked = |record: &SwarmRecord| {
            let mut admitters = record.ticket().into_iter().flat_map(|ticket| ticket.admitters());
            record.role() == Role::Pending && admitters.any(|(admitter, _)| admitter == peer)
        };
        self.swarms.iter().any(|record| is_asked(record) && !self.refused.contains_key(&record.id()))
    }

    /// Asks a peer that is one of the admitters of a ticket of ours.
    pub(super) fn ask_to_join(&mut self, connection: &Connection) {
        let peer = connection.peer();
        let requests: Vec<JoinRequest> = self
            .swarms
            .iter()
            .filter_map(|record| Some((record.id(), record.ticket()?)))
            .filter(|(_, ticket)| ticket.invite().by == peer)
            .map(|(swarm, ticket)| JoinRequest { swarm, invite: ticket.invite().clone() })
            .collect();
        for request in requests {
            let (connection, swarm) = (connection.clone(), request.swarm);
            self.tasks.spawn_local(async move {
                Event::Admission(peer, swarm, ask_admission(&connection, &request).await)
            });
        }
    }

    /// Asks a member that knows a newer epoch than this node.
    pub(super) fn ask_to_renew(&mut self, connection: &Connection, credentials: &[Credential]) {
        let peer = connection.peer();
        for shown in credentials {
            let swarm = shown.founding.id();
            let Some(record) = self.swarms.get(&swarm) else { continue };
            let lags = match record.is_member(peer, shown) {
                Ok(decided) => decided.answer == Seen::Ahead,
                Err(error) => matches!(error, Stranger::Ahead { .. }),
            };
            let Some(credential) = record.credential().filter(|_| lags) else { continue };
            let connection = connection.clone();
            self.tasks.spawn_local(async move {
                Event::Admission(peer, swarm, ask_admission(&connection, &Renew { credential }).await)
            });
        }
    }

    /// An answer to either.
    pub(super) async fn admission(
        &mut self,
        peer: PeerId,
        swarm: SwarmId,
        answer: Result<Box<Admitted>, AskError>,
    ) -> Result<(), NodeError> {
        let Some(record) = self.swarms.get(&swarm) else { return Ok(()) };
        let name = record.founding().name.clone();
        let admitted = match answer {
            Ok(admitted) => admitted,
            // Where it was not heard, it is asked again on the next connection.
            Err(error) if !matches!(error, AskError::NotAdmitted(_)) => {
                tracing::debug!(swarm = %name, peer = %peer.short(), %error, "admission not answered");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(swarm = %name, peer = %peer.short(), %error, "not admitted");
                // Who may be wrong, or lies, must not put a member out: only its founder knows everybody.
                let is_theirs_to_say = record.role() == Role::Pending || peer == record.founding().founder;
                if let AskError::NotAdmitted(refusal) = error
                    && !refusal.is_passing()
                    && is_theirs_to_say
                {
                    self.refused.insert(swarm, refusal);
                }
                return Ok(());
            }
        };
        self.refused.remove(&swarm);
        let was_shown = record.credential().is_some();
        match record.take_up(&admitted) {
            Ok(decided) => {
                self.keep(decided).await?;
                tracing::info!(swarm = %name, "this node is a member");
                // Who we are has changed: the connection begins anew, with an introduction. Others may share this
                // swarm with us too, and have not shown it to who was no member.
                for (other, link) in &self.links {
                    if *other == peer || !was_shown {
                        link.connection.close(CloseCode::Duplicate);
                    }
                }
                self.judge_links().await?;
                self.dialer.retry_all(self.now());
            }
            Err(error) => tracing::warn!(swarm = %name, peer = %peer.short(), %error, "admission refused"),
        }
        Ok(())
    }

    /// Judges all links anew, after our swarms have changed.
    pub(super) async fn judge_links(&mut self) -> Result<(), NodeError> {
        let peers: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in peers {
            let Some(link) = self.links.get(&peer) else { continue };
            let (credentials, is_public) = (link.credentials.clone(), link.is_public);
            let swarms = self.shared(peer, &credentials, is_public).await?;
            self.set_swarms(peer, swarms).await;
        }
        Ok(())
    }

    pub(super) fn told(&mut self, at: &SocketAddr, origin: Origin, told: PeersTold) {
        let now = self.now();
        let lately = |told: &PeerAddress| Duration::from_secs(told.age_s.into()) <= REACHED_LIFE;
        for told in told.peers.into_iter().take(PEERS_TOLD_MAX).filter(lately) {
            if crate::discovery::is_dialable(&told.address.ip(), &at.ip()) {
                self.dialer.learn(now, told.address, Some(told.peer), origin);
            }
        }
    }
}

/// Asks to be let in, or to be brought up to date; again where the peer has no time for it now.
async fn ask_admission<Q: Message>(connection: &Connection, question: &Q) -> Result<Box<Admitted>, AskError> {
    let mut tries = 1;
    loop {
        match ask_admission_once(connection, question).await {
            Err(AskError::Refused(Refused { retry_ms, .. }))
                if retry_ms > 0 && tries < ADMISSION_TRIES_MAX =>
            {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(retry_ms.into()).min(ADMISSION_WAIT_MAX)).await;
            }
            answer => return answer,
        }
    }
}

async fn ask_admission_once<Q: Message>(
    connection: &Connection,
    question: &Q,
) -> Result<Box<Admitted>, AskError> {
    let mut exchange = connection.open().await?;
    exchange.send(&wire::encode(question), Q::BYTES_MAX, SEND_WAIT).await?;
    exchange.finish()?;
    let Some(frame) = exchange.receive(Admitted::BYTES_MAX, ANSWER_WAIT).await? else {
        return Err(AskError::Nothing);
    };
    match wire::kind(&frame)? {
        NotAdmitted::KIND => {
            let NotAdmitted { refusal } = wire::decode(&frame)?;
            Err(AskError::NotAdmitted(refusal))
        }
        Refused::KIND => Err(AskError::Refused(wire::decode(&frame)?)),
        _ => Ok(Box::new(wire::decode(&frame)?)),
    }
}
