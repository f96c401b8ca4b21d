//! The small syntaxes inside a manifest's strings: names, references, digests, components, sizes
//! and durations; and what somebody who mistyped one probably meant.
//!
//! Each has one canonical text. What a name or a digest is, is decided in `ids`.

use crate::ids::{Digest, Name};
use crate::limits::NAME_BYTES_MAX;
use crate::pipeline::ComponentRef;

/// A stage and, after a dot, one of its ports or inputs: `split.words`, or `split` for its first.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Name of the stage.
    pub stage: String,
    /// Name of the port or input; `None`: the first.
    pub part: Option<String>,
}

impl Reference {
    /// Splits at the first dot. The parts need not be names: `is_well_formed` says.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some((stage, part)) => Self { stage: stage.to_owned(), part: Some(part.to_owned()) },
            None => Self { stage: text.to_owned(), part: None },
        }
    }

    /// True if both parts are names.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        is_name(&self.stage) && self.part.as_deref().is_none_or(is_name)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.part {
            Some(part) => write!(f, "{}.{part}", self.stage),
            None => f.write_str(&self.stage),
        }
    }
}

/// True for what every name in a manifest must be.
pub(crate) fn is_name(text: &str) -> bool {
    Name::new(text).is_ok()
}

/// The rule for names, for messages.
pub(crate) const NAME_RULE: &str =
    "1 to 63 of a-z, 0-9 and \"-\", beginning with a letter and not ending with \"-\"";

/// The same rule as a regular expression, for the schema.
pub(crate) const NAME_PATTERN: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

/// The nearest name to what was written, if anything is left of it.
pub(crate) fn name_near(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().take(NAME_BYTES_MAX) {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    is_name(name).then(|| name.to_owned())
}

/// True for the text of a digest.
pub(crate) fn is_digest(text: &str) -> bool {
    Digest::parse(text).is_some()
}

/// A digest's text with its digits left out, for messages.
pub(crate) fn digest_form() -> String {
    format!("{}<64 hex digits, lower case>", digest_prefix())
}

/// What every digest begins with.
pub(crate) fn digest_prefix() -> String {
    let text = Digest([0; 32]).to_string();
    text.trim_end_matches('0').to_owned()
}

/// How components in registries are named, which the command brings to a node.
pub(crate) const REGISTRY: &str = "oci://";

/// Reads `name`, `digest` or `name@digest`.
#[must_use]
pub fn parse_component(text: &str) -> Option<ComponentRef> {
    let some = |text: &str| Some(text.to_owned());
    if let Some((name, digest)) = text.split_once('@') {
        let good = is_name(name) && is_digest(digest);
        return good.then(|| ComponentRef { name: some(name), digest: some(digest) });
    }
    if is_digest(text) {
        return Some(ComponentRef { name: None, digest: some(text) });
    }
    is_name(text).then(|| ComponentRef { name: some(text), digest: None })
}

/// A unit and how many of the base unit it is.
type Unit = (&'static str, u64);

/// What is read, smallest first.
const SIZES: [Unit; 7] = [
    ("B", 1),
    ("kB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// What is written: the largest that divides.
const BINARY_SIZES: [Unit; 4] = [SIZES[0], SIZES[2], SIZES[4], SIZES[6]];

/// Smallest first.
const DURATIONS: [Unit; 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QuantityError {
    /// No number, or one beyond 64 bits.
    Number,
    /// A number alone.
    NoUnit,
    /// A unit that does not exist, and the one that was probably meant.
    Unit(Option<&'static str>),
}

/// Reads a size such as `64MiB` as bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, QuantityError> {
    parse_quantity(text, &SIZES)
}

/// Reads a duration such as `30s` as milliseconds.
pub(crate) fn parse_duration(text: &str) -> Result<u64, QuantityError> {
    parse_quantity(text, &DURATIONS)
}

/// The canonical text of a number of bytes.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    quantity_text(bytes, &BINARY_SIZES)
}

/// The canonical text of a number of milliseconds.
#[must_use]
pub fn duration_text(ms: u64) -> String {
    quantity_text(ms, &DURATIONS)
}

fn parse_quantity(text: &str, units: &[Unit]) -> Result<u64, QuantityError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    // Twenty digits hold every u64; more would be leading zeros or out of range.
    if number.is_empty() || number.len() > 20 {
        return Err(QuantityError::Number);
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::Number)?;
    if unit.is_empty() {
        return Err(QuantityError::NoUnit);
    }
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, n)| *n);
    let factor = factor.ok_or_else(|| QuantityError::Unit(unit_near(unit, units)))?;
    number.checked_mul(factor).ok_or(QuantityError::Number)
}

fn unit_near(unit: &str, units: &[Unit]) -> Option<&'static str> {
    let unit = unit.trim().to_ascii_lowercase();
    let meant = match unit.as_str() {
        "k" | "kb" => "kib",
        "m" | "mb" if units.len() == SIZES.len() => "mib",
        "g" | "gb" => "gib",
        "min" | "mins" | "minute" | "minutes" => "m",
        "sec" | "secs" | "second" | "seconds" => "s",
        "hour" | "hours" | "hr" => "h",
        "day" | "days" => "d",
        "byte" | "bytes" => "b",
        other => other,
    };
    units.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(meant))
}

fn quantity_text(number: u64, units: &[Unit]) -> String {
    let fits = |factor: u64| factor == 1 || number >= factor && number.is_multiple_of(factor);
    let (unit, factor) = units.iter().rev().find(|(_, factor)| fits(*factor)).unwrap_or(&("", 1));
    format!("{}{unit}", number / factor)
}

/// The candidate that `text` is most likely a misspelling of. Close means at most one mistake for
/// every three characters, so that short words do not match everything.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = text.chars().take(NAME_BYTES_MAX + 2).count();
    if length > NAME_BYTES_MAX {
        return None;
    }
    let allowed = (length / 3).max(1);
    candidates
        .into_iter()
        // Names are ASCII, and each mistake changes the length by one at most.
        .filter(|candidate| candidate.len().abs_diff(length) <= allowed)
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(mistakes, _)| *mistakes <= allowed)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with swaps of neighbours counted as one mistake; case and `_` for `-` count none.
fn distance(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        let fold = |c: char| if c == '_' { '-' } else { c.to_ascii_lowercase() };
        text.chars().take(NAME_BYTES_MAX + 1).map(fold).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let change = last[j] + usize::from(ca != cb);
            let mut least = change.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_need_a_known_unit() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1kB"), Ok(1000));
        assert_eq!(parse_duration("90s"), Ok(90_000));
        assert_eq!(parse_size("64"), Err(QuantityError::NoUnit));
        assert_eq!(parse_size("64mb"), Err(QuantityError::Unit(Some("MiB"))));
        assert_eq!(parse_size("64 MiB"), Err(QuantityError::Unit(Some("MiB"))));
        assert_eq!(parse_duration("5min"), Err(QuantityError::Unit(Some("m"))));
        assert_eq!(parse_duration("30d"), Ok(30 * 24 * 3_600_000));
        assert_eq!(parse_duration("2days"), Err(QuantityError::Unit(Some("d"))));
        assert_eq!(parse_duration("5MiB"), Err(QuantityError::Unit(None)));
        assert_eq!(parse_size(""), Err(QuantityError::Number));
        assert_eq!(parse_size("-1MiB"), Err(QuantityError::Number));
        assert_eq!(parse_size("1.5MiB"), Err(QuantityError::Unit(None)));
        assert_eq!(parse_size("99999999999999999999GiB"), Err(QuantityError::Number));
        assert_eq!(parse_size("18446744073709551615GiB"), Err(QuantityError::Number));
    }

    #[test]
    fn a_quantity_is_written_in_its_largest_unit() {
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(size_text(1000), "1000B");
        assert_eq!(duration_text(3_600_000), "1h");
        assert_eq!(duration_text(90_000), "90s");
        assert_eq!(duration_text(25 * 3_600_000), "25h");
        assert_eq!(duration_text(48 * 3_600_000), "2d");
        for n in [0, 1, 10, 1023, 1024, 1_000_000, 1 << 30, 4 << 30, u64::MAX] {
            assert_eq!(parse_size(&size_text(n)), Ok(n));
            assert_eq!(parse_duration(&duration_text(n)), Ok(n));
        }
    }

    #[test]
    fn a_misspelling_is_recognised_and_a_stranger_is_not() {
        let names = ["delivery", "stages", "edges", "name"];
        assert_eq!(nearest("delivrey", names), Some("delivery"));
        assert_eq!(nearest("Stages", names), Some("stages"));
        assert_eq!(nearest("nmae", names), Some("name"));
        assert_eq!(nearest("sausages-and-mash", names), None);
        assert_eq!(nearest("x", names), None);
        assert_eq!(nearest(&"e".repeat(100_000), names), None);
    }

    #[test]
    fn a_bad_name_suggests_a_good_one() {
        assert_eq!(name_near("Word Count").as_deref(), Some("word-count"));
        assert_eq!(name_near("2nd_stage").as_deref(), Some("nd-stage"));
        assert_eq!(name_near("--").as_deref(), None);
        assert_eq!(name_near("").as_deref(), None);
        assert_eq!(name_near(&"A".repeat(500)).map(|n| n.len()), Some(63));
    }

    #[test]
    fn a_component_is_a_name_a_digest_or_both() {
        let digest = Digest([0xAB; 32]).to_string();
        let parse = |text: &str| parse_component(text).map(|c| c.to_string());
        for good in ["split", digest.as_str(), &format!("split@{digest}")] {
            assert_eq!(parse(good).as_deref(), Some(good));
        }
        let upper = digest.to_uppercase();
        for bad in
            ["", "Split", "split@", "@", "split@latest", upper.as_str(), &format!("@{digest}")]
        {
            assert_eq!(parse(bad), None, "{bad:?} was taken for a component");
        }
    }
}
