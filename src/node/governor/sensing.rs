//! The threads that may have to wait for a device: one reads the sensors when it is asked, one hears of sessions.

use std::{
    io,
    path::Path,
    sync::mpsc::{Receiver as StdReceiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{Lending, Message};
use crate::{
    node::wall_clock_ms,
    power::{GreenFetch, Moment, Sensors, SessionWatch, WatchStop},
    proto::budget::Reading,
};

/// After a fetch that brought nothing; then twice as long each time.
const FETCH_AGAIN: Duration = Duration::from_secs(5);

/// The way to the threads. They end when this is dropped; one that hangs in a sensor when that has let it go.
#[derive(Debug)]
pub(super) struct Sensing {
    asks: SyncSender<()>,
    watch: WatchStop,
    fetching: Option<AbortHandle>,
    /// What a busy core takes by the figure for this kind of machine.
    pub(super) milliwatts: u32,
}

impl Sensing {
    /// Starts them; files are read under `root`. Readings come out of the channel, what else is heard goes to `actor`.
    ///
    /// # Errors
    /// What the system says when it refuses a thread.
    pub(super) fn start(
        lending: &Lending,
        root: &Path,
        actor: mpsc::Sender<Message>,
    ) -> io::Result<(Self, mpsc::Receiver<Reading>)> {
        let zone = std::env::var_os("TZ");
        let sensors = Sensors::new(root, lending.green.clone(), zone, &moment());
        let milliwatts = sensors.energy_model().milliwatts();
        let fetching =
            sensors.green_fetch().map(|fetch| tokio::task::spawn_local(fetch_green(fetch)).abort_handle());
        let session_watch = sensors.watch();
        let watch = session_watch.stop();
        let (asks, asked) = sync_channel(1);
        let (sender, readings) = mpsc::channel(1);
        thread::Builder::new().name("sensors".into()).spawn(move || read(sensors, &asked, &sender))?;
        thread::Builder::new().name("sessions".into()).spawn(move || listen(session_watch, &actor))?;
        Ok((Self { asks, watch, fetching, milliwatts }, readings))
    }

    /// Asks for a reading; whether that was heard.
    pub(super) fn ask(&self) -> bool {
        match self.asks.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => true,
            Err(TrySendError::Disconnected(())) => false,
        }
    }
}

impl Drop for Sensing {
    fn drop(&mut self) {
        self.watch.stop();
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }
}

fn read(mut sensors: Sensors, asked: &StdReceiver<()>, readings: &mpsc::Sender<Reading>) {
    while asked.recv().is_ok() {
        let reading = sensors.read(&moment());
        if readings.blocking_send(reading).is_err() {
            return;
        }
    }
}

fn listen(mut watch: SessionWatch, actor: &mpsc::Sender<Message>) {
    while watch.wait() {
        // Where the actor is far behind it will look soon in any case.
        if let Err(mpsc::error::TrySendError::Closed(_)) = actor.try_send(Message::Look) {
            return;
        }
    }
}

async fn fetch_green(fetch: GreenFetch) {
    let mut wait = FETCH_AGAIN;
    loop {
        wait = match fetch.fetch(monotonic).await {
            Ok(_) => fetch.every(),
            Err(error) => {
                tracing::warn!(%error, "the green-power number is not to be had");
                // A network that is not up yet is up soon.
                if wait >= fetch.every() { FETCH_AGAIN } else { (wait * 2).min(fetch.every()) }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// The newest time that the store has is left out: a clock that was wrong once, and ahead, would close the hours of a right one
/// until that day, and nothing would open them.
pub(in crate::node) fn moment() -> Moment {
    Moment { monotonic: monotonic(), wall_ms: wall_clock_ms(), newest_ms: 0 }
}

fn monotonic() -> Duration {
    let at = clock_gettime(ClockId::Monotonic);
    Duration::new(at.tv_sec.unsigned_abs(), u32::try_from(at.tv_nsec).unwrap_or(0))
}
