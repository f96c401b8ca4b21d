//! An apply that comes to nothing half-way leaves the version that ran, and one that nobody waits
//! for any more is done all the same. A disk that fails in an apply or a delete takes a restart,
//! which finds what there was before.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use sluicebox_tests::client::{Client, Reply};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Node, Setup};
use tokio::task::JoinSet;

use super::{all_counts, with_words, words};

/// Stages that make the record of a version larger than one may be.
const STAGES: usize = 62;

/// A version with fewer partitions, which no log with small segments can hold: quotes take twice
/// the room in the record.
fn too_large() -> String {
    let names: Vec<String> = (0..STAGES).map(|n| format!("\"more{n}\"")).collect();
    let to = format!("to = [\"split\", {}]", names.join(", "));
    let mut text = words("").replace("partitions = 4", "partitions = 2");
    text = text.replace("to = [\"split\"]", &to);
    for n in 0..STAGES {
        let quotes = "\"".repeat(4_090);
        write!(text, "[stages.more{n}]\ncomponent = \"echo\"\nconfig = {{ q = '{quotes}' }}\n")
            .expect("memory can be written");
    }
    text
}

/// Sends words, and waits until so many counts have come out.
async fn counted(client: &Client, text: &'static str, all: usize) {
    client.send("words", "?key=k", &[], text).await.is(202);
    let mut counts = eventually("it is counted", SOON, || async {
        let counts = all_counts(client).await;
        (counts.len() >= all).then_some(counts)
    })
    .await;
    assert_eq!(counts.len(), all);
    let places: BTreeSet<_> = counts.iter().map(|count| (count.partition, count.offset)).collect();
    assert_eq!(places.len(), all, "no place is given twice");
    counts.retain(|count| count.word == "be");
    let each = counts.iter().map(|count| count.count);
    assert!(each.eq(1..=counts.len() as u64), "{counts:?}");
}

#[tokio::test]
async fn a_version_that_the_log_refuses_leaves_the_one_that_ran() {
    let setup = || Setup::dev().set("log.segment-bytes", "1MiB");
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    client.push("hostile/echo").await;
    counted(&client, "to be", 2).await;
    for round in 1..=2 {
        client.put("pipelines/words", too_large()).await.problem(413, "request.too-large");
        let detail = client.describe("words").await;
        assert_eq!((&detail["version"], &detail["state"]), (&1.into(), &"running".into()));
        counted(&client, "to be", 2 + 2 * round).await;
    }
    // Nothing of it is in the way: of a restart, nor of another version.
    drop(node.kill());
    let node = setup().home(&home).start().await;
    let client = node.client();
    counted(&client, "to be", 8).await;
    client.put("pipelines/words", too_large()).await.problem(413, "request.too-large");
    let next = words("").replace("partitions = 4", "partitions = 2");
    assert_eq!(client.apply("words", next).await["version"], 2);
    counted(&client, "or not to be", 12).await;
}

/// A node with the words of [`counted`], more of them than there will be room for on its disk, so
/// that whatever is written next comes behind what is allowed.
async fn with_much() -> Node {
    let setup = Setup::dev().set("log.segment-bytes", "1MiB");
    let node = setup.shell("trap '' XFSZ; exec \"$@\"").start().await;
    let client = node.client();
    with_words(&client).await;
    client.send("words", "?key=k", &[], "large ".repeat(2_000)).await.is(202);
    counted(&client, "to be", 2_002).await;
    node
}

/// Lets the node have so much of something at most; gives what it could have before.
fn allow(node: &Node, what: Resource, current: Option<u64>) -> Option<u64> {
    let maximum = getrlimit(what).maximum;
    let before = prlimit(node.process(), what, Rlimit { current, maximum });
    before.expect("of a process of ours").current
}

async fn is_full(client: &Client) {
    eventually("the disk is full", SOON, || async {
        let figures = client.plain("/metrics").await.is(200);
        let full = "sluicebox_log_health{state=\"full\"} 1";
        figures.text().lines().any(|line| line == full).then_some(())
    })
    .await;
}

/// A full disk, and then one that fails: no file can be opened on it. What was `asked` for
/// meanwhile is refused, and from then on the disk is well.
async fn refused_by_the_disk(node: &Node, mut asked: JoinSet<Reply>) {
    is_full(&node.client()).await;
    assert!(asked.try_join_next().is_none(), "it waits for room");
    let files = allow(node, Resource::Nofile, Some(3));
    let reply = asked.join_next().await.expect("it was asked").expect("it is answered");
    allow(node, Resource::Nofile, files);
    // As these tests have it, from whom the node has its limits.
    allow(node, Resource::Fsize, getrlimit(Resource::Fsize).current);
    reply.problem(503, "log.failed");
    let reply = node.client().plain("/readyz").await.is(503);
    assert!(reply.text().contains("restart"), "{reply:?}");
}

#[tokio::test]
async fn an_apply_the_disk_fails_in_comes_to_nothing_and_a_restart_goes_on() {
    let node = with_much().await;
    let (home, client) = (node.home().clone(), node.client());
    allow(&node, Resource::Fsize, Some(8 * 1024));
    let (applies, mut asked) = (node.client(), JoinSet::new());
    asked.spawn(async move { applies.put("pipelines/words", words("retries = 1")).await });
    refused_by_the_disk(&node, asked).await;
    assert_eq!(all_counts(&client).await.len(), 2_002, "results are read all the same");
    assert_eq!(client.describe("words").await["version"], 1);
    client.send("words", "?key=k", &[], "lost").await.problem(503, "log.failed");
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    counted(&client, "to be", 2_004).await;
    // The document of the version that came to nothing may have been left on that disk.
    let applied = client.apply("words", words("retries = 1")).await;
    assert!(applied["version"].as_u64() >= Some(2), "{applied}");
    counted(&client, "to be", 2_006).await;
}

#[tokio::test]
async fn a_delete_the_log_refuses_is_not_done_and_can_be_asked_for_again() {
    let node = with_much().await;
    let (home, client) = (node.home().clone(), node.client());
    allow(&node, Resource::Fsize, Some(8 * 1024));
    let (deletes, mut asked) = (node.client(), JoinSet::new());
    asked.spawn(async move { deletes.delete("pipelines/words").await });
    refused_by_the_disk(&node, asked).await;
    // It has ended and is still in the log: its name cannot be used, and it can be deleted again.
    client.get("pipelines/words").await.problem(404, "pipeline.unknown");
    client.put("pipelines/words", words("")).await.problem(409, "pipeline.conflict");
    client.delete("pipelines/words").await.problem(503, "log.failed");
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    counted(&client, "to be", 2_004).await;
    client.delete("pipelines/words").await.is(204);
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    node.client().get("pipelines/words").await.problem(404, "pipeline.unknown");
}

#[tokio::test]
async fn an_apply_on_a_full_disk_is_done_when_there_is_room_though_its_client_has_gone() {
    let node = with_much().await;
    let (home, client) = (node.home().clone(), node.client());
    let room = allow(&node, Resource::Fsize, Some(8 * 1024));
    let (leaves, mut applying) = (node.client(), JoinSet::new());
    applying.spawn(async move { leaves.apply("words", words("retries = 1")).await });
    is_full(&client).await;
    assert!(applying.try_join_next().is_none(), "it waits for room");
    applying.shutdown().await;
    assert_eq!(all_counts(&client).await.len(), 2_002, "results are read meanwhile");
    allow(&node, Resource::Fsize, room);
    eventually("the version runs", SOON, || async {
        let detail = client.describe("words").await;
        (detail["version"] == 2 && detail["state"] == "running").then_some(())
    })
    .await;
    counted(&client, "to be", 2_004).await;
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    assert_eq!(node.client().describe("words").await["version"], 2);
    counted(&node.client(), "to be", 2_006).await;
}
