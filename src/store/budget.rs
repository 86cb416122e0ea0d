//! What the owner ordered last about lending, and what lending has taken, by day and swarm.

use std::ops::Bound;

use super::{Store, StoreError};
use crate::{
    proto::budget::{Account, Row, Standing},
    wire,
};

const STANDING: &[u8] = b"standing";
/// Before the day, four bytes with the highest first, and the swarm's id or nothing.
const ACCOUNT: &[u8] = b"account/";
const VERSION: u8 = 1;

impl Store {
    /// What the owner ordered last.
    ///
    /// # Errors
    /// What reading may say.
    pub fn standing(&self) -> Result<Standing, StoreError> {
        let found: Option<Standing> = self.read("the owner's order", |tables, txn| {
            let record = tables.meta.get(txn, STANDING)?;
            Ok(record.and_then(|record| wire::open("meta", VERSION, STANDING, record).ok()))
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Keeps what the owner orders.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_standing(&mut self, standing: Standing) -> Result<(), StoreError> {
        let record = wire::seal("meta", VERSION, STANDING, &standing);
        self.write("the owner's order", |tables, txn| tables.meta.put(txn, STANDING, &record))
    }

    /// What lending has taken. A damaged line is left out.
    ///
    /// # Errors
    /// What reading may say.
    pub fn account(&self) -> Result<Account, StoreError> {
        let rows: Vec<Row> = self.read("the account", |tables, txn| {
            let mut rows = Vec::new();
            for line in tables.meta.prefix_iter(txn, ACCOUNT)? {
                let (key, record) = line?;
                rows.extend(wire::open::<Row>("meta", VERSION, key, record));
            }
            Ok(rows)
        })?;
        Ok(rows.into())
    }

    /// Keeps lines of the account that have changed, and forgets days before `first`.
    ///
    /// # Errors
    /// What writing may say; the store is then as it was before.
    pub fn put_account(&mut self, rows: &[Row], first: u32) -> Result<(), StoreError> {
        let records = rows.iter().map(|row| {
            let key = key(row);
            let record = wire::seal("meta", VERSION, &key, row);
            (key, record)
        });
        let records: Vec<_> = records.collect();
        self.write("the account", |tables, txn| {
            for (key, record) in &records {
                tables.meta.put(txn, key, record)?;
            }
            let end = [ACCOUNT, &first.to_be_bytes()].concat();
            tables.meta.delete_range(txn, &(Bound::Included(ACCOUNT), Bound::Excluded(end.as_slice())))?;
            Ok(())
        })
    }
}

fn key(row: &Row) -> Vec<u8> {
    let swarm = row.swarm.as_ref().map_or(&[][..], |swarm| swarm.as_bytes());
    [ACCOUNT, &row.day.to_be_bytes(), swarm].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::budget::{Cost, LocalTime},
        store::DirectoryLock,
        wire::SwarmId,
    };

    #[test]
    fn orders_and_days_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path(), "test").unwrap();
        let mut store = Store::open(directory.path(), &lock).unwrap().store;
        assert_eq!(store.standing().unwrap(), Standing::Lending);
        assert_eq!(store.account().unwrap(), Account::default());
        let mut account = Account::default();
        let mut book = |day, swarm| {
            let clock = LocalTime { day, weekday: 0, minute: 0 };
            let cost = Cost { jobs: 1, cpu_ms: 5, ..Cost::default() };
            account.book(Some(clock), SwarmId::from_bytes([swarm; 32]), &cost)
        };
        let rows = [book(1, 1), book(255, 2), book(256, 1), book(256, 2)];
        store.put_account(&rows, 0).unwrap();
        store.put_standing(Standing::Finishing).unwrap();
        drop(store);
        let mut store = Store::open(directory.path(), &lock).unwrap().store;
        assert_eq!(store.standing().unwrap(), Standing::Finishing);
        assert_eq!(store.account().unwrap().rows().collect::<Vec<_>>(), rows);
        store.put_account(&[], 256).unwrap();
        assert_eq!(store.account().unwrap().rows().collect::<Vec<_>>(), rows[2..]);
        assert_eq!(store.standing().unwrap(), Standing::Finishing, "nothing else is touched");
    }
}
