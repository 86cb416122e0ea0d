//! All sensors of a device together.

use std::{ffi::OsString, path::Path};

use super::{
    cgroup::Cgroup,
    clock::Clock,
    cpu::Cpu,
    described::{Described, State},
    energy::{self, Counter},
    fetch::GreenFetch,
    frequency,
    green::{Green, GreenSource},
    heat::Heat,
    memory,
    model::EnergyModel,
    moment::Moment,
    presence::PresenceSensor,
    pressure,
    root::{Root, sensed},
    supply,
    throttle::Firmware,
    vanish::Seen,
    watch::SessionWatch,
};
use crate::proto::budget::{Fault, LocalTime, Memory, Reading, Sensed, Supply, Temperature, Throttle};

/// Which sensors were ever there.
#[derive(Debug, Default)]
struct SeenAll {
    pressure: Seen,
    memory: Seen,
    supply: Seen,
    temperature: Seen,
    throttle: Seen,
    frequency: Seen,
    energy: Seen,
}

/// Reads the device. Blocks: belongs on a thread of its own, which a stuck sensor (an i2c battery may hang for seconds)
/// then holds up alone; that a reading is late is for whoever waits for it to judge.
#[derive(Debug)]
pub struct Sensors {
    root: Root,
    cpu: Cpu,
    cgroup: Cgroup,
    heat: Heat,
    firmware: Firmware,
    energy: Counter,
    presence: PresenceSensor,
    green: Green,
    clock: Clock,
    seen: SeenAll,
}

impl Sensors {
    /// Reads every file under `root`, `/` in real life; the owner's `green` file excepted, which lies where it lies. `tz`
    /// is the environment's `TZ`. CPU shares are differences: until 200 ms after `now` they are stale.
    pub fn new(root: &Path, green: Option<GreenSource>, tz: Option<OsString>, now: &Moment) -> Self {
        let root = Root::new(root);
        Self {
            cpu: Cpu::new(&root, now),
            cgroup: Cgroup::default(),
            heat: Heat::default(),
            firmware: Firmware::default(),
            energy: Counter::default(),
            presence: PresenceSensor::default(),
            green: Green::new(green),
            clock: Clock::new(&root, tz),
            seen: SeenAll::default(),
            root,
        }
    }

    /// One look at the device. Readings less than 200 ms apart have the same CPU shares.
    pub fn read(&mut self, now: &Moment) -> Reading {
        let Self { root, seen, .. } = self;
        let shares = self.cpu.read(root, now);
        // Without cgroups there are no limits; where they make no sense, the limits are broken.
        let cgroup = self.cgroup.refresh(root);
        let quota = cgroup.and_then(|()| self.cgroup.quota_permille(root));
        Reading {
            cores: cores(),
            quota_permille: sensed(quota),
            others_permille: shares.others,
            ours_permille: shares.ours,
            pressure_permille: seen.pressure.judge(sensed(pressure::read(root))),
            memory: seen.memory.judge(sensed(memory::read(root, &self.cgroup))),
            presence: self.presence.read(root, now),
            supply: seen.supply.judge(sensed(supply::read(root))),
            temperature: seen.temperature.judge(sensed(self.heat.read(root, now))),
            throttle: seen.throttle.judge(sensed(self.firmware.read(root))),
            frequency_mhz: seen.frequency.judge(sensed(frequency::read(root))),
            energy_mj: seen.energy.judge(sensed(self.energy.read(root, now))),
            green_milli: self.green.read(now),
            clock: sensed(self.clock.read(root, now)),
        }
    }

    /// Memory and temperature alone, which bind the owner's own work: nobody else is asked or woken. Memory is the machine's:
    /// what a cgroup counts holds the cache of files, which gives way by itself.
    pub fn read_heat_and_memory(&mut self, now: &Moment) -> Reading {
        let Self { root, seen, .. } = self;
        Reading {
            cores: cores(),
            memory: seen.memory.judge(sensed(memory::read(root, &Cgroup::default()))),
            temperature: seen.temperature.judge(sensed(self.heat.read(root, now))),
            ..Reading::default()
        }
    }

    /// What hears at once of a change about who is logged in.
    pub fn watch(&self) -> SessionWatch {
        self.presence.watch(&self.root)
    }

    /// What fetches the owner's number, where that is at a URL.
    pub fn green_fetch(&self) -> Option<GreenFetch> {
        self.green.fetch()
    }

    /// What a busy core takes where no counter tells.
    pub fn energy_model(&self) -> EnergyModel {
        let has_battery = match supply::read(&self.root) {
            Ok(Supply::Mains { charge_permille }) => charge_permille.is_some(),
            Ok(Supply::Battery { .. }) => true,
            Err(_) => false,
        };
        EnergyModel::of(&self.root, has_battery)
    }

    /// What every sensor says of itself, in a fixed order; reads the device once.
    pub fn describe(&mut self, now: &Moment) -> Vec<Described> {
        let reading = self.read(now);
        let mut all = vec![self.cpu.describe(), self.describe_quota(&reading)];
        all.extend([describe_pressure(&reading), self.describe_memory(&reading)]);
        all.push(self.presence.describe(&reading.presence));
        all.extend([self.describe_supply(&reading), self.describe_heat(&reading)]);
        all.extend([
            self.describe_throttle(&reading),
            describe_frequency(&reading),
            self.describe_energy(&reading),
        ]);
        all.extend([self.green.describe(&reading.green_milli), self.describe_clock(&reading)]);
        all
    }

    fn describe_quota(&self, reading: &Reading) -> Described {
        let place = format!("{} cores, {}", reading.cores, self.cgroup.cpu_place());
        let worded = |permille: &u32| format!("{:.2} cores of {place}", f64::from(*permille) / 1000.0);
        Described::new("cpu limit", &reading.quota_permille, worded, &place)
    }

    fn describe_memory(&self, reading: &Reading) -> Described {
        let worded = |memory: &Memory| {
            let mib = |bytes: u64| bytes >> 20;
            format!("{} of {} MiB to be had", mib(memory.available_bytes), mib(memory.total_bytes))
        };
        let place = format!("/proc/meminfo, {}", self.cgroup.memory_place());
        Described::new("memory", &reading.memory, |memory| format!("{} ({place})", worded(memory)), &place)
    }

    fn describe_supply(&self, reading: &Reading) -> Described {
        let all = format!("{}: {}", supply::DIR, supply::describe(&self.root));
        let worded = |found: &Supply| match found {
            Supply::Mains { charge_permille } => format!("mains{} ({all})", charge(*charge_permille)),
            Supply::Battery { charge_permille } => format!("battery{} ({all})", charge(*charge_permille)),
        };
        Described::new("power supply", &reading.supply, worded, &all).mend(|state| match state {
            State::Broken(Fault::Nonsense) => Some(
                "a battery alone must say Charging, Full or Discharging, and a charge up to 100: see its driver".into(),
            ),
            _ => None,
        })
    }

    fn describe_heat(&self, reading: &Reading) -> Described {
        let worded = |found: &Temperature| {
            let celsius = |milli: i32| format!("{:.1} °C", f64::from(milli) / 1000.0);
            let trip = found
                .trip_millicelsius
                .map_or_else(String::new, |trip| format!(", slows at {}", celsius(trip)));
            format!("{}{trip} ({})", celsius(found.millicelsius), self.heat.describe())
        };
        let lacking = format!("/sys/class/thermal, /sys/class/hwmon {}", self.heat.describe());
        Described::new("temperature", &reading.temperature, worded, lacking.trim_end())
    }

    fn describe_throttle(&self, reading: &Reading) -> Described {
        let worded = |found: &Throttle| {
            let yes = |yes: bool, word: &'static str| if yes { word } else { "no" };
            let (weak, slow) = (yes(found.is_under_voltage, "yes"), yes(found.is_throttled, "yes"));
            format!("under-voltage {weak}, throttled {slow} ({})", self.firmware.path())
        };
        Described::new("firmware", &reading.throttle, worded, "only a Raspberry Pi has it")
    }

    fn describe_energy(&self, reading: &Reading) -> Described {
        let model = self.energy_model();
        let worded =
            |milli: &u64| format!("{}/intel-rapl:*: {:.1} J so far", energy::DIR, *milli as f64 / 1000.0);
        let watts = f64::from(model.milliwatts()) / 1000.0;
        let lacking = format!(
            "{}/intel-rapl:*; estimated at {watts} W a busy core ({}: {})",
            energy::DIR,
            model.name(),
            model.source()
        );
        Described::new("energy", &reading.energy_mj, worded, &lacking).mend(|state| {
            let group = "to count it, let edge's group read energy_uj of each intel-rapl:N (tmpfiles.d: z PATH 0440 root \
                         edge); the kernel keeps it to root for what it tells of other programs (CVE-2020-8694)";
            (state == State::Broken(Fault::Unreadable)).then(|| group.into())
        })
    }

    fn describe_clock(&self, reading: &Reading) -> Described {
        let worded = |time: &LocalTime| {
            const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
            let day = DAYS.get(usize::from(time.weekday)).copied().unwrap_or("?");
            format!("{day} {:02}:{:02} ({})", time.minute / 60, time.minute % 60, self.clock.describe())
        };
        let lacking = match reading.clock {
            Sensed::Absent => "the clock is not set".to_owned(),
            _ => format!("the time zone, {}", self.clock.describe()),
        };
        Described::new("clock", &reading.clock, worded, &lacking).mend(|state| match state {
            State::Absent => Some("set it, or let it be set: timedatectl set-ntp true".into()),
            _ => Some("set the time zone: timedatectl set-timezone, or TZ".into()),
        })
    }
}

fn describe_pressure(reading: &Reading) -> Described {
    let worded =
        |permille: &u16| format!("{}: {:.1} % of the last 10 s", pressure::PATH, f64::from(*permille) / 10.0);
    Described::new("cpu pressure", &reading.pressure_permille, worded, pressure::PATH).mend(|state| {
        let add = "add psi=1 to the kernel's command line (on a Raspberry Pi: /boot/firmware/cmdline.txt)";
        (state == State::Absent).then(|| add.into())
    })
}

fn describe_frequency(reading: &Reading) -> Described {
    let worded = |mhz: &u32| format!("{mhz} MHz ({})", frequency::DIR);
    Described::new("frequency", &reading.frequency_mhz, worded, frequency::DIR)
}

fn charge(permille: Option<u16>) -> String {
    permille.map_or_else(String::new, |permille| format!(", charge {:.1} %", f64::from(permille) / 10.0))
}

/// Cores on which this process may run (sched_setaffinity(2), cpusets). One, where the system does not say.
fn cores() -> u16 {
    let count = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    u16::try_from(count.max(1)).unwrap_or(u16::MAX)
}
