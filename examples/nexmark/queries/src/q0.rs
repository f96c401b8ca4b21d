//! Query 0, pass-through: every event as it came. What the way through costs by itself.

use sluicebox_guest::{Events, Output};

pub(crate) fn pass(events: Events<'_>, out: &mut Output) {
    for event in events {
        out.emit(&event, event.payload());
    }
}
