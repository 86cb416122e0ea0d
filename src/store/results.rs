//! Results by content key. The newest result of a key replaces the one before.

use super::{Store, StoreError};
use crate::wire::{self, ContentKey, SegmentResult};

const TABLE: &str = "results";
const VERSION: u8 = 1;

/// What stands under a key.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A record that does not open: as good as nothing, and worth a word in the log.
    Damaged(wire::RecordError),
    /// The result.
    Result(SegmentResult),
}

impl Store {
    /// The result under `key`, its checksum checked.
    ///
    /// # Errors
    /// What reading may say; a damaged record is [`Found::Damaged`].
    pub fn result(&self, key: &ContentKey) -> Result<Found, StoreError> {
        self.read("a result", |tables, txn| {
            Ok(match tables.results.get(txn, key.as_bytes())? {
                None => Found::Nothing,
                Some(record) => match wire::open(TABLE, VERSION, key.as_bytes(), record) {
                    Ok(result) => Found::Result(result),
                    Err(error) => Found::Damaged(error),
                },
            })
        })
    }

    /// Keeps a batch of results, all or none; when this returns, the disk has them.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_results(&mut self, batch: &[(ContentKey, SegmentResult)]) -> Result<(), StoreError> {
        let records: Vec<_> = batch
            .iter()
            .map(|(key, result)| (key, wire::seal(TABLE, VERSION, key.as_bytes(), result)))
            .collect();
        self.write("results", |tables, txn| {
            for (key, record) in &records {
                tables.results.put(txn, key.as_bytes(), record)?;
            }
            Ok(())
        })
    }
}
