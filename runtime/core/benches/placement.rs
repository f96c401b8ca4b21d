//! How long a placement takes: from nothing, again when nothing changed, after rates drifted, and
//! after a host was lost.
//!
//! Target: a thousand nodes and 50,000 items in a few seconds. `cargo bench -p sluicebox-core
//! --bench placement`; with a number, so many nodes.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[path = "../tests/simulation/dice.rs"]
mod dice;
#[path = "../tests/placement/worlds.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod worlds;

use std::time::{Duration, Instant};

use dice::Dice;
use sluicebox_core::placement::{Placement, Situation, place};
use worlds::{Size, applied, fleet, noisy};

/// Runs of each; the median is shown.
const RUNS: usize = 5;

fn timed(what: &str, situation: &Situation) -> Placement {
    let mut times: Vec<Duration> = Vec::new();
    let mut placement = place(situation);
    for _ in 0..RUNS {
        let start = Instant::now();
        placement = place(situation);
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let (median, worst) = (times[RUNS / 2].as_millis(), times[RUNS - 1].as_millis());
    let moves = placement.moves.len();
    println!("{what:<24} {median:>6} ms, at most {worst} ms; {moves} moves");
    placement
}

fn main() {
    let nodes = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(1000);
    let situation = fleet(1, Size { nodes, fill_percent: 60, item_milli: 77 });
    let (items, edges) = (situation.items.len(), situation.edges.len());
    println!("{} nodes, {items} items, {edges} edges", situation.nodes.len());
    let placement = timed("from nothing", &situation);
    let settled = applied(&situation, &placement);
    timed("nothing changed", &settled);
    timed("rates differ by 10 %", &noisy(&settled, &mut Dice::new(1)));
    let mut changed = settled.clone();
    changed.edges.iter_mut().step_by(50).for_each(|edge| edge.bytes_per_second *= 20);
    timed("one edge in 50 x 20", &changed);
    let mut lost = settled;
    lost.nodes.iter_mut().filter(|node| node.host == 1).for_each(|node| node.is_up = false);
    lost.items.iter_mut().filter_map(|item| item.now.as_mut()).for_each(|now| now.is_copied = true);
    timed("a host is lost", &lost);
}
