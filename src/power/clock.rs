//! Time of day where the owner lives.
//!
//! The zone is that of `TZ`, else of `/etc/localtime`, else UTC, as tzset(3) has it. A zone that cannot be read is
//! broken, not UTC: hours of the day judged in the wrong zone are hours in which the owner said no. A clock that is unset
//! is absent.

use std::ffi::OsString;

use tz::{TimeZone, timezone::TimeZoneSettings};

use super::{
    moment::Moment,
    root::{Found, Lack, NONSENSE, Root, read_start},
};
use crate::proto::budget::LocalTime;

/// Bytes of a file of the zone database; the largest has 4 KB.
const ZONE_BYTES_MAX: usize = 64 * 1024;
/// Where names of zones are looked up.
const ZONE_DIRS: [&str; 3] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];
const LOCALTIME: &str = "/etc/localtime";
const MS_PER_MINUTE: i64 = 60_000;

/// Keeps the zone, and reads it again where `/etc/localtime` was changed.
#[derive(Debug)]
pub(super) struct Clock {
    named: Option<String>,
    bytes: Option<Vec<u8>>,
    zone: Found<TimeZone>,
}

impl Clock {
    /// `tz` is the environment's `TZ`.
    pub(super) fn new(root: &Root, tz: Option<OsString>) -> Self {
        let named = tz.and_then(|tz| tz.into_string().ok()).filter(|tz| !tz.is_empty());
        let zone = named.as_ref().map_or_else(|| Ok(TimeZone::utc()), |name| zone_of(root, name));
        Self { named, bytes: None, zone }
    }

    /// # Errors
    /// [`Lack`]; missing where the clock is not set.
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Found<LocalTime> {
        let ms = now.believed_ms().ok_or(Lack::Missing)?;
        if self.named.is_none() {
            self.refresh(root);
        }
        let zone = self.zone.as_ref().map_err(|lack| *lack)?;
        let ms = i64::try_from(ms).map_err(|_| NONSENSE)?;
        let offset_s = zone.find_local_time_type(ms / 1000).map_err(|_| NONSENSE)?.ut_offset();
        local(ms, offset_s)
    }

    fn refresh(&mut self, root: &Root) {
        match read_start(&root.at(LOCALTIME), ZONE_BYTES_MAX) {
            Ok(bytes) if self.bytes.as_ref() == Some(&bytes) => {}
            Ok(bytes) => {
                self.zone = TimeZone::from_tz_data(&bytes).map_err(|_| NONSENSE);
                self.bytes = Some(bytes);
            }
            Err(Lack::Missing) => {
                self.bytes = None;
                self.zone = Ok(TimeZone::utc());
            }
            Err(broken) => {
                self.bytes = None;
                self.zone = Err(broken);
            }
        }
    }

    /// Where the zone is from, for a person.
    pub(super) fn describe(&self) -> String {
        match (&self.named, &self.bytes) {
            (Some(name), _) => format!("TZ={}", super::described::shown(name)),
            (None, Some(_)) => LOCALTIME.into(),
            (None, None) => "UTC, for there is no /etc/localtime".into(),
        }
    }
}

/// A `TZ` is the name of a file of the zone database, or a rule of its own.
fn zone_of(root: &Root, name: &str) -> Found<TimeZone> {
    // The crate hands paths to a plain function, which knows no root: the file is read here, and the rule there.
    let name = name.strip_prefix(':').unwrap_or(name);
    let dirs = if name.starts_with('/') { &[""][..] } else { &ZONE_DIRS[..] };
    for dir in dirs {
        match read_start(&root.at(format!("{dir}/{name}")), ZONE_BYTES_MAX) {
            Ok(bytes) => return TimeZone::from_tz_data(&bytes).map_err(|_| NONSENSE),
            Err(Lack::Missing | Lack::Broken(_)) => {}
        }
    }
    let none = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
    TimeZoneSettings::new(&[], none).parse_posix_tz(name).map_err(|_| NONSENSE)
}

fn local(ms: i64, offset_s: i32) -> Found<LocalTime> {
    let minutes = ms.checked_add(i64::from(offset_s) * 1000).ok_or(NONSENSE)?.div_euclid(MS_PER_MINUTE);
    let (day, minute) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    // 1970-01-01 was a Thursday.
    let weekday = (day + 3).rem_euclid(7);
    Ok(LocalTime {
        day: u32::try_from(day).map_err(|_| NONSENSE)?,
        weekday: u8::try_from(weekday).map_err(|_| NONSENSE)?,
        minute: u16::try_from(minute).map_err(|_| NONSENSE)?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// 2027-01-15 is a Friday.
    const WINTER: u64 = 1_800_000_000_000;
    const SUMMER: u64 = WINTER + 180 * 86_400_000;

    fn at(wall_ms: u64) -> Moment {
        Moment { wall_ms: Some(wall_ms), ..Moment::at_ms(0) }
    }

    fn said(tz: Option<&str>, root: &Root, wall_ms: u64) -> Found<(u8, u16)> {
        let time = Clock::new(root, tz.map(OsString::from)).read(root, &at(wall_ms))?;
        Ok((time.weekday, time.minute))
    }

    #[test]
    fn a_rule_in_tz_knows_summer_and_winter() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(said(None, &root, WINTER), Ok((4, 480)), "UTC");
        assert_eq!(said(Some(""), &root, WINTER), Ok((4, 480)), "UTC");
        let berlin = Some("CET-1CEST,M3.5.0,M10.5.0/3");
        assert_eq!(said(berlin, &root, WINTER), Ok((4, 540)));
        assert_eq!(said(berlin, &root, SUMMER), Ok((2, 600)));
        assert_eq!(said(Some("PST8PDT,M3.2.0,M11.1.0"), &root, WINTER), Ok((4, 0)));
        assert_eq!(said(Some("PST8PDT,M3.2.0,M11.1.0"), &root, WINTER - 1), Ok((3, 1439)), "the day before");
        assert_eq!(said(Some("<+0545>-5:45"), &root, WINTER), Ok((4, 825)));
        assert_eq!(
            said(Some("Europe/Berlin"), &root, WINTER),
            Err(NONSENSE),
            "no database, and no UTC instead"
        );
    }

    #[test]
    fn a_file_of_the_database_is_read_under_the_root_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let zone = |rule: &str| {
            // Version 2 without a transition: two empty blocks and a rule.
            let mut block = b"TZif2".to_vec();
            block.extend([0; 15]);
            block.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4]);
            block.extend([0, 0, 0, 0, 0, 0]);
            block.extend(b"UTC\0");
            [block.clone(), block, format!("\n{rule}\n").into_bytes()].concat()
        };
        fs::create_dir_all(root.at("/etc")).unwrap();
        fs::create_dir_all(root.at("/usr/share/zoneinfo/Asia")).unwrap();
        fs::write(root.at(LOCALTIME), zone("JST-9")).unwrap();
        fs::write(root.at("/usr/share/zoneinfo/Asia/Kathmandu"), zone("<+0545>-5:45")).unwrap();
        let mut clock = Clock::new(&root, None);
        assert_eq!(clock.read(&root, &at(WINTER)).unwrap().minute, 1020);
        fs::write(root.at(LOCALTIME), zone("UTC0")).unwrap();
        assert_eq!(clock.read(&root, &at(WINTER)).unwrap().minute, 480);
        assert_eq!(said(Some(":Asia/Kathmandu"), &root, WINTER), Ok((4, 825)));
        fs::write(root.at(LOCALTIME), "no zone").unwrap();
        assert_eq!(clock.read(&root, &at(WINTER)), Err(NONSENSE));
        fs::remove_file(root.at(LOCALTIME)).unwrap();
        assert_eq!(clock.read(&root, &at(WINTER)).unwrap().minute, 480);
    }

    #[test]
    fn an_unset_clock_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut clock = Clock::new(&root, None);
        assert_eq!(clock.read(&root, &Moment { wall_ms: None, ..at(0) }), Err(Lack::Missing));
        assert_eq!(clock.read(&root, &Moment { newest_ms: WINTER + 1, ..at(WINTER) }), Err(Lack::Missing));
        assert!(clock.read(&root, &Moment { newest_ms: WINTER, ..at(WINTER) }).is_ok());
        assert_eq!(clock.read(&root, &at(u64::MAX)), Err(NONSENSE));
        assert_eq!(clock.read(&root, &at(i64::MAX as u64)), Err(NONSENSE));
    }

    proptest! {
        #[test]
        fn any_zone_and_time_is_read_without_a_panic(
            tz in "([A-Z]{3}-?[0-9]{1,3}|,M[0-9].[0-9].[0-9]|/|:|\\PC){0,6}",
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            ms in any::<u64>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::new(dir.path());
            let _ = said(Some(&tz), &root, ms);
            fs::create_dir_all(root.at("/etc")).unwrap();
            fs::write(root.at(LOCALTIME), [b"TZif2".to_vec(), bytes].concat()).unwrap();
            let _ = said(None, &root, ms);
        }
    }
}
