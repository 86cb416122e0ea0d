//! How long somebody waited for a CPU: pressure stall information.
//!
//! Off on a stock Raspberry Pi kernel, where only `psi=1` on the kernel's command line brings it: then it is absent.
//! Source: `Documentation/accounting/psi.rst`.

use super::root::{Found, NONSENSE, Root};

/// Bytes of the file, two lines.
const PRESSURE_BYTES_MAX: usize = 512;
pub(super) const PATH: &str = "/proc/pressure/cpu";

/// Thousandths of the last 10 s in which at least one task waited for a CPU.
///
/// # Errors
/// [`super::root::Lack`].
pub(super) fn read(root: &Root) -> Found<u16> {
    parse(&root.text(PATH, PRESSURE_BYTES_MAX)?)
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=7`, in percent with two decimals.
fn parse(text: &str) -> Found<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some ")).ok_or(NONSENSE)?;
    let percent = line.split(' ').find_map(|part| part.strip_prefix("avg10=")).ok_or(NONSENSE)?;
    let percent: f64 = percent.parse().map_err(|_| NONSENSE)?;
    // A range that nan is not in either.
    if !(0.0..=100.0).contains(&percent) {
        return Err(NONSENSE);
    }
    Ok((percent * 10.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pressure() {
        let full = "full avg10=7.00 avg60=0.00 avg300=0.00 total=0\n";
        let line = |avg10: &str| format!("some avg10={avg10} avg60=9.99 avg300=9.99 total=5\n{full}");
        assert_eq!(parse(&line("12.34")), Ok(123));
        assert_eq!(parse(&line("100.00")), Ok(1000));
        for wrong in
            [line("101"), line("-1"), line("nan"), line("inf"), line(""), full.to_owned(), String::new()]
        {
            assert_eq!(parse(&wrong), Err(NONSENSE), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(some |avg10=|[0-9.e-]{0,30}| |\n|.){0,30}") {
            let _ = parse(&text);
        }
    }
}
