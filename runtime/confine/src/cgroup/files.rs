//! Files of control groups: reading and writing them, and emptying a group.
//!
//! Keeps true: no more is read than such a file can hold. A process is killed by a hold on it that
//! was taken before its membership was seen, so that a number that was given to another meanwhile
//! hits nobody.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::Error;

/// Bytes of one file: numbers of a few tens of thousands of processes.
const BYTES_MAX: u64 = 1 << 20;

/// How long a group may take to be empty after all in it was killed, and between two looks.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(2);

/// How deep groups may be that something in a group has made there; none should be.
const DEPTH_MAX: usize = 8;

/// The processes of a group; who writes a number to it is moved.
pub(super) const PROCESSES: &str = "cgroup.procs";

/// Kills all that is in a group, also in those within it; only newer kernels have it, in v2.
const KILL: &str = "cgroup.kill";

/// What a file says.
pub(super) fn read(group: &Path, file: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(group.join(file))?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn write(group: &Path, file: &str, text: &str) -> Result<(), Error> {
    try_write(group, file, text).map_err(Error::group("write to", &group.join(file)))
}

/// The same, for who looks at what the kernel says to it.
pub(super) fn try_write(group: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::write(group.join(file), text)
}

pub(super) fn put(group: &Path, process: u32) -> Result<(), Error> {
    if process == 0 {
        // The kernel would take it for who writes.
        return Err(Error::Groups { why: "there is no process 0 to put into a group".to_owned() });
    }
    write(group, PROCESSES, &process.to_string())
}

/// The number in a line `name number` of a file; of a file with one number, `name` is empty.
pub(super) fn number(group: &Path, file: &str, name: &str) -> Option<u64> {
    number_in(&read(group, file).ok()?, name)
}

fn number_in(text: &str, name: &str) -> Option<u64> {
    let behind = |line: &str| match name {
        "" => line.trim().parse().ok(),
        _ => line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok(),
    };
    text.lines().find_map(behind)
}

/// The numbers of the processes in a group; those that cannot be seen from here have none.
pub(super) fn processes(group: &Path) -> io::Result<BTreeSet<u32>> {
    let text = read(group, PROCESSES)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|number| *number != 0).collect())
}

/// Whether the process may make groups in a group, or write to one of its files.
///
/// # Errors
/// Why not, in words.
pub(super) fn may_write(path: &Path) -> Result<(), String> {
    access(path, Access::WRITE_OK).map_err(|errno| {
        format!("{} cannot be written to: {}", path.display(), io::Error::from(errno))
    })
}

/// Kills all that is in a group and removes it, with groups that were made in it. One that is not
/// there is as good.
pub(super) fn clear(group: &Path) -> io::Result<()> {
    clear_until(group, DEPTH_MAX, Instant::now() + PATIENCE)
}

fn clear_until(group: &Path, depth: usize, end: Instant) -> io::Result<()> {
    loop {
        match fs::remove_dir(group) {
            // It is a group, and something is in it.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if depth == 0 || Instant::now() >= end {
                    return Err(error);
                }
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => return Ok(()),
        }
        kill(group);
        let inner = fs::read_dir(group).into_iter().flatten().filter_map(Result::ok);
        for entry in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            // Whether it went is seen by the group itself.
            drop(clear_until(&entry.path(), depth - 1, end));
        }
        sleep(PAUSE);
    }
}

/// Whether what is in a group can be killed: at once, or by a hold on each process.
pub(super) fn can_kill(group: &Path) -> bool {
    group.join(KILL).exists() || pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
}

fn kill(group: &Path) {
    // One call for all of them, where there is such a file.
    let all = group.join(KILL);
    if all.exists() && fs::write(all, "1").is_ok() {
        return;
    }
    // Else those that are killed must not be replaced meanwhile.
    let tasks = group.join("pids.max");
    if tasks.exists() {
        drop(fs::write(tasks, "0"));
    }
    let Ok(seen) = processes(group) else { return };
    let hold = |number: u32| {
        let process = Pid::from_raw(i32::try_from(number).ok()?)?;
        Some((number, pidfd_open(process, PidfdFlags::empty()).ok()?))
    };
    let held: Vec<_> = seen.into_iter().filter_map(hold).collect();
    let Ok(still) = processes(group) else { return };
    for (_, process) in held.iter().filter(|(number, _)| still.contains(number)) {
        // Who is gone by now need not be killed.
        let _gone = pidfd_send_signal(process, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_that_of_its_line_and_nothing_else_is_one() {
        let text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(number_in(text, "oom"), Some(2));
        assert_eq!(number_in(text, "oom_kill"), Some(3));
        assert_eq!((number_in(text, "kill"), number_in(text, "")), (None, None));
        assert_eq!(number_in("18446744073709551615\n", ""), Some(u64::MAX));
        for text in ["", "max\n", "oom", "oom -1", "oom 18446744073709551616", "oom 0x1", "\0"] {
            assert_eq!((number_in(text, "oom"), number_in(text, "")), (None, None), "{text:?}");
        }
    }

    #[test]
    fn a_file_without_end_is_read_to_a_bound() {
        let text = read(Path::new("/dev"), "zero").unwrap();
        assert_eq!(text.len() as u64, BYTES_MAX);
    }

    #[test]
    fn what_is_no_group_is_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("file");
        fs::write(&inside, "").unwrap();
        assert!(clear(dir.path()).is_err() && inside.exists());
        clear(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn who_writes_is_not_put_in_in_place_of_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(put(dir.path(), 0).is_err() && !dir.path().join(PROCESSES).exists());
        put(dir.path(), 7).unwrap();
        assert_eq!(processes(dir.path()).unwrap(), BTreeSet::from([7]));
    }

    #[test]
    fn groups_within_a_group_go_with_it_by_the_call_that_kills_all() {
        let name = format!("sluicebox-test-{}", std::process::id());
        // Nor where the kernel says nothing of groups.
        let system = super::super::System::read().ok();
        let own =
            system.as_ref().and_then(|system| system.directory(None, Path::new(system.own(None)?)));
        let Some(group) = own.map(|own| own.join(name)).filter(|dir| fs::create_dir(dir).is_ok())
        else {
            println!("not looked at: no group can be made in a tree of v2");
            return;
        };
        let inner = group.join("inner");
        fs::create_dir(&inner).unwrap();
        let mut children = [&group, &inner].map(|dir| {
            let child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
            put(dir, child.id()).unwrap();
            child
        });
        assert_eq!(processes(&inner).unwrap(), BTreeSet::from([children[1].id()]));
        clear(&group).unwrap();
        assert!(!group.exists());
        assert!(children.iter_mut().all(|child| !child.wait().unwrap().success()));
    }
}
