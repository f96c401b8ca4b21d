//! Tables and figures for people.
//!
//! Replies are shown by what they contain, not by what this version knows of them: plain members as
//! lines, lists of objects as tables. A node that says more than this program knows is still shown
//! whole. Cells are cut and escaped.

use serde_json::{Map, Value};

use crate::failure::printable;

/// Characters of one cell.
const CELL_CHARS_MAX: usize = 72;

/// Characters of a reason, which stands last and is what somebody wants to know.
const WHY_CHARS_MAX: usize = 400;

/// Digits of a digest that are shown.
const DIGEST_DIGITS: usize = 12;

/// A table with the given columns; members that no row has leave their column out.
pub(crate) fn table(rows: &[Value], columns: &[&str]) -> String {
    let used: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| rows.iter().any(|row| row.get(column).is_some_and(|v| !v.is_null())))
        .collect();
    let head: Vec<String> = used.iter().map(|column| column.to_uppercase()).collect();
    let body = rows.iter().map(|row| {
        used.iter().map(|column| cell(column, row.get(column).unwrap_or(&Value::Null))).collect()
    });
    align(std::iter::once(head).chain(body).collect())
}

/// Rows of text in columns of equal width, two spaces between; no blanks at the end of a line.
pub(crate) fn align(rows: Vec<Vec<String>>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// An object: plain members first, then each list of objects as a table under its name. Members in
/// `left_out` are not shown.
pub(crate) fn object(value: &Value, left_out: &[&str]) -> String {
    let Some(members) = value.as_object() else {
        return cell("", value);
    };
    let shown = || members.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
    let plain = shown().filter(|(_, value)| !is_table(value) && !value.is_object());
    let rows = plain.map(|(name, value)| vec![name.clone(), cell(name, value)]).collect();
    let mut text = align(rows);
    for (name, value) in shown() {
        match value {
            Value::Array(rows) if is_table(value) => {
                text.push_str(&format!("\n{name}\n{}", indent(&table(rows, &columns(rows)))));
            }
            Value::Object(_) => {
                text.push_str(&format!("\n{name}\n{}", indent(&object(value, left_out))));
            }
            _ => {}
        }
    }
    text
}

/// The members of a list of objects, in the order of their first appearance; lists of lists and
/// objects inside are shown as JSON.
fn columns(rows: &[Value]) -> Vec<&str> {
    let mut columns = Vec::new();
    for name in rows.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !columns.contains(&name.as_str()) {
            columns.push(name.as_str());
        }
    }
    // What a row is about first, whatever the order in the reply and whichever rows have it; what
    // may be a whole sentence last.
    let first = ["name", "segment", "partition", "node", "way"];
    let last = ["halted", "unavailable"];
    let place = |name: &str| match last.iter().position(|known| *known == name) {
        Some(at) => first.len() + 1 + at,
        None => first.iter().position(|known| *known == name).unwrap_or(first.len()),
    };
    columns.sort_by_key(|name| place(name));
    columns
}

fn is_table(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_object))
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect()
}

/// One value on one line.
fn cell(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => short_digests(text),
        Value::Number(seconds) if name == "created" => {
            seconds.as_u64().map_or_else(|| seconds.to_string(), date_text)
        }
        Value::Number(number) => number.to_string(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(list) if list.iter().all(|v| !v.is_array() && !v.is_object()) => {
            let words: Vec<String> = list.iter().map(|value| cell("", value)).collect();
            words.join(", ")
        }
        Value::Array(list) if list.iter().all(Value::is_array) => {
            let groups: Vec<String> = list.iter().map(|group| cell("", group)).collect();
            groups.join(" | ")
        }
        Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    let text = printable(&text);
    let most = if name == "why" { WHY_CHARS_MAX } else { CELL_CHARS_MAX };
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Each digest in a text cut to what tells it from others.
pub(crate) fn short_digests(text: &str) -> String {
    const PREFIX: &str = "sha256:";
    let mut parts = text.split(PREFIX);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let kept = if digits == 64 { DIGEST_DIGITS } else { digits };
        short.push_str(PREFIX);
        short.push_str(&part[..kept]);
        short.push_str(&part[digits..]);
    }
    short
}

/// Seconds since 1970 as date and time in UTC.
fn date_text(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Counted from a March, so that the leap day is the last of a year; eras have 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure with a sensible number of digits: 0.123, 4.57, 1234, 5.06 M.
pub(crate) fn figure(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        "-".to_owned()
    } else if size >= 1e9 {
        format!("{:.2} G", number / 1e9)
    } else if size >= 1e6 {
        format!("{:.2} M", number / 1e6)
    } else if size >= 1e4 {
        format!("{:.1} k", number / 1e3)
    } else if size >= 100.0 {
        format!("{number:.0}")
    } else if size >= 10.0 {
        format!("{number:.1}")
    } else if size >= 1.0 {
        format!("{number:.2}")
    } else if size >= 0.0005 {
        format!("{number:.3}")
    } else {
        "0".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            json!({ "name": "split", "bytes": 12, "digest": format!("sha256:{}", "a".repeat(64)) }),
            json!({ "name": "ö", "bytes": 3_400_000, "digest": null }),
        ];
        assert_eq!(
            table(&rows, &["name", "bytes", "digest", "absent"]),
            "NAME   BYTES    DIGEST\n\
             split  12       sha256:aaaaaaaaaaaa\n\
             ö      3400000  -\n"
        );
    }

    #[test]
    fn an_object_shows_members_it_does_not_know() {
        let value = json!({
            "name": "wc", "new-thing": true, "list": ["a", "b"], "secret": "x",
            "stages": [{ "scope": "key", "name": "count" }],
            "more": { "depth": 2 }, "groups": [["a"], ["b", "c"]],
        });
        assert_eq!(
            object(&value, &["secret"]),
            "groups     a | b, c\nlist       a, b\nname       wc\nnew-thing  yes\n\
             \nmore\n  depth  2\n\
             \nstages\n  NAME   SCOPE\n  count  key\n"
        );
    }

    #[test]
    fn where_partitions_are_stands_before_how_they_do() {
        let value = json!({ "partition": [
            { "segment": "a", "partition": 0, "worker": 1 },
            { "segment": "a", "partition": 1, "worker": 0, "node": "b", "way": "ring" },
            { "segment": "a", "partition": 2, "worker": 3, "node": "c", "unavailable": "is silent" },
        ] });
        assert_eq!(
            object(&value, &[]),
            "\npartition\n\
             \x20 SEGMENT  PARTITION  NODE  WAY   WORKER  UNAVAILABLE\n\
             \x20 a        0          -     -     1       -\n\
             \x20 a        1          b     ring  0       -\n\
             \x20 a        2          c     -     3       is silent\n"
        );
    }

    #[test]
    fn cells_are_cut_and_escaped() {
        let text = cell("", &json!(format!("a\nb\u{1b}{}", "x".repeat(500))));
        assert!(text.starts_with("a b\\u{1b}") && text.chars().count() == CELL_CHARS_MAX, "{text}");
        let why = cell("why", &Value::from("b".repeat(100)));
        assert_eq!(why.chars().count(), 100, "a reason is not cut short");
    }

    #[test]
    fn digests_are_cut_and_nothing_else_is() {
        let text = format!("split@sha256:{} of sha256:12", "ab".repeat(32));
        assert_eq!(short_digests(&text), "split@sha256:abababababab of sha256:12");
    }

    #[test]
    fn a_time_is_a_date() {
        assert_eq!(date_text(0), "1970-01-01 00:00 UTC");
        assert_eq!(date_text(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date_text(1_795_161_599), "2026-11-20 07:59 UTC");
        assert_eq!(cell("created", &json!(0)), "1970-01-01 00:00 UTC");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        for (number, text) in [
            (0.0, "0"),
            (0.0621, "0.062"),
            (42.0, "42.0"),
            (5.123, "5.12"),
            (1234.4, "1234"),
            (5.06e6, "5.06 M"),
        ] {
            assert_eq!(figure(number), text);
        }
        assert_eq!(figure(f64::NAN), "-");
    }
}
