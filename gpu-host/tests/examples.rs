//! The kernels of the examples: they are accepted, and come to what the processor comes to.
//!
//! - What the processor comes to is computed by the examples' own modules for it, which their own
//!   tests hold against plainer ones.
//! - On the device that interprets, with small inputs as it is slow; and on the best that Vulkan
//!   has here, if it has one.
//!
//! Leaves to others: the stages around the kernels (tests of the examples).

#![expect(clippy::print_stdout, reason = "it says why something is not tested")]

#[path = "../../examples/digits/classify/src/cpu.rs"]
mod digits;
#[path = "../../examples/motion-gpu/blur-diff/src/cpu.rs"]
mod motion;

use std::sync::Arc;
use std::time::Duration;

use sluicebox_gpu::Error;
use sluicebox_gpu::device::{Block, Device, End, Loaded, Run, Span, Step};
use sluicebox_gpu::fake::Fake;
use sluicebox_gpu::kernel::{Kernel, KernelLimits};
use sluicebox_gpu::vulkan::{Options, Vulkan};

use digits::{ASSET_BYTES, HIDDEN, Network, PIXELS};
use motion::{Changed, RADIUS_MAX, Settings};

const ALONG: &str = include_str!("../../examples/motion-gpu/blur-diff/src/along.wgsl");
const DOWN: &str = include_str!("../../examples/motion-gpu/blur-diff/src/down.wgsl");
const COUNT: &str = include_str!("../../examples/motion-gpu/blur-diff/src/count.wgsl");
const HIDDEN_LAYER: &str = include_str!("../../examples/digits/classify/src/hidden.wgsl");
const VERDICT: &str = include_str!("../../examples/digits/classify/src/verdict.wgsl");
const WEIGHTS: &[u8] = include_bytes!("../../examples/digits/weights.bin");
const PICTURES: &[u8] = include_bytes!("../../examples/digits/pictures.grey");
const LABELS: &str = include_str!("../../examples/digits/labels.txt");

/// Memory of the device that interprets.
const MEMORY_BYTES: u64 = 64 << 20;
/// What one invocation of a guest may make of iterations.
const FUEL: u32 = 60_000;
/// Pictures of digits that are tried on the device that interprets.
const FEW: usize = 40;
/// How far scores may be apart: devices may keep more digits in sums than `f32` has.
const SCORE_ERROR_MAX: f32 = 1e-3;

/// A device, and what is done with it here.
struct Rig {
    device: Box<dyn Device>,
    is_slow: bool,
}

impl Rig {
    /// The device that interprets, and the best of Vulkan.
    fn every() -> Vec<Self> {
        let mut rigs = vec![Self { device: Box::new(Fake::new(MEMORY_BYTES)), is_slow: true }];
        match Vulkan::open(&Options::default()) {
            Ok(device) => rigs.push(Self { device: Box::new(device), is_slow: false }),
            Err(Error::None(why)) => println!("not tested with Vulkan, as {why}"),
            Err(why) => panic!("{why}"),
        }
        rigs
    }

    fn kernel(&mut self, source: &str, entry: &str) -> Loaded {
        let kernel = Kernel::check(source, entry, &KernelLimits::default());
        let kernel = kernel.unwrap_or_else(|why| panic!("{entry}: {why}"));
        self.device.load(&Arc::new(kernel)).expect("it is loaded")
    }

    /// A block that is bound whole.
    fn empty(&mut self, bytes: usize) -> Span {
        let bytes = bytes as u64;
        let block = self.device.allocate(bytes).expect("there is memory");
        Span { block, offset: 0, bytes }
    }

    /// The same with something in it, filled up to whole words.
    fn filled(&mut self, bytes: &[u8]) -> Span {
        let span = self.empty(bytes.len().next_multiple_of(4));
        self.write(span.block, bytes);
        span
    }

    fn write(&mut self, block: Block, bytes: &[u8]) {
        self.device.write(block, 0, bytes).expect("it is written");
    }

    fn read(&mut self, span: Span, bytes: usize) -> Vec<u8> {
        let mut into = vec![0xA5; bytes];
        self.device.read(span.block, span.offset, &mut into).expect("it is read");
        into
    }

    fn words(&mut self, span: Span) -> Vec<u32> {
        let bytes = self.read(span, span.bytes as usize);
        bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    fn all(&mut self, steps: &[Step]) {
        let ticket = self.device.submit(steps).expect("it is taken");
        let done = self.device.wait(ticket, Duration::from_secs(100)).expect("it is there");
        assert_eq!(done.map(|done| done.end), Some(End::Whole));
    }
}

fn run(kernel: Loaded, bindings: &[Span], [x, y]: [usize; 2]) -> Step {
    let grid = [x as u32, y as u32, 1];
    let bindings = bindings.to_vec();
    Step::Run(Run { kernel, bindings, grid, from: [0; 3], groups: grid, fuel: FUEL })
}

fn little_endian(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Bytes that look like no order at all.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// The kernels of `motion-gpu` with their buffers, for pictures of one size.
struct Motion {
    kernels: [Loaded; 3],
    settings: Span,
    picture: Span,
    rows: Span,
    /// The picture before and the one now, in turns.
    blurred: [Span; 2],
    changed: Span,
    grids: [[usize; 2]; 2],
}

impl Motion {
    fn new(rig: &mut Rig, settings: &Settings) -> Self {
        let (width, height) = (settings.width as usize, settings.height as usize);
        let words = (width * height).div_ceil(4);
        Self {
            kernels: [(ALONG, "along"), (DOWN, "down"), (COUNT, "count")]
                .map(|(source, entry)| rig.kernel(source, entry)),
            settings: rig.filled(&little_endian(&settings.words())),
            picture: rig.empty(words * 4),
            rows: rig.empty(width * height * 4),
            blurred: [rig.empty(words * 4), rig.empty(words * 4)],
            changed: rig.empty(20),
            grids: [[width.div_ceil(16), height.div_ceil(16)], [words.div_ceil(256), 1]],
        }
    }

    /// Blurs a picture, and compares it with the one before.
    fn step(&mut self, rig: &mut Rig, picture: &[u8]) -> (Vec<u8>, Changed) {
        self.blurred.reverse();
        let [before, now] = self.blurred;
        let [along, down, count] = self.kernels;
        let [pixels, words] = self.grids;
        let part = |offset, bytes| Span { offset, bytes, ..self.changed };
        rig.write(self.picture.block, picture);
        rig.all(&[
            run(along, &[self.settings, self.picture, self.rows], pixels),
            run(down, &[self.settings, self.rows, now], words),
            Step::Fill { at: part(0, 8), word: u32::MAX },
            Step::Fill { at: part(8, 12), word: 0 },
            run(count, &[self.settings, before, now, self.changed], words),
        ]);
        let changed = rig.words(self.changed).try_into().expect("five words");
        (rig.read(now, picture.len()), Changed::of(changed))
    }
}

#[test]
fn pictures_are_blurred_and_compared_as_by_the_processor() {
    for mut rig in Rig::every() {
        // Words that are not full, pictures smaller than the blur, one of several groups.
        for (width, height, radius) in
            [(37, 19, 2), (64, 33, 3), (1, 5, RADIUS_MAX), (18, 17, RADIUS_MAX), (3, 1, 0)]
        {
            let settings = Settings { width, height, radius, threshold: 12 };
            let mut motion = Motion::new(&mut rig, &settings);
            let count = (width * height) as usize;
            // The device begins with zeros.
            let mut before = vec![0; count];
            let mut pictures: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, count)).collect();
            pictures.extend([pictures[2].clone(), vec![255; count], vec![0; count]]);
            pictures[3][count / 2] ^= 0xFF;
            for picture in pictures {
                let expected = settings.blurred(&picture);
                let changed = settings.changed(&before, &expected);
                assert_eq!(motion.step(&mut rig, &picture), (expected.clone(), changed));
                before = expected;
            }
        }
    }
}

#[test]
fn two_equal_pictures_differ_nowhere() {
    let settings = Settings { width: 20, height: 20, radius: 2, threshold: 0 };
    for mut rig in Rig::every() {
        let mut motion = Motion::new(&mut rig, &settings);
        let picture = noise(9, 400);
        motion.step(&mut rig, &picture);
        assert_eq!(motion.step(&mut rig, &picture).1, Changed::NONE);
    }
}

/// What the network says of pictures: digits and scores.
fn verdicts(rig: &mut Rig, pictures: &[u8]) -> Vec<(u32, f32)> {
    let count = pictures.len() / PIXELS;
    let kernels = [(HIDDEN_LAYER, "hidden"), (VERDICT, "verdict")]
        .map(|(source, entry)| rig.kernel(source, entry));
    let [weights, shown] = [rig.filled(WEIGHTS), rig.filled(pictures)];
    let [active, verdicts] = [rig.empty(count * HIDDEN * 4), rig.empty(count * 8)];
    rig.all(&[
        run(kernels[0], &[weights, shown, active], [1, count.div_ceil(8)]),
        run(kernels[1], &[weights, active, verdicts], [count.div_ceil(64), 1]),
    ]);
    let words = rig.words(verdicts);
    words.as_chunks().0.iter().map(|[digit, score]| (*digit, f32::from_bits(*score))).collect()
}

#[test]
fn digits_are_recognised_as_by_the_processor() {
    assert_eq!(WEIGHTS.len(), ASSET_BYTES);
    let network = Network::read(WEIGHTS).expect("it is ours");
    let labels: Vec<u32> = LABELS.lines().map(|line| line.parse().expect("a digit")).collect();
    let (all, _) = PICTURES.as_chunks::<PIXELS>();
    assert_eq!(all.len(), labels.len());
    for mut rig in Rig::every() {
        // The last group of each kernel is not full.
        let shown = &all[..if rig.is_slow { FEW + 5 } else { all.len() }];
        let found = verdicts(&mut rig, shown.as_flattened());
        assert_eq!(found.len(), shown.len());
        let mut right = [0, 0];
        for ((digit, score), (picture, label)) in found.into_iter().zip(shown.iter().zip(&labels)) {
            let expected = network.verdict(picture);
            let apart = (score - expected.score).abs();
            assert!(apart <= SCORE_ERROR_MAX, "{score} instead of {}", expected.score);
            assert_eq!(digit, expected.digit);
            right[0] += usize::from(digit == *label);
            right[1] += usize::from(expected.digit == *label);
        }
        assert_eq!(right[0], right[1]);
        assert!(right[0] * 100 >= shown.len() * 95, "{} of {}", right[0], shown.len());
    }
}
