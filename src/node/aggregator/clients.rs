//! Whoever asks for jobs: what they ask for, cancel, and want tried again.

use tokio::sync::oneshot;

use super::{Aggregator, Asked, ClientEvent, ClientId, ClientInfo, Remains, estimated_tokens};
use crate::{
    node::wall_clock_ms,
    proto::{LEDGER_JOBS_MAX, LedgerEvent},
    store::DeadLetter,
    wire::{ContentKey, JobSpec, SwarmId},
};

impl Aggregator {
    pub(super) fn submit(
        &mut self,
        client: ClientId,
        swarm: Option<SwarmId>,
        specs: Vec<JobSpec>,
    ) -> Vec<JobSpec> {
        let Some(retries_dead) = self.clients.get(&client).map(|client| client.retries_dead()) else {
            return Vec::new();
        };
        if swarm.is_none() && self.compute.threads() == 0 && !specs.is_empty() {
            let reason = "this node computes nothing itself: wait until it has ended, or start it anew";
            self.batch.tell(client, ClientEvent::NoCompute { reason: reason.to_owned() });
            return Vec::new();
        }
        let mut refused = Vec::new();
        for spec in specs {
            let key = spec.key;
            if let Some(asked) = self.jobs.get_mut(&key) {
                asked.join(client, swarm);
            } else if let Some(reason) = self.dead.get(&key).filter(|_| !retries_dead) {
                let reason = format!("{reason} (a dead letter: `edge queue retry` lets it be tried again)");
                self.batch.tell(client, ClientEvent::Dead { key, reason });
            } else if self.jobs.len() < LEDGER_JOBS_MAX {
                let tokens = estimated_tokens(&spec.text);
                self.jobs.insert(key, Asked::new(spec, client, swarm));
                self.jobs_said = None;
                self.tell(LedgerEvent::Submit { job: key, swarm, tokens });
            } else {
                refused.push(spec);
            }
        }
        refused
    }

    pub(super) fn detach(&mut self, client: ClientId) {
        self.clients.remove(&client);
        let jobs = self.jobs.iter_mut();
        let remains: Vec<_> = jobs.map(|(&job, asked)| (job, asked.leave(client))).collect();
        for (job, remains) in remains {
            match remains {
                Remains::Same => {}
                Remains::Moved(swarm) => {
                    self.jobs_said = None;
                    self.tell(LedgerEvent::Move { job, swarm });
                }
                Remains::Nobody => {
                    self.jobs.remove(&job);
                    self.tell(LedgerEvent::Cancel { job });
                }
            }
        }
    }

    /// Whether there was such a client. It hears that it is cancelled, and goes.
    pub(super) fn cancel(&mut self, client: ClientId) -> bool {
        let Some(told) = self.clients.get_mut(&client) else { return false };
        // One that does not listen is dropped all the same.
        told.tell(ClientEvent::Cancelled);
        self.detach(client);
        true
    }

    pub(super) fn infos(&self) -> Vec<ClientInfo> {
        let open = |id| self.jobs.values().filter(|asked| asked.is_for(id)).count() as u64;
        self.clients.iter().map(|(&id, client)| client.info(id, open(id))).collect()
    }

    /// A job has failed for good.
    pub(super) fn bury(&mut self, job: ContentKey, reason: String) {
        tracing::warn!(%job, reason, "job is dead");
        let Some(asked) = self.jobs.remove(&job) else { return };
        let (swarm, clients) = (asked.swarm(), asked.into_clients());
        let title = clients.iter().find_map(|id| self.clients.get(id)).map(|client| client.title());
        let letter = DeadLetter {
            reason: reason.clone(),
            swarm,
            title: title.unwrap_or_default(),
            died_ms: wall_clock_ms(),
        };
        self.totals.dead += 1;
        self.dead.insert(job, reason.clone());
        self.batch.buried.push((job, letter));
        for client in clients {
            self.batch.tell(client, ClientEvent::Dead { key: job, reason: reason.clone() });
        }
    }

    /// Lets dead letters be tried again, these or all; says how many there were once the disk knows.
    pub(super) fn raise(&mut self, keys: Vec<ContentKey>, answer: oneshot::Sender<u64>) {
        let keys = if keys.is_empty() { self.dead.keys().copied().collect() } else { keys };
        let mut raised = 0;
        for key in keys {
            if self.dead.remove(&key).is_some() {
                self.batch.buried.retain(|(buried, _)| *buried != key);
                self.batch.raised.push(key);
                raised += 1;
            }
        }
        self.batch.counted.push((answer, raised));
    }
}
