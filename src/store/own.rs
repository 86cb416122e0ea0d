//! What a node keeps of itself beside its key: how often it has started.

use super::{Store, StoreError};
use crate::wire;

const STARTS: &[u8] = b"starts";
const VERSION: u8 = 1;

impl Store {
    /// A node begins: counts it, and says which start this is. What a later start signs is later, without a clock.
    ///
    /// # Errors
    /// What reading or writing may say.
    pub fn begin(&mut self) -> Result<u32, StoreError> {
        let before: Option<u32> = self.read("the starts", |tables, txn| {
            let record = tables.meta.get(txn, STARTS)?;
            Ok(record.and_then(|record| wire::open("meta", VERSION, STARTS, record).ok()))
        })?;
        let start = before.unwrap_or(0).saturating_add(1);
        let record = wire::seal("meta", VERSION, STARTS, &start);
        self.write("the starts", |tables, txn| tables.meta.put(txn, STARTS, &record))?;
        Ok(start)
    }
}
