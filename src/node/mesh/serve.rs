//! What a peer asks of this node: each stream one question, judged by what the peer has proved, and one answer.

use std::{rc::Rc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{
    super::{
        aggregator::{AggregatorHandle, Message as ToAggregator, Shared},
        ask::SEND_WAIT,
    },
    Message as ToMesh,
    doors::Doors,
    public::{BYTES_MAX as PUBLIC_BYTES_MAX, Lists, Rank},
};
use crate::{
    proto::Worker,
    transport::{Connection, Exchange, TransportError},
    wire::{
        self, ADVERTS_TOLD_MAX, Delegated, Deliver, DemandAsked, DemandTold, Done, FrameError, HOLDING_MAX,
        Heartbeat, JoinRequest, LeaveSwarm, MODELS_MAX, Message, PeerId, PeersAsked, Pull, RefusalReason,
        Refused, Release, Renew,
    },
};

/// Longest wait for all of a question.
const QUESTION_WAIT: Duration = Duration::from_secs(30);
/// When a worker that found no place may ask again.
const FULL_RETRY_MS: u32 = 5_000;
/// Longest question of a stranger: a request to join.
const STRANGER_BYTES_MAX: usize = 2048;

/// What all answers need.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) aggregator: AggregatorHandle,
    pub(super) mesh: mpsc::Sender<ToMesh>,
    doors: Doors,
    lists: Lists,
}

impl Desk {
    pub(super) fn new(aggregator: AggregatorHandle, mesh: mpsc::Sender<ToMesh>) -> Self {
        Self { aggregator, mesh, doors: Doors::new(), lists: Lists::new() }
    }

    /// Before a question that costs signatures to check.
    fn enter(&self, peer: PeerId, is_member: bool) -> Result<(), Failure> {
        self.doors.enter(peer, is_member).map_err(full)
    }

    /// Before a list of peers of the pool.
    fn list(&self, peer: PeerId) -> Result<(), Failure> {
        self.lists.enter(peer).map_err(full)
    }
}

fn full(wait: Duration) -> Failure {
    Failure::Refused(RefusalReason::Full, u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
}

/// What is known of the peer at the other end; its swarms change while it is connected.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) worker: Worker,
    pub(super) swarms: Shared,
}

impl Standing {
    fn peer(&self) -> PeerId {
        self.worker.peer
    }
}

enum Failure {
    Refused(RefusalReason, u32),
    Frame(FrameError),
    Transport(TransportError),
}

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

/// Answers a peer's questions until its connection ends. Dropping it gives up what is being answered.
pub(super) async fn serve(connection: Connection, standing: Rc<Standing>, desk: Rc<Desk>) {
    // The transport bounds how many are open at once.
    let mut answers = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            exchange = connection.accept() => match exchange {
                Ok(exchange) => {
                    answers.spawn_local(reply(exchange, Rc::clone(&standing), Rc::clone(&desk)));
                }
                Err(_) => return,
            },
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn reply(mut exchange: Exchange, standing: Rc<Standing>, desk: Rc<Desk>) {
    let rank = Rank::of(&standing.swarms.get());
    let bytes_max = match rank {
        Rank::Stranger => STRANGER_BYTES_MAX,
        Rank::Public => PUBLIC_BYTES_MAX,
        Rank::Member => Deliver::BYTES_MAX,
    };
    let answer = match exchange.receive(bytes_max, QUESTION_WAIT).await {
        Ok(Some(frame)) => answer(&frame, &standing, &desk, rank).await,
        Ok(None) => return,
        Err(error) => Err(Failure::Transport(error)),
    };
    let (frame, frame_max) = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            let (reason, retry_ms) = match failure {
                Failure::Refused(reason, retry_ms) => (reason, retry_ms),
                Failure::Frame(error) => {
                    tracing::debug!(peer = %standing.peer().short(), %error, "malformed question");
                    (RefusalReason::Wrong, 0)
                }
                Failure::Transport(error) => {
                    tracing::debug!(peer = %standing.peer().short(), %error, "question lost");
                    return exchange.decline();
                }
            };
            (wire::encode(&Refused { reason, retry_ms }), Refused::BYTES_MAX)
        }
    };
    // A peer that does not listen asks again.
    if exchange.send(&frame, frame_max, SEND_WAIT).await.is_ok() {
        let _ = exchange.finish();
    }
}

type Answer = Result<(Vec<u8>, usize), Failure>;

async fn answer(frame: &[u8], standing: &Standing, desk: &Desk, rank: Rank) -> Answer {
    let (peer, is_member) = (standing.peer(), rank == Rank::Member);
    match wire::kind(frame)? {
        JoinRequest::KIND => {
            desk.enter(peer, is_member)?;
            let (request, (sender, answered)) = (wire::decode(frame)?, oneshot::channel());
            tell(&desk.mesh, ToMesh::Join(peer, Box::new(request), sender)).await?;
            match answered.await.map_err(|_| leaving())? {
                Ok(admitted) => encoded(&*admitted),
                Err(refusal) => encoded(&wire::NotAdmitted { refusal }),
            }
        }
        // Of who was admitted by a delegate, the founder may not have heard.
        Renew::KIND => {
            desk.enter(peer, is_member)?;
            let (Renew { credential }, (sender, answered)) = (wire::decode(frame)?, oneshot::channel());
            tell(&desk.mesh, ToMesh::Renew(peer, Box::new(credential), sender)).await?;
            match answered.await.map_err(|_| leaving())? {
                Ok(admitted) => encoded(&*admitted),
                Err(refusal) => encoded(&wire::NotAdmitted { refusal }),
            }
        }
        _ if rank == Rank::Stranger => Err(Failure::Refused(RefusalReason::Stranger, 0)),
        PeersAsked::KIND => {
            if rank == Rank::Public {
                desk.list(peer)?;
            }
            let (PeersAsked {}, (sender, answered)) = (wire::decode(frame)?, oneshot::channel());
            tell(&desk.mesh, ToMesh::PeersAsked(peer, sender)).await?;
            encoded(&answered.await.map_err(|_| leaving())?)
        }
        // Whoever is only in the pool gets no more than that: no work can be placed there yet, and whoever asks for work
        // counts when it is shared.
        _ if rank == Rank::Public => Err(Failure::Refused(RefusalReason::Stranger, 0)),
        DemandAsked::KIND => {
            let (asked, (sender, answered)) = (wire::decode(frame)?, oneshot::channel());
            tell(&desk.mesh, ToMesh::DemandAsked(peer, asked, sender)).await?;
            encoded(&answered.await.map_err(|_| leaving())?)
        }
        DemandTold::KIND => {
            desk.doors.hear(peer).map_err(full)?;
            let told: DemandTold = wire::decode(frame)?;
            if told.adverts.len() > ADVERTS_TOLD_MAX {
                return Err(Failure::Refused(RefusalReason::Wrong, 0));
            }
            tell(&desk.mesh, ToMesh::DemandTold(peer, told)).await?;
            encoded(&Done {})
        }
        Delegated::KIND => {
            desk.enter(peer, is_member)?;
            tell(&desk.mesh, ToMesh::Delegated(peer, Box::new(wire::decode(frame)?))).await?;
            encoded(&Done {})
        }
        LeaveSwarm::KIND => {
            let LeaveSwarm { swarm } = wire::decode(frame)?;
            tell(&desk.mesh, ToMesh::LeftSwarm(peer, swarm)).await?;
            encoded(&Done {})
        }
        _ => work(frame, standing, desk).await,
    }
}

/// The questions of a worker.
async fn work(frame: &[u8], standing: &Standing, desk: &Desk) -> Answer {
    let (worker, swarms) = (standing.worker, standing.swarms.clone());
    let wrong = || Failure::Refused(RefusalReason::Wrong, 0);
    match wire::kind(frame)? {
        Pull::KIND => {
            let (pull, (sender, answered)): (Pull, _) = (wire::decode(frame)?, oneshot::channel());
            if pull.models.len() > MODELS_MAX {
                return Err(wrong());
            }
            tell(&desk.aggregator.0, ToAggregator::Pull(worker, swarms, pull, sender)).await?;
            let full = |_| Failure::Refused(RefusalReason::Full, FULL_RETRY_MS);
            encoded(&answered.await.map_err(full)?)
        }
        Heartbeat::KIND => {
            let (heartbeat, (sender, answered)): (Heartbeat, _) = (wire::decode(frame)?, oneshot::channel());
            if heartbeat.holding.len() > HOLDING_MAX {
                return Err(wrong());
            }
            tell(&desk.aggregator.0, ToAggregator::Heartbeat(worker, heartbeat, sender)).await?;
            encoded(&answered.await.map_err(|_| leaving())?)
        }
        Deliver::KIND => {
            let (deliver, (sender, answered)) = (Box::new(wire::decode(frame)?), oneshot::channel());
            tell(&desk.aggregator.0, ToAggregator::Deliver(worker, swarms, deliver, sender)).await?;
            encoded(&answered.await.map_err(|_| leaving())?.ok_or_else(wrong)?)
        }
        Release::KIND => {
            let (Release { attempts }, (sender, answered)) = (wire::decode(frame)?, oneshot::channel());
            if attempts.len() > HOLDING_MAX {
                return Err(wrong());
            }
            tell(&desk.aggregator.0, ToAggregator::Release(worker, attempts, sender)).await?;
            answered.await.map_err(|_| leaving())?;
            encoded(&Done {})
        }
        _ => Err(Failure::Refused(RefusalReason::Unknown, 0)),
    }
}

fn encoded<M: Message>(message: &M) -> Answer {
    Ok((wire::encode(message), M::BYTES_MAX))
}

async fn tell<T>(actor: &mpsc::Sender<T>, message: T) -> Result<(), Failure> {
    actor.send(message).await.map_err(|_| leaving())
}

fn leaving() -> Failure {
    Failure::Refused(RefusalReason::Leaving, FULL_RETRY_MS)
}
