//! Timers through kills, numbers of partitions and versions: each fires once, and under the
//! watermark of everything before it.

use std::sync::Arc;

use http::Method;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::{STAGE, single};
use sluicebox_tests::node::{Home, Node, Setup};

/// Event times of these tests begin here.
const BASE: u64 = 1_700_000_000_000_000;

/// The guest that sets timers as it is told, with event time.
fn timing(partitions: u32) -> String {
    let number = format!("partitions = {partitions}");
    let text = single("timers", "conformance-rust", "").replace("best-effort", "exactly-once");
    format!("{}[time]\nlateness = \"0s\"\n", text.replace("partitions = 1", &number))
}

async fn start(home: &Arc<Home>) -> Node {
    Setup::dev().home(home).start().await
}

/// Sends an event of a time after [`BASE`].
async fn send(client: &Client, key: &str, time: u64, payload: Vec<u8>) {
    let query = format!("?key={key}");
    let time = (BASE + time).to_string();
    client.send("timers", &query, &[("sluicebox-time", &time)], payload).await.is(202);
}

/// The command that sets a timer.
fn timer(clock: u8, at: u64, name: &str) -> Vec<u8> {
    [&[b'T', clock][..], &at.to_le_bytes(), name.as_bytes()].concat()
}

/// The timers that fired: key and time, in no order.
async fn fired(client: &Client) -> Vec<(String, u64)> {
    let page = client.page("timers", "outputs/reply", "cursor=oldest&limit=1000").await.is(200);
    let records = page.records();
    let timer = |record: &serde_json::Value| {
        let payload = payload(record);
        let time = payload.get(3..11)?.try_into().ok().map(u64::from_le_bytes)?;
        (payload[0] == 1).then(|| (String::from_utf8_lossy(&payload[11..]).into_owned(), time))
    };
    let mut fired: Vec<(String, u64)> = records.iter().filter_map(timer).collect();
    fired.sort();
    fired
}

async fn until_fired(client: &Client, wanted: &[(String, u64)]) {
    eventually("the timers fired", SOON, || async {
        (fired(client).await.len() >= wanted.len()).then_some(())
    })
    .await;
    assert_eq!(fired(client).await, wanted);
}

/// Timers that wait, over all stages.
async fn until_waiting(client: &Client, timers: u64) {
    eventually("so many timers wait", SOON, || async {
        let detail = client.describe("timers").await;
        (detail["stage"][0]["timers"] == timers).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_timer_by_event_time_outlives_kills_and_fires_once() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("timers", timing(2)).await;
    send(&client, "a", 1, timer(0, BASE + 50, "t")).await;
    send(&client, "b", 2, timer(0, BASE + 60, "t")).await;
    until_waiting(&client, 2).await;
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    until_waiting(&client, 2).await;
    assert_eq!(fired(&client).await, []);
    // Its partition may be another one: the watermark is of all that came in.
    send(&client, "c", 55, b"e".to_vec()).await;
    until_fired(&client, &[("a".to_owned(), BASE + 50)]).await;
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    until_waiting(&client, 1).await;
    send(&client, "c", 60, b"e".to_vec()).await;
    let both = [("a".to_owned(), BASE + 50), ("b".to_owned(), BASE + 60)];
    until_fired(&client, &both).await;
    drop(node.kill());
    let node = start(&home).await;
    send(&node.client(), "c", 99, b"e".to_vec()).await;
    until_waiting(&node.client(), 0).await;
    until_fired(&node.client(), &both).await;
}

#[tokio::test]
async fn a_timer_by_the_clock_fires_behind_a_kill_without_an_event() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("timers", timing(2)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let at = now.as_micros() as u64 + 1_500_000;
    send(&client, "a", 1, timer(1, at, "t")).await;
    until_waiting(&client, 1).await;
    drop(node.kill());
    let node = start(&home).await;
    until_fired(&node.client(), &[("a".to_owned(), at)]).await;
    until_waiting(&node.client(), 0).await;
}

#[tokio::test]
async fn timers_move_with_their_keys_and_with_their_stage() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("timers", timing(2)).await;
    let keys: Vec<String> = (0..12).map(|key| format!("k{key:02}")).collect();
    for key in &keys {
        send(&client, key, 1, timer(0, BASE + 50, "t")).await;
    }
    until_waiting(&client, 12).await;
    client.apply("timers", timing(5)).await;
    until_waiting(&client, 12).await;
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    until_waiting(&client, 12).await;
    let (before, after) =
        (format!("[stages.{STAGE}]"), format!("[stages.other]\nfrom = \"{STAGE}\""));
    let renamed = timing(3).replace(&format!("\"{STAGE}\""), "\"other\"").replace(&before, &after);
    client.apply("timers", renamed).await;
    until_waiting(&client, 12).await;
    send(&client, "other", 50, b"e".to_vec()).await;
    let wanted: Vec<_> = keys.iter().map(|key| (key.clone(), BASE + 50)).collect();
    until_fired(&client, &wanted).await;
    drop(node.kill());
    let node = start(&home).await;
    until_waiting(&node.client(), 0).await;
    until_fired(&node.client(), &wanted).await;
}

#[tokio::test]
async fn timers_go_with_the_state_that_is_given_up() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("timers", timing(1)).await;
    send(&client, "a", 1, timer(0, BASE + 50, "t")).await;
    until_waiting(&client, 1).await;
    let path = client.path(&format!("pipelines/timers?discard-state={STAGE}"));
    client.ask(Method::PUT, &path, &[], timing(1)).await.is(200);
    until_waiting(&client, 0).await;
    drop(node.kill());
    let node = start(&home).await;
    until_waiting(&node.client(), 0).await;
}

#[tokio::test]
async fn a_watermark_crosses_an_edge_with_another_key_and_outlives_kills() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    let manifest = "version = 1\nname = \"timers\"\npartitions = 3\n\
         [time]\nlateness = \"0s\"\n[ingest]\nto = [\"first\"]\n\
         [stages.first]\ncomponent = \"conformance-rust\"\n\
         [stages.second]\ncomponent = \"conformance-rust\"\n\
         [[edges]]\nfrom = \"first\"\nto = \"second\"\nkey = \"emitted\"\n\
         [outputs.reply]\nfrom = \"second\"\n";
    client.apply("timers", manifest).await;
    // The first stage passes the command on under another key.
    let under = |key: &str, command: Vec<u8>| {
        [&[b'k', key.len() as u8][..], key.as_bytes(), &command].concat()
    };
    let keys: Vec<String> = (0..9).map(|key| format!("k{key}")).collect();
    for key in &keys {
        send(&client, "same", 1, under(key, timer(0, BASE + 40, "t"))).await;
    }
    let waiting = |client: Client, timers: u64| async move {
        eventually("so many timers wait", SOON, || async {
            let detail = client.describe("timers").await;
            (detail["stage"][1]["timers"] == timers).then_some(())
        })
        .await;
    };
    waiting(client.clone(), 9).await;
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    waiting(client.clone(), 9).await;
    // One event, for one partition of the first stage, which sends nothing on.
    send(&client, "same", 41, b"m\x01".to_vec()).await;
    let wanted: Vec<_> = keys.iter().map(|key| (key.clone(), BASE + 40)).collect();
    until_fired(&client, &wanted).await;
    let detail = client.describe("timers").await;
    assert_eq!(detail["time"]["high"], BASE + 41, "{detail}");
}
