//! From a declaration back to a value tree, with every default spelled out.
//!
//! Reading the tree gives the same declaration. A setting that has no meaning with the stage's
//! scope is left out, because the reader would refuse it.

mod connect;

use std::collections::BTreeMap;

use super::value::{Table, Value};
use super::words::{duration_text, size_text};
use super::{Declaration, EdgeDeclaration, OutputDeclaration, bounds};
use crate::pipeline::{
    EdgeKey, EventTime, GpuGrant, Grants, OnFailure, ParkLimits, Scaling, Scope, Stage,
    StageLimits, StreamLimits,
};

impl Declaration {
    /// The manifest this declaration would be read from.
    #[must_use]
    pub fn write(&self) -> Value {
        let mut ingest = members([("to", list(&self.ingest.to))]);
        if let Some(key) = &self.ingest.key {
            ingest.insert("key".to_owned(), text(key));
        }
        if let Some(time) = &self.ingest.time {
            ingest.insert("time".to_owned(), text(time));
            ingest.insert("time-unit".to_owned(), Value::from(self.ingest.time_unit.word()));
        }
        let mut manifest = members([
            ("version", Value::Integer(bounds::VERSION)),
            ("name", text(&self.name)),
            ("delivery", Value::from(self.delivery.word())),
            ("ingest", Value::Table(ingest)),
            ("stages", map(&self.stages, stage)),
            ("edges", Value::Array(self.edges.iter().map(edge).collect())),
            ("outputs", map(&self.outputs, output)),
        ]);
        if !self.sources.is_empty() {
            manifest.insert("sources".to_owned(), map(&self.sources, connect::source));
        }
        if !self.sinks.is_empty() {
            manifest.insert("sinks".to_owned(), map(&self.sinks, connect::sink));
        }
        if let Some(partitions) = self.partitions {
            manifest.insert("partitions".to_owned(), Value::Integer(partitions.into()));
        }
        if let Some(scale) = &self.scaling {
            manifest.insert("scaling".to_owned(), scaling(scale));
        }
        if let Some(event_time) = &self.time {
            manifest.insert("time".to_owned(), time(event_time));
        }
        Value::Table(manifest)
    }
}

fn scaling(scaling: &Scaling) -> Value {
    let mut table = members([
        ("min", Value::Integer(scaling.min.into())),
        ("quiet", text(&duration_text(scaling.quiet_ms))),
    ]);
    if let Some(max) = scaling.max {
        table.insert("max".to_owned(), Value::Integer(max.into()));
    }
    if let Some(apart) = &scaling.apart {
        table.insert("apart".to_owned(), text(apart));
    }
    Value::Table(table)
}

fn time(time: &EventTime) -> Value {
    let mut table = members([("lateness", text(&duration_text(time.lateness_ms)))]);
    if let Some(idle_after) = time.idle_after_ms {
        table.insert("idle-after".to_owned(), text(&duration_text(idle_after)));
    }
    Value::Table(table)
}

fn stage(stage: &Stage) -> Value {
    let mut table = members([
        ("component", text(&stage.component)),
        ("scope", Value::from(stage.scope.word())),
        ("ports", list(&stage.ports)),
        ("inputs", list(&stage.inputs)),
        ("config", map(&stage.config, text)),
        ("assets", map(&stage.assets, text)),
        ("limits", limits(&stage.limits, stage.scope)),
        ("on-failure", Value::from(stage.on_failure.word())),
        ("retries", Value::Integer(stage.retries.into())),
        ("grants", grants(&stage.grants)),
    ]);
    if let Some(from) = &stage.from {
        table.insert("from".to_owned(), text(from));
    }
    if let Some(ttl) = stage.state_ttl_ms {
        table.insert("state-ttl".to_owned(), text(&duration_text(ttl)));
    }
    if stage.scope == Scope::Stream {
        table.insert("stream".to_owned(), stream(&stage.stream));
    }
    if stage.on_failure == OnFailure::Park {
        table.insert("park".to_owned(), park(&stage.park));
    }
    Value::Table(table)
}

fn grants(grants: &Grants) -> Value {
    let mut table = Table::new();
    if let Some(GpuGrant { weight, deadline_ms }) = &grants.gpu {
        let gpu = members([
            ("weight", Value::Integer((*weight).into())),
            ("deadline", text(&duration_text(*deadline_ms))),
        ]);
        table.insert("gpu".to_owned(), Value::Table(gpu));
    }
    if !grants.buckets.is_empty() {
        let keyvalue = members([("buckets", list(&grants.buckets))]);
        table.insert("keyvalue".to_owned(), Value::Table(keyvalue));
    }
    if let Some(grant) = &grants.http {
        let http = members([
            ("allow", list(&grant.allow)),
            ("in-flight", Value::Integer(grant.in_flight.into())),
            ("deadline", text(&duration_text(grant.deadline_ms))),
            ("request-bytes", size(grant.request_bytes)),
            ("response-bytes", size(grant.response_bytes)),
        ]);
        table.insert("http".to_owned(), Value::Table(http));
    }
    Value::Table(table)
}

fn limits(limits: &StageLimits, scope: Scope) -> Value {
    let mut table = members([
        ("memory", size(limits.memory)),
        ("fuel-per-event", number(limits.fuel_per_event)),
        ("emit-bytes", size(limits.emit_bytes)),
        ("event-bytes", size(limits.event_bytes)),
        ("log-lines", Value::Integer(limits.log_lines.into())),
        ("state-bytes", size(limits.state_bytes)),
    ]);
    if scope != Scope::Shared {
        table.insert("instances".to_owned(), Value::Integer(limits.instances.into()));
    }
    Value::Table(table)
}

fn stream(stream: &StreamLimits) -> Value {
    Value::Table(members([
        ("idle-timeout", text(&duration_text(stream.idle_timeout_ms))),
        ("events-max", number(stream.events_max)),
        ("bytes-max", size(stream.bytes_max)),
        ("duration-max", text(&duration_text(stream.duration_max_ms))),
        ("replay-bytes-max", size(stream.replay_bytes_max)),
        ("on-update", Value::from(stream.on_update.word())),
    ]))
}

fn park(park: &ParkLimits) -> Value {
    Value::Table(members([
        ("attempts", Value::Integer(park.attempts.into())),
        ("pause", text(&duration_text(park.pause_ms))),
        ("pause-max", text(&duration_text(park.pause_max_ms))),
        ("age-max", text(&duration_text(park.age_max_ms))),
        ("events-max", number(park.events_max)),
        ("bytes-max", size(park.bytes_max)),
    ]))
}

fn edge(edge: &EdgeDeclaration) -> Value {
    Value::Table(members([
        ("from", text(&edge.from)),
        ("to", text(&edge.to)),
        ("key", edge_key(&edge.key)),
    ]))
}

fn output(output: &OutputDeclaration) -> Value {
    Value::Table(members([
        ("from", text(&output.from)),
        ("key", edge_key(&output.key)),
        ("retain-bytes", size(output.retain_bytes)),
    ]))
}

fn edge_key(key: &EdgeKey) -> Value {
    match key {
        EdgeKey::Cause => Value::from("cause"),
        EdgeKey::Emitted => Value::from("emitted"),
        EdgeKey::Json(pointer) => Value::Table(members([("json", text(pointer))])),
    }
}

fn members<const N: usize>(members: [(&str, Value); N]) -> Table {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn map<T>(entries: &BTreeMap<String, T>, value: impl Fn(&T) -> Value) -> Value {
    Value::Table(entries.iter().map(|(name, entry)| (name.clone(), value(entry))).collect())
}

fn list<T: ToString>(items: &[T]) -> Value {
    Value::Array(items.iter().map(|item| text(item)).collect())
}

fn text(value: &impl ToString) -> Value {
    Value::String(value.to_string())
}

fn size(bytes: u64) -> Value {
    Value::String(size_text(bytes))
}

/// Every number that is written so is below 2^63; one that is not is refused when it is read.
fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
