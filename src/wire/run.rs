//! The record of a run: what was asked, when, and how it ended.

use serde::{Deserialize, Serialize};

use super::ModelHash;

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// Begun, and not known to have ended: it is going on, or was interrupted.
    Begun,
    /// Everything was done.
    Done,
    /// Ended, some documents had failed.
    DoneWithFailures,
}

/// A run, without its content keys, which stand in pages of their own. Version 1, frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Wall clock in milliseconds since 1970, for retention and for people; `None` where the clock was unset.
    pub touched_ms: Option<u64>,
    /// How far it came.
    pub state: RunState,
    /// The inputs as they were given, for people; cut off at 200 bytes.
    pub title: String,
    /// Model that it ran with.
    pub model: ModelHash,
    /// Documents that could be read.
    pub documents: u32,
    /// Content keys, in source order, with repetitions.
    pub segments: u32,
    /// Bytes of text.
    pub text_bytes: u64,
    /// BLAKE3 of the keys in their order: whether the stored list is still the right one.
    pub keys_hash: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes lie on people's disks: a change here is a new version with an upgrade.
    #[test]
    fn bytes_of_version_1() {
        let run = Run {
            touched_ms: Some(1_793_491_200_000),
            state: RunState::DoneWithFailures,
            title: "notes".into(),
            model: ModelHash::from_bytes([2; 32]),
            documents: 3,
            segments: 400,
            text_bytes: 70_000,
            keys_hash: [5; 32],
        };
        let record = crate::wire::seal("runs", 1, &[7; 32], &run);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&record),
            "0177813baa17f83cc10180d09fa3993402056e6f7465730202020202020202020202020202020202020202020202020202020202020202039003f0a2040505050505050505050505050505050505050505050505050505050505050505"
        );
    }
}
