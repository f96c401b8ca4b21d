//! Stages in Python: `componentize-py` puts the interpreter, the stage and the SDK into one
//! component.
//!
//! The stage is `stage.py`, written with the SDK, and whatever modules and packages lie beside it.
//! Or it is `app.py`, written over the bindings of a world alone; then the SDK is only there for
//! whoever imports it. The interpreter inside runs the top level when it is built, so what is
//! computed there is fixed in the component.

use std::path::Path;

use crate::process::{self, Progress};
use crate::python_tools::Packages;
use crate::sources::{copy_tree, empty, has_extension};
use crate::{Language, Missing, Project, Result, Tools};

/// The main module of a stage with the SDK.
const MAIN: &str = "stage.py";

/// The module of the SDK that makes a component of it.
const ENTRY: &str = "sluicebox_component";

/// The main module of a stage over bindings alone.
const BARE: &str = "app";

const PACKAGES: Packages = Packages {
    name: "python",
    what: "componentize-py 0.25.1",
    download: "from the Python package index; 47 MB on disk",
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

    fn world(&self, folder: &Path) -> &'static str {
        if folder.join(MAIN).is_file() { "stage" } else { "stage-typed" }
    }

    fn detects(&self, folder: &Path) -> bool {
        folder.join(MAIN).is_file() || folder.join(BARE).with_extension("py").is_file()
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
        // The interpreter inside leaves compiled files beside the sources, so it is given copies.
        let copy = project.work()?.join("app");
        empty(&copy)?;
        copy_tree(&project.folder, &copy, &|file| self.is_source(file))?;
        let sdk = project.work()?.join("sdk");
        empty(&sdk)?;
        let is_tested = |file: &Path| file.iter().any(|part| part == "tests");
        copy_tree(&project.sdk.language(self.sdk()), &sdk, &|file| {
            self.is_source(file) && !is_tested(file)
        })?;
        progress.say("building with componentize-py");
        let main = if project.folder.join(MAIN).is_file() { ENTRY } else { BARE };
        let mut command = PACKAGES.command(tools);
        // Where in the tool it went wrong is no business of the author's.
        command.env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0");
        command.args(["-c", START, "--quiet", "-d"]).arg(project.sdk.wit());
        command.args(["-w", &project.world, "componentize"]);
        command.arg("-p").arg(&copy).arg("-p").arg(&sdk);
        process::run(command.arg(main).arg("-o").arg(project.finished()))
    }
}
