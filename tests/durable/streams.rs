//! Streams that outlive the node: their memory goes on where it was, whatever happens to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;
use sluicebox_core::frame::{Frame, Kind};
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::node::Setup;
pub(super) use sluicebox_tests::stream_memory::{GUEST, last_words, texts, told};

use super::damage::versions;
use super::kills::{Load, Run, through_kills};
use super::{Dice, number};

const OUT: &str = "outputs/out";

/// A pipeline of one stream function. `more` is said of the stage, `top` of the pipeline.
pub(super) fn manifest(top: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"streams\"\n{top}\n[ingest]\nto = [\"fold\"]\n\
         [stages.fold]\ncomponent = \"{GUEST}\"\nscope = \"stream\"\n{more}\n\
         [outputs.out]\nfrom = \"fold\"\nretain-bytes = \"256MiB\"\n"
    )
}

/// What came out, by key, in the order of the output.
pub(super) async fn said(client: &Client) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut cursor = "oldest".to_owned();
    loop {
        let page = client.page("streams", OUT, &format!("cursor={cursor}")).await.is(200);
        let records = page.records();
        if records.is_empty() {
            return all;
        }
        for record in &records {
            let key = record["key"].as_str().expect("a key").to_owned();
            let text = String::from_utf8(payload(record)).expect("text");
            all.entry(key).or_default().push(text);
        }
        cursor = page.cursor();
    }
}

pub(super) async fn says(client: &Client, key: &str, expected: &[String]) {
    let look = || async { said(client).await.remove(key).unwrap_or_default() };
    eventually_equal(expected.to_vec(), SOON, look).await;
}

#[tokio::test]
async fn a_stream_goes_on_after_a_kill_and_ends_when_it_is_told_to() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    client.send("streams", "?key=k", &[], "one").await.is(202);
    client.send("streams", "?key=k", &[], "two").await.is(202);
    says(&client, "k", &told(&texts(&["one", "two"]))).await;
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    let open = client.describe("streams").await["partition"].to_string();
    assert!(open.contains("\"open-streams\":1"), "{open}");
    client.send("streams", "?key=k", &[], "three").await.is(202);
    let end = [("sluicebox-key", "k"), ("sluicebox-end", "true")];
    client.send("streams", "", &end, "").await.is(202);
    let all = texts(&["one", "two", "three"]);
    let mut expected = told(&all);
    expected.push(last_words(&all));
    says(&client, "k", &expected).await;
}

#[tokio::test]
async fn a_stream_that_fell_silent_while_the_node_was_away_ends_by_itself() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    let idle = "stream = { idle-timeout = \"300ms\" }";
    client.apply("streams", manifest("partitions = 1", idle)).await;
    client.send("streams", "?key=k", &[], "one").await.is(202);
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let all = texts(&["one"]);
    let expected = [told(&all), vec![last_words(&all)]].concat();
    says(&node.client(), "k", &expected).await;
}

#[tokio::test]
async fn open_streams_survive_updates_and_other_partitions_but_not_other_code() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    let mut sent: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    let steps = [("partitions = 2", "retries = 5"), ("partitions = 5", ""), ("partitions = 1", "")];
    for (round, (top, more)) in steps.into_iter().enumerate() {
        for key in ["a", "b", "c", "d"] {
            let text = format!("{key} {round}");
            client.send("streams", &format!("?key={key}"), &[], text.clone()).await.is(202);
            sent.entry(key.to_owned()).or_default().push(text.into_bytes());
        }
        client.apply("streams", manifest(top, more)).await;
    }
    for key in ["a", "b", "c", "d"] {
        client.send("streams", &format!("?key={key}"), &[], "last").await.is(202);
        sent.entry(key.to_owned()).or_default().push(b"last".to_vec());
    }
    for (key, payloads) in &sent {
        says(&client, key, &told(payloads)).await;
    }
    let less = "limits = { fuel-per-event = 1000000 }\nstream = { on-update = \"restart\" }";
    client.apply("streams", manifest("partitions = 1", less)).await;
    for (key, payloads) in &sent {
        says(&client, key, &[told(payloads), vec![last_words(payloads)]].concat()).await;
    }
}

/// The same pipeline with a guest that says nothing before the end of a stream: the sum of its
/// bytes, 8 of them.
fn summing(more: &str) -> String {
    manifest("partitions = 2", more).replace(GUEST, "bench-stream")
}

async fn end(client: &Client, key: &str) {
    let headers = [("sluicebox-key", key), ("sluicebox-end", "true")];
    client.send("streams", "", &headers, "").await.is(202);
}

#[tokio::test]
async fn an_open_stream_goes_on_to_its_end_with_the_code_it_opened_with() {
    let settings = [("log.segment-bytes", "1MiB"), ("log.checkpoint-log-bytes", "2MiB")];
    let setup = |setup: Setup| settings.iter().fold(setup, |s, (field, value)| s.set(field, value));
    let node = setup(Setup::dev()).start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.push("bench-stream").await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    let mut sent: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let keys = ["a", "b", "c", "d"];
    // One of them is long enough for an image.
    let text = |key: &str, round: usize| match key {
        "a" => format!("{round} {}", "x".repeat(90_000)),
        _ => format!("{key} {round}"),
    };
    for key in keys {
        client.send("streams", &format!("?key={key}"), &[], text(key, 0)).await.is(202);
        sent.entry(key).or_default().push(text(key, 0).into_bytes());
    }
    client.apply("streams", summing("")).await;
    client.send("streams", "?key=new", &[], "\u{1}").await.is(202);
    // Nothing stands for the old code any more but its open streams.
    client.delete(&format!("components/{GUEST}")).await.is(204);
    for retries in 0..21 {
        client.apply("streams", summing(&format!("retries = {}", 3 + retries % 2))).await;
        if retries % 7 == 0 {
            for key in keys {
                client
                    .send("streams", &format!("?key={key}"), &[], text(key, retries))
                    .await
                    .is(202);
                sent.entry(key).or_default().push(text(key, retries).into_bytes());
            }
        }
    }
    let home = node.home().clone();
    drop(node.kill());
    let node = setup(Setup::dev().home(&home)).start().await;
    let client = node.client();
    client.apply("streams", summing("").replace("partitions = 2", "partitions = 3")).await;
    for key in keys {
        client.send("streams", &format!("?key={key}"), &[], text(key, 99)).await.is(202);
        sent.entry(key).or_default().push(text(key, 99).into_bytes());
        end(&client, key).await;
    }
    for (key, payloads) in &sent {
        says(&client, key, &[told(payloads), vec![last_words(payloads)]].concat()).await;
    }
    end(&client, "new").await;
    says(&client, "new", &["\u{1}\0\0\0\0\0\0\0".to_owned()]).await;
    // The next stream of the key has the code of now.
    client.send("streams", "?key=b", &[], "\u{2}").await.is(202);
    end(&client, "b").await;
    let all = [told(&sent["b"]), vec![last_words(&sent["b"])]].concat();
    says(&client, "b", &[all, vec!["\u{2}\0\0\0\0\0\0\0".to_owned()]].concat()).await;
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
}

#[tokio::test]
async fn a_stream_finds_its_code_when_the_document_of_the_version_is_damaged() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.push("bench-stream").await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    client.send("streams", "?key=a", &[], "one").await.is(202);
    client.apply("streams", summing("")).await;
    client.send("streams", "?key=b", &[], "\u{1}").await.is(202);
    client.apply("streams", summing("retries = 5")).await;
    let home = node.home().clone();
    drop(node.kill());
    let newest = versions(&home).pop().expect("three");
    std::fs::write(&newest, b"damaged").expect("it is ours");
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    client.send("streams", "?key=a", &[], "two").await.is(202);
    says(&client, "a", &told(&texts(&["one", "two"]))).await;
    end(&client, "b").await;
    says(&client, "b", &["\u{1}\0\0\0\0\0\0\0".to_owned()]).await;
}

#[tokio::test]
async fn streams_of_a_halted_pipeline_go_on_with_their_code() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.push("bench-stream").await;
    client.apply("streams", manifest("partitions = 2", "on-failure = \"halt\"")).await;
    // What the batch of the halt has is no stream yet.
    for key in ["a", "bad"] {
        client.send("streams", &format!("?key={key}"), &[], "one").await.is(202);
        says(&client, key, &told(&texts(&["one"]))).await;
    }
    client.send("streams", "?key=bad", &[], "trap").await.is(202);
    eventually("it halts", SOON, || async {
        (client.describe("streams").await["state"] == "halted").then_some(())
    })
    .await;
    client.send("streams", "?key=a", &[], "two").await.is(202);
    client.apply("streams", summing("")).await;
    client.send("streams", "?key=bad", &[], "two").await.is(202);
    for key in ["a", "bad"] {
        let all = texts(&["one", "two"]);
        says(&client, key, &told(&all)).await;
        end(&client, key).await;
        says(&client, key, &[told(&all), vec![last_words(&all)]].concat()).await;
    }
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert_eq!(dead.records().len(), 1, "the event that halted it: {:?}", dead.records());
}

#[tokio::test]
async fn a_stream_that_ended_in_the_batch_of_a_halt_still_has_its_code() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    let code = |code: &str, on_failure: &str| {
        let more = format!("config = {{ code = \"{code}\" }}\non-failure = \"{on_failure}\"");
        manifest("partitions = 1", &more)
    };
    client.apply("streams", code("first", "halt")).await;
    client.send("streams", "?key=a", &[], "one").await.is(202);
    says(&client, "a", &told(&texts(&["one"]))).await;
    client.apply("streams", code("second", "halt")).await;
    // The first ends, and then the partition halts.
    let batch = [
        Given::new("a", "").kind(Kind::End),
        Given::new("bad", "first"),
        Given::new("bad", "trap"),
    ];
    client.frame("streams", &frame(&batch)).await.is(202);
    eventually("it halts", SOON, || async {
        (client.describe("streams").await["state"] == "halted").then_some(())
    })
    .await;
    client.apply("streams", code("third", "dead-letter")).await;
    let all = texts(&["one"]);
    says(&client, "a", &[told(&all), vec![last_words(&all)]].concat()).await;
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    let of = |key: &str| dead.records().iter().filter(|letter| letter["key"] == key).count();
    assert_eq!((of("a"), of("bad")), (0, 1), "{:?}", dead.records());
}

#[tokio::test]
async fn streams_end_with_a_version_that_gives_their_ports_other_places() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    let ports = |code: &str, ports: &str| {
        let more = format!("config = {{ code = \"{code}\" }}\nports = [{ports}]");
        manifest("partitions = 1", &more).replace("from = \"fold\"", "from = \"fold.out\"")
    };
    client.apply("streams", ports("first", "\"out\"")).await;
    client.send("streams", "?key=a", &[], "one").await.is(202);
    let all = texts(&["one"]);
    says(&client, "a", &told(&all)).await;
    // What it says goes on where it went.
    client.apply("streams", ports("second", "\"out\", \"more\"")).await;
    client.send("streams", "?key=a", &[], "two").await.is(202);
    let all = texts(&["one", "two"]);
    says(&client, "a", &told(&all)).await;
    client.apply("streams", ports("third", "\"new\", \"out\", \"more\"")).await;
    says(&client, "a", &[told(&all), vec![last_words(&all)]].concat()).await;
}

#[tokio::test]
async fn a_stage_has_streams_of_so_many_codes_and_no_more() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    let code = |code: usize, more: &str| {
        manifest("partitions = 1", &format!("config = {{ code = \"{code}\" }}\n{more}"))
    };
    for at in 0..4 {
        client.apply("streams", code(at, "")).await;
        client.send("streams", &format!("?key=k{at}"), &[], "one").await.is(202);
    }
    let refused = client.put("pipelines/streams", code(4, "")).await;
    let refused = refused.problem(409, "pipeline.conflict");
    assert!(refused["detail"].as_str().is_some_and(|why| why.contains("on-update")), "{refused}");
    // One of those there are is no other.
    client.apply("streams", code(1, "")).await;
    // The partition says so once it runs.
    eventually_equal((json!(4), json!(3)), SOON, || async {
        let partition = client.describe("streams").await["partition"][0].clone();
        (partition["open-streams"].clone(), partition["earlier-code-streams"].clone())
    })
    .await;
    for at in 0..4 {
        client.send("streams", &format!("?key=k{at}"), &[], "two").await.is(202);
        says(&client, &format!("k{at}"), &told(&texts(&["one", "two"]))).await;
    }
    end(&client, "k0").await;
    client.apply("streams", code(4, "")).await;
    client.apply("streams", code(5, "stream = { on-update = \"restart\" }")).await;
    for at in 0..4 {
        let all = texts(&["one", "two"]);
        let expected = [told(&all), vec![last_words(&all)]].concat();
        says(&client, &format!("k{at}"), &expected).await;
    }
}

#[tokio::test]
async fn streams_of_a_halted_pipeline_end_before_other_code_comes() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    let halts = "on-failure = \"halt\"";
    client.apply("streams", manifest("partitions = 2", halts)).await;
    let keys = ["a", "b", "c", "d", "e", "f"];
    // What the batch of the halt has is no stream yet.
    for key in keys {
        let text = format!("{key} one");
        client.send("streams", &format!("?key={key}"), &[], text.clone()).await.is(202);
        says(&client, key, &told(&texts(&[&text]))).await;
    }
    client.send("streams", "?key=bad", &[], "trap at the end").await.is(202);
    says(&client, "bad", &told(&texts(&["trap at the end"]))).await;
    for key in ["x", "y", "z", "u", "v", "w"] {
        client.send("streams", &format!("?key={key}"), &[], "first").await.is(202);
        client.send("streams", &format!("?key={key}"), &[], "trap").await.is(202);
    }
    let halted = || async {
        let partitions = client.describe("streams").await["partition"].clone();
        let all = partitions.as_array().expect("a list").clone();
        all.iter().all(|partition| partition["halted"].is_string()).then_some(())
    };
    eventually("both have halted", SOON, halted).await;
    // Behind the halt.
    for key in keys {
        client.send("streams", &format!("?key={key}"), &[], format!("{key} two")).await.is(202);
    }
    let other = "config = { other = \"yes\" }\nstream = { on-update = \"restart\" }";
    client.apply("streams", manifest("partitions = 2", other)).await;
    for key in keys {
        let (before, after) = ([format!("{key} one")], [format!("{key} two")]);
        let bytes = |texts: &[String]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.clone().into_bytes()).collect()
        };
        let (before, after) = (bytes(&before), bytes(&after));
        let expected = [told(&before), vec![last_words(&before)], told(&after)].concat();
        says(&client, key, &expected).await;
    }
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    let of = |key: &str| dead.records().iter().filter(|letter| letter["key"] == key).count();
    assert_eq!(keys.map(of), [0; 6]);
    assert_eq!(of("bad"), 1, "{:?}", dead.records());
}

#[tokio::test]
async fn what_chance_gave_a_stream_is_the_same_after_restarts_and_updates() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    let tokens = |said: Vec<String>| -> Vec<String> {
        said.into_iter().filter(|text| text.starts_with("token ")).collect()
    };
    let ask = async |client: &Client, times: usize| {
        client.send("streams", "?key=k", &[], "token").await.is(202);
        eventually("it answers", SOON, || async {
            let found = tokens(said(client).await.remove("k").unwrap_or_default());
            (found.len() == times).then_some(found)
        })
        .await
    };
    ask(&client, 1).await;
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    ask(&client, 2).await;
    client.apply("streams", manifest("partitions = 3", "retries = 7")).await;
    let found = ask(&client, 3).await;
    assert!(found.iter().all(|token| *token == found[0]), "{found:?}");
}

#[tokio::test]
async fn a_stream_waits_for_room_and_is_not_lost() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 1", "")).await;
    client.send("streams", "?key=k", &[], "one").await.is(202);
    says(&client, "k", &told(&texts(&["one"]))).await;
    let home = node.home().clone();
    drop(node.kill());
    // No instance fits into that.
    let node = Setup::dev().home(&home).set("quota.memory-bytes", "1MiB").start().await;
    let client = node.client();
    // It cannot be ended, so the version it belongs to goes on.
    let other = "config = { other = \"yes\" }\nstream = { on-update = \"restart\" }";
    let other = manifest("partitions = 1", other);
    let refused =
        client.put("pipelines/streams", other.clone()).await.problem(409, "pipeline.conflict");
    assert!(
        refused["detail"].as_str().is_some_and(|why| why.contains("memory-bytes")),
        "{refused}"
    );
    client.send("streams", "?key=k", &[], "two").await.is(202);
    let waits = || async {
        let metrics = client.plain("/metrics").await.is(200).text().to_owned();
        let mut waits = metrics.lines().filter(|line| line.contains("stage_stream_waits_total{"));
        waits.any(|line| !line.ends_with(" 0")).then_some(())
    };
    eventually("it waits", SOON, waits).await;
    client.send("streams", "?key=k", &[], "three").await.is(202);
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    let all = texts(&["one", "two", "three"]);
    says(&client, "k", &told(&all)).await;
    client.apply("streams", other).await;
    says(&client, "k", &[told(&all), vec![last_words(&all)]].concat()).await;
}

/// Streams of which each belongs to one producer, so that its order is known.
struct Streams {
    /// Said of the stage.
    more: &'static str,
}

impl Load for Streams {
    fn pipeline(&self) -> &str {
        "streams"
    }

    async fn begin(&self, client: &Client) {
        client.push(GUEST).await;
        client.apply("streams", manifest("partitions = 3", self.more)).await;
    }

    fn request(&self, producer: u64, sent: u64, dice: &mut Dice) -> Frame {
        let events = 1 + dice.below(20);
        let event = |at: u64, dice: &mut Dice| {
            let key = format!("p{producer}-{}", dice.below(12));
            let size = if dice.below(30) == 0 { 20_000 } else { dice.below(40) };
            let text = format!("{} {}", sent + at, "x".repeat(size as usize));
            Given::new(&key, text)
        };
        let events: Vec<Given> = (0..events).map(|at| event(at, dice)).collect();
        frame(&events)
    }

    fn change(&self, dice: &mut Dice) -> Option<String> {
        let (partitions, retries) = (1 + dice.below(5), dice.below(9));
        let code = dice.below(3);
        let more = format!("{}\nretries = {retries}\nconfig = {{ code = \"{code}\" }}", self.more);
        Some(manifest(&format!("partitions = {partitions}"), &more))
    }
}

async fn memory_is_exact(more: &'static str, salt: u64) {
    let seed = number("SLUICEBOX_SEED").unwrap_or(20) ^ salt;
    let kills = number("SLUICEBOX_KILLS").unwrap_or(6);
    let settings = [("log.segment-bytes", "1MiB"), ("log.checkpoint-log-bytes", "2MiB")];
    let run = Run { seed, kills, millis_max: 400, settings: &settings };
    let (node, _home, sent) = through_kills(&run, &Arc::new(Streams { more })).await;
    let mut expected: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for frame in sent.iter().flatten() {
        for event in frame.events() {
            let payloads = expected.entry(event.key_str().to_owned()).or_default();
            payloads.push(event.payload.to_vec());
        }
    }
    for (key, payloads) in &expected {
        says(&node.client(), key, &told(payloads)).await;
    }
    let dead = node.client().page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
}

#[tokio::test]
async fn memory_is_exact_through_kills_versions_and_partitions() {
    memory_is_exact("", 0).await;
}

#[tokio::test]
async fn memory_is_exact_when_instances_have_to_make_room() {
    memory_is_exact("limits = { instances = 1 }", 1 << 40).await;
}
