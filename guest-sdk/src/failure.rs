//! What a stage says about an event it could not handle.
//!
//! - A failure has a class, which tells the host whether trying again may help, and a message for
//!   the operator.
//! - Any standard error turns into a failure of class reject by `?`: a stage is given the same
//!   event again and again only if its author says that this may help.
//!
//! What the host does with a failure (retries, dead letter, halt) is in the pipeline's manifest.

use std::fmt;

/// What a stage function gives back: nothing, or why it failed.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// What the host should do with an event its stage could not handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Try again a few times: the cause may pass.
    Retry,
    /// Trying again cannot help.
    Reject,
}

/// Why an event could not be handled. Nothing the stage emitted or wrote for it stands.
///
/// ```
/// # use sluicebox_guest::{Event, Failure, Output, Result};
/// fn celsius(event: Event<'_>, out: &mut Output) -> Result {
///     let fahrenheit: f64 = event.text()?.trim().parse()?; // reject, with the parser's message
///     if fahrenheit < -459.67 {
///         return Err(Failure::reject("colder than cold can be"));
///     }
///     out.json(&event, &((fahrenheit - 32.0) / 1.8));
///     Ok(())
/// }
/// ```
// It deliberately does not implement `std::error::Error`: if it did, the conversion from every
// standard error below would overlap with the one from itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    class: Class,
    message: String,
}

impl Failure {
    /// The cause may pass: the host tries this event again, alone, as often as the manifest says.
    #[must_use]
    pub fn retry(message: impl Into<String>) -> Self {
        Self { class: Class::Retry, message: message.into() }
    }

    /// Trying again cannot help.
    #[must_use]
    pub fn reject(message: impl Into<String>) -> Self {
        Self { class: Class::Reject, message: message.into() }
    }

    /// What the host should do.
    #[must_use]
    pub fn class(&self) -> Class {
        self.class
    }

    /// What the operator reads. The host cuts it at 1 KiB.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message itself.
    #[must_use]
    pub fn into_message(self) -> String {
        self.message
    }

    /// The same message with another class.
    #[must_use]
    pub(crate) fn with_class(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::reject(error.to_string())
    }
}

/// A failure and the event it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Index of the event among those of the call.
    pub event: u32,
    /// Why.
    pub failure: Failure,
}

/// What a stage function may give back: `()` if it cannot fail, or [`Result`].
pub trait Outcome {
    /// The outcome in its general form.
    ///
    /// # Errors
    ///
    /// The failure the function gave back.
    fn into_result(self) -> Result;
}

impl Outcome for () {
    #[inline]
    fn into_result(self) -> Result {
        Ok(())
    }
}

impl<E: Into<Failure>> Outcome for std::result::Result<(), E> {
    #[inline]
    fn into_result(self) -> Result {
        self.map_err(Into::into)
    }
}
