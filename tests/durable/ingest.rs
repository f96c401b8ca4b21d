//! What producers may rely on.

use serde_json::json;
use sluicebox_tests::client::Client;
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

#[tokio::test]
async fn events_of_a_batch_are_known_one_by_one_also_behind_a_restart() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    let batch = |ids: &[&str]| {
        let event = |id: &&str| {
            json!({"specversion": "1.0", "id": id, "source": "/m", "type": "t",
                   "datacontenttype": "text/plain", "data": format!("word{id}")})
        };
        json!(ids.iter().map(event).collect::<Vec<_>>()).to_string()
    };
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let send = async |client: &Client, ids: &[&str]| {
        let reply = client.send("words", "", &headers, batch(ids)).await.is(202).json();
        let number = |name: &str| reply[name].as_u64().unwrap_or_default();
        (number("accepted"), number("duplicates"), number("rejected"))
    };
    assert_eq!(send(&client, &["a", "b", "a", "c"]).await, (3, 1, 0), "within one request");
    assert_eq!(send(&client, &["b", "d", "c", "d"]).await, (1, 3, 0), "in part");
    assert_eq!(send(&client, &["d", "a"]).await, (0, 2, 0), "as a whole");
    client.records("words", COUNTS, 4).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(send(&client, &["e", "a", "b", "c", "d"]).await, (1, 4, 0), "behind a restart");
    let one = [("content-type", "application/cloudevents+json")];
    let event = batch(&["e"]);
    let event = event.trim_matches(['[', ']']).to_owned();
    let again = client.send("words", "", &one, event).await.is(202).json();
    assert_eq!(again["duplicates"], 1, "alone or in a batch it is the same event");
    let mut counts = eventually("each is counted", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() >= 5).then_some(counts)
    })
    .await;
    counts.sort_by(|a, b| a.word.cmp(&b.word));
    let counts: Vec<(&str, u64)> = counts.iter().map(|c| (c.word.as_str(), c.count)).collect();
    let once = ["worda", "wordb", "wordc", "wordd", "worde"].map(|word| (word, 1));
    assert_eq!(counts, once);
    let text = client.plain("/metrics").await.is(200).text().to_owned();
    let line = "sluicebox_ingest_duplicates_total{tenant=\"dev\",pipeline=\"words\"} 5";
    assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
}
