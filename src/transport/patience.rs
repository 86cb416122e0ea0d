//! How long a frame may take: a slow link is waited for, a peer that stalls or trickles is not.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::{FRAME_BYTES_PER_S_MIN, STREAM_BYTES_MAX};

/// What is waited for one frame on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    wait: Duration,
    begun: Instant,
    last: Instant,
    bytes: usize,
}

impl Patience {
    pub(super) fn new(wait: Duration, now: Instant) -> Self {
        Self { wait, begun: now, last: now, bytes: 0 }
    }

    /// So many bytes more have come, or gone.
    pub(super) fn moved(&mut self, bytes: usize, now: Instant) {
        (self.last, self.bytes) = (now, self.bytes + bytes);
    }

    /// When it is over, unless more moves before that: after a pause of `wait`, and `wait` after the time in which as
    /// much would have come at the least rate.
    pub(super) fn ends(&self) -> Instant {
        (self.last + self.wait).min(self.begun + self.wait + time_for(self.bytes))
    }
}

/// Time for so many bytes at the least rate.
fn time_for(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1000 / FRAME_BYTES_PER_S_MIN)
}

/// How much longer than usual the answer to a frame of so many bytes may take: what QUIC has taken over of it may not
/// have left yet, a window full at most.
pub fn underway(frame_bytes: usize) -> Duration {
    time_for(frame_bytes.min(STREAM_BYTES_MAX as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(20);

    /// How long a frame that arrives in such pieces, with such pauses before them, is waited for; `None` if all of it is
    /// there in time.
    fn given_up(pieces: impl IntoIterator<Item = (Duration, usize)>) -> Option<Duration> {
        let begun = Instant::now();
        let (mut now, mut patience) = (begun, Patience::new(WAIT, begun));
        for (pause, bytes) in pieces {
            now += pause;
            if now > patience.ends() {
                return Some(patience.ends() - begun);
            }
            patience.moved(bytes, now);
        }
        None
    }

    #[test]
    fn a_slow_link_is_waited_for_and_a_stalling_peer_is_not() {
        let second = Duration::from_secs(1);
        // 9 MB at the least rate take nearly five minutes.
        assert_eq!(given_up((0..280).map(|_| (second, 33 << 10))), None);
        assert_eq!(given_up([(second, 1 << 20), (19 * second, 1 << 20)]), None, "it may pause");
        assert_eq!(given_up([(second, 1 << 20), (60 * second, 1 << 20)]), Some(21 * second));
        assert_eq!(given_up([(21 * second, 0)]), Some(20 * second));
        // A byte now and then prolongs nothing.
        assert!(given_up((0..3000).map(|_| (second / 10, 1))).unwrap() < 21 * second);
        assert!(underway(usize::MAX) == 32 * second && underway(1000) < second);
    }
}
