//! Announces this node on its LAN and tells of others there (RFC 6762, RFC 6763), over mdns-sd's thread.
//!
//! Deliberately absent: anything that names the machine, its user or the node. The label and the host name are
//! random and the TXT record holds a version, so that nobody recognises a device by what it announces. And asking who is
//! still there: a node that died without a goodbye is told of until its records end after two minutes, and dialled ever
//! more seldom; if all whose dial failed asked the whole LAN for it, that would cost more.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use mdns_sd::{Metrics, Receiver, RecvError, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    DiscoveryError, Interfaces, Sighting,
    meter::Meter,
    sightings::{SERVICE, Table, VERSION, full_name, is_label},
};

/// How often mdns-sd looks whether interfaces came or went, in seconds. Its own 5 s would be most of an idle
/// node's wake-ups; a cable that is plugged in may wait half a minute.
const INTERFACE_CHECK_S: u32 = 30;
/// How often the meter is opened anew, for interfaces come and go.
const METER_RENEWAL: Duration = Duration::from_secs(60);
/// How often mdns-sd is asked how much it holds while there is traffic.
const CACHE_CHECK: Duration = Duration::from_millis(250);
/// Records in mdns-sd's cache at which it is started anew, for it keeps whatever answers it hears without a
/// bound. 256 nodes on two interfaces are about 6,000.
const CACHED_RECORDS_MAX: i64 = 20_000;
/// Timers at which it is started anew: 16 bytes each, two for every record heard, kept for up to 75 minutes. As
/// 256 nodes that start one after the other and all answer each other make 260,000.
const TIMERS_MAX: i64 = 1_000_000;
/// Reports at which it is started anew: it also keeps the name of every node that it ever resolved.
const REPORTS_MAX: u32 = 50_000;
/// Least time between two starts of mdns-sd: what makes it fail once may do so again.
const RESTART_SPACING: Duration = Duration::from_secs(5);
/// mdns-sd repeats its goodbye after 120 ms, for Wi-Fi loses multicast.
const GOODBYE_REPEATED: Duration = Duration::from_millis(150);
/// Longest that leaving waits for the goodbye.
const WITHDRAW_MAX: Duration = Duration::from_millis(500);

/// What this node tells the LAN of itself.
#[derive(Debug, Clone)]
pub struct Announce {
    /// 16 characters of lower-case hex, new and random at every start of the network: a peer id, or a label that
    /// lasts, would be a tracking beacon.
    pub label: String,
    /// UDP port of the QUIC endpoint.
    pub port: u16,
}

/// The announcement. Dropping it says goodbye once without waiting; [`Mdns::withdraw`] does better.
pub struct Mdns {
    service: Arc<Service>,
}

/// News of others, for as long as the announcement lasts. Somebody must wait for them even where nobody wants
/// them: it is there that mdns-sd is kept within bounds.
pub struct Sightings {
    service: Arc<Service>,
    events: Receiver<ServiceEvent>,
    table: Table,
    /// When mdns-sd, or the subscription, last began.
    started: Instant,
    /// Reports since mdns-sd began.
    reports: u32,
    /// `None` before the first call, which has a runtime.
    meter: Option<Meter>,
    /// Whether the meter wakes us; not while there is traffic, which a timer follows.
    watching: bool,
    next_check: Instant,
    /// Figures that mdns-sd was asked for and has not given yet.
    asked: Option<Receiver<Metrics>>,
    /// Whether mdns-sd was told to end.
    ending: bool,
}

struct Service {
    announce: Announce,
    interfaces: Interfaces,
    running: Mutex<Running>,
}

struct Running {
    daemon: ServiceDaemon,
    withdrawn: bool,
}

impl Mdns {
    /// Announces this node and looks for others, in a thread of mdns-sd's. Does not wait for anything. Names are
    /// not probed for, as RFC 6762 §8.1 has it for names that nobody else can have: the node is announced at
    /// once, and no forged conflict can rename it.
    ///
    /// # Errors
    /// [`DiscoveryError`] where there is no multicast; the node can go on without.
    pub fn start(announce: Announce, interfaces: Interfaces) -> Result<(Self, Sightings), DiscoveryError> {
        if !is_label(&announce.label) {
            return Err(DiscoveryError::Label { label: announce.label });
        }
        interfaces.probe()?;
        let (daemon, events) = start_daemon(&announce, interfaces)?;
        let table = Table::new(announce.label.clone());
        let running = Mutex::new(Running { daemon, withdrawn: false });
        let service = Arc::new(Service { announce, interfaces, running });
        let now = Instant::now();
        let sightings = Sightings {
            service: Arc::clone(&service),
            events,
            table,
            started: now,
            reports: 0,
            meter: None,
            watching: false,
            next_check: now,
            asked: None,
            ending: false,
        };
        Ok((Self { service }, sightings))
    }

    /// Says goodbye, twice, and ends mdns-sd's thread; [`Sightings::next`] then gives `None`. Waits at most
    /// 500 ms. Dropped half-way, it still says goodbye once.
    pub async fn withdraw(self) {
        let daemon = {
            let mut running = self.service.lock();
            running.withdrawn = true;
            running.daemon.clone()
        };
        let name = full_name(&self.service.announce.label);
        let goodbye = async {
            if let Ok(done) = daemon.unregister(&name) {
                // No answer means that the thread has ended, and then there is nothing to wait for.
                if done.recv_async().await.is_ok() {
                    sleep(GOODBYE_REPEATED).await;
                }
            }
            if let Ok(done) = daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        };
        if timeout(WITHDRAW_MAX, goodbye).await.is_err() {
            tracing::debug!("mdns did not say goodbye in time");
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        let mut running = self.service.lock();
        running.withdrawn = true;
        // Refused only by a thread that has ended, or whose queue is full of other commands of ours.
        let _ = running.daemon.shutdown();
    }
}

impl Service {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Step {
    Report(Result<ServiceEvent, RecvError>),
    Figures(Result<Metrics, RecvError>),
    Check,
}

impl Sightings {
    /// Waits for the next news; `None` once the announcement is withdrawn. Restarts mdns-sd where that has died
    /// or holds too much. Needs a tokio runtime with time and IO. Cancel safe: what has begun goes on with the
    /// next call.
    pub async fn next(&mut self) -> Option<Sighting> {
        loop {
            if let Some(sighting) = self.table.pop() {
                return Some(sighting);
            }
            match self.step().await {
                Step::Report(Ok(event)) => {
                    self.reports = self.reports.saturating_add(1);
                    self.table.take(&event);
                }
                Step::Report(Err(_)) => self.resume().await?,
                Step::Figures(figures) => {
                    self.asked = None;
                    self.end_if_flooded(&figures.unwrap_or_default());
                }
                Step::Check => self.check(),
            }
        }
    }

    async fn step(&self) -> Step {
        let mut report = pin!(self.events.recv_async());
        let mut figures = pin!(self.asked.as_ref().map(Receiver::recv_async));
        let mut due = pin!(sleep_until(self.next_check));
        poll_fn(|cx| {
            if let Poll::Ready(report) = report.as_mut().poll(cx) {
                return Poll::Ready(Step::Report(report));
            }
            if let Some(Poll::Ready(figures)) = figures.as_mut().as_pin_mut().map(|figures| figures.poll(cx))
            {
                return Poll::Ready(Step::Figures(figures));
            }
            let meter = self.meter.as_ref().filter(|_| self.watching);
            let passed = meter.is_some_and(|meter| meter.poll_passed(cx).is_ready());
            if passed || due.as_mut().poll(cx).is_ready() { Poll::Ready(Step::Check) } else { Poll::Pending }
        })
        .await
    }

    /// Subscribes again after mdns-sd dropped the subscription: it was withdrawn, or its queue was full, or it was
    /// ended by [`Self::end_if_flooded`], or it died. `None` if it was withdrawn.
    async fn resume(&mut self) -> Option<()> {
        if !self.service.lock().withdrawn {
            sleep_until(self.started + RESTART_SPACING).await;
        }
        let mut running = self.service.lock();
        if running.withdrawn {
            return None;
        }
        self.started = Instant::now();
        let again = match running.daemon.browse(SERVICE) {
            // One that is ending may still take the command.
            Ok(events) if !self.ending => Ok(events),
            _ => start_daemon(&self.service.announce, self.service.interfaces).map(|(daemon, events)| {
                running.daemon = daemon;
                self.ending = false;
                self.reports = 0;
                events
            }),
        };
        match again {
            Ok(events) => {
                self.events = events;
                self.table.begin();
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "mdns does not start again; trying on");
            }
        }
        Some(())
    }

    /// While there is traffic, asks how much mdns-sd holds, and looks again soon; else has the meter watch.
    fn check(&mut self) {
        let traffic = self.meter.as_ref().is_some_and(Meter::drain);
        self.watching = !traffic;
        if traffic {
            self.next_check = Instant::now() + CACHE_CHECK;
            if self.asked.is_none() {
                self.asked = self.service.lock().daemon.get_metrics().ok();
            }
        } else {
            self.meter = Some(Meter::open(self.service.interfaces));
            self.next_check = Instant::now() + METER_RENEWAL;
        }
    }

    /// Ends a daemon that holds too much; [`Self::resume`] then starts another.
    fn end_if_flooded(&mut self, figures: &Metrics) {
        let records: i64 =
            figures.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum();
        let timers = figures.get("timer").copied().unwrap_or_default();
        tracing::trace!(records, timers, reports = self.reports, "mdns cache");
        if records > CACHED_RECORDS_MAX || timers > TIMERS_MAX || self.reports > REPORTS_MAX {
            tracing::warn!(records, timers, reports = self.reports, "mdns is flooded; starting it anew");
            self.ending = self.service.lock().daemon.shutdown().is_ok();
        }
    }
}

fn start_daemon(
    announce: &Announce,
    interfaces: Interfaces,
) -> Result<(ServiceDaemon, Receiver<ServiceEvent>), DiscoveryError> {
    let failed = |action| move |source| DiscoveryError::Daemon { action, source };
    let host = format!("{}.local.", announce.label);
    let mut service =
        ServiceInfo::new(SERVICE, &announce.label, &host, (), announce.port, &[("v", VERSION)][..])
            .map_err(failed("describe this node"))?
            .enable_addr_auto();
    service.set_requires_probe(false);
    let daemon = ServiceDaemon::new().map_err(failed("start its thread"))?;
    let begin = || {
        // In this order: nothing is sent before it is known where.
        daemon.disable_interface(interfaces.unused()).map_err(failed("choose its interfaces"))?;
        daemon.set_ip_check_interval(INTERFACE_CHECK_S).map_err(failed("set its pace"))?;
        daemon.register(service).map_err(failed("announce this node"))?;
        daemon.browse(SERVICE).map_err(failed("look for others"))
    };
    match begin() {
        Ok(events) => Ok((daemon, events)),
        Err(error) => {
            let _ = daemon.shutdown();
            Err(error)
        }
    }
}
