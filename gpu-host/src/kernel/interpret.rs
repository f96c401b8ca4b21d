//! Runs a checked kernel on the processor, with no driver at all.
//!
//! ```text
//! naga's module ─► lower ─► Program ─► Execution ─► Group ─► run
//!                 (once)    (flat      (some groups (all      (one invocation, up to a
//!                            code)      in turn)     invocations)  barrier or its end)
//! ```
//!
//! Keeps true:
//! - What it does not know is an error that names it, before anything is run. No program that was
//!   made panics.
//! - Reads out of range give 0 and writes out of range vanish, in every address space, by the index
//!   in its own array and not only by the end of the memory.
//! - It is deterministic: invocations of a group run one after the other, each up to a barrier that
//!   all of them must reach; groups run one after the other, the first axis fastest.
//! - It can be stopped between any two operations and go on later: that is how time passes.
//! - What one group needs is bounded (`WORDS_MAX`), whatever the source says.
//!
//! WGSL forbids recursion, so each function has its variables and values at fixed places, as in
//! early Fortran, and an operand is nothing but a place. Where WGSL leaves the precision open, it
//! is that of `f32` in Rust.
//!
//! Leaves to others: fuel and cancelling, which are code of the program itself by then.

mod arithmetic;
mod buffers;
mod convert;
mod execution;
mod layout;
mod lower;
mod math;
mod packing;
mod program;
mod run;
mod vectors;

use thiserror::Error;

pub(crate) use buffers::{Bound, Buffers};
pub(crate) use execution::{Dispatch, Execution};
pub(crate) use program::Program;

use super::{CONTROL_GROUP, Kernel};

/// Words of all invocations of a group together, and of what they share: 64 MiB.
const WORDS_MAX: u32 = 1 << 24;

/// Why a kernel cannot be run, or not on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Stuck {
    /// The interpreter does not know it.
    #[error("the interpreter does not know {0}")]
    Unknown(String),
    /// A group needs more memory than there is.
    #[error("a group needs more than {WORDS_MAX} words of memory")]
    Large,
    /// Some invocations wait at a barrier which the others do not reach.
    #[error("a barrier is not reached by all invocations of a group")]
    Barrier,
}

impl Program {
    /// Makes a program of a kernel. Its bindings are the kernel's slots in their order, and the
    /// control buffer after them.
    ///
    /// # Errors
    /// What the interpreter does not know, or a group that is too large.
    pub(crate) fn of(kernel: &Kernel) -> Result<Self, Stuck> {
        let (module, info) = kernel.module();
        let mut bindings: Vec<_> = kernel.slots().iter().map(|slot| (0, slot.number)).collect();
        bindings.push((CONTROL_GROUP, 0));
        lower::lower(module, info, kernel.entry(), &bindings)
    }
}

#[cfg(test)]
mod tests;
