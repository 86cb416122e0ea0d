//! What compute threads for others may take of this machine: how many at a time, and for how much of the time.
//!
//! Deliberately absent: why; that is the policy's. A thread asks before each batch. It waits where it may not run, holding
//! no lock that anybody else needs, and wakes for nothing but a change or the end of its rest.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::priority;
use crate::{
    inference::{Pace, Stop},
    proto::{Timestamp, budget::Pacer},
};

/// A thread that waits looks this often whether it is to stop, should nobody have woken it.
const LOOK: Duration = Duration::from_millis(500);

/// Shared by all threads of one pool, and by whoever sets it.
#[derive(Clone, Debug)]
pub(super) struct Valve(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whether its threads give way to everything else on this machine.
    gives_way: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    threads: usize,
    duty_permille: u16,
    active: usize,
    /// CPU time of all threads so far.
    cpu: Duration,
}

impl Valve {
    /// So many threads may run at a time, each for so many thousandths of it.
    pub(super) fn new(threads: usize, duty_permille: u16, gives_way: bool) -> Self {
        let state = State { threads, duty_permille, active: 0, cpu: Duration::ZERO };
        Self(Arc::new(Shared { gives_way, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Holds from the next batch on; none is longer than half a second.
    pub(super) fn set(&self, threads: usize, duty_permille: u16) {
        let mut state = self.lock();
        if (state.threads, state.duty_permille) != (threads, duty_permille) {
            (state.threads, state.duty_permille) = (threads, duty_permille);
            self.0.changed.notify_all();
        }
    }

    /// Whoever waits looks whether it is to stop.
    pub(super) fn wake(&self) {
        let _state = self.lock();
        self.0.changed.notify_all();
    }

    /// CPU time that all threads have had so far.
    pub(super) fn cpu(&self) -> Duration {
        self.lock().cpu
    }

    /// For the calling thread.
    pub(super) fn pace(&self) -> Box<dyn Pace> {
        if self.0.gives_way {
            priority::give_way();
        }
        let duty_permille = self.lock().duty_permille;
        let pacer = Pacer::new(Timestamp::default(), duty_permille);
        Box::new(Paced { valve: self.clone(), pacer, begun: Instant::now(), is_in: false, speed: 0.0 })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half way.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Paced {
    valve: Valve,
    pacer: Pacer,
    begun: Instant,
    is_in: bool,
    /// Tokens per second of CPU time, as a moving mean; 0 where that is not known.
    speed: f64,
}

impl Paced {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.begun.elapsed().as_millis() as u64)
    }
}

impl Pace for Paced {
    fn enter(&mut self, stop: &Stop) -> usize {
        let valve = self.valve.clone();
        let mut state = valve.lock();
        while !stop.is_asked() {
            let rest = self.pacer.rest(self.now(), state.duty_permille);
            if rest.is_zero() && state.active < state.threads {
                state.active += 1;
                self.is_in = true;
                break;
            }
            let wait = if rest.is_zero() { LOOK } else { rest.min(LOOK) };
            let waited = valve.0.changed.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.pacer.slice_tokens(self.speed as u32) as usize
    }

    fn leave(&mut self, tokens: usize, cpu: Duration) {
        if tokens > 0 && !cpu.is_zero() {
            let now = tokens as f64 / cpu.as_secs_f64();
            self.speed = if self.speed == 0.0 { now } else { self.speed.mul_add(0.8, now * 0.2) };
        }
        let valve = self.valve.clone();
        let mut state = valve.lock();
        self.pacer.ran(self.now(), state.duty_permille, cpu);
        if std::mem::take(&mut self.is_in) {
            state.active -= 1;
            state.cpu += cpu;
            let is_waited_for = state.active + 1 >= state.threads;
            drop(state);
            if is_waited_for {
                // All of them, for one that rests would not pass it on.
                valve.0.changed.notify_all();
            }
        }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if self.is_in {
            self.valve.lock().active -= 1;
            self.valve.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

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
        assert_eq!(valve.lock().active, 0);
    }

    #[test]
    fn so_many_run_at_a_time_and_a_change_holds_at_once() {
        let valve = Valve::new(2, 1000, true);
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
        let valve = Valve::new(0, 1000, true);
        let begun = Instant::now();
        with_threads(&valve, Duration::from_millis(1), |_, _| {});
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(valve.cpu(), Duration::ZERO);
    }

    /// The pacer's own tests hold it to its duty; this holds the waiting to the pacer.
    #[test]
    fn a_thread_rests_for_as_long_as_it_is_told() {
        let valve = Valve::new(1, 100, true);
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
}
