//! Constants that come in parts, and kernels that are tried.

use super::*;
use crate::serve::constants::{CONSTANT_BYTES_MAX, OPEN_BYTES_MAX};
use crate::serve::trials::TENANT_TRIALS_MAX;

const WHO: fn() -> Owner = || owner(1, 0, 7);

fn part(rig: &mut Rig, whole: &[u8], range: std::ops::Range<usize>) -> Answer {
    let hash = *blake3::hash(whole).as_bytes();
    let (bytes, offset) = (whole.len() as u64, range.start as u64);
    let act = Act::Constant { hash, bytes, offset };
    rig.answer(Want::Of(WHO(), act), &whole[range]).0
}

#[test]
fn a_constant_comes_in_parts() {
    let mut rig = Rig::new();
    let whole: Vec<u8> = (0..40).collect();
    let hash = *blake3::hash(&whole).as_bytes();
    assert_eq!(rig.does(WHO(), Act::FindConstant { hash }), Answer::Unknown);
    assert_eq!(part(&mut rig, &whole, 0..17), Answer::Done);
    assert_eq!(part(&mut rig, &whole, 17..18), Answer::Done);
    let first = handle(part(&mut rig, &whole, 18..40));
    let second = handle(rig.does(owner(1, 1, 3), Act::FindConstant { hash }));
    assert_ne!(first, second);
    assert_eq!(rig.does(owner(2, 0, 1), Act::FindConstant { hash }), Answer::Unknown);
    assert_eq!(rig.words(WHO(), first).len(), 10);
    assert_eq!(
        code(rig.answer(Want::Of(WHO(), Act::Write { buffer: first, offset: 0 }), &[0; 4]).0),
        "gpu.read-only"
    );
    assert_eq!(code(part(&mut rig, &whole, 18..40)), "gpu.range", "it is over");
}

#[test]
fn parts_that_do_not_follow_each_other_are_refused() {
    let mut rig = Rig::new();
    let whole: Vec<u8> = (0..40).collect();
    let other = [whole.clone(), vec![1; 4]].concat();
    let wrong: [(&[u8], std::ops::Range<usize>); 4] =
        [(&whole, 16..20), (&whole, 10..15), (&other, 20..24), (&whole, 20..20)];
    for (of, range) in wrong {
        assert_eq!(part(&mut rig, &whole, 0..20), Answer::Done);
        assert_eq!(code(part(&mut rig, of, range)), "gpu.range");
        assert_eq!(code(part(&mut rig, &whole, 20..40)), "gpu.range", "it was dropped");
    }
    // Begun anew is begun anew.
    assert_eq!(part(&mut rig, &other, 0..20), Answer::Done);
    assert_eq!(part(&mut rig, &whole, 0..20), Answer::Done);
    handle(part(&mut rig, &whole, 20..40));
}

#[test]
fn a_constant_that_is_not_its_hash_is_refused() {
    let mut rig = Rig::new();
    let say = |rig: &mut Rig, hash, bytes, tail: &[u8]| {
        let act = Act::Constant { hash, bytes, offset: 0 };
        rig.answer(Want::Of(WHO(), act), tail).0
    };
    assert_eq!(code(say(&mut rig, [7; 32], 4, &[1; 4])), "gpu.constant");
    assert_eq!(code(say(&mut rig, [7; 32], 4, &[1; 8])), "gpu.range");
    assert_eq!(code(say(&mut rig, [7; 32], 0, &[])), "gpu.range");
    assert_eq!(code(say(&mut rig, [7; 32], 3, &[1; 3])), "gpu.range");
    assert_eq!(code(say(&mut rig, [7; 32], CONSTANT_BYTES_MAX + 1, &[1; 3])), "gpu.limit");
    assert_eq!(code(say(&mut rig, [7; 32], u64::MAX, &[1; 3])), "gpu.limit");
}

fn begin(rig: &mut Rig, who: Owner, bytes: u64) -> Answer {
    let act = Act::Constant { hash: [1; 32], bytes, offset: 0 };
    rig.answer(Want::Of(who, act), &[1]).0
}

#[test]
fn constants_that_a_tenant_has_begun_have_a_bound() {
    let mut rig = Rig::new();
    let half = CONSTANT_BYTES_MAX / 2;
    for instance in 0..2 {
        let who = owner(1, instance, 1);
        assert_eq!(begin(&mut rig, who, half), Answer::Done);
        assert_eq!(begin(&mut rig, who, half), Answer::Done, "one of an owner counts once");
    }
    let Answer::Refused(why) = begin(&mut rig, owner(1, 0, 99), 4) else { panic!() };
    assert_eq!(why.code, "gpu.limit");
    assert!(why.text.contains("of the tenant"), "{}", why.text);
    assert_eq!(begin(&mut rig, owner(2, 0, 1), CONSTANT_BYTES_MAX), Answer::Done);
    assert_eq!(rig.says(Want::DropOwner { owner: owner(1, 0, 1) }), Answer::Done);
    assert_eq!(begin(&mut rig, owner(1, 0, 99), half), Answer::Done);
}

#[test]
fn constants_that_all_have_begun_have_a_bound() {
    let mut rig = Rig::new();
    let few = Terms { weight: 1_000, guaranteed_bytes: 0, ..terms() };
    let last = OPEN_BYTES_MAX / CONSTANT_BYTES_MAX + 1;
    for tenant in 3..=last {
        assert_eq!(rig.says(Want::Tenant { tenant, terms: few }), Answer::Done);
        let stage = owner(tenant, 0, 0).stage;
        assert_eq!(rig.says(Want::Stage { stage, weight: 1_000 }), Answer::Done);
    }
    for tenant in 1..last {
        let who = owner(tenant, 0, 1);
        assert_eq!(begin(&mut rig, who, CONSTANT_BYTES_MAX), Answer::Done);
    }
    assert_eq!(code(begin(&mut rig, owner(last, 0, 1), 4)), "gpu.limit");
    assert_eq!(rig.says(Want::DropOwner { owner: owner(1, 0, 1) }), Answer::Done);
    assert_eq!(begin(&mut rig, owner(last, 0, 1), 4), Answer::Done);
}

fn ask(rig: &mut Rig, who: Owner, source: &str) -> u64 {
    let act = Act::Kernel { entry: "main".to_owned() };
    rig.ask(Want::Of(who, act), source.as_bytes())
}

#[test]
fn a_kernel_is_tried_once_for_all_who_ask_meanwhile() {
    let mut rig = Rig::new();
    let askers = [owner(1, 0, 1), owner(1, 0, 2), owner(1, 1, 1)];
    let numbers = askers.map(|who| ask(&mut rig, who, ADD));
    let other = ask(&mut rig, owner(2, 0, 1), ADD);
    assert_eq!(rig.replies(), [], "others are served meanwhile");
    rig.buffer(owner(1, 0, 1), &[1]);
    let trial = rig.server.next_trial().unwrap();
    let checked = trial.check();
    assert_eq!(rig.says(Want::DropOwner { owner: askers[1] }), Answer::Done);
    rig.server.tried(trial.number, &checked);
    let said = rig.replies();
    assert_eq!([said[0].0, said[1].0], [numbers[0], numbers[2]]);
    assert_ne!(handle(said[0].1.clone()), handle(said[1].1.clone()));
    assert_eq!(said.len(), 2, "who is gone is not answered");
    rig.server.tried(trial.number, &checked);
    assert_eq!(rig.replies(), [], "it was told already");
    let trial = rig.server.next_trial().unwrap();
    assert_eq!(rig.server.next_trial(), None);
    rig.server.tried(trial.number, &checked);
    assert_eq!(rig.replies()[0].0, other);
    // Now it is known.
    ask(&mut rig, owner(1, 0, 3), ADD);
    handle(rig.replies()[0].1.clone());
}

#[test]
fn why_a_kernel_was_refused_is_remembered() {
    let mut rig = Rig::new();
    let who = owner(1, 0, 1);
    ask(&mut rig, who, "fn main() {}");
    let trial = rig.server.next_trial().unwrap();
    rig.server.tried(trial.number, &trial.check());
    assert_eq!(code(rig.replies()[0].1.clone()), "kernel.entry");
    ask(&mut rig, who, "fn main() {}");
    assert_eq!(code(rig.replies()[0].1.clone()), "kernel.entry");

    // What a driver dies of is so as well; a machine that could not try it is not.
    let failed = Rejected::Failed("no process".to_owned());
    let died = Rejected::Unsupported { line: 0, what: "the driver dies of it".to_owned() };
    for (outcome, expected) in [(failed, "kernel.failed"), (died, "kernel.unsupported")] {
        ask(&mut rig, who, ADD);
        let trial = rig.server.next_trial().unwrap();
        rig.server.tried(trial.number, &Err(outcome));
        assert_eq!(code(rig.replies()[0].1.clone()), expected);
    }
    ask(&mut rig, who, ADD);
    assert_eq!(code(rig.replies()[0].1.clone()), "kernel.unsupported");
    rig.kernel(owner(2, 0, 1), ADD);
}

#[test]
fn what_cannot_be_a_kernel_is_not_tried() {
    let mut rig = Rig::new();
    let mut say = |entry: &str, source: &[u8]| {
        let act = Act::Kernel { entry: entry.to_owned() };
        code(rig.answer(Want::Of(WHO(), act), source).0)
    };
    assert_eq!(say("main", &vec![b' '; 64 * 1024 + 1]), "kernel.limit");
    assert_eq!(say("main", &[0xFF; 8]), "kernel.invalid");
    assert_eq!(say(&"e".repeat(20_000), ADD.as_bytes()), "kernel.entry");
}

#[test]
fn kernels_that_wait_for_a_trial_have_a_bound() {
    let mut rig = Rig::new();
    let source = |at: usize| format!("{ADD}\n// {at}");
    for at in 0..TENANT_TRIALS_MAX {
        ask(&mut rig, owner(1, 0, 1), &source(at));
    }
    assert_eq!(rig.replies(), []);
    ask(&mut rig, owner(1, 1, 2), &source(99));
    assert_eq!(code(rig.replies()[0].1.clone()), "gpu.would-block");
    ask(&mut rig, owner(2, 0, 2), &source(99));
    assert_eq!(rig.replies(), [], "that is another tenant's bound");
    rig.try_kernels();
    assert_eq!(rig.replies().len(), TENANT_TRIALS_MAX + 1);
    ask(&mut rig, owner(1, 1, 2), &source(99));
    assert_eq!(rig.says(Want::DropOwner { owner: owner(1, 1, 2) }), Answer::Done);
    assert_eq!(rig.server.next_trial(), None, "nobody waits for it");
}

/// Asks for so many kernels of each tenant, from 1 on. Whose and which a trial is.
fn ask_all<const N: usize>(counts: [u64; N]) -> (Rig, impl Fn(Option<&Trial>) -> (u64, u64)) {
    let mut rig = Rig::new();
    let few = Terms { weight: 1_000, guaranteed_bytes: 0, ..terms() };
    assert_eq!(rig.says(Want::Tenant { tenant: 3, terms: few }), Answer::Done);
    let stage = owner(3, 0, 0).stage;
    assert_eq!(rig.says(Want::Stage { stage, weight: 1_000 }), Answer::Done);
    let source = |tenant, at| format!("{ADD}\n// {tenant} {at}");
    for (tenant, count) in (1..).zip(counts) {
        for at in 1..=count {
            ask(&mut rig, owner(tenant, 0, 1), &source(tenant, at));
        }
    }
    assert_eq!(rig.replies(), []);
    let name = move |trial: Option<&Trial>| {
        let text = trial.map_or("", |trial| &trial.source);
        let is_it = |it: &(u64, u64)| text == source(it.0, it.1);
        let mut all = (1..4).flat_map(|tenant| (1..5).map(move |at| (tenant, at)));
        all.find(is_it).unwrap_or_default()
    };
    (rig, name)
}

fn end(rig: &mut Rig, trial: Option<Trial>) {
    let trial = trial.unwrap();
    rig.server.tried(trial.number, &trial.check());
    rig.replies();
}

#[test]
fn kernels_are_tried_of_one_tenant_after_the_other() {
    let (mut rig, name) = ask_all([4, 2, 2]);
    let first = rig.server.next_trial();
    let second = rig.server.next_trial();
    assert_eq!([first.as_ref(), second.as_ref()].map(&name), [(1, 1), (2, 1)]);
    end(&mut rig, first);
    let third = rig.server.next_trial();
    assert_eq!(name(third.as_ref()), (3, 1), "before the first's turn comes again");
    end(&mut rig, second);
    let fourth = rig.server.next_trial();
    assert_eq!(name(fourth.as_ref()), (1, 2));
    end(&mut rig, third);
    assert_eq!(name(rig.server.next_trial().as_ref()), (2, 2));
}

#[test]
fn one_kernel_of_a_tenant_is_tried_while_others_wait() {
    let (mut rig, name) = ask_all([3, 3]);
    let trials: [_; 3] = std::array::from_fn(|_| rig.server.next_trial());
    assert_eq!(trials.each_ref().map(|trial| name(trial.as_ref())), [(1, 1), (2, 1), (0, 0)]);
    // Who is gone keeps no other's place, but what is tried of it counts until then.
    assert_eq!(rig.says(Want::DropOwner { owner: owner(2, 0, 1) }), Answer::Done);
    let rest: [_; 3] = std::array::from_fn(|_| rig.server.next_trial());
    assert_eq!(rest.each_ref().map(|trial| name(trial.as_ref())), [(1, 2), (1, 3), (0, 0)]);
    ask(&mut rig, owner(2, 0, 2), ADD);
    let late = rig.server.next_trial();
    assert_eq!(late.unwrap().source, ADD, "nobody else waits");
}
