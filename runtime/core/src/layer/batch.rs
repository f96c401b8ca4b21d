//! Many operations on state and timers in one call: reading them, doing them, writing the replies.
//!
//! The layout is `wit/FRAME.md`, "State batch". A malformed batch is refused at the first bad
//! operation; the caller rolls back what the ones before it wrote.

use crate::limits::SLOT_BYTES_MAX;
use crate::state::KeyedState;
use crate::timers::{Clock, Timers};

const OPERATION_BYTES: usize = 16;

const GET: u8 = 1;
const PUT: u8 = 2;
const DELETE: u8 = 3;
const ADD: u8 = 4;
const SET_TIMER: u8 = 5;
const CANCEL_TIMER: u8 = 6;

const DONE: u8 = 0;
const ABSENT: u8 = 1;
const REFUSED: u8 = 2;

/// Why a batch of operations is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end inside an operation.
    #[error("state batch: operation {0} is cut off")]
    Truncated(usize),
    /// An unknown operation, or reserved bytes that are not 0.
    #[error(
        "state batch: operation {0} is none of 1 get, 2 put, 3 delete, 4 add, 5 set a timer, 6 \
         cancel one"
    )]
    Operation(usize),
    /// The slot is not UTF-8, or too long.
    #[error("state batch: the slot of operation {0} is not UTF-8 or longer than 64 bytes")]
    Slot(usize),
    /// A value where there is none, a delta that is not 8 bytes long, or a timer without clock and
    /// time.
    #[error("state batch: the value of operation {0} has the wrong length, or names no clock")]
    Value(usize),
    /// No such event in this call.
    #[error("state batch: operation {0} names an event that is not in the frame")]
    Event(usize),
    /// The replies would be larger than the caller allows.
    #[error("state batch: the replies are larger than {0} bytes")]
    ReplyTooLarge(usize),
}

struct Operation<'a> {
    code: u8,
    event: u32,
    slot: &'a [u8],
    value: &'a [u8],
}

fn split(bytes: &[u8], index: usize) -> Result<(Operation<'_>, &[u8]), BatchError> {
    let cut = BatchError::Truncated(index);
    let (head, rest) = bytes.split_first_chunk::<OPERATION_BYTES>().ok_or(cut)?;
    let [code, slot_bytes, z0, z1, e0, e1, e2, e3, v0, v1, v2, v3, z2, z3, z4, z5] = *head;
    if [z0, z1, z2, z3, z4, z5] != [0; 6] {
        return Err(BatchError::Operation(index));
    }
    let (slot, rest) = rest.split_at_checked(slot_bytes.into()).ok_or(cut)?;
    let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
    let (value, rest) = rest.split_at_checked(value_bytes).ok_or(cut)?;
    if slot.len() > SLOT_BYTES_MAX || std::str::from_utf8(slot).is_err() {
        return Err(BatchError::Slot(index));
    }
    let fits = match code {
        GET | DELETE | CANCEL_TIMER => value.is_empty(),
        PUT => true,
        ADD => value.len() == 8,
        SET_TIMER => value.len() == 9 && Clock::from_byte(value[0]).is_some(),
        _ => return Err(BatchError::Operation(index)),
    };
    if !fits {
        return Err(BatchError::Value(index));
    }
    Ok((Operation { code, event: u32::from_le_bytes([e0, e1, e2, e3]), slot, value }, rest))
}

fn reply(out: &mut Vec<u8>, status: u8, value: &[u8]) {
    out.extend_from_slice(&[status, 0, 0, 0]);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// What operations work on.
pub(super) struct Kept<'a> {
    pub state: &'a mut KeyedState,
    pub timers: &'a mut Timers,
}

impl Kept<'_> {
    /// Does every operation of `operations` in order and appends the replies to `out`. `key_of`
    /// gives the key of an event of the call.
    ///
    /// # Errors
    /// The first malformed operation; earlier ones have been done.
    pub(super) fn batch<'k>(
        &mut self,
        operations: &[u8],
        mut key_of: impl FnMut(u32) -> Option<&'k [u8]>,
        out: &mut Vec<u8>,
        reply_bytes_max: usize,
    ) -> Result<(), BatchError> {
        let mut rest = operations;
        let mut index = 0;
        while !rest.is_empty() {
            let (operation, behind) = split(rest, index)?;
            rest = behind;
            let key = key_of(operation.event).ok_or(BatchError::Event(index))?;
            self.perform(key, &operation, out);
            if out.len() > reply_bytes_max {
                return Err(BatchError::ReplyTooLarge(reply_bytes_max));
            }
            index += 1;
        }
        Ok(())
    }

    #[inline]
    fn perform(&mut self, key: &[u8], operation: &Operation<'_>, out: &mut Vec<u8>) {
        let state = &mut *self.state;
        let refused = match operation.code {
            ADD => {
                let delta = operation.value.first_chunk().map_or(0, |b| i64::from_le_bytes(*b));
                match state.add(key, operation.slot, delta) {
                    Ok(number) => return reply(out, DONE, &number.to_le_bytes()),
                    Err(refusal) => refusal,
                }
            }
            PUT => match state.put(key, operation.slot, operation.value) {
                Ok(()) => return reply(out, DONE, &[]),
                Err(refusal) => refusal,
            },
            DELETE => {
                let status = if state.delete(key, operation.slot) { DONE } else { ABSENT };
                return reply(out, status, &[]);
            }
            SET_TIMER | CANCEL_TIMER => return self.perform_timer(key, operation, out),
            _ => {
                return match state.get(key, operation.slot) {
                    Some(value) => reply(out, DONE, value),
                    None => reply(out, ABSENT, &[]),
                };
            }
        };
        reply(out, REFUSED, refused.to_string().as_bytes());
    }

    fn perform_timer(&mut self, key: &[u8], operation: &Operation<'_>, out: &mut Vec<u8>) {
        let Some((clock, at)) = operation.value.split_first() else {
            let status = if self.timers.cancel(key, operation.slot) { DONE } else { ABSENT };
            return reply(out, status, &[]);
        };
        let clock = Clock::from_byte(*clock).expect("it was looked at when the value was");
        let at = at.first_chunk().map_or(0, |at| u64::from_le_bytes(*at));
        match self.timers.set(key, operation.slot, clock, at) {
            Ok(()) => reply(out, DONE, &[]),
            Err(refusal) => reply(out, REFUSED, refusal.to_string().as_bytes()),
        }
    }
}
