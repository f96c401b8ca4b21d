//! A stream function with a memory, whose snapshots do what its config says.
//!
//! Of each number it emits the sum so far, times the `factor` of its config. `take` and `restore`
//! in the config say how the two misbehave: `refuse`, `trap`, `spin`, and of `take` `large` as
//! well.

#![expect(clippy::print_stdout, reason = "what it leaves behind is tested")]

use sluicebox_guest::{EventStream, Kept, Memory, Result, StreamOutput, config, stream};

/// What it knows.
#[derive(Clone, Default)]
struct Total(i64);

/// What a snapshot may have, and a little more.
const LARGE: usize = (64 << 20) + 1;

impl Kept for Total {
    fn write(&self, bytes: &mut Vec<u8>) {
        match config::get("take").as_deref() {
            Some("trap") => panic!("take"),
            Some("spin") => spin(),
            Some("large") => bytes.resize(LARGE, 7),
            // Nothing reads that.
            Some("refuse") => bytes.push(0xff),
            _ => self.0.write(bytes),
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        match config::get("restore").as_deref() {
            Some("trap") => panic!("restore"),
            Some("spin") => spin(),
            Some("refuse") => return None,
            _ => {}
        }
        Some(Self(Kept::read(bytes)?))
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

#[expect(clippy::await_holding_refcell_ref, reason = "what comes of that is tested")]
#[stream(snapshot)]
async fn total(
    mut events: EventStream,
    mut out: StreamOutput,
    mut memory: Memory<Total>,
) -> Result {
    let factor = config::get("factor").map_or(Ok(1), |text| text.parse::<i64>())?;
    if memory.is_resumed() {
        out.emit("resumed");
    }
    while let Some(event) = events.next().await {
        match event.payload() {
            // It has no image from then on: the standard library keeps a handle.
            b"print" => println!("printed"),
            b"hold" => {
                let held = memory.borrow_mut();
                events.next().await;
                drop(held);
            }
            // Code that is to be mended.
            _ if config::get("trap").is_some() => panic!("trap"),
            payload => {
                let number = std::str::from_utf8(payload)?.parse::<i64>()?;
                let mut total = memory.borrow_mut();
                total.0 += number;
                out.emit((total.0 * factor).to_string());
            }
        }
    }
    out.emit("end");
    Ok(())
}
