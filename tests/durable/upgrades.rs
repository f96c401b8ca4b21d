//! Streams that go over to other code with what they know (`on-update = "snapshot"`).

use serde_json::json;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::node::Setup;

use super::streams::{manifest, said, says, texts};

/// Says of each number the sum so far, times a factor of its config.
const GUEST: &str = "stream-snapshot";

/// The pipeline with a config, which is another code for each.
fn code(factor: i64, config: &str, more: &str) -> String {
    let more = format!(
        "config = {{ factor = \"{factor}\"{config} }}\n\
         limits = {{ memory = \"16MiB\" }}\n\
         stream = {{ on-update = \"snapshot\" }}\n{more}"
    );
    manifest("partitions = 2", &more).replace(super::streams::GUEST, GUEST)
}

async fn send(client: &Client, key: &str, payload: &str) {
    client.send("streams", &format!("?key={key}"), &[], payload.to_owned()).await.is(202);
}

/// A figure of all partitions.
async fn sum(client: &Client, field: &str) -> u64 {
    let described = client.describe("streams").await;
    let partitions = described["partition"].as_array().expect("partitions");
    partitions.iter().filter_map(|partition| partition[field].as_u64()).sum()
}

/// A counter of the node, of all stages.
async fn counter(client: &Client, name: &str) -> u64 {
    let figures = client.plain("/metrics").await.is(200);
    let of_name = |line: &&str| line.starts_with(&format!("sluicebox_stage_{name}_total{{"));
    let values = figures.text().lines().filter(of_name).map(str::to_owned).collect::<Vec<_>>();
    values.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn gone_over(client: &Client) {
    eventually("all have gone over", SOON, || async {
        (sum(client, "earlier-code-streams").await == 0).then_some(())
    })
    .await;
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[tokio::test]
async fn streams_go_over_to_other_code_with_what_they_know() {
    let node = Setup::dev().start().await;
    let client = node.client();
    let pushed = client.push(GUEST).await;
    assert_eq!(pushed["snapshots"], true, "{pushed}");
    client.apply("streams", code(1, "", "")).await;
    for key in ["a", "b", "c"] {
        send(&client, key, "1").await;
        send(&client, key, "2").await;
    }
    // More codes than a stage may have streams open with.
    for factor in [2, 3, 4, 5, 6] {
        client.apply("streams", code(factor, "", "")).await;
        gone_over(&client).await;
    }
    eventually_equal(15, SOON, || counter(&client, "stream_upgrades")).await;
    assert_eq!(counter(&client, "stream_upgrades_refused").await, 0);
    send(&client, "a", "4").await;
    says(&client, "a", &owned(&["1", "3", "resumed", "42"])).await;
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(sum(&client, "open-streams").await, 3);
    assert_eq!(sum(&client, "earlier-code-streams").await, 0);
    for key in ["a", "b"] {
        send(&client, key, "10").await;
    }
    says(&client, "a", &owned(&["1", "3", "resumed", "42", "102"])).await;
    says(&client, "b", &owned(&["1", "3", "resumed", "78"])).await;
    // The one that had nothing since ends with the code of now.
    client
        .send("streams", "", &[("sluicebox-key", "c"), ("sluicebox-end", "true")], "")
        .await
        .is(202);
    says(&client, "c", &owned(&["1", "3", "resumed", "end"])).await;
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
}

#[tokio::test]
async fn a_stream_whose_code_gives_or_takes_no_snapshot_stays_with_it() {
    for (before, after) in [
        (", take = \"trap\"", ""),
        (", take = \"spin\"", ""),
        (", take = \"large\"", ""),
        (", take = \"refuse\"", ""),
        ("", ", restore = \"trap\""),
        ("", ", restore = \"spin\""),
        ("", ", restore = \"refuse\""),
    ] {
        let node = Setup::dev().start().await;
        let client = node.client();
        client.push(GUEST).await;
        client.apply("streams", code(1, before, "")).await;
        send(&client, "a", "1").await;
        client.apply("streams", code(2, after, "")).await;
        send(&client, "a", "2").await;
        // What opens now has the code of now.
        send(&client, "b", "2").await;
        says(&client, "a", &owned(&["1", "3"])).await;
        says(&client, "b", &owned(&["4"])).await;
        assert_eq!(sum(&client, "earlier-code-streams").await, 1, "{before} {after}");
        assert_eq!(counter(&client, "stream_upgrades_refused").await, 1, "{before} {after}");
        // A version whose code is good takes it, if its own gives it.
        client.apply("streams", code(3, "", "")).await;
        send(&client, "b", "1").await;
        send(&client, "a", "4").await;
        let went = before.is_empty();
        let expected: &[&str] = if went { &["1", "3", "resumed", "21"] } else { &["1", "3", "7"] };
        says(&client, "a", &owned(expected)).await;
        says(&client, "b", &owned(&["4", "resumed", "9"])).await;
    }
}

#[tokio::test]
async fn a_memory_that_is_held_is_no_snapshot() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", code(1, "", "")).await;
    send(&client, "a", "1").await;
    send(&client, "a", "hold").await;
    send(&client, "b", "1").await;
    says(&client, "b", &owned(&["1"])).await;
    client.apply("streams", code(2, "", "")).await;
    send(&client, "b", "1").await;
    says(&client, "b", &owned(&["1", "resumed", "4"])).await;
    send(&client, "a", "anything").await;
    send(&client, "a", "2").await;
    says(&client, "a", &owned(&["1", "3"])).await;
}

#[tokio::test]
async fn the_batch_of_a_halt_is_run_by_the_code_that_mends_it() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("streams", code(1, "", "on-failure = \"halt\"")).await;
    send(&client, "a", "3").await;
    says(&client, "a", &owned(&["3"])).await;
    client.apply("streams", code(9, ", trap = \"yes\"", "on-failure = \"halt\"")).await;
    send(&client, "a", "5").await;
    eventually("it halts", SOON, || async {
        (client.describe("streams").await["state"] == "halted").then_some(())
    })
    .await;
    client.apply("streams", code(2, "", "on-failure = \"halt\"")).await;
    says(&client, "a", &owned(&["3", "resumed", "16"])).await;
    let dead = client.page("streams", "dead-letters", "cursor=oldest").await.is(200);
    assert!(dead.records().is_empty(), "{:?}", dead.records().first());
}

#[tokio::test]
async fn what_has_no_image_of_its_memory_has_one_of_what_it_says() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(GUEST).await;
    // Much more than is kept for a replay: without an image the stream would be lost.
    let bounded = "stream = { replay-bytes-max = \"64KiB\" }";
    let text = code(1, "", "").replace("stream = { on-update = \"snapshot\" }", bounded);
    client.apply("streams", text).await;
    send(&client, "a", "print").await;
    let expected = |to: u32| (1..=to).map(|at| at.to_string()).collect::<Vec<_>>();
    let one = format!("{:01000}", 1);
    for _ in 0..200 {
        send(&client, "a", &one).await;
    }
    // Whoever goes on from such an image says so; with a kill or without.
    let numbers = |client: Client| async move {
        let mut said = said(&client).await.remove("a").unwrap_or_default();
        said.retain(|line| line != "resumed");
        said
    };
    eventually_equal(expected(200), SOON, || numbers(client.clone())).await;
    let resumed = said(&client).await["a"].iter().filter(|line| *line == "resumed").count();
    assert!(resumed > 0, "the history is longer than is kept");
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    send(&client, "a", "1").await;
    eventually_equal(expected(201), SOON, || numbers(client.clone())).await;
}

#[tokio::test]
async fn a_component_without_snapshots_is_refused_where_they_are_asked_for() {
    let node = Setup::dev().start().await;
    let client = node.client();
    let pushed = client.push(super::streams::GUEST).await;
    assert_eq!(pushed["snapshots"], false, "{pushed}");
    let text = manifest("partitions = 1", "stream = { on-update = \"snapshot\" }");
    for query in ["", "?dry-run=true"] {
        let refused = client.put(&format!("pipelines/streams{query}"), text.clone()).await;
        let refused = refused.problem(400, "manifest.invalid");
        let problem = refused["problems"][0].clone();
        assert_eq!(
            (&problem["field"], &problem["code"]),
            (&json!("stages.fold.stream.on-update"), &json!("pipeline.no-snapshots"))
        );
    }
    // From a stage without them streams stay as they are.
    client.push(GUEST).await;
    client.apply("streams", manifest("partitions = 2", "")).await;
    send(&client, "a", "one").await;
    client.apply("streams", code(2, "", "")).await;
    send(&client, "a", "two").await;
    send(&client, "b", "2").await;
    says(&client, "a", &super::streams::told(&texts(&["one", "two"]))).await;
    says(&client, "b", &owned(&["4"])).await;
}
