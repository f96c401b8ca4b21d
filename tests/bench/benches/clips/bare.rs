//! The same component in a bare loop: one instance, called with one picture after another.
//!
//! Nothing of a node is there: no deadline, no pool, no log; what the guest emits is counted and
//! dropped. It is what the pictures cost by themselves, sandboxed: without fuel, or with it, which
//! code that nobody trusts cannot be run without.

use anyhow::Result;
use sluicebox_bench::node::guest_bytes;
use sluicebox_bench::process::own_processor_time;
use sluicebox_core::frame::{FrameBuilder, Head, Kind, NO_CAUSE};
use wasmtime::component::{Component, ComponentType, Instance, Lift, Linker};
use wasmtime::{Config, Engine, Store, ensure};

const OUTPUT: &str = "sluicebox:stage/output@0.1.0";
const CONFIG: &str = "sluicebox:stage/config@0.1.0";

use super::clip::Clip;

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the guest makes them")]
enum Class {
    #[component(name = "retry")]
    Retry,
    #[component(name = "reject")]
    Reject,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Failure {
    event: u32,
    class: Class,
    message: String,
}

/// What the loop's imports work on.
struct State {
    config: Vec<(&'static str, String)>,
    emitted: u64,
}

/// See the module.
pub(super) struct Bare {
    engine: Engine,
    component: Component,
    linker: Linker<State>,
    metered: bool,
}

impl Bare {
    pub(super) fn new(guest: &str, metered: bool) -> Result<Self> {
        Self::link(&guest_bytes(guest)?, metered).map_err(said)
    }

    fn link(wasm: &[u8], metered: bool) -> wasmtime::Result<Self> {
        let engine = Engine::new(Config::new().consume_fuel(metered))?;
        let component = Component::new(&engine, wasm)?;
        let mut linker: Linker<State> = Linker::new(&engine);
        linker.instance(OUTPUT)?.func_wrap("emit", |mut store, (frame,): (Vec<u8>,)| {
            let state: &mut State = store.data_mut();
            state.emitted += u64::from(!frame.is_empty());
            Ok(())
        })?;
        linker.instance(CONFIG)?.func_wrap("get", |store, (name,): (String,)| {
            let known = store.data().config.iter().find(|(known, _)| *known == name);
            Ok((known.map(|(_, value)| value.clone()),))
        })?;
        linker.define_unknown_imports_as_traps(&component)?;
        Ok(Self { engine, component, linker, metered })
    }

    /// Microseconds of a picture, over so many clips, each in an instance of its own.
    pub(super) fn each(&self, clip: &Clip, clips: usize) -> Result<f64> {
        let began = own_processor_time()?;
        for _ in 0..clips {
            self.clip(clip).map_err(said)?;
        }
        let took = own_processor_time()? - began;
        Ok(took.as_secs_f64() * 1e6 / (clips * clip.pictures.len()) as f64)
    }

    fn clip(&self, clip: &Clip) -> wasmtime::Result<()> {
        let pictures = &clip.pictures;
        let state = State { config: clip.config(), emitted: 0 };
        let mut store = Store::new(&self.engine, state);
        if self.metered {
            store.set_fuel(u64::MAX / 2)?;
        }
        let instance = self.linker.instantiate(&mut store, &self.component)?;
        let mut builder = FrameBuilder::new();
        builder.push(&Head { kind: Kind::Open, cause: NO_CAUSE, ..Head::data(1) }, b"k", &[], &[]);
        for picture in pictures {
            builder.push(&Head::data(1), b"k", picture, &[]);
            call(&mut store, &instance, &mut builder)?;
        }
        builder.push(&Head { kind: Kind::End, ..Head::data(1) }, b"k", &[], &[]);
        call(&mut store, &instance, &mut builder)?;
        let emitted = store.data().emitted;
        ensure!(emitted >= pictures.len() as u64, "{emitted} emits of {} pictures", pictures.len());
        Ok(())
    }
}

/// The engine's errors are of a type of its own.
fn said(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

fn call(
    store: &mut Store<State>,
    instance: &Instance,
    builder: &mut FrameBuilder,
) -> wasmtime::Result<()> {
    let handle = instance.get_typed_func::<(&[u8],), (Vec<Failure>,)>(&mut *store, "handle")?;
    let frame = builder.finish();
    let (failures,) = handle.call(&mut *store, (frame.bytes(),))?;
    let first = failures.first();
    let shown = first.map(|f| (f.event, matches!(f.class, Class::Retry), f.message.clone()));
    ensure!(shown.is_none(), "a picture failed: {shown:?}");
    Ok(())
}
