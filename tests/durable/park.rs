//! Parked keys: they wait over kills and versions, and then go on in order.

use std::time::Duration;

use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::{STAGE, single};
use sluicebox_tests::node::{Home, Node, Setup};

/// A stage that parks, with what `park` says. The guest that does what it is told traps at `t`.
fn parking(component: &str, park: &str) -> String {
    let more = format!("on-failure = \"park\"\nretries = 0\npark = {{ {park} }}");
    single("park", component, &more).replace("best-effort", "exactly-once")
}

async fn start(home: &std::sync::Arc<Home>) -> Node {
    Setup::dev().home(home).start().await
}

async fn send(client: &Client, key: &str, payload: &str) {
    let query = format!("?key={key}");
    client.send("park", &query, &[], payload.to_owned()).await.is(202);
}

/// Keys and events that are parked, when there are so many.
async fn until_parked(client: &Client, keys: u64, events: u64) {
    eventually("so many are parked", SOON, || async {
        let detail = client.describe("park").await;
        let stage = &detail["stage"][0];
        (stage["parked-keys"] == keys && stage["parked-events"] == events).then_some(())
    })
    .await;
}

/// What came out for a key, once it is so many.
async fn results(client: &Client, key: &str, count: usize) -> Vec<String> {
    eventually("the results are there", SOON, || async {
        let page = client.page("park", "outputs/reply", "cursor=oldest").await.is(200);
        let records = page.records();
        let of_key = records.iter().filter(|record| record["key"] == key);
        let text = |record| String::from_utf8(payload(record)).expect("text");
        let texts: Vec<String> = of_key.map(text).collect();
        (texts.len() >= count).then_some(texts)
    })
    .await
}

#[tokio::test]
async fn a_parked_key_waits_over_a_kill_and_goes_on_in_order_under_a_better_component() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.push("hostile/echo").await;
    let forever = "pause = \"1h\", pause-max = \"1h\"";
    client.apply("park", parking("conformance-rust", forever)).await;
    send(&client, "a", "t").await;
    send(&client, "a", "e1").await;
    send(&client, "b", "e2").await;
    assert_eq!(results(&client, "b", 1).await, ["2"], "other keys go on");
    until_parked(&client, 1, 2).await;
    let metrics = client.plain("/metrics").await.is(200);
    let figure = format!(
        "sluicebox_stage_parked_events{{tenant=\"dev\",pipeline=\"park\",stage=\"{STAGE}\"}} 2"
    );
    assert!(metrics.text().contains(&figure), "{}", metrics.text());
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    send(&client, "a", "e3").await;
    until_parked(&client, 1, 3).await;
    client.apply("park", parking("echo", forever)).await;
    until_parked(&client, 1, 3).await;
    let path = client.path("pipelines/park/resume");
    client.ask(http::Method::POST, &path, &[], "").await.is(204);
    assert_eq!(results(&client, "a", 3).await, ["t", "e1", "e3"]);
    until_parked(&client, 0, 0).await;
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    until_parked(&client, 0, 0).await;
    send(&client, "a", "last").await;
    assert_eq!(results(&client, "a", 4).await, ["t", "e1", "e3", "last"], "each once");
}

#[tokio::test]
async fn parked_keys_move_with_the_number_of_partitions_and_with_their_stage() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.push("hostile/echo").await;
    let forever = "pause = \"1h\", pause-max = \"1h\"";
    let of = |component: &str, partitions: u32| {
        let number = format!("partitions = {partitions}");
        parking(component, forever).replace("partitions = 1", &number)
    };
    client.apply("park", of("conformance-rust", 2)).await;
    let keys: Vec<String> = (0..12).map(|key| format!("k{key}")).collect();
    for key in &keys {
        send(&client, key, "t0").await;
        send(&client, key, "e1").await;
    }
    until_parked(&client, 12, 24).await;
    client.apply("park", of("conformance-rust", 5)).await;
    until_parked(&client, 12, 24).await;
    // The log has what was parked before the change, and the change.
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    until_parked(&client, 12, 24).await;
    for key in &keys {
        send(&client, key, "e2").await;
    }
    until_parked(&client, 12, 36).await;
    let renamed = of("echo", 3).replace(&format!("\"{STAGE}\""), "\"other\"");
    let (before, after) =
        (format!("[stages.{STAGE}]"), format!("[stages.other]\nfrom = \"{STAGE}\""));
    let renamed = renamed.replace(&before, &after);
    client.apply("park", renamed).await;
    let path = client.path("pipelines/park/resume");
    client.ask(http::Method::POST, &path, &[], "").await.is(204);
    for key in &keys {
        assert_eq!(results(&client, key, 3).await, ["t0", "e1", "e2"], "{key}");
    }
    until_parked(&client, 0, 0).await;
}

#[tokio::test]
async fn keys_that_are_tried_all_the_time_lose_and_double_nothing_through_kills() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).set("log.checkpoint-interval", "250ms").start().await;
    let often = "attempts = 1000, pause = \"10ms\", pause-max = \"20ms\"";
    node.client().push("conformance-rust").await;
    node.client().push("hostile/echo").await;
    node.client().apply("park", parking("conformance-rust", often)).await;
    let keys: Vec<String> = (0..8).map(|key| format!("k{key}")).collect();
    for round in 0..5 {
        for key in &keys {
            let first = if round == 0 { "t0".to_owned() } else { format!("e{round}") };
            send(&node.client(), key, &first).await;
        }
        tokio::time::sleep(Duration::from_millis(40 + 90 * round)).await;
        drop(node.kill());
        node = Setup::dev().home(&home).set("log.checkpoint-interval", "250ms").start().await;
    }
    let client = node.client();
    until_parked(&client, 8, 40).await;
    client.apply("park", parking("echo", often)).await;
    for key in &keys {
        assert_eq!(results(&client, key, 5).await, ["t0", "e1", "e2", "e3", "e4"], "{key}");
    }
    until_parked(&client, 0, 0).await;
    let dead = client.page("park", "dead-letters", "cursor=oldest").await.is(200);
    assert_eq!(dead.records().len(), 0);
}

#[tokio::test]
async fn a_parked_event_is_given_up_on_after_its_attempts_and_its_followers_go_on() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("conformance-rust").await;
    client.apply("park", parking("conformance-rust", "attempts = 2, pause = \"50ms\"")).await;
    send(&client, "a", "t").await;
    send(&client, "a", "e1").await;
    let dead = client.records("park", "dead-letters", 1).await;
    assert_eq!((&dead[0]["class"], payload(&dead[0])), (&"trap".into(), b"t".to_vec()));
    assert_eq!(results(&client, "a", 1).await, ["1"]);
    until_parked(&client, 0, 0).await;
}
