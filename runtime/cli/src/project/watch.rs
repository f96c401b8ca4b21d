//! Seeing that files of a folder have changed, by looking.
//!
//! Looking takes a fraction of a millisecond for what stages have in files, works on every file
//! system, and has no limit of the system to run into. Folders that hold no sources are not looked
//! into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::failure::{Cause, Failure};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// Files that are watched at most.
const FILES_MAX: usize = 20_000;

/// Folders, one in the other.
const DEPTH_MAX: usize = 12;

/// Folders that hold no sources.
const NO_SOURCES: [&str; 5] = ["build", "target", "node_modules", "__pycache__", "venv"];

/// A file as it was: when it was written, and how long it is.
type Look = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// A folder that is watched.
pub(super) struct Watch {
    folder: PathBuf,
    known: Look,
}

impl Watch {
    /// From how the folder is now.
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        let known = look(folder)?;
        Ok(Self { folder: folder.to_path_buf(), known })
    }

    /// Waits until something is another, and then until nothing changes any more: an editor writes
    /// more than one file. Gives what is new, changed or gone.
    pub(super) async fn change(&mut self) -> Result<Vec<PathBuf>, Failure> {
        loop {
            tokio::time::sleep(LOOK).await;
            let mut found = look(&self.folder)?;
            if found == self.known {
                continue;
            }
            loop {
                tokio::time::sleep(LOOK / 2).await;
                let again = look(&self.folder)?;
                if again == found {
                    break;
                }
                found = again;
            }
            let changed = differences(&self.known, &found);
            self.known = found;
            return Ok(changed);
        }
    }
}

fn differences(before: &Look, after: &Look) -> Vec<PathBuf> {
    let new = after.iter().filter(|(path, look)| before.get(*path) != Some(*look));
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    new.map(|(path, _)| path).chain(gone).cloned().collect()
}

fn look(folder: &Path) -> Result<Look, Failure> {
    let mut found = Look::new();
    add(folder, 0, &mut found);
    if found.len() > FILES_MAX {
        let what = format!("{} has more than {FILES_MAX} files", folder.display());
        return Err(Failure::new(Cause::Local, what).fix("name a folder with stages alone"));
    }
    Ok(found)
}

/// What cannot be read just now is as if it were not there.
fn add(folder: &Path, depth: usize, found: &mut Look) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') || found.len() > FILES_MAX {
            continue;
        }
        if kind.is_dir() {
            if depth < DEPTH_MAX && !NO_SOURCES.contains(&&*name) {
                add(&entry.path(), depth + 1, found);
            }
        } else if let Ok(metadata) = entry.metadata() {
            found.insert(entry.path(), (metadata.modified().ok(), metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_new_changed_or_gone_is_seen_and_what_is_made_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("target")).unwrap();
        std::fs::write(at("kept"), "1").unwrap();
        std::fs::write(at("gone"), "1").unwrap();
        let mut watch = Watch::new(folder.path()).unwrap();
        std::fs::write(at("target/made"), "1").unwrap();
        std::fs::write(at(".hidden"), "1").unwrap();
        std::fs::write(at("kept"), "12").unwrap();
        std::fs::write(at("new"), "1").unwrap();
        std::fs::remove_file(at("gone")).unwrap();
        let mut changed = watch.change().await.unwrap();
        changed.sort();
        assert_eq!(changed, [at("gone"), at("kept"), at("new")]);
        let quiet = tokio::time::timeout(LOOK * 3, watch.change()).await;
        assert!(quiet.is_err(), "nothing changed since");
    }
}
