//! The files a log lies in: the narrow layer below it, and the real one in a directory.
//!
//! What a disk promises is what file systems promise and no more: bytes written are on disk after
//! `sync_data` of their file has succeeded, names after `sync_names`; before that any part of them
//! may be there after a crash, in any order, in pieces of 512 bytes. After a sync that failed, what
//! it covered may be lost although it can still be read. `log/sim.rs` does all of this on purpose.
//!
//! Keeps true for the directory: all names are resolved below the directory that was opened; files
//! have mode 600; one process has it open for writing.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::error::Error;
use crate::dir::{make_ambient_dirs, sync_dir};

/// The files of one log. Names have no folders.
pub trait Disk: Debug + Send + Sync {
    /// The names there are, in any order.
    ///
    /// # Errors
    /// What the system refuses; so for all of these.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file where there is none.
    ///
    /// # Errors
    /// See [`list`](Self::list).
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file.
    ///
    /// # Errors
    /// See [`list`](Self::list).
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name; one that had it is gone.
    ///
    /// # Errors
    /// See [`list`](Self::list).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// See [`list`](Self::list).
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Brings to disk which names there are.
    ///
    /// # Errors
    /// See [`list`](Self::list).
    fn sync_names(&self) -> io::Result<()>;
    /// A number that nobody had before.
    fn unique(&self) -> u64;
    /// For messages: where it is.
    fn place(&self) -> PathBuf;
}

/// One file.
pub trait DiskFile: Debug + Send + Sync {
    /// Reads what is there, which is less only at the end of the file.
    ///
    /// # Errors
    /// What the system refuses; so for all of these.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    ///
    /// # Errors
    /// See [`read_at`](Self::read_at).
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes room for so many bytes, and the file at least so long.
    ///
    /// # Errors
    /// See [`read_at`](Self::read_at).
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Brings to disk what was written, and how long the file is.
    ///
    /// # Errors
    /// See [`read_at`](Self::read_at).
    fn sync_data(&self) -> io::Result<()>;
    /// How long it is.
    ///
    /// # Errors
    /// See [`read_at`](Self::read_at).
    fn bytes(&self) -> io::Result<u64>;
    /// The first part at or behind `offset` that may have been written; `None` if nothing was up to
    /// the end. What lies between `offset` and the part reads as zero bytes. The part is not empty,
    /// and may begin and end anywhere, also beyond the end of the file. A disk that does not know
    /// says that everything was written; it may say so of what was only read.
    ///
    /// # Errors
    /// See [`read_at`](Self::read_at).
    fn written(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

/// True if there is no room on the disk, so that waiting helps.
pub(super) fn is_full(error: &io::Error) -> bool {
    // A limit on the size of files is one on room as well: it can be raised from outside.
    let kinds = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];
    kinds.contains(&error.kind())
}

/// An error while the directory is changed, by what the reader of the message can do about it.
pub(super) fn write_error(
    disk: &dyn Disk,
    doing: &'static str,
    file: &str,
    source: io::Error,
) -> Error {
    let path = disk.place();
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            crate::Error::ReadOnly { path, source }.into()
        }
        _ if is_full(&source) => crate::Error::Full { path, source }.into(),
        _ => Error::Io { doing, file: file.to_owned(), source },
    }
}

/// A directory that nobody else writes in.
#[derive(Debug)]
pub struct DirDisk {
    dir: Dir,
    /// Only for messages.
    path: PathBuf,
    /// Its lock ends with it. None if we only read.
    _lock: Option<std::fs::File>,
}

impl DirDisk {
    const LOCK: &str = "lock";

    /// Opens the directory, makes it if there is none, and takes it for this process.
    ///
    /// # Errors
    /// [`crate::Error::Locked`] if another process has it; [`crate::Error::NotPrivate`] if other
    /// users can write in it; [`crate::Error::ReadOnly`] if we cannot.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut disk = Self { dir: Self::dir(path, true)?, path: path.into(), _lock: None };
        let refused = |disk: &Self, e| write_error(disk, "take the lock file", Self::LOCK, e);
        let metadata = disk.dir.dir_metadata().map_err(Error::io("look at", "the directory"))?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(crate::Error::NotPrivate { path: path.into(), mode }.into());
        }
        let options = &mut Self::options();
        let lock = disk.dir.open_with(Self::LOCK, options.create(true));
        let lock = lock.map_err(|e| refused(&disk, e))?.into_std();
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(crate::Error::Locked { path: path.into() }.into());
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(refused(&disk, e)),
        }
        disk._lock = Some(lock);
        Ok(disk)
    }

    /// Opens the directory to look at it, also while another process writes in it.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none.
    pub fn read_only(path: &Path) -> Result<Self, Error> {
        Ok(Self { dir: Self::dir(path, false)?, path: path.into(), _lock: None })
    }

    fn dir(path: &Path, make: bool) -> Result<Dir, Error> {
        if make {
            make_ambient_dirs(path).map_err(|source| match source.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    Error::Directory(crate::Error::ReadOnly { path: path.into(), source })
                }
                _ => Error::io("make", &path.display().to_string())(source),
            })?;
        }
        Dir::open_ambient_dir(path, ambient_authority())
            .map_err(Error::io("open", &path.display().to_string()))
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }
}

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = self.dir.entries()?;
        // A name that is not text is none of ours.
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.dir.open_with(name, Self::options().create_new(true))?;
        Ok(Box::new(file.into_std()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(self._lock.is_some());
        let file = self.dir.open_with(name, &options)?;
        Ok(Box::new(file.into_std()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, &self.dir, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove_file(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        sync_dir(&self.dir, ".")
    }

    fn unique(&self) -> u64 {
        let mut bytes = [0; 8];
        // Only numbers that must differ, nothing secret: the address of a fresh allocation of the
        // hasher and its keys do as well where the system gives none.
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            _ => {
                use std::hash::{BuildHasher as _, Hasher as _, RandomState};
                RandomState::new().build_hasher().finish()
            }
        }
    }

    fn place(&self) -> PathBuf {
        self.path.clone()
    }
}

impl DiskFile for std::fs::File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::unix::fs::FileExt::read_at(
                self,
                &mut bytes[done..],
                offset + done as u64,
            ) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // Some file systems reserve nothing; then a write may find the disk full instead.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.metadata()?.len() < bytes { self.set_len(bytes) } else { Ok(()) }
            }
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    // What the system calls a hole reads as zero bytes: that is all the word means. For ext4 and
    // XFS what was reserved and never written is one too. They look into the extents on disk and,
    // where an extent is not marked as written, for bytes in memory: those that only wait for the
    // disk are no hole. After a loss of power there are the extents alone, for this and for reads.
    fn written(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        // This moves the cursor of the file. Nothing here uses it: all others say where.
        let start = match seek(self, SeekFrom::Data(offset)) {
            Ok(start) => start.max(offset),
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // This file system does not know. If it is in trouble instead, reading will say so.
            Err(_) => return Ok(Some(offset..u64::MAX)),
        };
        let end = seek(self, SeekFrom::Hole(start)).ok().filter(|end| *end > start);
        Ok(Some(start..end.unwrap_or(u64::MAX)))
    }
}
