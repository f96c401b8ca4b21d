//! The number of partitions changes, and nothing is lost, doubled or out of order.

use std::collections::BTreeMap;

use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::changes::tally;
use super::checkpoints::{checkpoint, setup};
use super::kills::{OFTEN, Tally, check, counted_through_kills};
use super::{COUNTS, Count, Dice, all_counts, with_words, words};

/// The example with so many partitions.
fn divided(partitions: u64) -> String {
    words("").replace("partitions = 4", &format!("partitions = {partitions}"))
}

/// Sends some words, so that each partition has something.
async fn send(client: &Client, tally: &mut Tally) {
    for n in 0..40 {
        let word = format!("w{n}");
        client.send("words", &format!("?key=k{n}"), &[], word.clone()).await.is(202);
        *tally.entry(word).or_default() += 1;
    }
}

async fn counted(client: &Client, tally: &Tally) -> Vec<Count> {
    let total = tally.values().sum::<u64>() as usize;
    eventually("all are counted", SOON, || async {
        let counts = all_counts(client).await;
        (counts.len() >= total).then_some(counts)
    })
    .await
}

async fn again(node: Node) -> Node {
    let home = node.home().clone();
    drop(node.kill());
    setup().home(&home).start().await
}

#[tokio::test]
async fn keys_move_with_their_state_and_results_stay_readable_in_order() {
    let mut node = setup().start().await;
    with_words(&node.client()).await;
    let mut tally = Tally::new();
    let mut cursors: Vec<(String, usize)> = Vec::new();
    // Fewer and more, down to one and back, with kills before and behind checkpoints.
    for (round, partitions) in [4, 7, 2, 7, 1, 9, 3].into_iter().enumerate() {
        let client = node.client();
        let applied = client.apply("words", divided(partitions)).await;
        assert_eq!(applied["partitions"], partitions);
        send(&client, &mut tally).await;
        // What is on its way when the number changes is part of it.
        if round % 3 == 2 {
            checkpoint(&node).await;
            *tally.entry("first".to_owned()).or_default() += 1;
            *tally.entry("second".to_owned()).or_default() += 1;
        }
        if round % 2 == 1 {
            node = again(node).await;
        }
        let client = node.client();
        let counts = counted(&client, &tally).await;
        check(round as u64, &counts, &tally);
        for (cursor, before) in &cursors {
            let mut rest = Vec::new();
            let mut cursor = cursor.clone();
            loop {
                let page = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200);
                let records = page.records();
                if records.is_empty() {
                    break;
                }
                rest.extend(records);
                cursor = page.cursor();
            }
            assert_eq!(rest.len(), counts.len() - before, "from a cursor behind {before}");
        }
        let mut cursor = "oldest".to_owned();
        for half in 0..2 {
            let query = format!("cursor={cursor}&limit={}", 1 + counts.len() / 2);
            let page = client.page("words", COUNTS, &query).await.is(200);
            cursor = page.cursor();
            if half == 0 {
                cursors.push((cursor.clone(), page.records().len()));
            }
        }
        let latest = client.page("words", COUNTS, "cursor=latest").await.is(200).cursor();
        cursors.push((latest, counts.len()));
    }
    assert_eq!(node.client().describe("words").await["version"], 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_once_through_kills_and_other_numbers_of_partitions() {
    drop(counted_through_kills(&[], 400, some_number).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_once_through_kills_numbers_names_and_checkpoints() {
    drop(counted_through_kills(&OFTEN, 900, some_version).await);
}

fn some_number(dice: &mut Dice) -> Option<String> {
    Some(divided(1 + dice.below(9)))
}

/// Another number, and the stage that counts under one of two names.
fn some_version(dice: &mut Dice) -> Option<String> {
    let text = match dice.below(2) {
        0 => words("from = \"tally\""),
        _ => tally("from = \"count\""),
    };
    let partitions = format!("partitions = {}", 1 + dice.below(9));
    Some(text.replace("partitions = 4", &partitions))
}

#[tokio::test]
async fn best_effort_keys_move_too() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    let mut tally = Tally::new();
    let mut cursor = None;
    for (round, partitions) in [3, 8, 1, 5].into_iter().enumerate() {
        let manifest = divided(partitions).replace("exactly-once", "best-effort");
        client.apply("words", manifest).await;
        send(&client, &mut tally).await;
        let counts = counted(&client, &tally).await;
        check(round as u64, &counts, &tally);
        if let Some((cursor, before)) = cursor {
            let page = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200);
            assert_eq!(page.records().len(), counts.len() - before);
        }
        let page = client.page("words", COUNTS, "cursor=latest").await.is(200);
        cursor = Some((page.cursor(), counts.len()));
    }
}

#[tokio::test]
async fn dead_letters_stay_where_they_were() {
    let mut node = setup().start().await;
    let client = node.client();
    with_words(&client).await;
    client.push("hostile/trap-always").await;
    let dead = |partitions: u16| {
        let manifest = single("dead", "trap-always", "").replace("best-effort", "exactly-once");
        manifest.replace("partitions = 1", &format!("partitions = {partitions}"))
    };
    let mut cursor = "oldest".to_owned();
    let mut seen: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for (round, partitions) in [2, 6, 3, 6].into_iter().enumerate() {
        let client = node.client();
        client.apply("dead", dead(partitions)).await;
        for n in 0..20 {
            client.send("dead", &format!("?key=k{n}"), &[], format!("{round}.{n}")).await.is(202);
        }
        client.records("dead", "dead-letters", 20 * (round + 1)).await;
        if round == 2 {
            checkpoint(&node).await;
        }
        node = again(node).await;
        let page = node.client().page("dead", "dead-letters", &format!("cursor={cursor}")).await;
        let page = page.is(200);
        let records = page.records();
        assert_eq!(records.len(), 20, "those of round {round}");
        for record in records {
            let number = |name: &str| record[name].as_u64().expect("a number");
            let place = (number("partition"), number("offset"));
            let text = record.to_string();
            assert_eq!(seen.insert(place, text), None, "a place is used once");
        }
        cursor = page.cursor();
    }
}

#[tokio::test]
async fn a_halted_pipeline_keeps_its_number() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/trap-always").await;
    let halt = |partitions: u16| {
        let manifest = single("halt", "trap-always", "on-failure = \"halt\"");
        let manifest = manifest.replace("best-effort", "exactly-once");
        manifest.replace("partitions = 1", &format!("partitions = {partitions}"))
    };
    client.apply("halt", halt(2)).await;
    client.send("halt", "?key=k", &[], "x").await.is(202);
    eventually("it halts", SOON, || async {
        (client.describe("halt").await["state"] == "halted").then_some(())
    })
    .await;
    let refused = client.put("pipelines/halt", halt(3)).await.problem(409, "pipeline.conflict");
    assert!(refused.to_string().contains("halted"), "{refused:#}");
    let described = client.describe("halt").await;
    assert_eq!((&described["state"], &described["version"]), (&"halted".into(), &1.into()));
}
