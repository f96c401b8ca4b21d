//! What producers may rely on.

use serde_json::json;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;

use super::{COUNTS, all_counts, with_words};

#[tokio::test]
async fn a_numbered_request_that_is_sent_again_is_counted_once() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let send = |sequence: &'static str, text: &'static str| {
        let headers = [("sluicebox-producer", "p"), ("sluicebox-sequence", sequence)];
        let client = &client;
        async move { client.send("words", "?key=k", &headers, text).await.is(202).json() }
    };
    assert_eq!(send("1", "to be").await, json!({ "accepted": 1, "rejected": 0 }));
    let again = json!({ "accepted": 0, "duplicates": 1, "rejected": 0 });
    assert_eq!(send("1", "to be").await, again);
    assert_eq!(send("2", "or not").await["accepted"], 1);
    assert_eq!(send("1", "an old one").await, again);
    client.records("words", COUNTS, 4).await;
    let words: Vec<String> = all_counts(&client).await.into_iter().map(|c| c.word).collect();
    assert_eq!(words.len(), 4, "{words:?}");
    let reply = client.plain("/metrics").await.is(200);
    let figures = reply.text();
    for (name, count) in [("ingest_events", 2), ("ingest_duplicates", 2)] {
        let line = format!("sluicebox_{name}_total{{tenant=\"dev\",pipeline=\"words\"}} {count}");
        assert!(figures.lines().any(|found| found == line), "{line} is missing in:\n{figures}");
    }
    assert!(figures.contains("sluicebox_log_health{state=\"healthy\"} 1"), "{figures}");
    let reply = client.send("words", "", &[("sluicebox-producer", "p")], "x").await;
    reply.problem(400, "request.producer");
}

#[tokio::test]
async fn an_event_with_an_id_is_counted_once_also_behind_a_restart() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    let cloud = [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "/m"), ("ce-id", "7")];
    assert_eq!(client.send("words", "", &cloud, "once").await.is(202).json()["accepted"], 1);
    client.records("words", COUNTS, 1).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    let again = client.send("words", "", &cloud, "once").await.is(202).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    let other = [("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "/n"), ("ce-id", "7")];
    assert_eq!(client.send("words", "", &other, "once").await.is(202).json()["accepted"], 1);
    let counts = eventually("both are counted", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() == 2).then_some(counts)
    })
    .await;
    assert_eq!(counts[1].count, 2, "of two sources: {counts:?}");
}
