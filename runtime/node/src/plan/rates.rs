//! How much each partition here does in a second, smoothed: what a plan is made from.
//!
//! Looked at by one task, where there are other nodes; read when somebody asks for a plan.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicebox_core::ids::PipelineId;

use crate::mailbox::lock;
use crate::node::Node;
use crate::running::Running;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(2);

/// The part of the way to what was seen last that a rate goes: it forgets half in some ten seconds.
const STEP: f64 = 0.125;

/// What a partition does, in all segments together, in a second.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rates {
    /// Thousandths of a processor.
    pub(crate) cpu_milli: f64,
    /// Bytes of ingest for it, where that is.
    pub(crate) ingest: f64,
    /// Bytes that leave it by outputs.
    pub(crate) output: f64,
    /// Bytes for other partitions.
    pub(crate) sent: BTreeMap<u16, f64>,
}

/// What was counted when it was last looked.
#[derive(Debug, Clone, Default)]
struct Seen {
    busy_micros: u64,
    ingest: u64,
    output: u64,
    sent: BTreeMap<u16, u64>,
}

/// The rates of all partitions that are here.
#[derive(Debug, Default)]
pub(crate) struct Flows(Mutex<BTreeMap<(PipelineId, u16), (Seen, Rates)>>);

impl Flows {
    /// What a partition does. Nothing if it was not looked at yet.
    pub(crate) fn of(&self, id: PipelineId, partition: u16) -> Rates {
        let flows = lock(&self.0);
        flows.get(&(id, partition)).map(|(_, rates)| rates.clone()).unwrap_or_default()
    }

    async fn look(&self, all: &[(PipelineId, Arc<Running>)], elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(0.001);
        for (id, running) in all {
            // Its thread has other things to do.
            tokio::task::yield_now().await;
            for at in 0..running.partitions() {
                let now = Seen::of(running, at);
                let mut flows = lock(&self.0);
                // What is seen for the first time may have been counted for long.
                let (seen, rates) =
                    flows.entry((*id, at)).or_insert_with(|| (now.clone(), Rates::default()));
                rates.go_on(&now.since(seen, seconds));
                *seen = now;
            }
        }
        let ids: BTreeMap<PipelineId, u16> =
            all.iter().map(|(id, running)| (*id, running.partitions())).collect();
        lock(&self.0).retain(|(id, at), _| ids.get(id).is_some_and(|count| at < count));
    }
}

impl Seen {
    fn of(running: &Running, partition: u16) -> Self {
        let mut all = Self::default();
        for mailbox in running.partition(partition) {
            all.busy_micros += mailbox.load.busy_micros();
            all.ingest += mailbox.load.ingest_bytes();
            all.output += mailbox.load.output_bytes();
            for (to, bytes) in mailbox.load.sent() {
                *all.sent.entry(to).or_default() += bytes;
            }
        }
        all
    }

    /// The rates since then. Counts begin again when there is a new version.
    fn since(&self, before: &Self, seconds: f64) -> Rates {
        let rate = |now: u64, before: u64| {
            let more = if now < before { now } else { now - before };
            more as f64 / seconds
        };
        let sent = self.sent.iter().map(|(to, now)| {
            let before = before.sent.get(to).copied().unwrap_or(0);
            (*to, rate(*now, before))
        });
        Rates {
            cpu_milli: rate(self.busy_micros, before.busy_micros) / 1000.0,
            ingest: rate(self.ingest, before.ingest),
            output: rate(self.output, before.output),
            sent: sent.collect(),
        }
    }
}

impl Rates {
    /// Goes a step of the way to what was just seen; the first of all is taken as it is.
    fn go_on(&mut self, now: &Self) {
        let is_first = *self == Self::default();
        let step = |old: &mut f64, now: f64| {
            *old += (now - *old) * if is_first { 1.0 } else { STEP };
        };
        step(&mut self.cpu_milli, now.cpu_milli);
        step(&mut self.ingest, now.ingest);
        step(&mut self.output, now.output);
        for (to, now) in &now.sent {
            step(self.sent.entry(*to).or_default(), *now);
        }
    }
}

/// Looks for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Instant::now();
        node.flows().look(&node.all_by_id(), now - last).await;
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(busy_micros: u64, to_one: u64) -> Seen {
        Seen { busy_micros, ingest: 0, output: 10, sent: BTreeMap::from([(1, to_one)]) }
    }

    #[test]
    fn rates_follow_what_is_seen_and_forget_what_was() {
        let mut rates = Rates::default();
        rates.go_on(&seen(1_000_000, 4_000).since(&seen(0, 0), 2.0));
        assert_eq!((rates.cpu_milli, rates.sent[&1], rates.output), (500.0, 2_000.0, 0.0));
        rates.go_on(&seen(1_000_000, 4_000).since(&seen(1_000_000, 4_000), 2.0));
        assert_eq!((rates.cpu_milli, rates.sent[&1]), (437.5, 1_750.0));
        for _ in 0..100 {
            rates.go_on(&seen(1_000_000, 4_000).since(&seen(1_000_000, 4_000), 2.0));
        }
        assert!(rates.cpu_milli < 0.01 && rates.sent[&1] < 0.01, "{rates:?}");
    }

    #[test]
    fn counts_that_begin_again_are_no_rates_below_zero() {
        let rates = seen(2_000, 100).since(&seen(9_000_000, 50_000), 1.0);
        assert_eq!((rates.cpu_milli, rates.sent[&1]), (2.0, 100.0));
    }
}
