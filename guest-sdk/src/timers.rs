//! Timers a key sets for itself, and the two times they wait for.
//!
//! - A timer belongs to the key of the event it is set by, and to the stage. It fires once, as an
//!   event of kind timer; [`Event::timer`](crate::Event::timer) tells its name.
//! - What is set or cancelled stands if and only if the call succeeds and the event does not fail.
//! - Both times are fixed for a batch and written down with it, so a batch that is run again sees
//!   the same.
//!
//! For many events at once [`StateBatch`](crate::StateBatch) sets timers in its one call.

use crate::host;
use crate::state::Refused;

/// Which time a timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Clock {
    /// Event time: the timer fires when the [`watermark`] has reached its time.
    Event = 0,
    /// The time of day: it fires when that has come.
    Wall = 1,
}

/// The timers of one event's key. Made by [`Event::timers`](crate::Event::timers).
///
/// Names have at most 64 bytes; within a key each is there once.
///
/// ```
/// # use sluicebox_guest::{Clock, Event, Output, Result};
/// /// Says so when a key was quiet for a minute.
/// fn quiet(event: Event<'_>, out: &mut Output) -> Result {
///     match event.timer() {
///         Some("quiet") => out.emit(&event, "quiet for a minute"),
///         _ => event.timers().set("quiet", Clock::Event, event.time() + 60_000_000)?,
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    event: u32,
}

impl Timers {
    #[inline]
    pub(crate) fn of(event: u32) -> Self {
        Self { event }
    }

    /// Sets a timer for `at`, in microseconds since 1970; one of this name is replaced. A time that
    /// has come already is as good as any: the timer fires after this batch.
    ///
    /// # Errors
    ///
    /// If the name is too long, the time is 2^53 or more, or the key or the partition has as many
    /// timers as it may have.
    pub fn set(&self, name: &str, clock: Clock, at: u64) -> Result<(), Refused> {
        host::timer_set(self.event, name, clock, at).map_err(Refused::new)
    }

    /// Cancels a timer; true if there was one.
    pub fn cancel(&self, name: &str) -> bool {
        host::timer_cancel(self.event, name)
    }
}

/// The event time up to which this stage has everything, as far as the host knows, in microseconds
/// since 1970; 0 if it is not known. An event whose time is below it is late. It never goes back.
#[must_use]
pub fn watermark() -> u64 {
    host::watermark()
}

/// The time of day of the batch, in microseconds since 1970: what a timer of [`Clock::Wall`] is
/// compared with. In the test harness it is what
/// [`advance_clock`](crate::testing::Harness::advance_clock) said last.
#[must_use]
pub fn now() -> u64 {
    host::now()
}
