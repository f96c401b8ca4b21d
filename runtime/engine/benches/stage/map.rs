//! A map over events that are made and checked one by one, on one core.

use sluicebox_core::frame::FrameBuilder;
use sluicebox_engine::tuning::EngineConfig;

use crate::bed::{Bed, Chain};
use crate::clock::{measure, median, take_turns};
use crate::events::{FRAME_EVENTS, Generator, Sum};
use crate::native;
use crate::report::{at_least, figure, section};

const ROUNDS: usize = 21;
const BATCHES: usize = 400;

pub(crate) fn run() {
    section("map: 64 B events, each made, framed, handled by one stage, and checked; one core");
    let bed = Bed::new(&EngineConfig::small());
    let mut chain = bed.chain(&bed.code("bench-map"), 1);
    let events = BATCHES * FRAME_EVENTS;
    let samples = take_turns(
        ROUNDS,
        &mut [
            Box::new(|| sample(&bed, &mut chain)),
            Box::new(ends_only),
            Box::new(|| native::calls(events)),
            Box::new(|| native::channel(&bed.runtime, events)),
        ],
    );
    let rate = |samples: &[f64]| 1e3 / median(samples);
    at_least("sandboxed", rate(&samples[0]), "M events/s", 8.0);
    figure("  of it: making, framing and checking alone", median(&samples[1]), "ns/event");
    figure("  all", median(&samples[0]), "ns/event");
    figure("native: plain calls", rate(&samples[2]), "M events/s");
    figure("native: tokio channel, 64 a message", rate(&samples[3]), "M events/s");
    figure("sandboxed / plain calls", median(&samples[2]) / median(&samples[0]), "");
    figure("sandboxed / channel", median(&samples[3]) / median(&samples[0]), "");
}

/// Nanoseconds an event.
fn sample(bed: &Bed, chain: &mut Chain) -> f64 {
    let (mut generator, mut builder) = (Generator::default(), FrameBuilder::new());
    let (mut made, mut came) = (Sum::default(), Sum::default());
    let ((), took) = measure(|| {
        bed.runtime.block_on(async {
            for _ in 0..BATCHES {
                let commit = chain.batch(generator.frame(&mut builder, &mut made)).await;
                for event in commit.runs.iter().flat_map(|run| run.frame.events()) {
                    came.check(&event, 1);
                }
            }
        });
    });
    assert_eq!(made, came);
    took.cpu / made.events as f64
}

/// The part of it that is not the runtime's.
fn ends_only() -> f64 {
    let (mut generator, mut builder) = (Generator::default(), FrameBuilder::new());
    let (mut made, mut came) = (Sum::default(), Sum::default());
    let ((), took) = measure(|| {
        for _ in 0..BATCHES {
            for event in generator.frame(&mut builder, &mut made).events() {
                came.check(&event, 0);
            }
        }
    });
    assert_eq!(made, came);
    took.cpu / made.events as f64
}
