//! Where things are: the root of the repository, the guests' folder, and cargo's packages.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The repository this program was started in.
pub(crate) struct Workspace {
    root: PathBuf,
    cargo: OsString,
    packages: Vec<Package>,
}

/// One member of the workspace.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the root of the repository.
    pub(crate) folder: PathBuf,
    pub(crate) benches: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace that holds this program.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("this is not a command of its own; run it as `cargo xtask`")?;
        let root = Path::new(&manifest)
            .parent()
            .context("xtask must be a folder of the repository")?
            .to_path_buf();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut workspace = Self { root, cargo, packages: Vec::new() };
        let mut metadata = workspace.cargo(&["metadata", "--no-deps", "--format-version", "1"]);
        let metadata = process::output_of(&mut metadata)?;
        workspace.packages = packages(&metadata, &workspace.root)
            .context("`cargo metadata` has a form this program does not know")?;
        Ok(workspace)
    }

    /// The root of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds the finished guests, and everything needed to build them.
    pub(crate) fn guests(&self) -> PathBuf {
        self.root.join("target").join("guests")
    }

    /// All members.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// A cargo command, run in the root. In automation the lock file must not change.
    pub(crate) fn cargo(&self, words: &[&str]) -> Command {
        let mut command = self.cargo_unlocked(words);
        if in_automation() {
            command.arg("--locked");
        }
        command
    }

    /// A cargo command that resolves nothing and so knows no lock file.
    pub(crate) fn cargo_unlocked(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).args(words);
        // What cargo says of this program is an input of some build scripts: with it, a build from
        // here and one by hand would each undo the other, and the largest packages depend on it.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_a_package(name)) {
            command.env_remove(name);
        }
        command
    }
}

/// Whether it is what cargo tells a program it runs of the program's own package.
fn is_of_a_package(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Whether nobody is looking, as the usual variable `CI` says.
pub(crate) fn in_automation() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

fn packages(metadata: &str, root: &Path) -> Option<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let mut packages = Vec::new();
    for package in metadata["packages"].as_array()? {
        let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
        let mut benches = Vec::new();
        for target in package["targets"].as_array()? {
            if target["kind"].as_array()?.iter().any(|kind| kind == "bench") {
                benches.push(target["name"].as_str()?.to_owned());
            }
        }
        packages.push(Package {
            name: package["name"].as_str()?.to_owned(),
            folder: folder.strip_prefix(root).unwrap_or(folder).to_path_buf(),
            benches,
        });
    }
    Some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_a_package_is_kept_from_builds() {
        for of_it in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(is_of_a_package(OsStr::new(of_it)), "{of_it}");
        }
        for other in ["CARGO_TERM_COLOR", "CARGO_INCREMENTAL", "CARGO", "PATH"] {
            assert!(!is_of_a_package(OsStr::new(other)), "{other}");
        }
    }

    #[test]
    fn a_package_is_known_by_name_folder_and_benches() {
        let metadata = r#"{"packages":[{"name":"example-count","manifest_path":"/r/examples/words/count/Cargo.toml",
            "targets":[{"kind":["cdylib"],"name":"count"},{"kind":["bench"],"name":"speed"}]}]}"#;
        let packages = packages(metadata, Path::new("/r")).unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].name, "example-count");
        assert_eq!(packages[0].folder, Path::new("examples/words/count"));
        assert_eq!(packages[0].benches, ["speed"]);
    }

    #[test]
    fn metadata_of_another_form_is_refused() {
        assert!(packages("{}", Path::new("/r")).is_none());
        assert!(packages("no json", Path::new("/r")).is_none());
    }
}
