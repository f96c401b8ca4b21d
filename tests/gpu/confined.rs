//! What drivers cannot do, in the process that has the device and in those that try kernels: tried
//! by a driver, `driver.c`, which is Mesa's with more in it.
//!
//! What it tries is tried by a node that holds nothing in as well, so that it is known to work
//! where it is not kept from working. Without Mesa or a C compiler these tests say so, and fail in
//! automation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{self, Setup};
use tempfile::TempDir;

use super::process::{kill, signal};
use super::{Bed, devices, gpu, process_of, with_device};

/// What Linux says to what is not permitted, by Landlock and by the filter of calls.
const EACCES: i32 = 13;
const EPERM: i32 = 1;

/// What the driver tries, and what comes of it where it is held in.
const TRIES: [(&str, i32); 24] = [
    ("read-passwd", EACCES),
    ("list-data", EACCES),
    ("write-data", EACCES),
    ("write-tmp", EACCES),
    ("open-memory", EACCES),
    ("socket", EPERM),
    ("connect", EPERM),
    ("unix-socket", EPERM),
    ("unix-connect", EPERM),
    ("fork", EPERM),
    ("exec", EPERM),
    ("kill-parent", EPERM),
    ("kill-itself", 0),
    ("ptrace", EPERM),
    ("read-memory", EPERM),
    ("bpf", EPERM),
    ("perf", EPERM),
    ("keyctl", EPERM),
    ("mount", EPERM),
    ("io-uring", EPERM),
    ("setns", EPERM),
    ("userfaultfd", EPERM),
    ("kexec", EPERM),
    ("write-own", 0),
];

/// Of these, what only Landlock refuses.
const BY_FILES: [&str; 5] = ["read-passwd", "list-data", "write-data", "write-tmp", "open-memory"];

/// Mesa's software driver, as its description names it.
fn mesa() -> Option<PathBuf> {
    let files = fs::read_dir("/usr/share/vulkan/icd.d").ok()?.flatten();
    let mut files = files.map(|entry| entry.path());
    let own = files.find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"))
    })?;
    let text: serde_json::Value = serde_json::from_slice(&fs::read(own).ok()?).ok()?;
    Some(text["ICD"]["library_path"].as_str()?.into())
}

/// A driver that tries things, and the description that names it. None if it cannot be made here.
struct Driver {
    folder: TempDir,
    description: PathBuf,
}

impl Driver {
    fn make(definitions: &[&str]) -> Option<Self> {
        // It says so itself if there is no Mesa.
        if !devices().contains(&"software") {
            return None;
        }
        let mesa = mesa().expect("a description of what was opened just now");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let library = folder.path().join("driver.so");
        let source = sluicebox_tests::root().join("tests/gpu/driver.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
        compiler.arg(format!("-DMESA=\"{}\"", mesa.display())).args(definitions);
        let made = compiler.arg(source).arg("-ldl").output().expect("a C compiler");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let description = folder.path().join("driver.json");
        let text = serde_json::json!({
            "file_format_version": "1.0.0",
            "ICD": { "library_path": library, "api_version": "1.3.0" },
        });
        fs::write(&description, text.to_string()).expect("a new file");
        Some(Self { folder, description })
    }

    /// As variables for the loader, old and new.
    fn variables(&self) -> [(&'static str, OsString); 2] {
        ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].map(|name| (name, self.description.clone().into()))
    }

    /// A node whose device has this driver.
    fn node(&self) -> Setup {
        let path = self.description.display();
        let line = format!("export VK_DRIVER_FILES={path} VK_ICD_FILENAMES={path}; exec \"$@\"");
        with_device("software").shell(Box::leak(line.into_boxed_str()))
    }
}

/// What the driver says came of its tries.
fn tried(said: &str) -> BTreeMap<&str, i32> {
    let line = said.lines().find_map(|line| line.split_once("tried ")).expect("it has tried");
    let tries = line.1.split_whitespace().map_while(|word| word.split_once('='));
    tries.map(|(name, error)| (name, error.parse().expect("a number"))).collect()
}

/// Whether a measure is in force; the log says if not.
fn is_in_place(measure: &str, log: &str) -> bool {
    let is_absent = log.contains(&format!("NOT held in by {measure}"));
    assert!(is_absent || log.contains(&format!("held in by {measure}")), "{measure}: {log}");
    !is_absent
}

fn all_are_refused(tried: &BTreeMap<&str, i32>, log: &str) {
    let (files, calls) = (is_in_place("landlock", log), is_in_place("seccomp", log));
    for (name, expected) in TRIES.iter().filter(|(name, _)| tried.contains_key(name)) {
        let is_in_force = if BY_FILES.contains(name) { files } else { calls };
        if is_in_force {
            assert_eq!(tried[name], *expected, "{name}: {tried:?}");
        }
    }
}

#[tokio::test]
async fn a_driver_that_was_taken_over_gets_nowhere() {
    let Some(driver) = Driver::make(&[]) else { return };
    let node = driver.node().start().await;
    // It ends trials as well, so that no kernel gets past them.
    super::apply(&node.client(), "gpu", super::GRANT).await;
    let log = node.log();
    let tried = tried(&log);
    assert_eq!(tried.len(), TRIES.len(), "{tried:?}");
    all_are_refused(&tried, &log);
    assert!(!node.home().data().join("made-by-a-driver").exists());
}

#[tokio::test]
async fn what_it_tries_works_where_it_is_not_held_in_which_is_told() {
    let Some(driver) = Driver::make(&[]) else { return };
    let node = driver.node().set("gpu.hold-in", "false").start().await;
    let client = node.client();
    super::apply(&client, "gpu", super::GRANT).await;
    let log = node.log();
    assert!(log.contains("NOT held in by anything: gpu.hold-in is false"), "{log}");
    let report = gpu(&client).await;
    let absent = &report["process"]["not-held-in-by"];
    assert_eq!(absent["anything"], "gpu.hold-in is false", "{report}");
    let tried = tried(&log);
    // Some need rights that nobody may have here; these nobody needs any for.
    for name in ["read-passwd", "list-data", "write-data", "write-tmp", "socket", "connect"] {
        assert_eq!(tried[name], 0, "{name}: {tried:?}");
    }
    for name in ["unix-connect", "fork", "exec", "kill-parent", "ptrace"] {
        assert_eq!(tried[name], 0, "{name}: {tried:?}");
    }
    assert!(node.home().data().join("made-by-a-driver").exists());
}

#[tokio::test]
async fn a_driver_in_a_trial_gets_nowhere_and_has_no_place_to_write() {
    let Some(driver) = Driver::make(&[]) else { return };
    let data = driver.folder.path().join("data");
    let own = data.join("gpu");
    fs::create_dir_all(own.join("shaders")).expect("a new directory");
    let said = trial(&driver, &own, true);
    let tried = tried(&said);
    assert_eq!(tried.len(), TRIES.len(), "{tried:?}");
    // By the same measures as the process that has the device, which says which there are.
    let bed = Bed::new(with_device("interpreter"), "").await;
    assert_eq!(bed.say("double 2").await, "4");
    let log = bed.node.log();
    let mut tries = tried.clone();
    let own_tried = tries.remove("write-own").expect("it was tried");
    all_are_refused(&tries, &log);
    if is_in_place("landlock", &log) {
        assert_eq!(own_tried, EACCES);
        assert!(!own.join("made-by-a-driver").exists());
    }
    let free = trial(&driver, &own, false);
    assert_eq!(self::tried(&free)["write-own"], 0, "{free}");
}

/// What a trial says whose driver this is, with a kernel that nothing is wrong with.
fn trial(driver: &Driver, directory: &Path, hold_in: bool) -> String {
    let orders = serde_json::json!({
        "device": "software",
        "memory_bytes_max": 1 << 30,
        "generation": 1,
        "directory": directory,
        "hold_in": hold_in,
    });
    let kernel = directory.join("kernel");
    let source = "@group(0) @binding(0) var<storage, read_write> a: array<u32>;
        @compute @workgroup_size(1) fn main() { a[0] = 1u; }";
    fs::write(&kernel, source).expect("a new file");
    let mut command = node::command(&["gpu-trial", &orders.to_string(), "main"]);
    command.envs(driver.variables()).env("MESA_SHADER_CACHE_DIR", directory.join("shaders"));
    command.stdin(fs::File::open(kernel).expect("it was written"));
    let output = command.output().expect("the program can be started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_kernel_for_which_a_driver_takes_all_memory_is_refused_and_nobody_else_notices() {
    let Some(driver) = Driver::make(&["-DGREEDY"]) else { return };
    let node = driver.node().start().await;
    let client = node.client();
    super::apply(&client, "gpu", super::GRANT).await;
    let pid = process_of(&node).await;
    // By what it took. On a machine that is busy it may be ended by the time for it before, which
    // is another refusal, and is not remembered.
    eventually("it is refused", SOON, || async {
        let said = super::say(&client, "gpu", "kernels 1").await;
        (said == "made 0 kernel.unsupported").then_some(())
    })
    .await;
    assert_eq!(process_of(&node).await, pid);
    assert_eq!(gpu(&client).await["process"]["failures"], 0);
}

#[tokio::test]
async fn one_whose_starter_of_trials_is_gone_ends_and_is_started_again() {
    if !devices().contains(&"software") {
        return;
    }
    let bed = Bed::new(with_device("software"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    let pid = process_of(&bed.node).await;
    kill(child_of(pid).expect("it has started one"));
    eventually("kernels are tried again", SOON, || async {
        (bed.say("kernels 1 7").await == "made 1").then_some(())
    })
    .await;
    assert_ne!(process_of(&bed.node).await, pid);
}

#[tokio::test]
async fn nothing_of_it_outlives_its_node() {
    if !devices().contains(&"software") {
        return;
    }
    let bed = Bed::new(with_device("software"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    let pid = process_of(&bed.node).await;
    let starter = child_of(pid).expect("it has started one");
    signal(pid, Signal::KILL);
    let is_there = || fs::read_to_string(format!("/proc/{starter}/cmdline"));
    eventually("its starter has ended", SOON, || async {
        is_there().unwrap_or_default().is_empty().then_some(())
    })
    .await;
}

/// A process that another has started.
fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let own = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>();
        (own == Ok(parent)).then_some(pid)
    });
    children.last()
}
