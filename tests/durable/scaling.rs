//! A pipeline scales with its load, and nothing is lost, doubled or out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::eventually;
use sluicebox_tests::node::Setup;
use tokio::task::JoinSet;

use super::checkpoints::setup;
use super::kills::{Tally, check};
use super::{COUNTS, all_counts};

/// Scaling looks every second, and has to see a rate for a while.
const LATER: Duration = Duration::from_secs(90);

/// Who sends at the same time, and how long each waits between two events.
const SENDERS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(1);

/// More workers than this machine may have processors: how many partitions there may be. What
/// waits is little, so that there can be more load than is handled and it is over soon.
fn with_workers() -> Setup {
    setup().set("node.workers", "4").set("limits.inbox-bytes", "64KiB")
}

/// Stages that take a while, one behind the other, and one that counts.
fn slow(scaling: &str, stages: &[&str]) -> String {
    let mut text = format!(
        "version = 1\nname = \"words\"\n[scaling]\nquiet = \"1s\"\n{scaling}\n\
         [ingest]\nto = [\"{}\"]\n[stages.count]\ncomponent = \"word-count-count\"\n\
         [outputs.counts]\nfrom = \"count\"\nretain-bytes = \"256MiB\"\n",
        stages[0]
    );
    let next = stages.iter().skip(1).chain(&["count"]);
    for (stage, next) in stages.iter().zip(next) {
        text += &format!(
            "[stages.{stage}]\ncomponent = \"slow\"\n\
             [[edges]]\nfrom = \"{stage}\"\nto = \"{next}\"\n"
        );
    }
    text
}

async fn apply(client: &Client, manifest: String) {
    client.push("hostile/slow").await;
    client.push("word-count-count").await;
    client.apply("words", manifest).await;
}

/// Load that goes on until it is told to end, and says what was taken.
struct Load {
    ends: Arc<AtomicBool>,
    senders: JoinSet<Tally>,
}

impl Load {
    fn begin(client: &Client, keys: u64) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (client, ends) = (client.clone(), ends.clone());
            senders.spawn(async move {
                let mut tally = Tally::new();
                let mut n = sender;
                while !ends.load(Ordering::Relaxed) {
                    let word = format!("w{}", n % keys);
                    let reply = client.send("words", &format!("?key={word}"), &[], "x").await;
                    match reply.status {
                        202 => *tally.entry(word).or_default() += 1,
                        429 => {}
                        _ => panic!("{reply:?}"),
                    }
                    n += SENDERS;
                    tokio::time::sleep(PAUSE).await;
                }
                tally
            });
        }
        Self { ends, senders }
    }

    async fn end(self, into: &mut Tally) {
        self.ends.store(true, Ordering::Relaxed);
        for tally in self.senders.join_all().await {
            for (word, count) in tally {
                *into.entry(word).or_default() += count;
            }
        }
    }
}

async fn scaling(client: &Client) -> Value {
    client.describe("words").await["scaling"].clone()
}

async fn until(client: &Client, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, LATER, || async {
        let found = scaling(client).await;
        is(&found).then_some(found)
    })
    .await
}

async fn all_are_counted(client: &Client, tally: &Tally) {
    let total = tally.values().sum::<u64>() as usize;
    let counts = eventually("all are counted", LATER, || async {
        let counts = all_counts(client).await;
        (counts.len() >= total).then_some(counts)
    });
    check(0, &counts.await, tally);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_follow_the_load_through_a_kill_and_nothing_is_lost() {
    let node = with_workers().start().await;
    apply(&node.client(), slow("max = 3", &["slow"])).await;
    let at_first = scaling(&node.client()).await;
    assert_eq!((&at_first["partitions"], &at_first["max"]), (&1.into(), &3.into()));
    let mut tally = Tally::new();
    let load = Load::begin(&node.client(), 40);
    let more = |found: &Value| found["partitions"].as_u64() > Some(1);
    let grown = until(&node.client(), "there are more", more).await;
    load.end(&mut tally).await;
    assert!(grown["changes"].as_u64() > Some(0) && grown["seconds"].is_u64(), "{grown:#}");
    let detail = node.client().describe("words").await;
    assert_eq!(detail["version"], 1, "another scale is no other version");
    assert_eq!(detail["versions"].as_array().map(Vec::len), Some(1));
    let metrics = node.client().plain("/metrics").await.is(200);
    assert!(metrics.text().contains("sluicebox_pipeline_rescales_total{"), "{}", metrics.text());

    let before = scaling(&node.client()).await["partitions"].clone();
    let home = node.home().clone();
    drop(node.kill());
    let node = with_workers().home(&home).start().await;
    let client = node.client();
    let detail = client.describe("words").await;
    let partitions = detail["manifest"]["partitions"].clone();
    assert_eq!(partitions, before, "it goes on at the scale it had");
    // The same manifest again is no change, whatever it says of the number.
    let again = client.apply("words", slow("max = 3", &["slow"])).await;
    assert_eq!((&again["changed"], &again["partitions"]), (&false.into(), &partitions));
    until(&client, "there are fewer", |found| found["partitions"] == 1).await;
    all_are_counted(&client, &tally).await;
    let page = client.page("words", COUNTS, "cursor=latest").await.is(200);
    assert!(page.records().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_stage_is_set_apart_and_comes_back() {
    let node = with_workers().start().await;
    // One partition, which more partitions would not help: there is one key.
    apply(&node.client(), slow("max = 1", &["first", "second"])).await;
    let segments = |detail: &Value| detail["segments"].as_array().map_or(0, Vec::len);
    assert_eq!(segments(&node.client().describe("words").await), 1);
    let mut tally = Tally::new();
    let load = Load::begin(&node.client(), 1);
    let apart = |found: &Value| found["apart"].is_string();
    let found = until(&node.client(), "one is apart", apart).await;
    load.end(&mut tally).await;
    assert_eq!(found["why"], "it costs more than the rest of its segment", "{found:#}");
    let home = node.home().clone();
    drop(node.kill());
    let node = with_workers().home(&home).start().await;
    let client = node.client();
    let detail = client.describe("words").await;
    assert_eq!(segments(&detail), 2, "{detail:#}");
    let workers: Vec<&Value> =
        detail["partition"].as_array().expect("a list").iter().map(|one| &one["worker"]).collect();
    assert_ne!(workers[0], workers[1], "it runs beside the other");
    until(&client, "all are together", |found| found["apart"].is_null()).await;
    assert_eq!(segments(&client.describe("words").await), 1);
    all_are_counted(&client, &tally).await;
}
