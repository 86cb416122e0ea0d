//! Looks at LMDB's two meta pages before the file is mapped: reading past the end of a map is a SIGBUS,
//! which no error path survives.
//!
//! The layout is `MDB_meta` of LMDB 0.9 (`mdb.c`): a page header of one word and 8 bytes; magic and
//! version; address and map size; two `MDB_db` of 8 bytes and five words; last page and transaction.
//! Words are as wide as the machine's, for LMDB files do not move between word sizes.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

const MAGIC: u32 = 0xBEEF_C0DE;
const WORD: usize = size_of::<usize>();
const META_AT: usize = WORD + 8;
const PAGE_SIZE_AT: usize = META_AT + 8 + 2 * WORD;
const DB_BYTES: usize = 8 + 5 * WORD;
const LAST_PAGE_AT: usize = PAGE_SIZE_AT + 2 * DB_BYTES;
const META_BYTES: usize = LAST_PAGE_AT + 2 * WORD;

/// What the file looks like from outside.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing was ever stored.
    Empty,
    /// As long as its newest meta page says.
    Whole,
    /// No LMDB file, or one that lost its end; the text says which.
    Broken(String),
}

/// Reads at most two pages' heads of `file`.
///
/// # Errors
/// Whatever reading says; a short or strange file is no error but [`Shape::Broken`].
pub(super) fn inspect(file: &mut File) -> io::Result<Shape> {
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(Shape::Empty);
    }
    let Some(first) = read_meta(file, 0)? else {
        return Ok(Shape::Broken("its first page is no LMDB meta page".into()));
    };
    let Some(second) = read_meta(file, first.page_size as u64)? else {
        return Ok(Shape::Broken("its second page is no LMDB meta page".into()));
    };
    let newest = if second.transaction > first.transaction { second } else { first };
    let needed = (newest.last_page as u64 + 1).saturating_mul(newest.page_size as u64);
    if bytes < needed {
        return Ok(Shape::Broken(format!("it is {bytes} bytes long and should have {needed}")));
    }
    Ok(Shape::Whole)
}

struct Meta {
    page_size: usize,
    last_page: usize,
    transaction: usize,
}

fn read_meta(file: &mut File, at: u64) -> io::Result<Option<Meta>> {
    let mut head = [0; META_BYTES];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let word = |at: usize| {
        let mut bytes = [0; WORD];
        bytes.copy_from_slice(&head[at..at + WORD]);
        usize::from_ne_bytes(bytes)
    };
    let half = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let page_size = half(PAGE_SIZE_AT) as usize;
    let sane = half(META_AT) == MAGIC && page_size.is_power_of_two() && (512..=65536).contains(&page_size);
    Ok(sane.then(|| Meta {
        page_size,
        last_page: word(LAST_PAGE_AT),
        transaction: word(LAST_PAGE_AT + WORD),
    }))
}
