//! State, offsets and cursors over versions, halts and restarts.

use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup};

use super::{COUNTS, all_counts, with_words, words};

#[tokio::test]
async fn state_and_offsets_go_on_over_versions_and_restarts() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    let send = |client: sluicebox_tests::client::Client| async move {
        client.send("words", "?key=k", &[], "again").await.is(202);
    };
    send(client.clone()).await;
    client.records("words", COUNTS, 1).await;
    let cursor = client.page("words", COUNTS, "cursor=oldest").await.is(200).cursor();
    let applied = client.apply("words", words("retries = 1")).await;
    assert_eq!(applied["version"], 2);
    send(client.clone()).await;
    client.records("words", COUNTS, 2).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(client.describe("words").await["version"], 2);
    send(client.clone()).await;
    let counts = eventually("the third comes out", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() == 3).then_some(counts)
    })
    .await;
    let found: Vec<(u64, u64)> = counts.iter().map(|c| (c.count, c.offset)).collect();
    assert_eq!(found, [(1, 0), (2, 1), (3, 2)]);
    // A cursor from before both points at what came after it.
    let page = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200);
    assert_eq!(page.records().len(), 2);
}

#[tokio::test]
async fn what_was_deleted_stays_away_and_its_name_begins_anew() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    client.send("words", "?key=k", &[], "gone").await.is(202);
    client.records("words", COUNTS, 1).await;
    client.delete("pipelines/words").await.is(204);
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    client.get("pipelines/words").await.problem(404, "pipeline.unknown");
    client.apply("words", words("")).await;
    client.send("words", "?key=k", &[], "gone").await.is(202);
    client.records("words", COUNTS, 1).await;
    assert_eq!(all_counts(&client).await[0].count, 1);
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    let other = words("").replace("exactly-once", "best-effort");
    let refused = client.put("pipelines/words", other).await.problem(400, "manifest.invalid");
    assert!(refused.to_string().contains("plan.delivery"), "{refused:#}");
}

#[tokio::test]
async fn a_client_that_waits_is_answered_when_its_result_is_on_disk() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let manifest = single("echo", "echo", "").replace("best-effort", "exactly-once");
    client.apply("echo", manifest).await;
    for n in 0..20 {
        let reply = client.call("echo", "k", format!("{n}")).await.is(200);
        assert_eq!(reply.text(), n.to_string());
    }
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let found = node.client().records("echo", "outputs/reply", 20).await;
    assert_eq!(found.len(), 20, "each was on disk before it was answered");
}

#[tokio::test]
async fn dead_letters_and_a_halt_outlive_the_node() {
    let node = Setup::dev().start().await;
    let home = node.home().clone();
    let client = node.client();
    client.push("hostile/trap-always").await;
    let dead = single("dead", "trap-always", "").replace("best-effort", "exactly-once");
    client.apply("dead", dead).await;
    let halt = single("halt", "trap-always", "on-failure = \"halt\"");
    client.apply("halt", halt.replace("best-effort", "exactly-once")).await;
    client.send("dead", "?key=k", &[], "x").await.is(202);
    client.send("halt", "?key=k", &[], "x").await.is(202);
    client.records("dead", "dead-letters", 1).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(client.records("dead", "dead-letters", 1).await.len(), 1);
    // What it halted at is tried again, and halts it again.
    eventually("it halts again", SOON, || async {
        (client.describe("halt").await["state"] == "halted").then_some(())
    })
    .await;
    client.push("hostile/echo").await;
    let fixed = single("halt", "echo", "").replace("best-effort", "exactly-once");
    client.apply("halt", fixed).await;
    assert_eq!(client.records("halt", "outputs/reply", 1).await.len(), 1);
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let found = node.client().records("halt", "outputs/reply", 1).await;
    assert_eq!(found.len(), 1, "handled once");
}

#[tokio::test]
async fn what_was_not_read_yet_stays_when_an_output_is_made_larger() {
    let node = Setup::dev().start().await;
    let client = node.client();
    with_words(&client).await;
    client.send("words", "?key=k", &[], "one two").await.is(202);
    let before = client.records("words", COUNTS, 2).await;
    let larger = words("").replace("256MiB", "300MiB");
    assert_eq!(client.apply("words", larger).await["version"], 2);
    client.send("words", "?key=k", &[], "three").await.is(202);
    let after = client.records("words", COUNTS, 3).await;
    assert!(before.iter().all(|record| after.contains(record)), "{after:#?}");
}

#[tokio::test]
async fn a_pipeline_whose_components_are_gone_is_kept_until_it_is_deleted() {
    let home = Home::without_artefacts();
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    with_words(&client).await;
    drop(node.kill());
    for gone in ["catalog", "artefacts"] {
        std::fs::remove_dir_all(home.data().join(gone)).expect("a directory");
    }
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    client.get("pipelines/words").await.problem(404, "pipeline.unknown");
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    let refused = client.put("pipelines/words", words("")).await;
    refused.problem(409, "pipeline.conflict");
    client.delete("pipelines/words").await.is(204);
    client.apply("words", words("")).await;
    client.send("words", "?key=k", &[], "again").await.is(202);
    client.records("words", COUNTS, 1).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    assert_eq!(all_counts(&node.client()).await.len(), 1);
}
