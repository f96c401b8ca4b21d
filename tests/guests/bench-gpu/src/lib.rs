//! The stage of the bench of GPUs: does one thing on a device so often, or hands a picture on.
//!
//! | payload | does |
//! |---|---|
//! | `submits N` | submits an empty kernel N times, each when the one before has ended |
//! | `attach BYTES` | writes a buffer on the device and emits it, attached |
//! | `copy BYTES` | the same, and emits its bytes |
//!
//! What comes of the last two is read by the next stage: one word, on the device.

use std::cell::RefCell;

use sluicebox_guest::gpu::{self, Binding, Buffer, Graph, Kernel};
use sluicebox_guest::{Event, Failure, Output, Result, stage};

const EMPTY: &str = "@compute @workgroup_size(1) fn empty() {}";

const FIRST: &str = "
@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> first: array<u32>;

@compute @workgroup_size(1)
fn first_word() { first[0] = words[0]; }";

/// What the buffers are full of.
const WORD: u32 = 7;

/// What is made once.
struct Made {
    empty: Graph,
    fill: Graph,
    first: Graph,
    word: Buffer,
    /// Made anew when another length is asked for.
    picture: Option<Buffer>,
}

thread_local! {
    static MADE: RefCell<Option<Made>> = const { RefCell::new(None) };
}

fn made(bytes: u64) -> gpu::Result<Made> {
    let (empty, first) = (Kernel::new(EMPTY, "empty")?, Kernel::new(FIRST, "first_word")?);
    Ok(Made {
        empty: Graph::record(|steps| {
            steps.dispatch(&empty, [1, 1, 1], &[]);
        })?,
        fill: Graph::record(|steps| {
            steps.fill(0, bytes, WORD);
        })?,
        first: Graph::record(|steps| {
            steps.dispatch(&first, [1, 1, 1], &[0, 1]);
        })?,
        word: Buffer::new(4)?,
        picture: None,
    })
}

#[stage]
fn bench(event: Event<'_>, out: &mut Output) -> Result {
    MADE.with_borrow_mut(|kept| {
        let done = handle(event, kept, out);
        // If the device was lost, all of it is to be made anew.
        if done.is_err() {
            *kept = None;
        }
        done
    })
}

fn handle(event: Event<'_>, kept: &mut Option<Made>, out: &mut Output) -> Result {
    if let Some(buffer) = event.buffers().next() {
        let made = ready(kept, 4)?;
        let word = first_word(made, buffer.whole())?;
        out.emit(&event, word.to_string());
        return Ok(());
    }
    let payload = event.payload();
    // A picture is longer than any command.
    if payload.len() > 64 {
        let made = ready(kept, payload.len() as u64)?;
        let buffer = match made.picture.take() {
            Some(buffer) => buffer,
            None => Buffer::new(payload.len() as u64)?,
        };
        buffer.write(0, payload)?;
        let word = first_word(made, buffer.whole())?;
        made.picture = Some(buffer);
        out.emit(&event, word.to_string());
        return Ok(());
    }
    let (command, number) = event.text()?.split_once(' ').unwrap_or_default();
    let number: u64 = number.parse()?;
    match command {
        "submits" => {
            let made = ready(kept, 4)?;
            for _ in 0..number {
                made.empty.submit(&[])?.whole()?;
            }
            out.emit(&event, "done");
        }
        "attach" => {
            let made = ready(kept, number)?;
            let buffer = Buffer::new(number)?;
            made.fill.submit(&[buffer.whole()])?.whole()?;
            out.draft(&event).attach(buffer).emit("");
        }
        "copy" => {
            let made = ready(kept, number)?;
            let buffer = Buffer::new(number)?;
            made.fill.submit(&[buffer.whole()])?.whole()?;
            out.emit(&event, buffer.read_all::<u8>()?);
        }
        _ => return Err(Failure::reject("there is no such command")),
    }
    Ok(())
}

fn ready(kept: &mut Option<Made>, bytes: u64) -> Result<&mut Made> {
    if kept.is_none() {
        *kept = Some(made(bytes)?);
    }
    Ok(kept.as_mut().expect("made just now"))
}

fn first_word(made: &Made, picture: Binding<'_>) -> gpu::Result<u32> {
    made.first.submit(&[picture, made.word.whole()])?.whole()?;
    Ok(made.word.read::<u32>(0, 1)?.first().copied().unwrap_or_default())
}
