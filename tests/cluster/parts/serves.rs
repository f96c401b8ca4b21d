//! What clients do with a pipeline whose partitions are on several nodes, all of it at its home,
//! and what cannot be done.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;
use sluicebox_tests::stream_memory::GUEST;

use crate::load::{Load, words};
use crate::{ECHO, home};

use super::{NAMES, Scene, ask, in_four, key_in};

/// Payloads by the partition they left.
fn by_partition(records: &[Value]) -> BTreeMap<u64, Vec<String>> {
    let mut all: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for record in records {
        let partition = record["partition"].as_u64().expect("a number");
        let text = String::from_utf8(payload(record)).expect("text");
        all.entry(partition).or_default().push(text);
    }
    all
}

#[tokio::test]
async fn who_waits_for_a_result_gets_it_from_another_node() {
    let scene = Scene::of(Cluster::of(&NAMES[..2]), Setup::dev).await;
    scene.through[0].push(ECHO).await;
    scene.through[0].apply("kept", in_four("kept")).await;
    let scene = scene.about("kept").await;
    let mut expected: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for (round, to) in [scene.other(1), scene.home, scene.other(1)].into_iter().enumerate() {
        scene.moved(&[1, 3], to).await;
        for partition in 0..4 {
            for (number, client) in scene.through.iter().enumerate() {
                let text = format!("{round} of {partition} through {number}");
                let reply = client.call("kept", &key_in(partition), text.clone()).await.is(200);
                assert_eq!(reply.text(), text);
                expected.entry(partition.into()).or_default().push(text);
            }
        }
    }
    for client in &scene.through {
        let records = client.records("kept", "outputs/reply", 24).await;
        assert_eq!(by_partition(&records), expected);
    }
}

/// Replays everything there is: how many were, and had been before.
async fn replayed(client: &Client) -> (u64, u64) {
    let path = client.path("pipelines/failing/dead-letters/replay");
    let reply = client.ask(Method::POST, &path, &[], "").await.is(200).json();
    let number = |name: &str| reply[name].as_u64().expect("a number");
    (number("replayed"), number("duplicates"))
}

#[tokio::test]
async fn dead_letters_of_another_node_are_read_and_replayed_at_the_home() {
    let scene = Scene::of(Cluster::of(&NAMES[..2]), Setup::dev).await;
    let client = scene.through[0].clone();
    client.push(ECHO).await;
    client.push("hostile/trap-always").await;
    let works = in_four("failing");
    let fails = works.replace("component = \"echo\"", "component = \"trap-always\"");
    assert!(fails.contains("trap-always"), "{fails}");
    client.apply("failing", fails).await;
    let scene = scene.about("failing").await;
    scene.moved(&[1, 2], scene.other(1)).await;
    for partition in 0..4 {
        for number in 0..2 {
            let query = format!("?key={}", key_in(partition));
            let through = &scene.through[number];
            through.send("failing", &query, &[], format!("{partition}/{number}")).await.is(202);
        }
    }
    for client in &scene.through {
        let dead = client.records("failing", "dead-letters", 8).await;
        let mut found: Vec<Vec<u8>> = dead.iter().map(payload).collect();
        found.sort();
        let all = (0..4).flat_map(|at| [format!("{at}/0"), format!("{at}/1")]);
        assert_eq!(found, all.map(String::into_bytes).collect::<Vec<_>>());
    }
    // The stage is as it was: each fails again where it is, and is a new dead letter.
    assert_eq!(replayed(&client).await, (8, 0));
    assert_eq!(client.records("failing", "dead-letters", 16).await.len(), 16);
    scene.all_back().await;
    assert_eq!(client.records("failing", "dead-letters", 16).await.len(), 16);
    client.apply("failing", works).await;
    scene.moved(&[0, 1], scene.other(1)).await;
    assert_eq!(replayed(&client).await, (8, 8));
    let expected: BTreeMap<u64, Vec<String>> =
        (0..4).map(|at| (at, vec![format!("{at}/0"), format!("{at}/1")])).collect();
    let out = client.records("failing", "outputs/reply", 8).await;
    assert_eq!(by_partition(&out), expected);
    assert_eq!(replayed(&client).await, (0, 16));
    // What comes behind it in each partition shows that nothing else came.
    for partition in 0..4 {
        client.call("failing", &key_in(partition), "last").await.is(200);
    }
    assert_eq!(client.records("failing", "outputs/reply", 12).await.len(), 12);
}

#[tokio::test]
async fn what_cannot_be_on_several_nodes_is_told_why() {
    let scene = Scene::of(Cluster::of(&NAMES[..2]), Setup::dev).await;
    let client = &scene.through[0];
    client.push(ECHO).await;
    client.push(GUEST).await;
    client.apply("loose", single("loose", "echo", "")).await;
    let streams =
        in_four("streams").replace("\"echo\"\n", &format!("\"{GUEST}\"\nscope = \"stream\"\n"));
    client.apply("streams", streams).await;
    client.apply("kept", in_four("kept")).await;
    for (pipeline, said) in [("loose", "best-effort"), ("streams", "scope \"stream\"")] {
        let to = if home(client, pipeline).await == "a" { "b" } else { "a" };
        let refused = ask(client, pipeline, &format!("to={to}&partitions=0")).await;
        let problem = refused.problem(409, "pipeline.conflict");
        assert!(problem["detail"].as_str().expect("a text").contains(said), "{problem}");
    }
    let scene = scene.about("kept").await;
    let client = &scene.through[0];
    let to = NAMES[scene.other(1)];
    for wrong in [
        format!("to={to}&partitions=4"),
        format!("to={to}&partitions=0-4"),
        format!("to={to}&partitions=3-1"),
        format!("to={to}&partitions="),
        format!("to={to}&partitions=x"),
        format!("to={to}&partition=1"),
        "to=z&partitions=1".to_owned(),
        "partitions=1".to_owned(),
    ] {
        ask(client, "kept", &wrong).await.problem(400, "request.query");
    }
    ask(client, "none", &format!("to={to}&partitions=0")).await.problem(404, "pipeline.unknown");
    assert!(scene.settled(client).await.is_empty(), "all of it is at home still");
    // Numbers and ranges, twice each; what is there already stays there.
    for _ in 0..2 {
        let moved = ask(client, "kept", &format!("to={to}&partitions=0,2-3,2")).await.is(200);
        assert_eq!(moved.json()["partitions"], Value::from(vec![0, 2, 3]));
        let places = scene.settled(client).await;
        assert_eq!(places.into_keys().collect::<Vec<_>>(), [0, 2, 3]);
    }
}

#[tokio::test]
async fn a_version_finds_all_partitions_at_home_and_a_move_of_the_whole_says_what_to_do() {
    let scene = Scene::with_words(Cluster::of(&NAMES), 4).await;
    let client = &scene.through[0];
    client.apply("words", words(4, "128MiB")).await;
    let load = Load::begin(scene.through.clone());
    load.goes_on(20).await;
    scene.moved(&[0], scene.other(1)).await;
    scene.moved(&[2], scene.other(2)).await;
    let (own, mut nodes) = (NAMES[scene.home], [1, 2].map(|nth| NAMES[scene.other(nth)]));
    nodes.sort_unstable();
    let to_roll_back = client.path("pipelines/words/rollback");
    let refused = ask(client, "words", &format!("to={}", nodes[0])).await;
    let problem = refused.problem(409, "pipeline.conflict");
    let said = problem["detail"].as_str().expect("a text");
    let advice = format!("`sluicebox move words --to {own}`");
    assert!(said.contains(&advice), "{problem}");
    assert!(said.contains(&format!("({})", nodes.join(", "))), "{problem}");
    load.goes_on(20).await;
    // Another version, another number of partitions, the version before: all are where they were.
    let places = scene.settled(client).await;
    client.apply("words", words(4, "64MiB")).await;
    assert_eq!(scene.settled(client).await, places);
    load.goes_on(20).await;
    client.apply("words", words(2, "64MiB")).await;
    let fewer = scene.settled(client).await;
    assert_eq!(fewer.into_iter().collect::<Vec<_>>(), [(0, places[&0].clone())]);
    load.goes_on(20).await;
    client.ask(Method::POST, &to_roll_back, &[], "").await.is(200);
    load.goes_on(20).await;
    assert_eq!(client.describe("words").await["partition"].as_array().map(Vec::len), Some(8));
    scene.moved(&[2], scene.other(2)).await;
    // Not while a node that has some of it stands still: nothing is begun.
    let third = scene.nodes[scene.other(2)].process().expect("it runs");
    kill_process(third, Signal::STOP).expect("it can be stopped");
    let refused = eventually("it is known to be away", SOON, || async {
        let reply = scene.at_home().put("pipelines/words", words(4, "32MiB")).await;
        (reply.status == 503).then_some(reply)
    });
    let refused = refused.await;
    kill_process(third, Signal::CONT).expect("it goes on");
    refused.problem(503, "peer.unavailable");
    scene.all_up().await;
    load.goes_on(20).await;
    scene.all_back().await;
    // Now the whole of it goes; its home is another, and its partitions go from there.
    let to = nodes[0];
    eventually("the pipeline has moved", SOON, || async {
        let reply = ask(client, "words", &format!("to={to}")).await;
        assert!(matches!(reply.status, 200 | 404 | 409 | 503), "{reply:?}");
        let place = client.get("pipelines/words").await;
        (place.status == 200 && place.json()["node"] == to).then_some(())
    })
    .await;
    load.goes_on(20).await;
    let scene = scene.about("words").await;
    scene.moved(&[1, 2], scene.other(2)).await;
    load.goes_on(20).await;
    load.ends_counted_once(&scene.through[1]).await;
}

#[tokio::test]
async fn a_pipeline_that_is_deleted_leaves_nothing_on_any_node() {
    let scene = Scene::with_words(Cluster::of(&NAMES), 4).await;
    for round in 0..2 {
        let load = Load::begin(scene.through.clone());
        load.goes_on(20).await;
        scene.moved(&[1], scene.other(1)).await;
        scene.moved(&[2, 3], scene.other(2)).await;
        load.goes_on(20).await;
        // Counts begin at 1 each time.
        load.ends_counted_once(&scene.through[round]).await;
        scene.through[scene.other(1)].delete("pipelines/words").await.is(204);
        for client in &scene.through {
            client.get("pipelines/words").await.problem(404, "pipeline.unknown");
            eventually("a node has no figures of it any more", SOON, || async {
                let figures = client.plain("/metrics").await.is(200);
                (!figures.text().contains("pipeline=\"words\"")).then_some(())
            })
            .await;
        }
        scene.through[round].apply("words", words(4, "256MiB")).await;
        assert_eq!(home(&scene.through[0], "words").await, NAMES[scene.home]);
    }
}

/// How long it takes at most until there are fewer: a quiet while, and what a busy machine needs.
const LATER: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_pipeline_scales_while_partitions_are_on_other_nodes() {
    let cluster = Cluster::of(&NAMES[..2]);
    let scene = Scene::of(cluster, Setup::dev).await;
    scene.through[0].push("word-count-split").await;
    scene.through[0].push("word-count-count").await;
    let manifest = words(4, "256MiB") + "[scaling]\nmin = 2\nmax = 6\nquiet = \"10s\"\n";
    scene.through[0].apply("words", manifest).await;
    let scene = scene.about("words").await;
    let other = scene.other(1);
    let load = Load::begin(scene.through.clone());
    scene.moved(&[1, 3], other).await;
    load.goes_on(30).await;
    eventually("there are fewer, at once", LATER, || async {
        let scaling = scene.at_home().describe("words").await["scaling"].clone();
        (scaling["partitions"] == 2 && scaling["changes"] == 1).then_some(())
    })
    .await;
    // The third is gone, and the first is back where it was.
    let places = eventually("they are back", SOON, || async {
        let places = scene.settled(scene.at_home()).await;
        (!places.is_empty()).then_some(places)
    })
    .await;
    assert_eq!(places, BTreeMap::from([(1, NAMES[other].to_owned())]));
    load.goes_on(30).await;
    load.ends_counted_once(&scene.through[other]).await;
}
