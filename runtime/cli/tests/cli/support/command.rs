//! Running the built command, away from anybody's environment and terminal.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// The command, in an empty directory of its own, with nothing in its environment but what makes
/// its help text the same everywhere.
pub(crate) fn sluicebox(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
    command.args(arguments).current_dir(directory).env_clear().env("COLUMNS", "100");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with `input` on its standard input.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Run {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that does not read its input may have closed it.
        drop(stdin.write_all(&input));
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Run {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Runs `sluicebox` with arguments, no input, in a directory that is removed afterwards.
pub(crate) fn alone(arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    run(sluicebox(directory.path(), arguments), b"")
}
