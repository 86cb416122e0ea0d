//! One process a data directory: a file lock that names its holder.
//!
//! The kernel drops the lock with the process, however it ends, so a stale one can not exist.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Longest description of a holder that is read back, in bytes.
const HOLDER_BYTES_MAX: u64 = 256;

/// Why a data directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("the data directory {} is in use by {holder}; wait for it, or give this one another --identity or --data-dir", directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Process id and command of the holder, as it wrote them.
        holder: String,
    },
    /// The lock file can not be made, locked or written.
    #[error("cannot lock the data directory with {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The right to use a data directory, until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of `directory`, which must exist, and notes `purpose` for whoever comes second.
    /// Does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    pub fn take(directory: &Path, purpose: &str) -> Result<Self, LockError> {
        let path = directory.join("edge.lock");
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = (&mut file).take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
                if read.is_err() || holder.trim().is_empty() {
                    holder = "another process".into();
                }
                let directory = directory.to_owned();
                return Err(LockError::Held { directory, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        write!(file, "process {} (edge {purpose})", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path(), "embed").unwrap();
        let second = DirectoryLock::take(directory.path(), "store gc").unwrap_err().to_string();
        assert!(second.contains(&format!("process {} (edge embed)", std::process::id())), "{second}");
        drop(first);
        DirectoryLock::take(directory.path(), "store gc").unwrap();
    }
}
