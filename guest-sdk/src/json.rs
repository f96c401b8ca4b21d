//! Typed payloads: an event together with what was read from its payload.
//!
//! A stage function that takes a [`Json`] is called for events of kind data only, and not for those
//! whose payload is not the JSON it should be: they fail with class reject and a message that says
//! where. Timers are of kind timer and so not given to it: a stage that sets some takes an `Event`
//! and reads those of kind data with `Event::json`. Payloads in other formats are read by the stage
//! itself, from `Event::payload`.

use std::ops::Deref;

use serde::Deserialize;

use crate::event::Event;
use crate::failure::Result;
use crate::output::{Cause, Origin};

/// An event whose payload was read as JSON; reads like the value.
///
/// ```
/// # use sluicebox_guest::{Json, Output};
/// #[derive(serde::Deserialize)]
/// struct Reading {
///     volt: f64,
///     ampere: f64,
/// }
///
/// fn watt(reading: Json<'_, Reading>, out: &mut Output) {
///     out.json(&reading, &(reading.volt * reading.ampere));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Json<'a, T> {
    event: Event<'a>,
    value: T,
}

impl<'a, T> Json<'a, T> {
    /// Reads the payload of an event.
    ///
    /// # Errors
    ///
    /// A failure of class reject if it is not the JSON it should be.
    pub fn read(event: Event<'a>) -> Result<Self>
    where
        T: Deserialize<'a>,
    {
        Ok(Self { event, value: event.json()? })
    }

    /// The event it was read from.
    pub fn event(&self) -> &Event<'a> {
        &self.event
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Json<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Cause for Json<'_, T> {
    fn origin(&self) -> Origin {
        self.event.origin()
    }
}
