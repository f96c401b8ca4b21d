//! Work that does not come to its own end.

use std::time::Duration;

use super::{Trial, first, run, sources};
use crate::device::{Block, End, Run, Step};

/// More than a driver that cuts loops allows.
const MANY: u32 = 200_000;
/// Less than that.
const SOME: u32 = 30_000;

fn spin(trial: &mut Trial, iterations: u32, groups: u32) -> (Run, Block) {
    let kernel = trial.kernel(sources::SPIN);
    let settings = trial.block(&[iterations]);
    let bytes = groups as usize * 256;
    let counted = trial.empty(bytes);
    let bindings = [first(settings, 4), first(counted, bytes)];
    (run(kernel, &bindings, [groups, 1, 1]), counted)
}

pub(super) fn work_ends_when_its_fuel_does(trial: &mut Trial) {
    let (whole, counted) = spin(trial, 5000, 2);
    for (fuel, end) in [(0, End::Fuel), (4000, End::Fuel), (5001, End::Whole)] {
        let ticket = trial.submit(&[Step::Run(Run { fuel, ..whole.clone() })]);
        assert_eq!(trial.done(ticket).end, end, "{}: fuel {fuel}", trial.name);
    }
    let found = trial.words(counted, 128);
    trial.same(&found, &[5000; 128], "what fuel was enough for");
    // One run out of three, and the work behind it is not touched.
    let block = trial.block(&[1; 64]);
    let increments = trial.kernel(sources::INCREMENT);
    let other = Step::Run(run(increments, &[first(block, 256)], [2, 1, 1]));
    let short = Step::Run(Run { fuel: 100, ..whole.clone() });
    let tickets = [
        trial.submit(&[Step::Run(whole.clone()), short, other.clone()]),
        trial.submit(&[other]),
        trial.submit(&[Step::Run(whole)]),
    ];
    let ends = tickets.map(|ticket| trial.done(ticket).end);
    assert_eq!(ends, [End::Fuel, End::Whole, End::Whole], "{}", trial.name);
    let found = trial.words(block, 64);
    assert!(found == [2; 64] || found == [3; 64], "{}: work behind it is not done", trial.name);
    let found = trial.words(counted, 128);
    trial.same(&found, &[5000; 128], "what comes after work without fuel");
}

pub(super) fn no_loop_is_cut_without_a_word(trial: &mut Trial) {
    let (run, counted) = spin(trial, MANY, 1);
    let ticket = trial.submit(&[Step::Run(Run { fuel: 2 * MANY, ..run })]);
    let end = trial.done(ticket).end;
    if trial.device.info().limits.iterations.is_some_and(|most| most < u64::from(MANY)) {
        assert_eq!(end, End::Fuel, "{}: a loop is cut", trial.name);
        return;
    }
    assert_eq!(end, End::Whole, "{}", trial.name);
    let found = trial.words(counted, 64);
    trial.same(&found, &[MANY; 64], "what a long loop has counted");
}

pub(super) fn what_is_done_is_told_while_the_next_is_not(trial: &mut Trial) {
    let (short, _) = spin(trial, 1, 1);
    let (long, _) = spin(trial, SOME, trial.long_groups);
    let long = Run { fuel: SOME * 2, ..long };
    let [first, next] = [short, long].map(|run| trial.submit(&[Step::Run(run)]));
    assert_eq!(trial.done(first).end, End::Whole, "{}", trial.name);
    let told = trial.device.wait(next, Duration::ZERO);
    assert_eq!(trial.good(told), None, "{}: told with what came behind it", trial.name);
    trial.device.cancel(next);
    assert_eq!(trial.done(next).end, End::Cancelled, "{}", trial.name);
}

pub(super) fn long_work_is_cancelled(trial: &mut Trial) {
    if trial.device.info().limits.iterations.is_none() {
        let (endless, _) = spin(trial, u32::MAX, 4);
        let ticket = trial.submit(&[Step::Run(Run { fuel: u32::MAX, ..endless })]);
        trial.device.cancel(ticket);
        assert_eq!(trial.done(ticket).end, End::Cancelled, "{}: without an end", trial.name);
    }
    let (long, counted) = spin(trial, SOME, trial.long_groups);
    let long = [Step::Run(Run { fuel: SOME * 2, ..long })];
    let tickets = [trial.submit(&long), trial.submit(&long)];
    // One that runs, and one that waits for it.
    for ticket in tickets.into_iter().rev() {
        trial.device.cancel(ticket);
    }
    let ends = tickets.map(|ticket| trial.done(ticket).end);
    assert_eq!(ends, [End::Cancelled; 2], "{}", trial.name);
    let counts = trial.words(counted, trial.long_groups as usize * 64);
    let cut = counts.into_iter().filter(|count| *count < SOME).count();
    assert!(cut > 0, "{}: all of it was done", trial.name);
    // The device, and the kernel, are as before.
    let (short, counted) = spin(trial, SOME, 1);
    trial.all(&[Step::Run(short)]);
    let found = trial.words(counted, 64);
    trial.same(&found, &[SOME; 64], "what comes behind cancelled work");
}
