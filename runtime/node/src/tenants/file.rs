//! The text of the tenants file: what it means, what is wrong with it, how it is written.
//!
//! ```toml
//! version = 1
//!
//! [tenants.acme]
//! weight = 20                      # share of the workers, 1 to 100; 10 if not said
//! isolation = "process"            # a process of its own, or "shared"; else as configured
//!
//! [tenants.acme.quota]             # each overrides the default
//! events-per-second = 100000
//! memory-bytes = "512MiB"
//!
//! [tenants.acme.gpu]               # see `gpu`
//! share = 250
//!
//! [[tenants.acme.tokens]]
//! id = "ci"
//! hash = "sha256:<64 hex digits>"
//! scopes = ["read", "ingest", "write"]
//! created = 2026-11-20T08:00:00Z   # only for people
//! ```
//!
//! Reading never stops at a mistake: all are collected, each naming its field and the fix. Unknown
//! fields are mistakes. What is written reads back the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use sluicebox_core::ids::Name;
use sluicebox_core::manifest::{Problem, Problems};
use sluicebox_core::quota::{Allowance, Resource};
use toml::value::Datetime;
use toml::{Table, Value};

use super::error::Error;
use super::gpu::{self, GpuShare};
use super::scope::{Scope, Scopes};
use super::token::TokenHash;
use crate::config::quantity::{parse_size, size_text};

/// The format of the file.
const VERSION: i64 = 1;
/// Tenants of a node.
pub(super) const TENANTS_MAX: usize = 10_000;
/// Tokens of a tenant.
pub(super) const TOKENS_MAX: usize = 1_000;
/// The largest number a quota can be.
pub(super) const QUOTA_MAX: u64 = i64::MAX as u64;
/// The largest weight.
pub const WEIGHT_MAX: u8 = 100;
/// The weight of a tenant for which the file says none.
pub const WEIGHT_DEFAULT: u8 = 10;

/// What a tenant shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The node's process: its guests are sandboxed by the engine.
    Shared,
    /// No process: it has one of its own, which may do little.
    Process,
}

impl Isolation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Process];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Process => "process",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == text)
    }
}

/// What the file says about a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Share of the workers beside other tenants' weights.
    pub weight: u8,
    /// What it shares with others; as configured if the file says nothing.
    pub isolation: Option<Isolation>,
    /// The quotas that differ from the defaults.
    pub quota: BTreeMap<Resource, u64>,
    /// What it has of the GPU, where that is not as configured.
    pub gpu: GpuShare,
    /// Its tokens, in the order of the file.
    pub tokens: Vec<TokenEntry>,
}

/// What the file says about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Names it in logs and commands.
    pub id: Name,
    /// Recognises it.
    pub hash: TokenHash,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Option<Datetime>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            weight: WEIGHT_DEFAULT,
            isolation: None,
            quota: BTreeMap::new(),
            gpu: GpuShare::default(),
            tokens: Vec::new(),
        }
    }
}

impl Entry {
    /// The quotas: what the file says, else `defaults`.
    #[must_use]
    pub fn allowance(&self, defaults: &Allowance) -> Allowance {
        let mut allowance = *defaults;
        for (resource, limit) in &self.quota {
            allowance.set_limit(*resource, *limit);
        }
        allowance
    }
}

/// Reads the text of the file at `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<BTreeMap<Name, Entry>, Error> {
    let invalid = |problems| Error::Invalid { path: path.into(), problems };
    let table = text.parse::<Table>().map_err(|e| {
        let line =
            e.span().map_or(0, |span| text.as_bytes()[..span.start].split(|b| *b == b'\n').count());
        let message = format!("line {line}: {}", e.message().replace('\n', " "));
        invalid(Problem::new("", "tenants.syntax", message, "write it as TOML").into())
    })?;
    let mut reader = Reader::default();
    let tenants = reader.file(&table);
    if reader.problems.is_empty() { Ok(tenants) } else { Err(invalid(reader.problems)) }
}

/// Collects mistakes while reading.
#[derive(Default)]
struct Reader {
    problems: Problems,
    /// Hashes seen, so that no token belongs to two entries.
    hashes: BTreeSet<String>,
}

impl Reader {
    fn problem(&mut self, field: &str, code: &'static str, message: impl Into<String>, fix: &str) {
        self.problems.add(Problem::new(field, code, message, fix));
    }

    /// The value as a table with no fields but these.
    fn table<'a>(&mut self, field: &str, value: &'a Value, allowed: &[&str]) -> Option<&'a Table> {
        let Some(table) = value.as_table() else {
            self.wrong_type(field, value, "a table");
            return None;
        };
        self.fields(field, table, allowed);
        Some(table)
    }

    fn fields(&mut self, field: &str, table: &Table, allowed: &[&str]) {
        for name in table.keys().filter(|name| !allowed.contains(&name.as_str())) {
            let fix = format!("remove it, or use one of: {}", allowed.join(", "));
            self.problem(
                &inner(field, name),
                "tenants.unknown-field",
                "there is no such field",
                &fix,
            );
        }
    }

    fn wrong_type(&mut self, field: &str, value: &Value, expected: &str) {
        let message = format!("this is {}", a_type(value));
        self.problem(field, "tenants.type", message, &format!("write {expected}"));
    }

    fn missing(&mut self, field: &str, fix: &str) {
        self.problem(field, "tenants.missing-field", "it is missing", fix);
    }

    fn file(&mut self, table: &Table) -> BTreeMap<Name, Entry> {
        match table.get("version") {
            Some(Value::Integer(VERSION)) => {}
            Some(Value::Integer(other)) => {
                // What else the file says is for a reader that knows that format.
                let message = format!("the format {other} is not known to this version");
                self.problem("version", "tenants.version", message, "write 1");
                return BTreeMap::new();
            }
            Some(other) => self.wrong_type("version", other, "1"),
            None => self.missing("version", "write: version = 1"),
        }
        self.fields("", table, &["version", "tenants"]);
        let Some(value) = table.get("tenants") else { return BTreeMap::new() };
        let Some(tenants) = value.as_table() else {
            self.wrong_type("tenants", value, "a table with one table for each tenant");
            return BTreeMap::new();
        };
        if tenants.len() > TENANTS_MAX {
            let fix = format!("a node has at most {TENANTS_MAX}; use another node");
            self.problem("tenants", "tenants.too-many", "there are too many tenants", &fix);
            return BTreeMap::new();
        }
        tenants.iter().filter_map(|(name, value)| self.tenant(name, value)).collect()
    }

    fn tenant(&mut self, name: &str, value: &Value) -> Option<(Name, Entry)> {
        let field = inner("tenants", name);
        let checked = self.name(&field, name);
        let table =
            self.table(&field, value, &["weight", "isolation", "quota", "gpu", "tokens"])?;
        let mut entry = Entry::default();
        if let Some(weight) = table.get("weight") {
            entry.weight = self.weight(&inner(&field, "weight"), weight);
        }
        if let Some(isolation) = table.get("isolation") {
            entry.isolation = self.isolation(&inner(&field, "isolation"), isolation);
        }
        if let Some(quota) = table.get("quota") {
            entry.quota = self.quota(&inner(&field, "quota"), quota);
        }
        if let Some(gpu) = table.get("gpu") {
            entry.gpu = self.gpu(&inner(&field, "gpu"), gpu);
        }
        if let Some(tokens) = table.get("tokens") {
            entry.tokens = self.tokens(&inner(&field, "tokens"), tokens);
        }
        Some((checked?, entry))
    }

    fn name(&mut self, field: &str, text: &str) -> Option<Name> {
        let fix = "use 1 to 63 of a-z, 0-9 and '-', beginning with a letter";
        let name = Name::new(text).ok();
        if name.is_none() {
            self.problem(field, "tenants.name", "this is not a name", fix);
        }
        name
    }

    fn weight(&mut self, field: &str, value: &Value) -> u8 {
        let weight = value.as_integer().and_then(|n| u8::try_from(n).ok());
        weight.filter(|weight| (1..=WEIGHT_MAX).contains(weight)).unwrap_or_else(|| {
            self.problem(
                field,
                "tenants.range",
                "this is not a weight",
                "write a number, 1 to 100",
            );
            WEIGHT_DEFAULT
        })
    }

    fn isolation(&mut self, field: &str, value: &Value) -> Option<Isolation> {
        let isolation = value.as_str().and_then(Isolation::parse);
        if isolation.is_none() {
            let fix = "write \"process\" or \"shared\"";
            self.problem(field, "tenants.isolation", "this is not a way to isolate", fix);
        }
        isolation
    }

    fn quota(&mut self, field: &str, value: &Value) -> BTreeMap<Resource, u64> {
        let names = Resource::ALL.map(Resource::as_str);
        let Some(table) = self.table(field, value, &names) else { return BTreeMap::new() };
        let mut quota = BTreeMap::new();
        for resource in Resource::ALL {
            let Some(value) = table.get(resource.as_str()) else { continue };
            let (limit, expected) = if resource.is_bytes() {
                (value.as_str().and_then(parse_size), "write a size in quotes, such as \"512MiB\"")
            } else {
                let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
                (number, "write a whole number, 0 or more")
            };
            if let Some(limit) = limit.filter(|limit| *limit <= QUOTA_MAX) {
                quota.insert(resource, limit);
            } else {
                let field = inner(field, resource.as_str());
                self.problem(&field, "tenants.range", "this is not a limit", expected);
            }
        }
        quota
    }

    fn gpu(&mut self, field: &str, value: &Value) -> GpuShare {
        let Some(table) = self.table(field, value, &gpu::FIELDS) else {
            return GpuShare::default();
        };
        gpu::read(table, |name, fix| {
            self.problem(&inner(field, name), "tenants.range", "this is not a limit", fix);
        })
    }

    fn tokens(&mut self, field: &str, value: &Value) -> Vec<TokenEntry> {
        let Some(list) = value.as_array() else {
            self.wrong_type(field, value, "a list of tables");
            return Vec::new();
        };
        if list.len() > TOKENS_MAX {
            let fix = format!("a tenant has at most {TOKENS_MAX}; revoke some");
            self.problem(field, "tenants.too-many", "there are too many tokens", &fix);
            return Vec::new();
        }
        let mut tokens: Vec<TokenEntry> = Vec::new();
        for (at, value) in list.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let Some(token) = self.token(&field, value) else { continue };
            if tokens.iter().any(|other| other.id == token.id) {
                let message = "another token of this tenant has the same id";
                self.problem(&inner(&field, "id"), "tenants.duplicate", message, "use another");
            }
            tokens.push(token);
        }
        tokens
    }

    fn token(&mut self, field: &str, value: &Value) -> Option<TokenEntry> {
        let table = self.table(field, value, &["id", "hash", "scopes", "created"])?;
        let id = self.text(table, &inner(field, "id"), "write a name for the token");
        let id = id.and_then(|id| self.name(&inner(field, "id"), id));
        let hash = self.hash(table, &inner(field, "hash"));
        let scopes = self.scopes(table, &inner(field, "scopes"));
        let created = self.created(table, &inner(field, "created"));
        Some(TokenEntry { id: id?, hash: hash?, scopes: scopes?, created })
    }

    /// The text that a field must have; the last part of `field` is its name in the table.
    fn text<'a>(&mut self, table: &'a Table, field: &str, fix: &str) -> Option<&'a str> {
        match table.get(field.rsplit('.').next()?) {
            Some(Value::String(text)) => return Some(text),
            Some(other) => self.wrong_type(field, other, "text in quotes"),
            None => self.missing(field, fix),
        }
        None
    }

    fn hash(&mut self, table: &Table, field: &str) -> Option<TokenHash> {
        let fix = "write \"sha256:\" and the 64 lower-case hex digits of the token's SHA-256, or \
                   make a new token with: sluicebox tenant token add";
        let text = self.text(table, field, fix)?;
        let hash = TokenHash::parse(text);
        if hash.is_none() {
            self.problem(field, "tenants.hash", "this is not the hash of a token", fix);
        } else if !self.hashes.insert(text.into()) {
            let message = "another token has the same hash";
            self.problem(field, "tenants.duplicate", message, "remove one of the two");
        }
        hash
    }

    fn scopes(&mut self, table: &Table, field: &str) -> Option<Scopes> {
        let fix = "write a list of \"read\", \"ingest\", \"write\" and \"admin\"";
        let list = match table.get("scopes") {
            Some(Value::Array(list)) if !list.is_empty() => list,
            Some(Value::Array(_)) => {
                self.problem(field, "tenants.scope", "a token without a scope is of no use", fix);
                return None;
            }
            Some(other) => {
                self.wrong_type(field, other, "a list of scopes");
                return None;
            }
            None => {
                self.missing(field, fix);
                return None;
            }
        };
        let scopes: Vec<_> =
            list.iter().map(|value| value.as_str().and_then(Scope::parse)).collect();
        for (at, _) in scopes.iter().enumerate().filter(|(_, scope)| scope.is_none()) {
            self.problem(&format!("{field}[{at}]"), "tenants.scope", "this is not a scope", fix);
        }
        scopes.into_iter().collect()
    }

    fn created(&mut self, table: &Table, field: &str) -> Option<Datetime> {
        match table.get("created")? {
            Value::Datetime(time) if time.date.is_some() => return Some(*time),
            other => self.wrong_type(field, other, "a date and time, without quotes"),
        }
        None
    }
}

/// The path of a field inside another.
fn inner(field: &str, name: &str) -> String {
    // What could make a path or a message unreadable is quoted and cut.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let shown = if name.len() <= 64 && !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("{:?}", name.chars().take(40).collect::<String>())
    };
    if field.is_empty() { shown } else { format!("{field}.{shown}") }
}

const fn a_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time without a date, or a date and time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The text of the file.
pub(super) fn render(tenants: &BTreeMap<Name, Entry>) -> String {
    let mut text = String::from(
        "# The tenants of a sluicebox node. `sluicebox tenant` writes this file and keeps no\n\
         # comments that were added. It holds no tokens, only their SHA-256.\n\
         version = 1\n",
    );
    for (name, entry) in tenants {
        render_tenant(&mut text, name, entry).expect("writing to a string does not fail");
    }
    text
}

fn render_tenant(text: &mut String, name: &Name, entry: &Entry) -> std::fmt::Result {
    writeln!(text, "\n[tenants.{name}]\nweight = {}", entry.weight)?;
    if let Some(isolation) = entry.isolation {
        writeln!(text, "isolation = \"{}\"", isolation.as_str())?;
    }
    if !entry.quota.is_empty() {
        writeln!(text, "\n[tenants.{name}.quota]")?;
    }
    for (resource, limit) in &entry.quota {
        match resource.is_bytes() {
            true => writeln!(text, "{} = \"{}\"", resource.as_str(), size_text(*limit))?,
            false => writeln!(text, "{} = {limit}", resource.as_str())?,
        }
    }
    gpu::write(text, name, &entry.gpu)?;
    for token in &entry.tokens {
        let scopes: Vec<_> = token.scopes.iter().map(|s| format!("\"{}\"", s.as_str())).collect();
        writeln!(text, "\n[[tenants.{name}.tokens]]\nid = \"{}\"", token.id)?;
        writeln!(text, "hash = \"{}\"\nscopes = [{}]", token.hash, scopes.join(", "))?;
        if let Some(created) = token.created {
            writeln!(text, "created = {created}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
