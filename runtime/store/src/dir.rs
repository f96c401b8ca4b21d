//! The catalog in a directory: one file for each document.
//!
//! ```text
//! <directory>/lock                                 held by the one process that may be here
//! <directory>/tmp/<number>                         being written; left over only by a crash
//! <directory>/documents/tenants/dev/words_doc      the document tenants/dev/words
//! ```
//!
//! A folder bears a segment's name and a file bears one with `_doc` added, which no segment can
//! end in; so `a` and `a/b` can both be documents. A change is written to `tmp`, brought to disk,
//! renamed into place, and the folder brought to disk. Every file begins as `header` says.
//!
//! Keeps true: all paths are resolved below the directory that was opened, symbolic links out of
//! it are not followed; files have mode 600 and folders 700; readers take no lock; after a folder
//! could not be brought to disk nothing more is written until the catalog is opened again.
//!
//! Leaves to others: what does not look like a document is ignored, not removed.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, File, MetadataExt as _, OpenOptions};

use crate::catalog::{Catalog, VALUE_BYTES_MAX, check_size};
use crate::error::Error;
use crate::header;
use crate::key::{Key, SEGMENTS_MAX};

const LOCK: &str = "lock";
const TEMP: &str = "tmp";
const DOCUMENTS: &str = "documents";
/// Added to the last segment; has a byte that no segment has.
const SUFFIX: &str = "_doc";

/// Documents in a directory that nobody else uses.
#[derive(Debug)]
pub struct DirCatalog {
    documents: Dir,
    temp: Dir,
    next_temp: AtomicU64,
    /// Held while names change, so that a check and the rename after it are one step, and no
    /// folder is removed while something is put into it. Never held while a value is written.
    changing: Mutex<()>,
    poisoned: AtomicBool,
    /// Only for messages.
    path: PathBuf,
    /// Its lock ends with it.
    _lock: std::fs::File,
}

impl DirCatalog {
    /// Opens the directory, makes it if there is none, takes it for this process, and removes
    /// what a crash left half written.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it; [`Error::NotPrivate`] if other users can
    /// write in it; [`Error::ReadOnly`] if we cannot.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = Place(path);
        make_ambient_dirs(path).map_err(|e| at.write_error("make the directory", e))?;
        let root = Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|e| at.read_error("open the directory", e))?;
        let metadata = root.dir_metadata().map_err(|e| at.read_error("look at it", e))?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(Error::NotPrivate { path: path.into(), mode });
        }
        let lock = take_lock(&root, at)?;
        let child = |name: &'static str| {
            make_dir(&root, name)
                .and_then(|()| root.open_dir(name))
                .map_err(|e| at.write_error(&format!("make {name}"), e))
        };
        let (documents, temp) = (child(DOCUMENTS)?, child(TEMP)?);
        remove_all(&temp).map_err(|e| at.write_error("remove what a crash left in tmp", e))?;
        sync_dir(&root, ".").map_err(|e| at.write_error("bring the directory to disk", e))?;
        Ok(Self {
            documents,
            temp,
            next_temp: AtomicU64::new(0),
            changing: Mutex::new(()),
            poisoned: AtomicBool::new(false),
            path: path.into(),
            _lock: lock,
        })
    }

    fn at(&self) -> Place<'_> {
        Place(&self.path)
    }

    fn check_sound(&self) -> Result<(), Error> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { path: self.path.clone() });
        }
        Ok(())
    }

    /// Whether there is a document, by its name alone.
    fn exists(&self, key: &Key) -> Result<bool, Error> {
        match self.documents.symlink_metadata(file_of(key)) {
            Ok(_) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(self.at().read_error(&format!("look for {key}"), e)),
        }
    }

    fn put(&self, key: &Key, value: &[u8], new: bool) -> Result<(), Error> {
        check_size(key, value)?;
        self.check_sound()?;
        let conflict = || Err(Error::Conflict { key: key.clone() });
        // Looked at twice: here to spare the work, and below where it counts.
        if new && self.exists(key)? {
            return conflict();
        }
        let cannot = |e| self.at().write_error(&format!("write {key}"), e);
        let temp = self.write_temp(key, value).map_err(cannot)?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_sound()?;
        if new && self.exists(key)? {
            return conflict();
        }
        self.make_folders(key).map_err(cannot)?;
        temp.rename(&self.documents, &file_of(key)).map_err(cannot)?;
        self.sync_folder(key)
    }

    /// Writes a file of its own to disk, in `tmp`.
    fn write_temp(&self, key: &Key, value: &[u8]) -> io::Result<Temp<'_>> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let name = number.to_string();
        let mut file = self.temp.open_with(&name, new_file().create_new(true))?;
        let temp = Temp { dir: &self.temp, name };
        file.write_all(&header::header_of(key, value))?;
        file.write_all(value)?;
        file.sync_all()?;
        Ok(temp)
    }

    /// Makes the folders the document goes into, each on disk before the next.
    fn make_folders(&self, key: &Key) -> io::Result<()> {
        let text = key.as_str();
        let mut outer = ".";
        for (end, _) in text.match_indices('/') {
            let folder = &text[..end];
            if !self.documents.is_dir(folder) {
                make_dir(&self.documents, folder)?;
                sync_dir(&self.documents, outer)?;
            }
            outer = folder;
        }
        Ok(())
    }

    /// Brings to disk which documents the folder has. If that fails nobody knows what a crash
    /// would leave, so it is the last thing tried.
    fn sync_folder(&self, key: &Key) -> Result<(), Error> {
        sync_dir(&self.documents, folder_of(key)).map_err(|e| {
            self.poisoned.store(true, Ordering::Release);
            self.at().write_error(&format!("bring the folder of {key} to disk"), e)
        })
    }

    /// Removes the folders that the last document has left, innermost first.
    fn remove_empty_folders(&self, key: &Key) {
        let text = key.as_str();
        for (end, _) in text.rmatch_indices('/') {
            // One with something in it refuses, and then those around it are not empty either.
            if self.documents.remove_dir(&text[..end]).is_err() {
                return;
            }
        }
    }

    /// Adds the documents right in `folder` to `keys`, and its folders to `folders`.
    fn list_folder(
        &self,
        folder: &str,
        keys: &mut Vec<Key>,
        folders: &mut Vec<String>,
    ) -> io::Result<()> {
        for entry in self.documents.read_dir(if folder.is_empty() { "." } else { folder })? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let Some(name) = name.to_str() else { continue };
            let path = |name| {
                if folder.is_empty() { String::from(name) } else { format!("{folder}/{name}") }
            };
            if kind.is_dir() {
                folders.push(path(name));
            } else if let Some(segment) = name.strip_suffix(SUFFIX).filter(|_| kind.is_file()) {
                keys.extend(Key::new(&path(segment)));
            }
        }
        Ok(())
    }
}

impl Catalog for DirCatalog {
    fn create(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        self.put(key, value, true)
    }

    fn replace(&self, key: &Key, value: &[u8]) -> Result<(), Error> {
        self.put(key, value, false)
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let cannot = |e| self.at().read_error(&format!("read {key}"), e);
        let file = match self.documents.open(file_of(key)) {
            Ok(file) => file,
            Err(e) if is_absent(&e) => return Ok(None),
            Err(e) => return Err(cannot(e)),
        };
        let length = file.metadata().map_err(cannot)?.len();
        let length_max = (header::HEADER_BYTES_MAX + VALUE_BYTES_MAX) as u64;
        if length > length_max {
            return Err(Error::Corrupt { key: key.clone(), what: "it is larger than a document" });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.take(length_max).read_to_end(&mut bytes).map_err(cannot)?;
        header::value_of(key, bytes.into()).map(Some)
    }

    fn list(&self, under: Option<&Key>) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        let mut folders = vec![under.map_or_else(String::new, ToString::to_string)];
        while let Some(folder) = folders.pop() {
            // Deeper than a key goes there are none of ours.
            if folder.matches('/').count() >= SEGMENTS_MAX {
                continue;
            }
            match self.list_folder(&folder, &mut keys, &mut folders) {
                Err(e) if !is_absent(&e) => {
                    return Err(self.at().read_error(&format!("list documents/{folder}"), e));
                }
                // Absent: its last document was deleted meanwhile.
                _ => {}
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn delete(&self, key: &Key) -> Result<bool, Error> {
        self.check_sound()?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_sound()?;
        match self.documents.remove_file(file_of(key)) {
            Ok(()) => {}
            Err(e) if is_absent(&e) => return Ok(false),
            Err(e) => return Err(self.at().write_error(&format!("delete {key}"), e)),
        }
        self.sync_folder(key)?;
        self.remove_empty_folders(key);
        Ok(true)
    }
}

/// A file being written; removed unless it is renamed into place.
struct Temp<'a> {
    dir: &'a Dir,
    name: String,
}

impl Temp<'_> {
    fn rename(self, to: &Dir, name: &str) -> io::Result<()> {
        self.dir.rename(&self.name, to, name)
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // Absent if it was renamed. If it cannot be removed the next open does it.
        self.dir.remove_file(&self.name).ok();
    }
}

/// The directory, to say where something failed.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a>(pub(crate) &'a Path);

impl Place<'_> {
    pub(crate) fn read_error(self, doing: &str, source: io::Error) -> Error {
        Error::Io { doing: doing.into(), path: self.0.into(), source }
    }

    pub(crate) fn write_error(self, doing: &str, source: io::Error) -> Error {
        let path = self.0.into();
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Error::ReadOnly { path, source }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Error::Full { path, source }
            }
            _ => self.read_error(doing, source),
        }
    }
}

/// The file of a key, below `documents`.
fn file_of(key: &Key) -> String {
    format!("{key}{SUFFIX}")
}

/// The folder of a key's file, below `documents`.
fn folder_of(key: &Key) -> &str {
    key.as_str().rsplit_once('/').map_or(".", |(folder, _)| folder)
}

/// Nothing there, or something that is not a folder where one would have to be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Options for writing a file that only we may read.
fn new_file() -> OpenOptions {
    use cap_std::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Makes a folder that only we may enter; there may be one already.
fn make_dir(dir: &Dir, path: &str) -> io::Result<()> {
    use cap_std::fs::DirBuilderExt as _;
    let mut builder = DirBuilder::new();
    match dir.create_dir_with(path, builder.mode(0o700)) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Makes the directory itself and those around it, and brings to disk that they are there.
pub(crate) fn make_ambient_dirs(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|p| !p.is_dir()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    for made in missing {
        if let Some(parent) = made.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Brings to disk which names a folder has.
pub(crate) fn sync_dir(dir: &Dir, path: &str) -> io::Result<()> {
    // Opened as a file: a `Dir` may be only a path to one, which cannot be brought to disk.
    dir.open(path).and_then(|folder: File| folder.sync_all())
}

/// Takes the directory for this process, until the file is closed.
fn take_lock(root: &Dir, at: Place<'_>) -> Result<std::fs::File, Error> {
    let mut options = new_file();
    let file = root
        .open_with(LOCK, options.create(true))
        .map_err(|e| at.write_error("open the lock file", e))?
        .into_std();
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked { path: at.0.into() }),
        Err(std::fs::TryLockError::Error(e)) => Err(at.write_error("lock it", e)),
    }
}

/// Removes everything in a directory.
fn remove_all(dir: &Dir) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dir.remove_dir_all(entry.file_name())?;
        } else {
            entry.remove_file()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
