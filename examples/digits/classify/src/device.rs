//! The network on the device: a batch of pictures goes there, their verdicts come back.
//!
//! - Graphs and buffers are made for so many pictures, a power of two, and used for fewer as well:
//!   what is bound says how many there are.
//! - What is here is a cache. When something of it cannot be used any more, because the device was
//!   lost or the instance has gone on as another one, all of it is made anew, once.

use std::collections::BTreeMap;

use sluicebox_guest::Result;
use sluicebox_guest::gpu::{self, Buffer, Graph, Kernel};

use crate::WEIGHTS;
use crate::cpu::{HIDDEN, PIXELS, Verdict};

const HIDDEN_LAYER: &str = include_str!("hidden.wgsl");
const VERDICT: &str = include_str!("verdict.wgsl");

/// Pictures of a workgroup of `hidden`, and so the fewest that are worth a graph.
const HIDDEN_PICTURES: usize = 8;
/// Pictures of a workgroup of `verdict`.
const VERDICT_PICTURES: usize = 64;
/// Most pictures at once. A call has that many only if its limits were raised.
const PICTURES_MAX: usize = 4096;

/// Words of a verdict: the digit, and the bits of its score.
const VERDICT_WORDS: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Device {
    made: Option<Made>,
}

impl Device {
    /// What each picture of a batch shows.
    pub(crate) fn verdicts(&mut self, pictures: &[u8]) -> Result<Vec<Verdict>> {
        let mut all = Vec::with_capacity(pictures.len() / PIXELS);
        for some in pictures.chunks(PICTURES_MAX * PIXELS) {
            all.append(&mut self.some(some)?);
        }
        Ok(all)
    }

    fn some(&mut self, pictures: &[u8]) -> Result<Vec<Verdict>> {
        if let Some(made) = &mut self.made
            && let Ok(verdicts) = made.verdicts(pictures)
        {
            return Ok(verdicts);
        }
        // Its memory is given back before more is asked for.
        self.made = None;
        let mut made = Made::new()?;
        let verdicts = made.verdicts(pictures)?;
        self.made = Some(made);
        Ok(verdicts)
    }
}

/// What is on the device.
#[derive(Debug)]
struct Made {
    weights: Buffer,
    hidden: Kernel,
    verdict: Kernel,
    /// By the most pictures they take.
    batches: BTreeMap<usize, Batch>,
}

impl Made {
    fn new() -> gpu::Result<Self> {
        Ok(Self {
            weights: Buffer::constant(WEIGHTS)?,
            hidden: Kernel::new(HIDDEN_LAYER, "hidden")?,
            verdict: Kernel::new(VERDICT, "verdict")?,
            batches: BTreeMap::new(),
        })
    }

    fn verdicts(&mut self, pictures: &[u8]) -> gpu::Result<Vec<Verdict>> {
        let count = pictures.len() / PIXELS;
        let most = count.next_power_of_two().max(HIDDEN_PICTURES);
        if !self.batches.contains_key(&most) {
            self.batches.insert(most, Batch::new(self, most)?);
        }
        self.batches[&most].verdicts(&self.weights, pictures, count)
    }
}

/// A graph, and buffers that are as large as it needs them.
#[derive(Debug)]
struct Batch {
    pictures: Buffer,
    active: Buffer,
    verdicts: Buffer,
    graph: Graph,
}

impl Batch {
    fn new(made: &Made, most: usize) -> gpu::Result<Self> {
        // At most `PICTURES_MAX`, which is little.
        let groups = |pictures: usize| most.div_ceil(pictures) as u32;
        Ok(Self {
            pictures: Buffer::new((most * PIXELS) as u64)?,
            active: Buffer::new((most * HIDDEN * size_of::<f32>()) as u64)?,
            verdicts: Buffer::new((most * VERDICT_WORDS * size_of::<u32>()) as u64)?,
            graph: Graph::record(|steps| {
                steps.dispatch(&made.hidden, [1, groups(HIDDEN_PICTURES), 1], &[0, 1, 2]).dispatch(
                    &made.verdict,
                    [groups(VERDICT_PICTURES), 1, 1],
                    &[0, 2, 3],
                );
            })?,
        })
    }

    fn verdicts(
        &self,
        weights: &Buffer,
        pictures: &[u8],
        count: usize,
    ) -> gpu::Result<Vec<Verdict>> {
        let words = count * VERDICT_WORDS;
        self.pictures.write(0, pictures)?;
        let shown = self.pictures.range(0, pictures.len() as u64);
        let verdicts = self.verdicts.range(0, (words * size_of::<u32>()) as u64);
        let bindings = [weights.whole(), shown, self.active.whole(), verdicts];
        self.graph.submit(&bindings)?.whole()?;
        let words: Vec<u32> = self.verdicts.read(0, words)?;
        let (pairs, _) = words.as_chunks::<VERDICT_WORDS>();
        let verdict =
            |[digit, score]: &[u32; 2]| Verdict { digit: *digit, score: f32::from_bits(*score) };
        Ok(pairs.iter().map(verdict).collect())
    }
}
