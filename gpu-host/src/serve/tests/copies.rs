//! What is written and read: in turns, within bounds, and no more than a share.

use super::*;
use crate::wire::StageFigures;

/// A graph of ADD that takes its owner some milliseconds, and a buffer for it.
fn busy(rig: &mut Rig, who: Owner) -> (u64, u64) {
    let graph = rig.graph(who, ADD, 2_000);
    (graph, rig.buffer(who, &[0; 1_024]))
}

fn figures(rig: &mut Rig) -> Vec<crate::wire::TenantFigures> {
    let number = rig.ask(Want::Figures, &[]);
    let replies = rig.replies();
    let said = replies.into_iter().find(|(of, ..)| *of == number);
    let Some((_, Answer::Figures(figures), _)) = said else { panic!("they are said at once") };
    figures.tenants
}

#[test]
fn who_only_copies_has_no_more_than_its_share_beside_who_computes() {
    let mut rig = Rig::new();
    let computes = owner(2, 0, 0);
    let (graph, buffer) = busy(&mut rig, computes);
    // Ten instances, each of which has one that is not answered.
    let copiers: Vec<(Owner, u64)> = (0..10)
        .map(|instance| {
            let who = owner(1, 0, instance);
            (who, rig.buffer(who, &[0; 1_024]))
        })
        .collect();
    let tail = [7; 4_096];
    let mut open = BTreeMap::new();
    let before = figures(&mut rig);
    for _ in 0..1_000 {
        for (who, buffer) in &copiers {
            if !open.values().any(|of| of == who) {
                let act = Act::Write { buffer: *buffer, offset: 0 };
                open.insert(rig.ask(Want::Of(*who, act), &tail), *who);
            }
        }
        while open.values().filter(|of| **of == computes).count() < 2 {
            open.insert(rig.asks(computes, submit(graph, buffer, 10_000, true)), computes);
        }
        rig.turn(Duration::from_millis(1));
        for (number, answer, _) in rig.replies() {
            assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
            if !matches!(answer, Answer::Handle(_)) {
                open.remove(&number);
            }
        }
    }
    let after = figures(&mut rig);
    let copied = after[0].used.copy_nanos - before[0].used.copy_nanos;
    let computed = after[1].used.device_nanos - before[1].used.device_nanos;
    assert!(copied > 100_000_000, "{copied} ns");
    assert!(copied.abs_diff(computed) <= copied / 20, "{copied} ns beside {computed} ns");
}

#[test]
fn a_copy_waits_for_its_turn_and_others_do_not() {
    let mut rig = Rig::new();
    let [copies, other] = [owner(1, 0, 0), owner(2, 1, 0)];
    let computes = owner(2, 0, 0);
    let (graph, buffer) = busy(&mut rig, computes);
    let target = rig.buffer(copies, &[0; 1_024]);
    let write = |rig: &mut Rig, value| {
        let act = Act::Write { buffer: target, offset: 0 };
        rig.ask(Want::Of(copies, act), &[value; 4_096])
    };
    for _ in 0..2 {
        rig.asks(computes, submit(graph, buffer, 10_000, false));
    }
    rig.turn(Duration::ZERO);
    rig.replies();
    // In debt for some, it waits, and what costs nothing does not.
    let mut waiting = Vec::new();
    for value in 0..200 {
        waiting.push(write(&mut rig, value));
    }
    rig.turn(Duration::ZERO);
    let done = rig.replies();
    assert!(!done.is_empty() && done.len() < 100, "{}", done.len());
    assert_eq!(rig.does(copies, Act::Size { buffer: target }), Answer::Bytes(4_096));
    let read = rig.asks(other, Act::Create { bytes: 4 });
    assert!(
        rig.run()
            .iter()
            .any(|(number, answer, _)| { *number == read && matches!(answer, Answer::Handle(_)) })
    );
    assert!(waiting.iter().all(|number| rig.heard[number] == [0, 1]), "each is answered once");
    // In their order.
    assert_eq!(rig.words(copies, target), vec![0xC7C7_C7C7; 1_024]);
}

#[test]
fn what_waits_for_who_is_gone_is_not_made() {
    let mut rig = Rig::new();
    let [gone, stays] = [owner(1, 0, 0), owner(1, 0, 1)];
    let asked = [gone, stays].map(|who| rig.asks(who, Act::Create { bytes: 4 }));
    rig.ask(Want::DropOwner { owner: gone }, &[]);
    let more = rig.asks(owner(1, 1, 0), Act::Create { bytes: 4 });
    let stage = owner(1, 1, 0).stage;
    rig.ask(Want::CloseStage { stage }, &[]);
    rig.run();
    assert!(!rig.heard.contains_key(&asked[0]) && !rig.heard.contains_key(&more));
    assert_eq!(rig.heard[&asked[1]], [0, 1]);
    assert!(rig.server.copies.is_empty());
    let held = figures(&mut rig)[0].stages.iter().map(|stage| stage.held_bytes).sum::<u64>();
    assert_eq!(held, 256);
}

#[test]
fn how_much_waits_is_bounded_within_a_tenant_first() {
    let mut rig = Rig::new();
    let size = TAIL_BYTES_MAX as u64;
    let read = Act::Read { buffer: (5 << 40) + 999, offset: 0, bytes: size };
    for instance in 0..15 {
        rig.asks(owner(1, 0, instance), read.clone());
    }
    assert_eq!(rig.replies(), []);
    rig.asks(owner(1, 0, 15), read.clone());
    let refused = rig.replies().remove(0).1;
    assert_eq!(code(refused), "gpu.would-block");
    rig.asks(owner(2, 0, 0), read);
    assert_eq!(rig.replies(), []);
    assert!(rig.server.has_room());
    let answers = rig.run();
    assert_eq!(answers.len(), 16);
    assert!(answers.into_iter().all(|(_, answer, _)| code(answer) == "gpu.handle"));
    assert!(rig.server.copies.is_empty());
}

#[test]
fn copies_are_answered_though_there_is_no_device() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 0);
    rig.lock().spares = 0;
    let (graph, buffer) = busy(&mut rig, who);
    rig.lock().fake.lose_at_submit(1);
    rig.asks(who, submit(graph, buffer, 1_000, false));
    assert!(matches!(rig.turn(Duration::ZERO), Verdict::Gone(_)));
    rig.replies();
    assert_eq!(code(rig.does(who, Act::Create { bytes: 4 })), "gpu.lost");
}

#[test]
fn a_stage_that_copies_is_told_what_that_took() {
    let mut rig = Rig::new();
    let who = owner(1, 1, 0);
    let buffer = rig.buffer(who, &[1; 64]);
    rig.words(who, buffer);
    let tenant = figures(&mut rig).remove(0);
    let [first, second] = tenant.stages[..] else { panic!() };
    assert_eq!(first, StageFigures::default());
    // Twice 5 µs, and 256 bytes at 64 a microsecond.
    assert_eq!((second.used.copy_nanos, second.used.device_nanos), (18_000, 0));
    assert_eq!((second.used.up_bytes, second.used.down_bytes), (256, 256));
    assert_eq!(second.used, tenant.used);
}
