//! A kernel over the events of a call.
//!
//! - All events of a call are one buffer, one dispatch and one answer, whatever their number.
//! - Buffers are kept from call to call and grow to the largest call there was.
//! - What is kept is made anew when it is over: the device was lost between two calls, or the
//!   instance goes on from an image. A call during which that happens fails, with class retry.
//! - An event that cannot be packed fails alone.
//!
//! What is kept is taken out of its place while a call uses it, so no lock is held meanwhile.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Buffer, Error, Graph, Kernel, Record, Result};
use crate::event::Event;
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// Invocations of a workgroup of the kernel.
const GROUP_THREADS: usize = 64;
/// Bindings that the kernel may have: records in, records out, how many.
const BINDINGS: u32 = 3;
/// Bytes of the uniform buffer with the number of events; the rest is zeros.
const COUNT_BYTES: usize = 16;

/// A kernel over the events of a call: each gives a record of type `I`, and gets one of type `O`.
///
/// The kernel has `@workgroup_size(64)` and three bindings of `@group(0)`: 0 is the records in
/// (`storage, read`), 1 the records out (`storage, read_write`), 2 a `uniform` whose first word is
/// how many there are. The invocation of record `i` has `global_invocation_id.x == i`; those from
/// the number on have to do nothing. A record of both types takes a multiple of 4 bytes.
///
/// ```
/// use sluicebox_guest::gpu::Map;
/// use sluicebox_guest::{Events, Output, stage};
///
/// static NORM: Map<[f32; 2], f32> = Map::new(
///     "@group(0) @binding(0) var<storage, read> points: array<vec2f>;
///      @group(0) @binding(1) var<storage, read_write> norms: array<f32>;
///      @group(0) @binding(2) var<uniform> count: u32;
///
///      @compute @workgroup_size(64)
///      fn norm(@builtin(global_invocation_id) id: vec3u) {
///          if id.x < count { norms[id.x] = length(points[id.x]); }
///      }",
///     "norm",
/// );
///
/// #[stage]
/// fn norm(events: Events<'_>, out: &mut Output) {
///     NORM.run(events, out, |event| event.json(), |event, norm, out| out.json(event, &norm));
/// }
/// # fn main() {}
/// ```
pub struct Map<I, O> {
    source: &'static str,
    entry: &'static str,
    deadline: Option<Duration>,
    kept: Mutex<Option<Kept>>,
    records: PhantomData<fn(I) -> O>,
}

/// What is on the device for a map.
#[derive(Debug)]
struct Kept {
    /// Records that its buffers have room for.
    room: usize,
    input: Buffer,
    output: Buffer,
    count: Buffer,
    /// What `count` holds.
    counted: usize,
    /// Which bindings the kernel uses, in ascending order: it may leave some out.
    uses: Vec<u32>,
    graph: Graph,
}

impl<I: Record, O: Record> Map<I, O> {
    /// A map by a kernel: its source in WGSL, and its entry point. Nothing is made of it before it
    /// runs.
    ///
    /// # Panics
    ///
    /// If a record takes no multiple of 4 bytes; for a `static` that is when it is compiled.
    #[must_use]
    pub const fn new(source: &'static str, entry: &'static str) -> Self {
        assert!(I::BYTES > 0 && I::BYTES % 4 == 0, "a record in takes no multiple of 4 bytes");
        assert!(O::BYTES > 0 && O::BYTES % 4 == 0, "a record out takes no multiple of 4 bytes");
        Self { source, entry, deadline: None, kept: Mutex::new(None), records: PhantomData }
    }

    /// Ends the device's work for a call after so long.
    #[must_use]
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }

    /// Runs the kernel over these events. `pack` gives the record of an event, or why there is
    /// none; then that event fails. `emit` is called for every other event with what the kernel
    /// made of its record, in the same order. If the device does not do its part, they all fail.
    pub fn run<'a, E, R>(
        &self,
        events: impl IntoIterator<Item = Event<'a>>,
        out: &mut Output,
        mut pack: impl FnMut(&Event<'a>) -> Result<I, E>,
        mut emit: impl FnMut(&Event<'a>, O, &mut Output) -> R,
    ) where
        E: Into<Failure>,
        R: Outcome,
    {
        let (mut packed, mut records) = (Vec::new(), Vec::new());
        for event in events {
            match pack(&event) {
                Ok(record) => {
                    let at = records.len();
                    records.resize(at + I::BYTES, 0);
                    record.write(&mut records[at..]);
                    packed.push(event);
                }
                Err(error) => out.fail(&event, error),
            }
        }
        match self.compute(packed.len(), &records) {
            Ok(answers) => {
                for (event, answer) in packed.iter().zip(answers.chunks_exact(O::BYTES)) {
                    if let Err(failure) = emit(event, O::read(answer), out).into_result() {
                        out.fail(event, failure);
                    }
                }
            }
            Err(error) => {
                let failure = Failure::from(error);
                packed.iter().for_each(|event| out.fail(event, failure.clone()));
            }
        }
    }

    /// The records out for `count` records in.
    fn compute(&self, count: usize, records: &[u8]) -> Result<Vec<u8>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let kept = self.ready(count, records)?;
        let done = kept.run::<I, O>(count);
        // After an error it is as good as before, unless the device was lost, and then the next
        // call finds that out. What was half written is written anew by whoever uses it next.
        *self.place() = Some(kept);
        done
    }

    /// What is on the device, with these records in it.
    fn ready(&self, count: usize, records: &[u8]) -> Result<Kept> {
        let kept = self.place().take();
        // Handles are over after a loss of the device, and in an instance that goes on from an
        // image; which of them it is does not matter here.
        if let Some(mut kept) = kept.filter(|kept| kept.room >= count)
            && kept.put(count, records).is_ok()
        {
            return Ok(kept);
        }
        let mut kept = self.make(count)?;
        kept.put(count, records)?;
        Ok(kept)
    }

    fn make(&self, count: usize) -> Result<Kept> {
        let room = count.max(GROUP_THREADS).next_power_of_two();
        let groups = u32::try_from(room / GROUP_THREADS)
            .map_err(|_| Error::new(format!("gpu.limit: {count} events in one call")))?;
        let kernel = Kernel::new(self.source, self.entry)?;
        let uses: Vec<u32> = kernel.slots()?.iter().map(|slot| slot.number).collect();
        if uses.iter().any(|number| *number >= BINDINGS) {
            return Err(Error::new("gpu.graph: the kernel of a map has bindings 0, 1 and 2 only"));
        }
        let slots: Vec<u32> = (0..uses.len() as u32).collect();
        let graph = Graph::record(|steps| {
            steps.dispatch(&kernel, [groups, 1, 1], &slots);
        })?;
        let graph = match self.deadline {
            Some(time) => graph.deadline(time),
            None => graph,
        };
        Ok(Kept {
            room,
            input: Buffer::new((room * I::BYTES) as u64)?,
            output: Buffer::new((room * O::BYTES) as u64)?,
            count: Buffer::new(COUNT_BYTES as u64)?,
            counted: 0,
            uses,
            graph,
        })
    }

    /// A panic while it was held cannot have left it in part.
    fn place(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put(&mut self, count: usize, records: &[u8]) -> Result<()> {
        self.input.write_bytes(0, records)?;
        if self.counted != count {
            self.count.write(0, &[count as u32])?;
            self.counted = count;
        }
        Ok(())
    }

    /// Only the bytes of this call are bound, so that nothing of an earlier one can be seen.
    fn run<I: Record, O: Record>(&self, count: usize) -> Result<Vec<u8>> {
        let bytes = (count * O::BYTES) as u64;
        let input = self.input.range(0, (count * I::BYTES) as u64);
        let all = [input, self.output.range(0, bytes), self.count.whole()];
        let bindings: Vec<_> = self.uses.iter().map(|number| all[*number as usize]).collect();
        self.graph.submit(&bindings)?.whole()?;
        self.output.read_bytes(0, bytes)
    }
}

impl<I, O> std::fmt::Debug for Map<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("entry", &self.entry).finish_non_exhaustive()
    }
}
