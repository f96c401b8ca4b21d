//! Pipelines: applied, compared, listed, deleted, and refused with every mistake at once.

use serde_json::{Value, json};
use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;

use super::{ECHO, NODE, with};

const TWENTY_MISTAKES: &str = r#"
version = 1
name = "Bad Name"
delivery = "at-most-once"
partitions = 0
colour = "blue"

[ingest]
to = ["first", "nowhere", "first"]
key = "id"

[stages.first]
component = "never-pushed"
scope = "global"
ports = ["out", "Out!"]
on-failure = "wait"
retries = 99
limits = { memory = 64, fuel-per-event = "many", event-bytes = "99GiB" }
config = { n = 5 }
assets = { table = "sha256:12" }
grants = { network = true }

[stages.second]
stream = { idle-timeout = "1 parsec" }

[[edges]]
from = "first"
to = "second.nothing"
key = "/id"

[outputs.results]
from = "third"
retain-bytes = "1B"
"#;

/// Fields and codes of a list of problems.
fn rows(problem: &Value) -> Vec<(&str, &str)> {
    let rows = problem["problems"].as_array().expect("a list").iter();
    let text = |row: &'_ Value, name: &str| row[name].as_str().map(str::len);
    rows.map(|row| {
        for part in ["field", "code", "message", "fix"] {
            assert!(text(row, part) > Some(0), "{part} is missing: {row}");
        }
        (row["field"].as_str().expect("a text"), row["code"].as_str().expect("a text"))
    })
    .collect()
}

async fn refused(client: &Client, name: &str, text: &str) -> Value {
    let reply = client.put(&format!("pipelines/{name}"), text.to_owned()).await;
    reply.problem(400, "manifest.invalid")
}

#[tokio::test]
async fn twenty_mistakes_are_reported_at_once() {
    let node = NODE.lend().await;
    let client = node.client();
    let problem = refused(&client, "mistaken", TWENTY_MISTAKES).await;
    let mut found = rows(&problem);
    found.sort_unstable();
    let expected = [
        ("colour", "manifest.unknown-field"),
        ("delivery", "manifest.choice"),
        ("edges[0].key", "manifest.choice"),
        ("edges[0].to", "pipeline.unknown-input"),
        ("ingest.key", "manifest.pointer"),
        ("ingest.to[1]", "pipeline.unknown-stage"),
        ("ingest.to[2]", "manifest.duplicate"),
        ("name", "manifest.name"),
        ("outputs.results.from", "pipeline.unknown-stage"),
        ("outputs.results.retain-bytes", "manifest.range"),
        ("partitions", "manifest.range"),
        ("stages.first.assets.table", "manifest.digest"),
        ("stages.first.component", "pipeline.unknown-component"),
        ("stages.first.config.n", "manifest.type"),
        ("stages.first.grants.network", "manifest.unknown-field"),
        ("stages.first.limits.event-bytes", "manifest.range"),
        ("stages.first.limits.fuel-per-event", "manifest.type"),
        ("stages.first.limits.memory", "manifest.unit"),
        ("stages.first.on-failure", "manifest.choice"),
        ("stages.first.ports[1]", "manifest.name"),
        ("stages.first.retries", "manifest.range"),
        ("stages.first.scope", "manifest.choice"),
        ("stages.second.component", "manifest.missing"),
        ("stages.second.stream", "manifest.scope"),
        ("stages.second.stream.idle-timeout", "manifest.unit"),
    ];
    assert_eq!(found, expected, "{problem:#}");
    let detail = format!("the manifest has {} mistakes", expected.len());
    assert_eq!((&problem["detail"], &problem["omitted"]), (&json!(detail), &json!(0)));
    client.get("pipelines/mistaken").await.problem(404, "pipeline.unknown");
}

#[tokio::test]
async fn what_does_not_exist_yet_is_refused_in_plain_words() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(ECHO).await;
    let later = single("later", "echo", "scope = \"stream\"\non-failure = \"park\"");
    let later = later.replace("best-effort", "exactly-once");
    let problem = refused(&client, "later", &later).await;
    assert_eq!(
        problem["problems"],
        json!([
            {
                "field": "stages.stage-0.on-failure",
                "code": "manifest.scope",
                "message": "cannot be \"park\" with scope = \"stream\": the memory of a stream's \
                            instance cannot be taken back, so that its events cannot be run again",
                "fix": "write \"dead-letter\" or \"halt\", or another scope",
            },
        ])
    );
}

#[tokio::test]
async fn text_that_is_no_manifest_is_refused_with_its_place() {
    let node = NODE.lend().await;
    let client = node.client();
    let texts = [
        ("version = 1\nname = \n", "line 2, column", "manifest.syntax"),
        ("version = 1\nversion = 1\n", "line 2, column 1", "manifest.duplicate"),
        ("{\"version\": 1,\n\"name\": }", "line 2, column", "manifest.syntax"),
        ("\u{0}", "line 1, column", "manifest.syntax"),
    ];
    for (text, place, code) in texts {
        let problem = refused(&client, "text", text).await;
        let (field, found) = rows(&problem)[0];
        assert!(field.starts_with(place) && found == code, "{text:?}: {problem:#}");
    }
    let missing = refused(&client, "text", "").await;
    let fields: Vec<&str> = rows(&missing).into_iter().map(|row| row.0).collect();
    assert_eq!(fields, ["version", "name", "ingest", "stages"]);
    let later = refused(&client, "text", "version = 2\nname = 5\n").await;
    assert_eq!(rows(&later), [("version", "manifest.version")], "the rest may mean anything");
    let other = refused(&client, "text", &single("other", "echo", "")).await;
    assert!(rows(&other).iter().any(|row| row.0 == "name" || row.0.contains("component")));
}

#[tokio::test]
async fn applying_again_changes_nothing_and_a_change_is_shown_before_it_is_made() {
    let (_node, client) = with("steady", ECHO, "").await;
    let text = single("steady", "echo", "");
    let again = client.apply("steady", text.clone()).await;
    assert_eq!((&again["changed"], &again["created"]), (&json!(false), &json!(false)));
    assert_eq!((&again["version"], &again["changes"]), (&json!(1), &json!([])));
    let more = single("steady", "echo", "retries = 7");
    let path = "pipelines/steady?dry-run=true";
    let dry = client.put(path, more.clone()).await.is(200).json();
    assert_eq!((&dry["changed"], &dry["version"]), (&json!(true), &json!(2)));
    assert_eq!(dry["changes"], json!(["~ stages.stage-0.retries: 3 → 7"]));
    assert_eq!(client.describe("steady").await["versions"], json!([1]));
    let done = client.apply("steady", more).await;
    assert_eq!((&done["version"], &done["changes"]), (&json!(2), &dry["changes"]));
    let detail = client.describe("steady").await;
    assert_eq!((&detail["version"], &detail["versions"]), (&json!(2), &json!([1, 2])));
    assert_eq!(detail["manifest"]["stages"]["stage-0"]["retries"], 7);
    let back = client.apply("steady", text).await;
    assert_eq!((&back["version"], &back["created"]), (&json!(3), &json!(false)));
    let lasting = single("steady", "echo", "").replace("best-effort", "exactly-once");
    let problem = refused(&client, "steady", &lasting).await;
    assert_eq!(rows(&problem), [("delivery", "plan.delivery")]);
}

#[tokio::test]
async fn a_dry_run_of_a_new_pipeline_makes_none() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(ECHO).await;
    let path = "pipelines/imagined?dry-run=true";
    let dry = client.put(path, single("imagined", "echo", "")).await.is(200).json();
    assert_eq!((&dry["created"], &dry["changed"]), (&json!(true), &json!(true)));
    assert!(!dry["changes"].as_array().expect("a list").is_empty());
    client.get("pipelines/imagined").await.problem(404, "pipeline.unknown");
}

#[tokio::test]
async fn a_manifest_may_be_json_and_stages_may_be_named_by_digest() {
    let node = NODE.lend().await;
    let client = node.client();
    let digest = client.push(ECHO).await["digest"].clone();
    let manifest = json!({
        "version": 1,
        "name": "in-json",
        "delivery": "best-effort",
        "ingest": { "to": ["main"] },
        "stages": { "main": { "component": digest } },
        "outputs": { "reply": { "from": "main" } },
    });
    let applied = client.apply("in-json", manifest.to_string()).await;
    assert_eq!(applied["created"], true);
    assert_eq!(applied["partitions"], 4, "twice the number of workers");
    assert_eq!(client.call("in-json", "k", "x").await.is(200).text(), "x");
    let list = client.get("pipelines").await.is(200).json();
    let row = list.as_array().expect("a list").iter().find(|row| row["name"] == "in-json");
    let expected = json!({
        "name": "in-json", "version": 1, "delivery": "best-effort", "stages": 1, "state": "running",
    });
    assert_eq!(row, Some(&expected));
}

#[tokio::test]
async fn a_deleted_pipeline_is_gone_and_its_name_is_free() {
    let (_node, client) = with("fleeting", ECHO, "").await;
    client.call("fleeting", "k", "x").await.is(200);
    client.delete("pipelines/fleeting").await.is(204);
    for reply in [
        client.get("pipelines/fleeting").await,
        client.delete("pipelines/fleeting").await,
        client.send("fleeting", "", &[], "x").await,
        client.page("fleeting", "outputs/reply", "").await,
        client.page("fleeting", "dead-letters", "").await,
    ] {
        reply.problem(404, "pipeline.unknown");
    }
    let anew = client.apply("fleeting", single("fleeting", "echo", "")).await;
    assert_eq!((&anew["created"], &anew["version"]), (&json!(true), &json!(1)));
    assert_eq!(client.page("fleeting", "outputs/reply", "").await.is(200).text(), "");
}
