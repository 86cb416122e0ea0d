//! What `edge doctor` asks of the machine: sensors, network, and how far threads can give way.

use std::{
    error::Error,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::{Lending, governor::moment, priority};
use crate::{
    discovery::{Interfaces, own_addresses},
    node::free_port,
    power::{Described, Sensors},
};

/// Between two looks at the CPU counters.
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// How a part of the machine does.
#[derive(Clone, Debug)]
pub struct Checked {
    /// One lower-case word.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub is_well: bool,
    /// What was found.
    pub what: String,
    /// What a person can do about it.
    pub mend: Option<String>,
}

/// What every sensor says of itself. Blocks.
pub fn describe_sensors(lending: &Lending, root: &Path) -> Vec<Described> {
    let zone = std::env::var_os("TZ");
    let mut sensors = Sensors::new(root, lending.green.clone(), zone, &moment());
    // CPU shares are differences between two looks.
    let until = Instant::now() + BETWEEN_LOOKS;
    if let Some(fetch) = sensors.green_fetch()
        && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build()
    {
        // The sensor says on its own what came of it.
        let _ = runtime.block_on(fetch.fetch(|| moment().monotonic));
    }
    while Instant::now() < until {
        thread::park_timeout(BETWEEN_LOOKS);
    }
    sensors.describe(&moment())
}

/// Tries the network and the scheduler. `port` is UDP, 0 for any.
pub fn check_machine(port: u16, mdns: bool) -> Vec<Checked> {
    vec![machine(), network(port), multicast(mdns), scheduling()]
}

/// What it is, for whoever is asked for help.
fn machine() -> Checked {
    let kinds = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds).ok();
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    let cores = cpus.len();
    let processor = cpus.first().map(|cpu| cpu.brand().trim().to_owned());
    let processor = processor.filter(|brand| !brand.is_empty()).unwrap_or_else(|| "processor".to_owned());
    let known = |what: Option<String>| what.unwrap_or_else(|| "unknown".to_owned());
    let (os, kernel) = (known(System::long_os_version().ok()), known(System::kernel_version().ok()));
    let mib = system.as_ref().map_or(0, System::total_memory) >> 20;
    let what = format!("{processor} x {cores}, {mib} MiB, {os}, kernel {kernel}");
    Checked { name: "machine", is_well: true, what, mend: None }
}

fn network(port: u16) -> Checked {
    let addresses = own_addresses(port);
    let places: Vec<String> = addresses.iter().map(|at| at.ip().to_string()).collect();
    let name = "network";
    match free_port(port) {
        Ok(found) if port == 0 || found == port => {
            let what = if places.is_empty() { "no address but loopback".into() } else { places.join(", ") };
            let mend = "connect it to a network; until then it works alone";
            let is_well = !addresses.is_empty();
            Checked { name, is_well, what, mend: (!is_well).then(|| mend.to_owned()) }
        }
        Ok(_) => Checked {
            name,
            is_well: true,
            what: format!("{}; UDP port {port} is in use, by a node that runs perhaps", places.join(", ")),
            mend: None,
        },
        Err(error) => {
            Checked { name, is_well: false, what: format!("no UDP port is to be had: {error}"), mend: None }
        }
    }
}

fn multicast(mdns: bool) -> Checked {
    let name = "mdns";
    if !mdns {
        let what = "switched off by `network.mdns`".to_owned();
        return Checked { name, is_well: true, what, mend: None };
    }
    match Interfaces::Lan.probe() {
        Ok(()) => Checked { name, is_well: true, what: "this network can be asked".to_owned(), mend: None },
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let mend = "others find this node by the addresses in a ticket, or by a bootstrap node";
            Checked { name, is_well: false, what: format!("{error}{cause}"), mend: Some(mend.to_owned()) }
        }
    }
}

fn scheduling() -> Checked {
    let name = "scheduling";
    // On a thread of its own, which is gone afterwards: this one must not be the one that gives way.
    let thread = thread::Builder::new().spawn(priority::give_way);
    let refused = thread.map_or_else(|_| vec!["one more thread"], |thread| thread.join().unwrap_or_default());
    if refused.is_empty() {
        let what = "compute threads run with SCHED_IDLE, nice 19 and idle IO".to_owned();
        return Checked { name, is_well: true, what, mend: None };
    }
    let what = format!("the system refuses {}", refused.join(", "));
    let mend = "a container's seccomp profile forbids it, perhaps";
    Checked { name, is_well: false, what, mend: Some(mend.to_owned()) }
}
