//! What a service manager hears of a node: that it is ready, that it lives, that it ends (sd_notify(3)).
//!
//! Deliberately absent: a C library, for the protocol is lines in a datagram; a timer that says "alive" whatever else
//! stands still; and sockets of virtual machines (`vsock:`).

use std::{
    ffi::OsString,
    io,
    os::{linux::net::SocketAddrExt, unix::ffi::OsStrExt, unix::net::SocketAddr, unix::net::UnixDatagram},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Control, NodeError, NodeStatus};

/// Variables by which a service manager says where and how often it listens; they are meant for one process alone.
pub const SUPERVISOR_VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Longest wait for a manager that does not read. Once the beats have begun nobody waits for it.
const SEND_WAIT: Duration = Duration::from_secs(1);

/// Why nobody hears of the node.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the service manager at NOTIFY_SOCKET={}; it will not hear that this node is ready", place.display())]
pub struct SupervisorError {
    /// As the variable says.
    place: PathBuf,
    /// What the system said.
    #[source]
    source: io::Error,
}

/// Whoever started this process and wants to hear of it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: Arc<UnixDatagram>,
    /// It takes the node for dead when it has heard nothing for so long.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that these variables name; none where nobody listens.
    ///
    /// # Errors
    /// [`SupervisorError`], where somebody should.
    pub fn named_by(
        variable: impl Fn(&str) -> Option<OsString>,
        process: u32,
    ) -> Result<Option<Self>, SupervisorError> {
        let [place, every, whom] = SUPERVISOR_VARIABLES.map(variable);
        let Some(place) = place.filter(|place| !place.is_empty()) else { return Ok(None) };
        let socket = connect(place.as_bytes())
            .map_err(|source| SupervisorError { place: place.clone().into(), source })?;
        let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
        // Where it is meant for another process, one that we were started by perhaps, it is not for us.
        let is_ours = whom.is_none_or(|whom| number(whom) == Some(process.into()));
        let every = every.and_then(number).filter(|&us| us > 0 && is_ours);
        Ok(Some(Self { socket: Arc::new(socket), watchdog: every.map(Duration::from_micros) }))
    }

    /// The node answers, and this is what it does.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// It ends, and this is what it is about.
    pub fn stopping(&self, status: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// From now on tells that the node lives, each time after all of its parts have answered, where that is wanted; a part
    /// that hangs is heard by this falling silent.
    pub(super) fn watch(
        self,
        control: &Control,
        actors: &mut JoinSet<Result<(), NodeError>>,
        cancelled: &CancellationToken,
    ) {
        let Some(every) = self.watchdog else { return };
        let (control, cancelled) = (control.clone(), cancelled.clone());
        actors.spawn_local(async move {
            let turn = async || Ok(said(&control.status().await?));
            self.beat(every / 2, turn, cancelled).await
        });
    }

    async fn beat(
        &self,
        every: Duration,
        turn: impl AsyncFn() -> Result<String, NodeError>,
        cancelled: CancellationToken,
    ) -> Result<(), NodeError> {
        let beats = async {
            sleep(every).await;
            // This thread is the node's: a beat that finds no room is the manager's loss, and the next one comes.
            if let Err(error) = self.socket.set_nonblocking(true) {
                tracing::warn!(%error, "the service manager may hold up this node");
            }
            // A part that has ended takes the node down by itself.
            while let Ok(status) = turn().await {
                self.tell(&format!("WATCHDOG=1\nSTATUS={}", one_line(&status)));
                sleep(every).await;
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = beats => {}
        }
        Ok(())
    }

    fn tell(&self, lines: &str) {
        if let Err(error) = self.socket.send(lines.as_bytes()) {
            tracing::warn!(%error, "the service manager does not hear this node");
        }
    }
}

/// A path, or after an `@` a name in the abstract name space.
fn connect(place: &[u8]) -> io::Result<UnixDatagram> {
    let address = match place {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(place))?,
        _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_WAIT))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// A line end would begin a new assignment.
fn one_line(status: &str) -> String {
    status.replace(['\n', '\r'], " ")
}

/// What `systemctl status` shows: as it was when the node was asked.
fn said(status: &NodeStatus) -> String {
    let lends = match &status.lending {
        None => "lends nothing".to_owned(),
        Some(lending) if lending.budget.threads == 0 => {
            let reasons: Vec<String> = lending.budget.reasons.iter().map(ToString::to_string).collect();
            format!("lends nothing now: {}", reasons.join("; "))
        }
        Some(lending) => format!("lends {} threads", lending.budget.threads),
    };
    format!("{lends}; {} peers connected", status.peers.len())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn named_by(pairs: &[(&str, OsString)]) -> Result<Option<Supervisor>, SupervisorError> {
        let value = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone());
        Supervisor::named_by(value, 7)
    }

    /// A manager's end, at a path, and the way to it.
    fn manager(directory: &tempfile::TempDir) -> (UnixDatagram, OsString) {
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (socket, path.into())
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn who_listens_is_what_the_variables_say() {
        let directory = tempfile::tempdir().unwrap();
        assert!(named_by(&[]).unwrap().is_none());
        assert!(named_by(&[("NOTIFY_SOCKET", "".into())]).unwrap().is_none());
        for nowhere in ["relative", "vsock:2:9999", "/nowhere/at/all", "@nobody-listens-here"] {
            let error = named_by(&[("NOTIFY_SOCKET", nowhere.into())]).unwrap_err().to_string();
            assert!(error.contains(nowhere), "{error}");
        }
        let (socket, path) = manager(&directory);
        let place = ("NOTIFY_SOCKET", path);
        let watchdog = |more: &[(&str, &str)]| {
            let more = more.iter().map(|(name, value)| (*name, OsString::from(value)));
            let pairs: Vec<_> = [place.clone()].into_iter().chain(more).collect();
            named_by(&pairs).unwrap().unwrap().watchdog
        };
        assert_eq!(watchdog(&[]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(watchdog(&[("WATCHDOG_USEC", "3000000")]), Some(Duration::from_secs(3)));
        let of = |process| watchdog(&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", process)]);
        assert_eq!((of("7"), of("8")), (Some(Duration::from_secs(3)), None));
        named_by(std::slice::from_ref(&place)).unwrap().unwrap().ready("two\nlines");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=two lines");
    }

    #[test]
    fn a_part_that_hangs_is_heard_by_silence() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, path) = manager(&directory);
        let supervisor = named_by(&[("NOTIFY_SOCKET", path)]).unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (asked, cancelled) = (Cell::new(0), CancellationToken::new());
        let turn = async || {
            asked.set(asked.get() + 1);
            if asked.get() > 2 {
                std::future::pending::<()>().await;
            }
            Ok(format!("turn {}", asked.get()))
        };
        let beats = supervisor.beat(Duration::from_millis(5), turn, cancelled.clone());
        let hangs = async {
            while asked.get() < 3 {
                tokio::task::yield_now().await;
            }
            // Ten times as long as a timer would take to say that all is well.
            sleep(Duration::from_millis(50)).await;
            cancelled.cancel();
        };
        runtime.block_on(async { tokio::join!(beats, hangs) }).0.unwrap();
        assert_eq!(heard(&socket), "WATCHDOG=1\nSTATUS=turn 1");
        assert_eq!(heard(&socket), "WATCHDOG=1\nSTATUS=turn 2");
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
