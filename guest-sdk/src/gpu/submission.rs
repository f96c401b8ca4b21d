//! Steps under way, and how they ended.
//!
//! - A submission is waited for once: by who holds it, or when it is dropped.
//! - An outcome that is not whole is no error until it is asked to be one.

use std::time::Duration;

use super::{Error, Result};
use crate::host;

/// How a submission ended. What one that did not end whole should have written is there in part,
/// and cannot be read until it is written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was done.
    Whole,
    /// An invocation has used its fuel up.
    Fuel,
    /// It was to end.
    Cancelled,
    /// Its time was up.
    Deadline,
    /// It took far longer than such work does.
    Overdue,
    /// One before it, which was to write what it reads, did not end whole.
    Poisoned,
    /// The device refused a step of it.
    Refused,
    /// The device was lost: try the whole call again.
    Lost,
}

impl End {
    /// The word of it, as in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.words().0
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Whole => ("whole", "all was done"),
            Self::Fuel => ("fuel", "an invocation has used its fuel up: have its loops end"),
            Self::Cancelled => ("cancelled", "it was cancelled"),
            Self::Deadline => ("deadline", "its time was up"),
            Self::Overdue => ("overdue", "it took far longer than such work does"),
            Self::Poisoned => ("poisoned", "what it reads was left half written"),
            Self::Refused => ("refused", "the device refused a step of it"),
            Self::Lost => ("lost", "the device was lost meanwhile"),
        }
    }
}

/// What a submission came to.
#[must_use = "a submission that did not end whole has not written what it should have"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Time of the device that is charged for it.
    pub device_time: Duration,
}

impl Outcome {
    /// The time of the device, if all was done.
    ///
    /// # Errors
    ///
    /// It did not end whole: `gpu.lost` if the device was lost, else `gpu.ended`.
    pub fn whole(self) -> Result<Duration> {
        let (name, why) = self.end.words();
        match self.end {
            End::Whole => Ok(self.device_time),
            End::Lost => Err(Error::new(format!("gpu.lost: {why}"))),
            _ => Err(Error::new(format!("gpu.ended: the submission ended by `{name}`: {why}"))),
        }
    }
}

/// Steps under way. Made by [`Graph::try_submit`](super::Graph::try_submit). If it is dropped they
/// are cancelled, and have ended then.
#[derive(Debug)]
pub struct Submission {
    /// Nothing once it was waited for.
    handle: Option<u64>,
}

impl Submission {
    pub(super) fn new(handle: u64) -> Self {
        Self { handle: Some(handle) }
    }

    /// The host's number for it.
    ///
    /// It is over when the submission has been waited for.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.handle.unwrap_or_default()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// The device was lost before it could say how.
    pub fn wait(mut self) -> Result<Outcome> {
        let handle = self.handle.take().unwrap_or_default();
        host::gpu::wait(handle).map_err(Error::new)
    }

    /// Has it end soon. It may have ended already.
    ///
    /// # Errors
    ///
    /// The device was lost.
    pub fn cancel(&self) -> Result<()> {
        host::gpu::cancel(self.handle()).map_err(Error::new)
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // Its place in the stage's queue is free only when it was waited for.
            let _cancelled = host::gpu::cancel(handle);
            let _ended = host::gpu::wait(handle);
        }
    }
}
