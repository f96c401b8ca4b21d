//! The thorough check of a frame, as the host makes it.
//!
//! Checks everything `wit/FRAME.md` lists under "What a reader checks", so that a stage under test
//! fails where it would fail in the real host. Only the test harness uses it: in a stage the host
//! has checked already.

use crate::event::Kind;
use crate::frame::{
    FIELDS_BYTES_MAX, FORMAT, HEAD_BYTES, HEADER_BYTES, KEY_BYTES_MAX, MAGIC, Parts, TIME_END,
    split_event,
};

/// The events of a frame, or what is wrong with it.
pub(crate) fn checked(frame: &[u8]) -> Result<Vec<Parts<'_>>, String> {
    let Some((header, mut rest)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err("shorter than a header".to_owned());
    };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if header[..4] != MAGIC {
        return Err("not a frame: the magic is wrong".to_owned());
    }
    if u16::from_le_bytes([header[6], header[7]]) > FORMAT {
        return Err("needs a newer reader".to_owned());
    }
    if word(12) as usize != frame.len() {
        return Err("the length in the header is wrong".to_owned());
    }
    let mut events = Vec::new();
    for index in 0..word(8) {
        let (parts, behind) =
            split_event(rest).ok_or_else(|| format!("event {index} is cut short"))?;
        check_event(&parts).map_err(|what| format!("event {index}: {what}"))?;
        events.push(parts);
        rest = behind;
    }
    if !rest.is_empty() {
        return Err("bytes behind the last event".to_owned());
    }
    Ok(events)
}

/// What is wrong with one event, if anything.
fn check_event(parts: &Parts<'_>) -> Result<(), String> {
    let Parts { head, key, payload, fields } = parts;
    if head.size as usize != HEAD_BYTES + key.len() + payload.len() + fields.len() {
        return Err("the size is not that of its parts".to_owned());
    }
    if Kind::from_byte(head.kind).is_none() {
        return Err(format!("unknown kind {}", head.kind));
    }
    if head.flags != 0 {
        return Err("flags are set".to_owned());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err("the key is longer than 512 bytes".to_owned());
    }
    if std::str::from_utf8(key).is_err() {
        return Err("the key is not UTF-8".to_owned());
    }
    if head.time >= TIME_END {
        return Err("the time is 2^53 or later".to_owned());
    }
    if fields.len() > FIELDS_BYTES_MAX {
        return Err("the fields are longer than 16,384 bytes".to_owned());
    }
    check_fields(fields)
}

/// Whether fields fill their part exactly.
fn check_fields(mut rest: &[u8]) -> Result<(), String> {
    while !rest.is_empty() {
        let Some((head, behind)) = rest.split_first_chunk::<4>() else {
            return Err("a field is cut short".to_owned());
        };
        let bytes = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let Some((_, behind)) = behind.split_at_checked(bytes) else {
            return Err("a field is longer than the fields".to_owned());
        };
        rest = behind;
    }
    Ok(())
}
