//! What sharing has to be worth. `benches/slice.rs` prints the same over more loads; equal seeds
//! give equal figures.

use super::super::simulate::scenes::{Compared, Sending, beside_a_hog, compare, three};
use super::super::simulate::{MILLI, SECOND};

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

const SENDING: Sending = Sending { depth: 1, chunk_micros: Some(2_000) };

/// What sharing gains over equal partitions and over those by demand, over all seeds.
fn gains(traces: &[Compared]) -> [f64; 2] {
    let sum = |way: usize| traces.iter().map(|trace| trace.utilisations()[way]).sum::<f64>();
    [sum(3) / sum(0) - 1.0, sum(3) / sum(1) - 1.0]
}

#[track_caller]
fn expect_gains(load: f64, duty: f64, least: [f64; 2]) {
    let run = |seed| compare(seed, (load, duty), 200 * SECOND, SENDING);
    let traces: Vec<Compared> = SEEDS.into_iter().map(run).collect();
    let gains = gains(&traces);
    assert!(gains[0] >= least[0] && gains[1] >= least[1], "{gains:?} of {least:?}");
    for (trace, seed) in traces.iter().zip(SEEDS) {
        let guaranteed = trace.watch.guaranteed_min();
        assert!(guaranteed >= 0.95, "seed {seed}: {guaranteed} of its guaranteed share");
        // Nobody is worse off than alone on a partition.
        let slower = trace.slower_max();
        assert!(slower <= 1.0, "seed {seed}: 99th percentile {slower} times that of a partition");
        for (tenant, (shared, own)) in trace.shared.iter().zip(&trace.equal).enumerate() {
            let (shared, own) = (shared.dropped, own.dropped);
            assert!(shared <= own, "seed {seed}, tenant {tenant}: {shared} dropped, not {own}");
        }
        let idle = trace.idle();
        assert!(idle < 0.01, "seed {seed}: idle for {idle} of the time while there was work");
    }
}

#[test]
fn sharing_is_worth_a_quarter_if_tenants_are_on_half_of_the_time() {
    expect_gains(0.7, 0.5, [0.25, 0.14]);
}

#[test]
fn sharing_is_worth_more_than_half_if_tenants_are_on_a_quarter_of_the_time() {
    expect_gains(0.7, 0.25, [0.6, 0.6]);
}

#[test]
fn tenants_that_always_have_work_get_their_shares() {
    for seed in SEEDS {
        let (watch, parts) = three(seed, 20 * SECOND, SENDING);
        for (part, ideal) in parts.into_iter().zip([1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]) {
            let error = (part / ideal - 1.0).abs();
            assert!(error <= 0.02, "seed {seed}: {part} is {error} off {ideal}");
        }
        let guaranteed = watch.guaranteed_min();
        assert!(guaranteed >= 0.95, "seed {seed}: {guaranteed} of its guaranteed share");
    }
}

#[test]
fn a_light_tenant_is_quick_beside_a_heavy_one() {
    let (chunk, own) = (2 * MILLI, MILLI);
    for (seed, depth) in SEEDS.into_iter().flat_map(|seed| [(seed, 1), (seed, 2)]) {
        let (light, _) = beside_a_hog(seed, 100 * SECOND, Sending { depth, ..SENDING });
        let late = light.percentile(99).unwrap();
        assert!(late <= 2 * chunk + own, "seed {seed}, {depth} at once: {late} ns");
        assert_eq!(light.dropped, 0);
    }
}
