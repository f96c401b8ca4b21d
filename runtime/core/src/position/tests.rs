//! Positions and numbers against a naive model that remembers every event by name.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SOURCE: Source = Source::Edge { edge: EdgeId(7), partition: 3 };

fn run(seq: u64, previous: u64) -> RunHeader {
    RunHeader { source: SOURCE, seq, previous }
}

fn at(seq: u64, index: u32) -> Positions {
    let mut positions = Positions::default();
    positions.advance(SOURCE, Place { seq, index }).expect("forward");
    positions
}

#[test]
fn a_run_is_a_repeat_next_or_behind_a_gap() {
    let place = Place { seq: 5, index: 2 };
    assert_eq!(at(5, 2).classify(&run(4, 1)), Arrival::Repeat);
    assert_eq!(at(5, 2).classify(&run(5, 4)), Arrival::Next { skip: 2 });
    assert_eq!(at(5, 2).classify(&run(6, 5)), Arrival::Gap { from: place });
    // Half of run 5 is missing, whatever the run behind it says.
    assert_eq!(at(5, 2).classify(&run(6, 4)), Arrival::Gap { from: place });
    assert_eq!(at(5, 0).classify(&run(9, 4)), Arrival::Next { skip: 0 });
    assert_eq!(at(5, 0).classify(&run(9, 5)), Arrival::Gap { from: Place { seq: 5, index: 0 } });
    assert_eq!(Positions::default().classify(&run(1, 0)), Arrival::Next { skip: 0 });
    assert_eq!(Positions::default().classify(&run(8, 0)), Arrival::Next { skip: 0 });
    assert_eq!(Positions::default().classify(&run(8, 3)), Arrival::Gap { from: Place::START });
}

#[test]
fn a_place_never_goes_back() {
    let mut positions = at(5, 2);
    let to = Place { seq: 5, index: 1 };
    let refused = positions.advance(SOURCE, to);
    assert_eq!(refused, Err(Backwards { source_of: SOURCE, at: Place { seq: 5, index: 2 }, to }));
    assert_eq!(positions, at(5, 2));
    assert_eq!(positions.advance(SOURCE, Place { seq: 5, index: 2 }), Ok(()));
    assert_eq!(Place::within(5, 3, 3), Place { seq: 6, index: 0 });
    assert_eq!(Place::within(5, 2, 3), Place { seq: 5, index: 2 });
}

#[test]
fn numbers_follow_one_another() {
    let mut numbers = Numbers::default();
    let edge = EdgeId(1);
    assert_eq!(numbers.next(edge), 1);
    assert_eq!(numbers.send(edge, 0, 1), Ok(0));
    assert_eq!(numbers.send(edge, 4, 1), Ok(0));
    assert_eq!(numbers.send(edge, 4, 1), Err(OutOfOrder { seq: 1, last: 1 }), "twice in a commit");
    assert_eq!(numbers.send(edge, 4, 3), Err(OutOfOrder { seq: 3, last: 1 }), "2 is left out");
    assert_eq!(numbers.send(edge, 4, 2), Ok(1));
    assert_eq!(numbers.send(edge, 0, 1), Err(OutOfOrder { seq: 1, last: 2 }));
    assert_eq!(numbers.send(edge, 0, 3), Ok(1));
    assert_eq!((numbers.next(edge), numbers.next(EdgeId(2))), (4, 1));
    assert_eq!(Counter::restore(2, [(0_u16, 3)]), None);
    assert_eq!(Counter::<u16>::default().send(0, 0), Err(OutOfOrder { seq: 0, last: 0 }));
}

/// A commit of the source: how many events it has for each of two readers.
fn commits() -> impl Strategy<Value = Vec<[u32; 2]>> {
    prop::collection::vec([0_u32..4, 0_u32..4], 1..12)
}

/// What happens to the reader.
#[derive(Debug, Clone)]
enum Step {
    /// Run number n of those there are arrives, and at most so many of its events are taken.
    Arrive(usize, u32),
    /// The reader starts anew from its last committed positions.
    Restart,
    /// What was taken stands.
    Commit,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_usize..12, 1_u32..5).prop_map(|(n, most)| Step::Arrive(n, most)),
        1 => Just(Step::Restart),
        3 => Just(Step::Commit),
    ];
    prop::collection::vec(step, 0..120)
}

/// A run for the reader of the model: its header and its number of events.
type Sent = (RunHeader, u32);

/// Numbers the commits as a source does; gives the runs for reader 0.
fn numbered(commits: &[[u32; 2]]) -> Vec<Sent> {
    let mut numbers = Numbers::default();
    let mut runs = Vec::new();
    for commit in commits.iter().filter(|commit| commit.iter().any(|events| *events > 0)) {
        let seq = numbers.next(EdgeId(7));
        for (to, events) in commit.iter().enumerate().filter(|(_, events)| **events > 0) {
            let previous = numbers.send(EdgeId(7), to as u16, seq).expect("in order");
            if to == 0 {
                runs.push((run(seq, previous), *events));
            }
        }
    }
    runs
}

proptest! {
    #[test]
    fn every_event_is_taken_once_and_in_order(commits in commits(), steps in steps()) {
        let runs = numbered(&commits);
        let all: Vec<(u64, u32)> =
            runs.iter().flat_map(|(run, events)| (0..*events).map(|i| (run.seq, i))).collect();
        let mut positions = Positions::default();
        let mut committed = (positions.clone(), Vec::new());
        let mut taken: Vec<(u64, u32)> = Vec::new();
        // At the end every run arrives in order, as the log would give them.
        let ending = (0..runs.len()).map(|n| Step::Arrive(n, u32::MAX));
        for step in steps.into_iter().chain(ending) {
            match step {
                Step::Arrive(n, most) => {
                    let Some((run, events)) = runs.get(n) else { continue };
                    let known: BTreeSet<_> = taken.iter().copied().collect();
                    let missing = all.iter().find(|event| !known.contains(event));
                    match positions.classify(run) {
                        Arrival::Repeat => {
                            prop_assert!((0..*events).all(|i| known.contains(&(run.seq, i))));
                        }
                        Arrival::Next { skip } => {
                            prop_assert_eq!(missing, Some(&(run.seq, skip)));
                            let end = skip.saturating_add(most).min(*events);
                            taken.extend((skip..end).map(|i| (run.seq, i)));
                            let to = Place::within(run.seq, end, *events);
                            positions.advance(SOURCE, to).expect("forward");
                        }
                        Arrival::Gap { from } => {
                            let missing = *missing.expect("a gap");
                            prop_assert!(missing < (run.seq, 0));
                            prop_assert!((from.seq, from.index) <= missing);
                        }
                    }
                }
                Step::Restart => (positions, taken) = committed.clone(),
                Step::Commit => committed = (positions.clone(), taken.clone()),
            }
        }
        prop_assert_eq!(taken, all);
    }
}
