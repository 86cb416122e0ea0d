//! The envelope of every message: its version, its kind, its body.
//!
//! A frame is `version: u8 | kind: u8 | postcard`; the stream puts its length before it. A body is frozen per kind and
//! version, because postcard silently misreads fields that moved; golden bytes hold each one.

use serde::{Serialize, de::DeserializeOwned};

/// Version of every kind so far.
pub const FRAME_VERSION: u8 = 1;

/// A message that crosses a stream.
pub trait Message: Serialize + DeserializeOwned {
    /// Which message; never used for another.
    const KIND: u8;
    /// Its name, for logs.
    const NAME: &'static str;
    /// Bytes of a frame of this kind at most, envelope included.
    const BYTES_MAX: usize;
}

/// Names each message with its kind, which is never used for another, and the bytes of its frame at most.
macro_rules! messages {
    ($($name:ident $kind:literal $bytes:expr;)*) => { $(
        impl $crate::wire::Message for $name {
            const KIND: u8 = $kind;
            const NAME: &'static str = stringify!($name);
            const BYTES_MAX: usize = $bytes;
        }
    )* };
}
pub(super) use messages;

/// Why a frame is not the message that was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than an envelope.
    #[error("the frame has {bytes} bytes")]
    Truncated {
        /// Length found.
        bytes: usize,
    },
    /// Another edge wrote it. Newer ones are refused, never guessed at.
    #[error("the frame has version {found}, this edge speaks version {FRAME_VERSION}")]
    Version {
        /// Version found.
        found: u8,
    },
    /// It is another message.
    #[error("expected {expected}, got a message of kind {found}")]
    Kind {
        /// Name of what was expected.
        expected: &'static str,
        /// Kind found.
        found: u8,
    },
    /// Longer than this kind may be.
    #[error("{name} has {bytes} bytes, the most are {max}")]
    TooLong {
        /// Name of the message.
        name: &'static str,
        /// Length found.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// The body is none of this kind.
    #[error("{name} does not decode")]
    Decode {
        /// Name of the message.
        name: &'static str,
        /// What postcard says.
        #[source]
        source: postcard::Error,
    },
    /// Bytes behind the body, which postcard would silently drop.
    #[error("{name} has {bytes} bytes too many")]
    Trailing {
        /// Name of the message.
        name: &'static str,
        /// Bytes behind the body.
        bytes: usize,
    },
}

/// The frame of a message.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "a Vec grows, and no message refuses serialisation")]
    postcard::to_extend(message, vec![FRAME_VERSION, M::KIND]).expect("plain data always encodes")
}

/// The kind of a frame.
///
/// # Errors
/// [`FrameError::Truncated`] or [`FrameError::Version`].
pub fn kind(frame: &[u8]) -> Result<u8, FrameError> {
    match frame {
        [FRAME_VERSION, kind, ..] => Ok(*kind),
        [found, _, ..] => Err(FrameError::Version { found: *found }),
        _ => Err(FrameError::Truncated { bytes: frame.len() }),
    }
}

/// Reads a frame that must be this message.
///
/// # Errors
/// [`FrameError`], in the order of its variants.
pub fn decode<M: Message>(frame: &[u8]) -> Result<M, FrameError> {
    let found = kind(frame)?;
    if found != M::KIND {
        return Err(FrameError::Kind { expected: M::NAME, found });
    }
    if frame.len() > M::BYTES_MAX {
        return Err(FrameError::TooLong { name: M::NAME, bytes: frame.len(), max: M::BYTES_MAX });
    }
    match postcard::take_from_bytes(&frame[2..]) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Trailing { name: M::NAME, bytes: rest.len() }),
        Err(source) => Err(FrameError::Decode { name: M::NAME, source }),
    }
}
