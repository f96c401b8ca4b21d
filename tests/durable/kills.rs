//! Killed at any moment, again and again, while producers send and versions are applied.
//!
//! - [`through_kills`] does it with any pipeline ([`Load`]): producers number their requests and
//!   send each until it is acknowledged; what was acknowledged is given back, and whoever calls
//!   holds what came out against it.
//! - Here it is the example that is counted; random pipelines are in `chaos`.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use sluicebox_core::frame::Frame;
use sluicebox_tests::client::{Client, FRAME, TENANT};
use sluicebox_tests::events::{Given, frame};
use sluicebox_tests::node::{Home, Node, Setup};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{COUNTS, Count, Dice, all_counts, count, number, with_words};

/// Kills in a run, unless `SLUICEBOX_KILLS` says otherwise.
const KILLS: u64 = 8;
/// Producers that number their requests.
const PRODUCERS: u64 = 3;
/// Words they choose from.
const VOCABULARY: u64 = 60;

/// A pipeline under load.
pub(super) trait Load: Send + Sync + 'static {
    /// Its name.
    fn pipeline(&self) -> &str;

    /// Uploads what it runs and applies its first version.
    fn begin(&self, client: &Client) -> impl Future<Output = ()> + Send;

    /// The next request of a producer that has sent so many events.
    fn request(&self, producer: u64, sent: u64, dice: &mut Dice) -> Frame;

    /// Another version, to be applied while events flow, if there is to be one.
    fn change(&self, dice: &mut Dice) -> Option<String>;
}

/// How often a node is killed, and how it is set up.
#[derive(Debug, Clone)]
pub(super) struct Run<'a> {
    pub seed: u64,
    pub kills: u64,
    /// It lives so long at most.
    pub millis_max: u64,
    pub settings: &'a [(&'a str, &'a str)],
}

impl Run<'_> {
    /// A node in this directory.
    pub(super) fn setup(&self, home: &Arc<Home>) -> Setup {
        let setup = Setup::dev().home(home);
        self.settings.iter().fold(setup, |setup, (field, value)| setup.set(field, value))
    }

    /// So long it may take at most, on a machine that does much else. The runner's own limit is far
    /// behind it (`.config/nextest.toml`).
    fn patience(&self) -> Duration {
        Duration::from_secs(60 + 5 * self.kills)
    }
}

/// Says with a failure what it takes to see it again.
struct Shown(u64);

impl Drop for Shown {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: again with SLUICEBOX_SEED={0} SLUICEBOX_KILLS=…", self.0);
        }
    }
}

/// Kills a node again and again while producers send and versions are applied; then lets them end.
/// Gives the node, its directory, and by producer all that was sent: each request is acknowledged.
pub(super) async fn through_kills<L: Load>(
    run: &Run<'_>,
    load: &Arc<L>,
) -> (Node, Arc<Home>, Vec<Vec<Frame>>) {
    let _shown = Shown(run.seed);
    let ended = tokio::time::timeout(run.patience(), kill_under(run, load)).await;
    ended.unwrap_or_else(|_| panic!("{} kills took more than {:?}", run.kills, run.patience()))
}

async fn kill_under<L: Load>(run: &Run<'_>, load: &Arc<L>) -> (Node, Arc<Home>, Vec<Vec<Frame>>) {
    let home = Home::new();
    let mut node = run.setup(&home).start().await;
    load.begin(&node.client()).await;
    let (tell, address) = watch::channel(node.address());
    let stop = Arc::new(AtomicBool::new(false));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let pace = (producer, run.kills.max(20));
        producers.spawn(produce(load.clone(), pace, run.seed, address.clone(), stop.clone()));
    }
    let mut applies = JoinSet::new();
    applies.spawn(apply(load.clone(), run.seed, address, stop.clone()));
    let mut dice = Dice(run.seed);
    for _ in 0..run.kills {
        tokio::time::sleep(Duration::from_millis(20 + dice.below(run.millis_max))).await;
        drop(node.kill());
        node = run.setup(&home).start().await;
        tell.send(node.address()).expect("producers run");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = applies.join_next().await {
        ended.expect("applies go on through kills");
    }
    let mut sent = vec![Vec::new(); PRODUCERS as usize];
    while let Some(ended) = producers.join_next().await {
        let (producer, frames) = ended.expect("a producer ends");
        sent[producer as usize] = frames;
    }
    (node, home, sent)
}

/// Sends requests until told to stop, each until it is acknowledged, with a pause of at most so
/// many milliseconds behind each.
async fn produce<L: Load>(
    load: Arc<L>,
    (producer, pause): (u64, u64),
    seed: u64,
    address: watch::Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
) -> (u64, Vec<Frame>) {
    let mut dice = Dice(seed ^ (producer << 32));
    let (mut frames, mut sent) = (Vec::new(), 0);
    let name = format!("producer-{producer}");
    for sequence in 1_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let body = load.request(producer, sent, &mut dice);
        let sequence = sequence.to_string();
        let headers = [
            ("content-type", FRAME),
            ("sluicebox-producer", name.as_str()),
            ("sluicebox-sequence", sequence.as_str()),
        ];
        loop {
            let client = Client::new(*address.borrow(), TENANT, None);
            let reply = client.attempt(load.pipeline(), &headers, body.bytes().clone()).await;
            match reply.as_ref().map(|reply| reply.status) {
                Some(202) => break,
                Some(429 | 503) | None => tokio::time::sleep(Duration::from_millis(5)).await,
                Some(_) => panic!("seed {seed}: {name} request {sequence} got {reply:?}"),
            }
        }
        sent += body.events().count() as u64;
        frames.push(body);
        // No more in all than outputs keep.
        tokio::time::sleep(Duration::from_millis(dice.below(pause))).await;
    }
    (producer, frames)
}

/// Applies versions until told to stop, or until there are no more.
async fn apply<L: Load>(
    load: Arc<L>,
    seed: u64,
    address: watch::Receiver<SocketAddr>,
    stop: Arc<AtomicBool>,
) {
    let mut dice = Dice(!seed);
    while !stop.load(Ordering::Relaxed) {
        let Some(manifest) = load.change(&mut dice) else { return };
        let client = Client::new(*address.borrow(), TENANT, None);
        let reply = client.attempt_apply(load.pipeline(), manifest.clone()).await;
        match reply.as_ref().map(|reply| reply.status) {
            // One that is refused for now, or whose node was killed, is not tried again: another
            // follows.
            Some(200 | 201 | 409 | 429 | 503) | None => {}
            Some(_) => panic!("seed {seed}: {reply:?} to\n{manifest}"),
        }
        tokio::time::sleep(Duration::from_millis(20 + dice.below(200))).await;
    }
}

/// Reads what left by an output, or the dead letters, until so many are there; they are then all.
pub(super) async fn until(
    client: &Client,
    (pipeline, source): (&str, &str),
    total: u64,
    seed: u64,
) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = "oldest".to_owned();
    while (all.len() as u64) < total {
        let query = format!("cursor={cursor}&wait=20s");
        let page = client.page(pipeline, source, &query).await.is(200);
        let records = page.records();
        let found = all.len();
        assert!(!records.is_empty(), "seed {seed}: {found} of {total} of {source}, and no more");
        all.extend(records);
        cursor = page.cursor();
    }
    all
}

/// How often each word was sent in requests that were acknowledged.
pub(super) type Tally = BTreeMap<String, u64>;

/// Another version of the example, chosen with the dice.
pub(super) type Change = fn(&mut Dice) -> Option<String>;

/// The example, and which versions of it are applied.
struct Words(Change);

impl Load for Words {
    fn pipeline(&self) -> &'static str {
        "words"
    }

    async fn begin(&self, client: &Client) {
        with_words(client).await;
    }

    fn request(&self, _: u64, _: u64, dice: &mut Dice) -> Frame {
        let words: Vec<String> =
            (0..=dice.below(400)).map(|_| format!("w{}", dice.below(VOCABULARY))).collect();
        let lines = words.chunks(8).enumerate();
        let events = lines.map(|(at, line)| Given::new(&format!("{at}"), line.join(" ")));
        frame(&events.collect::<Vec<_>>())
    }

    fn change(&self, dice: &mut Dice) -> Option<String> {
        (self.0)(dice)
    }
}

fn tally(sent: &[Vec<Frame>]) -> Tally {
    let mut tally = Tally::new();
    for frame in sent.iter().flatten() {
        for event in frame.events() {
            let text = std::str::from_utf8(event.payload).expect("words");
            for word in text.split(' ') {
                *tally.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    tally
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
    drop(counted_through_kills(&[], 300, |_| None).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_counted_once_through_kills_beside_checkpoints() {
    let home = counted_through_kills(&OFTEN, 1_200, |_| None).await;
    let log = std::fs::read_dir(home.data().join("log")).expect("there is a log");
    let names = log.map(|entry| entry.expect("an entry").file_name().into_string());
    let names: Vec<String> = names.map(|name| name.expect("UTF-8")).collect();
    let first =
        names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<u64>().ok()).min();
    assert!(first.expect("segments") > 1, "the log was never recycled: {names:?}");
}

/// Gives the node's directory.
pub(super) async fn counted_through_kills(
    settings: &[(&str, &str)],
    millis_max: u64,
    change: Change,
) -> Arc<Home> {
    let seed = number("SLUICEBOX_SEED").unwrap_or(20_261_120);
    let kills = number("SLUICEBOX_KILLS").unwrap_or(KILLS);
    let run = Run { seed, kills, millis_max, settings };
    let (node, home, sent) = through_kills(&run, &Arc::new(Words(change))).await;
    let expected = tally(&sent);
    let total: u64 = expected.values().sum();
    let counts = until(&node.client(), ("words", COUNTS), total, seed).await;
    let counts: Vec<Count> = counts.iter().map(count).collect();
    check(seed, &counts, &expected);
    // And once more without a kill in between: what is there is what is kept.
    node.terminate();
    drop(node.ended().await);
    let node = run.setup(&home).start().await;
    assert_eq!(all_counts(&node.client()).await, counts, "seed {seed}");
    drop(node);
    home
}
