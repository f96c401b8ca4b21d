//! Kernels: what they compute, in how many pieces, and what they cannot reach.

use std::time::Duration;

use super::{Dice, Trial, bits, first, run, sources};
use crate::device::{Block, Run, Span, Step};

/// Of the matrices.
const SIDE: usize = 64;
/// Of the image.
const WIDTH: usize = 80;
const HEIGHT: usize = 48;

/// A kernel with its arguments; the last is what it writes.
struct Case {
    run: Run,
    output: Block,
    expected: Vec<u32>,
}

pub(super) fn kernels_do_as_rust(trial: &mut Trial) {
    for case in [saxpy(trial), matmul(trial), convolution(trial)] {
        trial.all(&[Step::Run(case.run)]);
        let found = trial.words(case.output, case.expected.len());
        trial.same(&found, &case.expected, "what a kernel computes");
    }
}

fn saxpy(trial: &mut Trial) -> Case {
    const COUNT: usize = 1000;
    let mut dice = Dice::new(1);
    let (x, y) = (dice.floats(COUNT, 1000), dice.floats(COUNT, 1000));
    let expected = bits(&x.iter().zip(&y).map(|(x, y)| 3.0 * x + y).collect::<Vec<_>>());
    let kernel = trial.kernel(sources::SAXPY);
    let settings = trial.block(&[3.0_f32.to_bits(), COUNT as u32]);
    let [x, y] = [trial.block(&bits(&x)), trial.block(&bits(&y))];
    let bindings = [first(settings, 8), first(x, COUNT * 4), first(y, COUNT * 4)];
    Case { run: run(kernel, &bindings, [16, 1, 1]), output: y, expected }
}

fn matmul(trial: &mut Trial) -> Case {
    const BYTES: usize = SIDE * SIDE * 4;
    let mut dice = Dice::new(2);
    let (left, right) = (dice.floats(SIDE * SIDE, 256), dice.floats(SIDE * SIDE, 256));
    let mut expected = vec![0.0; SIDE * SIDE];
    for (row, products) in expected.chunks_mut(SIDE).enumerate() {
        for (column, product) in products.iter_mut().enumerate() {
            let pairs = (0..SIDE).map(|i| left[row * SIDE + i] * right[i * SIDE + column]);
            *product = pairs.sum();
        }
    }
    let kernel = trial.kernel(sources::MATMUL);
    let [left, right] = [trial.block(&bits(&left)), trial.block(&bits(&right))];
    let output = trial.empty(BYTES);
    let bindings = [first(left, BYTES), first(right, BYTES), first(output, BYTES)];
    Case { run: run(kernel, &bindings, [4, 4, 1]), output, expected: bits(&expected) }
}

fn convolution(trial: &mut Trial) -> Case {
    const BYTES: usize = WIDTH * HEIGHT * 4;
    let mut dice = Dice::new(3);
    let (image, weights) = (dice.floats(WIDTH * HEIGHT, 256), dice.floats(25, 9));
    let mut expected = vec![0.0; WIDTH * HEIGHT];
    for (at, result) in expected.iter_mut().enumerate() {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let weighted = weights.iter().enumerate().map(|(tap, weight)| {
            let x = (x + tap % 5).saturating_sub(2).min(WIDTH - 1);
            let y = (y + tap / 5).saturating_sub(2).min(HEIGHT - 1);
            weight * image[y * WIDTH + x]
        });
        *result = weighted.sum();
    }
    let kernel = trial.kernel(sources::CONVOLUTION);
    let [image, weights] = [trial.block(&bits(&image)), trial.block(&bits(&weights))];
    let output = trial.empty(BYTES);
    let bindings = [first(image, BYTES), first(weights, 100), first(output, BYTES)];
    let grid = [(WIDTH / 8) as u32, (HEIGHT / 8) as u32, 1];
    Case { run: run(kernel, &bindings, grid), output, expected: bits(&expected) }
}

/// Parts of a grid that are all of it, none twice.
fn pieces(run: &Run, dice: &mut Dice) -> Vec<Run> {
    let mut pieces = vec![run.clone()];
    for _ in 0..6 {
        let piece = pieces.swap_remove(dice.below(pieces.len() as u64) as usize);
        let axis = dice.below(3) as usize;
        let before = dice.below(u64::from(piece.groups[axis]) + 1) as u32;
        let (mut one, mut other) = (piece.clone(), piece);
        one.groups[axis] = before;
        other.groups[axis] -= before;
        other.from[axis] += before;
        pieces.extend([one, other]);
    }
    pieces
}

pub(super) fn pieces_are_as_the_whole(trial: &mut Trial) {
    let mut dice = Dice::new(4);
    for case in [matmul(trial), convolution(trial)] {
        for round in 0..6 {
            let bytes = case.expected.len() * 4;
            trial.all(&[Step::Fill { at: first(case.output, bytes), word: 0 }]);
            let pieces = pieces(&case.run, &mut dice);
            if round % 2 == 0 {
                trial.all(&pieces.into_iter().map(Step::Run).collect::<Vec<_>>());
            } else {
                for piece in pieces {
                    trial.all(&[Step::Run(piece)]);
                }
            }
            let found = trial.words(case.output, case.expected.len());
            trial.same(&found, &case.expected, "what is computed in pieces");
        }
    }
}

pub(super) fn a_kernel_sees_the_whole_grid(trial: &mut Trial) {
    const GRID: [u32; 3] = [3, 4, 5];
    let mut expected = Vec::new();
    for [z, y, x] in (0..15 * 4 * 6).map(|at| [at / 24, at / 6 % 4, at % 6]) {
        let packed = |x: u32, y: u32, z: u32| x | y << 8 | z << 16;
        let (id, group) = (packed(x, y, z), packed(x / 2, y, z / 3));
        expected.extend([1, id, group, x % 2 + z % 3 * 2, GRID[0], GRID[1], GRID[2], 0]);
    }
    let kernel = trial.kernel(sources::WITNESS);
    let seen = trial.empty(expected.len() * 4);
    let whole = run(kernel, &[first(seen, expected.len() * 4)], GRID);
    let mut dice = Dice::new(6);
    for _ in 0..4 {
        trial.all(&[Step::Fill { at: first(seen, expected.len() * 4), word: 0 }]);
        let pieces = pieces(&whole, &mut dice);
        trial.all(&pieces.into_iter().map(Step::Run).collect::<Vec<_>>());
        let found = trial.words(seen, expected.len());
        trial.same(&found, &expected, "what a kernel sees");
    }
    trial.all(&[Step::Run(Run { from: GRID, groups: [0; 3], ..whole.clone() })]);
    trial.all(&[Step::Run(Run { grid: [0; 3], groups: [0; 3], ..whole })]);
    let found = trial.words(seen, expected.len());
    trial.same(&found, &expected, "what no group has changed");
}

pub(super) fn uniforms_are_read(trial: &mut Trial) {
    let kernel = trial.kernel(sources::SAXPY);
    let offset = trial.aligned(64);
    let settings = trial.empty(offset as usize * 2);
    let [x, y] = [trial.block(&bits(&[1.0; 64])), trial.block(&bits(&[2.0; 64]))];
    for (at, factor) in [(0, 5.0_f32), (offset, 10.0)] {
        let bytes = [factor.to_le_bytes(), 64_u32.to_le_bytes()].concat();
        trial.write(settings, at, &bytes);
    }
    let steps = [(0, 8), (offset, 16)].map(|(offset, bytes)| {
        let settings = Span { block: settings, offset, bytes };
        Step::Run(run(kernel, &[settings, first(x, 256), first(y, 256)], [1; 3]))
    });
    trial.all(&steps);
    let found = trial.words(y, 64);
    trial.same(&found, &bits(&[17.0; 64]), "what two uniforms give");
}

pub(super) fn nothing_outside_is_changed(trial: &mut Trial) {
    const INSIDE: usize = 4;
    const PLACES: [u32; 16] = [
        0,
        4,
        5,
        15,
        16,
        17,
        255,
        1 << 12,
        1 << 20,
        0x3FFF_FFFF,
        0x4000_0004,
        0x7FFF_FFFF,
        0x8000_0000,
        0xBFFF_FFFF,
        0xFFFF_FFFE,
        u32::MAX,
    ];
    let kernel = trial.kernel(sources::STRAY);
    let places = trial.block(&PLACES);
    // In one block, each with something before and behind it that must stay.
    let margin = trial.aligned(256);
    let pattern: Vec<u8> = (0..margin * 8).map(|at| (at % 253) as u8 + 1).collect();
    let block = trial.empty(pattern.len());
    trial.write(block, 0, &pattern);
    let bytes = INSIDE as u64 * 4;
    let inside = [1, 3, 5].map(|at| Span { block, offset: margin * at, bytes });
    let got = trial.block(&[77; PLACES.len()]);
    let bindings =
        [&[first(places, PLACES.len() * 4)], &inside[..], &[first(got, PLACES.len() * 4)]];
    let words_before = &pattern[inside[0].offset as usize..][..4];
    let first_word = u32::from_le_bytes(words_before.try_into().expect("four bytes"));
    trial.all(&[Step::Run(run(kernel, &bindings.concat(), [PLACES.len() as u32, 1, 1]))]);

    let found = trial.bytes(block, 0, pattern.len());
    for (at, (found, before)) in found.iter().zip(&pattern).enumerate() {
        let is_inside =
            inside.iter().any(|span| (span.offset..span.offset + bytes).contains(&(at as u64)));
        assert!(is_inside || found == before, "{}: byte {at} is changed", trial.name);
    }
    let got = trial.words(got, PLACES.len());
    for (place, got) in PLACES.into_iter().zip(got) {
        // Some places come to the inside again if they are multiplied in 32 bits.
        let is_far = u64::from(place) * 4 < 1 << 32;
        match place {
            0 => assert!(got == first_word || got == 7, "{}: inside", trial.name),
            _ if is_far => assert_eq!(got, 0, "{}: {place} is no place, and is read", trial.name),
            _ => {}
        }
    }
}

pub(super) fn kernels_come_and_go(trial: &mut Trial) {
    let one = trial.kernel(sources::INCREMENT);
    let other = trial.kernel(sources::INCREMENT);
    assert!(one != other, "{}: a number comes twice", trial.name);
    let block = trial.block(&[0; 32]);
    let step = |kernel| Step::Run(run(kernel, &[first(block, 128)], [1; 3]));
    let ticket = trial.submit(&[step(one)]);
    // While it may be under way.
    trial.device.unload(one);
    let refused = trial.device.submit(&[step(other), step(one)]);
    trial.wrong(refused, "a kernel that was unloaded");
    trial.done(ticket);
    trial.all(&[step(other)]);
    let found = trial.words(block, 32);
    trial.same(&found, &[2; 32], "what two kernels have counted");
    trial.device.unload(one);
    trial.device.unload(other);
    let again = trial.kernel(sources::INCREMENT);
    assert!(again != one && again != other, "{}: a number comes again", trial.name);
    let ticket = trial.submit(&[step(again)]);
    let told = trial.device.wait(ticket, Duration::from_secs(60));
    assert!(trial.good(told).is_some(), "{}: not in time", trial.name);
}
