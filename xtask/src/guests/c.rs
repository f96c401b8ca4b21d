//! C guests: bindings from `wit/`, the compiler of the `ziglang` package, then a component.
//!
//! The result imports nothing of WASI: the C library linked here needs none of it unless a guest
//! uses files, clocks or the like, and then the last step refuses it.

use anyhow::{Result, ensure};

use crate::process;
use crate::workspace::Workspace;

use super::python_tools::PythonTools;
use super::{Guest, files_in, has_extension, publish, tools};

const FLAGS: [&str; 10] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-std=c17",
    "-Oz",
    "-Wall",
    "-Wextra",
    "-Werror",
    // Generated code passes unused parameters.
    "-Wno-unused-parameter",
    "-fno-sanitize=undefined",
    "-s",
];

pub(super) fn build(workspace: &Workspace, guest: &Guest) -> Result<()> {
    let result = guest.result(workspace);
    let world = guest.world()?;
    let stamp = guest.stamp(workspace, &format!("c {FLAGS:?} {world}"))?;
    if stamp.is_current(&result) {
        guest.say("up to date");
        return Ok(());
    }
    let python = PythonTools::ensure(workspace)?;
    let work = guest.work(workspace)?;
    guest.say("generating bindings");
    let bindings = work.join("bindings");
    tools::c_bindings(workspace, &world, &bindings)?;

    guest.say("compiling C");
    let core = work.join("core.wasm");
    let mut compiler = python.command();
    compiler.args(["-m", "ziglang", "cc"]).args(FLAGS).arg("-I").arg(&bindings);
    compiler.env("ZIG_GLOBAL_CACHE_DIR", workspace.guests().join("zig-cache"));
    compiler.env("ZIG_LOCAL_CACHE_DIR", workspace.guests().join("zig-cache"));
    let mut sources = files_in(&guest.folder)?;
    sources.extend(files_in(&bindings)?);
    sources.retain(|path| has_extension(path, "c") || has_extension(path, "o"));
    ensure!(!sources.is_empty(), "there is no C source in {}", guest.folder.display());
    process::run(compiler.args(&sources).arg("-o").arg(&core))?;

    let finished = work.join("component.wasm");
    tools::component(workspace, &core, &finished)?;
    publish(&finished, &result)?;
    stamp.save()
}
