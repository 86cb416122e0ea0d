//! Tells a sensor that is gone from one that never was.

use crate::proto::budget::{Fault, Sensed};

/// Remembers whether a sensor was ever there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen(bool);

impl Seen {
    /// What was there in an earlier reading and is not any more has vanished.
    pub(super) fn judge<T>(&mut self, sensed: Sensed<T>) -> Sensed<T> {
        match sensed {
            Sensed::Absent if self.0 => Sensed::Broken(Fault::Vanished),
            Sensed::Absent => Sensed::Absent,
            other => {
                self.0 = true;
                other
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gone_is_not_the_same_as_never_there() {
        let mut seen = Seen::default();
        assert_eq!(seen.judge::<u8>(Sensed::Absent), Sensed::Absent);
        assert_eq!(seen.judge(Sensed::Is(1)), Sensed::Is(1));
        assert_eq!(seen.judge::<u8>(Sensed::Absent), Sensed::Broken(Fault::Vanished));
        assert_eq!(seen.judge(Sensed::Is(2)), Sensed::Is(2));
    }
}
