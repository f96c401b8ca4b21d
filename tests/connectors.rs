//! Sources and sinks through the real program: what is outside gets in once and out at least once,
//! whatever happens to the node or to what is outside.
//!
//! Leaves to others: what each kind does with every bad file, schedule or answer (the node's own
//! tests).

#[path = "connectors/files.rs"]
mod files;
#[path = "connectors/nats.rs"]
mod nats;
#[path = "connectors/receiver.rs"]
mod receiver;
#[path = "connectors/refused.rs"]
mod refused;
#[path = "connectors/schedules.rs"]
mod schedules;
#[path = "connectors/webhooks.rs"]
mod webhooks;

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::eventually::{SOON, eventually};

/// A pipeline that gives out what comes in. `more` is said of its sources and sinks.
fn echo(more: &str) -> String {
    format!(
        "version = 1\nname = \"echo\"\ndelivery = \"exactly-once\"\npartitions = 2\n\
         [ingest]\nto = [\"echo\"]\n\
         [stages.echo]\ncomponent = \"echo\"\n\
         [outputs.all]\nfrom = \"echo\"\nretain-bytes = \"64MiB\"\n{more}\n"
    )
}

/// Everything the output holds.
async fn all(client: &Client) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = "oldest".to_owned();
    loop {
        let page = client.page("echo", "outputs/all", &format!("cursor={cursor}")).await.is(200);
        let records = page.records();
        if records.is_empty() {
            return all;
        }
        all.extend(records);
        cursor = page.cursor();
    }
}

/// The payloads the output holds, in order.
async fn payloads(client: &Client) -> Vec<String> {
    let text = |record: &Value| match record["data"].as_str() {
        Some(text) => text.to_owned(),
        None => String::from_utf8(payload(record)).expect("text"),
    };
    let mut all: Vec<String> = all(client).await.iter().map(text).collect();
    all.sort();
    all
}

/// Waits until the output holds exactly these payloads.
async fn holds(client: &Client, wanted: &[String]) {
    let mut wanted = wanted.to_vec();
    wanted.sort();
    eventually("everything is there, once", SOON, || async {
        let found = payloads(client).await;
        assert!(found.len() <= wanted.len(), "{} of {}", found.len(), wanted.len());
        (found == wanted).then_some(())
    })
    .await;
}

/// What is told of a source or a sink.
async fn state(client: &Client, what: &str, at: usize) -> Value {
    client.describe("echo").await[what][at].clone()
}

/// Waits until it is in this state, with this code.
async fn comes_to(client: &Client, what: &str, word: &str, code: &str) -> Value {
    eventually(&format!("it is {word}: {code}"), SOON, || async {
        let state = state(client, what, 0).await;
        let same = state["state"] == word && state["code"].as_str().unwrap_or_default() == code;
        same.then_some(state)
    })
    .await
}

/// Numbers drawn from a seed (SplitMix64, Steele et al., 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
