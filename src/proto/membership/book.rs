//! All swarms of one node, by id and by what its owner types.
//!
//! Deliberately absent: the public pool, which has neither record nor id.

use std::collections::BTreeMap;

use super::SwarmRecord;
use crate::wire::SwarmId;

/// Most swarms of one node: a hello carries a tag of each, two in the epoch after a kick.
pub const SWARMS_MAX: usize = 64;

/// Why a swarm is not added.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BookError {
    /// [`SWARMS_MAX`].
    #[error("this node is in {SWARMS_MAX} swarms, as many as it can: leave one first")]
    Full,
}

/// Why nobody knows which swarm is meant.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FindError {
    /// None is called so.
    #[error("this node is in no swarm `{what}`; `edge swarm list` shows them")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// Two founders chose the same name.
    #[error("`{what}` stands for {} swarms; give the beginning of the id: {}", ids.len(), listed(ids))]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// Which it may be.
        ids: Vec<SwarmId>,
    },
}

fn listed(ids: &[SwarmId]) -> String {
    ids.iter().map(SwarmId::short).collect::<Vec<_>>().join(", ")
}

/// The swarms of one node.
#[derive(Clone, Debug, Default)]
pub struct Swarms(BTreeMap<SwarmId, SwarmRecord>);

impl Swarms {
    /// Adds a swarm, or replaces its record.
    ///
    /// # Errors
    /// [`BookError`]; then nothing has changed.
    pub fn put(&mut self, record: SwarmRecord) -> Result<(), BookError> {
        let id = record.id();
        if !self.0.contains_key(&id) && self.0.len() >= SWARMS_MAX {
            return Err(BookError::Full);
        }
        self.0.insert(id, record);
        Ok(())
    }

    /// The record of a swarm.
    pub fn get(&self, id: &SwarmId) -> Option<&SwarmRecord> {
        self.0.get(id)
    }

    /// The swarm of that name; where two have it, or none, the one whose id begins so.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn find(&self, what: &str) -> Result<&SwarmRecord, FindError> {
        let of = |is_meant: &dyn Fn(&&SwarmRecord) -> bool| self.iter().filter(is_meant).collect::<Vec<_>>();
        let named = of(&|record| record.founding().name.as_str() == what);
        let begun = of(&|record| !what.is_empty() && record.id().to_string().starts_with(what));
        match (&named[..], &begun[..]) {
            ([record], _) | ([], [record]) => Ok(record),
            ([], []) => Err(FindError::Unknown { what: what.to_owned() }),
            ([], several) | (several, _) => {
                let ids = several.iter().map(|record| record.id()).collect();
                Err(FindError::Ambiguous { what: what.to_owned(), ids })
            }
        }
    }

    /// Forgets a swarm, after [`SwarmRecord::leave`] allowed it or this node was put out.
    pub fn remove(&mut self, id: &SwarmId) -> Option<SwarmRecord> {
        self.0.remove(id)
    }

    /// All swarms, by id.
    pub fn iter(&self) -> impl Iterator<Item = &SwarmRecord> {
        self.0.values()
    }
}
