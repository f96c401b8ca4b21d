//! `stream` against a door that behaves well, breaks off, and refuses.

use std::process::Command;

use super::support::command::{Run, run, sluicebox};
use super::support::door::{Door, Step};

const PATH: &str = "/v1/tenants/dev/pipelines/p/streams/k";

fn stream(url: &str, input: &[u8], arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<&str> =
        ["stream", "p", "k", "--url", url].iter().chain(arguments).copied().collect();
    run(sluicebox(directory.path(), &all), input)
}

fn says(line: &str) -> Step {
    Step::Says(format!("{line}\n"))
}

fn taken(ordinal: u64) -> Step {
    says(&format!("{{\"taken\":{ordinal}}}"))
}

fn ended(at: u64) -> Step {
    says(&format!("{{\"ended\":{{\"at\":{at},\"cursor\":\"E\"}}}}"))
}

fn result(data: &str, cursor: &str) -> String {
    format!("{{\"key\":\"k\",\"data\":{data},\"cursor\":\"{cursor}\"}}")
}

fn stands_at(at: u64) -> Vec<Step> {
    vec![Step::Answers(200, format!("{{\"key\":\"k\",\"at\":{at},\"ended\":false}}"))]
}

fn suspended(status: u16, code: &str) -> Step {
    says(&format!(
        "{{\"suspended\":{{\"status\":{status},\"code\":\"{code}\",\"detail\":\"so\",\"at\":0}}}}"
    ))
}

#[test]
fn lines_go_in_and_results_come_out() {
    let first = result("1", "C1");
    let door = Door::playing(vec![vec![
        Step::Opens(0, "C0"),
        Step::Takes(4),
        says(""),
        taken(1),
        says(&first),
        Step::TakesAll,
        says(&result("{\"b\":[2]}", "C2")),
        taken(2),
        ended(2),
        Step::Closes,
    ]]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("in.ndjson"), "1\n\n[2]").unwrap();
    let arguments = ["stream", "p", "a key/1", "in.ndjson", "--url", &door.url, "--results", "o"];
    let run = run(sluicebox(directory.path(), &arguments), b"");
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    assert_eq!(run.out, format!("{first}\n{}\n", result("{\"b\":[2]}", "C2")));
    let heard = &door.heard()[0];
    let line = "POST /v1/tenants/dev/pipelines/p/streams/a%20key%2F1?output=o HTTP/1.1";
    assert_eq!(heard.line, line);
    assert_eq!(heard.header("content-type"), Some("application/x-ndjson"));
    assert_eq!((heard.body.as_slice(), heard.ended), (&b"1\n[2]\n"[..], true));
}

#[test]
fn a_broken_connection_goes_on_where_the_node_is_and_writes_nothing_twice() {
    let door = Door::playing(vec![
        vec![
            Step::Opens(5, "C0"),
            Step::TakesAll,
            taken(6),
            says(&result("1", "C1")),
            // Half a line is none.
            Step::Says(result("2", "C2")[..20].to_owned()),
        ],
        // One more was taken than was said.
        stands_at(7),
        vec![
            Step::Opens(7, "C9"),
            Step::Takes(2),
            says(&result("2", "C2")),
            says(&result("3", "C3")),
            Step::TakesAll,
            ended(8),
            Step::Closes,
        ],
    ]);
    let run = stream(&door.url, b"1\n2\n3\n", &["--raw"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (0, "1\n2\n3\n", ""));
    let heard = door.heard();
    assert_eq!(heard[0].line, format!("POST {PATH} HTTP/1.1"));
    assert_eq!(heard[1].line, format!("GET {PATH} HTTP/1.1"));
    assert_eq!(heard[2].line, format!("POST {PATH}?from=7&cursor=C1 HTTP/1.1"));
    assert_eq!((heard[2].body.as_slice(), heard[2].ended), (&b"3\n"[..], true));
}

#[test]
fn an_end_that_was_not_heard_is_made_again() {
    let door = Door::playing(vec![
        vec![Step::Opens(0, "C0"), Step::TakesAll, taken(2)],
        stands_at(2),
        vec![
            Step::Opens(2, "C0"),
            Step::TakesAll,
            says(&result("7", "C1")),
            ended(2),
            Step::Closes,
        ],
    ]);
    let run = stream(&door.url, b"1\n2\n", &["--raw"]);
    assert_eq!((run.code, run.out.as_str()), (0, "7\n"), "{run:?}");
    let heard = door.heard();
    assert_eq!(heard[2].line, format!("POST {PATH}?from=2&cursor=C0 HTTP/1.1"));
    assert!(heard[2].body.is_empty() && heard[2].ended);
}

#[test]
fn a_node_that_has_no_room_is_asked_again_and_one_that_has_another_session_is_not() {
    let door = Door::playing(vec![
        vec![Step::Answers(429, "{\"code\":\"pipeline.busy\"}".to_owned())],
        vec![Step::Opens(0, "C0"), suspended(503, "node.stopping"), Step::Closes],
        stands_at(0),
        vec![Step::Opens(0, "C0"), Step::TakesAll, suspended(409, "stream.taken"), Step::Closes],
    ]);
    let run = stream(&door.url, b"1\n", &[]);
    assert_eq!(run.code, 73, "{run:?}");
    let expected = "error: so; the stream k is left open with 0 units taken; to go on, give the \
                    same input with --from 0 --cursor C0 [stream.taken]\n";
    assert_eq!(run.err, expected);
    assert_eq!(door.heard().len(), 4);
}

#[test]
fn a_node_that_starts_again_and_knows_nothing_yet_is_waited_for() {
    let unknown = || vec![Step::Answers(404, "{\"code\":\"pipeline.unknown\"}".to_owned())];
    let door = Door::playing(vec![
        vec![Step::Opens(0, "C0"), Step::TakesAll],
        unknown(),
        stands_at(0),
        vec![Step::Opens(0, "C0"), Step::TakesAll, taken(1), ended(1), Step::Closes],
    ]);
    let run = stream(&door.url, b"1\n", &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    assert_eq!(door.heard().len(), 4);
    let door = Door::playing(vec![unknown()]);
    assert_eq!(stream(&door.url, b"1\n", &[]).code, 66);
    assert_eq!(door.heard().len(), 1);
}

#[test]
fn patience_with_a_node_that_stays_away_ends() {
    let door = Door::playing(vec![vec![Step::Opens(3, "C0"), Step::TakesAll, taken(4)]]);
    let run = stream(&door.url, b"1\n2\n", &["--patience", "1s"]);
    assert_eq!(run.code, 69, "{run:?}");
    assert!(run.err.contains("left open with 1 unit taken"), "{}", run.err);
    assert!(run.err.contains("--from 3 --cursor C0"), "{}", run.err);
    let nobody = stream("http://127.0.0.1:1", b"1\n", &[]);
    assert_eq!(nobody.code, 69);
    assert!(!nobody.err.contains("left open"), "{}", nobody.err);
}

#[test]
fn what_the_node_has_of_the_input_is_left_out() {
    let door = Door::playing(vec![
        stands_at(12),
        vec![Step::Opens(12, "C0"), Step::TakesAll, taken(13), ended(13), Step::Closes],
    ]);
    let run = stream(&door.url, b"1\n2\n3\n", &["--from", "10", "--cursor", "old"]);
    assert_eq!(run.code, 0, "{run:?}");
    let heard = door.heard();
    assert_eq!(heard[1].line, format!("POST {PATH}?from=12&cursor=old HTTP/1.1"));
    assert_eq!(heard[1].body, b"3\n");
}

#[test]
fn an_input_that_was_taken_with_more_behind_it_ends_no_stream() {
    let door = Door::playing(vec![stands_at(14)]);
    let run = stream(&door.url, b"1\n2\n3\n", &["--from", "10"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    assert_eq!(door.heard().len(), 1);
}

#[test]
fn a_stream_is_left_open_if_that_is_asked_for() {
    let door =
        Door::playing(vec![vec![Step::Opens(0, "C0"), Step::Takes(2), taken(1), Step::TakesAll]]);
    let run = stream(&door.url, b"1\n", &["--no-end"]);
    assert_eq!(run.code, 0, "{run:?}");
    let heard = door.heard();
    assert_eq!((heard[0].body.as_slice(), heard[0].ended), (&b"1\n"[..], false));
}

#[test]
fn results_that_were_dropped_are_told_and_the_stream_goes_on() {
    let gone = r#"{"code":"output.trimmed","detail":"gone","oldest":"O9"}"#;
    let door = Door::playing(vec![
        stands_at(0),
        vec![Step::Answers(410, gone.to_owned())],
        stands_at(0),
        vec![Step::Opens(0, "C0"), Step::TakesAll, taken(1), ended(1), Step::Closes],
    ]);
    let run = stream(&door.url, b"1\n", &["--from", "0", "--cursor", "C1"]);
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.err.starts_with("warning: results were dropped"), "{}", run.err);
    let heard = door.heard();
    assert_eq!(heard[3].line, format!("POST {PATH}?from=0&cursor=O9 HTTP/1.1"));
    assert_eq!((heard[3].body.as_slice(), heard[3].ended), (&b"1\n"[..], true));
}

#[test]
fn a_refused_unit_at_the_end_is_known_and_told_once() {
    let rejected = r#"{"rejected":{"at":1,"code":"ingest.json","message":"not JSON"}}"#;
    let door = Door::playing(vec![
        vec![Step::Opens(0, "C0"), Step::Takes(4), says(rejected)],
        stands_at(0),
        vec![Step::Opens(0, "C0"), Step::Takes(4), says(rejected), taken(1), Step::TakesAll],
    ]);
    let run = stream(&door.url, b"1\n{\n", &["--no-end"]);
    assert_eq!(run.code, 65, "{run:?}");
    assert!(run.err.contains("one unit was refused"), "{}", run.err);
    assert!(!door.heard()[2].ended);
}

#[test]
fn refused_units_are_listed_by_their_number_in_the_input() {
    let rejected = r#"{"rejected":{"at":11,"code":"ingest.json","message":"not JSON"}}"#;
    let door = Door::playing(vec![vec![
        Step::Opens(10, "C0"),
        Step::TakesAll,
        says(rejected),
        taken(13),
        ended(13),
        Step::Closes,
    ]]);
    let run = stream(&door.url, b"1\n{\n3\n", &[]);
    assert_eq!(run.code, 65, "{run:?}");
    assert!(run.err.contains("one unit was refused"), "{}", run.err);
    assert!(run.err.contains("  - unit 2: not JSON"), "{}", run.err);
}

#[test]
fn images_go_behind_their_length() {
    let image = b"\xFF\xD8\xFF\xDA\x00\x02pixels\xFF\xD9";
    let door = Door::playing(vec![vec![
        Step::Opens(0, "C0"),
        Step::TakesAll,
        taken(2),
        ended(2),
        Step::Closes,
    ]]);
    let run = stream(&door.url, &image.repeat(2), &["--jpeg", "--every", "50ms"]);
    assert_eq!(run.code, 0, "{run:?}");
    let heard = door.heard();
    assert_eq!(heard[0].line, format!("POST {PATH}?chunk=prefixed HTTP/1.1"));
    assert_eq!(heard[0].header("content-type"), Some("image/jpeg"));
    let unit = [&14_u32.to_le_bytes()[..], image].concat();
    assert_eq!(heard[0].body, unit.repeat(2));
}

#[test]
fn an_input_that_ends_within_a_unit_does_not_end_the_stream() {
    let door =
        Door::playing(vec![vec![Step::Opens(0, "C0"), Step::Takes(7), taken(1), Step::TakesAll]]);
    let run = stream(&door.url, b"\x03\0\0\0one\x05\0\0\0tw", &["--prefixed"]);
    assert_eq!(run.code, 64, "{run:?}");
    assert!(run.err.contains("unit 2 of the input is cut off"), "{}", run.err);
    assert!(run.err.contains("left open with 1 unit taken"), "{}", run.err);
    let heard = door.heard();
    assert_eq!((heard[0].body.as_slice(), heard[0].ended), (&b"\x03\0\0\0one"[..], false));
}

#[test]
fn what_can_never_go_in_is_said_at_once() {
    let gap = r#"{"code":"stream.gap","detail":"the key stands at 3"}"#;
    let door = Door::playing(vec![stands_at(3), vec![Step::Answers(409, gap.to_owned())]]);
    let run = stream(&door.url, b"1\n", &["--from", "9"]);
    assert_eq!(run.code, 73);
    assert_eq!(run.err, "error: the key stands at 3 [stream.gap]\n");
    drop(door);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("clip.mp4"), "x").unwrap();
    let run = self::run(sluicebox(directory.path(), &["stream", "p", "k", "clip.mp4"]), b"");
    assert_eq!(run.code, 2);
    assert!(run.err.contains("say --lines, --jpeg,"), "{}", run.err);
}

#[test]
fn ctrl_c_leaves_the_stream_open_and_says_so() {
    let door = Door::playing(vec![vec![
        Step::Opens(0, "C0"),
        Step::Takes(2),
        taken(1),
        says(&result("1", "C1")),
        Step::TakesAll,
    ]]);
    let directory = tempfile::tempdir().unwrap();
    let mut command = sluicebox(directory.path(), &["stream", "p", "k", "--url", &door.url]);
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"1\n").unwrap();
    // The result says that the stream is under way.
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!(line, format!("{}\n", result("1", "C1")));
    let pressed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(pressed.success());
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(130));
    let expected = "warning: the stream k is left open with 1 unit taken; to go on, give the same \
                    input with --from 0 --cursor C1\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    assert!(!door.heard()[0].ended);
}
