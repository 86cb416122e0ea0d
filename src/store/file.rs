//! What is done to the store's file as a file, beside LMDB: its length, its room on the disk and in memory, its name.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::StoreError;

/// Set-aside files that are kept before somebody has to look.
const BROKEN_KEPT_MAX: u32 = 9;

pub(super) fn extend(path: &Path, bytes: usize) -> Result<(), StoreError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(bytes as u64))
        .map_err(|e| file_error("extend", path, e))
}

/// Bytes that the disk of `path` has left; a disk that does not tell has enough.
pub(super) fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the process has a gap of `bytes` among its addresses.
pub(super) fn has_addresses(bytes: usize) -> bool {
    #[expect(unsafe_code, reason = "the kernel chooses a place that nobody has, and gets it back at once")]
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let gap = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0);
        gap != libc::MAP_FAILED && libc::munmap(gap, bytes) == 0
    }
}

/// Makes the names in `folder` durable, as fsync(2) asks who made or renamed a file there. A folder that can not be
/// synced at all is left to its file system: some network and FUSE ones refuse it, and one that we may write to but
/// not list can not be opened.
///
/// # Errors
/// What the disk says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
        other => other,
    }
}

/// A name is durable only when its folder is.
pub(super) fn sync_name(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    sync_folder(folder).map_err(|e| file_error("sync the folder of", path, e))
}

pub(super) fn set_file_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let free = (1..=BROKEN_KEPT_MAX)
        .map(|n| path.with_extension(format!("mdb.broken-{n}")))
        .find(|candidate| !candidate.exists());
    let Some(aside) = free else {
        let full = io::Error::other(format!(
            "{BROKEN_KEPT_MAX} damaged ones are kept already: look at the disk, then remove them"
        ));
        return Err(file_error("set aside", path, full));
    };
    fs::rename(path, &aside).map_err(|e| file_error("set aside", path, e))?;
    let _ = fs::remove_file(path.with_file_name("lock.mdb"));
    Ok(aside)
}

pub(super) fn disk_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    // Blocks count what is really taken, the length counts the sparse end as well. Always in units of 512.
    Ok(fs::metadata(path)?.blocks() * 512)
}

pub(super) fn file_error(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::File { action, path: path.to_owned(), source }
}
