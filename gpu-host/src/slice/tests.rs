//! What the scheduler does, one behaviour each; `model` holds it against a naive one.

use super::*;

mod copies;
mod model;
mod properties;
mod targets;

const A: Tenant = Tenant(1);
const B: Tenant = Tenant(2);

/// The first stage of a tenant.
const fn first(tenant: Tenant) -> Stage {
    Stage { tenant, number: 1 }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A dispatch of so many groups of a kernel.
const fn work(kernel: u8, groups: u32) -> Work {
    Work { kernel: [kernel; 32], grid: [groups, 1, 1], is_whole: false, chunk_groups_max: u64::MAX }
}

const fn half() -> Terms {
    Terms { weight: WHOLE / 2, cap: None }
}

/// Chunks of 2 ms, probes of 4 groups; A and B have half of the device each, and a stage.
fn slicer(depth: usize) -> Slicer {
    let settings = Settings {
        depth,
        chunk_time_max: millis(2),
        probe_groups: 4,
        tenants_max: 3,
        stages_max: 2,
    };
    let mut slicer = Slicer::new(settings);
    for tenant in [A, B] {
        slicer.open(Duration::ZERO, tenant, half()).unwrap();
        let terms = StageTerms { weight: 1, dispatches_max: 3 };
        slicer.open_stage(first(tenant), terms).unwrap();
    }
    slicer
}

#[track_caller]
fn chunk(slicer: &mut Slicer) -> Chunk {
    match slicer.next(Duration::ZERO) {
        Next::Chunk(chunk) => chunk,
        other => panic!("no chunk but {other:?}"),
    }
}

/// Takes the next chunk and completes it, each group having taken so long.
#[track_caller]
fn turn(slicer: &mut Slicer, group: Duration) -> (Chunk, Completed) {
    let chunk = chunk(slicer);
    let took = group * chunk.groups.iter().product::<u32>();
    let completed = slicer.complete(chunk.id, took, true).unwrap();
    (chunk, completed)
}

#[test]
fn a_full_stage_would_block() {
    let mut slicer = slicer(1);
    for room in [3, 2, 1] {
        assert_eq!(slicer.room(first(A)), Some(room));
        slicer.submit(first(A), work(1, 1)).unwrap();
    }
    assert_eq!(slicer.submit(first(A), work(1, 1)), Err(Refused::Full));
    assert_eq!(slicer.room(first(B)), Some(3));
    // One that is on the device counts until it is over.
    let chunk = chunk(&mut slicer);
    assert_eq!(slicer.submit(first(A), work(1, 1)), Err(Refused::Full));
    slicer.complete(chunk.id, millis(1), true);
    assert!(slicer.submit(first(A), work(1, 1)).is_ok());
}

#[test]
fn a_new_kernel_is_probed_and_then_cut_by_what_it_took() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, 100)).unwrap();
    let mut cuts = Vec::new();
    loop {
        let (chunk, completed) = turn(&mut slicer, Duration::from_micros(100));
        cuts.push((chunk.from[0], chunk.groups[0], chunk.expected));
        if let Some(over) = completed.over {
            assert_eq!(over, Over { is_whole: true, nanos: 10_000_000 });
            break;
        }
    }
    // Nothing is known of the probe, so that it counts as a whole chunk until it is over.
    assert_eq!(cuts[0], (0, 4, millis(2)));
    let rest = [4, 24, 43, 62, 81].map(|from| if from == 4 { (from, 20) } else { (from, 19) });
    let rest = rest.map(|(from, groups)| (from, groups, Duration::from_micros(100) * groups));
    assert_eq!(cuts[1..], rest);
}

#[test]
fn no_chunk_has_more_groups_than_it_may() {
    let mut slicer = slicer(1);
    // Nothing is known of it first, and then it is quick.
    for (groups_max, expected) in [(3, 3), (8, 8), (0, 1)] {
        let work = Work { chunk_groups_max: groups_max, ..work(1, 64) };
        slicer.submit(first(A), work).unwrap();
        let mut largest = 0;
        while let Next::Chunk(chunk) = slicer.next(Duration::ZERO) {
            largest = largest.max(chunk.groups[0]);
            slicer.complete(chunk.id, Duration::from_nanos(1), true);
        }
        assert_eq!(largest, expected);
    }
}

#[test]
fn what_must_be_whole_is_not_cut() {
    let mut slicer = slicer(1);
    let work = Work { is_whole: true, grid: [7, 5, 3], ..work(1, 1) };
    slicer.submit(first(A), work).unwrap();
    let (chunk, completed) = turn(&mut slicer, millis(1));
    assert_eq!((chunk.from, chunk.groups), ([0, 0, 0], [7, 5, 3]));
    assert!(completed.over.is_some());
}

#[test]
fn dispatches_of_a_stage_come_in_their_order() {
    let mut slicer = slicer(2);
    let submitted = [9, 1, 5].map(|groups| slicer.submit(first(A), work(1, groups)).unwrap());
    let mut order = Vec::new();
    while let Next::Chunk(chunk) = slicer.next(Duration::ZERO) {
        order.push(chunk.dispatch);
        slicer.complete(chunk.id, millis(1), true);
    }
    order.dedup();
    assert_eq!(order, submitted);
}

#[test]
fn stages_share_what_their_tenant_has() {
    let mut slicer = slicer(1);
    let second = Stage { tenant: A, number: 2 };
    slicer.open_stage(second, StageTerms { weight: 3, dispatches_max: 9 }).unwrap();
    for stage in [first(A), second, first(B)] {
        slicer.submit(stage, work(stage.number as u8, u32::MAX)).unwrap();
    }
    for _ in 0..4_000 {
        turn(&mut slicer, Duration::from_micros(500));
    }
    let parts = [first(A), second, first(B)].map(|stage| {
        let nanos = slicer.stage_bill(stage).unwrap().nanos;
        (nanos * 1_000 + slicer.busy_nanos() / 2) / slicer.busy_nanos()
    });
    assert_eq!(parts, [125, 375, 500]);
    let both =
        slicer.stage_bill(first(A)).unwrap().nanos + slicer.stage_bill(second).unwrap().nanos;
    assert_eq!(slicer.bill(A).unwrap().nanos, both);
}

#[test]
fn tenants_of_one_weight_take_turns() {
    const TENANTS: u64 = 5;
    let mut slicer = Slicer::new(Settings { depth: 1, ..Settings::default() });
    for tenant in (0..TENANTS).map(Tenant) {
        slicer.open(Duration::ZERO, tenant, Terms { weight: WHOLE / 5, cap: None }).unwrap();
        let terms = StageTerms { weight: 1, dispatches_max: 200 };
        slicer.open_stage(first(tenant), terms).unwrap();
        // Whoever has queued most has no more turns for it.
        for _ in 0..50 * (tenant.0 % 3 + 1) {
            slicer.submit(first(tenant), work(1, 1)).unwrap();
        }
    }
    for _ in 0..50 {
        let round = (0..TENANTS).map(|_| turn(&mut slicer, millis(1)).0.dispatch.stage().tenant.0);
        assert_eq!(round.collect::<BTreeSet<_>>(), (0..TENANTS).collect());
    }
}

#[test]
fn who_was_idle_comes_next_whatever_others_have_queued() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    for _ in 0..100 {
        turn(&mut slicer, millis(1));
    }
    slicer.submit(first(B), work(2, u32::MAX)).unwrap();
    assert_eq!(chunk(&mut slicer).dispatch.stage(), first(B));
}

#[test]
fn a_chunk_that_took_longer_is_paid_for() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    slicer.submit(first(B), work(2, u32::MAX)).unwrap();
    // A begins, with a probe of 200 ms; B has as much before A comes again.
    turn(&mut slicer, millis(50));
    let mut charged = Duration::ZERO;
    while charged < millis(200) {
        let (chunk, _) = turn(&mut slicer, Duration::from_micros(100));
        assert_eq!(chunk.dispatch.stage(), first(B));
        charged += Duration::from_micros(100) * chunk.groups[0];
    }
    // It was idle until it had its first chunk, and so has been due for as long.
    assert_eq!(chunk(&mut slicer).dispatch.stage(), first(A));
}

#[test]
fn a_stage_pays_for_a_chunk_that_took_longer() {
    let mut slicer = slicer(1);
    let second = Stage { tenant: A, number: 2 };
    slicer.open_stage(second, StageTerms { weight: 1, dispatches_max: 3 }).unwrap();
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    slicer.submit(second, work(2, u32::MAX)).unwrap();
    turn(&mut slicer, millis(50));
    for _ in 0..50 {
        // Chunks of 2 ms at most, after a probe: all of them in the 200 ms that the first had.
        assert_eq!(turn(&mut slicer, Duration::from_micros(100)).0.dispatch.stage(), second);
    }
}

#[test]
fn a_chunk_that_ended_early_does_not_make_its_kernel_look_quick() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, 8)).unwrap();
    turn(&mut slicer, millis(1));
    for (took, groups, expected) in [(0, 2, 2), (40, 2, 2), (0, 1, 5)] {
        let early = chunk(&mut slicer);
        assert_eq!((early.groups[0], early.expected.as_millis()), (groups, expected));
        slicer.complete(early.id, millis(took), false);
        // One that took longer shows at least that it can.
        slicer.submit(first(A), work(1, 8)).unwrap();
    }
}

#[test]
fn a_cancelled_dispatch_gives_nothing_more_out() {
    let mut slicer = slicer(2);
    let [begun, waits] = [9, 9].map(|groups| slicer.submit(first(A), work(1, groups)).unwrap());
    let on_device = [chunk(&mut slicer), chunk(&mut slicer)].map(|chunk| chunk.id);
    assert_eq!(slicer.cancel(waits), Ok(vec![]));
    assert_eq!(slicer.cancel(waits), Err(Refused::Unknown));
    assert_eq!(slicer.cancel(begun), Ok(on_device.to_vec()));
    assert_eq!(slicer.complete(on_device[0], millis(1), true).unwrap().over, None);
    assert_eq!(slicer.next(Duration::ZERO), Next::Idle);
    let over = slicer.complete(on_device[1], millis(1), false).unwrap().over;
    assert_eq!(over, Some(Over { is_whole: false, nanos: 2_000_000 }));
    assert_eq!(slicer.cancel(begun), Err(Refused::Unknown));
    assert_eq!(slicer.room(first(A)), Some(3));
}

#[test]
fn a_chunk_that_is_not_whole_ends_its_dispatch_and_no_other() {
    let mut slicer = slicer(1);
    let [trapped, next] = [9, 9].map(|groups| slicer.submit(first(A), work(1, groups)).unwrap());
    let chunk = chunk(&mut slicer);
    let completed = slicer.complete(chunk.id, millis(1), false).unwrap();
    let over = Over { is_whole: false, nanos: 1_000_000 };
    assert_eq!(completed, Completed { dispatch: trapped, over: Some(over) });
    assert_eq!(turn(&mut slicer, millis(1)).0.dispatch, next);
}

#[test]
fn a_chunk_is_charged_once() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, 1)).unwrap();
    let chunk = chunk(&mut slicer);
    assert!(slicer.complete(chunk.id, millis(1), true).is_some());
    assert_eq!(slicer.complete(chunk.id, millis(1), true), None);
    assert_eq!(slicer.bill(A), Some(Bill { nanos: 1_000_000, chunks: 1, copy_nanos: 0 }));
    assert_eq!(slicer.busy_nanos(), 1_000_000);
}

#[test]
fn no_more_chunks_are_out_than_the_depth() {
    let mut slicer = slicer(2);
    slicer.submit(first(A), work(1, 100)).unwrap();
    let one = chunk(&mut slicer);
    chunk(&mut slicer);
    assert_eq!(slicer.next(Duration::ZERO), Next::Deep);
    slicer.complete(one.id, millis(1), true);
    chunk(&mut slicer);
}

#[test]
fn a_cap_holds_even_if_the_device_is_idle() {
    let mut slicer = slicer(1);
    let cap = Some(Cap { rate: WHOLE / 4, burst: millis(4) });
    slicer.change(Duration::ZERO, A, Terms { cap, ..half() }).unwrap();
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    let mut now = Duration::ZERO;
    while now < millis(1_000) {
        match slicer.next(now) {
            Next::Chunk(chunk) => {
                let took = millis(1) * chunk.groups[0];
                now += took;
                slicer.complete(chunk.id, took, true);
            }
            Next::At(at) => now = at,
            other => panic!("there is work, but {other:?}"),
        }
    }
    let charged = slicer.bill(A).unwrap().nanos / 1_000_000;
    assert!((250..=250 + 4 + 2).contains(&charged), "{charged} ms of a second");
    // Who is not capped does not wait for who is.
    slicer.submit(first(B), work(2, 1)).unwrap();
    while let Next::Chunk(chunk) = slicer.next(now) {
        slicer.complete(chunk.id, millis(2), true);
    }
    assert_eq!(slicer.bill(B).unwrap().chunks, 1);
}

#[test]
fn a_cap_counts_what_was_taken_and_not_what_was_expected() {
    let mut slicer = slicer(2);
    let cap = Some(Cap { rate: WHOLE / 2, burst: millis(1) });
    slicer.change(Duration::ZERO, A, Terms { cap, ..half() }).unwrap();
    slicer.submit(first(A), work(1, 100)).unwrap();
    // A probe counts as 2 ms until it is over: 1 ms more than there was.
    let probe = chunk(&mut slicer);
    let nanosecond = Duration::from_nanos(1);
    assert_eq!(slicer.next(Duration::ZERO), Next::At(millis(2) + nanosecond));
    slicer.complete(probe.id, Duration::from_micros(400), true);
    let next = chunk(&mut slicer);
    slicer.complete(next.id, millis(100), true);
    let owed = Duration::from_micros(100_400) - millis(1);
    assert_eq!(slicer.next(Duration::ZERO), Next::At(owed * 2 + nanosecond));
}

#[test]
fn who_waits_at_its_cap_saves_nothing_up() {
    let mut slicer = slicer(1);
    let cap = Some(Cap { rate: WHOLE / 4, burst: millis(1) });
    slicer.change(Duration::ZERO, A, Terms { cap, ..half() }).unwrap();
    slicer.submit(first(A), work(1, u32::MAX)).unwrap();
    slicer.submit(first(B), work(2, u32::MAX)).unwrap();
    let (mut now, mut streak, mut streak_max) = (Duration::ZERO, 0, 0);
    for _ in 0..2_000 {
        let Next::Chunk(chunk) = slicer.next(now) else { panic!("B has work") };
        let took = Duration::from_micros(500) * chunk.groups[0];
        now += took;
        slicer.complete(chunk.id, took, true);
        streak = if chunk.dispatch.stage() == first(A) { streak + 1 } else { 0 };
        streak_max = streak_max.max(streak);
    }
    assert_eq!(streak_max, 1);
    let part = slicer.bill(A).unwrap().nanos * 100 / slicer.busy_nanos();
    assert!((24..=25).contains(&part), "{part} % of the device");
}

#[test]
fn a_tenant_that_closes_is_gone_when_nothing_of_it_is_on_the_device() {
    let mut slicer = slicer(1);
    let dispatch = slicer.submit(first(A), work(1, 100)).unwrap();
    let chunk = chunk(&mut slicer);
    assert_eq!(slicer.close(A), Ok(Closing::Waits(vec![chunk.id])));
    assert_eq!(slicer.submit(first(A), work(1, 1)), Err(Refused::Unknown));
    assert_eq!(slicer.change(Duration::ZERO, A, half()), Err(Refused::Unknown));
    assert_eq!(slicer.open(Duration::ZERO, A, half()), Err(Refused::Exists));
    assert_eq!(slicer.open(Duration::ZERO, Tenant(3), half()), Err(Refused::Oversold));
    let completed = slicer.complete(chunk.id, millis(3), false).unwrap();
    assert_eq!((completed.dispatch, completed.over.unwrap().is_whole), (dispatch, false));
    let bill = Bill { nanos: 3_000_000, chunks: 1, copy_nanos: 0 };
    assert_eq!(slicer.close(A), Ok(Closing::Gone(bill)));
    assert_eq!((slicer.gone(), slicer.bill(A)), (bill, None));
    assert_eq!(slicer.close(A), Err(Refused::Unknown));
    assert_eq!(slicer.open(Duration::ZERO, A, half()), Ok(()));
}

#[test]
fn a_stage_that_closes_leaves_what_it_cost() {
    let mut slicer = slicer(1);
    slicer.submit(first(A), work(1, 100)).unwrap();
    let chunk = chunk(&mut slicer);
    assert_eq!(slicer.close_stage(first(A)), Ok(Closing::Waits(vec![chunk.id])));
    assert_eq!(slicer.room(first(A)), Some(0));
    assert_eq!(slicer.submit(first(A), work(1, 1)), Err(Refused::Unknown));
    assert!(slicer.complete(chunk.id, millis(3), true).unwrap().over.is_some());
    let bill = Bill { nanos: 3_000_000, chunks: 1, copy_nanos: 0 };
    assert_eq!(slicer.close_stage(first(A)), Ok(Closing::Gone(bill)));
    assert_eq!((slicer.bill(A), slicer.stage_bill(first(A))), (Some(bill), None));
}

#[test]
fn no_more_is_let_in_than_there_is_room_for() {
    let mut slicer = slicer(1);
    let terms = |weight, rate| Terms { weight, cap: Some(Cap { rate, burst: millis(1) }) };
    let mut open = |number, terms| slicer.open(Duration::ZERO, Tenant(number), terms);
    assert_eq!(open(3, terms(1, WHOLE)), Err(Refused::Oversold));
    assert_eq!(open(3, terms(0, WHOLE)), Err(Refused::Terms));
    assert_eq!(open(3, terms(1, 0)), Err(Refused::Terms));
    assert_eq!(open(3, terms(1, WHOLE + 1)), Err(Refused::Terms));
    assert_eq!(open(1, terms(1, WHOLE)), Err(Refused::Exists));
    assert_eq!(slicer.change(Duration::ZERO, A, terms(WHOLE / 2 - 1, WHOLE)), Ok(()));
    assert_eq!(slicer.change(Duration::ZERO, A, terms(WHOLE / 2 + 1, 1)), Err(Refused::Oversold));
    assert_eq!(slicer.open(Duration::ZERO, Tenant(3), terms(1, WHOLE)), Ok(()));
    assert_eq!(slicer.open(Duration::ZERO, Tenant(4), terms(1, WHOLE)), Err(Refused::TooMany));
}

#[test]
fn no_more_stages_are_let_in_than_there_is_room_for() {
    let mut slicer = slicer(1);
    let terms = |weight, dispatches_max| StageTerms { weight, dispatches_max };
    let second = Stage { tenant: A, number: 2 };
    for wrong in [terms(0, 1), terms(WHOLE + 1, 1), terms(1, 0)] {
        assert_eq!(slicer.open_stage(second, wrong), Err(Refused::Terms));
    }
    assert_eq!(slicer.open_stage(first(A), terms(1, 1)), Err(Refused::Exists));
    assert_eq!(slicer.open_stage(first(Tenant(9)), terms(1, 1)), Err(Refused::Unknown));
    assert_eq!(slicer.open_stage(second, terms(1, 1)), Ok(()));
    let third = Stage { tenant: A, number: 3 };
    assert_eq!(slicer.open_stage(third, terms(1, 1)), Err(Refused::TooMany));
}

#[test]
fn a_grid_that_cannot_be_is_refused() {
    let mut slicer = slicer(1);
    for grid in [[1, 0, 1], [u32::MAX; 3]] {
        let submitted = slicer.submit(first(A), Work { grid, ..work(1, 1) });
        assert_eq!(submitted, Err(Refused::Grid));
    }
    assert_eq!(slicer.next(Duration::ZERO), Next::Idle);
}
