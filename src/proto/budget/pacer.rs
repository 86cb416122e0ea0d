//! The duty cycle of one compute thread: how long it rests after each slice of work, and how much work a slice may be.
//!
//! Deliberately absent: threads and clocks. Each thread has a pacer of its own, so nothing is shared: where every one
//! keeps to its share, so do all of them together. A slice is whatever runs between two rests, a batch or a part of one.
//!
//! A token bucket that gives CPU time at a rate a little below the duty (ITU-T I.371). In a window `W` that begins with
//! a slice, a thread that begins only without debt has `rate · (W − c) + c` of CPU, where `c` is the longest slice, and
//! what little it was allowed to save. The rate is the highest that keeps this below the duty by the bound.

use std::time::Duration;

use super::Timestamp;

/// No slice is meant to be longer, in milliseconds: who stops the work waits for it at the worst.
pub const SLICE_MS_MAX: u32 = 500;
/// Where there are rests between them, slices are meant to be this part of what the thread has in 10 s, at the most: then no
/// 10 s have much less or more than the duty, for what they begin and end with is small against it.
const SLICE_PERCENT: u32 = 4;
/// Tokens in a slice at least: a chunk, which nothing cuts.
pub const SLICE_TOKENS_MIN: u32 = 256;

/// In which the duty is held, in microseconds.
const WINDOW_US: u64 = 10_000_000;
/// Of the duty, which may be passed by 5 %; the rest is for clocks that are read in milliseconds.
const BOUND_PERCENT: u64 = 104;
/// Real slices last so much longer than planned: speed is known from the past, and texts differ.
const STRETCH_PERCENT: u64 = 150;
/// Sleep beyond what was asked for is no rest, up to this; what is longer was a stall, and is not made up for.
const OVERSLEEP_US: u64 = 25_000;
/// A long slice is remembered so long at least: at a small share there are only a few in 10 s.
const SPELL: Duration = Duration::from_secs(60);
/// Beyond four windows nobody keeps count.
const DEBT_US_MAX: i64 = 40_000_000;
const PPM: u64 = 1_000_000;

/// Holds one compute thread to its duty.
///
/// In any 10 s the thread has no more than 1.05 times its duty, plus the slice under way where the duty fell within
/// them; on an idle machine it has more than 0.9 times as much in any. This is so while slices are no longer than
/// 1.5 times [`Pacer::slice_ms`]; longer ones are met with a lower rate, at the least half the duty.
#[derive(Clone, Debug)]
pub struct Pacer {
    duty_permille: u16,
    /// CPU time that was had beyond the rate, in microseconds; below nothing what may still be had.
    debt_us: i64,
    at: Timestamp,
    /// The longest slice of this spell and of the one before, in microseconds.
    longest_us: [u64; 2],
    spell_began: Timestamp,
}

impl Pacer {
    /// A thread that may begin at once; the duty in thousandths, 1 to 1000.
    pub fn new(now: Timestamp, duty_permille: u16) -> Self {
        let duty_permille = duty_permille.clamp(1, 1000);
        Self { duty_permille, debt_us: 0, at: now, longest_us: [0; 2], spell_began: now }
    }

    /// A slice has ended that took so much CPU time; gives how long to rest before the next one. The duty is that of now:
    /// where it has changed, the lesser one counts for the slice that ran meanwhile.
    pub fn ran(&mut self, now: Timestamp, duty_permille: u16, cpu: Duration) -> Duration {
        // No slice is longer than two windows: whatever says so is a clock gone wrong, and must not stop the thread for
        // hours.
        let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX).min(2 * WINDOW_US);
        if now.since(self.spell_began) >= SPELL {
            (self.longest_us, self.spell_began) = ([0, self.longest_us[0]], now);
        }
        self.longest_us[0] = self.longest_us[0].max(cpu_us);
        self.settle(now, duty_permille, cpu_us)
    }

    /// How long to rest from now on before the next slice: to be asked when the thread wakes, or is woken because the duty
    /// has changed.
    pub fn rest(&mut self, now: Timestamp, duty_permille: u16) -> Duration {
        self.settle(now, duty_permille, 0)
    }

    /// How long a slice is meant to be, in milliseconds, [`SLICE_MS_MAX`] at most.
    pub fn slice_ms(&self) -> u32 {
        let duty_ms = u32::try_from(WINDOW_US / 1_000_000).unwrap_or(1) * u32::from(self.duty_permille);
        if self.duty_permille >= 1000 { SLICE_MS_MAX } else { (duty_ms * SLICE_PERCENT / 100).max(1) }
    }

    /// How many tokens a slice may have at the measured speed, in tokens per second of CPU time, 0 where that is not known;
    /// at least [`SLICE_TOKENS_MIN`].
    pub fn slice_tokens(&self, tokens_per_cpu_s: u32) -> u32 {
        let tokens = u64::from(tokens_per_cpu_s) * u64::from(self.slice_ms()) / 1000;
        u32::try_from(tokens).unwrap_or(u32::MAX).max(SLICE_TOKENS_MIN)
    }

    /// Brings the debt up to now, with so much CPU time had since it was last; gives how long it takes to pay.
    fn settle(&mut self, now: Timestamp, duty_permille: u16, cpu_us: u64) -> Duration {
        let elapsed_us = u64::try_from(now.since(self.at).as_micros()).unwrap_or(u64::MAX);
        self.at = self.at.max(now);
        let before = self.rate_ppm();
        self.duty_permille = duty_permille.clamp(1, 1000);
        let rate = before.min(self.rate_ppm());
        let earned = |us: u64| i128::from(us) * i128::from(rate) / i128::from(PPM);
        // The CPU time is taken to have been had just before now: what a stall within the slice earned is then forgotten
        // like that of any other.
        let idle_us = elapsed_us.saturating_sub(cpu_us);
        let saved_max = i128::from(OVERSLEEP_US * u64::from(self.duty_permille) / 1000);
        let debt = (i128::from(self.debt_us) - earned(idle_us)).max(-saved_max);
        let debt = debt + i128::from(cpu_us) - earned(cpu_us.min(elapsed_us));
        self.debt_us = i64::try_from(debt).unwrap_or(i64::MAX).min(DEBT_US_MAX);
        let owed_us = u64::try_from(self.debt_us).unwrap_or(0);
        Duration::from_micros((owed_us * PPM).div_ceil(self.rate_ppm()))
    }

    /// CPU time that is given, in millionths of the time that passes.
    fn rate_ppm(&self) -> u64 {
        let duty_ppm = u64::from(self.duty_permille) * 1000;
        if self.duty_permille >= 1000 {
            return PPM;
        }
        let planned_us = u64::from(self.slice_ms()) * 10 * STRETCH_PERCENT;
        let slice_us = planned_us.max(self.longest_us[0]).max(self.longest_us[1]).min(WINDOW_US / 2);
        let duty_us = WINDOW_US * u64::from(self.duty_permille) / 1000;
        let saved_us = OVERSLEEP_US * u64::from(self.duty_permille) / 1000;
        let room_us = (duty_us * BOUND_PERCENT / 100).saturating_sub(slice_us + saved_us);
        (room_us * PPM / (WINDOW_US - slice_us)).clamp(duty_ppm / 2, duty_ppm)
    }
}

#[cfg(test)]
mod tests;
