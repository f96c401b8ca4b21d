//! Commands about memory of the device.

use std::cell::RefCell;

use sluicebox_guest::gpu::Buffer;

use crate::Answer;

thread_local! {
    /// What the instance holds until it ends, or is told to let go.
    static HELD: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Makes a buffer and keeps it: `handle H`.
pub(crate) fn hold(bytes: u64) -> Answer {
    let buffer = Buffer::new(bytes)?;
    let handle = buffer.handle();
    HELD.with_borrow_mut(|held| held.push(buffer));
    Ok(format!("handle {handle}"))
}

/// Makes so many small buffers and keeps them: `made N`, and the code of what was refused.
pub(crate) fn create_many(count: u64) -> Answer {
    for made in 0..count {
        match Buffer::new(4) {
            Ok(buffer) => HELD.with_borrow_mut(|held| held.push(buffer)),
            Err(error) => return Ok(format!("made {made} {}", error.code())),
        }
    }
    Ok(format!("made {count}"))
}

/// Frees what is kept: `dropped N`.
pub(crate) fn drop_all() -> String {
    format!("dropped {}", HELD.take().len())
}

/// Makes a buffer and reads it: `zeros BYTES`, or `dirty`.
pub(crate) fn peek(bytes: u64) -> Answer {
    let read = Buffer::new(bytes)?.read_all::<u8>()?;
    Ok(seen(&read))
}

/// Reads a buffer by a number that someone else was given.
pub(crate) fn forge(handle: u64) -> Answer {
    sluicebox_guest::__private::read_gpu_buffer(handle, 0, 4).map(|read| seen(&read))
}

fn seen(read: &[u8]) -> String {
    if read.iter().all(|byte| *byte == 0) {
        return format!("zeros {}", read.len());
    }
    "dirty".to_owned()
}
