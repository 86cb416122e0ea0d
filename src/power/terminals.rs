//! When somebody last typed at a terminal, as `w` tells it: by the access time of the terminals' device files.
//!
//! The kernel sets it when a program reads what was typed, to 8 seconds, so that nobody can time keystrokes by it
//! (`drivers/tty/tty_io.c`, `tty_update_time`). Output changes the other time stamp, and does not count: a running log is
//! nobody's hand. The stamps are wall clock, and a Pi's clock jumps when it finds a time server: so what counts is that a
//! stamp has *changed* since the last reading; how far back it lies matters in the first one alone.
//!
//! Deliberately absent: `/dev/input/*`, whose files are stamped by nobody, and `/proc/interrupts`, where a keyboard on USB
//! shares its line with the network of a Pi. A desktop reads its keyboard by neither way, and is told of by logind alone.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, time::Duration};

use super::{
    moment::Moment,
    root::{Found, Lack, Root},
};

const PTS: &str = "/dev/pts";
/// Virtual consoles that are looked at; logind starts logins on six.
const CONSOLES: u8 = 12;
/// Terminals that are looked at.
const TERMINALS_MAX: usize = 512;

/// The stamps are this coarse: for so long after one somebody counts as there.
pub(super) const STAMP_GRAIN: Duration = Duration::from_secs(8);

/// What the terminals say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    /// When somebody last did, by the monotonic clock; zero where nobody did since the machine started.
    pub(super) last: Duration,
    /// Since the reading before.
    pub(super) is_new: bool,
    /// Terminals that there are.
    pub(super) count: usize,
}

/// Keeps the stamps of the reading before.
#[derive(Debug, Default)]
pub(super) struct Terminals {
    before: Option<(Duration, BTreeMap<String, i64>)>,
    last: Duration,
}

impl Terminals {
    /// # Errors
    /// [`Lack::Missing`] where there is no terminal device at all.
    pub(super) fn read(&mut self, root: &Root, now: &Moment) -> Found<Typed> {
        let stamps = stamps(root)?;
        let seconds = now.wall_ms.and_then(|ms| i64::try_from(ms / 1000).ok());
        let (at, before) = match self.before.take() {
            Some((at, before)) => (at, Some(before)),
            None => (Duration::ZERO, None),
        };
        let changed =
            stamps.iter().filter(|(name, stamp)| before.as_ref().is_none_or(|b| b.get(*name) != Some(stamp)));
        let newest = changed.map(|(_, stamp)| *stamp).max();
        if let Some(newest) = newest {
            // How long ago, but not before the last reading: then it was otherwise. Without a clock: just now.
            let age = seconds.map_or(0, |seconds| u64::try_from(seconds.saturating_sub(newest)).unwrap_or(0));
            let typed = now.monotonic.saturating_sub(Duration::from_secs(age)).max(at);
            self.last = self.last.max(typed);
        }
        let typed = Typed { last: self.last, is_new: newest.is_some(), count: stamps.len() };
        self.before = Some((now.monotonic, stamps));
        Ok(typed)
    }
}

/// Access times in seconds, by name.
fn stamps(root: &Root) -> Found<BTreeMap<String, i64>> {
    let pts = root.names(PTS);
    let mut names: Vec<String> = (1..=CONSOLES).map(|n| format!("/dev/tty{n}")).collect();
    let numbered = |name: &&String| name.bytes().all(|b| b.is_ascii_digit());
    names.extend(
        pts.iter().flatten().filter(numbered).take(TERMINALS_MAX).map(|name| format!("{PTS}/{name}")),
    );
    let stamp = |name: String| Some((fs::metadata(root.at(&name)).ok()?.atime(), name));
    let found: BTreeMap<String, i64> =
        names.into_iter().filter_map(stamp).map(|(stamp, name)| (name, stamp)).collect();
    if found.is_empty() && pts.is_err() { Err(Lack::Missing) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
            fs::write(dir.path().join("dev/pts/ptmx"), "").unwrap();
            Self(dir)
        }

        /// Somebody typed there when the wall clock showed so many milliseconds.
        fn typed(&self, name: &str, wall_ms: u64) {
            let path = self.0.path().join("dev").join(name);
            fs::write(&path, "").unwrap();
            let at = UNIX_EPOCH + Duration::from_millis(wall_ms);
            let times = fs::FileTimes::new().set_accessed(at);
            fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
        }

        fn root(&self) -> Root {
            Root::new(self.0.path())
        }
    }

    const WALL: u64 = 1_800_000_000_000;

    fn said(found: Found<Typed>) -> (u64, bool) {
        found.map(|typed| (typed.last.as_secs(), typed.is_new)).unwrap()
    }

    #[test]
    fn the_last_who_typed_counts() {
        let tree = Tree::new();
        let mut terminals = Terminals::default();
        assert_eq!(said(terminals.read(&tree.root(), &Moment::at_ms(1_000_000))), (0, false));
        tree.typed("pts/0", WALL + 1_002_000);
        tree.typed("tty1", WALL + 900_000);
        assert_eq!(said(terminals.read(&tree.root(), &Moment::at_ms(1_010_000))), (1002, true));
        assert_eq!(said(terminals.read(&tree.root(), &Moment::at_ms(1_020_000))), (1002, false));
        tree.typed("pts/0", WALL + 1_020_000);
        assert_eq!(said(terminals.read(&tree.root(), &Moment::at_ms(1_030_000))), (1020, true));
        fs::remove_file(tree.0.path().join("dev/pts/0")).unwrap();
        assert_eq!(said(terminals.read(&tree.root(), &Moment::at_ms(1_040_000))), (1020, false));
    }

    #[test]
    fn the_first_reading_trusts_the_stamps_within_the_uptime() {
        let tree = Tree::new();
        tree.typed("pts/0", WALL + 400_000);
        assert_eq!(said(Terminals::default().read(&tree.root(), &Moment::at_ms(1_000_000))), (400, true));
        tree.typed("pts/0", 5000);
        assert_eq!(said(Terminals::default().read(&tree.root(), &Moment::at_ms(1_000_000))), (0, true));
        tree.typed("pts/0", WALL + 9_000_000);
        let first = Terminals::default().read(&tree.root(), &Moment::at_ms(1_000_000));
        assert_eq!(said(first), (1000, true), "a stamp from the future is from now");
    }

    #[test]
    fn a_clock_that_jumps_neither_wakes_nor_hides_anybody() {
        let tree = Tree::new();
        tree.typed("pts/0", WALL);
        let mut terminals = Terminals::default();
        terminals.read(&tree.root(), &Moment::at_ms(500_000)).unwrap();
        let jumped = |ms: u64, by: i64| Moment {
            wall_ms: Some((WALL + ms).checked_add_signed(by).unwrap()),
            ..Moment::at_ms(ms)
        };
        assert_eq!(said(terminals.read(&tree.root(), &jumped(600_000, 1_000_000_000))), (0, false));
        tree.typed("pts/0", WALL - 1_000_000_000);
        let back = terminals.read(&tree.root(), &jumped(700_000, -1_000_700_000));
        assert_eq!(said(back), (700, true), "typed under a clock that was set back");
        let unset = Moment { wall_ms: None, ..Moment::at_ms(800_000) };
        tree.typed("pts/0", 77_000);
        assert_eq!(said(terminals.read(&tree.root(), &unset)), (800, true));
    }

    #[test]
    fn no_terminal_device_is_no_sensor() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Terminals::default().read(&Root::new(dir.path()), &Moment::at_ms(0)), Err(Lack::Missing));
    }
}
