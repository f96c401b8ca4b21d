//! Running other programs, with errors that say what is missing and how to get it.
//!
//! Output of a program goes straight through to the terminal unless it is what was asked for.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// How much of a command line an error shows.
const SHOWN_MAX: usize = 200;

/// Says one line of progress.
pub(crate) fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// Runs a program to its end; fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| not_started(command, error))?;
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status})", shown(command));
}

/// Runs a program and returns what it wrote to standard output; fails unless it succeeds.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| not_started(command, error))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote something that is not UTF-8", shown(command)))
}

/// Whether a program can be started and succeeds; it is not heard.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether this process may do what root may, as far as its number says.
pub(crate) fn is_root() -> bool {
    output_of(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Sees to it that a program of a Debian package is there, which is so if it succeeds with this
/// argument: installs it where that is allowed, as in automation and on a fresh machine.
pub(crate) fn provide((program, argument): (&str, &str), package: &str) -> Result<()> {
    if succeeds(Command::new(program).arg(argument)) {
        return Ok(());
    }
    if !can_install() {
        bail!("`{program}` is not installed; {}", how_to_install(program));
    }
    install(&[package])
}

/// Whether Debian packages may be installed here.
pub(crate) fn can_install() -> bool {
    is_root() && succeeds(Command::new("apt-get").arg("--version"))
}

/// Installs Debian packages.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    say(&format!("installing {}", packages.join(", ")));
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(words).stdout(Stdio::null());
        run(&mut command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-qq", "-y", "--no-install-recommends"], packages].concat())
}

fn not_started(command: &Command, error: std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    if error.kind() == ErrorKind::NotFound {
        return anyhow!("`{program}` is not installed; {}", how_to_install(&program));
    }
    anyhow!(error).context(format!("`{}` could not be started", shown(command)))
}

fn how_to_install(program: &str) -> &'static str {
    match program {
        "cargo" | "rustc" | "rustup" => "install Rust with rustup, see https://rustup.rs",
        "ffmpeg" => "run `apt-get install ffmpeg`, or your system's equivalent",
        "ip" => "run `apt-get install iproute2`, or your system's equivalent",
        "python3" => "run `apt-get install python3 python3-venv`, or your system's equivalent",
        _ => "install it and put it on the PATH",
    }
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        if line.len() > SHOWN_MAX {
            line.push_str(" ...");
            break;
        }
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
