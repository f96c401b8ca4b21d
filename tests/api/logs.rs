//! What stages say is read by who owns the pipeline, from a cursor on, and bounded.

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};

use super::{OBEYS, with};

/// The texts of a page, and where to go on.
async fn page(client: &Client, pipeline: &str, query: &str) -> (Vec<String>, String) {
    let reply = client.get(&format!("pipelines/{pipeline}/logs?{query}")).await.is(200);
    let text = |line: &Value| line["text"].as_str().expect("a text").to_owned();
    (reply.records().iter().map(text).collect(), reply.cursor())
}

#[tokio::test]
async fn what_a_stage_says_is_read_on_from_a_cursor() {
    let (_node, client) = with("says", OBEYS, "").await;
    let (nothing, start) = page(&client, "says", "cursor=oldest").await;
    assert_eq!(nothing, [""; 0]);
    let given = [&b"l\x01first"[..], b"l\x03second", b"tno"].map(|text| Given::new("k", text));
    client.frame("says", &frame(&given)).await.is(202);
    let path = format!("pipelines/says/logs?cursor={start}");
    // Between the lines and the trap is what the guest writes to its standard error as it panics.
    let lines = eventually("both lines and the trap are there", SOON, || async {
        let lines = client.get(&path).await.records();
        let is_last = |line: &Value| line["text"].as_str().is_some_and(|it| it.contains("trap"));
        (lines.len() > 2 && lines.last().is_some_and(is_last)).then_some(lines)
    })
    .await;
    let line = &lines[0];
    assert_eq!((&line["stage"], &line["level"]), (&"stage-0".into(), &"info".into()), "{line}");
    assert!(line["time"].as_str().expect("a time").ends_with('Z') && line["partition"].is_u64());
    assert_eq!([&lines[0]["text"], &lines[1]["text"]], ["first", "second"]);
    let last = lines.last().expect("a line");
    assert_eq!(last["level"], "error", "{last}");
    assert!(last["text"].as_str().expect("a text").contains("unreachable"), "{last}");

    let (one, cursor) = page(&client, "says", "limit=1").await;
    assert_eq!(one, ["first"]);
    let (rest, end) = page(&client, "says", &format!("cursor={cursor}&level=error")).await;
    assert_eq!(
        (rest[0].as_str(), rest.last()),
        ("second", last["text"].as_str().map(str::to_owned).as_ref())
    );
    let (none, _) = page(&client, "says", "stage=other").await;
    assert_eq!(none, [""; 0]);

    // Who waits gets what comes, and not what was not asked for.
    let waiting = format!("cursor={end}&wait=20s&level=warn");
    let later = async {
        let given = [&b"l\x00quiet"[..], b"l\x02third"].map(|text| Given::new("k", text));
        client.frame("says", &frame(&given)).await.is(202);
    };
    let ((came, _), ()) = tokio::join!(page(&client, "says", &waiting), later);
    assert_eq!(came, ["third"]);
}

#[tokio::test]
async fn the_oldest_lines_go_and_a_reader_is_told() {
    let (_node, client) = with("chatty", OBEYS, "").await;
    let (_, start) = page(&client, "chatty", "").await;
    let long = [b"l\x01".as_slice(), &[b'x'; 4_000]].concat();
    let given = [(); 100].map(|()| Given::new("k", long.clone()));
    client.frame("chatty", &frame(&given)).await.is(202);
    let reply = eventually("some were dropped", SOON, || async {
        let reply = client.get(&format!("pipelines/chatty/logs?cursor={start}")).await.is(200);
        (reply.header("sluicebox-missed").is_some()).then_some(reply)
    })
    .await;
    let kept: usize = reply.records().len();
    assert!((32..=66).contains(&kept), "{kept} lines of 4 KB");
}

#[tokio::test]
async fn a_wrong_question_says_what_is_known() {
    let (_node, client) = with("asked", OBEYS, "").await;
    for (query, code, part) in [
        ("cursor=x", "output.cursor", "latest"),
        ("level=loud", "request.query", "warn"),
        ("limit=0", "request.query", "10000"),
        ("lines=3", "request.query", "`stage`"),
    ] {
        let reply = client.get(&format!("pipelines/asked/logs?{query}")).await;
        let problem = reply.problem(400, code);
        assert!(problem["detail"].as_str().expect("a text").contains(part), "{problem}");
    }
    client.get("pipelines/other/logs").await.problem(404, "pipeline.unknown");
    client.put("pipelines/asked/logs", "").await.problem(405, "request.method");
}
