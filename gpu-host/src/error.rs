//! What can go wrong with a device, and which kind each is.

use sluicebox_core::error::{Classify, Kind};
use thiserror::Error;

/// See the module.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no device, or no driver.
    #[error("no GPU: {0}")]
    None(String),
    /// The device has no such memory left.
    #[error("the device has no {bytes} bytes of memory left")]
    Memory {
        /// As many were asked for.
        bytes: u64,
    },
    /// What was named is not there or out of its bounds.
    #[error("{0}")]
    Wrong(String),
    /// The driver refused.
    #[error("the driver: {0}")]
    Driver(String),
    /// The device has failed, and everything that was in it is gone.
    #[error("the device is lost: {0}")]
    Lost(String),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::None(_) | Self::Lost(_) => Kind::Unavailable,
            Self::Memory { .. } => Kind::Exhausted,
            Self::Wrong(_) => Kind::Invalid,
            Self::Driver(_) => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::None(_) => "gpu.none",
            Self::Memory { .. } => "gpu.memory",
            Self::Wrong(_) => "gpu.wrong",
            Self::Driver(_) => "gpu.driver",
            Self::Lost(_) => "gpu.lost",
        }
    }
}
