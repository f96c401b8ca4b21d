//! What is told of the GPU: to a tenant what it has and has used, to operators all of it in
//! figures.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluicebox_core::bill::Item;
use sluicebox_core::ids::Name;
use sluicebox_gpu::device::Kind;
use sluicebox_gpu::wire::{StageFigures, Terms, Used};

use super::{Gpus, NO_GPU, Phase};
use crate::mailbox::lock;
use crate::metrics::{GpuSeen, GpuTenantSeen};

/// What is billed of a GPU, in this order everywhere.
pub(crate) const GPU_ITEMS: [Item; 3] = [Item::Gpu, Item::GpuCopy, Item::GpuMemory];

/// What a tenant has used, of each of [`GPU_ITEMS`].
#[derive(Debug)]
pub(crate) struct GpuUsed {
    pub(crate) tenant: Name,
    /// By its number, pipeline, stage, and what that used. A stage that is loaded again has another
    /// number, and what it had before goes on beside it for a while.
    pub(crate) stages: Vec<(u32, String, String, [u64; 3])>,
    /// All of the tenant's.
    pub(crate) all: [u64; 3],
}

impl Gpus {
    /// What a tenant may know: the device, its share, and what it has used.
    pub(crate) fn report(&self, tenant: &Name, terms: Terms) -> Value {
        let phase = self.status.phase();
        let mut report = Map::new();
        let state = if self.is_on() { phase.as_str() } else { "off" };
        report.insert("state".to_owned(), state.into());
        let off = || (!self.is_on()).then(|| NO_GPU.to_owned());
        let why = self.status.why().map(|why| why.to_string()).or_else(off);
        if let Some(why) = why {
            report.insert("why".to_owned(), why.into());
        }
        if let Phase::Up(up) = &phase {
            let device = json!({
                "name": up.info.name,
                "driver": up.info.driver,
                "kind": kind(up.info.kind),
                "memory-bytes": up.info.memory_bytes,
                "generation": up.generation,
            });
            report.insert("device".to_owned(), device);
        }
        report.insert("process".to_owned(), self.process(&phase).into());
        let share = json!({
            "share": terms.weight / super::MILLIONTHS,
            "share-max": terms.cap.map_or(1_000, |cap| cap / super::MILLIONTHS),
            "memory-bytes": terms.guaranteed_bytes,
            "memory-bytes-lent": terms.borrowable_bytes,
        });
        report.insert("share".to_owned(), share);
        self.add_used(tenant, &mut report);
        Value::Object(report)
    }

    /// The process: how it fares, and what holds it in while it is there.
    fn process(&self, phase: &Phase) -> Map<String, Value> {
        let counts = self.status.counts();
        let numbers = [
            ("starts", counts.starts),
            ("failures", counts.failures),
            ("start-micros", counts.start_micros),
        ];
        let mut process: Map<String, Value> =
            numbers.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect();
        if let Phase::Up(up) = phase {
            let (held, not): (Vec<_>, Vec<_>) =
                up.measures.iter().partition(|measure| measure.is_in_place);
            let held = held.into_iter().map(|measure| measure.name.clone().into()).collect();
            let not = not.into_iter().map(|it| (it.name.clone(), it.text.clone().into())).collect();
            process.insert("held-in-by".to_owned(), Value::Array(held));
            process.insert("not-held-in-by".to_owned(), Value::Object(not));
        }
        process
    }

    fn add_used(&self, tenant: &Name, report: &mut Map<String, Value>) {
        let registry = lock(&self.registry);
        let known = registry.tenants.get(tenant);
        let figures = known.map(|known| self.status.tenant(known.number)).unwrap_or_default();
        let mut used = used(&figures.used);
        used.extend(memory(figures.held_bytes, figures.memory_byte_seconds));
        used.insert("kept-bytes".to_owned(), figures.kept_bytes.into());
        used.insert("evictions".to_owned(), figures.evictions.into());
        used.insert("recalls".to_owned(), figures.recalls.into());
        used.insert("handles".to_owned(), figures.handles.into());
        report.insert("used".to_owned(), Value::Object(used));
        let by_stage = figures.stages.into_iter().map(|stage| (stage.stage, stage));
        let by_stage: BTreeMap<u32, StageFigures> = by_stage.collect();
        let stages = known.into_iter().flat_map(|known| &known.stages).map(|(number, stage)| {
            let mut row = Map::new();
            row.insert("pipeline".to_owned(), stage.pipeline.clone().into());
            row.insert("stage".to_owned(), stage.name.clone().into());
            row.insert("weight".to_owned(), stage.weight.into());
            let figures = by_stage.get(number).copied().unwrap_or_default();
            row.extend(self::used(&figures.used));
            row.extend(memory(figures.held_bytes, figures.memory_byte_seconds));
            Value::Object(row)
        });
        report.insert("stages".to_owned(), stages.collect());
    }

    /// The process and its device, in figures.
    pub(crate) fn seen(&self) -> GpuSeen {
        let (phase, counts) = (self.status.phase(), self.status.counts());
        let memory_bytes = match &phase {
            Phase::Up(up) => up.info.memory_bytes.min(self.config.memory_bytes_max as u64),
            _ => 0,
        };
        let measures_absent = match &phase {
            Phase::Up(up) => up.measures.iter().filter(|measure| !measure.is_in_place).count(),
            _ => 0,
        };
        GpuSeen {
            measures_absent: measures_absent as u64,
            up: u64::from(matches!(phase, Phase::Up(_))),
            starts: counts.starts,
            failures: counts.failures,
            hangs: counts.hangs,
            start_micros: counts.start_micros,
            busy_micros: counts.busy_nanos / 1_000,
            memory_bytes,
            sessions: self.line.sessions().count() as u64,
        }
    }

    /// What tenants have used since the node began, for their bills; of a stage since the process
    /// with the device did.
    pub(crate) fn billed(&self) -> Vec<GpuUsed> {
        let registry = lock(&self.registry);
        let of = |used: &Used, byte_seconds: u64| {
            // In KiB milliseconds.
            let memory = u128::from(byte_seconds) * 1000 / 1024;
            [used.device_nanos, used.copy_nanos, u64::try_from(memory).unwrap_or(u64::MAX)]
        };
        let tenants = registry.tenants.iter().map(|(name, known)| {
            let figures = self.status.tenant(known.number);
            let stages = figures.stages.iter().filter_map(|figures| {
                let stage = known.stages.get(&figures.stage)?;
                let used = of(&figures.used, figures.memory_byte_seconds);
                Some((figures.stage, stage.pipeline.clone(), stage.name.clone(), used))
            });
            let all = of(&figures.used, figures.memory_byte_seconds);
            GpuUsed { tenant: name.clone(), stages: stages.collect(), all }
        });
        tenants.collect()
    }

    /// All tenants with stages that may use it, in figures.
    pub(crate) fn tenants_seen(&self) -> Vec<(Name, GpuTenantSeen)> {
        let registry = lock(&self.registry);
        let tenants = registry.tenants.iter().map(|(name, known)| {
            let figures = self.status.tenant(known.number);
            let Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes, queued } =
                figures.used;
            let seen = GpuTenantSeen {
                share: known.terms.weight.into(),
                device_micros: device_nanos / 1_000,
                chunks,
                copy_micros: copy_nanos / 1_000,
                up_bytes,
                down_bytes,
                guaranteed_bytes: known.terms.guaranteed_bytes,
                held_bytes: figures.held_bytes,
                kept_bytes: figures.kept_bytes,
                memory_byte_seconds: figures.memory_byte_seconds,
                evictions: figures.evictions,
                recalls: figures.recalls,
                queued,
                handles: figures.handles,
            };
            (name.clone(), seen)
        });
        tenants.collect()
    }
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Discrete => "discrete",
        Kind::Integrated => "integrated",
        Kind::Software => "software",
        Kind::Fake => "interpreter",
    }
}

fn used(used: &Used) -> Map<String, Value> {
    let Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes, queued } = used;
    let rows = [
        ("device-micros", device_nanos / 1_000),
        ("chunks", *chunks),
        ("copy-micros", copy_nanos / 1_000),
        ("up-bytes", *up_bytes),
        ("down-bytes", *down_bytes),
        ("queued", *queued),
    ];
    rows.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn memory(held_bytes: u64, byte_seconds: u64) -> [(String, Value); 2] {
    [
        ("held-bytes".to_owned(), held_bytes.into()),
        ("memory-byte-seconds".to_owned(), byte_seconds.into()),
    ]
}
