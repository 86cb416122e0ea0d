//! Heat and memory hold up the owner's own work too, and nothing else does (DESIGN 7).
//!
//! The sensors are read on a thread of their own, which is there while something computes. One that hangs holds nobody up:
//! who waits before the machine is not stopped by a sensor that failed.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{governor::moment, valve::Valve};
use crate::{
    inference::{MakePace, Pace, Stop},
    power::Sensors,
    proto::{
        Timestamp,
        budget::{Admission, Event, Limits, Policy, Standing},
    },
};

/// Between two readings: a device does not get hot in less.
const EVERY: Duration = Duration::from_secs(1);

/// What the sensors said that long ago binds nobody any more.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Holds up threads that compute for the owner. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(super) struct OwnLimits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Under which the files of the system are read.
    root: PathBuf,
    limits: Limits,
    threads: usize,
    valve: Valve,
    /// Why they wait, where they do, and when the sensors said so last.
    waits_because: Mutex<Option<(String, Instant)>>,
    /// Whoever computes keeps it.
    watch: Mutex<Weak<Watch>>,
}

/// The thread that reads the sensors ends soon after this.
#[derive(Debug)]
struct Watch {
    _until_dropped: SyncSender<()>,
}

impl OwnLimits {
    /// For so many threads at most, with the sensors' files under `root`. Until the first reading they run.
    pub(super) fn new(root: &Path, limits: Limits, threads: usize) -> Self {
        let valve = Valve::new(threads, false);
        valve.set(threads, 1000);
        let (waits_because, watch) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { root: root.to_owned(), limits, threads, valve, waits_because, watch }))
    }

    /// For each of the threads.
    pub(super) fn pace(&self) -> Arc<MakePace> {
        let own = self.clone();
        Arc::new(move || Box::new(Watched { pace: own.0.valve.pace(), _watch: own.watch() }))
    }

    /// How many there are at most.
    pub(super) fn threads(&self) -> usize {
        self.0.threads
    }

    /// Why nothing is computed at the moment, for people: `97 °C, resumes below 90 °C`.
    /// To be asked now and then while something is to be computed: where the sensors have fallen silent it lets it go on.
    pub(super) fn waits_because(&self) -> Option<String> {
        let (why, said) = locked(&self.0.waits_because).clone()?;
        if said.elapsed() > SILENCE_MAX {
            self.open();
            return None;
        }
        Some(why)
    }

    /// Threads that wait look whether they are to stop.
    pub(super) fn wake(&self) {
        self.0.valve.wake();
    }

    fn watch(&self) -> Option<Arc<Watch>> {
        let mut watch = locked(&self.0.watch);
        if let Some(watch) = watch.upgrade() {
            return Some(watch);
        }
        let (sender, until_dropped) = sync_channel(1);
        let own = self.clone();
        let body = move || own.read_sensors(&until_dropped);
        if let Err(error) = thread::Builder::new().name("own-limits".into()).spawn(body) {
            tracing::warn!(%error, "own work is bound by neither heat nor memory");
            return None;
        }
        let new = Arc::new(Watch { _until_dropped: sender });
        *watch = Arc::downgrade(&new);
        Some(new)
    }

    fn read_sensors(&self, until_dropped: &Receiver<()>) {
        let begun = Instant::now();
        let mut sensors = Sensors::new(&self.0.root, None, None, &moment());
        let mut policy = Policy::new(Timestamp::default(), self.0.limits.clone(), Standing::Lending, None);
        loop {
            let reading = sensors.read_heat_and_memory(&moment());
            let now = Timestamp::from_ms(begun.elapsed().as_millis() as u64);
            policy.handle(now, Event::Reading(Box::new(reading)));
            self.follow(&policy);
            if until_dropped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        // Whoever computes next begins anew, unless it has begun meanwhile.
        if locked(&self.0.watch).strong_count() == 0 {
            self.open();
        }
    }

    fn follow(&self, policy: &Policy) {
        if policy.budget().admission != Admission::Nothing {
            return self.open();
        }
        let why: Vec<String> = policy.budget().reasons.iter().map(ToString::to_string).collect();
        let why = why.join("; ");
        if locked(&self.0.waits_because).replace((why.clone(), Instant::now())).is_none() {
            tracing::info!(why, "own work waits");
        }
        self.0.valve.set(0, 1000);
    }

    fn open(&self) {
        if locked(&self.0.waits_because).take().is_some() {
            tracing::info!("own work goes on");
        }
        self.0.valve.set(self.0.threads, 1000);
    }
}

/// Nothing under these locks panics half way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watched {
    pace: Box<dyn Pace>,
    _watch: Option<Arc<Watch>>,
}

impl Pace for Watched {
    fn enter(&mut self, stop: &Stop) -> usize {
        self.pace.enter(stop)
    }

    fn leave(&mut self, tokens: usize, cpu: Duration) {
        self.pace.leave(tokens, cpu);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn heat(root: &Path, millicelsius: u32) {
        let zone = root.join("sys/class/thermal/thermal_zone0");
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("type"), "cpu-thermal\n").unwrap();
        fs::write(zone.join("temp"), format!("{millicelsius}\n")).unwrap();
    }

    /// Waits for what another thread does.
    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(30));
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_is_hot_waits_and_can_be_stopped_and_the_watch_ends_with_the_work() {
        let root = tempfile::tempdir().unwrap();
        heat(root.path(), 99_000);
        let own = OwnLimits::new(root.path(), Limits::own(), 1);
        let (stop, begun) = (Stop::default(), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, begun, pace) = (stop.clone(), Arc::clone(&begun), own.pace());
            thread::spawn(move || {
                let mut pace = pace();
                while !stop.is_asked() {
                    pace.enter(&stop);
                    if stop.is_asked() {
                        break;
                    }
                    begun.fetch_add(1, Ordering::SeqCst);
                    pace.leave(1, Duration::from_millis(1));
                    thread::park_timeout(Duration::from_millis(1));
                }
            })
        };
        wait_until(|| own.waits_because().is_some());
        assert_eq!(own.waits_because().unwrap(), "99 °C, resumes below 90 °C");
        // One may have been under way, and is over when its slot is free.
        wait_until(|| own.0.valve.is_at_rest());
        let before = begun.load(Ordering::SeqCst);
        let since = Instant::now();
        wait_until(|| since.elapsed() > EVERY + EVERY / 2);
        assert_eq!(begun.load(Ordering::SeqCst), before, "it computes though it is hot");
        stop.ask();
        own.wake();
        thread.join().unwrap();
        assert!(locked(&own.0.watch).upgrade().is_none());
        wait_until(|| own.waits_because().is_none());
    }

    #[test]
    fn a_sensor_that_talks_nonsense_or_none_at_all_holds_nobody_up() {
        let root = tempfile::tempdir().unwrap();
        for celsius in [None, Some(4_000_000)] {
            celsius.into_iter().for_each(|celsius| heat(root.path(), celsius));
            let own = OwnLimits::new(root.path(), Limits::own(), 2);
            let mut pace = own.pace()();
            pace.enter(&Stop::default());
            assert_eq!(own.waits_because(), None);
        }
    }
}
