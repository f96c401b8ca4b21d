//! Tenants in processes of their own: each ends alone, rests when it has nothing to do, comes back
//! with what it had, and may do little.
//!
//! The whole of this binary, and of `api`, runs in that way too, where `SLUICEBOX_TEST_PROCESSES`
//! is set; but for tests that look at files and figures at the places of one node.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sluicebox_tests::client::{Client, Raw, payload};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Node, Setup};

/// The processes of tenants that a node has.
pub(crate) fn processes(node: &Node) -> Vec<Pid> {
    let front = node.process().expect("the node runs").as_raw_nonzero().get().to_string();
    let all = fs::read_dir("/proc").expect("it can be read");
    let numbers = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let of_front = |pid: &i32| {
        let read = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).ok();
        let parent = read("status").and_then(|text| {
            text.lines().find_map(|l| Some(l.strip_prefix("PPid:\t")?.to_owned()))
        });
        let state = read("stat").is_some_and(|stat| !stat.contains(") Z "));
        let is_tenant = read("cmdline").is_some_and(|line| line.contains("tenant-process"));
        parent.as_deref() == Some(&front) && state && is_tenant
    };
    numbers.filter(of_front).filter_map(Pid::from_raw).collect()
}

pub(crate) async fn until_processes(node: &Node, count: usize) -> Vec<Pid> {
    eventually("so many processes of tenants", SOON, || async {
        let all = processes(node);
        (all.len() == count).then_some(all)
    })
    .await
}

/// How often the process of acme was started.
async fn starts(client: &Client) -> u64 {
    let figures = client.plain("/metrics").await;
    let name = "sluicebox_process_starts_total{tenant=\"acme\"} ";
    let value = figures.text().lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.parse().expect("a number"))
}

/// A pipeline that gives back what it gets, with a log.
pub(crate) async fn deploy(client: &Client) {
    client.push("conformance-rust").await;
    let manifest = single("kept", "conformance-rust", "").replace("best-effort", "exactly-once");
    client.apply("kept", manifest).await;
}

/// Sends an event until it is taken; numbered, so that it is taken once.
pub(crate) async fn send(client: &Client, sequence: u64) {
    let number = sequence.to_string();
    let headers = [("sluicebox-producer", "p"), ("sluicebox-sequence", number.as_str())];
    eventually("the event is taken", SOON, || async {
        let body = format!("e{sequence}");
        let reply = client.send("kept", "?key=k", &headers, body).await;
        let known = [202, 503];
        assert!(known.contains(&reply.status), "{reply:?}");
        (reply.status == 202).then_some(())
    })
    .await;
}

/// The results are those of so many events, each once and in order.
pub(crate) async fn until_results(client: &Client, count: u64) {
    let records = client.records("kept", "outputs/reply", count as usize).await;
    let texts: Vec<String> =
        records.iter().map(|one| String::from_utf8_lossy(&payload(one)).into_owned()).collect();
    let ends: Vec<bool> = (1..=count)
        .map(|n| texts.get(n as usize - 1).is_some_and(|text| text.ends_with(&n.to_string())))
        .collect();
    assert!(ends.iter().all(|end| *end) && texts.len() == count as usize, "{texts:?}");
}

pub(crate) fn isolated(home: &std::sync::Arc<Home>, tenant: &str, how: &str) {
    home.tenant(&["isolation", tenant, how]);
}

#[tokio::test]
async fn a_process_that_is_killed_ends_alone_and_loses_and_doubles_nothing() {
    let node = Setup::tenants(&["acme", "other"]).set("isolation.processes", "true").start().await;
    let (acme, other) = (node.tenant("acme"), node.tenant("other"));
    assert_eq!(processes(&node), [], "nobody has asked for anything");
    deploy(&acme).await;
    let first = until_processes(&node, 1).await[0];
    deploy(&other).await;
    let both = until_processes(&node, 2).await;
    let kept = both.into_iter().find(|pid| *pid != first).expect("another one");
    let mut killed = 0;
    for n in 1..=60 {
        send(&acme, n).await;
        if n % 15 == 0 {
            let now = processes(&node).into_iter().find(|pid| *pid != kept);
            // In the middle of what came just now.
            if let Some(now) = now {
                kill_process(now, Signal::KILL).expect("it can be killed");
                killed += 1;
            }
        }
        send(&other, n).await;
    }
    assert!(killed >= 3, "{killed}");
    eventually("it is up again", SOON, || async {
        (acme.get("pipelines").await.status == 200).then_some(())
    })
    .await;
    until_results(&acme, 60).await;
    until_results(&other, 60).await;
    assert!(processes(&node).contains(&kept), "the other tenant's process is the one it was");
    assert!(node.log().contains("was ended by a signal"), "{}", node.log());
}

#[tokio::test]
async fn what_has_nothing_to_do_ends_and_comes_back_by_an_event_or_by_time() {
    let node = Setup::tenants(&["acme"])
        .set("isolation.processes", "true")
        .set("isolation.idle-time-max", "300ms")
        .start()
        .await;
    let acme = node.tenant("acme");
    deploy(&acme).await;
    send(&acme, 1).await;
    until_results(&acme, 1).await;
    until_processes(&node, 0).await;
    send(&acme, 2).await;
    until_results(&acme, 2).await;
    eventually("it rests while figures are looked at", SOON, || async {
        starts(&acme).await;
        processes(&node).is_empty().then_some(())
    })
    .await;
    // A timer by the clock, in three seconds.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after");
    let at = now.as_micros() as u64 + 3_000_000;
    let command = [&[b'T', 1][..], &at.to_le_bytes(), b"alarm"].concat();
    acme.send("kept", "?key=k", &[], command).await.is(202);
    until_processes(&node, 0).await;
    let before = starts(&acme).await;
    // Nobody who wanted it before starts it again.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((starts(&acme).await, processes(&node)), (before, vec![]));
    // It is time that brings it back: nobody asks.
    eventually("it is started", SOON, || async { (starts(&acme).await > before).then_some(()) })
        .await;
    until_processes(&node, 0).await;
    assert_eq!(starts(&acme).await, before + 1);
    let records = acme.records("kept", "outputs/reply", 4).await;
    assert_eq!(payload(&records[3])[3..11], at.to_le_bytes(), "{records:?}");
    assert!(node.log().lines().all(|line| !line.contains("started again")), "{}", node.log());
}

#[tokio::test]
async fn what_is_in_memory_only_keeps_its_process() {
    let node = Setup::tenants(&["acme"])
        .set("isolation.processes", "true")
        .set("isolation.idle-time-max", "100ms")
        .start()
        .await;
    let acme = node.tenant("acme");
    acme.push("conformance-rust").await;
    acme.apply("kept", single("kept", "conformance-rust", "")).await;
    acme.send("kept", "?key=k", &[], "e1").await.is(202);
    until_results(&acme, 1).await;
    let before = processes(&node);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(processes(&node), before);
    until_results(&acme, 1).await;
}

#[tokio::test]
async fn tenants_take_turns_where_there_are_more_than_may_have_processes() {
    let node = Setup::tenants(&["one", "two", "three"])
        .set("isolation.processes", "true")
        .set("isolation.processes-max", "1")
        .start()
        .await;
    let all = ["one", "two", "three"].map(|name| node.tenant(name));
    for client in &all {
        deploy(client).await;
    }
    for n in 1..=2 {
        for client in &all {
            send(client, n).await;
            assert!(processes(&node).len() <= 1);
        }
    }
    for client in &all {
        until_results(client, 2).await;
    }
}

#[tokio::test]
async fn processes_go_with_their_node_and_what_they_had_at_hand_goes_on_with_the_next() {
    let setup = || Setup::tenants(&["acme"]).set("isolation.processes", "true");
    let node = setup().start().await;
    let acme = node.tenant("acme");
    deploy(&acme).await;
    send(&acme, 1).await;
    let pid = until_processes(&node, 1).await[0];
    let again = Setup::as_before(&node).set("isolation.processes", "true");
    drop(node.kill());
    eventually("the process is gone", SOON, || async {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    })
    .await;
    let node = again.start().await;
    // It was not at rest: it is started without anybody asking, and says so in the node's log.
    until_processes(&node, 1).await;
    eventually("the process says what it did", SOON, || async {
        let log = node.log();
        let restored = |line: &str| line.contains("tenant-process") && line.contains("restored");
        log.lines().any(restored).then_some(())
    })
    .await;
    let acme = node.tenant("acme");
    send(&acme, 2).await;
    until_results(&acme, 2).await;
    let pid = processes(&node)[0];
    node.terminate();
    let (status, _home) = node.ended().await;
    assert!(status.success(), "{status:?}");
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    assert!(stat.is_err(), "it ended before its node");
}

#[tokio::test]
async fn the_tenants_file_says_who_has_a_process_also_while_the_node_runs() {
    let node = Setup::tenants(&["acme", "other"]).start().await;
    let (acme, other) = (node.tenant("acme"), node.tenant("other"));
    isolated(node.home(), "acme", "process");
    let list = node.home().tenant(&["list"]);
    assert_eq!(list["tenants"][0]["isolation"], "process", "{list}");
    eventually("the node has read it", SOON, || async {
        acme.get("pipelines").await.is(200);
        (processes(&node).len() == 1).then_some(())
    })
    .await;
    deploy(&acme).await;
    deploy(&other).await;
    send(&acme, 1).await;
    send(&other, 1).await;
    until_results(&acme, 1).await;
    until_results(&other, 1).await;
    assert_eq!(processes(&node).len(), 1, "the other is in the node's process");
    isolated(node.home(), "acme", "shared");
    until_processes(&node, 0).await;
}

#[tokio::test]
async fn a_process_has_no_network_no_rights_and_few_calls() {
    let node = Setup::tenants(&["acme"]).set("isolation.processes", "true").start().await;
    deploy(&node.tenant("acme")).await;
    let pid = until_processes(&node, 1).await[0].as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned()).unwrap_or_default()
    };
    assert_eq!(field("NoNewPrivs"), "1");
    for rights in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(rights), "0000000000000000", "{rights}");
    }
    // Each measure is in force, or the log says that it is not.
    let log = node.log();
    let absent = |what: &str| log.contains(&format!("NOT held in by {what}"));
    for what in ["limits", "namespaces", "capabilities", "dumpable", "landlock", "seccomp"] {
        assert!(log.contains(&format!("held in by {what}")), "{what}: {log}");
    }
    assert!(field("Seccomp") == "2" || absent("seccomp"), "{status}");
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network(&pid.to_string());
    assert!(own != network("self") || absent("namespaces"), "{own:?}");
    // Nothing of the node's is open in it: no listener, no file of another directory.
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("we may look");
    let data = node.home().data();
    let own_data = data.join("tenants/acme");
    for link in open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()) {
        assert!(!link.starts_with(&data) || link.starts_with(&own_data), "{}", link.display());
    }
}

#[tokio::test]
async fn an_upload_that_is_broken_off_and_a_kept_connection_that_is_closed_hold_nobody_up() {
    let node = Setup::tenants(&["acme"])
        .set("isolation.processes", "true")
        .set("http.idle-time-max", "300ms")
        .start()
        .await;
    let acme = node.tenant("acme");
    deploy(&acme).await;
    let token = node.token("acme").to_owned();
    for n in 1..=6 {
        let mut raw = Raw::connect(node.address()).await;
        let head = format!(
            "POST /v1/tenants/acme/pipelines/kept/events?key=k HTTP/1.1\r\nhost: x\r\n\
             authorization: Bearer {token}\r\ncontent-length: 100000\r\n\r\nabc"
        );
        assert!(raw.write(head.as_bytes()).await);
        tokio::time::sleep(Duration::from_millis(60)).await;
        drop(raw);
        let begun = std::time::Instant::now();
        send(&acme, n).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // About when the process closes what is idle.
        tokio::time::sleep(Duration::from_millis(240 + 20 * n)).await;
    }
    until_results(&acme, 6).await;
    assert_eq!(starts(&acme).await, 1);
}

#[tokio::test]
async fn a_request_may_be_as_large_as_in_the_node_s_process() {
    let node = Setup::tenants(&["acme"]).set("isolation.processes", "true").start().await;
    let acme = node.tenant("acme");
    deploy(&acme).await;
    let given = (0..14).map(|_| Given::new("k", [&b"e"[..], &[b'x'; 1_000_000]].concat()));
    acme.frame("kept", &frame(&given.collect::<Vec<_>>())).await.is(202);
}

#[tokio::test]
async fn a_reply_that_comes_before_the_end_of_its_request_arrives() {
    let node = Setup::tenants(&["acme"])
        .set("isolation.processes", "true")
        .set("http.body-bytes-max", "1MiB")
        .start()
        .await;
    let acme = node.tenant("acme");
    deploy(&acme).await;
    for _ in 0..20 {
        let long = vec![b'e'; 3 << 20];
        acme.send("kept", "?key=k", &[], long).await.problem(413, "request.too-large");
        let long = vec![b'e'; 900 << 10];
        acme.send("none", "?key=k", &[], long).await.problem(404, "pipeline.unknown");
    }
    let figures = acme.plain("/metrics").await;
    let text = figures.text();
    assert!(text.contains("sluicebox_process_up{tenant=\"acme\"} 1"), "{text}");
    assert!(text.contains("sluicebox_connections{process=\"acme\"}"), "{text}");
}
