//! What a command writes: results to standard output, everything else to standard error.
//!
//! - Results are complete and the same whether or not somebody watches; progress, hints and colours
//!   are only for a terminal. `NO_COLOR` is respected.
//! - A reader that goes away (`sluicebox tail … | head`) ends the command quietly.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::args::{Format, Globals};
use crate::failure::Failure;

/// Where and how to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    format: Option<Format>,
    /// Somebody watches standard output.
    watched: bool,
    /// Progress and hints may be shown on standard error.
    chatty: bool,
    quiet: bool,
    colour: bool,
}

impl Screen {
    /// From the flags, the terminal and `NO_COLOR`.
    pub(crate) fn new(globals: &Globals) -> Self {
        let watched = io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            format: globals.output,
            watched,
            chatty: io::stderr().is_terminal() && watched && !globals.quiet,
            quiet: globals.quiet,
            colour: watched && !no_colour,
        }
    }

    /// True if results are wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.format == Some(Format::Json)
    }

    /// True if a stream of records is wanted as JSON: unless asked otherwise, whenever a program
    /// reads it.
    pub(crate) fn json_records(&self) -> bool {
        self.format.map_or(!self.watched, |format| format == Format::Json)
    }

    /// True if somebody watches standard output.
    pub(crate) const fn watched(&self) -> bool {
        self.watched
    }

    /// Writes a result and a line end.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .map_err(|error| Failure::output(&error))
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
    }

    /// Writes a JSON document: on several lines for people, on one for programs.
    pub(crate) fn document(&self, value: &Value) -> Result<(), Failure> {
        let text = if self.watched { format!("{value:#}") } else { value.to_string() };
        self.line(&text)
    }

    /// A result in the form that was asked for.
    pub(crate) fn result(&self, value: &Value, text: &str) -> Result<(), Failure> {
        if self.json() { self.document(value) } else { self.line(text.trim_end()) }
    }

    /// Tells something that is no result, if anybody watches.
    pub(crate) fn hint(&self, text: &str) {
        if self.chatty {
            complain(text);
        }
    }

    /// Tells what is being done, unless nobody wants to know.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// Tells something that matters even if nobody watches.
    pub(crate) fn warn(&self, text: &str) {
        complain(&format!("warning: {text}"));
    }

    /// Text that stands out.
    pub(crate) fn strong(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Text that steps back.
    pub(crate) fn faint(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Text that warns.
    pub(crate) fn alarm(&self, text: &str) -> String {
        if self.colour { format!("\u{1b}[33m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A progress bar over `total` bytes, or one that only counts; hidden if nobody watches.
    pub(crate) fn progress(&self, total: Option<u64>) -> ProgressBar {
        let template = match total {
            Some(_) => "{bar:30} {percent:>3}%  {msg}  {elapsed}, {eta} left",
            None => "{spinner} {msg}  {elapsed}",
        };
        let target = if self.chatty {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        let style = ProgressStyle::with_template(template);
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// Writes to standard error; if even that fails there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    let written = writeln!(io::stderr().lock(), "{text}");
    drop(written);
}
