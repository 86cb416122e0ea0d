//! Where the cgroup of this process lies, and what it and those above it allow.
//!
//! cgroup v1 and v2 and both at once: a hybrid system has the controllers in v1. Every ancestor up to the mount binds,
//! so the least of them counts. Above the mount nothing can be seen: a container shows its own part alone.
//! Sources: `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`, `Documentation/scheduler/sched-bwc.rst`,
//! proc(5) on `/proc/PID/mountinfo`.

use std::path::{Path, PathBuf};

use super::root::{Found, Lack, NONSENSE, Root, optional};
use crate::proto::budget::Fault;

/// Bytes of `/proc/self/cgroup`: 13 controllers with a path each.
const CGROUP_BYTES_MAX: usize = 16 * 1024;
/// Bytes of `/proc/self/mountinfo`. A host of containers has thousands of mounts; the cgroups come early.
const MOUNTS_BYTES_MAX: usize = 256 * 1024;
/// Bytes of `memory.stat`.
const STAT_BYTES_MAX: usize = 16 * 1024;
/// Levels that are looked at, from the process upwards.
const DEPTH_MAX: usize = 32;

/// Memory of a cgroup that has a limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) limit: u64,
    pub(super) available: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// The directories of one controller, from our own up to the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ladder {
    version: Version,
    rungs: Vec<PathBuf>,
}

/// Keeps where the directories are for as long as `/proc/self/cgroup` says the same.
#[derive(Debug, Default)]
pub(super) struct Cgroup {
    from: Option<String>,
    cpu: Vec<Ladder>,
    memory: Vec<Ladder>,
}

impl Cgroup {
    /// Looks whether this process was moved.
    ///
    /// # Errors
    /// [`Lack`] where the kernel has no cgroups, or nothing can be made of what it says of them.
    pub(super) fn refresh(&mut self, root: &Root) -> Found<()> {
        let own = root.text("/proc/self/cgroup", CGROUP_BYTES_MAX)?;
        if self.from.as_ref() != Some(&own) {
            let mounts = root.beginning("/proc/self/mountinfo", MOUNTS_BYTES_MAX)?;
            self.cpu = ladders(&own, &mounts, "cpu");
            self.memory = ladders(&own, &mounts, "memory");
            self.from = Some(own);
        }
        Ok(())
    }

    /// CPU in thousandths of a core, the least of all levels.
    ///
    /// # Errors
    /// [`Lack::Missing`] where there is no limit.
    pub(super) fn quota_permille(&self, root: &Root) -> Found<u32> {
        let mut least: Option<u32> = None;
        for (version, rung) in rungs(&self.cpu) {
            if let Some(quota) = quota(root, version, rung)? {
                least = Some(least.map_or(quota, |least| least.min(quota)));
            }
        }
        least.ok_or(Lack::Missing)
    }

    /// The level that has the least memory left, and the lowest limit.
    ///
    /// # Errors
    /// [`Lack::Missing`] where there is no limit below `machine_bytes`.
    pub(super) fn memory(&self, root: &Root, machine_bytes: u64) -> Found<MemoryLimit> {
        let mut least: Option<MemoryLimit> = None;
        for (version, rung) in rungs(&self.memory) {
            let Some(found) = memory(root, version, rung, machine_bytes)? else { continue };
            least = Some(least.map_or(found, |least| MemoryLimit {
                limit: least.limit.min(found.limit),
                available: least.available.min(found.available),
            }));
        }
        least.ok_or(Lack::Missing)
    }

    /// Where the CPU of our own cgroup is limited, for a person.
    pub(super) fn cpu_place(&self) -> String {
        place(&self.cpu)
    }

    /// Where its memory is limited, for a person.
    pub(super) fn memory_place(&self) -> String {
        place(&self.memory)
    }
}

fn place(ladders: &[Ladder]) -> String {
    let own = ladders.iter().filter_map(|ladder| ladder.rungs.first());
    let paths: Vec<String> = own.map(|path| path.display().to_string()).collect();
    if paths.is_empty() { "no cgroup".into() } else { paths.join(", ") }
}

fn rungs(ladders: &[Ladder]) -> impl Iterator<Item = (Version, &Path)> {
    ladders.iter().flat_map(|ladder| ladder.rungs.iter().map(|rung| (ladder.version, rung.as_path())))
}

/// `cpu.max` holds `max 100000` or `50000 100000` (µs of CPU in every so many µs); v1 has a file for each.
fn quota(root: &Root, version: Version, rung: &Path) -> Found<Option<u32>> {
    let (quota_us, period_us) = match version {
        Version::V2 => {
            let Some(text) = optional(root.word(rung.join("cpu.max")))? else { return Ok(None) };
            let (quota, period) = text.split_once(' ').ok_or(NONSENSE)?;
            if quota == "max" {
                return Ok(None);
            }
            (quota.parse().map_err(|_| NONSENSE)?, period.trim().parse().map_err(|_| NONSENSE)?)
        }
        Version::V1 => match optional(root.number::<i64>(rung.join("cpu.cfs_quota_us")))? {
            None | Some(-1) => return Ok(None),
            Some(quota) => {
                let quota = u64::try_from(quota).map_err(|_| NONSENSE)?;
                (quota, root.number::<u64>(rung.join("cpu.cfs_period_us"))?)
            }
        },
    };
    if quota_us == 0 || period_us == 0 {
        return Err(NONSENSE);
    }
    let permille = quota_us.saturating_mul(1000) / period_us;
    Ok(Some(u32::try_from(permille.max(1)).unwrap_or(u32::MAX)))
}

/// A cache of files that nobody has used for a while goes without harm: it counts as available. `memory.high` is a
/// limit to us: above it the kernel slows us down.
fn memory(root: &Root, version: Version, rung: &Path, machine_bytes: u64) -> Found<Option<MemoryLimit>> {
    let (limits, usage, cache): (&[&str], &str, &str) = match version {
        Version::V2 => (&["memory.max", "memory.high"], "memory.current", "inactive_file "),
        Version::V1 => (&["memory.limit_in_bytes"], "memory.usage_in_bytes", "total_inactive_file "),
    };
    let mut limit: Option<u64> = None;
    for name in limits {
        match optional(root.word(rung.join(name)))?.as_deref() {
            None | Some("max") => {}
            Some(text) => {
                let bytes: u64 = text.parse().map_err(|_| NONSENSE)?;
                limit = Some(limit.map_or(bytes, |limit| limit.min(bytes)));
            }
        }
    }
    // v1 writes no limit as a number that no machine reaches.
    let Some(limit) = limit.filter(|&limit| limit < machine_bytes) else { return Ok(None) };
    let used: u64 = present(root.number(rung.join(usage)))?;
    let stat = present(root.text(rung.join("memory.stat"), STAT_BYTES_MAX))?;
    let idle = stat.lines().find_map(|line| line.strip_prefix(cache)).ok_or(NONSENSE)?;
    let idle: u64 = idle.trim().parse().map_err(|_| NONSENSE)?;
    Ok(Some(MemoryLimit { limit, available: limit.saturating_sub(used.saturating_sub(idle)).min(limit) }))
}

/// A limit without its usage is no absent limit.
fn present<T>(found: Found<T>) -> Found<T> {
    found.map_err(|lack| if lack == Lack::Missing { Lack::Broken(Fault::Unreadable) } else { lack })
}

/// Where `controller` of our cgroup may be found: in v1 where it is mounted there, and in v2.
fn ladders(own: &str, mounts: &str, controller: &str) -> Vec<Ladder> {
    // `hierarchy:controllers:path`; v2 is hierarchy 0 and names none.
    let lines = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        Some((parts.next()?, parts.next()?, parts.next()?))
    });
    let mut found = Vec::new();
    for (hierarchy, controllers, path) in lines {
        let version = if hierarchy == "0" && controllers.is_empty() {
            Version::V2
        } else if controllers.split(',').any(|name| name == controller) {
            Version::V1
        } else {
            continue;
        };
        if let Some((mounted, at)) = mounts.lines().find_map(|line| mount(line, version, controller)) {
            found.push(Ladder { version, rungs: climb(&at, &below(&mounted, path)) });
        }
    }
    found
}

/// `id parent major:minor root mount-point options [tags] - type source super-options`: which part of the hierarchy
/// is mounted, and where.
fn mount(line: &str, version: Version, controller: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (mounted, at) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let fits = match version {
        Version::V2 => kind == "cgroup2",
        Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == controller),
    };
    fits.then(|| (unescape(mounted), unescape(at)))
}

/// The part of `path` below what is mounted. Where our cgroup is not below it, the mount itself is all that we see.
fn below(mounted: &str, path: &str) -> String {
    let rest = if mounted == "/" { Some(path) } else { path.strip_prefix(mounted) };
    match rest {
        Some(rest)
            if (rest.is_empty() || rest.starts_with('/')) && !rest.split('/').any(|part| part == "..") =>
        {
            rest.to_owned()
        }
        _ => String::new(),
    }
}

fn climb(at: &str, rest: &str) -> Vec<PathBuf> {
    // Collected from its parts: a path that is joined with nothing ends in a slash.
    let own: PathBuf =
        Path::new(at).components().chain(Path::new(rest.trim_start_matches('/')).components()).collect();
    own.ancestors().take_while(|rung| rung.starts_with(at)).take(DEPTH_MAX).map(Path::to_path_buf).collect()
}

/// `\040` for a space, and so on.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn tree(own: &str, mounts: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Root, Cgroup) {
        let dir = tempfile::tempdir().unwrap();
        let proc = [("proc/self/cgroup", own), ("proc/self/mountinfo", mounts)];
        for (path, text) in proc.iter().chain(files) {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::new(dir.path());
        let mut cgroup = Cgroup::default();
        cgroup.refresh(&root).unwrap();
        (dir, root, cgroup)
    }

    const V2: &str = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn in_v2_the_least_of_all_levels_wins() {
        let (_dir, root, cgroup) = tree(
            "0::/system.slice/edge.service\n",
            V2,
            &[
                ("sys/fs/cgroup/system.slice/edge.service/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/system.slice/cpu.max", "50000 100000\n"),
                ("sys/fs/cgroup/system.slice/edge.service/memory.max", "1073741824\n"),
                ("sys/fs/cgroup/system.slice/edge.service/memory.high", "536870912\n"),
                ("sys/fs/cgroup/system.slice/edge.service/memory.current", "300000000\n"),
                ("sys/fs/cgroup/system.slice/edge.service/memory.stat", "anon 5\ninactive_file 100000000\n"),
                ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
            ],
        );
        assert_eq!(cgroup.quota_permille(&root), Ok(500));
        let limit = MemoryLimit { limit: 536_870_912, available: 336_870_912 };
        assert_eq!(cgroup.memory(&root, 8 * GIB), Ok(limit));
        assert_eq!(cgroup.memory(&root, GIB / 4), Err(Lack::Missing), "the machine has less");
    }

    #[test]
    fn a_container_under_v1_sees_its_own_part() {
        let (_dir, root, cgroup) = tree(
            "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "31 23 0:26 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
             32 23 0:27 /docker/abc /sys/fs/cgroup/with\\040space ro master:9 - cgroup cgroup rw,memory\n",
            &[
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/with space/memory.limit_in_bytes", "268435456\n"),
                ("sys/fs/cgroup/with space/memory.usage_in_bytes", "268000000\n"),
                ("sys/fs/cgroup/with space/memory.stat", "inactive_file 1\ntotal_inactive_file 68000000\n"),
            ],
        );
        assert_eq!(cgroup.quota_permille(&root), Ok(1500));
        let limit = MemoryLimit { limit: 268_435_456, available: 68_435_456 };
        assert_eq!(cgroup.memory(&root, 8 * GIB), Ok(limit));
    }

    #[test]
    fn no_limit_is_none_and_nonsense_is_no_limit_either() {
        let (_dir, root, cgroup) = tree(
            "2:cpu:/\n",
            "31 23 0:26 / /c rw - cgroup cgroup rw,cpu\n",
            &[("c/cpu.cfs_quota_us", "-1\n")],
        );
        assert_eq!(cgroup.quota_permille(&root), Err(Lack::Missing));
        assert_eq!(cgroup.memory(&root, GIB), Err(Lack::Missing));
        for text in ["", "50000", "50000 0", "x 100000", "-5 100000", "0 100000"] {
            let (_dir, root, cgroup) = tree("0::/\n", V2, &[("sys/fs/cgroup/cpu.max", text)]);
            assert_eq!(cgroup.quota_permille(&root), Err(NONSENSE), "{text:?}");
        }
    }

    #[test]
    fn a_path_that_climbs_out_ends_at_the_mount() {
        let files = [("sys/fs/cgroup/cpu.max", "20000 100000\n"), ("cpu.max", "1 100000\n")];
        for own in ["0::/../../..\n", "0::/..\n", "0::/elsewhere/../..\n"] {
            let (_dir, root, cgroup) = tree(own, V2, &files);
            assert_eq!(cgroup.quota_permille(&root), Ok(200), "{own}");
        }
    }

    #[test]
    fn being_moved_is_noticed() {
        let files = [("sys/fs/cgroup/a/cpu.max", "20000 100000\n"), ("sys/fs/cgroup/b/cpu.max", "max 1\n")];
        let (dir, root, mut cgroup) = tree("0::/a\n", V2, &files);
        assert_eq!(cgroup.quota_permille(&root), Ok(200));
        fs::write(dir.path().join("proc/self/cgroup"), "0::/b\n").unwrap();
        cgroup.refresh(&root).unwrap();
        assert_eq!(cgroup.quota_permille(&root), Err(Lack::Missing));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(
            own in "([0-9]:[a-z,]{0,9}:[a-z./]{0,20}\n|.){0,9}",
            mounts in "([0-9 ]{6}[a-z/.\\\\0-9]{1,12} [/a-z\\\\0-9é]{1,12} x - cgroup2? a rw,cpu\n|.| ){0,9}",
        ) {
            for ladder in ladders(&own, &mounts, "cpu") {
                prop_assert!(ladder.rungs.len() <= DEPTH_MAX);
            }
        }
    }
}
