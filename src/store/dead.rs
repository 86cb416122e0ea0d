//! Dead letters: jobs that have failed for good, with their reason, until somebody wants them tried again.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::wire::{self, ContentKey, SwarmId};

const TABLE: &str = "dead";
const VERSION: u8 = 1;
/// Dead letters that are kept; the oldest make room.
const LETTERS_MAX: usize = 1000;

/// Why a job has no result and is not tried again by itself. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// For a person.
    pub reason: String,
    /// Whose members were to compute it; `None` for this node alone.
    pub swarm: Option<SwarmId>,
    /// What whoever asked was working on.
    pub title: String,
    /// When, in milliseconds since 1970; `None` without a clock.
    pub died_ms: Option<u64>,
}

/// A letter with its place among all, so that the order is known without a clock.
#[derive(Serialize, Deserialize)]
struct Kept {
    order: u64,
    letter: DeadLetter,
}

impl Store {
    /// Every dead letter that can be read, oldest first.
    ///
    /// # Errors
    /// What reading may say.
    pub fn dead_letters(&self) -> Result<Vec<(ContentKey, DeadLetter)>, StoreError> {
        let kept = self.all_dead()?;
        Ok(kept.into_iter().map(|(key, kept)| (key, kept.letter)).collect())
    }

    fn all_dead(&self) -> Result<Vec<(ContentKey, Kept)>, StoreError> {
        let mut all = self.read("the dead letters", |tables, txn| {
            let mut all = Vec::new();
            for entry in tables.dead.iter(txn)? {
                let (key, record) = entry?;
                let Ok(id) = <[u8; 32]>::try_from(key).map(ContentKey::from_bytes) else { continue };
                if let Ok(kept) = wire::open::<Kept>(TABLE, VERSION, key, record) {
                    all.push((id, kept));
                }
            }
            Ok(all)
        })?;
        all.sort_by_key(|(_, kept)| kept.order);
        Ok(all)
    }

    /// Keeps dead letters; gives the keys of those that made room.
    ///
    /// # Errors
    /// What reading or writing may say.
    pub fn bury(&mut self, letters: &[(ContentKey, DeadLetter)]) -> Result<Vec<ContentKey>, StoreError> {
        let all = self.all_dead()?;
        let next = all.last().map_or(0, |(_, kept)| kept.order + 1);
        let excess = (all.len() + letters.len()).saturating_sub(LETTERS_MAX);
        let is_new = |key: &ContentKey| letters.iter().any(|(other, _)| other == key);
        let oldest = all.iter().map(|(key, _)| *key).take(excess).filter(|key| !is_new(key));
        let oldest: Vec<ContentKey> = oldest.collect();
        let records: Vec<_> = (next..)
            .zip(letters)
            .map(|(order, (key, letter))| {
                let kept = Kept { order, letter: letter.clone() };
                (key, wire::seal(TABLE, VERSION, key.as_bytes(), &kept))
            })
            .collect();
        self.write("dead letters", |tables, txn| {
            for key in &oldest {
                tables.dead.delete(txn, key.as_bytes())?;
            }
            records.iter().try_for_each(|(key, record)| tables.dead.put(txn, key.as_bytes(), record))
        })?;
        Ok(oldest)
    }

    /// Forgets dead letters, so that their jobs are tried again when they are asked for; gives how many there were.
    ///
    /// # Errors
    /// What writing may say.
    pub fn raise(&mut self, keys: &[ContentKey]) -> Result<u64, StoreError> {
        self.write("dead letters", |tables, txn| {
            let mut raised = 0;
            for key in keys {
                raised += u64::from(tables.dead.delete(txn, key.as_bytes())?);
            }
            Ok(raised)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DirectoryLock;

    #[test]
    fn the_oldest_make_room() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path(), "test").unwrap();
        let mut store = Store::open(directory.path(), &lock).unwrap().store;
        let key = |n: u16| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&(u16::MAX - n).to_be_bytes());
            ContentKey::from_bytes(bytes)
        };
        let letter = |n: u16| DeadLetter {
            reason: format!("reason {n}"),
            swarm: None,
            title: "notes".into(),
            died_ms: None,
        };
        let first: Vec<_> = (0..999).map(|n| (key(n), letter(n))).collect();
        assert_eq!(store.bury(&first).unwrap(), []);
        let more: Vec<_> = (999..1003).map(|n| (key(n), letter(n))).collect();
        assert_eq!(store.bury(&more).unwrap(), [key(0), key(1), key(2)]);
        let kept = store.dead_letters().unwrap();
        assert_eq!(
            (kept.len(), &kept[0], &kept[999]),
            (1000, &(key(3), letter(3)), &(key(1002), letter(1002)))
        );
        assert_eq!(store.raise(&[key(3), key(4), key(0)]).unwrap(), 2);
        assert_eq!(store.dead_letters().unwrap().len(), 998);
    }
}
