//! What can go wrong between edge and its data directory, one variant an operation.

use std::path::PathBuf;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory can not be made or entered.
    #[error("cannot prepare the data directory {} (--data-dir or EDGE_DATA_DIR names another)", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The environment does not open.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What LMDB said.
        #[source]
        source: heed::Error,
    },
    /// Written by a newer edge; nothing was touched.
    #[error(
        "the store {} was written by a newer edge (its schema is {found}, this edge knows {known}); \
         update edge, or use another --data-dir",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Schema found.
        found: u32,
        /// Schema known.
        known: u32,
    },
    /// A file that could not be renamed out of the way, extended or replaced.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A read transaction failed.
    #[error("cannot read {what} from the store")]
    Read {
        /// What was looked for.
        what: &'static str,
        /// What LMDB said.
        #[source]
        source: heed::Error,
    },
    /// A write transaction failed; the store is as it was before.
    #[error("cannot write {what} to the store")]
    Write {
        /// What was to be kept.
        what: &'static str,
        /// What LMDB said.
        #[source]
        source: heed::Error,
    },
    /// No room on the disk; what was stored before is kept.
    #[error(
        "the disk of the store is full while writing {what}: free some space and run the same command again, what was stored is kept"
    )]
    DiskFull {
        /// What was to be kept.
        what: &'static str,
    },
    /// The store has grown to its ceiling.
    #[error("the store has reached its ceiling of {} MiB while writing {what}: `edge store gc` makes room", bytes >> 20)]
    Ceiling {
        /// What was to be kept.
        what: &'static str,
        /// The ceiling in bytes.
        bytes: usize,
    },
    /// The file is damaged; it will be set aside when it is opened the next time.
    #[error("the store {} is damaged; run the same command again: it will be set aside and what it held computed again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What LMDB said.
        #[source]
        source: heed::Error,
    },
}
