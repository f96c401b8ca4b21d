//! Stages in their folders, as far as that takes no toolchain: what `new` writes and refuses, and
//! what `build`, `test` and `up` say where something is missing.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::support::command::{Run, run, sluicebox};

/// Runs a command in a folder, with a home of its own and no program to be found.
fn at(folder: &TempDir, arguments: &[&str]) -> Run {
    let mut command = sluicebox(folder.path(), arguments);
    command.env("HOME", folder.path().join("home")).env("PATH", "");
    run(command, b"")
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn error(run: &Run) -> Value {
    let last = run.err.lines().last().unwrap();
    serde_json::from_str::<Value>(last).unwrap()["error"].clone()
}

#[test]
fn a_new_stage_is_written_whole_with_its_sdk_and_named_files() {
    let folder = folder();
    let made = at(&folder, &["new", "--lang", "rust", "my-stage", "--output", "json"]);
    assert_eq!(made.code, 0, "{made:?}");
    let said: Value = serde_json::from_str(&made.out).unwrap();
    assert_eq!((&said["name"], &said["language"]), (&"my-stage".into(), &"rust".into()));
    let place = folder.path().join("my-stage");
    for file in said["files"].as_array().unwrap() {
        assert!(place.join(file.as_str().unwrap()).is_file(), "{file}");
    }
    let read = |file: &str| fs::read_to_string(place.join(file)).unwrap();
    assert!(read("Cargo.toml").contains("sluicebox-guest = { path = \".sluicebox/sdk/rust\" }"));
    assert!(read(".gitignore").contains("/.sluicebox"));
    assert!(read("pipeline.toml").contains("[stages.my-stage]"));
    assert!(place.join(".sluicebox/sdk/rust/src/lib.rs").is_file());
    assert!(made.err.contains("Rust needs cargo: install Rust with rustup"), "{}", made.err);
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let folder = folder();
    fs::create_dir(folder.path().join("mine")).unwrap();
    fs::write(folder.path().join("mine/app.py"), "kept").unwrap();
    let refused = at(&folder, &["new", "--lang", "python", "mine", "--output", "json"]);
    assert_eq!(refused.code, 73, "{refused:?}");
    assert_eq!(error(&refused)["code"], "toolchain.exists");
    assert_eq!(fs::read_to_string(folder.path().join("mine/app.py")).unwrap(), "kept");
    assert_eq!(fs::read_dir(folder.path().join("mine")).unwrap().count(), 1);
}

#[test]
fn a_language_or_name_that_is_none_is_refused() {
    let folder = folder();
    let refused = at(&folder, &["new", "--lang", "cobol", "x"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("rust") && refused.err.contains("python"), "{}", refused.err);
    assert_eq!(at(&folder, &["new", "--lang", "c", "../x"]).code, 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_missing_toolchain_is_named_with_the_command_that_installs_it() {
    let folder = folder();
    for (language, fix) in
        [("rust", "rustup"), ("c", "apt-get install python3"), ("python", "--install")]
    {
        assert_eq!(at(&folder, &["new", "--lang", language, language]).code, 0);
        let failed = at(&folder, &["build", language, "--output", "json"]);
        assert_eq!(failed.code, 74, "{failed:?}");
        let error = error(&failed);
        assert_eq!(error["code"], "toolchain.missing");
        assert!(error["fix"].as_str().unwrap().contains(fix), "{error}");
    }
}

#[test]
fn what_is_no_stage_or_a_wrong_one_is_said_to_be_so() {
    let folder = folder();
    let none = at(&folder, &["build"]);
    assert_eq!(none.code, 66);
    assert!(none.err.contains("`sluicebox new` makes one"), "{}", none.err);
    let write = |text: &str| fs::write(folder.path().join("stage.toml"), text).unwrap();
    write("[stage]\nname = \"x\"\nlang = \"rust\"\n");
    let wrong = at(&folder, &["build"]);
    assert_eq!(wrong.code, 64, "{wrong:?}");
    assert!(wrong.err.contains("line 3: unknown field `lang`"), "{}", wrong.err);
    assert!(wrong.err.contains("fix: write [stage] with name, language and world"));
}

#[test]
fn where_there_is_nothing_to_try_or_to_run_is_said() {
    let folder = folder();
    let nothing = at(&folder, &["test"]);
    assert_eq!(nothing.code, 66, "{nothing:?}");
    assert!(nothing.err.contains("events.ndjson"), "{}", nothing.err);
    let once = at(&folder, &["up", "--url", "http://127.0.0.1:1", "--once", "--output", "json"]);
    assert_eq!(once.code, 69, "{once:?}");
    assert_eq!(error(&once)["code"], "client.connect");
    assert!(!Path::new(&folder.path().join(".sluicebox")).exists(), "no node was started");
}
