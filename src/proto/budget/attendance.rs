//! Whether the limits for a machine in use hold, or those for an idle one.
//!
//! Deliberately absent: who is there, and how that is known.

use std::time::Duration;

use super::{Presence, Sensed, Timestamp};

/// Somebody's coming counts at once; his leaving only when nobody has been there for long enough, by the sensor and by
/// our own watch: a sensor that forgets somebody does not open what should be closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attendance {
    is_in_use: bool,
    seen: Option<Timestamp>,
}

impl Attendance {
    /// Somebody may be there until a reading says otherwise.
    pub(super) fn new() -> Self {
        Self { is_in_use: true, seen: None }
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.is_in_use
    }

    pub(super) fn look(&mut self, now: Timestamp, presence: Sensed<Presence>, idle_after_s: u64) {
        let idle_after = Duration::from_secs(idle_after_s);
        match presence {
            Sensed::Is(Presence::InUse) => (self.is_in_use, self.seen) = (true, Some(now)),
            Sensed::Is(Presence::Idle { for_s }) => {
                let has_left = self.seen.is_none_or(|seen| now.since(seen) >= idle_after);
                self.is_in_use = for_s < idle_after_s || (self.is_in_use && !has_left);
            }
            // What can not tell is a board without a seat.
            Sensed::Absent => self.is_in_use = false,
            Sensed::Broken(_) => self.is_in_use = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(for_s: u64) -> Sensed<Presence> {
        Sensed::Is(Presence::Idle { for_s })
    }

    #[test]
    fn coming_counts_at_once_and_leaving_after_a_while() {
        let (mut attendance, at) = (Attendance::new(), |s: u64| Timestamp::from_ms(s * 1000));
        let mut look = |s, presence| {
            attendance.look(at(s), presence, 300);
            attendance.is_in_use()
        };
        assert!(look(0, idle(299)), "a moment too early");
        assert!(!look(1, idle(300)), "nobody was there before this program was");
        assert!(look(2, Sensed::Is(Presence::InUse)));
        assert!(look(3, idle(1000)), "the sensor has forgotten him");
        assert!(look(301, idle(299)));
        assert!(!look(302, idle(300)));
        assert!(look(303, idle(0)), "he came and went between two readings");
        assert!(!look(304, Sensed::Absent));
    }
}
