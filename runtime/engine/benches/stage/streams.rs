//! Memory of open streams: many instances of a stream function, each waiting for its next event.
//!
//! Resident memory is divided by what it belongs to: pages of linear memories and of tables are the
//! guests' own, all the rest (stores, stacks, bookkeeping of streams and keys) is the host's. They
//! are told apart by the mappings of the process: the pool reserves one range for memories and one
//! for tables, in which nothing else lies.

use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_core::limits::BATCH_EVENTS_MAX;
use sluicebox_core::pipeline::Scope;
use sluicebox_engine::tuning::{EngineConfig, STACK_BYTES, TABLE_ELEMENTS_MAX};

use crate::bed::{Bed, Chain, NOW, chain_plan};
use crate::clock::measure;
use crate::report::{at_most, figure, section};

const STREAMS: u32 = 10_000;
/// Streams opened before the measurement begins.
const BEFORE: u32 = 4_000;
const KIB: f64 = 1024.0;

pub(crate) fn run() {
    section("memory of 10,000 open streams of one stage");
    let config = EngineConfig::default();
    let bed = Bed::new(&config);
    let code = bed.code("bench-stream");
    let mut chain = Chain::new(chain_plan(1, Scope::Stream), vec![bed.stage(&code)]);
    // The first streams touch what all share, and fill what compiling left free in the heap.
    send(&bed, &mut chain, 0..BEFORE);
    let before = Resident::now(&config);
    let ((), took) = measure(|| send(&bed, &mut chain, BEFORE..STREAMS));
    let after = Resident::now(&config);
    assert_eq!(chain.open_streams(), STREAMS as usize);
    let streams = f64::from(STREAMS - BEFORE);
    let each = |of: fn(&Resident) -> f64| (of(&after) - of(&before)) / streams / KIB;
    at_most("host memory of a stream", each(Resident::host), "KiB", 16.0);
    figure("  of it its stack", each(|resident| resident.stacks), "KiB");
    figure("pages of its linear memory the guest touched", each(|r| r.memories), "KiB");
    figure("pages of its tables", each(|resident| resident.tables), "KiB");
    at_most("the whole process, with all of them open", after.all() / KIB / KIB, "MiB", 1024.0);
    figure("time to open a stream and handle its first event", took.cpu / streams / 1e3, "us");
    let ((), took) = measure(|| send(&bed, &mut chain, 0..STREAMS));
    figure("time of one more event for each", took.cpu / f64::from(STREAMS) / 1e3, "us");
}

/// One event to each of these streams.
fn send(bed: &Bed, chain: &mut Chain, streams: std::ops::Range<u32>) {
    let numbers: Vec<u32> = streams.collect();
    let mut builder = FrameBuilder::new();
    for some in numbers.chunks(BATCH_EVENTS_MAX) {
        for number in some {
            let key = format!("stream-{number:09}");
            builder.push(&Head::data(NOW), key.as_bytes(), &[1; 64], &[]);
        }
        bed.runtime.block_on(chain.batch(builder.finish()));
    }
}

/// Resident bytes of this process.
#[derive(Default)]
struct Resident {
    memories: f64,
    tables: f64,
    stacks: f64,
    other: f64,
}

impl Resident {
    /// The pool lays its linear memories side by side, each with an image of its component's data
    /// at its beginning: from the first image to four gibibytes behind the last, every mapping is
    /// part of a linear memory. All tables are one mapping whose size follows from the
    /// configuration; stacks are mappings of their size.
    fn now(config: &EngineConfig) -> Self {
        let text = std::fs::read_to_string("/proc/self/smaps").expect("the kernel shows mappings");
        let mappings = mappings(&text);
        let images = mappings.iter().filter(|mapping| mapping.is_image);
        let from = images.clone().map(|mapping| mapping.from).min().unwrap_or(u64::MAX);
        let to = images.map(|mapping| mapping.from + (4 << 30)).max().unwrap_or(0);
        let table = (TABLE_ELEMENTS_MAX as u64 * 8).next_multiple_of(4096);
        let tables = table * u64::from(config.tables());
        let mut resident = Self::default();
        for mapping in &mappings {
            let kind = match mapping.size {
                _ if (from..to).contains(&mapping.from) => &mut resident.memories,
                // The kernel may have joined it with a small neighbour.
                size if size.abs_diff(tables) < 64 << 20 => &mut resident.tables,
                size if size == STACK_BYTES as u64 => &mut resident.stacks,
                _ => &mut resident.other,
            };
            *kind += mapping.resident;
        }
        resident
    }

    fn host(&self) -> f64 {
        self.stacks + self.other
    }

    fn all(&self) -> f64 {
        self.host() + self.memories + self.tables
    }
}

struct Mapping {
    from: u64,
    size: u64,
    resident: f64,
    is_image: bool,
}

fn mappings(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        if let Some((from, to)) = range.and_then(|(from, to)| number(from).zip(number(to))) {
            let is_image = line.contains("wasm-memory-image");
            mappings.push(Mapping { from, size: to - from, resident: 0.0, is_image });
        } else if let (Some(rest), Some(last)) = (line.strip_prefix("Rss:"), mappings.last_mut()) {
            let number: f64 = rest.trim_end_matches("kB").trim().parse().unwrap_or(0.0);
            last.resident = number * KIB;
        }
    }
    mappings
}
