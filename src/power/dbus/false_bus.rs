//! A false system bus with a false logind behind it, on a socket of the test's own.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use super::writer::Writer;

/// How the bus behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::power) enum Manners {
    /// As it should.
    #[default]
    Good,
    /// Accepts connections and never says a word.
    Mute,
    /// Answers the authentication and nothing after it.
    MuteAfterAuth,
    /// Turns everybody away.
    Rejects,
    /// Sends these bytes in place of every answer but Hello's, and closes.
    Says(Vec<u8>),
    /// Sends so many bytes of every answer but Hello's and then waits.
    Cuts(usize),
    /// Answers with this error.
    Refuses(&'static str),
    /// Sends signals for ever and no answer.
    Chatters,
}

/// A session of the false logind.
#[derive(Clone, Debug)]
pub(in crate::power) struct FalseSession {
    pub(in crate::power) class: &'static str,
    pub(in crate::power) state: &'static str,
    pub(in crate::power) is_idle: bool,
    pub(in crate::power) is_locked: bool,
    pub(in crate::power) idle_since_us: u64,
}

#[derive(Debug, Default)]
struct World {
    manners: Manners,
    is_big: bool,
    sessions: Vec<FalseSession>,
    /// Connections to which signals go.
    listeners: Vec<UnixStream>,
    open: Vec<UnixStream>,
    calls: usize,
}

/// Runs until the test ends.
#[derive(Clone, Debug, Default)]
pub(in crate::power) struct FalseBus {
    world: Arc<Mutex<World>>,
    subscribed: Arc<Condvar>,
}

impl FalseBus {
    /// Listens at the system bus' place under `root`.
    pub(in crate::power) fn start(root: &Path) -> Self {
        let dir = root.join("run/dbus");
        fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("system_bus_socket");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).unwrap();
        let bus = Self::default();
        let own = bus.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                own.world.lock().unwrap().open.push(stream.try_clone().unwrap());
                let bus = own.clone();
                thread::spawn(move || bus.serve(stream));
            }
        });
        bus
    }

    pub(in crate::power) fn manners(&self, manners: Manners) {
        self.world.lock().unwrap().manners = manners;
    }

    pub(in crate::power) fn big(&self, is_big: bool) {
        self.world.lock().unwrap().is_big = is_big;
    }

    pub(in crate::power) fn sessions(&self, sessions: &[FalseSession]) {
        self.world.lock().unwrap().sessions = sessions.to_vec();
    }

    /// Questions that were asked so far.
    pub(in crate::power) fn calls(&self) -> usize {
        self.world.lock().unwrap().calls
    }

    /// Tells every listener that something changed.
    pub(in crate::power) fn signal(&self) {
        let mut world = self.world.lock().unwrap();
        let signal = Writer::message(world.is_big, 4, 0, "", "", &[]);
        world.listeners.retain_mut(|stream| stream.write_all(&signal).is_ok());
    }

    /// Waits until so many matches were added.
    pub(in crate::power) fn await_listeners(&self, count: usize) {
        let world = self.world.lock().unwrap();
        drop(self.subscribed.wait_while(world, |world| world.listeners.len() < count).unwrap());
    }

    /// Ends all connections, as a restart does.
    pub(in crate::power) fn hang_up(&self) {
        let mut world = self.world.lock().unwrap();
        world.listeners.clear();
        for stream in world.open.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// One connection, to its end.
    fn serve(&self, mut stream: UnixStream) -> Option<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            line.extend(byte);
        }
        assert!(line.starts_with(b"\0AUTH EXTERNAL 3"), "{line:?}");
        match self.world.lock().unwrap().manners {
            Manners::Mute => return Some(()),
            Manners::Rejects => return stream.write_all(b"REJECTED EXTERNAL\r\n").ok(),
            _ => stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").ok()?,
        }
        let mut begin = [0; 7];
        stream.read_exact(&mut begin).ok()?;
        assert_eq!(&begin, b"BEGIN\r\n");
        loop {
            let mut head = [0; super::HEAD_BYTES];
            stream.read_exact(&mut head).ok()?;
            let mut call = head.to_vec();
            call.resize(super::bytes::length(&head).unwrap(), 0);
            stream.read_exact(&mut call[super::HEAD_BYTES..]).ok()?;
            if !self.answer(&mut stream, &call)? {
                return Some(());
            }
        }
    }

    /// Whether to go on.
    fn answer(&self, stream: &mut UnixStream, call: &[u8]) -> Option<bool> {
        let has = |text: &str| call.windows(text.len()).any(|part| part == text.as_bytes());
        let serial = u32::from_le_bytes(call[8..12].try_into().unwrap()) as usize;
        let mut world = self.world.lock().unwrap();
        world.calls += 1;
        let mut body = Writer::new(world.is_big);
        let signature = if has("Hello") {
            body.string(":1.7");
            "s"
        } else if has("ListSessions") {
            let count = world.sessions.len();
            body.array(8, |body| {
                for n in 0..count {
                    body.pad(8)
                        .string(&n.to_string())
                        .u32(1000)
                        .string("ann")
                        .string("seat1")
                        .string(&path(n));
                }
            });
            "a(susso)"
        } else if has("GetAll") {
            let session = world.sessions.iter().enumerate().find(|(n, _)| has(&path(*n)))?.1.clone();
            properties(&mut body, &session);
            "a{sv}"
        } else {
            assert!(has("AddMatch"));
            if has("NameOwnerChanged") {
                world.listeners.push(stream.try_clone().ok()?);
                self.subscribed.notify_all();
            }
            ""
        };
        let bytes = Writer::message(world.is_big, 2, serial, "", signature, &body.out);
        let manners = if has("Hello") && world.manners != Manners::MuteAfterAuth {
            Manners::Good
        } else {
            world.manners.clone()
        };
        let is_big = world.is_big;
        drop(world);
        match manners {
            Manners::Good => stream.write_all(&bytes).ok()?,
            Manners::Says(bytes) => {
                stream.write_all(&bytes).ok()?;
                stream.shutdown(std::net::Shutdown::Write).ok()?;
                return Some(false);
            }
            Manners::Cuts(at) => stream.write_all(bytes.get(..at).unwrap_or(&bytes)).ok()?,
            Manners::Refuses(name) => {
                stream.write_all(&Writer::message(is_big, 3, serial, name, "", &[])).ok()?
            }
            Manners::Chatters => loop {
                stream.write_all(&Writer::message(is_big, 4, 0, "", "", &[])).ok()?;
            },
            Manners::Mute | Manners::MuteAfterAuth | Manners::Rejects => {}
        }
        Some(true)
    }
}

fn path(n: usize) -> String {
    format!("/org/freedesktop/login1/session/_3{n}_")
}

/// With properties about them that nobody asked for, of every kind that logind has.
fn properties(body: &mut Writer, session: &FalseSession) {
    body.array(8, |body| {
        body.pad(8)
            .string("User")
            .signature("(uo)")
            .pad(8)
            .u32(1000)
            .string("/org/freedesktop/login1/user/_1000");
        body.pad(8).string("Class").signature("s").string(session.class);
        body.pad(8).string("Remote").signature("b").u32(0);
        body.pad(8).string("State").signature("s").string(session.state);
        body.pad(8).string("Timestamp").signature("t").u64(u64::MAX);
        body.pad(8).string("IdleHint").signature("b").u32(usize::from(session.is_idle));
        body.pad(8).string("IdleSinceHintMonotonic").signature("t").u64(session.idle_since_us);
        body.pad(8).string("ExtraDevices").signature("a(ss)").array(8, |body| {
            body.pad(8).string("a").string("b");
        });
        body.pad(8).string("LockedHint").signature("b").u32(usize::from(session.is_locked));
    });
}
