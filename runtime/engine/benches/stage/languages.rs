//! The same two stages in each language: one emits each event's payload, the other counts the
//! words of each payload in keyed state and emits the new counts.
//!
//! Guests that were not built are left out, so that one language can be looked at alone:
//! `conformance-<language>` for the first (its command `e`), `bench-words-<language>` for the
//! second.

use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_engine::tuning::EngineConfig;

use crate::bed::{Bed, Chain, is_built};
use crate::clock::{Case, measure, median, take_turns};
use crate::events::FRAME_EVENTS;
use crate::report::{figure, section};

const ROUNDS: usize = 9;
const BATCHES: usize = 20;
/// As many as in the trial that chose the languages, eleven.
const TEXT: &str = "the quick brown fox jumps over the lazy dog and runs";
const WORDS: usize = 11;
/// The first two are one language in both worlds.
const GUESTS: [&str; 8] = ["rust", "typed", "c", "go", "python", "js", "js-typed", "wat"];

pub(crate) fn run() {
    section("languages: calls of 256 events of one stage, nanoseconds an event; one core");
    let bed = Bed::new(&EngineConfig::small());
    let echoed = format!("e{TEXT}{TEXT}");
    compare(&bed, "conformance", &echoed, 1);
    compare(&bed, "bench-words", TEXT, WORDS);
}

fn compare(bed: &Bed, stage: &str, payload: &str, outputs: usize) {
    let named = GUESTS.iter().map(|language| format!("{stage}-{language}"));
    let guests: Vec<String> = named.filter(|guest| is_built(guest)).collect();
    let frame = &frame(payload);
    let chain = |guest: &String| bed.chain(&bed.code(guest), 1);
    let mut chains: Vec<Chain> = guests.iter().map(chain).collect();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for chain in &mut chains {
        cases.push(Box::new(move || sample(bed, chain, frame, outputs)));
    }
    let samples = take_turns(ROUNDS, &mut cases);
    for (guest, samples) in guests.iter().zip(&samples) {
        figure(guest, median(samples), "ns/event");
    }
}

/// Nanoseconds an event.
fn sample(bed: &Bed, chain: &mut Chain, frame: &Frame, outputs: usize) -> f64 {
    let (events, took) = measure(|| {
        bed.runtime.block_on(async {
            let mut events = 0;
            for _ in 0..BATCHES {
                let commit = chain.batch(frame.clone()).await;
                events += commit.runs.iter().map(|run| run.frame.len()).sum::<usize>();
            }
            events
        })
    });
    assert_eq!(events, BATCHES * FRAME_EVENTS * outputs, "events were lost");
    took.cpu / (BATCHES * FRAME_EVENTS) as f64
}

fn frame(payload: &str) -> Frame {
    let mut builder = FrameBuilder::new();
    for number in 0..FRAME_EVENTS as u64 {
        builder.push(&Head::data(number), b"key", payload.as_bytes(), &[]);
    }
    builder.finish()
}
