//! The memory that bindings show: some blocks of bytes, and which part of which each binding has.
//!
//! Two bindings may show the same bytes. What is out of a binding reads as 0 and takes no writes.

/// Which part of which block a binding shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Which of the blocks.
    pub(crate) block: usize,
    /// Where in it the binding begins, in bytes.
    pub(crate) from: usize,
    /// How long it is. What is behind the largest offset is never reached.
    pub(crate) bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) blocks: Vec<Vec<u8>>,
    /// In the order of the program's bindings.
    pub(crate) bindings: Vec<Bound>,
}

impl Buffers {
    /// A word of a binding.
    pub(super) fn load(&self, binding: u32, offset: u32) -> u32 {
        let word = self.find(binding, offset).and_then(|(block, from)| {
            let bytes = self.blocks.get(block)?.get(from..)?;
            bytes.first_chunk().copied()
        });
        word.map_or(0, u32::from_le_bytes)
    }

    /// Changes a word of a binding.
    pub(super) fn store(&mut self, binding: u32, offset: u32, word: u32) {
        let Some((block, from)) = self.find(binding, offset) else {
            return;
        };
        let bytes = self.blocks.get_mut(block).and_then(|block| block.get_mut(from..));
        if let Some(bytes) = bytes.and_then(<[u8]>::first_chunk_mut) {
            *bytes = word.to_le_bytes();
        }
    }

    /// Whether a word is in range.
    pub(super) fn has(&self, binding: u32, offset: u32) -> bool {
        self.find(binding, offset).is_some()
    }

    /// How long a binding is.
    pub(super) fn bytes(&self, binding: u32) -> u32 {
        let bytes = self.bindings.get(binding as usize).map_or(0, |bound| bound.bytes);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// The block and the byte in it at which a word begins.
    fn find(&self, binding: u32, offset: u32) -> Option<(usize, usize)> {
        let bound = self.bindings.get(binding as usize)?;
        let offset = offset as usize;
        let is_inside = offset.checked_add(4)? <= bound.bytes;
        is_inside.then_some((bound.block, bound.from.checked_add(offset)?))
    }
}
