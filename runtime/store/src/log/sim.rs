//! A disk in memory that does everything a real one may do, by seed: for tests.
//!
//! What was written is kept apart from what is on disk. A loss of power keeps of the unsynced
//! writes any part, in pieces of 512 bytes, in any order, and of the unsynced changes of names any
//! part. A sync that fails loses any part of what it covered for good, although it can still be
//! read, which is what some systems do. Writes and syncs fail when told to, the disk is full when
//! told to, the power goes at the nth call when told to, and bits flip. What was never written is a
//! hole, and so is what was lost with the power.
//!
//! Keeps true: the same calls with the same seed give the same bytes.
//!
//! Two switches make the disk worse than any real one may be, so that tests can show that they
//! would notice: it may claim to have synced what it has not.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inode::{Content, Inode};

use super::disk::{Disk, DiskFile};

mod inode;

/// Xorshift: enough to choose by.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// One that rolls as this seed says.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 11) % end
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What a disk is told to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// The write after so many good ones fails, then no other.
    pub fail_write_after: Option<u32>,
    /// The sync of a file or of names after so many good ones fails, then no other.
    pub fail_sync_after: Option<u32>,
    /// Every write and sync fails.
    pub fail_all: bool,
    /// After so many calls that change something, nothing works any more.
    pub power_off_after: Option<u32>,
    /// Bytes that all files together may have.
    pub capacity: Option<u64>,
    /// Syncs of files do nothing, and say they did. No real disk may do that.
    pub skip_data_syncs: bool,
    /// Syncs of names do nothing, and say they did. No real disk may do that.
    pub skip_name_syncs: bool,
}

/// A change of names that is not on disk.
#[derive(Debug, Clone)]
enum NameChange {
    Put { name: String, inode: usize },
    Move { from: String, to: String, inode: usize },
    Remove { name: String, inode: usize },
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put { name, inode } => drop(names.insert(name, inode)),
            Self::Move { from, to, inode } => {
                if names.get(&from) == Some(&inode) {
                    names.remove(&from);
                }
                names.insert(to, inode);
            }
            Self::Remove { name, inode } => {
                if names.get(&name) == Some(&inode) {
                    names.remove(&name);
                }
            }
        }
    }
}

#[derive(Debug)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    dice: Dice,
    /// Apart from the other, so that numbers do not depend on what fails.
    unique: Dice,
    faults: Faults,
    /// Grows when power is lost: files opened before are dead.
    boots: u32,
    calls: u64,
}

impl State {
    /// Counts a call that changes something.
    fn begin(&mut self) -> io::Result<()> {
        self.calls += 1;
        if let Some(left) = &mut self.faults.power_off_after {
            if *left == 0 {
                return Err(io::Error::other("the power is off"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn check_sync(&mut self) -> io::Result<()> {
        if self.faults.fail_all || counts_down(&mut self.faults.fail_sync_after) {
            return Err(io::Error::other("a sync that fails on purpose"));
        }
        Ok(())
    }

    fn check_room(&self, more: usize) -> io::Result<()> {
        let used: usize =
            self.names.values().map(|inode| self.inodes[*inode].seen.bytes.len()).sum();
        match self.faults.capacity {
            Some(capacity) if more > 0 && (used + more) as u64 > capacity => {
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }
}

/// True when the count has come to its end, once.
fn counts_down(count: &mut Option<u32>) -> bool {
    match count {
        Some(0) => {
            *count = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// The disk. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            dice: Dice::new(seed),
            unique: Dice::new(!seed),
            faults: Faults::default(),
            boots: 0,
            calls: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// As a trait object, as an opening takes it.
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells it what to do wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// What it is told to do wrong, as far as it has not yet.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.state().faults
    }

    /// Calls so far that change something.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Power is lost and comes back. Faults are over, but for the two switches.
    pub fn lose_power(&self) {
        let mut state = self.state();
        let State { inodes, dice, .. } = &mut *state;
        for inode in inodes {
            inode.persist_some(dice);
            inode.forget();
        }
        let mode = state.dice.below(4);
        for change in std::mem::take(&mut state.name_changes) {
            if mode == 1 || (mode > 1 && state.dice.once_in(2)) {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.boots += 1;
        let Faults { skip_data_syncs, skip_name_syncs, .. } = state.faults;
        state.faults = Faults { skip_data_syncs, skip_name_syncs, ..Faults::default() };
    }

    /// The process ends and another begins: nothing is lost, nothing more is on disk.
    pub fn lose_process(&self) {
        let mut state = self.state();
        state.boots += 1;
        let Faults { skip_data_syncs, skip_name_syncs, .. } = state.faults;
        state.faults = Faults { skip_data_syncs, skip_name_syncs, ..Faults::default() };
    }

    /// The names there are, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file, if there is one.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|inode| state.inodes[*inode].seen.bytes.clone())
    }

    /// Puts a file there, on disk, as somebody else might who leaves holes for zero bytes.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode::on_disk(Content::sparse(bytes)));
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// Takes a file away, on disk, as somebody else might. True if there was one.
    pub fn take(&self, name: &str) -> bool {
        let mut state = self.state();
        state.durable_names.remove(name);
        state.names.remove(name).is_some()
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.begin()?;
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.check_room(1)?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change_name(NameChange::Put { name: name.to_owned(), inode });
        let boot = state.boots;
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), inode, boot }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let (inode, boot) = (state.find(name)?, state.boots);
        Ok(Box::new(SimFile { state: Arc::clone(&self.state), inode, boot }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let inode = state.find(from)?;
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change_name(NameChange::Move { from, to, inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        let inode = state.find(name)?;
        state.change_name(NameChange::Remove { name: name.to_owned(), inode });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin()?;
        state.check_sync()?;
        if state.faults.skip_name_syncs {
            return Ok(());
        }
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn unique(&self) -> u64 {
        self.state().unique.roll()
    }

    fn place(&self) -> PathBuf {
        "the simulated disk".into()
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    boot: u32,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.boots != self.boot {
            return Err(io::Error::other("the file was opened by a process that is gone"));
        }
        Ok(state)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state()?;
        let seen = &state.inodes[self.inode].seen.bytes;
        let rest = seen.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.begin()?;
        let offset =
            usize::try_from(offset).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let end = offset + bytes.len();
        let length = state.inodes[self.inode].seen.bytes.len();
        state.check_room(end.saturating_sub(length))?;
        let fails = state.faults.fail_all || counts_down(&mut state.faults.fail_write_after);
        // One that fails may have written a part.
        let part =
            if fails { state.dice.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        state.inodes[self.inode].write(offset, &bytes[..part]);
        if fails { Err(io::Error::other("a write that fails on purpose")) } else { Ok(()) }
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.begin()?;
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let length = state.inodes[self.inode].seen.bytes.len();
        state.check_room(bytes.saturating_sub(length))?;
        state.inodes[self.inode].grow(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.begin()?;
        let failed = state.check_sync();
        let skip = state.faults.skip_data_syncs;
        let State { inodes, dice, .. } = &mut *state;
        if failed.is_err() {
            inodes[self.inode].persist_some(dice);
        } else if !skip {
            inodes[self.inode].persist_all();
        }
        failed
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes[self.inode].seen.bytes.len() as u64)
    }

    fn written(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(self.state()?.inodes[self.inode].seen.written(offset))
    }
}
