//! Versions that rename stages and give state up, with kills before and behind a checkpoint.

use http::Method;
use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::checkpoints::{checkpoint, setup};
use super::{COUNTS, all_counts, with_words, words};

/// The example with `tally` for `count`; `more` is said of it.
pub(super) fn tally(more: &str) -> String {
    let text = words("# more").replace("[stages.count]", "[stages.tally]");
    let text = text.replace("to = \"count\"", "to = \"tally\"");
    text.replace("from = \"count\"", "from = \"tally\"").replace("# more", more)
}

/// Applies with a query.
pub(super) async fn apply_with(client: &Client, query: &str, manifest: String) -> Value {
    let path = client.path(&format!("pipelines/words?{query}"));
    client.ask(Method::PUT, &path, &[], manifest).await.is(200).json()
}

/// How often a word was counted so far, once it was counted once more.
async fn next_count(client: &Client, word: &'static str) -> u64 {
    let of_word = || async {
        let counts = all_counts(client).await;
        counts.iter().filter(|count| count.word == word).map(|count| count.count).collect()
    };
    let before: Vec<u64> = of_word().await;
    client.send("words", "?key=k", &[], word).await.is(202);
    let after = eventually("it is counted", SOON, || async {
        let after: Vec<u64> = of_word().await;
        (after.len() > before.len()).then_some(after)
    });
    *after.await.last().expect("a count")
}

async fn killed(node: Node, setup: fn() -> Setup) -> Node {
    let home = node.home().clone();
    drop(node.kill());
    setup().home(&home).start().await
}

#[tokio::test]
async fn a_renamed_stage_goes_on_with_its_state() {
    let node = setup().start().await;
    let client = node.client();
    with_words(&client).await;
    assert_eq!(next_count(&client, "be").await, 1);
    let refused = client.put("pipelines/words", tally("")).await.problem(400, "manifest.invalid");
    let text = refused.to_string();
    assert!(text.contains("plan.state") && text.contains("discard-state=count"), "{refused:#}");
    let renamed = tally("from = \"count\"");
    let applied = client.apply("words", renamed.clone()).await;
    assert_eq!(applied["changes"][0], "~ stages.tally.name: count → tally", "{applied:#}");
    assert_eq!(next_count(&client, "be").await, 2);
    // Killed behind the record of the version, and again behind a checkpoint.
    let node = killed(node, setup).await;
    assert_eq!(next_count(&node.client(), "be").await, 3);
    checkpoint(&node).await;
    let node = killed(node, setup).await;
    let client = node.client();
    assert_eq!(next_count(&client, "be").await, 4);
    let again = client.apply("words", renamed).await;
    assert_eq!((&again["changed"], &again["version"]), (&Value::Bool(false), &2.into()));
    let without = client.apply("words", tally("")).await;
    assert_eq!(without["changed"], false, "the former name is no part of what runs");
    assert_eq!(next_count(&client, "be").await, 5);
}

#[tokio::test]
async fn best_effort_state_goes_on_under_another_name_and_goes_by_a_word() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    client.delete("pipelines/words").await.is(204);
    let best_effort = |text: String| text.replace("exactly-once", "best-effort");
    client.apply("words", best_effort(words(""))).await;
    assert_eq!(next_count(&client, "be").await, 1);
    client.apply("words", best_effort(tally("from = \"count\""))).await;
    assert_eq!(next_count(&client, "be").await, 2);
    let reset = apply_with(&client, "discard-state=tally", best_effort(tally(""))).await;
    assert_eq!(reset["changes"][0], "~ stages.tally.state: kept → discarded");
    assert_eq!(next_count(&client, "be").await, 1);
}

/// A stage that stays loses its state, then it goes with it; the others keep theirs.
#[tokio::test]
async fn state_that_is_given_up_stays_away_through_kills() {
    let node = setup().start().await;
    let client = node.client();
    with_words(&client).await;
    client.push("hostile/echo").await;
    assert_eq!(next_count(&client, "be").await, 1);
    checkpoint(&node).await;
    let unread = all_counts(&client).await;
    let path = "?dry-run&discard-state=count";
    let path = client.path(&format!("pipelines/words{path}"));
    let shown = client.ask(Method::PUT, &path, &[], words("")).await.is(200).json();
    assert_eq!(shown["changed"], true);
    assert_eq!(next_count(&client, "be").await, 2, "a look changes nothing");
    apply_with(&client, "discard-state=count", words("")).await;
    let node = killed(node, setup).await;
    let client = node.client();
    let found = all_counts(&client).await;
    assert!(unread.iter().all(|count| found.contains(count)), "results stay");
    assert_eq!(next_count(&client, "be").await, 1, "killed before a checkpoint");
    checkpoint(&node).await;
    let node = killed(node, setup).await;
    assert_eq!(next_count(&node.client(), "be").await, 2, "and behind one");
    // Now the stage goes, and another one with another name counts.
    let client = node.client();
    apply_with(&client, "discard-state=count", tally("")).await;
    assert_eq!(next_count(&client, "be").await, 1);
    let refused = client.path("pipelines/words?discard-state=count");
    let refused = client.ask(Method::PUT, &refused, &[], tally("")).await;
    let refused = refused.problem(400, "manifest.invalid");
    assert!(refused.to_string().contains("plan.discard"), "{refused:#}");
    checkpoint(&node).await;
    let node = killed(node, setup).await;
    let client = node.client();
    assert_eq!(next_count(&client, "be").await, 2);
    // A stage of the first name is another one.
    apply_with(&client, "discard-state=tally", words("")).await;
    let node = killed(node, setup).await;
    assert_eq!(next_count(&node.client(), "be").await, 1);
}

/// In the store known ids and outputs lie where the numbers of stages do.
#[tokio::test]
async fn giving_up_state_takes_nothing_else_along() {
    let node = setup().start().await;
    let client = node.client();
    with_words(&client).await;
    let headers = [("sluicebox-producer", "p"), ("sluicebox-sequence", "1")];
    client.send("words", "?key=k", &headers, "to be").await.is(202);
    let before = client.records("words", COUNTS, 2).await;
    checkpoint(&node).await;
    // Both stages, so that the first number of everything is among them.
    apply_with(&client, "discard-state=count&discard-state=split", words("")).await;
    checkpoint(&node).await;
    checkpoint(&node).await;
    let node = killed(node, setup).await;
    let client = node.client();
    let sent = client.send("words", "?key=k", &headers, "to be").await.is(202).json();
    assert_eq!(sent["duplicates"], 1, "{sent:#}");
    let after = client.records("words", COUNTS, 2).await;
    assert!(before.iter().all(|record| after.contains(record)), "{after:#?}");
}

#[tokio::test]
async fn a_halted_pipeline_gives_no_state_up() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/trap-always").await;
    let halt = single("halt", "trap-always", "on-failure = \"halt\"");
    let halt = halt.replace("best-effort", "exactly-once");
    client.apply("halt", halt.clone()).await;
    client.send("halt", "?key=k", &[], "x").await.is(202);
    eventually("it halts", SOON, || async {
        (client.describe("halt").await["state"] == "halted").then_some(())
    })
    .await;
    let described = client.describe("halt").await;
    let stage = described["stage"][0]["name"].as_str().expect("a name").to_owned();
    let path = client.path(&format!("pipelines/halt?discard-state={stage}"));
    let refused = client.ask(Method::PUT, &path, &[], halt).await;
    let refused = refused.problem(409, "pipeline.conflict");
    assert!(refused.to_string().contains("halted"), "{refused:#}");
    assert_eq!(client.describe("halt").await["state"], "halted", "it is as it was");
}
