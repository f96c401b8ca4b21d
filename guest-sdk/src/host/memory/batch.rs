//! The packed state batch, done in memory: the host's side of `state/batch.rs`.
//!
//! Reads the operations by the table in `wit/FRAME.md`, not by the code that packed them, so that a
//! test of a stage is also a test of the packing. Anything that breaks the table is a trap.

use crate::host::memory::Memory;
use crate::timers::Clock;

/// One operation, taken apart.
struct Operation<'a> {
    code: u8,
    event: u32,
    slot: &'a str,
    value: &'a [u8],
}

/// Does the operations in order and packs the replies.
pub(super) fn run(host: &mut Memory, operations: &[u8]) -> Vec<u8> {
    let mut replies = Vec::new();
    let mut rest = operations;
    while !rest.is_empty() {
        let Some((operation, behind)) = split(rest) else {
            panic!("trap: a state operation breaks the layout");
        };
        let (status, value) = apply(host, &operation);
        replies.extend_from_slice(&[status, 0, 0, 0]);
        replies.extend_from_slice(&(value.len() as u32).to_le_bytes());
        replies.extend_from_slice(&value);
        rest = behind;
    }
    replies
}

fn split(bytes: &[u8]) -> Option<(Operation<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(16)?;
    let (slot, rest) = rest.split_at_checked(usize::from(head[1]))?;
    let value_bytes = u32::from_le_bytes(head[8..12].try_into().ok()?);
    let (value, rest) = rest.split_at_checked(value_bytes as usize)?;
    let zeroes = head[2..4].iter().chain(&head[12..16]).all(|byte| *byte == 0);
    let value_fits = match head[0] {
        1 | 3 | 6 => value.is_empty(),
        2 => true,
        4 => value.len() == 8,
        5 => value.len() == 9 && value[0] <= 1,
        _ => false,
    };
    if !zeroes || !value_fits {
        return None;
    }
    let event = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let slot = std::str::from_utf8(slot).ok()?;
    Some((Operation { code: head[0], event, slot, value }, rest))
}

/// Status and value of the reply.
fn apply(host: &mut Memory, operation: &Operation<'_>) -> (u8, Vec<u8>) {
    let Operation { code, event, slot, value } = *operation;
    match code {
        1 => host.get(event, slot).map_or((1, Vec::new()), |value| (0, value)),
        2 => match host.put(event, slot, value) {
            Ok(()) => (0, Vec::new()),
            Err(message) => (2, message.into_bytes()),
        },
        3 => (u8::from(!host.delete(event, slot)), Vec::new()),
        5 => match set_timer(host, operation) {
            Ok(()) => (0, Vec::new()),
            Err(message) => (2, message.into_bytes()),
        },
        6 => (u8::from(!host.timer_cancel(event, slot)), Vec::new()),
        _ => {
            let mut delta = [0; 8];
            delta.copy_from_slice(value);
            match host.add(event, slot, i64::from_le_bytes(delta)) {
                Ok(sum) => (0, sum.to_le_bytes().to_vec()),
                Err(message) => (2, message.into_bytes()),
            }
        }
    }
}

fn set_timer(host: &mut Memory, operation: &Operation<'_>) -> Result<(), String> {
    let clock = if operation.value[0] == 0 { Clock::Event } else { Clock::Wall };
    let mut at = [0; 8];
    at.copy_from_slice(&operation.value[1..]);
    host.timer_set(operation.event, operation.slot, clock, u64::from_le_bytes(at))
}
