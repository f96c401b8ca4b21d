//! CloudEvents in every mode, and the trace that travels with an event.

use serde_json::{Value, json};
use sluicebox_tests::client::{Client, payload};

use super::{ECHO, with};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const LINES: (&str, &str) = ("content-type", "application/cloudevents+ndjson");

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

fn event(id: &str, more: Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": id, "source": "/meters", "type": "reading",
                           "partitionkey": "meter-7", "data": {"id": id}});
    for (name, value) in more.as_object().expect("an object") {
        event[name] = value.clone();
    }
    event
}

async fn reply(client: &Client, pipeline: &str, count: usize) -> Vec<Value> {
    client.records(pipeline, "outputs/reply", count).await
}

#[tokio::test]
async fn one_event_in_json_is_taken_with_its_attributes() {
    let (_node, client) = with("ce-one", ECHO, "").await;
    let more = json!({"subject": "s", "time": "2023-11-14T22:13:20Z", "traceparent": TRACE});
    client.send("ce-one", "", &[STRUCTURED], event("a", more).to_string()).await.is(202);
    let text = json!({"datacontenttype": "text/plain", "data": "two\nlines"});
    client.send("ce-one", "", &[STRUCTURED], event("b", text).to_string()).await.is(202);
    let records = reply(&client, "ce-one", 2).await;
    let first = &records[0];
    for (name, value) in [
        ("id", "a"),
        ("source", "/meters"),
        ("type", "reading"),
        ("subject", "s"),
        ("key", "meter-7"),
        ("time", "2023-11-14T22:13:20.000000Z"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(first[name], value, "{first}");
    }
    assert_eq!((&first["data"], &records[1]["data"]), (&json!({"id": "a"}), &json!("two\nlines")));
    let waited =
        client.send("ce-one", "?wait=20s", &[STRUCTURED], event("c", json!({})).to_string());
    assert_eq!(waited.await.is(200).json(), json!({"id": "c"}));
    let bad = event("d", json!({"specversion": "0.3"}));
    client
        .send("ce-one", "", &[STRUCTURED], bad.to_string())
        .await
        .problem(400, "ingest.attribute");
    client.send("ce-one", "", &[STRUCTURED], "{").await.problem(400, "ingest.json");
    let avro = [("content-type", "application/cloudevents+avro")];
    client.send("ce-one", "", &avro, "x").await.problem(415, "request.media-type");
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    let (_node, client) = with("ce-batch", ECHO, "").await;
    let events: Vec<Value> = (0..3_000).map(|n| event(&format!("e{n}"), json!({}))).collect();
    let taken = client.send("ce-batch", "", &[BATCH], json!(events).to_string()).await.is(202);
    assert_eq!(taken.json(), json!({"accepted": 3_000, "rejected": 0}));
    let mut spoilt = events;
    spoilt[7]["id"] = json!("");
    spoilt[2_999]["source"] = json!(5);
    let refused = client.send("ce-batch", "", &[BATCH], json!(spoilt).to_string()).await;
    let problem = refused.problem(400, "ingest.rejected");
    let lines: Vec<&Value> =
        problem["errors"].as_array().expect("a list").iter().map(|e| &e["line"]).collect();
    assert_eq!((lines, &problem["rejected"]), (vec![&json!(7), &json!(2_999)], &json!(2)));
    for (body, code) in [("[", "ingest.json"), ("{}", "ingest.json"), ("[]", "ingest.empty")] {
        client.send("ce-batch", "", &[BATCH], body).await.problem(400, code);
    }
    client.send("ce-batch", "?wait=1s", &[BATCH], "[]").await.problem(400, "request.wait");
    let records = reply(&client, "ce-batch", 3_000).await;
    assert_eq!(records.len(), 3_000, "nothing of the second one");
    assert_eq!(payload(&records[2_999]), br#"{"id":"e2999"}"#);
}

#[tokio::test]
async fn events_one_a_line_carry_their_own_attributes_and_bad_ones_are_left_out() {
    let (_node, client) = with("ce-lines", ECHO, "").await;
    let own = event("a", json!({"traceparent": OTHER}));
    let body = format!("{own}\nnot json\n{}\n", event("b", json!({})));
    let headers = [LINES, ("traceparent", TRACE)];
    let reply_ = client.send("ce-lines", "", &headers, body).await.is(202).json();
    assert_eq!((&reply_["accepted"], &reply_["errors"][0]["line"]), (&json!(2), &json!(2)));
    let records = reply(&client, "ce-lines", 2).await;
    let traces: Vec<&Value> = records.iter().map(|record| &record["traceparent"]).collect();
    assert_eq!(traces, [OTHER, TRACE], "its own before that of the request");
}

#[tokio::test]
async fn a_trace_goes_with_its_event_over_a_change_of_key() {
    let (_node, client) = with("traced-first", ECHO, "").await;
    let text = "version = 1\nname = \"traced\"\ndelivery = \"best-effort\"\npartitions = 4\n\
                [ingest]\nto = [\"a\"]\n[stages.a]\ncomponent = \"echo\"\n\
                [stages.b]\ncomponent = \"echo\"\n\
                [[edges]]\nfrom = \"a\"\nto = \"b\"\nkey = { json = \"/k\" }\n\
                [outputs.reply]\nfrom = \"b\"\n";
    client.apply("traced", text).await;
    let send = async |headers: &[(&str, &str)], k: &str| {
        let all =
            [&[("content-type", "application/json"), ("sluicebox-key", "x")], headers].concat();
        client.send("traced", "", &all, format!("{{\"k\":\"{k}\"}}")).await.is(202);
    };
    send(&[("traceparent", TRACE)], "k1").await;
    send(&[], "k2").await;
    send(&[("traceparent", "nonsense")], "k3").await;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "i"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-traceparent", OTHER),
        ("traceparent", TRACE),
    ];
    send(&binary, "k4").await;
    let headers = [("content-type", "application/x-ndjson"), ("traceparent", OTHER)];
    client.send("traced", "", &headers, "{\"k\":\"k5\"}\n{\"k\":\"k6\"}\n").await.is(202);
    let mut found: Vec<(String, Value)> = reply(&client, "traced", 6)
        .await
        .iter()
        .map(|record| {
            (record["key"].as_str().unwrap_or_default().into(), record["traceparent"].clone())
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let traces: Vec<Value> = found.into_iter().map(|(_, trace)| trace).collect();
    let expected =
        [json!(TRACE), Value::Null, Value::Null, json!(OTHER), json!(OTHER), json!(OTHER)];
    assert_eq!(traces, expected);
}
