//! The worker's queue and outbox, each step of an item in one durable transaction.
//!
//! What changes often is small: the item. Its text is written once, when it is pulled, and its result once, in place of
//! the text: an SD card wears by what is written.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::{
    proto::{Item, ItemId},
    wire::{self, JobSpec, Outcome, SwarmId},
};

const ITEMS: &str = "queue";
const JOBS: &str = "queue_jobs";
const OUTBOX: &str = "outbox";
const VERSION: u8 = 1;

/// A job in the queue. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedJob {
    /// Whose members may see its text.
    pub swarm: SwarmId,
    /// The job.
    pub job: JobSpec,
}

/// One step of one item.
#[derive(Clone, Debug)]
pub enum QueueWrite {
    /// It is new, with its text.
    Store(ItemId, Item, LeasedJob),
    /// Something about it has changed.
    Keep(ItemId, Item),
    /// It is done; this takes the place of its text.
    Computed(ItemId, Item, Outcome),
    /// Nothing of it is needed any more.
    Remove(ItemId),
}

impl Store {
    /// Carries out all steps in one transaction; when this returns, the disk has them.
    ///
    /// # Errors
    /// What writing may say; the queue is then as it was before.
    pub fn write_queue(&mut self, steps: &[QueueWrite]) -> Result<(), StoreError> {
        let records: Vec<_> = steps.iter().map(Records::of).collect();
        self.write("the queue", |tables, txn| {
            for Records { key, item, job, outcome, removes_job, removes } in &records {
                if let Some(item) = item {
                    tables.queue.put(txn, key, item)?;
                }
                if let Some(job) = job {
                    tables.queue_jobs.put(txn, key, job)?;
                }
                if let Some(outcome) = outcome {
                    tables.outbox.put(txn, key, outcome)?;
                }
                if *removes_job {
                    tables.queue_jobs.delete(txn, key)?;
                }
                if *removes {
                    tables.queue.delete(txn, key)?;
                    tables.outbox.delete(txn, key)?;
                }
            }
            Ok(())
        })
    }

    /// Every item, in the order of their ids. One that does not open, or has lost its text or its result, is
    /// left out; [`Store::tidy_queue`] removes it.
    ///
    /// # Errors
    /// What reading may say.
    pub fn queue(&self) -> Result<Vec<(ItemId, Item)>, StoreError> {
        self.read("the queue", |tables, txn| {
            let mut items = Vec::new();
            for entry in tables.queue.iter(txn)? {
                let (key, record) = entry?;
                let Ok(id) = key.try_into().map(u64::from_be_bytes) else { continue };
                let Ok(item) = wire::open::<Item>(ITEMS, VERSION, key, record) else { continue };
                let body = match item.state {
                    crate::proto::ItemState::Computed => tables.outbox.get(txn, key)?,
                    _ => tables.queue_jobs.get(txn, key)?,
                };
                if body.is_some() {
                    items.push((id, item));
                }
            }
            Ok(items)
        })
    }

    /// Removes what [`Store::queue`] leaves out.
    ///
    /// # Errors
    /// What reading or writing may say.
    pub fn tidy_queue(&mut self) -> Result<usize, StoreError> {
        let known: Vec<ItemId> = self.queue()?.into_iter().map(|(id, _)| id).collect();
        let stray = self.read("the queue", |tables, txn| {
            let mut stray: Vec<Vec<u8>> = Vec::new();
            for table in [tables.queue, tables.queue_jobs, tables.outbox] {
                for entry in table.iter(txn)? {
                    let (key, _) = entry?;
                    let id = key.try_into().map(u64::from_be_bytes).ok();
                    if id.is_none_or(|id| known.binary_search(&id).is_err()) {
                        stray.push(key.to_vec());
                    }
                }
            }
            stray.sort_unstable();
            stray.dedup();
            Ok(stray)
        })?;
        if !stray.is_empty() {
            self.write("the queue", |tables, txn| {
                for key in &stray {
                    tables.queue.delete(txn, key)?;
                    tables.queue_jobs.delete(txn, key)?;
                    tables.outbox.delete(txn, key)?;
                }
                Ok(())
            })?;
        }
        Ok(stray.len())
    }

    /// The text and swarm of an item; `None` where it is gone or damaged.
    ///
    /// # Errors
    /// What reading may say.
    pub fn queued_job(&self, id: ItemId) -> Result<Option<LeasedJob>, StoreError> {
        let key = id.to_be_bytes();
        self.read("a queued job", |tables, txn| {
            Ok(tables.queue_jobs.get(txn, &key)?.and_then(|r| wire::open(JOBS, VERSION, &key, r).ok()))
        })
    }

    /// What waits to be delivered for an item; `None` where it is gone or damaged.
    ///
    /// # Errors
    /// What reading may say.
    pub fn outcome(&self, id: ItemId) -> Result<Option<Outcome>, StoreError> {
        let key = id.to_be_bytes();
        self.read("a result in the outbox", |tables, txn| {
            Ok(tables.outbox.get(txn, &key)?.and_then(|r| wire::open(OUTBOX, VERSION, &key, r).ok()))
        })
    }
}

/// A step as bytes.
struct Records {
    key: [u8; 8],
    item: Option<Vec<u8>>,
    job: Option<Vec<u8>>,
    outcome: Option<Vec<u8>>,
    removes_job: bool,
    removes: bool,
}

impl Records {
    fn of(step: &QueueWrite) -> Self {
        let (QueueWrite::Store(id, ..)
        | QueueWrite::Keep(id, _)
        | QueueWrite::Computed(id, ..)
        | QueueWrite::Remove(id)) = step;
        let key = id.to_be_bytes();
        let mut records =
            Self { key, item: None, job: None, outcome: None, removes_job: false, removes: false };
        let sealed = |item: &Item| Some(wire::seal(ITEMS, VERSION, &key, item));
        match step {
            QueueWrite::Store(_, item, job) => {
                records.item = sealed(item);
                records.job = Some(wire::seal(JOBS, VERSION, &key, job));
            }
            QueueWrite::Keep(_, item) => records.item = sealed(item),
            QueueWrite::Computed(_, item, outcome) => {
                records.item = sealed(item);
                records.outcome = Some(wire::seal(OUTBOX, VERSION, &key, outcome));
                records.removes_job = true;
            }
            QueueWrite::Remove(_) => (records.removes, records.removes_job) = (true, true),
        }
        records
    }
}
