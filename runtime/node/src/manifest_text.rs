//! From the text of a manifest, TOML or JSON, to a tree of values.
//!
//! - Bounded before anything is parsed: bytes of text; and while it is: nesting.
//! - A name given twice in one table is a mistake in both languages, never "the last one wins".
//! - Mistakes of writing are told with line and column, as many as the parser can find. The fields
//!   are looked at only when there are none.
//!
//! What the values mean is decided in the core.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use sluicebox_core::manifest::{Problem, Problems, Table, Value, bounds, item, member, show};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The language a manifest is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `application/toml`, `.toml`.
    Toml,
    /// `application/json`, `.json`.
    Json,
}

impl Format {
    /// The language a content type names, if it is one of ours.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/toml" | "application/x-toml" | "text/toml" | "text/x-toml" => {
                Some(Self::Toml)
            }
            "application/json" | "text/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The language a file's name ends in, if it is one of ours.
    #[must_use]
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The language the text is in, by its first sign: no TOML document begins with a brace.
    #[must_use]
    pub fn of_text(text: &[u8]) -> Self {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'{') { Self::Json } else { Self::Toml }
    }
}

/// Editors on some systems put it in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads a manifest's text.
///
/// # Errors
/// The mistakes of writing, each with line and column.
pub fn parse(text: &[u8], format: Format) -> Result<Value, Problems> {
    if text.len() > bounds::TEXT_BYTES_MAX {
        let message = format!("the manifest has {} bytes", text.len());
        let fix = format!("use at most {}; put large values into assets", bounds::TEXT_BYTES_MAX);
        return Err(Problem::new("", "manifest.too-large", message, fix).into());
    }
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = String::from_utf8_lossy(&text[..error.valid_up_to()]);
        let message = "the bytes here are not UTF-8";
        let place = Place::of(&before, before.len());
        Problem::new(place.to_string(), "manifest.encoding", message, "save the file as UTF-8")
    })?;
    match format {
        Format::Toml => parse_toml(text),
        Format::Json => parse_json(text),
    }
}

/// A place in the text, counted from 1.
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    /// Columns are characters. An offset inside a character, or behind the end, is moved back.
    fn of(text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
        Self { line, column: 1 + before[start..].chars().count() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Mistakes of writing that are told at once; behind a few, most are echoes of the first.
const SYNTAX_PROBLEMS_MAX: usize = 10;

fn parse_toml(text: &str) -> Result<Value, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut problems = Problems::new();
    for error in errors.iter().take(SYNTAX_PROBLEMS_MAX) {
        let place = Place::of(text, error.span().map_or(0, |span| span.start));
        problems.add(syntax(&place, error.message(), "TOML"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let manifest = from_table(
        document.get_ref(),
        "",
        &mut Nesting { text, problems: &mut problems, depth: 0 },
    );
    if problems.is_empty() { Ok(manifest) } else { Err(problems) }
}

fn syntax(place: &Place, message: &str, language: &str) -> Problem {
    // The parser's own words may quote the text: one line, and not a long one.
    let message: String = message.chars().take(200).flat_map(tame).collect();
    let (code, fix) = if message.contains("duplicate") {
        ("manifest.duplicate", "give each name once in a table".to_owned())
    } else {
        ("manifest.syntax", format!("correct the {language} at this place"))
    };
    Problem::new(place.to_string(), code, message, fix)
}

fn tame(c: char) -> Vec<char> {
    if c.is_control() { c.escape_debug().collect() } else { vec![c] }
}

struct Nesting<'a> {
    text: &'a str,
    problems: &'a mut Problems,
    depth: usize,
}

impl Nesting<'_> {
    /// Goes one level deeper, unless that is too deep.
    fn enter(&mut self, offset: usize, inner: impl FnOnce(&mut Self) -> Value) -> Value {
        if self.depth == bounds::DEPTH_MAX {
            self.problems.add(too_deep(&Place::of(self.text, offset)));
            return Value::Null;
        }
        self.depth += 1;
        let value = inner(self);
        self.depth -= 1;
        value
    }
}

fn too_deep(place: &Place) -> Problem {
    let message = format!("tables and arrays are nested more than {} deep", bounds::DEPTH_MAX);
    Problem::new(place.to_string(), "manifest.depth", message, "no field needs that: remove it")
}

fn from_table(table: &DeTable<'_>, path: &str, nesting: &mut Nesting<'_>) -> Value {
    let members = table.iter().map(|(name, value)| {
        let path = member(path, name.get_ref());
        (name.get_ref().clone().into_owned(), from_toml(value, &path, nesting))
    });
    Value::Table(members.collect())
}

fn from_toml(value: &Spanned<DeValue<'_>>, path: &str, nesting: &mut Nesting<'_>) -> Value {
    let offset = value.span().start;
    match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Float(number.to_string()), Value::Integer),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Value::Bool(*truth),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => nesting.enter(offset, |nesting| {
            let items = items.iter().enumerate();
            Value::Array(items.map(|(i, v)| from_toml(v, &item(path, i), nesting)).collect())
        }),
        DeValue::Table(table) => nesting.enter(offset, |nesting| from_table(table, path, nesting)),
    }
}

fn parse_json(text: &str) -> Result<Value, Problems> {
    let problems = RefCell::new(Problems::new());
    let mut reader = serde_json::Deserializer::from_str(text);
    let seed = Json { path: String::new(), depth: 0, problems: &problems };
    let parsed = seed.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    let mut problems = problems.into_inner();
    match parsed {
        Ok(value) if problems.is_empty() => return Ok(value),
        Ok(_) => {}
        Err(error) => {
            let place = Place { line: error.line(), column: error.column().max(1) };
            let told = error.to_string();
            // The parser ends its message with the place, which we say in our own way.
            let message =
                told.rsplit_once(" at line ").map_or(told.as_str(), |(message, _)| message);
            problems.add(if message == TOO_DEEP {
                too_deep(&place)
            } else {
                syntax(&place, message, "JSON")
            });
        }
    }
    Err(problems)
}

/// Told apart from the parser's own messages by being equal to this.
const TOO_DEEP: &str = "nested too deep";

/// Reads one JSON value; duplicates are noted and reading goes on.
struct Json<'a> {
    path: String,
    depth: usize,
    problems: &'a RefCell<Problems>,
}

impl Json<'_> {
    fn inner(&self, path: String) -> Json<'_> {
        Json { path, depth: self.depth + 1, problems: self.problems }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        // The manifest itself is a table that TOML does not count.
        if self.depth > bounds::DEPTH_MAX { Err(E::custom(TOO_DEEP)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::Float(number.to_string()), Value::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut items = Vec::new();
        while let Some(value) =
            access.next_element_seed(self.inner(item(&self.path, items.len())))?
        {
            items.push(value);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut table = Table::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = member(&self.path, &name);
            let value = access.next_value_seed(self.inner(path.clone()))?;
            if table.contains_key(&name) {
                let message = format!("{} is given twice in the same object", show(&name));
                let fix = "give each name once in an object";
                self.problems.borrow_mut().add(Problem::new(
                    path,
                    "manifest.duplicate",
                    message,
                    fix,
                ));
            }
            table.insert(name, value);
        }
        Ok(Value::Table(table))
    }
}

#[cfg(test)]
mod tests;
