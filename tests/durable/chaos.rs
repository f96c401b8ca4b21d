//! Random pipelines under load, killed at any moment, also in checkpoints and in applies.
//!
//! - A pipeline is made from a seed: one to four stages that copy, re-key or count, joined by edges
//!   that keep or change the key, with fan-out and stages that are fed twice, in some partitions.
//! - Events carry what each stage shall do with them, a number of their own as their time, and are
//!   rejected, retried and trapped now and then.
//! - While it runs, other versions are applied: see [`Change`].
//! - [`Model`] says what has to come of each event. Outputs and dead letters are held against it:
//!   nothing is missing, nothing there twice; of each key, events that went the same way are in the
//!   order in which their producer sent them; counts are those of the fold.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sluicebox_core::frame::{Event, Frame, FrameBuilder, Head};
use sluicebox_core::key;
use sluicebox_tests::client::{Client, payload};

use super::kills::{Load, OFTEN, Run, through_kills, until};
use super::{Dice, number};

/// Kills in all, unless `SLUICEBOX_KILLS` says otherwise.
const KILLS: u64 = 12;
/// Kills of one pipeline; then comes another.
const KILLS_EACH: u64 = 6;
/// Keys events are sent and re-keyed with.
const KEYS: u64 = 30;
/// Most stages of a pipeline, and so most commands an event can meet.
const STAGES: u64 = 4;
/// A number is this far up in the time of its event; stages may change what is below.
const NUMBER_BITS: u32 = 10;
/// Numbers of one producer.
const NUMBERS: u64 = 1 << 22;

const NAME: &str = "chaos";

/// What a stage does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Emits the payload again.
    Copy,
    /// Takes the first command off the payload: emits the rest with another key, or fails.
    Command,
    /// Counts events by key, and emits the count.
    Count,
}

impl Act {
    /// Programs that do it, whichever is used.
    const fn components(self) -> &'static [&'static str] {
        match self {
            Self::Copy => &["hostile/echo", "bench-map"],
            Self::Command => &["conformance-rust", "conformance-c", "conformance-wat"],
            Self::Count => &["bench-count"],
        }
    }
}

/// A stage, and where what it emits goes.
#[derive(Debug, Clone)]
struct Stage {
    act: Act,
    /// Stages it feeds, and whether by the key it emits.
    edges: Vec<(usize, bool)>,
    has_output: bool,
    /// Behind a stage that counts: payloads are counts.
    is_counted: bool,
}

/// A pipeline, and what has to come of what is sent to it.
#[derive(Debug)]
struct Model {
    /// Partitions, or none if their number changes.
    partitions: Option<u16>,
    stages: Vec<Stage>,
    /// Where events enter.
    ingest: Vec<usize>,
    /// What may change of a version.
    version: Mutex<Version>,
    versions: AtomicU64,
}

/// What a version can have in another way without any event noticing.
#[derive(Debug, Clone, Default)]
struct Version {
    /// Which of the components, by stage.
    components: Vec<usize>,
    retries: u64,
    generation: u64,
    partitions: u16,
}

/// What can be applied while events flow.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Another program in the place of a stage's.
    Component,
    /// Another setting of all stages.
    Config,
    /// Another number of partitions, where that changes.
    Partitions,
}

const CHANGES: [Change; 3] = [Change::Component, Change::Config, Change::Partitions];

/// Most partitions of a pipeline, and most of one whose number of them changes.
const PARTITIONS: u64 = 4;
const PARTITIONS_CHANGING: u64 = 7;

impl Model {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = 1 + dice.below(STAGES) as usize;
        let partitions = 1 + dice.below(PARTITIONS) as u16;
        let mut stages: Vec<Stage> = Vec::new();
        let mut ingest = vec![0];
        for at in 0..count {
            let parents = parents(at, &stages, &mut dice);
            let is_counted = parents.iter().any(|parent| {
                let parent = &stages[*parent];
                parent.is_counted || parent.act == Act::Count
            });
            let act = match dice.below(3) {
                _ if is_counted => Act::Copy,
                0 => Act::Copy,
                1 => Act::Command,
                _ => Act::Count,
            };
            if at > 0 && parents.is_empty() {
                ingest.push(at);
            }
            for parent in parents {
                let parent = &mut stages[parent];
                let is_keyed = parent.act == Act::Command && dice.below(3) > 0;
                parent.edges.push((at, is_keyed));
            }
            let has_output = act == Act::Count || dice.below(3) == 0;
            stages.push(Stage { act, edges: Vec::new(), has_output, is_counted });
        }
        for stage in &mut stages {
            stage.has_output |= stage.edges.is_empty();
        }
        let components = vec![0; count];
        let version = Version { components, retries: 3, generation: 0, partitions };
        let partitions = (dice.below(2) == 0).then_some(partitions);
        Self { partitions, stages, ingest, version: Mutex::new(version), versions: 1.into() }
    }

    /// The manifest of the version there is.
    fn manifest(&self) -> String {
        let version = self.version.lock().expect("nobody fails with it").clone();
        let entries: Vec<String> = self.ingest.iter().map(|at| format!("s{at}")).collect();
        let mut text = format!(
            "version = 1\nname = \"{NAME}\"\ndelivery = \"exactly-once\"\npartitions = {}\n\
             [ingest]\nto = {entries:?}\n",
            version.partitions
        );
        for (at, stage) in self.stages.iter().enumerate() {
            let component = stage.act.components()[version.components[at]];
            let component = component.rsplit('/').next().expect("a name");
            text += &format!(
                "[stages.s{at}]\ncomponent = \"{component}\"\nretries = {}\n\
                 config = {{ generation = \"{}\" }}\n",
                version.retries, version.generation
            );
            if stage.has_output {
                let of = format!("[outputs.o{at}]\nfrom = \"s{at}\"\n");
                text += &(of + "retain-bytes = \"256MiB\"\n");
            }
        }
        for (from, stage) in self.stages.iter().enumerate() {
            for (to, is_keyed) in &stage.edges {
                let key = if *is_keyed { "emitted" } else { "cause" };
                text += &format!("[[edges]]\nfrom = \"s{from}\"\nto = \"s{to}\"\n");
                text += &format!("key = \"{key}\"\n");
            }
        }
        text
    }

    /// What comes of an event that arrives at a stage.
    fn arrive(&self, at: usize, mut given: Given, expected: &mut Expected) {
        let stage = &self.stages[at];
        let group = key::group_of(given.key.as_bytes());
        // Keys of one group share a partition, however many there are.
        let place = self.partitions.map_or(group, |number| key::partition_of(group, number));
        given.way.push((at, place));
        let mut emitted = given.key.clone();
        match stage.act {
            Act::Copy => {}
            Act::Count => given.payload.clear(),
            Act::Command => match given.payload.split_first() {
                Some((b'k', rest)) => {
                    let (key, rest) = rest[1..].split_at(rest[0].into());
                    emitted = String::from_utf8(key.to_vec()).expect("a key of ours");
                    given.payload = rest.to_vec();
                }
                _ => {
                    let dead = (at, given.key, given.payload, given.number);
                    *expected.dead.entry(dead).or_default() += 1;
                    return;
                }
            },
        }
        if stage.has_output {
            expected.came_out(at, &given);
        }
        for (to, is_keyed) in &stage.edges {
            let key = if *is_keyed { &emitted } else { &given.key };
            self.arrive(*to, Given { key: key.clone(), ..given.clone() }, expected);
        }
    }

    /// What has to come of all of these.
    fn expect(&self, sent: &[Vec<Frame>]) -> Expected {
        let mut expected = Expected::default();
        for event in sent.iter().flatten().flat_map(|frame| frame.events().collect::<Vec<_>>()) {
            for at in &self.ingest {
                self.arrive(*at, Given::of(&event), &mut expected);
            }
        }
        expected
    }
}

/// Stages that feed the next one: one, or two, or none if it is fed by ingest.
fn parents(at: usize, stages: &[Stage], dice: &mut Dice) -> Vec<usize> {
    if at == 0 || dice.below(8) == 0 {
        return Vec::new();
    }
    let first = dice.below(at as u64) as usize;
    let mut parents = vec![first];
    let second = dice.below(at as u64) as usize;
    let is_plain = |at: usize| stages[at].act != Act::Count && !stages[at].is_counted;
    // Counts and what was counted do not mix.
    if second != first && dice.below(2) == 0 && is_plain(first) && is_plain(second) {
        parents.push(second);
    }
    parents
}

/// Where an event has been: stages, and of each the partition, or what always shares one.
type Way = Vec<(usize, u16)>;

/// An event as the model sees it.
#[derive(Debug, Clone)]
struct Given {
    key: String,
    payload: Vec<u8>,
    number: u64,
    way: Way,
}

impl Given {
    fn of(event: &Event<'_>) -> Self {
        let (key, payload) = (event.key_str().to_owned(), event.payload.to_vec());
        Self { key, payload, number: event.head.time >> NUMBER_BITS, way: Way::new() }
    }
}

/// Key, number, and payload if it is none that was counted.
type Out = (String, u64, Vec<u8>);

/// What has to come out.
#[derive(Debug, Default)]
struct Expected {
    outputs: BTreeMap<usize, BTreeMap<Out, u64>>,
    /// The ways by which a number comes to an output under a key.
    ways: BTreeMap<(usize, String, u64), Vec<Way>>,
    /// Stage, key, payload, number.
    dead: BTreeMap<(usize, String, Vec<u8>, u64), u64>,
}

impl Expected {
    fn came_out(&mut self, at: usize, given: &Given) {
        let out = (given.key.clone(), given.number, given.payload.clone());
        *self.outputs.entry(at).or_default().entry(out).or_default() += 1;
        let ways = self.ways.entry((at, given.key.clone(), given.number)).or_default();
        ways.push(given.way.clone());
        ways.sort();
    }
}

impl Load for Model {
    fn pipeline(&self) -> &'static str {
        NAME
    }

    async fn begin(&self, client: &Client) {
        for act in [Act::Copy, Act::Command, Act::Count] {
            for component in act.components() {
                client.push(component).await;
            }
        }
        client.apply(NAME, self.manifest()).await;
    }

    fn request(&self, producer: u64, sent: u64, dice: &mut Dice) -> Frame {
        let mut builder = FrameBuilder::new();
        for at in 0..=dice.below(60) {
            // A time of zero would be none.
            let number = producer * NUMBERS + 1 + sent + at;
            let key = format!("w{}", dice.below(KEYS));
            let mut payload = Vec::new();
            for _ in 0..STAGES {
                if !command(&mut payload, dice) {
                    break;
                }
            }
            builder.push(&Head::data(number << NUMBER_BITS), key.as_bytes(), &payload, &[]);
        }
        builder.finish()
    }

    fn change(&self, dice: &mut Dice) -> Option<String> {
        let mut version = self.version.lock().expect("nobody fails with it");
        match CHANGES[dice.below(CHANGES.len() as u64) as usize] {
            Change::Component => {
                let at = dice.below(self.stages.len() as u64) as usize;
                let choices = self.stages[at].act.components().len() as u64;
                version.components[at] = dice.below(choices) as usize;
            }
            Change::Config => {
                version.retries = 1 + dice.below(3);
                version.generation = self.versions.fetch_add(1, Ordering::Relaxed);
            }
            Change::Partitions if self.partitions.is_some() => return None,
            Change::Partitions => {
                version.partitions = 1 + dice.below(PARTITIONS_CHANGING) as u16;
            }
        }
        drop(version);
        Some(self.manifest())
    }
}

/// Adds what a stage that takes commands shall do; false if the event ends there.
fn command(payload: &mut Vec<u8>, dice: &mut Dice) -> bool {
    match dice.below(200) {
        0..3 => payload.extend_from_slice(b"xrejected"),
        3 => payload.extend_from_slice(b"rtried again"),
        4 => payload.extend_from_slice(b"t"),
        5 => {}
        _ => {
            let key = format!("w{}", dice.below(KEYS));
            payload.extend_from_slice(&[b'k', key.len() as u8]);
            payload.extend_from_slice(key.as_bytes());
            return true;
        }
    }
    false
}

/// A record of an output or of the dead letters.
struct Found {
    partition: u64,
    offset: u64,
    key: String,
    number: u64,
    payload: Vec<u8>,
}

impl Found {
    fn of(record: &Value) -> Self {
        let number = |value: &Value| value.as_u64().expect("a number");
        Self {
            partition: number(&record["partition"]),
            offset: number(&record["offset"]),
            key: record["key"].as_str().expect("a key").to_owned(),
            number: number_of(record["time"].as_str().expect("a time")),
            payload: payload(record),
        }
    }
}

/// The number in a time of the first of January 1970, on which all of this happens.
fn number_of(time: &str) -> u64 {
    let clock = time.strip_prefix("1970-01-01T").and_then(|time| time.strip_suffix('Z'));
    let clock = clock.unwrap_or_else(|| panic!("no time of ours: {time}"));
    let part = |range: std::ops::Range<usize>| clock[range].parse::<u64>().expect("digits");
    let seconds = (part(0..2) * 60 + part(3..5)) * 60 + part(6..8);
    (seconds * 1_000_000 + part(9..15)) >> NUMBER_BITS
}

/// Holds an output against what had to come out by it.
fn check_output(model: &Model, at: usize, found: &[Found], expected: &Expected) {
    let stage = &model.stages[at];
    let is_count = stage.act == Act::Count || stage.is_counted;
    let mut offsets: BTreeMap<u64, u64> = BTreeMap::new();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut outs: BTreeMap<Out, u64> = BTreeMap::new();
    // How often each number came, and the last that came so often on the same ways.
    let mut times: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut last: BTreeMap<(&str, u64, &Vec<Way>, u64), u64> = BTreeMap::new();
    for Found { partition, offset, key, number, payload } in found {
        let next = offsets.entry(*partition).or_default();
        assert_eq!(offset, next, "o{at}: offsets of partition {partition} have a gap");
        *next += 1;
        let mut payload = payload.clone();
        if is_count {
            let count = counts.entry(key).or_default();
            *count += 1;
            assert_eq!(payload, count.to_le_bytes(), "o{at}: count {count} of {key}");
            payload.clear();
        }
        let here = (at, key.clone(), *number);
        let ways = expected.ways.get(&here);
        let ways = ways.unwrap_or_else(|| panic!("o{at}: nobody sent {number} for {key}"));
        let nth = times.entry((key, *number)).or_default();
        *nth += 1;
        let before = last.insert((key, number / NUMBERS, ways, *nth), *number);
        let in_order = before.is_none_or(|before| before < *number);
        assert!(in_order, "o{at}: {number} of {key} came behind {before:?}");
        *outs.entry((key.clone(), *number, payload)).or_default() += 1;
    }
    let none = BTreeMap::new();
    same(&format!("o{at}"), &outs, expected.outputs.get(&at).unwrap_or(&none));
}

/// Says which ones differ, and not all of them.
fn same<K: Ord + std::fmt::Debug>(what: &str, found: &BTreeMap<K, u64>, sent: &BTreeMap<K, u64>) {
    let missing = sent.iter().filter(|(out, times)| found.get(out).unwrap_or(&0) < times);
    let missing: Vec<_> = missing.take(5).collect();
    let doubled = found.iter().filter(|(out, times)| sent.get(out).unwrap_or(&0) < times);
    let doubled: Vec<_> = doubled.take(5).collect();
    assert!(missing.is_empty() && doubled.is_empty(), "{what}: {missing:?} / {doubled:?}");
}

/// Everything that came out of a pipeline, checked. Gives how much.
async fn check(client: &Client, model: &Model, expected: &Expected, seed: u64) -> u64 {
    let mut total = 0;
    for (at, _) in model.stages.iter().enumerate().filter(|(_, stage)| stage.has_output) {
        let wanted = expected.outputs.get(&at).map_or(0, |outs| outs.values().sum());
        let source = format!("outputs/o{at}");
        let found = until(client, (NAME, &source), wanted, seed).await;
        let found: Vec<Found> = found.iter().map(Found::of).collect();
        check_output(model, at, &found, expected);
        total += wanted;
    }
    let wanted = expected.dead.values().sum();
    let records = until(client, (NAME, "dead-letters"), wanted, seed).await;
    let mut dead = BTreeMap::new();
    for record in &records {
        let stage = record["stage"].as_str().and_then(|stage| stage[1..].parse().ok());
        let Found { key, payload, number, .. } = Found::of(record);
        *dead.entry((stage.expect("a stage of ours"), key, payload, number)).or_default() += 1;
    }
    same("dead letters", &dead, &expected.dead);
    total + wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_pipelines_do_what_they_should_through_kills() {
    let first = number("SLUICEBOX_SEED").unwrap_or(20_261_120);
    let kills = number("SLUICEBOX_KILLS").unwrap_or(KILLS);
    let mut settings = OFTEN.to_vec();
    settings.push(("log.checkpoint-log-bytes", "1MiB"));
    settings.push(("limits.dead-letter-bytes", "64MiB"));
    for round in 0..kills.div_ceil(KILLS_EACH) {
        let kills = KILLS_EACH.min(kills - round * KILLS_EACH);
        let seed = first + round;
        let run = Run { seed, kills, millis_max: 400, settings: &settings };
        one(&run).await;
    }
}

/// One pipeline, killed and checked, and checked again behind a restart.
async fn one(run: &Run<'_>) {
    let seed = run.seed;
    let model = std::sync::Arc::new(Model::new(seed));
    let (node, home, sent) = through_kills(run, &model).await;
    let expected = model.expect(&sent);
    let total = check(&node.client(), &model, &expected, seed).await;
    let versions = node.client().describe(NAME).await["version"].clone();
    shown(&format!("seed {seed}: {total} results of {:?}, version {versions}", model.stages));
    drop(node.kill());
    let node = run.setup(&home).start().await;
    let again = check(&node.client(), &model, &expected, seed).await;
    assert_eq!(again, total, "seed {seed}");
}

#[expect(clippy::print_stderr, reason = "who runs it with --nocapture wants to see that it does")]
fn shown(line: &str) {
    eprintln!("{line}");
}
