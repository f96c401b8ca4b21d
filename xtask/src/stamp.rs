//! Whether a built file is up to date, judged by what it was built from and not by clocks.
//!
//! A stamp is a hash over the names and contents of all inputs and over the recipe (tool versions,
//! flags). It is saved after a success only, so an interrupted build is done again. The hash may
//! differ between Rust releases; then everything is built once more, which does no harm.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What a build result was, or would be, made of.
pub(crate) struct Stamp {
    file: PathBuf,
    value: String,
}

impl Stamp {
    /// The stamp of `name`, kept in `folder`, over `inputs` (files, or folders with all in them).
    pub(crate) fn new(folder: &Path, name: &str, recipe: &str, inputs: &[PathBuf]) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        recipe.hash(&mut hasher);
        for input in inputs {
            add(input, &mut hasher)
                .with_context(|| format!("{} cannot be read", input.display()))?;
        }
        let value = format!("{:016x}\n", hasher.finish());
        Ok(Self { file: folder.join(format!("{name}.stamp")), value })
    }

    /// Whether `result` exists and was made from exactly these inputs.
    pub(crate) fn is_current(&self, result: &Path) -> bool {
        result.exists() && fs::read_to_string(&self.file).is_ok_and(|saved| saved == self.value)
    }

    /// Notes that the result now stands for these inputs.
    pub(crate) fn save(&self) -> Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&self.file, &self.value)
            .with_context(|| format!("{} cannot be written", self.file.display()))
    }
}

fn add(path: &Path, hasher: &mut DefaultHasher) -> Result<()> {
    if !path.is_dir() {
        path.file_name().hash(hasher);
        fs::read(path)?.hash(hasher);
        return Ok(());
    }
    let mut children = Vec::new();
    for entry in fs::read_dir(path)? {
        children.push(entry?.path());
    }
    children.sort();
    for child in children {
        // What Python leaves beside its sources is no source.
        if child.file_name().is_none_or(|name| name != "__pycache__") {
            add(&child, hasher)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder below the system's temporary one, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn stamp(folder: &Path, recipe: &str) -> Stamp {
        Stamp::new(folder, "x", recipe, &[folder.join("source")]).unwrap()
    }

    #[test]
    fn a_result_is_current_until_an_input_or_the_recipe_changes() {
        let folder = Folder::new("changes");
        let (source, result) = (folder.0.join("source"), folder.0.join("result"));
        fs::write(&source, "one").unwrap();
        assert!(!stamp(&folder.0, "r").is_current(&result), "nothing was built yet");

        fs::write(&result, "built").unwrap();
        stamp(&folder.0, "r").save().unwrap();
        assert!(stamp(&folder.0, "r").is_current(&result));
        assert!(!stamp(&folder.0, "another recipe").is_current(&result));

        fs::write(&source, "two").unwrap();
        assert!(!stamp(&folder.0, "r").is_current(&result));
    }

    #[test]
    fn a_deleted_result_is_not_current() {
        let folder = Folder::new("deleted");
        fs::write(folder.0.join("source"), "one").unwrap();
        stamp(&folder.0, "r").save().unwrap();
        assert!(!stamp(&folder.0, "r").is_current(&folder.0.join("result")));
    }
}
