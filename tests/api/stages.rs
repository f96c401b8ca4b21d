//! Whom an instance serves: streams from their first event to their end, keys, and keyed state
//! that outlives a version.

use std::time::Duration;

use serde_json::json;
use sluicebox_core::frame::{Kind, field};
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::manifest::single;

use super::{ECHO, NODE, OBEYS, with};

const REPLY: &str = "outputs/reply";

/// What an output has, in words: `open k`, `end k`, or the payload.
async fn story(client: &Client, pipeline: &str) -> Vec<String> {
    client
        .events(pipeline, REPLY, |event| {
            let key = event.key_str();
            match event.payload.first().map(|kind| Kind::from_byte(*kind)) {
                Some(Some(Kind::Open)) => format!("open {key}"),
                Some(Some(Kind::End)) => format!("end {key}"),
                _ => String::from_utf8_lossy(event.payload).into_owned(),
            }
        })
        .await
}

async fn tells(client: &Client, pipeline: &str, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|text| (*text).to_owned()).collect();
    eventually_equal(expected, SOON, || story(client, pipeline)).await;
}

async fn say(client: &Client, pipeline: &str, key: &str, payload: &str) {
    let headers = [("sluicebox-key", key)];
    client.send(pipeline, "", &headers, payload.to_owned()).await.is(202);
}

async fn end(client: &Client, pipeline: &str, key: &str) {
    let headers = [("sluicebox-key", key), ("sluicebox-end", "true")];
    client.send(pipeline, "", &headers, "").await.is(202);
}

#[tokio::test]
async fn a_stream_opens_with_its_first_event_and_ends_when_its_sender_says_so() {
    let (_node, client) = with("streams", OBEYS, "scope = \"stream\"").await;
    say(&client, "streams", "k", "ea").await;
    tells(&client, "streams", &["open k", "a"]).await;
    assert_eq!(client.describe("streams").await["partition"][0]["open-streams"], 1);
    say(&client, "streams", "k", "eb").await;
    end(&client, "streams", "k").await;
    tells(&client, "streams", &["open k", "a", "b", "end k"]).await;
    assert_eq!(client.describe("streams").await["partition"][0]["open-streams"], 0);
    say(&client, "streams", "k", "ec").await;
    tells(&client, "streams", &["open k", "a", "b", "end k", "open k", "c"]).await;
    let bad = [("sluicebox-end", "perhaps")];
    client.send("streams", "", &bad, "x").await.problem(400, "ingest.header");
}

#[tokio::test]
async fn a_silent_stream_ends_by_itself() {
    let more = "scope = \"stream\"\nstream = { idle-timeout = \"50ms\" }";
    let (_node, client) = with("silent", OBEYS, more).await;
    say(&client, "silent", "k", "ea").await;
    tells(&client, "silent", &["open k", "a", "end k"]).await;
}

#[tokio::test]
async fn a_stream_ends_at_its_limit_and_the_next_event_opens_another() {
    let more = "scope = \"stream\"\nstream = { events-max = 2 }";
    let (_node, client) = with("limited", OBEYS, more).await;
    let given = ["ea", "eb", "ec"].map(|text| Given::new("k", text));
    client.frame("limited", &frame(&given)).await.is(202);
    tells(&client, "limited", &["open k", "a", "b", "end k", "open k", "c"]).await;
}

#[tokio::test]
async fn open_streams_end_when_the_pipeline_is_replaced() {
    let (_node, client) = with("replaced", OBEYS, "scope = \"stream\"").await;
    say(&client, "replaced", "k", "ea").await;
    tells(&client, "replaced", &["open k", "a"]).await;
    let text = single("replaced", OBEYS, "scope = \"stream\"\nretries = 9");
    client.apply("replaced", text).await;
    tells(&client, "replaced", &["open k", "a", "end k"]).await;
}

#[tokio::test]
async fn a_stream_that_halts_at_its_end_does_not_keep_the_next_version_waiting() {
    // It traps on the seventh event of an instance: open, five, and the end.
    let more = "scope = \"stream\"\non-failure = \"halt\"";
    let (_node, client) = with("halts", "hostile/panic-nth", more).await;
    for event in ["a", "b", "c", "d", "e"] {
        say(&client, "halts", "k", event).await;
    }
    tells(&client, "halts", &["", "a", "b", "c", "d", "e"]).await;
    let text = single("halts", "panic-nth", "scope = \"stream\"\nretries = 9");
    let applied = client.apply("halts", text);
    tokio::time::timeout(Duration::from_secs(20), applied).await.expect("it is applied");
    say(&client, "halts", "k", "f").await;
    eventually("the next version answers", SOON, || async {
        story(&client, "halts").await.ends_with(&["f".to_owned()]).then_some(())
    })
    .await;
}

/// Streams of the first stage, and a second that halts at the seventh event it sees of a key.
fn then_halting(name: &str, partitions: u16, second: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"best-effort\"\npartitions = {partitions}\n\
         [ingest]\nto = [\"first\"]\n\
         [stages.first]\ncomponent = \"echo\"\nscope = \"stream\"\n\
         [stages.{second}]\ncomponent = \"panic-nth\"\nscope = \"stream\"\non-failure = \"halt\"\n\
         [[edges]]\nfrom = \"first\"\nto = \"{second}\"\nkey = \"emitted\"\n\
         [outputs.reply]\nfrom = \"{second}\"\n"
    )
}

#[tokio::test]
async fn what_is_left_of_a_halt_behind_ended_streams_goes_only_to_who_can_read_it() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(ECHO).await;
    client.push("hostile/panic-nth").await;
    let cases = [("other-partitions", 2, "second"), ("other-stages", 1, "instead")];
    for (name, partitions, second) in cases {
        client.apply(name, then_halting(name, 1, "second")).await;
        for event in ["a", "b", "c", "d"] {
            say(&client, name, "k", event).await;
        }
        let mut all = vec!["", "", "a", "b", "c", "d"];
        tells(&client, name, &all).await;
        // The end of the stream is the seventh.
        let next = then_halting(name, partitions, second);
        let refused = client.put(&format!("pipelines/{name}"), next.clone()).await;
        let refused = refused.problem(409, "pipeline.conflict");
        assert!(
            refused["detail"].as_str().is_some_and(|text| text.contains("halted")),
            "{refused}"
        );
        // An instance that is new sees it as its second, behind an opening.
        all.extend(["", ""]);
        tells(&client, name, &all).await;
        assert_eq!(client.describe(name).await["version"], 1);
        say(&client, name, "k", "e").await;
        assert_eq!(client.apply(name, next).await["version"], 2);
    }
}

#[tokio::test]
async fn the_event_of_a_halt_is_not_given_up_for_a_version_without_its_reader() {
    let (_node, client) = with("alone", "hostile/trap-always", "on-failure = \"halt\"").await;
    client.push(ECHO).await;
    say(&client, "alone", "k", "a").await;
    eventually("it halts", SOON, || async {
        (client.describe("alone").await["state"] == "halted").then_some(())
    })
    .await;
    let other = single("alone", "echo", "").replace("stage-0", "other");
    let refused = client.put("pipelines/alone", other).await.problem(409, "pipeline.conflict");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("stage-0")), "{refused}");
    client.apply("alone", single("alone", "echo", "")).await;
    tells(&client, "alone", &["a"]).await;
}

#[tokio::test]
async fn a_key_has_an_instance_of_its_own() {
    let (_node, client) = with("by-key", OBEYS, "scope = \"key\"").await;
    for key in ["a", "b", "c", "a"] {
        let reply = client.call("by-key", key, "d").await.is(200);
        assert!(reply.body.ends_with(key.as_bytes()), "{reply:?}");
    }
    let stage = client.describe("by-key").await["stage"][0].clone();
    assert_eq!((&stage["scope"], &stage["instances"]), (&json!("key"), &json!(3)), "{stage}");
    let fewer = "scope = \"key\"\nlimits = { instances = 2 }";
    client.apply("by-key", single("by-key", OBEYS, fewer)).await;
    for key in ["a", "b", "c", "a"] {
        client.call("by-key", key, "ex").await.is(200);
    }
    let stage = client.describe("by-key").await["stage"][0].clone();
    assert_eq!(stage["instances"], 2, "{stage}");
}

/// The command that adds to a counter.
fn add(delta: i64) -> Vec<u8> {
    [&b"a\x01n"[..], &delta.to_le_bytes()].concat()
}

async fn sum(client: &Client, pipeline: &str, key: &str, delta: i64) -> i64 {
    let reply = client.call(pipeline, key, add(delta)).await.is(200);
    let (zero, number) = reply.body.split_first().expect("it answers");
    assert_eq!(*zero, 0, "{reply:?}");
    i64::from_le_bytes(number.try_into().expect("a number of 64 bits"))
}

#[tokio::test]
async fn state_is_kept_when_another_version_is_applied() {
    let (_node, client) = with("counting", OBEYS, "").await;
    assert_eq!(sum(&client, "counting", "a", 5).await, 5);
    assert_eq!(sum(&client, "counting", "b", 7).await, 7);
    let bytes = client.describe("counting").await["partition"][0]["state-bytes"].clone();
    assert!(bytes.as_u64() > Some(0), "{bytes}");
    let changed = single("counting", OBEYS, "config = { greeting = \"hello\" }");
    assert_eq!(client.apply("counting", changed).await["version"], 2);
    assert_eq!(client.call("counting", "a", "cgreeting").await.is(200).text(), "\u{1}hello");
    assert_eq!(sum(&client, "counting", "a", 1).await, 6);
    assert_eq!(sum(&client, "counting", "b", 1).await, 8);
    let before = client.page("counting", REPLY, "").await.is(200).records().len();
    assert_eq!(before, 5, "outputs are kept as well");
    // Another stage's state is its own: under a new name it begins anew.
    let renamed = single("counting", OBEYS, "").replace("stage-0", "other");
    client.apply("counting", renamed).await;
    assert_eq!(sum(&client, "counting", "a", 1).await, 1);
}

#[tokio::test]
async fn events_sent_while_a_version_is_replaced_are_all_handled() {
    let (_node, client) = with("busy", ECHO, "").await;
    let lines = |n: usize| (0..50).map(|i| format!("{}\n", n * 50 + i)).collect::<String>();
    let sender = async {
        for n in 0..40 {
            client.lines("busy", lines(n)).await.is(202);
        }
    };
    let applier = async {
        for retries in 4..10 {
            client.apply("busy", single("busy", "echo", &format!("retries = {retries}"))).await;
        }
    };
    tokio::join!(sender, applier);
    let records = client.records("busy", REPLY, 2_000).await;
    let found: Vec<u64> = records.iter().filter_map(|record| record["data"].as_u64()).collect();
    assert_eq!(found, (0..2_000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_later_stage_gets_events_by_the_key_of_its_edge() {
    let node = NODE.lend().await;
    let client = node.client();
    for guest in ["word-count-split", "word-count-count"] {
        client.push(guest).await;
    }
    let file = sluicebox_tests::root().join("examples/word-count/pipeline.toml");
    let text = std::fs::read_to_string(file).expect("the example is here");
    let applied = client.apply("word-count", text).await;
    assert_eq!(applied["partitions"], 4);
    let given = ["the cat and the dog", "The dog"]
        .map(|text| Given::new("text", text).field(field::CONTENT_TYPE, b"text/plain"));
    client.frame("word-count", &frame(&given)).await.is(202);
    let records = client.records("word-count", "outputs/counts", 7).await;
    let last = |word: &str| {
        let of_word: Vec<_> = records.iter().filter(|record| record["key"] == word).collect();
        let partitions: Vec<_> = of_word.iter().map(|record| &record["partition"]).collect();
        assert!(partitions.windows(2).all(|pair| pair[0] == pair[1]), "{word}: {partitions:?}");
        of_word.last().map(|record| record["data"].clone())
    };
    let counts: Vec<_> = ["the", "cat", "and", "dog"].map(|word| (word, last(word))).into();
    let text = format!("{counts:?}");
    for number in [3, 1, 1, 2] {
        assert!(text.contains(&number.to_string()), "{records:?}");
    }
    let detail = client.describe("word-count").await;
    assert_eq!(detail["segments"], json!([["split"], ["count"]]));
    eventually("all is counted", SOON, || async {
        let detail = client.describe("word-count").await;
        let stages = detail["stage"].as_array().expect("a list");
        let count = stages.iter().find(|stage| stage["name"] == "count").expect("it is there");
        (count["events-in"] == 7).then_some(())
    })
    .await;
}
