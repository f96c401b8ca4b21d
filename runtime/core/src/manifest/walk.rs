//! Holds a value tree against the table of fields, and goes on after every mistake.
//!
//! Everything that can be said about a field on its own is said here: unknown, missing, of the
//! wrong type, out of range, badly written. The work is bounded by the size of the tree: lists and
//! maps are looked at up to their allowed length, and suggestions are no longer sought once the
//! list of problems is full.

use std::collections::BTreeSet;

use super::bounds::POINTER_BYTES_MAX;
use super::fields::{Choice, EDGE_KEYS, Field, JSON_KEY, Kind, Need};
use super::problem::{Problem, Problems, show};
use super::value::{Table, Value};
use super::words::{self, QuantityError};
use crate::json_key::Pointer;
use crate::origin::Origin;

/// The path of a member.
#[must_use]
pub fn member(path: &str, name: &str) -> String {
    let plain = name.len() <= 64
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let name = if plain { name.to_owned() } else { show(name) };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// The path of an item.
#[must_use]
pub fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// One walk over a tree.
pub(crate) struct Walk<'a> {
    problems: &'a mut Problems,
}

impl<'a> Walk<'a> {
    pub(crate) const fn new(problems: &'a mut Problems) -> Self {
        Self { problems }
    }

    /// Checks that `value` is a table of these fields.
    pub(crate) fn table(&mut self, fields: &'static [Field], value: &Value, path: &str) {
        let Some(table) = value.as_table() else {
            let names = names(fields);
            return self.wrong_type(path, value, "a table", &format!("write a table with {names}"));
        };
        for field in fields {
            match table.get(field.name) {
                Some(value) => self.value(&field.kind, value, &member(path, field.name)),
                None if matches!(field.need, Need::Required) => {
                    let fix = format!("add {}", example(field.name, &field.kind));
                    self.add(&member(path, field.name), "manifest.missing", "is missing", fix);
                }
                None => {}
            }
        }
        self.unknown(fields, table, path);
    }

    fn unknown(&mut self, fields: &'static [Field], table: &Table, path: &str) {
        for name in table.keys().filter(|name| fields.iter().all(|f| f.name != name.as_str())) {
            if self.problems.is_full() {
                self.problems.omit();
                continue;
            }
            let fix = match words::nearest(name, fields.iter().map(|f| f.name)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("remove it; what may be here is {}", names(fields)),
            };
            let message = format!("there is no field {} here", show(name));
            self.add(&member(path, name), "manifest.unknown-field", message, fix);
        }
    }

    fn value(&mut self, kind: &'static Kind, value: &Value, path: &str) {
        match kind {
            Kind::Version => self.version(value, path),
            Kind::Integer { min, max } => self.integer(value, path, (*min, *max)),
            Kind::Size { min, max } => self.quantity(&SIZE, value, path, (*min, *max)),
            Kind::Duration { min, max } => self.quantity(&DURATION, value, path, (*min, *max)),
            Kind::List { of, min, max, unique } => {
                self.list(of, value, path, (*min, *max));
                if *unique {
                    self.unique(value, path, *max);
                }
            }
            Kind::Map { of, min, max, what } => self.map((of, what), value, path, (*min, *max)),
            Kind::Table(fields) => self.table(fields, value, path),
            Kind::EdgeKey => self.edge_key(value, path),
            Kind::Choice(choices) => self.choice(choices, value, path),
            Kind::Name
            | Kind::Pointer
            | Kind::Reference(_)
            | Kind::Component
            | Kind::Digest
            | Kind::Origin
            | Kind::Text { .. } => self.text(kind, value, path),
        }
    }

    /// Another version has been refused before the walk began.
    fn version(&mut self, value: &Value, path: &str) {
        if value.as_integer().is_none() {
            self.wrong_type(path, value, "an integer", "write version = 1");
        }
    }

    fn integer(&mut self, value: &Value, path: &str, (min, max): (u64, u64)) {
        let Some(number) = value.as_integer() else {
            let fix = format!("write a whole number from {min} to {max}");
            return self.wrong_type(path, value, "an integer", &fix);
        };
        if !u64::try_from(number).is_ok_and(|n| (min..=max).contains(&n)) {
            let fix = format!("use {min} to {max}");
            self.add(path, "manifest.range", format!("is {number}, which is out of range"), fix);
        }
    }

    fn quantity(&mut self, of: &Quantity, value: &Value, path: &str, (min, max): (u64, u64)) {
        let Quantity { what, example, units, parse, text } = of;
        if let Value::Integer(number) = value {
            let message = format!("is {number} without a unit");
            let fix = format!("write a string with a unit ({units}), for example {example:?}");
            return self.add(path, "manifest.unit", message, fix);
        }
        let Some(written) = value.as_str() else {
            let fix = format!("write a string such as {example:?}");
            return self.wrong_type(path, value, what, &fix);
        };
        match parse(written) {
            Ok(number) if (min..=max).contains(&number) => {}
            Ok(_) => {
                let fix = format!("use {} to {}", text(min), text(max));
                let message = format!("is {}, which is out of range", show(written));
                self.add(path, "manifest.range", message, fix);
            }
            Err(error) => {
                let fix = match error {
                    QuantityError::Unit(Some(meant)) => format!("did you mean the unit {meant:?}?"),
                    _ => format!("write digits and a unit ({units}), for example {example:?}"),
                };
                let message = format!("{} is not {what}", show(written));
                self.add(path, "manifest.unit", message, fix);
            }
        }
    }

    fn list(&mut self, of: &'static Kind, value: &Value, path: &str, range: (usize, usize)) {
        let Some(items) = value.as_array() else {
            let fix = match value.as_str() {
                Some(one) => format!("write [{}]", show(one)),
                None => "write it in [ ]".to_owned(),
            };
            return self.wrong_type(path, value, "an array", &fix);
        };
        self.length(items.len(), path, range);
        for (i, value) in items.iter().take(range.1).enumerate() {
            self.value(of, value, &item(path, i));
        }
    }

    fn unique(&mut self, value: &Value, path: &str, max: usize) {
        let mut seen = BTreeSet::new();
        for (i, value) in value.as_array().unwrap_or_default().iter().take(max).enumerate() {
            if value.as_str().is_some_and(|text| !seen.insert(text)) {
                let message =
                    format!("{} is listed twice", show(value.as_str().unwrap_or_default()));
                self.add(&item(path, i), "manifest.duplicate", message, "remove one of them");
            }
        }
    }

    fn map(
        &mut self,
        (of, what): (&'static Kind, &'static str),
        value: &Value,
        path: &str,
        range: (usize, usize),
    ) {
        let Some(table) = value.as_table() else {
            let fix = format!("write a table with the name of {what} on the left of each entry");
            return self.wrong_type(path, value, "a table", &fix);
        };
        self.length(table.len(), path, range);
        for (name, value) in table.iter().take(range.1) {
            let path = member(path, name);
            if !words::is_name(name) {
                self.bad_name(&path, name);
            }
            self.value(of, value, &path);
        }
    }

    fn length(&mut self, length: usize, path: &str, (min, max): (usize, usize)) {
        if length < min {
            self.add(path, "manifest.size", "is empty", format!("give at least {min}"));
        } else if length > max {
            let message = format!("has {length} entries");
            self.add(path, "manifest.size", message, format!("give at most {max}"));
        }
    }

    fn edge_key(&mut self, value: &Value, path: &str) {
        match value {
            Value::Table(_) => self.table(&JSON_KEY, value, path),
            Value::String(text) if text.starts_with('/') => {
                let message = format!("{} is not a word for a key", show(text));
                self.add(
                    path,
                    "manifest.choice",
                    message,
                    format!("write {{ json = {} }}", show(text)),
                );
            }
            Value::String(_) => self.choice(&EDGE_KEYS, value, path),
            _ => {
                let fix = "write \"cause\", \"emitted\" or { json = \"/pointer\" }";
                self.wrong_type(path, value, "a string or a table", fix);
            }
        }
    }

    fn choice(&mut self, choices: &'static [Choice], value: &Value, path: &str) {
        let open = || choices.iter().map(|c| c.word);
        let all = open().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let Some(text) = value.as_str() else {
            return self.wrong_type(path, value, "a string", &format!("write {all}"));
        };
        match choices.iter().find(|c| c.word == text) {
            Some(_) => {}
            None => {
                let fix = match words::nearest(text, open()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("write {all}"),
                };
                let message = format!("{} is not a choice here", show(text));
                self.add(path, "manifest.choice", message, fix);
            }
        }
    }

    fn text(&mut self, kind: &'static Kind, value: &Value, path: &str) {
        let Some(text) = value.as_str() else {
            let fix = match (kind, value) {
                (Kind::Text { .. }, Value::Integer(n)) => format!("write \"{n}\""),
                (Kind::Text { .. }, Value::Bool(b)) => format!("write \"{b}\""),
                _ => format!("write {}", form(kind)),
            };
            return self.wrong_type(path, value, "a string", &fix);
        };
        let shown = show(text);
        match kind {
            Kind::Name if !words::is_name(text) => self.bad_name(path, text),
            Kind::Reference(_) if !words::Reference::parse(text).is_well_formed() => {
                let message = format!("{shown} does not name a place in the graph");
                self.add(path, "manifest.reference", message, format!("write {}", form(kind)));
            }
            Kind::Component if words::parse_component(text).is_none() => {
                self.no_component(path, text);
            }
            Kind::Digest if !words::is_digest(text) => {
                let message = format!("{shown} is not a digest");
                self.add(path, "manifest.digest", message, format!("write {}", form(kind)));
            }
            Kind::Origin if Origin::parse(text).is_none() => {
                let message = format!("{shown} is not the origin of a URL");
                self.add(path, "manifest.origin", message, format!("write {}", form(kind)));
            }
            Kind::Text { bytes_max } if text.len() > *bytes_max => {
                let message = format!("has {} bytes", text.len());
                self.add(path, "manifest.size", message, format!("use at most {bytes_max}"));
            }
            Kind::Pointer if text.len() > POINTER_BYTES_MAX || Pointer::parse(text).is_none() => {
                let message = format!("{shown} is not a JSON pointer");
                self.add(path, "manifest.pointer", message, pointer_rule(text));
            }
            _ => {}
        }
    }

    fn no_component(&mut self, path: &str, text: &str) {
        let (message, fix) = if text.starts_with(words::REGISTRY) {
            let fix = "apply the manifest with `sluicebox apply`, which pushes what it names, or \
                       `sluicebox push` it and write its name";
            ("is in a registry, and a node asks none", fix.to_owned())
        } else {
            ("is not a component", format!("write {}", form(&Kind::Component)))
        };
        self.add(path, "manifest.component", format!("{} {message}", show(text)), fix);
    }

    fn bad_name(&mut self, path: &str, name: &str) {
        let fix = match words::name_near(name) {
            Some(near) => format!("write {near:?}; a name is {}", words::NAME_RULE),
            None => format!("use {}", words::NAME_RULE),
        };
        self.add(path, "manifest.name", format!("{} is not a name", show(name)), fix);
    }

    fn wrong_type(&mut self, path: &str, value: &Value, expected: &str, fix: &str) {
        let message = format!("is {}, not {expected}", value.type_name());
        self.add(path, "manifest.type", message, fix);
    }

    fn add(
        &mut self,
        path: &str,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.problems.add(Problem::new(path, code, message, fix));
    }
}

/// What a size and a duration have in common.
struct Quantity {
    what: &'static str,
    example: &'static str,
    units: &'static str,
    parse: fn(&str) -> Result<u64, QuantityError>,
    text: fn(u64) -> String,
}

const SIZE: Quantity = Quantity {
    what: "a size",
    example: "64MiB",
    units: "B, KiB, MiB, GiB, kB, MB, GB",
    parse: words::parse_size,
    text: words::size_text,
};

const DURATION: Quantity = Quantity {
    what: "a duration",
    example: "30s",
    units: "ms, s, m, h",
    parse: words::parse_duration,
    text: words::duration_text,
};

fn names(fields: &[Field]) -> String {
    fields.iter().map(|f| f.name).collect::<Vec<_>>().join(", ")
}

/// The rule of RFC 6901, or of ours, that a text breaks.
fn pointer_rule(text: &str) -> String {
    if text.len() > POINTER_BYTES_MAX {
        format!("use at most {POINTER_BYTES_MAX} bytes")
    } else if text.starts_with('/') {
        "write ~0 for ~ and ~1 for / inside a name".to_owned()
    } else {
        format!("begin it with /, for example {}", show(&format!("/{text}")))
    }
}

/// How a text of this kind is written.
fn form(kind: &Kind) -> String {
    match kind {
        Kind::Reference(part) => format!("\"stage\" or \"stage.{part}\""),
        Kind::Component => format!("\"name\", \"{0}\" or \"name@{0}\"", words::digest_form()),
        Kind::Digest => format!("\"{}\"", words::digest_form()),
        Kind::Origin => "scheme, host and, if it is not the usual one, port, and nothing behind \
                         them: \"https://api.example.com\", \"http://10.0.0.7:8080\", or \
                         \"https://*.example.com\" for every name below one"
            .to_owned(),
        Kind::Pointer => "a JSON pointer such as \"/user/id\"".to_owned(),
        Kind::Name => format!("a name: {}", words::NAME_RULE),
        _ => "it in quotes".to_owned(),
    }
}

/// A line that would satisfy a missing field.
fn example(name: &str, kind: &Kind) -> String {
    match kind {
        Kind::Version => "version = 1".to_owned(),
        Kind::Choice(choices) => {
            let words: Vec<_> = choices.iter().map(|c| format!("{name} = {:?}", c.word)).collect();
            words.join(" or ")
        }
        Kind::List { of: Kind::Reference(_), .. } => format!("{name} = [\"stage\"]"),
        Kind::Reference(_) => format!("{name} = \"stage\""),
        Kind::Table(_) => format!("a table [{name}]"),
        Kind::Map { .. } => format!("a table [{name}.some-name]"),
        Kind::Component => format!("{name} = \"name of a component\""),
        Kind::Pointer => format!("{name} = \"/pointer\""),
        _ => format!("{name} = \"…\""),
    }
}
