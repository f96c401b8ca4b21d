//! Exactly-once, simulated: producers, partitions and a log in one thread, with crashes by seed.
//!
//! Hundreds of seeds; `SLUICEBOX_SEEDS=5000` takes more, `SLUICEBOX_SEED=17` one. A failure names
//! its seed. What is checked: every acknowledged event counts once, in order by key and by the key
//! it came from, whatever the number of partitions; state is the fold of what came; outputs and
//! dead letters have no gaps and no doubles.

#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/recovered.rs"]
mod recovered;
#[path = "simulation/stages.rs"]
mod stages;
#[path = "simulation/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use recovered::Checkpoint;
use sluicebox_core::bill::{Books, Group, Item, Prices, Report};
use sluicebox_core::codec::{Record, Usage};
use sluicebox_core::ids::Part;
use sluicebox_core::key::group_of;
use sluicebox_core::recovery::Fold;
use stages::{AUDIT, COUNTS, PIPELINE, TOTALS, is_lost};
use world::World;

const SEEDS: u64 = 300;
const STEPS: usize = 250;

/// Simulates a seed to its end, and gives what happened.
fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    let mut rounds = 0;
    while !world.settle() {
        rounds += 1;
        assert!(rounds < 2000, "it does not come to rest");
    }
    world
}

/// What was sent, word by word: the key group it is split in, the word, the event's id.
fn sent(world: &World) -> Vec<(u16, String, String)> {
    let mut sent = Vec::new();
    for (key, text) in world.producers.iter().flat_map(|p| p.requests.iter().flatten()) {
        let (id, words) = text.split_once(':').expect("an id and words");
        let group = group_of(key.as_bytes());
        for word in words.split_whitespace() {
            sent.push((group, word.to_owned(), id.to_owned()));
        }
    }
    sent
}

fn check(world: &World) {
    let sent = sent(world);
    // Each word counted once, and none that was not sent.
    let mut wanted: Vec<(String, String)> = Vec::new();
    let mut lost: Vec<String> = Vec::new();
    for (_, word, id) in &sent {
        if is_lost(word) {
            lost.push(format!("{word} {id}"));
        } else {
            wanted.push((word.clone(), id.clone()));
        }
    }
    let counts = world.texts(Some(COUNTS)).concat();
    let mut counted: Vec<(String, String)> = Vec::new();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for text in &counts {
        // `word word|id|number`
        let mut parts = text.split(['|', ' ']);
        let mut part = || parts.next().expect("four parts");
        let (word, _, id, number) = (part(), part(), part(), part());
        let last = numbers.entry(word).or_default();
        *last += 1;
        assert_eq!(number, last.to_string(), "counts of {word} come in order");
        counted.push((word.to_owned(), id.to_owned()));
    }
    let sorted = |mut list: Vec<(String, String)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(counted.clone()), sorted(wanted), "each word counts once");
    let mut dead = world.texts(None).concat();
    dead.sort();
    lost.sort();
    assert_eq!(dead, lost, "each lost word is kept once");
    let mut totals: Vec<String> =
        world.texts(Some(TOTALS)).concat().iter().map(|text| text[2..].to_owned()).collect();
    let mut expected: Vec<String> =
        counts.iter().map(|text| text.split_once(' ').expect("a key").1.to_owned()).collect();
    totals.sort();
    expected.sort();
    assert_eq!(totals, expected, "each count is totalled once");
    check_order(world, &sent, &counted);
    check_timers(world);
    check_state(world, &numbers);
}

/// By word and the group they come from, words are counted in the order their requests were taken.
fn check_order(world: &World, sent: &[(u16, String, String)], counted: &[(String, String)]) {
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    for run in world.log.entries.iter().flat_map(|entry| entry.runs()) {
        let (_, header, frame) = run;
        if header.source == sluicebox_core::position::Source::Ingest {
            for event in frame.events() {
                let text = String::from_utf8_lossy(event.payload);
                let id = text.split(':').next().expect("an id").to_owned();
                let place = header.seq as usize * 1000 + order.len();
                order.entry(id).or_insert(place);
            }
        }
    }
    let groups: BTreeSet<u16> = sent.iter().map(|(group, ..)| *group).collect();
    for group in groups {
        let from_here = |word: &str, id: &str| {
            sent.iter().any(|(p, w, i)| (*p, w.as_str(), i.as_str()) == (group, word, id))
        };
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (word, id) in counted.iter().filter(|(word, id)| from_here(word, id)) {
            let place = order[id];
            let before = last.insert(word, place).unwrap_or(0);
            assert!(before <= place, "{word} of {id} was overtaken in group {group}");
        }
    }
}

fn check_state(world: &World, numbers: &BTreeMap<&str, u64>) {
    let (fold, found) = Checkpoint::none().fold(&world.log.entries);
    check_usage(world, &fold);
    check_bill(world, &fold, &found.books);
    let found: BTreeMap<_, _> =
        found.state.into_iter().filter(|(_, state)| !state.is_empty()).collect();
    assert_eq!(world.told(), found, "the records hold the state of the partitions");
    let slots = found.values().flatten();
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    for ((_, key, slot), value) in slots {
        if slot == b"n" {
            let number = u64::from_le_bytes(value.as_slice().try_into().expect("a counter"));
            let word = String::from_utf8(key.clone()).expect("a word");
            assert_eq!(held.insert(word, number), None, "a word is in one partition");
        }
    }
    let wanted = numbers.iter().map(|(word, number)| ((*word).to_owned(), *number));
    assert_eq!(held, wanted.collect(), "counters are the number of words");
}

/// Each timer of each event fired once, and none is left.
fn check_timers(world: &World) {
    let requests = world.producers.iter().flat_map(|p| p.requests.iter().flatten());
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (key, text) in requests {
        let (id, _) = text.split_once(':').expect("an id and words");
        wanted.extend(["e-", "w-"].map(|clock| (key.clone(), format!("{clock}{id}"))));
    }
    wanted.sort();
    let mut fired: Vec<(String, String)> = Vec::new();
    for (stage, key, slot) in world.told().values().flat_map(BTreeMap::keys) {
        let (of, part) = stage.split();
        assert_ne!(part, Part::Timers, "no timer is left");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if of == AUDIT && part == Part::Own && (slot.starts_with(b"e-") || slot.starts_with(b"w-"))
        {
            fired.push((text(key), text(slot)));
        }
    }
    fired.sort();
    assert_eq!(fired, wanted, "each timer fires once");
}

/// What commits used is summed up, whatever was read again and kept between.
fn check_usage(world: &World, fold: &Fold) {
    let mut used = Usage::default();
    for entry in &world.log.entries {
        if let Record::Commit(commit) = entry.record() {
            assert!(commit.usage.fuel > 0, "each commit made calls, or gives up");
            used.add(&commit.usage);
        }
    }
    let mut found = Usage::default();
    fold.pipeline(PIPELINE).expect("applied").usage().values().for_each(|one| found.add(one));
    assert_eq!(found, used);
}

/// The bill is what the records say, stage by stage, and so are its levels.
fn check_bill(world: &World, fold: &Fold, books: &Books) {
    let folded = fold.pipeline(PIPELINE).expect("applied");
    let mut wanted: BTreeMap<Option<String>, [u64; 3]> = BTreeMap::new();
    for entry in &world.log.entries {
        match entry.record() {
            Record::Commit(commit) => {
                for (stage, used) in commit.used() {
                    // As it was called by the version that ran.
                    let name = format!("s{}-v{}", stage.0, commit.head.version);
                    let sum = wanted.entry(Some(name)).or_default();
                    sum[0] += used.fuel;
                    sum[1] += used.events;
                    sum[2] += used.reruns;
                }
            }
            Record::Ingest(ingest) if ingest.replayed.is_empty() => {
                let sum = wanted.entry(None).or_default();
                sum[0] += ingest.runs.iter().map(|run| run.frame.bytes as u64).sum::<u64>();
            }
            _ => {}
        }
    }
    let by_stage = Group { pipelines: true, stages: true, ..Group::default() };
    let prices = Prices::default();
    let report = Report::of(books.lines(folded.tenant()), &(0..u32::MAX), by_stage, &prices);
    let found = report.rows.iter().map(|row| {
        let used = |item| row.used.get(item);
        let amounts = match &row.stage {
            Some(_) => [used(Item::Fuel), used(Item::Events), used(Item::Reruns)],
            None => [used(Item::BytesIn), 0, 0],
        };
        (row.stage.as_ref().map(ToString::to_string), amounts)
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), wanted);
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_acknowledged_event_counts_once_whatever_crashes() {
    let one = variable("SLUICEBOX_SEED");
    let many = variable("SLUICEBOX_SEEDS").unwrap_or(SEEDS);
    let seeds = one.map_or(0..many, |seed| seed..seed + 1);
    let (mut crashes, mut parked, mut expired, mut fired, mut refused) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = run(seed);
            check(&world);
            // What is in the log is all there is.
            world.restart();
            check(&world);
            let lines = |word| world.trace.iter().filter(|line| line.starts_with(word)).count();
            ["crash", "parked", "expired", "fired", "refused"].map(lines)
        });
        let command = "cargo test -p sluicebox-core --test simulation";
        let outcome =
            outcome.unwrap_or_else(|_| panic!("seed {seed}: SLUICEBOX_SEED={seed} {command}"));
        crashes += outcome[0];
        parked += outcome[1];
        expired += outcome[2];
        fired += outcome[3];
        refused += outcome[4];
    }
    assert!(one.is_some() || crashes > 1000, "only {crashes} crashes");
    assert!(one.is_some() || parked > 1000, "only {parked} batches of parked events");
    assert!(one.is_some() || expired > 50, "only {expired} batches of what expired");
    assert!(one.is_some() || fired > 1000, "only {fired} batches of timers");
    assert!(one.is_some() || refused > 1000, "only {refused} batches were refused");
}

#[test]
fn one_seed_gives_one_trace() {
    let bytes = |world: &World| {
        let bodies = world.log.entries.iter().map(|entry| entry.body().to_vec());
        (world.trace.clone(), bodies.collect::<Vec<_>>())
    };
    for seed in [1, 2, 3] {
        assert_eq!(bytes(&run(seed)), bytes(&run(seed)));
    }
    assert_ne!(bytes(&run(1)).0, bytes(&run(2)).0);
}
