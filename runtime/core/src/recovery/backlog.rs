//! Runs that were sent to one partition and are not consumed, in order for each source.
//!
//! A batch takes them from the front, the last one perhaps in part. What it says it took is held
//! against what lies between the places it names: that finds every event left out or taken twice.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::Wrong;
use crate::codec::{FrameAt, Piece};
use crate::position::{Place, RunHeader, Source};

/// A run that waits for its reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What it says of itself.
    pub run: RunHeader,
    /// Its first events that are consumed.
    pub skip: u32,
    /// How many events it has, the consumed ones included.
    pub events: u32,
    /// Position of its record in the log.
    pub position: u64,
    /// Where in the body of that record its frame is.
    pub range: Range<usize>,
}

/// See the module. A source without waiting runs is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backlog(BTreeMap<Source, VecDeque<Waiting>>);

impl Backlog {
    /// A backlog as it was. `None` if the runs of a source are not in order.
    pub(super) fn restore(runs: Vec<Waiting>) -> Option<Self> {
        let mut backlog = Self::default();
        for waiting in runs {
            let queue = backlog.0.entry(waiting.run.source).or_default();
            if queue.back().is_some_and(|last: &Waiting| last.run.seq >= waiting.run.seq) {
                return None;
            }
            queue.push_back(waiting);
        }
        Some(backlog)
    }

    /// Appends a run; those of its source come in order.
    pub(super) fn push(&mut self, run: RunHeader, frame: &FrameAt, position: u64) {
        let (events, range) = (frame.events, frame.range.clone());
        let waiting = Waiting { run, skip: 0, events, position, range };
        self.0.entry(run.source).or_default().push_back(waiting);
    }

    /// Drops what a piece of a batch took. Wrong if that is not what was sent.
    pub(super) fn take(&mut self, piece: &Piece) -> Result<(), Wrong> {
        let source_of = piece.source;
        let mut queue = self.0.remove(&source_of).unwrap_or_default();
        let mut sent = 0;
        let mut end = piece.from;
        while let Some(first) = queue.front_mut() {
            let Place { seq, index } = piece.to;
            if first.run.seq < seq {
                end = Place::after(first.run.seq);
                sent += u64::from(first.events - first.skip);
                queue.pop_front();
                continue;
            }
            if first.run.seq == seq && index > 0 {
                if index <= first.skip || index >= first.events {
                    return Err(Wrong::Unsent { source_of, to: piece.to });
                }
                end = piece.to;
                sent += u64::from(index - first.skip);
                first.skip = index;
            }
            break;
        }
        if !queue.is_empty() {
            self.0.insert(source_of, queue);
        }
        if end != piece.to {
            return Err(Wrong::Unsent { source_of, to: piece.to });
        }
        if sent != u64::from(piece.events) {
            return Err(Wrong::Events { source_of, found: piece.events.into(), sent });
        }
        Ok(())
    }

    /// True if it has runs of a source before the end of a piece.
    pub(super) fn reaches_into(&self, piece: &Piece) -> bool {
        let first = self.0.get(&piece.source).and_then(VecDeque::front);
        first.is_some_and(|first| Place { seq: first.run.seq, index: 0 } < piece.to)
    }

    /// Drops what lies before a place of a source: it was consumed elsewhere.
    pub(super) fn drop_before(&mut self, source: Source, place: Place) {
        let Some(queue) = self.0.get_mut(&source) else { return };
        while let Some(first) = queue.front_mut() {
            if first.run.seq == place.seq && place.index < first.events {
                first.skip = first.skip.max(place.index);
            }
            let whole = first.run.seq == place.seq && place.index >= first.events;
            if !whole && first.run.seq >= place.seq {
                break;
            }
            queue.pop_front();
        }
        if queue.is_empty() {
            self.0.remove(&source);
        }
    }

    /// Every run, source by source, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.0.values().flatten()
    }

    /// Number of runs.
    pub(super) fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    /// Where the runs came from.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> {
        self.0.keys().copied()
    }
}
