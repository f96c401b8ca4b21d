//! Events come in: every form, bad ones among good ones, and waiting for a result.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sluicebox_tests::client::{FRAME, NDJSON, Raw, Reply, payload};
use sluicebox_tests::events::{Given, Out, frame};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Setup, Shared};

use super::{ECHO, OBEYS, with};

/// A node with small limits on what it reads.
static SMALL: Shared = Shared::new(|| Setup::dev().set("http.body-bytes-max", "64KiB"));

fn accepted(reply: Reply, accepted: u64, rejected: u64) -> Value {
    let counts = reply.is(202).json();
    assert_eq!((&counts["accepted"], &counts["rejected"]), (&json!(accepted), &json!(rejected)));
    counts
}

#[tokio::test]
async fn a_malformed_line_is_reported_by_its_number_and_the_good_ones_go_in() {
    let (_node, client) = with("lines", ECHO, "").await;
    let body = "{\"n\":1}\n\n{\"n\":2}\r\n{\"n\":\nnull x\n{\"n\":3}";
    let reply = accepted(client.lines("lines", body).await, 3, 2);
    let errors = reply["errors"].as_array().expect("a list");
    let found: Vec<_> = errors.iter().map(|error| (&error["line"], &error["code"])).collect();
    let code = json!("ingest.json");
    assert_eq!(found, [(&json!(4), &code), (&json!(5), &code)]);
    let records = client.records("lines", "outputs/reply", 3).await;
    let data: Vec<&Value> = records.iter().map(|record| &record["data"]).collect();
    assert_eq!(data, [&json!({"n": 1}), &json!({"n": 2}), &json!({"n": 3})]);
    let keys: BTreeSet<&str> =
        records.iter().map(|record| record["key"].as_str().expect("a text")).collect();
    assert_eq!(keys.len(), 3, "each event without a key gets one of its own");
    let problem = client.lines("lines", "{\nno\n").await.problem(400, "ingest.rejected");
    assert_eq!((&problem["rejected"], &problem["errors"][1]["line"]), (&json!(2), &json!(2)));
    client.lines("lines", "\n \n").await.problem(400, "ingest.empty");
}

#[tokio::test]
async fn lines_find_their_key_in_the_payload() {
    let (_node, client) = with("keyed-lines", ECHO, "").await;
    let text = single("keyed-lines", "echo", "");
    let text = text.replace("[ingest]", "[ingest]\nkey = \"/user/id\"");
    client.apply("keyed-lines", text).await;
    let long = "x".repeat(513);
    let body = format!(
        "{}\n{}\n{}\n{}\n{}\n",
        r#"{"user":{"id":"ann"}}"#,
        r#"{"user":{"id":7}}"#,
        r#"{"user":{}}"#,
        r#"{"user":{"id":""}}"#,
        format_args!(r#"{{"user":{{"id":"{long}"}}}}"#),
    );
    let reply = accepted(client.lines("keyed-lines", body).await, 2, 3);
    let codes: Vec<&Value> =
        reply["errors"].as_array().expect("a list").iter().map(|error| &error["code"]).collect();
    assert_eq!(codes, ["ingest.key", "ingest.key", "ingest.key-length"]);
    let records = client.records("keyed-lines", "outputs/reply", 2).await;
    let keys: Vec<&Value> = records.iter().map(|record| &record["key"]).collect();
    assert_eq!(keys, ["ann", "7"]);
}

#[tokio::test]
async fn the_body_of_a_request_is_one_event_and_its_headers_say_what_it_is() {
    let (_node, client) = with("single", ECHO, "").await;
    let headers = [
        ("sluicebox-key", "schlüssel"),
        ("sluicebox-id", "e-1"),
        ("sluicebox-time", "2023-11-14T22:13:20Z"),
        ("content-type", "text/plain"),
    ];
    accepted(client.send("single", "", &headers, "any text").await, 1, 0);
    let records = client.records("single", "outputs/reply", 1).await;
    assert_eq!(records[0]["key"], "schlüssel");
    assert_eq!(records[0]["data"], "any text");
    assert_eq!(records[0]["time"], "2023-11-14T22:13:20.000000Z");
    assert_eq!((&records[0]["id"], &records[0]["port"]), (&json!("e-1"), &json!("out")));
    accepted(client.send("single", "?key=a%2Fb", &[], vec![0, 255]).await, 1, 0);
    let records = client.records("single", "outputs/reply", 2).await;
    assert_eq!((&records[1]["key"], payload(&records[1])), (&json!("a/b"), vec![0, 255]));
    let json = [("content-type", "application/json")];
    client.send("single", "", &json, "{").await.problem(400, "ingest.json");
    let packed = [("content-encoding", "br")];
    client.send("single", "", &packed, "x").await.problem(415, "request.coding");
}

#[tokio::test]
async fn a_cloud_event_keeps_its_attributes() {
    let (_node, client) = with("cloud", ECHO, "").await;
    let good = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a%20b"),
        ("ce-source", "/meters/7"),
        ("ce-type", "com.example.reading"),
        ("ce-subject", "north"),
        ("ce-partitionkey", "meter-7"),
        ("content-type", "application/json"),
    ];
    accepted(client.send("cloud", "", &good, "{\"kw\":3}").await, 1, 0);
    let records = client.records("cloud", "outputs/reply", 1).await;
    for (name, expected) in [
        ("id", json!("a b")),
        ("source", json!("/meters/7")),
        ("type", json!("com.example.reading")),
        ("subject", json!("north")),
        ("key", json!("meter-7")),
        ("data", json!({"kw": 3})),
    ] {
        assert_eq!(records[0][name], expected, "{name}: {}", records[0]);
    }
    let bad = &good[..3];
    client.send("cloud", "", bad, "{}").await.problem(400, "ingest.attribute");
    let avro = [("content-type", "application/cloudevents+avro")];
    client.send("cloud", "", &avro, "{}").await.problem(415, "request.media-type");
}

#[tokio::test]
async fn packed_frames_go_in_and_come_out() {
    let (_node, client) = with("packed", ECHO, "").await;
    let given = [
        Given::new("a", "1").field(258, b"text/plain"),
        Given::new("b", [0, 255]),
        Given::new("", "without a key").field(256, b"its id"),
    ];
    let both = [frame(&given).bytes().clone(), frame(&given[..1]).bytes().clone()].concat();
    accepted(client.send("packed", "", &[("content-type", FRAME)], both).await, 4, 0);
    client.records("packed", "outputs/reply", 4).await;
    let out = |event: &sluicebox_core::frame::Event<'_>| Out::read(0, event);
    let found = client.events("packed", "outputs/reply", out).await;
    let first = Out::of(0, "1").key("a").field(258, b"text/plain");
    let third = Out::of(2, "without a key").key("its id").field(256, b"its id");
    assert_eq!(found, [first.clone(), Out::of(1, [0, 255]).key("b"), third, first]);
    let http2 = client.http2();
    accepted(http2.frame("packed", &frame(&given[..1])).await, 1, 0);
    let mut torn = frame(&given).bytes().to_vec();
    torn.truncate(torn.len() - 1);
    let headers = [("content-type", FRAME)];
    let problem = client.send("packed", "", &headers, torn).await.problem(400, "ingest.rejected");
    assert_eq!(problem["errors"][0]["code"], "ingest.frame", "{problem:#}");
    client.send("packed", "", &headers, "SBXF").await.problem(400, "ingest.rejected");
    client.call("packed", "a", "the last").await.is(200);
    let detail = client.describe("packed").await;
    assert_eq!(detail["stage"][0]["events-in"], 6, "half a body was taken: {detail:#}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let node = SMALL.lend().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("small", single("small", "echo", "")).await;
    let large = vec![b'x'; (64 << 10) + 1];
    let problem = client.send("small", "", &[], large.clone()).await;
    let problem = problem.problem(413, "request.too-large");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("65536")), "{problem}");
    client.send("small", "", &[("content-type", NDJSON)], large.clone()).await.is(413);
    client.send("small", "", &[], large[1..].to_vec()).await.is(202);
    let mut raw = Raw::connect(node.address()).await;
    let head = "POST /v1/tenants/dev/pipelines/small/events HTTP/1.1\r\nhost: localhost\r\n\
                connection: close\r\ntransfer-encoding: chunked\r\n\r\n10001\r\n";
    assert!(raw.write(head.as_bytes()).await);
    // The node may have answered before it was given all of it.
    let _all_taken = raw.write(&large).await && raw.write(b"\r\n0\r\n\r\n").await;
    let reply = raw.until_closed().await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert_eq!(client.call("small", "k", "goes on").await.is(200).text(), "goes on");
}

#[tokio::test]
async fn an_event_larger_than_the_pipeline_allows_is_refused() {
    let limits = "limits = { event-bytes = \"1KiB\" }";
    let (_node, client) = with("short-events", ECHO, limits).await;
    let large = format!("\"{}\"", "x".repeat(1_000));
    let reply = client.send("short-events", "", &[], large.clone()).await;
    let problem = reply.problem(400, "ingest.event-bytes");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("1024") && detail.contains("limits.event-bytes"), "{detail}");
    let lines = accepted(client.lines("short-events", format!("1\n{large}\n3")).await, 2, 1);
    assert_eq!(lines["errors"][0]["line"], 2);
}

#[tokio::test]
async fn keys_are_text_of_at_most_512_bytes() {
    let (node, client) = with("keys", ECHO, "").await;
    let (longest, long) = ("k".repeat(512), "k".repeat(513));
    client.send("keys", "", &[("sluicebox-key", &longest)], "1").await.is(202);
    for reply in [
        client.send("keys", "", &[("sluicebox-key", &long)], "2").await,
        client.send("keys", &format!("?key={long}"), &[], "3").await,
        client.send("keys", "", &[("sluicebox-id", &long)], "4").await,
    ] {
        let problem = reply.problem(400, "ingest.key-length");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains("513") && detail.contains("512"), "{detail}");
    }
    client.send("keys", "?key=%FF", &[], "5").await.problem(400, "request.query");
    let mut raw = Raw::connect(node.address()).await;
    let head = b"POST /v1/tenants/dev/pipelines/keys/events HTTP/1.1\r\nhost: localhost\r\n\
                 connection: close\r\ncontent-length: 1\r\nsluicebox-key: \xC3\x28\r\n\r\n6";
    assert!(raw.write(head).await);
    let reply = raw.until_closed().await;
    assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("ingest.key-utf8"), "{reply}");
    let records = client.records("keys", "outputs/reply", 1).await;
    assert_eq!((records.len(), &records[0]["key"]), (1, &json!(longest)));
}

#[tokio::test]
async fn what_is_not_there_is_said_with_a_code() {
    let (_node, client) = with("known", ECHO, "").await;
    client.send("nobody", "", &[], "x").await.problem(404, "pipeline.unknown");
    client.lines("nobody", "1\n").await.problem(404, "pipeline.unknown");
    client.page("known", "outputs/nothing", "").await.problem(404, "output.unknown");
    client.page("known", "events", "").await.problem(405, "request.method");
    client.send("known", "?kee=x", &[], "x").await.problem(400, "request.query");
}

#[tokio::test]
async fn a_client_may_wait_for_the_result_of_an_event() {
    let (_node, client) = with("waiting", OBEYS, "").await;
    for client in [&client, &client.http2()] {
        let reply = client.call("waiting", "k", "ehello").await.is(200);
        assert_eq!((reply.text(), reply.header("sluicebox-key")), ("hello", Some("k")));
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        let reply = client.call("waiting", "k", "e[1]").await.is(200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        client.call("waiting", "k", "n\0").await.is(204);
    }
    let prefer = [("prefer", "wait=20")];
    assert_eq!(client.send("waiting", "", &prefer, "ex").await.is(200).text(), "x");
    // What is given up on has no result; why it was is with the dead letters.
    client.call("waiting", "k", "xno").await.is(204);
    assert_eq!(client.records("waiting", "dead-letters", 1).await[0]["message"], "no");
    let headers = [("content-type", NDJSON)];
    let batch = client.send("waiting", "?wait=1s", &headers, "1\n").await;
    batch.problem(400, "request.wait");
    for wait in ["2h", "soon", "-1s"] {
        let reply = client.send("waiting", &format!("?wait={wait}"), &[], "ex").await;
        reply.problem(400, "request.query");
    }
}

#[tokio::test]
async fn a_client_that_waited_in_vain_is_told_where_to_look() {
    let (_node, client) = with("patient", "hostile/sleep", "").await;
    let reply = client.send("patient", "?wait=200ms", &[], "x").await;
    let problem = reply.problem(504, "request.deadline");
    let cursor = problem["cursor"].as_str().expect("a cursor of the output");
    client.page("patient", "outputs/reply", &format!("cursor={cursor}")).await.is(200);
}
