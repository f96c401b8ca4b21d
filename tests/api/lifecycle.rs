//! From start to end: ready, measured, restarted, drained, and alone on its directory.

use std::process::Output;

use serde_json::json;
use sluicebox_tests::client::{Client, Raw};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup};

use super::{ECHO, NODE, OBEYS, with};

/// Waits until the metrics have this line.
async fn measured(client: &Client, line: &str) {
    eventually(line, SOON, || async {
        let reply = client.plain("/metrics").await.is(200);
        reply.text().lines().any(|found| found == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_says_that_it_is_well() {
    let node = NODE.lend().await;
    let client = node.client();
    for client in [&client, &client.http2()] {
        assert_eq!(client.plain("/healthz").await.is(200).text(), "ok\n");
        assert_eq!(client.plain("/readyz").await.is(200).text(), "ready\n");
        client.plain("/nothing").await.problem(404, "route.unknown");
    }
}

#[tokio::test]
async fn figures_are_labelled_by_tenant_pipeline_and_stage() {
    let (_node, client) = with("measured", OBEYS, "").await;
    let given = ["ea", "xno", "eb"].map(|text| Given::new("k", text));
    client.frame("measured", &frame(&given)).await.is(202);
    client.call("measured", "k", "mseen").await.is(204);
    client.call("measured", "k", "mseen").await.is(204);
    client.lines("measured", "no json\n").await.is(400);
    client.records("measured", "outputs/reply", 2).await;
    let pipeline = "tenant=\"dev\",pipeline=\"measured\"";
    for line in [
        format!("sluicebox_ingest_events_total{{{pipeline}}} 5"),
        format!("sluicebox_ingest_requests_total{{{pipeline},outcome=\"accepted\"}} 3"),
        format!("sluicebox_ingest_rejected_total{{{pipeline},code=\"ingest.json\"}} 1"),
        format!("sluicebox_stage_dead_letters_total{{{pipeline},stage=\"stage-0\"}} 1"),
        format!("sluicebox_stage_events_out_total{{{pipeline},stage=\"stage-0\"}} 2"),
        format!("sluicebox_guest_count_total{{{pipeline},stage=\"stage-0\",name=\"seen\"}} 2"),
        format!("sluicebox_output_events_total{{{pipeline},output=\"reply\"}} 2"),
        format!("sluicebox_output_events_total{{{pipeline},output=\"dead-letters\"}} 1"),
    ] {
        measured(&client, &line).await;
    }
    let reply = client.plain("/metrics").await.is(200);
    assert!(reply.header("content-type").is_some_and(|text| text.contains("openmetrics")));
    assert!(reply.text().ends_with("# EOF\n"));
    client.delete("pipelines/measured").await.is(204);
    eventually("its figures go with it", SOON, || async {
        let reply = client.plain("/metrics").await;
        (!reply.text().contains("pipeline=\"measured\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_starts_again_has_what_was_applied_before() {
    let home = Home::new();
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    let pushed = client.push(ECHO).await;
    client.apply("lasting", single("lasting", "echo", "retries = 1")).await;
    client.apply("lasting", single("lasting", "echo", "retries = 2")).await;
    client.apply("deleted", single("deleted", "echo", "")).await;
    client.delete("pipelines/deleted").await.is(204);
    client.call("lasting", "k", "before").await.is(200);
    let before = client.describe("lasting").await;
    let cursor = client.page("lasting", "outputs/reply", "").await.is(200).cursor();
    node.terminate();
    let (status, _) = node.ended().await;
    assert_eq!(status.code(), Some(0));
    let node = Setup::dev().home(&home).start().await;
    let client = node.client();
    assert_eq!(client.get("components").await.is(200).json(), json!([pushed]));
    let list = client.get("pipelines").await.is(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let after = client.describe("lasting").await;
    for part in ["version", "versions", "manifest", "state"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    assert_eq!(client.call("lasting", "k", "after").await.is(200).text(), "after");
    // Results of best-effort pipelines ended with the node, and a reader is told.
    let page = client.page("lasting", "outputs/reply", &format!("cursor={cursor}")).await;
    page.problem(410, "output.trimmed");
    let again = client.apply("lasting", single("lasting", "echo", "retries = 2")).await;
    assert_eq!((&again["changed"], &again["version"]), (&json!(false), &json!(2)));
    let next = client.apply("lasting", single("lasting", "echo", "retries = 3")).await;
    assert_eq!(next["version"], 3);
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_answers_what_is_under_way() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/spin").await;
    client.push(ECHO).await;
    // Long enough to be seen, and then it ends by itself.
    let slow = single("slow", "spin", "limits = { fuel-per-event = 1_000_000_000 }");
    client.apply("slow", slow).await;
    let mut idle = Raw::connect(node.address()).await;
    assert!(idle.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await);
    idle.until("ok\n").await;
    let stop = async {
        measured(&client, "sluicebox_waiting{} 1").await;
        node.terminate();
        // A connection with nothing to do is closed first.
        idle.until_closed().await;
    };
    let (reply, ()) = tokio::join!(client.call("slow", "k", "x"), stop);
    reply.is(204);
    let (status, _) = node.ended().await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn what_was_accepted_is_handled_before_the_node_stops() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(OBEYS).await;
    let text = single("queued", OBEYS, "limits = { log-lines = 10_000 }");
    client.apply("queued", text).await;
    let given = (0..3_000).map(|n| Given::new("k", format!("l\u{1}line {n}.")));
    client.frame("queued", &frame(&given.collect::<Vec<_>>())).await.is(202);
    node.terminate();
    let (log, home) = (node.log_file(), node.home().clone());
    let (status, _) = node.ended().await;
    let log = std::fs::read_to_string(log).expect("the log outlives the node");
    assert_eq!(status.code(), Some(0), "{log}");
    let missing: Vec<u32> = (0..3_000).filter(|n| !log.contains(&format!("line {n}."))).collect();
    assert!(missing.is_empty(), "never handled: {missing:?}");
    drop(home);
}

#[tokio::test]
async fn a_second_node_on_a_directory_is_refused() {
    let home = Home::new();
    let setup = Setup::dev().home(&home);
    let node = setup.clone().start().await;
    let Output { status, stdout, stderr } = setup.command().output().expect("it can be started");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!((status.code(), stdout.as_slice()), (Some(73), &b""[..]), "{said}");
    let data = home.data();
    assert!(said.contains(data.to_str().expect("a plain name")), "{said}");
    node.client().push(ECHO).await;
}
