//! A connection to a peer that has introduced itself, and which of two stays.

use std::{rc::Rc, time::Instant};

use tokio::task::AbortHandle;

use super::{greet::Greeted, serve::Standing};
use crate::{
    transport::Connection,
    wire::{Credential, PeerId},
};

/// A connection to a peer that has introduced itself.
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) connection: Connection,
    pub(super) standing: Rc<Standing>,
    pub(super) credentials: Vec<Credential>,
    pub(super) program: String,
    pub(super) since: Instant,
    pub(super) service: AbortHandle,
}

impl Link {
    /// Whether the peer shares a swarm with us.
    pub(super) fn is_member(&self) -> bool {
        !self.standing.swarms.get().is_empty()
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
