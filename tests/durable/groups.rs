//! Control groups of tenants' processes: memory and processors are held to from outside, the
//! kernel is who says why a process ended, and nothing of it is left.
//!
//! Where this machine lets nobody make groups, the node says so, each test passes that on, and
//! looks at what a process is held to by itself.

#![expect(clippy::print_stderr, reason = "a test that does not look says so")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup, refused};

use super::processes::{deploy, isolated, processes, send, until_processes, until_results};

/// A node whose tenants all have processes in groups, where there can be any.
fn setup() -> Setup {
    Setup::tenants(&["acme", "other"])
        .set("isolation.processes", "true")
        .set("isolation.cgroup", "auto")
}

/// The process of acme, the only one there is, and the directories of its group.
async fn only(node: &Node) -> (Pid, Vec<PathBuf>) {
    let pid = until_processes(node, 1).await[0];
    (pid, groups_of(pid))
}

/// The directories of the groups a process is in, by what is mounted.
fn groups_of(pid: Pid) -> Vec<PathBuf> {
    let read = |path: String| fs::read_to_string(path).expect("it runs");
    let mounts = read("/proc/self/mountinfo".to_owned());
    let place = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let of_tenant = Path::new(path).file_name()?.to_str()?.starts_with("tenant-");
        mounts.lines().filter(|_| of_tenant).find_map(|mount| {
            let (at, kind) = mount.split_once(" - ")?;
            let at: Vec<&str> = at.split(' ').collect();
            let is_it = match controllers {
                "" => kind.starts_with("cgroup2 "),
                _ => {
                    // Several may have one tree, and it may be told with further words.
                    let has = |one: &str| kind.rsplit([',', ' ']).any(|word| word == one);
                    kind.starts_with("cgroup ") && controllers.split(',').all(has)
                }
            };
            let below = Path::new(path).strip_prefix(at[3]).ok().filter(|_| is_it)?;
            Some(Path::new(at[4]).join(below))
        })
    };
    read(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).lines().filter_map(place).collect()
}

/// Whether the process is held to it by a group that has this file, of v1 or v2; passes on the
/// reason if not.
fn held(node: &Node, groups: &[PathBuf], files: [&str; 2]) -> Option<PathBuf> {
    let mut all = groups.iter().flat_map(|group| files.map(|file| group.join(file)));
    let found = all.find(|file| file.exists());
    if found.is_none() {
        let log = node.log();
        let why = log.lines().find(|line| line.contains("held in by cgroup"));
        eprintln!("not looked at: {}", why.unwrap_or("no group holds to this"));
        assert!(why.is_some(), "{log}");
        assert!(log.contains("held in by limits: "), "{log}");
    }
    found
}

fn number(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).expect("a file of the group");
    let behind = |line: &str| match name {
        "" => line.trim().parse().ok(),
        _ => line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok(),
    };
    text.lines().find_map(behind).unwrap_or_else(|| panic!("{name}: {text}"))
}

/// A figure of acme's process, as the front counts it.
async fn figure(client: &Client, name: &str) -> f64 {
    let figures = client.plain("/metrics").await;
    let name = format!("sluicebox_process_{name}");
    let value = figures.text().lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// Lets a node end in order, so that it leaves no groups.
async fn end(node: Node) {
    node.terminate();
    let (status, _home) = node.ended().await;
    assert!(status.success(), "{status:?}");
}

/// A pipeline that takes all the memory it can get.
async fn deploy_hog(client: &Client) {
    client.push("hostile/grow-one").await;
    client.apply("grow", single("grow", "grow-one", "limits = { memory = \"1GiB\" }")).await;
}

#[tokio::test]
async fn a_process_beyond_its_memory_is_ended_alone_and_its_tenant_is_told_why() {
    let node = setup().set("isolation.memory-bytes-max", "512MiB").start().await;
    let (acme, other) = (node.tenant("acme"), node.tenant("other"));
    deploy(&acme).await;
    deploy_hog(&acme).await;
    send(&acme, 1).await;
    let (pid, groups) = only(&node).await;
    let files = ["memory.limit_in_bytes", "memory.max"];
    let Some(limit) = held(&node, &groups, files) else { return end(node).await };
    assert_eq!(number(&limit, ""), 512 << 20);
    deploy(&other).await;
    let kept = until_processes(&node, 2).await.into_iter().find(|one| *one != pid);
    // Nearly all is used, so that what comes next is beyond it; what it is refused by itself, half
    // a gigabyte later, is another test's.
    let uses = figure(&acme, "resident_bytes{tenant=\"acme\"}").await as u64;
    assert!(uses > 1 << 20, "{uses}");
    fs::write(&limit, (uses + (16 << 20)).to_string()).expect("it may be less");
    let reply = acme.call("grow", "k", "x").await.problem(503, "tenant.process");
    let why = reply["detail"].as_str().unwrap_or_default();
    assert!(why.contains("used more memory than it may, and was ended"), "{reply:#}");
    // It comes back with all that was taken, and with all its memory.
    send(&acme, 2).await;
    until_results(&acme, 2).await;
    send(&other, 1).await;
    until_results(&other, 1).await;
    let now = until_processes(&node, 2).await;
    assert!(now.contains(&kept.expect("the other's")) && !now.contains(&pid), "{now:?}");
    let again = now.into_iter().find(|one| Some(*one) != kept).expect("acme's");
    let limit = held(&node, &groups_of(again), files).expect("as before");
    assert_eq!(number(&limit, ""), 512 << 20);
    assert_eq!(figure(&acme, "ends_total{tenant=\"acme\",why=\"memory\"}").await, 1.0);
    assert_eq!(figure(&acme, "ends_total{tenant=\"acme\",why=\"failed\"}").await, 0.0);
    assert!(figure(&acme, "memory_kills_total{tenant=\"acme\"}").await >= 1.0);
    let log = node.log();
    assert!(log.contains("the tenant's process used more memory than it may"), "{log}");
    end(node).await;
}

#[tokio::test]
async fn a_guest_that_takes_all_it_can_get_is_refused_before_its_process_is_ended() {
    let node = setup().set("isolation.memory-bytes-max", "256MiB").start().await;
    let acme = node.tenant("acme");
    deploy_hog(&acme).await;
    let pid = until_processes(&node, 1).await[0];
    for n in 1..=3 {
        acme.send("grow", "?key=k", &[], "x").await.is(202);
        eventually("it has what it could get", SOON, || async {
            let detail = acme.describe("grow").await;
            (detail["stage"][0]["events-in"].as_u64() == Some(n)).then_some(())
        })
        .await;
    }
    assert_eq!(processes(&node), [pid]);
    assert_eq!(figure(&acme, "memory_kills_total{tenant=\"acme\"}").await, 0.0);
    let uses = figure(&acme, "resident_bytes{tenant=\"acme\"}").await;
    eprintln!("it has {} MiB", uses as u64 >> 20);
    assert!(uses < f64::from(256 << 20), "{uses}");
    end(node).await;
}

#[tokio::test]
async fn a_process_that_computes_without_end_gets_no_more_of_the_processors_than_it_may() {
    let node = setup().set("isolation.cpu-percent-max", "50").start().await;
    let acme = node.tenant("acme");
    acme.push("hostile/spin").await;
    let text = single("spin", "spin", "limits = { fuel-per-event = 500_000_000 }");
    acme.apply("spin", text.replace("partitions = 1", "partitions = 8")).await;
    let (_, groups) = only(&node).await;
    let Some(stat) = held(&node, &groups, ["cpu.cfs_quota_us", "cpu.max"]) else {
        return end(node).await;
    };
    let stat = stat.with_file_name("cpu.stat");
    let given: Vec<Given> = (0..500).map(|n| Given::new(&format!("key {n}"), "x")).collect();
    acme.frame("spin", &frame(&given)).await.is(202);
    eventually("it is kept from the processors", SOON, || async {
        (number(&stat, "nr_throttled") >= 15).then_some(())
    })
    .await;
    // First the time, then the periods in which it was used. The kernel counts both, and no clock
    // is asked. Processors are handed out a few milliseconds at a time, and each finds out for
    // itself that there are no more.
    let used = figure(&acme, "used_seconds{tenant=\"acme\"}").await;
    let periods = number(&stat, "nr_periods") as f64;
    eprintln!("{used} s of processor time in {periods} periods of 100 ms");
    assert!(used > 0.0 && used <= (periods + 2.0) * 0.05 * 1.5, "{used} s in {periods} periods");
    assert!(figure(&acme, "throttled_seconds{tenant=\"acme\"}").await > 0.0);
    // What is at hand takes longer than a test.
    drop(node.kill());
    for group in groups {
        eventually("its processes end with it", SOON, || async { fs::remove_dir(&group).ok() })
            .await;
        fs::remove_dir(group.parent().expect("it has one")).expect("nothing else is in it");
    }
}

#[tokio::test]
async fn what_a_process_leaves_ends_with_it_and_what_a_node_leaves_with_the_next() {
    let node = setup().start().await;
    deploy(&node.tenant("acme")).await;
    let (pid, groups) = only(&node).await;
    let Some(procs) = held(&node, &groups, ["cgroup.procs"; 2]) else {
        return end(node).await;
    };
    // As if it had been started there and had left its parent.
    let stray = |procs: &Path| {
        let child = Command::new("/bin/sleep").arg("1000").spawn().expect("it can be started");
        fs::write(procs, child.id().to_string()).expect("it runs");
        child
    };
    let mut first = stray(&procs);
    isolated(node.home(), "acme", "shared");
    until_processes(&node, 0).await;
    assert!(!first.wait().expect("a child").success(), "it was killed");
    eventually("the group is gone", SOON, || async {
        groups.iter().all(|group| !group.exists()).then_some(())
    })
    .await;
    isolated(node.home(), "acme", "process");
    let acme = node.tenant("acme");
    eventually("it is back", SOON, || async {
        acme.get("pipelines").await.is(200);
        processes(&node).into_iter().find(|again| *again != pid)
    })
    .await;
    let mut second = stray(&procs);
    let again =
        Setup::as_before(&node).set("isolation.processes", "true").set("isolation.cgroup", "auto");
    drop(node.kill());
    assert!(procs.exists() && second.try_wait().expect("a child").is_none());
    let node = again.start().await;
    assert!(!second.wait().expect("a child").success(), "it was killed");
    node.tenant("acme").get("pipelines").await.is(200);
    let (_, groups) = only(&node).await;
    assert!(!groups.is_empty());
    end(node).await;
    let parents = groups.iter().filter_map(|group| group.parent());
    assert!(parents.clone().all(|parent| !parent.exists()), "{:?}", parents.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_group_is_named_after_its_tenant_in_one_that_is_named_after_its_node() {
    let node = setup().start().await;
    deploy(&node.tenant("acme")).await;
    let (_, groups) = only(&node).await;
    let Some(_) = held(&node, &groups, ["cgroup.procs"; 2]) else {
        return end(node).await;
    };
    let log = node.log();
    assert!(log.contains("held in by cgroup: memory"), "{log}");
    let data = fs::metadata(node.home().data()).expect("a directory");
    let expected = format!("sluicebox-{:x}-{:x}/tenant-acme", data.dev(), data.ino());
    assert!(groups.iter().all(|group| group.ends_with(&expected)), "{groups:?}");
    end(node).await;
}

#[tokio::test]
async fn a_node_does_not_start_without_the_group_that_was_named() {
    let setup = Setup::dev().set("isolation.cgroup", "/no/such/group");
    let refused = refused(setup.command());
    assert_eq!(refused.code, "confine.groups");
    assert!(refused.message.contains("/no/such/group"), "{}", refused.message);
}
