//! Import `timers`: wake-ups by event index and name, and the watermark.

use sluicebox_core::timers::{Clock, Timers};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, WasmStr};

use super::{Host, interface, layer, text};

#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only ever made by lifting a guest's value")]
enum WitClock {
    #[component(name = "event-time")]
    EventTime,
    #[component(name = "wall")]
    Wall,
}

impl From<WitClock> for Clock {
    fn from(clock: WitClock) -> Self {
        match clock {
            WitClock::EventTime => Self::Event,
            WitClock::Wall => Self::Wall,
        }
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut timers = linker.instance(&interface("timers"))?;
    timers.func_wrap_async(
        "set",
        |mut cx, (event, name, clock, at): (u32, WasmStr, WitClock, u64)| {
            Box::new(async move {
                let name = text(&mut cx, &name).await?;
                let done = keyed(&mut cx, event, |timers, key| {
                    let set = timers.set(key, name.as_bytes(), clock.into(), at);
                    set.map_err(|refusal| refusal.to_string())
                })?;
                Ok((done,))
            })
        },
    )?;
    timers.func_wrap_async("cancel", |mut cx, (event, name): (u32, WasmStr)| {
        Box::new(async move {
            let name = text(&mut cx, &name).await?;
            Ok((keyed(&mut cx, event, |timers, key| timers.cancel(key, name.as_bytes()))?,))
        })
    })?;
    timers.func_wrap("watermark", |mut cx, (): ()| {
        Ok((layer(cx.data_mut())?.timers_ref().watermark(),))
    })
}

fn keyed<R>(
    cx: &mut StoreContextMut<'_, Host>,
    event: u32,
    act: impl FnOnce(&mut Timers, &[u8]) -> R,
) -> wasmtime::Result<R> {
    let layer = layer(cx.data_mut())?;
    let events = layer.frame().len();
    let (timers, key) = layer.keyed_timers(event).ok_or_else(|| {
        wasmtime::format_err!("timers: event {event} does not exist, the call has {events}")
    })?;
    Ok(act(timers, key))
}
