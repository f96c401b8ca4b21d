//! Commands that attach buffers to what they emit, and what is done with those of an event.

use sluicebox_guest::gpu::{Attached, Buffer, Error, Graph, Kernel};
use sluicebox_guest::{__private, Event, Output, Result};

use crate::{Answer, sources};

/// Workgroups that sum a buffer, and what each of their invocations writes.
const GROUPS: u32 = 16;
const PARTS_BYTES: u64 = GROUPS as u64 * 64 * 4;

/// The commands of this module; nothing if it is none of them.
pub(crate) fn command(
    event: &Event<'_>,
    command: &str,
    words: &str,
    out: &mut Output,
) -> Option<Result> {
    Some(match command {
        "attach" => attach(event, words, 1, out),
        "attach-twice" => attach(event, words, 2, out),
        "attach-foreign" => foreign(event, words, out),
        _ => return None,
    })
}

/// A buffer of so many bytes, which the device fills.
fn filled(bytes: u64, word: u32) -> Result<Buffer, Error> {
    let buffer = Buffer::new(bytes)?;
    let graph = Graph::record(|steps| {
        steps.fill(0, bytes, word);
    })?;
    graph.submit(&[buffer.whole()])?.whole()?;
    Ok(buffer)
}

/// `BYTES WORD [PAYLOAD]`: so many events go with the same buffer.
fn attach(event: &Event<'_>, words: &str, events: usize, out: &mut Output) -> Result {
    let mut words = words.splitn(3, ' ');
    let bytes: u64 = words.next().unwrap_or_default().parse()?;
    let word: u32 = words.next().unwrap_or_default().parse()?;
    let payload = words.next().map_or_else(|| format!("attached {bytes}"), str::to_owned);
    match filled(bytes, word) {
        Ok(buffer) => {
            let handle = buffer.handle();
            out.draft(event).attach(buffer).emit(&payload);
            for _ in 1..events {
                out.draft(event).attachments(&[handle]).emit(&payload);
            }
        }
        Err(error) => refused(event, &error, out),
    }
    Ok(())
}

/// Attaches a number that someone else was given.
fn foreign(event: &Event<'_>, words: &str, out: &mut Output) -> Result {
    out.draft(event).attachments(&[words.trim().parse()?]).emit("attached");
    Ok(())
}

/// What is done with an event that has attachments: by its payload, or they are summed.
pub(crate) fn received(event: &Event<'_>, out: &mut Output) -> Result {
    let text = event.text()?;
    if let Some(payload) = text.strip_prefix("pass ") {
        let draft = out.draft(event);
        event.buffers().fold(draft, |draft, buffer| draft.attach(buffer)).emit(payload);
        return Ok(());
    }
    let answer = match text.split(' ').next() {
        Some("write") => written(event),
        Some("write-step") => written_by_a_step(event),
        _ => summed(event),
    };
    match answer {
        Ok(answer) => out.emit(event, answer),
        Err(error) => refused(event, &error, out),
    }
    Ok(())
}

fn refused(event: &Event<'_>, error: &Error, out: &mut Output) {
    out.emit(event, format!("refused {}", error.code()));
}

/// Sums the words of all that is attached, on the device: `sum S of BYTES`.
fn summed(event: &Event<'_>) -> Answer {
    let (mut sum, mut bytes) = (0_u64, 0);
    for buffer in event.buffers() {
        sum += u64::from(sum_of(&buffer)?);
        bytes += buffer.bytes()?;
    }
    Ok(format!("sum {sum} of {bytes}"))
}

fn sum_of(buffer: &Attached<'_>) -> Result<u32, Error> {
    let part = Kernel::new(sources::PARTS, "part")?;
    let total = Kernel::new(sources::SUM, "total")?;
    let graph = Graph::record(|steps| {
        steps.dispatch(&part, [GROUPS, 1, 1], &[0, 1]).dispatch(&total, [1, 1, 1], &[1, 2]);
    })?;
    let (parts, sum) = (Buffer::new(PARTS_BYTES)?, Buffer::new(4)?);
    graph.submit(&[buffer.whole(), parts.whole(), sum.whole()])?.whole()?;
    Ok(sum.read_all()?.first().copied().unwrap_or_default())
}

/// Tries to write to what is attached: `written N`, or the refusal.
fn written(event: &Event<'_>) -> Answer {
    let mut count = 0;
    for buffer in event.buffers() {
        __private::write_gpu_buffer(buffer.handle(), 0, &[0; 4])?;
        count += 1;
    }
    Ok(format!("written {count}"))
}

/// The same on the device.
fn written_by_a_step(event: &Event<'_>) -> Answer {
    let graph = Graph::record(|steps| {
        steps.fill(0, 4, 0);
    })?;
    let mut count = 0;
    for buffer in event.buffers() {
        graph.submit(&[buffer.whole()])?.whole()?;
        count += 1;
    }
    Ok(format!("written {count}"))
}
