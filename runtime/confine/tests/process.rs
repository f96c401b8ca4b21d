//! A real process locks itself in and then tries what it should and should not be able to do.
//!
//! - Without a part to play this program is the harness: it starts itself as the process that is
//!   locked in, once as the user it runs as and, if that is root, once as nobody.
//! - What was tried comes back as lines, `name=ok` or `name=` and the refusal; each test looks at
//!   those of one behaviour.
//! - A measure that this kernel lacks has a reason in its row, and the tests that need it say that
//!   they did not look.

#![expect(clippy::print_stdout, reason = "lines are how the parts talk, and a harness reports")]

#[path = "process/drivers.rs"]
mod drivers;
#[path = "process/inside.rs"]
mod inside;
#[path = "process/outside.rs"]
mod outside;

use std::process::ExitCode;

use outside::Told;

/// A test and what it looks at.
type Test = (&'static str, fn(&Told));

const TESTS: &[Test] = &[
    ("every_measure_is_in_place_or_absent_with_a_reason", every_measure_has_its_row),
    ("other_files_are_not_read", other_files_are_not_read),
    ("other_files_are_not_changed", other_files_are_not_changed),
    ("the_own_directory_is_used_as_ever", the_own_directory_is_used_as_ever),
    ("nothing_in_the_own_directory_is_executed", nothing_of_its_own_is_executed),
    ("links_devices_and_modes_are_not_made", links_and_modes_are_not_made),
    ("no_socket_is_made_named_or_connected", no_socket_is_made),
    ("the_network_is_another_one", the_network_is_another_one),
    ("a_listener_that_was_handed_over_serves", a_listener_serves),
    ("threads_and_the_runtime_work_and_are_locked_in", threads_work),
    ("its_own_program_starts_again_and_is_locked_in", programs_are_locked_in),
    ("a_program_it_started_is_killed", a_program_it_started_is_killed),
    ("other_processes_are_out_of_reach", other_processes_are_out_of_reach),
    ("capabilities_are_gone", capabilities_are_gone),
    ("views_of_the_system_are_not_changed", views_are_not_changed),
    ("dumps_are_forbidden", dumps_are_forbidden),
    ("memory_above_the_limit_is_refused_not_killed", memory_is_bounded),
    ("files_above_the_limit_are_refused", open_files_are_bounded),
];

/// Parts that lock themselves in, and the tests of each.
const PARTS: &[(&str, &[Test])] = &[
    ("locked in", TESTS),
    ("drivers", drivers::TESTS),
    ("drivers without a directory", drivers::TESTS),
];

/// Tests of what cannot be locked in: name, part, and how the error begins.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("a_process_with_threads_is_refused", "two threads", "confine.threads: the process has 2"),
    ("a_directory_that_is_missing_is_refused", "no directory", "confine.path: cannot open"),
];

/// Name of all tests together.
const ALL: &str = "what_is_locked_in_can_do_its_work_and_little_else";

fn main() -> ExitCode {
    if let Some(part) = inside::part() {
        return inside::play(&part);
    }
    let mut arguments = std::env::args().skip(1);
    if std::env::args().any(|argument| argument == "--list") {
        // What a runner that starts each test by itself is told: the processes serve all tests.
        if std::env::args().all(|argument| argument != "--ignored") {
            println!("{ALL}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filter = arguments.find(|argument| !argument.starts_with('-') && argument != ALL);
    let wanted = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    let mut failed = 0;
    for (part, tests) in PARTS {
        for told in outside::told_by_all(part) {
            for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
                let passed = std::panic::catch_unwind(|| test(&told)).is_ok();
                let became = if passed { "ok" } else { "FAILED" };
                println!("test {name} as {}, {part} ... {became}", told.user);
                failed += usize::from(!passed);
            }
        }
    }
    for (name, part, expected) in REFUSALS.iter().filter(|(name, ..)| wanted(name)) {
        let said = outside::said_by(part);
        let passed = said.starts_with(expected);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        println!("  {said}");
        failed += usize::from(!passed);
    }
    println!("{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_measure_has_its_row(told: &Told) {
    for name in sluicebox_confine::MEASURES {
        let row = told.row(name);
        println!("  {name}: {row}");
        let (state, words) = row.split_once(": ").expect("state and words");
        assert!(["in place", "absent"].contains(&state) && words.len() > 3, "{name}: {row}");
    }
    // No kernel that this is built for lacks these.
    for name in ["no-new-privileges", "limits", "capabilities", "dumpable"] {
        assert!(told.in_place(name), "{name}");
    }
}

fn other_files_are_not_read(told: &Told) {
    told.works("read a file that is granted");
    for name in [
        "read /etc/passwd",
        "read a file of another tenant",
        "list the directory of another tenant",
        "read by ..",
        "read by a symbolic link",
        "read what was opened as a path",
    ] {
        told.refused(name, &["landlock"], "EACCES");
    }
}

fn other_files_are_not_changed(told: &Told) {
    for name in [
        "write a file that may be read",
        "make a file elsewhere",
        "overwrite a file of another tenant",
        "remove a file of another tenant",
        "move a file in",
    ] {
        told.refused(name, &["landlock"], "EACCES");
    }
    // The kernel answers so where the rights of two directories differ.
    told.refused("move a file out", &["landlock"], "EACCES|EXDEV");
    told.refused("link a file in", &["landlock"], "EACCES|EXDEV");
    for name in ["change the mode elsewhere", "change the times elsewhere"] {
        told.refused(name, &["seccomp"], "EPERM");
    }
}

fn the_own_directory_is_used_as_ever(told: &Told) {
    for name in [
        "make, write and read",
        "make directories",
        "move between directories",
        "link within",
        "lengthen, shorten, reserve",
        "lock",
        "sync",
        "set the times of an open file",
        "list",
        "remove",
    ] {
        told.works(name);
    }
}

fn nothing_of_its_own_is_executed(told: &Told) {
    told.refused("execute in the own directory", &["landlock"], "EACCES");
}

fn links_and_modes_are_not_made(told: &Told) {
    for name in ["make a symbolic link", "make a device", "change the mode", "change the owner"] {
        told.refused(name, &["seccomp"], "EPERM");
    }
}

fn no_socket_is_made(told: &Told) {
    for name in [
        "connect by TCP",
        "listen by TCP",
        "bind UDP",
        "connect a socket that was open",
        "bind a socket that was open",
        "connect to a socket by path",
        "connect to an abstract socket",
        "listen at a path",
        "make a socket for datagrams",
        "make a pair for datagrams",
    ] {
        told.refused(name, &["seccomp"], "EPERM");
    }
    told.works("make a pair for streams");
}

fn the_network_is_another_one(told: &Told) {
    if told.looks(&["namespaces"]) {
        assert_ne!(told.tried("which network"), outside::network());
    }
}

fn a_listener_serves(told: &Told) {
    told.works("accept and answer");
    told.works("the answer arrived");
}

fn threads_work(told: &Told) {
    told.works("start a thread");
    told.works("serve by the runtime");
    told.refused("read /etc/passwd in a thread", &["landlock"], "EACCES");
    told.refused("connect by TCP in a thread", &["seccomp"], "EPERM");
}

fn programs_are_locked_in(told: &Told) {
    told.works("start the own program");
    told.works("in the program: make, write and read");
    told.works("in the program: no capabilities");
    // Without the filter the process has made itself a user space by now, with a set of its own.
    if told.looks(&["seccomp"]) {
        no_bounding_set(told, "in the program: no bounding set");
    }
    told.refused("in the program: read /etc/passwd", &["landlock"], "EACCES");
    told.refused("in the program: connect by TCP", &["seccomp"], "EPERM");
    told.works("in the program: lock in further");
    told.refused("in the program: then make a file", &["landlock"], "EACCES");
}

fn a_program_it_started_is_killed(told: &Told) {
    if told.row("seccomp").contains("itself alone") {
        return told.refused("kill the program", &["seccomp"], "EPERM");
    }
    told.works("kill the program");
    told.works("kill a program of the runtime");
}

fn other_processes_are_out_of_reach(told: &Told) {
    told.refused("end another process", &["landlock", "seccomp"], "EPERM");
    told.works("the other process lives");
    for name in ["limit another process", "slow another process", "take a descriptor"] {
        told.refused(name, &["seccomp"], "EPERM");
    }
    told.refused("read another process's memory", &["landlock"], "EACCES");
}

fn capabilities_are_gone(told: &Told) {
    told.works("no capabilities");
    no_bounding_set(told, "no bounding set");
}

/// Who has no rights, and can have no user space, cannot empty the set; the report says so.
fn no_bounding_set(told: &Told, name: &str) {
    if told.row("capabilities").contains("the bounding set stays") {
        assert!(told.user != "root" && !told.in_place("namespaces"), "it could be emptied");
        println!("  not looked at: the bounding set stays");
    } else {
        told.works(name);
    }
}

fn views_are_not_changed(told: &Told) {
    for name in ["make a network", "make a user space", "change the root"] {
        told.refused(name, &["seccomp"], "EPERM");
    }
}

fn dumps_are_forbidden(told: &Told) {
    told.works("not dumpable");
    told.works("no core file");
}

fn memory_is_bounded(told: &Told) {
    told.works("use half of the memory");
    told.refused("use twice the memory", &["limits"], "memory");
    told.refused("raise the limit", &["limits"], "EPERM|EINVAL");
}

fn open_files_are_bounded(told: &Told) {
    told.refused("open too many files", &["limits"], "EMFILE");
}
