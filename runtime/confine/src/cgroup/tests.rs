//! Groups in a tree of plain files that is laid out as the kernel lays out its own: which are
//! found, what is written where. What the kernel makes of it is looked at in `tests/groups.rs`.

use std::fs;

use tempfile::TempDir;

use super::*;

const LIMITS: Limits =
    Limits { memory_bytes: 1 << 30, cpu_percent: Some(150), tasks: 99, weight: 250 };

/// A machine with one tree of v2, of which the process is in `/srv`.
struct Machine {
    root: TempDir,
    own: &'static str,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap(), own: "/srv" };
        machine.group("srv", "cpuset cpu io memory pids", "", "7\n");
        // The root has no such file.
        fs::write(machine.at("cgroup.procs"), "1\n2\n").unwrap();
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn group(&self, path: &str, offered: &str, passed: &str, processes: &str) {
        let at = self.at(path);
        fs::create_dir_all(&at).unwrap();
        let files = [
            ("cgroup.events", "populated 1\n"),
            ("cgroup.controllers", offered),
            ("cgroup.subtree_control", passed),
            ("cgroup.procs", processes),
        ];
        files.into_iter().for_each(|(file, text)| fs::write(at.join(file), text).unwrap());
    }

    fn says(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| error.to_string())
    }

    fn find(&self, wanted: &Wanted) -> Result<Place, Error> {
        let root = self.root.path().display();
        let mounts = format!("41 31 0:38 / {root} rw,relatime - cgroup2 cgroup2 rw\n");
        Place::find_in(&System::parse(&format!("0::{}\n", self.own), &mounts, 7), wanted)
    }

    #[track_caller]
    fn refuses(&self, wanted: &Wanted, words: &str) {
        let error = self.find(wanted).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!self.at("srv/sluicebox-node").exists(), "looking changes nothing");
    }
}

#[test]
fn a_process_alone_in_its_group_moves_into_one_below_and_limits_those_beside_it() {
    let machine = Machine::new();
    let place = machine.find(&Wanted::Own).unwrap();
    assert!(place.to_string().starts_with("memory, processors, tasks by cgroup v2 at /"));
    let groups = place.open("sluicebox-1-2").unwrap();
    assert_eq!(machine.says("srv/sluicebox-node/cgroup.procs"), "7");
    for passes in ["srv", "srv/sluicebox-1-2"] {
        let passed = machine.says(&format!("{passes}/cgroup.subtree_control"));
        assert_eq!(passed, "+memory +cpu +pids", "{passes}");
    }
    let group = groups.make("acme", &LIMITS).unwrap();
    group.put(4711).unwrap();
    for (file, expected) in [
        ("memory.max", "1073741824"),
        ("memory.swap.max", "0"),
        ("cpu.max", "150000 100000"),
        ("cpu.weight", "250"),
        ("pids.max", "99"),
        ("cgroup.procs", "4711"),
    ] {
        assert_eq!(machine.says(&format!("srv/sluicebox-1-2/tenant-acme/{file}")), expected);
    }
    assert!(group.holds_memory());
}

#[test]
fn what_has_moved_before_or_may_stay_is_left_where_it_is() {
    let mut machine = Machine::new();
    machine.group("srv", "cpu memory pids", "cpu memory pids", "");
    machine.group("srv/sluicebox-node", "", "", "7\n");
    machine.own = "/srv/sluicebox-node";
    machine.find(&Wanted::Own).unwrap().open("n").unwrap();
    assert_eq!(machine.says("srv/cgroup.subtree_control"), "cpu memory pids", "it was right");
    assert!(machine.at("srv/n").is_dir());
    // The root may have processes and pass controllers down all the same.
    let machine = Machine { own: "/", ..Machine::new() };
    fs::write(machine.at("cgroup.controllers"), "memory pids").unwrap();
    fs::write(machine.at("cgroup.subtree_control"), "memory").unwrap();
    let place = machine.find(&Wanted::Own).unwrap();
    let lacks =
        format!("; not processors: {} has no controller cpu", machine.root.path().display());
    assert!(place.to_string().ends_with(&lacks), "{place}");
    place.open("n").unwrap();
    assert_eq!(machine.says("cgroup.subtree_control"), "+pids", "what is missing");
    assert_eq!(machine.says("n/cgroup.subtree_control"), "+memory +pids");
}

#[test]
fn a_group_that_was_named_is_the_base_and_has_to_be_empty() {
    let machine = Machine::new();
    machine.group("given", "memory", "", "");
    let named = |path: &str| Wanted::Named(PathBuf::from(path));
    machine.find(&named("/given")).unwrap().open("n").unwrap();
    assert_eq!(machine.says("given/cgroup.subtree_control"), "+memory");
    assert!(!machine.at("given/sluicebox-node").exists(), "nobody is in the way");
    machine.refuses(&named("/none"), "there is no group /none to be seen");
    machine.refuses(&named("/given/../srv"), "there is no group /given/../srv to be seen");
    machine.group("given", "memory", "", "8\n9\n");
    machine.refuses(&named("/given"), "/given has other processes in it (2)");
    // Of another container: they have no number here.
    machine.group("given", "memory", "", "0\n0\n");
    machine.refuses(&named("/given"), "/given has other processes in it (2)");
    machine.group("srv", "memory", "", "0\n7\n");
    machine.refuses(&Wanted::Own, "/srv has other processes in it (1)");
}

#[test]
fn why_there_are_no_groups_is_said() {
    let machine = Machine::new();
    machine.group("srv", "cpu memory pids", "", "7\n8\n");
    machine.refuses(&Wanted::Own, "/srv has other processes in it (1)");
    machine.group("srv", "cpuset io", "", "7\n");
    machine.refuses(&Wanted::Own, "/srv has none of the controllers memory, cpu, pids");
    fs::remove_file(machine.at("srv/cgroup.controllers")).unwrap();
    machine.refuses(&Wanted::Own, "/srv/cgroup.controllers cannot be read");
    let nothing = Place::find_in(&System::parse("", "", 7), &Wanted::Own).unwrap_err();
    assert_eq!(
        nothing.to_string(),
        "control groups: cgroup v2: there is none; cgroup v1: there is no controller pids, there \
         is no controller memory, there is no controller cpu"
    );
}

/// A machine with trees of v1 for processors and memory, and one of v2 without either.
fn trees_of_v1() -> (TempDir, System) {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for dir in ["cpu,cpuacct/x", "memory/m", "unified"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("unified/cgroup.controllers"), "pids").unwrap();
    fs::write(at("unified/cgroup.subtree_control"), "").unwrap();
    fs::write(at("unified/cgroup.procs"), "7").unwrap();
    let mounts: String = ["cpu,cpuacct", "memory", "unified"]
        .iter()
        .map(|name| {
            let kind = if *name == "unified" { "cgroup2" } else { "cgroup" };
            let point = at(name).display().to_string();
            format!("1 1 0:1 / {point} rw - {kind} {kind} rw,{name}\n")
        })
        .collect();
    let system = System::parse("3:cpu,cpuacct:/x\n2:memory:/m\n1:pids:/\n0::/\n", &mounts, 7);
    (root, system)
}

#[test]
fn trees_of_v1_are_each_used_for_what_they_hold_to() {
    let (root, system) = trees_of_v1();
    let says = |path: &str| {
        fs::read_to_string(root.path().join(path)).unwrap_or_else(|error| error.to_string())
    };
    // A tree of v2 without a limit of memory gives way.
    let place = Place::find_in(&system, &Wanted::Own).unwrap();
    let said = place.to_string();
    assert!(said.starts_with("memory, processors by cgroup v1 at ") && said.contains("/memory/m"));
    assert!(said.ends_with("; not tasks: controller pids is not mounted"), "{said}");
    let group = place.open("n").unwrap().make("acme", &LIMITS).unwrap();
    group.put(11).unwrap();
    for (file, expected) in [
        ("memory/m/n/tenant-acme/memory.limit_in_bytes", "1073741824"),
        ("memory/m/n/tenant-acme/memory.memsw.limit_in_bytes", "1073741824"),
        ("memory/m/n/tenant-acme/cgroup.procs", "11"),
        ("cpu,cpuacct/x/n/tenant-acme/cpu.shares", "2560"),
        ("cpu,cpuacct/x/n/tenant-acme/cpu.cfs_quota_us", "150000"),
        ("cpu,cpuacct/x/n/tenant-acme/cpu.cfs_period_us", "100000"),
        ("cpu,cpuacct/x/n/tenant-acme/cgroup.procs", "11"),
    ] {
        assert_eq!(says(file), expected, "{file}");
    }
}

#[test]
fn a_process_that_does_not_get_into_all_trees_goes_back_where_it_did() {
    let (root, system) = trees_of_v1();
    let at = |path: &str| root.path().join(path);
    let groups = Place::find_in(&system, &Wanted::Own).unwrap().open("n").unwrap();
    let group = groups.make("acme", &LIMITS).unwrap();
    // Memory comes first, so that it is in there when this refuses it.
    fs::create_dir(at("cpu,cpuacct/x/n/tenant-acme/cgroup.procs")).unwrap();
    let error = group.put(11).unwrap_err().to_string();
    assert!(error.contains("cpu,cpuacct/x/n/tenant-acme/cgroup.procs"), "{error}");
    assert_eq!(fs::read_to_string(at("memory/m/cgroup.procs")).unwrap(), "11");
    assert!(!at("cpu,cpuacct/x/cgroup.procs").exists(), "it never left");
}

#[test]
fn a_limit_that_is_refused_is_done_without_unless_it_is_memory_or_a_group_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let all = [Resource::Memory, Resource::Processors, Resource::Tasks, Resource::Account];
    let limit = |takes_less| {
        let (version, parents, lacks) = (Version::V2, Vec::new(), Vec::new());
        let groups = Groups { version, parents, lacks, takes_less };
        let mut group = Dir { path: path.clone(), holds: Vec::new() };
        let mut lacks = Vec::new();
        let set = groups.limit((&mut group, &mut lacks), &all, &LIMITS);
        set.map(|()| described(version, &[group], &lacks))
    };
    // A folder cannot be written to.
    fs::create_dir(path.join("pids.max")).unwrap();
    let held = limit(true).unwrap();
    assert!(held.starts_with("memory, processors by cgroup v2 at /"), "{held}");
    assert!(held.contains("; not tasks: cannot write to /"), "{held}");
    fs::remove_file(path.join("cpu.weight")).unwrap();
    fs::create_dir(path.join("cpu.weight")).unwrap();
    let held = limit(true).unwrap();
    assert!(held.starts_with("memory by ") && held.contains("; not processors: "), "{held}");
    assert_eq!(fs::read_to_string(path.join("memory.max")).unwrap(), "1073741824");
    assert!(limit(false).is_err());
    fs::remove_file(path.join("memory.max")).unwrap();
    fs::create_dir(path.join("memory.max")).unwrap();
    assert!(limit(true).unwrap_err().to_string().contains("memory.max"));
}

#[test]
fn a_group_that_was_named_is_in_what_is_said_whatever_was_wrong() {
    let error = || Error::Groups { why: "nothing is mounted".to_owned() };
    let named = of_wanted(&Wanted::Named(PathBuf::from("/a/b")), error()).to_string();
    assert_eq!(named, "control groups: none can be made below /a/b: nothing is mounted");
    assert_eq!(of_wanted(&Wanted::Own, error()).to_string(), error().to_string());
}

#[test]
fn what_a_group_used_is_read_and_nonsense_is_nothing() {
    let machine = Machine::new();
    let groups = machine.find(&Wanted::Own).unwrap().open("n").unwrap();
    let group = groups.make("acme", &LIMITS).unwrap();
    assert_eq!(group.used(), Used::default());
    let write =
        |file: &str, text: &str| fs::write(machine.at("srv/n/tenant-acme").join(file), text);
    write("memory.current", "5000\n").unwrap();
    write("memory.stat", "anon 1\nactive_file 9\ninactive_file 4000\n").unwrap();
    write("memory.events", "oom 3\noom_kill 2\n").unwrap();
    write("cpu.stat", "usage_usec 70\nthrottled_usec 9\n").unwrap();
    let used = Used {
        memory_bytes: Some(1000),
        cpu_micros: Some(70),
        throttled_micros: Some(9),
        memory_kills: Some(2),
    };
    assert_eq!(group.used(), used);
    for file in ["memory.current", "memory.stat", "memory.events", "cpu.stat"] {
        write(file, "\0\u{7f}oom_kill -1\nusage_usec\n9e9\n").unwrap();
    }
    assert_eq!(group.used(), Used::default());
}

#[test]
fn a_name_is_no_path_and_no_file_of_the_kernel_s() {
    let machine = Machine::new();
    for name in ["", "..", "a/b", "memory.max", "sluicebox-node", "a b", "ä"] {
        assert!(machine.find(&Wanted::Own).unwrap().open(name).is_err(), "{name}");
    }
    let groups = machine.find(&Wanted::Own).unwrap().open("n").unwrap();
    for name in ["../x", "x/../../y", "a.b"] {
        assert!(groups.make(name, &LIMITS).is_err(), "{name}");
    }
}
