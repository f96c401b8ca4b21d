//! Exactly-once through the real program: what was acknowledged is counted once, whatever happens
//! to the node.
//!
//! - Nodes are killed at any moment and started again in the same directory. What comes out is held
//!   against what producers were told was taken.
//! - `SLUICEBOX_KILLS` and `SLUICEBOX_SEED` say how often and when; a failure shows its seed.
//!   `SLUICEBOX_KEYS` says how many keys one test has.
//!
//! Leaves to others: power loss, of which a process on a machine that lives sees nothing (the log's
//! own tests), and every order of events (the simulation in `core`).

#[path = "durable/adverse.rs"]
mod adverse;
#[path = "durable/bill.rs"]
mod bill;
#[path = "durable/changes.rs"]
mod changes;
#[path = "durable/chaos.rs"]
mod chaos;
#[path = "durable/checkpoints.rs"]
mod checkpoints;
#[path = "durable/cold.rs"]
mod cold;
#[path = "durable/damage.rs"]
mod damage;
#[path = "durable/disk.rs"]
mod disk;
#[path = "durable/expire.rs"]
mod expire;
#[path = "durable/follow.rs"]
mod follow;
#[path = "durable/groups.rs"]
mod groups;
#[path = "durable/ingest.rs"]
mod ingest;
#[path = "durable/kills.rs"]
mod kills;
#[path = "durable/large.rs"]
mod large;
#[path = "durable/park.rs"]
mod park;
#[path = "durable/partitions.rs"]
mod partitions;
#[path = "durable/portable.rs"]
mod portable;
#[path = "durable/processes.rs"]
mod processes;
#[path = "durable/refused.rs"]
mod refused;
#[path = "durable/replay.rs"]
mod replay;
#[path = "durable/rollback.rs"]
mod rollback;
#[path = "durable/scaling.rs"]
mod scaling;
#[path = "durable/sessions.rs"]
mod sessions;
#[path = "durable/streams.rs"]
mod streams;
#[path = "durable/timers.rs"]
mod timers;
#[path = "durable/upgrades.rs"]
mod upgrades;
#[path = "durable/usage.rs"]
mod usage;
#[path = "durable/versions.rs"]
mod versions;

use serde_json::Value;
use sluicebox_tests::client::{Client, payload};

/// The output of [`words`].
const COUNTS: &str = "outputs/counts";

/// Small numbers drawn from a seed (SplitMix64, Steele et al., 2014).
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A number that whoever runs the tests chose.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// The example, with everything kept. `more` is said of the stage that counts.
fn words(more: &str) -> String {
    format!(
        "version = 1\nname = \"words\"\ndelivery = \"exactly-once\"\npartitions = 4\n\
         [ingest]\nto = [\"split\"]\n\
         [stages.split]\ncomponent = \"word-count-split\"\nports = [\"words\"]\n\
         [stages.count]\ncomponent = \"word-count-count\"\n{more}\n\
         [[edges]]\nfrom = \"split.words\"\nto = \"count\"\nkey = \"emitted\"\n\
         [outputs.counts]\nfrom = \"count\"\nretain-bytes = \"256MiB\"\n"
    )
}

/// A client whose node has the example.
async fn with_words(client: &Client) {
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    client.apply("words", words("")).await;
}

/// One count that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Count {
    partition: u64,
    offset: u64,
    word: String,
    count: u64,
}

/// Everything an output holds, page by page.
async fn all_counts(client: &Client) -> Vec<Count> {
    let mut counts = Vec::new();
    let mut cursor = "oldest".to_owned();
    loop {
        let page = client.page("words", COUNTS, &format!("cursor={cursor}")).await.is(200);
        let records = page.records();
        if records.is_empty() {
            return counts;
        }
        counts.extend(records.iter().map(count));
        cursor = page.cursor();
    }
}

fn count(record: &Value) -> Count {
    let data: Value = serde_json::from_slice(&payload(record)).expect("a count is JSON");
    let number = |value: &Value| value.as_u64().expect("a number");
    Count {
        partition: number(&record["partition"]),
        offset: number(&record["offset"]),
        word: data["word"].as_str().expect("a word").to_owned(),
        count: number(&data["count"]),
    }
}
