//! Stages in the engine without a node: components compiled once, and chains of them driven by the
//! machine of a partition.
//!
//! - Components take the way of an upload: inspected, compiled in a process of its own, kept as an
//!   artefact, linked. Artefacts stay in `target/guests/artefacts`, so that a Python guest is
//!   compiled once and not once a test.
//! - A [`Chain`] makes the calls the pure machine asks for, in one thread, like a worker does.
//! - Its settings are small on purpose: what a test of limits does is over soon.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use bytes::Bytes;
use cap_std::fs::Dir;
use sluicebox_core::frame::Frame;
use sluicebox_core::image::Image;
use sluicebox_core::layer::{KeyRule, LayerLimits, Ports, Spread, Target};
use sluicebox_core::partition::{
    Call, Codes, Commit, Halt, Partition, SegmentPlan, Serves, StagePlan, Verdict,
};
use sluicebox_core::pipeline::{OnFailure, ParkLimits, Scope, StageLimits, StreamLimits};
use sluicebox_core::state::StateLimits;
use sluicebox_engine::artefact::Artefacts;
use sluicebox_engine::compile::{CompileLimits, Compiler, CompilerConfig};
use sluicebox_engine::component::{self, Inspection, Limits};
use sluicebox_engine::error::Error;
use sluicebox_engine::image::FreshCell;
use sluicebox_engine::invoker::{Invocation, Invoker, LogLine, Metric, NoImage, Outcome, Usage};
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::{MemoryMeter, StageCode, StageSettings, TenantSlots};
use sluicebox_engine::tuning::EngineConfig;
use sluicebox_engine::wasm::WasmStage;

use crate::eventually::SOON;
use crate::guests;

/// Artefacts kept; guests that were rebuilt leave old ones behind.
const ARTEFACT_BYTES_MAX: u64 = 1 << 30;

/// Ports of the last stage of a chain; each leads to an output.
pub const PORTS: u16 = 8;

/// The port whose events keep the key of their cause; those of the others have the key the stage
/// wrote.
pub const CAUSE_KEY_PORT: u16 = 1;

/// See the module.
#[derive(Debug)]
pub struct Rig {
    sandbox: Arc<Sandbox>,
    artefacts: Artefacts,
    compiler: Compiler,
}

/// A component that is ready to run.
#[derive(Debug, Clone)]
pub struct Guest {
    /// What is known of it.
    pub inspection: Inspection,
    code: Arc<StageCode>,
}

impl Guest {
    /// The linked code.
    #[must_use]
    pub fn code(&self) -> &StageCode {
        &self.code
    }
}

impl Rig {
    /// An engine for a few instances. `compiler` is the program `sluicebox-tests-compile`.
    #[must_use]
    pub fn new(compiler: &str) -> Self {
        let sandbox =
            Arc::new(Sandbox::new(&EngineConfig::small()).expect("a small engine starts"));
        let folder = guests::folder().join("artefacts");
        std::fs::create_dir_all(&folder).expect("target can be written");
        let dir = Dir::open_ambient_dir(&folder, cap_std::ambient_authority())
            .expect("a folder that was just made opens");
        let artefacts = Artefacts::open(dir, sandbox.engine(), ARTEFACT_BYTES_MAX).unwrap();
        let config = CompilerConfig {
            program: compiler.into(),
            args: Vec::new(),
            limits: CompileLimits::default(),
            parallel: 1,
            waiting: 64,
        };
        let compiler = Compiler::new(config, sandbox.engine());
        Self { sandbox, artefacts, compiler }
    }

    /// The engine and its permits.
    #[must_use]
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// A built guest by its name.
    pub async fn guest(&self, name: &str) -> Guest {
        let ready = self.upload(guests::bytes(name)).await;
        ready.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Everything that happens to an upload.
    ///
    /// # Errors
    /// As the engine says.
    pub async fn upload(&self, wasm: Bytes) -> Result<Guest, Error> {
        let inspection = component::inspect(&wasm, &Limits::default())?;
        let digest = inspection.digest;
        let component = match self.artefacts.load(&digest)? {
            Some(component) => component,
            None => {
                // Of several test processes one compiles, the others wait and load.
                let file = guests::folder().join(format!("artefacts-{}.lock", &digest.hex()[..16]));
                let lock = File::create(&file).expect("target can be written");
                lock.lock().expect("a file of ours can be locked");
                match self.artefacts.load(&digest)? {
                    Some(component) => component,
                    None => {
                        let compiled = self.compiler.compile(wasm).await?;
                        self.artefacts.keep(&digest, &compiled)?;
                        self.artefacts.load(&digest)?.expect("it was kept a moment ago")
                    }
                }
            }
        };
        let code = Arc::new(StageCode::link(&self.sandbox, &component)?);
        Ok(Guest { inspection, code })
    }

    /// A chain of one stage.
    #[must_use]
    pub fn stage(&self, guest: &Guest, spec: &Spec) -> Chain {
        self.chain(&[(guest, spec.clone())])
    }

    /// Stages one behind the other, by port 0, all for one tenant.
    #[must_use]
    pub fn chain(&self, stages: &[(&Guest, Spec)]) -> Chain {
        self.chain_of(stages, &tenant())
    }

    /// A chain whose stages share what this tenant may hold.
    #[must_use]
    pub fn chain_of(&self, stages: &[(&Guest, Spec)], tenant: &Arc<TenantSlots>) -> Chain {
        let last = stages.len() - 1;
        let plans = stages.iter().enumerate().map(|(at, (_, spec))| plan(at, spec, at == last));
        let plan = SegmentPlan { stages: plans.collect() };
        let invoker = |(guest, spec): &(&Guest, Spec)| -> Box<dyn Invoker> {
            let settings = Arc::new(StageSettings {
                gpu: None,
                buckets: Default::default(),
                http: None,
                limits: spec.limits,
                config: spec.config.clone(),
                assets: spec.assets.clone(),
                secret: [7; 32],
                live: AtomicI64::new(0),
                away: AtomicI64::new(0),
                memory: Default::default(),
                tenant: tenant.clone(),
                fresh: FreshCell::default(),
            });
            let warm = Rc::new(RefCell::new(Vec::new()));
            Box::new(WasmStage::new(self.sandbox.clone(), guest.code.clone(), settings, warm))
        };
        let mut machine = Partition::new(Arc::new(plan), 1);
        machine.keep_event_time();
        Chain { machine, invokers: stages.iter().map(invoker).collect(), tenant: tenant.clone() }
    }
}

/// What one tenant of a small node may hold.
#[must_use]
pub fn tenant() -> Arc<TenantSlots> {
    Arc::new(TenantSlots::new(32, 8, MemoryMeter::new(1 << 30, None)))
}

/// A stage as a manifest would describe it.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Whom an instance serves.
    pub scope: Scope,
    /// Bounds on an instance and a call.
    pub limits: StageLimits,
    /// Runs of an event that failed with class retry.
    pub retries: u8,
    /// When a stream ends by itself.
    pub stream: StreamLimits,
    /// What happens to an event that failed for good.
    pub on_failure: OnFailure,
    /// What `config` gives.
    pub config: BTreeMap<String, String>,
    /// What `assets` gives.
    pub assets: BTreeMap<String, Bytes>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            scope: Scope::Shared,
            // An interpreter needs more than the usual fuel to emit hundreds of events for one.
            limits: StageLimits { fuel_per_event: 100_000_000, ..StageLimits::default() },
            retries: 2,
            stream: StreamLimits::default(),
            on_failure: OnFailure::DeadLetter,
            config: BTreeMap::new(),
            assets: BTreeMap::new(),
        }
    }
}

fn plan(at: usize, spec: &Spec, last: bool) -> StagePlan {
    let ports = if last { PORTS } else { 1 };
    let target = |port: u16| Target {
        port,
        input: 0,
        key: if last && port != CAUSE_KEY_PORT { KeyRule::Emitted } else { KeyRule::Cause },
        spread: Spread::One,
        inside: false,
    };
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    StagePlan {
        name: format!("stage-{at}"),
        scope: spec.scope,
        on_failure: spec.on_failure,
        retries: spec.retries,
        stream: spec.stream,
        park: ParkLimits::default(),
        codes: Codes::default(),
        ports: Arc::new(Ports::new(ports, (0..ports).map(target).collect())),
        inside: (0..ports).map(|_| (!last).then_some(at + 1)).collect(),
        limits: LayerLimits {
            emit_bytes: bytes(spec.limits.emit_bytes),
            event_bytes: bytes(spec.limits.event_bytes),
            reply_bytes: 1 << 20,
        },
        state: StateLimits { key_bytes: bytes(spec.limits.state_bytes), total_bytes: 64 << 20 },
        state_ttl: None,
    }
}

/// Stages that run one behind the other.
#[derive(Debug)]
pub struct Chain {
    machine: Partition,
    invokers: Vec<Box<dyn Invoker>>,
    /// What the stages share.
    pub tenant: Arc<TenantSlots>,
}

/// One call as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Index of the stage.
    pub stage: usize,
    /// Events it was given.
    pub events: usize,
    /// The text of its trap, if it trapped.
    pub trap: Option<String>,
    /// What it cost.
    pub usage: Usage,
}

/// Streams a test opens for one key, one after another.
const SERIALS: u64 = 100;

/// Everything a batch came to.
#[derive(Debug, Default)]
pub struct Batch {
    /// What stands; nothing if the partition halted.
    pub commit: Option<Commit>,
    /// Why it halted.
    pub halted: Option<Halt>,
    /// The calls, in order.
    pub calls: Vec<Made>,
    /// Log lines of all calls.
    pub lines: Vec<LogLine>,
    /// Log lines that were dropped.
    pub lines_dropped: u64,
    /// Metrics of all calls.
    pub metrics: Vec<(String, Metric)>,
    /// Metrics that were dropped.
    pub metrics_dropped: u64,
}

impl Chain {
    /// Runs a batch to its end.
    pub async fn batch(&mut self, frame: Frame, now: u64) -> Batch {
        self.machine.start(frame, now);
        self.drive(now).await
    }

    /// Ends the streams whose time has come; nothing if there are none.
    pub async fn ends(&mut self, now: u64) -> Option<Batch> {
        if self.machine.start_ends(now) { Some(self.drive(now).await) } else { None }
    }

    /// Takes the image of the first stage's instance for the open stream of a key, drops the
    /// instance, and goes on from the image.
    ///
    /// # Errors
    /// Why there is no image, or no instance from it.
    pub async fn park_and_wake(&mut self, key: &str) -> Result<Image, NoImage> {
        let serial = |serial| Serves::Stream(Arc::from(key.as_bytes()), serial);
        let invoker = &mut self.invokers[0];
        let serves = (0..SERIALS).map(serial).find(|serves| invoker.holds(serves));
        let serves = serves.ok_or(NoImage::NoInstance)?;
        let image = invoker.capture(&serves).await?;
        invoker.drop_instance(&serves);
        invoker.revive(serves, &image).await?;
        Ok(image)
    }

    /// Fires timers that are due, with this watermark; nothing if there are none.
    pub async fn fires(&mut self, watermark: u64, now: u64) -> Option<Batch> {
        self.machine.raise_watermark(watermark);
        if self.machine.start_timers(now) { Some(self.drive(now).await) } else { None }
    }

    /// Live instances of all stages.
    #[must_use]
    pub fn live(&self) -> usize {
        self.invokers.iter().map(|invoker| invoker.live()).sum()
    }

    async fn drive(&mut self, now: u64) -> Batch {
        let mut batch = Batch::default();
        while let Some(Call { stage, serves, layer, last, .. }) = self.machine.next_call() {
            let events = layer.frame().len();
            let invocation = Invocation { serves, layer, last, time: now, seed: now };
            let call = self.invokers[stage].invoke(invocation);
            let Ok(outcome) = tokio::time::timeout(SOON, call).await else {
                panic!("a call of stage {stage} with {events} events is not over after {SOON:?}");
            };
            let Outcome { layer, verdict, usage, said } = outcome;
            let trap = match &verdict {
                Verdict::Trapped(text) | Verdict::Lost(text) => Some(text.clone()),
                Verdict::Returned(_) => None,
            };
            batch.calls.push(Made { stage, events, trap, usage });
            batch.lines.extend(said.lines);
            batch.lines_dropped += said.lines_dropped;
            batch.metrics.extend(said.metrics);
            batch.metrics_dropped += said.metrics_dropped;
            self.machine.done(layer, verdict);
            // A scheduler takes its thread back between two calls.
            tokio::task::yield_now().await;
        }
        batch.halted = self.machine.halted().cloned();
        if batch.halted.is_none() {
            batch.commit = Some(self.machine.finish());
        }
        batch
    }
}
