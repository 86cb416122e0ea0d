//! The number of the owner's own that says how green the power is: from a file, or from a URL.
//!
//! What it means the owner knows: grams of CO₂, watts of the roof, a price. It is a decimal number and nothing else. A file
//! is as old as its last change; what a URL gave is as old as its arrival, whatever its headers claim.
//!
//! Deliberately absent: a service of anybody else's, for to ask one tells it who is here, and TLS, which a certificate
//! store would come with: whoever needs it writes the number to a file.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use super::{
    described::Described,
    fetch::{GreenFetch, GreenUrl},
    moment::Moment,
    root::{Found, Lack, NONSENSE, lack, read_start, sensed},
};
use crate::proto::budget::{Fault, Sensed};

/// Bytes of the owner's file: one number, and room for the spaces about it.
const FILE_BYTES_MAX: usize = 1024;
/// A number beyond this is nobody's measurement, and one above 2^53 thousandths is not exact any more.
const NUMBER_MAX: f64 = 1e12;
/// How far ahead of our clock a file's date may lie: file servers have clocks of their own.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Why a source cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GreenError {
    /// TLS is not spoken.
    #[error(
        "{0} needs TLS, which edge does not speak here: fetch it with a timer of your own and name the file"
    )]
    Https(String),
    /// Neither a path nor a URL that can be fetched.
    #[error("{0} is neither an absolute path nor http://HOST[:PORT]/PATH")]
    Neither(String),
}

/// Where the number is, and how old it may be.
#[derive(Clone, Debug)]
pub struct GreenSource {
    place: Place,
    age_max: Duration,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Url(GreenUrl),
}

impl GreenSource {
    /// `text` is an absolute path or an `http://` URL; what is older than `age_max` is not believed.
    ///
    /// # Errors
    /// [`GreenError`].
    pub fn parse(text: &str, age_max: Duration) -> Result<Self, GreenError> {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let place = match scheme.as_deref() {
            Some("http") => {
                Place::Url(GreenUrl::parse(text).ok_or_else(|| GreenError::Neither(text.into()))?)
            }
            Some("https") => return Err(GreenError::Https(text.into())),
            None if text.starts_with('/') => Place::File(text.into()),
            _ => return Err(GreenError::Neither(text.into())),
        };
        Ok(Self { place, age_max })
    }
}

/// What a fetch left behind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    /// When, by the monotonic clock, and what.
    pub(super) last: Option<(Duration, Found<i64>)>,
}

/// The sensor.
#[derive(Debug)]
pub(super) struct Green {
    source: Option<GreenSource>,
    arrived: Arc<Mutex<Arrived>>,
    was_there: bool,
}

impl Green {
    pub(super) fn new(source: Option<GreenSource>) -> Self {
        Self { source, arrived: Arc::default(), was_there: false }
    }

    /// What fetches, where the source is a URL.
    pub(super) fn fetch(&self) -> Option<GreenFetch> {
        let source = self.source.as_ref()?;
        let Place::Url(url) = &source.place else { return None };
        Some(GreenFetch::new(url.clone(), source.age_max, Arc::clone(&self.arrived)))
    }

    /// Thousandths. Never waits for the network.
    pub(super) fn read(&mut self, now: &Moment) -> Sensed<i64> {
        let Some(source) = &self.source else { return Sensed::Absent };
        let found = match &source.place {
            Place::File(path) => file(path, source.age_max, now),
            Place::Url(_) => {
                let arrived = *self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
                url(arrived, source.age_max, now)
            }
        };
        match found {
            // The owner said that there is one.
            Err(Lack::Missing) if self.was_there => Sensed::Broken(Fault::Vanished),
            Err(Lack::Missing) => Sensed::Broken(Fault::Unreadable),
            found => {
                self.was_there = true;
                sensed(found)
            }
        }
    }

    pub(super) fn describe(&self, said: &Sensed<i64>) -> Described {
        let place = match self.source.as_ref().map(|source| &source.place) {
            None => "no file or URL is set".to_owned(),
            Some(Place::File(path)) => path.display().to_string(),
            Some(Place::Url(url)) => url.to_string(),
        };
        let worded = |milli: &i64| format!("{place}: {}", *milli as f64 / 1000.0);
        let age_s = self.source.as_ref().map_or(0, |source| source.age_max.as_secs());
        Described::new("green power", said, worded, &place).mend(|state| match state {
            super::State::Broken(Fault::Stale) => Some(format!("renew it at least every {age_s} s")),
            super::State::Broken(Fault::Nonsense) => {
                Some("write one decimal number there and nothing else".into())
            }
            super::State::Broken(_) => Some("see that it exists and that edge may read it".into()),
            _ => None,
        })
    }
}

fn url(arrived: Arrived, age_max: Duration, now: &Moment) -> Found<i64> {
    let (at, found) = arrived.last.ok_or(Lack::Broken(Fault::Stale))?;
    if now.monotonic.saturating_sub(at) > age_max { Err(Lack::Broken(Fault::Stale)) } else { found }
}

fn file(path: &Path, age_max: Duration, now: &Moment) -> Found<i64> {
    let said = std::fs::metadata(path).map_err(|error| lack(&error))?;
    if !said.is_file() {
        return Err(NONSENSE);
    }
    let changed = said.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).ok_or(NONSENSE)?;
    // Without a clock no age is known, and an unknown age is too old.
    let wall = now.believed_ms().map(Duration::from_millis).ok_or(Lack::Broken(Fault::Stale))?;
    let is_fresh = match wall.checked_sub(changed) {
        Some(age) => age <= age_max,
        None => changed.saturating_sub(wall) <= AHEAD_MAX,
    };
    if !is_fresh {
        return Err(Lack::Broken(Fault::Stale));
    }
    number(&read_start(path, FILE_BYTES_MAX + 1)?, FILE_BYTES_MAX)
}

/// One decimal number, in thousandths.
pub(super) fn number(bytes: &[u8], bytes_max: usize) -> Found<i64> {
    if bytes.len() > bytes_max {
        return Err(NONSENSE);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NONSENSE)?.trim();
    let number: f64 = text.parse().map_err(|_| NONSENSE)?;
    if number.is_finite() && number.abs() <= NUMBER_MAX {
        Ok((number * 1000.0).round() as i64)
    } else {
        Err(NONSENSE)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn age(path: &Path, wall_ms: u64) {
        let at = UNIX_EPOCH + Duration::from_millis(wall_ms);
        fs::File::options().write(true).open(path).unwrap().set_modified(at as SystemTime).unwrap();
    }

    #[test]
    fn a_source_is_a_path_or_plain_http() {
        for good in ["/run/green", "http://roof.lan/now", "HTTP://10.0.0.7:8080", "http://[::1]:80/a?b=c"] {
            assert!(GreenSource::parse(good, HOUR).is_ok(), "{good}");
        }
        for bad in [
            "",
            "green",
            "ftp://a/b",
            "http://",
            "http:///path",
            "http://a b/",
            "http://user:pw@host/",
            "file:///a",
        ] {
            assert_eq!(GreenSource::parse(bad, HOUR).unwrap_err(), GreenError::Neither(bad.into()));
        }
        let https = GreenSource::parse("https://a/b", HOUR).unwrap_err();
        assert_eq!(
            https.to_string(),
            "https://a/b needs TLS, which edge does not speak here: fetch it with a timer of your own and name the file"
        );
    }

    #[test]
    fn a_file_is_believed_while_it_is_new_small_and_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("green");
        let now = Moment::at_ms(0);
        let wall = now.wall_ms.unwrap();
        let mut green = Green::new(Some(GreenSource::parse(path.to_str().unwrap(), HOUR).unwrap()));
        assert_eq!(green.read(&now), Sensed::Broken(Fault::Unreadable), "named and not there");
        let mut put = |text: &str, at: u64| {
            fs::write(&path, text).unwrap();
            age(&path, at);
            green.read(&now)
        };
        assert_eq!(put(" 0.4215\n", wall - 1000), Sensed::Is(422));
        assert_eq!(put("-12", wall - 3_600_000), Sensed::Is(-12_000));
        assert_eq!(put("-12", wall - 3_601_000), Sensed::Broken(Fault::Stale));
        assert_eq!(put("5", wall + 30_000), Sensed::Is(5000), "a file server's clock is a little ahead");
        assert_eq!(put("5", wall + 90_000), Sensed::Broken(Fault::Stale), "no age can be told");
        for wrong in ["", "green", "nan", "inf", "1e300", "5 W", "{\"a\":1}", &"7".repeat(2000)] {
            assert_eq!(put(wrong, wall), Sensed::Broken(Fault::Nonsense), "{wrong}");
        }
        assert_eq!(
            green.read(&Moment { wall_ms: None, ..now }),
            Sensed::Broken(Fault::Stale),
            "no clock, no age"
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(green.read(&now), Sensed::Broken(Fault::Vanished));
        fs::create_dir(&path).unwrap();
        assert_eq!(green.read(&now), Sensed::Broken(Fault::Nonsense));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[-+0-9.eE]{0,20}") {
            let _ = number(&bytes, 64);
            if let Ok(milli) = number(text.as_bytes(), 64) {
                prop_assert!(milli.abs() <= 1_000_000_000_000_000);
            }
        }
    }
}
