//! Numbers as people read them.

use std::{path::Path, time::Duration};

/// A path, its control characters made visible: a file's name must not move a terminal's cursor.
pub(super) fn path(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// An error and its causes on one line; a cause that its effect repeats is left out.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = source.source();
    }
    text
}

/// `1234567` -> `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 chunk`, `2 chunks`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", number(n), if n == 1 { "" } else { "s" })
}

/// `850 ms`, `1.2 s`, `3 min 20 s`, `2 h 5 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0 if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        0..=59 => format!("{seconds:.1} s"),
        whole @ 60..=3599 => format!("{} min {} s", whole / 60, whole % 60),
        whole => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `512 B`, `4.0 KiB`, `33.1 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The end of a text, at most `columns` characters.
pub(super) fn tail(text: &str, columns: usize) -> String {
    let characters = text.chars().count();
    if characters <= columns {
        return text.to_owned();
    }
    let rest: String = text.chars().skip(characters - columns + 1).collect();
    format!("…{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_a_person_would_write() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((count(1, "chunk"), count(0, "chunk")), ("1 chunk".into(), "0 chunks".into()));
        let durations =
            [0.0, 0.9994, 0.9996, 59.94, 60.0, 3_725.0].map(Duration::from_secs_f64).map(duration);
        assert_eq!(durations, ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 0 s", "1 h 2 min"]);
        assert_eq!([1023, 1024, 1 << 20, 1536 << 20].map(bytes), ["1023 B", "1.0 KiB", "1.0 MiB", "1.5 GiB"]);
        assert_eq!((tail("abcdef", 4), tail("äbcd", 4)), ("…def".into(), "äbcd".into()));
    }
}
