//! A stream function for the benches: adds up the bytes of its stream, and says the sum at the end.

use sluicebox_guest::{EventStream, StreamOutput, stream};

#[stream]
async fn sum(mut events: EventStream, mut out: StreamOutput) {
    let mut sum = 0_u64;
    while let Some(event) = events.next().await {
        sum += event.payload().iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    out.emit(sum.to_le_bytes());
}
