//! All swarms of one node, by id and by the name that its owner types.
//!
//! Deliberately absent: the public pool, which has neither record nor id.

use std::collections::BTreeMap;

use super::SwarmRecord;
use crate::wire::{SwarmId, SwarmName};

/// Most swarms of one node: a hello carries a tag of each, two in the epoch after a kick.
pub const SWARMS_MAX: usize = 64;

/// Why a swarm is not added.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BookError {
    /// [`SWARMS_MAX`].
    #[error("this node is in {SWARMS_MAX} swarms, as many as it can: leave one first")]
    Full,
    /// Its owner could not say which is meant.
    #[error("this node is already in a swarm that is called {name:?}, {}", other.short())]
    NameTaken {
        /// The name.
        name: String,
        /// Which has it.
        other: SwarmId,
    },
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
        if !self.0.contains_key(&id) {
            if let Some(other) = self.named(&record.founding().name) {
                let name = record.founding().name.as_str().to_owned();
                return Err(BookError::NameTaken { name, other: other.id() });
            }
            if self.0.len() >= SWARMS_MAX {
                return Err(BookError::Full);
            }
        }
        self.0.insert(id, record);
        Ok(())
    }

    /// The record of a swarm.
    pub fn get(&self, id: &SwarmId) -> Option<&SwarmRecord> {
        self.0.get(id)
    }

    /// The swarm of that name.
    pub fn named(&self, name: &SwarmName) -> Option<&SwarmRecord> {
        self.0.values().find(|record| record.founding().name == *name)
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
