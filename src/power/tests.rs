//! A whole device, laid out in files: read, emptied, and filled with nonsense.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::*;
use crate::proto::budget::{
    Fault, LocalTime, Memory, Presence, Reading, Sensed, Supply, Temperature, Throttle,
};

/// A laptop under a unit with half a core, as far as files tell.
const LAPTOP: &[(&str, &str)] = &[
    ("proc/stat", "cpu  1000 50 200 900 9 3 0 77 0 0\ncpu0 1\ncpu1 1\n"),
    ("proc/self/stat", "7 (edge) S 1 1 1 0 -1 0 1 2 3 4 500 40 0 0 20 0 1 0 5\n"),
    ("proc/self/cgroup", "0::/edge.service\n"),
    ("proc/self/mountinfo", "31 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
    ("sys/fs/cgroup/edge.service/cpu.max", "50000 100000\n"),
    ("proc/pressure/cpu", "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n"),
    ("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 600 kB\n"),
    ("dev/pts/ptmx", ""),
    ("sys/class/power_supply/AC/type", "Mains\n"),
    ("sys/class/power_supply/AC/online", "0\n"),
    ("sys/class/power_supply/BAT0/type", "Battery\n"),
    ("sys/class/power_supply/BAT0/status", "Discharging\n"),
    ("sys/class/power_supply/BAT0/capacity", "64\n"),
    ("sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n"),
    ("sys/class/thermal/thermal_zone0/temp", "48000\n"),
    ("sys/class/thermal/thermal_zone0/trip_point_0_type", "critical\n"),
    ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "100000\n"),
    ("sys/devices/platform/soc/soc:firmware/get_throttled", "2\n"),
    ("sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "1800000\n"),
    ("sys/devices/system/cpu/cpufreq/policy0/affected_cpus", "0 1\n"),
    ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
    ("sys/class/powercap/intel-rapl:0/energy_uj", "7000000\n"),
    ("sys/class/powercap/intel-rapl:0/max_energy_range_uj", "262143328850\n"),
    ("etc/green", "0.7\n"),
];

fn lay(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn laptop() -> (tempfile::TempDir, Sensors) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in LAPTOP {
        lay(dir.path(), path, text);
    }
    let green = dir.path().join("etc/green");
    let age = std::time::Duration::from_secs(3600);
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_800_000_000_000);
    fs::File::options().write(true).open(&green).unwrap().set_modified(at).unwrap();
    let green = GreenSource::parse(green.to_str().unwrap(), age).unwrap();
    let sensors = Sensors::new(dir.path(), Some(green), None, &Moment::at_ms(100_000));
    (dir, sensors)
}

fn whole() -> Reading {
    Reading {
        cores: u16::try_from(rustix::thread::sched_getaffinity(None).unwrap().count()).unwrap(),
        quota_permille: Sensed::Is(500),
        others_permille: Sensed::Is(0),
        ours_permille: Sensed::Is(0),
        pressure_permille: Sensed::Is(15),
        memory: Sensed::Is(Memory { available_bytes: 614_400, total_bytes: 1_024_000 }),
        presence: Sensed::Is(Presence::Idle { for_s: 101 }),
        supply: Sensed::Is(Supply::Battery { charge_permille: Some(640) }),
        temperature: Sensed::Is(Temperature { millicelsius: 48_000, trip_millicelsius: Some(100_000) }),
        throttle: Sensed::Is(Throttle { is_under_voltage: false, is_throttled: true }),
        frequency_mhz: Sensed::Is(1800),
        energy_mj: Sensed::Is(0),
        green_milli: Sensed::Is(700),
        clock: Sensed::Is(LocalTime { day: 20_833, weekday: 4, minute: 481 }),
    }
}

#[test]
fn a_whole_device_is_read() {
    let (_dir, mut sensors) = laptop();
    assert_eq!(sensors.read(&Moment::at_ms(101_000)), whole());
    assert_eq!(sensors.energy_model().name(), "laptop");
}

#[test]
fn an_empty_device_has_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut sensors = Sensors::new(dir.path(), None, None, &Moment::at_ms(0));
    let unset = Moment { wall_ms: None, ..Moment::at_ms(1000) };
    let cores = whole().cores;
    assert_eq!(sensors.read(&unset), Reading { cores, ..Reading::default() });
    let described = sensors.describe(&unset);
    assert!(described.iter().all(|line| line.state == State::Absent), "{described:#?}");
    assert_eq!(sensors.energy_model().name(), "desktop or server");
}

#[test]
fn what_was_there_and_goes_has_vanished() {
    let (dir, mut sensors) = laptop();
    sensors.read(&Moment::at_ms(101_000));
    for top in ["proc", "sys", "dev", "etc"] {
        fs::remove_dir_all(dir.path().join(top)).unwrap();
    }
    let gone = sensors.read(&Moment::at_ms(102_000));
    let vanished = Fault::Vanished;
    let wanted = Reading {
        // A limit that is lifted is no limit, and a clock needs no file.
        quota_permille: Sensed::Absent,
        clock: Sensed::Is(LocalTime { day: 20_833, weekday: 4, minute: 481 }),
        others_permille: Sensed::Broken(vanished),
        ours_permille: Sensed::Broken(vanished),
        pressure_permille: Sensed::Broken(vanished),
        memory: Sensed::Broken(vanished),
        presence: Sensed::Broken(vanished),
        supply: Sensed::Broken(vanished),
        temperature: Sensed::Broken(vanished),
        throttle: Sensed::Broken(vanished),
        frequency_mhz: Sensed::Broken(vanished),
        energy_mj: Sensed::Broken(vanished),
        green_milli: Sensed::Broken(vanished),
        ..whole()
    };
    assert_eq!(gone, wanted);
    for (path, text) in LAPTOP {
        lay(dir.path(), path, text);
    }
    let back = sensors.read(&Moment::at_ms(300_000));
    assert_eq!(back.supply, whole().supply);
    assert_eq!(back.temperature, whole().temperature);
}

#[test]
fn every_sensor_describes_itself_in_one_line() {
    let (dir, mut sensors) = laptop();
    lay(dir.path(), "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\u{1b}[31m\n");
    let described = sensors.describe(&Moment::at_ms(101_000));
    let names: Vec<&str> = described.iter().map(|line| line.sensor).collect();
    let wanted = [
        "cpu",
        "cpu limit",
        "cpu pressure",
        "memory",
        "presence",
        "power supply",
        "temperature",
        "firmware",
        "frequency",
        "energy",
        "green power",
        "clock",
    ];
    assert_eq!(names, wanted);
    for line in &described {
        assert_eq!((line.state, &line.mend), (State::Found, &None), "{line:?}");
        assert!(!line.what.contains(char::is_control), "{line:?}");
    }
    let what = |sensor: &str| described.iter().find(|line| line.sensor == sensor).unwrap().what.as_str();
    assert_eq!(
        what("power supply"),
        "battery, charge 64.0 % (/sys/class/power_supply: AC (Mains, online 0); \
         BAT0 (Battery, status Discharging, capacity 64))"
    );
    assert_eq!(what("clock"), "Fri 08:01 (UTC, for there is no /etc/localtime)");
    fs::remove_file(dir.path().join("sys/class/powercap/intel-rapl:0/energy_uj")).unwrap();
    fs::create_dir(dir.path().join("sys/class/powercap/intel-rapl:0/energy_uj")).unwrap();
    let energy =
        sensors.describe(&Moment::at_ms(102_000)).into_iter().find(|line| line.sensor == "energy").unwrap();
    assert_eq!(energy.state, State::Broken(Fault::Unreadable));
    assert!(energy.mend.unwrap().contains("tmpfiles.d"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_file_makes_a_reading_panic(
        texts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "-?[0-9]{0,22}\n".prop_map(String::into_bytes),
                Just(vec![b'9'; 100_000]),
            ],
            LAPTOP.len(),
        ),
        step_ms in 0..10_000_u64,
    ) {
        let (dir, mut sensors) = laptop();
        sensors.read(&Moment::at_ms(101_000));
        for ((path, _), text) in LAPTOP.iter().zip(texts) {
            lay(dir.path(), path, text);
        }
        sensors.read(&Moment::at_ms(101_000 + step_ms));
        sensors.describe(&Moment::at_ms(102_000 + step_ms));
    }
}
