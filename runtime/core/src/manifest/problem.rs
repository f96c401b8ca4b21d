//! What is wrong with a manifest: every mistake, each with its field, and what to write instead.
//!
//! A field is reported once: what follows from a mistake that is already listed is not listed
//! again. The list is bounded; what does not fit is counted. Text from the manifest is quoted,
//! escaped and cut before it goes into a message, so a message is always one short line.

use std::collections::BTreeSet;
use std::fmt;

use super::bounds::PROBLEMS_MAX;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, for example `stages.count.limits.memory` or `edges[2].from`; empty for
    /// the manifest as a whole.
    pub field: String,
    /// Stable dotted code, for example `manifest.unit`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    /// A problem of a field.
    #[must_use]
    pub fn new(
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), code, message: message.into(), fix: fix.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {} [{}]", self.message, self.fix, self.code)
    }
}

/// All mistakes found, in the order found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
    fields: BTreeSet<String>,
}

impl Problems {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless its field is listed already.
    pub fn add(&mut self, problem: Problem) {
        if self.fields.contains(&problem.field) {
            return;
        }
        if self.list.len() < PROBLEMS_MAX {
            self.fields.insert(problem.field.clone());
            self.list.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    /// True if the field itself is listed.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// True if the field or anything inside it is listed: what it says cannot be relied on.
    #[must_use]
    pub fn touches(&self, field: &str) -> bool {
        let inside = |found: &str| {
            found
                .strip_prefix(field)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.fields
            .range(field.to_owned()..)
            .take_while(|f| f.starts_with(field))
            .any(|f| inside(f))
    }

    /// True if nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// True if another one would only be counted.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.list.len() >= PROBLEMS_MAX
    }

    /// Counts one without saying what it is; for callers that spare the work when it is full.
    pub(crate) const fn omit(&mut self) {
        self.omitted += 1;
    }

    /// The mistakes, at most `PROBLEMS_MAX`.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many more there are than the list holds.
    #[must_use]
    pub const fn omitted(&self) -> usize {
        self.omitted
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        let mut problems = Self::new();
        problems.add(problem);
        problems
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.list {
            writeln!(f, "{problem}")?;
        }
        if self.omitted > 0 {
            writeln!(f, "and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Characters of the manifest's own text that a message shows.
const SHOWN_CHARS_MAX: usize = 64;

/// Text from the manifest, fit for a message: quoted, escaped, cut.
#[must_use]
pub fn show(text: &str) -> String {
    let mut shown = String::from("\"");
    shown.extend(text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug));
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(field: &str) -> Problem {
        Problem::new(field, "manifest.test", "wrong", "right it")
    }

    #[test]
    fn a_field_is_listed_once() {
        let mut problems = Problems::new();
        problems.add(problem("a.b"));
        problems.add(problem("a.b"));
        assert_eq!(problems.list().len(), 1);
        assert_eq!(problems.omitted(), 0);
    }

    #[test]
    fn the_list_is_bounded_and_the_rest_is_counted() {
        let mut problems = Problems::new();
        for i in 0..PROBLEMS_MAX + 7 {
            problems.add(problem(&format!("edges[{i}]")));
        }
        assert_eq!(problems.list().len(), PROBLEMS_MAX);
        assert_eq!(problems.omitted(), 7);
        assert!(problems.to_string().ends_with("and 7 more\n"));
    }

    #[test]
    fn a_field_is_touched_by_what_is_inside_it_only() {
        let mut problems = Problems::new();
        problems.add(problem("stages.count-all.ports[0]"));
        problems.add(problem("stages.count.config"));
        assert!(problems.touches("stages.count-all.ports"));
        assert!(problems.touches("stages.count"));
        assert!(!problems.touches("stages.count.ports"));
        assert!(!problems.touches("stages.count-al"));
        assert!(!problems.touches("stages.cou"));
    }

    #[test]
    fn shown_text_is_one_short_line() {
        assert_eq!(show("a\nb\u{1b}"), r#""a\nb\u{1b}""#);
        assert!(show(&"x".repeat(100_000)).len() < 80);
    }
}
