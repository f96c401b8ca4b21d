//! Copies: they have their turn, and their share.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const ZERO: Duration = Duration::ZERO;

/// Makes the copy that is due.
#[track_caller]
fn copy(slicer: &mut Slicer, took: Duration) -> Stage {
    let Next::Copy(stage) = slicer.next(ZERO) else { panic!("a copy is due") };
    assert_eq!(slicer.due_copy(ZERO), Some(stage));
    slicer.begin_copy(stage);
    slicer.charge_copy(stage, took);
    stage
}

#[test]
fn a_copy_is_due_at_once_if_nobody_else_wants_anything() {
    let mut slicer = slicer(1);
    for _ in 0..3 {
        slicer.want_copy(first(A)).unwrap();
        assert_eq!(copy(&mut slicer, millis(5)), first(A));
        assert_eq!(slicer.next(ZERO), Next::Idle);
    }
    let bill = Bill { nanos: 0, chunks: 0, copy_nanos: 15_000_000 };
    assert_eq!((slicer.bill(A), slicer.stage_bill(first(A))), (Some(bill), Some(bill)));
    assert_eq!((slicer.busy_nanos(), slicer.copy_nanos()), (0, 15_000_000));
    assert_eq!(slicer.want_copy(Stage { tenant: A, number: 9 }), Err(Refused::Unknown));
}

#[test]
fn who_has_copied_waits_until_others_are_as_far() {
    let mut slicer = slicer(1);
    slicer.submit(first(B), work(1, 1_000)).unwrap();
    turn(&mut slicer, millis(1));
    // Both are due: who comes anew is first.
    slicer.want_copy(first(A)).unwrap();
    copy(&mut slicer, millis(6));
    slicer.want_copy(first(A)).unwrap();
    // With the first turn.
    let mut computed = millis(4);
    while let Next::Chunk(chunk) = slicer.next(ZERO) {
        let took = millis(1) * chunk.groups[0];
        slicer.complete(chunk.id, took, true);
        computed += took;
    }
    // 6 ms beside chunks of 2 ms.
    assert!((millis(6)..=millis(8)).contains(&computed), "{computed:?}");
    copy(&mut slicer, millis(6));
}

#[test]
fn a_copy_does_not_wait_for_a_place_on_the_device() {
    let mut slicer = slicer(1);
    slicer.submit(first(B), work(1, 1_000)).unwrap();
    let chunk = chunk(&mut slicer);
    assert_eq!(slicer.next(ZERO), Next::Deep);
    slicer.want_copy(first(A)).unwrap();
    copy(&mut slicer, millis(9));
    slicer.want_copy(first(A)).unwrap();
    assert_eq!((slicer.next(ZERO), slicer.due_copy(ZERO)), (Next::Deep, None), "it is B's turn");
    slicer.complete(chunk.id, millis(40), true);
    copy(&mut slicer, millis(1));
}

#[test]
fn what_is_not_wanted_any_more_has_no_turn() {
    let mut slicer = slicer(1);
    for _ in 0..3 {
        slicer.want_copy(first(A)).unwrap();
    }
    slicer.drop_copies(first(A), 2);
    copy(&mut slicer, millis(1));
    assert_eq!(slicer.next(ZERO), Next::Idle);
    slicer.want_copy(first(A)).unwrap();
    slicer.close_stage(first(A)).unwrap();
    assert_eq!(slicer.next(ZERO), Next::Idle);
    slicer.want_copy(first(B)).unwrap();
    slicer.close(B).unwrap();
    assert_eq!(slicer.next(ZERO), Next::Idle);
}

#[test]
fn copies_are_held_to_a_cap() {
    let mut slicer = slicer(1);
    let cap = Some(Cap { rate: 100_000, burst: millis(1) });
    slicer.change(ZERO, A, Terms { cap, ..half() }).unwrap();
    slicer.want_copy(first(A)).unwrap();
    copy(&mut slicer, millis(2));
    slicer.want_copy(first(A)).unwrap();
    let Next::At(at) = slicer.next(ZERO) else { panic!("it is at its cap") };
    assert!((millis(10)..millis(11)).contains(&at), "1 ms is owed, a tenth at a time: {at:?}");
    assert_eq!((slicer.due_copy(ZERO), slicer.due_copy(at)), (None, Some(first(A))));
}

#[test]
fn stages_of_a_tenant_share_what_it_copies_and_computes() {
    let mut slicer = slicer(1);
    let second = Stage { tenant: A, number: 2 };
    slicer.open_stage(second, StageTerms { weight: 1, dispatches_max: 1 }).unwrap();
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    for _ in 0..400 {
        if slicer.stages_copies(second) == 0 {
            slicer.want_copy(second).unwrap();
        }
        match slicer.next(ZERO) {
            Next::Copy(_) => {
                copy(&mut slicer, millis(3));
            }
            Next::Chunk(chunk) => {
                let took = Duration::from_micros(10) * chunk.groups[0];
                slicer.complete(chunk.id, took, true);
            }
            other => panic!("{other:?}"),
        }
    }
    let [computed, copied] = [first(A), second].map(|stage| {
        let bill = slicer.stage_bill(stage).unwrap();
        bill.nanos + bill.copy_nanos
    });
    assert!(copied > 100_000_000 && computed.abs_diff(copied) <= 10_000_000, "{copied}");
}

impl Slicer {
    fn stages_copies(&self, stage: Stage) -> usize {
        self.tenants[&stage.tenant.0].stages[&stage.number].copies
    }
}

/// A tenant that always has something to do.
#[derive(Debug, Clone, Copy)]
struct Greedy {
    weight: u32,
    /// It only copies; else it only computes.
    copies: bool,
    /// Of a copy, or of a thousand groups.
    micros: u64,
    /// How many copies it wants at once.
    eager: usize,
}

fn greedy() -> impl Strategy<Value = Greedy> {
    (1_u32..20, any::<bool>(), 1_u64..6_000, 1_usize..40)
        .prop_map(|(weight, copies, micros, eager)| Greedy { weight, copies, micros, eager })
}

/// Tenants on a device of some depth, beside whose work the host copies.
struct Bench {
    slicer: Slicer,
    tenants: Vec<Greedy>,
    now: u64,
    /// What the device works on: whose, and how long that takes.
    queue: VecDeque<(ChunkId, u64)>,
    /// The first of it is done then.
    done_at: u64,
}

impl Bench {
    fn new(depth: usize, tenants: &[Greedy]) -> Self {
        let mut slicer = Slicer::new(Settings { depth, ..Settings::default() });
        let sum: u32 = tenants.iter().map(|greedy| greedy.weight).sum();
        let share = |greedy: &Greedy| Greedy { weight: greedy.weight * (WHOLE / sum), ..*greedy };
        let tenants: Vec<Greedy> = tenants.iter().map(share).collect();
        for (number, greedy) in tenants.iter().enumerate() {
            let terms = Terms { weight: greedy.weight, cap: None };
            slicer.open(ZERO, Tenant(number as u64), terms).unwrap();
            let terms = StageTerms { weight: 1, dispatches_max: 8 };
            slicer.open_stage(first(Tenant(number as u64)), terms).unwrap();
        }
        Self { slicer, tenants, now: 0, queue: VecDeque::new(), done_at: 0 }
    }

    /// All tenants want more.
    fn ask(&mut self) {
        for (number, greedy) in self.tenants.iter().enumerate() {
            let stage = first(Tenant(number as u64));
            if greedy.copies {
                for _ in self.slicer.stages_copies(stage)..greedy.eager {
                    self.slicer.want_copy(stage).unwrap();
                }
            } else if self.slicer.room(stage) > Some(1) {
                self.slicer.submit(stage, work(number as u8, 100_000)).unwrap();
            }
        }
    }

    /// Settles what the device has done until now.
    fn land(&mut self) {
        while let Some((chunk, took)) = self.queue.front().copied()
            && self.done_at <= self.now
        {
            self.queue.pop_front();
            self.slicer.complete(chunk, Duration::from_nanos(took), true);
            self.done_at += self.queue.front().map_or(0, |(_, took)| *took);
        }
    }

    fn step(&mut self) {
        self.ask();
        self.land();
        match self.slicer.next(Duration::from_nanos(self.now)) {
            Next::Copy(stage) => {
                let took = self.tenants[stage.tenant.0 as usize].micros * 1_000;
                self.slicer.begin_copy(stage);
                self.slicer.charge_copy(stage, Duration::from_nanos(took));
                self.now += took;
            }
            Next::Chunk(chunk) => {
                let greedy = self.tenants[chunk.dispatch.stage().tenant.0 as usize];
                let took = (u64::from(chunk.groups[0]) * greedy.micros).max(1);
                if self.queue.is_empty() {
                    self.done_at = self.now + took;
                }
                self.queue.push_back((chunk.id, took));
            }
            Next::Deep => self.now = self.done_at,
            other => panic!("all have something to do, but {other:?}"),
        }
    }

    /// What a tenant was charged over its weight, and at most for one turn.
    fn service(&self, number: usize) -> (f64, f64) {
        let bill = self.slicer.bill(Tenant(number as u64)).unwrap();
        let Greedy { weight, copies, micros, .. } = self.tenants[number];
        let weight = f64::from(weight) / f64::from(WHOLE);
        // The first chunk of a kernel has 64 groups, and others are expected to take 2 ms at most.
        let turn = if copies { micros * 1_000 } else { 2_000_000 + 64 * micros };
        ((bill.nanos + bill.copy_nanos) as f64 / weight, turn as f64 / weight)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The bound is that of chunks: as many turns of each as the device has at once, twice.
    #[test]
    fn who_copies_and_who_computes_are_apart_by_some_turns_of_each(
        depth in 1_usize..4,
        tenants in prop::collection::vec(greedy(), 2..5),
    ) {
        let mut bench = Bench::new(depth, &tenants);
        for _ in 0..2_000 {
            bench.step();
            for one in 0..tenants.len() {
                for other in 0..one {
                    let [(a, turn_a), (b, turn_b)] = [one, other].map(|it| bench.service(it));
                    let bound = 2.0 * depth as f64 * (turn_a + turn_b);
                    let apart = (a - b).abs();
                    prop_assert!(apart <= bound * 1.000_001, "{one}, {other}: {apart} of {bound}");
                }
            }
        }
    }
}

#[test]
fn a_copier_and_a_computer_of_the_same_weight_get_the_same() {
    let greedy = |copies| Greedy { weight: 1, copies, micros: 700, eager: 30 };
    let mut bench = Bench::new(2, &[greedy(true), greedy(false)]);
    for _ in 0..4_000 {
        bench.step();
    }
    let [copied, computed] = [0, 1].map(|number| bench.service(number).0);
    let apart = (copied - computed).abs() / copied;
    assert!(copied > 1e9 && apart < 0.01, "{copied} and {computed}");
}
