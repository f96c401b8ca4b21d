//! Many operations on keyed state and timers in one call of the host.
//!
//! - Operations are done in the order they were asked for, and answered in that order.
//! - Asking and reading the answers allocates nothing for an operation: both are packed bytes, laid
//!   out as `wit/FRAME.md` says under "State batch".
//!
//! One call for 256 events costs about as much as one `State::get`. For a few operations, `State`
//! reads better.

use std::cell::Cell;

use crate::event::Event;
use crate::failure::Result;
use crate::host;
use crate::state::Refused;
use crate::timers::Clock;

/// Bytes of the head of an operation.
const OPERATION_BYTES: usize = 16;
/// Bytes of the head of a reply.
const REPLY_BYTES: usize = 8;
/// A buffer that grew larger than this, for large values, is not kept.
const SPARE_BYTES_MAX: usize = 256 << 10;
/// Most bytes of the name of a slot.
const SLOT_BYTES_MAX: usize = 64;

const GET: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const ADD: u8 = 4;
const SET_TIMER: u8 = 5;
const CANCEL_TIMER: u8 = 6;

thread_local! {
    /// The buffer of the last batch, for the next one.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Operations on the state and the timers of many events' keys.
///
/// ```
/// # use sluicebox_guest::{Events, Output, StateBatch};
/// fn count(events: Events<'_>, out: &mut Output) {
///     let mut batch = StateBatch::new();
///     for event in events {
///         batch.add(&event, "count", 1);
///     }
///     for (event, reply) in events.into_iter().zip(&batch.run()) {
///         match reply.number() {
///             Ok(count) => out.json(&event, &count),
///             Err(refused) => out.fail(&event, refused),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct StateBatch {
    operations: Vec<u8>,
}

impl StateBatch {
    /// No operations yet.
    #[must_use]
    pub fn new() -> Self {
        Self { operations: SPARE.take() }
    }

    /// Asks for the value in a slot. Reply: [`Reply::value`].
    pub fn get(&mut self, event: &Event<'_>, slot: &str) {
        self.push(GET, event, slot, &[]);
    }

    /// Sets a slot. Reply: [`Reply::done`].
    pub fn put(&mut self, event: &Event<'_>, slot: &str, value: impl AsRef<[u8]>) {
        self.push(PUT, event, slot, value.as_ref());
    }

    /// Removes a slot. Reply: [`Reply::done`], false if there was none.
    pub fn delete(&mut self, event: &Event<'_>, slot: &str) {
        self.push(DELETE, event, slot, &[]);
    }

    /// Adds to a counter. Reply: [`Reply::number`].
    #[inline]
    pub fn add(&mut self, event: &Event<'_>, slot: &str, delta: i64) {
        self.push(ADD, event, slot, &delta.to_le_bytes());
    }

    /// Sets a timer, as [`Timers::set`](crate::Timers::set) does. Reply: [`Reply::done`].
    #[inline]
    pub fn set_timer(&mut self, event: &Event<'_>, name: &str, clock: Clock, at: u64) {
        let mut value = [0; 9];
        value[0] = clock as u8;
        value[1..].copy_from_slice(&at.to_le_bytes());
        self.push(SET_TIMER, event, name, &value);
    }

    /// Cancels a timer. Reply: [`Reply::done`], false if there was none.
    #[inline]
    pub fn cancel_timer(&mut self, event: &Event<'_>, name: &str) {
        self.push(CANCEL_TIMER, event, name, &[]);
    }

    /// Has the host do all that was asked for since the last time.
    #[must_use = "a refusal is found only in its reply"]
    pub fn run(&mut self) -> Replies {
        let replies = if self.operations.is_empty() {
            Vec::new()
        } else {
            host::state_batch(&self.operations)
        };
        self.operations.clear();
        Replies { bytes: replies }
    }

    /// # Panics
    ///
    /// If the name of the slot or the value is longer than the layout can say.
    #[inline]
    fn push(&mut self, operation: u8, event: &Event<'_>, slot: &str, value: &[u8]) {
        assert!(slot.len() <= SLOT_BYTES_MAX, "the name of a slot is at most 64 bytes long");
        let Ok(bytes) = u32::try_from(value.len()) else {
            panic!("a value is at most 4 GiB long");
        };
        let mut head = [0; OPERATION_BYTES];
        head[0] = operation;
        head[1] = slot.len() as u8;
        head[4..8].copy_from_slice(&event.index().to_le_bytes());
        head[8..12].copy_from_slice(&bytes.to_le_bytes());
        self.operations.extend_from_slice(&head);
        self.operations.extend_from_slice(slot.as_bytes());
        self.operations.extend_from_slice(value);
    }
}

impl Default for StateBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for StateBatch {
    fn drop(&mut self) {
        if self.operations.capacity() <= SPARE_BYTES_MAX {
            self.operations.clear();
            SPARE.set(std::mem::take(&mut self.operations));
        }
    }
}

/// The answers to a batch, in the order of the operations.
#[derive(Debug)]
pub struct Replies {
    bytes: Vec<u8>,
}

impl Replies {
    /// The replies, first to last.
    #[must_use]
    pub fn iter(&self) -> ReplyIter<'_> {
        ReplyIter { rest: &self.bytes }
    }
}

impl<'a> IntoIterator for &'a Replies {
    type Item = Reply<'a>;
    type IntoIter = ReplyIter<'a>;

    fn into_iter(self) -> ReplyIter<'a> {
        self.iter()
    }
}

/// Goes through the replies of a batch. Made by [`Replies::iter`].
#[derive(Clone, Debug)]
pub struct ReplyIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for ReplyIter<'a> {
    type Item = Reply<'a>;

    #[inline]
    fn next(&mut self) -> Option<Reply<'a>> {
        let (head, rest) = self.rest.split_first_chunk::<REPLY_BYTES>()?;
        let bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some((value, rest)) = rest.split_at_checked(bytes) else {
            broken();
        };
        self.rest = rest;
        let status = match head[0] {
            0 => Status::Done,
            1 => Status::Absent,
            2 => Status::Refused,
            _ => broken(),
        };
        Some(Reply { status, value })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Done,
    Absent,
    Refused,
}

/// The answer to one operation. The caller knows which operation it was.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    status: Status,
    value: &'a [u8],
}

impl<'a> Reply<'a> {
    /// To a get: the value, if there is one.
    ///
    /// # Errors
    ///
    /// If the host refused.
    pub fn value(&self) -> Result<Option<&'a [u8]>, Refused> {
        Ok(self.done()?.then_some(self.value))
    }

    /// To an add: the new number.
    ///
    /// # Errors
    ///
    /// If the slot holds something that is not 8 bytes long.
    #[inline]
    pub fn number(&self) -> Result<i64, Refused> {
        if !self.done()? {
            return Ok(0);
        }
        counter(self.value)
    }

    /// To a put or a timer set: true. To a delete or a cancel: whether there was something to
    /// remove.
    ///
    /// # Errors
    ///
    /// If the host refused.
    #[inline]
    pub fn done(&self) -> Result<bool, Refused> {
        match self.status {
            Status::Done => Ok(true),
            Status::Absent => Ok(false),
            Status::Refused => Err(Refused::new(String::from_utf8_lossy(self.value))),
        }
    }
}

/// The number in the value of a counter.
#[inline]
pub(super) fn counter(value: &[u8]) -> Result<i64, Refused> {
    match value.try_into() {
        Ok(bytes) => Ok(i64::from_le_bytes(bytes)),
        Err(_) => Err(Refused::new(format!("a counter is 8 bytes long, not {}", value.len()))),
    }
}

/// Ends the call: the host has answered in a layout that is not that of this version.
#[cold]
#[inline(never)]
fn broken() -> ! {
    panic!("the reply to a state batch is broken, or needs a newer sluicebox-guest");
}
