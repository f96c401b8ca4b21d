//! Running other programs, and saying what is being done.
//!
//! What a tool writes goes to standard error unseen, so that a compiler's messages are what it made
//! of them, with colours; standard output stays this program's own.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use crate::Result;
use crate::error::Error;

/// Characters of a command line that an error shows.
const SHOWN_MAX: usize = 200;

/// Where lines about what is being done go.
pub struct Progress<'a> {
    say: Box<dyn FnMut(&str) + 'a>,
}

impl<'a> Progress<'a> {
    /// Hands each line to a function.
    pub fn new(say: impl FnMut(&str) + 'a) -> Self {
        Self { say: Box::new(say) }
    }

    /// Says one line.
    pub fn say(&mut self, line: &str) {
        (self.say)(line);
    }
}

/// Runs a program to its end. What it writes goes to standard error.
///
/// # Errors
/// It is not there, or it failed.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Tool {
        what: format!("`{}` failed ({status})", shown(command)),
        fix: "see what it wrote above".to_owned(),
    })
}

/// Runs a program that is not heard unless it fails: then what it wrote is shown.
///
/// # Errors
/// It is not there, or it failed.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let mut errors = std::io::stderr().lock();
    // If even that cannot be written there is nobody to tell.
    drop(errors.write_all(&output.stdout).and_then(|()| errors.write_all(&output.stderr)));
    Err(Error::Tool {
        what: format!("`{}` failed ({})", shown(command), output.status),
        fix: "see what it wrote above".to_owned(),
    })
}

/// What a program writes to standard output, if it can be started and succeeds; it is not heard
/// otherwise.
#[must_use]
pub fn output_of(command: &mut Command) -> Option<String> {
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Whether a program can be started and succeeds; it is not heard.
#[must_use]
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The error of a program that could not be started.
#[must_use]
pub fn not_started(command: &Command, error: &std::io::Error) -> Error {
    let program = command.get_program().to_string_lossy();
    let what = match error.kind() {
        ErrorKind::NotFound => format!("`{program}` is not installed"),
        _ => format!("`{}` could not be started: {error}", shown(command)),
    };
    Error::Tool { what, fix: "install it and put it on the PATH".to_owned() }
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
        if line.chars().count() > SHOWN_MAX {
            line = line.chars().take(SHOWN_MAX).collect();
            line.push_str(" ...");
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program-here` is not installed");
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_status() {
        let error = run_quietly(&mut Command::new("false")).unwrap_err();
        assert!(error.to_string().starts_with("`false` failed (exit status: 1"), "{error}");
        assert!(run(&mut Command::new("true")).is_ok());
    }
}
