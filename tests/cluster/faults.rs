//! A node that is killed, stopped or cut off: what it has is unavailable and said to be, all else
//! goes on, and when it is back nothing is lost or doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Node, Setup};

use tokio::task::JoinSet;

use super::{ECHO, clients, one_each};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The node is reached again, or is not any more, as another sees it.
pub(super) async fn until_state(client: &Client, name: &str, state: &str) {
    eventually("the node is seen so", SOON, || async {
        let nodes = client.plain("/v1/nodes").await.is(200).json();
        let found = nodes.as_array().expect("a list").iter().find(|node| node["name"] == name);
        (found.expect("it is in the list")["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_node_has_is_unavailable_until_it_is_back_and_nothing_else_is() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    clients[0].call(&pipelines[2], "k", "before").await.is(200);
    let dead = nodes.pop().expect("three");
    let setup = Setup::as_before(&dead).at(dead.address());
    drop(dead.kill());
    until_state(&clients[0], "c", "unreachable").await;
    let refused = clients[0].call(&pipelines[2], "k", "lost").await;
    assert!(refused.header("retry-after").is_some());
    let problem = refused.problem(503, "peer.unavailable");
    let said = problem["detail"].as_str().expect("a text");
    assert!(said.contains("\"c\"") && said.contains("cannot be reached"), "{said}");
    for (at, pipeline) in pipelines[..2].iter().enumerate() {
        // A node that has not heard yet what was just made elsewhere cannot know without the dead.
        let reply = eventually("the others know of it", SOON, || async {
            let reply = clients[1 - at].call(pipeline, "k", "on").await;
            (reply.status != 503).then_some(reply)
        })
        .await;
        assert_eq!(reply.is(200).text(), "on");
    }
    let list = clients[1].get("pipelines").await.is(200);
    assert_eq!(list.header("sluicebox-unreachable"), Some("c"));
    assert_eq!(list.json().as_array().map(Vec::len), Some(2));
    // One that is nowhere is said to be nowhere only if the node that would have it says so.
    for at in 0..24 {
        let reply = clients[0].get(&format!("pipelines/none-{at}")).await;
        assert!(matches!(reply.status, 404 | 503), "{reply:?}");
    }
    nodes.push(cluster.setup(setup, "c").start().await);
    for client in &clients[..2] {
        until_up(client, 3).await;
    }
    assert_eq!(clients[0].call(&pipelines[2], "k", "after").await.is(200).text(), "after");
    let records = clients[1].records(&pipelines[2], "outputs/reply", 2).await;
    assert_eq!(
        records.iter().map(payload).collect::<Vec<_>>(),
        [b"before".to_vec(), b"after".to_vec()]
    );
}

#[tokio::test]
async fn a_request_to_a_node_that_is_stopped_ends_and_the_node_is_reached_again_later() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    let stopped = nodes[1].process().expect("it runs");
    kill_process(stopped, Signal::STOP).expect("it runs");
    let began = Instant::now();
    let refused = clients[0].call(&pipelines[1], "k", "waits").await;
    refused.problem(503, "peer.unavailable");
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for {:?}", began.elapsed());
    until_state(&clients[0], "b", "unreachable").await;
    until_state(&clients[2], "b", "unreachable").await;
    assert_eq!(clients[0].call(&pipelines[2], "k", "on").await.is(200).text(), "on");
    kill_process(stopped, Signal::CONT).expect("it is there");
    until_up(&clients[0], 3).await;
    assert_eq!(clients[0].call(&pipelines[1], "k", "back").await.is(200).text(), "back");
}

/// Sends numbered events through one node after another until told to stop; each until it is taken.
async fn produce(
    clients: Arc<Vec<Client>>,
    pipeline: String,
    producer: u64,
    (stop, taken): (Arc<AtomicBool>, Arc<AtomicU64>),
) -> u64 {
    let mut sequence = 0;
    while !stop.load(Ordering::Acquire) {
        sequence += 1;
        let (name, number) = (format!("p{producer}"), sequence.to_string());
        let headers = [("sluicebox-producer", name.as_str()), ("sluicebox-sequence", &number)];
        let headers = [headers[0], headers[1], ("sluicebox-key", name.as_str())];
        let body = format!("{name}/{number}");
        let mut through = (producer + sequence) as usize;
        loop {
            let client = &clients[through % clients.len()];
            let reply = client.attempt(&pipeline, &headers, body.clone()).await;
            match reply.map(|reply| reply.status) {
                Some(202) => break,
                Some(200) => break,
                None | Some(429 | 503) => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(other) => panic!("{other} for {body}"),
            }
            // Another node may do better; it is the same request.
            through += 1;
        }
        taken.fetch_add(1, Ordering::Relaxed);
    }
    sequence
}

#[tokio::test]
async fn events_through_every_node_are_taken_once_however_often_nodes_die() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let addresses: Vec<_> = nodes.iter().map(Node::address).collect();
    let through = clients(&nodes);
    through[0].push(ECHO).await;
    let pipelines = one_each(&through[0], NAMES).await;
    let through = Arc::new(through);
    let stop = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(AtomicU64::new(0));
    let mut producers = JoinSet::new();
    for producer in 0..6_u64 {
        let pipeline = pipelines[producer as usize % 3].clone();
        let both = (stop.clone(), taken.clone());
        let through = through.clone();
        producers.spawn(async move {
            (producer as usize, produce(through, pipeline, producer, both).await)
        });
    }
    for round in 0..6_usize {
        let before = taken.load(Ordering::Relaxed);
        eventually("events are taken", SOON, || async {
            (taken.load(Ordering::Relaxed) > before + 60).then_some(())
        })
        .await;
        let at = round % 3;
        let old = nodes.remove(at);
        let setup = cluster.setup(Setup::as_before(&old).at(addresses[at]), NAMES[at]);
        drop(old.kill());
        nodes.insert(at, setup.start().await);
    }
    stop.store(true, Ordering::Release);
    let mut sent = [0; 6];
    for (producer, count) in producers.join_all().await {
        sent[producer] = count;
    }
    for (at, pipeline) in pipelines.iter().enumerate() {
        let expected: u64 = sent[at] + sent[at + 3];
        let mut found = Vec::new();
        let mut cursor = String::from("oldest");
        while (found.len() as u64) < expected {
            let query = format!("cursor={cursor}&wait=5s");
            let page = through[(at + 1) % 3].page(pipeline, "outputs/reply", &query).await.is(200);
            let texts = page.records();
            assert!(!texts.is_empty(), "{} of {expected} of {pipeline}", found.len());
            found.extend(texts.iter().map(|one| String::from_utf8(payload(one)).expect("text")));
            cursor = page.cursor();
        }
        for producer in [at, at + 3] {
            let prefix = format!("p{producer}/");
            let own: Vec<_> = found.iter().filter_map(|text| text.strip_prefix(&prefix)).collect();
            let numbers: Vec<u64> =
                own.iter().map(|text| text.parse().expect("a number")).collect();
            let all: Vec<u64> = (1..=sent[producer]).collect();
            assert!(numbers == all, "of p{producer} came {numbers:?}");
        }
    }
}
