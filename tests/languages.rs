//! The SDKs for C and Go by their own tests, and the stages of the recipes in the engine.
//!
//! - The SDK for C and the template's tests are compiled natively by the machine's C compiler;
//!   those of Go run with the Go that `cargo xtask guests` has fetched.
//! - A recipe that was left out, for want of npm, is not looked at; in automation that is an
//!   error.

#![expect(clippy::print_stderr, reason = "a test that does not look says so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluicebox_engine::component::World;
use sluicebox_tests::events::{self, Given, Out, frame};
use sluicebox_tests::guests;
use sluicebox_tests::rig::{Rig, Spec};
use sluicebox_tests::root;

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
}

/// Compiles these sources natively with the SDK for C, and runs the result.
fn run_natively(sources: &[PathBuf]) {
    let sdk = root().join("guest-sdk/c");
    let folder = tempfile::tempdir().expect("a place for a program");
    let program = folder.path().join("test");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu17", "-g", "-Wall", "-Wextra", "-Werror"]);
    compiler.arg("-I").arg(&sdk).arg("-o").arg(&program).args(sources);
    let parts = ["sluicebox.c", "sluicebox_wasm.c", "sluicebox_test.c"];
    run(compiler.args(parts.map(|part| sdk.join(part))));
    run(&mut Command::new(program));
}

/// The Go that was fetched for the guests.
fn go(folder: &Path) -> Command {
    let tools = guests::folder().join("tools");
    let mut places: Vec<PathBuf> = Vec::new();
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries(tools.clone()) {
        places.push(entry.path().join("packages/go"));
        let versions = entries(entry.path().join("venv/lib"));
        places.extend(versions.map(|version| version.path().join("site-packages/go")));
    }
    let place = places.into_iter().find(|place| place.join("bin/go").is_file());
    let place = place.expect("there is a Go; build the guests with `cargo xtask guests`");
    let mut command = Command::new(place.join("bin/go"));
    let cache = tools.join("cache/go");
    command.env("GOROOT", &place).env("GOCACHE", cache.join("build"));
    command.env("GOPATH", cache.join("path")).env("GOTOOLCHAIN", "local");
    command.env("GOWORK", "off").env("GOPROXY", "off").env_remove("GOFLAGS");
    command.current_dir(folder);
    command
}

#[test]
fn the_sdk_for_c_does_natively_what_it_says() {
    run_natively(&[root().join("guest-sdk/c/tests/selftest.c")]);
}

#[test]
fn what_a_new_stage_in_c_begins_with_passes_its_tests() {
    let template = root().join("guest-sdk/templates/c");
    run_natively(&[template.join("stage.c"), template.join("tests/stage_test.c")]);
}

#[test]
fn the_sdk_for_go_passes_its_tests() {
    let folder = root().join("guest-sdk/go");
    run(go(&folder).args(["vet", "./..."]));
    run(go(&folder).args(["test", "./..."]));
}

#[test]
fn what_a_new_stage_in_go_begins_with_passes_its_tests() {
    let template = root().join("guest-sdk/templates/go");
    let folder = tempfile::tempdir().unwrap();
    for file in ["main.go", "main_test.go"] {
        fs::copy(template.join(file), folder.path().join(file)).unwrap();
    }
    let sdk = root().join("guest-sdk/go").display().to_string();
    let module = fs::read_to_string(template.join("go.mod.in")).unwrap();
    let module = module.replace("{{name}}", "new").replace("./.sluicebox/sdk/go", &sdk);
    fs::write(folder.path().join("go.mod"), module).unwrap();
    run(go(folder.path()).args(["test", "./..."]));
}

/// Each recipe's stage emits a text in capitals, and how many its key had.
async fn counts_in_capitals(recipe: &str) {
    let name = format!("recipe-{recipe}");
    if !guests::path(&name).is_file() && std::env::var_os("CI").is_none() {
        eprintln!("{name} was not built; run `cargo xtask guests recipes`");
        return;
    }
    let rig = Rig::new(env!("CARGO_BIN_EXE_sluicebox-tests-compile"));
    let guest = rig.guest(&name).await;
    assert_eq!(guest.inspection.world, World::Framed);
    let mut chain = rig.stage(&guest, &Spec::default());
    let given = |key: &str, payload: &str| Given::new(key, payload.as_bytes());
    // The second call finds the state of the first, and takes memory anew.
    let first = [given("a", "one"), given("b", ""), given("a", "two words")];
    let batch = chain.batch(frame(&first), 1_800_000_000_000_000).await;
    let outputs = batch.commit.as_ref().map(events::outputs).unwrap_or_default();
    let expected = [Out::of(0, "ONE 1"), Out::of(1, " 1"), Out::of(2, "TWO WORDS 2")];
    assert_eq!(outputs, expected);
    let large = "x".repeat(100_000);
    for count in 3..20 {
        let batch = chain.batch(frame(&[given("a", &large)]), 1_800_000_000_000_000).await;
        let outputs = batch.commit.as_ref().map(events::outputs).unwrap_or_default();
        assert_eq!(outputs, [Out::of(0, format!("{} {count}", large.to_uppercase()))]);
    }
}

#[tokio::test]
async fn a_stage_in_cpp_runs() {
    counts_in_capitals("cpp").await;
}

#[tokio::test]
async fn a_stage_in_zig_runs() {
    counts_in_capitals("zig").await;
}

#[tokio::test]
async fn a_stage_in_assemblyscript_runs() {
    counts_in_capitals("assemblyscript").await;
}
