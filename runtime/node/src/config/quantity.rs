//! Sizes and durations as people write them: `64MiB`, `30s`.
//!
//! - A quantity always has a unit; a bare number is refused, because nobody can tell what it means.
//! - Each value has one canonical text, and reading that text gives the value back.
//!
//! The same units as in a pipeline's manifest, so that nobody has to learn two.

use std::time::Duration;

/// A unit and how many of the base unit it is.
type Unit = (&'static str, u64);

/// What is read, smallest first.
const SIZES: [Unit; 8] = [
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// What is written: the largest that divides.
const BINARY_SIZES: [Unit; 5] = [SIZES[0], SIZES[2], SIZES[4], SIZES[6], SIZES[7]];

/// Milliseconds, smallest first.
const DURATIONS: [Unit; 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a size as bytes; `None` for anything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// Reads a duration; `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// The canonical text of a number of bytes.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    write(bytes, &BINARY_SIZES)
}

/// The canonical text of a duration; parts of a millisecond are cut.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    write(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS)
}

fn parse(text: &str, units: &[Unit]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write(number: u64, units: &[Unit]) -> String {
    let fits = |factor: u64| factor == 1 || number >= factor && number.is_multiple_of(factor);
    let (unit, factor) = units.iter().rev().find(|(_, factor)| fits(*factor)).unwrap_or(&("", 1));
    format!("{}{unit}", number / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_reads_back_as_it_was_written() {
        for bytes in [0, 1, 1023, 1024, 1500, 1 << 20, 3 << 29, 1 << 40, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes), "{bytes}");
        }
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(parse_size("2 kb"), Some(2000));
    }

    #[test]
    fn a_duration_reads_back_as_it_was_written() {
        for ms in [0, 1, 999, 1000, 1500, 90_000, 3_600_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&duration_text(duration)), Some(duration), "{ms}");
        }
        assert_eq!(duration_text(Duration::from_secs(90)), "90s");
        assert_eq!(duration_text(Duration::from_secs(7 * 24 * 3600)), "7d");
    }

    #[test]
    fn a_number_without_a_unit_or_beyond_64_bits_is_refused() {
        for text in ["", "5", "MiB", "-1s", "1.5GiB", "5 parsecs", "99999999999999999999B"] {
            assert_eq!(parse_size(text), None, "{text:?}");
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        assert_eq!(parse_size("18446744073709551615GiB"), None);
    }
}
