//! `cargo xtask test`: the guests, the clips and the job for Flink, then every test, then the
//! examples in the documentation.
//!
//! Tests of nodes on several machines make networks, which takes root and iproute2. As somebody
//! else there is nothing to be fetched for them: they say that they cannot run. Tests of GPUs use
//! the driver that needs none, and a layer that looks at every call. The dashboard is tested in a
//! browser, what comes from registries with a registry, and subjects with a server of NATS; they
//! are installed where that is allowed, elsewhere their tests say what is missing. The fuzzer of
//! the HTTP interface is packages of Python, fetched below `target/guests`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use sluicebox_toolchain::python_tools::Packages;
use sluicebox_toolchain::{Progress, Tools};

use crate::clips;
use crate::flink;
use crate::guests;
use crate::process::{self, say};
use crate::workspace::{Workspace, in_automation};

/// What makes requests out of the description of the HTTP interface; `tests/src/schemathesis.rs`
/// looks for the same.
const FUZZER: Packages = Packages {
    name: "schemathesis",
    what: "schemathesis 4.32",
    download: "some 15 MB, from the Python package index",
    pins: include_str!("../../tests/pins/schemathesis.txt"),
};

/// Runs everything; arguments go to the test runner.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    clips::run(workspace, &[])?;
    // Guests in JavaScript; where it cannot be had, their build says so.
    if !process::succeeds(Command::new("npm").arg("--version")) && process::can_install() {
        process::install(&["nodejs", "npm"])?;
    }
    guests::build_all(workspace)?;
    if let Err(error) = flink::run(workspace, &[]) {
        say(&format!("test: {error:#}; without it, tests of Flink fail"));
    }
    if process::is_root() {
        process::provide(("ip", "-Version"), "iproute2")?;
    } else {
        say("test: not as root, so that tests of nodes in networks of their own check nothing");
    }
    provide_vulkan()?;
    provide_servers()?;
    let tools = Tools::in_folder(workspace.guests().join("tools"));
    let fetched = FUZZER.fetch(&tools, &mut Progress::new(|line| say(&format!("test: {line}"))));
    if let Err(error) = fetched {
        say(&format!("test: {error}; without it, fuzzing the HTTP interface fails"));
    }
    if !process::succeeds(&mut workspace.cargo_unlocked(&["nextest", "--version"])) {
        say("test: cargo test, since cargo-nextest is not installed");
        return process::run(workspace.cargo(&["test", "--workspace"]).args(arguments));
    }
    say("test: cargo nextest");
    let mut nextest = workspace.cargo(&["nextest", "run", "--workspace"]);
    if in_automation() {
        nextest.args(["--profile", "ci"]);
    }
    process::run(nextest.args(arguments))?;
    if arguments.is_empty() {
        say("test: documentation");
        process::run(&mut workspace.cargo(&["test", "--workspace", "--doc"]))?;
    }
    Ok(())
}

/// What tests of the dashboard, of registries and of NATS need: Debian's packages, and the programs
/// of each. Without them these tests fail, and say what to install.
fn provide_servers() -> Result<()> {
    let programs = [
        ("chromium", "chromium"),
        ("chromedriver", "chromium-driver"),
        ("docker-registry", "docker-registry"),
        ("nats-server", "nats-server"),
    ];
    let is_missing =
        |(program, _): &&(&str, &str)| !process::succeeds(Command::new(program).arg("--version"));
    let missing: Vec<&str> =
        programs.iter().filter(is_missing).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if process::can_install() {
        return process::install(&missing);
    }
    say(&format!("test: without {}, tests that use it fail", missing.join(", ")));
    Ok(())
}

/// What tests of GPUs need: Debian's packages, and a file of each.
fn provide_vulkan() -> Result<()> {
    let arch = std::env::consts::ARCH;
    let packages = [
        ("libvulkan1", format!("lib/{arch}-linux-gnu/libvulkan.so.1")),
        ("mesa-vulkan-drivers", format!("share/vulkan/icd.d/lvp_icd.{arch}.json")),
        (
            "vulkan-validationlayers",
            "share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json".to_owned(),
        ),
    ];
    let is_missing = |(_, file): &&(&str, String)| !Path::new("/usr").join(file).exists();
    let missing: Vec<&str> =
        packages.iter().filter(is_missing).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if process::can_install() {
        return process::install(&missing);
    }
    say(&format!("test: without {}, tests of GPUs check nothing", missing.join(", ")));
    Ok(())
}
