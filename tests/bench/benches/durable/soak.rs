//! Words counted for a long time, with a kill every minute: a day in an hour.
//!
//! - First the node is driven as fast as it goes; then at 70 % of that.
//! - Producers number their requests and send each until it is acknowledged, whatever happens to
//!   the node. A reader follows the counts by its cursor and holds every count to be one more than
//!   the last of its word; in the end each word must have come to what was sent of it. So nothing
//!   is missing and nothing is there twice.
//! - Memory and disk are looked at all the time. They are flat if the most of the last third is
//!   about the most of the one before.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use sluicebox_bench::client::{Client, get, with_body};
use sluicebox_bench::events::{self, Batch, FRAME_EVENTS};
use sluicebox_bench::load::all;
use sluicebox_bench::node::{Home, Node, Setup, Tenant, example_manifest};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::COUNT;
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::runtime;
use sluicebox_core::frame::{Frame, FrameLimits};

use super::{BODIES, FRAMES, MIB};

/// Of the rate that was measured.
const SHARE: f64 = 0.7;
/// Most of the last third, by that of the one before.
const GROWTH: f64 = 1.2;
/// What may come and go with chance, in bytes.
const NOISE: f64 = 48.0 * MIB;
const CONNECTIONS: usize = 16;
/// Words sent and not read yet, at most: well below what the output keeps.
const WINDOW: u64 = 400_000;
/// Words that were accepted may take so long until they are counted, a restart included.
const STALL: Duration = Duration::from_secs(60);
/// After a reply that says later, or none.
const PAUSE: Duration = Duration::from_millis(5);
const NAME: &str = "soak";

/// How long everything takes.
struct Times {
    measure: Duration,
    soak: Duration,
    kill_every: Duration,
    look_every: Duration,
}

impl Times {
    const fn of(options: &Options) -> Self {
        let (soak, kill_every) = match (options.quick, options.full) {
            (true, _) => (24, 6),
            (false, false) => (240, 60),
            (false, true) => (3600, 60),
        };
        let soak = match options.minutes {
            Some(minutes) => minutes as u64 * 60,
            None => soak,
        };
        let measure = if options.quick { 3 } else { 15 };
        Self {
            measure: Duration::from_secs(measure),
            soak: Duration::from_secs(soak),
            kill_every: Duration::from_secs(kill_every),
            look_every: Duration::from_secs(if options.full { 10 } else { 2 }),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let times = Times::of(options);
    let home = Arc::new(Home::new()?);
    let node = home.start(&Setup::default())?;
    let mut report = Report::new("Words for a long time, a kill every minute, whole machine");
    let batch = |at: usize| events::text(FRAME_EVENTS, at * 10_007);
    let load = Load::new(node.address, (0..BODIES).map(batch).collect());
    runtime()?.block_on(async {
        apply(&node).await?;
        let senders = all((0..CONNECTIONS).map(|producer| load.send(producer)));
        let course = async {
            let course = load.course(&times, (home.clone(), node), &mut report).await;
            load.ends.set(true);
            course
        };
        let ((), counts, samples) = tokio::try_join!(senders, load.read(), course)?;
        load.compare(&counts)?;
        report.row("words", load.read.get() as f64, "", Target::None);
        report.note("the oracle is clean: each word was counted as often as it was sent, once");
        flat("memory", samples.iter().map(|sample| sample.memory), &mut report);
        flat("disk", samples.iter().map(|sample| sample.log + sample.store), &mut report);
        anyhow::Ok(())
    })
}

async fn apply(node: &Node) -> Result<()> {
    let tenant = Tenant::dev();
    for guest in ["word-count-split", COUNT] {
        node.push(&tenant, guest).await?;
    }
    let manifest = example_manifest("word-count")?
        .replace("name = \"word-count\"", &format!("name = \"{NAME}\""))
        .replace("word-count-count", COUNT)
        .replace("[outputs.counts]", "[outputs.counts]\nretain-bytes = \"256MiB\"");
    node.apply(&tenant, NAME, &manifest).await
}

/// What the node and its directory take at a moment.
struct Sample {
    memory: f64,
    log: f64,
    store: f64,
}

/// What senders, the reader and who kills share; all on one thread.
struct Load {
    address: Cell<SocketAddr>,
    batches: Vec<Batch>,
    /// Words a second.
    rate: Cell<f64>,
    /// Words that may be sent by now, and when that was reckoned.
    allowed: Cell<(f64, Option<Instant>)>,
    sent: Cell<u64>,
    read: Cell<u64>,
    /// How often each batch was acknowledged.
    accepted: RefCell<BTreeMap<usize, u64>>,
    senders: Cell<usize>,
    ends: Cell<bool>,
}

impl Load {
    /// As fast as it goes.
    fn new(address: SocketAddr, batches: Vec<Batch>) -> Self {
        Self {
            address: Cell::new(address),
            batches,
            rate: Cell::new(f64::INFINITY),
            allowed: Cell::default(),
            sent: Cell::default(),
            read: Cell::default(),
            accepted: RefCell::default(),
            senders: Cell::default(),
            ends: Cell::default(),
        }
    }

    /// Sends until it is time to end, each request until it is acknowledged.
    async fn send(&self, producer: usize) -> Result<()> {
        self.senders.set(self.senders.get() + 1);
        let path = Tenant::dev().path(&format!("pipelines/{NAME}/events"));
        let name = format!("producer-{producer}");
        let mut client = None;
        let mut at = producer;
        for sequence in 1_u64.. {
            let batch = &self.batches[at % self.batches.len()];
            if !self.may_send(batch.tally.events).await {
                break;
            }
            let sequence = sequence.to_string();
            let headers = [
                ("content-type", FRAMES),
                ("sluicebox-producer", name.as_str()),
                ("sluicebox-sequence", sequence.as_str()),
            ];
            let request = with_body("POST", &path, &headers, &batch.body);
            while !self.acknowledged(&mut client, &request).await? {
                tokio::time::sleep(PAUSE).await;
            }
            *self.accepted.borrow_mut().entry(at % self.batches.len()).or_default() += 1;
            at += CONNECTIONS + 1;
        }
        self.senders.set(self.senders.get() - 1);
        Ok(())
    }

    /// Waits until so many words may be sent. False if it is time to end.
    async fn may_send(&self, words: u64) -> bool {
        loop {
            if self.ends.get() {
                return false;
            }
            let (mut allowed, before) = self.allowed.get();
            let now = Instant::now();
            let passed = before.map_or(Duration::ZERO, |before| now - before);
            // What was not sent while the node was away is not made up for: no more than a second.
            allowed = (allowed + self.rate.get() * passed.as_secs_f64()).min(self.rate.get());
            let is_near = self.sent.get() + words <= self.read.get() + WINDOW;
            if is_near && allowed >= words as f64 {
                // From no limit to one there is no difference to go on from.
                let rest = if allowed.is_finite() { allowed - words as f64 } else { allowed };
                self.allowed.set((rest, Some(now)));
                self.sent.set(self.sent.get() + words);
                return true;
            }
            self.allowed.set((allowed, Some(now)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// False if the node says later, or is not there.
    async fn acknowledged(&self, known: &mut Option<Client>, request: &Bytes) -> Result<bool> {
        let Some(mut client) = self.client(known).await else { return Ok(false) };
        let Ok(reply) = client.ask(request).await else { return Ok(false) };
        let is_taken = match reply.status {
            202 => true,
            429 | 503 => false,
            _ => return Err(reply.unexpected().into()),
        };
        if !reply.closes() {
            *known = Some(client);
        }
        Ok(is_taken)
    }

    /// The connection there is, or a new one, to the node that runs now.
    async fn client(&self, known: &mut Option<Client>) -> Option<Client> {
        match known.take() {
            Some(client) => Some(client),
            None => Client::connect(self.address.get()).await.ok(),
        }
    }

    /// Follows the counts until all senders have ended and everything has come. Gives what each
    /// word came to.
    async fn read(&self) -> Result<HashMap<Box<[u8]>, u64>> {
        let mut counts = HashMap::new();
        let mut cursor = "oldest".to_owned();
        let (mut known, mut last) = (None, Instant::now());
        while !(self.ends.get() && self.senders.get() == 0 && self.read.get() == self.sent.get()) {
            ensure!(last.elapsed() < STALL, "words went in and did not come out");
            let query = format!("wait=100ms&cursor={cursor}");
            let path = format!("pipelines/{NAME}/outputs/counts?{query}");
            let request = get(&Tenant::dev().path(&path), &[("accept", FRAMES)]);
            let Some(mut client) = self.client(&mut known).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Ok(reply) = client.ask(&request).await else { continue };
            if reply.status == 503 {
                continue;
            }
            ensure!(reply.status == 200, reply.unexpected());
            let next = reply.header("sluicebox-cursor").context("a page without a cursor")?;
            next.clone_into(&mut cursor);
            let words = follow(Bytes::copy_from_slice(reply.body), &mut counts)?;
            self.read.set(self.read.get() + words);
            if words > 0 {
                last = Instant::now();
            }
            known = Some(client);
        }
        Ok(counts)
    }

    /// Finds the rate, then goes on at a share of it, with kills. Gives what was seen.
    async fn course(
        &self,
        times: &Times,
        (home, mut node): (Arc<Home>, Node),
        report: &mut Report,
    ) -> Result<Vec<Sample>> {
        tokio::time::sleep(times.measure / 3).await;
        let measured = self.words_a_second(times.measure).await;
        report.row("words a second, as fast as it goes", measured, "/s", Target::None);
        self.allowed.set((0.0, None));
        self.rate.set(measured * SHARE);
        let begun = Instant::now();
        let (mut killed, mut samples, mut away) = (0, Vec::new(), Duration::ZERO);
        while begun.elapsed() < times.soak {
            let rate = self.words_a_second(times.look_every).await;
            let sample = Sample {
                memory: node.process.resident_bytes()? as f64,
                log: bytes_in(&home.path().join("data/log")),
                store: bytes_in(&home.path().join("data/store")),
            };
            let shown = [sample.memory, sample.log, sample.store].map(|bytes| number(bytes / MIB));
            let [memory, log, store] = shown;
            let at = begun.elapsed().as_secs();
            let rate = number(rate);
            report
                .note(&format!("{at:>5} s {rate:>10}/s; MiB: {memory}, log {log}, store {store}"));
            samples.push(sample);
            if begun.elapsed() >= times.kill_every * (killed + 1) {
                killed += 1;
                let (again, home) = (Instant::now(), home.clone());
                node.process.kill()?;
                // Senders and the reader go on meanwhile, and find nobody.
                let start = move || home.start(&Setup::default());
                node = tokio::task::spawn_blocking(start).await??;
                self.address.set(node.address);
                away = away.max(again.elapsed());
            }
        }
        report.row("kills", f64::from(killed), "", Target::None);
        report.row("the longest from a kill to ready", away.as_secs_f64(), " s", Target::None);
        // The node has to live until all is read.
        self.ends.set(true);
        while self.senders.get() > 0 || self.read.get() < self.sent.get() {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(samples)
    }

    /// Words that come out in a second, over some time.
    async fn words_a_second(&self, time: Duration) -> f64 {
        let (before, begun) = (self.read.get(), Instant::now());
        tokio::time::sleep(time).await;
        (self.read.get() - before) as f64 / begun.elapsed().as_secs_f64()
    }

    /// Holds what each word came to against what was acknowledged.
    fn compare(&self, counts: &HashMap<Box<[u8]>, u64>) -> Result<()> {
        let mut expected: HashMap<Box<[u8]>, u64> = HashMap::new();
        for (at, times) in self.accepted.borrow().iter() {
            each_frame(self.batches[*at].body.clone(), |frame| {
                for event in frame.events() {
                    for word in event.payload.split(|byte| *byte == b' ') {
                        *expected.entry(word.into()).or_default() += times;
                    }
                }
                Ok(())
            })?;
        }
        ensure!(*counts == expected, "words were lost or doubled");
        Ok(())
    }
}

/// Takes a page of counts, each of which is one more than the last of its word. Gives how many.
fn follow(page: Bytes, counts: &mut HashMap<Box<[u8]>, u64>) -> Result<u64> {
    let mut words = 0;
    each_frame(page, |frame| {
        for event in frame.events() {
            let found = event.payload.first_chunk().map(|count| u64::from_le_bytes(*count));
            let count = match counts.get_mut(event.key) {
                Some(count) => count,
                None => counts.entry(event.key.into()).or_default(),
            };
            *count += 1;
            let word = event.key_str();
            ensure!(found == Some(*count), "{word} came to {found:?} in the place of {count}");
            words += 1;
        }
        Ok(())
    })?;
    Ok(words)
}

/// Does something with each of the frames that lie one behind the other.
fn each_frame(mut rest: Bytes, mut act: impl FnMut(&Frame) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let length = rest.get(12..16).context("a frame is cut off")?;
        let length = u32::from_le_bytes(length.try_into()?) as usize;
        ensure!((1..=rest.len()).contains(&length), "a frame is cut off");
        act(&Frame::parse(rest.split_to(length), &FrameLimits::FORMAT)?)?;
    }
    Ok(())
}

/// Bytes that the files below a folder take on the disk. Files come and go meanwhile.
fn bytes_in(folder: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0.0 };
    let bytes = |path: &Path| match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => bytes_in(path),
        Ok(found) => found.blocks() as f64 * 512.0,
        Err(_) => 0.0,
    };
    entries.flatten().map(|entry| bytes(&entry.path())).sum()
}

/// Says whether the most of the last third is about that of the one before.
fn flat(what: &str, samples: impl Iterator<Item = f64>, report: &mut Report) {
    let samples: Vec<f64> = samples.collect();
    let third = samples.len() / 3;
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (before, last) = (most(&samples[third..2 * third]), most(&samples[2 * third..]));
    report.row(&format!("{what}, the most"), most(&samples) / MIB, " MiB", Target::None);
    let growth = (last - NOISE).max(0.0) / before.max(1.0);
    let row = format!("{what}: last third by the one before, less 48 MiB");
    report.row(&row, growth, "", Target::AtMost(GROWTH));
}
