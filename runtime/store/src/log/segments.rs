//! The segments that are kept: which there are, reading from them, recycling those not needed.
//!
//! ```text
//! 0000…3.log  0000…4.log  0000…5.log            0000…8.spare
//! oldest                  being written         waits to be used again
//! ```
//!
//! Keeps true:
//!
//! - A file becomes a spare only when it is on disk that it is no segment any more, one segment
//!   after the other from the oldest on; so after any crash the segments found are without a gap.
//! - A reader believes only bytes that were read while their segment was kept.
//! - For each segment a short list of places lets a reader begin near what it looks for.
//!
//! Leaves to `writer.rs` and `recover.rs`: making segments. The list is never locked while the disk
//! is waited for.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, write_error};
use super::error::Error;
use super::format::{self, SegmentHeader};
use super::scan::{Next, SegmentFile};
use super::{Position, Visit};

/// Between two places in the list of a segment there are at least so many bytes.
const PLACES_APART: u64 = 256 << 10;

/// A segment that is kept.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    /// Where its synced groups end and the next segment begins.
    pub(super) end: u64,
    /// Positions of some groups, in order.
    places: Vec<u64>,
}

impl Segment {
    pub(super) fn new(header: SegmentHeader) -> Self {
        Self { header, end: header.base.0, places: Vec::new() }
    }

    /// Counts in a group, which is on disk.
    pub(super) fn add(&mut self, group: u64, end: u64) {
        let last = self.places.last().copied().unwrap_or(self.header.base.0);
        if group >= last + PLACES_APART {
            self.places.push(group);
        }
        self.end = end;
    }

    /// Takes back what ends behind `end`: it is in the next segment now.
    pub(super) fn cut(&mut self, end: u64) {
        self.end = end;
        self.places.retain(|place| *place < end);
    }

    /// Where a group begins, at or before a position, as near as is known.
    fn place_before(&self, position: u64) -> u64 {
        let behind = self.places.partition_point(|place| *place <= position);
        behind.checked_sub(1).map_or(self.header.base.0, |at| self.places[at])
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// The last one is being written.
    segments: VecDeque<Segment>,
    spares: Vec<String>,
    next_spare: u64,
}

/// What is kept of a log.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    kept: Mutex<Kept>,
    spares_max: usize,
    /// Held while segments are recycled: true if names were changed that may not be on disk.
    trimming: Mutex<bool>,
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, spares_max: usize) -> Self {
        Self { disk, kept: Mutex::default(), spares_max, trimming: Mutex::new(false) }
    }

    /// Takes what an opening found.
    pub(super) fn fill(&self, segments: Vec<Segment>, spares: Vec<String>, next_spare: u64) {
        let segments = segments.into();
        *self.kept() = Kept { segments, spares, next_spare };
    }

    /// Every change of it is complete before anything can panic.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The oldest position, how many segments, how many spares.
    pub(super) fn counts(&self) -> (Position, usize, usize) {
        let kept = self.kept();
        let oldest = kept.segments.front().map(|segment| segment.header.base);
        (oldest.unwrap_or_default(), kept.segments.len(), kept.spares.len())
    }

    /// A group of the last segment is on disk.
    pub(super) fn grown(&self, group: u64, end: u64) {
        if let Some(last) = self.kept().segments.back_mut() {
            last.add(group, end);
        }
    }

    /// The log goes on in this segment, which is on disk. It takes the place of the last one if it
    /// has the same number.
    pub(super) fn begun(&self, segment: Segment) {
        let mut kept = self.kept();
        if let Some(last) = kept.segments.back_mut() {
            last.cut(segment.header.base.0);
            if last.header.number == segment.header.number {
                kept.segments.pop_back();
            }
        }
        kept.segments.push_back(segment);
    }

    /// A spare to be used now.
    pub(super) fn take_spare(&self) -> Option<String> {
        self.kept().spares.pop()
    }

    /// A file that is on disk under this name and belongs to no segment.
    pub(super) fn add_spare(&self, name: String) {
        self.kept().spares.push(name);
    }

    pub(super) fn has_spare(&self) -> bool {
        !self.kept().spares.is_empty()
    }

    /// A name for a file to be made.
    pub(super) fn new_spare_name(&self) -> String {
        let mut kept = self.kept();
        kept.next_spare += 1;
        format::spare_name(kept.next_spare)
    }

    /// Recycles the segments that lie before `horizon` as a whole, never the last.
    pub(super) fn trim(&self, horizon: Position) -> Result<(), Error> {
        let mut names_changed = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // A name that was changed before and may come back after a crash, when a later one does
            // not, would leave a gap.
            if *names_changed {
                self.disk.sync_names().map_err(|e| self.cannot("sync", "the directory", e))?;
                *names_changed = false;
            }
            let Some((number, spare)) = self.first_before(horizon) else { return Ok(()) };
            let name = format::segment_name(number);
            *names_changed = true;
            if let Some(spare) = &spare {
                self.disk.rename(&name, spare).map_err(|e| self.cannot("rename", &name, e))?;
            } else {
                self.disk.remove(&name).map_err(|e| self.cannot("remove", &name, e))?;
            }
            self.kept().segments.pop_front();
            self.disk.sync_names().map_err(|e| self.cannot("sync", "the directory", e))?;
            *names_changed = false;
            self.kept().spares.extend(spare);
        }
    }

    /// The number of the first segment if it lies before `horizon`, and the name it will wait under
    /// if it is to be kept.
    fn first_before(&self, horizon: Position) -> Option<(u64, Option<String>)> {
        let kept = self.kept();
        let first = kept.segments.front().filter(|first| first.end <= horizon.0)?;
        if kept.segments.len() == 1 {
            return None;
        }
        let (number, is_room) = (first.header.number, kept.spares.len() < self.spares_max);
        drop(kept);
        Some((number, is_room.then(|| self.new_spare_name())))
    }

    fn cannot(&self, doing: &'static str, name: &str, source: std::io::Error) -> Error {
        write_error(&*self.disk, doing, name, source)
    }

    /// Gives the records from a position on.
    pub(super) fn read(&self, from: Position, visit: Visit<'_>) -> Result<Position, Error> {
        let mut at = from.0;
        loop {
            let Some(part) = self.part_at(at)? else { return Ok(Position(at)) };
            // The next part may be the same segment, grown meanwhile, and reading begins at a group
            // before it: what was given is not given again.
            match self.read_part(&part, from.max(Position(at)), visit)? {
                ControlFlow::Break(next) => return Ok(next),
                ControlFlow::Continue(()) => at = part.end,
            }
        }
    }

    /// What has to be read for a position; `None` if nothing is there yet.
    fn part_at(&self, at: u64) -> Result<Option<Part>, Error> {
        let kept = self.kept();
        let oldest = kept.segments.front().map_or(0, |first| first.header.base.0);
        if at < oldest {
            return Err(Error::Trimmed { oldest: Position(oldest) });
        }
        let behind = kept.segments.partition_point(|segment| segment.end <= at);
        Ok(kept.segments.get(behind).map(|segment| Part {
            header: segment.header,
            start: segment.place_before(at),
            end: segment.end,
        }))
    }

    fn read_part(
        &self,
        part: &Part,
        from: Position,
        visit: Visit<'_>,
    ) -> Result<ControlFlow<Position>, Error> {
        let name = format::segment_name(part.header.number);
        let file = SegmentFile { name, header: part.header };
        let mut scan = match file.scan(self.disk(), part.start, part.end) {
            Ok(scan) => scan,
            // It may have been recycled just now.
            Err(error) => return self.check_kept(&part.header).and(Err(error)),
        };
        while scan.at() < part.end {
            let next = scan.next().map_err(Error::io("read", &file.name))?;
            // Bytes that are checked below were read before this.
            self.check_kept(&part.header)?;
            let group = match next {
                Next::Group(group) => group,
                Next::End(end) => {
                    let (file, position) = (file.name, Position(end.position));
                    let what = format!("{}; it was on disk", end.what);
                    return Err(Error::Corrupt { file, offset: end.offset, position, what });
                }
            };
            for record in group.records().filter(|record| record.position >= from) {
                if visit(record).is_break() {
                    return Ok(ControlFlow::Break(format::behind(&record)));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A segment that is not kept any more may have been written over.
    fn check_kept(&self, header: &SegmentHeader) -> Result<(), Error> {
        let kept = self.kept();
        match kept.segments.front() {
            Some(first) if first.header.number > header.number => {
                Err(Error::Trimmed { oldest: first.header.base })
            }
            _ => Ok(()),
        }
    }
}

/// What a reader needs to know of a segment.
#[derive(Debug)]
struct Part {
    header: SegmentHeader,
    /// A group begins here.
    start: u64,
    end: u64,
}
