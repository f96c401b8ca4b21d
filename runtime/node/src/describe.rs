//! What runs, for the people who look: lists of pipelines, and one in detail.
//!
//! Figures are read as they are at the moment; they need not fit together to the last event.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sluicebox_core::codec::Usage;
use sluicebox_core::ids::{Name, StageId};

use crate::error::Error;
use crate::node::Node;
use crate::running::Running;
use crate::running::event_time::{EventTime, now_micros};

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
    /// The outputs, dead letters last.
    pub output: Vec<OutputDetail>,
    /// Its event time, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<TimeDetail>,
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
    /// Bytes of state it holds.
    pub state_bytes: usize,
    /// Streams open in it.
    pub open_streams: usize,
    /// Those of them that go on with code of an earlier version.
    #[serde(default)]
    pub earlier_code_streams: usize,
    /// Why it has stopped, if it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub halted: Option<String>,
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
        self.running_of(tenant).iter().map(|running| info(running)).collect()
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
            .ok_or_else(|| Error::not_found("pipeline", name.as_str()))?;
        let keys = self.version_keys(tenant, name).await?;
        let manifest = running.pipeline().declaration().write().to_json();
        let manifest = serde_json::from_str(&manifest)
            .map_err(|error| Error::Internal(format!("manifest as JSON: {error}")))?;
        let stage_name = |stage: &usize| running.pipeline().stages[*stage].name.clone();
        let segments = running.plan().segments.iter();
        Ok(PipelineDetail {
            info: info(&running),
            manifest,
            versions: keys.iter().filter_map(|key| key.last().parse().ok()).collect(),
            stage: running.pipeline().stages.iter().map(|s| stage_detail(&running, s)).collect(),
            segments: segments.map(|s| s.stages.iter().map(stage_name).collect()).collect(),
            partition: self.partition_details(&running),
            output: output_details(&running),
            time: running.event_time().map(time_detail),
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

    fn partition_details(&self, running: &Running) -> Vec<PartitionDetail> {
        let detail = |mailbox: &Arc<crate::mailbox::Mailbox>| PartitionDetail {
            segment: mailbox.segment.root_name().to_owned(),
            partition: mailbox.partition,
            worker: self
                .workers()
                .iter()
                .position(|worker| Arc::ptr_eq(worker, &mailbox.owner))
                .unwrap_or_default(),
            inbox_bytes: mailbox.bytes(),
            state_bytes: mailbox.state_bytes.load(Ordering::Relaxed),
            open_streams: mailbox.open_streams.load(Ordering::Relaxed),
            earlier_code_streams: mailbox.streams_of_before.load(Ordering::Relaxed),
            halted: mailbox.halted().map(|halt| format!("{}: {}", halt.stage, halt.message)),
        };
        running.mailboxes().iter().flatten().map(detail).collect()
    }
}

fn info(running: &Running) -> PipelineInfo {
    let halted = running.mailboxes().iter().flatten().any(|mailbox| mailbox.halted().is_some());
    let state = match (halted, running.is_paused()) {
        (true, _) => "halted",
        (false, true) => "draining",
        (false, false) => "running",
    };
    PipelineInfo {
        name: running.name().to_string(),
        version: running.version(),
        delivery: running.pipeline().delivery.word().to_owned(),
        stages: running.pipeline().stages.len(),
        state: state.to_owned(),
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
    }
}

fn time_detail(time: &EventTime) -> TimeDetail {
    let (watermark, high) = (time.watermark(), time.high());
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
