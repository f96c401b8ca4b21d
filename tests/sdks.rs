//! The SDKs that are not in Rust pass their own tests, in the interpreter of each: handlers,
//! streams and windows over a host in memory. What they do in a component is the business of
//! `conformance.rs`.

use std::process::Command;

use sluicebox_tests::root;

/// Runs a command below `guest-sdk`; what it says is shown if it fails.
fn passes(folder: &str, program: &str, words: &[&str], says: &str) {
    let mut command = Command::new(program);
    command.args(words).current_dir(root().join("guest-sdk").join(folder));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = command.output().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = [ran.stdout, ran.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(ran.status.success(), "{program} failed:\n{text}");
    // A runner that finds no tests is content too.
    assert!(text.contains(says), "{program} ran no tests:\n{text}");
}

#[test]
fn the_sdk_for_python_passes_its_tests() {
    passes("python", "python3", &["-m", "unittest", "-v"], "test_an_event_is_what_was_sent");
}

#[test]
fn the_sdk_for_javascript_passes_its_tests() {
    let files = ["--test", "tests/stage.test.js", "tests/window.test.js"];
    passes("js", "node", &files, "an event is what was sent");
}
