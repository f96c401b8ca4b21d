//! What one commit contains.

use std::collections::BTreeMap;

use crate::frame::{Event, Frame, FrameBuilder, field, push_field};
use crate::ids::RequestId;
use crate::layer::request_of;

/// Extension fields the host puts on a dead letter; `docs/guide/pipelines.md` lists them.
pub mod dead_letter_field {
    /// Name of the stage.
    pub const STAGE: u16 = 33_000;
    /// `retry`, `reject`, `trap`, `stream.lost` or `stream.quota`.
    pub const CLASS: u16 = 33_001;
    /// The failure.
    pub const MESSAGE: u16 = 33_002;
}

/// Events that leave the segment by one target of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRun {
    /// Index of the stage in the segment.
    pub stage: usize,
    /// Index of the target in the stage's ports.
    pub target: usize,
    /// Partition, for a re-keying edge; else 0.
    pub partition: u16,
    /// The events.
    pub frame: Frame,
}

/// Everything one batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Outputs and events for other segments.
    pub runs: Vec<OutRun>,
    /// Events given up on, with why.
    pub dead_letters: Option<Frame>,
    /// For each waiting request the batch touched: descendants sent on, less events consumed.
    pub requests: Vec<(RequestId, i64)>,
}

/// A commit under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub runs: Vec<OutRun>,
    dead: FrameBuilder,
    requests: BTreeMap<RequestId, i64>,
}

impl Draft {
    /// Counts the requests a batch's events belong to.
    pub(super) fn consume(&mut self, frame: &Frame) {
        if frame.is_plain() {
            return;
        }
        for request in
            frame.events().filter(|e| !e.fields.is_empty()).filter_map(|e| request_of(&e))
        {
            *self.requests.entry(request).or_default() -= 1;
        }
    }

    pub(super) fn sent(&mut self, requests: Vec<RequestId>) {
        for request in requests {
            *self.requests.entry(request).or_default() += 1;
        }
    }

    /// Keeps the event as it was but for what is attached, which is over with the batch; with who
    /// gave up on it and why.
    pub(super) fn dead_letter(&mut self, stage: &str, event: &Event<'_>, class: &str, why: &str) {
        let mut fields = Vec::with_capacity(event.fields.bytes().len() + why.len() + 64);
        let own = [
            (dead_letter_field::STAGE, stage),
            (dead_letter_field::CLASS, class),
            (dead_letter_field::MESSAGE, why),
        ];
        for (id, value) in own {
            let _fits = push_field(&mut fields, id, value.as_bytes());
        }
        for (id, value) in event.fields.iter() {
            let replaced = (dead_letter_field::STAGE..=dead_letter_field::MESSAGE).contains(&id);
            if !replaced && id != field::ATTACHMENTS {
                let _fits = push_field(&mut fields, id, value);
            }
        }
        self.dead.push(&event.head, event.key, event.payload, &fields);
    }

    pub(super) fn finish(&mut self) -> Commit {
        let dead_letters = (!self.dead.is_empty()).then(|| self.dead.finish());
        let requests = std::mem::take(&mut self.requests);
        Commit {
            runs: std::mem::take(&mut self.runs),
            dead_letters,
            requests: requests.into_iter().collect(),
        }
    }
}
