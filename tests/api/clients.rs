//! Clients that are slow, half open or silent: they are ended, and others do not notice.

use std::time::Duration;

use sluicebox_tests::client::{Client, Raw};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup, Shared};

use super::ECHO;

/// A node with little patience.
static HASTY: Shared = Shared::new(|| {
    Setup::dev()
        .set("http.header-time-max", "300ms")
        .set("http.body-time-max", "500ms")
        .set("http.idle-time-max", "700ms")
        .set("http.write-time-max", "500ms")
});

const HEAD: &str = "POST /v1/tenants/dev/pipelines/hasty/events HTTP/1.1\r\nhost: localhost\r\n";

async fn hasty(node: &Node) -> Client {
    let client = node.client();
    client.push(ECHO).await;
    client.apply("hasty", single("hasty", "echo", "")).await;
    client
}

/// Runs bad clients, and a good one until they are done; gives how often that was served.
async fn beside(client: &Client, bad: impl Future<Output = ()>) -> usize {
    let mut bad = std::pin::pin!(bad);
    let mut served = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut bad => return served,
            good = client.call("hasty", "k", "good") => {
                assert_eq!(good.is(200).text(), "good");
                served += 1;
            }
        }
    }
}

/// Writes the same again and again, with pauses, until the node closes.
async fn drip(raw: &mut Raw, bytes: &[u8]) {
    // One after the other: each look is a write.
    let raw = tokio::sync::Mutex::new(raw);
    eventually("the node closes", SOON, || async {
        (!raw.lock().await.write(bytes).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_headers_is_ended() {
    let node = HASTY.lend().await;
    let client = hasty(&node).await;
    let bad = async {
        let (mut silent, mut half, mut dripping) = (
            Raw::connect(node.address()).await,
            Raw::connect(node.address()).await,
            Raw::connect(node.address()).await,
        );
        assert!(half.write(HEAD.as_bytes()).await && dripping.write(HEAD.as_bytes()).await);
        let all = async { tokio::join!(silent.until_closed(), half.until_closed()) };
        tokio::join!(all, drip(&mut dripping, b"x"));
    };
    assert!(beside(&client, bad).await > 0, "nobody else was served");
    let metrics = client.plain("/metrics").await.is(200);
    let closed = "sluicebox_connections_closed_total{reason=\"slow-headers\"}";
    assert!(metrics.text().contains(closed), "{}", metrics.text());
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_body_is_told_and_ended() {
    let node = HASTY.lend().await;
    let client = hasty(&node).await;
    let bad = async {
        let (mut half, mut dripping, mut chunks) = (
            Raw::connect(node.address()).await,
            Raw::connect(node.address()).await,
            Raw::connect(node.address()).await,
        );
        let head = format!("{HEAD}content-length: 100000\r\n\r\nbegun");
        assert!(half.write(head.as_bytes()).await && dripping.write(head.as_bytes()).await);
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        assert!(chunks.write(head.as_bytes()).await);
        let told = async { half.until("request.slow").await };
        let (told, (), ()) =
            tokio::join!(told, drip(&mut dripping, b"x"), drip(&mut chunks, b"1\r\nx\r\n"));
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    };
    assert!(beside(&client, bad).await > 0, "nobody else was served");
    let metrics = client.plain("/metrics").await.is(200);
    let refused = "sluicebox_ingest_requests_total{tenant=\"dev\",pipeline=\"hasty\",\
                   outcome=\"request.slow\"}";
    assert!(metrics.text().contains(refused), "{}", metrics.text());
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_harms_nobody() {
    let node = HASTY.lend().await;
    let client = hasty(&node).await;
    let bad = async {
        for _ in 0..20 {
            let mut raw = Raw::connect(node.address()).await;
            let text = format!("{HEAD}content-length: 100000\r\n\r\nbegun");
            assert!(raw.write(text.as_bytes()).await);
            drop(raw);
            let mut waiting = Raw::connect(node.address()).await;
            let text = HEAD.replace("events", "events?wait=30s");
            assert!(waiting.write(format!("{text}content-length: 1\r\n\r\nx").as_bytes()).await);
            drop(waiting);
        }
    };
    beside(&client, bad).await;
    eventually("nobody waits any more and no body is kept", SOON, || async {
        let text = client.plain("/metrics").await.is(200);
        let gone = ["sluicebox_waiting{} 0", "sluicebox_body_bytes{} 0"];
        gone.iter().all(|line| text.text().lines().any(|l| l == *line)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended() {
    let node = HASTY.lend().await;
    let client = hasty(&node).await;
    let event = vec![b'x'; 900_000];
    for _ in 0..12 {
        client.send("hasty", "", &[], event.clone()).await.is(202);
    }
    let bad = async {
        let mut deaf = Raw::connect(node.address()).await;
        let get = "GET /v1/tenants/dev/pipelines/hasty/outputs/reply HTTP/1.1\r\n\
                   host: localhost\r\n\r\n";
        // More than the system's buffers hold, so that the node has to wait for us.
        assert!(deaf.write(get.repeat(20).as_bytes()).await);
        let closed = "sluicebox_connections_closed_total{reason=\"slow-reader\"}";
        eventually("the node has enough", SOON, || async {
            client.plain("/metrics").await.text().contains(closed).then_some(())
        })
        .await;
        drop(deaf);
    };
    assert!(beside(&client, bad).await > 0, "nobody else was served");
}

#[tokio::test]
async fn a_kept_connection_that_is_silent_is_ended() {
    let node = HASTY.lend().await;
    let mut raw = Raw::connect(node.address()).await;
    assert!(raw.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await);
    let before = std::time::Instant::now();
    raw.until("ok\n").await;
    raw.until_closed().await;
    assert!(before.elapsed() >= Duration::from_millis(500), "it was kept for no time at all");
}
