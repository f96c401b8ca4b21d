//! Blocks: what is in them, and what is not there.

use std::time::Duration;

use super::{Dice, Trial, first};
use crate::Error;
use crate::device::{Block, Loaded, Span, Step, Ticket};

/// Bytes that differ from those beside them and from zeros.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8 + 1).collect()
}

pub(super) fn is_zeros_whoever_had_it(trial: &mut Trial) {
    for bytes in [4096, 1, 5, 1 << 20].into_iter().cycle().take(40) {
        let block = trial.empty(bytes);
        let found = trial.bytes(block, 0, bytes);
        trial.same(&found, &vec![0; bytes], "new memory");
        trial.write(block, 0, &vec![0xFF; bytes]);
        trial.device.free(block);
    }
    // A kernel, or a step, is not shown more than the processor.
    for _ in 0..10 {
        let [from, to] = [trial.empty(4096), trial.empty(4096)];
        trial.all(&[Step::Copy { from: first(from, 4096), to, offset: 0 }]);
        let found = trial.bytes(to, 0, 4096);
        trial.same(&found, &[0; 4096], "a copy of new memory");
        trial.all(&[Step::Fill { at: first(from, 4096), word: u32::MAX }]);
        trial.device.free(from);
        trial.device.free(to);
    }
}

pub(super) fn what_is_written_is_read(trial: &mut Trial) {
    // More than goes through any buffer between at once.
    for bytes in [1, 3, 4, 1001, (9 << 20) + 3] {
        let block = trial.empty(bytes);
        let mut expected = pattern(bytes);
        trial.write(block, 0, &expected);
        let end = bytes as u64;
        trial.write(block, end / 2, &[0xAB]);
        trial.write(block, end, &[]);
        expected[bytes / 2] = 0xAB;
        let found = trial.bytes(block, 0, bytes);
        trial.same(&found, &expected, "a block");
        let from = bytes / 3;
        let found = trial.bytes(block, from as u64, bytes - from);
        trial.same(&found, &expected[from..], "the rest of a block");
    }
}

pub(super) fn what_is_not_there_is_refused(trial: &mut Trial) {
    let block = trial.empty(101);
    let gone = trial.empty(64);
    trial.device.free(gone);
    trial.device.free(gone);
    for forged in [gone, Block(0), Block(block.0 + 1000), Block(u64::MAX)] {
        let written = trial.device.write(forged, 0, &[1]);
        trial.wrong(written, "a write to what is not there");
        let read = trial.device.read(forged, 0, &mut [0]);
        trial.wrong(read, "a read of what is not there");
        trial.device.free(forged);
    }
    for (offset, bytes) in [(0, 102), (101, 1), (102, 0), (u64::MAX, 2), (u64::MAX - 100, 101)] {
        let written = trial.device.write(block, offset, &vec![1; bytes]);
        trial.wrong(written, "a write out of bounds");
        let mut into = vec![7; bytes];
        let read = trial.device.read(block, offset, &mut into);
        trial.wrong(read, "a read out of bounds");
        trial.same(&into, &vec![7; bytes], "where nothing was read");
    }
    trial.device.unload(Loaded(u64::MAX));
    trial.device.cancel(Ticket(u64::MAX));
    let waited = trial.device.wait(Ticket(u64::MAX), Duration::ZERO);
    trial.wrong(waited, "a ticket that nobody gave");
    let found = trial.bytes(block, 0, 101);
    trial.same(&found, &[0; 101], "what nothing was written to");
    let other = trial.empty(64);
    assert!(other != block && other != gone, "{}: a number comes twice", trial.name);
}

pub(super) fn there_is_an_end_to_it(trial: &mut Trial) {
    let nothing = trial.device.allocate(0);
    trial.wrong(nothing, "a block of no bytes");
    for bytes in [u64::MAX, 1 << 60] {
        let refused = trial.device.allocate(bytes);
        assert_eq!(refused, Err(Error::Memory { bytes }), "{}", trial.name);
    }
    let block = trial.block(&[1, 2, 3]);
    let found = trial.words(block, 3);
    trial.same(&found, &[1, 2, 3], "a block behind those that were refused");
}

/// Any sequence of fills and copies leaves the same as in memory of our own.
pub(super) fn fills_and_copies_do_as_a_model(trial: &mut Trial) {
    const BYTES: usize = 4096;
    const WORDS: u64 = BYTES as u64 / 4;
    let mut dice = Dice::new(5);
    let blocks = [trial.empty(BYTES), trial.empty(BYTES), trial.empty(BYTES)];
    let mut model = [const { [0_u32; BYTES / 4] }; 3];
    for round in 0..40 {
        let mut steps = Vec::new();
        for _ in 0..dice.below(9) {
            let [from, to] = [dice.below(WORDS + 1), dice.below(WORDS + 1)];
            let count = dice.below(WORDS + 1 - from.max(to)) as usize;
            let [one, other] = [dice.below(3) as usize, dice.below(3) as usize];
            let span =
                |at: u64| Span { block: blocks[one], offset: at * 4, bytes: count as u64 * 4 };
            let (here, there) = (from as usize, to as usize);
            if dice.below(2) == 0 {
                let word = dice.below(1 << 32) as u32;
                steps.push(Step::Fill { at: span(from), word });
                model[one][here..here + count].fill(word);
            } else if one != other || here.abs_diff(there) >= count {
                steps.push(Step::Copy { from: span(from), to: blocks[other], offset: to * 4 });
                let copied = model[one][here..here + count].to_vec();
                model[other][there..there + count].copy_from_slice(&copied);
            }
        }
        trial.all(&steps);
        for (block, expected) in blocks.into_iter().zip(&model) {
            let found = trial.words(block, BYTES / 4);
            trial.same(&found, expected, &format!("a block behind round {round}"));
        }
    }
}
