//! Control groups of the kernel that runs this: what a group holds its processes to, and that all
//! of it ends.
//!
//! Where no groups can be made each test says why, and looks at nothing.

#![expect(clippy::print_stdout, reason = "a test that does not look says so")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluicebox_confine::cgroup::{Group, Groups, Limits, Place, Used, Wanted};

/// Longest wait for something that takes milliseconds.
const SOON: Duration = Duration::from_secs(60);

/// Enough for a shell.
const LIMITS: Limits = Limits { memory_bytes: 64 << 20, cpu_percent: None, tasks: 32, weight: 100 };

/// The groups of one test; they go with it.
struct Made {
    name: String,
    groups: Groups,
    made: Vec<Group>,
}

impl Made {
    /// `None` where there can be none; it is said why.
    fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluicebox-test-{}-{number}", std::process::id());
        let groups = match Place::find(&Wanted::Own) {
            Ok(place) => place.open(&name).expect("it was found"),
            Err(why) => {
                println!("not looked at: {why}");
                return None;
            }
        };
        println!("{groups}");
        Some(Self { name, groups, made: Vec::new() })
    }

    fn group(&mut self, limits: Limits) -> Group {
        let group = self.groups.make("acme", &limits).expect("it can be made");
        self.made.push(group.clone());
        group
    }

    /// Whether groups here hold to it; it is said if not.
    fn holds(&self, what: &str) -> bool {
        let held = self.groups.to_string();
        let holds = held.split(" by ").next().is_some_and(|all| all.contains(what));
        if !holds {
            println!("not looked at: no limit of {what} here");
        }
        holds
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.made.iter().for_each(|group| drop(group.end()));
        self.groups.close();
    }
}

/// A line of shell that waits until it is let go, in the group by then.
fn shell(group: &Group, line: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("read go; {line}")]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
    group.put(child.id()).expect("it runs");
    child.stdin.take().expect("a pipe").write_all(b"go\n").expect("it waits");
    child
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn ended(child: &mut Child) -> ExitStatus {
    eventually("it ends", || child.try_wait().expect("a child"))
}

/// The directory of a group that has this file.
fn with(group: &Group, file: &str) -> PathBuf {
    group.directories().find(|path| path.join(file).exists()).expect(file).to_owned()
}

fn processes(dir: &Path) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|line| line.parse().expect("a number")).collect()
}

#[test]
fn who_takes_more_memory_than_the_group_has_is_ended_and_that_is_counted() {
    let Some(mut made) = Made::new().filter(|made| made.holds("memory")) else { return };
    let group = made.group(LIMITS);
    assert_eq!(group.used().memory_kills, Some(0));
    // One that holds on to its last line, which does not end.
    let status = ended(&mut shell(&group, "head -c 500000000 /dev/zero | tail -c 400000000"));
    assert!(!status.success(), "{status}");
    let used = group.used();
    assert!(used.memory_kills >= Some(1), "{used:?}");
    // The group is there as before.
    assert!(ended(&mut shell(&group, "exit 0")).success());
    assert!(group.used().memory_bytes <= Some(LIMITS.memory_bytes));
    assert!(group.holds_memory());
}

#[test]
fn a_group_gets_no_more_of_the_processors_than_it_may() {
    let Some(mut made) = Made::new().filter(|made| made.holds("processors")) else { return };
    let group = made.group(Limits { cpu_percent: Some(20), ..LIMITS });
    let spin = "while :; do :; done";
    let mut child = shell(&group, &format!("({spin}) & {spin}"));
    let used = eventually("it was kept from the processors", || {
        let used: Used = group.used();
        (used.throttled_micros > Some(500_000)).then_some(used)
    });
    let stat = fs::read_to_string(with(&group, "cpu.stat").join("cpu.stat")).expect("a file");
    let periods = stat.lines().find_map(|line| line.strip_prefix("nr_periods "));
    let periods: u64 = periods.expect("a line").parse().expect("a number");
    group.end().expect("all of it goes");
    assert!(ended(&mut child).code().is_none(), "it was killed");
    // Periods of 100 ms by the kernel's own count, not by the clock; processors hand out a few
    // milliseconds at a time, and one by one they find out that there is no more.
    let most = (periods + 2) * 20_000 * 5 / 4;
    let cpu = used.cpu_micros.expect("it is counted");
    assert!(cpu <= most, "{cpu} us in {periods} periods, at most {most}");
    println!("{cpu} us of processor time in {periods} periods, {used:?}");
}

#[test]
fn a_group_has_no_more_tasks_than_it_may() {
    let Some(mut made) = Made::new().filter(|made| made.holds("tasks")) else { return };
    let group = made.group(Limits { tasks: 8, ..LIMITS });
    let line = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; wait";
    let mut child = shell(&group, line);
    let dir = with(&group, "pids.max");
    let refused = || fs::read_to_string(dir.join("pids.events")).ok().filter(|t| *t != "max 0\n");
    eventually("more are refused", refused);
    assert!(processes(&dir).len() <= 8);
    group.end().expect("all of it goes");
    assert!(!ended(&mut child).success());
}

#[test]
fn all_that_is_in_a_group_ends_with_it_also_what_has_left_its_parent() {
    let Some(mut made) = Made::new() else { return };
    let group = made.group(LIMITS);
    let mut child = shell(&group, "(setsid sleep 1000 &) ; sleep 1000 & setsid sleep 1000");
    let first = group.directories().next().expect("a directory").to_owned();
    let all = eventually("all are there", || {
        let all = processes(&first);
        // A shell may become the last of them.
        (all.len() >= 3).then_some(all)
    });
    group.end().expect("all of it goes");
    assert!(!ended(&mut child).success());
    assert!(group.directories().all(|dir| !dir.exists()));
    let runs = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    eventually("they are gone", || (!all.iter().any(runs)).then_some(()));
    group.end().expect("what is gone is gone");
}

#[test]
fn what_a_caller_left_behind_is_ended_by_the_next_and_nothing_else_is() {
    let Some(mut made) = Made::new() else { return };
    let group = made.group(LIMITS);
    let mut left = shell(&group, "sleep 1000");
    let parent = group.directories().next().and_then(Path::parent).expect("a parent").to_owned();
    let foreign = parent.join("foreign");
    fs::create_dir(&foreign).expect("it is ours to try");
    let mut other = Command::new("/bin/sleep").arg("1000").spawn().expect("it can be started");
    fs::write(foreign.join("cgroup.procs"), other.id().to_string()).expect("it runs");
    let again = Place::find(&Wanted::Own).and_then(|place| place.open(&made.name));
    let kept = (processes(&foreign), other.try_wait().expect("a child"));
    other.kill().expect("a child of ours");
    other.wait().expect("a child of ours");
    eventually("it is empty", || fs::remove_dir(&foreign).ok());
    again.expect("it goes on where the other was");
    assert_eq!(kept, (vec![other.id()], None));
    assert!(!ended(&mut left).success());
    assert!(group.directories().all(|dir| !dir.exists()));
    // A group of a name that is taken is made anew.
    let group = made.group(LIMITS);
    let mut left = shell(&group, "sleep 1000");
    let group = made.group(LIMITS);
    assert!(!ended(&mut left).success());
    assert!(group.directories().all(|dir| processes(dir).is_empty()));
}

#[test]
fn limits_are_those_that_were_asked_for() {
    let Some(mut made) = Made::new() else { return };
    let group = made.group(Limits { cpu_percent: Some(150), ..LIMITS });
    for (files, expected) in [
        (["memory.limit_in_bytes", "memory.max"], "67108864"),
        (["pids.max", "pids.max"], "32"),
        (["cpu.cfs_quota_us", "cpu.max"], "150000"),
        (["cpu.shares", "cpu.weight"], "10"),
    ] {
        let found = group.directories().flat_map(|dir| files.map(|file| dir.join(file)));
        for file in found.filter(|file| file.exists()) {
            let text = fs::read_to_string(&file).expect("a file");
            if file.ends_with("cpu.cfs_quota_us") && text == "-1\n" {
                println!("not looked at: a group above has less of the processors");
                continue;
            }
            assert!(text.starts_with(expected), "{}: {text}", file.display());
        }
    }
}

#[test]
fn a_group_is_made_where_one_above_has_less_of_the_processors() {
    let Some(mut made) = Made::new().filter(|made| made.holds("processors")) else { return };
    let first = made.group(LIMITS);
    let above = first.directories().filter_map(Path::parent).find_map(|parent| {
        let files = [("cpu.cfs_quota_us", "10000"), ("cpu.max", "10000 100000")];
        files.into_iter().find(|(file, text)| fs::write(parent.join(file), text).is_ok())
    });
    if above.is_none() {
        println!("not looked at: the group above cannot be held to less");
        return;
    }
    let group = made.group(Limits { cpu_percent: Some(150), ..LIMITS });
    assert_eq!(group.holds_memory(), made.holds("memory"), "{group}");
    assert!(!group.to_string().contains("not processors"), "{group}");
}
