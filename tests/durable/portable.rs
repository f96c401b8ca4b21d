//! A component that keeps what it counts in a bucket of `wasi:keyvalue`: exact like any state.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sluicebox_core::frame::Frame;
use sluicebox_tests::client::{Client, payload};
use sluicebox_tests::events::{Given, frame};

use super::kills::{Load, OFTEN, Run, through_kills, until};
use super::{Dice, number};

const PIPELINE: &str = "portable";

/// Keys that are counted.
const KEYS: u64 = 40;

struct Counts;

impl Load for Counts {
    fn pipeline(&self) -> &'static str {
        PIPELINE
    }

    async fn begin(&self, client: &Client) {
        client.push("wasi").await;
        let manifest = format!(
            "version = 1\nname = \"{PIPELINE}\"\ndelivery = \"exactly-once\"\npartitions = 3\n\
             [ingest]\nto = [\"count\"]\n\
             [stages.count]\ncomponent = \"wasi\"\nscope = \"key\"\n\
             grants = {{ keyvalue = {{ buckets = [\"counts\"] }} }}\n\
             [outputs.sums]\nfrom = \"count\"\nretain-bytes = \"64MiB\"\n"
        );
        client.apply(PIPELINE, manifest).await;
    }

    fn request(&self, _: u64, _: u64, dice: &mut Dice) -> Frame {
        let events = (0..=dice.below(60))
            .map(|_| Given::new(&format!("k{}", dice.below(KEYS)), "add counts n 1"));
        frame(&events.collect::<Vec<_>>())
    }

    fn change(&self, _: &mut Dice) -> Option<String> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_counts_each_event_once_through_kills() {
    let seed = number("SLUICEBOX_SEED").unwrap_or(20_261_201);
    let kills = number("SLUICEBOX_KILLS").unwrap_or(5);
    let run = Run { seed, kills, millis_max: 800, settings: &OFTEN };
    let (node, _home, sent) = through_kills(&run, &Arc::new(Counts)).await;
    let mut expected = BTreeMap::<String, u64>::new();
    for event in sent.iter().flatten().flat_map(Frame::events) {
        *expected.entry(event.key_str().to_owned()).or_default() += 1;
    }
    let total = expected.values().sum();
    let sums = until(&node.client(), (PIPELINE, "outputs/sums"), total, seed).await;
    assert_eq!(sums.len() as u64, total, "seed {seed}");
    let mut reached = BTreeMap::<String, u64>::new();
    for record in &sums {
        let sum = sum_of(record);
        let last = reached.entry(record["key"].as_str().expect("a key").to_owned()).or_default();
        assert_eq!(sum, *last + 1, "seed {seed}: {record}");
        *last = sum;
    }
    assert_eq!(reached, expected, "seed {seed}");
}

fn sum_of(record: &Value) -> u64 {
    let text = String::from_utf8(payload(record)).expect("text");
    text.trim_matches('"').parse().unwrap_or_else(|_| panic!("no sum: {record}"))
}
