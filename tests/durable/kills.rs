//! Killed at any moment, again and again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluicebox_tests::client::{Client, FRAME, TENANT};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::node::{Home, Setup};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{COUNTS, Count, all_counts, count, with_words};

/// Kills in a run, unless `SLUICEBOX_KILLS` says otherwise.
const KILLS: u64 = 8;
/// Producers that number their requests.
const PRODUCERS: u64 = 3;
/// Words they choose from.
const VOCABULARY: u64 = 60;

/// Small numbers drawn from a seed (SplitMix64, Steele et al., 2014).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(super) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How often each word was sent in requests that were acknowledged.
pub(super) type Tally = BTreeMap<String, u64>;

/// Sends requests until told to stop, each until it is acknowledged, with a pause of at most so
/// many milliseconds behind each.
async fn produce(
    (producer, pause): (u64, u64),
    seed: u64,
    address: watch::Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
) -> Tally {
    let mut dice = Dice(seed ^ (producer << 32));
    let mut tally = Tally::new();
    let name = format!("producer-{producer}");
    for sequence in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let words: Vec<String> =
            (0..=dice.below(400)).map(|_| format!("w{}", dice.below(VOCABULARY))).collect();
        let lines = words.chunks(8).enumerate();
        let events = lines.map(|(at, line)| Given::new(&format!("{at}"), line.join(" ")));
        let body = frame(&events.collect::<Vec<_>>());
        let sequence = sequence.to_string();
        let headers = [
            ("content-type", FRAME),
            ("sluicebox-producer", name.as_str()),
            ("sluicebox-sequence", sequence.as_str()),
        ];
        loop {
            let client = Client::new(*address.borrow(), TENANT, None);
            let sent = client.attempt("words", &headers, body.bytes().clone()).await;
            match sent.map(|reply| reply.status) {
                Some(202) => break,
                Some(429 | 503) | None => tokio::time::sleep(Duration::from_millis(5)).await,
                Some(status) => panic!("seed {seed}: {name} request {sequence} got {status}"),
            }
        }
        // No more in all than the output keeps.
        tokio::time::sleep(Duration::from_millis(dice.below(pause))).await;
        for word in words {
            *tally.entry(word).or_default() += 1;
        }
    }
    tally
}

/// Reads the output until so many counts are there.
async fn until(client: &Client, total: u64, seed: u64) -> Vec<Count> {
    let mut counts = Vec::new();
    let mut cursor = "oldest".to_owned();
    while (counts.len() as u64) < total {
        let query = format!("cursor={cursor}&wait=20s");
        let page = client.page("words", COUNTS, &query).await.is(200);
        let records = page.records();
        let found = counts.len();
        assert!(!records.is_empty(), "seed {seed}: {found} of {total} came out, and nothing more");
        counts.extend(records.iter().map(count));
        cursor = page.cursor();
    }
    counts
}

/// Holds what came out against what was taken.
pub(super) fn check(seed: u64, counts: &[Count], expected: &Tally) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut reached = Tally::new();
    for Count { partition, offset, word, count } in counts {
        let expected = next.entry(*partition).or_default();
        assert_eq!(offset, expected, "seed {seed}: offsets of partition {partition} have a gap");
        *expected += 1;
        let last = reached.entry(word.clone()).or_default();
        assert_eq!(*count, *last + 1, "seed {seed}: {word} at {partition}/{offset}");
        *last = *count;
    }
    assert_eq!(&reached, expected, "seed {seed}: each word as often as it was sent");
}

/// Checkpoints all the time, and a log of small files, so that it is recycled again and again.
pub(super) const OFTEN: [(&str, &str); 3] = [
    ("log.checkpoint-interval", "250ms"),
    ("log.segment-bytes", "1MiB"),
    ("log.checkpoint-bytes-per-second", "1GiB"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_once_through_kills() {
    drop(counted_through_kills(&[], 300, None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_once_through_kills_beside_checkpoints() {
    let home = counted_through_kills(&OFTEN, 1_200, None).await;
    let log = std::fs::read_dir(home.data().join("log")).expect("there is a log");
    let names = log.map(|entry| entry.expect("an entry").file_name().into_string());
    let names: Vec<String> = names.map(|name| name.expect("UTF-8")).collect();
    let first =
        names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<u64>().ok()).min();
    assert!(first.expect("segments") > 1, "the log was never recycled: {names:?}");
}

/// The query and the manifest of a version, chosen with the dice.
pub(super) type Change = fn(&mut Dice) -> (String, String);

/// Applies a version chosen with the dice, and another, as long as the node is there.
async fn meddle(client: Client, mut dice: Dice, change: Change) -> Vec<u16> {
    let mut statuses = Vec::new();
    loop {
        let (query, manifest) = change(&mut dice);
        let Some(reply) = client.attempt_put(&format!("pipelines/words{query}"), manifest).await
        else {
            return statuses;
        };
        // A pipeline under load may not come to rest in time; nothing is changed then.
        assert!(matches!(reply.status, 200 | 409 | 503), "{reply:?}");
        statuses.push(reply.status);
        tokio::time::sleep(Duration::from_millis(dice.below(40))).await;
    }
}

/// Kills a node again and again while producers send, each time within so many milliseconds, and
/// while versions are applied, if that is asked for. Gives its directory.
pub(super) async fn counted_through_kills(
    settings: &[(&str, &str)],
    millis_max: u64,
    change: Option<Change>,
) -> Arc<Home> {
    let seed = number("SLUICEBOX_SEED").unwrap_or(20_261_120);
    let kills = number("SLUICEBOX_KILLS").unwrap_or(KILLS);
    let home = Home::new();
    let setup = || {
        let setup = Setup::dev().home(&home);
        settings.iter().fold(setup, |setup, (field, value)| setup.set(field, value))
    };
    let mut node = setup().start().await;
    with_words(&node.client()).await;
    let (tell, address) = watch::channel(node.address());
    let stop = Arc::new(AtomicBool::new(false));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(produce((producer, kills.max(20)), seed, address.clone(), stop.clone()));
    }
    let mut dice = Dice(seed);
    let mut applied = 0;
    for _ in 0..kills {
        let own = Dice(dice.below(u64::MAX));
        let mut meddlers = JoinSet::new();
        if let Some(change) = change {
            meddlers.spawn(meddle(node.client(), own, change));
        }
        tokio::time::sleep(Duration::from_millis(20 + dice.below(millis_max))).await;
        drop(node.kill());
        while let Some(statuses) = meddlers.join_next().await {
            let statuses = statuses.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            applied += statuses.iter().filter(|status| **status == 200).count() as u64;
        }
        node = setup().start().await;
        tell.send(node.address()).expect("producers run");
    }
    assert!(change.is_none() || applied >= kills, "seed {seed}: only {applied} versions");
    stop.store(true, Ordering::Relaxed);
    let mut expected = Tally::new();
    while let Some(tally) = producers.join_next().await {
        for (word, count) in tally.expect("a producer ends") {
            *expected.entry(word).or_default() += count;
        }
    }
    let client = node.client();
    let total: u64 = expected.values().sum();
    let counts = until(&client, total, seed).await;
    check(seed, &counts, &expected);
    // And once more without a kill in between: what is there is what is kept.
    node.terminate();
    drop(node.ended().await);
    let node = setup().start().await;
    assert_eq!(all_counts(&node.client()).await, counts, "seed {seed}");
    drop(node);
    home
}
