//! Autoscaling on simulated traces: bursts, ramps, waves, on and off, a flash crowd.
//!
//! Times are those of the simulation, the same on every machine. Rates differ by up to a tenth all
//! the time.

#[path = "simulation/dice.rs"]
#[expect(dead_code, reason = "other simulations need more of it")]
mod dice;
#[path = "scaling/plant.rs"]
mod plant;

use plant::{Controller, Door, INSTANCE, Run, noisy, run, run_behind};
use sluicebox_core::scaling::{
    Bounds, Decision, Limit, Measured, Policy, Sample, Scale, Why, decide, fuse,
};

const BOUNDS: Bounds = Bounds { floor: 2, ceiling: 40, instances_each: 1, quota: 1000 };

fn ours(bounds: Bounds, seconds: u64, seed: u64, rate: impl Fn(u64) -> u64) -> Run {
    let controller = Controller::Ours(Policy::default());
    run(&controller, bounds, seconds, &mut noisy(seed, rate))
}

/// What happened, for people.
fn told(run: &Run) -> String {
    format!(
        "at most {} waited, {} reversals, {} instance seconds where {} are the least: {:?}",
        run.worst_backlog(),
        run.reversals(),
        run.instance_seconds,
        run.arrived / INSTANCE,
        run.ordered
    )
}

/// A thousand events a second, and ten times as many from a minute to four.
const fn burst(now: u64) -> u64 {
    if now > 60_000 && now <= 240_000 { 10_000 } else { 1000 }
}

#[test]
fn a_burst_of_ten_times_is_gone_in_twice_the_ideal_time_with_one_reversal() {
    for seed in 1..=20 {
        let ours = ours(BOUNDS, 600, seed, burst);
        let ideal = Controller::Ideal { begin: 60_000 };
        let ideal = run(&ideal, BOUNDS, 600, &mut noisy(seed, burst));
        let times = [&ours, &ideal].map(|run| run.drained_after(60, 10_000));
        println!("gone after {times:?} s; {}", told(&ours));
        assert!(times[0] <= 2 * times[1], "{times:?}");
        assert!(ours.reversals() <= 1, "{:?}", ours.ordered);
        let last = ours.ordered.last().expect("the first");
        assert!(last.1 <= 4, "it comes down again: {:?}", ours.ordered);
    }
}

#[test]
fn a_ramp_is_followed_before_anything_waits() {
    for seed in 1..=10 {
        let ours = ours(BOUNDS, 400, seed, |now| match now / 1000 {
            0..60 => 1000,
            at @ 60..240 => 1000 + (at - 60) * 50,
            _ => 10_000,
        });
        println!("{}", told(&ours));
        assert_eq!(ours.reversals(), 0);
        assert!(ours.worst_backlog() < 1000, "a tenth of a second of what comes");
    }
}

#[test]
fn a_steep_ramp_is_seen_coming() {
    // Nine thousand more within 15 s, when an instance takes 2 s to start.
    for seed in 1..=10 {
        let ours = ours(BOUNDS, 200, seed, |now| match now {
            0..60_000 => 1000,
            at @ 60_000..75_000 => 1000 + (at - 60_000) * 6 / 10,
            _ => 10_000,
        });
        println!("{}", told(&ours));
        assert!(ours.worst_backlog() < 4200, "{}", told(&ours));
    }
}

#[test]
fn a_wave_is_followed_and_turns_no_oftener_than_it() {
    // Five minutes a period, between 1,000 and 9,000 a second, in straight lines.
    let wave = |now: u64| {
        let at = now / 1000 % 300;
        1000 + if at < 150 { at } else { 300 - at } * 8000 / 150
    };
    for seed in 1..=10 {
        let ours = ours(BOUNDS, 1500, seed, wave);
        println!("{}", told(&ours));
        assert!(ours.reversals() <= 2 * 5, "five periods: {:?}", ours.ordered);
        assert!(ours.worst_backlog() < 1000);
        let needed = ours.arrived / INSTANCE;
        assert!(ours.instance_seconds * 10 <= needed * 22, "no more than 2.2 times the work");
    }
}

#[test]
fn on_and_off_within_a_quiet_while_is_on() {
    for seed in 1..=10 {
        let ours = ours(BOUNDS, 900, seed, |now| if now / 20_000 % 2 == 1 { 5000 } else { 500 });
        println!("{}", told(&ours));
        assert!(ours.reversals() <= 1, "{:?}", ours.ordered);
        let later = &ours.backlog[60..];
        assert!(later.iter().all(|backlog| *backlog < 500), "only the first is a surprise");
    }
}

#[test]
fn a_flash_crowd_is_served_and_left_behind() {
    for seed in 1..=10 {
        let ours = ours(BOUNDS, 900, seed, |now| match now / 1000 {
            0..60 => 500,
            at @ 60..70 => 500 + (at - 60) * 1200,
            at @ 70..370 => 12_500 - (at - 70) * 40,
            _ => 500,
        });
        println!("{}", told(&ours));
        assert!(ours.reversals() <= 1, "{:?}", ours.ordered);
        assert!(ours.drained_after(60, 12_500) <= 20);
        assert!(ours.ordered.last().is_some_and(|(_, instances)| *instances <= 3));
    }
}

/// Before a queue of two seconds of what two instances do.
const NARROW: Door = Door { events_max: 2000, tries: 1, is_seen: true };

#[test]
fn clients_that_are_refused_count_as_if_they_had_come() {
    for seed in 1..=10 {
        let behind = |door: Door| {
            let controller = Controller::Ours(Policy::default());
            let run = run_behind(door, &controller, (BOUNDS, 600), &mut noisy(seed, burst));
            let after = run.drained_after(60, 10_000);
            println!("behind {door:?} gone after {after} s; {}", told(&run));
            (after, run)
        };
        let (seen, run) = behind(NARROW);
        assert!(run.reversals() <= 1, "{:?}", run.ordered);
        assert!(seen <= 10, "{:?}", run.ordered);
        let (unseen, _) = behind(Door { is_seen: false, ..NARROW });
        assert!(seen + 3 <= unseen, "{seen} s, and {unseen} s if they were not seen");
    }
}

#[test]
fn clients_that_try_again_all_the_time_are_no_more_than_there_are_for_long() {
    // Half as much again as two instances do.
    let rate = |now: u64| if now > 60_000 { 1500 } else { 500 };
    for seed in 1..=10 {
        let door = Door { tries: 100, ..NARROW };
        let controller = Controller::Ours(Policy::default());
        let run = run_behind(door, &controller, (BOUNDS, 400), &mut noisy(seed, rate));
        println!("{}", told(&run));
        let most = run.ordered.iter().map(|(_, instances)| *instances).max();
        assert!(most <= Some(8), "at most twice what was taken, and room: {:?}", run.ordered);
        assert!(run.reversals() <= 1, "{:?}", run.ordered);
        // What five would do as well is left as it is.
        assert!(run.ordered.last().is_some_and(|last| last.1 <= 6), "{:?}", run.ordered);
    }
}

#[test]
fn what_is_idle_goes_to_zero_and_one_event_wakes_it() {
    let bounds = Bounds { floor: 0, ..BOUNDS };
    let rate = |now: u64| if now <= 60_000 || now > 500_000 { 800 } else { 0 };
    let ours = ours(bounds, 1000, 1, rate);
    println!("{}", told(&ours));
    let zero = ours.ordered.iter().filter(|(_, instances)| *instances == 0);
    let at: Vec<u64> = zero.map(|(at, _)| *at).collect();
    assert_eq!(at.len(), 2, "before anything came, and once after: {:?}", ours.ordered);
    assert!((360_000..=365_000).contains(&at[1]), "{at:?}");
    assert!(ours.ordered.last().is_some_and(|(at, n)| *at < 505_000 && (2..=3).contains(n)));
    // With a floor it does not.
    let kept = run(&Controller::Ours(Policy::default()), BOUNDS, 1000, &mut noisy(1, rate));
    assert!(kept.ordered.iter().all(|(_, instances)| *instances >= 2));
}

#[test]
fn neither_ceiling_nor_quota_is_passed() {
    let bounds = Bounds { quota: 12, ..BOUNDS };
    for (bounds, most, limit) in
        [(bounds, 12, Limit::Quota), (Bounds { ceiling: 9, ..BOUNDS }, 9, Limit::Ceiling)]
    {
        let ours = ours(bounds, 200, 1, burst);
        assert_eq!(ours.ordered.iter().map(|(_, n)| *n).max(), Some(most));
        assert_eq!(ours.last.and_then(|decision| decision.limit), Some(limit));
    }
}

fn sample(at_ms: u64, arrived: u64, backlog: u64) -> Sample {
    let (arrived, refused, busy_milli) = (arrived * 1000, 0, 700);
    Sample { at_ms, arrived, refused, handled: arrived, backlog, busy_milli }
}

fn measured(window: &[Sample], instances: u32) -> Measured<'_> {
    let scale = Scale { partitions: instances, instances };
    Measured {
        window,
        instance_rate: INSTANCE * 1000,
        active: scale,
        ordered: scale,
        since_change_ms: 1_000_000,
        bounds: BOUNDS,
    }
}

#[test]
fn each_decision_has_its_reason() {
    let policy = Policy::default();
    let why = |window: &[Sample], instances: u32| decide(&measured(window, instances), &policy);
    let steady: Vec<Sample> = (0..=60).map(|at| sample(at * 1000, 3500, 0)).collect();
    assert_eq!(why(&steady, 10).why, Why::Fits);
    let Decision { scale, why: reason, .. } = why(&steady, 8);
    assert_eq!((scale.instances, reason), (10, Why::Rate), "88 % busy");
    let quiet = why(&steady, 20);
    assert_eq!((quiet.scale.instances, quiet.why), (10, Why::Quiet), "35 % busy");
    assert_eq!(why(&steady[1..], 20).why, Why::Fits, "the window is too short to say");
    let rising: Vec<Sample> = (0..=60).map(|at| sample(at * 1000, 500 + at * 50, 0)).collect();
    assert_eq!(why(&rising, 8).why, Why::Rising, "82 % busy, and more to come");
    let mut waiting = steady;
    waiting[60].backlog = 20_000;
    let waits = why(&waiting, 10);
    assert_eq!((waits.scale.instances, waits.why), (17, Why::Backlog), "5,000 a second more");
    let refuse = |sample: &Sample| Sample { backlog: 0, refused: 1_000_000, ..*sample };
    let refused: Vec<Sample> = waiting.iter().map(refuse).collect();
    assert_eq!(why(&refused, 10).why, Why::Rate, "a thousand of 4,500 were refused");
    let unknown = Measured { instance_rate: 0, ..measured(&waiting, 4) };
    let unknown = decide(&unknown, &policy);
    assert_eq!((unknown.scale.instances, unknown.why), (8, Why::Unknown));
    let none = why(&[], 5);
    assert_eq!((none.scale.instances, none.why), (5, Why::Fits));
}

#[test]
fn instances_that_do_less_than_they_did_are_counted_as_they_are() {
    let mut window: Vec<Sample> = (0..=60).map(|at| sample(at * 1000, 3500, 0)).collect();
    // All busy, and they do 250 a second each.
    for sample in &mut window {
        (sample.handled, sample.busy_milli) = (2_500_000, 1000);
    }
    window[60].backlog = 10_000;
    let decision = decide(&measured(&window, 10), &Policy::default());
    assert_eq!(decision.scale.instances, 26, "3,500, and 12,000 within four seconds, of 250 each");
}

#[test]
fn partitions_are_given_up_when_half_of_them_would_do() {
    let window: Vec<Sample> = (0..=60).map(|at| sample(at * 1000, 3500, 0)).collect();
    let bounds = Bounds { instances_each: 4, ..BOUNDS };
    let scale = |partitions, instances| {
        let ordered = Scale { partitions, instances };
        let measured = Measured { bounds, ordered, ..measured(&window, instances) };
        decide(&measured, &Policy::default()).scale
    };
    assert_eq!(scale(5, 20), Scale { partitions: 5, instances: 10 }, "3 would do, not half of 5");
    assert_eq!(scale(6, 24), Scale { partitions: 3, instances: 10 });
    assert_eq!(scale(2, 8), Scale { partitions: 3, instances: 10 });
}

#[test]
fn numbers_without_measure_are_borne() {
    let most = Sample {
        at_ms: u64::MAX,
        arrived: u64::MAX,
        refused: u64::MAX,
        handled: u64::MAX,
        backlog: u64::MAX,
        busy_milli: u64::MAX,
    };
    let window = [Sample { at_ms: 0, arrived: 0, ..most }, Sample { arrived: 1, ..most }, most];
    let bounds =
        Bounds { floor: u32::MAX, ceiling: u32::MAX, instances_each: u32::MAX, quota: u32::MAX };
    for (rate, since_change_ms) in [(0, 0), (1, u64::MAX), (u64::MAX, 1)] {
        let measured = Measured {
            instance_rate: rate,
            since_change_ms,
            bounds,
            ..measured(&window, u32::MAX)
        };
        for policy in
            [Policy::default(), Policy { drain_ms: 0, start_ms: u64::MAX, ..Policy::default() }]
        {
            assert_eq!(decide(&measured, &policy).scale.instances, u32::MAX);
        }
    }
}

/// A segment of three stages in a chain, the second hot: 4, 8 and 2 µs, hops of 0.5 µs.
fn chain() -> [fuse::StageCost; 3] {
    let stage = |at: usize, own_nanos| fuse::StageCost {
        fed_by: at.checked_sub(1),
        own_nanos,
        hop_nanos: 500,
    };
    [stage(0, 4000), stage(1, 8000), stage(2, 2000)]
}

fn judge(stages: &[fuse::StageCost], busy_percent: u64, apart: Option<usize>) -> fuse::Decision {
    let fused: u64 = stages.iter().map(|stage| stage.own_nanos).sum();
    let busiest = 10_000_000_000 * busy_percent / fused.max(1);
    let measured = fuse::Measured { stages, busiest, apart, since_change_ms: 1_000_000 };
    fuse::decide(&measured, &fuse::Policy::default())
}

#[test]
fn a_hot_stage_gets_a_segment_of_its_own_when_that_pays() {
    // Apart it takes 8.5 µs of the 14 that a partition took: 164 % of before, for 7 % more work.
    let gains = fuse::Decision { apart: Some(1), why: fuse::Why::Gains { gains: 57 } };
    assert_eq!(judge(&chain(), 90, None), gains);
    // Fused it is cheaper, and there is time.
    let idle = fuse::Decision { apart: None, why: fuse::Why::Idle };
    assert_eq!(judge(&chain(), 80, None), idle);
    // It stays apart until there is plenty, and what just changed stays as it is.
    assert_eq!(judge(&chain(), 70, Some(1)), gains);
    assert_eq!(judge(&chain(), 50, Some(1)), idle);
    let stages = chain();
    let measured =
        fuse::Measured { stages: &stages, busiest: 1, apart: Some(1), since_change_ms: 599_999 };
    let held = fuse::Decision { apart: Some(1), why: fuse::Why::Held };
    assert_eq!(fuse::decide(&measured, &fuse::Policy::default()), held);
}

#[test]
fn hops_that_cost_what_is_gained_are_not_taken() {
    let mut stages = chain();
    stages.iter_mut().for_each(|stage| stage.hop_nanos = 4000);
    // 14 of 12 µs are gained, and 57 % of work added.
    let dear = judge(&stages, 100, None);
    assert!(matches!(dear.why, fuse::Why::NotWorth { gains } if gains < 0), "{dear:?}");
    // One that is apart goes back when half of the threshold is not gained any more.
    for (hop_nanos, apart) in [(900, Some(1)), (2000, None)] {
        stages.iter_mut().for_each(|stage| stage.hop_nanos = hop_nanos);
        assert_eq!(judge(&stages, 100, Some(1)).apart, apart, "hops of {hop_nanos} ns");
    }
    // A stage that is all there is gains nothing.
    let alone = judge(&chain()[..1], 100, None);
    assert_eq!(alone.why, fuse::Why::NotWorth { gains: 0 });
    assert_eq!(judge(&[], 0, Some(3)).apart, None);
}

#[test]
fn what_a_stage_feeds_stays_whole_when_another_is_set_apart() {
    // A root that feeds two: the dear leaf leaves, root and the other leaf stay one segment.
    let stage = |fed_by, own_nanos| fuse::StageCost { fed_by, own_nanos, hop_nanos: 100 };
    let stages = [stage(None, 1000), stage(Some(0), 1000), stage(Some(0), 2000)];
    // 4000 of 2050, and one hop of 100.
    let gains = fuse::Decision { apart: Some(2), why: fuse::Why::Gains { gains: 93 } };
    assert_eq!(judge(&stages, 100, None), gains);
}
