//! The SDK that travels with the program: the WIT and what each language's stages import.
//!
//! The build script puts the files of the repository into the program. Unpacked, `wit` is beside
//! one folder for the language; a file `version` says of which program they are, and another
//! program's are replaced as a whole. Nobody is to change them: they are no sources of the project.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::Result;
use crate::error::at;
use crate::sources::empty;

mod files {
    //! Written by the build script.
    include!(concat!(env!("OUT_DIR"), "/files.rs"));
}

/// Where the parts of an SDK are.
#[derive(Debug, Clone)]
pub struct Sdk {
    wit: PathBuf,
    languages: PathBuf,
}

impl Sdk {
    /// One that was unpacked to a folder.
    #[must_use]
    pub fn below(home: &Path) -> Self {
        Self { wit: home.join("wit"), languages: home.to_path_buf() }
    }

    /// That of a clone of the repository.
    #[must_use]
    pub fn of_repository(root: &Path) -> Self {
        Self { wit: root.join("wit"), languages: root.join("guest-sdk") }
    }

    /// The folder of the WIT package.
    #[must_use]
    pub fn wit(&self) -> PathBuf {
        self.wit.clone()
    }

    /// The folder of what stages in a language import; there may be none.
    #[must_use]
    pub fn language(&self, name: &str) -> PathBuf {
        self.languages.join(name)
    }
}

/// The files of this program whose paths begin with a folder: the rest of the path, and the bytes.
pub(crate) fn files_in(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let below = move |(path, bytes): &(&'static str, &'static [u8])| {
        Some((path.strip_prefix(folder)?.strip_prefix('/')?, *bytes))
    };
    files::FILES.iter().filter_map(below)
}

/// What tells the SDK of this program from all others.
#[must_use]
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hasher = DefaultHasher::new();
        files::FILES.hash(&mut hasher);
        format!("{} {:016x}\n", env!("CARGO_PKG_VERSION"), hasher.finish())
    });
    &VERSION
}

/// Brings a folder to what a language's stages need of this program's SDK.
///
/// # Errors
/// It cannot be written.
pub fn unpack(home: &Path, language: &str) -> Result<()> {
    let mark = home.join("version");
    let whole = format!("{}{language}\n", version());
    if fs::read_to_string(&mark).is_ok_and(|found| found == whole) {
        return Ok(());
    }
    empty(home)?;
    for folder in ["wit", language] {
        for (path, bytes) in files_in(folder) {
            write(&home.join(folder).join(path), bytes)?;
        }
    }
    // Last, so that half an SDK is none.
    fs::write(&mark, whole).map_err(at("write", &mark))
}

pub(crate) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(at("make", folder))?;
    }
    fs::write(file, bytes).map_err(at("write", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_brought_to_the_version_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("sdk");
        unpack(&home, "rust").unwrap();
        let manifest = fs::read_to_string(home.join("rust/Cargo.toml")).unwrap();
        assert!(!manifest.contains("workspace"), "{manifest}");
        assert!(manifest.contains("path = \"macros\""), "{manifest}");
        assert!(home.join("rust/macros/src/lib.rs").is_file());
        assert!(home.join("wit/stage.wit").is_file() && home.join("wit/deps/gpu").is_dir());
        assert!(!home.join("python").exists(), "only what the language needs");

        fs::write(home.join("version"), "of another one").unwrap();
        fs::write(home.join("rust/old.rs"), "").unwrap();
        unpack(&home, "rust").unwrap();
        assert!(!home.join("rust/old.rs").exists(), "what is old goes");
        fs::write(home.join("rust/kept.rs"), "").unwrap();
        unpack(&home, "rust").unwrap();
        assert!(home.join("rust/kept.rs").exists(), "the same version is left alone");
    }
}
