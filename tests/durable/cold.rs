//! State that does not fit into memory: counted as if it did, whatever happens to the node.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::eventually;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::{all_counts, with_words};

const WORDS: usize = 40_000;
/// The state of that many words takes this many times over.
const MEMORY: u64 = 1024 * 1024;
/// How long all of it may take, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(120);

fn setup() -> Setup {
    Setup::dev().set("log.checkpoint-interval", "300ms").set("quota.state-bytes", "1MiB")
}

/// Sends every word once, many in a line.
async fn send_round(client: &Client, round: usize) {
    let word = |n: usize| format!("word{}", (n * 7 + round) % WORDS);
    let words: Vec<String> = (0..WORDS).map(word).collect();
    for (at, text) in words.chunks(1000).enumerate() {
        let id = format!("{round}/{at}");
        client.send("words", "?key=k", &[("sluicebox-id", &id)], text.join(" ")).await.is(202);
    }
}

/// What each word came to.
async fn totals(client: &Client) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for count in all_counts(client).await {
        let total: &mut u64 = totals.entry(count.word).or_default();
        assert_eq!(count.count, *total + 1, "counts of a word come one after the other");
        *total = count.count;
    }
    totals
}

async fn eventually_all(client: &Client, rounds: u64) {
    eventually("every word is counted once a round", PATIENCE, || async {
        let totals = totals(client).await;
        assert!(totals.values().all(|total| *total <= rounds), "no word is counted twice");
        let all = totals.len() == WORDS && totals.values().all(|total| *total == rounds);
        all.then_some(())
    })
    .await;
}

pub(super) async fn state_bytes(client: &Client) -> u64 {
    let described = client.describe("words").await;
    let partitions = described["partition"].as_array().expect("partitions").clone();
    partitions.iter().map(|at| at["state-bytes"].as_u64().expect("a number")).sum()
}

/// Keys that the stage that counts had to have read.
async fn loads(node: &Node) -> u64 {
    of_stage(node, "count", "stage_state_loads_total").await
}

/// A figure of a stage.
pub(super) async fn of_stage(node: &Node, stage: &str, figure: &str) -> u64 {
    let text = node.client().plain("/metrics").await.is(200);
    let lines = text.text().lines().filter(|line| line.contains(figure));
    let label = format!("stage=\"{stage}\"");
    let of_stage = lines.filter(|line| line.contains(&label));
    of_stage.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn state_larger_than_its_memory_is_counted_on_over_a_kill() {
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    for round in 0..2 {
        send_round(&client, round).await;
    }
    eventually_all(&client, 2).await;
    assert!(loads(&node).await > WORDS as u64 / 2, "most words left memory between two rounds");
    let held = state_bytes(&client).await;
    assert!(held <= MEMORY * 5 / 4, "{held} bytes of state are in memory");
    send_round(&client, 2).await;
    drop(node.kill());

    let node = setup().home(&home).start().await;
    let client = node.client();
    eventually_all(&client, 3).await;
    send_round(&client, 3).await;
    eventually_all(&client, 4).await;
}

#[tokio::test]
async fn state_nobody_asks_for_leaves_memory_and_comes_back() {
    let node = Setup::dev().set("log.checkpoint-interval", "300ms").start().await;
    let client = node.client();
    with_words(&client).await;
    send_round(&client, 0).await;
    eventually_all(&client, 1).await;
    assert!(state_bytes(&client).await > MEMORY);
    // After some seconds of sleep, and a checkpoint.
    eventually("all of it leaves", PATIENCE, || async {
        (state_bytes(&client).await == 0).then_some(())
    })
    .await;
    send_round(&client, 1).await;
    eventually_all(&client, 2).await;
    assert_eq!(loads(&node).await, WORDS as u64, "each word was read once");
}

#[tokio::test]
async fn a_partition_that_has_halted_sleeps_with_the_state_of_its_batch() {
    let node = Setup::dev().set("log.checkpoint-interval", "300ms").start().await;
    let client = node.client();
    with_words(&client).await;
    client.push("conformance-rust").await;
    client.push("hostile/echo").await;
    let manifest = |component: &str| {
        let halting = single("halt", component, "on-failure = \"halt\"");
        halting.replace("best-effort", "exactly-once")
    };
    client.apply("halt", manifest("conformance-rust")).await;
    // What the first event wrote is neither committed nor taken back while the second halts.
    let mut builder = FrameBuilder::new();
    for payload in [&b"s\x04slotvalue"[..], b"t"] {
        builder.push(&Head::data(1), b"k", payload, &[]);
    }
    client.frame("halt", &builder.finish()).await.is(202);
    let halted = || async {
        let detail = client.describe("halt").await;
        detail["partition"][0]["halted"].is_string().then_some(())
    };
    eventually("it halts", PATIENCE, halted).await;
    // Longer than a partition stays awake; with checkpoints all the time.
    for at in 0..22 {
        client.send("words", "?key=k", &[], format!("marker{at}")).await.is(202);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    halted().await.expect("it is there, and waits");
    client.apply("halt", manifest("echo")).await;
    assert_eq!(client.records("halt", "outputs/reply", 2).await.len(), 2, "nothing was lost");
}
