//! The tenants file on disk: read only if private, replaced whole or not at all.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use super::error::Error;

/// Room for ten thousand tenants with several tokens each.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a file looks like from outside. One that differs may have other contents; a file replaced
/// as [`write`] does it always differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<[i64; 7]>);

impl Stamp {
    /// Of what is there now; an absent file has a stamp too.
    pub(super) fn of(path: &Path) -> Self {
        fs::metadata(path).map_or_else(|_| Self::default(), |metadata| Self::new(&metadata))
    }

    fn new(m: &Metadata) -> Self {
        let bits = |n: u64| n.cast_signed();
        Self(Some([
            m.mtime(),
            m.mtime_nsec(),
            // Permissions may have been put right, which changes nothing else.
            m.ctime(),
            m.ctime_nsec(),
            bits(m.len()),
            bits(m.ino()),
            bits(m.dev()),
        ]))
    }
}

/// The text of the file and what it looked like, if nobody else can read it.
pub(super) fn read(path: &Path) -> Result<(String, Stamp), Error> {
    let io = |source| Error::Io { doing: "read", path: path.into(), source };
    let unusable = |why| Error::Unusable { path: path.into(), why };
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::Missing { path: path.into() });
        }
        opened => opened.map_err(io)?,
    };
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(unusable("it is not a plain file"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::NotPrivate { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable("it is larger than 16 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unusable("it is not UTF-8 text"))?;
    Ok((text, Stamp::new(&metadata)))
}

/// The folder of the file, locked against other commands until dropped.
///
/// The folder is locked, not the file, as the file is replaced by every change; and no file of
/// ours is needed for it that could belong to the wrong user.
#[derive(Debug)]
pub(super) struct Folder {
    file: File,
    /// Where the file really is: a link to it stays one.
    path: PathBuf,
}

impl Folder {
    /// Takes the lock; waits for another command to end, which takes milliseconds. Makes the
    /// folder if there is none.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let io = |doing| move |source| Error::Io { doing, path: folder.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("make"))?;
        let file = File::open(folder).map_err(io("open"))?;
        file.lock().map_err(io("lock"))?;
        Ok(Self { file, path })
    }

    /// Replaces the file. It is either as before or as `text` says, also after a crash.
    pub(super) fn write(&self, text: &str) -> Result<(), Error> {
        let mut temp = self.path.clone().into_os_string();
        temp.push(".new");
        let temp = PathBuf::from(temp);
        let written = self.write_temp(&temp, text).and_then(|()| fs::rename(&temp, &self.path));
        if written.is_err() {
            // Absent if it could not be made; the next change removes it if this fails.
            fs::remove_file(&temp).ok();
        }
        written.and_then(|()| self.file.sync_all()).map_err(|source| Error::Io {
            doing: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn write_temp(&self, temp: &Path, text: &str) -> io::Result<()> {
        // Left by a crash: we have the lock, so nobody is writing it.
        fs::remove_file(temp).or_else(|e| match e.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        })?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temp)?;
        self.keep_owner(&file)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }

    /// A change made by the superuser must not take the file away from the user the node runs as:
    /// it stays with its owner, and a new one goes to the owner of the folder.
    fn keep_owner(&self, new: &File) -> io::Result<()> {
        let (owner, must) = match fs::metadata(&self.path) {
            Ok(old) => (old, true),
            Err(_) => (self.file.metadata()?, false),
        };
        let now = new.metadata()?;
        if (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
            return Ok(());
        }
        match fchown(new, Some(owner.uid()), Some(owner.gid())) {
            // Not the superuser, and the owner is right: only the group is the user's usual one.
            Err(e) if must && owner.uid() != now.uid() => Err(e),
            _ => Ok(()),
        }
    }
}
