//! How hot the processor is, and where the device itself begins to slow down.
//!
//! Which zone is a processor's is told by its type: a word of the list below in it, as in `x86_pkg_temp`, `cpu-thermal`,
//! `bigcore0-thermal`, `soc_thermal`. Batteries, disks, radios and graphics have none of these words. Where no zone does,
//! the sensors of `hwmon` with a processor's driver are asked (an AMD desktop has only these), and last the zone `acpitz`,
//! which on many boards stands for the whole case or for nothing. Of the first of these three that tells anything, the
//! hottest place counts.
//!
//! A temperature below −40 or above 150 °C is nonsense, and so is exactly 0: a sensor that is switched off says that.
//! A place that talks nonsense is passed over while another one of the same kind does not. A trip point counts from 40 °C:
//! an unset one holds 0 or −274, and nobody slows down in a warm room.
//! Sources: `Documentation/driver-api/thermal/sysfs-api.rst`, `Documentation/hwmon/sysfs-interface.rst`.

use std::time::Duration;

use super::{
    moment::Moment,
    root::{Found, Lack, NONSENSE, Root, optional},
};
use crate::proto::budget::Temperature;

const THERMAL: &str = "/sys/class/thermal";
const HWMON: &str = "/sys/class/hwmon";
/// Words in the types of zones that are a processor's.
const CPU_WORDS: &[&str] = &["cpu", "pkg", "package", "core", "cluster", "soc", "tj-therm"];
/// Drivers in `hwmon` that are a processor's.
const CPU_DRIVERS: &[&str] = &["coretemp", "k10temp", "zenpower", "k8temp", "cpu_thermal", "soc_thermal"];
/// Zones in the class of last resort.
const BOARD_TYPES: &[&str] = &["acpitz"];
/// Trips at which a device slows down, complains or goes out; `active` ones only start fans.
const TRIP_TYPES: &[&str] = &["passive", "hot", "critical"];
/// Millidegrees that a processor can have.
const POSSIBLE: std::ops::RangeInclusive<i32> = -40_000..=150_000;
/// Millidegrees at which a device may slow down.
const TRIP_POSSIBLE: std::ops::RangeInclusive<i32> = 40_000..=150_000;
/// Places and trips that are looked at.
const PLACES_MAX: usize = 64;
const TRIPS_MAX: usize = 16;
/// Which places there are, and their trips, is looked up again after so long: that is many files, and they do not change.
const PLACES_LIFE: Duration = Duration::from_secs(60);

/// One place that has a temperature.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: String,
    kind: String,
    trip: Option<i32>,
}

/// Keeps which places there are.
#[derive(Debug, Default)]
pub(super) struct Heat {
    places: Vec<Place>,
    /// How good their kind is, 0 the best. A worse one does not stand in for one that has told before.
    rank: Option<usize>,
    found_at: Option<Duration>,
}

impl Heat {
    /// # Errors
    /// [`Lack`].
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Found<Temperature> {
        let fresh = self.found_at.is_some_and(|at| now.monotonic.saturating_sub(at) < PLACES_LIFE);
        if !fresh {
            let (rank, places) = places(root, self.rank);
            self.places = places;
            self.rank = rank.or(self.rank);
            self.found_at = Some(now.monotonic);
        }
        let found = hottest(root, &self.places);
        if found == Err(Lack::Missing) && !self.places.is_empty() {
            // A zone that is gone may have come back under another number.
            self.found_at = None;
        }
        found
    }

    /// The places that count.
    pub(super) fn describe(&self) -> String {
        let words = self.places.iter().map(|place| format!("{} ({})", place.path, place.kind));
        words.collect::<Vec<_>>().join(", ")
    }
}

fn hottest(root: &Root, places: &[Place]) -> Found<Temperature> {
    let mut hottest = Err(Lack::Missing);
    for place in places {
        let found = match root.number::<i32>(&place.path) {
            Ok(0) => Err(NONSENSE),
            Ok(millicelsius) if POSSIBLE.contains(&millicelsius) => Ok(millicelsius),
            Ok(_) => Err(NONSENSE),
            Err(lack) => Err(lack),
        };
        hottest = match (hottest, found) {
            (Ok(a), Ok(b)) => Ok(b.max(a)),
            (Ok(a), Err(_)) => Ok(a),
            (Err(_), Ok(b)) => Ok(b),
            (Err(Lack::Missing), Err(b)) => Err(b),
            (Err(a), Err(_)) => Err(a),
        };
    }
    let trip_millicelsius = places.iter().filter_map(|place| place.trip).min();
    hottest.map(|millicelsius| Temperature { millicelsius, trip_millicelsius })
}

/// The first of the three kinds that has a place which tells anything at all, and its rank; else the first that is
/// there. None that is worse than `rank_max`.
fn places(root: &Root, rank_max: Option<usize>) -> (Option<usize>, Vec<Place>) {
    let zones = zones(root);
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<Place> {
        zones.iter().filter(|zone| wanted(&zone.kind.to_lowercase())).cloned().collect()
    };
    let kinds: [&dyn Fn() -> Vec<Place>; 3] =
        [&|| of(&|kind| CPU_WORDS.iter().any(|word| kind.contains(word))), &|| hwmon(root), &|| {
            of(&|kind| BOARD_TYPES.contains(&kind))
        }];
    let mut first = (None, Vec::new());
    for (rank, kind) in
        kinds.into_iter().enumerate().take_while(|(rank, _)| rank_max.is_none_or(|max| *rank <= max))
    {
        let mut places = kind();
        match hottest(root, &places) {
            Ok(_) => {
                add_trips(root, &mut places);
                return (Some(rank), places);
            }
            Err(Lack::Broken(_)) if first.0.is_none() => first = (Some(rank), places),
            Err(_) => {}
        }
    }
    first
}

fn zones(root: &Root) -> Vec<Place> {
    let names = root.names(THERMAL).unwrap_or_default();
    let zones = names.iter().filter(|name| name.starts_with("thermal_zone")).take(PLACES_MAX);
    zones
        .filter_map(|name| {
            let kind = root.word(format!("{THERMAL}/{name}/type")).ok()?;
            Some(Place {
                path: format!("{THERMAL}/{name}/temp"),
                kind: super::described::shown(&kind),
                trip: None,
            })
        })
        .collect()
}

fn hwmon(root: &Root) -> Vec<Place> {
    let mut found = Vec::new();
    for name in root.names(HWMON).unwrap_or_default() {
        let dir = format!("{HWMON}/{name}");
        let Ok(kind) = root.word(format!("{dir}/name")) else { continue };
        if !CPU_DRIVERS.contains(&kind.as_str()) {
            continue;
        }
        let files = root.names(&dir).unwrap_or_default();
        let inputs = files.iter().filter(|file| file.starts_with("temp") && file.ends_with("_input"));
        found.extend(inputs.map(|file| Place {
            path: format!("{dir}/{file}"),
            kind: kind.clone(),
            trip: None,
        }));
    }
    found.truncate(PLACES_MAX);
    found
}

fn add_trips(root: &Root, places: &mut [Place]) {
    for place in places {
        let temperature = |path: String| -> Option<i32> {
            let millicelsius = optional(root.number::<i32>(path)).ok().flatten()?;
            TRIP_POSSIBLE.contains(&millicelsius).then_some(millicelsius)
        };
        place.trip = if let Some(dir) = place.path.strip_suffix("/temp") {
            let trips = (0..TRIPS_MAX)
                .map_while(|n| Some((n, root.word(format!("{dir}/trip_point_{n}_type")).ok()?)));
            let slowing = trips.filter(|(_, kind)| TRIP_TYPES.contains(&kind.as_str()));
            slowing.filter_map(|(n, _)| temperature(format!("{dir}/trip_point_{n}_temp"))).min()
        } else {
            place.path.strip_suffix("_input").and_then(|stem| temperature(format!("{stem}_crit")))
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn put(root: &Root, dir: &str, files: &[(&str, &str)]) {
        let at = root.at(dir);
        fs::create_dir_all(&at).unwrap();
        for (file, text) in files {
            fs::write(at.join(file), format!("{text}\n")).unwrap();
        }
    }

    fn zone(root: &Root, n: u8, kind: &str, temp: &str) {
        put(root, &format!("{THERMAL}/thermal_zone{n}"), &[("type", kind), ("temp", temp)]);
    }

    fn trip(root: &Root, n: u8, trip: u8, kind: &str, temp: &str) {
        let (kind_file, temp_file) = (format!("trip_point_{trip}_type"), format!("trip_point_{trip}_temp"));
        put(
            root,
            &format!("{THERMAL}/thermal_zone{n}"),
            &[(kind_file.as_str(), kind), (temp_file.as_str(), temp)],
        );
    }

    fn is(millicelsius: i32, trip_millicelsius: impl Into<Option<i32>>) -> Found<Temperature> {
        Ok(Temperature { millicelsius, trip_millicelsius: trip_millicelsius.into() })
    }

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn read(root: &Root) -> Found<Temperature> {
        Heat::default().read(root, &Moment::at_ms(0))
    }

    #[test]
    fn the_hottest_processor_and_the_lowest_trip_count() {
        let (_dir, root) = tree();
        assert_eq!(read(&root), Err(Lack::Missing));
        zone(&root, 0, "acpitz", "27800");
        assert_eq!(read(&root), is(27_800, None), "better than nothing");
        zone(&root, 1, "iwlwifi_1", "99000");
        zone(&root, 2, "BAT0", "99000");
        zone(&root, 3, "x86_pkg_temp", "51000");
        zone(&root, 4, "TCPU", "52500");
        zone(&root, 5, "INT3400 Thermal", "20000");
        trip(&root, 0, 0, "passive", "45000");
        trip(&root, 3, 0, "passive", "0");
        trip(&root, 3, 1, "critical", "105000");
        trip(&root, 4, 0, "active", "50000");
        trip(&root, 4, 1, "passive", "-274000");
        trip(&root, 4, 2, "hot", "95000");
        assert_eq!(read(&root), is(52_500, 95_000));
    }

    #[test]
    fn a_raspberry_pi_5() {
        let (_dir, root) = tree();
        zone(&root, 0, "cpu-thermal", "48800");
        trip(&root, 0, 0, "critical", "110000");
        trip(&root, 0, 1, "active", "50000");
        assert_eq!(read(&root), is(48_800, 110_000));
    }

    #[test]
    fn an_amd_desktop_has_only_hwmon() {
        let (_dir, root) = tree();
        zone(&root, 0, "acpitz", "16800");
        put(&root, "/sys/class/hwmon/hwmon0", &[("name", "nvme"), ("temp1_input", "90000")]);
        let cpu = [
            ("name", "k10temp"),
            ("temp1_input", "61000"),
            ("temp1_crit", "100000"),
            ("temp3_input", "64250"),
        ];
        put(&root, "/sys/class/hwmon/hwmon1", &cpu);
        assert_eq!(read(&root), is(64_250, 100_000));
    }

    #[test]
    fn what_cannot_be_is_nonsense_unless_another_place_tells() {
        let (_dir, root) = tree();
        for wrong in ["-127000", "150001", "0", "", "hot", "99999999999", "NaN"] {
            zone(&root, 0, "cpu-thermal", wrong);
            assert_eq!(read(&root), Err(NONSENSE), "{wrong:?}");
        }
        zone(&root, 1, "cpu1-thermal", "-39000");
        assert_eq!(read(&root), is(-39_000, None));
        zone(&root, 1, "cpu1-thermal", "85000");
        assert_eq!(read(&root), is(85_000, None));
    }

    #[test]
    fn a_zone_that_breaks_or_goes_is_noticed_at_once() {
        let (_dir, root) = tree();
        zone(&root, 0, "cpu-thermal", "50000");
        zone(&root, 1, "acpitz", "20000");
        let mut heat = Heat::default();
        assert_eq!(heat.read(&root, &Moment::at_ms(0)), is(50_000, None));
        zone(&root, 0, "cpu-thermal", "-127000");
        assert_eq!(heat.read(&root, &Moment::at_ms(1000)), Err(NONSENSE));
        assert_eq!(
            heat.read(&root, &Moment::at_ms(61_000)),
            Err(NONSENSE),
            "acpitz does not stand in for it"
        );
        fs::remove_dir_all(root.at(THERMAL).join("thermal_zone0")).unwrap();
        assert_eq!(heat.read(&root, &Moment::at_ms(62_000)), Err(Lack::Missing));
        assert_eq!(heat.read(&root, &Moment::at_ms(63_000)), Err(Lack::Missing));
        zone(&root, 2, "cpu-thermal", "60000");
        assert_eq!(heat.read(&root, &Moment::at_ms(123_000)), is(60_000, None));
    }

    proptest! {
        #[test]
        fn any_files_are_read_without_a_panic(
            kind in "(cpu\\PC{0,9}|acpitz|\\PC{0,9})", temp in "(-?[0-9]{0,12}|\\PC{0,9})",
            trip_kind in "(hot|passive|\\PC{0,9})", trip_temp in "(-?[0-9]{0,12}|\\PC{0,9})",
        ) {
            let (_dir, root) = tree();
            zone(&root, 0, &kind, &temp);
            trip(&root, 0, 0, &trip_kind, &trip_temp);
            if let Ok(found) = read(&root) {
                prop_assert!(POSSIBLE.contains(&found.millicelsius));
            }
        }
    }
}
