//! The process that has the device: killed, at rest, started again.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;

use super::{Bed, GRANT, devices, gpu, process_of, with_device};

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
    // It may have ended by itself.
    let _gone = kill_process(pid, signal);
}

pub(crate) fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

#[tokio::test]
async fn killed_under_load_it_loses_and_doubles_nothing() {
    for device in devices() {
        let bed = Bed::new(with_device(device), "").await;
        let client = &bed.client;
        let manifest = single("g", "gpu", GRANT).replace("best-effort", "exactly-once");
        client.apply("g", manifest).await;
        let pid = process_of(&bed.node).await;
        let mut killed = vec![pid];
        const EVENTS: u32 = 600;
        for first in (0..EVENTS).step_by(20) {
            let events: Vec<Given> = (first..first + 20)
                .map(|number| Given::new(&format!("k{}", number % 7), format!("double {number}")))
                .collect();
            client.frame("g", &frame(&events)).await.is(202);
            if first % 120 == 60 {
                let pid = process_of(&bed.node).await;
                kill(pid);
                killed.push(pid);
            }
        }
        let records = client.records("g", "outputs/reply", EVENTS as usize).await;
        let mut counts = BTreeMap::new();
        for record in &records {
            let said = sluicebox_tests::client::payload(record);
            *counts.entry(String::from_utf8(said).expect("a text")).or_insert(0) += 1;
        }
        let expected: BTreeMap<String, i32> =
            (0..EVENTS).map(|number| ((2 * number).to_string(), 1)).collect();
        assert_eq!(counts, expected, "{device}");
        let dead = client.page("g", "dead-letters", "").await.is(200).records();
        assert_eq!(dead.len(), 0, "{device}: {dead:?}");
        killed.dedup();
        assert!(killed.len() > 2, "{device}: it was killed more than once, {killed:?}");
    }
}

#[tokio::test]
async fn what_was_on_a_device_that_is_lost_is_told() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    let said = bed.say("hold 64").await;
    let handle = said.strip_prefix("handle ").expect("it was made").to_owned();
    assert_eq!(bed.say(&format!("forge {handle}")).await, "zeros 4");
    kill(process_of(&bed.node).await);
    eventually("it is told of", SOON, || async {
        (bed.say(&format!("forge {handle}")).await == "refused gpu.lost").then_some(())
    })
    .await;
    assert_eq!(bed.say("double 8").await, "16");
    let report = gpu(&bed.client).await;
    assert_eq!(
        (report["process"]["starts"].as_u64(), report["process"]["failures"].as_u64()),
        (Some(2), Some(1))
    );
}

#[tokio::test]
async fn nobody_else_notices_that_it_is_gone() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    bed.client.push("conformance-rust").await;
    bed.client.apply("e", single("e", "conformance-rust", "")).await;
    for number in 0..3 {
        // The device is in use, and so there is a process again soon.
        assert_eq!(bed.say(&format!("double {number}")).await, (2 * number).to_string());
        kill(process_of(&bed.node).await);
        for _ in 0..10 {
            assert_eq!(bed.client.call("e", "k", "ex").await.text(), "x");
        }
    }
    assert_eq!(bed.say("double 9").await, "18");
}

#[tokio::test]
async fn a_kernel_that_the_driver_dies_of_is_not_run_again() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    assert_eq!(bed.say("begin").await, "begun");
    // As a driver would die of what it is doing.
    signal(process_of(&bed.node).await, Signal::ABORT);
    eventually("the kernel is refused", SOON, || async {
        (bed.say("begin").await == "refused gpu.quarantined").then_some(())
    })
    .await;
    assert_eq!(bed.say("loop 16").await, "refused gpu.quarantined");
    // Others of the tenant's are not.
    assert_eq!(bed.say("double 3").await, "6");
}

#[tokio::test]
async fn one_that_is_stuck_is_ended_and_another_takes_its_place() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    let pid = process_of(&bed.node).await;
    signal(pid, Signal::STOP);
    // As long as it may be silent.
    eventually("it is ended", SOON * 2, || async {
        (gpu(&bed.client).await["process"]["failures"] == 1).then_some(())
    })
    .await;
    assert_eq!(bed.say("double 2").await, "4");
    assert_ne!(process_of(&bed.node).await, pid);
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_does_not_wait_for_one_that_is_stuck() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    let pid = process_of(&bed.node).await;
    signal(pid, Signal::STOP);
    bed.node.terminate();
    let Bed { node, client: _ } = bed;
    let node = std::sync::Arc::into_inner(node).expect("nobody else has it");
    let (status, _home) = node.ended().await;
    assert!(status.success(), "{status}");
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
}

#[tokio::test]
async fn it_rests_when_nobody_has_anything_and_comes_back() {
    let setup = with_device("interpreter").set("gpu.idle-time-max", "200ms");
    let bed = Bed::new(setup, "").await;
    assert_eq!(bed.say("double 1").await, "2");
    // The instance goes with its pipeline's version; the process soon after.
    bed.client.delete("pipelines/gpu").await.is(204);
    eventually("it is at rest", SOON, || async {
        (gpu(&bed.client).await["state"] == "at-rest").then_some(())
    })
    .await;
    super::apply(&bed.client, "gpu", GRANT).await;
    assert_eq!(bed.say("double 2").await, "4");
    let report = gpu(&bed.client).await;
    assert_eq!(report["process"]["failures"], 0, "{report}");
    assert!(report["process"]["starts"].as_u64() >= Some(2), "{report}");
}

#[tokio::test]
async fn a_node_that_stops_takes_it_with_it() {
    let bed = Bed::new(with_device("interpreter"), "").await;
    assert_eq!(bed.say("double 1").await, "2");
    let pid = process_of(&bed.node).await;
    drop(bed);
    // It was killed with its node, or has seen that the node is gone.
    let is_there = || std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
    eventually("it has ended", Duration::from_secs(20), || async {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (!is_there() || state.contains(") Z ")).then_some(())
    })
    .await;
}
