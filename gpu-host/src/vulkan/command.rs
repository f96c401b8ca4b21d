//! What a recording can hold: steps with the memory and the kernels they name, kept alive by them.
//!
//! Keeps true: a part is inside its buffer; a fill is of words; a copy does not overlap where it
//! goes; a dispatch has a part for each slot of its kernel, and its groups are in its grid. Callers
//! have checked that before (`device::check`): to come here with anything else is a bug, and a
//! panic.

use std::sync::Arc;

use super::buffer::Buffer;
use super::pipeline::Pipeline;
use crate::kernel::Access;

/// Some bytes of a buffer.
#[derive(Debug, Clone)]
pub(super) struct Part {
    buffer: Arc<Buffer>,
    offset: u64,
    bytes: u64,
}

impl Part {
    pub(super) fn new(buffer: &Arc<Buffer>, offset: u64, bytes: u64) -> Self {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= buffer.bytes()), "a part is inside its buffer");
        Self { buffer: Arc::clone(buffer), offset, bytes }
    }

    /// All of a buffer.
    pub(super) fn all(buffer: &Arc<Buffer>) -> Self {
        Self::new(buffer, 0, buffer.bytes())
    }

    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether one of so many bytes of a buffer is in it.
    fn meets(&self, buffer: &Arc<Buffer>, offset: u64, bytes: u64) -> bool {
        let from = self.offset.max(offset);
        let to = (self.offset + self.bytes).min(offset.saturating_add(bytes));
        Arc::ptr_eq(&self.buffer, buffer) && from < to
    }
}

/// One step. All that are recorded come one after the other.
#[derive(Debug)]
pub(super) enum Command {
    Fill { at: Part, word: u32 },
    Copy { from: Part, to: Part },
    Run(Dispatch),
}

impl Command {
    pub(super) fn fill(at: Part, word: u32) -> Self {
        let is_words = at.offset.is_multiple_of(4) && at.bytes.is_multiple_of(4);
        assert!(is_words, "a fill is of words");
        Self::Fill { at, word }
    }

    pub(super) fn copy(from: Part, to: Part) -> Self {
        assert_eq!(from.bytes, to.bytes, "as much goes as comes");
        let overlaps = from.meets(&to.buffer, to.offset, to.bytes);
        assert!(!overlaps, "what is copied does not overlap where it goes");
        Self::Copy { from, to }
    }

    /// Whether it reads, or writes, one of so many bytes of a buffer.
    pub(super) fn uses(&self, buffer: &Arc<Buffer>, offset: u64, bytes: u64) -> [bool; 2] {
        let meets = |part: &Part| part.meets(buffer, offset, bytes);
        match self {
            Self::Fill { at, .. } => [false, meets(at)],
            Self::Copy { from, to } => [meets(from), meets(to)],
            Self::Run(dispatch) => {
                let slots = dispatch.pipeline.slots().iter().zip(&dispatch.bindings);
                let met = slots.filter(|(_, part)| meets(part));
                met.fold([false, false], |[_, writes], (slot, _)| {
                    [true, writes || slot.access == Access::ReadWrite]
                })
            }
        }
    }
}

/// Some groups of a dispatch.
#[derive(Debug)]
pub(super) struct Dispatch {
    pipeline: Arc<Pipeline>,
    bindings: Vec<Part>,
    pub(super) groups: Groups,
    pub(super) fuel: u32,
}

/// Which groups, of how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub(super) grid: [u32; 3],
    pub(super) from: [u32; 3],
    pub(super) count: [u32; 3],
}

impl Groups {
    /// None at all.
    pub(super) const NONE: Self = Self { grid: [0; 3], from: [0; 3], count: [0; 3] };

    fn is_inside(&self) -> bool {
        (0..3).all(|axis| {
            let end = self.from[axis].checked_add(self.count[axis]);
            end.is_some_and(|end| end <= self.grid[axis])
        })
    }
}

impl Dispatch {
    pub(super) fn new(
        pipeline: &Arc<Pipeline>,
        bindings: Vec<Part>,
        groups: Groups,
        fuel: u32,
    ) -> Self {
        assert_eq!(pipeline.slots().len(), bindings.len(), "a part for each slot");
        assert!(groups.is_inside(), "the groups are in the grid");
        Self { pipeline: Arc::clone(pipeline), bindings, groups, fuel }
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    pub(super) fn bindings(&self) -> &[Part] {
        &self.bindings
    }
}
