//! What tract asks of the library `erased-serde`, which is how it reads the settings of a transform that somebody names in
//! words; edge names none, and here they are refused.
//!
//! One such transform registers itself before `main`, in whatever program holds tract, and its settings are code in tract's
//! own language: with them come the parser of that language and the readers of all its operators, 0.9 MB of the program.

use std::fmt;

/// Something that settings could be read from.
pub trait Deserializer<'de> {}

/// A deserializer that nothing is read from.
#[derive(Debug)]
pub struct Erased;

impl Deserializer<'_> for Erased {}

impl<'de> dyn Deserializer<'de> + '_ {
    /// Forgets the deserializer.
    pub fn erase<D: serde_core::Deserializer<'de>>(_: D) -> Erased {
        Erased
    }
}

/// Settings were to be read.
#[derive(Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this program is built without the settings of tract's transforms")
    }
}

impl std::error::Error for Error {}

/// Refuses.
///
/// # Errors
/// Always.
pub fn deserialize<'de, T: serde_core::Deserialize<'de>>(_: &mut dyn Deserializer<'de>) -> Result<T, Error> {
    Err(Error)
}
