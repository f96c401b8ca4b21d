//! The older interface: a tree for each resource, or for some together.
//!
//! Processes and groups may share a group, so that the caller stays where it is. Swap and kills
//! for want of memory are told and limited by files that not every kernel of that age has.

use std::path::{Path, PathBuf};

use super::system::System;
use super::{Dir, Limits, Place, Resource, Used, Version, Wanted, files};
use crate::Error;

/// Controllers and what they hold to. Tasks come first: without new ones a group can be emptied.
const CONTROLLERS: [(&str, Resource); 4] = [
    ("pids", Resource::Tasks),
    ("memory", Resource::Memory),
    ("cpu", Resource::Processors),
    ("cpuacct", Resource::Account),
];

/// Over which time the limit of processors holds, in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// What weight 100 is here.
const SHARES: u64 = 1024;

/// Where groups can be made, or why not.
pub(super) fn place(system: &System, wanted: &Wanted) -> Result<Place, String> {
    let mut place = Place {
        version: Version::V1,
        bases: Vec::new(),
        missing: Vec::new(),
        moves: None,
        lacks: Vec::new(),
        takes_less: *wanted == Wanted::Own,
    };
    for (controller, resource) in CONTROLLERS {
        match base(system, wanted, controller) {
            Ok(path) => match place.bases.iter_mut().find(|dir| dir.path == path) {
                Some(dir) => dir.holds.push(resource),
                None => place.bases.push(Dir { path, holds: vec![resource] }),
            },
            // What is not counted here is counted for each process.
            Err(_) if resource == Resource::Account => {}
            Err(why) => place.lacks.push((resource, why)),
        }
    }
    let limits = |dir: &Dir| dir.holds.iter().any(|resource| *resource != Resource::Account);
    if place.bases.iter().any(limits) {
        return Ok(place);
    }
    let mut whys: Vec<String> = place.lacks.into_iter().map(|(_, why)| why).collect();
    whys.dedup();
    Err(whys.join(", "))
}

/// The base in the tree of a controller.
fn base(system: &System, wanted: &Wanted, controller: &str) -> Result<PathBuf, String> {
    let none = || format!("there is no controller {controller}");
    let own = system.own(Some(controller)).ok_or_else(none)?;
    if !system.is_mounted(Some(controller)) {
        return Err(format!("controller {controller} is not mounted"));
    }
    let group = match wanted {
        Wanted::Own => Path::new(own),
        Wanted::Named(group) => group,
    };
    let found = system.directory(Some(controller), group).filter(|path| path.is_dir());
    let path = found.ok_or_else(|| {
        format!("controller {controller} has no group {} to be seen", group.display())
    })?;
    files::may_write(&path)?;
    Ok(path)
}

/// All groups together get as much of the processors as so many threads of the caller's.
pub(super) fn open(parent: &Dir) -> Result<(), Error> {
    if !parent.holds.contains(&Resource::Processors) {
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    files::write(&parent.path, "cpu.shares", &(SHARES * threads.min(256)).to_string())
}

/// Sets a limit of a new group.
pub(super) fn limit(group: &Path, resource: Resource, limits: &Limits) -> Result<(), Error> {
    let write = |file, number: u64| files::write(group, file, &number.to_string());
    match resource {
        Resource::Memory => {
            write("memory.limit_in_bytes", limits.memory_bytes)?;
            // In this order: the sum may not be below its part. Absent where swap is not
            // counted; then nothing is swapped as long as the kernel can help it.
            if write("memory.memsw.limit_in_bytes", limits.memory_bytes).is_err() {
                drop(write("memory.swappiness", 0));
            }
        }
        Resource::Processors => {
            write("cpu.shares", SHARES * u64::from(limits.weight) / 100)?;
            if let Some(percent) = limits.cpu_percent {
                write("cpu.cfs_period_us", PERIOD_MICROS)?;
                cap(group, PERIOD_MICROS / 100 * u64::from(percent))?;
            }
        }
        Resource::Tasks => write("pids.max", limits.tasks.into())?,
        Resource::Account => {}
    }
    Ok(())
}

/// Caps the time of processors in a period.
fn cap(group: &Path, micros: u64) -> Result<(), Error> {
    const FILE: &str = "cpu.cfs_quota_us";
    match files::try_write(group, FILE, &micros.to_string()) {
        // A group above has less than that, as in a container, and this one no more than it.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        written => written.map_err(Error::group("write to", &group.join(FILE))),
    }
}

/// Adds what the kernel tells here.
pub(super) fn count(dir: &Dir, used: &mut Used) {
    let number = |file, name| files::number(&dir.path, file, name);
    for resource in &dir.holds {
        match resource {
            Resource::Memory => {
                let all = number("memory.usage_in_bytes", "");
                let unused = number("memory.stat", "total_inactive_file").unwrap_or(0);
                used.memory_bytes = all.map(|all| all.saturating_sub(unused));
                used.memory_kills = kills(dir);
            }
            Resource::Processors => {
                let nanos = number("cpu.stat", "throttled_time");
                used.throttled_micros = nanos.map(|nanos| nanos / 1000);
            }
            Resource::Account => {
                used.cpu_micros = number("cpuacct.usage", "").map(|nanos| nanos / 1000);
            }
            Resource::Tasks => {}
        }
    }
}

/// Processes that were killed for want of memory.
pub(super) fn kills(dir: &Dir) -> Option<u64> {
    files::number(&dir.path, "memory.oom_control", "oom_kill")
}
