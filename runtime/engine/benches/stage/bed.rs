//! What all sections stand on: an engine, guests, and chains of stages driven by the machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluicebox_core::frame::Frame;
use sluicebox_core::layer::{KeyRule, LayerLimits, Ports, Spread, Target};
use sluicebox_core::limits::KEY_STATE_BYTES_DEFAULT;
use sluicebox_core::partition::{Call, Codes, Commit, Partition, SegmentPlan, StagePlan, Verdict};
use sluicebox_core::pipeline::{OnFailure, ParkLimits, Scope, StageLimits, StreamLimits};
use sluicebox_core::state::StateLimits;
use sluicebox_engine::image::instrument;
use sluicebox_engine::invoker::{Invocation, Invoker};
use sluicebox_engine::sandbox::Sandbox;
use sluicebox_engine::stage::{MemoryMeter, StageCode, StageSettings, TenantSlots};
use sluicebox_engine::tuning::EngineConfig;
use sluicebox_engine::wasm::{WarmPool, WasmStage};
use tokio::runtime::Runtime;
use wasmtime::component::Component;

/// The time of all batches.
pub(crate) const NOW: u64 = 1_700_000_000_000_000;

/// An engine and a thread's runtime.
pub(crate) struct Bed {
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) runtime: Runtime,
    pub(crate) settings: Arc<StageSettings>,
}

impl Bed {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let sandbox = Arc::new(Sandbox::new(config).expect("the engine starts"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let memory = MemoryMeter::new(64 << 30, None);
        let tenant = TenantSlots::new(config.instances as usize, config.stacks as usize, memory);
        let settings = StageSettings {
            limits: StageLimits::default(),
            config: Default::default(),
            assets: Default::default(),
            gpu: None,
            buckets: Default::default(),
            http: None,
            secret: [7; 32],
            live: Default::default(),
            away: Default::default(),
            memory: Default::default(),
            tenant: Arc::new(tenant),
            fresh: Default::default(),
        };
        let runtime = runtime.expect("a runtime of one thread needs nothing special");
        Self { sandbox, runtime, settings: Arc::new(settings) }
    }

    /// Compiles and links a guest of `target/guests`.
    pub(crate) fn code(&self, guest: &str) -> Arc<StageCode> {
        let wasm = instrument(&wasm(guest)).expect("the guest is valid");
        let component = Component::new(self.sandbox.engine(), wasm);
        self.link(&component.expect("the guest compiles"))
    }

    pub(crate) fn link(&self, component: &Component) -> Arc<StageCode> {
        Arc::new(StageCode::link(&self.sandbox, component).expect("the guest links"))
    }

    /// The invoker of a stage, with instances of its own.
    pub(crate) fn stage(&self, code: &Arc<StageCode>) -> Box<dyn Invoker> {
        let warm = WarmPool::default();
        let (sandbox, settings) = (self.sandbox.clone(), self.settings.clone());
        Box::new(WasmStage::new(sandbox, code.clone(), settings, warm))
    }

    /// So many stages of the same code, one behind the other.
    pub(crate) fn chain(&self, code: &Arc<StageCode>, stages: usize) -> Chain {
        let plan = chain_plan(stages, Scope::Shared);
        Chain::new(plan, (0..stages).map(|_| self.stage(code)).collect())
    }
}

/// The bytes of a guest.
pub(crate) fn wasm(guest: &str) -> Vec<u8> {
    let path = guests().join(format!("{guest}.wasm"));
    let missing = "the guest is built: run `cargo xtask guests rust` first";
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; {missing}", path.display()))
}

/// Whether a guest is there.
pub(crate) fn is_built(guest: &str) -> bool {
    guests().join(format!("{guest}.wasm")).is_file()
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests")
}

/// One partition with what runs its stages.
pub(crate) struct Chain {
    machine: Partition,
    stages: Vec<Box<dyn Invoker>>,
    /// Fuel used so far.
    pub(crate) fuel: u64,
}

impl Chain {
    pub(crate) fn new(plan: SegmentPlan, stages: Vec<Box<dyn Invoker>>) -> Self {
        Self { machine: Partition::new(Arc::new(plan), 0x5EED), stages, fuel: 0 }
    }

    /// Runs one batch to its commit, as a worker does.
    pub(crate) async fn batch(&mut self, frame: Frame) -> Commit {
        self.machine.start(frame, NOW);
        while let Some(call) = self.machine.next_call() {
            let Call { stage, serves, layer, last, .. } = call;
            let invocation = Invocation { serves, layer, last, time: NOW, seed: 1 };
            let outcome = self.stages[stage].invoke(invocation).await;
            if let Verdict::Trapped(text) = &outcome.verdict {
                panic!("a call trapped: {text}");
            }
            self.fuel += outcome.usage.fuel;
            self.machine.done(outcome.layer, outcome.verdict);
        }
        let commit = self.machine.finish();
        assert!(commit.dead_letters.is_none(), "events failed");
        commit
    }

    /// The first stage.
    pub(crate) fn first(&mut self) -> &mut dyn Invoker {
        &mut *self.stages[0]
    }

    pub(crate) fn open_streams(&self) -> usize {
        self.machine.open_streams()
    }
}

/// Stages one behind the other; the last one leads to an output.
pub(crate) fn chain_plan(stages: usize, scope: Scope) -> SegmentPlan {
    let stage = |at: usize| {
        let inside = (at + 1 < stages).then_some(at + 1);
        stage_plan(scope, target(KeyRule::Cause, Spread::One), inside)
    };
    SegmentPlan { stages: (0..stages).map(stage).collect() }
}

/// A stage with one port that leads to one target.
pub(crate) fn stage_plan(scope: Scope, target: Target, inside: Option<usize>) -> StagePlan {
    let limits = StageLimits::default();
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    StagePlan {
        name: "stage".to_owned(),
        scope,
        on_failure: OnFailure::DeadLetter,
        retries: 3,
        stream: StreamLimits::default(),
        codes: Codes::default(),
        park: ParkLimits::default(),
        ports: Arc::new(Ports::new(1, vec![target])),
        inside: vec![inside],
        limits: LayerLimits {
            emit_bytes: bytes(limits.emit_bytes),
            event_bytes: bytes(limits.event_bytes),
            reply_bytes: 32 << 20,
        },
        state: StateLimits { key_bytes: KEY_STATE_BYTES_DEFAULT, total_bytes: 1 << 30 },
        state_ttl: None,
    }
}

pub(crate) fn target(key: KeyRule, spread: Spread) -> Target {
    Target { port: 0, input: 0, key, spread, inside: false }
}
