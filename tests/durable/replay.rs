//! Dead letters: read over versions and restarts, and given to their stage again, each once.

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::node::{Home, Setup};

/// Two stages, the second of which is what fails. `key` is that of the edge between them: `cause`
/// makes them one segment.
fn two(component: &str, key: &str) -> String {
    format!(
        "version = 1\nname = \"two\"\ndelivery = \"exactly-once\"\npartitions = 2\n\
         [ingest]\nto = [\"first\"]\n\
         [stages.first]\ncomponent = \"echo\"\n[stages.second]\ncomponent = \"{component}\"\n\
         [[edges]]\nfrom = \"first\"\nto = \"second\"\nkey = \"{key}\"\n\
         [outputs.reply]\nfrom = \"second\"\n"
    )
}

async fn start(home: &std::sync::Arc<Home>) -> sluicebox_tests::node::Node {
    Setup::dev().home(home).start().await
}

/// Replays everything there is: how many were, had been before, and were passed over.
async fn replay(client: &Client, query: &str) -> (u64, u64, u64) {
    let path = client.path(&format!("pipelines/two/dead-letters/replay?{query}"));
    let reply = client.ask(http::Method::POST, &path, &[], "").await.is(200).json();
    assert_eq!(reply["done"], !query.contains("limit"), "{reply:#}");
    let number = |name: &str| reply[name].as_u64().expect("a number");
    (number("replayed"), number("duplicates"), number("skipped"))
}

async fn events_in(client: &Client, stage: &str) -> Option<u64> {
    let detail = client.describe("two").await;
    let stages = detail["stage"].as_array()?;
    stages.iter().find(|found| found["name"] == stage)?["events-in"].as_u64()
}

fn payloads(records: &[Value]) -> Vec<String> {
    let text = |record| String::from_utf8(payload(record)).expect("text");
    let mut all: Vec<String> = records.iter().map(text).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once_into_its_stage_whatever_happens() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.push("hostile/trap-always").await;
    client.apply("two", two("trap-always", "cause")).await;
    for n in 0..6 {
        client.send("two", &format!("?key=k{n}"), &[], n.to_string()).await.is(202);
    }
    let dead = client.records("two", "dead-letters", 6).await;
    assert!(dead.iter().all(|record| record["stage"] == "second"), "{dead:#?}");
    // The stage is as it was: each fails again, and is a new dead letter.
    assert_eq!(replay(&client, "stage=second").await, (6, 0, 0));
    client.records("two", "dead-letters", 12).await;
    assert_eq!(events_in(&client, "first").await, Some(6), "the root did not see them again");
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    client.apply("two", two("echo", "cause")).await;
    assert_eq!(replay(&client, "limit=1").await.0, 0, "the first was replayed before");
    assert_eq!(replay(&client, "").await, (6, 6, 0));
    let out = client.records("two", "outputs/reply", 6).await;
    assert_eq!(payloads(&out), ["0", "1", "2", "3", "4", "5"]);
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    assert_eq!(replay(&client, "").await, (0, 12, 0));
    client.send("two", "?key=k", &[], "last").await.is(202);
    let out = client.records("two", "outputs/reply", 7).await;
    assert_eq!(payloads(&out), ["0", "1", "2", "3", "4", "5", "last"]);
    let path = client.path("pipelines/two/dead-letters/replay?stage=third");
    let refused = client.ask(http::Method::POST, &path, &[], "").await;
    refused.problem(404, "stage.unknown");
}

#[tokio::test]
async fn dead_letters_stay_readable_when_segments_are_cut_differently_and_back() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.push("hostile/trap-always").await;
    let mut sent = 0;
    let mut cursor = "oldest".to_owned();
    // One segment, two, one again, and two again, whose commits are numbered on.
    for key in ["cause", "emitted", "cause", "emitted"] {
        client.apply("two", two("trap-always", key)).await;
        for n in 0..3 {
            client.send("two", &format!("?key=k{n}"), &[], format!("{key}{n}")).await.is(202);
        }
        sent += 3;
        let all = client.records("two", "dead-letters", sent).await;
        assert_eq!(all.len(), sent, "what came before is still there");
        let page = client.page("two", "dead-letters", &format!("cursor={cursor}")).await.is(200);
        assert_eq!(page.records().len(), 3, "the cursor of the version before is good");
        cursor = page.cursor();
    }
    drop(node.kill());
    let node = start(&home).await;
    let client = node.client();
    assert_eq!(client.records("two", "dead-letters", sent).await.len(), sent);
    let page = client.page("two", "dead-letters", &format!("cursor={cursor}")).await.is(200);
    assert_eq!(page.records().len(), 0);
    client.apply("two", two("echo", "cause")).await;
    assert_eq!(replay(&client, "").await.0, sent as u64);
    let out = client.records("two", "outputs/reply", sent).await;
    assert_eq!(out.len(), sent);
}

#[tokio::test]
async fn dead_letters_of_best_effort_are_replayed_each_time() {
    let home = Home::new();
    let node = start(&home).await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.push("hostile/trap-always").await;
    let manifest = |component| two(component, "cause").replace("exactly-once", "best-effort");
    client.apply("two", manifest("trap-always")).await;
    client.send("two", "?key=k", &[], "x").await.is(202);
    client.records("two", "dead-letters", 1).await;
    client.apply("two", manifest("echo")).await;
    assert_eq!(replay(&client, "").await, (1, 0, 0));
    assert_eq!(replay(&client, "").await, (1, 0, 0));
    client.records("two", "outputs/reply", 2).await;
    // A stage that is gone has no place for its events.
    let gone = manifest("echo").replace("second", "other");
    client.apply("two", gone).await;
    assert_eq!(replay(&client, "").await, (0, 0, 1));
}
