//! A false logind behind a false bus, and terminals where there is none.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::Instant,
};

use super::*;
use crate::power::dbus::false_bus::{FalseBus, FalseSession, Manners};

const BUSY: FalseSession =
    FalseSession { class: "user", state: "active", is_idle: false, is_locked: false, idle_since_us: 0 };
const AWAY: FalseSession = FalseSession { is_idle: true, idle_since_us: 40_000_000, ..BUSY };
const GREETER: FalseSession = FalseSession { class: "greeter", ..BUSY };

struct Desk {
    dir: tempfile::TempDir,
    sensor: PresenceSensor,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), sensor: PresenceSensor::default() }
    }

    fn with_bus() -> (Self, FalseBus) {
        let desk = Self::new();
        let bus = FalseBus::start(desk.dir.path());
        (desk, bus)
    }

    fn read(&mut self, at_s: u64) -> Sensed<Presence> {
        self.sensor.read(&Root::new(self.dir.path()), &Moment::at_ms(at_s * 1000))
    }

    /// A watch on a thread; a message for every change.
    fn watch(&self) -> (crate::power::WatchStop, Receiver<()>, thread::JoinHandle<()>) {
        let mut watch = self.sensor.watch(&Root::new(self.dir.path()));
        let stop = watch.stop();
        let (changed, changes) = sync_channel(64);
        let thread = thread::spawn(move || {
            while watch.wait() {
                let _ = changed.send(());
            }
        });
        (stop, changes, thread)
    }
}

fn idle(for_s: u64) -> Sensed<Presence> {
    Sensed::Is(Presence::Idle { for_s })
}

const IN_USE: Sensed<Presence> = Sensed::Is(Presence::InUse);

#[test]
fn logind_tells_in_both_byte_orders() {
    for is_big in [false, true] {
        let (mut desk, bus) = Desk::with_bus();
        bus.big(is_big);
        assert_eq!(desk.read(100), idle(100), "nobody is logged in");
        bus.sessions(&[GREETER]);
        assert_eq!(desk.read(101), idle(101));
        bus.sessions(&[GREETER, AWAY]);
        assert_eq!(desk.read(102), idle(62));
        bus.sessions(&[GREETER, AWAY, FalseSession { state: "online", ..BUSY }]);
        assert_eq!(desk.read(103), IN_USE, "switched away, and still there");
        bus.sessions(&[FalseSession { is_locked: true, ..BUSY }]);
        assert_eq!(desk.read(104), idle(0));
        assert_eq!(desk.read(109), idle(5));
    }
}

#[test]
fn a_bad_bus_is_broken_and_comes_back() {
    let (mut desk, bus) = Desk::with_bus();
    bus.sessions(&[BUSY]);
    assert_eq!(desk.read(100), IN_USE);
    bus.manners(Manners::Says(vec![b'?'; 64]));
    assert_eq!(desk.read(101), Sensed::Broken(Fault::Nonsense));
    bus.manners(Manners::Refuses("org.freedesktop.DBus.Error.AccessDenied"));
    assert_eq!(desk.read(102), Sensed::Broken(Fault::Unreadable));
    bus.manners(Manners::Refuses("org.freedesktop.DBus.Error.ServiceUnknown"));
    assert_eq!(desk.read(103), Sensed::Broken(Fault::Vanished));
    bus.manners(Manners::Good);
    assert_eq!(desk.read(104), IN_USE);
    bus.hang_up();
    assert_eq!(desk.read(105), IN_USE, "a bus that was restarted is asked anew at once");
}

#[test]
fn a_bus_that_hangs_is_left_alone_for_a_while() {
    let (mut desk, bus) = Desk::with_bus();
    bus.manners(Manners::MuteAfterAuth);
    let begun = Instant::now();
    assert_eq!(desk.read(100), Sensed::Broken(Fault::Stale));
    assert!(begun.elapsed() < Duration::from_millis(1500));
    bus.manners(Manners::Good);
    let begun = Instant::now();
    assert_eq!(desk.read(105), Sensed::Broken(Fault::Stale));
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!(desk.read(110), idle(110));
}

#[test]
fn the_watch_wakes_within_a_second_and_spares_questions() {
    let (mut desk, bus) = Desk::with_bus();
    bus.sessions(&[AWAY]);
    let (stop, changes, thread) = desk.watch();
    let second = Duration::from_secs(1);
    changes.recv_timeout(second).expect("connected: time for a reading");
    bus.await_listeners(1);
    assert_eq!(desk.read(100), idle(60));
    let asked = bus.calls();
    assert_eq!(desk.read(110), idle(70), "the answer stands, and its age grows");
    assert_eq!(bus.calls(), asked);
    bus.sessions(&[BUSY]);
    bus.signal();
    changes.recv_timeout(second).expect("a signal");
    assert_eq!(desk.read(111), IN_USE);
    bus.sessions(&[AWAY]);
    assert_eq!(desk.read(112), IN_USE, "nobody told us");
    assert_eq!(desk.read(142), idle(102), "no answer stands for longer than half a minute");
    stop.stop();
    thread.join().unwrap();
    bus.sessions(&[BUSY]);
    assert_eq!(desk.read(143), IN_USE, "without a watch every reading asks");
}

#[test]
fn the_watch_comes_back_and_can_be_stopped_at_any_time() {
    let (desk, bus) = Desk::with_bus();
    let (stop, changes, thread) = desk.watch();
    let wait = Duration::from_secs(5);
    changes.recv_timeout(wait).unwrap();
    bus.await_listeners(1);
    bus.hang_up();
    changes.recv_timeout(wait).expect("connected again");
    stop.stop();
    thread.join().unwrap();

    let nowhere = Desk::new();
    let (stop, changes, thread) = nowhere.watch();
    assert_eq!(changes.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    let begun = Instant::now();
    stop.stop();
    thread.join().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "even while it waits to try again");
}

#[test]
fn a_storm_of_signals_is_a_few_readings() {
    let (desk, bus) = Desk::with_bus();
    let (stop, changes, thread) = desk.watch();
    changes.recv_timeout(Duration::from_secs(1)).unwrap();
    bus.await_listeners(1);
    let begun = Instant::now();
    for _ in 0..2000 {
        bus.signal();
    }
    // The last of them is not lost.
    while changes.recv_timeout(Duration::from_millis(600)).is_ok() {}
    stop.stop();
    thread.join().unwrap();
    let passed = desk.sensor.signals.changes.load(Ordering::Acquire);
    let most = 3 + begun.elapsed().as_millis() as u64 / 200;
    assert!((2..=most).contains(&passed), "{passed} of at most {most}");
}

#[test]
fn without_logind_the_terminals_tell() {
    let mut desk = Desk::new();
    assert_eq!(desk.read(100), Sensed::Absent);
    let pts = desk.dir.path().join("dev/pts");
    std::fs::create_dir_all(&pts).unwrap();
    assert_eq!(desk.read(101), idle(101));
    std::fs::write(pts.join("0"), "").unwrap();
    let stamp = |at_s: u64| {
        let at = std::time::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + at_s * 1000);
        let file = std::fs::File::options().write(true).open(pts.join("0")).unwrap();
        file.set_times(std::fs::FileTimes::new().set_accessed(at)).unwrap();
    };
    stamp(104);
    assert_eq!(desk.read(106), IN_USE);
    assert_eq!(desk.read(114), idle(10));
    let bus = FalseBus::start(desk.dir.path());
    bus.sessions(&[BUSY]);
    assert_eq!(desk.read(115), IN_USE, "logind came later");
}

#[test]
fn a_keystroke_asks_logind_at_once() {
    let (mut desk, bus) = Desk::with_bus();
    let pts = desk.dir.path().join("dev/pts");
    std::fs::create_dir_all(&pts).unwrap();
    bus.sessions(&[AWAY]);
    let (stop, changes, thread) = desk.watch();
    changes.recv_timeout(Duration::from_secs(1)).unwrap();
    assert_eq!(desk.read(100), idle(60));
    bus.sessions(&[BUSY]);
    assert_eq!(desk.read(101), idle(61));
    std::fs::write(pts.join("3"), "").unwrap();
    assert_eq!(desk.read(102), IN_USE, "a new terminal");
    stop.stop();
    thread.join().unwrap();
}
