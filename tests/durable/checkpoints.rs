//! What lies behind a checkpoint is not read from the log again, and all of it is there.

use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Node, Setup};

use super::{COUNTS, all_counts, with_words, words};

pub(super) fn setup() -> Setup {
    Setup::dev().set("log.checkpoint-interval", "250ms")
}

/// Waits until a checkpoint holds everything that was acknowledged before the call.
pub(super) async fn checkpoint(node: &Node) {
    let made = || node.log().lines().filter(|line| line.contains("checkpoint horizon=")).count();
    // The first may have been under way; the second began after it, as there is something new.
    for marker in ["first", "second"] {
        let before = made();
        node.client().send("words", "?key=marker", &[], marker).await.is(202);
        eventually("a checkpoint is made", SOON, || async { (made() > before).then_some(()) })
            .await;
    }
}

async fn send_numbered(client: &Client, sequence: &str, text: &'static str) -> u64 {
    let headers = [("sluicebox-producer", "p"), ("sluicebox-sequence", sequence)];
    let reply = client.send("words", "?key=k", &headers, text).await.is(202).json();
    reply["accepted"].as_u64().expect("a number")
}

#[tokio::test]
async fn everything_goes_on_behind_a_checkpoint() {
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    client.push("hostile/trap-always").await;
    let dead = single("dead", "trap-always", "").replace("best-effort", "exactly-once");
    client.apply("dead", dead).await;
    let halt = single("halt", "trap-always", "on-failure = \"halt\"");
    client.apply("halt", halt.replace("best-effort", "exactly-once")).await;
    assert_eq!(send_numbered(&client, "1", "to be").await, 1);
    client.send("dead", "?key=k", &[], "x").await.is(202);
    for text in ["one", "two"] {
        client.send("halt", "?key=k", &[], text).await.is(202);
    }
    client.records("words", COUNTS, 2).await;
    client.records("dead", "dead-letters", 1).await;
    let cursor = client.page("words", COUNTS, "cursor=oldest").await.is(200).cursor();
    checkpoint(&node).await;
    drop(node.kill());

    let node = setup().home(&home).start().await;
    let client = node.client();
    assert_eq!(send_numbered(&client, "1", "to be").await, 0, "it was taken before");
    assert_eq!(send_numbered(&client, "2", "be").await, 1);
    let be = eventually("it is counted on", SOON, || async {
        let counts = all_counts(&client).await;
        let be: Vec<(u64, u64)> =
            counts.iter().filter(|c| c.word == "be").map(|c| (c.count, c.offset)).collect();
        (be.len() == 2).then_some(be)
    })
    .await;
    assert_eq!((be[0].0, be[1].0), (1, 2), "state went on");
    assert!(be[1].1 > be[0].1, "offsets went on");
    let behind = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200).records();
    assert_eq!(behind.len(), 3, "two markers and a word: {behind:?}");
    assert_eq!(client.records("dead", "dead-letters", 1).await.len(), 1);
    client.push("hostile/echo").await;
    let fixed = single("halt", "echo", "").replace("best-effort", "exactly-once");
    client.apply("halt", fixed).await;
    let waited = client.records("halt", "outputs/reply", 2).await;
    assert_eq!(waited.len(), 2, "runs that waited were kept");
    // Again, with what was put back and what came since.
    checkpoint(&node).await;
    let before = all_counts(&client).await;
    drop(node.kill());
    let node = setup().home(&home).start().await;
    let client = node.client();
    assert_eq!(all_counts(&client).await, before);
    assert_eq!(client.records("halt", "outputs/reply", 2).await, waited);
}

#[tokio::test]
async fn results_from_a_checkpoint_that_was_cut_short_are_not_taken_for_kept_ones() {
    let home = Home::new();
    let setup = |interval: &str, pace: &str| {
        let setup = Setup::dev().home(&home).set("log.checkpoint-interval", interval);
        setup.set("log.checkpoint-bytes-per-second", pace)
    };
    // One that stands.
    let node = setup("250ms", "1GiB").start().await;
    let client = node.client();
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    let small = words("").replace("partitions = 4", "partitions = 1").replace("256MiB", "1MiB");
    client.apply("words", small).await;
    checkpoint(&node).await;
    drop(node.kill());
    // One that is killed between its only piece and its commit, which the pace puts off for long.
    let node = setup("24h", "1GiB").start().await;
    let mut sent = 2;
    send_words(&node.client(), 8, &mut sent).await;
    drop(node.kill());
    let extent = || {
        let bytes = std::fs::read(home.data().join("store/documents/extent_doc")).expect("it is");
        let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
        (number(56).expect("eight bytes"), number(64).expect("eight bytes"))
    };
    let tables = || std::fs::read_dir(home.data().join("store/tree/keyspaces/1/tables"));
    let count = || tables().expect("a folder").count();
    let (horizon, before) = (extent().0, count());
    let node = setup("250ms", "64KiB").start().await;
    eventually("a piece is written", SOON, || std::future::ready((count() > before).then_some(())))
        .await;
    drop(node.kill());
    assert_eq!(extent().0, horizon, "it was not to get to its commit");
    assert!(extent().1 > horizon);
    // Then so much comes that nothing of it is kept, and the next checkpoint stands.
    let node = setup("24h", "1GiB").start().await;
    send_words(&node.client(), 40, &mut sent).await;
    drop(node.kill());
    let node = setup("250ms", "1GiB").start().await;
    let stands = || std::future::ready((extent().0 > horizon).then_some(()));
    eventually("a checkpoint stands", SOON, stands).await;
    let client = node.client();
    let cursor = client.page("words", COUNTS, "cursor=latest").await.is(200).cursor();
    drop(node.kill());
    let node = setup("250ms", "1GiB").start().await;
    let client = node.client();
    client.send("words", "?key=k", &[], "last").await.is(202);
    let query = format!("cursor={cursor}&wait=20s");
    let last = client.page("words", COUNTS, &query).await.is(200).records();
    let offsets: Vec<_> = last.iter().map(|record| record["offset"].as_u64()).collect();
    assert_eq!(offsets, [Some(sent)]);
}

/// Sends so many thousands of words, and waits until they are counted.
async fn send_words(client: &Client, thousands: u64, sent: &mut u64) {
    for _ in 0..thousands {
        client.send("words", "?key=k", &[], "word ".repeat(1_000)).await.is(202);
    }
    *sent += thousands * 1_000;
    eventually("all are counted", SOON, || async {
        let figures = client.plain("/metrics").await.is(200);
        let line = |line: &&str| line.starts_with("sluicebox_output_events_total{");
        let count = figures.text().lines().find(line)?.rsplit(' ').next()?.parse::<u64>().ok()?;
        (count >= thousands * 1_000).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_that_was_deleted_leaves_nothing_behind() {
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    client.push("hostile/echo").await;
    let echo = single("echo", "echo", "").replace("best-effort", "exactly-once");
    client.apply("echo", echo.clone()).await;
    client.call("echo", "k", "old").await.is(200);
    checkpoint(&node).await;
    client.delete("pipelines/echo").await.is(204);
    checkpoint(&node).await;
    drop(node.kill());
    let node = setup().home(&home).start().await;
    let client = node.client();
    client.get("pipelines/echo").await.problem(404, "pipeline.unknown");
    client.apply("echo", echo).await;
    client.call("echo", "k", "new").await.is(200);
    assert_eq!(client.records("echo", "outputs/reply", 1).await.len(), 1);
}

/// Waits until that is how it stands with checkpoints.
async fn health(client: &Client, state: &str) {
    let line = format!("sluicebox_checkpoint_health{{state=\"{state}\"}} 1");
    eventually(&line, SOON, || async {
        let figures = client.plain("/metrics").await.is(200);
        figures.text().lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_can_make_no_checkpoint_says_so_and_goes_on_by_itself() {
    let setup = || setup().set("log.checkpoint-log-bytes", "1MiB");
    let node = setup().start().await;
    let home = node.home().clone();
    let client = node.client();
    with_words(&client).await;
    checkpoint(&node).await;
    health(&client, "good").await;
    // The store loses its tables under way, as on a disk that goes away.
    let (tables, away) = (home.data().join("store/tree/keyspaces"), home.data().join("away"));
    std::fs::rename(&tables, &away).expect("it is there");
    client.send("words", "?key=k", &[], "trouble").await.is(202);
    health(&client, "failing").await;
    assert_eq!(client.plain("/readyz").await.is(200).text(), "ready\n", "the log has room yet");
    let mut words = 3;
    let refused = loop {
        let reply = client.send("words", "?key=k", &[], "word ".repeat(10_000)).await;
        match reply.status {
            202 => words += 10_000,
            // What was taken before is still being handled.
            429 => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            _ => break reply,
        }
        assert!(words < 10_000_000, "so much waits for a checkpoint");
    };
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let detail = refused.problem(503, "log.no-checkpoint")["detail"].to_string();
    assert!(detail.contains("checkpoint") && detail.contains("log says why"), "{detail}");
    assert!(client.plain("/readyz").await.is(503).text().starts_with("no checkpoint can be made"));
    assert_eq!(client.plain("/healthz").await.is(200).text(), "ok\n");
    std::fs::rename(&away, &tables).expect("it is there");
    health(&client, "good").await;
    // What was taken before may still be being handled.
    let again = || async {
        let reply = client.send("words", "?key=k", &[], "again").await;
        (reply.status != 429).then(|| drop(reply.is(202)))
    };
    eventually("it is taken again", SOON, again).await;
    assert_eq!(client.plain("/readyz").await.is(200).text(), "ready\n");
    drop(node.kill());
    let node = setup().home(&home).start().await;
    let client = node.client();
    let counts = eventually("all are counted", SOON, || async {
        let counts = all_counts(&client).await;
        (counts.len() > words).then_some(counts)
    })
    .await;
    assert_eq!(counts.len(), words + 1);
    let most = counts.iter().filter(|count| count.word == "word").map(|count| count.count).max();
    assert_eq!(most, Some(words as u64 - 3));
}
