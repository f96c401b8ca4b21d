//! The few commands people type in this repository:
//! `cargo xtask demo | guests | clips | flink | test | docs | lint | bench`.
//!
//! Each one installs or builds what a fresh machine lacks, says what it does in one line a step,
//! and then runs plain cargo commands. It only wires: what is tested and how is in the tests, what
//! is linted is in the lint tables, what the demo shows is in `sluicebox demo`.

#![expect(clippy::print_stderr, reason = "progress is told on standard error")]
#![expect(clippy::print_stdout, reason = "lists that were asked for go to standard output")]

mod bench;
mod clips;
mod demo;
mod docs;
mod flink;
mod guests;
mod lint;
mod process;
mod stamp;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [ARGUMENT...]            build the command and the example guests, then run `sluicebox demo`
  guests [LANGUAGE...] [--check]
                                build the guests of tests and examples into target/guests;
                                languages: rust, c, go, python, wat, recipes
                                (default: all);
                                --check holds every result against wit/
  clips                         make the clips of the example `motion`, into target/clips
  flink                         fetch Apache Flink and compile the job of the example `flink`, into
                                target/flink
  test [ARGUMENT...]            build the guests, make the clips, then run every test; arguments go to
                                the runner
  docs                          write the documents that are made of the source: schema, description,
                                help texts, references
  lint                          formatting, clippy and docs, warnings as errors
  bench [NAME [ARGUMENT...]]    list the benches, or run one (or `all`)";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        bail!("which command?\n\n{USAGE}");
    };
    if matches!(command.as_str(), "help" | "--help" | "-h") {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    match command.as_str() {
        "demo" => return demo::run(&workspace, rest),
        "guests" => guests::run(&workspace, rest)?,
        "clips" => clips::run(&workspace, rest)?,
        "flink" => flink::run(&workspace, rest)?,
        "test" => test::run(&workspace, rest)?,
        "docs" => docs::run(&workspace, rest)?,
        "lint" => lint::run(&workspace, rest)?,
        "bench" => bench::run(&workspace, rest)?,
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
