//! The socket in the file system: made private, found again, removed only by who holds the directory's lock.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

/// Where the system's node listens.
pub const SYSTEM_SOCKET: &str = "/run/edge/edge.sock";
/// Name of the socket in the directory of an identity.
const NAME: &str = "edge.sock";
/// Bytes of a socket's path that the kernel takes, without the end mark (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It can not be made.
    #[error("cannot listen on the control socket {}", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is there and can not be used.
    #[error("cannot use the control socket {}", path.display())]
    Connect {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where a node listens, or is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlace {
    path: PathBuf,
    /// Every user of the machine may look; the system's node.
    is_shared: bool,
}

impl SocketPlace {
    /// In the directory of an identity, for its owner alone.
    pub fn of_identity(directory: &Path) -> Self {
        Self { path: directory.join(NAME), is_shared: false }
    }

    /// At a path that was set.
    pub fn at(path: PathBuf, is_shared: bool) -> Self {
        Self { path, is_shared }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every user of the machine may look.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Listens, in place of a socket that a dead process left. The caller holds the lock of the node's directory, so nobody
    /// listens there now.
    ///
    /// # Errors
    /// [`SocketError::Bind`].
    pub(super) fn bind(&self) -> Result<(UnixListener, Made), SocketError> {
        let failed = |source| SocketError::Bind { path: self.path.clone(), source };
        match fs::symlink_metadata(&self.path) {
            // Of another identity, perhaps, whose lock this is not.
            Ok(meta) if is_socket(&meta) && matches!(self.connect(), Ok(Some(_))) => {
                return Err(failed(io::ErrorKind::AddrInUse.into()));
            }
            Ok(meta) if is_socket(&meta) => fs::remove_file(&self.path).map_err(failed)?,
            Ok(_) => return Err(failed(io::Error::other("something that is no socket is in its place"))),
            Err(_) => {}
        }
        let listener = self.short(|path| UnixListener::bind(path)).map_err(failed)?;
        // The directory keeps others out until this is done: it is private, or the system's own.
        let mode = if self.is_shared { 0o666 } else { 0o600 };
        fs::set_permissions(&self.path, Permissions::from_mode(mode)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let meta = fs::symlink_metadata(&self.path).map_err(failed)?;
        Ok((listener, Made { device: meta.dev(), inode: meta.ino() }))
    }

    /// Connects; `None` where nobody listens.
    ///
    /// # Errors
    /// [`SocketError::Connect`].
    pub(super) fn connect(&self) -> Result<Option<std::os::unix::net::UnixStream>, SocketError> {
        use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
        match self.short(|path| std::os::unix::net::UnixStream::connect(path)) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if matches!(error.kind(), ConnectionRefused | NotADirectory | NotFound) => Ok(None),
            Err(source) => Err(SocketError::Connect { path: self.path.clone(), source }),
        }
    }

    /// Uses the path, or, where the kernel does not take one so long, the same by way of its open directory.
    fn short<T>(&self, body: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        if self.path.as_os_str().len() <= PATH_BYTES_MAX {
            return body(&self.path);
        }
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return body(&self.path);
        };
        let directory = File::open(parent)?;
        body(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
    }

    /// Removes the socket that was made, and no other that has taken its place.
    pub(super) fn remove(&self, made: Made) {
        let is_it = |meta: fs::Metadata| Made { device: meta.dev(), inode: meta.ino() } == made;
        if fs::symlink_metadata(&self.path).is_ok_and(is_it) {
            // Whoever comes next replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which socket was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    device: u64,
    inode: u64,
}

fn is_socket(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    meta.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_length_serves() {
        let directory = tempfile::tempdir().unwrap();
        for length in [1, 90, 200] {
            let deep = directory.path().join("d".repeat(length));
            fs::create_dir(&deep).unwrap();
            let place = SocketPlace::of_identity(&deep);
            assert!(place.connect().unwrap().is_none());
            let (listener, _) = place.bind().unwrap();
            let in_use = place.bind().unwrap_err();
            assert!(format!("{in_use:?}").contains("AddrInUse"));
            assert!(place.connect().unwrap().is_some());
            assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
            drop(listener);
            assert!(place.connect().unwrap().is_none(), "nobody listens any more");
            let (_, made) = place.bind().unwrap();
            place.remove(Made { inode: made.inode + 1, ..made });
            assert!(place.path().exists(), "another one");
            place.remove(made);
            assert!(!place.path().exists());
            fs::write(place.path(), "a file of somebody").unwrap();
            let refused = place.bind().unwrap_err();
            assert!(std::error::Error::source(&refused).unwrap().to_string().contains("no socket"));
        }
    }
}
