//! The invoker that runs Wasm: which instance takes a call, when one is made, kept, dropped.
//!
//! - A warm instance of scope `shared` may serve any partition of its stage on the same worker.
//! - An instance of a key is a cache, kept up to the manifest's number a partition, the least
//!   recently used going first; one of a stream lives as long as its stream.
//! - A trap drops the instance it happened in and no other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use sluicebox_core::partition::{Serves, Verdict};

use crate::instance::{Instance, StartError};
use crate::invoker::{Invocation, Invoker, Invoking, Outcome, Said, Usage};
use crate::sandbox::{CallPermit, Sandbox};
use crate::stage::{StageCode, StageSettings};

/// Idle instances of scope `shared`, for all partitions of one stage on one worker.
pub type WarmPool = Rc<RefCell<Vec<Idle>>>;

/// An instance nobody uses right now.
#[derive(Debug)]
pub struct Idle(Instance);

/// How often instantiation is tried again when the pool is full in spite of a permit.
const START_TRIES: u32 = 50;
/// How long to wait in between.
const START_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub struct WasmStage {
    sandbox: Arc<Sandbox>,
    code: Arc<StageCode>,
    settings: Arc<StageSettings>,
    warm: WarmPool,
    own: BTreeMap<Serves, Owned>,
    clock: u64,
}

/// An instance that serves one key or stream.
#[derive(Debug)]
struct Owned {
    instance: Instance,
    used_at: u64,
}

impl WasmStage {
    /// A stage that shares `warm` with the other partitions of the stage on this worker.
    #[must_use]
    pub fn new(
        sandbox: Arc<Sandbox>,
        code: Arc<StageCode>,
        settings: Arc<StageSettings>,
        warm: WarmPool,
    ) -> Self {
        Self { sandbox, code, settings, warm, own: BTreeMap::new(), clock: 0 }
    }

    async fn run(&mut self, mut invocation: Invocation) -> Outcome {
        self.clock += 1;
        let Some(permit) = self.sandbox.call(&self.settings.tenant).await else {
            return refused(invocation, "the engine is shutting down".to_owned());
        };
        let taken = match &invocation.serves {
            Serves::Any => self.warm.borrow_mut().pop().map(|idle| idle.0),
            own => self.own.remove(own).map(|owned| owned.instance),
        };
        let cold = taken.is_none();
        let mut instance = match taken {
            Some(instance) => instance,
            None if is_lost_stream(&invocation) => {
                let text = "the stream's instance is gone".to_owned();
                return refused(invocation, text);
            }
            // In a box, so that calls of warm instances do not make room for it.
            None => match Box::pin(self.start(&permit)).await {
                Ok(instance) => instance,
                Err(text) => return refused(invocation, text),
            },
        };
        let serves = std::mem::replace(&mut invocation.serves, Serves::Any);
        let last = invocation.last;
        let (mut outcome, keep) = instance.call(invocation).await;
        outcome.usage.cold = cold;
        match serves {
            Serves::Any if keep => self.warm.borrow_mut().push(Idle(instance)),
            Serves::Key(_) if keep => self.keep(serves, instance),
            // Past its high-water mark a stream goes on: its limit is the limit itself.
            Serves::Stream(..) if matches!(outcome.verdict, Verdict::Returned(_)) && !last => {
                self.own.insert(serves, Owned { instance, used_at: self.clock });
            }
            _ => drop(instance),
        }
        outcome
    }

    /// Keeps a key's instance; the least recently used one goes when there are too many.
    fn keep(&mut self, serves: Serves, instance: Instance) {
        if self.own.len() >= self.settings.limits.instances as usize {
            let oldest = self.own.iter().min_by_key(|(_, owned)| owned.used_at);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.own.remove(&key);
            }
        }
        self.own.insert(serves, Owned { instance, used_at: self.clock });
    }

    async fn start(&mut self, permit: &CallPermit) -> Result<Instance, String> {
        let mut full = String::new();
        for _ in 0..START_TRIES {
            let tenant = &self.settings.tenant;
            let slot = match self.sandbox.try_instance(tenant, self.code.weight) {
                Some(slot) => slot,
                None => {
                    // Our own idle instances may be what is missing.
                    self.trim();
                    let found = self.sandbox.instance(&self.settings.tenant, self.code.weight);
                    found.await.ok_or_else(|| "the engine is shutting down".to_owned())?
                }
            };
            match Instance::start(&self.code, &self.settings, slot, permit).await {
                Ok(instance) => return Ok(instance),
                Err(StartError::Guest(text)) => return Err(text),
                Err(StartError::Full(text)) => full = text,
            }
            self.trim();
            tokio::time::sleep(START_PAUSE).await;
        }
        Err(full)
    }
}

/// A stream's first call carries its open event; any later one needs the instance it had.
fn is_lost_stream(invocation: &Invocation) -> bool {
    let opens = |kind| kind == sluicebox_core::frame::Kind::Open;
    matches!(invocation.serves, Serves::Stream(..))
        && !invocation.layer.frame().events().next().is_some_and(|first| opens(first.head.kind))
}

fn refused(invocation: Invocation, text: String) -> Outcome {
    Outcome {
        layer: invocation.layer,
        verdict: Verdict::Trapped(text),
        usage: Usage::default(),
        said: Said::default(),
    }
}

impl Invoker for WasmStage {
    fn invoke(&mut self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(self.run(invocation))
    }

    fn trim(&mut self) {
        self.warm.borrow_mut().clear();
        self.own.retain(|serves, _| matches!(serves, Serves::Stream(..)));
    }

    fn abandon(&mut self) {
        self.own.clear();
    }

    fn live(&self) -> usize {
        self.warm.borrow().len() + self.own.len()
    }
}
