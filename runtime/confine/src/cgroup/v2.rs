//! The newer interface: one tree for all resources.
//!
//! Whoever passes controllers down to groups may not have processes of its own beside them, the
//! root of the tree excepted. So the base must be empty, or hold nobody but the caller, who then
//! moves into a group of its own in it. Of a service systemd makes such a base with `Delegate=yes`.
//!
//! Not used: `memory.high`, which slows down who comes near its limit, until nothing goes on and
//! nobody knows why; and `memory.oom.group`, by which a component that takes too much to compile
//! would end the tenant's process with the one that compiles it. Who ends a process ends what is
//! left in its group.

use std::path::{Path, PathBuf};

use super::system::System;
use super::{CALLER, Dir, Limits, Place, Resource, Used, Version, Wanted, files};
use crate::Error;

/// Controllers and what they hold to.
const CONTROLLERS: [(&str, Resource); 3] =
    [("memory", Resource::Memory), ("cpu", Resource::Processors), ("pids", Resource::Tasks)];

/// Over which time the limit of processors holds, in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// Which controllers a group has, and which it passes down.
const OFFERED: &str = "cgroup.controllers";
const PASSED: &str = "cgroup.subtree_control";

/// A file that every group has but the root.
const NOT_ROOT: &str = "cgroup.events";

/// Where groups can be made, or why not.
pub(super) fn place(system: &System, wanted: &Wanted) -> Result<Place, String> {
    let own = system.own(None).map(Path::new).ok_or("there is none")?;
    if !system.is_mounted(None) {
        return Err("it is not mounted".to_owned());
    }
    let group = match wanted {
        Wanted::Named(group) => group,
        // It has moved before.
        Wanted::Own if own.ends_with(CALLER) => own.parent().unwrap_or(own),
        Wanted::Own => own,
    };
    let found = system.directory(None, group).filter(|path| path.is_dir());
    let path = found.ok_or_else(|| format!("there is no group {} to be seen", group.display()))?;
    let words = |file: &str| {
        let text = files::read(&path, file);
        text.map_err(|error| format!("{} cannot be read: {error}", path.join(file).display()))
    };
    let (offered, passed) = (words(OFFERED)?, words(PASSED)?);
    let has = |text: &str, name: &str| text.split_ascii_whitespace().any(|word| word == name);
    let (held, lacking): (Vec<_>, Vec<_>) =
        CONTROLLERS.into_iter().partition(|(name, _)| has(&offered, name));
    if held.is_empty() {
        return Err(format!("{} has none of the controllers memory, cpu, pids", path.display()));
    }
    let missing: Vec<&'static str> =
        held.iter().map(|(name, _)| *name).filter(|name| !has(&passed, name)).collect();
    files::may_write(&path)?;
    may_move(system, (own, group), &path)?;
    let moves = if missing.is_empty() { None } else { room(system, &path)? };
    let lack =
        |(name, resource)| (resource, format!("{} has no controller {name}", path.display()));
    let lacks = lacking.into_iter().map(lack).collect();
    let held = held.into_iter().map(|(_, resource)| resource);
    // Time of processors is counted in every group.
    let holds = held.chain([Resource::Account]).collect();
    let bases = vec![Dir { path: path.clone(), holds }];
    let takes_less = *wanted == Wanted::Own;
    Ok(Place { version: Version::V2, bases, missing, moves, lacks, takes_less })
}

/// Whether controllers can be passed down from a group; gives the caller's number if it has to
/// leave the group first.
fn room(system: &System, group: &Path) -> Result<Option<u32>, String> {
    files::may_write(&group.join(PASSED))?;
    if !group.join(NOT_ROOT).exists() {
        return Ok(None);
    }
    let inside = files::read(group, files::PROCESSES)
        .map_err(|error| format!("{} is not to be read: {error}", group.display()))?;
    // Those that cannot be seen from here are in the way as well; each is a 0.
    let is_own = |line: &&str| line.parse::<u32>() == Ok(system.process);
    let (own, others): (Vec<&str>, Vec<&str>) = inside.lines().partition(is_own);
    if !others.is_empty() {
        return Err(format!(
            "{} has other processes in it ({}), so that it cannot limit groups below it",
            group.display(),
            others.len()
        ));
    }
    Ok((!own.is_empty()).then_some(system.process))
}

/// Whoever moves a process must be able to write to the group that has both ends of the way.
fn may_move(system: &System, (own, group): (&Path, &Path), base: &Path) -> Result<(), String> {
    let both: PathBuf = own
        .components()
        .zip(group.components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    let both = system.directory(None, &both).filter(|path| path.is_dir());
    files::may_write(&both.as_deref().unwrap_or(base).join(files::PROCESSES))
}

/// Passes controllers down from the base, and moves the caller out of the way before.
pub(super) fn make_room(
    base: &Path,
    moves: Option<u32>,
    missing: &[&'static str],
) -> Result<(), Error> {
    if let Some(process) = moves {
        let own = base.join(CALLER);
        match std::fs::create_dir(&own) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::group("make", &own)(error));
            }
            _ => files::put(&own, process)?,
        }
    }
    pass(base, missing)
}

/// Lets the groups below a parent have all that the parent holds to.
pub(super) fn open(parent: &Dir) -> Result<(), Error> {
    let held = CONTROLLERS.into_iter().filter(|(_, resource)| parent.holds.contains(resource));
    pass(&parent.path, &held.map(|(name, _)| name).collect::<Vec<_>>())
}

fn pass(group: &Path, controllers: &[&str]) -> Result<(), Error> {
    if controllers.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    files::write(group, PASSED, &all.join(" "))
}

/// Sets a limit of a new group.
pub(super) fn limit(group: &Path, resource: Resource, limits: &Limits) -> Result<(), Error> {
    let write = |file, text: &str| files::write(group, file, text);
    match resource {
        Resource::Memory => {
            write("memory.max", &limits.memory_bytes.to_string())?;
            // Absent where the kernel does not swap.
            drop(write("memory.swap.max", "0"));
        }
        Resource::Processors => {
            write("cpu.weight", &limits.weight.to_string())?;
            if let Some(percent) = limits.cpu_percent {
                let micros = PERIOD_MICROS / 100 * u64::from(percent);
                write("cpu.max", &format!("{micros} {PERIOD_MICROS}"))?;
            }
        }
        Resource::Tasks => write("pids.max", &limits.tasks.to_string())?,
        Resource::Account => {}
    }
    Ok(())
}

/// Adds what the kernel tells.
pub(super) fn count(dir: &Dir, used: &mut Used) {
    let number = |file, name| files::number(&dir.path, file, name);
    if dir.holds.contains(&Resource::Memory) {
        let all = number("memory.current", "");
        let unused = number("memory.stat", "inactive_file").unwrap_or(0);
        used.memory_bytes = all.map(|all| all.saturating_sub(unused));
        used.memory_kills = kills(dir);
    }
    used.cpu_micros = number("cpu.stat", "usage_usec");
    used.throttled_micros = number("cpu.stat", "throttled_usec");
}

/// Processes that were killed for want of memory.
pub(super) fn kills(dir: &Dir) -> Option<u64> {
    files::number(&dir.path, "memory.events", "oom_kill")
}
