//! Why a host does not do what a tenant asks for, and which kind and code each is.

use sluicebox_core::error::{Classify, Kind};
use thiserror::Error;

use crate::Error;
use crate::kernel::Rejected;
use crate::{ledger, slice};

/// See the module. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The number is no handle of this owner.
    #[error("this owner has no {what} {handle:#x}: it was dropped, attached or never made")]
    Handle {
        /// What it was to be.
        what: &'static str,
        /// The number.
        handle: u64,
    },
    /// What the handle stood for went with a device that was lost.
    #[error(
        "the device was lost since {handle:#x} was made, with all that was in it: make it anew"
    )]
    Lost {
        /// The number.
        handle: u64,
    },
    /// It was in memory that its tenant had borrowed, and that another was promised.
    #[error(
        "{handle:#x} was in borrowed memory that another tenant is guaranteed, and is gone: make \
         it anew, or have more memory guaranteed"
    )]
    Recalled {
        /// The number.
        handle: u64,
    },
    /// There is no such tenant, or it is to go.
    #[error("there is no tenant {0}, or it is being closed")]
    Tenant(u64),
    /// There is no such stage, or it is to go.
    #[error("there is no stage {0} of the tenant, or it is being closed")]
    Stage(u32),
    /// Other tenants are promised too much, or a term is out of its bounds.
    #[error("{0}")]
    Slice(#[from] slice::Refused),
    /// Memory is not there for the tenant.
    #[error("{bytes} bytes of device memory: {why}")]
    Memory {
        /// What was asked for, or guaranteed.
        bytes: u64,
        /// What the ledger says.
        why: ledger::Refused,
    },
    /// There is more of something than the tenant may have.
    #[error("{found} {what}, at most {limit}: {fix}")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much it would be.
        found: u64,
        /// How much it may be.
        limit: u64,
        /// What helps.
        fix: &'static str,
    },
    /// Would block: the stage has as many submissions as it may. Some must end first.
    #[error("the stage has {0} submissions, as many as it may: wait until one has ended")]
    WouldBlock(u64),
    /// Bytes that are not in a buffer, or a number of them that is none for a buffer.
    #[error("{bytes} bytes from {offset}: {why}")]
    Range {
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
        /// What is wrong with them.
        why: &'static str,
    },
    /// Submissions that have not ended use the buffer.
    #[error("submissions that have not ended use buffer {0:#x}: wait until they have")]
    Busy(u64),
    /// A submission that did not end whole has written to these bytes.
    #[error("buffer {0:#x} was left half written by a submission that was ended: write it anew")]
    Poisoned(u64),
    /// A constant, or what is attached to an event, was to be written.
    #[error("{0:#x} is a constant or attached to an event, which nothing writes: copy it")]
    ReadOnly(u64),
    /// The bytes of a constant are not those of its hash.
    #[error("the bytes of the constant do not have the hash it was given: it is their blake3")]
    Constant,
    /// A buffer was to be held for another stage.
    #[error("a buffer is held for its own stage only: read it, and emit its bytes")]
    Foreign,
    /// A step of a graph cannot be done.
    #[error("step {step}: {why}")]
    Graph {
        /// Counted from 0.
        step: usize,
        /// What is wrong with it.
        why: String,
    },
    /// What is bound to a slot of a graph does not fit.
    #[error("slot {slot}: {why}")]
    Binding {
        /// Of the graph.
        slot: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel has hung the device before.
    #[error("the kernel has hung the device before and is not run again: have its loops end")]
    Quarantined,
    /// The kernel is not accepted.
    #[error("{0}")]
    Kernel(#[from] Rejected),
    /// The device does not do it.
    #[error("{0}")]
    Device(#[from] Error),
    /// The device does not answer any more, and the process has to end.
    #[error("the device has hung: all that was in it is lost, try again in a while")]
    Hung,
}

impl Classify for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Handle { .. } | Self::Tenant(_) | Self::Stage(_) => Kind::NotFound,
            Self::Lost { .. } | Self::Recalled { .. } | Self::Hung => Kind::Unavailable,
            Self::Slice(why) => slice_kind(*why),
            Self::Memory { .. } | Self::Limit { .. } | Self::WouldBlock(_) => Kind::Exhausted,
            Self::Range { .. }
            | Self::ReadOnly(_)
            | Self::Constant
            | Self::Graph { .. }
            | Self::Binding { .. } => Kind::Invalid,
            Self::Busy(_) | Self::Poisoned(_) => Kind::Conflict,
            Self::Foreign | Self::Quarantined => Kind::Denied,
            Self::Kernel(why) => why.kind(),
            Self::Device(why) => why.kind(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Handle { .. } => "gpu.handle",
            Self::Lost { .. } | Self::Recalled { .. } => "gpu.lost",
            Self::Tenant(_) => "gpu.tenant",
            Self::Stage(_) | Self::Slice(slice::Refused::Unknown) => "gpu.stage",
            Self::Slice(slice::Refused::Exists) => "gpu.exists",
            Self::Slice(slice::Refused::Terms) => "gpu.terms",
            Self::Slice(slice::Refused::Oversold)
            | Self::Memory { why: ledger::Refused::Oversold, .. } => "gpu.oversold",
            Self::Memory { .. } => "gpu.memory",
            Self::Limit { .. } | Self::Slice(slice::Refused::TooMany) => "gpu.limit",
            Self::WouldBlock(_) | Self::Slice(slice::Refused::Full) => "gpu.would-block",
            Self::Range { .. } => "gpu.range",
            Self::Busy(_) => "gpu.busy",
            Self::Poisoned(_) => "gpu.poisoned",
            Self::ReadOnly(_) => "gpu.read-only",
            Self::Constant => "gpu.constant",
            Self::Foreign => "gpu.foreign",
            Self::Graph { .. } | Self::Slice(slice::Refused::Grid) => "gpu.graph",
            Self::Binding { .. } => "gpu.binding",
            Self::Quarantined => "gpu.quarantined",
            Self::Kernel(why) => why.code(),
            Self::Device(why) => why.code(),
            Self::Hung => "gpu.hung",
        }
    }
}

fn slice_kind(why: slice::Refused) -> Kind {
    match why {
        slice::Refused::Full | slice::Refused::TooMany | slice::Refused::Oversold => {
            Kind::Exhausted
        }
        slice::Refused::Unknown => Kind::NotFound,
        slice::Refused::Exists => Kind::Conflict,
        slice::Refused::Terms | slice::Refused::Grid => Kind::Invalid,
    }
}
