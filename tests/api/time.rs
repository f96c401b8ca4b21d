//! Event time through a whole node: where it comes from, late events, silence, and what is shown.

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::{STAGE, single};
use sluicebox_tests::node::Setup;

/// A pipeline of the guest that does what it is told, with this of time.
fn timing(more: &str) -> String {
    format!("{}{more}", single("time", "conformance-rust", ""))
}

async fn with(client: &Client, manifest: String) {
    client.push("conformance-rust").await;
    client.apply("time", manifest).await;
}

async fn send(client: &Client, key: &str, time: u64, payload: Vec<u8>) {
    let (query, time) = (format!("?key={key}"), time.to_string());
    client.send("time", &query, &[("sluicebox-time", &time)], payload).await.is(202);
}

fn timer(at: u64, name: &str) -> Vec<u8> {
    [&[b'T', 0][..], &at.to_le_bytes(), name.as_bytes()].concat()
}

/// What the guest said, oldest first, once it said so much.
async fn said(client: &Client, count: usize) -> Vec<Vec<u8>> {
    let records = client.records("time", "outputs/reply", count).await;
    records.iter().map(payload).collect()
}

#[tokio::test]
async fn the_watermark_follows_the_events_less_the_lateness_and_late_ones_are_counted() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with(&client, timing("[time]\nlateness = \"1ms\"\n")).await;
    send(&client, "a", 5_000, b"W".to_vec()).await;
    assert_eq!(said(&client, 1).await[0], 0_u64.to_le_bytes(), "nothing is known yet");
    eventually("the watermark rises", SOON, || async {
        let detail = client.describe("time").await;
        (detail["time"]["watermark"] == 4_000).then_some(())
    })
    .await;
    send(&client, "a", 3_999, b"W".to_vec()).await;
    send(&client, "a", 4_000, b"W".to_vec()).await;
    let said = said(&client, 3).await;
    assert_eq!(said[1..], [4_000_u64.to_le_bytes(), 4_000_u64.to_le_bytes()]);
    let detail = client.describe("time").await;
    assert_eq!(detail["stage"][0]["late-events"], 1, "{detail}");
    assert_eq!(detail["time"]["high"], 5_000);
    assert!(detail["time"]["lag-ms"].as_u64().is_some_and(|lag| lag > 0), "{detail}");
    let metrics = client.plain("/metrics").await.is(200);
    let labels = "tenant=\"dev\",pipeline=\"time\"";
    for line in [
        format!("sluicebox_stage_late_events_total{{{labels},stage=\"{STAGE}\"}} 1"),
        format!("sluicebox_stage_timers{{{labels},stage=\"{STAGE}\"}} 0"),
        format!("sluicebox_watermark_seconds{{{labels}}} 0.004"),
    ] {
        assert!(metrics.text().contains(&line), "{line}: {}", metrics.text());
    }
}

#[tokio::test]
async fn behind_a_silence_the_watermark_goes_on_with_the_clock() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with(&client, timing("[time]\nlateness = \"50ms\"\nidle-after = \"100ms\"\n")).await;
    send(&client, "a", 1_000_000, timer(1_200_000, "t")).await;
    let said = said(&client, 2).await;
    let at = 1_200_000_u64.to_le_bytes();
    assert_eq!(said, [vec![0], [&[1, 0, 0][..], &at, b"a"].concat()], "nothing else came");
}

#[tokio::test]
async fn event_time_is_taken_from_the_payload_and_a_bad_one_is_refused_by_line() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let manifest = single("time", "echo", "")
        .replace("[ingest]", "[ingest]\ntime = \"/at\"\ntime-unit = \"s\"\nkey = \"/k\"");
    client.apply("time", format!("{manifest}[time]\n")).await;
    let lines = "{\"k\":\"a\",\"at\":1700000000.5}\n{\"k\":\"a\",\"at\":\"noon\"}\n\
                 {\"k\":\"a\"}\n{\"k\":\"a\",\"at\":\"2023-11-14T22:13:21Z\"}\n";
    let reply = client.lines("time", lines).await.is(202);
    let errors: Vec<Value> = reply.json()["errors"].as_array().expect("a list").clone();
    let found: Vec<_> = errors.iter().map(|e| (&e["line"], &e["code"])).collect();
    assert_eq!(
        found,
        [(&Value::from(2), &"ingest.time".into()), (&3.into(), &"ingest.time".into())]
    );
    let records = client.records("time", "outputs/reply", 2).await;
    let times: Vec<_> = records.iter().map(|record| record["time"].clone()).collect();
    assert_eq!(times, ["2023-11-14T22:13:20.500000Z", "2023-11-14T22:13:21.000000Z"]);
}

#[tokio::test]
async fn without_event_time_a_timer_by_it_is_refused_and_one_by_the_clock_fires() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with(&client, timing("")).await;
    send(&client, "a", 5, timer(7, "t")).await;
    let wall = [&[b'T', 1][..], &9_u64.to_le_bytes(), b"w"].concat();
    send(&client, "a", 6, wall).await;
    let said = said(&client, 3).await;
    let refused = String::from_utf8_lossy(&said[0]).into_owned();
    assert!(refused.contains("[time]"), "{refused}");
    assert_eq!(said[1..], [vec![0], [&[1, 0, 0][..], &9_u64.to_le_bytes(), b"a"].concat()]);
}
