//! What the firmware of a Raspberry Pi says of its supply and of its own slowing down.
//!
//! Deliberately absent: the bits 16 to 19 of `get_throttled`, which tell of the past, and `vcgencmd`, which is a program
//! of its own. A mainline kernel has no `get_throttled`; its driver `rpi_volt` knows the voltage alone.
//! Sources: raspberrypi/linux pull request 2397; `Documentation/hwmon/raspberrypi-hwmon.rst`.

use super::root::{Found, Lack, NONSENSE, Root, optional};
use crate::proto::budget::Throttle;

/// Where the kernels of the foundation have it, newest boards last.
const PLATFORM: &str = "/sys/devices/platform";
const FILE: &str = "get_throttled";
const HWMON: &str = "/sys/class/hwmon";
/// Bit 0: the supply is too weak.
const UNDER_VOLTAGE: u32 = 1;
/// Bits 1 to 3: clock capped, throttled, soft temperature limit.
const SLOWED: u32 = 0b1110;

/// Readings after which it is looked for again where there was none: a driver may come late.
const SEARCH_EVERY: u32 = 64;

/// Finds the file once: it does not move.
#[derive(Debug, Default)]
pub(super) struct Firmware {
    at: Option<String>,
    readings: u32,
}

impl Firmware {
    /// # Errors
    /// [`super::root::Lack`].
    pub(super) fn read(&mut self, root: &Root) -> Found<Throttle> {
        if self.at.is_none() && self.readings.is_multiple_of(SEARCH_EVERY) {
            self.at = find(root);
        }
        self.readings = self.readings.wrapping_add(1);
        let Some(at) = &self.at else { return Err(Lack::Missing) };
        if at.ends_with(FILE) {
            return parse(&root.word(at)?);
        }
        let is_under_voltage = match root.number::<u8>(at)? {
            0 => false,
            1 => true,
            _ => return Err(NONSENSE),
        };
        // The firmware caps the clock for as long as the voltage is low; of heat this driver says nothing.
        Ok(Throttle { is_under_voltage, is_throttled: is_under_voltage })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &str {
        self.at.as_deref().unwrap_or("/sys/devices/platform/soc/soc:firmware/get_throttled")
    }
}

/// `soc/soc:firmware` on the older boards, `soc@…:firmware` and below on the newer: any child of a `soc*` that is a
/// firmware, or the `soc*` itself.
fn find(root: &Root) -> Option<String> {
    let names = |dir: &str| root.names(dir).unwrap_or_default();
    for soc in names(PLATFORM).into_iter().filter(|name| name.starts_with("soc")) {
        let own = format!("{PLATFORM}/{soc}");
        let below = names(&own).into_iter().filter(|name| name.contains("firmware"));
        let places = std::iter::once(own.clone()).chain(below.map(|name| format!("{own}/{name}")));
        for place in places.map(|place| format!("{place}/{FILE}")) {
            if root.at(&place).exists() {
                return Some(place);
            }
        }
    }
    names(HWMON).into_iter().map(|name| format!("{HWMON}/{name}")).find_map(|dir| {
        let is_it = optional(root.word(format!("{dir}/name"))).ok().flatten().as_deref() == Some("rpi_volt");
        is_it.then(|| format!("{dir}/in0_lcrit_alarm"))
    })
}

/// A hexadecimal number, with or without `0x`.
fn parse(text: &str) -> Found<Throttle> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.starts_with('+') {
        return Err(NONSENSE);
    }
    let bits = u32::from_str_radix(digits, 16).map_err(|_| NONSENSE)?;
    Ok(Throttle { is_under_voltage: bits & UNDER_VOLTAGE != 0, is_throttled: bits & SLOWED != 0 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    const fn throttle(is_under_voltage: bool, is_throttled: bool) -> Throttle {
        Throttle { is_under_voltage, is_throttled }
    }

    #[test]
    fn only_this_moment_counts() {
        assert_eq!(parse("0"), Ok(throttle(false, false)));
        assert_eq!(parse("50000"), Ok(throttle(false, false)), "it was throttled once");
        assert_eq!(parse("0x50005"), Ok(throttle(true, true)));
        assert_eq!(parse("80008"), Ok(throttle(false, true)));
        assert_eq!(parse("1"), Ok(throttle(true, false)));
        for wrong in ["", "0x", "xyz", "-1", "+1", "123456789"] {
            assert_eq!(parse(wrong), Err(NONSENSE), "{wrong}");
        }
    }

    #[test]
    fn it_is_found_on_old_and_new_boards() {
        for dir in ["soc/soc:firmware", "soc@107c000000:firmware", "soc@107c000000/107c000000.soc:firmware"] {
            let tree = tempfile::tempdir().unwrap();
            let root = Root::new(tree.path());
            assert_eq!(Firmware::default().read(&root), Err(Lack::Missing));
            let at = root.at(PLATFORM).join(dir);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join(FILE), "4\n").unwrap();
            assert_eq!(Firmware::default().read(&root), Ok(throttle(false, true)), "{dir}");
        }
    }

    #[test]
    fn a_mainline_kernel_tells_of_the_voltage() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::new(tree.path());
        for (name, driver) in [("hwmon0", "cpu_thermal"), ("hwmon1", "rpi_volt")] {
            let at = root.at(HWMON).join(name);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("name"), driver).unwrap();
            fs::write(at.join("in0_lcrit_alarm"), "1\n").unwrap();
        }
        let mut firmware = Firmware::default();
        assert_eq!(firmware.read(&root), Ok(throttle(true, true)));
        fs::write(root.at(HWMON).join("hwmon1/in0_lcrit_alarm"), "7\n").unwrap();
        assert_eq!(firmware.read(&root), Err(NONSENSE));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
