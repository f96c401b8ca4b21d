//! The published JSON schema (draft 2020-12), made from the table of fields.
//!
//! `docs/manifest.schema.json` is this value's text; a test compares the two. The schema says all
//! that can be said about a field on its own, so an editor that knows it finds the same mistakes
//! as the reader, but for the range of sizes and durations, which it shows in words.

use super::bounds::{POINTER_BYTES_MAX, VERSION};
use super::fields::{Choice, EDGE_KEYS, Field, JSON_KEY, Kind, MANIFEST, Need};
use super::value::{Table, Value};
use super::words::{NAME_PATTERN, REGISTRY, digest_prefix, duration_text, size_text};

/// The schema of a manifest.
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(&MANIFEST);
    put(&mut schema, "$schema", Value::from("https://json-schema.org/draft/2020-12/schema"));
    put(&mut schema, "$id", Value::from("urn:sluicebox:manifest:1"));
    put(&mut schema, "title", Value::from("sluicebox pipeline manifest, version 1"));
    Value::Table(schema)
}

fn table(fields: &[Field]) -> Table {
    let required = fields.iter().filter(|f| matches!(f.need, Need::Required));
    let required: Vec<Value> = required.map(|f| Value::from(f.name)).collect();
    let properties = fields.iter().map(|f| (f.name.to_owned(), property(f))).collect();
    let mut schema = typed("object");
    put(&mut schema, "properties", Value::Table(properties));
    put(&mut schema, "additionalProperties", Value::Bool(false));
    if !required.is_empty() {
        put(&mut schema, "required", Value::Array(required));
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = kind(&field.kind);
    let mut about = field.about.to_owned();
    if let Some(more) = range(&field.kind) {
        about = format!("{about} {more}");
    }
    if let Kind::Choice(choices) = &field.kind {
        about = format!("{about} {}", meanings(choices));
    }
    put(&mut schema, "description", Value::String(about));
    match field.need {
        Need::Required | Need::Optional => {}
        Need::Number(n) => put(&mut schema, "default", number(n)),
        Need::Size(n) => put(&mut schema, "default", Value::String(size_text(n))),
        Need::Duration(n) => put(&mut schema, "default", Value::String(duration_text(n))),
        Need::Word(word) => put(&mut schema, "default", Value::from(word)),
        Need::Words(words) => put(&mut schema, "default", strings(words.iter().copied())),
    }
    Value::Table(schema)
}

fn kind(kind: &Kind) -> Table {
    match kind {
        Kind::Version => Table::from([("const".to_owned(), Value::Integer(VERSION))]),
        Kind::Integer { min, max } => {
            let mut schema = typed("integer");
            put(&mut schema, "minimum", number(*min));
            put(&mut schema, "maximum", number(*max));
            schema
        }
        Kind::Size { .. } => pattern("^[0-9]{1,20}(B|KiB|MiB|GiB|kB|MB|GB)$"),
        Kind::Duration { .. } => pattern("^[0-9]{1,20}(ms|s|m|h|d)$"),
        Kind::Choice(choices) => {
            Table::from([("enum".to_owned(), strings(choices.iter().map(|c| c.word)))])
        }
        Kind::Name => pattern(NAME_PATTERN),
        Kind::Pointer => {
            let mut schema = pattern("^(/([^~/]|~[01])*)*$");
            put(&mut schema, "maxLength", length(POINTER_BYTES_MAX));
            schema
        }
        Kind::Reference(_) => {
            let name = NAME_PATTERN.trim_matches(['^', '$']);
            pattern(&format!("^{name}(\\.{name})?$"))
        }
        Kind::Component => {
            let (name, digest) = (NAME_PATTERN.trim_matches(['^', '$']), digest());
            // The last is for the command, which puts another in its place.
            pattern(&format!("^({name}|{digest}|{name}@{digest}|{REGISTRY}[^@]+@{digest})$"))
        }
        Kind::Origin => pattern(
            r"^https?://((\*\.)?[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$",
        ),
        Kind::Digest => pattern(&format!("^{}$", digest())),
        Kind::Text { bytes_max } => {
            let mut schema = typed("string");
            put(&mut schema, "maxLength", length(*bytes_max));
            schema
        }
        Kind::EdgeKey => {
            let words = kind_of_choice(&EDGE_KEYS);
            Table::from([(
                "anyOf".to_owned(),
                Value::Array(vec![words, Value::Table(table(&JSON_KEY))]),
            )])
        }
        Kind::List { of, min, max, unique } => list(of, (*min, *max), *unique),
        Kind::Map { of, min, max, .. } => map(of, (*min, *max)),
        Kind::Table(fields) => table(fields),
    }
}

fn kind_of_choice(choices: &'static [Choice]) -> Value {
    Value::Table(kind(&Kind::Choice(choices)))
}

fn list(of: &Kind, (min, max): (usize, usize), unique: bool) -> Table {
    let mut schema = typed("array");
    put(&mut schema, "items", Value::Table(kind(of)));
    put(&mut schema, "minItems", length(min));
    put(&mut schema, "maxItems", length(max));
    if unique {
        put(&mut schema, "uniqueItems", Value::Bool(true));
    }
    schema
}

fn map(of: &Kind, (min, max): (usize, usize)) -> Table {
    let mut schema = typed("object");
    put(&mut schema, "propertyNames", Value::Table(pattern(NAME_PATTERN)));
    put(&mut schema, "additionalProperties", Value::Table(kind(of)));
    put(&mut schema, "minProperties", length(min));
    put(&mut schema, "maxProperties", length(max));
    schema
}

fn range(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Size { min, max } => {
            Some(format!("From {} to {}.", size_text(*min), size_text(*max)))
        }
        Kind::Duration { min, max } => {
            Some(format!("From {} to {}.", duration_text(*min), duration_text(*max)))
        }
        _ => None,
    }
}

fn meanings(choices: &[Choice]) -> String {
    choices.iter().map(|c| format!("{}: {}", c.word, c.about)).collect::<Vec<_>>().join(" ")
}

fn digest() -> String {
    format!("{}[0-9a-f]{{64}}", digest_prefix())
}

fn typed(name: &str) -> Table {
    Table::from([("type".to_owned(), Value::from(name))])
}

fn pattern(pattern: &str) -> Table {
    let mut schema = typed("string");
    put(&mut schema, "pattern", Value::from(pattern));
    schema
}

fn strings<'a>(words: impl Iterator<Item = &'a str>) -> Value {
    Value::Array(words.map(Value::from).collect())
}

fn put(table: &mut Table, name: &str, value: Value) {
    table.insert(name.to_owned(), value);
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn length(length: usize) -> Value {
    number(length as u64)
}
