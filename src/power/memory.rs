//! Memory that can be had without pushing others out: of the machine, or of our cgroup where that has less.
//!
//! Swap is no memory here. Source: `Documentation/filesystems/proc.rst` on `MemAvailable`, which counts caches that go
//! without swapping.

use super::{
    cgroup::Cgroup,
    root::{Found, NONSENSE, Root, optional},
};
use crate::proto::budget::Memory;

/// Bytes of `/proc/meminfo`, some 55 lines.
const MEMINFO_BYTES_MAX: usize = 8 * 1024;

/// # Errors
/// [`super::root::Lack`].
pub(super) fn read(root: &Root, cgroup: &Cgroup) -> Found<Memory> {
    let machine = parse(&root.text("/proc/meminfo", MEMINFO_BYTES_MAX)?)?;
    let limit = optional(cgroup.memory(root, machine.total_bytes))?;
    Ok(limit.map_or(machine, |limit| Memory {
        available_bytes: machine.available_bytes.min(limit.available),
        total_bytes: machine.total_bytes.min(limit.limit),
    }))
}

/// Lines `MemTotal:       24684096 kB`. More available than there is cannot be.
fn parse(text: &str) -> Found<Memory> {
    let bytes = |name: &str| -> Found<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(NONSENSE)?;
        let kib: u64 =
            rest.trim().strip_suffix("kB").ok_or(NONSENSE)?.trim_end().parse().map_err(|_| NONSENSE)?;
        kib.checked_mul(1024).ok_or(NONSENSE)
    };
    let memory = Memory { available_bytes: bytes("MemAvailable:")?, total_bytes: bytes("MemTotal:")? };
    let sound = memory.available_bytes <= memory.total_bytes && memory.total_bytes > 0;
    sound.then_some(memory).ok_or(NONSENSE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn meminfo() {
        let text = "MemTotal:        1000 kB\nMemFree:   10 kB\nMemAvailable:     600 kB\n";
        assert_eq!(parse(text), Ok(Memory { available_bytes: 614_400, total_bytes: 1_024_000 }));
        for wrong in [
            "",
            "MemTotal: 1000 kB\n",
            "MemTotal: 1000 kB\nMemAvailable: 2000 kB\n",
            "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
            "MemTotal: 1000\nMemAvailable: 1\n",
            "MemTotal: 99999999999999999999 kB\nMemAvailable: 1 kB\n",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n",
            "MemTotal: -5 kB\nMemAvailable: 1 kB\n",
        ] {
            assert_eq!(parse(wrong), Err(NONSENSE), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(MemTotal:|MemAvailable:| |kB|\n|[0-9]{1,21}|.){0,30}") {
            let _ = parse(&text);
        }
    }
}
