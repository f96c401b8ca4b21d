//! Import `output`: emitted frames, copied once from the guest's memory to where they go next.

use wasmtime::component::{Linker, WasmList};

use super::{Host, charge, interface, layer};

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.instance(&interface("output"))?.func_wrap_async(
        "emit",
        |mut cx, (frame,): (WasmList<u8>,)| {
            Box::new(async move {
                charge(&mut cx, frame.len()).await?;
                // Out of the store for the length of the copy: the bytes are borrowed from it.
                let mut taken = cx.data_mut().layer.take();
                let result = match taken.as_deref_mut() {
                    Some(layer) => layer.emit(frame.as_le_slice(&cx)).map_err(Into::into),
                    None => layer(cx.data_mut()).map(|_| ()),
                };
                cx.data_mut().layer = taken;
                result
            })
        },
    )
}
