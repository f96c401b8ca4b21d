//! Files of a project: which there are, and copies of some.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::error::at;

/// Folders that hold no sources: what is made of them, and what belongs to other programs.
const NO_SOURCES: [&str; 5] = ["build", "target", "node_modules", "__pycache__", "venv"];

/// Whether a folder of this name may hold sources.
pub(crate) fn holds_sources(name: &str) -> bool {
    !name.starts_with('.') && !NO_SOURCES.contains(&name)
}

/// What is in a folder, sorted; nothing if there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("read", folder))? {
        found.push(entry.map_err(at("read", folder))?.path());
    }
    found.sort();
    Ok(found)
}

pub(crate) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The files of this extension in a folder itself and in its `src`.
pub(crate) fn files_with(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = entries(folder)?;
    files.extend(entries(&folder.join("src"))?);
    files.retain(|path| has_extension(path, extension) && path.is_file());
    Ok(files)
}

/// Whether a folder or its `src` has a file of this extension.
pub(crate) fn has_file_with(folder: &Path, extension: &str) -> bool {
    files_with(folder, extension).is_ok_and(|files| !files.is_empty())
}

/// Makes a folder anew.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(at("remove", folder))?;
    }
    fs::create_dir_all(folder).map_err(at("make", folder))
}

/// Copies the files that are wanted, with the folders they lie in. Links are not followed.
pub(crate) fn copy_tree(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    for path in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        let kind = fs::symlink_metadata(&path).map_err(at("read", &path))?.file_type();
        let copy = to.join(name);
        if kind.is_dir() && holds_sources(&name.to_string_lossy()) {
            copy_tree(&path, &copy, wanted)?;
        } else if kind.is_file() && wanted(&path) {
            fs::create_dir_all(to).map_err(at("make", to))?;
            fs::copy(&path, &copy).map_err(at("copy", &path))?;
        }
    }
    Ok(())
}
