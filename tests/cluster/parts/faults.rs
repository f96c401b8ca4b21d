//! Nodes with partitions of a pipeline that are killed or stand still: what is acknowledged is
//! counted once, and partitions are at one node.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sluicebox_tests::client::{NDJSON, payload};
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;
use tokio::task::JoinSet;

use crate::ECHO;
use crate::load::{Load, each_is_counted, each_word, words};

use super::{NAMES, Places, Scene, ask, in_four, key_in};

/// How often nodes are killed.
fn rounds() -> usize {
    std::env::var("SLUICEBOX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// Some partitions on another node, and each of the two killed in turn.
async fn killed_in_turn(cluster: Cluster) {
    let mut scene = Scene::with_words(cluster, 4).await;
    let other = scene.other(1);
    let load = Load::begin(scene.through.clone());
    load.goes_on(20).await;
    scene.moved(&[1, 3], other).await;
    let places = scene.settled(scene.at_home()).await;
    for round in 0..rounds() {
        load.goes_on(20).await;
        let victim = if round % 2 == 0 { other } else { scene.home };
        scene.killed_and_started(victim).await;
    }
    scene.all_up().await;
    assert_eq!(scene.settled(&scene.through[other]).await, places);
    load.goes_on(20).await;
    scene.all_back().await;
    load.goes_on(20).await;
    load.ends_counted_once(&scene.through[other]).await;
}

#[tokio::test]
async fn nodes_that_have_partitions_die_and_nothing_is_lost_or_doubled() {
    killed_in_turn(Cluster::of(&NAMES[..2])).await;
}

#[tokio::test]
async fn nodes_that_are_linked_through_memory_die_and_nothing_is_lost_or_doubled() {
    killed_in_turn(Cluster::of(&NAMES[..2]).that_meets()).await;
}

#[tokio::test]
async fn nodes_that_die_while_partitions_move_lose_nothing() {
    let mut scene = Scene::with_words(Cluster::of(&NAMES), 4).await;
    let (home, other, third) = (scene.home, scene.other(1), scene.other(2));
    let there: Places = [1, 3].map(|at| (at, NAMES[other].to_owned())).into();
    let load = Load::begin(scene.through.clone());
    load.goes_on(20).await;
    for round in 0..rounds() {
        scene.all_up().await;
        // All of them are at one of the two, and the node that is said to have them does.
        let places = scene.settled(&scene.through[third]).await;
        assert!(places.is_empty() || places == there, "{places:?} in round {round}");
        let (from, to) = if places.is_empty() { (home, other) } else { (other, home) };
        // Who asks is not killed, so that there is an answer.
        let asker = scene.through[third].clone();
        let query = format!("to={}&partitions=1,3", NAMES[to]);
        let mut asked = JoinSet::new();
        asked.spawn(async move { ask(&asker, "words", &query).await.status });
        // While state is copied, while they stand still, and behind it.
        tokio::time::sleep(Duration::from_millis(37 * round as u64 % 400)).await;
        scene.killed_and_started(if round % 3 == 2 { to } else { from }).await;
        let statuses = asked.join_all().await;
        assert!(matches!(statuses[..], [200 | 404 | 409 | 429 | 503]), "{statuses:?}");
        load.goes_on(20).await;
    }
    scene.all_up().await;
    // The last move may be under way still, and goes on by itself.
    scene.settled(&scene.through[third]).await;
    scene.moved(&[1, 3], other).await;
    load.goes_on(20).await;
    scene.moved(&[1, 3], home).await;
    load.goes_on(20).await;
    load.ends_counted_once(&scene.through[third]).await;
}

#[tokio::test]
async fn a_pipeline_is_deleted_while_a_node_that_has_some_of_it_is_away() {
    let mut scene = Scene::with_words(Cluster::of(&NAMES[..2]), 4).await;
    let other = scene.other(1);
    for _ in 0..2 {
        let headers = [("content-type", NDJSON)];
        scene.at_home().send("words", "", &headers, each_word()).await.is(202);
        each_is_counted(scene.at_home(), 1).await;
        scene.moved(&[1, 2], other).await;
        let old = scene.nodes.remove(other);
        let setup = scene.again(&old, NAMES[other]);
        drop(old.kill());
        scene.at_home().delete("pipelines/words").await.is(204);
        scene.nodes.insert(other, setup.start().await);
        scene.all_up().await;
        eventually("nothing of it is left", SOON, || async {
            let figures = scene.through[other].plain("/metrics").await;
            (figures.status == 200 && !figures.text().contains("pipeline=\"words\"")).then_some(())
        })
        .await;
        // What comes under its name begins anew, with partitions there as well.
        scene.at_home().apply("words", words(4, "256MiB")).await;
    }
}

#[tokio::test]
async fn a_pipeline_that_ends_under_load_leaves_logs_that_nodes_can_read() {
    let mut scene = Scene::with_words(Cluster::of(&NAMES), 6).await;
    for round in 0..3 {
        scene.moved(&[1, 2], scene.other(1)).await;
        scene.moved(&[3, 4], scene.other(2)).await;
        // Each word goes from everywhere to everywhere, up to the end and beyond it.
        let mut sending = JoinSet::new();
        for client in scene.through.clone() {
            sending.spawn(async move {
                for _ in 0..200 {
                    let headers = [("content-type", NDJSON)];
                    client.send("words", "", &headers, each_word()).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        scene.through[round].delete("pipelines/words").await.is(204);
        sending.join_all().await;
        // A checkpoint reads the log up to there.
        tokio::time::sleep(Duration::from_millis(600)).await;
        for at in 0..NAMES.len() {
            let log = scene.nodes[at].log();
            assert!(!log.contains("does not follow"), "{log}");
            scene.killed_and_started(at).await;
        }
        scene.all_up().await;
        scene.at_home().apply("words", words(6, "256MiB")).await;
        let headers = [("content-type", NDJSON)];
        scene.at_home().send("words", "", &headers, each_word()).await.is(202);
        each_is_counted(scene.at_home(), 1).await;
    }
    for node in &scene.nodes {
        let log = node.log();
        assert!(!log.contains("does not follow"), "{log}");
    }
}

/// The numbers that came out under each key, in order.
async fn numbers(scene: &Scene) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut cursor = "oldest".to_owned();
    loop {
        let query = format!("cursor={cursor}");
        let page = scene.at_home().page(scene.pipeline, "outputs/reply", &query).await.is(200);
        let records = page.records();
        if records.is_empty() {
            return all;
        }
        for record in &records {
            let text = String::from_utf8(payload(record)).expect("text");
            let number = text.split('.').next().and_then(|text| text.parse().ok());
            let key = record["key"].as_str().expect("a key").to_owned();
            all.entry(key).or_default().push(number.expect("a number"));
        }
        cursor = page.cursor();
    }
}

/// An event that is a number; a large one has 16 KiB.
fn numbered(number: u64, large: bool) -> String {
    let more = if large { 16 << 10 } else { 1 };
    format!("{number}{}", ".".repeat(more))
}

#[tokio::test]
async fn what_is_for_a_node_that_stands_still_waits_and_all_else_goes_on() {
    let setup = || Setup::dev().set("limits.inbox-bytes", "64KiB");
    let scene = Scene::of(Cluster::of(&NAMES[..2]), setup).await;
    scene.through[0].push(ECHO).await;
    scene.through[0].apply("kept", in_four("kept")).await;
    let scene = scene.about("kept").await;
    let (client, other) = (scene.at_home(), scene.other(1));
    scene.moved(&[2, 3], other).await;
    let (here, there) = (key_in(0), key_in(3));
    for key in [&here, &there] {
        client.call("kept", key, numbered(1, false)).await.is(200);
    }
    let stopped = scene.nodes[other].process().expect("it runs");
    kill_process(stopped, Signal::STOP).expect("it runs");
    // As before, at first as nobody knows, and then all the same.
    for number in 2..=20 {
        for key in [&here, &there] {
            let query = format!("?key={key}");
            client.send("kept", &query, &[], numbered(number, false)).await.is(202);
        }
    }
    eventually("a description says that partitions are away", SOON, || async {
        let detail = client.describe("kept").await;
        let all = detail["partition"].as_array().expect("a list").clone();
        let is_away = |at: usize| all[at]["unavailable"].is_string();
        assert!(!is_away(0) && !is_away(1), "{all:?}");
        (is_away(2) && is_away(3)).then_some(())
    })
    .await;
    client.call("kept", &here, numbered(21, false)).await.is(200);
    // Until there is no room; then others have room still.
    let mut last = 20;
    let query = format!("?key={there}");
    let refused = loop {
        assert!(last < 1000, "{last} events of 16 KiB wait, and there is room for more");
        let reply = client.send("kept", &query, &[], numbered(last + 1, true)).await;
        match reply.status {
            202 => last += 1,
            _ => break reply,
        }
    };
    refused.problem(429, "pipeline.busy");
    client.call("kept", &here, numbered(22, false)).await.is(200);
    kill_process(stopped, Signal::CONT).expect("it is there");
    until_up(client, 2).await;
    eventually("there is room again", SOON, || async {
        let reply = client.send("kept", &query, &[], numbered(last + 1, false)).await;
        assert!(matches!(reply.status, 202 | 429), "{reply:?}");
        (reply.status == 202).then_some(())
    })
    .await;
    client.call("kept", &there, numbered(last + 2, false)).await.is(200);
    let all = |last: u64| (1..=last).collect::<Vec<u64>>();
    let expected = BTreeMap::from([(here, all(22)), (there, all(last + 2))]);
    // The result came from the other node; what is read is here once the home has kept it.
    let found = eventually("everything has left", SOON, || async {
        let found = numbers(&scene).await;
        (found.values().map(Vec::len).sum::<usize>() as u64 >= 22 + last + 2).then_some(found)
    })
    .await;
    assert_eq!(found, expected);
    assert_eq!(scene.settled(client).await.len(), 2);
}
