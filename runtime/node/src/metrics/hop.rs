//! Figures of the edges between the stages of a pipeline: how much goes which way, and how long it
//! takes.

use std::sync::Arc;
use std::time::Duration;

use super::encode::Row;
use super::{Counter, Latency, PipelineMetrics, lock};

/// How events get from one stage to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopWay {
    /// In a segment, from call to call.
    Call,
    /// To a partition of the same worker.
    Worker,
    /// To another worker of the node.
    Node,
    /// To another node of the machine, through memory that both have.
    Ring,
    /// To another node, over the network.
    Network,
}

impl HopWay {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Call, Self::Worker, Self::Node, Self::Ring, Self::Network];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Worker => "worker",
            Self::Node => "node",
            Self::Ring => "ring",
            Self::Network => "network",
        }
    }
}

/// Between two stages of a pipeline, over all edges from the one to the other.
#[derive(Debug)]
pub struct HopMetrics {
    /// Where it comes from.
    pub from: String,
    /// Where it goes.
    pub to: String,
    ways: [Arc<WayMetrics>; 5],
}

/// What went one way.
#[derive(Debug, Default)]
pub struct WayMetrics {
    /// Runs handed over, or calls; to another node again when they were sent again.
    pub runs: Counter,
    /// Their events.
    pub events: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// From when a run was handed over until the partition took it, of the first run of each
    /// batch; of another node until it had it on disk; in a segment from call to call.
    pub latency: Latency,
}

impl HopMetrics {
    /// The figures of one way.
    #[must_use]
    pub fn way(&self, way: HopWay) -> &Arc<WayMetrics> {
        &self.ways[way as usize]
    }
}

impl WayMetrics {
    /// A run was handed over.
    pub fn passed(&self, events: usize, bytes: usize) {
        self.runs.inc();
        self.events.add(events as u64);
        self.bytes.add(bytes as u64);
    }

    /// The mean of the time it took, in microseconds; 0 if nothing was taken.
    #[must_use]
    pub fn mean_micros(&self) -> u64 {
        let count: u64 = self.latency.counts.iter().map(Counter::get).sum();
        self.latency.micros.get().checked_div(count).unwrap_or(0)
    }

    /// One was taken.
    pub fn took(&self, time: Duration) {
        self.latency.observe(time);
    }
}

pub(super) const HOP_ROWS: &[Row<WayMetrics>] = &[
    Row::counter("hop_runs", "Runs, or calls, from a stage to the next", |m| m.runs.get()),
    Row::counter("hop_events", "Events handed from a stage to the next", |m| m.events.get()),
    Row::counter("hop_bytes", "Bytes handed from a stage to the next", |m| m.bytes.get()),
    Row::latency("hop_seconds", "Time from handing events over until they are taken", |m| {
        &m.latency
    }),
];

impl PipelineMetrics {
    /// The figures between the stages of the version that runs; of pairs that were there before
    /// they go on.
    pub fn set_hops(&self, pairs: &[(String, String)]) -> Vec<Arc<HopMetrics>> {
        let mut known = lock(&self.hops);
        let of = |(from, to): &(String, String)| {
            let before = known.iter().find(|hop| (&hop.from, &hop.to) == (from, to)).cloned();
            before.unwrap_or_else(|| {
                let (from, to) = (from.clone(), to.clone());
                Arc::new(HopMetrics { from, to, ways: Default::default() })
            })
        };
        let hops: Vec<Arc<HopMetrics>> = pairs.iter().map(of).collect();
        known.clone_from(&hops);
        hops
    }

    /// The figures between its stages.
    #[must_use]
    pub fn hops(&self) -> Vec<Arc<HopMetrics>> {
        lock(&self.hops).clone()
    }
}
