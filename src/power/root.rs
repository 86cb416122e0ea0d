//! Reads the small files of a system, all of them under one root, none of them beyond its bound.
//!
//! Deliberately absent: open handles. A path is opened anew each time: a handle goes on telling of a device that was
//! pulled out, and an open costs a microsecond or two.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use rustix::{fs::OFlags, io::Errno};

use crate::proto::budget::{Fault, Sensed};

/// Bytes of a file that holds one number or one word.
const WORD_BYTES_MAX: usize = 64;
/// Entries of a directory that are looked at; machines with more CPUs or ports are no edge devices.
const ENTRIES_MAX: usize = 1024;

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// There is no such file, or its device has no such value.
    Missing,
    /// There is one, and it cannot be used.
    Broken(Fault),
}

/// A text that cannot be what the file is documented to hold.
pub(super) const NONSENSE: Lack = Lack::Broken(Fault::Nonsense);

/// A value, or why there is none.
pub(super) type Found<T> = Result<T, Lack>;

/// A sensor's answer in the policy's words.
pub(super) fn sensed<T>(found: Found<T>) -> Sensed<T> {
    match found {
        Ok(value) => Sensed::Is(value),
        Err(Lack::Missing) => Sensed::Absent,
        Err(Lack::Broken(fault)) => Sensed::Broken(fault),
    }
}

/// A missing value is none; a broken one stays broken.
pub(super) fn optional<T>(found: Found<T>) -> Found<Option<T>> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(Lack::Missing) => Ok(None),
        Err(broken) => Err(broken),
    }
}

/// The directory that stands for `/`.
#[derive(Clone, Debug)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_path_buf())
    }

    /// Where `path`, absolute in the system's terms, lies. `..` is dropped: what a file of the system names stays
    /// under the root.
    pub(super) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let mut out = self.0.clone();
        let plain = path.as_ref().components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        out.extend(plain);
        out
    }

    /// Names in a directory, sorted; those that are no UTF-8 are none of the kernel's.
    pub(super) fn names(&self, dir: impl AsRef<Path>) -> Found<Vec<String>> {
        let entries = fs::read_dir(self.at(dir)).map_err(|error| lack(&error))?;
        let mut names: Vec<String> = entries
            .take(ENTRIES_MAX)
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// A text of at most `bytes_max`; a longer one is nonsense.
    pub(super) fn text(&self, path: impl AsRef<Path>, bytes_max: usize) -> Found<String> {
        let bytes = read_start(&self.at(path), bytes_max.saturating_add(1))?;
        if bytes.len() > bytes_max {
            return Err(NONSENSE);
        }
        String::from_utf8(bytes).map_err(|_| NONSENSE)
    }

    /// The first `bytes_max` bytes of a text whose beginning suffices.
    pub(super) fn beginning(&self, path: impl AsRef<Path>, bytes_max: usize) -> Found<String> {
        Ok(String::from_utf8_lossy(&read_start(&self.at(path), bytes_max)?).into_owned())
    }

    /// A word or a short line, without the white space about it.
    pub(super) fn word(&self, path: impl AsRef<Path>) -> Found<String> {
        Ok(self.text(path, WORD_BYTES_MAX)?.trim().to_owned())
    }

    /// A number.
    pub(super) fn number<T: FromStr>(&self, path: impl AsRef<Path>) -> Found<T> {
        self.text(path, WORD_BYTES_MAX)?.trim().parse().map_err(|_| NONSENSE)
    }
}

/// At most `bytes_max` bytes of the file at `path`. Does not wait for the writer of a pipe.
pub(super) fn read_start(path: &Path, bytes_max: usize) -> Found<Vec<u8>> {
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file =
        OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(|error| lack(&error))?;
    let mut bytes = Vec::with_capacity(bytes_max.min(4096));
    file.take(bytes_max as u64).read_to_end(&mut bytes).map_err(|error| lack(&error))?;
    Ok(bytes)
}

/// No such file, no such device, no such value of it: that is a lack. The rest is a failure.
pub(super) fn lack(error: &std::io::Error) -> Lack {
    const MISSING: [Errno; 6] =
        [Errno::NOENT, Errno::NOTDIR, Errno::NODEV, Errno::NXIO, Errno::NODATA, Errno::OPNOTSUPP];
    match Errno::from_io_error(error) {
        Some(errno) if MISSING.contains(&errno) => Lack::Missing,
        _ => Lack::Broken(Fault::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_is_bounded_and_stays_under_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("huge"), vec![b'7'; 10_000]).unwrap();
        fs::write(dir.path().join("number"), " -12\n").unwrap();
        fs::write(dir.path().join("bytes"), [0xff, 0xfe]).unwrap();
        let root = Root::new(dir.path());
        assert_eq!(root.number::<i32>("/number"), Ok(-12));
        assert_eq!(root.number::<u32>("number"), Err(NONSENSE));
        assert_eq!(root.number::<i32>("/../../number"), Ok(-12));
        assert_eq!(root.number::<i64>("/huge"), Err(NONSENSE));
        assert_eq!(root.beginning("/huge", 100).unwrap().len(), 100);
        assert_eq!(root.word("/bytes"), Err(NONSENSE));
        assert_eq!(root.word("/none"), Err(Lack::Missing));
        assert_eq!(root.word("/number/below"), Err(Lack::Missing));
        assert_eq!(root.word("/"), Err(Lack::Broken(Fault::Unreadable)));
        assert_eq!(root.names("/").unwrap(), ["bytes", "huge", "number"]);
    }

    #[test]
    fn a_pipe_without_a_writer_does_not_hold_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(Root::new(dir.path()).number::<u64>("/pipe"), Err(NONSENSE));
    }
}
