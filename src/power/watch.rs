//! Hears from logind at once when a session comes, goes, locks or wakes.
//!
//! A second connection to the bus that only listens. It says no more than that something changed: the next reading asks
//! what. Terminals change without a signal; those the reading notices itself.

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    dbus::{Bus, BusError, Kind},
    presence::Signals,
};

/// For connecting and subscribing.
const SUBSCRIBE_WAIT: Duration = Duration::from_secs(2);
/// Between two tries to connect: twice as long each time. On a machine without logind it wakes once a minute.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Signals that come within so long of one that was passed on are passed on as one: readings then are at most so dense,
/// whatever a desktop does.
const PAUSE: Duration = Duration::from_millis(200);
/// Sessions come and go, or lock and wake; logind itself comes and goes.
const RULES: [&str; 3] = [
    "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.login1.Manager'",
    "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.DBus.Properties',\
     path_namespace='/org/freedesktop/login1/session'",
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.login1'",
];

/// What ends a watch from another thread.
#[derive(Debug, Default)]
struct Reins {
    state: Mutex<Held>,
    pulled: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    is_stopped: bool,
    socket: Option<UnixStream>,
}

impl Reins {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a [`SessionWatch`], whatever it waits for.
#[derive(Clone, Debug)]
pub struct WatchStop(Arc<Reins>);

impl WatchStop {
    /// Has [`SessionWatch::wait`] return `false`, now and ever after.
    pub fn stop(&self) {
        let mut held = self.0.held();
        held.is_stopped = true;
        if let Some(socket) = &held.socket {
            // A socket that is closed already needs no end.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.0.pulled.notify_all();
    }
}

/// Waits for logind, on a thread of its own.
#[derive(Debug)]
pub struct SessionWatch {
    socket: PathBuf,
    signals: Arc<Signals>,
    reins: Arc<Reins>,
    bus: Option<Bus>,
    retry: Duration,
    /// When the last change was passed on, and whether another one has come since.
    passed: Option<Instant>,
    is_due: bool,
}

impl SessionWatch {
    pub(super) fn new(socket: PathBuf, signals: Arc<Signals>) -> Self {
        Self {
            socket,
            signals,
            reins: Arc::default(),
            bus: None,
            retry: RETRY_MIN,
            passed: None,
            is_due: false,
        }
    }

    /// What ends it.
    pub fn stop(&self) -> WatchStop {
        WatchStop(Arc::clone(&self.reins))
    }

    /// Blocks until something changed about the sessions: then `true`, and it is time for a reading. `false` when it was
    /// stopped. Connects by itself, and again with backoff (1 s to 60 s) where there is no bus or it went away.
    pub fn wait(&mut self) -> bool {
        loop {
            if self.reins.held().is_stopped {
                self.lose();
                return false;
            }
            let Some(bus) = &mut self.bus else {
                if self.connect().is_ok() {
                    // What happened before the subscription nobody has told.
                    return self.pass();
                }
                self.rest();
                continue;
            };
            let pause = self.passed.map(|at| at + PAUSE).filter(|end| *end > Instant::now());
            if self.is_due && pause.is_none() {
                return self.pass();
            }
            match bus.wait(if self.is_due { pause } else { None }) {
                Ok(Some(message)) => self.is_due |= message.kind == Kind::Signal,
                Ok(None) => {}
                Err(_) => self.lose(),
            }
        }
    }

    fn pass(&mut self) -> bool {
        self.is_due = false;
        self.passed = Some(Instant::now());
        self.signals.changes.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Readings ask for themselves again.
    fn lose(&mut self) {
        self.signals.is_heard.store(false, Ordering::Release);
        self.reins.held().socket = None;
        self.bus = None;
    }

    fn connect(&mut self) -> Result<(), BusError> {
        let until = Instant::now() + SUBSCRIBE_WAIT;
        let mut bus = Bus::open(&self.socket, until)?;
        for rule in RULES {
            bus.subscribe(rule, until)?;
        }
        let mut held = self.reins.held();
        if held.is_stopped {
            return Err(BusError::Gone);
        }
        held.socket = Some(bus.handle()?);
        drop(held);
        self.bus = Some(bus);
        self.retry = RETRY_MIN;
        self.signals.is_heard.store(true, Ordering::Release);
        Ok(())
    }

    fn rest(&mut self) {
        let held = self.reins.held();
        let stopped = |held: &mut Held| !held.is_stopped;
        drop(self.reins.pulled.wait_timeout_while(held, self.retry, stopped));
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}
