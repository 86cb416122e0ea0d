//! A record says its version and proves its bytes before any of them is decoded.
//!
//! LMDB checks nothing of what it stores, and postcard silently misreads fields that moved. So every
//! record is `version: u8 | checksum: 8 bytes | postcard`, where the checksum is the head of
//! BLAKE3(database, 0, key, version, postcard): a record that was read under another key, or in another
//! database, does not open either.

use serde::{Serialize, de::DeserializeOwned};

const CHECKSUM_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + CHECKSUM_BYTES;

/// Why a record does not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// Shorter than a header.
    #[error("cut off after {bytes} bytes")]
    Truncated {
        /// Length found.
        bytes: usize,
    },
    /// Written by another edge. Newer ones are refused, never guessed at.
    #[error("has version {found}, this edge reads version {known}")]
    Version {
        /// Version found.
        found: u8,
        /// Version that this program reads.
        known: u8,
    },
    /// A bit changed on its way, or the record belongs to another key.
    #[error("does not match its checksum")]
    Checksum,
    /// The checksum holds but the body is none of this type: a bug of whoever wrote it.
    #[error("does not decode")]
    Decode(#[source] postcard::Error),
    /// Bytes behind the body, which postcard would silently drop.
    #[error("has {bytes} bytes too many")]
    Trailing {
        /// Bytes behind the body.
        bytes: usize,
    },
}

/// Bytes of a record of this version that belongs to `key` in `database`.
pub fn seal<T: Serialize>(database: &str, version: u8, key: &[u8], value: &T) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES];
    record[0] = version;
    #[expect(clippy::expect_used, reason = "a Vec grows, and no record type refuses serialisation")]
    let mut record = postcard::to_extend(value, record).expect("plain data always encodes");
    let sum = checksum(database, version, key, &record[HEADER_BYTES..]);
    record[1..HEADER_BYTES].copy_from_slice(&sum);
    record
}

/// Reads what [`seal`] wrote, for the same database, version and key.
///
/// # Errors
/// [`RecordError`], in the order of its variants: nothing is decoded before the checksum holds.
pub fn open<T: DeserializeOwned>(
    database: &str,
    version: u8,
    key: &[u8],
    record: &[u8],
) -> Result<T, RecordError> {
    if record.len() < HEADER_BYTES {
        return Err(RecordError::Truncated { bytes: record.len() });
    }
    let (header, body) = record.split_at(HEADER_BYTES);
    if header[0] != version {
        return Err(RecordError::Version { found: header[0], known: version });
    }
    if header[1..] != checksum(database, version, key, body) {
        return Err(RecordError::Checksum);
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(RecordError::Trailing { bytes: rest.len() }),
        Err(error) => Err(RecordError::Decode(error)),
    }
}

fn checksum(database: &str, version: u8, key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(database.as_bytes()).update(&[0]);
    hasher.update(key).update(&[version]).update(body);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let record = seal("results", 1, b"key", &(7u32, "text".to_owned()));
        assert_eq!(open("results", 1, b"key", &record), Ok((7u32, "text".to_owned())));
        assert_eq!(open::<u32>("results", 1, b"kez", &record), Err(RecordError::Checksum));
        assert_eq!(open::<u32>("runs", 1, b"key", &record), Err(RecordError::Checksum));
        assert_eq!(
            open::<u32>("results", 2, b"key", &record),
            Err(RecordError::Version { found: 1, known: 2 })
        );
        assert_eq!(open::<u32>("results", 1, b"key", &record), Err(RecordError::Trailing { bytes: 5 }));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = seal("results", 1, b"key", &[3u64; 4]);
        for bit in 0..record.len() * 8 {
            let mut wrong = record.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<[u64; 4]>("results", 1, b"key", &wrong).is_err(), "bit {bit}");
        }
    }

    /// These bytes lie on people's disks: a change here is a new version with an upgrade.
    #[test]
    fn bytes_of_version_1() {
        let record = seal("results", 1, b"key", &(300u32, true));
        assert_eq!(data_encoding::HEXLOWER.encode(&record), "01d23441d70a4f9d82ac0201");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = open::<Vec<String>>("results", 1, b"key", &bytes);
        }
    }
}
