//! Webhooks: every result arrives, under a name that stays the same, whoever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Home, Setup};

use super::receiver::{Came, Receiver};
use super::{Dice, comes_to, echo, state};

fn sink(receiver: &Receiver, more: &str) -> String {
    echo(&format!(
        "[sinks.out]\nfrom = \"all\"\n[sinks.out.webhook]\nurl = \"{}\"\n{more}",
        receiver.url()
    ))
}

async fn send(client: &Client, from: u64, count: u64) {
    let lines: Vec<String> = (from..from + count).map(|n| format!("{{\"n\":{n}}}")).collect();
    client.lines("echo", lines.join("\n")).await.is(202);
}

/// The numbers in what was taken.
fn numbers(came: &[Came]) -> Vec<u64> {
    let taken = came.iter().filter(|came| (200..300).contains(&came.status));
    let lines = taken.flat_map(|came| {
        let text = String::from_utf8(came.body.to_vec()).expect("text");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    let number = |line: String| {
        let value: Value = serde_json::from_str(&line).expect("JSON");
        let data = if value["data"].is_object() { &value["data"] } else { &value };
        data["n"].as_u64().expect("a number")
    };
    lines.map(number).collect()
}

async fn all_came(receiver: &Receiver, count: u64) -> Vec<Came> {
    eventually("all arrive", SOON, || async {
        let came = receiver.came();
        let found: BTreeSet<u64> = numbers(&came).into_iter().collect();
        (found == (0..count).collect()).then_some(came)
    })
    .await
}

#[tokio::test]
async fn every_result_arrives_under_one_name_through_kills_of_either_side() {
    let home = Home::new();
    let mut receiver = Receiver::start().await;
    let mut node = Setup::dev().home(&home).start().await;
    node.client().push("hostile/echo").await;
    node.client().apply("echo", sink(&receiver, "pause-max = \"500ms\"")).await;
    let mut dice = Dice(5);
    let (mut sent, each) = (0, 300);
    for round in 0..4 {
        send(&node.client(), sent, each).await;
        sent += each;
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        if round % 2 == 0 {
            drop(node.kill());
            node = Setup::dev().home(&home).start().await;
        } else {
            receiver = receiver.again().await;
        }
    }
    let came = all_came(&receiver, sent).await;
    // One name for each event, and one event for each name.
    let mut names: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for came in &came {
        let name = came.header("idempotency-key").to_owned();
        assert!(name.starts_with("dev/echo/all/"), "{name}");
        let body = names.entry(name).or_insert_with(|| came.body.to_vec());
        assert_eq!(*body, came.body);
    }
    assert_eq!(names.len() as u64, sent);
    eventually("nothing waits", SOON, || async {
        (state(&node.client(), "sink", 0).await["lag"] == 0).then_some(())
    })
    .await;
    // What was handed on and noted does not come again.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let before = receiver.came().len();
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    send(&node.client(), sent, 1).await;
    let came = all_came(&receiver, sent + 1).await;
    assert_eq!(came.len(), before + 1);
}

#[tokio::test]
async fn a_receiver_that_says_later_is_asked_later() {
    let receiver = Receiver::start().await;
    receiver.answers(&[(503, &[]), (500, &[]), (429, &[("retry-after", "2")])]);
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", sink(&receiver, "")).await;
    send(&client, 0, 1).await;
    let third = eventually("it is tried again", SOON, || async {
        (receiver.came().len() >= 3).then(Instant::now)
    })
    .await;
    let came = all_came(&receiver, 1).await;
    assert!(third.elapsed() >= Duration::from_millis(1800), "{:?}", third.elapsed());
    let names: BTreeSet<&str> = came.iter().map(|came| came.header("idempotency-key")).collect();
    assert_eq!((came.len(), names.len()), (4, 1));
    assert_eq!(state(&client, "sink", 0).await["failures"], 3);
}

#[tokio::test]
async fn what_is_never_taken_halts_the_sink_or_is_left_out_and_nothing_else_is() {
    let receiver = Receiver::start().await;
    receiver.refuses(Some("{\"n\":7}"));
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let lines = "form = \"lines\"";
    client.apply("echo", sink(&receiver, lines)).await;
    send(&client, 0, 20).await;
    let told = comes_to(&client, "sink", "halted", "connector.refused").await;
    assert!(told["why"].as_str().expect("a reason").contains("422"), "{told}");
    let came = numbers(&receiver.came());
    assert!(!came.contains(&7));
    // Whoever mends the receiver lets it go on.
    receiver.refuses(None);
    client.ask(http::Method::POST, &client.path("pipelines/echo/resume"), &[], "").await.is(204);
    all_came(&receiver, 20).await;
    let mut once = numbers(&receiver.came());
    once.sort_unstable();
    assert_eq!(once, (0..20).collect::<Vec<u64>>(), "each once");
    // Or the pipeline says that it may be left out.
    receiver.refuses(Some("{\"n\":27}"));
    let drops = sink(&receiver, lines)
        .replace("from = \"all\"\n[sinks", "from = \"all\"\non-refusal = \"drop\"\n[sinks");
    client.apply("echo", drops).await;
    send(&client, 20, 20).await;
    eventually("it is left out", SOON, || async {
        let told = state(&client, "sink", 0).await;
        (told["rejected"] == 1 && told["lag"] == 0).then_some(())
    })
    .await;
    let mut came = numbers(&receiver.came());
    came.sort_unstable();
    assert_eq!(came, (0..40).filter(|n| *n != 27).collect::<Vec<u64>>());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    receiver.answers(&[(307, &[("location", other.url().as_str())])]);
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", sink(&receiver, "")).await;
    send(&client, 0, 1).await;
    comes_to(&client, "sink", "halted", "connector.refused").await;
    assert!(other.came().is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_away_holds_results_back_and_loses_none() {
    let receiver = Receiver::start().await;
    let manifest = sink(&receiver, "form = \"lines\"\npause-max = \"300ms\"");
    let manifest = manifest.replace("retain-bytes = \"64MiB\"", "retain-bytes = \"64KiB\"");
    let (address, home) = (receiver.address, Home::new());
    drop(receiver);
    let setup = || {
        let setup = Setup::dev().home(&home).set("limits.inbox-bytes", "64KiB");
        setup.set("log.checkpoint-interval", "250ms")
    };
    let node = setup().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", manifest).await;
    let mut sent = 0;
    eventually("there is no more room", SOON, || {
        let (client, from) = (client.clone(), sent);
        sent += 100;
        async move {
            let text = "x".repeat(100);
            let lines: Vec<String> =
                (from..from + 100).map(|n| format!("{{\"n\":{n},\"t\":\"{text}\"}}")).collect();
            let reply = client.lines("echo", lines.join("\n")).await;
            (reply.status == 429).then_some(())
        }
    })
    .await;
    // What was refused was not taken.
    sent -= 100;
    comes_to(&client, "sink", "failing", "connector.unreachable").await;
    // A checkpoint keeps what is held, and not only what an output keeps anyway.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    drop(node.kill());
    let node = setup().start().await;
    let receiver = Receiver::start_at(address).await;
    all_came(&receiver, sent).await;
    drop(node);
}

#[tokio::test]
async fn a_request_is_a_cloud_event_in_either_form_and_signed() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let secrets = folder.path().join("dev");
    std::fs::create_dir(&secrets).expect("made");
    std::fs::write(secrets.join("hook"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        .expect("written");
    let node =
        Setup::dev().set("connectors.secrets", &folder.path().display().to_string()).start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", sink(&receiver, "secret = \"hook\"")).await;
    send(&client, 0, 1).await;
    let came = all_came(&receiver, 1).await;
    let [came] = came.as_slice() else { panic!("one: {came:?}") };
    assert_eq!(
        (came.header("ce-specversion"), came.header("ce-type")),
        ("1.0", "sluicebox.result")
    );
    assert_eq!(came.header("content-type"), "application/json");
    assert_eq!(came.body, "{\"n\":0}");
    assert_eq!(came.header("webhook-id"), came.header("idempotency-key"));
    assert!(came.header("webhook-signature").starts_with("v1,"), "{came:?}");
    client.apply("echo", sink(&receiver, "form = \"event\"")).await;
    // A sink is at work by its new settings a moment after they were applied.
    let mut sent = 1;
    let last = loop {
        send(&client, sent, 1).await;
        sent += 1;
        let last = all_came(&receiver, sent).await.pop().expect("as many as were sent");
        if last.header("content-type") != "application/json" || sent > 500 {
            break last;
        }
    };
    let event: Value = serde_json::from_slice(&last.body).expect("JSON");
    assert_eq!(last.header("content-type"), "application/cloudevents+json");
    assert_eq!((&event["specversion"], &event["data"]["n"]), (&"1.0".into(), &(sent - 1).into()));
    assert_eq!(last.header("webhook-signature"), "");
}

#[tokio::test]
async fn an_address_of_ones_own_network_is_refused_though_its_name_is_allowed() {
    let receiver = Receiver::start().await;
    // Not in development mode, where loopback may be reached.
    let node = Setup::tenants(&["a"]).set("connectors.hosts", "localhost,127.0.0.1").start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    client.apply("echo", sink(&receiver, "").replace(&receiver.url(), &url)).await;
    send(&client, 0, 1).await;
    comes_to(&client, "sink", "failing", "connector.address").await;
    assert!(receiver.came().is_empty());
}
