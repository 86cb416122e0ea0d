//! A founder tells members that they may invite and admit, whenever it meets them: who knows it already changes nothing.

use super::{Event, Mesh};
use crate::{
    node::{
        NodeError,
        ask::{ANSWER_WAIT, ask},
    },
    transport::Connection,
    wire::{Delegated, Done, PeerId},
};

impl Mesh {
    /// Tells every connected member that has a delegation of ours.
    pub(super) fn tell_delegates(&mut self) {
        let connections: Vec<Connection> = self.links.values().map(|link| link.connection.clone()).collect();
        connections.iter().for_each(|connection| self.tell_delegate(connection));
    }

    /// Tells one.
    pub(super) fn tell_delegate(&mut self, connection: &Connection) {
        let peer = connection.peer();
        for record in self.swarms.iter() {
            let Some(delegation) = record.delegation_of(&peer).cloned() else { continue };
            let (connection, told) = (connection.clone(), Delegated { swarm: record.id(), delegation });
            self.tasks.spawn_local(async move {
                let answer: Result<Done, _> = ask(&connection, &told, ANSWER_WAIT).await;
                if let Err(error) = answer {
                    tracing::debug!(peer = %peer.short(), %error, "a delegate was not told");
                }
                Event::Nothing
            });
        }
    }

    /// The founder says that this node may invite and admit.
    pub(super) async fn delegated(&mut self, peer: PeerId, told: &Delegated) -> Result<(), NodeError> {
        let Some(record) = self.swarms.get(&told.swarm) else { return Ok(()) };
        match record.accept(&told.delegation) {
            Ok(decided) => {
                if decided.record.is_some() {
                    tracing::info!(swarm = %record.founding().name, "this node may invite and admit");
                }
                self.keep(decided).await
            }
            Err(error) => {
                tracing::debug!(peer = %peer.short(), %error, "not a delegation for this node");
                Ok(())
            }
        }
    }
}
