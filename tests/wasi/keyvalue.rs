//! `wasi:keyvalue`: buckets as part of a stage's keyed state.

use sluicebox_tests::client::payload;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{BUCKETS, WASI, say, with};

fn keyed(more: &str) -> String {
    format!("scope = \"key\"\n{BUCKETS}\n{more}")
}

#[tokio::test]
async fn a_component_that_opens_buckets_needs_the_grant() {
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push(WASI).await;
    let reply = client.put("pipelines/wasi", single(WASI, WASI, "")).await;
    let problem = reply.problem(400, "manifest.invalid");
    assert_eq!(problem["problems"][0]["field"], "stages.stage-0.grants.keyvalue");
    assert_eq!(problem["problems"][0]["code"], "pipeline.no-grant");
    // A bucket without a name is none.
    let empty = single(WASI, WASI, "grants = { keyvalue = { buckets = [] } }");
    let problem = client.put("pipelines/wasi", empty).await.problem(400, "manifest.invalid");
    assert_eq!(problem["problems"][0]["field"], "stages.stage-0.grants.keyvalue.buckets");
}

#[tokio::test]
async fn a_bucket_is_what_the_key_of_the_event_keeps() {
    let (_node, client) = with(&keyed("")).await;
    for (key, command, answer) in [
        ("a", "get counts x", "none"),
        ("a", "set counts x 1", "done"),
        ("a", "get counts x", "1"),
        ("a", "exists counts x", "true"),
        // Neither another bucket nor another key has it, nor is any other bucket there.
        ("a", "get seen x", "none"),
        ("b", "get counts x", "none"),
        ("a", "get others x", "no-such-store"),
        ("a", "get counts/b x", "access-denied"),
        ("a", "get counts/a x", "1"),
        ("a", "delete counts x", "done"),
        ("a", "delete counts x", "done"),
        ("a", "get counts x", "none"),
        ("a", "add counts n 2", "2"),
        ("a", "add counts n -5", "-3"),
        ("b", "add-unsigned counts n 7", "7"),
        (
            "b",
            "add-unsigned counts n 18446744073709551610",
            "other: the counter has no room for that",
        ),
        ("b", "set counts n text", "done"),
        ("b", "add counts n 1", "other: the value has 4 bytes, a counter has 8"),
        ("b", "swap counts s 1", "done"),
        ("b", "swap-late counts s 2", "failed, then done"),
        ("b", "get counts s", "2"),
    ] {
        assert_eq!(say(&client, key, command).await, answer, "{key}: {command}");
    }
}

#[tokio::test]
async fn where_a_call_has_many_keys_a_bucket_says_which() {
    let (_node, client) = with(BUCKETS).await;
    let refused = say(&client, "a", "get counts x").await;
    assert!(refused.starts_with("other: ") && refused.contains("counts/KEY"), "{refused}");
    let one = |key: &str, command: &str| Given::new(key, command);
    let events = [
        one("a", "add counts/a n 1"),
        one("b", "add counts/b n 10"),
        one("a", "add counts/a n 2"),
        // Of the same call, and so within reach.
        one("a", "get counts/b s"),
    ];
    client.frame(WASI, &frame(&events)).await.is(202);
    let answers = client.records(WASI, "outputs/reply", 5).await;
    let texts = answers[1..].iter().map(|record| String::from_utf8(payload(record)));
    let texts: Vec<String> = texts.map(|text| text.expect("a text")).collect();
    assert_eq!(texts, ["1", "10", "3", "none"]);
}

#[tokio::test]
async fn what_a_failed_event_wrote_is_taken_back() {
    let (_node, client) = with(&keyed("retries = 0")).await;
    say(&client, "a", "set counts x before").await;
    client.send(WASI, "", &[("sluicebox-key", "a")], "fail counts x after").await.is(202);
    let dead = client.records(WASI, "dead-letters", 1).await;
    assert!(dead[0].to_string().contains("told to, after Some(\\\"done\\\")"), "{dead:?}");
    assert_eq!(say(&client, "a", "get counts x").await, "before");
}

#[tokio::test]
async fn all_keys_are_listed_page_by_page() {
    let (_node, client) = with(&keyed("")).await;
    assert_eq!(say(&client, "a", "list counts").await, "1 0 none none");
    assert_eq!(say(&client, "a", "fill counts 1000 10").await, "filled 1000");
    say(&client, "a", "set seen other 1").await;
    assert_eq!(say(&client, "a", "list counts").await, "4 1000 k000000 k000999");
    assert_eq!(say(&client, "a", "list-numbered counts").await, "4 1000 k000000 k000999");
    let stale = say(&client, "a", "list-stale counts").await;
    assert!(stale.starts_with("other: only the cursor"), "{stale}");
    // What is deleted between two pages does not make the next one skip anything.
    assert_eq!(say(&client, "a", "drain counts").await, "drained 1000");
    assert_eq!(say(&client, "a", "list counts").await, "1 0 none none");
    assert_eq!(say(&client, "a", "list seen").await, "1 1 other other");
}

#[tokio::test]
async fn a_handle_reaches_its_key_only_while_a_call_has_it() {
    let (_node, client) = with(BUCKETS).await;
    say(&client, "a", "set counts/a x secret").await;
    assert_eq!(say(&client, "a", "keep counts/a").await, "done");
    assert_eq!(say(&client, "a", "kept x").await, "secret");
    // The same instance with an event of another key.
    assert_eq!(say(&client, "b", "kept x").await, "access-denied");
    assert_eq!(say(&client, "a", "kept x").await, "secret");
}

#[tokio::test]
async fn what_is_too_much_is_an_answer_and_hurts_nobody() {
    let (_node, client) = with(&keyed("limits = { state-bytes = \"1MiB\" }")).await;
    for (command, begin) in [
        ("long counts 57", "done"),
        ("long counts 58", "other: a key of the bucket counts has at most 57 bytes"),
        ("fill counts 4 1000000", "other: the key's state would have"),
        ("set counts big x", "done"),
        ("fill counts 1 1000000", "filled 1"),
        ("many counts k000000 4", "many 4000000"),
        ("many counts k000000 5", "other: the values have more than"),
        ("many counts k000000 1001", "other: at most 1000 keys at once"),
        ("open counts 10000", "other: an instance holds at most"),
    ] {
        let answer = say(&client, "a", command).await;
        assert!(answer.starts_with(begin), "{command}: {answer}");
    }
    // The handles were the instance's of that key.
    assert_eq!(say(&client, "b", "set counts x 1").await, "done");
}

#[tokio::test]
async fn a_bucket_goes_over_to_another_version() {
    let (_node, client) = with(&keyed("")).await;
    assert_eq!(say(&client, "a", "add counts n 1").await, "1");
    client.apply(WASI, single(WASI, WASI, &keyed("retries = 1"))).await;
    eventually("the version runs", SOON, || async {
        (client.describe(WASI).await["version"] == 2).then_some(())
    })
    .await;
    assert_eq!(say(&client, "a", "add counts n 1").await, "2");
    // A bucket that is not named any more is not there any more.
    let fewer = "scope = \"key\"\ngrants = { keyvalue = { buckets = [\"seen\"] } }";
    client.apply(WASI, single(WASI, WASI, fewer)).await;
    assert_eq!(say(&client, "a", "get counts n").await, "no-such-store");
}
