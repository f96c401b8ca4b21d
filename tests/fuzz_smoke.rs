//! Runs every fuzz target over its corpus and a few thousand mutations of it, on a stable compiler.
//!
//! The same inputs in every run: mutations follow from a seed. An input that breaks a promise is
//! printed as a Rust byte string, to become a seed in `fuzz/corpus` and a test beside the decoder.

#[path = "../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "the fuzzers use the same file as a library")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use sluicebox_core::frame::{Frame, FrameError, FrameLimits};
use sluicebox_core::pipeline::{Facts, build};
use sluicebox_gpu::wire::{reread_ask, reread_reply};
use sluicebox_node::manifest_text::{Format, parse};
use sluicebox_store::store::{extent_again, keys::Id};

/// Mutated inputs for each target.
const MUTATIONS: u64 = 3000;
/// Changes made to one input, at most.
const CHANGES_MAX: u64 = 6;
/// No input is longer.
const BYTES_MAX: usize = 8192;

/// Values at which lengths and counts tend to break.
const EDGES: [u64; 8] = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF];

/// xorshift64: enough to vary bytes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }
}

fn corpus() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests is a folder of the repository").join("fuzz/corpus")
}

/// The seeds of a target, in order of their names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = corpus().join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry of a folder").path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).expect("a file of the corpus")).collect()
}

/// Changes an input a little; `other` is a second one to take pieces from.
fn mutate(data: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.roll() % CHANGES_MAX {
        if data.is_empty() {
            data.extend_from_slice(other);
            data.push(dice.roll() as u8);
        }
        let at = dice.below(data.len());
        match dice.roll() % 8 {
            0 => data[at] ^= 1 << dice.below(8),
            1 => data[at] = dice.roll() as u8,
            2 => data.insert(at, dice.roll() as u8),
            3 => drop(data.drain(at..(at + 1 + dice.below(8)).min(data.len()))),
            4 => data.truncate(at),
            5 => {
                let edge = EDGES[dice.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][dice.below(4)];
                let end = (at + width).min(data.len());
                data[at..end].copy_from_slice(&edge[..end - at]);
            }
            6 => {
                let from = dice.below(data.len());
                let piece = data[from..(from + 40).min(data.len())].to_vec();
                data.splice(at..at, piece);
            }
            _ if !other.is_empty() => {
                let from = dice.below(other.len());
                let piece = other[from..(from + 40).min(other.len())].to_vec();
                data.splice(at..at, piece);
            }
            _ => data.push(0),
        }
        data.truncate(BYTES_MAX);
    }
}

/// Runs a target on one input; if it panics, says on which.
fn run(name: &str, target: targets::Target, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("see above; {name} broke on b\"{}\"", data.escape_ascii());
    }
}

fn play(name: &str) {
    let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = *found.expect("a target of this name");
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    run(name, target, &[]);
    for seed in &seeds {
        run(name, target, seed);
    }
    mutations(&seeds, |data| run(name, target, data));
}

/// Gives out all mutations of some seeds, the same in every run.
fn mutations(seeds: &[Vec<u8>], mut each: impl FnMut(&[u8])) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for _ in 0..MUTATIONS {
        let mut data = seeds[dice.below(seeds.len())].clone();
        let other = &seeds[dice.below(seeds.len())];
        mutate(&mut data, other, &mut dice);
        each(&data);
    }
}

macro_rules! smoke {
    ($($test:ident: $name:literal;)+) => {
        $(#[test]
        fn $test() {
            play($name);
        })+

        #[test]
        fn every_target_is_played() {
            let names = [$($name),+];
            assert_eq!(names.to_vec(), targets::TARGETS.map(|(name, _)| name).to_vec());
        }
    };
}

smoke! {
    any_bytes_may_come_as_a_frame: "frame";
    any_bytes_may_be_emitted: "emit";
    any_bytes_may_be_state_operations: "state_batch";
    any_bytes_may_be_a_manifest_in_toml: "manifest_toml";
    any_bytes_may_be_a_manifest_in_json: "manifest_json";
    any_payload_may_be_searched_for_a_key: "json_key";
    any_text_may_come_as_a_cursor: "cursor";
    any_bytes_may_be_in_the_tenants_file: "tenants";
    any_text_may_be_in_the_configuration: "config";
    any_text_may_be_given_as_a_name: "names";
    any_bytes_may_be_found_as_a_document: "stored_document";
    any_bytes_may_be_found_as_a_segment: "log_segment";
    any_bytes_may_be_found_as_a_record: "record";
    any_bytes_may_be_found_as_a_key_of_the_store: "store_key";
    any_bytes_may_be_found_as_the_extent_of_the_store: "store_extent";
    any_bytes_may_be_found_as_an_artefact: "artefact";
    any_bytes_may_be_uploaded: "component";
    any_bytes_may_be_found_as_the_head_of_an_image: "image_head";
    any_bytes_may_be_found_in_the_memory_of_a_link: "link_ring";
    any_bytes_may_begin_a_link: "link_hello";
    any_bytes_may_be_said_by_another_node: "message";
    any_bytes_may_be_said_of_a_device: "gpu_packet";
}

#[test]
fn mutations_go_past_the_first_check() {
    let seeds = seeds("frame");
    let mut reached = std::collections::BTreeSet::new();
    mutations(&seeds, |data| {
        let outcome = sluicebox_core::frame::check(data, &FrameLimits::FORMAT);
        let fresh = !seeds.iter().any(|seed| seed == data);
        reached.insert(match outcome {
            Ok(_) if fresh => "good".to_owned(),
            Ok(_) => "as before".to_owned(),
            Err(FrameError::Event { fault, .. }) => format!("{fault:?}"),
            Err(_) => "header".to_owned(),
        });
    });
    for kind in ["good", "header", "Truncated", "Size", "Kind", "KeyUtf8", "Fields"] {
        assert!(reached.contains(kind), "{kind} was never reached, only {reached:?}");
    }
}

#[test]
fn the_good_seeds_are_taken() {
    // A decoder that refuses everything would pass all of the above.
    let good = |target: &str| -> Vec<Vec<u8>> {
        let folder = corpus().join(target);
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let good = entries.filter(|path| path.to_string_lossy().contains("seed-good"));
        good.map(|path| std::fs::read(path).unwrap()).collect()
    };
    for bytes in good("frame") {
        assert!(Frame::parse(bytes.into(), &FrameLimits::FORMAT).is_ok());
    }
    for (folder, format) in [("manifest_toml", Format::Toml), ("manifest_json", Format::Json)] {
        for text in good(folder) {
            build(&parse(&text, format).unwrap(), &Facts::default()).unwrap();
        }
    }
    for bytes in good("component") {
        sluicebox_engine::component::inspect(&bytes, &Default::default()).unwrap();
    }
    for bytes in good("store_key") {
        assert!(Id::decode(&bytes).is_some(), "{}", bytes.escape_ascii());
    }
    for bytes in good("store_extent") {
        assert_eq!(extent_again(&bytes), Some(bytes));
    }
    for bytes in good("link_ring") {
        let played = sluicebox_link::ring::forge::play(&bytes);
        assert!(played.packets > 0 && played.has_header, "{played:?}");
        assert_eq!((played.reader, played.writer), (None, None));
    }
    for bytes in good("link_hello") {
        assert_eq!(sluicebox_link::tls::wire::reread_hello(&bytes), Ok(bytes));
    }
    for bytes in good("message") {
        let message = sluicebox_core::message::Message::decode(&bytes);
        assert!(message.is_ok(), "{}: {message:?}", bytes.escape_ascii());
    }
    for bytes in good("gpu_packet") {
        let again = [reread_ask(&bytes), reread_reply(&bytes)];
        assert!(again.contains(&Ok(bytes)), "{again:?}");
    }
    let all = [
        "frame",
        "manifest_toml",
        "manifest_json",
        "component",
        "store_key",
        "store_extent",
        "link_ring",
        "link_hello",
        "message",
        "gpu_packet",
    ];
    for target in all {
        assert!(!good(target).is_empty(), "{target} has no good seed");
    }
}
