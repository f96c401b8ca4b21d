//! Commits that would be larger than a record of the log may be.

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::manifest::{STAGE, single};
use sluicebox_tests::node::Setup;

/// So many records of the second output, page by page.
async fn results(client: &Client, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = "oldest".to_owned();
    while all.len() < count {
        let query = format!("cursor={cursor}&wait=20s");
        let page = client.page("large", "outputs/other", &query).await.is(200);
        let records = page.records();
        assert!(!records.is_empty(), "{} of {count} came, and nothing more", all.len());
        all.extend(records);
        cursor = page.cursor();
    }
    all
}

#[tokio::test]
async fn a_batch_whose_commit_is_too_large_is_divided_down_to_the_event() {
    // A record has at most half of a file of the log.
    let node = Setup::dev().set("log.segment-bytes", "1MiB").start().await;
    let client = node.client();
    client.push("conformance-rust").await;
    let manifest = single("large", "conformance-rust", "").replace("best-effort", "exactly-once");
    let manifest = format!("{manifest}[outputs.other]\nfrom = \"{STAGE}\"\n");
    client.apply("large", manifest).await;
    // 255 results for each of 200 events, by two outputs: some 3 MiB from one batch.
    let many: Vec<Given> =
        (0..200).map(|n| Given::new(&format!("k{n}"), vec![b'n', 255])).collect();
    client.frame("large", &frame(&many)).await.is(202);
    let other = results(&client, 200 * 255).await;
    let offsets = |records: &[Value]| {
        let mut all: Vec<(u64, u64)> = records
            .iter()
            .map(|record| (record["partition"].as_u64(), record["offset"].as_u64()))
            .map(|(partition, offset)| (partition.expect("a number"), offset.expect("a number")))
            .collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    assert_eq!((other.len(), offsets(&other)), (200 * 255, 200 * 255));
    // Alone it makes more than a commit may hold.
    let wide = vec![b'e'; 300 * 1024];
    let given = [Given::new("a", b"e1".to_vec()), Given::new("a", wide.clone())];
    let last = [Given::new("a", b"e3".to_vec())];
    client.frame("large", &frame(&given)).await.is(202);
    client.frame("large", &frame(&last)).await.is(202);
    let dead = client.records("large", "dead-letters", 1).await;
    assert_eq!((&dead[0]["class"], payload(&dead[0])), (&"commit.too-large".into(), wide));
    let all = results(&client, 200 * 255 + 2).await;
    let of_key: Vec<_> = all.iter().filter(|record| record["key"] == "a").map(payload).collect();
    assert_eq!(of_key, [b"1".to_vec(), b"3".to_vec()], "others of its key went on");
    assert_eq!(client.describe("large").await["state"], "running");
    let home = node.home().clone();
    drop(node.kill());
    let node = Setup::dev().home(&home).set("log.segment-bytes", "1MiB").start().await;
    let again = results(&node.client(), 200 * 255 + 2).await;
    assert_eq!(again.len(), 200 * 255 + 2);
}
