//! Where chunks and vectors go: JSON lines, or a matrix with its ids beside it.
//!
//! A regular file appears whole under its name or not at all: it is written beside it, synced, renamed. What a
//! SIGKILL leaves there has a name that the next run to the same file takes over, so it never piles up.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{cli::patient::Patient, store::sync_folder};

/// Bytes of the header of a `.npy` file; a multiple of 64, with room for any number of rows.
const NPY_HEADER_BYTES: usize = 128;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// Whoever read our output has had enough.
    #[error("the reader of the output has gone")]
    Closed,
    #[error("cannot write {}; what was computed is kept: mend it and run the same command again", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One chunk, as a line of JSON.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) id: String,
    pub(super) path: &'a str,
    /// The path's very bytes in base64, where it is not UTF-8 and `path` only resembles it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path_bytes: Option<String>,
    pub(super) index: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) text: &'a str,
    pub(super) tokens: u16,
    pub(super) model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vector: Option<&'a [f32]>,
}

/// Takes chunks, document after document.
pub(super) enum Sink {
    /// Nothing is written: a terminal gets the table only.
    Nothing,
    Lines(Target),
    Npy {
        vectors: Target,
        ids: Target,
        dimension: usize,
        rows: u64,
        rows_before: u64,
    },
}

impl Sink {
    /// JSON lines to standard output.
    pub(super) fn stdout() -> Self {
        Self::Lines(Target::Direct {
            path: "standard output".into(),
            writer: Box::new(Patient(io::stdout())),
            written: 0,
        })
    }

    /// JSON lines to `path`.
    pub(super) fn lines(path: &Path) -> Result<Self, SinkError> {
        Ok(Self::Lines(Target::create(path)?))
    }

    /// A matrix `[chunks, dimension]` of little-endian f32 to `path`, and lines without vectors beside it.
    pub(super) fn npy(path: &Path, dimension: usize) -> Result<Self, SinkError> {
        let mut vectors = Target::create(path)?;
        if matches!(vectors, Target::Direct { .. }) {
            let source = io::Error::other("npy needs a regular file: its header is written last");
            return Err(SinkError::Write { path: path.to_owned(), source });
        }
        vectors.write(&[0; NPY_HEADER_BYTES])?;
        Ok(Self::Npy { vectors, ids: Target::create(&ids_path(path))?, dimension, rows: 0, rows_before: 0 })
    }

    /// What follows belongs to another document.
    pub(super) fn begin_document(&mut self) -> Result<(), SinkError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Lines(target) => target.mark(),
            Self::Npy { vectors, ids, rows, rows_before, .. } => {
                *rows_before = *rows;
                vectors.mark().and_then(|()| ids.mark())
            }
        }
    }

    /// Takes back what came since [`Sink::begin_document`]; gives the number of bytes that could not be.
    pub(super) fn abort_document(&mut self) -> Result<u64, SinkError> {
        match self {
            Self::Nothing => Ok(0),
            Self::Lines(target) => target.take_back(),
            Self::Npy { vectors, ids, rows, rows_before, .. } => {
                *rows = *rows_before;
                vectors.take_back().and_then(|_| ids.take_back())
            }
        }
    }

    /// Writes a chunk.
    pub(super) fn chunk(&mut self, mut line: Line<'_>) -> Result<(), SinkError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Lines(target) => target.json(&line),
            Self::Npy { vectors, ids, rows, .. } => {
                for x in line.vector.take().unwrap_or_default() {
                    vectors.write(&x.to_le_bytes())?;
                }
                *rows += 1;
                ids.json(&line)
            }
        }
    }

    /// Puts the files in their places.
    pub(super) fn finish(self) -> Result<(), SinkError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Lines(target) => target.finish(),
            Self::Npy { mut vectors, ids, dimension, rows, .. } => {
                vectors.overwrite_start(&npy_header(rows, dimension))?;
                ids.finish()?;
                vectors.finish()
            }
        }
    }
}

/// `out.npy` -> `out.ids.jsonl`.
pub(super) fn ids_path(path: &Path) -> PathBuf {
    path.with_extension("ids.jsonl")
}

/// Version 1.0 of the format: magic, version, length of the rest, a Python literal padded with blanks.
fn npy_header(rows: u64, dimension: usize) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((NPY_HEADER_BYTES as u16 - 10).to_le_bytes());
    header.extend(
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}").bytes(),
    );
    header.resize(NPY_HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

/// One file that is being written.
pub(super) enum Target {
    /// A regular file, under a passing name.
    Staged { path: PathBuf, writer: BufWriter<Part>, mark: u64 },
    /// A pipe, a device or standard output: what is written is gone.
    Direct { path: PathBuf, writer: Box<dyn Write>, written: u64 },
}

impl Target {
    fn create(path: &Path) -> Result<Self, SinkError> {
        let error = |source| SinkError::Write { path: path.to_owned(), source };
        // Through a link to what it means, so that the link stays.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let present = fs::metadata(&real).ok();
        if present.as_ref().is_some_and(|m| m.is_dir()) {
            return Err(error(io::Error::other("it is a folder; name a file in it")));
        }
        if present.as_ref().is_some_and(|m| !m.is_file()) {
            let file = OpenOptions::new().write(true).open(&real).map_err(error)?;
            return Ok(Self::Direct {
                path: path.to_owned(),
                writer: Box::new(BufWriter::new(file)),
                written: 0,
            });
        }
        let mode = present.map_or(0o666, |m| m.permissions().mode() & 0o777);
        let part = Part::create(&real, mode).map_err(error)?;
        Ok(Self::Staged { path: real, writer: BufWriter::new(part), mark: 0 })
    }

    fn mark(&mut self) -> Result<(), SinkError> {
        let at = match self {
            Self::Staged { writer, .. } => writer.stream_position(),
            Self::Direct { written, .. } => {
                *written = 0;
                Ok(0)
            }
        };
        let at = at.map_err(|source| self.error(source))?;
        if let Self::Staged { mark, .. } = self {
            *mark = at;
        }
        Ok(())
    }

    fn take_back(&mut self) -> Result<u64, SinkError> {
        let taken = match self {
            Self::Direct { written, .. } => return Ok(*written),
            Self::Staged { writer, mark, .. } => writer
                .flush()
                .and_then(|()| writer.get_ref().file.set_len(*mark))
                .and_then(|()| writer.seek(SeekFrom::Start(*mark))),
        };
        taken.map(|_| 0).map_err(|source| self.error(source))
    }

    fn json(&mut self, line: &Line<'_>) -> Result<(), SinkError> {
        let mut bytes = serde_json::to_vec(line).map_err(|error| self.error(error.into()))?;
        bytes.push(b'\n');
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let done = match self {
            Self::Staged { writer, .. } => writer.write_all(bytes),
            Self::Direct { writer, written, .. } => {
                *written += bytes.len() as u64;
                writer.write_all(bytes)
            }
        };
        done.map_err(|source| self.error(source))
    }

    fn overwrite_start(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let done = match self {
            Self::Direct { .. } => Ok(()),
            Self::Staged { writer, .. } => {
                writer.seek(SeekFrom::Start(0)).and_then(|_| writer.write_all(bytes))
            }
        };
        done.map_err(|source| self.error(source))
    }

    fn finish(self) -> Result<(), SinkError> {
        match self {
            Self::Direct { path, mut writer, .. } => {
                writer.flush().map_err(|source| write_error(&path, source))
            }
            Self::Staged { path, writer, .. } => {
                let error = |source| write_error(&path, source);
                let part = writer.into_inner().map_err(|e| error(e.into_error()))?;
                part.persist(&path).map_err(error)
            }
        }
    }

    fn error(&self, source: io::Error) -> SinkError {
        match self {
            Self::Staged { path, .. } | Self::Direct { path, .. } => write_error(path, source),
        }
    }
}

/// A file that is being written beside its target, locked; removed unless it is put in its place.
pub(super) struct Part {
    file: File,
    path: PathBuf,
}

impl Part {
    fn create(target: &Path, mode: u32) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(".edge-part");
        let path = target.with_file_name(name);
        loop {
            let file = File::options().write(true).create(true).truncate(false).mode(mode).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(io::Error::other("another edge is writing it")),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had the lock may have put this very file in its place just now: then it is no part any more.
            let (ours, named) = (file.metadata()?, fs::symlink_metadata(&path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0)?;
                return Ok(Self { file, path });
            }
        }
    }

    fn persist(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing under this name, and the lock is still ours: nobody else's part is removed.
        let _ = fs::remove_file(&self.path);
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn write_error(path: &Path, source: io::Error) -> SinkError {
    match source.kind() {
        io::ErrorKind::BrokenPipe => SinkError::Closed,
        _ => SinkError::Write { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line<'_> {
        let vector = Some([0.5f32, -1.0].as_slice());
        Line {
            id: "i".into(),
            path: "p",
            path_bytes: None,
            index: 0,
            start: 0,
            end: 1,
            text,
            tokens: 3,
            model: "m",
            vector,
        }
    }

    #[test]
    fn a_file_appears_whole_and_without_aborted_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut sink = Sink::lines(&path).unwrap();
        for (text, keep) in [("a", true), ("b", false), ("c", true)] {
            sink.begin_document().unwrap();
            sink.chunk(line(text)).unwrap();
            if !keep {
                assert_eq!(sink.abort_document().unwrap(), 0);
            }
        }
        assert!(!path.exists());
        sink.finish().unwrap();
        let texts: Vec<String> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(texts, ["a", "c"]);
        drop(Sink::lines(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "an unfinished file stays behind");
    }

    #[test]
    fn npy_has_its_shape_and_its_ids() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.npy");
        let mut sink = Sink::npy(&path, 2).unwrap();
        for _ in 0..3 {
            sink.begin_document().unwrap();
            sink.chunk(line("a")).unwrap();
        }
        sink.abort_document().unwrap();
        sink.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), NPY_HEADER_BYTES + 2 * 2 * 4);
        let header = String::from_utf8_lossy(&bytes[10..NPY_HEADER_BYTES]);
        assert!(header.contains("'shape': (2, 2)"), "{header}");
        assert_eq!(&bytes[NPY_HEADER_BYTES..][..8], [0, 0, 0, 63, 0, 0, 128, 191]);
        assert_eq!(fs::read_to_string(ids_path(&path)).unwrap().lines().count(), 2);
    }
}
