//! Reads a document once, in windows, and notes its segments: where they lie and what they are stored under.
//!
//! Nothing of the text stays in memory, so a document of a gigabyte costs as much as its list of segments. When
//! the text is needed, the segment is read again and must have the same key: a file that has changed in
//! between is noticed, not mixed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

use tempfile::SpooledTempFile;

use crate::{
    cli::patient::Patient,
    inference::{Carry, ChunkOptions, Job, SEGMENT_BYTES_MAX, Stop, Syntax, content_key, cut, lead_start},
    wire::{ContentKey, ModelHash},
};

/// A NUL in the first bytes marks a binary file, as it does for git and grep.
const BINARY_PROBE_BYTES: usize = 8 * 1024;
/// What is read at once.
const READ_BYTES: usize = 256 * 1024;
/// stdin up to this size stays in memory, more goes to an unlinked file in the data directory.
const STDIN_BYTES_IN_MEMORY: usize = 8 << 20;
/// Longer input should be a file: it is spooled to the disk that holds the store.
const STDIN_BYTES_MAX: u64 = 16 << 30;
/// The longest encoding of a character; a window has room for one that its end cuts.
const CHAR_BYTES_MAX: usize = 4;

/// Why a document has no segments.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("is binary (a zero byte at {byte})")]
    Binary { byte: usize },
    #[error("is UTF-16, not UTF-8 (its byte order mark at byte 0); convert it: iconv -f UTF-16 -t UTF-8")]
    Utf16,
    #[error("is not UTF-8 at byte {byte}")]
    Invalid { byte: u64 },
    #[error("cannot be read")]
    Read(#[source] io::Error),
    #[error("does not fit on the disk of the data directory; save it to a file")]
    Spool(#[source] io::Error),
    #[error("is longer than {} GiB; save it to a file", STDIN_BYTES_MAX >> 30)]
    TooLong,
    #[error("is no regular file any more")]
    Irregular,
    #[error("changed while it was read; run the same command again")]
    Changed,
    #[error("interrupted")]
    Interrupted,
}

/// Where a document's bytes come from.
pub(super) enum Origin {
    File(PathBuf),
    Stdin(SpooledTempFile),
}

/// What decides the segments of a document, apart from its bytes.
pub(super) struct ScanOptions {
    pub(super) chunk: ChunkOptions,
    pub(super) model: ModelHash,
    pub(super) prefix: String,
}

/// One segment: where it lies, and all that its job needs but the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) key: ContentKey,
    /// First byte of the body in the document.
    pub(super) offset: u64,
    pub(super) body_bytes: u32,
    pub(super) lead_bytes: u32,
    pub(super) carry: Carry,
}

impl Segment {
    /// First byte of the lead in the document; positions in a result count from here.
    pub(super) fn text_offset(&self) -> u64 {
        self.offset - u64::from(self.lead_bytes)
    }
}

impl Origin {
    /// How the document's boundaries are found.
    pub(super) fn syntax(&self) -> Syntax {
        match self {
            Self::File(path) => Syntax::of_path(path.extension().and_then(|e| e.to_str())),
            Self::Stdin(_) => Syntax::Plain,
        }
    }

    /// Reads stdin to its end, so that it can be read twice.
    pub(super) fn from_stdin(directory: &Path, stop: &Stop) -> Result<Self, ScanError> {
        let mut spool = tempfile::spooled_tempfile_in(STDIN_BYTES_IN_MEMORY, directory);
        let (sender, blocks) = sync_channel(2);
        // A read of a terminal or pipe can not be interrupted, so it has a thread of its own that is left
        // behind when the user has had enough.
        let body = move || {
            let mut stdin = Patient(io::stdin().lock());
            loop {
                let mut block = vec![0; READ_BYTES];
                let read = match stdin.read(&mut block) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other,
                };
                let is_last = !matches!(read, Ok(1..));
                let message = read.map(|bytes| {
                    block.truncate(bytes);
                    block
                });
                if sender.send(message).is_err() || is_last {
                    return;
                }
            }
        };
        thread::Builder::new().name("stdin".into()).spawn(body).map_err(ScanError::Read)?;
        let mut bytes = 0;
        while !stop.is_asked() {
            match blocks.recv_timeout(Duration::from_millis(100)) {
                Ok(Ok(block)) if block.is_empty() => return Ok(Self::Stdin(spool)),
                Ok(Ok(block)) => {
                    // A first look spares the disk what is no text at all.
                    if bytes == 0 {
                        text_begins_at(&block)?;
                    }
                    bytes += block.len() as u64;
                    if bytes > STDIN_BYTES_MAX {
                        return Err(ScanError::TooLong);
                    }
                    spool.write_all(&block).map_err(ScanError::Spool)?;
                }
                Ok(Err(error)) => return Err(ScanError::Read(error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Self::Stdin(spool)),
            }
        }
        Err(ScanError::Interrupted)
    }

    /// The segments of the whole document, in order.
    pub(super) fn scan(&mut self, options: &ScanOptions, stop: &Stop) -> Result<Vec<Segment>, ScanError> {
        let syntax = self.syntax();
        match self {
            Self::File(path) => scan(&mut open(path)?, syntax, options, stop),
            Self::Stdin(spool) => {
                spool.rewind().map_err(ScanError::Read)?;
                scan(spool, syntax, options, stop)
            }
        }
    }
}

/// Opens a regular file, and never waits: what was a file may be a pipe by now.
fn open(path: &Path) -> Result<File, ScanError> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(ScanError::Read)?;
    if !file.metadata().map_err(ScanError::Read)?.is_file() {
        return Err(ScanError::Irregular);
    }
    Ok(file)
}

fn scan(
    source: &mut dyn Read,
    syntax: Syntax,
    options: &ScanOptions,
    stop: &Stop,
) -> Result<Vec<Segment>, ScanError> {
    let mut window = Window { source, bytes: Vec::new(), start: 0, at_end: false };
    window.fill()?;
    window.start = text_begins_at(&window.bytes)?;
    let mut offset = window.start as u64;
    let (mut segments, mut carry, mut lead) = (Vec::new(), Carry::default(), String::new());
    loop {
        window.fill()?;
        if stop.is_asked() {
            return Err(ScanError::Interrupted);
        }
        let text = window.text(offset)?;
        if text.is_empty() {
            return Ok(segments);
        }
        let (length, after) = cut(text, window.at_end, syntax, carry);
        let body = &text[..length];
        let chunk = options.chunk;
        segments.push(Segment {
            key: content_key(&lead, body, syntax, carry, chunk, &options.model, &options.prefix),
            offset,
            // Both are bounded by SEGMENT_BYTES_MAX.
            body_bytes: length as u32,
            lead_bytes: lead.len() as u32,
            carry,
        });
        lead = body[lead_start(body, chunk.overlap_tokens)..].to_owned();
        offset += length as u64;
        window.start += length;
        carry = after;
    }
}

/// Where the text begins that `bytes` are the head of: a byte order mark is none.
fn text_begins_at(bytes: &[u8]) -> Result<usize, ScanError> {
    let head = &bytes[..bytes.len().min(BINARY_PROBE_BYTES)];
    if head.starts_with(&[0xFF, 0xFE]) || head.starts_with(&[0xFE, 0xFF]) {
        return Err(ScanError::Utf16);
    }
    match head.iter().position(|&byte| byte == 0) {
        Some(byte) => Err(ScanError::Binary { byte }),
        None => Ok(if head.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 }),
    }
}

/// What has been read of a document and not been cut yet.
struct Window<'a> {
    source: &'a mut dyn Read,
    bytes: Vec<u8>,
    start: usize,
    at_end: bool,
}

impl Window<'_> {
    /// Reads until a whole segment is there, or the end.
    fn fill(&mut self) -> Result<(), ScanError> {
        if self.at_end || self.bytes.len() - self.start >= SEGMENT_BYTES_MAX + CHAR_BYTES_MAX {
            return Ok(());
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        while !self.at_end && self.bytes.len() < READ_BYTES {
            let room = READ_BYTES - self.bytes.len();
            let read = self.source.take(room as u64).read_to_end(&mut self.bytes).map_err(ScanError::Read)?;
            self.at_end = read < room;
        }
        Ok(())
    }

    /// The text of the window, at most what a cut looks at. `offset` is where it begins in the document.
    fn text(&self, offset: u64) -> Result<&str, ScanError> {
        let rest = &self.bytes[self.start..];
        let rest = &rest[..rest.len().min(SEGMENT_BYTES_MAX + CHAR_BYTES_MAX)];
        match std::str::from_utf8(rest) {
            Ok(text) => Ok(text),
            // The window's end cuts a character; the document goes on.
            Err(error) if error.error_len().is_none() && !(self.at_end && self.holds_the_end(rest)) => {
                Ok(std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default())
            }
            Err(error) => Err(ScanError::Invalid { byte: offset + error.valid_up_to() as u64 }),
        }
    }

    fn holds_the_end(&self, rest: &[u8]) -> bool {
        self.start + rest.len() == self.bytes.len()
    }
}

/// Reads segments again, in any order; best in the order of the documents.
#[derive(Default)]
pub(super) struct Reader {
    open: Option<(PathBuf, File)>,
}

impl Reader {
    /// Lead and body of a segment, exactly as they were scanned.
    pub(super) fn text(
        &mut self,
        origin: &mut Origin,
        segment: &Segment,
        options: &ScanOptions,
    ) -> Result<String, ScanError> {
        let syntax = origin.syntax();
        let mut bytes = vec![0; (segment.lead_bytes + segment.body_bytes) as usize];
        let read = match origin {
            Origin::File(path) => read_at(self.file(path)?, segment.text_offset(), &mut bytes),
            Origin::Stdin(spool) => read_at(spool, segment.text_offset(), &mut bytes),
        };
        match read {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ScanError::Changed),
            other => other.map_err(ScanError::Read)?,
        }
        let text = String::from_utf8(bytes).map_err(|_| ScanError::Changed)?;
        let (lead, body) = text.split_at_checked(segment.lead_bytes as usize).ok_or(ScanError::Changed)?;
        let ScanOptions { chunk, model, prefix } = options;
        if content_key(lead, body, syntax, segment.carry, *chunk, model, prefix) != segment.key {
            return Err(ScanError::Changed);
        }
        Ok(text)
    }

    /// The job of a segment.
    pub(super) fn job(
        &mut self,
        origin: &mut Origin,
        segment: &Segment,
        options: &ScanOptions,
    ) -> Result<Job, ScanError> {
        let text = self.text(origin, segment, options)?;
        let body_start = segment.lead_bytes as usize;
        let (syntax, carry) = (origin.syntax(), segment.carry);
        Ok(Job { key: segment.key, text, body_start, options: options.chunk, syntax, carry })
    }

    fn file(&mut self, path: &Path) -> Result<&mut File, ScanError> {
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            self.open = Some((path.to_owned(), open(path)?));
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            None => Err(ScanError::Irregular),
        }
    }
}

fn read_at<S: Read + Seek>(source: &mut S, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    source.seek(SeekFrom::Start(offset))?;
    source.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(overlap_tokens: u32) -> ScanOptions {
        let chunk = ChunkOptions { tokens_max: 254, overlap_tokens };
        ScanOptions { chunk, model: ModelHash::from_bytes([1; 32]), prefix: String::new() }
    }

    fn scan_bytes(bytes: &[u8]) -> Result<Vec<Segment>, ScanError> {
        scan(&mut io::Cursor::new(bytes), Syntax::Plain, &options(0), &Stop::default())
    }

    #[test]
    fn segments_tile_the_document() {
        let text = "Ein Satz über Äpfel. Noch einer.\n\n".repeat(20_000);
        for overlap in [0, 32] {
            let segments =
                scan(&mut text.as_bytes(), Syntax::Plain, &options(overlap), &Stop::default()).unwrap();
            let mut next = 0;
            for segment in &segments {
                assert_eq!(segment.offset, next);
                assert_eq!(segment.lead_bytes > 0, overlap > 0 && next > 0);
                next += u64::from(segment.body_bytes);
            }
            assert_eq!(next, text.len() as u64);
        }
    }

    #[test]
    fn bad_bytes_are_told_with_their_place() {
        assert!(matches!(scan_bytes(b"abc\0def"), Err(ScanError::Binary { byte: 3 })));
        assert!(matches!(scan_bytes(b"\xFF\xFEa\0"), Err(ScanError::Utf16)));
        assert!(matches!(scan_bytes(b"\xFE\xFF\0a"), Err(ScanError::Utf16)));
        assert!(matches!(scan_bytes(b"ab\xC3"), Err(ScanError::Invalid { byte: 2 })));
        assert!(matches!(scan_bytes(b"caf\xE9 au lait"), Err(ScanError::Invalid { byte: 3 })));
        for at in [READ_BYTES - 1, READ_BYTES, SEGMENT_BYTES_MAX + 3, 700_001] {
            let mut text = "word ".repeat(200_000).into_bytes();
            text[at] = 0xFF;
            let error = scan_bytes(&text).unwrap_err();
            assert!(matches!(error, ScanError::Invalid { byte } if byte == at as u64), "{at}: {error}");
        }
    }

    #[test]
    fn characters_across_reads_are_whole() {
        for shift in 0..4 {
            let text = "x".repeat(shift) + &"🦀".repeat(200_000);
            let bytes: u64 =
                scan_bytes(text.as_bytes()).unwrap().iter().map(|s| u64::from(s.body_bytes)).sum();
            assert_eq!(bytes, text.len() as u64);
        }
    }

    #[test]
    fn empty_and_bom() {
        assert!(scan_bytes(b"").unwrap().is_empty());
        assert!(scan_bytes(b"\xEF\xBB\xBF").unwrap().is_empty());
        assert_eq!(scan_bytes(b"\xEF\xBB\xBFa").unwrap()[0].offset, 3);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        std::fs::write(&path, "one two three").unwrap();
        let mut origin = Origin::File(path.clone());
        let segments = origin.scan(&options(0), &Stop::default()).unwrap();
        let read = |origin: &mut Origin| Reader::default().text(origin, &segments[0], &options(0));
        assert_eq!(read(&mut origin).unwrap(), "one two three");
        for other in ["one two threE", "one", ""] {
            std::fs::write(&path, other).unwrap();
            assert!(matches!(read(&mut origin), Err(ScanError::Changed)), "{other:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&mut origin), Err(ScanError::Read(_))));
    }
}
