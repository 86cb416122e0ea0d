//! The table of the budget's settings: their keys, their defaults in each profile, and how each is read.
//!
//! Deliberately absent: files, variables and flags, which `config` lays over each other. Every value is a text here, so
//! that a profile is nothing but a column of this table that its owner can read.

use super::{Ceiling, Green, Limits, Profile, Share, limits::THREADS_MAX};

/// Why a text is no value of a setting; says what the setting takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It takes something else.
    #[error("takes {0}")]
    Takes(&'static str),
    /// A part of it is neither weekdays nor a range of hours.
    #[error("takes `always` or hours such as `mon-fri 22:00-07:00, sat-sun 00:00-24:00`, not `{part}`")]
    Hours {
        /// The part, cut short.
        part: String,
    },
    /// There is no end to it.
    #[error("takes {entries_max} entries at most")]
    HoursTooMany {
        /// How many it takes.
        entries_max: usize,
    },
}

/// One setting of the budget.
pub struct BudgetSetting {
    /// Dotted key, as in the configuration.
    pub key: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    gentle: &'static str,
    idle_only: &'static str,
    set: fn(&mut Limits, &str) -> Result<(), LimitError>,
}

impl BudgetSetting {
    /// The value that it has where its owner says nothing.
    pub fn default_of(&self, profile: Profile) -> &'static str {
        match profile {
            Profile::Gentle => self.gentle,
            Profile::IdleOnly => self.idle_only,
        }
    }

    /// Whether it takes this text.
    ///
    /// # Errors
    /// [`LimitError`] says what it takes.
    pub fn check(&self, text: &str) -> Result<(), LimitError> {
        (self.set)(&mut Limits::own(), text)
    }
}

const PROFILE: &str = "budget.profile";

/// Every setting of the budget, in the order in which it is shown.
pub const BUDGET_SETTINGS: &[BudgetSetting] = &[
    BudgetSetting {
        key: PROFILE,
        help: "gentle (a little while you are there) or idle-only; sets the defaults below",
        gentle: "gentle",
        idle_only: "idle-only",
        set: |_, text| text.parse::<Profile>().map(drop),
    },
    BudgetSetting {
        key: "budget.idle.threads",
        help: "compute threads for others while nobody is there (0: one a core)",
        gentle: "0",
        idle_only: "0",
        set: |limits, text| put(&mut limits.idle.threads, threads(text)),
    },
    BudgetSetting {
        key: "budget.idle.duty_percent",
        help: "share of the time in which each of them runs",
        gentle: "100",
        idle_only: "100",
        set: |limits, text| put(&mut limits.idle.duty_permille, duty(text)),
    },
    BudgetSetting {
        key: "budget.used.threads",
        help: "compute threads for others while the machine is in use (0: one a core), or none",
        gentle: "1",
        idle_only: "none",
        set: used_threads,
    },
    BudgetSetting {
        key: "budget.used.duty_percent",
        help: "share of the time in which each of them runs",
        gentle: "50",
        idle_only: "50",
        set: |limits, text| {
            let duty = duty(text)?;
            limits.used = limits.used.map(|used| Share { duty_permille: duty, ..used });
            Ok(())
        },
    },
    BudgetSetting {
        key: "budget.idle_after_minutes",
        help: "how long nobody must have been there",
        gentle: "5",
        idle_only: "5",
        set: |limits, text| {
            let minutes = number(text, 0..=1440).ok_or(LimitError::Takes("0 to 1440 minutes"));
            put(&mut limits.idle_after_s, minutes.map(|minutes| minutes * 60))
        },
    },
    BudgetSetting {
        key: "budget.others_percent",
        help: "share of the CPU used by others beyond which work pauses (100: never)",
        gentle: "25",
        idle_only: "25",
        set: |limits, text| {
            let percent = number(text, 1..=100).ok_or(LimitError::Takes("1 to 100 percent; 100 for never"));
            put(&mut limits.others_permille, percent.map(permille))
        },
    },
    BudgetSetting {
        key: "budget.memory_percent",
        help: "share of the memory that must be left available (0: none)",
        gentle: "10",
        idle_only: "10",
        set: |limits, text| {
            let percent = number(text, 0..=90).ok_or(LimitError::Takes("0 to 90 percent; 0 for no limit"));
            put(&mut limits.memory_permille, percent.map(permille))
        },
    },
    BudgetSetting {
        key: "budget.temperature",
        help: "degrees Celsius above which work pauses, auto (10 below the trip point, 75 at most), or off",
        gentle: "auto",
        idle_only: "auto",
        set: |limits, text| put(&mut limits.ceiling, text.parse()),
    },
    BudgetSetting {
        key: "budget.battery_percent",
        help: "charge down to which work may drain a battery, or never",
        gentle: "never",
        idle_only: "never",
        set: battery,
    },
    BudgetSetting {
        key: "budget.hours",
        help: "always, or hours such as `mon-fri 22:00-07:00, sat-sun 00:00-24:00`",
        gentle: "always",
        idle_only: "always",
        set: |limits, text| put(&mut limits.hours, text.parse()),
    },
    BudgetSetting {
        key: "budget.day_energy_wh",
        help: "watt hours a day that work for others may take (0: no limit)",
        gentle: "0",
        idle_only: "0",
        set: |limits, text| {
            let wh = number(text, 0..=1_000_000).ok_or(LimitError::Takes("0 to 1000000 Wh; 0 for no limit"));
            put(&mut limits.day_energy_mj, wh.map(|wh| Some(wh * MJ_PER_WH).filter(|&mj| mj > 0)))
        },
    },
    BudgetSetting {
        key: "budget.day_network_mb",
        help: "megabytes a day that work for others may move (0: no limit)",
        gentle: "0",
        idle_only: "0",
        set: |limits, text| {
            let mb = number(text, 0..=1_000_000_000);
            let mb = mb.ok_or(LimitError::Takes("0 to 1000000000 MB; 0 for no limit"));
            put(&mut limits.day_network_bytes, mb.map(|mb| Some(mb * 1_000_000).filter(|&bytes| bytes > 0)))
        },
    },
    BudgetSetting {
        key: "budget.green",
        help: "work only while your number is `above N` or `below N` (empty: always)",
        gentle: "",
        idle_only: "",
        set: |limits, text| match text {
            "" => put(&mut limits.green, Ok(None)),
            text => put(&mut limits.green, text.parse().map(Some)),
        },
    },
];

/// Millijoules in a watt hour.
pub(super) const MJ_PER_WH: u64 = 3_600_000;

impl Limits {
    /// The limits that a profile sets.
    pub fn of(profile: Profile) -> Self {
        let defaults = Self::resolve(|key| (key == PROFILE).then_some(profile.name()));
        #[expect(clippy::expect_used, reason = "a test reads every default of every profile")]
        defaults.expect("the table's own defaults are read")
    }

    /// The limits that settings come to; what `value` does not know has its profile's default.
    ///
    /// # Errors
    /// The key of the first setting whose text is no value, and what it takes.
    pub fn resolve<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<Self, (&'static str, LimitError)> {
        let profile = value(PROFILE).map_or(Ok(Profile::default()), str::parse);
        let profile = profile.map_err(|error| (PROFILE, error))?;
        let mut limits = Self { is_own: false, ..Self::own() };
        for setting in BUDGET_SETTINGS {
            let text = value(setting.key).unwrap_or(setting.default_of(profile));
            (setting.set)(&mut limits, text).map_err(|error| (setting.key, error))?;
        }
        Ok(limits)
    }
}

impl std::str::FromStr for Profile {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let profiles = [Self::Gentle, Self::IdleOnly];
        let found = profiles.into_iter().find(|profile| profile.name() == text);
        found.ok_or(LimitError::Takes("gentle or idle-only"))
    }
}

impl std::str::FromStr for Ceiling {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        match text {
            "auto" => Ok(Self::BelowTrip { margin: 10_000, at_most: 75_000 }),
            "off" => Ok(Self::Off),
            text => {
                let degrees = text.parse::<i32>().ok().filter(|degrees| (30..=110).contains(degrees));
                let degrees = degrees.ok_or(LimitError::Takes("30 to 110 degrees Celsius, auto, or off"))?;
                Ok(Self::At(degrees * 1000))
            }
        }
    }
}

impl std::str::FromStr for Green {
    type Err = LimitError;

    /// `above 500`, `below 120.5`.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let mut words = text.split_whitespace();
        let parsed = match (words.next(), words.next().and_then(milli), words.next()) {
            (Some("above"), Some(milli), None) => Some(Self::Above(milli)),
            (Some("below"), Some(milli), None) => Some(Self::Below(milli)),
            _ => None,
        };
        parsed.ok_or(LimitError::Takes("`above N` or `below N`, with three decimals at most, or nothing"))
    }
}

/// `-12.5` -> -12500; nothing beyond a billion, which no scale of power has.
fn milli(text: &str) -> Option<i64> {
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str, digits_max: usize| {
        (1..=digits_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !is_number(whole, 9) || !is_number(part, 3) {
        return None;
    }
    let milli = whole.parse::<i64>().ok()? * 1000 + format!("{part:0<3}").parse::<i64>().ok()?;
    Some(if is_negative { -milli } else { milli })
}

fn put<T>(place: &mut T, value: Result<T, LimitError>) -> Result<(), LimitError> {
    *place = value?;
    Ok(())
}

fn number(text: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
    text.parse().ok().filter(|n| range.contains(n))
}

/// Of a percentage up to 100.
fn permille(percent: u64) -> u16 {
    u16::try_from(percent * 10).unwrap_or(1000)
}

fn threads(text: &str) -> Result<u16, LimitError> {
    let threads = text.parse().ok().filter(|&n| n <= THREADS_MAX);
    threads.ok_or(LimitError::Takes("1 to 256 threads, or 0 for one a core"))
}

fn used_threads(limits: &mut Limits, text: &str) -> Result<(), LimitError> {
    if text == "none" {
        limits.used = None;
        return Ok(());
    }
    let takes = LimitError::Takes("1 to 256 threads, 0 for one a core, or none");
    let threads = threads(text).map_err(|_| takes)?;
    limits.used = Some(Share { threads, ..limits.used.unwrap_or(Share::ALL) });
    Ok(())
}

/// Below 5 % a thread rests for seconds after each chunk: fewer threads are what is meant.
fn duty(text: &str) -> Result<u16, LimitError> {
    number(text, 5..=100).map(permille).ok_or(LimitError::Takes("5 to 100 percent"))
}

fn battery(limits: &mut Limits, text: &str) -> Result<(), LimitError> {
    if text == "never" {
        limits.battery_permille = None;
        return Ok(());
    }
    let takes = LimitError::Takes("0 to 100 percent of charge, or never");
    put(&mut limits.battery_permille, number(text, 0..=100).map(|n| Some(permille(n))).ok_or(takes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(set: &[(&str, &'static str)]) -> Result<Limits, String> {
        let value = |key: &str| set.iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
        Limits::resolve(value).map_err(|(key, error)| format!("`{key}` {error}"))
    }

    #[test]
    fn a_profile_is_a_column_of_the_table() {
        for profile in [Profile::Gentle, Profile::IdleOnly] {
            for setting in BUDGET_SETTINGS {
                assert_eq!(setting.check(setting.default_of(profile)), Ok(()), "{}", setting.key);
            }
        }
        let gentle = Limits::of(Profile::Gentle);
        assert_eq!(gentle.used, Some(Share { threads: 1, duty_permille: 500 }));
        assert_eq!((gentle.idle, gentle.battery_permille, gentle.is_own), (Share::ALL, None, false));
        assert_eq!(Limits::of(Profile::IdleOnly), Limits { used: None, ..gentle });
        assert_eq!(Limits::of(Profile::default()), resolve(&[]).unwrap());
    }

    #[test]
    fn a_setting_overrules_its_profile() {
        let limits = resolve(&[
            ("budget.profile", "idle-only"),
            ("budget.used.threads", "2"),
            ("budget.battery_percent", "60"),
            ("budget.temperature", "65"),
            ("budget.day_energy_wh", "20"),
            ("budget.day_network_mb", "500"),
            ("budget.green", "below 120.5"),
        ])
        .unwrap();
        assert_eq!(limits.used, Some(Share { threads: 2, duty_permille: 500 }), "the share is the profile's");
        assert_eq!((limits.battery_permille, limits.ceiling), (Some(600), Ceiling::At(65_000)));
        assert_eq!((limits.day_energy_mj, limits.day_network_bytes), (Some(72_000_000), Some(500_000_000)));
        assert_eq!(limits.green, Some(Green::Below(120_500)));
        assert_eq!("above -12.5".parse(), Ok(Green::Above(-12_500)));
    }

    #[test]
    fn a_wrong_value_is_told_what_its_setting_takes() {
        for (key, text, takes) in [
            ("budget.profile", "fast", "takes gentle or idle-only"),
            ("budget.idle.threads", "257", "takes 1 to 256 threads, or 0 for one a core"),
            ("budget.idle.threads", "none", "takes 1 to 256 threads, or 0 for one a core"),
            ("budget.used.threads", "-1", "takes 1 to 256 threads, 0 for one a core, or none"),
            ("budget.idle.duty_percent", "0", "takes 5 to 100 percent"),
            ("budget.used.duty_percent", "101", "takes 5 to 100 percent"),
            ("budget.idle_after_minutes", "5m", "takes 0 to 1440 minutes"),
            ("budget.others_percent", "0", "takes 1 to 100 percent; 100 for never"),
            ("budget.memory_percent", "91", "takes 0 to 90 percent; 0 for no limit"),
            ("budget.temperature", "warm", "takes 30 to 110 degrees Celsius, auto, or off"),
            ("budget.battery_percent", "101", "takes 0 to 100 percent of charge, or never"),
            ("budget.day_energy_wh", "-5", "takes 0 to 1000000 Wh; 0 for no limit"),
            ("budget.day_network_mb", "much", "takes 0 to 1000000000 MB; 0 for no limit"),
            ("budget.green", "500", "takes `above N` or `below N`, with three decimals at most, or nothing"),
            (
                "budget.green",
                "above 1.2345",
                "takes `above N` or `below N`, with three decimals at most, or nothing",
            ),
        ] {
            assert_eq!(resolve(&[(key, text)]).unwrap_err(), format!("`{key}` {takes}"), "{text}");
        }
        let error = resolve(&[("budget.hours", "mon 8-9")]).unwrap_err();
        assert!(
            error.starts_with("`budget.hours` takes `always` or hours such as ")
                && error.ends_with("not `8`")
        );
    }
}
