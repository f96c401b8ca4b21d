//! The conformance guest in Rust, for the framed world, through the SDK.
//!
//! Does what `tests/guests/CONFORMANCE.md` says, a command an event. Everything the SDK offers a
//! stage function is used at least once, so that the suite proves the SDK as well.

use std::time::{SystemTime, UNIX_EPOCH};

use sluicebox_guest::log::Level;
use sluicebox_guest::{
    Clock, Event, Failure, Kind, Output, Refused, Result, assets, config, field, log, metrics,
    stage, watermark,
};

/// The extension field that command `f` sets.
const OWN_FIELD: u16 = 40_000;
const SCAN_LIMIT: u32 = 100;
const ASSET_BYTES: u32 = 16;

#[stage]
fn conform(event: Event<'_>, out: &mut Output) -> Result {
    if event.kind() != Kind::Data {
        describe(&event, out);
        return Ok(());
    }
    let (command, operand) = event.payload().split_first().ok_or_else(unknown)?;
    match command {
        b'e' | b'n' | b'p' | b'k' | b'u' | b'd' | b'f' => {
            emit(*command, operand, &event, out)?;
        }
        b'r' => return Err(Failure::retry(text(operand)?)),
        b'x' => return Err(Failure::reject(text(operand)?)),
        b't' => panic!("trap on demand"),
        b'g' | b's' | b'D' | b'a' | b'S' => out.emit(&event, state(*command, operand, &event)?),
        b'T' | b'C' | b'W' => out.emit(&event, timers(*command, operand, &event)?),
        b'c' => match config::get(text(operand)?) {
            Some(value) => out.emit(&event, [&[1], value.as_bytes()].concat()),
            None => out.emit(&event, [0]),
        },
        b'A' => asset(text(operand)?, &event, out),
        b'l' => {
            let (level, line) = operand.split_first().ok_or_else(unknown)?;
            log::write(severity(*level)?, text(line)?);
        }
        b'm' => metrics::count(text(operand)?, 1),
        b'w' => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            out.emit(&event, (now.as_nanos() as u64).to_le_bytes());
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

/// The commands that only emit.
fn emit(command: u8, operand: &[u8], event: &Event<'_>, out: &mut Output) -> Result {
    match command {
        b'e' => out.emit(event, operand),
        b'n' => {
            for number in 0..*operand.first().ok_or_else(unknown)? {
                out.emit(event, [number]);
            }
        }
        b'p' => {
            let (port, payload) = operand.split_first().ok_or_else(unknown)?;
            out.draft(event).port(u16::from(*port)).emit(payload);
        }
        b'k' => {
            let (key, payload) = short(operand)?;
            out.draft(event).key(text(key)?).emit(payload);
        }
        b'u' => {
            let (cause, payload) = operand.split_first_chunk().ok_or_else(unknown)?;
            out.draft(event).cause(u32::from_le_bytes(*cause)).emit(payload);
        }
        b'f' => {
            let draft = out.draft(event).field(OWN_FIELD, operand);
            match event.field(field::CONTENT_TYPE) {
                Some(value) => draft.field(field::CONTENT_TYPE, value).emit([]),
                None => draft.emit([]),
            }
        }
        _ => describe(event, out),
    }
    Ok(())
}

/// Emits what the event says about itself.
fn describe(event: &Event<'_>, out: &mut Output) {
    let mut payload = vec![event.kind() as u8];
    payload.extend_from_slice(&event.input().to_le_bytes());
    payload.extend_from_slice(&event.time().to_le_bytes());
    payload.extend_from_slice(event.key().as_bytes());
    out.emit(event, payload);
}

/// The commands on state; gives what is to be emitted.
fn state(command: u8, operand: &[u8], event: &Event<'_>) -> Result<Vec<u8>> {
    let state = event.state();
    Ok(match command {
        b'g' => match state.get(text(operand)?) {
            Some(value) => [&[1], value.as_slice()].concat(),
            None => vec![0],
        },
        b's' => {
            let (slot, value) = short(operand)?;
            answer(state.put(text(slot)?, value).map(|()| Vec::new()))
        }
        b'D' => vec![u8::from(state.delete(text(operand)?))],
        b'a' => {
            let (slot, delta) = short(operand)?;
            let delta = i64::from_le_bytes(delta.try_into().map_err(|_| unknown())?);
            answer(state.add(text(slot)?, delta).map(|sum| sum.to_le_bytes().to_vec()))
        }
        _ => {
            let mut payload = Vec::new();
            for (slot, value) in state.scan(text(operand)?, SCAN_LIMIT) {
                payload.push(slot.len() as u8);
                payload.extend_from_slice(slot.as_bytes());
                payload.extend_from_slice(&(value.len() as u32).to_le_bytes());
                payload.extend_from_slice(&value);
            }
            payload
        }
    })
}

/// The commands on timers; gives what is to be emitted.
fn timers(command: u8, operand: &[u8], event: &Event<'_>) -> Result<Vec<u8>> {
    Ok(match command {
        b'T' => {
            let (clock, rest) = operand.split_first().ok_or_else(unknown)?;
            let (at, name) = rest.split_first_chunk().ok_or_else(unknown)?;
            let clock = if *clock == 0 { Clock::Event } else { Clock::Wall };
            let set = event.timers().set(text(name)?, clock, u64::from_le_bytes(*at));
            answer(set.map(|()| Vec::new()))
        }
        b'C' => vec![u8::from(event.timers().cancel(text(operand)?))],
        _ => watermark().to_le_bytes().to_vec(),
    })
}

/// 0 and the value, or 2 and the reason.
fn answer(result: Result<Vec<u8>, Refused>) -> Vec<u8> {
    match result {
        Ok(value) => [&[0], value.as_slice()].concat(),
        Err(refused) => [&[2], refused.message().as_bytes()].concat(),
    }
}

fn asset(name: &str, event: &Event<'_>, out: &mut Output) {
    if let Some(size) = assets::size(name) {
        let mut payload = size.to_le_bytes().to_vec();
        payload.extend_from_slice(&assets::read(name, 0, ASSET_BYTES));
        out.emit(event, payload);
    }
}

fn severity(byte: u8) -> Result<Level> {
    Ok(match byte {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warn,
        3 => Level::Error,
        _ => return Err(unknown()),
    })
}

/// Bytes with a length of one byte before them, and what is behind.
fn short(operand: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = operand.split_first().ok_or_else(unknown)?;
    rest.split_at_checked(usize::from(*length)).ok_or_else(unknown)
}

fn text(bytes: &[u8]) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}

fn unknown() -> Failure {
    Failure::reject("unknown command")
}

#[cfg(test)]
mod tests;
