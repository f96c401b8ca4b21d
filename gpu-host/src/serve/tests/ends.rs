//! Replies that nobody takes, and devices that are lost or hang.

use super::*;

#[test]
fn nothing_is_taken_while_replies_wait() {
    let mut rig = Rig::empty(64 << 20);
    let bytes = TAIL_BYTES_MAX as u64;
    let terms = Terms { guaranteed_bytes: 2 * bytes, ..terms() };
    let who = owner(1, 0, 1);
    assert_eq!(rig.says(Want::Tenant { tenant: 1, terms }), Answer::Done);
    assert_eq!(rig.says(Want::Stage { stage: who.stage, weight: 1 }), Answer::Done);
    let buffer = handle(rig.does(who, Act::Create { bytes }));
    let mut count = 0;
    while rig.server.has_room() {
        rig.asks(who, Act::Read { buffer, offset: 0, bytes });
        rig.turn(Duration::ZERO);
        count += 1;
    }
    assert_eq!(count, 4);
    assert_eq!(rig.server.next_packet().map(|(_, tail)| tail.len()), Some(TAIL_BYTES_MAX));
    assert!(rig.server.has_room());
    rig.replies();
    // Many small ones count as well.
    let is_full = (0..300_000).any(|_| {
        rig.asks(who, Act::Size { buffer });
        !rig.server.has_room()
    });
    assert!(is_full);
}

/// Two submissions that were taken and one that waits, all of a stage. Their numbers, and what the
/// first has.
fn begin(rig: &mut Rig, source: &str) -> (Vec<u64>, [u64; 2]) {
    let mut all = Vec::new();
    for instance in 0..3 {
        let who = owner(1, 0, instance);
        let graph = rig.graph(who, source, 1);
        let buffer = rig.buffer(who, &[1]);
        all.push((who, graph, buffer));
    }
    let numbers = all
        .iter()
        .map(|(who, graph, buffer)| rig.asks(*who, submit(*graph, *buffer, 1_000_000, true)));
    let numbers = numbers.collect();
    assert_eq!(rig.taken().len(), 2);
    (numbers, [all[0].1, all[0].2])
}

#[test]
fn a_device_that_is_lost_is_begun_again() {
    let mut rig = Rig::new();
    let (numbers, [graph, buffer]) = begin(&mut rig, ADD);
    rig.lock().fake.lose_at_submit(1);
    let mut said = rig.run();
    let (last, refused, _) = said.pop().unwrap();
    assert_eq!((last, code(refused)), (numbers[2], "gpu.lost".to_owned()));
    assert!(matches!(said.pop(), Some((0, Answer::Begun { generation: 6, .. }, _))));
    for (at, (number, answer, _)) in said.iter().enumerate() {
        let lost = Answer::Ended { end: End::Lost, device_nanos: 0 };
        assert_eq!((*number, answer), (numbers[at], &lost));
    }
    assert_eq!(said.len(), 2);
    let who = owner(1, 0, 0);
    assert_eq!(code(rig.does(who, Act::Size { buffer })), "gpu.lost");
    assert_eq!(code(rig.does(who, submit(graph, buffer, 1_000, true))), "gpu.lost");
    let buffer = rig.buffer(who, &[1]);
    let graph = rig.graph(who, ADD, 1);
    rig.asks(who, submit(graph, buffer, 1_000, true));
    rig.run();
    assert_eq!(rig.words(who, buffer), [2]);
}

#[test]
fn a_device_is_begun_once_there_is_another() {
    let mut rig = Rig::new();
    begin(&mut rig, ADD);
    rig.lock().fake.lose_at_submit(1);
    rig.lock().spares = 0;
    let said = rig.run();
    assert_eq!(said.len(), 3, "the ends of those that were there: {said:?}");
    rig.lock().spares = 1;
    for _ in 0..5 {
        assert!(matches!(rig.turn(Duration::ZERO), Verdict::Gone(_)), "it is not tried so soon");
        assert_eq!(code(rig.does(owner(1, 0, 0), Act::Create { bytes: 4 })), "gpu.lost");
    }
    rig.advance(Duration::from_millis(500));
    let said = rig.run();
    assert!(matches!(said[..], [(0, Answer::Begun { generation: 6, .. }, _)]), "{said:?}");
    rig.buffer(owner(1, 0, 0), &[1]);
}

#[test]
fn nothing_follows_a_device_that_hangs() {
    let mut rig = Rig::new();
    rig.server.limits.fuel = u32::MAX;
    assert_eq!(rig.says(Want::Tenant { tenant: 1, terms: terms() }), Answer::Done);
    begin(&mut rig, ENDLESS);
    rig.lock().is_deaf = true;
    let said = rig.run();
    let (number, answer, _) = said.last().unwrap();
    let kernel = Some(Kernel::hash_of(ENDLESS, "main"));
    assert_eq!((*number, answer), (0, &Answer::Hung { kernel, tenant: 1 }));
    assert_eq!(rig.turn(Duration::ZERO), Verdict::Hung { kernel, tenant: Tenant(1) });
    rig.asks(owner(1, 0, 0), Act::Create { bytes: 4 });
    assert_eq!(rig.replies(), []);
}

#[test]
fn whose_kernel_the_device_has_is_known() {
    let mut rig = Rig::new();
    begin(&mut rig, ENDLESS);
    assert_eq!(rig.server.suspect(), None);
    rig.turn(Duration::ZERO);
    assert_eq!(rig.server.suspect(), Some((1, Kernel::hash_of(ENDLESS, "main"))));
    rig.run();
    assert_eq!(rig.server.suspect(), None);
}
