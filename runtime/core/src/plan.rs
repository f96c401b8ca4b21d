//! From the pipeline that runs to the one applied: the diff, and what it may not do.
//!
//! The two are compared as written declarations, so that no field can be forgotten. An edge is
//! named by its two ends, not by its place in the list: moving a line is no change. A stage that is
//! renamed is compared with itself. Equal pipelines give an empty diff, which is what makes
//! applying twice harmless.
//!
//! What becomes of the state of stages: `handover`. Carrying the changes out is left to the node.

mod handover;

use std::collections::BTreeSet;
use std::fmt;

use crate::manifest::{Declaration, Problem, Problems, Table, Value, member};
use crate::pipeline::Pipeline;

pub use handover::Handover;

/// What applying a pipeline would change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The changes, by field.
    pub changes: Vec<Change>,
    /// What may not be changed; nothing is applied unless this is empty.
    pub refused: Problems,
    /// What becomes of the state of stages.
    pub handover: Handover,
}

/// One changed field, or a whole stage, edge or output that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path of the field, for example `stages.count.limits.memory` or `edges.split.out → count.in`.
    pub field: String,
    /// What happens to it.
    pub kind: ChangeKind,
    /// What it is now; `None` if it comes.
    pub before: Option<String>,
    /// What it will be; `None` if it goes.
    pub after: Option<String>,
}

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It has another value.
    Changed,
}

impl ChangeKind {
    /// The word used in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

impl Diff {
    /// True if applying would change nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Compares the pipeline that runs, if there is one, with the one to apply. What the new one leaves
/// open goes on as it is (see [`go_on`]). `discard` names stages that run and whose state is given
/// up.
#[must_use]
pub fn diff(old: Option<&Pipeline>, new: &Pipeline, discard: &BTreeSet<String>) -> Diff {
    let mut diff = Diff::default();
    if let Some(old) = old {
        diff.refused = refused(old, new);
    }
    diff.handover = handover::judge(old, new, discard, &mut diff.refused);
    let handover = &diff.handover;
    let mut next = new.clone();
    if let Some(old) = old {
        go_on(old, &mut next, handover);
    }
    let after = comparable(next.declaration());
    let before = old.map(|old| {
        let mut declaration = old.declaration();
        handover.rename(&mut declaration);
        comparable(declaration)
    });
    let before = before.unwrap_or_default();
    let mut compare = Compare { changes: &mut diff.changes };
    compare.handover(handover);
    compare.tables("", &before, &after);
    diff
}

/// What a manifest leaves open goes on as it is: the number of partitions, and with `scaling` the
/// stage that is apart. With `scaling` both go on whatever the manifest says, which is only where a
/// pipeline begins; the number is brought within its bounds.
pub fn go_on(old: &Pipeline, new: &mut Pipeline, handover: &Handover) {
    if new.scaling.is_some() {
        new.partitions = None;
    }
    if let Some(number) = old.partitions {
        new.fix_partitions(number);
    }
    let (Some(before), Some(_)) = (&old.scaling, &new.scaling) else { return };
    let heir = before.apart.as_deref().and_then(|stage| handover.heir(stage));
    let apart = heir.filter(|stage| new.stage_index(stage).is_some()).map(str::to_owned);
    if let Some(scaling) = &mut new.scaling {
        scaling.apart = apart;
    }
}

fn refused(old: &Pipeline, new: &Pipeline) -> Problems {
    let mut refused = Problems::new();
    if old.name != new.name {
        let message = format!("is {:?}, and the pipeline is called {:?}", new.name, old.name);
        let fix = "apply it as a pipeline of its own";
        refused.add(Problem::new("name", "plan.name", message, fix));
    }
    if old.delivery != new.delivery {
        let (is, was) = (new.delivery.word(), old.delivery.word());
        let message = format!("is {is:?}, and was {was:?} when the pipeline was first applied");
        let fix = "leave it, or delete the pipeline and apply it anew".to_owned();
        refused.add(Problem::new("delivery", "plan.delivery", message, fix));
    }
    refused
}

/// The written declaration, with edges as a table by their two ends. Former names are no part of
/// what runs.
fn comparable(mut declaration: Declaration) -> Table {
    declaration.stages.values_mut().for_each(|stage| stage.from = None);
    let Value::Table(mut table) = declaration.write() else { return Table::new() };
    let mut edges = Table::new();
    if let Some(Value::Array(list)) = table.remove("edges") {
        for edge in list {
            let end = |name| edge.as_table().and_then(|t| t.get(name)).and_then(Value::as_str);
            let ends = format!("{} → {}", end("from").unwrap_or("?"), end("to").unwrap_or("?"));
            edges.insert(ends, edge);
        }
    }
    table.insert("edges".to_owned(), Value::Table(edges));
    table
}

struct Compare<'a> {
    changes: &'a mut Vec<Change>,
}

impl Compare<'_> {
    fn handover(&mut self, handover: &Handover) {
        let change = |stage: &str, field: &str, [before, after]: [&str; 2]| Change {
            field: member(&member("stages", stage), field),
            kind: ChangeKind::Changed,
            before: Some(before.to_owned()),
            after: Some(after.to_owned()),
        };
        for (old, new) in handover.renamed() {
            self.changes.push(change(new, "name", [old, new]));
        }
        for stage in handover.discarded() {
            self.changes.push(change(stage, "state", ["kept", "discarded"]));
        }
    }

    fn tables(&mut self, path: &str, before: &Table, after: &Table) {
        for (name, old) in before {
            let path = joined(path, name);
            match after.get(name) {
                Some(new) => self.values(&path, old, new),
                None => self.push(path, Some(old), None),
            }
        }
        for (name, new) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
            // Of a new group each member is a change of its own; a new stage is one change.
            match new.as_table() {
                Some(members) if path.is_empty() => self.tables(name, &Table::new(), members),
                _ => self.push(joined(path, name), None, Some(new)),
            }
        }
    }

    fn values(&mut self, path: &str, old: &Value, new: &Value) {
        match (old, new) {
            (Value::Table(old), Value::Table(new)) => self.tables(path, old, new),
            _ if old == new => {}
            _ => self.push(path.to_owned(), Some(old), Some(new)),
        }
    }

    fn push(&mut self, field: String, before: Option<&Value>, after: Option<&Value>) {
        let kind = match (before, after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        let (before, after) = (before.map(text), after.map(text));
        self.changes.push(Change { field, kind, before, after });
    }
}

/// The ends of an edge contain spaces and stay as they are.
fn joined(path: &str, name: &str) -> String {
    if path == "edges" { format!("{path}.{name}") } else { member(path, name) }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_json(), str::to_owned)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field.as_str();
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {field} = {}", cut(after)),
            (Some(before), None) => write!(f, "- {field} = {}", cut(before)),
            (Some(before), Some(after)) => {
                write!(f, "~ {field}: {} → {}", cut(before), cut(after))
            }
            (None, None) => write!(f, "  {field}"),
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "no changes")?;
        }
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for problem in self.refused.list() {
            writeln!(f, "! {problem}")?;
        }
        Ok(())
    }
}

/// Characters of a value shown in a line for people; digests fit.
const SHOWN_CHARS_MAX: usize = 100;

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(shown_char).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Config values are the author's text: no line break or escape code of theirs reaches a terminal.
fn shown_char(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_debug());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests;
