//! Whether steps can be done: all of them are looked at before the first is begun.
//!
//! Keeps true: of what passes, each span is inside a block that is there, each run has a kernel
//! that is loaded and a span as each of its slots wants it, spans that are written overlap no other
//! of the same run, and each dispatch is one the device can do.

use super::{Block, Limits, Loaded, Run, Span, Step};
use crate::Error;
use crate::kernel::{Access, Slot};

/// What lengths and offsets are multiples of.
const WORD_BYTES: u64 = 4;

/// What a device has.
pub(crate) trait Stock {
    /// What one dispatch may be.
    fn limits(&self) -> &Limits;

    /// How large a block is, if it is there.
    fn block_bytes(&self, block: Block) -> Option<u64>;

    /// The slots of a kernel, if it is loaded.
    fn slots(&self, kernel: Loaded) -> Option<&[Slot]>;
}

/// Looks at all steps.
///
/// # Errors
/// What is wrong with the first that cannot be done.
pub(crate) fn check(steps: &[Step], stock: &impl Stock) -> Result<(), Error> {
    for (at, step) in steps.iter().enumerate() {
        let checked = match step {
            Step::Fill { at, .. } => words(*at, stock),
            Step::Copy { from, to, offset } => copy(*from, *to, *offset, stock),
            Step::Run(run) => check_run(run, stock),
        };
        checked.map_err(|why| Error::Wrong(format!("step {at}: {why}")))?;
    }
    Ok(())
}

/// Whether so many bytes of a block are there.
///
/// # Errors
/// The block is not, or is not as large.
pub(crate) fn inside(span: Span, stock: &impl Stock) -> Result<(), String> {
    let Span { block: Block(number), offset, bytes } = span;
    let Some(block_bytes) = stock.block_bytes(span.block) else {
        return Err(format!("there is no block {number}"));
    };
    match offset.checked_add(bytes) {
        Some(end) if end <= block_bytes => Ok(()),
        _ => Err(format!(
            "{bytes} bytes from {offset} are not in block {number}, which has {block_bytes}"
        )),
    }
}

fn words(span: Span, stock: &impl Stock) -> Result<(), String> {
    inside(span, stock)?;
    let Span { offset, bytes, .. } = span;
    if !offset.is_multiple_of(WORD_BYTES) || !bytes.is_multiple_of(WORD_BYTES) {
        return Err(format!("{bytes} bytes from {offset} are no words of {WORD_BYTES} bytes"));
    }
    Ok(())
}

fn copy(from: Span, to: Block, offset: u64, stock: &impl Stock) -> Result<(), String> {
    let to = Span { block: to, offset, bytes: from.bytes };
    words(from, stock)?;
    words(to, stock)?;
    if from.overlaps(&to) {
        return Err("what is copied overlaps where it goes".to_owned());
    }
    Ok(())
}

fn check_run(run: &Run, stock: &impl Stock) -> Result<(), String> {
    let Some(slots) = stock.slots(run.kernel) else {
        return Err(format!("there is no kernel {}", run.kernel.0));
    };
    if slots.len() != run.bindings.len() {
        return Err(format!("{} bindings for {} slots", run.bindings.len(), slots.len()));
    }
    for (slot, span) in slots.iter().zip(&run.bindings) {
        binding(slot, *span, stock).map_err(|why| format!("slot {}: {why}", slot.number))?;
    }
    for (at, (slot, span)) in slots.iter().zip(&run.bindings).enumerate() {
        for (other, theirs) in slots.iter().zip(&run.bindings).take(at) {
            let writes = [slot, other].iter().any(|slot| slot.access == Access::ReadWrite);
            if writes && span.overlaps(theirs) {
                let [one, other] = [other.number, slot.number];
                return Err(format!("slots {one} and {other} overlap, and one is written"));
            }
        }
    }
    let groups_max = stock.limits().groups;
    for axis in 0..3 {
        let (grid, from, groups) = (run.grid[axis], run.from[axis], run.groups[axis]);
        if grid > groups_max {
            return Err(format!("{grid} groups on axis {axis}, at most {groups_max}"));
        }
        if from.checked_add(groups).is_none_or(|end| end > grid) {
            return Err(format!("{groups} groups from {from} on axis {axis}, of {grid}"));
        }
    }
    Ok(())
}

fn binding(slot: &Slot, span: Span, stock: &impl Stock) -> Result<(), String> {
    words(span, stock)?;
    let Limits { binding_bytes, offset_bytes, .. } = *stock.limits();
    let Span { offset, bytes, .. } = span;
    if !offset.is_multiple_of(offset_bytes) {
        return Err(format!("the offset {offset} is no multiple of {offset_bytes}"));
    }
    if bytes < slot.bytes_min.max(WORD_BYTES) {
        return Err(format!("{bytes} bytes, at least {}", slot.bytes_min.max(WORD_BYTES)));
    }
    if bytes > binding_bytes {
        return Err(format!("{bytes} bytes, at most {binding_bytes}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
