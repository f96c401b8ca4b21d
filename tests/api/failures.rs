//! A pipeline that halts: it says why, keeps what is queued, and goes on when told or fixed.

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::guests;
use sluicebox_tests::manifest::single;

use super::{OBEYS, with};

const HALT: &str = "on-failure = \"halt\"";
const REPLY: &str = "outputs/reply";

/// Waits until the pipeline has halted; gives it in detail.
async fn halted(client: &Client, pipeline: &str) -> Value {
    eventually("the pipeline halts", SOON, || async {
        let detail = client.describe(pipeline).await;
        (detail["state"] == "halted").then_some(detail)
    })
    .await
}

fn payloads(records: &[Value]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8(payload(r)).expect("as it was sent")).collect()
}

#[tokio::test]
async fn a_halted_pipeline_says_why_and_a_better_manifest_lets_it_go_on() {
    let (_node, client) = with("halts", OBEYS, HALT).await;
    let given = ["e1", "xnot this one", "e2"].map(|text| Given::new("k", text));
    client.frame("halts", &frame(&given)).await.is(202);
    let detail = halted(&client, "halts").await;
    let partition = &detail["partition"][0];
    assert_eq!(partition["halted"], "stage-0: reject: not this one", "{detail:#}");
    let list = client.get("pipelines").await.is(200).json();
    let row = list.as_array().expect("a list").iter().find(|row| row["name"] == "halts");
    assert_eq!(row.expect("it is listed")["state"], "halted");
    // What comes now is queued behind it.
    client.frame("halts", &frame(&[Given::new("k", "e3")])).await.is(202);
    assert_eq!(client.page("halts", REPLY, "").await.is(200).text(), "");
    client.apply("halts", single("halts", OBEYS, "on-failure = \"dead-letter\"")).await;
    let records = client.records("halts", REPLY, 3).await;
    assert_eq!(payloads(&records), ["1", "2", "3"]);
    let dead = client.records("halts", "dead-letters", 1).await;
    assert_eq!(payloads(&dead), ["xnot this one"]);
    assert_eq!(client.describe("halts").await["state"], "running");
}

#[tokio::test]
async fn a_better_component_lets_a_halted_pipeline_go_on() {
    let (_node, client) = with("broken", "hostile/trap-always", HALT).await;
    let given = ["a", "b", "c"].map(|text| Given::new("k", text));
    client.frame("broken", &frame(&given)).await.is(202);
    let detail = halted(&client, "broken").await;
    let why = detail["partition"][0]["halted"].as_str().expect("a reason");
    assert!(why.starts_with("stage-0: trap: ") && why.contains("unreachable"), "{why}");
    client.put("components/repaired", guests::bytes("hostile/echo")).await.is(201);
    let applied = client.apply("broken", single("broken", "repaired", HALT)).await;
    assert_eq!(applied["version"], 2);
    assert_eq!(payloads(&client.records("broken", REPLY, 3).await), ["a", "b", "c"]);
    assert_eq!(client.page("broken", "dead-letters", "").await.is(200).text(), "");
}

#[tokio::test]
async fn a_halted_pipeline_that_is_resumed_tries_again() {
    // An instance of this guest traps on the seventh event it sees; the next instance does not.
    let (_node, client) = with("resumed", "hostile/panic-nth", HALT).await;
    for n in 1..7 {
        client.call("resumed", "k", format!("{n}")).await.is(200);
    }
    let resume = async {
        let detail = halted(&client, "resumed").await;
        assert_eq!(detail["stage"][0]["traps"], 1, "{detail:#}");
        let path = client.path("pipelines/resumed/resume");
        client.ask(http::Method::POST, &path, &[], "").await.is(204);
    };
    let (reply, ()) = tokio::join!(client.call("resumed", "k", "7"), resume);
    assert_eq!(reply.is(200).text(), "7", "the client that waited is answered");
    let records = client.records("resumed", REPLY, 7).await;
    assert_eq!(payloads(&records), ["1", "2", "3", "4", "5", "6", "7"]);
    let path = client.path("pipelines/nothing/resume");
    client.ask(http::Method::POST, &path, &[], "").await.problem(404, "pipeline.unknown");
}

#[tokio::test]
async fn resuming_what_still_fails_halts_again_and_loses_nothing() {
    let (_node, client) = with("stubborn", OBEYS, HALT).await;
    let given = ["e1", "xno"].map(|text| Given::new("k", text));
    client.frame("stubborn", &frame(&given)).await.is(202);
    let calls = halted(&client, "stubborn").await["stage"][0]["calls"].as_u64().expect("a number");
    let path = client.path("pipelines/stubborn/resume");
    client.ask(http::Method::POST, &path, &[], "").await.is(204);
    eventually("it is tried again and halts again", SOON, || async {
        let detail = client.describe("stubborn").await;
        let again = detail["stage"][0]["calls"].as_u64() > Some(calls);
        (again && detail["state"] == "halted").then_some(())
    })
    .await;
    client.apply("stubborn", single("stubborn", OBEYS, "")).await;
    assert_eq!(payloads(&client.records("stubborn", REPLY, 1).await), ["1"]);
    client.records("stubborn", "dead-letters", 1).await;
}

#[tokio::test]
async fn a_halted_pipeline_that_is_full_says_so() {
    let (_node, client) = with("full", OBEYS, HALT).await;
    client.call("full", "k", "n\0").await.is(204);
    client.frame("full", &frame(&[Given::new("k", "xno")])).await.is(202);
    halted(&client, "full").await;
    let large = [&b"e"[..], &[b'x'; 500_000]].concat();
    let mut taken = 0;
    let refused = loop {
        let reply = client.send("full", "?key=k", &[], large.clone()).await;
        if reply.status != 202 {
            break reply;
        }
        taken += 1;
        assert!(taken < 20, "nothing bounds what is queued");
    };
    let wait = refused.header("retry-after").and_then(|text| text.parse::<u64>().ok());
    assert!(wait.is_some_and(|seconds| (1..=60).contains(&seconds)), "{refused:?}");
    refused.problem(429, "pipeline.busy");
    client.apply("full", single("full", OBEYS, "")).await;
    let kept = client.records("full", REPLY, taken).await;
    assert_eq!(kept.len(), taken, "what was accepted is not lost");
}

#[tokio::test]
async fn a_halted_pipeline_can_be_deleted() {
    let (_node, client) = with("hopeless", OBEYS, HALT).await;
    client.frame("hopeless", &frame(&[Given::new("k", "xno")])).await.is(202);
    halted(&client, "hopeless").await;
    client.delete("pipelines/hopeless").await.is(204);
    client.apply("hopeless", single("hopeless", OBEYS, HALT)).await;
    let reply = client.call("hopeless", "k", "ea").await.is(200);
    assert_eq!(reply.text(), "a", "nothing is left of the one before");
}

#[tokio::test]
async fn what_a_guest_says_in_a_call_that_is_made_again_is_logged_once() {
    let limits = "limits = { log-lines = 2, fuel-per-event = 1_000_000 }";
    let (node, client) = with("flood", "hostile/log-flood", limits).await;
    // Four events of a key are one call; then two and two; then each alone, for good.
    let given = ["a", "b", "c", "d"].map(|text| Given::new("k", text));
    client.frame("flood", &frame(&given)).await.is(202);
    client.records("flood", "dead-letters", 4).await;
    let lines = || std::fs::read_to_string(node.log_file()).unwrap_or_default();
    let said = |log: &str| log.lines().filter(|line| line.contains("aaaa")).count();
    eventually("each event's lines are in the log", SOON, || async {
        (said(&lines()) >= 8).then_some(())
    })
    .await;
    assert_eq!(said(&lines()), 8);
}
