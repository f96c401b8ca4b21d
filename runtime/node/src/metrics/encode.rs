//! From rows and sets of figures to OpenMetrics text.
//!
//! Written family by family, each with all its label sets, as the format wants it. Knows nothing
//! of what is counted; that is in `metrics.rs`.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use sluicebox_core::ids::Name;

use super::connector::{SINK_ROWS, SOURCE_ROWS};
use super::gpu::{GPU_ROWS, GPU_TENANT_ROWS, GpuSeen};
use super::hop::HOP_ROWS;
use super::kinds::LATENCY_MICROS;
use super::log::{CHECKPOINT_ROWS, LOG_ROWS, LOGGED_ROWS, Logged, TENANT_ROWS};
use super::node::NODE_ROWS;
use super::output::OUTPUT_ROWS;
use super::peer::{LINK_ROWS, LinkMetrics, PEER_ROWS, WAYS};
use super::process::{PROCESS_ROWS, Seen};
use super::time::{TIMED_ROWS, Timed};
use super::traces::TRACE_ROWS;
use super::worker::WORKER_ROWS;
use super::{
    GUEST_COUNTER, GUEST_GAUGE, GuestValue, HopMetrics, HopWay, Latency, PIPELINE_ROWS,
    PeerMetrics, PipelineMetrics, ProcessMetrics, STAGE_ROWS, Sets, StageMetrics, WayMetrics, lock,
};
use crate::gpu::Gpus;

/// Counts by word.
pub(super) type Words = Vec<(&'static str, u64)>;

/// How often something took how long, in seconds.
pub(super) struct Buckets {
    /// Of all together.
    pub sum: f64,
    /// By upper end; each counts those that are in no bucket before.
    pub counts: Vec<(f64, u64)>,
}

/// One family of metrics and how to read it from a set of figures.
pub(super) struct Row<T: 'static> {
    name: &'static str,
    help: &'static str,
    shape: Shape<T>,
}

/// What sort of family, and where its value is.
pub(super) enum Shape<T: 'static> {
    Counter(fn(&T) -> u64),
    Gauge(fn(&T) -> u64),
    /// Gauges by a further label.
    Gauges(&'static str, fn(&T) -> Words),
    /// A gauge that is a time.
    Seconds(fn(&T) -> f64),
    /// Counted in microseconds, shown in seconds.
    Micros(fn(&T) -> u64),
    /// Counters by a further label.
    Words(&'static str, fn(&T) -> Words),
    Latency(fn(&T) -> &Latency),
    Buckets(fn(&T) -> Buckets),
}

impl<T> Row<T> {
    pub(super) const fn counter(
        name: &'static str,
        help: &'static str,
        read: fn(&T) -> u64,
    ) -> Self {
        Self { name, help, shape: Shape::Counter(read) }
    }

    pub(super) const fn gauge(name: &'static str, help: &'static str, read: fn(&T) -> u64) -> Self {
        Self { name, help, shape: Shape::Gauge(read) }
    }

    pub(super) const fn gauges(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: fn(&T) -> Words,
    ) -> Self {
        Self { name, help, shape: Shape::Gauges(label, read) }
    }

    pub(super) const fn seconds(
        name: &'static str,
        help: &'static str,
        read: fn(&T) -> f64,
    ) -> Self {
        Self { name, help, shape: Shape::Seconds(read) }
    }

    pub(super) const fn buckets(
        name: &'static str,
        help: &'static str,
        read: fn(&T) -> Buckets,
    ) -> Self {
        Self { name, help, shape: Shape::Buckets(read) }
    }

    pub(super) const fn micros(
        name: &'static str,
        help: &'static str,
        read: fn(&T) -> u64,
    ) -> Self {
        Self { name, help, shape: Shape::Micros(read) }
    }

    pub(super) const fn words(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        read: fn(&T) -> Words,
    ) -> Self {
        Self { name, help, shape: Shape::Words(label, read) }
    }

    pub(super) const fn latency(
        name: &'static str,
        help: &'static str,
        read: fn(&T) -> &Latency,
    ) -> Self {
        Self { name, help, shape: Shape::Latency(read) }
    }

    const fn metric_type(&self) -> MetricType {
        match self.shape {
            Shape::Counter(_) | Shape::Micros(_) | Shape::Words(..) => MetricType::Counter,
            Shape::Gauge(_) | Shape::Gauges(..) | Shape::Seconds(_) => MetricType::Gauge,
            Shape::Latency(_) | Shape::Buckets(_) => MetricType::Histogram,
        }
    }

    fn encode_one(&self, out: &mut MetricEncoder<'_>, labels: &Labels, set: &T) -> fmt::Result {
        match self.shape {
            Shape::Counter(read) => {
                out.encode_family(labels)?.encode_counter::<NoLabelSet, u64, u64>(&read(set), None)
            }
            Shape::Gauge(read) => out.encode_family(labels)?.encode_gauge(&read(set)),
            Shape::Gauges(label, read) => read(set).into_iter().try_for_each(|(word, value)| {
                let mut labels = labels.clone();
                labels.push((label, word.to_owned()));
                out.encode_family(&labels)?.encode_gauge(&value)
            }),
            Shape::Seconds(read) => out.encode_family(labels)?.encode_gauge(&read(set)),
            Shape::Micros(read) => {
                let seconds = read(set) as f64 / 1e6;
                out.encode_family(labels)?.encode_counter::<NoLabelSet, f64, u64>(&seconds, None)
            }
            Shape::Words(label, read) => read(set).into_iter().try_for_each(|(word, count)| {
                let mut labels = labels.clone();
                labels.push((label, word.to_owned()));
                let mut out = out.encode_family(&labels)?;
                out.encode_counter::<NoLabelSet, u64, u64>(&count, None)
            }),
            Shape::Latency(read) => encode(out.encode_family(labels)?, &buckets_of(read(set))),
            Shape::Buckets(read) => encode(out.encode_family(labels)?, &read(set)),
        }
    }
}

type Labels = Vec<(&'static str, String)>;

fn buckets_of(latency: &Latency) -> Buckets {
    let ends = LATENCY_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
    let counts = ends.zip(&latency.counts).map(|(end, count)| (end, count.get())).collect();
    Buckets { sum: latency.micros.get() as f64 / 1e6, counts }
}

fn encode(mut out: MetricEncoder<'_>, Buckets { sum, counts }: &Buckets) -> fmt::Result {
    let count = counts.iter().map(|bucket| bucket.1).sum();
    out.encode_histogram::<NoLabelSet>(*sum, count, counts, None)
}

fn encode_rows<T>(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row<T>],
    sets: &[(Labels, &T)],
) -> fmt::Result {
    if sets.is_empty() {
        return Ok(());
    }
    rows.iter().try_for_each(|row| {
        let mut out = encoder.encode_descriptor(row.name, row.help, None, row.metric_type())?;
        sets.iter().try_for_each(|(labels, set)| row.encode_one(&mut out, labels, set))
    })
}

/// What stages count themselves: first all counters, then all gauges.
fn encode_guest(
    encoder: &mut DescriptorEncoder<'_>,
    stages: &[(Labels, &StageMetrics)],
) -> fmt::Result {
    let mut counters = Vec::new();
    let mut gauges = Vec::new();
    for (labels, stage) in stages {
        for (name, value) in lock(&stage.guest).iter() {
            let mut labels = labels.clone();
            labels.push(("name", name.clone()));
            match value {
                GuestValue::Counter(sum) => counters.push((labels, *sum)),
                GuestValue::Gauge(value) => gauges.push((labels, *value)),
            }
        }
    }
    if !counters.is_empty() {
        let (name, help) = GUEST_COUNTER;
        let mut out = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, sum) in &counters {
            out.encode_family(labels)?.encode_counter::<NoLabelSet, u64, u64>(sum, None)?;
        }
    }
    if !gauges.is_empty() {
        let (name, help) = GUEST_GAUGE;
        let mut out = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in &gauges {
            out.encode_family(labels)?.encode_gauge(value)?;
        }
    }
    Ok(())
}

/// Label sets borrow the figures they belong to.
fn borrowed<T>(sets: &[(Labels, Arc<T>)]) -> Vec<(Labels, &T)> {
    sets.iter().map(|(labels, set)| (labels.clone(), set.as_ref())).collect()
}

impl Collector for Sets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode_rows(&mut encoder, NODE_ROWS, &[(Labels::new(), &self.node)])?;
        let log = lock(&self.log).as_ref().map(|log| log.status());
        let log: Vec<_> = log.iter().map(|status| (Labels::new(), status)).collect();
        encode_rows(&mut encoder, LOG_ROWS, &log)?;
        let (disk, backing) = lock(&self.kept).clone().unzip();
        let backing: Vec<_> = backing.iter().map(|set| (Labels::new(), set.as_ref())).collect();
        encode_rows(&mut encoder, CHECKPOINT_ROWS, &backing)?;
        let disk = disk.map_or_else(Vec::new, |disk| disk.all());
        let disk = disk.into_iter().map(|(name, used)| (vec![("tenant", name.to_string())], used));
        encode_rows(&mut encoder, TENANT_ROWS, &borrowed(&disk.collect::<Vec<_>>()))?;
        let workers: Vec<_> = lock(&self.workers)
            .iter()
            .filter_map(|(number, set)| {
                Some((vec![("worker", number.to_string())], set.upgrade()?))
            })
            .collect();
        encode_rows(&mut encoder, WORKER_ROWS, &borrowed(&workers))?;
        let processes: Vec<(Labels, Arc<ProcessMetrics>)> = lock(&self.processes)
            .iter()
            .filter_map(|(tenant, set)| {
                Some((vec![("tenant", tenant.to_string())], set.upgrade()?))
            })
            .collect();
        let seen = |(labels, set)| (labels, Arc::new(Seen::new(set)));
        let processes: Vec<(Labels, Arc<Seen>)> = processes.into_iter().map(seen).collect();
        encode_rows(&mut encoder, PROCESS_ROWS, &borrowed(&processes))?;
        encode_gpu(&mut encoder, &self.gpus)?;
        let traces = lock(&self.traces).clone();
        let traces: Vec<_> = traces.iter().map(|set| (Labels::new(), set.as_ref())).collect();
        encode_rows(&mut encoder, TRACE_ROWS, &traces)?;
        let peers: Vec<(Labels, Arc<PeerMetrics>)> = lock(&self.peers)
            .iter()
            .filter_map(|(node, set)| Some((vec![("peer", node.to_string())], set.upgrade()?)))
            .collect();
        encode_rows(&mut encoder, PEER_ROWS, &borrowed(&peers))?;
        let ways = |(labels, set): &(Labels, Arc<PeerMetrics>)| {
            let (labels, links) = (labels.clone(), set.links.clone());
            let way = move |(way, link): (&str, Arc<LinkMetrics>)| {
                let own = [("way", way.to_owned())];
                (labels.iter().cloned().chain(own).collect::<Labels>(), link)
            };
            WAYS.into_iter().zip(links).map(way).collect::<Vec<_>>()
        };
        let links: Vec<(Labels, Arc<LinkMetrics>)> = peers.iter().flat_map(ways).collect();
        encode_rows(&mut encoder, LINK_ROWS, &borrowed(&links))?;
        let pipelines: Vec<(Labels, Arc<PipelineMetrics>)> = lock(&self.pipelines)
            .values()
            .filter_map(|set| set.upgrade())
            .map(|set| (labels_of(&set, None), set))
            .collect();
        encode_rows(&mut encoder, PIPELINE_ROWS, &borrowed(&pipelines))?;
        let logged: Vec<(&Labels, Logged)> =
            pipelines.iter().filter_map(|(labels, set)| Some((labels, Logged::of(set)?))).collect();
        let logged: Vec<_> = logged.iter().map(|(labels, set)| ((*labels).clone(), set)).collect();
        encode_rows(&mut encoder, LOGGED_ROWS, &logged)?;
        let timed: Vec<(&Labels, Timed)> =
            pipelines.iter().filter_map(|(labels, set)| Some((labels, Timed::of(set)?))).collect();
        let timed: Vec<_> = timed.iter().map(|(labels, set)| ((*labels).clone(), set)).collect();
        encode_rows(&mut encoder, TIMED_ROWS, &timed)?;
        encode_parts(&mut encoder, &pipelines)
    }
}

/// What pipelines consist of: stages, what is between them, what comes in and what leaves.
fn encode_parts(
    encoder: &mut DescriptorEncoder<'_>,
    pipelines: &[(Labels, Arc<PipelineMetrics>)],
) -> fmt::Result {
    let (mut stages, mut outputs) = (Vec::new(), Vec::new());
    let (mut sources, mut sinks) = (Vec::new(), Vec::new());
    for (_, pipeline) in pipelines {
        let labels = |label, name: &String| labels_of(pipeline, Some((label, name)));
        let known = lock(&pipeline.stages);
        stages.extend(known.iter().map(|(n, set)| (labels("stage", n), Arc::clone(set))));
        let known = lock(&pipeline.outputs);
        outputs.extend(known.iter().map(|(n, set)| (labels("output", n), Arc::clone(set))));
        let known = lock(&pipeline.sources);
        sources.extend(known.iter().map(|(n, set)| (labels("source", n), Arc::clone(set))));
        let known = lock(&pipeline.sinks);
        sinks.extend(known.iter().map(|(n, set)| (labels("sink", n), Arc::clone(set))));
    }
    let hops: Vec<_> = pipelines.iter().flat_map(|(labels, set)| hops(labels, set)).collect();
    encode_rows(encoder, HOP_ROWS, &borrowed(&hops))?;
    let stages = borrowed(&stages);
    encode_rows(encoder, STAGE_ROWS, &stages)?;
    encode_guest(encoder, &stages)?;
    encode_rows(encoder, SOURCE_ROWS, &borrowed(&sources))?;
    encode_rows(encoder, SINK_ROWS, &borrowed(&sinks))?;
    encode_rows(encoder, OUTPUT_ROWS, &borrowed(&outputs))
}

/// The GPU, once somebody may use it.
fn encode_gpu(encoder: &mut DescriptorEncoder<'_>, gpus: &Mutex<Option<Arc<Gpus>>>) -> fmt::Result {
    let Some(gpus) = lock(gpus).clone() else { return Ok(()) };
    let (seen, tenants) = (gpus.seen(), gpus.tenants_seen());
    if seen == GpuSeen::default() && tenants.is_empty() {
        return Ok(());
    }
    encode_rows(encoder, GPU_ROWS, &[(Labels::new(), &seen)])?;
    let labels = |name: &Name| vec![("tenant", name.to_string())];
    let tenants: Vec<_> = tenants.iter().map(|(name, seen)| (labels(name), seen)).collect();
    encode_rows(encoder, GPU_TENANT_ROWS, &tenants)
}

/// The ways of a pipeline that something went.
fn hops(labels: &Labels, pipeline: &PipelineMetrics) -> Vec<(Labels, Arc<WayMetrics>)> {
    let way = |hop: &HopMetrics, way: HopWay| {
        let used = Some(hop.way(way)).filter(|set| set.runs.get() > 0)?;
        let own = [("from", hop.from.clone()), ("to", hop.to.clone()), ("way", way.word().into())];
        Some((labels.iter().cloned().chain(own).collect(), Arc::clone(used)))
    };
    let all = pipeline.hops();
    let ways = |hop: &Arc<HopMetrics>| HopWay::ALL.map(|one| way(hop, one));
    all.iter().flat_map(ways).flatten().collect()
}

fn labels_of(pipeline: &PipelineMetrics, further: Option<(&'static str, &String)>) -> Labels {
    let tenant = ("tenant", pipeline.tenant.to_string());
    let mut labels = vec![tenant, ("pipeline", pipeline.pipeline.to_string())];
    labels.extend(further.map(|(label, name)| (label, name.clone())));
    labels
}
