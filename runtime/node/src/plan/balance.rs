//! Carries plans out by itself, where the configuration says so: `cluster.balance`.
//!
//! - Each node moves what it is the home of, in turns that follow from the clock and the nodes it
//!   hears: at most one acts at a time, as long as they agree on both. If they do not, moves are
//!   still safe; what is decided twice may have to be moved again.
//! - Only the first moves of a plan are carried out, a few in each turn, and then it is looked
//!   again: a plan is as old as its rates.
//! - A move that is refused ends the turn. What moves go through, and when, is seen in the log.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluicebox_core::ids::Name;

use super::Step;
use crate::node::Node;

/// Partitions moved in one turn.
const MOVES_MAX: usize = 16;

/// A node that has just started has seen no rates: it waits for this many intervals.
const WARM_UP: u32 = 2;

/// Moves that follow each other and go the same way.
#[derive(Debug, PartialEq, Eq)]
struct Together {
    tenant: Name,
    pipeline: Name,
    to: String,
    partitions: BTreeSet<u16>,
}

/// Takes its turns, for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    let config = &node.config().cluster;
    let interval = config.balance_interval;
    if !config.balance || node.cluster().is_none() {
        return;
    }
    let began = Instant::now();
    loop {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (number, wait) = slot(clock, interval);
        tokio::time::sleep(wait).await;
        if began.elapsed() >= interval * WARM_UP && is_turn(number + 1, &node.names_up()) {
            node.take_turn().await;
        }
    }
}

/// The number of the interval in which a time is, and how long until the next.
fn slot(clock: Duration, interval: Duration) -> (u64, Duration) {
    let (now, each) = (clock.as_millis(), interval.as_millis().max(1));
    let left = u64::try_from(each - now % each).unwrap_or(u64::MAX);
    (u64::try_from(now / each).unwrap_or(u64::MAX), Duration::from_millis(left))
}

/// Whether it is the turn of the first of these names.
fn is_turn(number: u64, names: &[String]) -> bool {
    let Some(own) = names.first() else { return false };
    let before = names.iter().filter(|name| *name < own).count() as u64;
    number % names.len() as u64 == before
}

impl Node {
    /// The names of the nodes that are heard, this one first.
    fn names_up(&self) -> Vec<String> {
        let Some(cluster) = self.cluster() else { return Vec::new() };
        let peers = cluster.peers().iter().filter(|peer| peer.is_up());
        let peers = peers.map(|peer| peer.name().to_string());
        std::iter::once(cluster.name().to_string()).chain(peers).collect()
    }

    /// Carries out what is the next to be done, if it is this node's to do.
    async fn take_turn(self: &Arc<Self>) {
        let steps = match self.steps().await {
            Ok(steps) => steps,
            Err(error) => return tracing::warn!(%error, "no plan could be made"),
        };
        for Together { tenant, pipeline, to, partitions } in self.own(steps) {
            let moved = self.move_partitions((&tenant, &pipeline), &partitions, &to).await;
            let numbers = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            match moved {
                Ok(moved) => {
                    self.metrics().node().balanced.add(partitions.len() as u64);
                    let pause_ms = moved.pause_millis;
                    tracing::info!(
                        %tenant, %pipeline, partitions = numbers, to, pause_ms,
                        "moved by the plan"
                    );
                }
                Err(error) => {
                    tracing::warn!(
                        %tenant, %pipeline, partitions = numbers, to, %error,
                        "the plan has a move that could not be made"
                    );
                    return;
                }
            }
        }
    }

    /// The first steps, as long as they are of pipelines whose home is here: what comes behind
    /// another's may need the room that one makes.
    fn own(&self, steps: Vec<Step>) -> Vec<Together> {
        let is_own = |step: &Step| self.running(&step.tenant, step.pipeline.as_str()).is_some();
        together(steps.into_iter().take_while(is_own).take(MOVES_MAX))
    }
}

fn together(steps: impl Iterator<Item = Step>) -> Vec<Together> {
    let mut all: Vec<Together> = Vec::new();
    for Step { tenant, pipeline, partition, to } in steps {
        match all.last_mut() {
            Some(last) if (&last.tenant, &last.pipeline, &last.to) == (&tenant, &pipeline, &to) => {
                last.partitions.insert(partition);
            }
            _ => {
                let partitions = BTreeSet::from([partition]);
                all.push(Together { tenant, pipeline, to, partitions });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_hear_each_other_one_has_the_turn() {
        let all = ["b", "a", "c"].map(str::to_owned);
        let as_seen_by = |own: &str| {
            let others = all.iter().filter(|name| *name != own).cloned();
            std::iter::once(own.to_owned()).chain(others).collect::<Vec<_>>()
        };
        for number in 0..6 {
            let turns: Vec<_> =
                all.iter().filter(|name| is_turn(number, &as_seen_by(name))).collect();
            assert_eq!(turns.len(), 1, "{number}: {turns:?}");
        }
        assert!(!is_turn(0, &[]));
    }

    #[test]
    fn a_slot_begins_where_the_one_before_ends() {
        let each = Duration::from_secs(10);
        assert_eq!(slot(Duration::from_millis(25_500), each), (2, Duration::from_millis(4_500)));
        assert_eq!(slot(Duration::from_secs(30), each), (3, each));
    }

    #[test]
    fn what_goes_the_same_way_goes_together() {
        let name = |text: &str| Name::new(text).expect("a good name");
        let step = |pipeline: &str, partition: u16, to: &str| Step {
            tenant: name("acme"),
            pipeline: name(pipeline),
            partition,
            to: to.to_owned(),
        };
        let steps = [step("w", 3, "b"), step("w", 1, "b"), step("w", 2, "c"), step("v", 2, "c")];
        let found: Vec<_> = together(steps.into_iter())
            .into_iter()
            .map(|one| (one.pipeline.to_string(), one.to, Vec::from_iter(one.partitions)))
            .collect();
        let expected = [("w", "b", vec![1, 3]), ("w", "c", vec![2]), ("v", "c", vec![2])];
        assert_eq!(found, expected.map(|(p, to, at)| (p.to_owned(), to.to_owned(), at)));
    }
}
