//! Results and dead letters: read by cursor, waited for, trimmed.

use serde_json::{Value, json};
use sluicebox_tests::client::payload;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::manifest::single;

use super::{ECHO, NODE, OBEYS, with};

const REPLY: &str = "outputs/reply";

fn data(records: &[Value]) -> Vec<Value> {
    records.iter().map(|record| record["data"].clone()).collect()
}

#[tokio::test]
async fn a_reader_goes_on_where_its_cursor_says() {
    let (_node, client) = with("cursors", ECHO, "").await;
    client.lines("cursors", "1\n2\n3\n4\n5\n").await.is(202);
    client.records("cursors", REPLY, 5).await;
    let first = client.page("cursors", REPLY, "limit=2").await.is(200);
    assert_eq!(first.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(data(&first.records()), [1, 2]);
    let offsets: Vec<Value> = first.records().iter().map(|r| r["offset"].clone()).collect();
    assert_eq!(offsets, [0, 1]);
    let next = format!("cursor={}&limit=2", first.cursor());
    let second = client.page("cursors", REPLY, &next).await.is(200);
    assert_eq!(data(&second.records()), [3, 4]);
    let again = client.page("cursors", REPLY, &next).await.is(200);
    assert_eq!(again.records(), second.records(), "reading takes nothing away");
    let third = client.page("cursors", REPLY, &format!("cursor={}", second.cursor())).await;
    assert_eq!(data(&third.records()), [5]);
    let empty = client.page("cursors", REPLY, &format!("cursor={}", third.cursor())).await.is(200);
    assert_eq!((empty.text(), empty.cursor()), ("", third.cursor()));
    assert_eq!(client.page("cursors", REPLY, "cursor=latest").await.is(200).text(), "");
    for query in ["limit=0", "limit=many", "wait=2h", "cursr=x"] {
        client.page("cursors", REPLY, query).await.problem(400, "request.query");
    }
}

#[tokio::test]
async fn a_reader_may_wait_for_what_is_to_come() {
    let (_node, client) = with("long-poll", ECHO, "").await;
    let quiet = client.page("long-poll", REPLY, "wait=100ms").await.is(200);
    assert_eq!(quiet.text(), "");
    let query = format!("cursor={}&wait=30s", quiet.cursor());
    let (page, sent) =
        tokio::join!(client.page("long-poll", REPLY, &query), client.lines("long-poll", "\"x\"\n"));
    sent.is(202);
    assert_eq!(data(&page.is(200).records()), ["x"]);
}

#[tokio::test]
async fn what_was_trimmed_is_gone_and_the_reader_told_where_to_go_on() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(ECHO).await;
    let text = single("trimmed-soon", "echo", "");
    let text = text.replace("[outputs.reply]", "[outputs.reply]\nretain-bytes = \"64KiB\"");
    client.apply("trimmed-soon", text).await;
    let event = |n: u8| [&[n][..], &[b'x'; 20_000]].concat();
    client.call("trimmed-soon", "k", event(0)).await.is(200);
    let start = client.page("trimmed-soon", REPLY, "").await.is(200);
    assert_eq!(start.records().len(), 1);
    for n in 1..8 {
        client.call("trimmed-soon", "k", event(n)).await.is(200);
    }
    let gone = client.page("trimmed-soon", REPLY, &format!("cursor={}", start.cursor())).await;
    let problem = gone.problem(410, "output.trimmed");
    let oldest = problem["oldest"].as_str().expect("a cursor");
    let kept = client.page("trimmed-soon", REPLY, &format!("cursor={oldest}")).await.is(200);
    let kept: Vec<u8> = kept.records().iter().map(|record| payload(record)[0]).collect();
    assert!(kept.ends_with(&[6, 7]) && kept.len() < 7, "{kept:?}");
    let output = &client.describe("trimmed-soon").await["output"][0];
    assert_eq!(output["dropped"], json!(8 - kept.len()), "{output}");
}

#[tokio::test]
async fn a_cursor_that_is_not_of_this_output_is_refused() {
    let (_node, client) = with("cursed", ECHO, "").await;
    for text in ["!", "AAAA", "1", &"A".repeat(10_000)] {
        let reply = client.page("cursed", REPLY, &format!("cursor={text}")).await;
        reply.problem(400, "output.cursor");
    }
    client.lines("cursed", "1\n").await.is(202);
    client.records("cursed", REPLY, 1).await;
    let behind = client.page("cursed", REPLY, "").await.cursor();
    // The same name is another output once the pipeline was deleted.
    client.delete("pipelines/cursed").await.is(204);
    client.apply("cursed", single("cursed", "echo", "")).await;
    let reply = client.page("cursed", REPLY, &format!("cursor={behind}")).await;
    let problem = reply.problem(410, "output.trimmed");
    let oldest = problem["oldest"].as_str().expect("a cursor");
    client.page("cursed", REPLY, &format!("cursor={oldest}")).await.is(200);
}

#[tokio::test]
async fn dead_letters_say_where_why_and_what() {
    let (_node, client) = with("dead", OBEYS, "retries = 1").await;
    let given = ["ea", "xno good", "rlater", "t", "eb"].map(|text| Given::new("k", text));
    client.frame("dead", &frame(&given)).await.is(202);
    let records = client.records("dead", "dead-letters", 3).await;
    let row = |record: &Value| {
        let payload = String::from_utf8(payload(record)).expect("as it was sent");
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        (payload, text("key"), text("stage"), text("class"), text("message"))
    };
    let mut found: Vec<_> = records.iter().map(row).collect();
    let trap = found.iter().position(|row| row.3 == "trap").expect("one trapped");
    let trapped = found.remove(trap);
    assert_eq!((trapped.0.as_str(), trapped.2.as_str()), ("t", "stage-0"));
    assert!(trapped.4.contains("unreachable"), "{trapped:?}");
    let owned = |row: [&str; 5]| {
        let [a, b, c, d, e] = row.map(str::to_owned);
        (a, b, c, d, e)
    };
    let expected = [
        owned(["xno good", "k", "stage-0", "reject", "no good"]),
        owned(["rlater", "k", "stage-0", "retry", "later"]),
    ];
    assert_eq!(found, expected);
    let good = client.records("dead", REPLY, 2).await;
    assert_eq!(good.iter().map(payload).collect::<Vec<_>>(), [b"a", b"b"]);
    let stage = &client.describe("dead").await["stage"][0];
    assert_eq!((&stage["dead-letters"], &stage["events-out"]), (&json!(3), &json!(2)), "{stage}");
}
