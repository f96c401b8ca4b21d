//! What is said to a host, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::kernel::KernelLimits;
use crate::slice::{self, Cap, Stage, Tenant};

/// What holds for a whole host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How the device's time is given out.
    pub slices: slice::Settings,
    /// Memory is taken from the device, and counted, in pieces of so many bytes.
    pub block_bytes: u64,
    /// No more of the device's memory is used than this.
    pub memory_bytes_max: u64,
    /// How long a chunk may take at least before it is cancelled, whatever it was expected to.
    pub watch_time_min: Duration,
    /// How long a chunk may take at most, whatever it was expected to: what is expected is learnt
    /// from chunks that were ended for taking too long as well.
    pub watch_time_max: Duration,
    /// How long one that is cancelled may go on before the device counts as hung.
    pub end_time_max: Duration,
    /// How long after a try to have another device, which has failed, none is made: one takes
    /// long, and whoever asks for something has the host driven.
    pub renew_pause: Duration,
    /// Goes into all handles, modulo 2¹³. A process that takes another's place is given the next
    /// behind [`Host::generation`](super::Host::generation) of that, so that old handles are known
    /// as such.
    pub generation: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slices: slice::Settings::default(),
            block_bytes: 16 << 20,
            memory_bytes_max: u64::MAX,
            watch_time_min: Duration::from_millis(250),
            watch_time_max: Duration::from_secs(2),
            end_time_max: Duration::from_millis(250),
            renew_pause: Duration::from_millis(500),
            generation: 0,
        }
    }
}

/// What a tenant is promised, and held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantTerms {
    /// Millionths of the device's time that it gets whenever it has enough to do.
    pub weight: u32,
    /// Time that it never gets more than.
    pub cap: Option<Cap>,
    /// Memory that it can have at any time; counts in whole blocks.
    pub guaranteed_bytes: u64,
    /// Memory that it may have besides while nobody needs it who is guaranteed it.
    pub borrowable_bytes: u64,
    /// How much it may have of the rest.
    pub limits: TenantLimits,
}

/// How much a tenant may have of what is neither time nor memory of the device. Holds for what is
/// made from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// Kernels that are kept, those that were refused included. Those in use stay.
    pub kernels: usize,
    /// Handles of kernels.
    pub kernel_handles: usize,
    /// Buffers and handles of constants.
    pub buffers: usize,
    /// Graphs.
    pub graphs: usize,
    /// Submissions of a stage that were taken and whose end was not told.
    pub queue: usize,
    /// Workgroups of one dispatch.
    pub dispatch_groups: u64,
    /// Iterations of loops of one invocation. From 1024 on only multiples of it count.
    pub fuel: u32,
    /// What a kernel may be.
    pub kernel: KernelLimits,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            kernels: 128,
            kernel_handles: 1_024,
            buffers: 4_096,
            graphs: 256,
            queue: 16,
            dispatch_groups: 1 << 24,
            fuel: 1 << 22,
            kernel: KernelLimits::default(),
        }
    }
}

/// Who has something: an instance of a stage of a tenant. When it dies all it has goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// Whose time is charged.
    pub stage: Stage,
    /// Which of the stage's instances, by a number its host gives it.
    pub instance: u64,
}

impl Owner {
    /// Who pays.
    #[must_use]
    pub const fn tenant(&self) -> Tenant {
        self.stage.tenant
    }
}

/// Some bytes of what is bound to a slot of a graph. Both are multiples of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of the graph.
    pub slot: u32,
    /// Of the first byte in what is bound.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

/// A step of a graph as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Runs a kernel. A grid with an axis of 0 does nothing.
    Dispatch {
        /// A handle of it.
        kernel: u64,
        /// Workgroups on each axis.
        grid: [u32; 3],
        /// For each slot of the kernel, in its order, a slot of the graph.
        slots: Vec<u32>,
    },
    /// Copies as many bytes as both have.
    Copy {
        /// What.
        from: Part,
        /// Where to.
        to: Part,
    },
    /// Writes a word again and again.
    Fill {
        /// Where.
        at: Part,
        /// What.
        word: u32,
    },
}

/// Some bytes of a buffer, for a slot of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// A handle of it.
    pub buffer: u64,
    /// Of the first byte.
    pub offset: u64,
    /// How many; none are all that follow.
    pub bytes: Option<u64>,
}

impl Binding {
    /// All of a buffer.
    #[must_use]
    pub const fn whole(buffer: u64) -> Self {
        Self { buffer, offset: 0, bytes: None }
    }
}

/// What is to be done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A handle of the graph.
    pub graph: u64,
    /// For each of its slots.
    pub bindings: Vec<Binding>,
    /// When it is ended if it has not by itself.
    pub deadline: Option<Duration>,
}

/// How a submission ended. If not whole, what it has written is there in part, and poisoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All of it was done.
    Whole,
    /// An invocation has used its fuel up.
    Fuel,
    /// Its owner wanted it.
    Cancelled,
    /// Its deadline has passed.
    Deadline,
    /// A chunk of it took far longer than expected.
    Overdue,
    /// One before it, which was to write what it uses, did not end whole.
    Poisoned,
    /// The device refused a step of it.
    Refused(Error),
    /// The device was lost.
    Lost,
    /// Memory that it uses was borrowed, and another tenant was given it that it was promised.
    Recalled,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A submission has ended; its handle is over.
    Ended {
        /// Whose it is.
        owner: Owner,
        /// Its handle.
        submission: u64,
        /// How.
        end: End,
        /// Nanoseconds of the device that were charged for it.
        device_nanos: u128,
    },
    /// A stage is gone.
    StageClosed {
        /// Which.
        stage: Stage,
        /// All it has used.
        bill: Bill,
    },
    /// A tenant is gone, with all it had.
    Closed {
        /// Which.
        tenant: Tenant,
        /// All it has to pay for.
        bill: Bill,
    },
}

/// What was used of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Nanoseconds of the device.
    pub device_nanos: u128,
    /// Pieces of work in which it was used.
    pub chunks: u64,
    /// Nanoseconds that copies there and back took. They count against a share as those of the
    /// device do.
    pub copy_nanos: u128,
    /// Bytes that were written to it.
    pub up_bytes: u64,
    /// Bytes that were read from it.
    pub down_bytes: u64,
}

/// What is to be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bill {
    /// Time and transfers.
    pub used: Used,
    /// Bytes of memory times nanoseconds for which they were taken.
    pub memory_byte_nanos: u128,
}

/// How a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Which.
    pub tenant: Tenant,
    /// What it has to pay for until now.
    pub bill: Bill,
    /// Memory that it holds, as it is billed.
    pub held_bytes: u64,
    /// Of these, bytes of constants that nobody has a handle of.
    pub kept_bytes: u64,
    /// Such constants that have made room for something else.
    pub evictions: u64,
    /// Buffers in borrowed memory that was given to whom it was promised.
    pub recalls: u64,
    /// Handles of buffers, constants, kernels and graphs.
    pub handles: usize,
    /// In ascending order of their numbers.
    pub stages: Vec<StageFigures>,
}

/// How a stage stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageFigures {
    /// Which.
    pub stage: Stage,
    /// What it has used until now. What all stages share is in the tenant's bill alone.
    pub bill: Bill,
    /// Memory that its buffers take.
    pub held_bytes: u64,
    /// Submissions that were taken and whose end was not told.
    pub queue: usize,
}

/// How it stands after a turn of the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is nothing to do until something is asked for.
    Idle,
    /// Nothing is on the device, and nothing is to be done before this moment.
    Later(Duration),
    /// The device works: to be called again now.
    Busy,
    /// The device does not end what it does. The process has to, and the kernel is to be
    /// quarantined in the next ([`Host::quarantine`](super::Host::quarantine)).
    Hung {
        /// What it does; none is a copy or a fill.
        kernel: Option<[u8; 32]>,
        /// Whose it is.
        tenant: Tenant,
    },
    /// The device was lost and there is no other. To be called again in a while: another is not
    /// tried for at each call ([`Settings::renew_pause`]).
    Gone(Error),
}
