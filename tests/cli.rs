//! The command against a real node: what people and scripts do with it, from upload to deletion.
//!
//! Leaves to others: flags, help and messages on their own, and nodes that behave badly
//! (`runtime/cli/tests`).

#[path = "cli/front.rs"]
mod front;
#[path = "cli/registry.rs"]
mod registry;

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{self, Node, Setup};
use sluicebox_tests::{guests, root};

/// What a run of the command gave.
#[derive(Debug)]
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command writes text");
        let code = output.status.code().expect("it ends by itself");
        Self { code, out: text(output.stdout), err: text(output.stderr) }
    }

    /// The one JSON document it wrote.
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON lines it wrote.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Its error, as JSON, if it ended with this code.
    #[track_caller]
    fn error(&self, code: i32) -> Value {
        assert_eq!(self.code, code, "{self:?}");
        let document: Value =
            serde_json::from_str(&self.err).expect("errors are asked for as JSON");
        assert_eq!(document["error"]["exit-code"], code, "{self:?}");
        document["error"].clone()
    }
}

/// Runs a command as the first tenant of a node, with its results as JSON.
fn ask(node: &Node, arguments: &[&str]) -> Run {
    let mut command = node::command(arguments);
    command.args(["--output", "json"]).current_dir(root()).env("SLUICEBOX_URL", node.url());
    Run::of(command.output().expect("the program can be started"))
}

/// A file beside the node, for the command to read.
fn file(node: &Node, name: &str, text: &str) -> PathBuf {
    let path = node.home().data().join(name);
    std::fs::write(&path, text).expect("a directory of ours can be written");
    path
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

fn guest(name: &str) -> String {
    text(&guests::path(name)).to_owned()
}

#[tokio::test]
async fn words_are_counted_from_the_command_line() {
    let node = Setup::dev().start().await;
    let built = guests::folder();
    let example = "examples/word-count/pipeline.toml";
    let applied = ask(&node, &["apply", example, "--push", text(&built)]).json();
    assert_eq!((&applied["name"], &applied["created"]), (&json!("word-count"), &json!(true)));
    let again = ask(&node, &["apply", example]).json();
    assert_eq!((&again["changed"], &again["version"]), (&json!(false), &json!(1)));
    let words = file(&node, "words", "one two\nthree two\n\nTwo\n");
    let sent = ask(&node, &["send", "word-count", "--lines", "--file", text(&words)]).json();
    // A blank line is a line.
    assert_eq!((&sent["accepted"], &sent["rejected"]), (&json!(4), &json!(0)), "{sent}");
    let tail = ["tail", "word-count", "counts", "--from", "oldest", "--limit", "5"];
    let records = ask(&node, &[&tail[..], &["--timeout", "30s"]].concat()).lines();
    assert_eq!(records.len(), 5, "{records:?}");
    let mut keys: Vec<&str> = records.iter().filter_map(|record| record["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["one", "three", "two", "two", "two"]);
    let dead = ask(&node, &["dead-letters", "word-count", "--no-follow"]);
    assert_eq!((dead.code, dead.out.as_str()), (0, ""), "{dead:?}");
    let replayed = ask(&node, &["dead-letters", "replay", "word-count"]).json();
    assert_eq!((&replayed["replayed"], &replayed["skipped"]), (&json!(0), &json!(0)), "{replayed}");
    let unknown = ask(&node, &["dead-letters", "replay", "word-count", "--stage", "none"]);
    assert_eq!(unknown.error(66)["code"], "stage.unknown");
    let detail = ask(&node, &["describe", "word-count"]).json();
    assert_eq!((&detail["state"], &detail["version"]), (&json!("running"), &json!(1)));
    let list = ask(&node, &["list"]).json();
    let names = |what: &str| {
        let rows = list[what].as_array().expect("a list").iter();
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("pipelines"), ["word-count"]);
    assert_eq!(names("components"), ["word-count-count", "word-count-split"]);
    let deleted = ask(&node, &["delete", "pipeline", "word-count"]).json();
    assert_eq!(deleted, json!({ "deleted": "pipeline", "name": "word-count" }));
    ask(&node, &["delete", "component", "word-count-split"]).json();
    let error = ask(&node, &["describe", "word-count"]).error(66);
    assert_eq!(error["code"], "pipeline.unknown");
}

#[tokio::test]
async fn a_refusal_is_an_exit_code_and_a_document() {
    let node = Setup::dev().set("engine.upload-bytes-max", "64KiB").start().await;
    let push = |name: &str| ask(&node, &["push", &guest(name)]);
    assert_eq!(push("hostile-refused/core-module").error(64)["code"], "component.core-module");
    assert_eq!(push("conformance-rust").error(64)["code"], "request.too-large");
    let pushed = push("hostile/echo").json();
    assert_eq!((&pushed["name"], &pushed["world"]), (&json!("echo"), &json!("stage")));
    let twenty = file(&node, "twenty.toml", "version = 1\nname = \"x\"\ndelivery = \"best\"\n");
    let error = ask(&node, &["apply", text(&twenty)]).error(64);
    let places = error["problems"].as_array().expect("a list").iter();
    let places: Vec<&str> = places.filter_map(|problem| problem["place"].as_str()).collect();
    assert_eq!(places, ["delivery", "ingest", "stages"], "{error:#}");
    let good = file(&node, "good.toml", &single("good", "echo", ""));
    let dry = ask(&node, &["apply", text(&good), "--dry-run"]).json();
    assert_eq!(dry["changed"], true);
    ask(&node, &["describe", "good"]).error(66);
    ask(&node, &["apply", text(&good)]).json();
    let lines = file(&node, "lines", "1\n{\n3\n");
    let run = ask(&node, &["send", "good", "--file", text(&lines)]);
    assert_eq!(run.code, 65, "{run:?}");
    let report: Value = serde_json::from_str(&run.out).expect("JSON");
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(report["errors"][0]["place"], "line 2", "{report}");
    assert_eq!(
        ask(&node, &["send", "nothing", "--data", "1"]).error(66)["code"],
        "pipeline.unknown"
    );
    assert_eq!(ask(&node, &["tail", "good", "nothing"]).error(66)["code"], "output.unknown");
}

#[tokio::test]
async fn a_result_is_waited_for() {
    let node = Setup::dev().start().await;
    ask(&node, &["push", &guest("hostile/echo")]).json();
    ask(&node, &["push", &guest("hostile/sleep")]).json();
    for name in ["echo", "sleep"] {
        let manifest = file(&node, "manifest.toml", &single(name, name, ""));
        ask(&node, &["apply", text(&manifest)]).json();
    }
    let send = ["send", "echo", "--key", "k", "--wait", "20s", "--data"];
    let reply = ask(&node, &[&send[..], &["{\"n\":7}"]].concat()).json();
    assert_eq!(reply["data"], json!({ "n": 7 }), "{reply}");
    let late = ask(&node, &["send", "sleep", "--data", "x", "--wait", "200ms"]);
    assert_eq!(late.error(69)["code"], "request.deadline");
}

#[tokio::test]
async fn a_stream_goes_in_and_comes_back() {
    let node = Setup::dev().start().await;
    ask(&node, &["push", &guest("hostile/echo")]).json();
    let manifest = file(&node, "manifest.toml", &single("echo", "echo", ""));
    ask(&node, &["apply", text(&manifest)]).json();
    let lines = file(&node, "lines.ndjson", "1\n{\n3\n");
    let run = ask(&node, &["stream", "echo", "k/1", text(&lines)]);
    assert_eq!(run.error(65)["problems"][0]["place"], "unit 2", "{run:?}");
    let records = run.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let said: Vec<Value> = records.map(|record| json!([record["key"], record["data"]])).collect();
    // To a stage that is no stream function the end is an event like others.
    assert_eq!(said, [json!(["k/1", 1]), json!(["k/1", 3]), json!(["k/1", null])]);
    // The next stream of the key goes on behind it.
    let chunks = file(&node, "chunks", "abcdefg");
    let chunked = ["stream", "echo", "k/1", text(&chunks), "--chunk", "3", "--raw"];
    let run = ask(&node, &chunked);
    assert_eq!((run.code, run.out.as_str()), (0, "abc\ndef\ng\n\n"), "{run:?}");
    let gap = ask(&node, &["stream", "echo", "k/1", text(&lines), "--from", "9"]);
    assert_eq!(gap.error(73)["code"], "stream.gap");
    assert_eq!(
        ask(&node, &["stream", "nothing", "k", text(&lines)]).error(66)["code"],
        "pipeline.unknown"
    );
}

#[tokio::test]
async fn a_halted_pipeline_is_seen_and_resumed() {
    let node = Setup::dev().start().await;
    ask(&node, &["push", &guest("hostile/panic-nth")]).json();
    let halting = single("halting", "panic-nth", "on-failure = \"halt\"");
    let manifest = file(&node, "manifest.toml", &halting);
    ask(&node, &["apply", text(&manifest)]).json();
    for n in 1..7 {
        let send = ["send", "halting", "--key", "k", "--wait", "20s", "--data"];
        ask(&node, &[&send[..], &[&n.to_string()]].concat()).json();
    }
    // The seventh is taken, and then nothing goes on.
    ask(&node, &["send", "halting", "--key", "k", "--data", "7"]).json();
    let client = node.client();
    eventually("it halts", SOON, || async {
        (client.describe("halting").await["state"] == "halted").then_some(())
    })
    .await;
    let detail = ask(&node, &["describe", "halting"]).json();
    let why = detail["partition"][0]["halted"].as_str().expect("a reason");
    assert!(why.contains("stage-0: trap: "), "{why}");
    assert_eq!(ask(&node, &["resume", "halting"]).json(), json!({ "resumed": "halting" }));
    let tail = ["tail", "halting", "reply", "--from", "oldest", "--limit", "7", "--timeout", "30s"];
    let records = ask(&node, &tail).lines();
    let data: Vec<&Value> = records.iter().map(|record| &record["data"]).collect();
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn a_tenant_is_let_in_by_its_token_and_kept_out_of_others() {
    let node = Setup::tenants(&["ann", "bob"]).start().await;
    let as_tenant = |tenant: &str, token: Option<&str>, arguments: &[&str]| {
        let mut command = node::command(arguments);
        command.args(["--output", "json"]).env("SLUICEBOX_URL", node.url());
        command.env("SLUICEBOX_TENANT", tenant);
        if let Some(token) = token {
            command.env("SLUICEBOX_TOKEN", token);
        }
        Run::of(command.output().expect("the program can be started"))
    };
    let (ann, bob) = (Some(node.token("ann")), Some(node.token("bob")));
    as_tenant("ann", ann, &["push", &guest("hostile/echo")]).json();
    let manifest = file(&node, "manifest.toml", &single("mine", "echo", ""));
    as_tenant("ann", ann, &["apply", text(&manifest)]).json();
    let token_file = file(&node, "token", &format!("{}\n", node.token("ann")));
    let by_file = ["list", "pipelines", "--token-file", text(&token_file)];
    let list = as_tenant("ann", None, &by_file).json();
    assert_eq!(list["pipelines"][0]["name"], "mine");
    assert_eq!(as_tenant("ann", None, &["list"]).error(77)["code"], "auth.token");
    assert_eq!(as_tenant("ann", Some("nonsense"), &["list"]).error(77)["code"], "auth.token");
    assert_eq!(as_tenant("ann", bob, &["list"]).error(66)["code"], "tenant.unknown");
    assert_eq!(as_tenant("bob", bob, &["describe", "mine"]).error(66)["code"], "pipeline.unknown");
    let reader = node.home().token("ann", "read");
    let client = node.client_of("ann", Some(&reader));
    eventually("it is known", SOON, || async {
        (client.get("pipelines").await.status == 200).then_some(())
    })
    .await;
    let send = as_tenant("ann", Some(&reader), &["send", "mine", "--data", "x"]);
    assert_eq!(send.error(77)["code"], "auth.scope");
    let tenants = node.home().tenant(&["list"]);
    let names: Vec<&Value> =
        tenants["tenants"].as_array().expect("a list").iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["ann", "bob"]);
}

#[tokio::test]
async fn the_log_of_a_pipeline_is_inspected_while_it_runs_and_when_it_was_killed() {
    let node = Setup::dev().start().await;
    ask(&node, &["push", &guest("hostile/echo")]).json();
    let kept = single("kept", "echo", "").replace("best-effort", "exactly-once");
    let manifest = file(&node, "manifest.toml", &kept);
    ask(&node, &["apply", text(&manifest)]).json();
    let send = ["send", "kept", "--key", "k", "--id", "e1", "--wait", "20s", "--data", "7"];
    ask(&node, &send).json();
    let data = node.home().data();
    let inspect = ["log", "inspect", "--data-dir", text(&data), "--records"];
    let running = ask(&node, &inspect).lines();
    assert_ne!(running[0]["verdict"], "damaged", "{running:?}");
    let home = node.kill();
    let command = |arguments: &[&str]| {
        let mut command = node::command(arguments);
        Run::of(command.args(["--output", "json"]).output().expect("the program can be started"))
    };
    let lines = command(&inspect).lines();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    let (applied, ingested, committed) = (of("apply"), of("ingest"), of("commit"));
    assert_eq!((applied.len(), ingested.len(), committed.len()), (1, 1, 1), "{lines:#?}");
    assert_eq!(applied[0]["name"], "dev/kept");
    assert_eq!(
        (&ingested[0]["says"]["events"], &ingested[0]["says"]["ids"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(committed[0]["says"]["results"], 1, "{lines:#?}");
    assert_eq!(committed[0]["says"]["stage"], "stage-0");
    // What was on disk and changes is found, and nothing is repaired.
    let segment = home.data().join("log/00000000000000000001.log");
    let mut bytes = std::fs::read(&segment).expect("a file of ours");
    let at = 4096 + applied[0]["position"].as_u64().expect("a position") as usize + 40;
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("a file of ours");
    let damaged = command(&inspect[..4]);
    assert_eq!(damaged.error(74)["code"], "log.corrupt");
    let doctor = command(&["doctor", "--data-dir", text(&data), "--url", "http://127.0.0.1:1"]);
    assert_eq!(doctor.code, 69, "{doctor:?}");
    let checks: Value = serde_json::from_str(&doctor.out).expect("JSON");
    let log = checks.as_array().expect("a list").iter().find(|row| row["check"] == "log");
    assert_eq!(log.expect("a row")["verdict"], "bad", "{checks:#}");
}

#[test]
fn the_demo_plays_both_examples_to_the_end() {
    let mut command = node::command(&["demo", "--seconds", "1", "--output", "json"]);
    let run = Run::of(command.current_dir(root()).output().expect("the program can be started"));
    let results = run.json();
    for part in ["word-count", "host-metrics"] {
        assert!(results[part].as_object().is_some_and(|part| !part.is_empty()), "{results:#}");
    }
}

#[tokio::test]
async fn what_stages_say_and_do_is_watched() {
    let node = Setup::dev().start().await;
    ask(&node, &["push", &guest("conformance-rust")]).json();
    let manifest = file(&node, "manifest.toml", &single("watched", "conformance-rust", ""));
    ask(&node, &["apply", text(&manifest)]).json();
    let send = |data: &str| ask(&node, &["send", "watched", "--data", data]).json();
    send("l\u{1}quiet");
    send("l\u{2}low");
    let lines = ask(&node, &["logs", "watched", "-f", "-n", "2"]).lines();
    assert_eq!([&lines[0]["text"], &lines[1]["text"]], ["quiet", "low"]);
    let grave = ask(&node, &["logs", "watched", "--level", "warn", "--stage", "stage-0"]).lines();
    assert_eq!((grave.len(), &grave[0]["level"]), (1, &json!("warn")));
    assert!(ask(&node, &["logs", "watched", "--stage", "other"]).lines().is_empty());
    assert_eq!(ask(&node, &["logs", "other"]).error(66)["code"], "pipeline.unknown");

    // What is done between two readings is in one of the views.
    let views = ["top", "watched", "--interval", "500ms", "--count", "4"];
    let top = std::thread::scope(|scope| {
        let watching = scope.spawn(|| ask(&node, &views).lines());
        while !watching.is_finished() {
            send("ex");
        }
        watching.join().expect("it ends")
    });
    let has = |view: &Value| view["stages"][0]["in/s"].as_f64().is_some_and(|rate| rate > 0.0);
    assert!(top.iter().any(has), "{top:?}");
    assert!(top.iter().any(|view| view["stages"][0]["call-p99"].is_number()), "{top:?}");
    let all = ask(&node, &["top", "--interval", "100ms", "--count", "1"]).lines();
    assert_eq!(all[0]["pipelines"][0]["name"], "watched");
}
