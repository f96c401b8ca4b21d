//! A measurement, not a test: bytes between three machines with partitions placed by a plan, and by
//! three ways that know nothing of what they do.
//!
//! ```console
//! $ cargo test -p sluicebox-tests --test cluster -- --ignored --nocapture bytes_between_machines
//! ```
//!
//! Words in twelve partitions. Lines of a partition have words of one other alone, so that there is
//! something to be found out; each node has one worker, and producers send as fast as lines are
//! taken, so that one node is not enough. Counted is what the machines' interfaces carried, without
//! what they and the producers sent each other, and the words that came out meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_core::key;
use sluicebox_tests::client::Client;
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::eventually;
use sluicebox_tests::lan::Lan;
use sluicebox_tests::node;
use tokio::task::JoinSet;

use crate::load::words;

use super::apart::on_machines;
use super::{NAMES, Scene};

const PARTITIONS: u16 = 12;

/// Words in a line.
const WORDS: u64 = 40;

/// How long is counted.
const COUNTED: Duration = Duration::from_secs(15);

/// How long producers send before anything is measured: rates that a plan is made from are those of
/// some ten seconds.
const WARM: Duration = Duration::from_secs(15);

/// How often a plan is asked for until it has no moves.
const PLANS_MAX: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Placing {
    Plan,
    Hash,
    RoundRobin,
    Random(u64),
}

impl Placing {
    /// The so-many-th node behind the home for a partition; none if a plan decides.
    fn of(self, partition: u16) -> Option<usize> {
        let count = NAMES.len() as u64;
        let mixed = |number: u64| key::hash(&number.to_le_bytes()) % count;
        let partition = u64::from(partition);
        Some(match self {
            Self::Plan => return None,
            Self::Hash => mixed(partition),
            Self::RoundRobin => partition % count,
            Self::Random(seed) => mixed(seed << 32 | partition),
        } as usize)
    }
}

/// Names that are keys of a partition.
fn names_in(partition: u16) -> impl Iterator<Item = String> {
    let names = (0..).map(|number| format!("w{number}"));
    let of = |name: &String| key::partition_of(key::group_of(name.as_bytes()), PARTITIONS);
    names.filter(move |name| of(name) == partition)
}

/// A line for each partition, with words of the one beside it.
fn lines() -> Frame {
    let mut builder = FrameBuilder::new();
    for partition in 0..PARTITIONS {
        let own = names_in(partition).next().expect("there are many");
        let words: Vec<String> = names_in(partition ^ 1).take(WORDS as usize).collect();
        let line = Value::from(words.join(" ")).to_string();
        builder.push(&Head::data(1), own.as_bytes(), line.as_bytes(), &[]);
    }
    builder.finish()
}

/// Producers at the home, which send one frame after another.
struct Producing {
    stop: Arc<AtomicBool>,
    /// Frames that were taken.
    taken: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Producing {
    fn begin(client: &Client) -> Self {
        let (stop, taken): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let (mut tasks, frame) = (JoinSet::new(), lines());
        for _ in 0..8 {
            let (client, frame) = (client.clone(), frame.clone());
            let (stop, taken) = (stop.clone(), taken.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Acquire) {
                    match client.frame("words", &frame).await.status {
                        202 => drop(taken.fetch_add(1, Ordering::Relaxed)),
                        429 | 503 => tokio::time::sleep(Duration::from_millis(5)).await,
                        other => panic!("{other}"),
                    }
                }
            });
        }
        Self { stop, taken, tasks }
    }
}

/// Words that came out.
async fn counted(client: &Client) -> u64 {
    let detail = client.describe("words").await;
    detail["output"][0]["events"].as_u64().expect("a number")
}

/// Bytes that machines sent each other, and each of them.
fn sent(lan: &Lan) -> (u64, Vec<u64>) {
    let each: Vec<u64> = NAMES.iter().map(|name| lan.machine(name).carried().bytes_out).collect();
    (each.iter().sum::<u64>() - lan.bridge().carried().bytes_in, each)
}

/// Carries plans out, by the command, until one has no moves. Gives how many there were.
async fn planned(scene: &Scene) -> usize {
    let home = &scene.nodes[scene.home];
    let (url, token) = (home.url(), home.token("acme").to_owned());
    for round in 0..PLANS_MAX {
        let (url, token) = (url.clone(), token.clone());
        let said = tokio::task::spawn_blocking(move || {
            let plan = ["plan", "--apply", "--output", "json", "--tenant", "acme", "--url", &url];
            node::command(&plan).env("SLUICEBOX_TOKEN", token).output()
        });
        let said = said.await.expect("it ends").expect("the program can be started");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let plan: Value = serde_json::from_slice(&said.stdout).expect("asked for JSON");
        if plan["moves"].as_array().is_some_and(Vec::is_empty) {
            return round;
        }
        tokio::time::sleep(WARM).await;
    }
    PLANS_MAX
}

#[expect(clippy::print_stdout, reason = "a measurement is to be read")]
async fn measure(lan: Arc<Lan>, placing: Placing) {
    let cluster = Cluster::on(&lan, &NAMES);
    let nodes = cluster.start(|| cluster.fresh().set("node.workers", "1")).await;
    let scene = Scene::with(cluster, nodes);
    scene.through[0].push("word-count-split").await;
    scene.through[0].push("word-count-count").await;
    scene.through[0].apply("words", words(PARTITIONS, "64MiB")).await;
    let scene = scene.about("words").await;
    for nth in 1..NAMES.len() {
        let those: Vec<u64> =
            (0..PARTITIONS).filter(|at| placing.of(*at) == Some(nth)).map(u64::from).collect();
        if !those.is_empty() {
            scene.moved(&those, scene.other(nth)).await;
        }
    }
    let mut producing = Producing::begin(scene.at_home());
    tokio::time::sleep(WARM).await;
    let plans = match placing {
        Placing::Plan => planned(&scene).await,
        _ => 0,
    };
    let (began, words, (bytes, each)) =
        (Instant::now(), counted(scene.at_home()).await, sent(&lan));
    tokio::time::sleep(COUNTED).await;
    let (took, more, (after, each_after)) =
        (began.elapsed(), counted(scene.at_home()).await - words, sent(&lan));
    let places = scene.settled(scene.at_home()).await;
    let mut at: BTreeMap<&str, usize> = NAMES.iter().map(|name| (*name, 0)).collect();
    for partition in 0..u64::from(PARTITIONS) {
        let node = places.get(&partition).map_or(NAMES[scene.home], String::as_str);
        *at.get_mut(node).expect("a node of ours") += 1;
    }
    let kilobytes: Vec<u64> =
        each.iter().zip(&each_after).map(|(before, after)| (after - before) / 1000).collect();
    println!(
        "{:<12} home {} {at:?}, {plans} plans: {:.0} words/s, {:.1} bytes a word between machines; \
         left a, b, c: {kilobytes:?} kB",
        format!("{placing:?}"),
        NAMES[scene.home],
        more as f64 / took.as_secs_f64(),
        (after - bytes) as f64 / more as f64,
    );
    producing.stop.store(true, Ordering::Release);
    while producing.tasks.join_next().await.is_some() {}
    let expected = producing.taken.load(Ordering::Relaxed) * u64::from(PARTITIONS) * WORDS;
    eventually("every word comes out once", Duration::from_secs(120), || async {
        (counted(scene.at_home()).await == expected).then_some(())
    })
    .await;
}

#[test]
#[ignore = "a measurement: it takes minutes, and its figures are to be read"]
fn bytes_between_machines_by_placement() {
    let placings = [Placing::Plan, Placing::Hash, Placing::RoundRobin];
    for placing in placings.into_iter().chain([Placing::Random(1), Placing::Random(2)]) {
        on_machines(|lan| measure(lan, placing));
    }
}
