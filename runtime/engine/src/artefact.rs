//! The node's store of compiled components: native code that is loaded without a second look, so
//! nothing is loaded that this node did not seal itself.
//!
//! Keeps true: a file is found by the component's digest and the engine's fingerprint, and loaded
//! only if its seal, a keyed hash over all of it, is right; what was verified is what is loaded,
//! from memory, never read twice. A file that fails is logged, removed, and treated as absent.
//! Files appear whole or not at all. The directory stays within its bound, the least recently
//! loaded go first. The secret never leaves the directory, which only the node's user may enter.
//!
//! Leaves to others: compiling what is absent (`compile`), who may run it (`node`). All calls read
//! or write files: keep them off the workers. Nothing is synced to disk; what a crash tears has no
//! seal.
//!
//! ```text
//! "SLBXART" 0 | version u32 | reserved u32 | digest 32 bytes | fingerprint 32 bytes
//! | code bytes u64 | seal 32 bytes | code
//! ```

mod secret;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_std::fs::{Dir, File, Metadata, OpenOptions, OpenOptionsExt, Permissions, PermissionsExt};
use sluicebox_core::ids::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::compile::Compiled;
use crate::error::{Error, engine_text};
use crate::tuning::Fingerprint;
use secret::Secret;

const MAGIC: &[u8; 8] = b"SLBXART\0";
const VERSION: u32 = 1;

/// Bytes before the seal: what it covers of the head.
const COVERED_BYTES: usize = 88;

/// Bytes before the code.
const HEAD_BYTES: usize = COVERED_BYTES + blake3::OUT_LEN;

/// End of the names of our files.
const SUFFIX: &str = ".artefact";

/// Beginning of the names of files that are being written.
const DRAFT: &str = ".draft-";

/// How long a draft may be in the making.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// Bytes of all artefacts together unless configured otherwise.
pub const BYTES_MAX_DEFAULT: u64 = 4 << 30;

/// Compiled components in a directory.
#[derive(Debug)]
pub struct Artefacts {
    dir: Dir,
    engine: Engine,
    fingerprint: Fingerprint,
    secret: Secret,
    bytes_max: u64,
    /// What is in the directory. Never held while a file is read or written, but for removals.
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    files: BTreeMap<String, Entry>,
    /// Grows with each use of a file.
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    used: u64,
}

impl Artefacts {
    /// Takes a directory over: closes it to others, makes the secret if there is none, counts what
    /// is there, removes what was left half written.
    ///
    /// # Errors
    /// [`Error::ArtefactIo`], [`Error::ArtefactSecret`].
    pub fn open(dir: Dir, engine: &Engine, bytes_max: u64) -> Result<Self, Error> {
        let failed = |error| Error::ArtefactIo(format!("cannot be made private: {error}"));
        // A process that is held in may not change it, and is given one that needs no change.
        if dir.dir_metadata().map_err(failed)?.permissions().mode() & 0o777 != 0o700 {
            dir.set_permissions(".", Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let secret = Secret::load_or_make(&dir)?;
        let index = Index::of(&dir).map_err(io("read"))?;
        let artefacts = Self {
            dir,
            engine: engine.clone(),
            fingerprint: Fingerprint::of(engine),
            secret,
            bytes_max,
            index: Mutex::new(index),
        };
        artefacts.evict(None);
        Ok(artefacts)
    }

    /// Loads a component's code if it is here and unharmed.
    ///
    /// # Errors
    /// [`Error::ArtefactIo`] if the directory cannot be read; [`Error::Demand`] if the component
    /// asks for more than the pool gives any instance.
    pub fn load(&self, digest: &Digest) -> Result<Option<Component>, Error> {
        let name = self.name(digest);
        let file = match self.dir.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open")(error)),
        };
        let bytes = self.read(&file).map_err(io("read"))?;
        let Some(code) = self.verify(digest, &bytes) else {
            tracing::warn!(file = name, "an artefact is damaged or not ours; it is compiled again");
            self.remove(&name);
            return Ok(None);
        };
        self.touch(&name, &file);
        // SAFETY: the code was made by our own compile process for an engine of this fingerprint:
        // the seal over exactly these bytes proves that this node stored them, and `keep` takes
        // nothing but `Compiled`. They are in memory, where nobody can change them meanwhile.
        #[expect(unsafe_code, reason = "the one place that turns our own artefacts into code")]
        let component = unsafe { Component::deserialize(&self.engine, code) };
        match component {
            Ok(component) => Ok(Some(component)),
            // Version and settings are in the fingerprint, so that only the pool's bounds can be
            // what it does not meet.
            Err(error) => Err(Error::Demand(vec![engine_text(&error)])),
        }
    }

    /// Keeps a component's code.
    ///
    /// # Errors
    /// [`Error::ArtefactIo`].
    pub fn keep(&self, digest: &Digest, compiled: &Compiled) -> Result<(), Error> {
        let code = compiled.bytes();
        let name = self.name(digest);
        let head = self.seal(digest, code);
        self.publish(&name, &[&head, code]).map_err(io("write"))?;
        let bytes = (head.len() + code.len()) as u64;
        let mut index = self.index();
        let used = index.tick();
        index.files.insert(name.clone(), Entry { bytes, used });
        drop(index);
        self.evict(Some(&name));
        Ok(())
    }

    /// Whether a component's code is here, without a look at it.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.index().files.contains_key(&self.name(digest))
    }

    /// Bytes of all artefacts together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index().bytes()
    }

    /// The fingerprint is cut for the name only; the head has all of it.
    fn name(&self, digest: &Digest) -> String {
        let engine = Digest(self.fingerprint.0).hex();
        format!("{}-{}{SUFFIX}", digest.hex(), &engine[..16])
    }

    /// Reads a file that is no larger than the directory may be.
    fn read(&self, file: &File) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let expected = file.metadata()?.len().min(self.bytes_max);
        bytes.reserve_exact(usize::try_from(expected).unwrap_or(0));
        file.take(self.bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn verify<'a>(&self, digest: &Digest, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (head, code) = bytes.split_at_checked(HEAD_BYTES)?;
        let (covered, seal) = head.split_at_checked(COVERED_BYTES)?;
        if covered != self.covered(digest, code) {
            return None;
        }
        // Compares in constant time.
        let seal = blake3::Hash::from_slice(seal).ok()?;
        (self.secret.seal(&[covered, code]) == seal).then_some(code)
    }

    fn seal(&self, digest: &Digest, code: &[u8]) -> Vec<u8> {
        let mut head = self.covered(digest, code).to_vec();
        let seal = self.secret.seal(&[&head, code]);
        head.extend_from_slice(seal.as_bytes());
        head
    }

    fn covered(&self, digest: &Digest, code: &[u8]) -> [u8; COVERED_BYTES] {
        let mut out = [0; COVERED_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..48].copy_from_slice(&digest.0);
        out[48..80].copy_from_slice(&self.fingerprint.0);
        out[80..88].copy_from_slice(&(code.len() as u64).to_le_bytes());
        out
    }

    /// Writes under another name, then renames.
    fn publish(&self, name: &str, parts: &[&[u8]]) -> std::io::Result<()> {
        let draft = draft_name()?;
        let written = write_new(&self.dir, &draft, parts)
            .and_then(|()| self.dir.rename(&draft, &self.dir, name));
        if written.is_err() {
            // It may not even exist; the next start removes it else.
            self.dir.remove_file(&draft).unwrap_or_default();
        }
        written
    }

    fn touch(&self, name: &str, file: &File) {
        let mut index = self.index();
        let used = index.tick();
        if let Some(entry) = index.files.get_mut(name) {
            entry.used = used;
        }
        drop(index);
        // So that the order outlives the process. A disk that refuses costs only that.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        if let Err(error) = rustix::fs::futimens(file, &times) {
            tracing::debug!(%error, "the time of an artefact's use cannot be kept");
        }
    }

    fn remove(&self, name: &str) {
        self.index().files.remove(name);
        match self.dir.remove_file(name) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(file = name, %error, "an artefact cannot be removed");
            }
            _ => {}
        }
    }

    /// Removes the least recently used files until the rest fits; never `spared`.
    fn evict(&self, spared: Option<&str>) {
        loop {
            let index = self.index();
            if index.bytes() <= self.bytes_max {
                return;
            }
            let oldest = index
                .files
                .iter()
                .filter(|(name, _)| Some(name.as_str()) != spared)
                .min_by_key(|(_, entry)| entry.used)
                .map(|(name, _)| name.clone());
            drop(index);
            let Some(name) = oldest else { return };
            tracing::info!(file = name, "an artefact gives way to newer ones");
            self.remove(&name);
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Every change to the index is complete before anything can panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// What a directory holds, in the order of its last use.
    fn of(dir: &Dir) -> std::io::Result<Self> {
        let mut found = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // A draft of another node that starts now, or what it removes.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if name.starts_with(DRAFT) {
                remove_if_old(dir, &name, &meta)?;
            } else if name.ends_with(SUFFIX) && meta.is_file() {
                let used = meta.modified().map(cap_std::time::SystemTime::into_std).ok();
                found.push((used, name, meta.len()));
            }
        }
        found.sort();
        let mut index = Self::default();
        for (_, name, bytes) in found {
            let used = index.tick();
            index.files.insert(name, Entry { bytes, used });
        }
        Ok(index)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|entry| entry.bytes).sum()
    }
}

/// Removes what somebody left half written; a fresh draft may be another node's that starts now.
fn remove_if_old(dir: &Dir, name: &str, meta: &Metadata) -> std::io::Result<()> {
    let age = meta.modified()?.into_std().elapsed().unwrap_or_default();
    if age <= DRAFT_AGE {
        return Ok(());
    }
    match dir.remove_file(name) {
        // Another node that starts now has removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A name nobody else uses.
fn draft_name() -> std::io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::from)?;
    Ok(format!("{DRAFT}{:016x}", u64::from_le_bytes(random)))
}

/// Writes a file that must not exist yet, for its owner alone.
fn write_new(dir: &Dir, name: &str, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = dir.open_with(name, &options)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

fn io(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::ArtefactIo(format!("cannot {action}: {error}"))
}

#[cfg(test)]
mod tests;
