//! What compute threads for others may take of this machine: how many at a time, and for how much of the time.
//!
//! Deliberately absent: why; that is the policy's. A thread asks before each batch. It waits where it may not run, holding
//! no lock that anybody else needs, and wakes for nothing but a change or the end of its rest.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::priority;
use crate::{
    inference::{Pace, Stop},
    proto::{Timestamp, budget::Pacer},
};

/// A thread that waits looks this often whether it is to stop, should nobody have woken it.
const LOOK: Duration = Duration::from_millis(500);

/// Shared by all threads that compute for others, whatever pool they are of, and by whoever sets it.
#[derive(Clone, Debug)]
pub(super) struct Valve(Arc<Shared>);

/// What is set is read without the lock: a thread that gives way may be made to wait while it holds it, and the network's
/// must not wait with it.
#[derive(Debug)]
struct Shared {
    /// Whether its threads give way to everything else on this machine.
    gives_way: bool,
    threads: AtomicUsize,
    duty_permille: AtomicU16,
    /// CPU time of all threads so far, in microseconds.
    cpu_us: AtomicU64,
    /// Who computes has one of them; the first ones are given out while fewer threads are allowed. Each pays for itself, so
    /// that threads which take turns have no more of the time than one that does not.
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
    begun: Instant,
}

#[derive(Debug)]
struct Slot {
    pacer: Pacer,
    is_taken: bool,
}

impl Valve {
    /// For so many threads at most, none of which may run before [`Valve::set`].
    pub(super) fn new(threads_max: usize, gives_way: bool) -> Self {
        let slot = |_| Slot { pacer: Pacer::new(Timestamp::default(), 1000), is_taken: false };
        Self(Arc::new(Shared {
            gives_way,
            threads: AtomicUsize::new(0),
            duty_permille: AtomicU16::new(1000),
            cpu_us: AtomicU64::new(0),
            slots: Mutex::new((0..threads_max).map(slot).collect()),
            changed: Condvar::new(),
            begun: Instant::now(),
        }))
    }

    /// So many threads may run at a time, each for so many thousandths of it. Holds from the next batch on; none is meant to
    /// be longer than half a second.
    pub(super) fn set(&self, threads: usize, duty_permille: u16) {
        self.0.threads.store(threads, Ordering::Relaxed);
        self.0.duty_permille.store(duty_permille, Ordering::Relaxed);
        self.wake();
    }

    /// Whoever waits looks whether anything has changed, and whether it is to stop.
    pub(super) fn wake(&self) {
        self.0.changed.notify_all();
    }

    /// CPU time that all threads have had so far.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_micros(self.0.cpu_us.load(Ordering::Relaxed))
    }

    /// Whether no thread may run, and none does any more.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        let is_closed = self.0.threads.load(Ordering::Relaxed) == 0;
        self.slots().iter().all(|slot| !slot.is_taken) && is_closed
    }

    /// For the calling thread.
    pub(super) fn pace(&self) -> Box<dyn Pace> {
        if self.0.gives_way {
            priority::give_way();
        }
        Box::new(Paced { valve: self.clone(), slot: None, speed: 0.0 })
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Nothing under this lock panics half way.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.begun.elapsed().as_millis() as u64)
    }

    fn duty_permille(&self) -> u16 {
        self.0.duty_permille.load(Ordering::Relaxed).max(1)
    }
}

struct Paced {
    valve: Valve,
    slot: Option<usize>,
    /// Tokens per second of CPU time, as a moving mean; 0 where that is not known.
    speed: f64,
}

impl Pace for Paced {
    fn enter(&mut self, stop: &Stop) -> usize {
        let valve = self.valve.clone();
        let mut slots = valve.slots();
        while !stop.is_asked() {
            let (now, duty) = (valve.now(), valve.duty_permille());
            let allowed = valve.0.threads.load(Ordering::Relaxed).min(slots.len());
            let mut wait = LOOK;
            for (at, slot) in slots[..allowed].iter_mut().enumerate().filter(|(_, slot)| !slot.is_taken) {
                let rest = slot.pacer.rest(now, duty);
                if rest.is_zero() {
                    slot.is_taken = true;
                    self.slot = Some(at);
                    return slot.pacer.slice_tokens(self.speed as u32) as usize;
                }
                wait = wait.min(rest);
            }
            let waited = valve.0.changed.wait_timeout(slots, wait);
            slots = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        0
    }

    fn leave(&mut self, tokens: usize, cpu: Duration) {
        if tokens > 0 && !cpu.is_zero() {
            let now = tokens as f64 / cpu.as_secs_f64();
            self.speed = if self.speed == 0.0 { now } else { self.speed.mul_add(0.8, now * 0.2) };
        }
        let Some(at) = self.slot.take() else { return };
        let micros = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        self.valve.0.cpu_us.fetch_add(micros, Ordering::Relaxed);
        let (now, duty) = (self.valve.now(), self.valve.duty_permille());
        let mut slots = self.valve.slots();
        if let Some(slot) = slots.get_mut(at) {
            slot.pacer.ran(now, duty, cpu);
            slot.is_taken = false;
        }
        drop(slots);
        // All of them, for one that rests would not pass it on.
        self.valve.wake();
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.leave(0, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Four threads that compute without an end, until `body` has said that it has seen enough.
    fn with_threads(valve: &Valve, slice: Duration, body: impl FnOnce(&AtomicUsize, &AtomicUsize)) {
        let (stop, active, most) = (Stop::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut pace = valve.pace();
                    loop {
                        pace.enter(&stop);
                        if stop.is_asked() {
                            return;
                        }
                        most.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::park_timeout(slice);
                        active.fetch_sub(1, Ordering::SeqCst);
                        pace.leave(1, slice);
                    }
                });
            }
            body(&active, &most);
            stop.ask();
            valve.wake();
        });
        assert!(valve.slots().iter().all(|slot| !slot.is_taken));
    }

    #[test]
    fn so_many_run_at_a_time_and_a_change_holds_at_once() {
        let valve = Valve::new(4, true);
        valve.set(2, 1000);
        with_threads(&valve, Duration::from_millis(5), |active, most| {
            while valve.cpu() < Duration::from_millis(100) {
                thread::yield_now();
            }
            assert_eq!(most.load(Ordering::SeqCst), 2);
            valve.set(0, 1000);
            while active.load(Ordering::SeqCst) > 0 {
                thread::yield_now();
            }
            let before = valve.cpu();
            valve.set(4, 1000);
            while most.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
            assert!(valve.cpu() >= before);
        });
    }

    #[test]
    fn who_is_to_stop_stops_though_it_may_not_run() {
        let valve = Valve::new(4, true);
        let begun = Instant::now();
        with_threads(&valve, Duration::from_millis(1), |_, _| {});
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(valve.cpu(), Duration::ZERO);
    }

    /// The pacer's own tests hold it to its duty; this holds the waiting to the pacer.
    #[test]
    fn a_thread_rests_for_as_long_as_it_is_told() {
        let valve = Valve::new(1, true);
        valve.set(1, 100);
        let mut pace = valve.pace();
        let stop = Stop::default();
        pace.enter(&stop);
        pace.leave(1, Duration::from_millis(50));
        let begun = Instant::now();
        pace.enter(&stop);
        // At a tenth of the time, 50 ms are paid for with 450 or more.
        let rested = begun.elapsed();
        assert!(rested >= Duration::from_millis(350), "{rested:?}");
    }

    /// Many threads that take turns have what one has: nobody's rest is forgiven.
    #[test]
    fn turns_do_not_add_up() {
        let valve = Valve::new(4, false);
        valve.set(1, 100);
        let begun = Instant::now();
        with_threads(&valve, Duration::from_millis(5), |_, most| {
            while begun.elapsed() < Duration::from_secs(2) {
                thread::park_timeout(Duration::from_millis(20));
            }
            assert_eq!(most.load(Ordering::SeqCst), 1);
        });
        // A tenth of the time, and what a pacer may have saved.
        let (had, time) = (valve.cpu(), begun.elapsed());
        assert!(had <= time / 7, "{had:?} in {time:?}");
        assert!(had >= Duration::from_millis(20), "{had:?} in {time:?}");
    }
}
