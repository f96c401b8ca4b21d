//! The accessor from outside: reading and writing what is the guest's own, between two calls.
//!
//! - No code of the guest runs: the accessor's functions are all of what is called, and they call
//!   nothing but, for handles, the host.
//! - A page is copied once: reading shows the guest's own memory, writing lowers into it.
//! - Whoever gets an error drops the instance: it may be half of what it was.

use bytes::Bytes;
use sluicebox_core::limits::IMAGE_PAGE_BYTES;
use wasmtime::Store;
use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, TypedFunc, WasmList,
};

use super::head::{MEMORIES_MAX, Standard};
use super::instrument::{RESERVED, Said, name, read_name};
use crate::host::Host;

/// Bytes of a memory that are looked at before other guests get their turn.
const CHUNK_BYTES: u64 = 1 << 20;

/// Bytes of a page of WebAssembly.
pub(crate) const WASM_PAGE_BYTES: u64 = 64 << 10;

/// Where the scratch is when it need not be elsewhere, and its size.
const SCRATCH_BYTES: u64 = 8;

/// The accessor of a component.
#[derive(Debug)]
pub(crate) struct Accessor {
    /// Digest of the component as it was uploaded.
    pub(crate) code: [u8; 32],
    memories: Vec<Memory>,
    seek: ComponentExportIndex,
    count: ComponentExportIndex,
    get: ComponentExportIndex,
    set: ComponentExportIndex,
    input: Option<Stream>,
    output: Option<Stream>,
}

#[derive(Debug)]
struct Memory {
    size: ComponentExportIndex,
    grow: ComponentExportIndex,
    write: ComponentExportIndex,
    read: ComponentExportIndex,
}

#[derive(Debug)]
struct Stream {
    open: ComponentExportIndex,
    drop: ComponentExportIndex,
}

impl Accessor {
    /// Finds the accessor of a component, or why it has none.
    pub(crate) fn of(component: &Component) -> Result<Self, String> {
        let ty = component.component_type();
        let mut names = ty.exports(component.engine()).map(|(name, _)| name);
        let Some(exported) = names.find(|name| name.starts_with(RESERVED)) else {
            return Err("the component was compiled without being made ready for them".to_owned());
        };
        let code = match read_name(exported) {
            Some(Said::Accessor(code)) => code,
            Some(Said::No(reason)) => return Err(reason.text().to_owned()),
            None => return Err(format!("`{exported}` is of another version")),
        };
        let instance = component.get_export_index(None, exported);
        let find = |name: &str| component.get_export_index(Some(&instance?), name);
        let must = |name: &str| find(name).ok_or_else(|| format!("the accessor has no `{name}`"));
        let stream = |open, drop| Some(Stream { open: find(open)?, drop: find(drop)? });
        let memory = |at| {
            Some(Memory {
                size: find(&name::of_memory(name::SIZE, at))?,
                grow: find(&name::of_memory(name::GROW, at))?,
                write: find(&name::of_memory(name::WRITE, at))?,
                read: find(&name::of_memory(name::READ, at))?,
            })
        };
        Ok(Self {
            code,
            memories: (0..MEMORIES_MAX).map_while(memory).collect(),
            seek: must(name::SEEK)?,
            count: must(name::COUNT)?,
            get: must(name::GET)?,
            set: must(name::SET)?,
            input: stream(name::OPEN_IN, name::DROP_IN),
            output: stream(name::OPEN_OUT, name::DROP_OUT),
        })
    }

    pub(crate) fn memories(&self) -> usize {
        self.memories.len()
    }

    fn stream(&self, kind: Standard) -> Option<&Stream> {
        match kind {
            Standard::In => self.input.as_ref(),
            Standard::Out => self.output.as_ref(),
        }
    }
}

/// An accessor at work on an instance.
pub(crate) struct Access<'a> {
    pub(crate) store: &'a mut Store<Host>,
    pub(crate) instance: Instance,
    pub(crate) accessor: &'a Accessor,
}

impl Access<'_> {
    /// Bytes that one call of the accessor may make the host copy.
    pub(crate) const COPIED_MAX: usize = CHUNK_BYTES as usize * 2;

    fn function<P, R>(&mut self, index: &ComponentExportIndex) -> wasmtime::Result<TypedFunc<P, R>>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        self.instance.get_typed_func(&mut *self.store, index)
    }

    async fn call<P, R>(&mut self, index: &ComponentExportIndex, with: P) -> wasmtime::Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let function: TypedFunc<P, R> = self.function(index)?;
        function.call_async(&mut *self.store, with).await
    }

    /// Size of each memory, in pages of 64 KiB.
    pub(crate) async fn sizes(&mut self) -> wasmtime::Result<Vec<u32>> {
        let accessor = self.accessor;
        let mut sizes = Vec::with_capacity(accessor.memories.len());
        for memory in &accessor.memories {
            sizes.push(self.call::<(), (u32,)>(&memory.size, ()).await?.0);
        }
        Ok(sizes)
    }

    /// Makes a memory larger. False if a limit is in the way.
    pub(crate) async fn grow(&mut self, memory: usize, by: u32) -> wasmtime::Result<bool> {
        let accessor = self.accessor;
        let (before,) = self.call::<_, (u32,)>(&accessor.memories[memory].grow, (by,)).await?;
        Ok(before != u32::MAX)
    }

    /// Values of all mutable globals.
    pub(crate) async fn globals(&mut self) -> wasmtime::Result<Vec<u64>> {
        let accessor = self.accessor;
        let (count,) = self.call::<(), (u32,)>(&accessor.count, ()).await?;
        let get: TypedFunc<(u32,), (u64,)> = self.function(&accessor.get)?;
        let mut values = Vec::with_capacity(count as usize);
        for at in 0..count {
            values.push(get.call_async(&mut *self.store, (at,)).await?.0);
        }
        Ok(values)
    }

    /// Sets the globals that differ from what they are known to be.
    pub(crate) async fn set_globals(&mut self, old: &[u64], new: &[u64]) -> wasmtime::Result<()> {
        let accessor = self.accessor;
        let set: TypedFunc<(u32, u64), ()> = self.function(&accessor.set)?;
        for (at, (_, new)) in (0..).zip(old.iter().zip(new)).filter(|(_, (old, new))| old != new) {
            set.call_async(&mut *self.store, (at, *new)).await?;
        }
        Ok(())
    }

    /// Shows every page of 4 KiB of a memory of so many bytes.
    pub(crate) async fn pages(
        &mut self,
        memory: usize,
        bytes: u64,
        mut each: impl FnMut(u32, &[u8]),
    ) -> wasmtime::Result<()> {
        let accessor = self.accessor;
        let read: TypedFunc<(u32, u32, u32), (WasmList<u8>,)> =
            self.function(&accessor.memories[memory].read)?;
        // At most half of it, so that there is always room for the scratch elsewhere.
        let most = CHUNK_BYTES.min(bytes / 2);
        let mut at = 0;
        let mut page = 0;
        while at < bytes {
            if at > 0 && at.is_multiple_of(CHUNK_BYTES) {
                crate::host::yield_once().await;
            }
            let length = most.min(bytes - at);
            let scratch = if at >= SCRATCH_BYTES { 0 } else { bytes - SCRATCH_BYTES };
            let with = (word(at), word(length), word(scratch));
            let (list,) = read.call_async(&mut *self.store, with).await?;
            for bytes in list.as_le_slice(&*self.store).chunks(IMAGE_PAGE_BYTES) {
                each(page, bytes);
                page += 1;
            }
            at += length;
        }
        Ok(())
    }

    /// Writes into a memory, at the places given, in order.
    pub(crate) async fn write(
        &mut self,
        memory: usize,
        places: impl Iterator<Item = (u32, Bytes)>,
    ) -> wasmtime::Result<()> {
        let accessor = self.accessor;
        let seek: TypedFunc<(u32,), ()> = self.function(&accessor.seek)?;
        let write: TypedFunc<(Bytes,), ()> = self.function(&accessor.memories[memory].write)?;
        let mut cursor = None;
        let mut since_yield = 0;
        for (at, bytes) in places {
            if cursor != Some(at) {
                seek.call_async(&mut *self.store, (at,)).await?;
            }
            cursor = at.checked_add(word(bytes.len() as u64));
            since_yield += bytes.len() as u64;
            write.call_async(&mut *self.store, (bytes,)).await?;
            if since_yield >= CHUNK_BYTES {
                since_yield = 0;
                crate::host::yield_once().await;
            }
        }
        Ok(())
    }

    /// Opens handles so that the guest finds them in these slots. False if it cannot have them.
    ///
    /// A slot is given out again last in, first out, and a fresh instance has none in use: so each
    /// handle gets the next, and what is between those wanted is dropped afterwards.
    pub(crate) async fn open(&mut self, handles: &[(u32, Standard)]) -> wasmtime::Result<bool> {
        let accessor = self.accessor;
        let mut wanted = handles.iter().copied().peekable();
        let mut between = Vec::new();
        for slot in 0..handles.last().map_or(0, |(last, _)| last + 1) {
            let own = wanted.next_if(|(at, _)| *at == slot).map(|(_, kind)| kind);
            let Some(kind) = own.or_else(|| handles.first().map(|(_, kind)| *kind)) else { break };
            let Some(stream) = accessor.stream(kind) else { return Ok(false) };
            let (handle,) = self.call::<(), (u32,)>(&stream.open, ()).await?;
            if handle != slot + 1 {
                return Ok(false);
            }
            if own.is_none() {
                between.push((handle, stream));
            }
        }
        for (handle, stream) in between.into_iter().rev() {
            self.call::<_, ()>(&stream.drop, (handle,)).await?;
        }
        Ok(true)
    }
}

/// An address or a size within 4 GiB.
fn word(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("addresses of guests have 32 bits")
}
