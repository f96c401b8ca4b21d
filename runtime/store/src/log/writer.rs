//! The one thread that writes: takes what was appended as one group, writes it, syncs it, says so.
//!
//! ```text
//! append → group being filled ─(taken as a whole)→ group being written → synced, told to all
//! ```
//!
//! Keeps true:
//!
//! - Groups are written one after the other; the next is taken when the one before is on disk. So
//!   what is not on disk is in memory, in two groups, bounded.
//! - After a write or sync that failed nothing behind the last good sync is trusted. The group goes
//!   into a new segment that begins where that sync ended, under the same positions.
//! - A full disk is waited out; anything else is tried a bounded number of times, then the log has
//!   failed. Nothing that was not synced is ever told as synced.
//!
//! One [`step`](Writer::step) is one group, so that tests can drive it without a thread.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::disk::is_full;
use super::format::SegmentHeader;
use super::group::Group;
use super::recover::{Current, begin};
use super::shared::Shared;
use super::{Health, Position};

/// What a step of the writer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to write.
    Idle,
    /// A group is on disk.
    Wrote,
    /// It could not be written; to be tried again.
    Retry,
    /// The log has failed.
    Failed,
}

/// Writes what was appended.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    current: Current,
    /// Taken and not yet on disk.
    group: Option<Group>,
    /// The file that is written is not trusted behind the last good sync.
    is_broken: bool,
    /// Failures in a row that were not for want of room.
    tries: u32,
    /// Number of the segment during which a spare was made, if there was room for one.
    prepared: u64,
    /// True if the last group on disk has records, which nothing behind it vouches for.
    is_unmarked: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, current: Current) -> Self {
        Self {
            shared,
            current,
            group: None,
            is_broken: false,
            tries: 0,
            prepared: 0,
            is_unmarked: false,
        }
    }

    /// Writes until the log is closed or has failed.
    pub(super) fn run(mut self) {
        let alarm = Alarm(Arc::clone(&self.shared));
        loop {
            match self.step() {
                Step::Wrote => {}
                Step::Idle if self.shared.wait_for_work() => {}
                Step::Retry if !self.shared.state().closing => self.shared.pause(),
                Step::Idle | Step::Retry | Step::Failed => break,
            }
        }
        self.finish();
        drop(alarm);
    }

    /// Takes what was appended and brings it to disk.
    pub fn step(&mut self) -> Step {
        if self.shared.state().health == Health::Failed {
            return Step::Failed;
        }
        let taken = self.group.take().or_else(|| self.shared.take_group());
        let Some(mut group) = taken else { return Step::Idle };
        let started = Instant::now();
        if let Err(error) = self.write(&mut group) {
            self.group = Some(group);
            return self.refused(&error);
        }
        self.tries = 0;
        self.is_unmarked = true;
        self.written(group, started);
        self.prepare();
        Step::Wrote
    }

    /// The last step of a log that is closed: what is on disk is said to be, so that damage of its
    /// end is told from a torn one. If that cannot be written, it is as after a crash.
    pub fn finish(&mut self) {
        let Current { file, header, end } = &self.current;
        let mut mark = Group::at(*end, Vec::new());
        let fits = mark.end() <= header.room_end();
        if self.is_unmarked && fits && self.group.is_none() && !self.is_broken {
            let bytes = mark.sign(header.generation, *end);
            let written = file.write_at(bytes, header.offset_of(*end));
            written.and_then(|()| file.sync_data()).ok();
        }
        self.shared.end();
    }

    fn write(&mut self, group: &mut Group) -> io::Result<()> {
        if !self.is_broken && group.end() <= self.current.header.room_end() {
            let Err(error) = self.write_on(group) else { return Ok(()) };
            self.is_broken = true;
            self.count_failure(&error);
        }
        self.write_in_new(group)
    }

    /// Into the segment there is.
    fn write_on(&mut self, group: &mut Group) -> io::Result<()> {
        let Current { file, header, .. } = &self.current;
        let offset = header.offset_of(group.position());
        file.write_at(group.sign(header.generation, group.position()), offset)?;
        file.sync_data()?;
        self.shared.segments.grown(group.position(), group.end());
        Ok(())
    }

    /// Into a new segment. Everything before it is synced.
    fn write_in_new(&mut self, group: &mut Group) -> io::Result<()> {
        let (last, base) = (&self.current.header, Position(group.position()));
        let is_empty = last.base == base;
        let header = SegmentHeader {
            number: if is_empty { last.number } else { last.number + 1 },
            generation: self.shared.segments.disk().unique(),
            base,
            segment_bytes: self.shared.config.segment_bytes,
            log_id: last.log_id,
        };
        let file = begin(&self.shared.segments, &header, std::slice::from_mut(group))?;
        self.current = Current { file, header, end: group.position() };
        self.is_broken = false;
        Ok(())
    }

    fn written(&mut self, group: Group, started: Instant) {
        self.current.end = group.end();
        self.shared.written(group, started.elapsed());
    }

    fn refused(&mut self, error: &io::Error) -> Step {
        self.count_failure(error);
        if is_full(error) {
            self.shared.set_health(Health::Full, error.to_string());
            return Step::Retry;
        }
        self.tries += 1;
        if self.tries < self.shared.config.tries_max {
            return Step::Retry;
        }
        self.shared.set_health(Health::Failed, error.to_string());
        Step::Failed
    }

    fn count_failure(&self, error: &io::Error) {
        let mut state = self.shared.state();
        state.figures.failures += 1;
        state.reason = Some(error.to_string());
    }

    /// Makes a file for the next segment when this one is half full, so that nobody waits for it.
    /// If that fails it is tried again when the file is needed.
    fn prepare(&mut self) {
        let Current { header, end, .. } = &self.current;
        let is_early = (end - header.base.0) * 2 < header.segment_bytes;
        if is_early || self.prepared == header.number || self.shared.segments.has_spare() {
            return;
        }
        self.prepared = header.number;
        let segments = &self.shared.segments;
        let name = segments.new_spare_name();
        let made = segments.disk().create(&name);
        match made.and_then(|file| file.reserve(self.shared.config.segment_bytes)) {
            Ok(()) => segments.add_spare(name),
            Err(_) => drop(segments.disk().remove(&name)),
        }
    }
}

/// Says that the log has failed if the writer's thread ends by a panic.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_health(Health::Failed, "the writer's thread panicked".into());
        }
    }
}
