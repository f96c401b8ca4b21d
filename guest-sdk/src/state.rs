//! Keyed state: named slots that belong to the key of an event.
//!
//! - A stage reaches the state of an event's key and of no other: every call names the event.
//! - What is written stands if and only if the call that wrote it succeeds and the event does not
//!   fail.
//!
//! Each function here is one call of the host. For a whole batch of events [`StateBatch`] makes one
//! call in all, see `state/batch.rs`.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Result;
use crate::host;

mod batch;

pub use batch::{Replies, Reply, ReplyIter, StateBatch};

/// The state of one event's key. Made by [`Event::state`](crate::Event::state).
///
/// Slots are named by at most 64 bytes of UTF-8.
///
/// ```
/// # use sluicebox_guest::{Event, Output, Result};
/// fn first_seen(event: Event<'_>, out: &mut Output) -> Result {
///     let state = event.state();
///     if state.get("seen").is_none() {
///         state.put("seen", event.time().to_le_bytes())?;
///         out.emit(&event, event.payload());
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct State {
    event: u32,
}

impl State {
    #[inline]
    pub(crate) fn of(event: u32) -> Self {
        Self { event }
    }

    /// The value in a slot, if there is one.
    #[must_use]
    pub fn get(&self, slot: &str) -> Option<Vec<u8>> {
        host::state_get(self.event, slot)
    }

    /// The value in a slot, read as JSON.
    ///
    /// # Errors
    ///
    /// A failure of class reject if the slot holds something else.
    pub fn json<T: DeserializeOwned>(&self, slot: &str) -> Result<Option<T>> {
        match self.get(slot) {
            Some(value) => Ok(Some(serde_json::from_slice(&value)?)),
            None => Ok(None),
        }
    }

    /// The number in a counter; 0 if there is none.
    ///
    /// # Errors
    ///
    /// If the slot holds something that is not 8 bytes long.
    pub fn counter(&self, slot: &str) -> Result<i64, Refused> {
        match self.get(slot) {
            Some(value) => batch::counter(&value),
            None => Ok(0),
        }
    }

    /// Sets a slot.
    ///
    /// # Errors
    ///
    /// If the value or the state of the key would become larger than its limit.
    pub fn put(&self, slot: &str, value: impl AsRef<[u8]>) -> Result<(), Refused> {
        host::state_put(self.event, slot, value.as_ref()).map_err(Refused::new)
    }

    /// Sets a slot to a value as JSON.
    ///
    /// # Errors
    ///
    /// If it cannot be written as JSON, or [`State::put`] fails.
    pub fn put_json(&self, slot: &str, value: &impl Serialize) -> Result {
        Ok(self.put(slot, serde_json::to_vec(value)?)?)
    }

    /// Removes a slot; true if there was one.
    pub fn delete(&self, slot: &str) -> bool {
        host::state_delete(self.event, slot)
    }

    /// Adds to a counter and gives its new number. A counter that is not there counts as 0; the
    /// sum wraps around.
    ///
    /// # Errors
    ///
    /// If the slot holds something that is not 8 bytes long.
    pub fn add(&self, slot: &str, delta: i64) -> Result<i64, Refused> {
        host::state_add(self.event, slot, delta).map_err(Refused::new)
    }

    /// The slots of this key that begin with `prefix` and their values, in byte order, at most
    /// `limit`.
    #[must_use]
    pub fn scan(&self, prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
        host::state_scan(self.event, prefix, limit)
    }
}

/// The host would not do what was asked of the state, and says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    message: String,
}

impl Refused {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// The host's reason.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}
