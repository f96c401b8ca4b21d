//! The bill through the real program: exact over kills, stage by stage, in each of its forms.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup};

/// What is in records that were there anyway, and not measured.
const EXACT: [&str; 6] = ["fuel", "events", "reruns", "bytes-in", "bytes-out", "bytes-between"];

/// Three stages of one segment, one behind the other.
const CHAIN: &str = "version = 1\nname = \"chain\"\ndelivery = \"exactly-once\"\npartitions = 2\n\
    [ingest]\nto = [\"one\"]\n[outputs.reply]\nfrom = \"three\"\n\
    [stages.one]\ncomponent = \"conformance-rust\"\n\
    [stages.two]\ncomponent = \"conformance-rust\"\n\
    [stages.three]\ncomponent = \"conformance-rust\"\n\
    [[edges]]\nfrom = \"one\"\nto = \"two\"\n[[edges]]\nfrom = \"two\"\nto = \"three\"\n";

/// A node that writes what it measures as often as it may, and has prices.
fn setup(home: &std::sync::Arc<Home>) -> Setup {
    Setup::dev()
        .home(home)
        .set("bill.interval", "1s")
        .set("bill.currency", "EUR")
        .set("bill.fuel", "0.123456789")
        .set("bill.bytes-in", "7")
        .set("bill.memory", "0.5")
        .set("log.checkpoint-interval", "250ms")
}

async fn bill(client: &Client, query: &str) -> Value {
    client.get(&format!("bill{query}")).await.is(200).json()
}

fn amount(row: &Value, item: &str) -> u64 {
    row["used"][item].as_u64().unwrap_or(0)
}

/// Money without its point.
fn nano(row: &Value) -> u128 {
    let text = row["cost"].as_str().expect("money");
    let (whole, behind) = text.split_once('.').expect("a decimal");
    assert_eq!(behind.len(), 9, "{text}");
    format!("{whole}{behind}").parse().expect("digits")
}

fn rows(bill: &Value) -> &[Value] {
    bill["rows"].as_array().expect("rows")
}

/// What is exact of each stage.
fn exact(bill: &Value) -> BTreeMap<String, [u64; 6]> {
    let row = |row: &Value| {
        let name = format!("{} {}", row["pipeline"], row["stage"]);
        (name, EXACT.map(|item| amount(row, item)))
    };
    rows(bill).iter().map(row).filter(|(_, amounts)| *amounts != [0; 6]).collect()
}

/// Fuel and calls that were taken back, as all commits of the log say.
fn logged(data: &std::path::Path) -> [u64; 2] {
    let command = std::process::Command::new(sluicebox_tests::node::program())
        .args(["log", "inspect", "--records", "--output", "json", "--data-dir"])
        .arg(data)
        .output()
        .expect("the command runs");
    let text = String::from_utf8(command.stdout).expect("UTF-8");
    let mut sums = [0; 2];
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        if value["kind"] == "commit" {
            let number = |name: &str| value["says"][name].as_u64().unwrap_or_default();
            sums = [sums[0] + number("fuel"), sums[1] + number("reruns")];
        }
    }
    sums
}

/// Every level is the sum of what is below it, in amounts and in money.
fn check_levels(bills: &[Value]) {
    for bill in bills {
        let total = &bill["total"];
        let items = total["used"].as_object().expect("amounts");
        for (item, all) in items {
            let sum: u64 = rows(bill).iter().map(|row| amount(row, item)).sum();
            assert_eq!(Some(sum), all.as_u64(), "{item} in {bill:#}");
        }
        assert_eq!(rows(bill).iter().map(nano).sum::<u128>(), nano(total), "{bill:#}");
    }
}

#[tokio::test]
async fn a_bill_is_what_was_committed_through_kills() {
    let home = Home::new();
    let mut node = setup(&home).start().await;
    node.client().push("conformance-rust").await;
    node.client().apply("chain", CHAIN).await;
    let mut sent = 0;
    for round in 0..4_u64 {
        let client = node.client();
        for n in 0..30 {
            // Some trap in the second stage, so that its calls are made again.
            let payload = if n % 10 == 0 { "et" } else { "eee1" };
            let body = payload.to_owned();
            client.send("chain", &format!("?key=k{n}"), &[], body).await.is(202);
            sent += 1;
        }
        // In the middle of its work, of a checkpoint, or behind them.
        tokio::time::sleep(Duration::from_millis(120 * round)).await;
        drop(node.kill());
        node = setup(&home).start().await;
    }
    let client = node.client();
    let before = eventually("every event is in the bill", SOON, || async {
        let found = exact(&bill(&client, "?by=stage").await);
        let one = found.get("\"chain\" \"one\"")?;
        (one[1] == sent).then_some(found)
    })
    .await;
    assert_eq!(before.len(), 4, "three stages, and what came in: {before:?}");
    let two = before["\"chain\" \"two\""];
    assert!(two[0] > 0 && two[2] > 0, "its fuel and what it did again: {before:?}");
    assert_eq!(before["\"chain\" \"three\""][1], sent - 12, "what trapped did not get there");
    drop(node.kill());
    let node = setup(&home).start().await;
    let client = node.client();
    assert_eq!(exact(&bill(&client, "?by=stage").await), before, "it is what it was");
    let by = ["", "?by=", "?by=stage", "?by=hour", "?by=stage,day", "?by=pipeline,month"];
    let mut bills = Vec::new();
    for by in by {
        bills.push(bill(&client, by).await);
    }
    check_levels(&bills);
    client.delete("pipelines/chain").await.is(204);
    let gone = exact(&bill(&client, "?by=stage").await);
    assert_eq!(gone, before, "a pipeline that is gone is in the bill");
    // At least each that traps, and with it what was in a batch with it; never what was under way
    // when the node was killed.
    let reruns: u64 = before.values().map(|amounts| amounts[2]).sum();
    assert!((12..=sent).contains(&reruns), "{reruns}");
}

#[tokio::test]
async fn a_bill_is_the_sum_of_the_commits_in_the_log() {
    let home = Home::new();
    let node = setup(&home).start().await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("chain", CHAIN).await;
    for n in 0..30 {
        let payload = if n % 10 == 0 { "et" } else { "eee1" };
        let body = payload.to_owned();
        client.send("chain", &format!("?key=k{n}"), &[], body).await.is(202);
    }
    let billed = eventually("every event is in the bill", SOON, || async {
        let found = exact(&bill(&client, "?by=stage").await);
        let all =
            found.get("\"chain\" \"one\"")?[1] == 30 && found.get("\"chain\" \"three\"")?[1] == 27;
        all.then_some(found)
    })
    .await;
    drop(node.kill());
    let sum = |at: usize| billed.values().map(|amounts| amounts[at]).sum::<u64>();
    assert_eq!([sum(0), sum(2)], logged(&home.data()));
}

#[tokio::test]
async fn what_is_measured_outlives_a_stop_and_has_its_forms() {
    let home = Home::new();
    let node = setup(&home).start().await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("warm", single("warm", "conformance-rust", "")).await;
    for n in 0..20 {
        client.send("warm", &format!("?key=k{n}"), &[], "e1".to_owned()).await.is(202);
    }
    let row =
        |bill: &Value, stage: &Value| rows(bill).iter().find(|row| row["stage"] == *stage).cloned();
    let stage = Value::from("stage-0");
    let measured = eventually("it is measured", SOON, || async {
        let found = row(&bill(&client, "?by=stage").await, &stage)?;
        (amount(&found, "memory-kib-ms") > 0 && amount(&found, "events") == 20).then_some(found)
    })
    .await;
    assert!(amount(&measured, "fuel") > 0 && amount(&measured, "bytes-out") > 0, "{measured}");
    let (status, home) = {
        node.terminate();
        node.ended().await
    };
    assert!(status.success());
    let node = setup(&home).start().await;
    let client = node.client();
    let found = row(&bill(&client, "?by=stage").await, &stage).expect("it is there");
    assert_eq!(amount(&found, "events"), 20, "an event is billed once");
    assert!(amount(&found, "memory-kib-ms") >= amount(&measured, "memory-kib-ms"));
    let own = row(&bill(&client, "?by=stage").await, &Value::Null).expect("what came in");
    assert!(amount(&own, "bytes-in") > 20 * 2, "{own}");
    let csv = client.get("bill?by=stage,hour&format=csv").await.is(200);
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = csv.text();
    assert!(text.starts_with("pipeline,stage,from,to,fuel,events,"), "{text}");
    assert!(text.lines().skip(1).any(|line| line.starts_with("warm,stage-0,20")), "{text}");
    assert!(text.lines().all(|line| line.split(',').count() == 20), "{text}");
    client.get("bill?by=week").await.problem(400, "request.query");
}

#[tokio::test]
async fn an_event_says_what_it_cost_to_who_asks() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("chain", CHAIN).await;
    let reply = client.send("chain", "?key=k&wait=5s&usage", &[], "eee1".to_owned()).await.is(200);
    let told = reply.header("sluicebox-usage").expect("what it cost").to_owned();
    let stages: Vec<&str> = told.split(", ").collect();
    assert_eq!(stages.len(), 3, "{told}");
    for (row, stage) in stages.iter().zip(["one", "three", "two"]) {
        let parts: Vec<&str> = row.split(';').collect();
        assert_eq!(
            (parts[0], parts[3], parts[4], parts[5]),
            (stage, "calls=1", "events=1", "among=1")
        );
        let fuel: u64 = parts[1].strip_prefix("fuel=").expect("fuel").parse().expect("a number");
        assert!(fuel > 0, "{told}");
    }
    let plain = client.send("chain", "?key=k&wait=5s", &[], "eee1".to_owned()).await.is(200);
    assert_eq!(plain.header("sluicebox-usage"), None);
    let alone = client.send("chain", "?key=k&usage", &[], "eee1".to_owned()).await;
    alone.problem(400, "request.query");
}

#[tokio::test]
async fn a_best_effort_pipeline_is_billed_to_its_end_and_re_runs_apart() {
    let home = Home::new();
    let node = setup(&home).start().await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("brief", single("brief", "conformance-rust", "")).await;
    for n in 0..20 {
        let payload = if n % 10 == 0 { "t" } else { "e1" };
        client.send("brief", &format!("?key=k{n}"), &[], payload.to_owned()).await.is(202);
    }
    client.records("brief", "outputs/reply", 18).await;
    client.records("brief", "dead-letters", 2).await;
    // As a rule before anybody looks at what the last ones were.
    client.delete("pipelines/brief").await.is(204);
    let billed = eventually("all of it is in the bill", SOON, || async {
        let found = exact(&bill(&client, "?by=stage").await);
        let stage = found.get("\"brief\" \"stage-0\"").copied()?;
        (stage[1] >= 20).then_some(stage)
    })
    .await;
    assert_eq!(billed[1], 20, "each event once, whatever was run again");
    assert!(billed[2] >= 2, "what trapped was taken back: {billed:?}");
    assert!(billed[0] > 0 && billed[4] > 0, "its fuel and what left: {billed:?}");
}
