//! Control groups: what a process and all that it starts may use together, held to and counted by
//! the kernel. For who starts the process, which cannot do it for itself.
//!
//! ```text
//!  base                      the caller's own group, or the one it was told of
//!  ├─ sluicebox-node         the caller itself, where it has to be out of the way (v2)
//!  └─ NAME                   of one caller, and of the next in its place
//!     ├─ tenant-acme         one process and what it starts
//!     └─ tenant-other
//! ```
//!
//! - [`Place::find`] looks where groups can be made, and changes nothing; `system` is what the
//!   kernel says of that, `v1` and `v2` how the two interfaces are spoken to.
//! - [`Place::open`] makes NAME, and ends what a caller of that name before left in it.
//! - [`Groups::make`] makes a group with its limits; [`Group::end`] ends all that is in it.
//!
//! Keeps true: no group is changed, emptied or removed but those of the picture; in the base only
//! the list of what is limited below it is added to. Nobody is killed whose membership was not
//! seen after he was taken hold of.
//!
//! Leaves to the caller: that nobody else has its NAME, and that a process which must stay in its
//! group cannot write to the tree of groups: to who owns a group, it is a directory like others.

mod files;
mod system;
mod v1;
mod v2;

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use system::System;

/// The row of the measure, beside those of a process's own report.
pub const MEASURE: &str = "cgroup";

/// The group of the caller itself, where it may not stay in the base.
const CALLER: &str = "sluicebox-node";

/// How names of groups of processes begin.
const PREFIX: &str = "tenant-";

/// Where groups are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Below the caller's own group. There a group does without limits that the kernel refuses,
    /// that of memory excepted.
    Own,
    /// Below this one, named as in `/proc/self/cgroup`: from the root of the tree of groups. There
    /// a limit that is refused is an error.
    Named(PathBuf),
}

/// What a group may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, files in the kernel's cache included, which give way first. Beyond it the
    /// kernel ends a process of the group. Nothing is swapped out.
    pub memory_bytes: u64,
    /// Processor time, in percent of one processor. `None`: as much as is free.
    pub cpu_percent: Option<u32>,
    /// Threads and processes.
    pub tasks: u32,
    /// Its part of the processors beside other groups when they are short, 1 to 1,000; 100 is
    /// what a group has for which nobody says anything.
    pub weight: u16,
}

/// What a group has used, as far as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes of memory now, without what the kernel keeps of files nobody has used lately.
    pub memory_bytes: Option<u64>,
    /// Processor time.
    pub cpu_micros: Option<u64>,
    /// Time for which it had work and was kept from the processors by its limit, over all of them.
    pub throttled_micros: Option<u64>,
    /// Processes that the kernel ended, as there was no memory.
    pub memory_kills: Option<u64>,
}

/// What the kernel can hold a group to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Memory,
    Processors,
    Tasks,
    /// Counts time of processors, and limits nothing.
    Account,
}

impl Resource {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processors => "processors",
            Self::Tasks => "tasks",
            Self::Account => "processor time",
        }
    }
}

/// The two interfaces of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A group in one tree, and what it holds to there. There is one tree in v2, and one for each
/// resource, or a few, in v1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Dir {
    path: PathBuf,
    holds: Vec<Resource>,
}

/// What groups do not hold to, and why.
type Lacks = Vec<(Resource, String)>;

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    version: Version,
    bases: Vec<Dir>,
    /// Controllers that have to be passed down from the base.
    missing: Vec<&'static str>,
    /// The caller has to leave the base first; its number.
    moves: Option<u32>,
    /// What no group here holds to.
    lacks: Lacks,
    /// A group may do without a limit that is refused.
    takes_less: bool,
}

impl Place {
    /// Looks where groups can be made; changes nothing.
    ///
    /// # Errors
    /// [`Error::Groups`]: nowhere, and why.
    pub fn find(wanted: &Wanted) -> Result<Self, Error> {
        let found = System::read().and_then(|system| Self::find_in(&system, wanted));
        found.map_err(|error| of_wanted(wanted, error))
    }

    /// Limits of memory are what groups are for first, so that goes before everything else.
    fn find_in(system: &System, wanted: &Wanted) -> Result<Self, Error> {
        match (v2::place(system, wanted), v1::place(system, wanted)) {
            (Ok(two), Ok(one)) if !two.holds(Resource::Memory) && one.holds(Resource::Memory) => {
                Ok(one)
            }
            (Ok(place), _) | (Err(_), Ok(place)) => Ok(place),
            (Err(two), Err(one)) => {
                Err(Error::Groups { why: format!("cgroup v2: {two}; cgroup v1: {one}") })
            }
        }
    }

    fn holds(&self, resource: Resource) -> bool {
        self.bases.iter().any(|base| base.holds.contains(&resource))
    }

    /// Makes the group `name` to make others in, and ends what is left in it. Takes as long as
    /// processes take to be killed.
    ///
    /// # Errors
    /// [`Error::Groups`]: the kernel refuses it, or what was left does not go.
    pub fn open(self, name: &str) -> Result<Groups, Error> {
        check_name(name)?;
        if self.version == Version::V2 {
            v2::make_room(&self.bases[0].path, self.moves, &self.missing)?;
        }
        let mut parents = Vec::with_capacity(self.bases.len());
        for Dir { path, holds } in self.bases {
            let path = path.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::group("make", &path)(error));
                }
                _ => parents.push(Dir { path, holds }),
            }
        }
        for parent in &parents {
            match self.version {
                Version::V1 => v1::open(parent)?,
                Version::V2 => v2::open(parent)?,
            }
            clear_left(&parent.path)?;
        }
        let (lacks, takes_less) = (self.lacks, self.takes_less);
        Ok(Groups { version: self.version, parents, lacks, takes_less })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&described(self.version, &self.bases, &self.lacks))
    }
}

/// Says of a group that was named that it was meant.
fn of_wanted(wanted: &Wanted, error: Error) -> Error {
    match (wanted, error) {
        (Wanted::Named(group), Error::Groups { why }) => {
            let why = format!("none can be made below {}: {why}", group.display());
            Error::Groups { why }
        }
        (_, error) => error,
    }
}

/// Says what is held to, how and where; then what is not, and why.
fn described(version: Version, dirs: &[Dir], lacks: &[(Resource, String)]) -> String {
    let held = [Resource::Memory, Resource::Processors, Resource::Tasks]
        .into_iter()
        .filter(|resource| dirs.iter().any(|dir| dir.holds.contains(resource)));
    let held: Vec<&str> = held.map(Resource::name).collect();
    // That of memory, if there are several.
    let first = dirs.iter().find(|dir| dir.holds.contains(&Resource::Memory));
    let path = first.or_else(|| dirs.first()).map(|dir| dir.path.display().to_string());
    let version = if version == Version::V1 { 1 } else { 2 };
    let mut text =
        format!("{} by cgroup v{version} at {}", held.join(", "), path.unwrap_or_default());
    for (resource, why) in lacks {
        // Writing to a string cannot fail.
        write!(text, "; not {}: {why}", resource.name()).unwrap_or_default();
    }
    text
}

/// Ends what is left in groups of processes whose caller is gone.
fn clear_left(parent: &Path) -> Result<(), Error> {
    let failed = |error| Error::group("look into", parent)(error);
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir && entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            files::clear(&entry.path()).map_err(Error::group("empty", &entry.path()))?;
        }
    }
    Ok(())
}

/// A name that is no path, no file of the kernel's (they have a dot) and not the caller's own.
fn check_name(name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 200 || name == CALLER || !name.bytes().all(plain) {
        return Err(Error::Groups { why: format!("{name:?} cannot be the name of a group") });
    }
    Ok(())
}

/// The group in which a caller makes groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    version: Version,
    parents: Vec<Dir>,
    lacks: Lacks,
    takes_less: bool,
}

impl Groups {
    /// Makes a group for one process, and ends what is in it if there is one already.
    ///
    /// # Errors
    /// [`Error::Groups`]; nothing of it is left then, or what is left goes with the next try.
    pub fn make(&self, tenant: &str, limits: &Limits) -> Result<Group, Error> {
        let name = format!("{PREFIX}{tenant}");
        check_name(&name)?;
        let lacks = self.lacks.clone();
        let mut group = Group { version: self.version, dirs: Vec::new(), lacks };
        let made = self.parents.iter().try_for_each(|parent| {
            let path = parent.path.join(&name);
            files::clear(&path).map_err(Error::group("empty", &path))?;
            fs::create_dir(&path).map_err(Error::group("make", &path))?;
            group.dirs.push(Dir { path, holds: Vec::new() });
            let dir = group.dirs.last_mut().expect("it was put there just now");
            self.limit((dir, &mut group.lacks), &parent.holds, limits)
        });
        if let Err(error) = made {
            drop(group.end());
            return Err(error);
        }
        Ok(group)
    }

    /// Sets the limits of a new group in one tree, and notes which it holds to, and which not.
    fn limit(
        &self,
        (dir, lacks): (&mut Dir, &mut Lacks),
        resources: &[Resource],
        limits: &Limits,
    ) -> Result<(), Error> {
        for &resource in resources {
            let set = match self.version {
                Version::V1 => v1::limit(&dir.path, resource, limits),
                Version::V2 => v2::limit(&dir.path, resource, limits),
            };
            match set {
                Ok(()) => dir.holds.push(resource),
                Err(Error::Groups { why }) if self.takes_less && resource != Resource::Memory => {
                    lacks.push((resource, why));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether all that is in a group can be ended. Else some of it goes on: the kernel kills no
    /// group at once (since Linux 5.14), and has no holds on processes (since 5.3) or refuses them.
    #[must_use]
    pub fn can_end(&self) -> bool {
        self.parents.iter().all(|parent| files::can_kill(&parent.path))
    }

    /// Removes what this made, if there is no group in it any more.
    pub fn close(&self) {
        for parent in &self.parents {
            // One with groups in it stays, and is emptied by the next caller of its name.
            drop(fs::remove_dir(&parent.path));
        }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&described(self.version, &self.parents, &self.lacks))
    }
}

/// One process and what it starts. Goes only by [`Group::end`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    version: Version,
    dirs: Vec<Dir>,
    lacks: Lacks,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&described(self.version, &self.dirs, &self.lacks))
    }
}

impl Group {
    /// Puts a process in. What it starts from then on is in as well; what memory it has by then is
    /// counted where it was before.
    ///
    /// # Errors
    /// [`Error::Groups`]: there is no such process, or it may not be moved. Where it was moved
    /// already, in other trees, it is in the base then, so that it outlives the group's end.
    pub fn put(&self, process: u32) -> Result<(), Error> {
        for (moved, dir) in self.dirs.iter().enumerate() {
            if let Err(error) = files::put(&dir.path, process) {
                // BASE/NAME/tenant-acme
                let bases = self.dirs[..moved].iter().filter_map(|dir| dir.path.ancestors().nth(2));
                // Who is gone, or cannot go back, ends with the group.
                bases.for_each(|base| drop(files::put(base, process)));
                return Err(error);
            }
        }
        Ok(())
    }

    /// What it has used.
    #[must_use]
    pub fn used(&self) -> Used {
        let mut used = Used::default();
        for dir in &self.dirs {
            match self.version {
                Version::V1 => v1::count(dir, &mut used),
                Version::V2 => v2::count(dir, &mut used),
            }
        }
        used
    }

    /// [`Used::memory_kills`] alone, which costs less.
    #[must_use]
    pub fn memory_kills(&self) -> Option<u64> {
        let mut dirs = self.dirs.iter().filter(|dir| dir.holds.contains(&Resource::Memory));
        dirs.find_map(|dir| match self.version {
            Version::V1 => v1::kills(dir),
            Version::V2 => v2::kills(dir),
        })
    }

    /// Whether the kernel holds it to its limit of memory.
    #[must_use]
    pub fn holds_memory(&self) -> bool {
        self.dirs.iter().any(|dir| dir.holds.contains(&Resource::Memory))
    }

    /// Its directories, in all trees.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|dir| dir.path.as_path())
    }

    /// Kills all that is in it, and removes it. Takes as long as that takes, at most some seconds.
    ///
    /// # Errors
    /// [`Error::Groups`]: something in it does not go.
    pub fn end(&self) -> Result<(), Error> {
        let mut ended = Ok(());
        for dir in &self.dirs {
            let cleared = files::clear(&dir.path).map_err(Error::group("empty", &dir.path));
            // The others are worth emptying all the same.
            ended = ended.and(cleared);
        }
        ended
    }
}

#[cfg(test)]
mod tests;
