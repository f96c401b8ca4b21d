//! What runs, for the people who look: lists of pipelines, and one in detail.
//!
//! Figures are read as they are at the moment; they need not fit together to the last event.
//! Partitions are described in `partitions`, what came in and how long things took in `traffic`, a
//! tenant as a whole in `tenant`.

mod bill;
mod connectors;
mod partitions;
mod tenant;
mod traffic;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluicebox_core::codec::Usage;
use sluicebox_core::ids::{Name, StageId};

use crate::cluster::Peer;
use crate::error::Error;
use crate::metrics::{HopMetrics, HopWay};
use crate::node::Node;
use crate::running::Running;
use crate::running::event_time::{EventTime, now_micros};
use crate::scale::ScalingDetail;
pub use bill::{BillDetail, BillRow};
pub use connectors::ConnectorDetail;
pub use tenant::{QuotaDetail, TenantDetail, TenantPipeline};
pub use traffic::{IngestDetail, TimeTaken};

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PipelineInfo {
    /// Its name.
    pub name: String,
    /// The version that runs.
    pub version: u32,
    /// What is promised about its events.
    pub delivery: String,
    /// Number of stages.
    pub stages: usize,
    /// `running`, `halted` or `draining`.
    pub state: String,
    /// The node it lives on, if there are several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
}

/// One node of a cluster, as another sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeInfo {
    /// Its name; empty for a node that is alone.
    pub name: String,
    /// Where other nodes reach it; where it listens, for the one that says so.
    pub address: String,
    /// The machine it is on, if it is configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// `here`, `up` or `unreachable`.
    pub state: String,
    /// For how long it has been so.
    pub seconds: u64,
    /// Why it is unreachable, or what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// Pipelines that live there, as it said last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pipelines: Option<usize>,
    /// Time of the last question and its answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub round_trip_micros: Option<u64>,
}

/// One pipeline in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PipelineDetail {
    /// As in the list.
    #[serde(flatten)]
    pub info: PipelineInfo,
    /// The manifest, every default spelled out.
    pub manifest: serde_json::Value,
    /// Versions that are kept, oldest first.
    pub versions: Vec<u32>,
    /// The stages.
    pub stage: Vec<StageDetail>,
    /// How the stages are cut into segments, each by the names of its stages, the root first.
    pub segments: Vec<Vec<String>>,
    /// The partitions of all segments.
    pub partition: Vec<PartitionDetail>,
    /// What came in.
    #[serde(default)]
    pub ingest: IngestDetail,
    /// What went from one segment to the next, by the way it went.
    #[serde(default)]
    pub hop: Vec<HopDetail>,
    /// The outputs, dead letters last.
    pub output: Vec<OutputDetail>,
    /// What it takes in by itself.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub source: Vec<ConnectorDetail>,
    /// Where it hands results on to by itself.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sink: Vec<ConnectorDetail>,
    /// Its event time, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<TimeDetail>,
    /// How it scales, if its manifest lets it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scaling: Option<ScalingDetail>,
    /// What it keeps on disk, if it has a log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk: Option<DiskDetail>,
    /// What commits used since the pipeline was first applied, in one with a log.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub usage: Vec<UsageDetail>,
}

/// What a pipeline keeps on disk, as of the last checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskDetail {
    /// Bytes of its state, outputs, dead letters, events that wait and known ids.
    pub bytes: u64,
    /// The same of all pipelines of its tenant.
    pub tenant_bytes: u64,
    /// The tenant's quota.
    pub quota_bytes: u64,
}

/// Event time, in a pipeline that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimeDetail {
    /// The least watermark of all partitions, microseconds since 1970; 0 if it is not known.
    pub watermark: u64,
    /// The highest event time that came in.
    pub high: u64,
    /// How far the watermark is behind the clock.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lag_ms: Option<u64>,
}

/// What the commits of a segment used. It outlives the node, and counts what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct UsageDetail {
    /// Root stage of the segment; `-` if it is gone.
    pub segment: String,
    /// Fuel, that of calls that were taken back included.
    pub fuel: u64,
    /// Events taken.
    pub events: u64,
    /// Calls that were taken back.
    pub reruns: u64,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageDetail {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub component: String,
    /// Whom an instance serves.
    pub scope: String,
    /// Live instances.
    pub instances: u64,
    /// Events given to it; a repeated one counts again.
    pub events_in: u64,
    /// Events it emitted.
    pub events_out: u64,
    /// Calls made.
    pub calls: u64,
    /// Events it reported as failed.
    pub failures: u64,
    /// Calls that trapped.
    pub traps: u64,
    /// Events given up on.
    pub dead_letters: u64,
    /// Keys that are parked.
    #[serde(default)]
    pub parked_keys: u64,
    /// Events of those keys.
    #[serde(default)]
    pub parked_events: u64,
    /// Timers that wait.
    #[serde(default)]
    pub timers: u64,
    /// Events that came behind the watermark.
    #[serde(default)]
    pub late_events: u64,
    /// Fuel charged.
    pub fuel: u64,
    /// Time its calls took, waits in them included.
    #[serde(default)]
    pub call: Vec<TimeTaken>,
}

/// One partition of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PartitionDetail {
    /// Root stage of its segment.
    pub segment: String,
    /// Its number.
    pub partition: u16,
    /// The worker that runs it.
    pub worker: usize,
    /// Bytes queued for it.
    pub inbox_bytes: usize,
    /// Events queued for it.
    #[serde(default)]
    pub inbox_events: u64,
    /// Bytes of state it holds.
    pub state_bytes: usize,
    /// Streams open in it.
    pub open_streams: usize,
    /// Those of them that go on with code of an earlier version.
    #[serde(default)]
    pub earlier_code_streams: usize,
    /// Its watermark, microseconds since 1970, in a pipeline with event time; 0 if it is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub watermark: Option<u64>,
    /// Why it has stopped, if it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub halted: Option<String>,
    /// The node that has it, if that is not the pipeline's home.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// How what is for it gets there: `ring` through memory that both nodes share, `network`
    /// between machines; left out while there is no link.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub way: Option<String>,
    /// Why nothing is known of it now: the node that has it does not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unavailable: Option<String>,
}

/// A way between two stages that something went, as the node sees it that sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HopDetail {
    /// The stage it comes from.
    pub from: String,
    /// The stage it goes to.
    pub to: String,
    /// `call` in a segment; else `worker`, `node`, `ring` or `network`.
    pub way: String,
    /// Runs that went it; in a segment, calls.
    pub runs: u64,
    /// Their events.
    #[serde(default)]
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Mean time from handing a run over until it was taken; of another node, until it is on its
    /// disk; in a segment, from call to call.
    pub mean_micros: u64,
    /// The same, by how many took how long.
    #[serde(default)]
    pub waited: Vec<TimeTaken>,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OutputDetail {
    /// Its name.
    pub name: String,
    /// Events that left by it.
    pub events: u64,
    /// Events dropped to make room.
    pub dropped: u64,
    /// Bytes kept for readers.
    pub bytes: usize,
}

impl Node {
    /// A tenant's pipelines, by name.
    pub async fn pipelines(self: &Arc<Self>, tenant: &Name) -> Vec<PipelineInfo> {
        self.running_of(tenant).iter().map(|running| self.info(running)).collect()
    }

    /// The nodes of the cluster as this one sees them, this one first.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let cluster = self.cluster();
        let own = NodeInfo {
            name: cluster.map_or_else(String::new, |cluster| cluster.name().to_string()),
            address: match cluster {
                Some(_) => self.config().cluster.listen.to_string(),
                None => self.config().http.listen.to_string(),
            },
            host: self.config().cluster.host.as_ref().map(ToString::to_string),
            state: "here".to_owned(),
            seconds: self.age().as_secs(),
            why: self.not_ready().map(str::to_owned),
            pipelines: Some(self.all_running().len()),
            round_trip_micros: None,
        };
        let other = |peer: &Arc<Peer>| {
            let look = peer.look();
            NodeInfo {
                name: peer.name().to_string(),
                address: peer.address().to_owned(),
                host: look.host.map(|host| host.to_string()),
                state: if look.is_up { "up" } else { "unreachable" }.to_owned(),
                seconds: look.since.elapsed().as_secs(),
                why: look.why,
                pipelines: look.pipelines,
                round_trip_micros: look.is_up.then(|| peer.metrics.round_trip_micros.get()),
            }
        };
        let others = cluster.into_iter().flat_map(|cluster| cluster.peers()).map(other);
        std::iter::once(own).chain(others).collect()
    }

    fn info(&self, running: &Running) -> PipelineInfo {
        let node = self.cluster().map(|cluster| cluster.name().to_string());
        PipelineInfo { node, ..info(running) }
    }

    /// One pipeline in detail.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn describe(
        self: &Arc<Self>,
        tenant: &Name,
        name: &Name,
    ) -> Result<PipelineDetail, Error> {
        let running = self
            .running(tenant, name.as_str())
            .ok_or_else(|| self.no_pipeline(tenant, name.as_str()))?;
        let keys = self.version_keys(tenant, name).await?;
        let manifest = running.pipeline().declaration().write().to_json();
        let manifest = serde_json::from_str(&manifest)
            .map_err(|error| Error::Internal(format!("manifest as JSON: {error}")))?;
        let stage_name = |stage: &usize| running.pipeline().stages[*stage].name.clone();
        let segments = running.plan().segments.iter();
        let partition = self.all_partitions(&running).await;
        let least = partition.iter().map(|at| at.watermark.unwrap_or(0)).min().unwrap_or(0);
        let mut info = self.info(&running);
        if partition.iter().any(|partition| partition.halted.is_some()) {
            // One that is on another node, which the list does not ask.
            HALTED.clone_into(&mut info.state);
        }
        Ok(PipelineDetail {
            info,
            manifest,
            versions: keys.iter().filter_map(|key| key.last().parse().ok()).collect(),
            stage: running.pipeline().stages.iter().map(|s| stage_detail(&running, s)).collect(),
            segments: segments.map(|s| s.stages.iter().map(stage_name).collect()).collect(),
            partition,
            ingest: IngestDetail::of(running.metrics()),
            hop: hop_details(&running),
            output: output_details(&running),
            source: connectors::sources(&running),
            sink: connectors::sinks(&running),
            time: running.event_time().map(|time| time_detail(time, least)),
            scaling: self.scaling_detail(&running),
            disk: self.disk_detail(&running),
            usage: usage_details(&running),
        })
    }

    fn disk_detail(&self, running: &Running) -> Option<DiskDetail> {
        let durable = running.durable()?;
        let tenant = self.disk().of(running.tenant());
        Some(DiskDetail {
            bytes: self.disk().of_pipeline(durable.id),
            tenant_bytes: tenant.used() as u64,
            quota_bytes: tenant.most() as u64,
        })
    }
}

/// What a pipeline is of which a partition has halted.
const HALTED: &str = "halted";

fn info(running: &Running) -> PipelineInfo {
    let halted = running.mailboxes().iter().flatten().any(|mailbox| mailbox.halted().is_some());
    let state = match (halted, running.is_paused()) {
        (true, _) => HALTED,
        (false, true) => "draining",
        (false, false) => "running",
    };
    PipelineInfo {
        name: running.name().to_string(),
        version: running.version(),
        delivery: running.pipeline().delivery.word().to_owned(),
        stages: running.pipeline().stages.len(),
        state: state.to_owned(),
        node: None,
    }
}

fn stage_detail(running: &Running, stage: &sluicebox_core::pipeline::Stage) -> StageDetail {
    let metrics = running.metrics().stage(&stage.name);
    StageDetail {
        name: stage.name.clone(),
        component: stage.component.to_string(),
        scope: stage.scope.word().to_owned(),
        instances: metrics.instances.get(),
        events_in: metrics.events_in.get(),
        events_out: metrics.events_out.get(),
        calls: metrics.calls.get(),
        failures: metrics.failures.get(),
        traps: metrics.traps.get().iter().map(|(_, count)| count).sum(),
        dead_letters: metrics.dead_letters.get(),
        parked_keys: metrics.parked_keys.get(),
        parked_events: metrics.parked_events.get(),
        timers: metrics.timers.get(),
        late_events: metrics.late_events.get(),
        fuel: metrics.fuel.get(),
        call: TimeTaken::all(&metrics.call_latency),
    }
}

fn time_detail(time: &EventTime, watermark: u64) -> TimeDetail {
    let high = time.high();
    let lag = (watermark > 0).then(|| now_micros().saturating_sub(watermark) / 1000);
    TimeDetail { watermark, high, lag_ms: lag }
}

fn usage_details(running: &Running) -> Vec<UsageDetail> {
    let Some(durable) = running.durable() else { return Vec::new() };
    let stages = durable.numbering().names.stages;
    let detail = |(root, usage): (StageId, Usage)| {
        let name = stages.iter().find(|(known, _)| *known == root);
        let segment = name.map_or_else(|| "-".to_owned(), |(_, name)| name.to_string());
        let Usage { fuel, events, reruns } = usage;
        UsageDetail { segment, fuel, events, reruns }
    };
    durable.usage().into_iter().map(detail).collect()
}

fn hop_details(running: &Running) -> Vec<HopDetail> {
    let detail = |(hop, way): (&HopMetrics, HopWay)| {
        let figures = hop.way(way);
        let runs = Some(figures.runs.get()).filter(|runs| *runs > 0)?;
        let (from, to) = (hop.from.clone(), hop.to.clone());
        Some(HopDetail {
            from,
            to,
            way: way.word().to_owned(),
            runs,
            events: figures.events.get(),
            bytes: figures.bytes.get(),
            mean_micros: figures.mean_micros(),
            waited: TimeTaken::all(&figures.latency),
        })
    };
    let hops = running.metrics().hops();
    let ways = hops.iter().flat_map(|hop| HopWay::ALL.map(|way| (hop.as_ref(), way)));
    ways.filter_map(detail).collect()
}

fn output_details(running: &Running) -> Vec<OutputDetail> {
    let dead = std::iter::once((crate::deploy::DEAD_LETTERS, &running.dead_letters().ring));
    let detail = |(name, ring): (&str, &Arc<crate::ring::Output>)| {
        let stats = ring.stats();
        OutputDetail {
            name: name.to_owned(),
            events: stats.appended,
            dropped: stats.dropped,
            bytes: stats.bytes,
        }
    };
    running.outputs().chain(dead).map(detail).collect()
}
