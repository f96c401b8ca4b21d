//! Submissions: their order, how they end, and what becomes of what they have written.

use super::*;

const ZERO: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

const fn part(slot: u32, offset: u64, bytes: u64) -> Part {
    Part { slot, offset, bytes }
}

#[test]
fn steps_are_done_in_their_order() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let kernel = rig.kernel(who, SUM);
    let sum = |slots: &[u32]| Op::Dispatch { kernel, grid: [16, 1, 1], slots: slots.to_vec() };
    let ops = [
        Op::Fill { at: part(0, 0, 256), word: 3 },
        sum(&[0, 1]),
        sum(&[1, 0]),
        Op::Copy { from: part(0, 0, 128), to: part(1, 128, 128) },
        sum(&[0, 1]),
    ];
    let graph = rig.host.record(who, &ops).unwrap();
    let [one, other] = [rig.buffer(who, &[9; 64]), rig.buffer(who, &[1; 64])];
    let submission = rig.submit(who, graph, &[one, other]).unwrap();
    assert_eq!(code(rig.words(who, one)), "gpu.busy");
    assert_eq!(code(rig.host.write(who, other, 0, &[0])), "gpu.busy");
    assert_eq!(rig.ends(), [(submission, End::Whole)]);
    assert_eq!(rig.words(who, one), Ok(vec![7; 64]));
    let expected: Vec<u32> = [11, 14].into_iter().flat_map(|word| [word; 32]).collect();
    assert_eq!(rig.words(who, other), Ok(expected));
    rig.close_all();
}

#[test]
fn submissions_of_a_stage_are_done_in_their_order() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[0; 4]);
    let fill = |rig: &mut Rig, word| {
        let graph = rig.host.record(who, &[Op::Fill { at: part(0, 0, 16), word }]).unwrap();
        rig.submit(who, graph, &[buffer]).unwrap()
    };
    let submissions = [1, 2, 3].map(|word| (fill(&mut rig, word), End::Whole));
    assert_eq!(rig.ends(), submissions);
    assert_eq!(rig.words(who, buffer), Ok(vec![3; 4]));
    rig.close_all();
}

#[test]
fn a_full_queue_would_block() {
    let mut rig = Rig::new(terms());
    let [who, beside] = [owner(A, 0, 0), owner(A, 1, 0)];
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[0; 4]);
    for _ in 0..4 {
        rig.submit(who, graph, &[buffer]).unwrap();
    }
    assert_eq!(code(rig.submit(who, graph, &[buffer])), "gpu.would-block");
    let other = rig.graph(beside, ADD, 1);
    let another = rig.buffer(beside, &[0; 4]);
    rig.submit(beside, other, &[another]).unwrap();
    // What has ended counts until its owner was told.
    for _ in 0..100 {
        rig.turn(MS);
        rig.advance(MS);
    }
    assert_eq!(code(rig.submit(who, graph, &[buffer])), "gpu.would-block");
    assert!(rig.host.poll().is_some());
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends().len(), 5);
    assert_eq!(rig.words(who, buffer), Ok(vec![5; 4]));
    rig.close_all();
}

#[test]
fn fuel_that_is_used_up_ends_a_submission_and_poisons_what_it_wrote() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ENDLESS, 1);
    let [buffer, beside] = [rig.buffer(who, &[1, 2, 3]), rig.buffer(who, &[4, 4, 4])];
    let submission = rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends(), [(submission, End::Fuel)]);
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    assert_eq!(code(rig.submit(who, graph, &[buffer])), "gpu.poisoned");
    let [ill, well] = [buffer, beside].map(Binding::whole);
    assert_eq!(code(rig.host.copy(who, ill, well)), "gpu.poisoned");
    // Part of it written anew is well again, from either end.
    rig.host.write(who, buffer, 0, &bytes_of(&[8])).unwrap();
    let mut word = [0; 4];
    assert_eq!(rig.host.read(who, buffer, 0, &mut word), Ok(()));
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    // A copy over all of it does as well, and is allowed.
    rig.host.copy(who, well, ill).unwrap();
    assert_eq!(rig.ends().len(), 1);
    assert_eq!(rig.words(who, buffer), Ok(vec![4; 3]));
    rig.close_all();
}

#[test]
fn what_is_in_the_middle_of_poison_does_not_heal_it() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ENDLESS, 1);
    let buffer = rig.buffer(who, &[0; 4]);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends().len(), 1);
    rig.host.write(who, buffer, 4, &[1; 4]).unwrap();
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    rig.host.write(who, buffer, 0, &[1; 8]).unwrap();
    rig.host.write(who, buffer, 12, &[1; 4]).unwrap();
    assert_eq!(code(rig.host.read(who, buffer, 0, &mut [0; 9])), "gpu.poisoned");
    rig.host.write(who, buffer, 8, &[1; 4]).unwrap();
    assert_eq!(rig.words(who, buffer), Ok(vec![0x0101_0101; 4]));
    rig.close_all();
}

#[test]
fn those_that_were_to_use_what_is_poisoned_end_too() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let [graph, add] = [rig.graph(who, ENDLESS, 1), rig.graph(who, ADD, 1)];
    let [one, two, three] = [(); 3].map(|()| rig.buffer(who, &[1]));
    let first = rig.submit(who, graph, &[one]).unwrap();
    let second = rig.host.copy(who, Binding::whole(one), Binding::whole(two)).unwrap();
    let third = rig.submit(who, add, &[two]).unwrap();
    let fourth = rig.submit(who, add, &[three]).unwrap();
    let mut ends = rig.ends();
    ends.sort_by_key(|(submission, _)| *submission);
    let expected = [End::Fuel, End::Poisoned];
    assert_eq!(
        [&ends[0], &ends[1]],
        [&(first, expected[0].clone()), &(second, expected[1].clone())]
    );
    // The third may have had nothing to do with it yet, or have seen what the second has left.
    assert_eq!((ends[2].0, ends[3].clone()), (third, (fourth, End::Whole)));
    assert_eq!(rig.words(who, three), Ok(vec![2]));
    rig.close_all();
}

#[test]
fn a_submission_is_cancelled() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let (submission, buffer) = rig.begin_endless(who);
    let add = rig.graph(who, ADD, 1);
    let other = rig.buffer(who, &[0]);
    let waiting = rig.submit(who, add, &[other]).unwrap();
    let now = rig.now();
    for forger in [owner(B, 0, 0), owner(A, 0, 1)] {
        assert_eq!(code(rig.host.cancel(now, forger, submission)), "gpu.handle");
    }
    rig.host.cancel(now, who, waiting).unwrap();
    rig.host.cancel(now, who, submission).unwrap();
    let ends = rig.ends();
    assert_eq!(ends, [(waiting, End::Cancelled), (submission, End::Cancelled)]);
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    assert_eq!(code(rig.host.cancel(now, who, submission)), "gpu.handle");
    rig.close_all();
}

#[test]
fn what_waits_and_is_cancelled_leaves_what_it_would_write() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[5]);
    let submission = rig.submit(who, graph, &[buffer]).unwrap();
    rig.host.cancel(ZERO, who, submission).unwrap();
    rig.host.cancel(ZERO, who, submission).unwrap();
    assert_eq!(rig.ends(), [(submission, End::Cancelled)]);
    assert_eq!(rig.words(who, buffer), Ok(vec![5]));
    rig.close_all();
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[5]);
    let graph = rig.graph(who, ADD, 1);
    let (endless, _) = rig.begin_endless(who);
    let at = rig.now() + 20 * MS;
    let order = |deadline| Order { graph, bindings: vec![Binding::whole(buffer)], deadline };
    // The device has this one already, behind the endless one.
    let patient = rig.host.submit(who, &order(Some(at + 1000 * MS))).unwrap();
    let waiting = rig.host.submit(who, &order(Some(at))).unwrap();
    while rig.host.events.is_empty() {
        assert_eq!(rig.turn(1000 * MS), Verdict::Busy);
    }
    assert!((at..at + MS).contains(&rig.now()), "no later than it has to be");
    let now = rig.now();
    rig.host.cancel(now, who, endless).unwrap();
    assert_eq!(
        rig.ends(),
        [(waiting, End::Deadline), (endless, End::Cancelled), (patient, End::Whole)]
    );
    assert_eq!(rig.words(who, buffer), Ok(vec![6]));
    // What is late already is not begun.
    let late = rig.host.submit(who, &order(Some(ZERO))).unwrap();
    assert_eq!(rig.ends(), [(late, End::Deadline)]);
    assert_eq!(rig.words(who, buffer), Ok(vec![6]));
    rig.close_all();
}

#[test]
fn all_work_is_charged_copies_and_fills_as_well() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(A, 1, 0)];
    let [one, two] = [(); 2].map(|()| rig.host.create(ZERO, who, 3 * BLOCK_BYTES).unwrap());
    rig.host.copy(who, Binding::whole(one), Binding::whole(two)).unwrap();
    let graph = rig.host.record(who, &[Op::Fill { at: part(0, 0, 8), word: 1 }]).unwrap();
    rig.submit(who, graph, &[one]).unwrap();
    let add = rig.graph(other, ADD, 700);
    let third = rig.buffer(other, &[0; 8]);
    rig.submit(other, add, &[third]).unwrap();
    let charged: Vec<u128> = rig
        .run()
        .iter()
        .map(|event| match event {
            Event::Ended { device_nanos, .. } => *device_nanos,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(charged.iter().all(|nanos| *nanos > 0), "{charged:?}");
    let now = rig.now();
    let stages = [who, other].map(|who| rig.host.stage_bill(now, who.stage).unwrap());
    let in_all: u128 = stages.iter().map(|bill| bill.used.device_nanos).sum();
    assert_eq!(in_all, charged.iter().sum());
    assert_eq!(in_all, rig.probe().busy);
    assert_eq!(rig.host.bill(now, A).unwrap().used.device_nanos, in_all);
    rig.close_all();
}

#[test]
fn kernels_look_at_once_whether_they_are_cancelled() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[0; 4]);
    for (fuel, expected) in [(1023, 1023), (1024, 1024), (10_000, 9 * 1024)] {
        rig.host.change(ZERO, A, with_limits(TenantLimits { fuel, ..terms().limits })).unwrap();
        let submission = rig.submit(who, graph, &[buffer]).unwrap();
        let space = rig.host.open_space(A).unwrap();
        assert_eq!(space.submissions[&submission].fuel, expected);
    }
    rig.run();
    rig.close_all();
}

#[test]
fn figures_are_those_of_bills_and_stages() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 1, 0);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[0; 4]);
    rig.submit(who, graph, &[buffer]).unwrap();
    rig.run();
    rig.submit(who, graph, &[buffer]).unwrap();
    let now = rig.now();
    let figures = rig.host.figures(now);
    let [first, second] = &figures[..] else { panic!("{figures:?}") };
    assert_eq!((first.tenant, second.tenant), (A, B));
    assert_eq!(Some(first.bill), rig.host.bill(now, A));
    assert_eq!((first.held_bytes, first.handles), (BLOCK_BYTES, 2));
    assert_eq!((second.held_bytes, second.handles, second.bill), (0, 0, Bill::default()));
    let stages = first.stages.iter().map(|it| (it.stage.number, it.queue, it.bill.used.up_bytes));
    assert_eq!(stages.collect::<Vec<_>>(), [(0, 0, 0), (1, 1, 16)]);
    assert_eq!(Some(first.stages[1].bill), rig.host.stage_bill(now, who.stage));
    assert!(first.stages[1].bill.used.device_nanos > 0);
    assert_eq!(first.stages[1].held_bytes, 256);
    rig.run();
    rig.close_all();
}

#[test]
fn copies_and_fills_are_done_in_pieces() {
    let mut rig = Rig::empty();
    rig.open(A, TenantTerms { guaranteed_bytes: 64 * BLOCK_BYTES, ..terms() });
    let who = owner(A, 0, 0);
    let bytes = 29 * BLOCK_BYTES - 4;
    let words: Vec<u32> = (0..bytes as u32 / 4).collect();
    let [one, two] = [rig.buffer(who, &words), rig.buffer(who, &words)];
    let ops = [
        Op::Copy { from: part(0, 0, bytes - 400), to: part(1, 400, bytes - 400) },
        Op::Fill { at: part(0, 8, bytes - 12), word: 5 },
    ];
    let graph = rig.host.record(who, &ops).unwrap();
    let submission = rig.submit(who, graph, &[one, two]).unwrap();
    assert_eq!(rig.ends(), [(submission, End::Whole)]);
    assert_eq!(rig.probe().submits, 4);
    let copied = [&words[..100], &words[..words.len() - 100]].concat();
    assert!(rig.words(who, two) == Ok(copied), "the copy is not what it is of");
    let filled = |at| if at < 2 || at + 1 == words.len() { at as u32 } else { 5 };
    let filled = (0..words.len()).map(filled).collect();
    assert!(rig.words(who, one) == Ok(filled), "the fill is not what it should be");
    rig.close_all();
}

#[test]
fn tenants_share_the_device_by_weight() {
    let mut rig = Rig::empty();
    let weights = [(A, 600_000), (B, 200_000)];
    for (tenant, weight) in weights {
        let limits = TenantLimits { queue: 64, ..TenantLimits::default() };
        rig.open(tenant, TenantTerms { weight, ..with_limits(limits) });
        let who = owner(tenant, 0, 0);
        let graph = rig.graph(who, ADD, 4_000);
        let buffer = rig.buffer(who, &[0; 8]);
        for _ in 0..16 {
            rig.submit(who, graph, &[buffer]).unwrap();
        }
    }
    let used = |rig: &mut Rig, tenant| rig.host.bill(ZERO, tenant).unwrap().used.device_nanos;
    while used(&mut rig, A) < 100_000_000 {
        assert_eq!(rig.turn(MS), Verdict::Busy);
        rig.host.poll();
    }
    let [most, least] = [A, B].map(|tenant| used(&mut rig, tenant));
    // Apart by a chunk or two of each at most.
    assert!(most.abs_diff(3 * least) < 24_000_000, "{most} and {least}");
    rig.run();
    rig.close_all();
}

#[test]
fn a_stage_has_a_place_again_when_something_of_it_is_over() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[0]);
    assert_eq!((rig.host.steps(who, graph), rig.host.steps(who, buffer)), (Some(1), None));
    assert_eq!(rig.host.steps(owner(A, 0, 1), graph), None);
    let other = owner(A, 1, 0).stage;
    let stages = [who.stage, other, Stage { tenant: A, number: 9 }];
    assert_eq!(stages.map(|stage| rig.host.has_place(stage, 1)), [true, true, false]);
    assert!(!rig.host.has_place(other, STAGE_STEPS_MAX + 1));
    for _ in 0..4 {
        rig.submit(who, graph, &[buffer]).unwrap();
    }
    assert_eq!(stages.map(|stage| rig.host.has_place(stage, 1)), [false, true, false]);
    assert_eq!(code(rig.submit(who, graph, &[])), "gpu.would-block", "what is bound comes last");
    assert_eq!(rig.host.next_freed(), None);
    while rig.turn(MS) == Verdict::Busy && rig.host.poll().is_none() {}
    assert_eq!((rig.host.next_freed(), rig.host.next_freed()), (Some(who.stage), None));
    assert!(rig.host.has_place(who.stage, 1));
    // Those of other terms, and of who is gone, but none that is gone itself.
    rig.host.change(ZERO, A, terms()).unwrap();
    assert_eq!((rig.host.next_freed(), rig.host.next_freed()), (Some(who.stage), Some(other)));
    rig.host.drop_owner(ZERO, who);
    assert_eq!(rig.host.next_freed(), Some(who.stage));
    rig.host.close_stage(ZERO, who.stage).unwrap();
    assert_eq!(rig.host.next_freed(), None);
    rig.close_all();
}
