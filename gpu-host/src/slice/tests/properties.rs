//! What holds for any tenants on any device: the bounds of start-time fair queueing.

use std::ops::Range;

use proptest::prelude::*;

use super::super::simulate::dice::Dice;
use super::super::simulate::shared::{Plan, shared};
use super::super::simulate::trace::Job;
use super::super::simulate::watch::Watch;
use super::super::simulate::{GAP_NANOS, MILLI};
use super::*;

const SPAN: u64 = 1_000 * MILLI;

/// Sums of floats are off by less than that.
const ROUNDED: f64 = 1.0 + 1e-9;

/// Some tenants on some device; jobs follow from the seed.
#[derive(Debug, Clone)]
struct Scenario {
    seed: u64,
    weights: Vec<u32>,
    depth: usize,
    chunk_micros: u64,
    noise: f64,
    is_whole: bool,
    /// Groups of the dispatches of tenants that always have some; the others come and go.
    hogs: Vec<u32>,
}

fn scenario(depths: Range<usize>) -> impl Strategy<Value = Scenario> {
    let tenants =
        (prop::collection::vec(1_u32..20, 2..6), prop::collection::vec(1_u32..5_000, 0..3));
    let device = (depths, 500_u64..8_000, 0.0..0.9_f64);
    (any::<u64>(), tenants, device, prop::bool::weighted(0.2)).prop_map(
        |(seed, (weights, hogs), (depth, chunk_micros, noise), is_whole)| {
            let sum: u32 = weights.iter().sum();
            let weights = weights.iter().map(|weight| weight * (WHOLE / sum)).collect();
            Scenario { seed, weights, depth, chunk_micros, noise, is_whole, hogs }
        },
    )
}

impl Scenario {
    fn run(&self) -> Watch {
        let mut dice = Dice::new(self.seed);
        let tenants = self.weights.len();
        let hogs: Vec<(usize, u32)> = self.hogs.iter().copied().enumerate().collect();
        let hogs = &hogs[..hogs.len().min(tenants - 1)];
        let mut jobs = Vec::new();
        for tenant in hogs.len()..tenants {
            let pause = dice.exponential(100.0 * MILLI as f64);
            let mut at = dice.exponential(pause);
            while at < SPAN as f64 {
                let groups = 1 + dice.exponential(1_000.0) as u32;
                // Some come together, so that there is a queue.
                let count = 1 + dice.roll() % 4;
                (0..count).for_each(|_| jobs.push(Job { at: at as u64, tenant, groups }));
                at += dice.exponential(pause);
            }
        }
        jobs.sort_unstable();
        shared(&Plan {
            settings: Settings {
                depth: self.depth,
                chunk_time_max: Duration::from_micros(self.chunk_micros),
                ..Settings::default()
            },
            weights: &self.weights,
            jobs: &jobs,
            hogs,
            is_whole: self.is_whole,
            noise: self.noise,
            seed: dice.roll(),
            span: SPAN,
            give_up: 300 * MILLI,
        })
    }
}

/// For each two tenants the longest chunk that either should have taken, and the most it took
/// longer, over their weights.
fn dues(watch: &Watch) -> Vec<(usize, usize, f64)> {
    let due = |tenant: usize| {
        let seen = &watch.tenants()[tenant];
        (seen.expected_max + seen.overshot_max) as f64 / seen.weight
    };
    let tenants = watch.tenants().len();
    let pairs = (0..tenants).flat_map(|one| (0..one).map(move |other| (one, other)));
    pairs.map(|(one, other)| (one, other, due(one) + due(other))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Goyal, Vin and Cheng (1997), for one chunk at a time of known length: the longest of each
    /// over its weight. One that took longer than expected is as much longer.
    #[test]
    fn tenants_that_are_busy_are_apart_by_what_a_chunk_of_each_takes(scenario in scenario(1..2)) {
        let watch = scenario.run();
        for (one, other, due) in dues(&watch) {
            let apart = watch.apart(one, other);
            prop_assert!(apart <= due * ROUNDED, "{} and {}: {} of {}", one, other, apart, due);
        }
    }

    /// With more chunks on the device, what these take is not known when the next is chosen: both
    /// where the tenants are compared from and where they are compared, each may be off by as many
    /// chunks as are there.
    #[test]
    fn tenants_are_apart_by_what_is_on_the_device_if_that_is_more(scenario in scenario(2..5)) {
        let watch = scenario.run();
        for (one, other, due) in dues(&watch) {
            let (apart, bound) = (watch.apart(one, other), due * 2.0 * scenario.depth as f64);
            prop_assert!(apart <= bound * ROUNDED, "{} and {}: {} of {}", one, other, apart, bound);
        }
    }

    /// Who has had a turn of late first waits until the others have had as much by their weights.
    #[test]
    fn who_begins_waits_for_one_chunk_of_each_other_and_those_on_the_device(
        scenario in scenario(1..4),
    ) {
        let watch = scenario.run();
        let longest = watch.tenants().iter().map(|seen| seen.took_max).max().unwrap() + GAP_NANOS;
        for (tenant, seen) in watch.tenants().iter().enumerate() {
            let own = seen.expected_max + seen.overshot_max;
            let debt = own as f64 * (1.0 - seen.weight) / seen.weight;
            for (nth, (wait, others)) in seen.waits.iter().enumerate() {
                let first = (scenario.depth * (1 + others)) as u64 * longest + GAP_NANOS;
                let others = (scenario.depth * watch.tenants().len()) as u64 * longest;
                let later = others + debt as u64 + GAP_NANOS;
                let bound = if nth == 0 { first } else { later };
                prop_assert!(*wait <= bound, "{}, {}: {} of {}", tenant, nth, wait, bound);
            }
        }
    }

    #[test]
    fn the_device_never_waits_while_there_is_work(scenario in scenario(1..4)) {
        let watch = scenario.run();
        // Before each chunk it waits for the host at most, and not for whose turn it is.
        let gaps = watch.chunks + scenario.depth as u64;
        prop_assert!(watch.idle <= gaps * GAP_NANOS, "{} ns, {} chunks", watch.idle, watch.chunks);
    }
}
