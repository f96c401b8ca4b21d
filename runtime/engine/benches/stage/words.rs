//! Keyed word count on one core: split lines, re-key by word, count in keyed state.
//!
//! Two segments, as the planner cuts `examples/word-count`: lines are made and framed, `split` runs
//! over them, its words go to partitions by key, frames of one partition are put together up to a
//! batch as a mailbox does, and `count` adds each word to its counter and emits the new count. A
//! word is counted when the frame that carries its new count has come out. Afterwards the counters
//! are read back and held against a count made natively.

use std::collections::BTreeMap;

use sluicebox_core::frame::{Frame, FrameBuilder, HEADER_BYTES, Head};
use sluicebox_core::layer::{KeyRule, Spread};
use sluicebox_core::limits::BATCH_EVENTS_MAX;
use sluicebox_core::partition::{Commit, SegmentPlan};
use sluicebox_core::pipeline::Scope;
use sluicebox_engine::tuning::EngineConfig;

use crate::bed::{Bed, Chain, NOW, stage_plan, target};
use crate::clock::{Case, measure, median, take_turns};
use crate::report::{at_least, figure, section};

const ROUNDS: usize = 15;
const PARTITIONS: u16 = 4;
/// Different words, the first ones the most frequent.
const WORDS: u64 = 4096;
/// Lines in a frame: about 2,300 words come of it.
const LINES: usize = 256;
/// Frames of a sample.
const FRAMES: usize = 40;

pub(crate) fn run() {
    section("word count: split, re-key over 4 partitions, count in keyed state; one core");
    let bed = Bed::new(&EngineConfig::small());
    let text = Text::new();
    let mut json = Counting::new(&bed, "word-count-count");
    let mut bytes = Counting::new(&bed, "bench-count");
    let (mut split, mut native) = (Counting::new(&bed, "bench-count"), Native::default());
    let mut cases: Vec<Case<'_>> = vec![
        Box::new(|| json.sample(&bed, &text)),
        Box::new(|| bytes.sample(&bed, &text)),
        Box::new(|| split.split_only(&bed, &text)),
        Box::new(|| native.sample(&text)),
    ];
    let samples = take_turns(ROUNDS, &mut cases);
    drop(cases);
    json.verify(&bed, &text, ROUNDS + 1, |output| {
        let text = String::from_utf8_lossy(output);
        let (_, number) = text.rsplit_once(':').expect("an object that ends with the count");
        number.trim_end_matches('}').parse().expect("a number")
    });
    bytes.verify(&bed, &text, ROUNDS + 1, |output| {
        i64::from_le_bytes(*output.first_chunk().expect("8 bytes"))
    });
    let rate = |samples: &[f64]| 1e3 / median(samples);
    at_least("counts emitted as 8 bytes", rate(&samples[1]), "M words/s", 4.0);
    at_least("counts emitted as JSON (examples/word-count)", rate(&samples[0]), "M words/s", 4.0);
    figure("  of it: making lines, splitting, re-keying", median(&samples[2]), "ns/word");
    figure("  all, 8 bytes", median(&samples[1]), "ns/word");
    figure("  all, JSON", median(&samples[0]), "ns/word");
    figure("native: the same with a hash map, no sandbox", rate(&samples[3]), "M words/s");
}

/// Lines of text, always the same: words of three to nine letters, short ones more often.
struct Text {
    lines: Vec<String>,
    words: u64,
}

impl Text {
    fn new() -> Self {
        let mut random = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut words = 0;
        let mut line = || {
            let mut line = String::new();
            while line.len() < 56 {
                // The product of two even chances: small numbers come often, as in a language.
                let word = (next() % WORDS) * (next() % WORDS) / WORDS;
                if !line.is_empty() {
                    line.push(' ');
                }
                spell(word, &mut line);
                words += 1;
            }
            line
        };
        let lines = (0..LINES).map(|_| line()).collect();
        Self { lines, words }
    }

    fn frame(&self, builder: &mut FrameBuilder) -> Frame {
        for (number, line) in (0..).zip(&self.lines) {
            builder.push(&Head::data(NOW + number), b"text", line.as_bytes(), &[]);
        }
        builder.finish()
    }

    /// How often each word comes in all lines.
    fn counts(&self) -> BTreeMap<&str, i64> {
        let mut counts = BTreeMap::new();
        for word in self.lines.iter().flat_map(|line| line.split(' ')) {
            *counts.entry(word).or_default() += 1;
        }
        counts
    }
}

/// The word of a number: three letters for small ones, up to nine.
fn spell(word: u64, line: &mut String) {
    let letter = |n: u64| char::from(b'a' + (n % 26) as u8);
    line.extend([letter(word), letter(word / 26 + 7), letter(word / 676 + word)]);
    for n in 0..word % 7 {
        line.push(letter(word * (n + 3)));
    }
}

/// The pipeline.
struct Counting {
    split: Chain,
    count: Vec<Chain>,
    /// What waits for each partition of `count`.
    waiting: Vec<FrameBuilder>,
    builder: FrameBuilder,
}

impl Counting {
    fn new(bed: &Bed, counter: &str) -> Self {
        let split =
            stage_plan(Scope::Shared, target(KeyRule::Emitted, Spread::Groups(PARTITIONS)), None);
        let split = SegmentPlan { stages: vec![split] };
        let (split_code, count_code) = (bed.code("word-count-split"), bed.code(counter));
        let chain = |_| bed.chain(&count_code, 1);
        Self {
            split: Chain::new(split, vec![bed.stage(&split_code)]),
            count: (0..PARTITIONS).map(chain).collect(),
            waiting: (0..PARTITIONS).map(|_| FrameBuilder::new()).collect(),
            builder: FrameBuilder::new(),
        }
    }

    /// Nanoseconds a word.
    fn sample(&mut self, bed: &Bed, text: &Text) -> f64 {
        let (counted, took) = measure(|| {
            bed.runtime.block_on(async {
                let mut counted = 0;
                for _ in 0..FRAMES {
                    let commit = self.split.batch(text.frame(&mut self.builder)).await;
                    counted += self.pass_on(commit).await;
                }
                counted + self.flush().await
            })
        });
        assert_eq!(counted, text.words * FRAMES as u64, "words were lost");
        took.cpu / counted as f64
    }

    /// The first segment alone; nanoseconds a word.
    fn split_only(&mut self, bed: &Bed, text: &Text) -> f64 {
        let (words, took) = measure(|| {
            bed.runtime.block_on(async {
                let mut words = 0;
                for _ in 0..FRAMES {
                    let commit = self.split.batch(text.frame(&mut self.builder)).await;
                    words += commit.runs.iter().map(|run| run.frame.len() as u64).sum::<u64>();
                }
                words
            })
        });
        assert_eq!(words, text.words * FRAMES as u64, "words were lost");
        took.cpu / words as f64
    }

    /// Puts runs together by partition, and counts what makes a batch. Gives the counts that came.
    async fn pass_on(&mut self, commit: Commit) -> u64 {
        let mut counted = 0;
        for run in commit.runs {
            let at = usize::from(run.partition);
            if run.frame.len() + self.waiting[at].len() > BATCH_EVENTS_MAX {
                counted += self.count(at).await;
            }
            if run.frame.len() >= BATCH_EVENTS_MAX {
                counted += counts(self.count[at].batch(run.frame).await);
            } else {
                let events = &run.frame.bytes()[HEADER_BYTES..];
                self.waiting[at].push_packed(events, run.frame.len() as u32);
            }
        }
        counted
    }

    async fn flush(&mut self) -> u64 {
        let mut counted = 0;
        for at in 0..self.waiting.len() {
            counted += self.count(at).await;
        }
        counted
    }

    async fn count(&mut self, at: usize) -> u64 {
        if self.waiting[at].is_empty() {
            return 0;
        }
        let frame = self.waiting[at].finish();
        counts(self.count[at].batch(frame).await)
    }

    /// Sends every line once more, and holds the count that comes last for each word against what
    /// it must be after `rounds` samples.
    fn verify(&mut self, bed: &Bed, text: &Text, rounds: usize, read: impl Fn(&[u8]) -> i64) {
        let mut found: BTreeMap<String, i64> = BTreeMap::new();
        bed.runtime.block_on(async {
            let commit = self.split.batch(text.frame(&mut self.builder)).await;
            for run in commit.runs {
                let commit = self.count[usize::from(run.partition)].batch(run.frame).await;
                for event in commit.runs.iter().flat_map(|run| run.frame.events()) {
                    found.insert(event.key_str().to_owned(), read(event.payload));
                }
            }
        });
        let times = (rounds * FRAMES + 1) as i64;
        let expected = text.counts().into_iter().map(|(word, n)| (word.to_owned(), n * times));
        assert_eq!(found, expected.collect(), "the counts are wrong");
    }
}

fn counts(commit: Commit) -> u64 {
    commit.runs.iter().map(|run| run.frame.len() as u64).sum()
}

/// The same work in plain Rust.
#[derive(Default)]
struct Native {
    counts: std::collections::HashMap<String, i64>,
}

impl Native {
    fn sample(&mut self, text: &Text) -> f64 {
        let (counted, took) = measure(|| {
            let mut counted = 0;
            for line in std::iter::repeat_n(&text.lines, FRAMES).flatten() {
                for word in line.split(|c: char| !c.is_alphanumeric()) {
                    let word = word.to_lowercase();
                    let count = self.counts.entry(word).or_default();
                    *count += 1;
                    std::hint::black_box(*count);
                    counted += 1;
                }
            }
            counted
        });
        assert_eq!(counted, text.words * FRAMES as u64);
        took.cpu / counted as f64
    }
}
