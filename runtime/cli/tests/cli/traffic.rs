//! `send`, `tail`, `push` and `sample` against a node that behaves well, badly, and not at all.

use std::fs;
use std::time::{Duration, Instant};

use super::support::command::{Run, run, sluicebox};
use super::support::node::{Answer, FakeNode};

fn accepted(events: u64) -> Answer {
    Answer(202, vec![], format!(r#"{{"accepted":{events},"rejected":0,"errors":[]}}"#))
}

fn send(node: &FakeNode, input: &str, arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<&str> =
        ["send", "wc", "--url", &node.url].iter().chain(arguments).copied().collect();
    run(sluicebox(directory.path(), &all), input.as_bytes())
}

fn tail(node: &FakeNode, arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<&str> =
        ["tail", "wc", "counts", "--url", &node.url].iter().chain(arguments).copied().collect();
    run(sluicebox(directory.path(), &all), b"")
}

fn page(records: &str, cursor: &'static str) -> Answer {
    Answer(200, vec![("sluicebox-cursor", cursor)], records.to_owned())
}

#[test]
fn json_lines_are_sent_in_batches_with_their_key() {
    let node = FakeNode::answering(vec![accepted(2), accepted(1)]);
    let run = send(&node, "{\"a\":1}\n\n[2]\n3", &["--batch", "2", "--key", "k 1"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    assert!(run.out.starts_with("3 accepted in "), "{}", run.out);
    let asked = node.asked();
    assert_eq!(asked[0].line, "POST /v1/tenants/dev/pipelines/wc/events?key=k%201 HTTP/1.1");
    assert_eq!(asked[0].header("content-type"), Some("application/x-ndjson"));
    assert_eq!(asked[0].body, b"{\"a\":1}\n[2]\n");
    assert_eq!(asked[1].body, b"3\n");
}

#[test]
fn raw_lines_are_sent_as_a_frame() {
    let node = FakeNode::answering(vec![accepted(2)]);
    let run = send(&node, "not json\nat all\n", &["--lines"]);
    assert_eq!(run.code, 0, "{run:?}");
    let asked = node.asked();
    assert_eq!(asked[0].header("content-type"), Some("application/vnd.sluicebox.frame"));
    assert!(asked[0].body.starts_with(b"SBXF"));
}

#[test]
fn refused_lines_are_named_by_their_number_in_the_input() {
    let body = r#"{"accepted":1,"rejected":1,"errors":[{"line":2,"code":"ingest.json","message":"not JSON"}]}"#;
    let node = FakeNode::answering(vec![Answer(202, vec![], body.to_owned())]);
    let run = send(&node, "1\n\n{\n", &[]);
    assert_eq!(run.code, 65);
    assert!(run.out.contains("1 accepted") && run.out.contains("1 refused"), "{}", run.out);
    assert!(run.err.contains("  - line 3: not JSON"), "{}", run.err);
}

#[test]
fn a_request_in_which_nothing_was_good_does_not_stop_the_others() {
    let body = r#"{"code":"ingest.rejected","detail":"no event was accepted","rejected":1,
                   "errors":[{"line":1,"code":"ingest.json","message":"not JSON"}]}"#;
    let node =
        FakeNode::answering(vec![accepted(1), Answer(400, vec![], body.to_owned()), accepted(1)]);
    let run = send(&node, "1\n{\n3\n", &["--batch", "1", "--output", "json"]);
    assert_eq!(run.code, 65);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((report["accepted"].as_u64(), report["rejected"].as_u64()), (Some(2), Some(1)));
    assert_eq!(report["errors"][0]["place"], "line 2");
}

#[test]
fn a_busy_node_is_asked_again_after_the_time_it_names() {
    let busy = || Answer(429, vec![("retry-after", "1")], r#"{"code":"pipeline.busy"}"#.to_owned());
    let node = FakeNode::answering(vec![busy(), accepted(1)]);
    let start = Instant::now();
    let run = send(&node, "1\n", &[]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(run.out.contains("1 requests sent again"), "{}", run.out);
    let asked = node.asked();
    assert_eq!(asked[0].body, asked[1].body);
}

#[test]
fn patience_ends() {
    let busy = || Answer(429, vec![("retry-after", "9")], r#"{"code":"pipeline.busy"}"#.to_owned());
    let node = FakeNode::answering(vec![accepted(1), busy()]);
    let run = send(&node, "1\n2\n", &["--batch", "1", "--patience", "2s"]);
    assert_eq!(run.code, 75);
    assert!(run.err.contains("accepted before: 1"), "{}", run.err);
}

#[test]
fn text_sent_by_mistake_is_not_sent_at_all() {
    let node = FakeNode::answering(vec![]);
    let run = send(&node, "GNU GENERAL PUBLIC LICENSE\n", &[]);
    assert_eq!(run.code, 64);
    assert!(run.err.contains("add --lines"), "{}", run.err);
    assert!(node.asked().is_empty());
}

#[test]
fn a_rate_is_kept() {
    let node = FakeNode::answering(vec![accepted(1), accepted(1), accepted(1)]);
    let start = Instant::now();
    let run = send(&node, "1\n2\n3\n", &["--rate", "10/s"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn a_result_is_written_as_it_is() {
    let answer = Answer(200, vec![("content-type", "application/json")], "{\"n\":7}".to_owned());
    let node = FakeNode::answering(vec![answer]);
    let run = send(&node, "", &["--data", "x", "--id", "e1", "--end", "--wait", "5s"]);
    assert_eq!((run.code, run.out.as_str()), (0, "{\"n\":7}"), "{run:?}");
    let asked = node.asked();
    assert_eq!(asked[0].line, "POST /v1/tenants/dev/pipelines/wc/events?wait=5s HTTP/1.1");
    assert_eq!(asked[0].header("sluicebox-id"), Some("e1"));
    assert_eq!(asked[0].header("sluicebox-end"), Some("true"));
    assert_eq!(asked[0].body, b"x");
}

#[test]
fn an_output_is_followed_by_its_cursor_to_the_limit() {
    let node = FakeNode::answering(vec![
        page("{\"key\":\"a\",\"data\":1}\n{\"key\":\"b\",\"data\":2}\n", "c1"),
        page("", "c1"),
        page("{\"key\":\"c\",\"data\":3}\n", "c2"),
    ]);
    let run = tail(&node, &["--limit", "3"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let expected =
        "{\"key\":\"a\",\"data\":1}\n{\"key\":\"b\",\"data\":2}\n{\"key\":\"c\",\"data\":3}\n";
    assert_eq!(run.out, expected);
    let lines: Vec<String> = node.asked().into_iter().map(|asked| asked.line).collect();
    assert!(lines[0].contains("cursor=oldest&limit=3&wait="), "{lines:?}");
    assert!(lines[1].contains("cursor=c1&limit=1&wait="), "{lines:?}");
}

#[test]
fn dropped_records_are_told_and_reading_goes_on() {
    let gone = r#"{"code":"output.trimmed","detail":"gone","oldest":"o9"}"#;
    let node = FakeNode::answering(vec![
        Answer(410, vec![], gone.to_owned()),
        page("{\"key\":\"a\",\"data\":1}\n", "c1"),
    ]);
    let run = tail(&node, &["--from", "c0", "--limit", "1"]);
    assert_eq!(run.code, 0);
    assert!(run.err.starts_with("warning: records were dropped"), "{}", run.err);
    assert!(node.asked()[1].line.contains("cursor=o9&"));
}

#[test]
fn nothing_more_ends_a_reading_that_does_not_follow() {
    let node = FakeNode::answering(vec![page("{\"data\":1}\n", "c1"), page("", "c1")]);
    let run = tail(&node, &["--no-follow", "--output", "text"]);
    assert_eq!((run.code, run.out.as_str()), (0, "  1\n"), "{run:?}");
    assert!(!node.asked()[0].line.contains("wait="));
}

#[test]
fn pushing_what_is_there_already_says_so() {
    let info =
        || Answer(200, vec![], r#"{"name":"split","digest":"sha256:ab","bytes":4}"#.to_owned());
    let node = FakeNode::answering(vec![info(), info()]);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("split.wasm"), b"\0asm").unwrap();
    let run = run(sluicebox(directory.path(), &["push", "split.wasm", "--url", &node.url]), b"");
    assert_eq!(
        (run.code, run.out.as_str()),
        (0, "unchanged: component split (4 bytes, sha256:ab)\n")
    );
    let asked = node.asked();
    assert_eq!(asked[1].line, "PUT /v1/tenants/dev/components/split HTTP/1.1");
    assert_eq!(asked[1].header("content-type"), Some("application/wasm"));
    assert_eq!(asked[1].body, b"\0asm");
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = sluicebox(directory.path(), &["sample", "host", "--interval", "10ms"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    if std::path::Path::new("/proc/stat").exists() {
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn samples_are_lines_a_pipeline_takes() {
    if !std::path::Path::new("/proc/stat").exists() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["sample", "host", "--interval", "20ms", "--count", "2"];
    let run = run(sluicebox(directory.path(), &arguments), b"");
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for line in run.out.lines() {
        let reading: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(reading["series"].is_string() && reading["value"].is_number(), "{line}");
    }
    assert!(run.out.contains("memory.used") && run.out.contains("cpu.user"));
}
