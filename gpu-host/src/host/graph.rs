//! Graphs: lists of steps that are checked once, and bound to buffers again and again.
//!
//! Keeps true of what is bound: each step of it can be done by the device, whole or in pieces. So
//! nothing is refused once it was taken.
//!
//! A slot whose first step writes all that is bound to it, by a copy or a fill, takes a buffer
//! whatever is in it, poisoned or not.

use std::sync::Arc;

use super::Refused;
use super::kernels::Ready;
use super::words::{Op, Part};
use crate::device::{Kind, Limits, Run, Span, Step};
use crate::kernel::Access;
use crate::slice::{Chunk, Work};

/// Steps of a graph.
pub(super) const STEPS_MAX: usize = 64;
/// Slots of a graph.
const SLOTS_MAX: usize = 32;
/// What bytes are counted in.
const WORD_BYTES: u64 = 4;
/// Copies and fills are cut at multiples of this.
const UNIT_BYTES: u64 = 64 * 1024;

/// Copies and fills have times of their own. No kernel has such a hash: it would be a preimage.
const COPY: [u8; 32] = *b"sluicebox copy, units of 64 KiB ";
const FILL: [u8; 32] = *b"sluicebox fill, units of 64 KiB ";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) slots: Vec<Slot>,
    /// Those that do something.
    steps: Vec<Checked>,
}

/// What is done with what is bound to a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) is_written: bool,
    is_used: bool,
    /// A kernel sees it.
    is_bound: bool,
    bytes_min: u64,
    /// The first step writes so many bytes from the first on.
    anew_bytes: Option<u64>,
}

#[derive(Debug)]
enum Checked {
    Run { ready: Arc<Ready>, grid: [u32; 3], slots: Vec<usize>, chunk_groups_max: u64 },
    Copy { from: Part, to: Part },
    Fill { at: Part, word: u32 },
}

/// Bytes of a buffer that are bound to a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Of the tenant.
    pub(super) store: u64,
    /// Of the first byte in the buffer.
    pub(super) offset: u64,
    /// On the device.
    pub(super) span: Span,
    pub(super) is_written: bool,
    /// It is written as a whole before anything reads it.
    pub(super) is_anew: bool,
}

/// What a graph is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) kind: Kind,
    pub(super) device: Limits,
    pub(super) dispatch_groups: u64,
}

impl Bounds {
    /// Groups of a kernel that may be on the device at once, as cancelling does not end them.
    pub(super) fn chunk_groups_max(&self, ready: &Ready) -> u64 {
        // A tenth of a second or so, if one operation in ten reads what no cache has. The time
        // that a chunk takes is no bound: groups can be quick when they are measured, and slow
        // later.
        let operations_max = match self.kind {
            Kind::Software | Kind::Fake => 1 << 26,
            Kind::Integrated => 1 << 29,
            Kind::Discrete => 1_u64 << 32,
        };
        (operations_max / ready.kernel.stubborn_operations().max(1)).max(1)
    }
}

impl Graph {
    /// Checks all steps.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be done; a kernel is not there.
    pub(super) fn record(
        ops: &[Op],
        bounds: &Bounds,
        kernel: impl Fn(u64) -> Result<Arc<Ready>, Refused>,
    ) -> Result<Self, Refused> {
        let most = |what, found: usize, limit: usize| {
            let (found, limit, fix) = (found as u64, limit as u64, "make several graphs of it");
            if found > limit { Err(Refused::Limit { what, found, limit, fix }) } else { Ok(()) }
        };
        most("steps of a graph", ops.len(), STEPS_MAX)?;
        let mut graph = Self::default();
        for (step, op) in ops.iter().enumerate() {
            let slots_max = slots_max(op);
            most("slots of a graph", slots_max, SLOTS_MAX)?;
            graph.slots.resize(graph.slots.len().max(slots_max), Slot::default());
            let done = match op {
                Op::Dispatch { kernel: handle, grid, slots } => {
                    let ready = kernel(*handle)?;
                    let checked = check_grid(*grid, bounds);
                    let chunk_groups_max = bounds.chunk_groups_max(&ready);
                    checked.and_then(|()| graph.dispatch(ready, *grid, slots, chunk_groups_max))
                }
                Op::Copy { from, to } => graph.copy(*from, *to),
                Op::Fill { at, word } => graph.fill(*at, *word),
            };
            done.map_err(|why| Refused::Graph { step, why })?;
        }
        Ok(graph)
    }

    /// A copy between two slots of so many bytes, a multiple of 4.
    pub(super) fn of_copy(bytes: u64) -> Self {
        let part = |slot| Part { slot, offset: 0, bytes };
        let mut graph = Self { slots: vec![Slot::default(); 2], steps: Vec::new() };
        graph.copy(part(0), part(1)).expect("both parts are words from 0 on");
        graph
    }

    /// Whether the steps can be done with what is bound, one for each slot.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn check(&self, bound: &[Bound], limits: &Limits) -> Result<(), Refused> {
        for (at, (slot, bound)) in self.slots.iter().zip(bound).enumerate() {
            slot.check(bound, limits).map_err(|why| Refused::Binding { slot: at, why })?;
        }
        for step in &self.steps {
            let met = match step {
                Checked::Run { ready, slots, .. } => overlap(ready, slots, bound),
                Checked::Copy { from, to } => {
                    let [one, other] = [from, to].map(|part| span(bound, part));
                    one.overlaps(&other).then_some(to.slot as usize)
                }
                Checked::Fill { .. } => None,
            };
            if let Some(slot) = met {
                let why = "what is bound overlaps what else a step uses, and one of the two is \
                           written: copy it first";
                return Err(Refused::Binding { slot, why: why.to_owned() });
            }
        }
        Ok(())
    }

    /// What is to be done, in its order, as it is scheduled.
    pub(super) fn work(&self) -> impl ExactSizeIterator<Item = Work> {
        self.steps.iter().map(|step| {
            let (kernel, grid, chunk_groups_max) = match step {
                Checked::Run { ready, grid, chunk_groups_max, .. } => {
                    (ready.kernel.hash(), *grid, *chunk_groups_max)
                }
                Checked::Copy { from, .. } => (COPY, units(from.bytes), u64::MAX),
                Checked::Fill { at, .. } => (FILL, units(at.bytes), u64::MAX),
            };
            Work { kernel, grid, is_whole: false, chunk_groups_max }
        })
    }

    /// What a step runs, if it is a dispatch.
    pub(super) fn kernel(&self, step: usize) -> Option<[u8; 32]> {
        match self.steps.get(step)? {
            Checked::Run { ready, .. } => Some(ready.kernel.hash()),
            Checked::Copy { .. } | Checked::Fill { .. } => None,
        }
    }

    /// A piece of a step for the device. None if there is no such step.
    pub(super) fn piece(
        &self,
        step: usize,
        bound: &[Bound],
        chunk: &Chunk,
        fuel: u32,
    ) -> Option<Step> {
        Some(match self.steps.get(step)? {
            Checked::Run { ready, grid, slots, .. } => Step::Run(Run {
                kernel: ready.loaded,
                bindings: slots.iter().map(|slot| bound[*slot].span).collect(),
                grid: *grid,
                from: chunk.from,
                groups: chunk.groups,
                fuel,
            }),
            Checked::Copy { from, to } => {
                let to = cut(span(bound, to), chunk);
                let from = cut(span(bound, from), chunk);
                Step::Copy { from, to: to.block, offset: to.offset }
            }
            Checked::Fill { at, word } => {
                Step::Fill { at: cut(span(bound, at), chunk), word: *word }
            }
        })
    }

    fn dispatch(
        &mut self,
        ready: Arc<Ready>,
        grid: [u32; 3],
        slots: &[u32],
        chunk_groups_max: u64,
    ) -> Result<(), String> {
        let wanted = ready.kernel.slots();
        if wanted.len() != slots.len() {
            return Err(format!("{} slots for {} of the kernel", slots.len(), wanted.len()));
        }
        let slots: Vec<usize> = slots.iter().map(|slot| *slot as usize).collect();
        for (want, slot) in wanted.iter().zip(&slots) {
            let slot = &mut self.slots[*slot];
            slot.is_bound = true;
            slot.is_used = true;
            slot.is_written |= want.access == Access::ReadWrite;
            slot.bytes_min = slot.bytes_min.max(want.bytes_min).max(WORD_BYTES);
        }
        if !grid.contains(&0) {
            self.steps.push(Checked::Run { ready, grid, slots, chunk_groups_max });
        }
        Ok(())
    }

    fn copy(&mut self, from: Part, to: Part) -> Result<(), String> {
        if from.bytes != to.bytes {
            return Err(format!("{} bytes are copied to {}", from.bytes, to.bytes));
        }
        self.touch(from, false)?;
        self.touch(to, true)?;
        if from.bytes > 0 {
            self.steps.push(Checked::Copy { from, to });
        }
        Ok(())
    }

    fn fill(&mut self, at: Part, word: u32) -> Result<(), String> {
        self.touch(at, true)?;
        if at.bytes > 0 {
            self.steps.push(Checked::Fill { at, word });
        }
        Ok(())
    }

    /// A copy or a fill uses a part of a slot.
    fn touch(&mut self, part: Part, is_written: bool) -> Result<(), String> {
        let Part { slot, offset, bytes } = part;
        if !offset.is_multiple_of(WORD_BYTES) || !bytes.is_multiple_of(WORD_BYTES) {
            return Err(format!("{bytes} bytes from {offset} are no words of {WORD_BYTES} bytes"));
        }
        let end = offset.checked_add(bytes);
        let end = end.ok_or_else(|| format!("no buffer has {bytes} bytes from {offset}"))?;
        let slot = &mut self.slots[slot as usize];
        if !slot.is_used && is_written && offset == 0 {
            slot.anew_bytes = Some(bytes);
        }
        slot.is_used = true;
        slot.is_written |= is_written;
        slot.bytes_min = slot.bytes_min.max(end);
        Ok(())
    }
}

impl Slot {
    /// Whether so many bytes are all written before anything reads them.
    pub(super) fn is_anew(&self, bytes: u64) -> bool {
        self.anew_bytes == Some(bytes)
    }

    fn check(&self, bound: &Bound, limits: &Limits) -> Result<(), String> {
        let Bound { offset, span: Span { bytes, .. }, .. } = *bound;
        if bytes < self.bytes_min {
            return Err(format!("{bytes} bytes, at least {}", self.bytes_min));
        }
        if self.is_bound && !offset.is_multiple_of(limits.offset_bytes.max(1)) {
            return Err(format!("the offset {offset} is no multiple of {}", limits.offset_bytes));
        }
        if self.is_bound && bytes > limits.binding_bytes {
            let most = limits.binding_bytes;
            return Err(format!("{bytes} bytes, a kernel takes at most {most}: bind a part"));
        }
        Ok(())
    }
}

/// Behind the last slot that a step names.
fn slots_max(op: &Op) -> usize {
    let last = match op {
        Op::Dispatch { slots, .. } => slots.iter().copied().max(),
        Op::Copy { from, to } => Some(from.slot.max(to.slot)),
        Op::Fill { at, .. } => Some(at.slot),
    };
    last.map_or(0, |last| last as usize + 1)
}

fn check_grid(grid: [u32; 3], bounds: &Bounds) -> Result<(), String> {
    let axis_max = bounds.device.groups;
    if let Some(groups) = grid.iter().find(|groups| **groups > axis_max) {
        return Err(format!("{groups} groups on an axis, at most {axis_max}: use more axes"));
    }
    let groups = grid.iter().fold(1_u64, |all, groups| all.saturating_mul((*groups).into()));
    // The most that there is stands for all that cannot be counted.
    let most = bounds.dispatch_groups.min(u64::MAX - 1);
    if groups > most {
        return Err(format!("{groups} groups, at most {most}: use several dispatches"));
    }
    Ok(())
}

/// A slot of the graph that a kernel would use together with another that it overlaps, and one of
/// the two is written.
fn overlap(ready: &Ready, slots: &[usize], bound: &[Bound]) -> Option<usize> {
    let is_written = |at: usize| ready.kernel.slots()[at].access == Access::ReadWrite;
    let meets = |at: usize, other: usize| {
        let is_written = is_written(at) || is_written(other);
        is_written && bound[slots[at]].span.overlaps(&bound[slots[other]].span)
    };
    let met = (0..slots.len()).find(|at| (0..*at).any(|other| meets(*at, other)));
    met.map(|at| slots[at])
}

/// Where a part is that was checked.
fn span(bound: &[Bound], part: &Part) -> Span {
    let Span { block, offset, .. } = bound[part.slot as usize].span;
    Span { block, offset: offset + part.offset, bytes: part.bytes }
}

fn units(bytes: u64) -> [u32; 3] {
    // 2⁴⁸ bytes are in no buffer.
    [u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX), 1, 1]
}

/// The units of a chunk.
fn cut(all: Span, chunk: &Chunk) -> Span {
    let from = u64::from(chunk.from[0]) * UNIT_BYTES;
    let end = (from + u64::from(chunk.groups[0]) * UNIT_BYTES).min(all.bytes);
    Span { block: all.block, offset: all.offset + from, bytes: end - from }
}
