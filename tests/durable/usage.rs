//! What commits used: exact over kills, because it is in them.

use std::time::Duration;

use serde_json::Value;
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Home, Setup};

/// Fuel, events and reruns that are committed.
async fn usage(client: &Client) -> (u64, u64, u64) {
    let detail = client.describe("used").await;
    let segments = detail["usage"].as_array().cloned().unwrap_or_default();
    let sum = |name: &str| segments.iter().map(|one| one[name].as_u64().expect("a number")).sum();
    (sum("fuel"), sum("events"), sum("reruns"))
}

/// What the records of the log say, in all.
fn logged(data: &std::path::Path) -> (u64, u64, u64) {
    let command = std::process::Command::new(sluicebox_tests::node::program())
        .args(["log", "inspect", "--records", "--output", "json", "--data-dir"])
        .arg(data)
        .output()
        .expect("the command runs");
    let text = String::from_utf8(command.stdout).expect("UTF-8");
    let mut sums = (0, 0, 0);
    let mut add = |record: &Value| {
        let number = |name: &str| record["says"][name].as_u64().unwrap_or_default();
        sums = (sums.0 + number("fuel"), sums.1 + number("events"), sums.2 + number("reruns"));
    };
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).expect("JSON");
        // The first line is about the files.
        if value["kind"] == "commit" {
            add(&value);
        }
    }
    sums
}

#[tokio::test]
async fn what_was_used_is_counted_by_what_was_committed_through_kills() {
    let home = Home::new();
    let mut node = Setup::dev().home(&home).start().await;
    node.client().push("conformance-rust").await;
    let manifest = single("used", "conformance-rust", "").replace("best-effort", "exactly-once");
    node.client().apply("used", manifest).await;
    let mut sent = 0;
    for round in 0..4_u64 {
        let client = node.client();
        for n in 0..40 {
            // Some trap, so that calls are made again.
            let payload = if n % 10 == 0 { "t" } else { "e1" };
            let body = payload.to_owned();
            client.send("used", &format!("?key=k{n}"), &[], body).await.is(202);
            sent += 1;
        }
        // In the middle of its work, or behind it.
        tokio::time::sleep(Duration::from_millis(15 * round)).await;
        drop(node.kill());
        node = Setup::dev().home(&home).start().await;
    }
    let client = node.client();
    let before = eventually("every event is committed", SOON, || async {
        let used = usage(&client).await;
        (used.1 == sent).then_some(used)
    })
    .await;
    assert!(before.0 > 0, "{before:?}");
    let metrics = client.plain("/metrics").await.is(200);
    let figure =
        format!("sluicebox_committed_fuel_total{{tenant=\"dev\",pipeline=\"used\"}} {}", before.0);
    assert!(metrics.text().contains(&figure), "{figure}");
    drop(node.kill());
    let node = Setup::dev().home(&home).start().await;
    assert_eq!(usage(&node.client()).await, before, "after a restart it is what it was");
    drop(node.kill());
    assert_eq!(logged(&home.data()), before, "it is the sum of the records");
}
