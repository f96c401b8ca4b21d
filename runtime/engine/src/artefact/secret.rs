//! The secret with which a node seals its artefacts: made on first start, never shown.
//!
//! Keeps true: 32 bytes of the operating system's randomness in a file only the node's user can
//! read; anything else is refused with what to do. Two nodes that start in one directory at once
//! end up with the same secret. What it is used with is a key derived from it for artefacts, so
//! that the secret may serve other purposes later.

use std::fmt;
use std::io::{ErrorKind, Read};

use cap_std::fs::{Dir, MetadataExt, PermissionsExt};

use super::{draft_name, io, write_new};
use crate::error::Error;

/// Its name in the directory.
const FILE: &str = "secret.key";

const BYTES: usize = 32;

/// What the key is for. A change makes all artefacts void.
const PURPOSE: &str = "sluicebox 2026-11-20 seal of compiled components";

/// A key to seal with.
pub(super) struct Secret([u8; BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads the secret, or makes it if there is none.
    pub(super) fn load_or_make(dir: &Dir) -> Result<Self, Error> {
        if let Some(secret) = Self::load(dir)? {
            return Ok(secret);
        }
        make(dir).map_err(|error| refuse(format!("cannot be made: {error}")))?;
        Self::load(dir)?.ok_or_else(|| refuse("is gone right after it was made".to_owned()))
    }

    fn load(dir: &Dir) -> Result<Option<Self>, Error> {
        let mut file = match dir.open(FILE) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refuse(format!("cannot be opened: {error}"))),
        };
        let meta = file.metadata().map_err(io("read"))?;
        if !meta.is_file() || meta.len() != BYTES as u64 {
            return Err(refuse(format!(
                "is not a file of {BYTES} bytes; remove it, and components are compiled again"
            )));
        }
        if meta.permissions().mode() & 0o077 != 0 {
            return Err(refuse(
                "can be read by others; remove it, and components are compiled again, or run \
                 `chmod 600` on it if nobody has read it"
                    .to_owned(),
            ));
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(refuse("belongs to another user".to_owned()));
        }
        let mut secret = [0; BYTES];
        file.read_exact(&mut secret).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        Ok(Some(Self(blake3::derive_key(PURPOSE, &secret))))
    }

    /// The keyed hash over the parts, one after the other.
    pub(super) fn seal(&self, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize()
    }
}

/// Makes the file whole under another name; of several nodes that do so at once, one gets the name.
fn make(dir: &Dir) -> std::io::Result<()> {
    let mut secret = [0; BYTES];
    getrandom::fill(&mut secret).map_err(std::io::Error::from)?;
    let draft = draft_name()?;
    write_new(dir, &draft, &[&secret])?;
    let linked = dir.hard_link(&draft, dir, FILE);
    dir.remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn refuse(message: String) -> Error {
    Error::ArtefactSecret { file: FILE, message }
}
