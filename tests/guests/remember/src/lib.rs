//! A stage that remembers in every way the standard library offers: for images of instances.
//!
//! Each event is one entry of a map whose order is by chance and one of a list that grows; what is
//! emitted depends on both, on the order, on the clock and on chance. Events say on which of the
//! standard streams something is printed, so that these are opened early, late or never.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it leaves behind is tested")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use sluicebox_guest::{Event, Kind, Output, Result, stage};

/// Everything the instance has seen.
struct Memory {
    counts: HashMap<Vec<u8>, u64>,
    list: Vec<Vec<u8>>,
    started: Option<Instant>,
}

thread_local! {
    static MEMORY: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

#[stage]
fn remember(event: Event<'_>, out: &mut Output) -> Result {
    if event.kind() != Kind::Data {
        return Ok(());
    }
    match event.payload().first() {
        Some(0..64) => println!("{} bytes", event.payload().len()),
        Some(64..128) => eprint!("{}", event.payload().len()),
        Some(128..160) => drop(std::io::stdin().lines().next()),
        Some(160..192) => std::io::stdout().flush()?,
        _ => {}
    }
    let answer = MEMORY.with_borrow_mut(|memory| {
        let memory = memory.get_or_insert_with(|| Memory {
            counts: HashMap::new(),
            list: Vec::new(),
            started: None,
        });
        memory.answer(event.payload())
    });
    out.emit(&event, answer?);
    Ok(())
}

impl Memory {
    fn answer(&mut self, payload: &[u8]) -> Result<Vec<u8>> {
        let started = *self.started.get_or_insert_with(Instant::now);
        *self.counts.entry(payload.to_vec()).or_default() += 1;
        // Some events take a page or more, so that memory grows.
        let copies = usize::from(*payload.last().unwrap_or(&0));
        self.list.push(payload.repeat(copies * copies / 16));
        // The order of the map's entries is that of a hash by chance.
        let order = self.counts.iter().fold(0_u64, |order, (name, count)| {
            let sum: u64 = name.iter().map(|byte| u64::from(*byte)).sum();
            order.wrapping_mul(31).wrapping_add(sum).wrapping_add(*count)
        });
        let bytes: usize = self.list.iter().map(Vec::len).sum();
        let sum: u64 = self.list.iter().flatten().map(|byte| u64::from(*byte)).sum();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
        let passed = started.elapsed().as_micros() as u64;
        let chance = RandomState::new().hash_one(payload);
        let parts = [order, bytes as u64, sum, now, passed, chance];
        Ok(parts.iter().flat_map(|part| part.to_le_bytes()).collect())
    }
}
