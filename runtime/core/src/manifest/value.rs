//! A manifest as a tree of values, whatever text it came from, and its one canonical text.
//!
//! Tables are ordered by name and numbers are integers; a float or a date is kept as the text it
//! was written in, only so that a message can show it. The canonical text is JSON without spaces,
//! members in byte order: equal trees give equal bytes, so a digest of it names the content.
//!
//! Reading text is left to the node; what the values mean to `manifest`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The members of a table, in byte order of their names.
pub type Table = BTreeMap<String, Value>;

/// One value and everything inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// JSON's `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number that is not whole or not in range, as written. No field takes one.
    Float(String),
    /// TOML's dates and times, as written. No field takes one.
    Date(String),
    /// Text.
    String(String),
    /// An array.
    Array(Vec<Self>),
    /// A table, or object.
    Table(Table),
}

impl Value {
    /// What a message calls it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number that is no 64-bit integer",
            Self::Date(_) => "a date",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The number, if it is an integer.
    #[must_use]
    pub const fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// The items, if it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The members, if it is a table.
    #[must_use]
    pub const fn as_table(&self) -> Option<&Table> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }

    /// The canonical text: JSON, no spaces, members in byte order.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, None);
        out
    }

    /// The same with line breaks, for people.
    #[must_use]
    pub fn to_json_pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, Some(0));
        out.push('\n');
        out
    }

    fn write(&self, out: &mut String, indent: Option<usize>) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Self::Integer(number) => out.push_str(&number.to_string()),
            // Quoted, since what stands here need not be a number in JSON (`inf`, `1_000.0`).
            Self::Float(text) | Self::Date(text) | Self::String(text) => quote(out, text),
            Self::Array(items) => {
                let inner = indent.map(|n| n + 1);
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    separate(out, i, inner);
                    item.write(out, inner);
                }
                close(out, items.is_empty(), indent, ']');
            }
            Self::Table(table) => {
                let inner = indent.map(|n| n + 1);
                out.push('{');
                for (i, (name, value)) in table.iter().enumerate() {
                    separate(out, i, inner);
                    quote(out, name);
                    out.push_str(if indent.is_some() { ": " } else { ":" });
                    value.write(out, inner);
                }
                close(out, table.is_empty(), indent, '}');
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

fn separate(out: &mut String, index: usize, indent: Option<usize>) {
    if index > 0 {
        out.push(',');
    }
    new_line(out, indent);
}

fn close(out: &mut String, empty: bool, indent: Option<usize>, bracket: char) {
    if !empty {
        new_line(out, indent);
    }
    out.push(bracket);
}

fn new_line(out: &mut String, indent: Option<usize>) {
    if let Some(depth) = indent {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    }
}

/// JSON's escapes, in the shortest form and no others: only one text for each string.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_text_is_sorted_and_escaped() {
        let table = Table::from([
            ("b".to_owned(), Value::Array(vec![Value::Integer(-1), Value::Bool(true)])),
            ("a\"\n\u{1}".to_owned(), Value::from("ü\\")),
            ("c".to_owned(), Value::Table(Table::new())),
        ]);
        let value = Value::Table(table);
        assert_eq!(value.to_json(), r#"{"a\"\n\u0001":"ü\\","b":[-1,true],"c":{}}"#);
    }

    #[test]
    fn the_pretty_text_is_indented_by_two() {
        let value = Value::Table(Table::from([("a".to_owned(), Value::Array(vec![Value::Null]))]));
        assert_eq!(value.to_json_pretty(), "{\n  \"a\": [\n    null\n  ]\n}\n");
    }
}
