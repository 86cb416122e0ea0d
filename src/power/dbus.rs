//! A small D-Bus client: asks a service on the system bus, and waits for its signals.
//!
//! Deliberately absent: everything that logind does not need: objects of our own, file descriptors, other transports, the
//! session bus, `DBUS_SYSTEM_BUS_ADDRESS`. Every read and write has an end: a bus that hangs costs one wait.
//! Source: D-Bus specification 0.43, "Authentication Protocol", "Message Bus Specification".

mod bytes;

#[cfg(test)]
pub(super) mod false_bus;
#[cfg(test)]
mod writer;

use std::{
    io::{ErrorKind, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, Socket, Type};

pub(super) use bytes::{Call, Kind, Message};
use bytes::{HEAD_BYTES, MESSAGE_BYTES_MAX};

use super::root::{Lack, NONSENSE};
use crate::proto::budget::Fault;

/// For one read or write; a bus on a loaded Pi Zero answers within a tenth.
const STEP_WAIT: Duration = Duration::from_millis(500);
/// Bytes of a line of the authentication.
const LINE_BYTES_MAX: usize = 512;
/// Messages that may come before an answer: some signals that the bus sends to everybody.
const STRAY_MAX: usize = 64;

/// Why the bus did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BusError {
    /// Nobody listens.
    Missing,
    /// It does not answer in time.
    Silent,
    /// The connection ended, or the system refused it.
    Gone,
    /// What came is no D-Bus.
    Malformed,
    /// It answered with an error of this name.
    Refused(String),
}

impl From<bytes::Malformed> for BusError {
    fn from(_: bytes::Malformed) -> Self {
        Self::Malformed
    }
}

impl BusError {
    /// In the words of a sensor. A bus without the service is as good as no bus.
    pub(super) fn lack(&self) -> Lack {
        match self {
            Self::Missing => Lack::Missing,
            Self::Refused(name) if name.ends_with(".ServiceUnknown") || name.ends_with(".NameHasNoOwner") => {
                Lack::Missing
            }
            Self::Silent => Lack::Broken(Fault::Stale),
            Self::Malformed => NONSENSE,
            Self::Gone | Self::Refused(_) => Lack::Broken(Fault::Unreadable),
        }
    }
}

/// A connection to a message bus, authenticated and greeted.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects, shows who we are (`EXTERNAL`: the kernel vouches for the user id) and says hello, all before `until`.
    ///
    /// # Errors
    /// [`BusError`].
    pub(super) fn open(path: &Path, until: Instant) -> Result<Self, BusError> {
        let mut bus = Self { stream: connect(path)?, serial: 0 };
        let id: String =
            rustix::process::geteuid().as_raw().to_string().bytes().map(|b| format!("{b:02x}")).collect();
        bus.write(format!("\0AUTH EXTERNAL {id}\r\n").as_bytes(), until)?;
        let line = bus.line(until)?;
        if !line.starts_with(b"OK ") {
            return Err(if line.starts_with(b"REJECTED") { BusError::Gone } else { BusError::Malformed });
        }
        bus.write(b"BEGIN\r\n", until)?;
        bus.call(&bus_call("Hello", None), until)?;
        Ok(bus)
    }

    /// Asks and waits for the answer; what else comes meanwhile is dropped.
    ///
    /// # Errors
    /// [`BusError`]. After any but [`BusError::Refused`] the connection is of no use.
    pub(super) fn call(&mut self, call: &Call<'_>, until: Instant) -> Result<Message, BusError> {
        self.serial = self.serial.checked_add(1).ok_or(BusError::Gone)?;
        self.write(&bytes::call_bytes(call, self.serial), until)?;
        for _ in 0..STRAY_MAX {
            let message = self.message(until)?;
            if message.answers != Some(self.serial) {
                continue;
            }
            match message.kind {
                Kind::Answer => return Ok(message),
                Kind::Refusal => return Err(BusError::Refused(message.error)),
                Kind::Signal | Kind::Other => {}
            }
        }
        Err(BusError::Malformed)
    }

    /// Has the bus send signals that fit `rule` (specification, "Match Rules").
    ///
    /// # Errors
    /// [`BusError`].
    pub(super) fn subscribe(&mut self, rule: &str, until: Instant) -> Result<(), BusError> {
        self.call(&bus_call("AddMatch", Some(rule)), until).map(drop)
    }

    /// Waits for the next message: for ever, or until a moment, and then there is `None`. Once its first byte is there the
    /// rest has to come soon.
    ///
    /// # Errors
    /// [`BusError`].
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Result<Option<Message>, BusError> {
        let mut head = [0; HEAD_BYTES];
        let mut read = 0;
        while read == 0 {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            self.stream.set_read_timeout(left).map_err(|_| BusError::Gone)?;
            read = match self.stream.read(&mut head) {
                Ok(0) => return Err(BusError::Gone),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                Err(error) if failure(&error) == BusError::Silent => return Ok(None),
                Err(_) => return Err(BusError::Gone),
            };
        }
        let until = Instant::now() + STEP_WAIT;
        self.read(&mut head[read..], until)?;
        self.rest(&head, until).map(Some)
    }

    /// A handle that can end [`Bus::wait`] from another thread.
    ///
    /// # Errors
    /// [`BusError::Gone`] where the system refuses a copy.
    pub(super) fn handle(&self) -> Result<UnixStream, BusError> {
        self.stream.try_clone().map_err(|_| BusError::Gone)
    }

    fn message(&mut self, until: Instant) -> Result<Message, BusError> {
        let mut head = [0; HEAD_BYTES];
        self.read(&mut head, until)?;
        self.rest(&head, until)
    }

    fn rest(&mut self, head: &[u8; HEAD_BYTES], until: Instant) -> Result<Message, BusError> {
        let mut whole = head.to_vec();
        // The length was held to the bound before anything of it is allocated.
        whole.resize(bytes::length(head)?, 0);
        self.read(&mut whole[HEAD_BYTES..], until)?;
        Ok(bytes::parse(whole)?)
    }

    /// One line of the authentication; after it the bus is silent until we go on.
    fn line(&mut self, until: Instant) -> Result<Vec<u8>, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() >= LINE_BYTES_MAX {
                return Err(BusError::Malformed);
            }
            let mut part = [0; LINE_BYTES_MAX];
            let read = self.some(&mut part, until)?;
            line.extend(&part[..read]);
        }
        Ok(line)
    }

    fn read(&mut self, mut into: &mut [u8], until: Instant) -> Result<(), BusError> {
        while !into.is_empty() {
            let read = self.some(into, until)?;
            into = &mut into[read..];
        }
        Ok(())
    }

    fn some(&mut self, into: &mut [u8], until: Instant) -> Result<usize, BusError> {
        loop {
            self.stream.set_read_timeout(Some(left(until)?)).map_err(|_| BusError::Gone)?;
            match self.stream.read(into) {
                Ok(0) => return Err(BusError::Gone),
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8], until: Instant) -> Result<(), BusError> {
        debug_assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(until)?)).map_err(|_| BusError::Gone)?;
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        Ok(())
    }
}

/// A question to the bus itself.
fn bus_call<'a>(member: &'a str, argument: Option<&'a str>) -> Call<'a> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        argument,
    }
}

/// A bus whose queue of arrivals is full would hold a blocking connect for as long as it hangs.
fn connect(path: &Path) -> Result<UnixStream, BusError> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|_| BusError::Gone)?;
    let address = SockAddr::unix(path).map_err(|_| BusError::Missing)?;
    socket.set_nonblocking(true).map_err(|_| BusError::Gone)?;
    socket.connect(&address).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => BusError::Missing,
        _ => failure(&error),
    })?;
    socket.set_nonblocking(false).map_err(|_| BusError::Gone)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// What is left of the time, and no more than one step may take.
fn left(until: Instant) -> Result<Duration, BusError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(BusError::Silent) } else { Ok(left.min(STEP_WAIT)) }
}

fn failure(error: &std::io::Error) -> BusError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => BusError::Silent,
        _ => BusError::Gone,
    }
}

#[cfg(test)]
mod tests;
