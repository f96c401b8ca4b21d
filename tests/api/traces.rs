//! Traces: what is followed hangs together from the request to what leaves, and neither clients nor
//! a collector can make it cost more than it may.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicebox_tests::client::{Client, Raw};
use sluicebox_tests::collector::{Collector, Mood, Seen, tree};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};

use super::{ECHO, OBEYS};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const SERVER: i32 = 2;

/// What follows which word: `split` in one segment, `count` by the word in another.
fn words(delivery: &str) -> String {
    format!(
        "version = 1\nname = \"words\"\ndelivery = \"{delivery}\"\npartitions = 2\n\
         [ingest]\nto = [\"split\"]\n\
         [stages.split]\ncomponent = \"word-count-split\"\nports = [\"words\"]\n\
         [stages.count]\ncomponent = \"word-count-count\"\n\
         [[edges]]\nfrom = \"split.words\"\nto = \"count\"\nkey = \"emitted\"\n\
         [outputs.counts]\nfrom = \"count\"\n"
    )
}

async fn with_words(setup: Setup, delivery: &str) -> (Node, Client) {
    let node = setup.start().await;
    let client = node.client();
    for guest in ["word-count-split", "word-count-count"] {
        client.push(guest).await;
    }
    client.apply("words", words(delivery)).await;
    (node, client)
}

fn trace(number: u64) -> String {
    format!("{number:032x}")
}

/// The header of a client that follows what it sends, or does not.
fn parent(number: u64, flags: &str) -> String {
    format!("00-{}-00000000000000aa-{flags}", trace(number))
}

async fn send(client: &Client, pipeline: &str, traceparent: &str, body: &str) {
    client.send(pipeline, "", &[TEXT, ("traceparent", traceparent)], body.to_owned()).await.is(202);
}

/// A figure of the node, of all its label sets together.
async fn figure(client: &Client, name: &str) -> u64 {
    let text = client.plain("/metrics").await.is(200).text().to_owned();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

fn named<'a>(spans: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[tokio::test]
async fn a_request_is_followed_to_what_leaves_in_one_trace() {
    let collector = Collector::start().await;
    let setup = collector
        .of(Setup::dev())
        .variable("OTEL_SERVICE_NAME", "plant-7")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "zone=north")
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret")
        .variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
    let (_node, client) = with_words(setup, "exactly-once").await;
    send(&client, "words", &parent(7, "01"), "to be").await;
    let records = client.records("words", "outputs/counts", 2).await;
    let spans = collector
        .until(
            &trace(7),
            &[
                "sync",
                "wait split",
                "process split",
                "commit split",
                "hop split count",
                "process count",
                "process count",
                "commit count",
                "send counts",
                "send counts",
            ],
        )
        .await;
    let root = tree(&spans);
    assert_eq!((root.kind, root.parent.as_str()), (SERVER, "00000000000000aa"));
    assert_eq!(root.attributes["http.response.status_code"], "202");
    assert_eq!(root.attributes["messaging.batch.message_count"], "1");
    for span in &spans {
        assert_eq!(span.attributes["sluicebox.tenant"], "dev", "{span:#?}");
        assert_eq!(span.attributes["sluicebox.pipeline"], "words", "{span:#?}");
        assert_eq!(span.resource["service.name"], "plant-7");
        assert_eq!(span.resource["zone"], "north");
        assert_eq!(span.error, None, "{span:#?}");
    }
    let split = named(&spans, "process split")[0];
    assert_eq!(split.parent, root.id);
    assert!(split.attributes["sluicebox.fuel"].parse::<u64>().expect("a number") > 0);
    assert_eq!(split.attributes["sluicebox.attempt"], "1");
    for hop in named(&spans, "hop split count") {
        assert_eq!(hop.parent, split.id);
        assert!(["worker", "node"].contains(&hop.attributes["sluicebox.link"].as_str()));
    }
    for commit in named(&spans, "commit count") {
        assert_eq!(commit.attributes["sluicebox.logged"], "true");
    }
    // What leaves names the call that caused it.
    let counts: BTreeSet<String> =
        named(&spans, "process count").iter().map(|span| span.id.clone()).collect();
    let expected = counts.iter().map(|id| format!("00-{}-{id}-01", trace(7))).collect();
    let left: BTreeSet<String> = records
        .iter()
        .map(|record| record["traceparent"].as_str().expect("it has one").to_owned())
        .collect();
    assert_eq!(left, expected, "{spans:#?}");
    assert!(collector.header("api-key").iter().all(|key| key == "s3cret"));
    assert_eq!(collector.header("api-key").len(), collector.requests());
}

#[tokio::test]
async fn what_is_not_sampled_leaves_no_span_and_goes_on_as_it_is() {
    let collector = Collector::start().await;
    let setup = collector.of(Setup::dev()).variable("OTEL_TRACES_SAMPLER_ARG", "0");
    let (node, client) = with_words(setup, "best-effort").await;
    send(&client, "words", &parent(1, "00"), "one").await;
    client.send("words", "", &[TEXT], "two").await.is(202);
    send(&client, "words", &parent(3, "01"), "three").await;
    let records = client.records("words", "outputs/counts", 3).await;
    let mut traces: Vec<String> = records
        .iter()
        .map(|record| record["traceparent"].as_str().unwrap_or("none").to_owned())
        .collect();
    traces.sort_unstable();
    assert_eq!(traces[0], parent(1, "00"));
    assert_eq!(traces[2], "none");
    // Without a log there is no disk to wait for.
    let spans = collector.until(&trace(3), &["commit count", "send counts"]).await;
    let _root = tree(&spans);
    assert!(named(&spans, "sync").is_empty());
    node.terminate();
    assert!(node.ended().await.0.success());
    assert!(collector.spans().iter().all(|span| span.trace == trace(3)));
}

#[tokio::test]
async fn roots_are_sampled_by_the_ratio_and_an_end_sends_what_is_left() {
    let collector = Collector::start().await;
    let setup = collector
        .of(Setup::dev())
        .variable("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .variable("OTEL_TRACES_SAMPLER_ARG", "0.5")
        .variable("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .set("traces.sampled-per-second", "100000")
        .set("traces.spans-per-second", "100000");
    let (node, client) = with_words(setup, "best-effort").await;
    for n in 0..100 {
        client.send("words", "", &[TEXT], format!("w{n}")).await.is(202);
    }
    client.records("words", "outputs/counts", 100).await;
    node.terminate();
    assert!(node.ended().await.0.success());
    let traces: BTreeSet<String> = collector.spans().into_iter().map(|span| span.trace).collect();
    // Twelve standard deviations.
    assert!((20..=80).contains(&traces.len()), "{}", traces.len());
    for of in traces {
        let all = collector.spans();
        let spans: Vec<Seen> = all.into_iter().filter(|span| span.trace == of).collect();
        let root = tree(&spans);
        assert_eq!((root.kind, root.parent.as_str()), (SERVER, ""));
    }
}

#[tokio::test]
async fn a_deaf_collector_stalls_nobody_and_what_is_lost_is_counted() {
    let collector = Collector::start().await;
    collector.set(Mood::Deaf);
    let setup = collector
        .of(Setup::dev())
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", "64")
        .set("traces.sampled-per-second", "100000")
        .set("traces.spans-per-second", "100000");
    let (node, client) = with_words(setup, "exactly-once").await;
    for n in 0..100 {
        send(&client, "words", &parent(n + 1, "01"), "w").await;
    }
    client.records("words", "outputs/counts", 100).await;
    eventually("spans are dropped", SOON, || async {
        let dropped = figure(&client, "sluicebox_traces_spans_dropped_total{reason=\"queue\"}");
        (dropped.await > 100).then_some(())
    })
    .await;
    assert!(figure(&client, "sluicebox_traces_spans_waiting").await <= 64);
    let began = Instant::now();
    node.terminate();
    assert!(node.ended().await.0.success());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_busy_collector_gets_them_again_and_one_that_is_not_there_none() {
    let collector = Collector::start().await;
    let (_node, client) = with_words(collector.of(Setup::dev()), "best-effort").await;
    collector.set(Mood::Busy(2, 503));
    send(&client, "words", &parent(1, "01"), "a").await;
    let spans = collector.until(&trace(1), &["process split", "process count"]).await;
    let _root = tree(&spans);
    assert!(figure(&client, "sluicebox_traces_exports_again_total").await >= 2);
    assert_eq!(figure(&client, "sluicebox_traces_spans_dropped_total").await, 0);
    collector.set(Mood::Choosy);
    send(&client, "words", &parent(2, "01"), "b").await;
    eventually("one is not taken", SOON, || async {
        let name = "sluicebox_traces_spans_dropped_total{reason=\"rejected\"}";
        (figure(&client, name).await > 0).then_some(())
    })
    .await;
    collector.set(Mood::Busy(usize::MAX, 400));
    send(&client, "words", &parent(3, "01"), "c").await;
    eventually("it does not want them", SOON, || async {
        let name = "sluicebox_traces_spans_dropped_total{reason=\"export\"}";
        (figure(&client, name).await > 0).then_some(())
    })
    .await;
    let nobody = Setup::dev().variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let (node, client) = with_words(nobody, "best-effort").await;
    send(&client, "words", &parent(4, "01"), "d").await;
    client.records("words", "outputs/counts", 1).await;
    node.terminate();
    assert!(node.ended().await.0.success());
}

#[tokio::test]
async fn a_client_that_asks_for_everything_gets_what_its_tenant_may_keep() {
    let collector = Collector::start().await;
    let setup = collector.of(Setup::dev()).set("traces.sampled-per-second", "3");
    let (_node, client) = with_words(setup, "best-effort").await;
    let began = Instant::now();
    for n in 0..150 {
        send(&client, "words", &parent(n + 1, "01"), "w").await;
    }
    let most = 3 + 3 * (1 + began.elapsed().as_secs());
    let sampled = figure(&client, "sluicebox_traces_sampled_total").await;
    assert!((3..=most).contains(&sampled), "{sampled} of at most {most}");
    assert_eq!(figure(&client, "sluicebox_traces_refused_total").await, 150 - sampled);
    let records = client.records("words", "outputs/counts", 150).await;
    let of = |record: &Value| record["traceparent"].as_str().expect("it has one").to_owned();
    let kept = records.iter().filter(|record| of(record).ends_with("-01")).count();
    assert_eq!(kept as u64, sampled, "what is not kept is not said to be");
    assert!(records.iter().all(|record| of(record).starts_with("00-0000")));
}

#[tokio::test]
async fn of_a_large_request_a_few_events_are_followed() {
    let collector = Collector::start().await;
    let node = collector.of(Setup::dev()).start().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("large", single("large", "echo", "")).await;
    let body: String = (0..5_000).map(|n| format!("{n}\n")).collect();
    let headers = [("content-type", "application/x-ndjson"), ("traceparent", &*parent(1, "01"))];
    client.send("large", "", &headers, body).await.is(202);
    let records = client.records("large", "outputs/reply", 5_000).await;
    let ends = |end: &str| {
        let all = records.iter().filter_map(|record| record["traceparent"].as_str());
        all.filter(|trace| trace.starts_with("00-0000") && trace.ends_with(end)).count()
    };
    assert_eq!((ends("-01"), ends("-00")), (16, 4_984));
    let spans = collector.until(&trace(1), &["process stage-0", "send reply"]).await;
    let _root = tree(&spans);
    collector.until(&trace(1), &["process stage-0"; 16]).await;
    node.terminate();
    assert!(node.ended().await.0.success());
    // No more of them are told at its end.
    let all: Vec<Seen> =
        collector.spans().into_iter().filter(|span| span.trace == trace(1)).collect();
    assert_eq!(named(&all, "process stage-0").len(), 16);
}

#[tokio::test]
async fn a_client_that_does_not_wait_leaves_a_trace_with_its_beginning() {
    let collector = Collector::start().await;
    let node = collector.of(Setup::dev()).start().await;
    let client = node.client();
    client.push("hostile/spin").await;
    // Long enough to be seen, and then it ends by itself.
    let slow = single("slow", "spin", "limits = { fuel-per-event = 1_000_000_000 }");
    client.apply("slow", slow).await;
    let mut gone = Raw::connect(node.address()).await;
    let (path, parent) = (client.path("pipelines/slow/events"), parent(9, "01"));
    let request = format!(
        "POST {path}?wait=30s HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n\
         traceparent: {parent}\r\ncontent-length: 1\r\n\r\nw"
    );
    assert!(gone.write(request.as_bytes()).await);
    eventually("it waits", SOON, || async {
        (figure(&client, "sluicebox_waiting").await == 1).then_some(())
    })
    .await;
    drop(gone);
    let name = "POST /v1/tenants/{tenant}/pipelines/{pipeline}/events";
    let spans = collector.until(&trace(9), &[name]).await;
    let root = tree(&spans);
    assert_eq!((root.kind, root.parent.as_str()), (SERVER, "00000000000000aa"));
    assert_eq!(root.attributes["error.type"], "client.gone");
    assert_eq!(root.attributes.get("http.response.status_code"), None);
}

#[tokio::test]
async fn an_event_names_a_trace_of_its_own_and_is_followed_in_that() {
    let collector = Collector::start().await;
    let node = collector.of(Setup::dev()).start().await;
    let client = node.client();
    client.push(ECHO).await;
    client.apply("own", single("own", "echo", "")).await;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "i"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-traceparent", &*parent(5, "01")),
        ("traceparent", &*parent(6, "01")),
        TEXT,
    ];
    client.send("own", "", &headers, "x").await.is(202);
    let spans = collector.until(&trace(5), &["create own", "process stage-0"]).await;
    let root = tree(&spans);
    assert_eq!((root.name.as_str(), root.parent.as_str()), ("create own", "00000000000000aa"));
    let of_request = collector.spans();
    assert!(of_request.iter().any(|span| span.trace == trace(6) && span.kind == SERVER));
}

#[tokio::test]
async fn what_fails_is_told_with_each_attempt_and_as_a_dead_letter() {
    let collector = Collector::start().await;
    let node = collector.of(Setup::dev()).start().await;
    let client = node.client();
    client.push(OBEYS).await;
    let manifest = single("fails", OBEYS, "on-failure = \"dead-letter\"");
    client.apply("fails", manifest).await;
    send(&client, "fails", &parent(1, "01"), "xnot this one").await;
    client.records("fails", "dead-letters", 1).await;
    let spans = collector.until(&trace(1), &["process stage-0", "dead letter stage-0"]).await;
    let _root = tree(&spans);
    let calls = named(&spans, "process stage-0");
    assert!(calls.iter().all(|call| call.error.as_deref() == Some("not this one")), "{calls:#?}");
    assert!(calls.iter().all(|call| call.attributes["sluicebox.taken_back"] == "true"));
    let dead = named(&spans, "dead letter stage-0")[0];
    assert_eq!(dead.error.as_deref(), Some("not this one"));
    assert_eq!(dead.attributes["error.type"], "reject");
    // One that is worth another try has three more.
    send(&client, "fails", &parent(2, "01"), "rlater").await;
    let spans = collector.until(&trace(2), &["process stage-0"; 4]).await;
    let spans = [spans, collector.until(&trace(2), &["dead letter stage-0"]).await].concat();
    let attempts: BTreeSet<&str> = named(&spans, "process stage-0")
        .iter()
        .map(|call| call.attributes["sluicebox.attempt"].as_str())
        .collect();
    assert_eq!(attempts, BTreeSet::from(["1", "2", "3", "4"]));
    let dead = named(&spans, "dead letter stage-0")[0];
    assert_eq!(dead.attributes["error.type"], "retry");
}

#[tokio::test]
async fn a_tenant_in_a_process_of_its_own_is_followed_as_well() {
    let collector = Collector::start().await;
    let setup = collector
        .of(Setup::tenants(&["ann"]))
        .variable("OTEL_SERVICE_NAME", "plant-7")
        .set("isolation.processes", "true");
    let (node, client) = with_words(setup, "exactly-once").await;
    send(&client, "words", &parent(7, "01"), "to be").await;
    client.records("words", "outputs/counts", 2).await;
    let spans = collector
        .until(&trace(7), &["sync", "process split", "process count", "send counts"])
        .await;
    assert_eq!(tree(&spans).parent, "00000000000000aa");
    for span in &spans {
        assert_eq!(span.attributes["sluicebox.tenant"], "ann", "{span:#?}");
        assert_eq!(span.resource["service.name"], "plant-7", "{span:#?}");
    }
    // What it has to say at its end is heard.
    send(&client, "words", &parent(8, "01"), "or").await;
    client.records("words", "outputs/counts", 3).await;
    node.terminate();
    assert!(node.ended().await.0.success());
    let all = collector.spans();
    let last: Vec<Seen> = all.into_iter().filter(|span| span.trace == trace(8)).collect();
    assert_eq!(tree(&last).parent, "00000000000000aa");
    for name in ["sync", "process split", "process count", "send counts"] {
        assert!(!named(&last, name).is_empty(), "{name} of {last:#?}");
    }
}

#[tokio::test]
async fn nothing_is_counted_twice_when_a_traced_node_is_killed() {
    let collector = Collector::start().await;
    let setup = |home: Setup| {
        let setup = collector.of(home).set("traces.sampled-per-second", "100000");
        setup.set("traces.spans-per-second", "100000")
    };
    let (node, client) = with_words(setup(Setup::dev()), "exactly-once").await;
    let numbered = async |client: &Client, n: u64| {
        let (number, trace) = (n.to_string(), parent(n, "01"));
        let headers = [
            TEXT,
            ("sluicebox-producer", "meter"),
            ("sluicebox-sequence", &*number),
            ("traceparent", &*trace),
        ];
        client.send("words", "", &headers, "w").await.is(202);
    };
    for n in 1..=40 {
        numbered(&client, n).await;
    }
    // In the middle of what it does, spans and all.
    let home = node.kill();
    let node = setup(Setup::dev().home(&home)).start().await;
    let client = node.client();
    numbered(&client, 40).await;
    for n in 41..=60 {
        numbered(&client, n).await;
    }
    let records = client.records("words", "outputs/counts", 60).await;
    assert_eq!(records.len(), 60);
    let last = records.iter().map(|record| {
        let data = &record["data"];
        data["count"].as_u64().or_else(|| data.as_u64()).unwrap_or_default()
    });
    assert_eq!(last.max(), Some(60), "{:?}", records.last());
    for n in [1, 60] {
        let spans = collector.until(&trace(n), &["process split"]).await;
        // A batch that was run again has other spans, and each is told once.
        let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
        assert_eq!(ids.len(), spans.len(), "{spans:#?}");
        let requests = spans.iter().filter(|span| span.kind == SERVER).count();
        assert!(requests <= 1, "{spans:#?}");
    }
}
