//! Going back to an earlier version, as a version of its own.

use http::Method;
use sluicebox_tests::client::{Client, Reply};
use sluicebox_tests::guests;
use sluicebox_tests::node::Setup;

use super::{all_counts, with_words, words};

async fn roll_back(client: &Client, query: &str) -> Reply {
    let path = client.path(&format!("pipelines/words/rollback{query}"));
    client.ask(Method::POST, &path, &[], "").await
}

async fn send(client: &Client, total: usize) {
    client.send("words", "?key=k", &[], "be").await.is(202);
    client.records("words", super::COUNTS, total).await;
}

#[tokio::test]
async fn an_earlier_version_is_applied_again_and_state_stays() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    roll_back(&client, "").await.problem(404, "pipeline.unknown-version");
    let first = client.describe("words").await["manifest"].clone();
    send(&client, 1).await;
    // Another component under the name, other limits, other partitions.
    client.put("components/word-count-count", guests::bytes("hostile/echo")).await.is(201);
    client.apply("words", words("retries = 1").replace("partitions = 4", "partitions = 2")).await;
    send(&client, 2).await;
    let shown = roll_back(&client, "?dry-run").await.is(200).json();
    assert_eq!((&shown["version"], &shown["manifest-of"]), (&3.into(), &1.into()), "{shown:#}");
    assert!(shown["changes"].to_string().contains("~ partitions: 2 → 4"), "{shown:#}");
    assert_eq!(client.describe("words").await["version"], 2, "a look changes nothing");
    let done = roll_back(&client, "").await.is(200).json();
    assert_eq!(done["changes"], shown["changes"]);
    let described = client.describe("words").await;
    assert_eq!((&described["version"], &described["manifest"]), (&3.into(), &first));
    send(&client, 3).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(client.describe("words").await["version"], 3);
    send(&client, 4).await;
    let data = client.records("words", super::COUNTS, 4).await;
    let counted = data.iter().filter(|record| record["data"]["word"] == "be").count();
    assert_eq!(counted, 3, "all but what the echo said: {data:#?}");
    let same = roll_back(&client, "?to=1").await.is(200).json();
    assert_eq!((&same["changed"], &same["version"]), (&false.into(), &3.into()));
    for (query, code) in [("?to=3", 404), ("?to=9", 404), ("?to=x", 400), ("?ot=1", 400)] {
        roll_back(&client, query).await.is(code);
    }
}

#[tokio::test]
async fn what_an_apply_would_refuse_a_rollback_does_in_the_same_words() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let renamed = words("# more").replace("[stages.count]", "[stages.tally]");
    let renamed = renamed.replace("to = \"count\"", "to = \"tally\"");
    let renamed = renamed.replace("from = \"count\"", "from = \"tally\"");
    client.apply("words", renamed.replace("# more", "from = \"count\"")).await;
    send(&client, 1).await;
    let refused = roll_back(&client, "").await.problem(400, "manifest.invalid");
    let applied = client.put("pipelines/words", words("")).await.problem(400, "manifest.invalid");
    assert_eq!(refused["problems"], applied["problems"], "{refused:#}");
    let done = roll_back(&client, "?to=1&discard-state=tally").await.is(200).json();
    assert_eq!(done["version"], 3);
    send(&client, 2).await;
    assert_eq!(all_counts(&client).await.iter().map(|c| c.count).max(), Some(1), "begun anew");
}

#[tokio::test]
async fn a_look_says_the_version_that_would_be() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    let look = client.put("pipelines/words?dry-run", words("")).await.is(200).json();
    assert_eq!((&look["version"], &look["created"]), (&1.into(), &true.into()));
    assert_eq!(client.apply("words", words("")).await["version"], 1);
    let look = client.put("pipelines/words?dry-run", words("retries = 1")).await.is(200).json();
    assert_eq!(look["version"], 2);
    let look = client.put("pipelines/words?dry-run", words("")).await.is(200).json();
    assert_eq!((&look["version"], &look["changed"]), (&1.into(), &false.into()));
}
