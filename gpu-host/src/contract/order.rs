//! Work: in which order it is done, whole or not at all, and how one learns of it.

use std::time::Duration;

use super::{Trial, first, run, sources};
use crate::device::{Block, End, Loaded, Run, Span, Step};

pub(super) fn a_wrong_step_leaves_nothing_done(trial: &mut Trial) {
    let [kernel, two] = [sources::INCREMENT, sources::SPIN].map(|source| trial.kernel(source));
    let [block, other] = [trial.block(&[5; 64]), trial.block(&[6; 64])];
    let good = run(kernel, &[first(block, 256)], [2, 1, 1]);
    let too_many = trial.device.info().limits.groups.checked_add(1);
    let bound = |span| Run { bindings: vec![span], ..good.clone() };
    let span = |offset, bytes| Span { block, offset, bytes };
    let mut wrong = vec![
        Step::Fill { at: span(0, 260), word: 0 },
        Step::Fill { at: span(2, 4), word: 0 },
        Step::Fill { at: span(0, 3), word: 0 },
        Step::Fill { at: first(Block(u64::MAX), 4), word: 0 },
        Step::Copy { from: span(252, 8), to: other, offset: 0 },
        Step::Copy { from: span(0, 8), to: other, offset: 252 },
        Step::Copy { from: span(0, 8), to: other, offset: u64::MAX - 3 },
        Step::Copy { from: span(0, 8), to: Block(0), offset: 0 },
        Step::Copy { from: span(0, 8), to: block, offset: 4 },
        Step::Run(Run { kernel: Loaded(u64::MAX), ..good.clone() }),
        Step::Run(Run { bindings: Vec::new(), ..good.clone() }),
        Step::Run(Run { bindings: vec![span(0, 256); 2], ..good.clone() }),
        Step::Run(Run { bindings: vec![span(0, 256), span(0, 256)], kernel: two, ..good.clone() }),
        Step::Run(bound(span(0, 260))),
        Step::Run(bound(span(0, 0))),
        Step::Run(bound(span(u64::MAX - 255, 256))),
        Step::Run(bound(span(1, 128))),
        Step::Run(bound(first(Block(u64::MAX), 4))),
        Step::Run(Run { from: [1, 0, 0], ..good.clone() }),
        Step::Run(Run { from: [u32::MAX, 0, 0], ..good.clone() }),
        Step::Run(Run { groups: [2, 1, 2], ..good.clone() }),
    ];
    wrong.extend(too_many.map(|groups| Step::Run(Run { grid: [groups, 1, 1], ..good.clone() })));
    for step in wrong {
        let what = format!("{step:?}");
        let fill = Step::Fill { at: first(other, 256), word: 9 };
        let copy = Step::Copy { from: first(other, 256), to: block, offset: 0 };
        let refused = trial.device.submit(&[fill, Step::Run(good.clone()), copy, step]);
        trial.wrong(refused, &what);
        let found = [trial.words(block, 64), trial.words(other, 64)].concat();
        trial.same(&found, &[[5; 64], [6; 64]].concat(), &what);
    }
    trial.all(&[Step::Run(good)]);
    let found = trial.words(block, 64);
    trial.same(&found, &[6; 64], "what the good step does");
}

pub(super) fn steps_see_what_those_before_did(trial: &mut Trial) {
    const WORDS: usize = 4096;
    const BYTES: usize = WORDS * 4;
    let kernel = trial.kernel(sources::INCREMENT);
    let [one, other] = [trial.empty(BYTES), trial.empty(BYTES)];
    let step = |block| Step::Run(run(kernel, &[first(block, BYTES)], [128, 1, 1]));
    let copy = |from, to| Step::Copy { from: first(from, BYTES), to, offset: 0 };
    for round in 0..10 {
        // Each of them depends on the one before.
        trial.all(&[
            Step::Fill { at: first(one, BYTES), word: round },
            step(one),
            step(one),
            copy(one, other),
            step(other),
            copy(other, one),
            Step::Fill { at: first(other, BYTES / 2), word: 0 },
            step(one),
        ]);
        let found = trial.words(one, WORDS);
        trial.same(&found, &[round + 4; WORDS], "what all steps come to");
        let found = trial.words(other, WORDS);
        let expected = [[0; WORDS / 2], [round + 3; WORDS / 2]].concat();
        trial.same(&found, &expected, "what is left on the way");
    }
}

pub(super) fn work_sees_what_work_before_did(trial: &mut Trial) {
    const WORDS: usize = 4096;
    const BYTES: usize = WORDS * 4;
    let kernel = trial.kernel(sources::INCREMENT);
    let [one, other] = [trial.empty(BYTES), trial.empty(BYTES)];
    let step = |block| Step::Run(run(kernel, &[first(block, BYTES)], [128, 1, 1]));
    let mut tickets = Vec::new();
    for _ in 0..10 {
        tickets.push(trial.submit(&[step(one)]));
        let copied = Step::Copy { from: first(one, BYTES), to: other, offset: 0 };
        tickets.push(trial.submit(&[copied]));
        tickets.push(trial.submit(&[step(other), step(other)]));
        let copied = Step::Copy { from: first(other, BYTES), to: one, offset: 0 };
        tickets.push(trial.submit(&[copied]));
    }
    // The last first: then all before are done as well.
    for ticket in tickets.into_iter().rev() {
        assert_eq!(trial.done(ticket).end, End::Whole, "{}", trial.name);
    }
    let found = trial.words(one, WORDS);
    trial.same(&found, &[30; WORDS], "what all work comes to");
}

pub(super) fn tickets_are_good_for_one_answer(trial: &mut Trial) {
    let block = trial.empty(64);
    let step = [Step::Fill { at: first(block, 64), word: 1 }];
    let [one, other] = [trial.submit(&step), trial.submit(&step)];
    let nothing = trial.submit(&[]);
    assert!(one != other && other != nothing, "{}: a ticket comes twice", trial.name);
    trial.device.cancel(one);
    for ticket in [other, one, nothing] {
        assert_eq!(trial.done(ticket).end, End::Whole, "{}", trial.name);
        let again = trial.device.wait(ticket, Duration::ZERO);
        trial.wrong(again, "a ticket that was used");
        trial.device.cancel(ticket);
    }
    // Asking whether it is done is no answer.
    let ticket = trial.submit(&step);
    let mut told = trial.device.wait(ticket, Duration::ZERO);
    for _ in 0..1_000_000 {
        if !matches!(told, Ok(None)) {
            break;
        }
        told = trial.device.wait(ticket, Duration::from_micros(50));
    }
    assert!(trial.good(told).is_some(), "{}: not in time", trial.name);
}

pub(super) fn what_is_used_stays_until_then(trial: &mut Trial) {
    const WORDS: usize = 1 << 16;
    const BYTES: usize = WORDS * 4;
    let kernel = trial.kernel(sources::INCREMENT);
    let last = trial.empty(BYTES);
    let mut tickets = Vec::new();
    for round in 0..8 {
        let block = trial.empty(BYTES);
        let at = first(block, BYTES);
        let step = Step::Run(run(kernel, &[at], [WORDS as u32 / 32, 1, 1]));
        let copy = Step::Copy { from: at, to: last, offset: 0 };
        tickets.push(trial.submit(&[Step::Fill { at, word: round }, step, copy]));
        // At once, and somebody else has its memory next.
        trial.device.free(block);
        let other = trial.empty(BYTES);
        let found = trial.bytes(other, 0, BYTES);
        trial.same(&found, &vec![0; BYTES], "memory that work has just used");
        trial.device.free(other);
    }
    for ticket in tickets {
        assert_eq!(trial.done(ticket).end, End::Whole, "{}", trial.name);
    }
    let found = trial.words(last, WORDS);
    trial.same(&found, &[8; WORDS], "what the last work has left");
}
