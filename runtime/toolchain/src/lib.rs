//! From a folder with a stage's sources to a component: languages, their toolchains, and the SDK
//! that travels with the program.
//!
//! - A **project** is a folder with `stage.toml` ([`Project`]). What is made of it on the way lies
//!   in its `.sluicebox`, the result in `build/<name>.wasm`; a result appears whole or not at all.
//! - A **language** is one module and one row of [`LANGUAGES`]. Nothing else names a language: what
//!   it is called, how its sources are recognised, which tools it takes, how they are called, all
//!   of it is behind [`Language`]. To add one: write `src/<name>.rs`, add the row, put what its
//!   authors import below `guest-sdk/<name>` and what `new` begins with below
//!   `guest-sdk/templates/<name>`. The build script takes both in.
//! - **Tools** are found, or named with the command that installs them ([`Missing`]). What this
//!   program can fetch by itself goes below one folder of the user ([`Tools`]), pinned by hash, and
//!   only when somebody said so.
//! - The **SDK** ([`sdk`]) is in the program, so that it always is of the program's version and no
//!   registry is asked for it.
//! - Other programs run by [`Progress`], which says what is done and lets compilers speak for
//!   themselves.
//!
//! It knows no node and runs no component. Recipes of the repository's own guests (`cargo xtask
//! guests`) are these.

mod c;
pub mod cargo;
#[cfg(feature = "encode")]
pub mod encode;
mod error;
mod go;
mod js;
pub mod process;
pub mod project;
mod python;
pub mod python_tools;
pub mod rust;
pub mod sdk;
mod sources;
pub mod template;
pub mod tools;

use std::path::Path;

pub use self::error::Error;
pub use self::process::Progress;
pub use self::project::Project;
pub use self::tools::{Missing, Tools};

/// What a build gives or why there is none.
pub type Result<T> = std::result::Result<T, Error>;

/// A language stages are written in: one recipe from sources to a component.
pub trait Language: Sync {
    /// What `--lang` and `stage.toml` call it.
    fn name(&self) -> &'static str;

    /// What people call it.
    fn title(&self) -> &'static str;

    /// The folder of `guest-sdk` with what its stages import.
    fn sdk(&self) -> &'static str {
        self.name()
    }

    /// The world of `wit/` that the stage in a folder is for unless its `stage.toml` says
    /// otherwise.
    fn world(&self, folder: &Path) -> &'static str {
        let _ = folder;
        "stage-typed"
    }

    /// Whether a folder without a `stage.toml` holds sources of this language.
    fn detects(&self, folder: &Path) -> bool;

    /// Whether a change of this file, given from the project's folder, asks for a new build.
    fn is_source(&self, file: &Path) -> bool;

    /// Whether its own tools see quickly that nothing has changed, and better than a look at the
    /// sources in the folder does. Then they are always asked.
    fn knows_changes(&self) -> bool {
        false
    }

    /// The tools it takes and this machine does not have; nothing if a build can begin. Looks only.
    /// It is asked before a stage is first built, and when a build has failed.
    fn missing(&self, tools: &Tools) -> Vec<Missing>;

    /// Fetches what [`Missing::fetch`] says, into the folder of `tools`.
    ///
    /// # Errors
    /// Something could not be fetched.
    fn fetch(&self, tools: &Tools, progress: &mut Progress<'_>) -> Result<()>;

    /// Builds the component into [`Project::finished`]. Its folder is there; what is made on the
    /// way goes to [`Project::work`]. Tools write their complaints to standard error themselves.
    ///
    /// # Errors
    /// A tool failed or made nothing.
    fn build(&self, project: &Project, tools: &Tools, progress: &mut Progress<'_>) -> Result<()>;
}

/// All languages, in the order they are listed in.
pub const LANGUAGES: &[&dyn Language] =
    &[&rust::Rust, &python::Python, &js::JAVASCRIPT, &js::TYPESCRIPT, &c::C, &go::Go];

/// Wraps the core module that a compiler made into the project's component.
#[cfg(feature = "encode")]
fn wrap(project: &Project, core: &Path) -> Result<()> {
    let wit = project.sdk.wit();
    encode::component(core, &project.finished(), Some((wit.as_path(), &project.world)))
}

/// For who leaves it out; the program itself never does.
#[cfg(not(feature = "encode"))]
fn wrap(_project: &Project, _core: &Path) -> Result<()> {
    Err(Error::Tool {
        what: "this program was built without the component encoder".to_owned(),
        fix: "build it with the feature `encode`".to_owned(),
    })
}

/// The language of a name.
///
/// # Errors
/// There is none of that name; says which there are.
pub fn language(name: &str) -> Result<&'static dyn Language> {
    let found = LANGUAGES.iter().find(|language| language.name() == name);
    found.copied().ok_or_else(|| Error::NoLanguage { name: name.to_owned() })
}

/// The names of all languages, for people.
#[must_use]
pub fn language_names() -> String {
    let names: Vec<&str> = LANGUAGES.iter().map(|language| language.name()).collect();
    names.join(", ")
}
