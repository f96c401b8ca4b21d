//! What every device must show; run by the tests of each.
//!
//! - A promise that breaks is a panic that names it. Everything that is waited for has a bound.
//! - Each test has a device of its own, and leaves nothing to the next.
//! - Kernels use numbers that are exact in every order of work, and loops of fewer iterations than
//!   the strictest driver allows: what comes out is the same everywhere.

use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::device::{Block, Device, Done, End, Loaded, Run, Span, Step, Ticket};
use crate::kernel::{Kernel, KernelLimits};

mod compute;
mod ends;
mod memory;
mod order;
mod sources;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(100);

/// More than any kernel here needs.
const FUEL: u32 = 60_000;

/// Makes devices of one sort.
pub trait Maker {
    /// A fresh device.
    fn make(&self) -> Box<dyn Device>;

    /// Groups of 64 invocations, each of 30,000 iterations, that take it far longer than to be
    /// told to end.
    fn long_groups(&self) -> u32;
}

/// What is promised, and what tries it.
type Promise = (&'static str, fn(&mut Trial));

/// Runs every test.
///
/// # Panics
/// A promise is broken.
pub fn every_promise(maker: &impl Maker) {
    let tests: [Promise; 20] = [
        ("memory is zeros, whoever had it", memory::is_zeros_whoever_had_it),
        ("what is written is read", memory::what_is_written_is_read),
        ("what is not there is refused", memory::what_is_not_there_is_refused),
        ("there is an end to memory", memory::there_is_an_end_to_it),
        ("fills and copies do as a model", memory::fills_and_copies_do_as_a_model),
        ("kernels do as Rust", compute::kernels_do_as_rust),
        ("pieces are as the whole", compute::pieces_are_as_the_whole),
        ("a kernel sees the whole grid", compute::a_kernel_sees_the_whole_grid),
        ("uniforms are read", compute::uniforms_are_read),
        ("nothing outside is changed", compute::nothing_outside_is_changed),
        ("kernels come and go", compute::kernels_come_and_go),
        ("a wrong step leaves nothing done", order::a_wrong_step_leaves_nothing_done),
        ("steps see what those before did", order::steps_see_what_those_before_did),
        ("work sees what work before did", order::work_sees_what_work_before_did),
        ("tickets are good for one answer", order::tickets_are_good_for_one_answer),
        ("what is used stays until then", order::what_is_used_stays_until_then),
        ("work ends when its fuel does", ends::work_ends_when_its_fuel_does),
        ("no loop is cut without a word", ends::no_loop_is_cut_without_a_word),
        ("what is done is told at once", ends::what_is_done_is_told_while_the_next_is_not),
        ("long work is cancelled", ends::long_work_is_cancelled),
    ];
    for (name, test) in tests {
        let mut trial = Trial { name, device: maker.make(), long_groups: maker.long_groups() };
        test(&mut trial);
    }
}

/// One test with its device.
struct Trial {
    name: &'static str,
    device: Box<dyn Device>,
    long_groups: u32,
}

impl Trial {
    /// What must be given.
    #[track_caller]
    fn good<T>(&self, given: Result<T, Error>) -> T {
        given.unwrap_or_else(|why| panic!("{}: {why}", self.name))
    }

    /// What must be refused because something is not there, or is out of its bounds.
    #[track_caller]
    fn wrong<T>(&self, given: Result<T, Error>, what: &str) {
        assert!(matches!(given, Err(Error::Wrong(_))), "{}: {what} is not refused", self.name);
    }

    #[track_caller]
    fn same<T: PartialEq>(&self, given: &[T], expected: &[T], what: &str) {
        let differs = |at: &usize| given.get(*at) != expected.get(*at);
        let first = (0..given.len().max(expected.len())).find(differs);
        assert!(first.is_none(), "{}: {what} differs, first at {first:?}", self.name);
    }

    fn block(&mut self, words: &[u32]) -> Block {
        let block = self.empty(words.len() * 4);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.write(block, 0, &bytes);
        block
    }

    fn empty(&mut self, bytes: usize) -> Block {
        let block = self.device.allocate(bytes as u64);
        self.good(block)
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) {
        let written = self.device.write(block, offset, bytes);
        self.good(written);
    }

    fn bytes(&mut self, block: Block, offset: u64, bytes: usize) -> Vec<u8> {
        // Nothing of what was there may be left.
        let mut into = vec![0xA5; bytes];
        let read = self.device.read(block, offset, &mut into);
        self.good(read);
        into
    }

    fn words(&mut self, block: Block, words: usize) -> Vec<u32> {
        let bytes = self.bytes(block, 0, words * 4);
        let (words, _) = bytes.as_chunks();
        words.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    fn kernel(&mut self, source: &str) -> Loaded {
        let kernel = Kernel::check(source, "main", &KernelLimits::default());
        let kernel = kernel.unwrap_or_else(|why| panic!("{}: {why}\n{source}", self.name));
        let loaded = self.device.load(&Arc::new(kernel));
        self.good(loaded)
    }

    fn submit(&mut self, steps: &[Step]) -> Ticket {
        let ticket = self.device.submit(steps);
        self.good(ticket)
    }

    fn done(&mut self, ticket: Ticket) -> Done {
        let done = self.device.wait(ticket, PATIENCE);
        self.good(done).unwrap_or_else(|| panic!("{}: not in time", self.name))
    }

    /// Does steps, all of them.
    fn all(&mut self, steps: &[Step]) {
        let ticket = self.submit(steps);
        let end = self.done(ticket).end;
        assert_eq!(end, End::Whole, "{}: not all is done", self.name);
    }

    /// A length that every device takes as an offset of bindings, and at least so long.
    fn aligned(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.device.info().limits.offset_bytes)
    }
}

/// So many bytes from the beginning of a block.
fn first(block: Block, bytes: usize) -> Span {
    Span { block, offset: 0, bytes: bytes as u64 }
}

/// All groups of a grid.
fn run(kernel: Loaded, bindings: &[Span], grid: [u32; 3]) -> Run {
    Run { kernel, bindings: bindings.to_vec(), grid, from: [0; 3], groups: grid, fuel: FUEL }
}

/// Xorshift: enough to choose by.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }

    /// Whole numbers below `end`, as 32-bit floats.
    fn floats(&mut self, count: usize, end: u64) -> Vec<f32> {
        (0..count).map(|_| self.below(end) as f32).collect()
    }
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|float| float.to_bits()).collect()
}
