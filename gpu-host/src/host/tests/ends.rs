//! What goes: owners, stages, tenants, and the device.

use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_owner_that_dies_takes_all_it_has_with_it() {
    let mut rig = Rig::new(terms());
    let [who, beside] = [owner(A, 0, 0), owner(A, 0, 1)];
    let kept = rig.buffer(beside, &[4]);
    let (_, buffer) = rig.begin_endless(who);
    let graph = rig.graph(who, ADD, 1);
    let other = rig.buffer(who, &[0]);
    rig.submit(who, graph, &[other]).unwrap();
    let now = rig.now();
    rig.host.drop_owner(now, who);
    assert_eq!(code(rig.words(who, buffer)), "gpu.handle");
    assert_eq!(rig.run(), [], "nobody is told");
    assert_eq!(rig.words(beside, kept), Ok(vec![4]));
    assert_eq!(rig.host.held_bytes(A), Some(BLOCK_BYTES));
    // The number can be another instance's.
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[0]);
    for _ in 0..4 {
        rig.submit(who, graph, &[buffer]).unwrap();
    }
    assert_eq!(rig.ends().len(), 4);
    rig.close_all();
}

#[test]
fn memory_of_work_in_flight_is_given_back_when_it_has_ended() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.begin_endless(who);
    let now = rig.now();
    rig.host.close(now, A).unwrap();
    assert_eq!(rig.probe().held(), BLOCK_BYTES, "the device has it still");
    assert_eq!(code(rig.host.open(now, A, terms())), "gpu.exists");
    assert_eq!(code(rig.host.close(now, A)), "gpu.tenant");
    assert_eq!(code(rig.host.create(now, who, 4)), "gpu.tenant");
    let idle = std::iter::from_fn(|| rig.host.poll()).collect::<Vec<_>>();
    assert!(matches!(idle[..], [Event::StageClosed { .. }]), "{idle:?}");
    let events = rig.run();
    let gone = |event: &Event| matches!(event, Event::Closed { tenant: A, .. });
    assert!(events.last().is_some_and(gone), "{events:?}");
    assert_eq!(rig.probe().held(), 0);
    rig.open(A, terms());
    rig.close_all();
}

#[test]
fn a_tenant_that_dies_changes_nothing_for_others() {
    let outcome = |dies: bool| {
        let mut rig = Rig::new(terms());
        let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
        let graph = rig.graph(other, ADD, 64);
        let buffer = rig.buffer(other, &[3; 256]);
        if dies {
            rig.begin_endless(who);
        }
        let submission = rig.submit(other, graph, &[buffer]).unwrap();
        if dies {
            let now = rig.now();
            rig.host.close(now, A).unwrap();
        }
        let ended = rig.ends();
        let words = rig.words(other, buffer);
        rig.close_all();
        (ended == [(submission, End::Whole)], words)
    };
    assert_eq!(outcome(true), outcome(false));
    assert_eq!(outcome(true), (true, Ok(vec![4; 256])));
}

#[test]
fn a_stage_goes_with_its_owners() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(A, 1, 0)];
    let [buffer, kept] = [who, other].map(|who| rig.buffer(who, &[4]));
    rig.begin_endless(who);
    let now = rig.now();
    rig.host.close_stage(now, who.stage).unwrap();
    assert_eq!(code(rig.host.close_stage(now, who.stage)), "gpu.stage");
    assert_eq!(code(rig.words(who, buffer)), "gpu.stage");
    let events = rig.run();
    let [Event::StageClosed { stage, bill }] = events[..] else { panic!("{events:?}") };
    assert_eq!((stage, bill.used.device_nanos), (who.stage, rig.probe().busy));
    assert_eq!(rig.words(other, kept), Ok(vec![4]));
    rig.host.open_stage(who.stage, 1).unwrap();
    assert_eq!(code(rig.words(who, buffer)), "gpu.handle");
    // What it had used stays on the tenant's bill.
    let now = rig.now();
    let bill = rig.host.bill(now, A).unwrap();
    assert_eq!((bill.used.up_bytes, bill.used.device_nanos), (12, rig.probe().busy));
    rig.close_all();
}

#[test]
fn a_lost_device_is_replaced_and_all_handles_are_over() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let graph = rig.graph(who, ADD, 1);
    let kernel = rig.kernel(who, ADD);
    let buffer = rig.buffer(who, &[4]);
    let theirs = rig.buffer(other, &[5]);
    let first = rig.submit(who, graph, &[buffer]).unwrap();
    let second = rig.submit(who, graph, &[buffer]).unwrap();
    let generation = rig.host.generation();
    rig.probe().spares = 1;
    rig.probe().fake.lose_at_submit(2);
    let mut ends = rig.ends();
    ends.sort_by_key(|(submission, _)| *submission);
    assert_eq!(ends, [(first, End::Lost), (second, End::Lost)]);
    assert_eq!(rig.host.generation(), generation + 1);
    for handle in [buffer, graph, kernel] {
        assert_eq!(code(rig.host.drop_handle(MS, who, handle)), "gpu.lost");
    }
    assert_eq!(code(rig.words(other, theirs)), "gpu.lost");
    assert_eq!(code(rig.host.cancel(MS, who, first)), "gpu.lost");
    assert_eq!((rig.host.held_bytes(A), rig.host.held_bytes(B)), (Some(0), Some(0)));
    // All is made anew; the kernel was checked already.
    let found = rig.host.find_kernel(who, Kernel::hash_of(ADD, "main"));
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[4]);
    rig.submit(who, graph, &[buffer]).unwrap();
    assert_eq!(rig.ends().len(), 1);
    assert_eq!(rig.words(who, buffer), Ok(vec![5]));
    rig.close_all();
}

#[test]
fn without_another_device_all_is_refused_until_there_is_one() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[4]);
    rig.submit(who, graph, &[buffer]).unwrap();
    rig.probe().fake.lose_at_submit(1);
    assert!(matches!(rig.turn(MS), Verdict::Gone(Error::Lost(_))));
    assert!(matches!(rig.turn(MS), Verdict::Gone(_)));
    assert_eq!(code(rig.host.create(MS, who, 4)), "gpu.lost");
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.lost");
    rig.host.close(MS, B).unwrap();
    assert_eq!(code(rig.host.create(MS, other, 4)), "gpu.tenant");
    rig.probe().spares = 1;
    rig.advance(500 * MS);
    let events = rig.run();
    assert!(matches!(events[0], Event::Ended { end: End::Lost, .. }), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Closed { tenant: B, .. })), "{events:?}");
    rig.buffer(who, &[1]);
    rig.close_all();
}

#[test]
fn another_device_is_not_tried_for_at_every_turn() {
    let mut rig = Rig::new(terms());
    rig.probe().fake.lose_at_submit(1);
    assert!(rig.probe().fake.submit(&[]).is_err());
    assert_eq!(code(rig.host.create(MS, owner(A, 0, 0), 4)), "gpu.lost");
    assert!(matches!(rig.turn(MS), Verdict::Gone(Error::Lost(_))));
    rig.probe().spares = 1;
    for passed in [0, 100, 399] {
        rig.advance(passed * MS);
        assert!(matches!(rig.turn(MS), Verdict::Gone(Error::None(_))), "why it failed last");
    }
    // It has passed since that was seen to have failed, however long it took.
    rig.advance(MS);
    assert_eq!((rig.turn(MS), rig.probe().spares), (Verdict::Idle, 0));
    // The next to be lost is tried for at once.
    rig.probe().spares = 1;
    rig.probe().fake.lose_at_submit(1);
    assert!(rig.probe().fake.submit(&[]).is_err());
    let now = rig.now();
    assert_eq!(code(rig.host.create(now, owner(A, 0, 0), 4)), "gpu.lost");
    assert_eq!((rig.turn(MS), rig.probe().spares), (Verdict::Idle, 0));
    rig.close_all();
}

#[test]
fn a_device_that_is_lost_between_turns_is_noticed() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let buffer = rig.buffer(who, &[4]);
    rig.probe().fake.lose_at_submit(1);
    assert!(rig.probe().fake.submit(&[]).is_err());
    assert_eq!(code(rig.words(who, buffer)), "gpu.lost");
    rig.probe().spares = 1;
    assert_eq!(rig.turn(MS), Verdict::Idle);
    assert_eq!(code(rig.words(who, buffer)), "gpu.lost");
    rig.buffer(who, &[4]);
    rig.close_all();
}

#[test]
fn work_that_takes_far_too_long_is_ended() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let (submission, buffer) = rig.begin_endless(who);
    let began = rig.now();
    assert_eq!(rig.ends(), [(submission, End::Overdue)]);
    let took = rig.now() - began;
    assert!((248 * MS..300 * MS).contains(&took), "{took:?}");
    assert_eq!(code(rig.words(who, buffer)), "gpu.poisoned");
    rig.close_all();
}

#[test]
fn work_that_does_not_end_then_has_hung_the_device() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    rig.probe().is_deaf = true;
    rig.begin_endless(who);
    let began = rig.now();
    let kernel = Some(Kernel::hash_of(ENDLESS, "main"));
    let hung = Verdict::Hung { kernel, tenant: A };
    while rig.turn(1000 * MS) == Verdict::Busy {}
    assert_eq!([rig.turn(MS), rig.turn(MS)], [hung.clone(), hung]);
    let took = rig.now() - began;
    assert!((498 * MS..520 * MS).contains(&took), "{took:?}");
    assert_eq!(code(rig.host.create(MS, who, 4)), "gpu.hung");
    assert_eq!(code(rig.host.kernel(who, ADD, "main")), "gpu.hung");
}

#[test]
fn what_was_ended_is_given_no_more_time_the_next_time() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    // All come to be expected to take as long as the one before took.
    for _ in 0..5 {
        let (submission, _) = rig.begin_endless(who);
        let began = rig.now();
        assert_eq!(rig.ends(), [(submission, End::Overdue)]);
        let took = rig.now() - began;
        assert!(took < 510 * MS, "{took:?}");
    }
    rig.close_all();
}

#[test]
fn a_device_that_is_lost_has_not_hung() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    rig.probe().is_deaf = true;
    let (submission, _) = rig.begin_endless(who);
    let at = rig.now() + 300 * MS;
    while rig.now() < at {
        assert_eq!(rig.turn(50 * MS), Verdict::Busy);
    }
    rig.probe().spares = 1;
    rig.probe().fake.lose_at_submit(1);
    assert!(rig.probe().fake.submit(&[]).is_err());
    // It was cancelled long ago.
    rig.advance(1000 * MS);
    assert_eq!(rig.ends(), [(submission, End::Overdue)]);
    rig.probe().is_deaf = false;
    // What it was lost in is not run again.
    assert_eq!(code(rig.host.kernel(who, ENDLESS, "main")), "gpu.quarantined");
    rig.kernel(other, ENDLESS);
    rig.close_all();
}

#[test]
fn who_reads_waits_for_others_no_longer_than_they_may_take() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let buffer = rig.buffer(other, &[4]);
    let (submission, _) = rig.begin_endless(who);
    rig.host.info.copies_wait = true;
    let began = rig.now();
    assert_eq!(rig.words(other, buffer), Ok(vec![4]));
    let took = rig.now() - began;
    assert!((248 * MS..300 * MS).contains(&took), "{took:?}");
    assert_eq!(rig.ends(), [(submission, End::Overdue)]);
    let (submission, _) = rig.begin_endless(who);
    rig.host.info.loads_wait = true;
    rig.kernel(other, ADD);
    assert_eq!(rig.ends(), [(submission, End::Overdue)]);
    rig.host.info.loads_wait = false;
    // What is done before is waited for.
    let graph = rig.graph(who, ADD, 1);
    let theirs = rig.buffer(who, &[4]);
    rig.submit(who, graph, &[theirs]).unwrap();
    rig.turn(Duration::ZERO);
    rig.host.write(other, buffer, 0, &bytes_of(&[5])).unwrap();
    assert_eq!(rig.host.flights.len(), 0);
    assert_eq!(rig.words(who, theirs), Ok(vec![5]));
    rig.run();
    rig.close_all();
}

#[test]
fn who_reads_behind_what_does_not_end_is_told_that_the_device_has_hung() {
    let mut rig = Rig::new(terms());
    let [who, other] = [owner(A, 0, 0), owner(B, 0, 0)];
    let buffer = rig.buffer(other, &[4]);
    rig.probe().is_deaf = true;
    rig.begin_endless(who);
    (rig.host.info.copies_wait, rig.host.info.loads_wait) = (true, true);
    assert_eq!(code(rig.words(other, buffer)), "gpu.hung");
    assert_eq!(code(rig.host.kernel(other, ADD, "main")), "gpu.hung");
    assert!(matches!(rig.turn(MS), Verdict::Hung { tenant: A, kernel: Some(_) }));
}

#[test]
fn time_in_which_nobody_looked_is_not_held_against_work() {
    let mut rig = Rig::new(terms());
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ADD, 1);
    let buffer = rig.buffer(who, &[4]);
    let submissions = [(); 2].map(|()| (rig.submit(who, graph, &[buffer]).unwrap(), End::Whole));
    rig.turn(Duration::ZERO);
    // Both are done long before anybody asks.
    rig.advance(10_000 * MS);
    assert_eq!(rig.ends(), submissions);
    rig.close_all();
}

#[test]
fn time_that_work_waits_behind_other_work_is_not_held_against_it() {
    let limits = TenantLimits { fuel: 80_000, ..TenantLimits::default() };
    let mut rig = Rig::new(with_limits(limits));
    let who = owner(A, 0, 0);
    let graph = rig.graph(who, ENDLESS, 1);
    let buffers = [(); 2].map(|()| rig.buffer(who, &[1]));
    let submissions = buffers.map(|buffer| (rig.submit(who, graph, &[buffer]).unwrap(), End::Fuel));
    let began = rig.now();
    assert_eq!(rig.ends(), submissions);
    let took = rig.now() - began;
    assert!((251 * MS..499 * MS).contains(&took), "{took:?} show it, less than 250 ms for each");
    rig.close_all();
}

#[test]
fn a_host_begins_with_the_generation_it_is_given() {
    let make = || Ok::<_, Error>(slow_fake());
    let settings = |generation| Settings { generation, ..settings() };
    let mut first = Host::new(settings(4), make).unwrap();
    let mut second = Host::new(settings(5), make).unwrap();
    let who = owner(A, 0, 0);
    for host in [&mut first, &mut second] {
        host.open(MS, A, terms()).unwrap();
        host.open_stage(who.stage, 1).unwrap();
    }
    let old = first.create(MS, who, 4).unwrap();
    let new = second.create(MS, who, 4).unwrap();
    assert_ne!(old, new);
    assert_eq!(code(second.bytes(who, old)), "gpu.lost");
    assert_eq!(code(first.bytes(who, new)), "gpu.handle");
    assert!(Host::new(settings(0), || Err::<Fake, _>(Error::None("no".to_owned()))).is_err());
}
