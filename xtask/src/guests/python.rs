//! Python guests: `componentize-py` puts the interpreter and the stage into one component.
//!
//! The stage is `app.py` and whatever modules lie beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

use super::python_tools::PythonTools;
use super::{Guest, files_in, has_extension, publish};

pub(super) fn build(workspace: &Workspace, guest: &Guest) -> Result<()> {
    let result = guest.result(workspace);
    let world = guest.world()?;
    let stamp = guest.stamp(workspace, &format!("python {world}"))?;
    if stamp.is_current(&result) {
        guest.say("up to date");
        return Ok(());
    }
    let python = PythonTools::ensure(workspace)?;
    guest.say("building with componentize-py");
    let work = guest.work(workspace)?;
    let sources = copy_sources(&guest.folder, &work)?;
    let finished = work.join("component.wasm");
    let mut command = python.command();
    // The package has no `__main__`; this is what its start script does.
    command.args(["-c", "import componentize_py, sys; sys.exit(componentize_py.script())"]);
    command.arg("--quiet").arg("-d").arg(workspace.root().join("wit")).args(["-w", &world]);
    command.arg("componentize").arg("-p").arg(sources).arg("app").arg("-o").arg(&finished);
    process::run(&mut command)?;
    publish(&finished, &result)?;
    stamp.save()
}

/// The interpreter inside leaves compiled files beside the sources, so it is given a copy.
fn copy_sources(folder: &Path, work: &Path) -> Result<PathBuf> {
    let copy = work.join("app");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    for source in files_in(folder)? {
        if let Some(name) = source.file_name().filter(|_| has_extension(&source, "py")) {
            fs::copy(&source, copy.join(name))
                .with_context(|| format!("{} cannot be copied", source.display()))?;
        }
    }
    Ok(copy)
}
