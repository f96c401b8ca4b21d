//! A stream function that keeps nothing but memory: what it says of each event follows from all
//! events of its stream, in their order.

#![expect(clippy::print_stdout, reason = "what it leaves behind is tested")]

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use sluicebox_guest::{EventStream, StreamOutput, stream};

/// The empty hash and the factor of FNV-1a, 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x100_0000_01b3;

#[stream]
async fn memory(mut events: EventStream, mut out: StreamOutput) {
    let mut hash = BASIS;
    let mut count = 0_u64;
    // A table that is hashed by the randomness of the host, and memory that grows.
    let mut seen: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut all = Vec::new();
    // What chance gave it at its beginning; it says so when it is asked.
    let mut ends_badly = false;
    let token = RandomState::new().hash_one(0_u64);
    while let Some(event) = events.next().await {
        let payload = event.payload().to_vec();
        for byte in &payload {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        count += 1;
        all.extend_from_slice(&payload);
        if payload == b"token" {
            out.emit(format!("token {token:016x}"));
        }
        // What cannot be handled, at once or once the stream ends.
        assert_ne!(payload, b"trap");
        ends_badly |= payload == b"trap at the end";
        if payload == b"print" {
            // It has no image from then on: the standard library keeps a handle.
            println!("printed");
        }
        let times = seen.entry(payload).or_default();
        *times += 1;
        out.emit(format!("{count} {hash:016x} {times} {}", all.len()));
    }
    assert!(!ends_badly);
    out.emit(format!("end {count} {hash:016x}"));
}
