//! Stages in C: bindings from the WIT, the compiler of the package `ziglang`, then a component.
//!
//! All `.c` files of the folder and of its `src` are one stage. The result imports nothing of WASI
//! unless the stage uses files, clocks or the like.

use std::path::Path;

use crate::process::{self, Progress};
use crate::python_tools::Packages;
use crate::sources::{files_with, has_extension, has_file_with};
use crate::{Error, Language, Missing, Project, Result, Tools};

const PACKAGES: Packages = Packages {
    name: "c",
    what: "ziglang 0.17.0, for its C compiler",
    download: "from the Python package index; 413 MB on disk",
    pins: include_str!("../pins/c.txt"),
};

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

pub(crate) struct C;

impl Language for C {
    fn name(&self) -> &'static str {
        "c"
    }

    fn title(&self) -> &'static str {
        "C"
    }

    fn detects(&self, folder: &Path) -> bool {
        has_file_with(folder, "c")
    }

    fn is_source(&self, file: &Path) -> bool {
        has_extension(file, "c") || has_extension(file, "h")
    }

    fn missing(&self, tools: &Tools) -> Vec<Missing> {
        PACKAGES.missing(tools)
    }

    fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        PACKAGES.fetch(tools, progress)
    }

    fn build(&self, project: &Project, tools: &Tools, progress: &mut Progress<'_>) -> Result<()> {
        let work = project.work()?;
        let bindings = work.join("bindings");
        bind(project, &bindings)?;
        progress.say("compiling with zig cc");
        let sdk = project.sdk.language("c");
        let mut sources = files_with(&project.folder, "c")?;
        if sources.is_empty() {
            return Err(Error::Sources {
                what: format!("there is no .c file in {}", project.folder.display()),
                fix: "put the sources there, or into src".to_owned(),
            });
        }
        sources.extend(files_with(&sdk, "c")?);
        sources.extend(files_with(&bindings, "c")?);
        sources.extend(files_with(&bindings, "o")?);
        let core = work.join("core.wasm");
        let mut compiler = PACKAGES.command(tools);
        let cache = tools.cache("zig");
        compiler.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
        compiler.args(["-m", "ziglang", "cc"]).args(FLAGS);
        compiler.arg("-I").arg(&bindings).arg("-I").arg(&sdk);
        process::run(compiler.args(&sources).arg("-o").arg(&core))?;
        wrap(project, &core)
    }
}

#[cfg(feature = "encode")]
fn bind(project: &Project, bindings: &Path) -> Result<()> {
    crate::encode::c_bindings(&project.sdk.wit(), &project.world, bindings)
}

#[cfg(feature = "encode")]
fn wrap(project: &Project, core: &Path) -> Result<()> {
    crate::encode::component(core, &project.finished(), None)
}

#[cfg(not(feature = "encode"))]
fn bind(_project: &Project, _bindings: &Path) -> Result<()> {
    Err(without_encoder())
}

#[cfg(not(feature = "encode"))]
fn wrap(_project: &Project, _core: &Path) -> Result<()> {
    Err(without_encoder())
}

/// For who leaves it out; the program itself never does.
#[cfg(not(feature = "encode"))]
fn without_encoder() -> Error {
    Error::Tool {
        what: "this program was built without the component encoder".to_owned(),
        fix: "build it with the feature `encode`".to_owned(),
    }
}
