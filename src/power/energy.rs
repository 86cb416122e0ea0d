//! Energy that the processors took, by the counters of the machine (RAPL, Intel and AMD alike).
//!
//! The packages are summed. Not counted: what is within a package (`intel-rapl:0:0` and so on), `psys`, which is the
//! whole board on some laptops and nothing on others, and `intel-rapl-mmio`, which is the same package once more. Readable
//! by root alone since 2020 (CVE-2020-8694); then the model of [`super::EnergyModel`] is left.
//! Source: `Documentation/power/powercap/powercap.rst`.

use std::{collections::BTreeMap, time::Duration};

use super::{
    moment::Moment,
    root::{Found, Lack, NONSENSE, Root, optional},
};

pub(super) const DIR: &str = "/sys/class/powercap";
/// Packages that are asked; servers have eight.
const PACKAGES_MAX: usize = 16;
/// Watts that no package takes: a counter that went on faster was set anew, as after a sleep.
const WATTS_MAX: u64 = 2_000;

/// A counter and what it said last, in microjoules.
#[derive(Clone, Copy, Debug)]
struct Package {
    last: u64,
    range: u64,
}

/// Sums up since it was made.
#[derive(Debug, Default)]
pub(super) struct Counter {
    packages: BTreeMap<String, Package>,
    at: Duration,
    sum_uj: u64,
}

impl Counter {
    /// Millijoules since the first reading.
    ///
    /// # Errors
    /// [`Lack`].
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Found<u64> {
        let elapsed = now.monotonic.saturating_sub(self.at);
        let mut packages = BTreeMap::new();
        let mut sum: u64 = 0;
        let mut broken = None;
        for name in root.names(DIR)?.into_iter().filter(|name| is_zone(name)).take(PACKAGES_MAX) {
            let Some(package) = package(root, &name)? else { continue };
            match self.packages.get(&name).map(|before| grown(*before, package, elapsed)) {
                None => {}
                Some(Ok(grown)) => sum = sum.saturating_add(grown),
                Some(Err(lack)) => broken = Some(lack),
            }
            packages.insert(name, package);
        }
        if packages.is_empty() {
            return Err(Lack::Missing);
        }
        self.packages = packages;
        self.at = now.monotonic;
        match broken {
            Some(lack) => Err(lack),
            None => {
                self.sum_uj = self.sum_uj.saturating_add(sum);
                Ok(self.sum_uj / 1000)
            }
        }
    }
}

/// `intel-rapl:0`, but neither `intel-rapl:0:1` nor `intel-rapl`.
fn is_zone(name: &str) -> bool {
    name.strip_prefix("intel-rapl:").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

fn package(root: &Root, zone: &str) -> Found<Option<Package>> {
    let dir = format!("{DIR}/{zone}");
    let name = optional(root.word(format!("{dir}/name")))?.unwrap_or_default();
    if !name.starts_with("package") {
        return Ok(None);
    }
    let Some(last) = optional(root.number(format!("{dir}/energy_uj")))? else { return Ok(None) };
    let range = optional(root.number(format!("{dir}/max_energy_range_uj")))?.unwrap_or(0);
    if range != 0 && last > range {
        return Err(NONSENSE);
    }
    Ok(Some(Package { last, range }))
}

/// A counter that went backwards began again behind its range; without a range it is broken.
fn grown(before: Package, now: Package, elapsed: Duration) -> Found<u64> {
    let grown = match now.last.checked_sub(before.last) {
        Some(grown) => grown,
        None if now.range == 0 => return Err(NONSENSE),
        None => now.range.saturating_sub(before.last).saturating_add(now.last),
    };
    // Watts times microseconds are microjoules; a second is granted to counters that are updated in steps.
    let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_add(1_000_000);
    if grown > us.saturating_mul(WATTS_MAX) { Err(NONSENSE) } else { Ok(grown) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::proto::budget::Fault;

    fn put(root: &Root, zone: &str, name: &str, energy: &str) {
        let at = root.at(DIR).join(zone);
        fs::create_dir_all(&at).unwrap();
        fs::write(at.join("name"), name).unwrap();
        fs::write(at.join("energy_uj"), energy).unwrap();
        fs::write(at.join("max_energy_range_uj"), "262143328850\n").unwrap();
    }

    #[test]
    fn packages_are_summed_and_what_is_within_them_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut counter = Counter::default();
        assert_eq!(counter.read(&root, &Moment::at_ms(0)), Err(Lack::Missing));
        put(&root, "intel-rapl:1", "psys", "5");
        assert_eq!(counter.read(&root, &Moment::at_ms(0)), Err(Lack::Missing));
        let all = |energy: &str| {
            put(&root, "intel-rapl:0", "package-0\n", energy);
            put(&root, "intel-rapl:0:0", "core\n", energy);
            put(&root, "intel-rapl-mmio:0", "package-0\n", energy);
            put(&root, "intel-rapl:2", "package-1\n", "1000\n");
        };
        all("262143328000\n");
        assert_eq!(counter.read(&root, &Moment::at_ms(1000)), Ok(0));
        all("262143328800\n");
        assert_eq!(counter.read(&root, &Moment::at_ms(2000)), Ok(0));
        all("30000150\n");
        assert_eq!(counter.read(&root, &Moment::at_ms(3000)), Ok(30_001), "it began again behind its range");
        all("10000000000\n");
        assert_eq!(counter.read(&root, &Moment::at_ms(4000)), Err(NONSENSE), "nothing takes 10 kW");
        all("10001000000\n");
        assert_eq!(counter.read(&root, &Moment::at_ms(5000)), Ok(31_001));
        for wrong in ["", "-1", "999999999999", "x"] {
            all(wrong);
            assert_eq!(counter.read(&root, &Moment::at_ms(6000)), Err(NONSENSE), "{wrong:?}");
        }
    }

    #[test]
    fn a_counter_that_may_not_be_read_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        put(&root, "intel-rapl:0", "package-0\n", "1");
        fs::remove_file(root.at(DIR).join("intel-rapl:0/energy_uj")).unwrap();
        fs::create_dir(root.at(DIR).join("intel-rapl:0/energy_uj")).unwrap();
        assert_eq!(Counter::default().read(&root, &Moment::at_ms(0)), Err(Lack::Broken(Fault::Unreadable)));
    }
}
