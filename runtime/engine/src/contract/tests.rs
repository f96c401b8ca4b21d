//! The contract, run by both invokers: stages as closures, and guests in text form.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::AtomicI64;

use wasmtime::component::Component;

use super::*;
use crate::image::{FreshCell, instrument};
use crate::native::{NativeInstance, NativeStage};
use crate::sandbox::Sandbox;
use crate::stage::{MemoryMeter, StageCode, StageSettings, TenantSlots};
use crate::tuning::EngineConfig;
use crate::wasm::WasmStage;

struct Native;

impl Subject for Native {
    fn invoker(&self, behaviour: Behaviour, limits: &StageLimits) -> Option<Box<dyn Invoker>> {
        match behaviour {
            Behaviour::Remember => {
                let make = Arc::new(|| Box::new(SevenTraps(0)) as Box<dyn NativeInstance>);
                let keys_max = limits.instances as usize;
                Some(Box::new(NativeStage::with_instances("seven", make, keys_max)))
            }
            Behaviour::Obey => Some(Box::new(NativeStage::new(Arc::new(obey)))),
            Behaviour::Flood => Some(Box::new(NativeStage::new(Arc::new(flood)))),
            // It says nothing, and is bounded by nothing but its layer.
            _ => None,
        }
    }
}

/// Traps on every seventh event.
struct SevenTraps(u32);

impl NativeInstance for SevenTraps {
    fn handle(&mut self, layer: &mut Layer) -> Verdict {
        let frame = layer.frame().clone();
        for (event, at) in frame.events().zip(0..) {
            self.0 += 1;
            if self.0.is_multiple_of(7) {
                return Verdict::Trapped("seven".to_owned());
            }
            if let Err(text) = emit(layer, at, event.payload) {
                return Verdict::Trapped(text);
            }
        }
        Verdict::Returned(Vec::new())
    }

    fn export(&self) -> Option<Vec<u8>> {
        Some(self.0.to_le_bytes().to_vec())
    }

    fn import(&mut self, state: &[u8]) -> bool {
        let count = state.first_chunk().copied().map(u32::from_le_bytes);
        self.0 = count.unwrap_or_default();
        count.is_some() && state.len() == 4
    }
}

fn emit(layer: &mut Layer, cause: u32, payload: &[u8]) -> Result<(), String> {
    let mut builder = FrameBuilder::new();
    builder.push(&Head { cause, ..Head::data(1) }, b"", payload, &[]);
    layer.emit(builder.finish().bytes()).map_err(|error| error.to_string())
}

fn obey(layer: &mut Layer) -> Verdict {
    let frame = layer.frame().clone();
    let mut failures = Vec::new();
    for (event, at) in frame.events().zip(0..) {
        let done = match event.payload {
            [b'e', rest @ ..] => emit(layer, at, rest),
            [b't', ..] => Err("told to".to_owned()),
            [b'a', 1, b'n', delta @ ..] => {
                let delta = i64::from_le_bytes(delta.try_into().unwrap());
                let (state, key) = layer.keyed(at).unwrap();
                let sum = state.add(key, b"n", delta).unwrap();
                emit(layer, at, &[&[0][..], &sum.to_le_bytes()].concat())
            }
            other => {
                let text = match other {
                    [b'x', rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
                    _ => "unknown command".to_owned(),
                };
                failures.push(Failure::new(at, FailureClass::Reject, text));
                Ok(())
            }
        };
        if let Err(text) = done {
            return Verdict::Trapped(text);
        }
    }
    Verdict::Returned(failures)
}

fn flood(layer: &mut Layer) -> Verdict {
    loop {
        if let Err(text) = emit(layer, 0, &[b'x'; 1000]) {
            return Verdict::Trapped(text);
        }
    }
}

/// Guests from `tests/guests`, compiled here.
struct Wasm {
    sandbox: Arc<Sandbox>,
}

impl Subject for Wasm {
    fn invoker(&self, behaviour: Behaviour, limits: &StageLimits) -> Option<Box<dyn Invoker>> {
        let file = match behaviour {
            Behaviour::Obey => "conformance-wat/guest.wat",
            Behaviour::Remember => "hostile/panic-nth.wat",
            Behaviour::Flood => "hostile/emit-many.wat",
            Behaviour::Talk => "hostile/log-flood.wat",
            Behaviour::Spin => "hostile/spin.wat",
            Behaviour::Recurse => "hostile/recurse.wat",
            Behaviour::Grow => "hostile/grow-one.wat",
        };
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
        let wasm = instrument(&wat::parse_file(guests.join(file)).unwrap()).unwrap();
        let component = Component::new(self.sandbox.engine(), wasm).unwrap();
        let code = Arc::new(StageCode::link(&self.sandbox, &component).unwrap());
        let settings = Arc::new(StageSettings {
            limits: *limits,
            config: BTreeMap::new(),
            assets: BTreeMap::new(),
            gpu: None,
            buckets: Default::default(),
            http: None,
            secret: [7; 32],
            live: AtomicI64::new(0),
            away: AtomicI64::new(0),
            memory: Default::default(),
            tenant: Arc::new(TenantSlots::new(16, 4, MemoryMeter::new(1 << 30, None))),
            fresh: FreshCell::default(),
        });
        let warm = Rc::new(RefCell::new(Vec::new()));
        Some(Box::new(WasmStage::new(self.sandbox.clone(), code, settings, warm)))
    }
}

#[tokio::test]
async fn closures_keep_the_contract() {
    every_promise(&Native).await;
}

#[tokio::test]
async fn guests_keep_the_contract() {
    let sandbox = Arc::new(Sandbox::new(&EngineConfig::small()).unwrap());
    every_promise(&Wasm { sandbox }).await;
}
