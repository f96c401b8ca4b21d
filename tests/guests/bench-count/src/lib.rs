//! The second stage of the word count, for the benches: as in `examples/word-count`, but the counts
//! go out as 8 bytes instead of JSON, so that what is measured is the state and not the text.

use sluicebox_guest::{Events, Output, StateBatch, stage};

#[stage]
fn count(events: Events<'_>, out: &mut Output) {
    let mut batch = StateBatch::new();
    for event in events {
        batch.add(&event, "count", 1);
    }
    for (event, reply) in events.into_iter().zip(&batch.run()) {
        match reply.number() {
            Ok(count) => out.emit(&event, count.to_le_bytes()),
            Err(refused) => out.fail(&event, refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::Harness;

    use super::*;

    #[test]
    fn the_count_goes_on_in_the_next_call() {
        let mut harness = Harness::new(count);
        harness.send("a", "");
        assert_eq!(harness.send("a", "").outputs[0].payload, 2_i64.to_le_bytes());
    }
}
