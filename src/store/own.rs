//! What a node keeps of itself beside its key: how often it has started, whether it lends itself to the public pool.

use super::{Store, StoreError};
use crate::wire;

const STARTS: &[u8] = b"starts";
const PUBLIC: &[u8] = b"public";
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

    /// Whether this node is in the public pool, and with which bootstrap addresses it came there, as its owner wrote them.
    ///
    /// # Errors
    /// What reading may say.
    pub fn public(&self) -> Result<Option<Vec<String>>, StoreError> {
        self.read("the public pool", |tables, txn| {
            let record = tables.meta.get(txn, PUBLIC)?;
            Ok(record.and_then(|record| wire::open("meta", VERSION, PUBLIC, record).ok()))
        })
    }

    /// Joins the public pool, or leaves it.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_public(&mut self, bootstrap: Option<&[String]>) -> Result<(), StoreError> {
        let record = bootstrap.map(|bootstrap| wire::seal("meta", VERSION, PUBLIC, &bootstrap));
        self.write("the public pool", |tables, txn| match &record {
            Some(record) => tables.meta.put(txn, PUBLIC, record),
            None => tables.meta.delete(txn, PUBLIC).map(|_| ()),
        })
    }
}
