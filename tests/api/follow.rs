//! Outputs followed by server-sent events: ids, going on, gaps, slow and dropped clients, the end.

use http::Method;
use serde_json::Value;
use sluicebox_tests::client::{Client, Reply, payload};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::follow::{Follower, ServerSent, follow};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::{ECHO, with};

const REPLY: &str = "outputs/reply";

fn path(client: &Client, pipeline: &str, query: &str) -> String {
    client.path(&format!("pipelines/{pipeline}/{REPLY}?{query}"))
}

async fn open(node: &Node, pipeline: &str, query: &str, last: Option<&str>) -> Follower {
    let path = path(&node.client(), pipeline, query);
    let headers = last.map(|last| ("last-event-id", last));
    let stream = follow((node.address(), false), &path, headers.as_slice()).await;
    stream.expect("a stream")
}

fn data(events: &[ServerSent]) -> Vec<Value> {
    events.iter().map(|event| event.data["data"].clone()).collect()
}

async fn followers(client: &Client) -> String {
    let text = client.plain("/metrics").await.is(200).text().to_owned();
    let line = text.lines().find(|line| line.starts_with("sluicebox_followers"));
    line.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn each_event_comes_with_the_cursor_behind_it() {
    let (node, client) = with("followed", ECHO, "").await;
    client.lines("followed", "1\n2\n3\n").await.is(202);
    let mut stream = open(&node, "followed", "", None).await;
    let mut events = stream.take(3).await;
    client.lines("followed", "4\n5\n").await.is(202);
    events.extend(stream.take(2).await);
    assert_eq!(data(&events), [1, 2, 3, 4, 5]);
    assert!(events.iter().all(|event| event.event == "message"));
    let page = client.page("followed", REPLY, "").await.is(200).records();
    let lines: Vec<Value> = events.iter().map(|event| event.data.clone()).collect();
    assert_eq!(lines, page, "the same lines as in a page");
    for (at, event) in events.iter().enumerate() {
        let rest = client.page("followed", REPLY, &format!("cursor={}", event.id)).await.is(200);
        assert_eq!(rest.records(), page[at + 1..], "behind event {at}");
    }
    assert_eq!(stream.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_client_that_was_cut_off_goes_on_behind_what_it_saw() {
    let (node, client) = with("cut-off", ECHO, "").await;
    client.lines("cut-off", "1\n2\n").await.is(202);
    client.records("cut-off", REPLY, 2).await;
    // From now on; nothing comes before the cut, and yet it knows where it stood.
    let mut stream = open(&node, "cut-off", "cursor=latest&limit=1", None).await;
    client.lines("cut-off", "3\n4\n").await.is(202);
    assert_eq!(data(&stream.take(1).await), [3]);
    assert_eq!(stream.next().await, None, "it wanted one");
    let last = stream.last_id.expect("an id");
    let mut again = open(&node, "cut-off", "cursor=latest", Some(&last)).await;
    assert_eq!(data(&again.take(1).await), [4]);
    let unseen = again.last_id.clone().expect("an id");
    drop(again);
    let mut quiet = open(&node, "cut-off", "", Some(&unseen)).await;
    client.lines("cut-off", "5\n").await.is(202);
    assert_eq!(data(&quiet.take(1).await), [5]);
    let mut all = open(&node, "cut-off", "limit=5", Some("")).await;
    assert_eq!(data(&all.take(5).await), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_bad_request_to_follow_is_a_plain_refusal() {
    let (node, client) = with("unfollowed", ECHO, "").await;
    let ask = async |query: &str, headers: &[(&str, &str)]| {
        let path = path(&client, "unfollowed", query);
        follow((node.address(), false), &path, headers).await.expect_err("a refusal")
    };
    ask("wait=1s", &[]).await.problem(400, "request.query");
    ask("cursor=!", &[]).await.problem(400, "output.cursor");
    ask("", &[("last-event-id", "!")]).await.problem(400, "output.cursor");
    client.lines("unfollowed", "1\n").await.is(202);
    client.records("unfollowed", REPLY, 1).await;
    let behind = client.page("unfollowed", REPLY, "").await.cursor();
    client.delete("pipelines/unfollowed").await.is(204);
    ask("", &[]).await.problem(404, "pipeline.unknown");
    client.apply("unfollowed", single("unfollowed", "echo", "")).await;
    let gone = ask("", &[("last-event-id", &behind)]).await.problem(410, "output.trimmed");
    let oldest = gone["oldest"].as_str().expect("a cursor");
    client.lines("unfollowed", "2\n").await.is(202);
    let mut stream = open(&node, "unfollowed", "", Some(oldest)).await;
    assert_eq!(data(&stream.take(1).await), [2]);
}

#[tokio::test]
async fn dead_letters_are_followed_as_outputs_are() {
    let (node, client) = with("followed-dead", super::OBEYS, "").await;
    client.send("followed-dead", "", &[("sluicebox-key", "k")], "xno good").await.is(202);
    let path = client.path("pipelines/followed-dead/dead-letters");
    let mut stream = follow((node.address(), false), &path, &[]).await.expect("a stream");
    let event = stream.next().await.expect("it goes on");
    assert_eq!(
        (&event.data["class"], &event.data["message"]),
        (&"reject".into(), &"no good".into())
    );
}

/// A node of its own that is not quiet for long.
async fn lively() -> (Node, Client) {
    let node = Setup::dev().set("http.heartbeat-time", "100ms").start().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("lively", single("lively", "echo", "")).await;
    (node, client)
}

#[tokio::test]
async fn a_quiet_stream_is_heard_of_and_ends_with_its_pipeline() {
    let (node, client) = lively().await;
    let mut stream = open(&node, "lively", "", None).await;
    stream.heartbeat().await;
    stream.heartbeat().await;
    assert!(followers(&client).await.ends_with(" 1"));
    client.lines("lively", "1\n").await.is(202);
    assert_eq!(data(&stream.take(1).await), [1]);
    client.delete("pipelines/lively").await.is(204);
    assert_eq!(stream.next().await, None);
    eventually_equal(true, SOON, || async { followers(&client).await.ends_with(" 0") }).await;
}

#[tokio::test]
async fn a_stream_goes_on_over_an_update_and_says_so_if_the_output_began_anew() {
    let (node, client) = lively().await;
    let mut stream = open(&node, "lively", "", None).await;
    client.lines("lively", "1\n").await.is(202);
    assert_eq!(data(&stream.take(1).await), [1]);
    client.apply("lively", single("lively", "echo", "retries = 1")).await;
    client.lines("lively", "2\n").await.is(202);
    assert_eq!(data(&stream.take(1).await), [2]);
    let larger = single("lively", "echo", "retries = 1");
    let larger = larger.replace("[outputs.reply]", "[outputs.reply]\nretain-bytes = \"1MiB\"");
    client.apply("lively", larger).await;
    client.lines("lively", "3\n").await.is(202);
    let told = stream.take(2).await;
    assert_eq!(
        (told[0].event.as_str(), &told[0].data["code"]),
        ("trimmed", &"output.trimmed".into())
    );
    assert_eq!(told[1].data["data"], 3);
}

#[tokio::test]
async fn a_stream_ends_cleanly_when_the_node_stops() {
    for http2 in [false, true] {
        let (node, client) = lively().await;
        let path = path(&client, "lively", "");
        let mut stream = follow((node.address(), http2), &path, &[]).await.expect("a stream");
        client.lines("lively", "1\n").await.is(202);
        assert_eq!(data(&stream.take(1).await), [1]);
        node.terminate();
        assert_eq!(stream.next().await, None, "no break, but an end");
        let (status, _home) = node.ended().await;
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let (node, client) = lively().await;
    for http2 in [false, true] {
        let path = path(&client, "lively", "");
        let mut streams = Vec::new();
        for _ in 0..5 {
            let stream = follow((node.address(), http2), &path, &[]).await;
            streams.push(stream.expect("a stream"));
        }
        assert!(followers(&client).await.ends_with(" 5"));
        drop(streams);
        eventually_equal(true, SOON, || async { followers(&client).await.ends_with(" 0") }).await;
    }
}

/// Memory of a node that is its own: not what of its program was read from the disk so far, which
/// grows as it first does something.
pub(crate) fn resident_bytes(node: &Node) -> u64 {
    let id = node.process().expect("it runs").as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a process");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[tokio::test]
async fn clients_that_do_not_read_cost_no_more_than_a_piece_each() {
    const STALLED: usize = 16;
    const LINE_BYTES: usize = 100_000;
    let (node, client) = lively().await;
    let text = single("stalled", "echo", "");
    let text = text.replace("[outputs.reply]", "[outputs.reply]\nretain-bytes = \"1MiB\"");
    client.apply("stalled", text).await;
    let mut streams = Vec::new();
    for _ in 0..STALLED {
        streams.push(open(&node, "stalled", "", None).await);
    }
    let line = |n: usize| format!("\"{n:05}{}\"\n", "x".repeat(LINE_BYTES));
    // What fits into one ring, so that memory has been used before it is looked at.
    let lines: String = (0..10).map(line).collect();
    client.lines("stalled", lines).await.is(202);
    client.records("stalled", REPLY, 8).await;
    let before = resident_bytes(&node);
    let mut sent = 10;
    // Far more than sockets hold: 40 MB, for each of the clients.
    while sent < 400 {
        let lines: String = (sent..sent + 10).map(line).collect();
        eventually("there is room", SOON, || async {
            let reply: Reply = client.lines("stalled", lines.clone()).await;
            (reply.status == 202).then_some(())
        })
        .await;
        sent += 10;
    }
    client.lines("stalled", "\"last\"\n").await.is(202);
    eventually("all came out", SOON, || async {
        let page = client.page("stalled", REPLY, "").await.is(200).records();
        page.last().is_some_and(|record| record["data"] == "last").then_some(())
    })
    .await;
    let grown = resident_bytes(&node).saturating_sub(before);
    assert!(grown < 48 << 20, "{STALLED} stalled clients took {grown} bytes");
    // One that reads again learns of the gap, and then gets the newest.
    let (mut gaps, mut last) = (0, Value::Null);
    while last != "last" {
        let event = streams[0].next().await.expect("it goes on");
        gaps += usize::from(event.event == "trimmed");
        last = event.data["data"].clone();
    }
    assert!(gaps > 0, "nothing is passed over in silence");
    let _others = streams;
}

#[tokio::test]
async fn a_stream_over_http2_counts_as_a_connection() {
    let node = Setup::tenants(&["acme"]).start().await;
    node.home().tenant(&["quota", "set", "acme", "connections", "2"]);
    let client = node.client();
    client.push(ECHO).await;
    client.apply("counted", single("counted", "echo", "")).await;
    let bearer = format!("Bearer {}", node.token("acme"));
    let headers = [("authorization", bearer.as_str())];
    let path = path(&client, "counted", "");
    // The quota is known within a second; then the client's connection and one more are all.
    let refused = eventually("the quota holds", SOON, || async {
        follow((node.address(), true), &path, &headers).await.err()
    })
    .await;
    refused.problem(429, "quota.exhausted");
    // Over HTTP/1.1 the connection is all there is, once the one that was refused has gone.
    let _stream = eventually("there is a connection left", SOON, || async {
        follow((node.address(), false), &path, &headers).await.ok()
    })
    .await;
    let reply = client.ask(Method::GET, &path, &[], "").await.is(200);
    assert_eq!(reply.records().iter().map(payload).count(), 0);
}
