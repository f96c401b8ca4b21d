//! What a stage author needs, and nothing of the host.
//!
//! A stage is a function; one attribute makes a component of it:
//!
//! ```
//! use sluicebox_guest::{Event, Output, Result, stage};
//!
//! #[stage]
//! fn upper(event: Event<'_>, out: &mut Output) -> Result {
//!     out.emit(&event, event.text()?.to_uppercase());
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2` as a `cdylib`. Other forms are a
//! function over all events of a call ([`Events`]), over payloads read as JSON ([`Json`]) and, for
//! a stage that keeps what it knows in local variables from the first event of a stream to its
//! end, an async function over an [`EventStream`] with [`stream`](macro@stream).
//!
//! - Receiving and emitting events allocates nothing for an event.
//! - A stage sees the host only through this crate: its state ([`Event::state`], [`StateBatch`]),
//!   its timers ([`Event::timers`]) and the time ([`watermark`], [`now`]), [`config`], [`assets`],
//!   [`log`], [`metrics`] and, if it is granted one, a GPU ([`gpu`]).
//! - The crate is of the world `sluicebox:stage/stage` 0.1 in `wit/`; it imports no crate of the
//!   runtime.
//!
//! In a native build the same stage runs in the harness of [`testing`], so its tests are plain
//! `cargo test`. Guests are built with `panic = "abort"`: a panic ends the call, its message is in
//! the stage's log.

#[doc(hidden)]
pub mod __private;
pub mod assets;
pub mod config;
pub mod dedup;
mod event;
mod failure;
mod frame;
pub mod gpu;
mod host;
pub mod join;
mod json;
mod kept;
mod keyed;
pub mod log;
mod memory;
pub mod metrics;
mod output;
pub mod pattern;
#[cfg(doctest)]
mod refusals;
mod stage;
mod state;
mod stream;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod timers;
pub mod window;

pub use sluicebox_guest_macros::{stage, stream};

pub use crate::event::{Event, Events, Fields, Iter, Kind, field};
pub use crate::failure::{Class, Failed, Failure, Outcome, Result};
pub use crate::json::Json;
pub use crate::kept::Kept;
pub use crate::memory::Memory;
pub use crate::output::{Attachment, Cause, Draft, Origin, Output};
pub use crate::stage::StageFunction;
pub use crate::state::{Refused, Replies, Reply, ReplyIter, State, StateBatch};
pub use crate::stream::{EventStream, StreamOutput};
pub use crate::timers::{Clock, Timers, now, watermark};

/// The examples of the README that are whole are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the guide on GPUs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/gpu.md")]
struct GpuGuide;
