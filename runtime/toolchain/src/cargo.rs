//! `cargo build`, and which files it made.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::process::not_started;
use crate::{Error, Result};

/// One file that cargo built, or found up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefact {
    /// The folder of the package it belongs to.
    pub package: PathBuf,
    /// The file.
    pub file: PathBuf,
}

/// Runs a prepared `cargo build` and lists the files it stands for. Diagnostics and progress go to
/// standard error.
///
/// # Errors
/// Cargo cannot be started, or fails.
pub fn build(command: &mut Command) -> Result<Vec<Artefact>> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child =
        command.stdin(Stdio::null()).spawn().map_err(|error| not_started(command, &error))?;
    let mut artefacts = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // What cannot be read has ended.
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            artefacts.extend(parse(&line));
        }
    }
    let status = child.wait().map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(artefacts);
    }
    Err(Error::Tool {
        what: format!("cargo build failed ({status})"),
        fix: "correct what the compiler says above".to_owned(),
    })
}

fn parse(line: &str) -> Vec<Artefact> {
    let Ok(message) = serde_json::from_str::<Value>(line) else {
        return Vec::new();
    };
    if message["reason"] != "compiler-artifact" {
        return Vec::new();
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str().unwrap_or_default());
    let package = manifest.parent().map(PathBuf::from).unwrap_or_default();
    let files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
    files.map(|file| Artefact { package: package.clone(), file: file.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_with_their_package() {
        let files = parse(
            r#"{"reason":"compiler-artifact","manifest_path":"/r/a/Cargo.toml","filenames":["/t/a.wasm","/t/a.d"]}"#,
        );
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].package, PathBuf::from("/r/a"));
        assert_eq!(files[0].file, PathBuf::from("/t/a.wasm"));
    }

    #[test]
    fn other_messages_name_no_files() {
        assert!(parse(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(parse("not json").is_empty());
    }
}
