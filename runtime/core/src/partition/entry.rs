//! The way in: most events enter by the root of the segment, a replayed dead letter by the stage
//! it failed in.
//!
//! - A dead letter is the event as its stage was given it, without attachments, and two or three
//!   fields more. Taking those away gives the event back.
//! - Where it enters is said by a field of the host's ([`field::ENTRY`]), which is taken away here:
//!   no stage sees it, and none can emit it.
//! - An event for a stage that is not in the segment any more is a dead letter again.

use super::{Partition, dead_letter_field};
use crate::frame::{Event, Frame, FrameBuilder, Head, NO_CAUSE, field, push_field};

/// Class and message of a dead letter whose stage has gone.
const GONE: (&str, &str) = ("replay", "the stage it failed in is not in its segment any more");

/// Appends a dead letter as the event it was, to enter by `entry`, or by the root.
pub fn push_again(dead: &Event<'_>, entry: Option<&str>, builder: &mut FrameBuilder) {
    let mut fields = Vec::with_capacity(dead.fields.bytes().len() + 64);
    if let Some(entry) = entry {
        let _fits = push_field(&mut fields, field::ENTRY, entry.as_bytes());
    }
    for (id, value) in dead.fields.iter() {
        let added = (dead_letter_field::STAGE..=dead_letter_field::MESSAGE).contains(&id);
        // Whoever waited for its result was answered when it was given up on.
        if !added && id != field::REQUEST && id != field::ENTRY {
            let _fits = push_field(&mut fields, id, value);
        }
    }
    let head = Head { cause: NO_CAUSE, ..dead.head };
    builder.push(&head, dead.key, dead.payload, &fields);
}

impl Partition {
    /// Hands the events of a batch to the stages they enter by.
    pub(super) fn enter(&mut self, frame: Frame) {
        let entry = |event: &Event<'_>| event.fields.get(field::ENTRY).is_some();
        if frame.is_plain() || !frame.events().any(|event| entry(&event)) {
            return self.enqueue(0, frame);
        }
        let mut builders = Vec::new();
        builders.resize_with(self.stages.len(), FrameBuilder::new);
        for event in frame.events() {
            let Some(name) = event.fields.get(field::ENTRY) else {
                let fields = event.fields.bytes();
                builders[0].push(&event.head, event.key, event.payload, fields);
                continue;
            };
            let at = self.plan.stages.iter().position(|plan| plan.name.as_bytes() == name);
            match at {
                Some(at) => push_again(&event, None, &mut builders[at]),
                None => {
                    let (class, why) = GONE;
                    let name = String::from_utf8_lossy(name);
                    self.draft.dead_letter(&name, &event, class, why);
                }
            }
        }
        for (at, mut builder) in builders.into_iter().enumerate() {
            if !builder.is_empty() {
                self.enqueue(at, builder.finish());
            }
        }
    }
}
