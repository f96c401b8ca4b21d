//! What people see when something is wrong, and the exit codes scripts rely on.

use std::fs;

use super::support::command::{Run, alone, run, sluicebox};
use super::support::golden;
use super::support::node::{Answer, FakeNode};

const PROBLEM: &str = r#"{"type":"urn:sluicebox:error:manifest.invalid","title":"Bad Request",
"status":400,"code":"manifest.invalid","detail":"the manifest has 2 mistakes","problems":[
{"field":"stages.count.component","code":"manifest.component","message":"there is no component \"cuont\"","fix":"did you mean \"count\"?"},
{"field":"delivery","code":"manifest.missing","message":"it is missing","fix":"write delivery = \"best-effort\""}]}"#;

fn in_directory(files: &[(&str, &str)], arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    run(sluicebox(directory.path(), arguments), b"")
}

fn problem(status: u16, code: &str) -> Answer {
    let body = format!(r#"{{"status":{status},"code":"{code}","detail":"the detail"}}"#);
    Answer(status, vec![("content-type", "application/problem+json")], body)
}

#[test]
fn a_manifest_with_mistakes_is_shown_with_every_fix() {
    let node = FakeNode::answering(vec![Answer(400, vec![], PROBLEM.to_owned())]);
    let files = [("p.toml", "name = \"wc\"\n")];
    let run = in_directory(&files, &["apply", "p.toml", "--url", &node.url]);
    assert_eq!((run.code, run.out.as_str()), (64, ""));
    golden::check("errors/manifest.txt", &run.err);
    assert_eq!(node.asked()[0].line, "PUT /v1/tenants/dev/pipelines/wc HTTP/1.1");
    assert_eq!(node.asked()[0].header("content-type"), Some("application/toml"));
}

#[test]
fn the_same_mistakes_are_json_when_asked_for() {
    let node = FakeNode::answering(vec![Answer(400, vec![], PROBLEM.to_owned())]);
    let files = [("p.toml", "name = \"wc\"\n")];
    let run = in_directory(&files, &["apply", "p.toml", "--url", &node.url, "--output", "json"]);
    assert_eq!(run.code, 64);
    golden::check("errors/manifest.json", &run.err);
}

#[test]
fn a_configuration_with_mistakes_names_each_field_and_binds_nothing() {
    let text = "[http]\nlisten = \"0.0.0.0:80\"\nbody-bytes-max = \"1B\"\n[node]\ndev = true\nwokers = 2\n";
    let run = in_directory(&[("sluicebox.toml", text)], &["serve"]);
    assert_eq!((run.code, run.out.as_str()), (78, ""));
    golden::check("errors/config.txt", &run.err);
}

#[test]
fn a_node_without_tenants_is_told_how_to_get_one() {
    let run = in_directory(&[], &["serve", "--data-dir", "data"]);
    assert_eq!((run.code, run.out.as_str()), (78, ""));
    golden::check("errors/no-tenants.txt", &run.err);
}

#[test]
fn a_node_that_is_not_there_is_told_how_to_start() {
    let run = alone(&["list", "--url", "http://127.0.0.1:1"]);
    assert_eq!((run.code, run.out.as_str()), (69, ""));
    golden::check("errors/no-node.txt", &run.err);
}

#[test]
fn a_demo_without_its_examples_says_where_they_are() {
    let run = alone(&["demo"]);
    assert_eq!((run.code, run.out.as_str()), (74, ""));
    golden::check("errors/demo.txt", &run.err);
}

#[test]
fn every_kind_of_refusal_has_its_exit_code() {
    for (status, code) in [
        (400, 64),
        (401, 77),
        (403, 77),
        (404, 66),
        (409, 73),
        (413, 64),
        (422, 70),
        (429, 75),
        (500, 1),
        (503, 69),
        (504, 69),
    ] {
        let node = FakeNode::answering(vec![problem(status, "x.y")]);
        let run = alone(&["describe", "wc", "--url", &node.url]);
        assert_eq!(run.code, code, "{status}");
        assert!(run.err.starts_with("error: the detail [x.y]\n"), "{}", run.err);
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_two() {
    for arguments in [
        vec!["describe", "../x"],
        vec!["tail", "wc", "counts", "--from", "a&b"],
        vec!["send", "wc", "--rate", "0"],
        vec!["list", "--url", "ftp://localhost"],
        vec!["send", "wc", "--id", "7"],
        vec!["nonsense"],
    ] {
        let run = alone(&arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}");
        assert!(run.err.starts_with("error: "), "{}", run.err);
    }
}

#[test]
fn a_token_goes_into_the_header_and_nowhere_else() {
    let node = FakeNode::answering(vec![problem(401, "request.token")]);
    let files = [("token", "sbx_acme_secret\n")];
    let arguments =
        ["list", "components", "--tenant", "acme", "--token-file", "token", "--url", &node.url];
    let run = in_directory(&files, &arguments);
    assert_eq!(run.code, 77);
    assert!(!run.err.contains("secret"), "{}", run.err);
    let asked = node.asked();
    assert_eq!(asked[0].header("authorization"), Some("Bearer sbx_acme_secret"));
    assert_eq!(asked[0].line, "GET /v1/tenants/acme/components HTTP/1.1");
}

#[test]
fn a_configuration_is_shown_with_where_each_value_came_from() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("sluicebox.toml"), "[node]\nworkers = 3\n").unwrap();
    let mut command = sluicebox(directory.path(), &["config", "show", "--listen", "127.0.0.1:9"]);
    command.env("SLUICEBOX__HTTP__STREAMS_MAX", "7");
    let run = run(command, b"");
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let origin = |field: &str| {
        let line = run.out.lines().find(|line| line.starts_with(field)).unwrap();
        line.split(" # ").nth(1).unwrap().to_owned()
    };
    assert_eq!(origin("workers = 3"), "sluicebox.toml:2");
    assert_eq!(origin("streams-max = 7"), "SLUICEBOX__HTTP__STREAMS_MAX");
    assert_eq!(origin("listen = \"127.0.0.1:9\""), "--listen");
    assert_eq!(origin("body-bytes-max"), "default");
}

#[test]
fn tenants_are_added_and_their_tokens_shown_once() {
    let directory = tempfile::tempdir().unwrap();
    let tenant = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["tenant", "--file", "t.toml"].iter().chain(arguments).copied().collect();
        run(sluicebox(directory.path(), &all), b"")
    };
    let added = tenant(&["add", "acme"]);
    assert_eq!((added.code, added.err.as_str()), (0, ""));
    assert!(added.out.starts_with("sbx_acme_"), "{}", added.out);
    let file = fs::read_to_string(directory.path().join("t.toml")).unwrap();
    assert!(!file.contains(added.out.trim()), "the file holds the token itself");
    assert_eq!(tenant(&["add", "acme"]).code, 73);
    assert_eq!(tenant(&["quota", "set", "acme", "memory-bytes", "64MiB"]).code, 0);
    assert_eq!(tenant(&["quota", "set", "acme", "memory-bytes", "64"]).code, 2);
    assert_eq!(tenant(&["token", "revoke", "acme", "nobody"]).code, 66);
    let list = tenant(&["list"]).out;
    assert!(list.contains("memory-bytes=64MiB"), "{list}");
    assert!(list.contains("(read,ingest,write)"), "{list}");
    assert_eq!(tenant(&["remove", "acme"]).code, 0);
    assert_eq!(tenant(&["list"]).out, "no tenants in t.toml\n");
}
