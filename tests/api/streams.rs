//! Streams of pipelines without a log, of which there are more than may have an instance.
//!
//! - What each says follows from all its events, so it shows whether its memory was kept.

use std::collections::BTreeMap;

use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::node::Setup;
use sluicebox_tests::stream_memory::{GUEST, last_words, texts, told};

use super::NODE;

/// A pipeline of one stream function. `more` is said of the stage.
fn manifest(name: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"best-effort\"\npartitions = 1\n\
         [ingest]\nto = [\"fold\"]\n\
         [stages.fold]\ncomponent = \"{GUEST}\"\nscope = \"stream\"\n{more}\n\
         [outputs.out]\nfrom = \"fold\"\n"
    )
}

async fn send(client: &Client, pipeline: &str, key: &str, text: &str) {
    client.send(pipeline, &format!("?key={key}"), &[], text.to_owned()).await.is(202);
}

/// What came out, by key.
async fn said(client: &Client, pipeline: &str) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let told = client
        .events(pipeline, "outputs/out", |event| {
            (event.key_str().to_owned(), String::from_utf8_lossy(event.payload).into_owned())
        })
        .await;
    for (key, text) in told {
        all.entry(key).or_default().push(text);
    }
    all
}

async fn says(client: &Client, pipeline: &str, key: &str, expected: &[String]) {
    let look = || async { said(client, pipeline).await.remove(key).unwrap_or_default() };
    eventually_equal(expected.to_vec(), SOON, look).await;
}

/// Messages of the dead letters there are.
async fn dead(client: &Client, pipeline: &str) -> Vec<String> {
    let page = client.page(pipeline, "dead-letters", "cursor=oldest").await.is(200);
    page.records().iter().map(ToString::to_string).collect()
}

async fn live(client: &Client, pipeline: &str) -> i64 {
    client.describe(pipeline).await["stage"][0]["instances"].as_i64().expect("a number")
}

/// Rounds of events, one of each key in a request.
async fn rounds(client: &Client, pipeline: &str, keys: usize) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut sent: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for round in 0..5 {
        let event = |at: usize| {
            let key = format!("k{}", (at * 7 + round * 11) % keys);
            let text = format!("{key} {round} {}", "x".repeat(at * 50));
            sent.entry(key.clone()).or_default().push(text.clone().into_bytes());
            Given::new(&key, text)
        };
        let given: Vec<Given> = (0..keys).map(event).collect();
        client.frame(pipeline, &frame(&given)).await.is(202);
    }
    sent
}

#[tokio::test]
async fn more_streams_than_instances_go_on_where_they_were() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(GUEST).await;
    let few = "limits = { instances = 4 }";
    client.apply("crowd", manifest("crowd", few)).await;
    let sent = rounds(&client, "crowd", 64).await;
    for (key, payloads) in &sent {
        says(&client, "crowd", key, &told(payloads)).await;
    }
    assert_eq!(client.describe("crowd").await["partition"][0]["open-streams"], 64);
    let live = live(&client, "crowd").await;
    assert!(live <= 4, "{live} instances");
    let metrics = client.plain("/metrics").await.is(200).text().to_owned();
    let mut away = metrics.lines().filter(|line| line.contains("stage_streams_put_away{"));
    assert!(away.any(|line| line.ends_with(&format!(" {}", 64 - live))), "{metrics}");
    for (key, payloads) in &sent {
        let end = [("sluicebox-key", key.as_str()), ("sluicebox-end", "true")];
        client.send("crowd", "", &end, "").await.is(202);
        let all = [told(payloads), vec![last_words(payloads)]].concat();
        says(&client, "crowd", key, &all).await;
    }
    assert_eq!(dead(&client, "crowd").await, Vec::<String>::new());
}

/// Forty streams on a node that has not as much as they would take together.
async fn all_go_on(setup: Setup) {
    let node = setup.start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("crowd", manifest("crowd", "")).await;
    for (key, payloads) in rounds(&client, "crowd", 40).await {
        says(&client, "crowd", &key, &told(&payloads)).await;
    }
    assert_eq!(dead(&client, "crowd").await, Vec::<String>::new());
}

#[tokio::test]
async fn more_streams_than_the_node_has_instances_go_on_where_they_were() {
    all_go_on(Setup::dev().set("engine.instances", "8")).await;
}

#[tokio::test]
async fn more_streams_than_fit_into_the_quota_of_memory_go_on_where_they_were() {
    // An instance has more than a megabyte.
    all_go_on(Setup::dev().set("quota.memory-bytes", "16MiB")).await;
}

#[tokio::test]
async fn streams_of_idle_pipelines_make_way_on_every_worker() {
    let node = Setup::dev().set("engine.instances", "8").set("node.workers", "3").start().await;
    let client = node.client();
    client.push(GUEST).await;
    let names = ["one", "two", "three", "four", "five", "six"];
    // One of them has all that a tenant may; the others lie on its worker and on others.
    let streams = names.map(|name| (name, if name == "one" { "abcdef" } else { "a" }));
    for (name, keys) in streams {
        client.apply(name, manifest(name, "")).await;
        for key in keys.chars().map(String::from) {
            send(&client, name, &key, "first").await;
            says(&client, name, &key, &told(&texts(&["first"]))).await;
        }
    }
    for (name, keys) in streams {
        for key in keys.chars().map(String::from) {
            send(&client, name, &key, "second").await;
            says(&client, name, &key, &told(&texts(&["first", "second"]))).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_cannot_have_an_instance_says_why_and_holds_up_nobody() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("full", manifest("full", "limits = { instances = 2 }")).await;
    // What has printed has no image.
    for key in ["a", "b"] {
        send(&client, "full", key, "print").await;
    }
    send(&client, "full", "c", "one").await;
    let letter = eventually("there is a dead letter", SOON, || async {
        let dead = dead(&client, "full").await;
        dead.iter().find(|letter| letter.contains("limits.instances")).cloned()
    })
    .await;
    assert!(letter.contains("stream.lost") && letter.contains("handles"), "{letter}");
    for key in ["a", "b"] {
        send(&client, "full", key, "two").await;
        says(&client, "full", key, &told(&texts(&["print", "two"]))).await;
    }
    let end = [("sluicebox-key", "a"), ("sluicebox-end", "true")];
    client.send("full", "", &end, "").await.is(202);
    // There is a place for it now.
    send(&client, "full", "c", "two").await;
    says(&client, "full", "c", &told(&texts(&["two"]))).await;
}

#[tokio::test]
async fn streams_that_cannot_be_put_away_do_not_keep_others_waiting_for_ever() {
    let node = Setup::dev().set("engine.instances", "2").start().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("full", manifest("full", "")).await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        send(&client, "full", key, "print").await;
    }
    let letter =
        eventually("there is a dead letter", SOON, || async { dead(&client, "full").await.pop() })
            .await;
    assert!(letter.contains("engine.instances"), "{letter}");
    send(&client, "full", "a", "two").await;
    says(&client, "full", "a", &told(&texts(&["print", "two"]))).await;
}

#[tokio::test]
async fn a_tenant_that_is_short_of_its_own_share_takes_nothing_from_others() {
    let setup = Setup::tenants(&["ann", "bob"]).set("engine.instances", "8");
    let node = setup.set("node.workers", "1").start().await;
    let (ann, bob) = (node.tenant("ann"), node.tenant("bob"));
    for client in [&ann, &bob] {
        client.push(GUEST).await;
    }
    // Instances that can be made again, and of which nobody asks for the place.
    bob.apply("kept", manifest("kept", "").replace("best-effort", "exactly-once")).await;
    send(&bob, "kept", "a", "one").await;
    says(&bob, "kept", "a", &told(&texts(&["one"]))).await;
    ann.apply("full", manifest("full", "")).await;
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        send(&ann, "full", key, "print").await;
    }
    eventually("there is a dead letter", SOON, || async { dead(&ann, "full").await.pop() }).await;
    assert_eq!(live(&bob, "kept").await, 1);
}

#[tokio::test]
async fn streams_that_are_over_with_a_halt_say_so() {
    let node = NODE.lend().await;
    let client = node.client();
    client.push(GUEST).await;
    client.apply("halted", manifest("halted", "on-failure = \"halt\"")).await;
    // What the batch of the halt has is no stream yet.
    for key in ["a", "b"] {
        send(&client, "halted", key, "one").await;
        says(&client, "halted", key, &told(&texts(&["one"]))).await;
    }
    send(&client, "halted", "c", "trap").await;
    eventually("it halts", SOON, || async {
        (client.describe("halted").await["state"] == "halted").then_some(())
    })
    .await;
    send(&client, "halted", "a", "two").await;
    client.apply("halted", manifest("halted", "")).await;
    let all = [told(&texts(&["one"])), told(&texts(&["two"]))].concat();
    says(&client, "halted", "a", &all).await;
    let letters = eventually("each has its dead letter", SOON, || async {
        let dead = dead(&client, "halted").await;
        let over = dead.into_iter().filter(|letter| letter.contains("partition halted"));
        let over: Vec<String> = over.collect();
        (over.len() == 2).then_some(over)
    })
    .await;
    assert!(letters.iter().all(|letter| letter.contains("stream.lost")), "{letters:?}");
}
