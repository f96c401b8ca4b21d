//! State of partitions that is copied while they run: what changes meanwhile comes with them, and
//! nodes that die between the steps lose nothing.
//!
//! A third node that stands still holds a move up: what a partition has sent there is consumed
//! before it leaves. So there is time to kill one of the other two in between.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sluicebox_core::key;
use sluicebox_tests::client::{Client, NDJSON};
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};
use tokio::task::JoinSet;

use crate::load::{Load, each_is_counted, each_word, with_words};

use super::{NAMES, Scene, ask};

/// What is said when the state of partitions is copied, and they are about to stand still.
const COPIED: &str = "partitions are copied";

/// The figure of a node that tells how many lines its partitions have split.
const SPLIT: (&str, &str) = ("sluicebox_stage_events_in_total", "stage=\"split\"");

/// Lines with the steps of moves.
const STEPS: &str = "info,sluicebox_node::moving=debug";

/// With these in the log. A node that stands still counts as there for long enough.
fn setup() -> Setup {
    Setup::dev().saying(STEPS).set("cluster.silence-time-max", "4s")
}

/// Kills a node, and starts it again. Gives what it had logged.
async fn killed_and_started(scene: &mut Scene, at: usize) -> String {
    let old = scene.nodes.remove(at);
    let setup = scene.again(&old, NAMES[at]).saying(STEPS);
    let log = old.log();
    drop(old.kill());
    scene.nodes.insert(at, setup.start().await);
    scene.all_up().await;
    log
}

/// Words in four partitions on three nodes, of which the last of the partitions is on the third.
async fn on_three_nodes() -> Scene {
    let scene = Scene::of(Cluster::of(&NAMES), setup).await;
    with_words(&scene.through[0], 4).await;
    let scene = scene.about("words").await;
    scene.moved(&[3], scene.other(2)).await;
    scene
}

/// How often a node has said something.
fn times(node: &Node, what: &str) -> usize {
    node.log().matches(what).count()
}

/// Waits until a node has said something more than so often.
async fn until_said(node: &Node, what: &str, before: usize) {
    eventually(what, SOON, || async { (times(node, what) > before).then_some(()) }).await;
}

/// What a node remembers of partitions whose state it took and that did not come.
pub(super) fn remembered(node: &Node) -> Vec<PathBuf> {
    let log = node.log_file();
    let joins = log.with_file_name("data").join("catalog/documents/joins");
    let found = std::fs::read_dir(joins).into_iter().flatten();
    found.map(|entry| entry.expect("a folder can be read").path()).collect()
}

/// The sum of a figure of a node over those of its labels that have this in them.
async fn figure(client: &Client, name: &str, of: &str) -> f64 {
    let figures = client.plain("/metrics").await.is(200);
    let lines = figures.text().lines().filter(|line| line.starts_with(name) && line.contains(of));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until a figure of a node is that large.
async fn until_figure(client: &Client, (name, of): (&str, &str), least: f64) {
    eventually(name, SOON, || async { (figure(client, name, of).await >= least).then_some(()) })
        .await;
}

/// A key of the partition that moves.
fn key_of_moving() -> String {
    let is_its = |name: &String| key::partition_of(key::group_of(name.as_bytes()), 4) == 1;
    (0_u32..).map(|number| format!("key-{number}")).find(is_its).expect("there are many")
}

/// Moves a partition of `scene` while the third node stands still, and does something with the
/// others when its state is copied and it waits to leave; then the third goes on.
async fn while_it_waits(scene: &mut Scene, then: impl AsyncFnOnce(&mut Scene)) -> Vec<u16> {
    let (other, third) = (scene.other(1), scene.other(2));
    let before = times(&scene.nodes[scene.home], COPIED);
    let stopped = scene.nodes[third].process().expect("it runs");
    let asker = scene.at_home().clone();
    let query = format!("to={}&partitions=1", NAMES[other]);
    kill_process(stopped, Signal::STOP).expect("it runs");
    // So many lines that some word of the partition was for it.
    let split = figure(scene.at_home(), SPLIT.0, SPLIT.1).await;
    until_figure(scene.at_home(), SPLIT, split + 100.0).await;
    let mut asked = JoinSet::new();
    asked.spawn(async move { ask(&asker, "words", &query).await.status });
    until_said(&scene.nodes[scene.home], COPIED, before).await;
    then(scene).await;
    kill_process(stopped, Signal::CONT).expect("it is there");
    asked.join_all().await
}

/// The load of clients that speak to the home alone: the third stands still for a while.
async fn at_home(scene: &Scene) -> Load {
    let load = Load::begin(vec![scene.at_home().clone()]);
    load.goes_on(30).await;
    load
}

/// Sees that the partition is at the node it was to go to, and that nothing was lost or doubled.
async fn ends_at_the_other(scene: &Scene, load: Load) {
    scene.all_up().await;
    let places = scene.settled(scene.at_home()).await;
    let expected = [(1, scene.other(1)), (3, scene.other(2))];
    assert_eq!(places, BTreeMap::from(expected.map(|(at, node)| (at, NAMES[node].to_owned()))));
    load.goes_on(30).await;
    scene.all_back().await;
    load.ends_counted_once(scene.at_home()).await;
}

#[tokio::test]
async fn what_partitions_change_while_they_are_copied_comes_with_them_and_outlives_a_kill() {
    let mut scene = Scene::of(Cluster::of(&NAMES[..2]), setup).await;
    with_words(&scene.through[0], 4).await;
    scene = scene.about("words").await;
    let (home, other) = (scene.home, scene.other(1));
    let load = Load::begin(scene.through.clone());
    load.goes_on(30).await;
    let mut log = String::new();
    for _ in 0..3 {
        for to in [other, home] {
            scene.moved(&[1, 2], to).await;
            // What they changed last is in the record that they came, and in no checkpoint yet.
            log += &killed_and_started(&mut scene, to).await;
            load.goes_on(20).await;
        }
    }
    load.ends_counted_once(&scene.through[other]).await;
    let lines = log.lines().filter(|line| line.contains("partitions joined there"));
    let changes: Vec<u64> = lines
        .filter_map(|line| line.split("changes=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert!(changes.iter().any(|bytes| *bytes > 0), "nothing changed meanwhile: {changes:?}");
}

#[tokio::test]
async fn a_node_that_dies_behind_the_copy_takes_all_of_it_again() {
    let mut scene = on_three_nodes().await;
    let load = at_home(&scene).await;
    let other = scene.other(1);
    let old = scene.nodes.remove(other);
    let setup = scene.again(&old, NAMES[other]);
    scene.nodes.insert(other, old);
    let statuses = while_it_waits(&mut scene, async |scene: &mut Scene| {
        // It is started when the partition has left: what it had taken is lost.
        drop(scene.nodes.remove(other).kill());
    })
    .await;
    let home = if scene.home < other { scene.home } else { scene.home - 1 };
    until_said(&scene.nodes[home], "partitions are not taken yet", 0).await;
    scene.nodes.insert(other, setup.start().await);
    assert!(matches!(statuses[..], [200 | 503]), "{statuses:?}");
    ends_at_the_other(&scene, load).await;
}

#[tokio::test]
async fn a_home_that_dies_when_partitions_have_just_left_has_them_joined() {
    let mut scene = on_three_nodes().await;
    let load = at_home(&scene).await;
    let (home, other) = (scene.home, scene.other(1));
    let target = scene.nodes[other].process().expect("it runs");
    let statuses = while_it_waits(&mut scene, async |_: &mut Scene| {
        // It hears of nothing any more, and so does not join.
        kill_process(target, Signal::STOP).expect("it runs");
    });
    let statuses = tokio::select! {
        biased;
        statuses = statuses => statuses,
        () = tokio::time::sleep(Duration::from_secs(6)) => Vec::new(),
    };
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
    assert_eq!(times(&scene.nodes[other], "partitions joined"), 0, "it has not joined them");
    scene.killed_and_started(home).await;
    kill_process(target, Signal::CONT).expect("it is there");
    ends_at_the_other(&scene, load).await;
}

#[tokio::test]
async fn partitions_that_stay_after_all_leave_nothing_where_they_were_copied_to() {
    let mut scene = on_three_nodes().await;
    let headers = [("content-type", NDJSON)];
    scene.at_home().send("words", "", &headers, each_word()).await.is(202);
    each_is_counted(scene.at_home(), 1).await;
    let other = scene.other(1);
    // What was sent to the third waits there for longer than a move waits for it.
    let third = scene.nodes[scene.other(2)].process().expect("it runs");
    kill_process(third, Signal::STOP).expect("it runs");
    let before = figure(scene.at_home(), SPLIT.0, SPLIT.1).await;
    let key = format!("?key={}", key_of_moving());
    scene.at_home().send("words", &key, &headers, each_word()).await.is(202);
    until_figure(scene.at_home(), SPLIT, before + 1.0).await;
    let query = format!("to={}&partitions=1", NAMES[other]);
    ask(scene.at_home(), "words", &query).await.problem(409, "pipeline.conflict");
    assert_eq!(remembered(&scene.nodes[other]), Vec::<PathBuf>::new());
    let places = scene.settled(scene.at_home());
    kill_process(third, Signal::CONT).expect("it is there");
    assert_eq!(places.await.into_keys().collect::<Vec<_>>(), [3]);
    each_is_counted(scene.at_home(), 2).await;
    scene.moved(&[1], other).await;
    scene.killed_and_started(other).await;
    scene.all_up().await;
    scene.all_back().await;
    each_is_counted(scene.at_home(), 2).await;
}

/// Words of the partition that moves, each once, in lines.
fn words_of_moving(from: usize, count: usize) -> Vec<String> {
    let names = (0_u32..).map(|number| format!("wordofsomelength{number:08}"));
    let is_its = |name: &String| key::partition_of(key::group_of(name.as_bytes()), 4) == 1;
    let words: Vec<String> = names.filter(is_its).skip(from).take(count).collect();
    words.chunks(2_000).map(|words| format!("\"{}\"\n", words.join(" "))).collect()
}

/// Sends lines, and waits until so many words are counted.
async fn are_counted(client: &Client, lines: Vec<String>, words: usize) {
    for line in lines {
        client.send("words", "", &[("content-type", NDJSON)], line).await.is(202);
    }
    eventually("all are counted", SOON, || async {
        let detail = client.describe("words").await;
        (detail["output"][0]["events"] == words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn partitions_that_change_more_than_can_be_copied_stay_and_go_later() {
    const FEW: usize = 20_000;
    const MANY: usize = 40_000;
    let small = || setup().set("cluster.copy-behind-max", "1MiB");
    let scene = Scene::of(Cluster::of(&NAMES[..2]), small).await;
    with_words(&scene.through[0], 4).await;
    let scene = scene.about("words").await;
    let other = scene.other(1);
    are_counted(scene.at_home(), words_of_moving(0, FEW), FEW).await;
    let more = words_of_moving(FEW, MANY);
    let target = scene.nodes[other].process().expect("it runs");
    let mut asked = JoinSet::new();
    let (asker, query) = (scene.at_home().clone(), format!("to={}&partitions=1", NAMES[other]));
    asked.spawn(async move { ask(&asker, "words", &query).await });
    // In the middle of taking what there is it stands still, and does not count as away yet.
    eventually("it takes the state", SOON, || async {
        (!remembered(&scene.nodes[other]).is_empty()).then_some(())
    })
    .await;
    kill_process(target, Signal::STOP).expect("it runs");
    are_counted(scene.at_home(), more, FEW + MANY).await;
    let replies = asked.join_all().await;
    kill_process(target, Signal::CONT).expect("it is there");
    for reply in replies {
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        reply.problem(409, "pipeline.conflict");
        assert!(text.contains("cluster.copy-behind-max"), "{text}");
    }
    scene.all_up().await;
    assert!(scene.settled(scene.at_home()).await.is_empty(), "they stay");
    scene.moved(&[1], other).await;
    are_counted(scene.at_home(), words_of_moving(0, FEW), 2 * FEW + MANY).await;
    scene.all_back().await;
}

/// So many bytes a value has that the smallest log takes one of them in a record, and no two.
const VALUE_BYTES: usize = 300 << 10;

/// Keys of the partition that moves, each with one who writes it.
const WRITERS: usize = 4;
const KEYS_EACH: usize = 4;

fn key_of(writer: usize, number: usize) -> String {
    let is_its = |name: &String| key::partition_of(key::group_of(name.as_bytes()), 4) == 1;
    let names = (0_u32..).map(|number| format!("key-{number}"));
    names.filter(is_its).nth(writer * KEYS_EACH + number).expect("there are many")
}

/// A large value under a slot of a key; what it is of is at its end.
fn put(number: u64) -> Vec<u8> {
    let mut payload = b"s\x01v".to_vec();
    payload.resize(3 + VALUE_BYTES, b'x');
    payload.extend_from_slice(&number.to_le_bytes());
    payload
}

/// Writes keys in turn until it is told to end; gives the last number of each that was taken.
async fn write(client: Client, writer: usize, ends: Arc<AtomicBool>) -> BTreeMap<String, u64> {
    let mut last = BTreeMap::new();
    for number in 0_u64.. {
        if ends.load(Ordering::Acquire) {
            break;
        }
        let key = key_of(writer, number as usize % KEYS_EACH);
        let query = format!("?key={key}");
        loop {
            let reply = client.send("large", &query, &[], put(number)).await;
            match reply.status {
                202 => break,
                429 | 503 => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => panic!("{reply:?}"),
            }
        }
        last.insert(key, number);
    }
    last
}

#[tokio::test]
async fn large_state_moves_between_nodes_whose_logs_take_small_records() {
    let small = || setup().set("log.segment-bytes", "1MiB").set("limits.inbox-bytes", "4MiB");
    let scene = Scene::of(Cluster::of(&NAMES[..2]), small).await;
    scene.through[0].push("conformance-rust").await;
    let manifest = single("large", "conformance-rust", "");
    let manifest = manifest.replace("best-effort", "exactly-once");
    scene.through[0].apply("large", manifest.replace("partitions = 1", "partitions = 4")).await;
    let scene = scene.about("large").await;
    let ends = Arc::new(AtomicBool::new(false));
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        writing.spawn(write(scene.at_home().clone(), writer, ends.clone()));
    }
    let all = WRITERS * KEYS_EACH;
    eventually("every key is written", SOON, || async {
        let detail = scene.at_home().describe("large").await;
        (detail["output"][0]["events"].as_u64() > Some(2 * all as u64)).then_some(())
    })
    .await;
    for _ in 0..3 {
        scene.moved(&[1], scene.other(1)).await;
        scene.moved(&[1], scene.home).await;
    }
    scene.moved(&[1], scene.other(1)).await;
    ends.store(true, Ordering::Release);
    let written: BTreeMap<String, u64> = writing.join_all().await.into_iter().flatten().collect();
    assert_eq!(written.len(), all);
    for (key, number) in written {
        let found = scene.at_home().call("large", &key, "gv").await.is(200);
        let expected = [&[1], &put(number)[3..]].concat();
        assert!(found.body == expected, "{key} is not as number {number} left it");
    }
    let log: String = scene.nodes.iter().map(Node::log).collect();
    assert!(!log.contains("partitions are not taken yet"), "{log}");
    let ahead = |line: &str| line.split("ahead=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let lines = log.lines().filter(|line| line.contains("partitions joined there"));
    let ahead: Vec<u64> = lines.filter_map(ahead).collect();
    assert!(ahead.iter().any(|bytes| *bytes > 0), "all fitted into the record: {ahead:?}");
}
