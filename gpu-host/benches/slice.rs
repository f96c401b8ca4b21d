//! What sharing a device is worth, in virtual time, and what deciding costs, in real time.
//!
//! Targets at a load of 0.7: 25 % more of the device is used than on equal partitions and 14 % more
//! than on partitions by demand if tenants are on half of the time, 60 % and 60 % on a quarter; no
//! tenant below 95 % of its share, none slower than on its own partition; shares within 2 %; a
//! light tenant beside a heavy one waits for two chunks at most. `src/slice/tests/targets.rs` holds
//! them; here nothing is asserted. `cargo bench -p sluicebox-gpu --bench slice`; with a number,
//! so many virtual seconds for each figure.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[path = "../src/slice/simulate.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod simulate;

use std::time::{Duration, Instant};

use simulate::SECOND;
use simulate::scenes::{Compared, Sending, beside_a_hog, compare, three};
use sluicebox_gpu::slice;
use sluicebox_gpu::slice::{Next, Settings, Slicer, Stage, StageTerms, Tenant, Terms, WHOLE, Work};

/// Load, and part of the time for which tenants are on.
const LOADS: [(f64, f64); 7] =
    [(0.5, 1.0), (0.7, 1.0), (0.7, 0.8), (0.5, 0.5), (0.7, 0.5), (0.9, 0.5), (0.7, 0.25)];

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

/// Chunks of 2 ms, one at a time.
const SENDING: Sending = Sending { depth: 1, chunk_micros: Some(2_000) };

const fn sending(depth: usize, chunk_micros: u64) -> Sending {
    Sending { depth, chunk_micros: Some(chunk_micros) }
}

/// How work is sent, to be compared.
const WAYS: [(&str, Sending); 7] = [
    ("not cut", Sending { depth: 1, chunk_micros: None }),
    ("8 ms", sending(1, 8_000)),
    ("2 ms", SENDING),
    ("2 ms, depth 2", sending(2, 2_000)),
    ("1 ms", sending(1, 1_000)),
    ("0.5 ms", sending(1, 500)),
    ("0.5 ms, depth 2", sending(2, 500)),
];

fn mean(traces: &[Compared], figure: impl Fn(&Compared) -> f64) -> f64 {
    traces.iter().map(figure).sum::<f64>() / traces.len() as f64
}

fn worst(traces: &[Compared], figure: impl Fn(&Compared) -> f64) -> f64 {
    traces.iter().map(figure).fold(0.0, f64::max)
}

fn all_seeds(load: (f64, f64), span: u64, how: Sending) -> Vec<Compared> {
    SEEDS.into_iter().map(|seed| compare(seed, load, span, how)).collect()
}

fn loads(span: u64) {
    println!(
        "load   on  equal demand  FIFO shared | gain on equal, demand | dropped: equal FIFO shared \
         | p99 to equal, share kept"
    );
    for (load, duty) in LOADS {
        let traces = all_seeds((load, duty), span, SENDING);
        let used = [0, 1, 2, 3].map(|way| mean(&traces, |trace| trace.utilisations()[way]));
        let gains = [0, 1].map(|way| (used[3] / used[way] - 1.0) * 100.0);
        let dropped = [0, 1, 2].map(|way| mean(&traces, |trace| trace.dropped()[way]) * 100.0);
        let slower = worst(&traces, Compared::slower_max);
        let kept = 1.0 - worst(&traces, |trace| 1.0 - trace.watch.guaranteed_min());
        let [equal, demand, fifo, shared] = used;
        print!("{load:>4} {duty:>4}  {equal:.3}  {demand:.3} {fifo:.3}  {shared:.3} |");
        print!(" {:>+13.1} % {:>+5.1} % |", gains[0], gains[1]);
        let [equal, fifo, shared] = dropped;
        print!(" {equal:>12.1} % {fifo:>3.1} % {shared:>4.1} % |");
        println!(" {slower:>12.2} {kept:>11.3}");
    }
}

fn ways(span: u64) {
    println!("\nload 0.7, on 0.25: how work is sent");
    println!("way              shared  apart at most ms   idle beside work");
    for (name, how) in WAYS {
        let traces = all_seeds((0.7, 0.25), span, how);
        let used = mean(&traces, |trace| trace.utilisations()[3]);
        // Of service, as one tenant of eight has it.
        let apart = worst(&traces, |trace| trace.watch.apart_max()) / 8.0 / 1e6;
        let idle = mean(&traces, Compared::idle) * 100.0;
        println!("{name:<16} {used:>6.3} {apart:>17.2} {idle:>16.2} %");
    }
}

fn always_busy(span: u64) {
    println!("\nweights 1, 2, 4, jobs of 60, 5, 1 ms, always busy: parts of 1/7, 2/7, 4/7");
    println!("way                  1/7    2/7    4/7  error at most   share kept");
    for (name, how) in WAYS {
        let (watch, parts) = three(1, span, how);
        let ideal = [1.0, 2.0, 4.0].map(|weight| weight / 7.0);
        let errors = parts.iter().zip(ideal).map(|(part, ideal)| (part / ideal - 1.0).abs());
        let error = errors.fold(0.0, f64::max) * 100.0;
        let [one, two, four] = parts;
        let kept = watch.guaranteed_min();
        println!("{name:<16} {one:>7.4} {two:.4} {four:.4} {error:>12.2} % {kept:>12.3}");
    }
}

fn light_beside_heavy(span: u64) {
    println!("\n1 ms twenty times a second beside dispatches of 200 ms that never end");
    println!("way                p50 ms    p99 ms    used");
    for (name, how) in WAYS {
        let (light, used) = beside_a_hog(1, span, how);
        let millis = |percent| light.percentile(percent).unwrap_or(0) as f64 / 1e6;
        println!("{name:<16} {:>8.2} {:>9.2} {used:>7.3}", millis(50), millis(99));
    }
}

/// One decision and its completion, beside so many tenants that all have work.
fn deciding(tenants: u32) {
    const CHUNKS: u32 = 200_000;
    let settings = Settings { depth: 2, ..Settings::default() };
    let mut slicer = Slicer::new(settings);
    for number in 0..tenants {
        let tenant = Tenant(number.into());
        let terms = Terms { weight: WHOLE / tenants, cap: None };
        let stage = Stage { tenant, number: 0 };
        let opened = slicer.open(Duration::ZERO, tenant, terms);
        let opened = opened
            .and_then(|()| slicer.open_stage(stage, StageTerms { weight: 1, dispatches_max: 1 }));
        let grid = [u32::MAX, 1, 1];
        let (is_whole, chunk_groups_max) = (false, u64::MAX);
        let work = Work { kernel: [1; 32], grid, is_whole, chunk_groups_max };
        if let Err(refused) = opened.and_then(|()| slicer.submit(stage, work)) {
            println!("{tenants} tenants: {refused}");
            return;
        }
    }
    let start = Instant::now();
    for _ in 0..CHUNKS {
        if let Next::Chunk(chunk) = slicer.next(Duration::ZERO) {
            slicer.complete(chunk.id, Duration::from_micros(10) * chunk.groups[0], true);
        }
    }
    let nanos = start.elapsed().as_nanos() / u128::from(CHUNKS);
    println!("{tenants:>5} tenants: {nanos} ns for a chunk, given out and completed");
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(600);
    let span = seconds * SECOND;
    println!("{} seeds of {seconds} virtual seconds", SEEDS.len());
    loads(span);
    ways(span);
    always_busy(span);
    light_beside_heavy(span);
    println!();
    [1, 8, 100, 1_000].into_iter().for_each(deciding);
}
