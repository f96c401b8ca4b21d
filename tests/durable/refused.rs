//! An apply that comes to nothing half-way leaves the version that ran, and one that nobody waits
//! for any more is done all the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;
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

#[tokio::test]
async fn an_apply_on_a_full_disk_is_done_when_there_is_room_though_its_client_has_gone() {
    let setup = Setup::dev().set("log.segment-bytes", "1MiB");
    let node = setup.shell("trap '' XFSZ; exec \"$@\"").start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    // More than there will be room for: what is written next comes behind it.
    client.send("words", "?key=k", &[], "large ".repeat(2_000)).await.is(202);
    counted(&client, "to be", 2_002).await;
    let maximum = getrlimit(Resource::Fsize).maximum;
    let room = |current| {
        let limit = Rlimit { current, maximum };
        prlimit(node.process(), Resource::Fsize, limit).expect("of a process of ours");
    };
    room(Some(8 * 1024));
    let (leaves, mut applying) = (node.client(), JoinSet::new());
    applying.spawn(async move { leaves.apply("words", words("retries = 1")).await });
    eventually("the disk is full", SOON, || async {
        let figures = client.plain("/metrics").await.is(200);
        let full = "sluicebox_log_health{state=\"full\"} 1";
        figures.text().lines().any(|line| line == full).then_some(())
    })
    .await;
    assert!(applying.try_join_next().is_none(), "it waits for room");
    applying.shutdown().await;
    assert_eq!(all_counts(&client).await.len(), 2_002, "results are read meanwhile");
    room(maximum);
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
