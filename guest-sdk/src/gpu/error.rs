//! Why something could not be done on a device: the host's code, and a sentence for people.
//!
//! - The text is the host's as it is; a code is what stands before its first colon.
//! - Only what may pass by itself is to be tried again.

use std::fmt;

use crate::failure::Failure;

/// What functions of this module give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors after which the same may work a little later.
const PASSING: [&str; 5] = ["gpu.lost", "gpu.hung", "gpu.would-block", "gpu.memory", "gpu.none"];

/// The host would not do what was asked of the device, and says why.
///
/// It turns into a [`Failure`] by `?`: of class retry if the cause may pass (the device was lost,
/// the queue or the memory is full, there is no device just now), else of class reject.
// No `std::error::Error`, as the conversion from those is always to class reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    text: String,
}

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// What happened, such as `gpu.memory`; all codes are in the guide's list of errors.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text.split_once(':').map_or(self.text.as_str(), |(code, _)| code)
    }

    /// The reason, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, message)| message.trim_start())
    }

    /// The device or its process was lost: whatever was made before is over.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.code(), "gpu.lost" | "gpu.hung")
    }

    /// The stage has as many submissions as it may; some must end first.
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        self.code() == "gpu.would-block"
    }

    /// There is no memory of the device left for this tenant now.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.code() == "gpu.memory"
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if PASSING.contains(&error.code()) {
            return Self::retry(error.text);
        }
        Self::reject(error.text)
    }
}
