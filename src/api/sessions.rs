//! Commands that ask for jobs, each with a number that nobody guesses; one that is not heard for a while is taken for gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::call::{Answer, Told};
use crate::{
    node::{AggregatorClient, ClientDesk, ClientEvent, NodeError},
    wire::{JobSpec, SwarmId},
};

/// After so long without a question for events, leasing for a client stops (DESIGN 9). Its results are kept.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Longest wait for an event; a client asks again at once, so a dead one is noticed in time.
const EVENTS_WAIT_MAX: Duration = Duration::from_secs(3);
/// Commands that ask for jobs at once.
pub(super) const SESSIONS_MAX: usize = 64;

/// What a command calls itself here; drawn anew by each node, so that one which was attached to an earlier node is not
/// taken for another that is attached to this.
pub(super) type SessionId = u64;

struct Session {
    desk: ClientDesk,
    swarm: Option<SwarmId>,
    client: AsyncMutex<AggregatorClient>,
    heard: Mutex<Instant>,
}

impl Session {
    fn is_heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn gone_at(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) + GONE_AFTER
    }
}

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Sessions {
    all: Arc<Mutex<BTreeMap<SessionId, Arc<Session>>>>,
    /// The node ends: whoever waits hears of it.
    pub(super) stopping: CancellationToken,
}

impl Sessions {
    fn locked<T>(&self, body: impl FnOnce(&mut BTreeMap<SessionId, Arc<Session>>) -> T) -> T {
        body(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.locked(|all| all.get(&id).cloned())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.locked(|all| all.len())
    }

    /// Takes a client in, and watches it; `None` where there are too many.
    pub(super) fn add(&self, client: AggregatorClient, swarm: Option<SwarmId>) -> Option<SessionId> {
        let mut id = [0; 8];
        // Without entropy there would be no node.
        getrandom::fill(&mut id).ok()?;
        let id = SessionId::from_le_bytes(id);
        let (name, desk) = (client.id(), client.desk());
        let heard = Mutex::new(Instant::now());
        let session = Arc::new(Session { desk, swarm, client: AsyncMutex::new(client), heard });
        let is_taken = self.locked(|all| {
            let has_room = all.len() < SESSIONS_MAX && !all.contains_key(&id);
            if has_room {
                all.insert(id, Arc::clone(&session));
            }
            has_room
        });
        if is_taken {
            let sessions = self.clone();
            tokio::spawn(async move {
                while session.gone_at() > Instant::now() && sessions.get(id).is_some() {
                    sleep_until(session.gone_at()).await;
                }
                if sessions.remove(id).await {
                    tracing::info!(client = name, "a command is gone: nothing more is leased for it");
                }
            });
        }
        is_taken.then_some(id)
    }

    /// Whether there was such a client. What only it had asked for is cancelled.
    pub(super) async fn remove(&self, id: SessionId) -> bool {
        let Some(session) = self.locked(|all| all.remove(&id)) else { return false };
        // A question that still waits keeps the client itself for a while.
        session.desk.detach().await;
        true
    }

    pub(super) fn clear(&self) {
        self.locked(BTreeMap::clear);
    }

    pub(super) async fn submit(&self, id: SessionId, jobs: Vec<JobSpec>) -> Result<Answer, NodeError> {
        let Some(session) = self.get(id) else { return Ok(Answer::Unknown) };
        session.is_heard();
        let keys: Vec<_> = jobs.iter().map(|job| job.key).collect();
        let refused = session.desk.submit(session.swarm, jobs).await.ok_or(NodeError::Ended)?;
        let place = |spec: &JobSpec| keys.iter().position(|key| *key == spec.key);
        let refused = refused.iter().filter_map(place).filter_map(|at| u32::try_from(at).ok());
        Ok(Answer::Submitted { refused: refused.collect() })
    }

    pub(super) async fn events(&self, id: SessionId, wait_ms: u32) -> Answer {
        let Some(session) = self.get(id) else { return Answer::Unknown };
        session.is_heard();
        let wait = Duration::from_millis(u64::from(wait_ms)).min(EVENTS_WAIT_MAX);
        let mut client = session.client.lock().await;
        let events = tokio::select! {
            biased;
            events = client.events(wait) => events,
            () = self.stopping.cancelled() => None,
        };
        session.is_heard();
        Answer::Events(
            events.map_or_else(|| vec![Told::Stopping], |events| events.into_iter().map(told).collect()),
        )
    }
}

fn told(event: ClientEvent) -> Told {
    match event {
        ClientEvent::Done { key, worker, chunks, tokens, elapsed } => {
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            Told::Done { key, worker, chunks, tokens, elapsed_ms }
        }
        ClientEvent::Dead { key, reason } => Told::Dead { key, reason },
        ClientEvent::NoCompute { reason } => Told::NoCompute { reason },
        ClientEvent::Cancelled => Told::Cancelled,
    }
}
