//! Import `state`: keyed state, by event index and slot.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower, WasmList, WasmStr};

use sluicebox_core::state::KeyedState;

use super::{Host, charge, interface, layer, text};

/// Entries one scan may give.
const SCAN_MAX: u32 = 10_000;

#[derive(ComponentType, Lower)]
#[component(record)]
struct Entry {
    slot: String,
    value: Vec<u8>,
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut state = linker.instance(&interface("state"))?;
    state.func_wrap_async("get", |mut cx, (event, slot): (u32, WasmStr)| {
        Box::new(async move {
            let slot = text(&mut cx, &slot).await?;
            let found = keyed(&mut cx, event, |state, key| {
                state.get(key, slot.as_bytes()).map(<[u8]>::to_vec)
            })?;
            charge(&mut cx, found.as_ref().map_or(0, Vec::len)).await?;
            Ok((found,))
        })
    })?;
    state.func_wrap_async(
        "put",
        |mut cx, (event, slot, value): (u32, WasmStr, WasmList<u8>)| {
            Box::new(async move {
                charge(&mut cx, value.len()).await?;
                let slot = text(&mut cx, &slot).await?;
                let value = value.as_le_slice(&cx).to_vec();
                let done = keyed(&mut cx, event, |state, key| {
                    state.put(key, slot.as_bytes(), &value).map_err(|refusal| refusal.to_string())
                })?;
                Ok((done,))
            })
        },
    )?;
    state.func_wrap_async("delete", |mut cx, (event, slot): (u32, WasmStr)| {
        Box::new(async move {
            let slot = text(&mut cx, &slot).await?;
            Ok((keyed(&mut cx, event, |state, key| state.delete(key, slot.as_bytes()))?,))
        })
    })?;
    state.func_wrap_async("add", |mut cx, (event, slot, delta): (u32, WasmStr, i64)| {
        Box::new(async move {
            let slot = text(&mut cx, &slot).await?;
            let sum = keyed(&mut cx, event, |state, key| {
                state.add(key, slot.as_bytes(), delta).map_err(|refusal| refusal.to_string())
            })?;
            Ok((sum,))
        })
    })?;
    state.func_wrap_async("scan", |mut cx, (event, prefix, limit): (u32, WasmStr, u32)| {
        Box::new(async move {
            let prefix = text(&mut cx, &prefix).await?;
            let entries = keyed(&mut cx, event, |state, key| scan(state, key, &prefix, limit))?;
            let bytes = entries.iter().map(|e| e.slot.len() + e.value.len() + 32).sum();
            charge(&mut cx, bytes).await?;
            Ok((entries,))
        })
    })?;
    state.func_wrap_async("batch", |mut cx, (operations,): (WasmList<u8>,)| {
        Box::new(async move {
            charge(&mut cx, operations.len() * 2).await?;
            Ok((batch(&mut cx, &operations)?,))
        })
    })
}

fn scan(state: &KeyedState, key: &[u8], prefix: &str, limit: u32) -> Vec<Entry> {
    let limit = limit.min(SCAN_MAX) as usize;
    let entry = |(slot, value): (&[u8], &[u8])| Entry {
        slot: String::from_utf8_lossy(slot).into_owned(),
        value: value.to_vec(),
    };
    state.scan(key, prefix.as_bytes()).take(limit).map(entry).collect()
}

fn keyed<R>(
    cx: &mut StoreContextMut<'_, Host>,
    event: u32,
    act: impl FnOnce(&mut KeyedState, &[u8]) -> R,
) -> wasmtime::Result<R> {
    let layer = layer(cx.data_mut())?;
    let events = layer.frame().len();
    let (state, key) = layer.keyed(event).ok_or_else(|| {
        wasmtime::format_err!("state: event {event} does not exist, the call has {events}")
    })?;
    Ok(act(state, key))
}

fn batch(
    cx: &mut StoreContextMut<'_, Host>,
    operations: &WasmList<u8>,
) -> wasmtime::Result<bytes::Bytes> {
    let mut taken = cx.data_mut().layer.take();
    let mut reply = Vec::with_capacity(operations.len());
    let result = match taken.as_deref_mut() {
        Some(layer) => {
            layer.state_batch(operations.as_le_slice(&*cx), &mut reply).map_err(Into::into)
        }
        None => layer(cx.data_mut()).map(|_| ()),
    };
    cx.data_mut().layer = taken;
    result.map(|()| bytes::Bytes::from(reply))
}
