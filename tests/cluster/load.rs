//! Words that are sent through all nodes and counted by a pipeline of two segments: what came out
//! is held against what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluicebox_tests::client::{Client, NDJSON, payload};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use tokio::task::JoinSet;

/// Words that are counted.
const VOCABULARY: u64 = 40;

/// Counts words in two segments of so many partitions, which keep so much of what came out.
pub(super) fn words(partitions: u16, kept: &str) -> String {
    format!(
        "version = 1\nname = \"words\"\ndelivery = \"exactly-once\"\npartitions = {partitions}\n\
         [ingest]\nto = [\"split\"]\n\
         [stages.split]\ncomponent = \"word-count-split\"\nports = [\"words\"]\n\
         [stages.count]\ncomponent = \"word-count-count\"\n\
         [[edges]]\nfrom = \"split.words\"\nto = \"count\"\nkey = \"emitted\"\n\
         [outputs.counts]\nfrom = \"count\"\nretain-bytes = \"{kept}\"\n"
    )
}

/// Applies it.
pub(super) async fn with_words(client: &Client, partitions: u16) {
    client.push("word-count-split").await;
    client.push("word-count-count").await;
    client.apply("words", words(partitions, "256MiB")).await;
}

/// What producers are told, and tell.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    /// Requests that were taken.
    taken: AtomicU64,
    /// The longest time until a request was answered, or its connection was closed.
    slowest_millis: AtomicU64,
}

/// Sends lines of numbered requests through one node after another until told to stop; gives how
/// often each word was sent.
async fn produce(
    clients: Arc<Vec<Client>>,
    producer: u64,
    told: Arc<Told>,
) -> BTreeMap<String, u64> {
    let mut sent = BTreeMap::new();
    let mut sequence = 0;
    let name = format!("p{producer}");
    while !told.stop.load(Ordering::Acquire) {
        sequence += 1;
        let word = format!("w{}", (producer * 31 + sequence * 7) % VOCABULARY);
        let number = sequence.to_string();
        let headers = [
            ("sluicebox-producer", name.as_str()),
            ("sluicebox-sequence", &number),
            ("content-type", NDJSON),
        ];
        let body = format!("\"{word} {word}\"\n");
        let mut through = (producer + sequence) as usize;
        loop {
            let client = &clients[through % clients.len()];
            let began = Instant::now();
            let answer = client.attempt("words", &headers, body.clone()).await;
            let millis = began.elapsed().as_millis() as u64;
            told.slowest_millis.fetch_max(millis, Ordering::Relaxed);
            match answer {
                Some(reply) if matches!(reply.status, 200 | 202) => break,
                Some(reply) if !matches!(reply.status, 429 | 503) => {
                    panic!("{name}/{number} through {}: {reply:?}", through % clients.len())
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            through += 1;
        }
        *sent.entry(word).or_default() += 2;
        told.taken.fetch_add(1, Ordering::Relaxed);
    }
    sent
}

/// Reads the counts page by page, and holds them to their order: in each partition one offset after
/// the other, and of each word 1, 2, 3 and so on.
struct Reader {
    counts: BTreeMap<String, u64>,
    offsets: BTreeMap<u64, u64>,
    cursor: String,
}

impl Reader {
    fn from_the_oldest() -> Self {
        let (counts, offsets) = Default::default();
        Self { counts, offsets, cursor: "oldest".to_owned() }
    }

    /// Reads a page. False if there was nothing. `more` is said besides the cursor: `&wait=1s`.
    async fn page(&mut self, client: &Client, more: &str) -> bool {
        let query = format!("cursor={}{more}", self.cursor);
        let end = Instant::now() + SOON;
        let page = loop {
            let page = client.page("words", "outputs/counts", &query).await;
            // On a busy machine the home counts as away for a moment.
            if page.status != 503 || Instant::now() >= end {
                break page.is(200);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let records = page.records();
        for record in &records {
            let data: Value = serde_json::from_slice(&payload(record)).expect("JSON");
            let word = data["word"].as_str().expect("a word").to_owned();
            let count = self.counts.entry(word.clone()).or_default();
            *count += 1;
            assert_eq!(data["count"], *count, "{word}: {record}");
            let partition = record["partition"].as_u64().expect("a number");
            let offset = self.offsets.entry(partition).or_default();
            assert_eq!(record["offset"], *offset, "{record}");
            *offset += 1;
        }
        self.cursor = page.cursor();
        !records.is_empty()
    }

    async fn all(&mut self, client: &Client) {
        while self.page(client, "").await {}
    }
}

/// Every word once, in one event.
pub(super) fn each_word() -> String {
    let words: Vec<String> = (0..VOCABULARY).map(|n| format!("w{n}")).collect();
    format!("\"{}\"\n", words.join(" "))
}

/// Waits until each word is counted so often, no more and no less.
pub(super) async fn each_is_counted(client: &Client, times: u64) {
    let expected: BTreeMap<String, u64> =
        (0..VOCABULARY).map(|n| (format!("w{n}"), times)).collect();
    eventually_equal(expected, SOON, || all_counts(client)).await;
}

/// Every count that came out.
async fn all_counts(client: &Client) -> BTreeMap<String, u64> {
    let mut reader = Reader::from_the_oldest();
    reader.all(client).await;
    reader.counts
}

/// Who reads all along by one cursor, through one node after another.
pub(super) struct Following {
    stop: Arc<AtomicBool>,
    reading: JoinSet<Reader>,
}

impl Following {
    pub(super) fn begin(clients: Vec<Client>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut reading = JoinSet::new();
        let told = stop.clone();
        reading.spawn(async move {
            let mut reader = Reader::from_the_oldest();
            let mut turns = clients.iter().cycle();
            while !told.load(Ordering::Acquire) {
                let client = turns.next().expect("there are nodes");
                reader.page(client, "&wait=500ms").await;
                // Not every single event by itself.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            reader
        });
        Self { stop, reading }
    }

    /// Reads on to the end, and has seen all of this by then, each once.
    pub(super) async fn has_seen(self, client: &Client, sent: &BTreeMap<String, u64>) {
        self.stop.store(true, Ordering::Release);
        for mut reader in self.reading.join_all().await {
            reader.all(client).await;
            assert_eq!(reader.counts, *sent, "what one reader saw all along");
        }
    }
}

/// Producers under way.
pub(super) struct Load {
    told: Arc<Told>,
    producers: JoinSet<BTreeMap<String, u64>>,
}

impl Load {
    pub(super) fn begin(clients: Vec<Client>) -> Self {
        let (clients, told) = (Arc::new(clients), Arc::new(Told::default()));
        let mut producers = JoinSet::new();
        for number in 0..4 {
            producers.spawn(produce(clients.clone(), number, told.clone()));
        }
        Self { told, producers }
    }

    /// The longest time so far until a request was answered, or its connection was closed.
    pub(super) fn slowest(&self) -> Duration {
        Duration::from_millis(self.told.slowest_millis.load(Ordering::Relaxed))
    }

    /// Waits until so many more requests were taken.
    pub(super) async fn goes_on(&self, more: u64) {
        let before = self.told.taken.load(Ordering::Relaxed);
        eventually("requests are taken", SOON, || async {
            (self.told.taken.load(Ordering::Relaxed) > before + more).then_some(())
        })
        .await;
    }

    /// Ends it, and holds what came out against what was acknowledged, which it gives.
    pub(super) async fn ends_counted_once(self, client: &Client) -> BTreeMap<String, u64> {
        self.told.stop.store(true, Ordering::Release);
        let mut sent: BTreeMap<String, u64> = BTreeMap::new();
        for (word, count) in self.producers.join_all().await.into_iter().flatten() {
            *sent.entry(word).or_default() += count;
        }
        let total: u64 = sent.values().sum();
        eventually(&format!("{total} words are counted"), SOON, || async {
            (all_counts(client).await.values().sum::<u64>() >= total).then_some(())
        })
        .await;
        // Nor are there more under way.
        eventually("nothing waits any more", SOON, || async {
            let detail = client.describe("words").await;
            let partitions = detail["partition"].as_array().expect("a list");
            partitions.iter().all(|partition| partition["inbox-bytes"] == 0).then_some(())
        })
        .await;
        let counted = all_counts(client).await;
        assert_eq!(counted, sent);
        sent
    }
}
