//! The way in: the events of one request, divided by partition and handed over whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_core::key;

use super::Running;

/// When a producer should try again after it found no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Collects the events of one request, divided by partition; all or nothing.
#[derive(Debug)]
pub struct Intake {
    running: Arc<Running>,
    /// For each entry, a builder a partition.
    builders: Vec<FrameBuilder>,
    filled: Vec<usize>,
    events: usize,
    bytes: usize,
}

/// An intake that found no room.
#[derive(Debug)]
pub struct Busy {
    /// To try again with.
    pub intake: Intake,
    /// When trying again is worth it.
    pub retry_after: Duration,
}

impl Intake {
    /// An empty intake.
    #[must_use]
    pub fn new(running: &Arc<Running>) -> Self {
        let mut builders = Vec::new();
        let count = running.entries.len() * usize::from(running.partitions);
        builders.resize_with(count, FrameBuilder::new);
        Self { running: running.clone(), builders, filled: Vec::new(), events: 0, bytes: 0 }
    }

    /// Adds one event. The parts are within the format's limits, see [`FrameBuilder::push`].
    pub fn push(&mut self, head: &Head, key: &[u8], payload: &[u8], fields: &[u8]) {
        let partitions = self.running.partitions;
        let partition = usize::from(key::partition_of(key::group_of(key), partitions));
        for (entry, (_, input)) in self.running.entries.iter().enumerate() {
            let at = entry * usize::from(partitions) + partition;
            let builder = &mut self.builders[at];
            if builder.is_empty() {
                self.filled.push(at);
            }
            builder.push(&Head { input: *input, ..*head }, key, payload, fields);
        }
        self.events += 1;
        self.bytes += payload.len();
    }

    /// Events so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often each event is handed in: once for each stage that ingest feeds.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.running.entries.len()
    }

    /// Hands all events to their partitions.
    ///
    /// # Errors
    /// A partition has no room, or the pipeline is being replaced; nothing was taken.
    pub fn submit(mut self) -> Result<(), Busy> {
        let partitions = usize::from(self.running.partitions);
        let mailbox_of = |running: &Running, at: usize| {
            let (segment, _) = running.entries[at / partitions];
            running.mailboxes[segment][at % partitions].clone()
        };
        // Counted as under way before the look at `paused`, so that whoever pauses and then waits
        // for idleness waits for this intake too.
        self.running.shared.entered();
        let room = self.filled.iter().all(|at| mailbox_of(&self.running, *at).has_room());
        if self.running.is_paused() || !room {
            self.running.shared.left(1);
            return Err(Busy { intake: self, retry_after: RETRY_AFTER });
        }
        for at in std::mem::take(&mut self.filled) {
            // Another thread may have filled the inbox since the look; the excess is one frame.
            mailbox_of(&self.running, at).push_over(self.builders[at].finish());
        }
        self.running.shared.left(1);
        Ok(())
    }
}
