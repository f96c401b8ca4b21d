//! Buffers that go with an event from stage to stage of a segment.

use std::collections::BTreeSet;

use sluicebox_tests::client::Client;
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::eventually::{SOON, eventually};

use super::{GRANT, devices, gpu, with_device};

/// Two or three stages with a GPU, one behind the other, with an output behind the last.
fn chain(name: &str, delivery: &str, stages: &[&str]) -> String {
    let mut text = format!(
        "version = 1\nname = \"{name}\"\ndelivery = \"{delivery}\"\npartitions = 1\n\
         [ingest]\nto = [\"{}\"]\n[outputs.reply]\nfrom = \"{}\"\n",
        stages[0],
        stages[stages.len() - 1]
    );
    for stage in stages {
        text.push_str(&format!("[stages.{stage}]\ncomponent = \"gpu\"\n{GRANT}\nretries = 1\n"));
    }
    for pair in stages.windows(2) {
        text.push_str(&format!("[[edges]]\nfrom = \"{}\"\nto = \"{}\"\n", pair[0], pair[1]));
    }
    text
}

async fn call(client: &Client, pipeline: &str, payload: &str) -> String {
    let reply = client.call(pipeline, "k", payload.to_owned()).await;
    assert_eq!(reply.status, 200, "{payload}: {}", reply.text());
    reply.text().to_owned()
}

#[tokio::test]
async fn the_next_stage_reads_what_was_attached_and_nobody_writes_it() {
    for device in devices() {
        let node = with_device(device).start().await;
        let client = node.client();
        client.push("gpu").await;
        for delivery in ["best-effort", "exactly-once"] {
            client.apply("two", chain("two", delivery, &["a", "b"])).await;
            assert_eq!(call(&client, "two", "attach 64 7").await, "sum 112 of 64", "{device}");
            // A written one is refused, by the host and on the device.
            for how in ["write", "write-step"] {
                let said = call(&client, "two", &format!("attach 64 7 {how}")).await;
                assert_eq!(said, "refused gpu.read-only", "{device}");
            }
            client.delete("pipelines/two").await.is(204);
        }
        client.apply("three", chain("three", "exactly-once", &["a", "b", "c"])).await;
        let said = call(&client, "three", "attach 1024 3 pass sum").await;
        assert_eq!(said, "sum 768 of 1024", "{device}");
    }
}

#[tokio::test]
async fn what_was_attached_goes_with_its_batch() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    client.push("gpu").await;
    client.apply("two", chain("two", "best-effort", &["a", "b"])).await;
    for _ in 0..32 {
        assert_eq!(call(&client, "two", "attach 65536 1").await, "sum 16384 of 65536");
    }
    // What the stages have of their own is less than what they have attached.
    eventually("nothing of it is left", SOON, || async {
        let used = gpu(&client).await["used"].clone();
        let is_counted = used["chunks"].as_u64()? > 32;
        (is_counted && used["handles"].as_u64()? < 16).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_not_held_or_would_leave_ends_the_call() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    client.push("gpu").await;
    // One stage: whatever it emits leaves the segment.
    client.apply("one", sluicebox_tests::manifest::single("one", "gpu", GRANT)).await;
    client.send("one", "", &[("sluicebox-key", "k")], "attach 64 7").await.is(202);
    let dead = client.records("one", "dead-letters", 1).await;
    assert!(dead[0].to_string().contains("segment"), "{dead:?}");
    client.apply("two", chain("two", "best-effort", &["a", "b"])).await;
    client.send("two", "", &[("sluicebox-key", "k")], "attach-foreign 77").await.is(202);
    let dead = client.records("two", "dead-letters", 1).await;
    assert!(dead[0].to_string().contains("does not hold"), "{dead:?}");
    // The stage goes on.
    assert_eq!(call(&client, "two", "attach 64 7").await, "sum 112 of 64");
}

#[tokio::test]
async fn a_device_that_is_lost_between_two_stages_loses_no_event() {
    let node = with_device("interpreter").start().await;
    let client = node.client();
    client.push("gpu").await;
    client.apply("two", chain("two", "exactly-once", &["a", "b"])).await;
    let killer = async {
        for _ in 0..6 {
            super::process::kill(super::process_of(&node).await);
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
    };
    const EVENTS: usize = 400;
    let sender = async {
        for first in (0..EVENTS).step_by(10) {
            let events: Vec<Given> = (first..first + 10)
                .map(|number| {
                    Given::new(&format!("k{}", number % 5), format!("attach 64 {number}"))
                })
                .collect();
            client.frame("two", &frame(&events)).await.is(202);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::join!(killer, sender);
    let records = client.records("two", "outputs/reply", EVENTS).await;
    let said = |record| String::from_utf8(sluicebox_tests::client::payload(record)).expect("text");
    let mut found: Vec<String> = records.iter().map(said).collect();
    found.sort_unstable();
    let expected: BTreeSet<String> =
        (0..EVENTS).map(|number| format!("sum {} of 64", 16 * number)).collect();
    // The guest answers for what its first stage is refused, and has no second answer.
    let sums: Vec<&String> = found.iter().filter(|said| *said != "refused gpu.lost").collect();
    assert_eq!(found.len(), EVENTS);
    assert!(sums.iter().all(|sum| expected.contains(*sum)), "{sums:?}");
    assert!(sums.windows(2).all(|pair| pair[0] != pair[1]), "{sums:?}");
    // How many find a device there depends on how fast it is started again.
    assert!(!sums.is_empty(), "none of {EVENTS}");
    let dead = client.page("two", "dead-letters", "").await.is(200).records();
    assert_eq!(dead.len(), 0, "{} dead letters", dead.len());
}
