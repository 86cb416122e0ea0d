//! What a busy core takes where no counter tells: a stated figure for each class of device.
//!
//! An estimate, and to be shown as one. The figure is what full load adds to idle, shared among the cores: what the
//! device takes when it idles it would take without us. So it is measured at the plug or the board's own input, with
//! memory and converter losses within it. Frequency, voltage and instruction mix are not told apart: expect a third more
//! or less.

use super::{
    described::shown,
    root::{Root, optional},
};

/// A class of device, its watts for one busy core, and where they are from.
struct Class {
    /// How `/proc/device-tree/model` begins; the first that fits counts.
    model: &'static str,
    name: &'static str,
    milliwatts: u32,
    source: &'static str,
}

/// Boards, the closer name first.
const BOARDS: &[Class] = &[
    Class {
        model: "Raspberry Pi Zero 2",
        name: "Raspberry Pi Zero 2",
        milliwatts: 400,
        source: "0.6 W idle (cnx-software.com 2021-12-09), some 2.2 W on 4 cores (andrejacobs.org, +1.4 W over a Zero W)",
    },
    Class {
        model: "Raspberry Pi 3",
        name: "Raspberry Pi 3",
        milliwatts: 700,
        source: "1.4 to 1.9 W idle, 3.7 to 5.1 W on 4 cores (pidramble.com, power consumption)",
    },
    Class {
        model: "Raspberry Pi 4",
        name: "Raspberry Pi 4",
        milliwatts: 800,
        source: "2.2 to 2.7 W idle, 5.1 to 6.4 W on 4 cores (chipwired.com, 36 measurements; pidramble.com)",
    },
    Class {
        model: "Raspberry Pi 5",
        name: "Raspberry Pi 5",
        milliwatts: 1200,
        source: "3 W idle (u-labs.de), 7 to 8 W on 4 cores (jeffgeerling.com)",
    },
    Class {
        model: "",
        name: "ARM board",
        milliwatts: 1000,
        source: "between a Raspberry Pi 4 and 5, which bracket most boards of this kind",
    },
];
const LAPTOP: Class = Class {
    model: "",
    name: "laptop",
    milliwatts: 4000,
    source: "15 W of a 4-core U-class processor (Intel ARK, i5-8250U)",
};
const DESKTOP: Class = Class {
    model: "",
    name: "desktop or server",
    milliwatts: 10_000,
    source: "65 W of a 6-core desktop processor (Intel ARK, i5-12400; AMD Ryzen 5 5600)",
};

/// Bytes of a model's name.
const MODEL_BYTES_MAX: usize = 256;

/// Energy by CPU time, for devices that have no counter. Always an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnergyModel {
    milliwatts: u32,
    name: &'static str,
    source: &'static str,
}

impl EnergyModel {
    /// By the board's name where there is one, else by whether there is a battery of the machine's own.
    pub(super) fn of(root: &Root, has_battery: bool) -> Self {
        let model = optional(root.beginning("/proc/device-tree/model", MODEL_BYTES_MAX)).ok().flatten();
        let board =
            model.and_then(|model| BOARDS.iter().find(|class| shown(&model).starts_with(class.model)));
        let class = board.unwrap_or(if has_battery { &LAPTOP } else { &DESKTOP });
        Self { milliwatts: class.milliwatts, name: class.name, source: class.source }
    }

    /// Millijoules for so much CPU time, in milliseconds of one core.
    pub fn millijoules(&self, core_ms: u64) -> u64 {
        // A watt for a millisecond is a millijoule.
        core_ms.saturating_mul(u64::from(self.milliwatts)) / 1000
    }

    /// What one busy core adds, in milliwatts.
    pub fn milliwatts(&self) -> u32 {
        self.milliwatts
    }

    /// The class of device.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where the figure is from.
    pub fn source(&self) -> &'static str {
        self.source
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(model: Option<&[u8]>, has_battery: bool) -> EnergyModel {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        if let Some(model) = model {
            fs::create_dir_all(root.at("/proc/device-tree")).unwrap();
            fs::write(root.at("/proc/device-tree/model"), model).unwrap();
        }
        EnergyModel::of(&root, has_battery)
    }

    #[test]
    fn the_board_or_else_the_battery_tells_the_class() {
        assert_eq!(of(Some(b"Raspberry Pi 4 Model B Rev 1.5\0"), false).name(), "Raspberry Pi 4");
        assert_eq!(of(Some(b"Raspberry Pi Zero 2 W Rev 1.0\0"), false).milliwatts(), 400);
        assert_eq!(of(Some(b"Raspberry Pi Compute Module 4 Rev 1.1\0"), false).name(), "ARM board");
        assert_eq!(of(Some(b"Radxa ROCK 5B\0"), true).name(), "ARM board");
        assert_eq!(of(Some(&[0xff; 9000]), false).name(), "ARM board");
        assert_eq!(of(None, true).name(), "laptop");
        assert_eq!(of(None, false).name(), "desktop or server");
        assert_eq!(of(None, false).millijoules(1500), 15_000);
        assert_eq!(of(None, false).millijoules(u64::MAX), u64::MAX / 1000);
    }
}
