//! The folder of the tools that this program fetches, and how a tool that is missing is named.
//!
//! One folder a user: `$XDG_CACHE_HOME/sluicebox/tools`, or what `SLUICEBOX_TOOLS` says. What is in
//! it has a name that follows from what was asked for, so that another version is another folder,
//! and appears whole or not at all.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use crate::error::at;
use crate::process::Progress;
use crate::{Error, Result};

/// The variable that names another folder.
pub const TOOLS_VARIABLE: &str = "SLUICEBOX_TOOLS";

/// A tool this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What it is, with its version where that matters.
    pub what: String,
    /// What to do, with the command that installs it.
    pub install: String,
    /// What would be downloaded, where this program can fetch it by itself: what, how much, from
    /// where.
    pub fetch: Option<String>,
}

/// Where fetched tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    home: PathBuf,
}

impl Tools {
    /// Those of the user.
    ///
    /// # Errors
    /// There is neither a home nor a variable that says where.
    pub fn of_user() -> Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = set(TOOLS_VARIABLE)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("XDG_CACHE_HOME")?).join("sluicebox/tools")))
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache/sluicebox/tools")));
        let home = home.ok_or_else(|| Error::Tool {
            what: "there is no place for tools: HOME is not set".to_owned(),
            fix: format!("set {TOOLS_VARIABLE} to a folder"),
        })?;
        // Tools are run from other folders.
        let home = std::path::absolute(&home).map_err(at("find", &home))?;
        Ok(Self::in_folder(home))
    }

    /// Those below a folder.
    #[must_use]
    pub fn in_folder(home: PathBuf) -> Self {
        Self { home }
    }

    /// The folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A folder in which tools may keep what spares them work; they may find it empty.
    #[must_use]
    pub fn cache(&self, name: &str) -> PathBuf {
        self.home.join("cache").join(name)
    }

    /// Where what follows from `pins` is, or would be.
    #[must_use]
    pub fn place(&self, name: &str, pins: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        pins.hash(&mut hasher);
        self.home.join(format!("{name}-{:016x}", hasher.finish()))
    }

    /// Fills a place, in one step for all who look.
    ///
    /// # Errors
    /// Those of `fill`, which gets an empty folder, or of the disk.
    pub fn fill(
        &self,
        place: &Path,
        progress: &mut Progress<'_>,
        fill: impl FnOnce(&Path, &mut Progress<'_>) -> Result<()>,
    ) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let new = place.with_extension(format!("new-{}", std::process::id()));
        remove(&new)?;
        fs::create_dir_all(&new).map_err(at("make", &new))?;
        let filled = fill(&new, progress);
        if let Err(error) = filled {
            // What is half there is of no use to anybody.
            drop(remove(&new));
            return Err(error);
        }
        match fs::rename(&new, place) {
            // Somebody else was faster, with the same.
            Err(_) if place.exists() => remove(&new),
            moved => moved.map_err(at("make", place)),
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    fs::remove_dir_all(folder).map_err(at("remove", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_fetched_whole_is_not_there() {
        let home = tempfile::tempdir().unwrap();
        let tools = Tools::in_folder(home.path().to_path_buf());
        let place = tools.place("x", "x==1");
        assert_ne!(place, tools.place("x", "x==2"), "another version is another folder");
        let mut progress = Progress::new(|_| {});
        let failed = tools.fill(&place, &mut progress, |folder, _| {
            fs::write(folder.join("half"), "").unwrap();
            Err(Error::NoLanguage { name: String::new() })
        });
        assert!(failed.is_err() && !place.exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
        let fill = |folder: &Path, _: &mut Progress<'_>| {
            fs::write(folder.join("whole"), "").map_err(at("write", folder))
        };
        tools.fill(&place, &mut progress, fill).unwrap();
        assert!(place.join("whole").is_file());
        tools.fill(&place, &mut progress, |_, _| panic!("it is there")).unwrap();
    }
}
