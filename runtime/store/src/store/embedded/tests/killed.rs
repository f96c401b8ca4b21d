//! A process that writes checkpoints and is killed at any moment leaves an old or a new horizon.
//!
//! The changes up to each position are a function of the position, so that this process knows what
//! the other one wrote, and can play the part of the log.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

const KILLS: u64 = 24;
const KEYS: u64 = 3_000;
/// Entries in a piece: many pieces in a checkpoint.
const PIECE: usize = 40;
/// Under this prefix everything goes at every seventh position.
const DISCARDED: [u8; 1] = [0x11];

type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn random(seed: u64) -> u64 {
    let hash = blake3::hash(&seed.to_le_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
}

/// What changes at a position.
fn changes_at(position: u64) -> Model {
    let changes = (0..600).map(|n| {
        let number = random(position * 1_000 + n);
        let key = random(number % KEYS).to_be_bytes().to_vec();
        let value = format!("{position} {number} {}", "x".repeat(number as usize % 60));
        (key, (!number.is_multiple_of(5)).then(|| value.into_bytes()))
    });
    changes.collect()
}

fn step(model: &mut Model, position: u64) {
    if position.is_multiple_of(7) {
        model.retain(|key, _| !key.starts_with(&DISCARDED));
    }
    model.extend(changes_at(position));
}

fn write(store: &EmbeddedStore, position: u64) {
    let changes = changes_at(position);
    let change = |(key, value): (&'static Vec<u8>, &'static Option<Vec<u8>>)| Change {
        key,
        value: value.as_deref(),
    };
    let changes: Vec<Change<'_>> = Box::leak(Box::new(changes)).iter().map(change).collect();
    let mut checkpoint = store.begin(position).unwrap();
    if position.is_multiple_of(7) {
        checkpoint.delete_prefixes(&[DISCARDED.to_vec()]).unwrap();
    }
    for piece in changes.chunks(PIECE) {
        checkpoint.write(piece).unwrap();
    }
    checkpoint.commit(&[("position", &position.to_be_bytes())]).unwrap();
}

/// Started, and at work: it has said so.
fn start(bin: &TempDir, dir: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = command(bin, "killed::child_writes_until_it_is_killed", dir, "exec \"$@\"");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The last position that was said to be committed, after the end of the process.
fn last_said(output: BufReader<std::process::ChildStdout>) -> Option<u64> {
    let lines = output.lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).last()
}

#[test]
fn a_kill_at_any_moment_leaves_a_horizon_from_which_the_log_can_go_on() {
    let (bin, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut known, mut at) = (Model::new(), 0);
    let (mut torn, mut slowest) = (0, Duration::ZERO);
    for kill in 0..KILLS {
        let (mut child, mut output) = start(&bin, dir.path());
        let mut line = String::new();
        while !line.contains("committed") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        }
        thread::sleep(Duration::from_micros(random(kill) % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = last_said(output).max(line.trim().rsplit(' ').next().unwrap().parse().ok());
        let start = Instant::now();
        let store = open(dir.path()).unwrap();
        slowest = slowest.max(start.elapsed());
        let Extent { horizon, reach } = store.extent();
        assert!(said.is_some_and(|said| horizon >= said), "{horizon} where {said:?} was said");
        assert!(reach <= horizon + 1);
        let position = store.metadata("position").unwrap();
        assert_eq!(position[..], horizon.to_be_bytes(), "the metadata is of another checkpoint");
        while at < horizon {
            at += 1;
            step(&mut known, at);
        }
        torn += u64::from(reach > horizon && !is(&store, &known));
        if reach > horizon {
            each_is_old_or_new(&store, &known, reach);
            // What the log does: the same changes once more.
            write(&store, reach);
            at = reach;
            step(&mut known, at);
        }
        assert!(is(&store, &known), "kill {kill}: what is stored is not that of {at}");
    }
    assert!(torn >= KILLS / 8, "only {torn} of {KILLS} kills came between two pieces");
    assert!(slowest < Duration::from_secs(2), "opening took {slowest:?}");
}

fn is(store: &EmbeddedStore, known: &Model) -> bool {
    let page = store.scan(b"", b"", ALL).unwrap();
    let expected = known.iter().filter_map(|(k, v)| Some((&k[..], v.as_deref()?)));
    page.entries.iter().map(|(k, v)| (&k[..], &v[..])).eq(expected)
}

/// Before the log is replayed a value is that of the horizon or of the reach, and nothing else.
fn each_is_old_or_new(store: &EmbeddedStore, old: &Model, reach: u64) {
    let mut new = old.clone();
    step(&mut new, reach);
    for key in (0..KEYS).map(|n| random(n).to_be_bytes()) {
        let value = store.get(&key).unwrap().map(|value| value.to_vec());
        let of = |model: &Model| model.get(&key[..]).cloned().flatten();
        let discarded = reach.is_multiple_of(7) && key.starts_with(&DISCARDED) && value.is_none();
        assert!(value == of(old) || value == of(&new) || discarded, "{key:?} is {value:?}");
    }
}

#[test]
fn a_kill_while_it_is_set_up_leaves_a_store_that_opens() {
    let bin = TempDir::new().unwrap();
    for kill in 0..12 {
        let dir = TempDir::new().unwrap();
        let (mut child, output) = start(&bin, dir.path());
        // Not before it has made something, and often before it has made everything.
        while !dir.path().join("lock").exists() {
            thread::yield_now();
        }
        thread::sleep(Duration::from_micros(random(kill) % 12_000));
        child.kill().unwrap();
        child.wait().unwrap();
        drop(output);
        let store = open(dir.path()).unwrap();
        let next = store.extent().reach.max(1);
        write(&store, next);
        assert_eq!(store.extent().horizon, next);
    }
}

#[test]
#[ignore = "the other process of the tests that kill it"]
fn child_writes_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir).unwrap();
    loop {
        let position = store.extent().horizon + 1;
        write(&store, position);
        println!("committed {position}");
    }
}
