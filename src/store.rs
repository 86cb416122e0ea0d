//! What a node keeps: one LMDB environment and one key in its data directory, held by one process.
//!
//! Deliberately absent: decisions. A method reads or writes what it is told, in one transaction. No
//! transaction outlives a call, so the map can grow between any two of them; writing takes `&mut self`,
//! so the compiler proves that no read is open while it does.

mod budget;
mod dead;
mod env;
mod error;
mod file;
#[cfg(test)]
mod formats;
mod identity;
mod lock;
mod meta_page;
mod own;
mod queue;
mod results;
mod runs;
mod swarms;

pub use dead::DeadLetter;
pub use env::{Opened, Store, StoreReport};
pub use error::StoreError;
pub use file::sync_folder;
pub use identity::{Identity, IdentityError};
pub use lock::{DirectoryLock, LockError};
pub use queue::{LeasedJob, QueueWrite};
pub use results::{Committed, Found};
pub use runs::{GcReport, is_expired};

/// Name of the environment's file in the data directory.
pub const DATA_FILE: &str = "data.mdb";
