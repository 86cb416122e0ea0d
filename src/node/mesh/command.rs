//! What its owner does with this node's swarms while it runs.

use std::borrow::Cow;

use tokio::sync::oneshot;

use super::{Event, Mesh};
use crate::{
    discovery::own_addresses,
    node::{
        NodeError,
        ask::ask,
        swarms::{Change, SwarmAnswer, SwarmCommand, SwarmsError, decide},
        wall_clock_ms,
    },
    proto::membership::SwarmRecord,
    transport::CloseCode,
    wire::{Done, LeaveSwarm, SwarmId},
};

/// How long the founder may take to hear that this node goes.
const LEAVE_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

pub(super) type Answer = oneshot::Sender<Result<SwarmAnswer, SwarmsError>>;

impl Mesh {
    /// Carries a command out. What it changes is on the disk before the answer, or anybody else, hears of it.
    pub(super) async fn command(&mut self, command: SwarmCommand, waiting: Answer) -> Result<(), NodeError> {
        let port = self.endpoint.local_port();
        let decided = {
            let mut swarms = Cow::Borrowed(&self.swarms);
            if matches!(command, SwarmCommand::Join { .. }) {
                // Whoever was put out comes in by a new ticket as anybody does.
                for id in self.refused.keys() {
                    swarms.to_mut().remove(id);
                }
            }
            decide(&swarms, &self.key, wall_clock_ms(), || own_addresses(port), command)
        };
        let answer = match decided {
            Err(error) => Err(error),
            Ok((None, SwarmAnswer::List { mut swarms })) => {
                for view in &mut swarms {
                    let refusal = self.refused.iter().find(|(id, _)| id.to_string() == view.id);
                    view.refused = refusal.map(|(_, refusal)| refusal.to_string());
                }
                Ok(SwarmAnswer::List { swarms })
            }
            Ok((None, answer)) => Ok(answer.with_public(self.is_public)),
            Ok((Some(Change::Public(bootstrap)), answer)) => {
                self.set_public(bootstrap).await?;
                Ok(answer)
            }
            Ok((Some(Change::Put(record)), answer)) => {
                self.put(*record).await?;
                Ok(answer)
            }
            Ok((Some(Change::Remove(record)), answer)) => {
                self.say_goodbye(&record, answer, waiting);
                return Ok(());
            }
        };
        // Whoever asked may have gone.
        let _ = waiting.send(answer);
        Ok(())
    }

    async fn put(&mut self, record: SwarmRecord) -> Result<(), NodeError> {
        let id = record.id();
        // Another ticket, perhaps.
        self.refused.remove(&id);
        let epoch_before = self.swarms.get(&id).map(SwarmRecord::epoch);
        let is_new_epoch = epoch_before.is_some_and(|before| before != record.epoch());
        self.replace(record).await?;
        self.judge_links().await?;
        if is_new_epoch {
            // Who is still in hears of the new epoch when it is met anew.
            for link in self.links.values().filter(|link| link.standing.swarms.get().contains(&id)) {
                link.connection.close(CloseCode::Duplicate);
            }
        }
        self.learn_tickets();
        self.tell_delegates();
        let connections: Vec<_> = self.links.values().map(|link| link.connection.clone()).collect();
        connections.iter().for_each(|connection| self.ask_to_join(connection));
        self.dialer.retry_all(self.now());
        Ok(())
    }

    /// Tells the founder, where it is here, and then forgets the swarm.
    fn say_goodbye(&mut self, record: &SwarmRecord, answer: SwarmAnswer, waiting: Answer) {
        let (id, founder) = (record.id(), record.founding().founder);
        let shares = |swarms: Vec<SwarmId>| swarms.contains(&id);
        let link = self.links.get(&founder).filter(|link| shares(link.standing.swarms.get()));
        let connection = link.map(|link| link.connection.clone());
        self.tasks.spawn_local(async move {
            if let Some(connection) = connection {
                // A founder that does not hear it finds a member that is away.
                let _: Result<Done, _> = ask(&connection, &LeaveSwarm { swarm: id }, LEAVE_WAIT).await;
            }
            Event::Leaving(id, answer, waiting)
        });
    }

    pub(super) async fn forget(
        &mut self,
        id: SwarmId,
        answer: SwarmAnswer,
        waiting: Answer,
    ) -> Result<(), NodeError> {
        self.disk.call(move |store| store.remove_swarm(&id)).await?;
        self.swarms.remove(&id);
        self.refused.remove(&id);
        self.judge_links().await?;
        let _ = waiting.send(Ok(answer));
        Ok(())
    }
}
