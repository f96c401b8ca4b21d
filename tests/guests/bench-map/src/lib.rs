//! The stage of the benches: reads key and time of each event and copies the payload out.
//!
//! The time it emits depends on both, so that neither can be left unread, and so that a bench can
//! tell from it how many stages an event went through.

use sluicebox_guest::{Events, Output, stage};

#[stage]
fn map(events: Events<'_>, out: &mut Output) {
    for event in events {
        let key = event.key_bytes();
        let mark = u64::from(key.first().copied().unwrap_or(0)) + key.len() as u64;
        out.draft(&event).time(event.time() + mark).emit(event.payload());
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_guest::testing::{Harness, Input};

    use super::*;

    #[test]
    fn the_time_says_that_key_and_time_were_read() {
        let mut harness = Harness::new(map);
        let handled = harness.handle([Input::data("ab", "payload").time(1_000)]);
        assert_eq!(handled.outputs[0].time, 1_000 + 2 + u64::from(b'a'));
        assert_eq!(handled.outputs[0].text(), "payload");
    }
}
