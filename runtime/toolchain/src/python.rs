//! Stages in Python: `componentize-py` puts the interpreter, the stage and the SDK into one
//! component.
//!
//! The stage is `app.py` and whatever modules and packages lie beside it. The interpreter inside
//! runs its top level when it is built, so what is computed there is fixed in the component.

use std::path::Path;

use crate::process::{self, Progress};
use crate::python_tools::Packages;
use crate::sources::{copy_tree, empty, has_extension};
use crate::{Language, Missing, Project, Result, Tools};

/// The stage's main module.
const MAIN: &str = "app.py";

const PACKAGES: Packages = Packages {
    name: "python",
    what: "componentize-py 0.25.1",
    download: "45 MB from the Python package index",
    pins: include_str!("../pins/python.txt"),
};

/// The package has no `__main__`; this is what its start script does.
const START: &str = "import componentize_py, sys; sys.exit(componentize_py.script())";

pub(crate) struct Python;

impl Language for Python {
    fn name(&self) -> &'static str {
        "python"
    }

    fn title(&self) -> &'static str {
        "Python"
    }

    fn detects(&self, folder: &Path) -> bool {
        folder.join(MAIN).is_file()
    }

    fn is_source(&self, file: &Path) -> bool {
        has_extension(file, "py")
    }

    fn missing(&self, tools: &Tools) -> Vec<Missing> {
        PACKAGES.missing(tools)
    }

    fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        PACKAGES.fetch(tools, progress)
    }

    fn build(&self, project: &Project, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        // The interpreter inside leaves compiled files beside the sources, so it is given a copy.
        let copy = project.work()?.join("app");
        empty(&copy)?;
        copy_tree(&project.folder, &copy, &|file| self.is_source(file))?;
        progress.say("building with componentize-py");
        let mut command = PACKAGES.command(tools);
        command.args(["-c", START, "--quiet", "-d"]).arg(project.sdk.wit());
        command.args(["-w", &project.world, "componentize", "-p"]).arg(&copy);
        let sdk = project.sdk.language("python");
        if sdk.is_dir() {
            let own = project.work()?.join("sdk");
            empty(&own)?;
            copy_tree(&sdk, &own, &|file| self.is_source(file))?;
            command.arg("-p").arg(own);
        }
        process::run(command.arg("app").arg("-o").arg(project.finished()))
    }
}
