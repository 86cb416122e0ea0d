//! What the owner ordered last, in the form that outlives a restart.
//!
//! Deliberately absent: bytes and files; `store` seals it as it seals every record.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the owner ordered last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// To lend, within the limits.
    #[default]
    Lending,
    /// To rest.
    Paused {
        /// Until when; `None` until the owner says otherwise.
        end: Option<PauseEnd>,
    },
    /// To complete what is begun and take nothing new.
    Finishing,
}

/// When a pause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseEnd {
    /// How long it is in all, in milliseconds.
    pub length_ms: u64,
    /// When it ends by the wall clock, in milliseconds since 1970; `None` where the clock was not set.
    pub wall_ms: Option<u64>,
}

impl PauseEnd {
    /// Of a pause that begins now.
    pub(super) fn of(lasting: Duration, wall_ms: Option<u64>) -> Self {
        let length_ms = u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX);
        Self { length_ms, wall_ms: wall_ms.map(|now| now.saturating_add(length_ms)) }
    }

    /// What is left of it after a restart. A clock that was set back makes it no longer than it was; without a clock it
    /// begins anew.
    pub(super) fn left(&self, wall_ms: Option<u64>) -> Duration {
        let left_ms = self.wall_ms.zip(wall_ms).map_or(self.length_ms, |(end, now)| end.saturating_sub(now));
        Duration::from_millis(left_ms.min(self.length_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_a_restart_and_is_never_longer_than_it_was() {
        let (length, minute) = (Duration::from_secs(1800), 60_000);
        let end = PauseEnd::of(length, Some(1000 * minute));
        assert_eq!(end.left(Some(1010 * minute)), Duration::from_secs(1200));
        assert_eq!(end.left(Some(2000 * minute)), Duration::ZERO);
        assert_eq!(end.left(Some(5 * minute)), length, "the clock was set back");
        assert_eq!((end.left(None), PauseEnd::of(length, None).left(Some(minute))), (length, length));
        assert_eq!(
            PauseEnd::of(Duration::MAX, Some(u64::MAX)).left(Some(0)),
            Duration::from_millis(u64::MAX)
        );
    }

    #[test]
    fn its_bytes_are_these() {
        let hex =
            |standing: &Standing| data_encoding::HEXLOWER.encode(&postcard::to_allocvec(standing).unwrap());
        assert_eq!(hex(&Standing::Lending), "00");
        assert_eq!(hex(&Standing::Paused { end: None }), "0100");
        let end = PauseEnd { length_ms: 1_800_000, wall_ms: Some(1_793_491_200_000) };
        assert_eq!(hex(&Standing::Paused { end: Some(end) }), "0101c0ee6d0180d09fa39934");
        assert_eq!(hex(&Standing::Finishing), "02");
    }
}
