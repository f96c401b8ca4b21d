//! Stages in C: the compiler of the package `ziglang` over the SDK's two sources, then a
//! component.
//!
//! All `.c` files of the folder and of its `src` are one stage; its tests are somewhere else.
//! Functions that nothing calls are left out, and with them the imports they are for: the
//! result imports nothing of WASI unless the stage uses files, clocks or the like.

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

const FLAGS: [&str; 11] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-std=gnu17",
    "-O2",
    "-Wall",
    "-Wextra",
    "-fno-sanitize=undefined",
    "-ffunction-sections",
    "-Wl,--gc-sections",
    // Unasked it is 16 MiB, and every instance has its own.
    "-Wl,-z,stack-size=1048576",
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

    fn world(&self, _folder: &Path) -> &'static str {
        "stage"
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
        let core = work.join("core.wasm");
        let mut compiler = PACKAGES.command(tools);
        let cache = tools.cache("zig");
        compiler.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
        compiler.args(["-m", "ziglang", "cc"]).args(FLAGS);
        process::run(compiler.arg("-I").arg(&sdk).args(&sources).arg("-o").arg(&core))?;
        crate::wrap(project, &core)
    }
}
