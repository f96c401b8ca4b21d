//! Reading settings from file, environment and flags, one field at a time.
//!
//! - For each field the strongest origin that names it counts: flag, environment, file, default.
//! - Nothing stops at a mistake: the field keeps its default, the mistake is listed, reading goes
//!   on.
//! - What no field asked for is a mistake too, with the nearest name that exists.
//!
//! Which fields there are and what they may be is said in [`super`]; what a value may look like in
//! [`super::shape`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::shape::{Shape, Wrong};

/// Environment variables that begin with this are settings.
pub(super) const ENVIRONMENT_PREFIX: &str = "SLUICEBOX__";

/// Prefix of the variables of OpenTelemetry.
const OTEL_PREFIX: &str = "OTEL_";

/// Largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Characters of somebody's own text that a message shows.
const SHOWN_CHARS_MAX: usize = 64;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// Quoted text of the file.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// `true` or `false` of the file.
    Boolean(bool),
    /// Quoted texts of the file, in brackets.
    List(Vec<String>),
    /// Something no field takes, such as a date; its kind.
    Other(&'static str),
    /// Text of a flag or an environment variable, which may stand for any of them.
    Word(String),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Word(text) => f.write_str(&shown(text)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(flag) => write!(f, "{flag}"),
            Self::List(items) => f.write_str(&shown(&items.join(", "))),
            Self::Other(kind) => f.write_str(kind),
        }
    }
}

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `http.listen`; empty for the file as a whole.
    pub field: String,
    /// Where it was said.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
    /// What is allowed, or what to write instead.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}; {}", self.origin, self.message, self.fix)
        } else {
            write!(f, "{}: {}; {} ({})", self.field, self.message, self.fix, self.origin)
        }
    }
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Path of the field, for example `http.listen`.
    pub field: String,
    /// Its value, in the form the file takes it.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
    /// What it may be.
    pub allowed: String,
    /// What it means.
    pub help: String,
}

/// Everything that was said about the configuration, before anything is made of it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file's name and text.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables with our prefix.
    pub environment: Vec<(String, String)>,
    /// Those of OpenTelemetry, which are the same for all programs.
    pub otel: Vec<(String, String)>,
    /// Flags: the flag as people type it, the field it sets, the value.
    pub flags: Vec<(String, String, String)>,
}

impl Sources {
    /// Reads `file`, or `standard` if there is such a file, and the environment.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than a configuration can be.
    pub fn gather(file: Option<&Path>, standard: &Path) -> Result<Self, Problem> {
        let path = match file {
            Some(path) => Some(path),
            None => standard.exists().then_some(standard),
        };
        let file = path.map(|path| Ok((path.to_owned(), read_bounded(path)?))).transpose()?;
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        let with = |prefix: &str| {
            variables.iter().filter(|(name, _)| name.starts_with(prefix)).cloned().collect()
        };
        let (environment, otel) = (with(ENVIRONMENT_PREFIX), with(OTEL_PREFIX));
        Ok(Self { file, environment, otel, flags: Vec::new() })
    }

    /// Adds what a flag says.
    pub fn flag(&mut self, flag: &str, field: &str, value: impl fmt::Display) {
        self.flags.push((flag.to_owned(), field.to_owned(), value.to_string()));
    }
}

fn read_bounded(path: &Path) -> Result<String, Problem> {
    let problem = |message: String, fix: &str| Problem {
        field: String::new(),
        origin: Origin::File { path: path.to_owned(), line: 1 },
        message,
        fix: fix.to_owned(),
    };
    let length = std::fs::metadata(path)
        .map_err(|error| problem(format!("it cannot be read: {error}"), "name a file that can"))?
        .len();
    if length > FILE_BYTES_MAX {
        let message = format!("it has {length} bytes, a configuration at most {FILE_BYTES_MAX}");
        return Err(problem(message, "name the right file"));
    }
    std::fs::read_to_string(path)
        .map_err(|error| problem(format!("it cannot be read: {error}"), "name a text file"))
}

/// Hands out values field by field and remembers what is wrong.
#[derive(Debug)]
pub(super) struct Reader {
    /// By field path; the strongest origin only.
    given: BTreeMap<String, (Raw, Origin)>,
    settings: Vec<Setting>,
    problems: Vec<Problem>,
}

impl Reader {
    /// Sorts what was said by field.
    pub(super) fn new(sources: &Sources) -> Self {
        let mut reader =
            Self { given: BTreeMap::new(), settings: Vec::new(), problems: Vec::new() };
        if let Some((path, text)) = &sources.file {
            reader.take_file(path, text);
        }
        for (name, value) in &sources.environment {
            let field = field_of_variable(name);
            reader
                .given
                .insert(field, (Raw::Word(value.clone()), Origin::Environment(name.clone())));
        }
        for (flag, field, value) in &sources.flags {
            let given = (Raw::Word(value.clone()), Origin::Flag(flag.clone()));
            reader.given.insert(field.clone(), given);
        }
        reader
    }

    /// The value of one field; its default if nobody named it or what they said is wrong.
    pub(super) fn field<S: Shape>(&mut self, path: &str, help: &str, shape: &S) -> S::Value {
        let (value, origin) = match self.given.remove(path) {
            None => (shape.default(), Origin::Default),
            Some((raw, origin)) => match shape.read(&raw) {
                Ok(value) => (value, origin),
                Err(Wrong { message, fix }) => {
                    self.problem(path, origin.clone(), message, fix);
                    (shape.default(), origin)
                }
            },
        };
        self.settings.push(Setting {
            field: path.to_owned(),
            value: shape.write(&value),
            origin,
            allowed: shape.allowed(),
            help: help.trim().to_owned(),
        });
        value
    }

    /// Lists a mistake that concerns a field as a whole.
    pub(super) fn problem(&mut self, field: &str, origin: Origin, message: String, fix: String) {
        self.problems.push(Problem { field: field.to_owned(), origin, message, fix });
    }

    /// Who set a field that was read already.
    pub(super) fn origin(&self, field: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.field == field);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }

    /// What was read and what is wrong; everything that no field asked for is listed now.
    pub(super) fn finish(mut self) -> (Vec<Setting>, Vec<Problem>) {
        for (field, (_, origin)) in std::mem::take(&mut self.given) {
            let known = self.settings.iter().map(|setting| setting.field.as_str());
            let fix = match nearest(&field, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`sluicebox config show` lists all fields; remove it".to_owned(),
            };
            self.problem(&shown_field(&field), origin, "there is no such field".to_owned(), fix);
        }
        (self.settings, self.problems)
    }

    fn take_file(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let origin = Origin::File { path: path.to_owned(), line };
            let message = format!("this is not TOML: {}", error.message());
            self.problem("", origin, message, "correct the line".to_owned());
        }
        let place = |at: usize| Origin::File { path: path.to_owned(), line: line_of(text, at) };
        for (section, value) in table.get_ref() {
            let DeValue::Table(fields) = value.get_ref() else {
                let given = (raw(value.get_ref()), place(section.span().start));
                self.given.insert(section.get_ref().to_string(), given);
                continue;
            };
            for (field, value) in fields {
                let name = format!("{}.{}", section.get_ref(), field.get_ref());
                self.given.insert(name, (raw(value.get_ref()), place(field.span().start)));
            }
        }
    }
}

/// `SLUICEBOX__HTTP__BODY_BYTES_MAX` is `http.body-bytes-max`.
fn field_of_variable(name: &str) -> String {
    let path = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or(name);
    path.to_ascii_lowercase().replace("__", ".").replace('_', "-")
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Boolean(flag) => Raw::Boolean(*flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Raw::Other("a number beyond 64 bits"), Raw::Integer),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Raw::Other("an array"), Raw::List)
        }
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Somebody's text, fit for a message: quoted, escaped, cut.
fn shown(text: &str) -> String {
    let mut shown = String::from("\"");
    shown.extend(text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug));
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown.push('"');
    shown
}

/// A field's name as somebody wrote it, fit for a message.
fn shown_field(field: &str) -> String {
    field.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// The candidate `text` is most likely a misspelling of: at most one mistake for every three
/// characters, or the same last part in another section.
fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 2 * SHOWN_CHARS_MAX {
        return None;
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |candidate: &str| {
        let whole = edits(text, candidate);
        if last(text) == last(candidate) { whole.min(1) } else { whole }
    };
    let (distance, candidate) = candidates.map(|c| (distance(c), c)).min_by_key(|(d, _)| *d)?;
    (distance * 3 <= text.chars().count()).then_some(candidate)
}

/// Insertions, deletions and replacements between two short texts.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::super::shape::Count;
    use super::*;

    const WORKERS: Count<u32> = Count { default: 4, least: 1, most: 64 };

    fn sources(text: &str) -> Sources {
        Sources { file: Some((PathBuf::from("s.toml"), text.to_owned())), ..Sources::default() }
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let mut said = sources("[node]\nworkers = 5\n");
        said.environment.push(("SLUICEBOX__NODE__WORKERS".to_owned(), "6".to_owned()));
        let value = Reader::new(&said).field("node.workers", "", &WORKERS);
        assert_eq!(value, 6);
        said.flag("--workers", "node.workers", 7);
        let mut reader = Reader::new(&said);
        assert_eq!(reader.field("node.workers", "", &WORKERS), 7);
        assert_eq!(reader.origin("node.workers"), Origin::Flag("--workers".to_owned()));
    }

    #[test]
    fn a_misspelt_field_is_refused_with_the_right_one() {
        let mut reader = Reader::new(&sources("[node]\n\nwokers = 5\n[zebra]\nx = 1\n"));
        assert_eq!(reader.field("node.workers", "", &WORKERS), 4);
        let (_, problems) = reader.finish();
        assert_eq!(
            problems[0].to_string(),
            "node.wokers: there is no such field; did you mean `node.workers`? (s.toml:3)"
        );
        assert!(problems[1].fix.contains("config show"), "{}", problems[1]);
    }

    #[test]
    fn text_that_is_not_toml_is_reported_by_line() {
        let reader = Reader::new(&sources("[node]\nworkers = = 5\n"));
        let (_, problems) = reader.finish();
        assert!(problems[0].to_string().starts_with("s.toml:2: this is not TOML"), "{problems:?}");
    }

    #[test]
    fn hostile_names_and_values_stay_short_and_printable() {
        let mut said = sources(&format!("\"a\\u001b[31m{}\" = 1\n", "x".repeat(10_000)));
        let long = "\u{7}".repeat(10_000);
        said.environment.push(("SLUICEBOX__NODE__WORKERS".to_owned(), long));
        let mut reader = Reader::new(&said);
        assert_eq!(reader.field("node.workers", "", &WORKERS), 4);
        let (_, problems) = reader.finish();
        assert_eq!(problems.len(), 2);
        for problem in problems {
            let text = problem.to_string();
            assert!(text.len() < 700 && !text.contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn variables_become_fields() {
        assert_eq!(field_of_variable("SLUICEBOX__HTTP__BODY_BYTES_MAX"), "http.body-bytes-max");
    }
}
