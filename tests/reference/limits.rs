//! The tables of `docs/guide/limits.md`: what nobody may change, from the source; what operators
//! may, from the settings; what authors may, from the schema of manifests.
//!
//! A table stands between two marks in the page; what is around them is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::{cell, code, configuration, document, file};

/// Sources of limits that nobody may change.
const FIXED: [&str; 2] = ["runtime/core/src/limits.rs", "runtime/core/src/manifest/bounds.rs"];

/// The page with its tables as they are now.
pub(super) fn with_tables(page: &str) -> String {
    let tables = [("fixed", fixed()), ("settings", settings()), ("manifest", manifest())];
    tables.iter().fold(page.to_owned(), |page, (name, table)| replaced(&page, name, table))
}

/// The page with another text between the marks of a name.
fn replaced(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: made -->\n"), format!("<!-- {name}: end -->\n"));
    let parts = page
        .split_once(&begin)
        .and_then(|(before, rest)| rest.split_once(&end).map(|(_, after)| (before, after)));
    let (before, after) = parts.unwrap_or_else(|| panic!("the page has no marks of {name}"));
    format!("{before}{begin}{text}{end}{after}")
}

/// A number of a source: its name, what is said of it, its value.
struct Constant {
    name: String,
    about: String,
    value: u128,
}

fn fixed() -> String {
    let mut known = BTreeMap::new();
    let mut out = "| limit | value | |\n|---|---|---|\n".to_owned();
    for path in FIXED {
        for constant in constants(&file(path), &mut known) {
            let Constant { name, about, value } = constant;
            // Defaults and ends of ranges are in the tables below.
            if about.is_empty() || name.ends_with("_DEFAULT") {
                continue;
            }
            let value = shown(&name, value);
            writeln!(out, "| `{name}` | {value} | {} |", cell(&about)).expect("to a text");
        }
    }
    out
}

/// The numbers of a source, in order. Those without a doc comment help to write others.
fn constants(source: &str, known: &mut BTreeMap<String, u128>) -> Vec<Constant> {
    let mut found = Vec::new();
    let mut about: Vec<&str> = Vec::new();
    for line in source.lines() {
        if let Some(said) = line.strip_prefix("///") {
            about.push(said.trim());
            continue;
        }
        let about = std::mem::take(&mut about).join(" ");
        let Some(rest) = line.trim_start_matches("pub ").strip_prefix("const ") else { continue };
        let Some((head, value)) = rest.split_once(" = ") else { continue };
        let Some((name, kind)) = head.split_once(": ") else { continue };
        if !matches!(kind, "usize" | "u64" | "u32" | "u16" | "u8" | "i64") {
            continue;
        }
        let value = evaluated(value.trim_end_matches(';'), known)
            .unwrap_or_else(|| panic!("{name}: the value {value} is not a product of numbers"));
        known.insert(name.to_owned(), value);
        found.push(Constant { name: name.to_owned(), about, value });
    }
    found
}

/// A product, or a shift, of numbers and of names that are known.
fn evaluated(text: &str, known: &BTreeMap<String, u128>) -> Option<u128> {
    if let Some((number, places)) = text.split_once("<<") {
        return evaluated(number, known)?.checked_shl(places.trim().parse().ok()?);
    }
    let one = |factor: &str| {
        let factor = factor.trim();
        let name = factor.split(" as ").next().unwrap_or(factor).trim_start_matches("limits::");
        factor.replace('_', "").parse().ok().or_else(|| known.get(name).copied())
    };
    text.split('*').try_fold(1, |product: u128, factor| product.checked_mul(one(factor)?))
}

/// A number of bytes with a unit, another with its thousands apart.
fn shown(name: &str, value: u128) -> String {
    if name.contains("BYTES") {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1_u128 << 10)] {
            if value >= size && value.is_multiple_of(size) {
                return format!("{} {unit}", value / size);
            }
        }
        return format!("{value} B");
    }
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn settings() -> String {
    let mut out = "| setting | default | from … to | |\n|---|---|---|---|\n".to_owned();
    for [field, default, range, about] in configuration::bounds() {
        writeln!(out, "| {field} | {default} | {range} | {about} |").expect("to a text");
    }
    out
}

fn manifest() -> String {
    let mut out = "| field | default | from … to | |\n|---|---|---|---|\n".to_owned();
    rows(&mut out, "", &document("docs/manifest.schema.json"));
    out
}

/// Every field below that has a range.
fn rows(out: &mut String, path: &str, schema: &Value) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some((range, about)) = range(field) {
            let default =
                field.get("default").map_or_else(|| "—".to_owned(), |d| code(&d.to_string()));
            writeln!(out, "| `{path}` | {default} | {range} | {about} |").expect("to a text");
        }
        rows(out, &path, field);
        rows(out, &format!("{path}.<name>"), &field["additionalProperties"]);
        rows(out, &format!("{path}[]"), &field["items"]);
    }
}

/// What a field may be at least and at most, and what it means.
fn range(field: &Value) -> Option<(String, String)> {
    let about = field["description"].as_str().unwrap_or_default();
    for (least, most) in
        [("minimum", "maximum"), ("minItems", "maxItems"), ("minProperties", "maxProperties")]
    {
        if let (Some(least), Some(most)) = (field[least].as_u64(), field[most].as_u64()) {
            return Some((format!("{least} to {most}"), cell(about)));
        }
    }
    // Of sizes and durations the schema says it in words, as its last sentence.
    let (about, range) = about.trim_end_matches('.').rsplit_once(" From ")?;
    Some((range.to_owned(), cell(about)))
}

#[test]
fn a_number_of_the_source_is_found_with_its_value() {
    let source = "/// How\n/// far.\npub const FAR_BYTES: usize = 4 * 1_024;\n\
                  const KIB: u64 = 1024;\n/// Wide.\npub const WIDE: u16 = limits::KEYS;\n\
                  /// X.\npub const X: Range = R { };\n";
    let mut known = BTreeMap::from([("KEYS".to_owned(), 7)]);
    let found = constants(source, &mut known);
    let named: Vec<_> =
        found.iter().map(|c| (c.name.as_str(), c.about.as_str(), c.value)).collect();
    assert_eq!(named, [("FAR_BYTES", "How far.", 4096), ("KIB", "", 1024), ("WIDE", "Wide.", 7)]);
    assert_eq!(evaluated("1 << 53", &known), Some(1 << 53));
    assert_eq!(evaluated("2 * NOBODY", &known), None);
    assert_eq!(
        (shown("A_BYTES", 4096).as_str(), shown("A", 1_234_567).as_str()),
        ("4 KiB", "1,234,567")
    );
    assert_eq!(
        replaced("a\n<!-- x: made -->\nold\n<!-- x: end -->\nb\n", "x", "new\n"),
        "a\n<!-- x: made -->\nnew\n<!-- x: end -->\nb\n"
    );
}
