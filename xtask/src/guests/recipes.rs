//! The stages of `guest-sdk/recipes`: in each folder a `build.sh` makes a core module, which is
//! then wrapped. They become `recipe-<folder>.wasm`.
//!
//! `zig` is that of the tools for C, `npm` the machine's. Without `npm` what needs it is left
//! out, and said; where the variable `CI` is set that is an error.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::stamp::Stamp;
use crate::workspace::Workspace;

use super::{files_in, folders_in, publish, say, tools};

const HOME: &str = "guest-sdk/recipes";
const WORLD: &str = "stage";

pub(super) fn build(workspace: &Workspace) -> Result<()> {
    for folder in folders_in(&workspace.root().join(HOME))? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        one(workspace, &folder, &format!("recipe-{name}"))
            .with_context(|| format!("recipe {name}"))?;
    }
    Ok(())
}

fn one(workspace: &Workspace, folder: &Path, name: &str) -> Result<()> {
    let root = workspace.root();
    let mut inputs = vec![folder.to_path_buf(), root.join("wit"), root.join("guest-sdk/c")];
    inputs.extend(tools::recipes(workspace));
    let stamp = Stamp::new(&workspace.guests().join("stamps"), name, "recipe", &inputs)?;
    let result = workspace.guests().join(format!("{name}.wasm"));
    if stamp.is_current(&result) {
        say(&format!("guests: {name}: up to date"));
        return Ok(());
    }
    if folder.join("package.json").exists()
        && !process::succeeds(Command::new("npm").arg("--version"))
    {
        ensure!(env::var_os("CI").is_none(), "npm is not installed; run: apt-get install npm");
        say(&format!("guests: {name}: left out, for npm is not installed"));
        return Ok(());
    }
    say(&format!("guests: {name}: building by its recipe"));
    let work = workspace.guests().join("work").join(name);
    fs::create_dir_all(&work)?;
    let (core, finished) = (work.join("core.wasm"), work.join("component.wasm"));
    let cache = workspace.guests().join("tools/cache/zig");
    let mut command = Command::new("sh");
    command.arg(folder.join("build.sh")).arg(&core);
    command.env("PATH", path(workspace)?).env("WORK", &work);
    command.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
    process::run(&mut command)?;
    tools::wrap(workspace, &core, &finished, WORLD)?;
    publish(&finished, &result)?;
    stamp.save()
}

/// The PATH with the tools for C in front, if they are there.
fn path(workspace: &Workspace) -> Result<OsString> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for place in files_in(&workspace.guests().join("tools"))? {
        folders.push(place.join("packages/ziglang"));
        for version in files_in(&place.join("venv/lib"))? {
            folders.push(version.join("site-packages/ziglang"));
        }
    }
    folders.retain(|folder| folder.join("zig").is_file());
    ensure!(!folders.is_empty(), "there is no zig; build the guests in C first");
    let usual = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&usual));
    Ok(env::join_paths(folders)?)
}
