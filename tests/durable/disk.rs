//! A tenant's quota of bytes on disk: over it nothing more is taken in, and all else goes on.

use http::Method;
use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::{all_counts, with_words, words};

/// Words of a request.
const AT_ONCE: usize = 50;

/// Two tenants, of whom the first may keep so much.
async fn two_tenants(quota: &str) -> Node {
    let setup = Setup::tenants(&["ann", "bob"]).set("log.checkpoint-interval", "250ms");
    let node = setup.start().await;
    node.home().tenant(&["quota", "set", "ann", "disk-bytes", quota]);
    node
}

fn request(number: usize) -> String {
    let words = (0..AT_ONCE).map(|word| format!("word{}", number * AT_ONCE + word));
    words.collect::<Vec<_>>().join(" ")
}

/// Sends words nobody sent before until no more are taken; gives how many were.
async fn fill(client: &Client, quota: &str) -> usize {
    let mut taken = 0;
    loop {
        let reply = client.send("words", "?key=k", &[], request(taken)).await;
        if reply.status != 202 {
            assert_eq!(reply.header("retry-after"), None, "waiting does not help");
            let problem = reply.problem(507, "quota.disk");
            let detail = problem["detail"].as_str().expect("a text");
            let named = detail.contains(&format!("disk-bytes of {quota}"));
            assert!(named && detail.contains("delete"), "{detail}");
            return taken * AT_ONCE;
        }
        taken += 1;
        assert!(taken < 10_000, "{quota} hold no {} words", taken * AT_ONCE);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn is_taken(client: &Client, pipeline: &str) {
    eventually("events are taken again", SOON, || async {
        match client.send(pipeline, "?key=k", &[], "again").await {
            reply if reply.status == 202 => Some(()),
            reply => drop_problem(reply.problem(507, "quota.disk")),
        }
    })
    .await;
}

fn drop_problem(_: Value) -> Option<()> {
    None
}

/// All words were counted once each.
async fn each_is_counted(client: &Client, taken: usize) {
    let counts = eventually("what was taken is counted", SOON, || async {
        let counts = all_counts(client).await;
        (counts.len() >= taken).then_some(counts)
    })
    .await;
    assert_eq!(counts.len(), taken);
    assert!(counts.iter().all(|count| count.count == 1));
}

#[tokio::test]
async fn a_tenant_over_its_disk_quota_is_refused_until_it_deletes_and_others_go_on() {
    let node = two_tenants("64KiB").await;
    let (ann, bob) = (node.tenant("ann"), node.tenant("bob"));
    for client in [&ann, &bob] {
        with_words(client).await;
        client.push("hostile/echo").await;
    }
    let echo = single("echo", "echo", "");
    ann.apply("loose", echo.replace("\"echo\"\ndelivery", "\"loose\"\ndelivery")).await;
    let taken = fill(&ann, "64KiB").await;
    // What was taken goes on, and so does everything but taking more that would be kept.
    each_is_counted(&ann, taken).await;
    let replay = ann.path("pipelines/words/dead-letters/replay");
    ann.ask(Method::POST, &replay, &[], "").await.problem(507, "quota.disk");
    ann.apply("echo", echo.replace("best-effort", "exactly-once")).await;
    ann.send("echo", "?key=k", &[], "x").await.problem(507, "quota.disk");
    ann.send("loose", "?key=k", &[], "kept in memory").await.is(202);
    bob.send("words", "?key=k", &[], "mine").await.is(202);
    each_is_counted(&bob, 1).await;
    let told = ann.describe("words").await["disk"].clone();
    assert_eq!(told["quota-bytes"], 64 * 1024, "{told}");
    assert!(told["bytes"].as_u64() >= Some(64 * 1024), "{told}");
    assert_eq!(told["bytes"], told["tenant-bytes"], "{told}");
    let figures = ann.plain("/metrics").await.is(200);
    let quota = "sluicebox_tenant_disk_quota_bytes{tenant=\"ann\"} 65536";
    assert!(figures.text().lines().any(|line| line == quota), "{}", figures.text());
    // A restart, however it comes, forgets nothing of it.
    let again = Setup::as_before(&node).set("log.checkpoint-interval", "250ms");
    drop(node.kill());
    let node = again.start().await;
    let (ann, bob) = (node.tenant("ann"), node.tenant("bob"));
    for pipeline in ["words", "echo"] {
        ann.send(pipeline, "?key=k", &[], "x").await.problem(507, "quota.disk");
    }
    bob.send("words", "?key=k", &[], "too").await.is(202);
    each_is_counted(&ann, taken).await;
    each_is_counted(&bob, 2).await;
    ann.delete("pipelines/words").await.is(204);
    is_taken(&ann, "echo").await;
    let left = ann.describe("echo").await["disk"]["tenant-bytes"].as_u64();
    assert!(left < Some(32 * 1024), "{left:?}");
}

#[tokio::test]
async fn what_is_given_up_and_a_larger_quota_make_room_again() {
    let node = two_tenants("256KiB").await;
    let ann = node.tenant("ann");
    ann.push("word-count-split").await;
    ann.push("word-count-count").await;
    // Little of the output is kept, so that it is state that takes the room.
    let manifest = words("").replace("256MiB", "64KiB").replace("partitions = 4", "partitions = 1");
    ann.apply("words", manifest.clone()).await;
    fill(&ann, "256KiB").await;
    let discard = ann.put("pipelines/words?discard-state=count", manifest).await;
    assert_eq!(discard.is(200).json()["changed"], true);
    is_taken(&ann, "words").await;
    // Words it has counted before are counted from the beginning.
    fill(&ann, "256KiB").await;
    node.home().tenant(&["quota", "set", "ann", "disk-bytes", "1GiB"]);
    is_taken(&ann, "words").await;
}
