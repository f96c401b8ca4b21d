//! State that goes by itself: values end in time, wherever they are, and never before.

use std::time::{Duration, Instant};

use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::eventually;
use sluicebox_tests::node::{Node, Setup};

use super::checkpoints::{checkpoint, setup};
use super::cold::{of_stage, state_bytes};
use super::{Count, all_counts, with_words, words};

const EXPIRED: &str = "stage_state_expired_keys_total";
/// The stage that counts.
const STAGE: &str = "count";
const PATIENCE: Duration = Duration::from_secs(60);
const WORDS: usize = 3000;

/// The example; what is kept of a word stays for so long.
fn living(ttl: &str) -> String {
    words(&format!("state-ttl = \"{ttl}\""))
}

async fn node_with(manifest: String) -> Node {
    let node = setup().start().await;
    with_words(&node.client()).await;
    node.client().apply("words", manifest).await;
    node
}

async fn again(node: Node) -> Node {
    let home = node.home().clone();
    drop(node.kill());
    setup().home(&home).start().await
}

/// Sends words at once.
async fn send(client: &Client, words: &[String]) {
    client.send("words", "?key=k", &[], words.join(" ")).await.is(202);
}

/// Every count of a word, once there are so many.
async fn counts_of(client: &Client, word: &str, count: usize) -> Vec<u64> {
    eventually("it is counted", PATIENCE, || async {
        let counts = all_counts(client).await;
        let of_word = counts.into_iter().filter(|at| at.word == word).map(|at| at.count);
        let all: Vec<u64> = of_word.collect();
        (all.len() >= count).then_some(all)
    })
    .await
}

fn numbered() -> Vec<String> {
    (0..WORDS).map(|n| format!("w{n}")).collect()
}

/// All counts of the numbered words, once there are so many.
async fn counts(client: &Client, count: usize) -> Vec<Count> {
    eventually("all are counted", PATIENCE, || async {
        let mut counts = all_counts(client).await;
        counts.retain(|count| count.word.starts_with('w'));
        (counts.len() >= count).then_some(counts)
    })
    .await
}

async fn until_expired(node: &Node, stage: &str, keys: u64) {
    eventually("they are gone", PATIENCE, || async {
        (of_stage(node, stage, EXPIRED).await >= keys).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_written_stays_and_what_is_not_begins_anew_over_a_kill() {
    let ttl = Duration::from_secs(4);
    let node = node_with(living("4s")).await;
    let client = node.client();
    let (lasting, short) = ([String::from("lasting")], [String::from("short")]);
    send(&client, &short).await;
    // As often as that, but for pauses a busy machine makes.
    let mut sent: Vec<Instant> = Vec::new();
    for _ in 0..16 {
        send(&client, &lasting).await;
        sent.push(Instant::now());
        tokio::time::sleep(ttl / 10).await;
    }
    send(&client, &short).await;
    let gaps = sent.windows(2).all(|pair| pair[1] - pair[0] < ttl * 3 / 4);
    let counted = counts_of(&client, "lasting", 16).await;
    assert!(!gaps || counted == (1..=16).collect::<Vec<u64>>(), "{counted:?}");
    assert_eq!(counts_of(&client, "short", 2).await, [1, 1]);
    let began = Instant::now();
    send(&client, &lasting).await;
    let before = counts_of(&client, "lasting", 17).await[16];
    let node = again(node).await;
    let client = node.client();
    send(&client, &lasting).await;
    let after = counts_of(&client, "lasting", 18).await[17];
    assert!(began.elapsed() >= ttl || after == before + 1, "{after} behind {before}");
}

#[tokio::test]
async fn keys_that_are_in_the_store_alone_go_without_being_touched() {
    let ttl = Duration::from_secs(8);
    let node = node_with(living("8s")).await;
    let began = Instant::now();
    send(&node.client(), &numbered()).await;
    counts(&node.client(), WORDS).await;
    checkpoint(&node).await;
    // It is over when the node is there again, and nothing is in memory.
    let home = node.home().clone();
    drop(node.kill());
    let was_quick = began.elapsed() < ttl;
    tokio::time::sleep(ttl + ttl / 8).await;
    let node = setup().home(&home).start().await;
    // On a slow machine some went before the kill, and then nobody can say how many are left.
    until_expired(&node, STAGE, if was_quick { WORDS as u64 } else { 0 }).await;
    assert_eq!(
        of_stage(&node, STAGE, "stage_state_loads_total").await,
        0,
        "no event asked for any"
    );
    // Gone, and not only hidden: also for a stage whose keys stay for ever.
    checkpoint(&node).await;
    let node = again(node).await;
    node.client().apply("words", words("")).await;
    send(&node.client(), &numbered()).await;
    let counts = counts(&node.client(), 2 * WORDS).await;
    assert!(counts.iter().all(|count| count.count == 1));
}

#[tokio::test]
async fn a_time_to_live_that_comes_later_counts_from_then() {
    let node = node_with(words("")).await;
    send(&node.client(), &numbered()).await;
    counts(&node.client(), WORDS).await;
    checkpoint(&node).await;
    // All of it is in the store alone, and nothing there says when it was written.
    let node = again(node).await;
    let client = node.client();
    client.apply("words", living("2s").replace("partitions = 4", "partitions = 7")).await;
    until_expired(&node, STAGE, WORDS as u64).await;
    assert_eq!(
        of_stage(&node, STAGE, "stage_state_loads_total").await,
        0,
        "no event asked for any"
    );
    client.apply("words", words("")).await;
    send(&client, &numbered()).await;
    let counts = counts(&client, 2 * WORDS).await;
    assert!(counts.iter().all(|count| count.count == 1));
}

#[tokio::test]
async fn keys_take_their_time_along_to_other_partitions_and_names() {
    let ttl = Duration::from_secs(6);
    let node = node_with(living("6s")).await;
    let client = node.client();
    let began = Instant::now();
    send(&client, &numbered()).await;
    let divided = |partitions: u16| {
        living("6s").replace("partitions = 4", &format!("partitions = {partitions}"))
    };
    client.apply("words", divided(7)).await;
    send(&client, &numbered()).await;
    let all = counts(&client, 2 * WORDS).await;
    let went_on = all.iter().filter(|count| count.count == 2).count();
    assert!(went_on == WORDS || began.elapsed() > ttl, "{went_on} went on");
    let renamed = divided(3).replace("[stages.count]", "[stages.other]\nfrom = \"count\"");
    let renamed = renamed.replace("\"count\"\nkey", "\"other\"\nkey");
    let renamed = renamed.replace("from = \"count\"\nretain", "from = \"other\"\nretain");
    client.apply("words", renamed).await;
    until_expired(&node, "other", WORDS as u64).await;
    eventually("nothing is left", PATIENCE, || async {
        (state_bytes(&client).await == 0).then_some(())
    })
    .await;
    assert!(began.elapsed() > ttl, "not before its time");
    send(&client, &numbered()).await;
    let all = counts(&client, 3 * WORDS).await;
    assert_eq!(all.iter().filter(|count| count.count == 1).count(), 3 * WORDS - went_on);
}

#[tokio::test]
async fn keys_nobody_names_again_leave_memory_with_best_effort_too() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    client.apply("words", living("2s").replace("exactly-once", "best-effort")).await;
    send(&client, &numbered()).await;
    counts(&client, WORDS).await;
    until_expired(&node, STAGE, WORDS as u64).await;
    assert_eq!(state_bytes(&client).await, 0);
    send(&client, &numbered()).await;
    let counts = counts(&client, 2 * WORDS).await;
    assert!(counts.iter().all(|count| count.count == 1));
}
