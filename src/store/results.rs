//! Results by content key. The newest result of a key replaces the one before.

use super::{Store, StoreError};
use crate::wire::{self, ContentKey, PeerId, SegmentResult, Signed};

const TABLE: &str = "results";
const RECEIPTS: &str = "receipts";
const VERSION: u8 = 1;

/// A result that is kept, with its worker's receipt where another one computed it.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The job.
    pub key: ContentKey,
    /// Its result.
    pub result: SegmentResult,
    /// Signed by whoever computed it.
    pub receipt: Option<Signed>,
}

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

    /// Keeps what workers delivered, all or none; when this returns, the disk has it.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_committed(&mut self, batch: &[Committed]) -> Result<(), StoreError> {
        let records: Vec<_> = batch
            .iter()
            .map(|Committed { key, result, receipt }| {
                let receipt = receipt.as_ref().map(|signed| {
                    let kept = (result.computed_by, signed);
                    wire::seal(RECEIPTS, VERSION, key.as_bytes(), &kept)
                });
                (key, wire::seal(TABLE, VERSION, key.as_bytes(), result), receipt)
            })
            .collect();
        self.write("results", |tables, txn| {
            for (key, record, receipt) in &records {
                tables.results.put(txn, key.as_bytes(), record)?;
                match receipt {
                    Some(receipt) => tables.receipts.put(txn, key.as_bytes(), receipt)?,
                    // Whoever signed for the result before did not compute this one.
                    None => {
                        tables.receipts.delete(txn, key.as_bytes())?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Who signed for a result, and the signed receipt; `None` where this node computed it, or the record is damaged.
    ///
    /// # Errors
    /// What reading may say.
    pub fn receipt(&self, key: &ContentKey) -> Result<Option<(PeerId, Signed)>, StoreError> {
        self.read("a receipt", |tables, txn| {
            let record = tables.receipts.get(txn, key.as_bytes())?;
            Ok(record.and_then(|record| wire::open(RECEIPTS, VERSION, key.as_bytes(), record).ok()))
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
                tables.receipts.delete(txn, key.as_bytes())?;
            }
            Ok(())
        })
    }
}
