//! Import `output`: emitted frames, copied once from the guest's memory to where they go next.
//!
//! Buffers of a device that a frame names go to the batch first, so that they are there for whoever
//! gets the event, and change no more.

use sluicebox_core::layer::{EmitError, Layer};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList};

use super::{Host, charge, interface, layer};

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance(&interface("output"))?.func_wrap_async(
        "emit",
        |mut cx, (frame,): (WasmList<u8>,)| {
            Box::new(async move {
                charge(&mut cx, frame.len()).await?;
                // Who has no device has nothing to attach, and is spared the look.
                if cx.data().gpu.is_some() {
                    let unheld = look(&mut cx, |layer, cx| layer.unheld(frame.as_le_slice(cx)))?;
                    attach(&mut cx, unheld).await?;
                }
                look(&mut cx, |layer, cx| layer.emit(frame.as_le_slice(cx)))
            })
        },
    )
}

/// Emits a frame that is not in the guest's memory.
///
/// # Errors
/// As of [`Layer::emit`]; what is attached to it was lost, or is in use.
pub(crate) async fn emit(cx: &mut StoreContextMut<'_, Host>, frame: &[u8]) -> wasmtime::Result<()> {
    if cx.data().gpu.is_some() {
        let unheld = look(cx, |layer, _| layer.unheld(frame))?;
        attach(cx, unheld).await?;
    }
    look(cx, |layer, _| layer.emit(frame))
}

/// Does something with the layer, out of the store meanwhile: bytes may be borrowed from that.
fn look<T>(
    cx: &mut StoreContextMut<'_, Host>,
    act: impl FnOnce(&mut Layer, &StoreContextMut<'_, Host>) -> Result<T, EmitError>,
) -> wasmtime::Result<T> {
    let Some(mut taken) = cx.data_mut().layer.take() else {
        return Err(layer(cx.data_mut()).err().unwrap_or_else(|| wasmtime::format_err!("no call")));
    };
    let result = act(&mut taken, cx);
    cx.data_mut().layer = Some(taken);
    result.map_err(Into::into)
}

/// Gives buffers of the instance to the batch. One that is not the instance's is left, and refused
/// when the frame is taken.
///
/// # Errors
/// They were lost, or are in use: the call ends, and may be made again.
async fn attach(cx: &mut StoreContextMut<'_, Host>, handles: Vec<u64>) -> wasmtime::Result<()> {
    let host = cx.data();
    let (Some(session), batch) = (host.gpu.clone(), host.recorded.seed()) else { return Ok(()) };
    for handle in handles {
        match session.attach(handle, batch).await {
            Ok(()) => {
                layer(cx.data_mut())?.hold(handle);
            }
            Err(refused) if refused.code == "gpu.handle" => {}
            Err(refused) => return Err(wasmtime::format_err!("an attached buffer: {refused}")),
        }
    }
    Ok(())
}
