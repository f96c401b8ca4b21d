//! A tenant as a whole: what it may use, what it uses, and what its pipelines here have used.
//!
//! Of several nodes each tells what is there: quotas hold for a node, and a pipeline's figures are
//! where its home is. One answer has all that a list of pipelines shows of each, so that who looks
//! at many costs no more than who looks at one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::Name;
use sluicebox_core::quota::Resource;

use super::PipelineInfo;
use crate::mailbox::Mailbox;
use crate::node::Node;
use crate::running::Running;
use crate::tenants::Scopes;

/// A tenant on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TenantDetail {
    /// Its name.
    pub tenant: String,
    /// Its share of the workers beside other tenants' weights.
    pub weight: u8,
    /// What the token of the question allows.
    pub scopes: Vec<String>,
    /// Its quotas.
    pub quota: Vec<QuotaDetail>,
    /// What its pipelines have used.
    pub pipelines: Vec<TenantPipeline>,
}

/// A quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QuotaDetail {
    /// Its name, as in the tenants file.
    pub resource: String,
    /// The most there may be, or a second of a rate.
    pub limit: u64,
    /// How much is in use; not of rates, nor of what is counted only when it is asked for more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used: Option<u64>,
}

/// A pipeline, as far as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TenantPipeline {
    /// As in the list of pipelines.
    #[serde(flatten)]
    pub info: PipelineInfo,
    /// Since when `fuel`, `events` and `reruns` are counted: `applied`, in a pipeline with a log,
    /// or `start` of the node.
    pub since: String,
    /// Fuel that was charged.
    pub fuel: u64,
    /// Events its segments took.
    pub events: u64,
    /// Calls that were taken back; with `start` events that were run again.
    pub reruns: u64,
    /// Events accepted by ingest since the node started.
    pub ingest_events: u64,
    /// Bytes of the bodies they came in.
    pub ingest_bytes: u64,
    /// Events that left by outputs.
    pub output_events: u64,
    /// Dead letters since the node started.
    pub dead_letters: u64,
    /// Events that wait.
    pub inbox_events: u64,
    /// Bytes of state in memory.
    pub state_bytes: u64,
    /// Instances alive.
    pub instances: u64,
    /// How far the watermark is behind the clock, where there is event time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lag_ms: Option<u64>,
    /// Bytes on disk, in a pipeline with a log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub disk_bytes: Option<u64>,
}

impl Node {
    /// A tenant on this node, for one whose token has these scopes.
    #[must_use]
    pub fn describe_tenant(&self, tenant: &Name, scopes: Scopes) -> TenantDetail {
        let running = self.running_of(tenant);
        let weight = self.tenants().current().tenant(tenant).map_or(1, |known| known.weight);
        TenantDetail {
            tenant: tenant.to_string(),
            weight,
            scopes: scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            quota: self.quota_details(tenant, running.len()),
            pipelines: running.iter().map(|running| self.of_tenant(running)).collect(),
        }
    }

    fn quota_details(&self, tenant: &Name, pipelines: usize) -> Vec<QuotaDetail> {
        let allowance = self.allowance(tenant);
        let tenancy = self.tenancy(tenant);
        let account = self.admission().account(tenant, &self.tenants().current());
        let used = |resource| match resource {
            Resource::Events | Resource::Bytes | Resource::Components => None,
            Resource::Memory => Some(tenancy.slots().memory.used()),
            Resource::State => Some(tenancy.state_bytes().used() as u64),
            Resource::Disk => Some(tenancy.disk_bytes().used() as u64),
            Resource::Pipelines => Some(pipelines as u64),
            Resource::Streams => Some(tenancy.streams().used() as u64),
            Resource::Connections => Some(account.lent(resource)),
        };
        let detail = |resource: Resource| QuotaDetail {
            resource: resource.as_str().to_owned(),
            limit: allowance.limit(resource),
            used: used(resource),
        };
        Resource::ALL.into_iter().map(detail).collect()
    }

    fn of_tenant(&self, running: &Running) -> TenantPipeline {
        let metrics = running.metrics();
        let stages =
            || running.pipeline().stages.iter().map(move |stage| metrics.stage(&stage.name));
        let mailboxes = || running.mailboxes().iter().flatten();
        let (mut fuel, mut events, mut reruns) = (0, 0, 0);
        for usage in super::usage_details(running) {
            fuel += usage.fuel;
            events += usage.events;
            reruns += usage.reruns;
        }
        let durable = running.durable();
        if durable.is_none() {
            fuel = stages().map(|stage| stage.fuel.get()).sum();
            events = mailboxes().map(|mailbox| mailbox.load.events().1).sum();
            reruns = stages().map(|stage| stage.taken_back.get()).sum();
        }
        TenantPipeline {
            info: self.info(running),
            since: if durable.is_some() { "applied" } else { "start" }.to_owned(),
            fuel,
            events,
            reruns,
            ingest_events: metrics.events.get(),
            ingest_bytes: metrics.bytes.get(),
            output_events: running.outputs().map(|(_, ring)| ring.stats().appended).sum(),
            dead_letters: stages().map(|stage| stage.dead_letters.get()).sum(),
            inbox_events: mailboxes().map(|mailbox| mailbox.queued_events()).sum(),
            state_bytes: state_bytes(running),
            instances: stages().map(|stage| stage.instances.get()).sum(),
            lag_ms: running.event_time().and_then(|time| {
                let watermark = time.watermark(&running.shared().sites);
                super::time_detail(time, watermark).lag_ms
            }),
            disk_bytes: durable.map(|durable| self.disk().of_pipeline(durable.id)),
        }
    }
}

fn state_bytes(running: &Running) -> u64 {
    let bytes = |mailbox: &Arc<Mailbox>| mailbox.state_bytes.load(Ordering::Relaxed) as u64;
    running.mailboxes().iter().flatten().map(bytes).sum()
}
