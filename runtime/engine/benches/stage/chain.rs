//! What one more stage in a segment costs an event.

use std::sync::Arc;

use sluicebox_core::frame::Frame;
use sluicebox_core::layer::Layer;
use sluicebox_core::partition::Verdict;
use sluicebox_core::pipeline::Scope;
use sluicebox_engine::invoker::Invoker;
use sluicebox_engine::native::NativeStage;
use sluicebox_engine::stage::StageCode;
use sluicebox_engine::tuning::EngineConfig;

use crate::bed::{Bed, Chain, chain_plan};
use crate::clock::{Case, measure, median, take_turns};
use crate::events::{FRAME_EVENTS, MARK, one_frame};
use crate::report::{at_most, figure, section};

const ROUNDS: usize = 21;
/// Longest chain.
const STAGES: usize = 5;
/// Batches of a sample.
const BATCHES: usize = 100;

/// The framed world, and the same work without a sandbox.
pub(crate) fn framed() {
    section(
        "one more framed stage in a segment: 64 B events, reads key and time, copies the payload",
    );
    let bed = Bed::new(&EngineConfig::small());
    let framed = bed.code("bench-map");
    let frame = one_frame(FRAME_EVENTS);
    let chains = |stages| bed.chain(&framed, stages);
    let (difference, each) = lengths(&bed, &frame, BATCHES, chains);
    at_most("framed, frames of 256: a chain of 2 less a chain of 1", difference, "ns/event", 15.0);
    for (stages, nanos) in (1..).zip(each) {
        figure(&format!("  framed, a chain of {stages}"), nanos, "ns/event");
    }
    let small = one_frame(16);
    let (difference, _) = lengths(&bed, &small, BATCHES * 4, chains);
    figure("framed, frames of 16: one more stage", difference, "ns/event");
    let one = one_frame(1);
    let (difference, _) = lengths(&bed, &one, BATCHES * 10, chains);
    figure("framed, one event a frame: one more stage", difference, "ns/event");

    let (difference, _) = lengths(&bed, &frame, BATCHES, native_chain);
    figure("for comparison: a Rust closure as stage, no sandbox", difference, "ns/event");
    fuel(&bed, &framed, &frame);
}

/// The typed world.
pub(crate) fn typed() {
    section("one more typed stage in a segment: the same work on records");
    let bed = Bed::new(&EngineConfig::small());
    let typed = bed.code("bench-typed");
    let frame = one_frame(FRAME_EVENTS);
    let (difference, each) = lengths(&bed, &frame, BATCHES / 10, |n| bed.chain(&typed, n));
    at_most("typed, frames of 256: a chain of 2 less a chain of 1", difference, "ns/event", 220.0);
    for (stages, nanos) in (1..).zip(each) {
        figure(&format!("  typed, a chain of {stages}"), nanos, "ns/event");
    }
    fuel(&bed, &typed, &frame);
}

/// Some seconds of the framed chain and nothing else, for a profiler.
pub(crate) fn profile() {
    profile_of("bench-map", FRAME_EVENTS, BATCHES);
}

/// The same of the typed world.
pub(crate) fn profile_typed() {
    profile_of("bench-typed", FRAME_EVENTS, BATCHES / 5);
}

/// The framed chain with one event a frame.
pub(crate) fn profile_one() {
    profile_of("bench-map", 1, BATCHES * 30);
}

fn profile_of(guest: &str, events: usize, batches: usize) {
    let bed = Bed::new(&EngineConfig::small());
    let mut chain = bed.chain(&bed.code(guest), STAGES);
    let frame = one_frame(events);
    let samples = [(); 200].map(|()| sample(&bed, &mut chain, STAGES, &frame, batches));
    figure("a stage of a chain of 5", median(&samples) / STAGES as f64, "ns/event");
}

/// Processor time an event takes through chains of 1 to `STAGES`, and how much of it the second
/// stage is.
fn lengths(
    bed: &Bed,
    frame: &Frame,
    batches: usize,
    chain: impl Fn(usize) -> Chain,
) -> (f64, Vec<f64>) {
    let case = |stages: usize| {
        let mut chain = chain(stages);
        Box::new(move || sample(bed, &mut chain, stages, frame, batches)) as Case<'_>
    };
    let mut cases: Vec<Case<'_>> = (1..=STAGES).map(case).collect();
    let samples = take_turns(ROUNDS, &mut cases);
    let differences: Vec<f64> = samples[0].iter().zip(&samples[1]).map(|(a, b)| b - a).collect();
    (median(&differences), samples.iter().map(|samples| median(samples)).collect())
}

fn sample(bed: &Bed, chain: &mut Chain, stages: usize, frame: &Frame, batches: usize) -> f64 {
    let (last, took) = measure(|| {
        bed.runtime.block_on(async {
            let mut last = None;
            for _ in 0..batches {
                let mut commit = chain.batch(frame.clone()).await;
                last = commit.runs.pop();
            }
            last
        })
    });
    let came = last.expect("the last stage emits").frame;
    assert_eq!(came.len(), frame.len());
    for (one, other) in came.events().zip(frame.events()) {
        assert_eq!((one.key, one.payload), (other.key, other.payload));
        assert_eq!(one.head.time, other.head.time + stages as u64 * MARK);
    }
    took.cpu / (batches * frame.len()) as f64
}

/// The same stage as a closure in the runtime itself.
fn native_chain(stages: usize) -> Chain {
    let stage = || Box::new(NativeStage::new(Arc::new(map))) as Box<dyn Invoker>;
    Chain::new(chain_plan(stages, Scope::Shared), (0..stages).map(|_| stage()).collect())
}

fn map(layer: &mut Layer) -> Verdict {
    let mut out = sluicebox_core::frame::FrameBuilder::new();
    for (index, event) in (0..).zip(layer.frame().events()) {
        let mark = u64::from(event.key.first().copied().unwrap_or(0)) + event.key.len() as u64;
        let mut head = event.head;
        head.cause = index;
        head.time += mark;
        out.push(&head, &[], event.payload, &[]);
    }
    match layer.emit(out.finish().bytes()) {
        Ok(()) => Verdict::Returned(Vec::new()),
        Err(error) => Verdict::Trapped(error.to_string()),
    }
}

fn fuel(bed: &Bed, code: &Arc<StageCode>, frame: &Frame) {
    let mut chain = bed.chain(code, 1);
    bed.runtime.block_on(chain.batch(frame.clone()));
    figure("fuel of the stage", chain.fuel as f64 / frame.len() as f64, "an event");
}
