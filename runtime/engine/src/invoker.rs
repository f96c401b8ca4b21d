//! The contract of "run this call in that stage"; the rest of the runtime knows only this.
//!
//! An [`Invoker`] stands for one stage in one partition. It keeps whatever makes a call quick
//! (warm instances, one instance a key or stream) and promises:
//! - the limits of the stage hold, whatever the guest does;
//! - a call that traps leaves no trace but its verdict: the instance is gone, the layer comes back;
//! - for a pure guest, equal events and state give an equal outcome;
//! - what was refused because others use it is told, as it may go otherwise later;
//! - the future is never dropped half-way but to abandon the partition;
//! - an instance that goes on from an image does what the one would have done that it was taken of;
//! - one that goes on from a snapshot was given what the stage said of the other, byte for byte.
//!
//! Implementations: [`crate::wasm::WasmStage`], and [`crate::native::NativeStage`] for tests and
//! simulation. `contract` holds what each must pass.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use sluicebox_core::image::Image;
use sluicebox_core::layer::Layer;
use sluicebox_core::partition::{Serves, Verdict};

/// One call to make.
#[derive(Debug)]
pub struct Invocation {
    /// Which instance may take it.
    pub serves: Serves,
    /// The events, and what the call may do.
    pub layer: Box<Layer>,
    /// The instance is not needed after this call.
    pub last: bool,
    /// What the guest sees as wall clock: microseconds since 1970, fixed for the batch.
    pub time: u64,
    /// What the guest's randomness grows from.
    pub seed: u64,
}

/// What a call came to.
#[derive(Debug)]
pub struct Outcome {
    /// As given, with what the call did.
    pub layer: Box<Layer>,
    /// Returned with failures, or trapped.
    pub verdict: Verdict,
    /// What it cost.
    pub usage: Usage,
    /// What the guest said, in order.
    pub said: Said,
}

/// What a call cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel used by the guest, host work charged to it included.
    pub fuel: u64,
    /// Bytes of all memories and tables of the instance after the call; 0 if it is gone.
    pub memory_bytes: u64,
    /// An instance was made for this call.
    pub cold: bool,
    /// It was refused room: another time it may come to something else.
    pub short: Option<Short>,
}

/// Why there was no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// Others have it: memory, or a place to run in.
    Others,
    /// The tenant's quota of memory or the node's does not hold it, whatever others use.
    Quota,
}

/// Log lines and metrics of a call.
#[derive(Debug, Default)]
pub struct Said {
    /// Lines within the stage's limit.
    pub lines: Vec<LogLine>,
    /// Lines beyond it.
    pub lines_dropped: u64,
    /// Counters added to and gauges set.
    pub metrics: Vec<(String, Metric)>,
    /// Metrics refused: a bad name, or too many names.
    pub metrics_dropped: u64,
}

/// One line of a stage's log, at most 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How grave it is.
    pub level: LogLevel,
    /// The text, cut at its bound.
    pub text: String,
}

/// Levels of the WIT interface `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For whoever writes the stage.
    Debug,
    /// Worth noting; standard output and error arrive as this.
    Info,
    /// Should be looked at.
    Warn,
    /// Must be looked at.
    Error,
}

/// One use of the WIT interface `metrics`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Added to a counter.
    Count(u64),
    /// Set a gauge.
    Gauge(f64),
}

/// A call in progress. Runs on the worker's own thread only.
pub type Invoking<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Why an instance has no image, or none can be made from one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoImage {
    /// Nobody is served by an instance: it ended, or never was.
    #[error("there is no instance")]
    NoInstance,
    /// No instance of this code can have one, and why. The same for every instance, at any time.
    #[error("no image can be taken: {0}")]
    Unsupported(String),
    /// The instance holds something of the host's that memory is only half of. Later it may not.
    #[error("the instance holds handles of WASI other than its standard streams")]
    OpenHandles,
    /// The image would be larger than [`IMAGE_BYTES_MAX`](sluicebox_core::limits::IMAGE_BYTES_MAX).
    #[error("the image would have more than {} bytes", sluicebox_core::limits::IMAGE_BYTES_MAX)]
    TooLarge,
    /// The stage itself gave no snapshot, or took none, and why.
    #[error("{0}")]
    Refused(String),
    /// It did not work this time: there was no room, because of others or of a quota.
    #[error("{0}")]
    NoRoom(String),
    /// It did not work: a limit, an error of the engine, or bytes that are no image of this code.
    #[error("{0}")]
    Failed(String),
}

/// An image being taken. Runs on the worker's own thread only.
pub type Capturing<'a> = Pin<Box<dyn Future<Output = Result<Image, NoImage>> + 'a>>;

/// A snapshot being taken. Runs on the worker's own thread only.
pub type Snapshotting<'a> = Pin<Box<dyn Future<Output = Result<Bytes, NoImage>> + 'a>>;

/// An instance being made from an image or a snapshot. Runs on the worker's own thread only.
pub type Reviving<'a> = Pin<Box<dyn Future<Output = Result<(), NoImage>> + 'a>>;

/// Instances being put away. Runs on the worker's own thread only.
pub type PuttingAway<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// See the module.
pub trait Invoker: fmt::Debug {
    /// Makes one call.
    fn invoke(&mut self, invocation: Invocation) -> Invoking<'_>;

    /// Takes the image of the instance that serves this key or stream. Between two calls only; the
    /// instance stays as it is and may be called again. Where the image is what the stage says
    /// itself, the instance goes: from then on nobody is what it was, but for whoever goes on from
    /// the image.
    fn capture<'a>(&'a mut self, serves: &'a Serves) -> Capturing<'a>;

    /// Makes an instance for this key or stream that goes on from an image, in place of the one
    /// that serves it. It has the limits, quotas and permits of any other. If that does not work,
    /// nobody serves the key or stream any more.
    fn revive<'a>(&'a mut self, serves: Serves, image: &'a Image) -> Reviving<'a>;

    /// Asks the stage what another instance needs to go on as the one that serves this key or
    /// stream, in bytes of its own. Between two calls only.
    fn snapshot<'a>(&'a mut self, serves: &'a Serves) -> Snapshotting<'a>;

    /// Makes an instance for this key or stream that goes on from a snapshot, which other code may
    /// have given; else as [`Invoker::revive`].
    fn restore(&mut self, serves: Serves, snapshot: Bytes) -> Reviving<'_>;

    /// Whether an instance serves this key or stream, or would if it was called.
    fn holds(&self, serves: &Serves) -> bool;

    /// Drops the instance that serves this key or stream, if there is one.
    fn drop_instance(&mut self, serves: &Serves);

    /// Says that instances of streams are made again when they are gone, and drops those of keys
    /// and streams that are more than `most`, the least recently used first. From then on they
    /// also make room for others where the tenant may have no more.
    fn spare(&mut self, most: usize);

    /// Drops every instance that only saves time. Those of open streams stay.
    fn trim(&mut self);

    /// Puts instances of open streams away that are not made again from anything else, if they can
    /// be: they cost less then, and are as they were when they are called next. Between two calls.
    fn put_away(&mut self) -> PuttingAway<'_>;

    /// Drops the instances of streams as well: their state is abandoned.
    fn abandon(&mut self);

    /// Live instances, for the people who watch.
    fn live(&self) -> usize;
}
