//! Subjects of NATS, with a real server: what a stream has counts once and what goes to one is in
//! it once, whoever is killed; what is only published arrives while somebody listens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::nats::Nats;
use sluicebox_tests::node::{Home, Setup};
use sluicebox_tests::tls;

use super::{Dice, all, comes_to, echo, holds, state};

/// Rounds in which somebody is killed.
const KILLS: u64 = 4;

fn source(nats: &Nats, more: &str) -> String {
    echo(&format!("[sources.in.nats]\nurl = \"{}\"\n{more}", nats.url()))
}

fn sink(nats: &Nats, more: &str) -> String {
    echo(&format!(
        "[sinks.out]\nfrom = \"all\"\n[sinks.out.nats]\nurl = \"{}\"\nsubject = \"results\"\n\
         pause-max = \"500ms\"\n{more}",
        nats.url()
    ))
}

fn at(home: &Arc<Home>) -> Setup {
    // Checkpoints come often, so that places come from the store as well.
    let setup = Setup::dev().home(home).set("log.checkpoint-interval", "300ms");
    setup.set("log.checkpoint-log-bytes", "1MiB")
}

async fn send(client: &Client, from: u64, count: u64) {
    let lines: Vec<String> = (from..from + count).map(|n| format!("{{\"n\":{n}}}")).collect();
    client.lines("echo", lines.join("\n")).await.is(202);
}

#[tokio::test]
async fn each_message_of_a_stream_counts_once_through_kills_of_either_side() {
    let mut nats = Nats::open().await;
    nats.client().stream("IN", "in.>", &Value::Null);
    let home = Home::new();
    let mut node = at(&home).start().await;
    node.client().push("hostile/echo").await;
    let manifest = source(&nats, "stream = \"IN\"\nsubject = \"in.*\"");
    node.client().apply("echo", manifest).await;
    let mut dice = Dice(13);
    let mut wanted = Vec::new();
    for round in 0..KILLS {
        let mut client = nats.client();
        for n in 0..600 {
            let text = format!("{round}-{n}");
            client.publish(&format!("in.{}", n % 7), &text);
            wanted.push(text);
            if n % 50 == 0 {
                client.settle();
                tokio::time::sleep(Duration::from_millis(dice.below(12))).await;
            }
        }
        client.settle();
        tokio::time::sleep(Duration::from_millis(dice.below(60))).await;
        if round % 2 == 0 {
            drop(node.kill());
            node = at(&home).start().await;
        } else {
            nats.again().await;
        }
    }
    let client = node.client();
    holds(&client, &wanted).await;
    // What was lost on the way comes again after a while, is confirmed, and counts no second time.
    eventually("everything is confirmed", Duration::from_secs(90), || async {
        let told = nats.client().ask("CONSUMER.INFO.IN.sluicebox_dev_echo_in", &Value::Null);
        (told["num_ack_pending"] == 0 && told["num_pending"] == 0).then_some(())
    })
    .await;
    holds(&client, &wanted).await;
    let told = comes_to(&client, "source", "running", "").await;
    assert_eq!(told["place"], format!("IN: message {}, 0 behind it", wanted.len()), "{told}");
    let record = all(&client).await.pop().expect("one of them");
    assert_eq!((&record["type"], &record["key"]), (&"nats.message".into(), &record["subject"]));
}

#[tokio::test]
async fn results_are_in_a_stream_once_and_in_order_through_kills_of_either_side() {
    let mut nats = Nats::open().await;
    nats.client().stream("OUT", "results", &Value::Null);
    let home = Home::new();
    let mut node = at(&home).start().await;
    node.client().push("hostile/echo").await;
    node.client().apply("echo", sink(&nats, "")).await;
    let mut dice = Dice(17);
    let (mut sent, each) = (0, 400);
    for round in 0..KILLS {
        send(&node.client(), sent, each).await;
        sent += each;
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        if round % 2 == 0 {
            drop(node.kill());
            node = at(&home).start().await;
        } else {
            nats.again().await;
        }
    }
    let client = node.client();
    eventually("everything was handed on", SOON, || async {
        let told = state(&client, "sink", 0).await;
        (told["lag"] == 0 && told["state"] == "running").then_some(())
    })
    .await;
    let found = nats.client().all("OUT");
    let names: BTreeSet<&str> = found.iter().map(|message| message.field("Nats-Msg-Id")).collect();
    assert_eq!((found.len() as u64, names.len() as u64), (sent, sent), "each once");
    // In the order of each partition.
    let mut last = [None, None];
    for message in &found {
        let name = message.field("Nats-Msg-Id").to_owned();
        let mut words = name.rsplit('/').map(|word| word.parse::<u64>().ok());
        let offset = words.next().flatten().expect("an offset");
        let partition = words.next().flatten().expect("a partition");
        let last = &mut last[usize::try_from(partition).expect("a small number")];
        assert!(last.is_none_or(|last| last < offset), "{name} behind {last:?}");
        *last = Some(offset);
    }
}

#[tokio::test]
async fn a_result_is_a_cloud_event_in_either_form_and_comes_in_again_as_one() {
    let nats = Nats::open().await;
    nats.client().stream("OUT", "results", &Value::Null);
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", sink(&nats, "")).await;
    send(&client, 0, 1).await;
    let of_stream = |count: usize| {
        let nats = &nats;
        async move {
            let found = nats.client().all("OUT");
            (found.len() >= count).then_some(found)
        }
    };
    let found = eventually("it arrives", SOON, || of_stream(1)).await;
    let first = &found[0];
    assert_eq!(
        (first.field("ce-specversion"), first.field("ce-type")),
        ("1.0", "sluicebox.result")
    );
    assert_eq!(
        (first.field("content-type"), first.text()),
        ("application/json", "{\"n\":0}".into())
    );
    assert!(first.field("Nats-Msg-Id").starts_with("dev/echo/all/"), "{first:?}");
    client.apply("echo", sink(&nats, "form = \"event\"\nbatch-events = 10")).await;
    // A sink is at work by its new settings a moment after they were applied.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&client, 1, 20).await;
    let found = eventually("they arrive", SOON, || of_stream(21)).await;
    let last = found.last().expect("some");
    assert_eq!(last.field("content-type"), "application/cloudevents+json");
    let event: Value = serde_json::from_slice(&last.payload).expect("JSON");
    assert_eq!(
        (&event["specversion"], &event["type"]),
        (&"1.0".into(), &"sluicebox.result".into())
    );
    // Both forms are read as what they were.
    client.apply("echo", source(&nats, "stream = \"OUT\"")).await;
    let records = eventually("they come in", SOON, || async {
        let records = all(&client).await;
        (records.len() >= 42).then_some(records)
    })
    .await;
    let ids = |records: &[Value]| -> BTreeSet<String> {
        records.iter().map(|record| record["id"].to_string()).collect()
    };
    assert_eq!(records.len(), 42, "each once more");
    assert_eq!(ids(&records).len(), 21, "under the name it had");
    assert!(records.iter().all(|record| record["data"]["n"].is_u64()), "{records:?}");
}

#[tokio::test]
async fn what_is_only_published_arrives_while_somebody_listens() {
    let mut nats = Nats::open().await;
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let both = sink(&nats, "confirmed-by = \"server\"").replace(
        "[sinks.out]",
        &format!(
            "[sources.in.nats]\nurl = \"{}\"\nsubject = \"in.>\"\nqueue = \"q\"\n[sinks.out]",
            nats.url()
        ),
    );
    client.apply("echo", both).await;
    for round in 0..2 {
        let mut listener = nats.client();
        listener.listen("results");
        // Whoever has not listened yet does not get it: it is said until it is heard.
        eventually("a message comes through", SOON, || {
            let mut publisher = nats.client();
            publisher.publish("in.a", &format!("round {round}"));
            publisher.settle();
            std::future::ready(listener.next(Duration::from_millis(300)))
        })
        .await;
        comes_to(&client, "source", "running", "").await;
        comes_to(&client, "sink", "running", "").await;
        if round == 0 {
            nats.again().await;
        }
    }
}

#[tokio::test]
async fn bad_messages_are_left_out_and_counted_and_do_not_come_again() {
    let nats = Nats::open().await;
    let mut publisher = nats.client();
    publisher.stream("IN", "in", &Value::Null);
    publisher.publish("in", "one");
    publisher.publish("in", &"x".repeat(2000));
    publisher.publish_with("in", "no header\r\n\r\n", "bad");
    publisher.publish_with("in", "NATS/1.0\r\nce-specversion: 1.0\r\n\r\n", "no attributes");
    publisher.publish_with("in", "NATS/1.0\r\ncontent-type: application/json\r\n\r\n", "{");
    publisher.publish("in", "two");
    let told = publisher.ask("STREAM.INFO.IN", &Value::Null);
    assert_eq!(told["state"]["messages"], 6, "{told}");
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", source(&nats, "stream = \"IN\"\nmessage-bytes = \"1KiB\"")).await;
    holds(&client, &["one".to_owned(), "two".to_owned()]).await;
    assert_eq!(state(&client, "source", 0).await["rejected"], 4);
    eventually("none of them comes again", SOON, || async {
        let told = nats.client().ask("CONSUMER.INFO.IN.sluicebox_dev_echo_in", &Value::Null);
        (told["num_ack_pending"] == 0 && told["ack_floor"]["stream_seq"] == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_consumer_begins_with_what_is_new_if_it_is_to() {
    let nats = Nats::open().await;
    let mut publisher = nats.client();
    publisher.stream("IN", "in", &Value::Null);
    publisher.publish("in", "old");
    publisher.settle();
    let home = Home::new();
    let node = Setup::dev().home(&home).start().await;
    node.client().push("hostile/echo").await;
    let more = "stream = \"IN\"\nconsumer = \"mine\"\nbegin = \"new\"";
    node.client().apply("echo", source(&nats, more)).await;
    eventually("the consumer is there", SOON, || async {
        let told = nats.client().ask("CONSUMER.INFO.IN.mine", &Value::Null);
        told["error"].is_null().then_some(())
    })
    .await;
    // Whoever takes it up before anything came begins there too.
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    publisher.publish("in", "new");
    publisher.settle();
    holds(&node.client(), &["new".to_owned()]).await;
}

#[tokio::test]
async fn a_queue_of_work_is_emptied_as_it_is_taken() {
    let nats = Nats::open().await;
    let mut publisher = nats.client();
    publisher.stream("IN", "in", &json!({ "retention": "workqueue" }));
    let wanted: Vec<String> = (0..1000).map(|n| format!("job {n}")).collect();
    wanted.iter().for_each(|job| publisher.publish("in", job));
    publisher.settle();
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", source(&nats, "stream = \"IN\"")).await;
    holds(&client, &wanted).await;
    eventually("nothing is left", SOON, || async {
        let told = nats.client().ask("STREAM.INFO.IN", &Value::Null);
        (told["state"]["messages"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_and_goes_on_once_the_secret_is_right() {
    let nats = Nats::with("authorization { user: ada, password: lace }").await;
    let who = json!({ "user": "ada", "pass": "lace" });
    nats.client_as(&who).stream("IN", "in", &Value::Null);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let secrets = folder.path().join("dev");
    std::fs::create_dir(&secrets).expect("made");
    std::fs::write(secrets.join("nats"), "user ada wrong\n").expect("written");
    let setup = Setup::dev().set("connectors.secrets", &folder.path().display().to_string());
    let node = setup.start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", source(&nats, "stream = \"IN\"\nsecret = \"nats\"")).await;
    let told = comes_to(&client, "source", "failing", "connector.credentials").await;
    assert!(told["why"].as_str().expect("a reason").contains("Authorization Violation"), "{told}");
    std::fs::write(secrets.join("nats"), "user ada lace\n").expect("written");
    let mut publisher = nats.client_as(&who);
    publisher.publish("in", "one");
    publisher.settle();
    holds(&client, &["one".to_owned()]).await;
    comes_to(&client, "source", "running", "").await;
}

#[tokio::test]
async fn an_nkey_lets_in_who_has_its_seed() {
    let public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let nats = Nats::with(&format!("authorization {{ users: [ {{ nkey: {public} }} ] }}")).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let secrets = folder.path().join("dev");
    std::fs::create_dir(&secrets).expect("made");
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    std::fs::write(secrets.join("nats"), seed).expect("written");
    let setup = Setup::dev().set("connectors.secrets", &folder.path().display().to_string());
    let node = setup.start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    let more = "confirmed-by = \"server\"\nsecret = \"nats\"";
    client.apply("echo", sink(&nats, more)).await;
    send(&client, 0, 3).await;
    eventually("they are handed on", SOON, || async {
        let told = state(&client, "sink", 0).await;
        (told["events"] == 3 && told["state"] == "running").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sink_waits_for_its_stream_and_halts_at_what_it_never_takes() {
    let nats = Nats::open().await;
    let node = Setup::dev().start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", sink(&nats, "")).await;
    send(&client, 0, 3).await;
    let told = comes_to(&client, "sink", "failing", "connector.stream").await;
    assert!(told["why"].as_str().expect("a reason").contains("no stream"), "{told}");
    nats.client().stream("OUT", "results", &json!({ "max_msg_size": 1000 }));
    eventually("they arrive", SOON, || async {
        (nats.client().all("OUT").len() == 3).then_some(())
    })
    .await;
    let large = format!("{{\"n\":\"{}\"}}", "x".repeat(2000));
    client.lines("echo", large).await.is(202);
    comes_to(&client, "sink", "halted", "connector.refused").await;
}

#[tokio::test]
async fn tls_is_spoken_with_who_the_operator_trusts() {
    let nats = Nats::by_tls().await;
    let url = nats.url().replace("nats://", "tls://");
    let by_tls = |more: &str| sink(&nats, more).replace(&nats.url(), &url);
    let authority = tls::file("authority.pem").display().to_string();
    let node = Setup::dev().set("connectors.authorities", &authority).start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", by_tls("confirmed-by = \"server\"")).await;
    send(&client, 0, 2).await;
    eventually("they are handed on", SOON, || async {
        (state(&client, "sink", 0).await["events"] == 2).then_some(())
    })
    .await;
    // Without, the server wants it, and is not spoken to.
    client.apply("echo", sink(&nats, "confirmed-by = \"server\"")).await;
    eventually("it is told", SOON, || async {
        send(&client, 2, 1).await;
        let told = state(&client, "sink", 0).await;
        told["why"].as_str().is_some_and(|why| why.contains("wants TLS")).then_some(())
    })
    .await;
    let other = tls::file("first.pem").display().to_string();
    let node = Setup::dev().set("connectors.authorities", &other).start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", by_tls("confirmed-by = \"server\"")).await;
    send(&client, 0, 1).await;
    comes_to(&client, "sink", "failing", "connector.unreachable").await;
}

#[tokio::test]
async fn an_address_of_ones_own_network_is_refused_though_its_name_is_allowed() {
    let nats = Nats::open().await;
    // Not in development mode, where loopback may be reached.
    let node = Setup::tenants(&["a"]).set("connectors.hosts", "localhost,127.0.0.1").start().await;
    let client = node.client();
    client.push("hostile/echo").await;
    client.apply("echo", source(&nats, "subject = \"in\"")).await;
    comes_to(&client, "source", "failing", "connector.address").await;
}
