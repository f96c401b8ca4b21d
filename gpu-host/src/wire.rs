//! What a node and the process that has its device say to each other.
//!
//! ```text
//!  node ─► Ask { number, want } + bytes      ─► process
//!       ◄─ Reply { number, answer } + bytes  ◄─
//! ```
//!
//! One packet each: what is asked or answered, then the bytes that are written or were read. Both
//! are of one build, so that nothing says which version it is. Keeps true: what comes from the
//! other side is checked before it is believed.
//!
//! Leaves to others: how packets get there (the node), what is done (`serve`).

mod packet;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use packet::{ASK_BYTES_MAX, Malformed, REPLY_BYTES_MAX};
#[cfg(any(test, feature = "contract"))]
pub use packet::{reread_ask, reread_reply};

use crate::device::Info;
use crate::host::{Binding, Op, Owner};
use crate::kernel::Slot;
use crate::slice::Stage;

/// Bytes behind the head of a packet at most: a picture of 1920 by 1080 points of 4 bytes fits.
pub const TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The first of a node's packets is of number 1, and each has its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// In its reply again.
    pub number: u64,
    /// What is asked for.
    pub want: Want,
}

/// What a node asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Want {
    /// Lets a tenant in, or gives it other terms.
    Tenant {
        /// By a number that is never used for another.
        tenant: u64,
        /// What it is promised.
        terms: Terms,
    },
    /// Has a tenant go.
    CloseTenant {
        /// Which.
        tenant: u64,
    },
    /// Gives a tenant a stage.
    Stage {
        /// Which.
        stage: Stage,
        /// Its share beside the tenant's other stages.
        weight: u32,
    },
    /// Has a stage go.
    CloseStage {
        /// Which.
        stage: Stage,
    },
    /// Has an instance or a holder go, with all it has. What it has asked for is not answered any
    /// more, which holds for those of a stage or a tenant that goes as well.
    DropOwner {
        /// Which.
        owner: Owner,
    },
    /// A kernel of a tenant has hung a process before this one.
    Quarantine {
        /// Whose.
        tenant: u64,
        /// Its hash.
        kernel: [u8; 32],
    },
    /// What was used until now.
    Figures,
    /// Something that an instance asks for.
    Of(Owner, Act),
}

/// What a tenant is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Millionths of the device's time that it gets whenever it has enough to do.
    pub weight: u32,
    /// Millionths of it that it never gets more than.
    pub cap: Option<u32>,
    /// Memory that it can have at any time.
    pub guaranteed_bytes: u64,
    /// Memory that it may have besides while nobody needs it who is guaranteed it.
    pub borrowable_bytes: u64,
}

/// What an instance asks for. As the functions of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// [`Answer::Handle`].
    Create {
        /// How many.
        bytes: u64,
    },
    /// The bytes are the packet's. [`Answer::Done`].
    Write {
        /// Where to.
        buffer: u64,
        /// Of the first byte.
        offset: u64,
    },
    /// At most [`TAIL_BYTES_MAX`]. [`Answer::Done`], with the bytes.
    Read {
        /// Where from.
        buffer: u64,
        /// Of the first byte.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// [`Answer::Bytes`].
    Size {
        /// Of which.
        buffer: u64,
    },
    /// A constant that is there. [`Answer::Handle`], or [`Answer::Unknown`].
    FindConstant {
        /// Its blake3.
        hash: [u8; 32],
    },
    /// The next bytes of a constant that is not there, from the first on. [`Answer::Done`], and for
    /// the last of them [`Answer::Handle`].
    Constant {
        /// Its blake3.
        hash: [u8; 32],
        /// Of all of it.
        bytes: u64,
        /// Of the first byte of the packet.
        offset: u64,
    },
    /// The source is the packet's bytes. [`Answer::Handle`].
    Kernel {
        /// Its entry point.
        entry: String,
    },
    /// [`Answer::Slots`].
    Slots {
        /// Of which.
        kernel: u64,
    },
    /// [`Answer::Handle`].
    Record {
        /// In their order.
        steps: Vec<Op>,
    },
    /// [`Answer::Ended`] once it has. If it does not wait, [`Answer::Handle`] before that, of the
    /// same number: what is waited for has one packet back, as each wakes two threads.
    Submit {
        /// What.
        graph: u64,
        /// For each of its slots.
        bindings: Vec<Binding>,
        /// How long it may take from now on.
        time_max: Duration,
        /// It waits for a place of its stage, rather than being refused. An instance has one that
        /// does.
        waits: bool,
    },
    /// [`Answer::Done`].
    Cancel {
        /// Which.
        submission: u64,
    },
    /// A buffer is a holder's from now on, which goes with [`Want::DropOwner`] as any owner does.
    /// [`Answer::Done`].
    Attach {
        /// What.
        buffer: u64,
        /// The instance number of the holder, which is of the same stage.
        holder: u64,
    },
    /// [`Answer::Done`].
    Free {
        /// What.
        handle: u64,
    },
}

/// What the process answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Of what was asked. 0 is what nobody asked for.
    pub number: u64,
    /// The answer.
    pub answer: Answer,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// The process has its device: the first packet, and again whenever it has another.
    Begun {
        /// The device.
        info: Info,
        /// What handles are made with.
        generation: u32,
    },
    /// It was done.
    Done,
    /// There is none.
    Unknown,
    /// What was made.
    Handle(u64),
    /// How many.
    Bytes(u64),
    /// In ascending order of their numbers.
    Slots(Vec<Slot>),
    /// A submission has ended.
    Ended {
        /// How.
        end: End,
        /// Nanoseconds of the device that are charged for it.
        device_nanos: u64,
    },
    /// What was used.
    Figures(Figures),
    /// It was not done.
    Refused(Refusal),
    /// The device does not end what it does: nothing follows, and the process ends.
    Hung {
        /// The kernel it does.
        kernel: Option<[u8; 32]>,
        /// Whose it is.
        tenant: u64,
    },
}

/// How a submission ended, see [`host::End`](crate::host::End).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// One before it did not end whole.
    Poisoned,
    /// The device refused a step of it.
    Refused,
    /// The device was lost.
    Lost,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A code of the guide.
    pub code: String,
    /// For people, at most 1 KiB.
    pub text: String,
}

/// What was used of a device until now, in sums that only grow but for what is held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Nanoseconds in which the device worked.
    pub busy_nanos: u64,
    /// Nanoseconds that copies to it and from it took.
    pub copy_nanos: u64,
    /// By tenant.
    pub tenants: Vec<TenantFigures>,
}

/// What a tenant has used until now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TenantFigures {
    /// Which.
    pub tenant: u64,
    /// Of all its stages, those that are gone too.
    pub used: Used,
    /// Device memory that it holds now.
    pub held_bytes: u64,
    /// Of these, bytes of constants that nobody has a handle of.
    pub kept_bytes: u64,
    /// Such constants that have made room for something else.
    pub evictions: u64,
    /// Buffers in borrowed memory that was given to whom it was promised.
    pub recalls: u64,
    /// Bytes of memory times seconds for which they were held.
    pub memory_byte_seconds: u64,
    /// Handles it has.
    pub handles: u64,
    /// Of the stages there are. What all of them have together is no more than the tenant has: the
    /// rest is what they share, and what those had that are gone.
    pub stages: Vec<StageFigures>,
}

/// What a stage has used until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StageFigures {
    /// Its number.
    pub stage: u32,
    /// What it has used.
    pub used: Used,
    /// Device memory that its buffers take.
    pub held_bytes: u64,
    /// Bytes of it times seconds for which they were taken.
    pub memory_byte_seconds: u64,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    /// Nanoseconds of the device.
    pub device_nanos: u64,
    /// Pieces of work.
    pub chunks: u64,
    /// Nanoseconds that copies took. They count against a share as those of the device do.
    pub copy_nanos: u64,
    /// Bytes that were written to it.
    pub up_bytes: u64,
    /// Bytes that were read from it.
    pub down_bytes: u64,
    /// Submissions that have not ended.
    pub queued: u64,
}
