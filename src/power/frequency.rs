//! The mean clock of the cores.
//!
//! A policy is a group of cores that share a clock; each weighs as many cores as it has. Source:
//! `Documentation/admin-guide/pm/cpufreq.rst`. Virtual machines have none. A Raspberry Pi tells what was asked of its
//! firmware, not what heat has left of it: that is what [`super::throttle`] is for.

use super::root::{Found, Lack, NONSENSE, Root, optional};

pub(super) const DIR: &str = "/sys/devices/system/cpu/cpufreq";
/// Policies that are asked: the mean of so many is the mean.
const POLICIES_MAX: usize = 64;
/// Kilohertz that no core reaches.
const KHZ_MAX: u64 = 20_000_000;

/// Megahertz.
///
/// # Errors
/// [`super::root::Lack`].
pub(super) fn read(root: &Root) -> Found<u32> {
    let names = root.names(DIR)?;
    let mut sum_khz: u64 = 0;
    let mut cores: u64 = 0;
    for name in names.iter().filter(|name| name.starts_with("policy")).take(POLICIES_MAX) {
        // A policy whose cores are all offline has no clock.
        let Some(khz) = optional(root.number::<u64>(format!("{DIR}/{name}/scaling_cur_freq")))? else {
            continue;
        };
        if !(1..=KHZ_MAX).contains(&khz) {
            return Err(NONSENSE);
        }
        let affected = optional(root.text(format!("{DIR}/{name}/affected_cpus"), 4096))?;
        let weight = affected.map_or(1, |text| text.split_ascii_whitespace().count().max(1) as u64);
        sum_khz = sum_khz.saturating_add(khz.saturating_mul(weight));
        cores += weight;
    }
    let mean = sum_khz.checked_div(cores).ok_or(Lack::Missing)?;
    u32::try_from(mean / 1000).map_err(|_| NONSENSE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_policy_weighs_as_many_cores_as_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(read(&root), Err(Lack::Missing));
        let put = |policy: &str, khz: &str, cpus: &str| {
            let at = root.at(DIR).join(policy);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("scaling_cur_freq"), khz).unwrap();
            fs::write(at.join("affected_cpus"), cpus).unwrap();
        };
        fs::create_dir_all(root.at(DIR).join("ondemand")).unwrap();
        assert_eq!(read(&root), Err(Lack::Missing));
        put("policy0", "600000\n", "0 1 2\n");
        put("policy3", "1400000\n", "3\n");
        assert_eq!(read(&root), Ok(800));
        for wrong in ["<unknown>", "0", "-1", "99999999999"] {
            put("policy3", wrong, "3\n");
            assert_eq!(read(&root), Err(NONSENSE), "{wrong}");
        }
    }
}
