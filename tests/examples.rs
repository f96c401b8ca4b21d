//! The examples that have to do with time, and the one with streams, through the real program:
//! their manifests, the events they ship, and the results their READMEs promise.
//!
//! - Those of time are here. Each is run at once, and with the node killed between any two
//!   requests: what is kept of windows, joins and patterns, and the timers of it, outlive that.
//! - What lets the watermark pass is an event of a day later; nothing waits for the clock.
//!
//! Leaves to others: what windows do in every order of events (the SDK's own tests), timers and
//! watermarks by themselves.

#[path = "examples/motion.rs"]
mod motion;

use serde_json::{Value, json};
use sluicebox_tests::client::Client;
use sluicebox_tests::node::{Home, Setup};

const FRAUD: &str = include_str!("../examples/fraud/pipeline.toml");
const PAYMENTS: &str = include_str!("../examples/fraud/payments.ndjson");
const CLICKS: &str = include_str!("../examples/clicks/pipeline.toml");
const EVENTS: &str = include_str!("../examples/clicks/events.ndjson");

/// An event of fraud that lets the watermark pass all others.
const DAY_LATER: &str = r#"{"card":"clock","cents":1000,"country":"DE","at":1700090000000}"#;

/// The data of so many records of an output, in an order that does not depend on partitions.
async fn results(client: &Client, pipeline: &str, output: &str, count: usize) -> Vec<Value> {
    let records = client.records(pipeline, &format!("outputs/{output}"), count).await;
    let mut data: Vec<Value> = records.iter().map(|record| record["data"].clone()).collect();
    data.sort_by_key(Value::to_string);
    data
}

/// Which card, and which rule.
async fn alerts(client: &Client) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let found = results(client, "fraud", "alerts", 2).await;
    found.iter().map(|alert| (word(&alert["card"]), word(&alert["rule"]))).collect()
}

async fn check_alerts(client: &Client) {
    let expected = [("4000-0003", "probed"), ("4000-0006", "travelled")];
    let expected = expected.map(|(card, rule)| (card.to_owned(), rule.to_owned()));
    assert_eq!(alerts(client).await, expected);
    let late = client.page("fraud", "outputs/late", "").await.is(200);
    assert!(late.records().is_empty(), "nothing the example ships is late");
}

async fn with_clicks(client: &Client) {
    for stage in ["clicks-split", "clicks-attribute", "clicks-sessions"] {
        client.push(stage).await;
    }
    client.apply("clicks", CLICKS).await;
}

async fn check_clicks(client: &Client) {
    let clicks = [
        json!({"shown": 1_700_000_000_000_000_u64, "clicked": 1_700_000_040_000_000_u64,
            "after_ms": 40_000}),
        json!({"shown": 1_700_000_300_000_000_u64, "clicked": 1_700_000_710_000_000_u64,
            "after_ms": 410_000}),
    ];
    let mut found = results(client, "clicks", "clicks", 2).await;
    found.sort_by_key(|click| click["shown"].as_u64());
    assert_eq!(found, clicks);
    let mut unclicked: Vec<Option<u64>> = results(client, "clicks", "unclicked", 3)
        .await
        .iter()
        .map(|shown| shown["at"].as_u64())
        .collect();
    unclicked.sort_unstable();
    let at = [1_700_000_005_000_000, 1_700_000_030_000_000, 1_700_003_600_000_000];
    assert_eq!(unclicked, at.map(Some));
    let visits = [
        json!({"user": "ada", "from": 1_700_000_000_000_000_u64, "to": 1_700_001_840_000_000_u64,
            "shown": 2, "clicked": 1, "ads": 2}),
        json!({"user": "ada", "from": 1_700_003_600_000_000_u64, "to": 1_700_005_400_000_000_u64,
            "shown": 1, "clicked": 0, "ads": 1}),
        json!({"user": "bob", "from": 1_700_000_005_000_000_u64, "to": 1_700_002_510_000_000_u64,
            "shown": 2, "clicked": 2, "ads": 2}),
    ];
    let mut found = results(client, "clicks", "visits", 3).await;
    found.sort_by_key(|visit| (visit["user"].to_string(), visit["from"].as_u64()));
    assert_eq!(found, visits);
}

#[tokio::test]
async fn fraud_finds_one_of_each() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("fraud-detect").await;
    client.apply("fraud", FRAUD).await;
    client.lines("fraud", PAYMENTS).await.is(202);
    client.lines("fraud", DAY_LATER).await.is(202);
    check_alerts(&client).await;
}

#[tokio::test]
async fn fraud_sees_a_card_that_is_probed_before_any_time_has_passed() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("fraud-detect").await;
    client.apply("fraud", FRAUD).await;
    let of_one_card: Vec<&str> =
        PAYMENTS.lines().filter(|line| line.contains("4000-0003")).collect();
    client.lines("fraud", of_one_card.join("\n")).await.is(202);
    let found = results(&client, "fraud", "alerts", 1).await;
    assert_eq!(found[0]["rule"], "probed");
}

#[tokio::test]
async fn clicks_are_joined_and_visits_end() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_clicks(&client).await;
    client.lines("clicks", EVENTS).await.is(202);
    check_clicks(&client).await;
}

#[tokio::test]
async fn patterns_outlive_a_kill_between_any_two_payments() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    node.client().push("fraud-detect").await;
    node.client().apply("fraud", FRAUD).await;
    let lines: Vec<&str> = PAYMENTS.lines().chain([DAY_LATER]).collect();
    // Every part begins and ends in the middle of a pattern of one of the cards.
    for part in lines.chunks(9) {
        node.client().lines("fraud", part.join("\n")).await.is(202);
        drop(node.kill());
        node = Setup::dev().home(&home).start().await;
    }
    check_alerts(&node.client()).await;
}

#[tokio::test]
async fn joins_and_sessions_outlive_a_kill_between_any_two_events() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    with_clicks(&node.client()).await;
    for line in EVENTS.lines() {
        node.client().lines("clicks", line).await.is(202);
        drop(node.kill());
        node = Setup::dev().home(&home).start().await;
    }
    check_clicks(&node.client()).await;
}
