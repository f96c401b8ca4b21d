//! Why a command did not do what it was asked: one line what, one line what to do, and the list of
//! mistakes if there are several.
//!
//! - A failure has exactly one [`Cause`]; the exit code follows from it, in `main.rs` and nowhere
//!   else.
//! - Text from outside (the node's replies, files) is cut and escaped before it is shown, so that
//!   it cannot reach for the terminal.

use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::{Value, json};
use sluicebox_core::error::{Classify, Kind};
use sluicebox_node::config::ConfigError;

/// Characters of foreign text in one line of a message.
const LINE_CHARS_MAX: usize = 600;

/// What sort of failure it is; each has an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Our bug, or an answer that cannot be.
    Internal,
    /// The command line asks for something that makes no sense.
    Usage,
    /// The request can never succeed as written.
    Invalid,
    /// Some of the events were refused; the rest went in.
    Partial,
    /// There is no such thing.
    NotFound,
    /// The node does not answer.
    Unavailable,
    /// A component trapped, timed out or said no.
    Guest,
    /// Somebody else got there first, or it is in use.
    Conflict,
    /// A file or stream of this machine cannot be read or written.
    Local,
    /// A quota or bound is reached; try again later.
    Exhausted,
    /// Not allowed with this token.
    Denied,
    /// The configuration is wrong.
    Config,
}

/// One of several mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where: a field, or `line 3`; empty if nowhere in particular.
    pub(crate) place: String,
    /// What is wrong.
    pub(crate) what: String,
    /// What to write instead.
    pub(crate) fix: Option<String>,
}

/// A command that failed. One pointer, so that results stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure(Box<Parts>);

/// What a failure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Decides the exit code.
    pub(crate) cause: Cause,
    /// The node's stable code, or one of ours; empty if there is none.
    pub(crate) code: String,
    /// One line: what.
    pub(crate) what: String,
    /// One line: what to do.
    pub(crate) fix: Option<String>,
    /// Every mistake, if the thing has several.
    pub(crate) mistakes: Vec<Mistake>,
    /// When the node said another try is worth it.
    pub(crate) retry_after: Option<Duration>,
    /// Members of the node's reply that some commands need, such as `oldest`.
    pub(crate) details: Value,
    /// Whoever read our output has gone: no failure, but the end of the command.
    pub(crate) broken_pipe: bool,
}

impl Failure {
    /// A failure with one line.
    pub(crate) fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            cause,
            code: String::new(),
            what: what.into(),
            fix: None,
            mistakes: Vec::new(),
            retry_after: None,
            details: Value::Null,
            broken_pipe: false,
        }))
    }

    /// Adds what to do about it.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Adds a stable code.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    /// A local file or stream could not be used.
    pub(crate) fn local(doing: impl AsRef<str>, error: &std::io::Error) -> Self {
        Self::new(Cause::Local, format!("cannot {}: {error}", doing.as_ref()))
    }

    /// Standard output could not be written.
    pub(crate) fn output(error: &std::io::Error) -> Self {
        let mut failure = Self::local("write to standard output", error);
        failure.broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        failure
    }

    /// True if another try of the same request may succeed soon, and the first one did nothing.
    pub(crate) fn may_pass(&self) -> bool {
        // Of a full disk quota nothing passes by itself.
        let waits = matches!(self.cause, Cause::Exhausted) && self.code != "quota.disk";
        self.retry_after.is_some() || waits
    }

    /// From an error of the node crate, when it runs inside this process.
    pub(crate) fn node(error: &(impl Classify + std::fmt::Display)) -> Self {
        Self::new(Cause::from(error.kind()), error.to_string()).code(error.code())
    }

    /// From the node's problem+json, or whatever came instead of it.
    pub(crate) fn reply(status: u16, body: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let member = |name: &str| problem.get(name).and_then(Value::as_str);
        let what = match member("detail").or_else(|| member("title")) {
            Some(text) => printable(text),
            None => match plain(body) {
                Some(line) => format!("the node answered {status}: {}", printable(line)),
                None => format!("the node answered {status} without saying why"),
            },
        };
        let mut failure = Self::new(Cause::from_status(status), what);
        failure.code = printable(member("code").unwrap_or_default());
        failure.fix = member("fix").map(printable).or_else(|| failure.cause.remedy(status));
        failure.mistakes = mistakes(&problem);
        failure.details = problem;
        failure
    }

    /// The lines a person reads.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}", self.what);
        if !self.code.is_empty() {
            write_to(&mut text, format_args!(" [{}]", self.code));
        }
        for mistake in &self.mistakes {
            let place = if mistake.place.is_empty() { "" } else { ": " };
            write_to(&mut text, format_args!("\n  - {}{place}{}", mistake.place, mistake.what));
            if let Some(fix) = &mistake.fix {
                write_to(&mut text, format_args!("\n    fix: {fix}"));
            }
        }
        if let Some(fix) = &self.fix {
            write_to(&mut text, format_args!("\nfix: {fix}"));
        }
        text
    }

    /// The same for scripts.
    pub(crate) fn json(&self, exit_code: u8) -> Value {
        let mistakes: Vec<Value> = self
            .mistakes
            .iter()
            .map(|m| json!({ "place": m.place, "message": m.what, "fix": m.fix }))
            .collect();
        json!({ "error": {
            "exit-code": exit_code,
            "code": self.code,
            "message": self.what,
            "fix": self.fix,
            "problems": mistakes,
        } })
    }
}

/// A reply that is a line of text, such as that of a node that is not ready. A page, of whatever
/// lies between, is none.
fn plain(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_line = !text.is_empty() && !text.contains(['<', '{', '\n']);
    is_line.then_some(text)
}

impl Deref for Failure {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let count = error.problems.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        let mut failure = Self::new(Cause::Config, format!("the configuration has {count} {noun}"))
            .code(error.code())
            .fix("`sluicebox config reference` describes every field; nothing was started");
        failure.mistakes = error
            .problems
            .into_iter()
            .map(|problem| {
                let at = |place: String| {
                    if place.is_empty() { problem.origin.to_string() } else { place }
                };
                let what = if problem.field.is_empty() {
                    problem.message
                } else {
                    format!("{} ({})", problem.message, problem.origin)
                };
                Mistake { place: at(problem.field), what, fix: Some(problem.fix) }
            })
            .collect();
        failure
    }
}

impl Cause {
    /// The node's statuses; the reverse of its own table.
    const fn from_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            422 => Self::Guest,
            429 | 507 => Self::Exhausted,
            408 | 502..=504 => Self::Unavailable,
            400..=499 => Self::Invalid,
            _ => Self::Internal,
        }
    }

    /// What to do when the node did not say.
    fn remedy(self, status: u16) -> Option<String> {
        let text = match (self, status) {
            (Self::Denied, 401) => {
                "give a token of this tenant with --token-file, or in SLUICEBOX_TOKEN"
            }
            (Self::Denied, _) => "ask whoever runs the node for a token with this scope",
            (Self::NotFound, _) => "`sluicebox list` shows what there is for this tenant",
            // What was said names what to do.
            (Self::Exhausted, 507) => return None,
            (Self::Exhausted, _) => "try again a little later, or send more slowly with --rate",
            (Self::Unavailable, _) => "try again; `sluicebox doctor` says if the node is ready",
            (Self::Internal, _) => "the node's log says more",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

impl From<Kind> for Cause {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::Invalid,
            Kind::Denied => Self::Denied,
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::Exhausted => Self::Exhausted,
            Kind::Unavailable => Self::Unavailable,
            Kind::Guest => Self::Guest,
            Kind::Internal => Self::Internal,
        }
    }
}

/// Foreign text on one line: control characters escaped, cut.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars().take(LINE_CHARS_MAX) {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() || is_bidi(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    if text.trim().chars().nth(LINE_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

/// Characters that turn the direction of what follows.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The lists of a problem: `problems` of a manifest, `errors` of an ingest request.
fn mistakes(problem: &Value) -> Vec<Mistake> {
    let list = |name: &str| problem.get(name).and_then(Value::as_array).into_iter().flatten();
    let text = |item: &Value, name: &str| item.get(name).and_then(Value::as_str).map(printable);
    let of_manifest = list("problems").map(|item| Mistake {
        place: text(item, "field").unwrap_or_default(),
        what: text(item, "message").unwrap_or_default(),
        fix: text(item, "fix"),
    });
    let of_lines = list("errors").map(|item| Mistake {
        place: item.get("line").map_or_else(String::new, |line| format!("line {line}")),
        what: text(item, "message").unwrap_or_default(),
        fix: text(item, "fix"),
    });
    of_manifest.chain(of_lines).collect()
}

/// Writing to a text cannot fail.
fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes whatever is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_with_mistakes_is_shown_as_a_list_with_fixes() {
        let body = json!({
            "type": "urn:sluicebox:error:manifest.invalid",
            "code": "manifest.invalid",
            "detail": "the manifest has 2 mistakes",
            "problems": [
                { "field": "delivery", "code": "manifest.missing", "message": "it is missing",
                  "fix": "write delivery = \"best-effort\"" },
                { "field": "", "code": "manifest.toml", "message": "not TOML\nat all", "fix": null },
            ],
        });
        let failure = Failure::reply(400, body.to_string().as_bytes());
        assert_eq!(
            failure.text(),
            "error: the manifest has 2 mistakes [manifest.invalid]\n\
             \x20 - delivery: it is missing\n\
             \x20   fix: write delivery = \"best-effort\"\n\
             \x20 - not TOML at all"
        );
        assert_eq!(failure.cause, Cause::Invalid);
    }

    #[test]
    fn a_reply_that_is_no_problem_still_becomes_a_failure() {
        for (status, cause) in [
            (500, Cause::Internal),
            (503, Cause::Unavailable),
            (408, Cause::Unavailable),
            (401, Cause::Denied),
            (429, Cause::Exhausted),
            (507, Cause::Exhausted),
            (302, Cause::Internal),
        ] {
            let failure = Failure::reply(status, b"<html>\xFF");
            assert_eq!(failure.cause, cause, "{status}");
            assert!(failure.what.contains(&status.to_string()));
        }
    }

    #[test]
    fn a_reply_that_is_a_line_of_text_is_shown() {
        let failure = Failure::reply(503, b"checkpoints have stopped: restart the node\n");
        let text = "the node answered 503: checkpoints have stopped: restart the node";
        assert_eq!((failure.what.as_str(), failure.cause), (text, Cause::Unavailable));
    }

    #[test]
    fn foreign_text_cannot_reach_for_the_terminal() {
        let body = json!({ "detail": format!("\u{1b}]0;x\u{7}\u{202E}{}", "y".repeat(10_000)) });
        let text = Failure::reply(400, body.to_string().as_bytes()).text();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202E}'));
        assert!(text.len() < 3 * LINE_CHARS_MAX);
    }
}
