//! The public pool, as this node's owner joins, leaves and sees it. It has no record, for it has no members to keep.

use super::swarms::{Change, SwarmAnswer, SwarmView, SwarmsError};
use crate::{discovery::BootstrapAddress, wire::PUBLIC_SWARM};

/// Bootstrap addresses of the pool that are kept.
const BOOTSTRAP_MAX: usize = 32;

impl SwarmAnswer {
    /// With the public pool among the swarms, where this node is in it: that has no record.
    #[must_use]
    pub fn with_public(mut self, is_public: bool) -> Self {
        if let (Self::List { swarms }, true) = (&mut self, is_public) {
            swarms.push(SwarmView::of_pool());
        }
        self
    }
}

impl SwarmView {
    /// Of the public pool, for who is in it.
    pub fn of_pool() -> Self {
        let (name, id, role) = ("public".to_owned(), PUBLIC_SWARM.to_string(), "member".to_owned());
        Self { name, id, role, epoch: 0, members: 0, refused: None }
    }
}

/// Joins it by way of these nodes.
///
/// # Errors
/// [`SwarmsError::Malformed`].
pub(super) fn join(bootstrap: Vec<String>) -> Result<(Option<Change>, SwarmAnswer), SwarmsError> {
    if bootstrap.len() > BOOTSTRAP_MAX {
        let what = format!("at most {BOOTSTRAP_MAX} bootstrap addresses are kept");
        return Err(SwarmsError::Malformed(what));
    }
    for text in &bootstrap {
        let parsed: Result<BootstrapAddress, _> = text.parse();
        parsed.map_err(|error| SwarmsError::Malformed(format!("{text}: {error}")))?;
    }
    Ok((Some(Change::Public(Some(bootstrap))), SwarmAnswer::Public { joined: true }))
}
