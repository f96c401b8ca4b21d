//! What is read when a log is opened, and how it is made ready to be written again.
//!
//! 1. Every header is checked, and that the segments follow one another without a gap.
//! 2. Segments that hold something from the wanted position on are read. Each but the last has to
//!    be valid up to where the next one begins, as that was synced when the next one was begun.
//! 3. In the last one the first place without a valid group is the end, unless a group behind it
//!    says that something behind it was on disk: then it is damage.
//! 4. What is not known to have been synced is written once more, into a new segment, and synced.
//!    It may be readable only because it is still in the cache of a system that could not write it.
//!
//! Keeps true: nothing is changed before everything was checked; what was visited is on disk when
//! the opening returns; an opening that is itself cut short at any place leaves a log that opens.

use std::ops::ControlFlow;

use super::disk::{Disk, DiskFile, write_error};
use super::error::Error;
use super::format::{self, SegmentHeader};
use super::group::Group;
use super::scan::{End, GroupView, Next, Scan, SegmentFile};
use super::segments::{Segment, Segments};
use super::{Config, Position, Visit};

/// Names of a log's files, by what they are.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Numbers of segments, in order.
    pub(super) segments: Vec<u64>,
    /// Numbers of spares, in order.
    pub(super) spares: Vec<u64>,
}

impl Files {
    /// Looks at names only; what does not look like ours is left alone.
    pub(super) fn list(disk: &dyn Disk) -> Result<Self, Error> {
        let names = disk.list().map_err(Error::io("list", "the directory"))?;
        let mut files = Self::default();
        for name in &names {
            files.segments.extend(format::number_in(name, ".log"));
            files.spares.extend(format::number_in(name, ".spare"));
        }
        files.segments.sort_unstable();
        files.spares.sort_unstable();
        Ok(files)
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    /// Position behind its last group.
    pub(super) end: u64,
}

/// Reads the log from `from` on, and makes it ready.
pub(super) fn recover(
    segments: &Segments,
    config: &Config,
    from: Position,
    visit: Visit<'_>,
) -> Result<Current, Error> {
    let disk = segments.disk();
    let files = Files::list(disk)?;
    let headers = read_headers(disk, &files.segments)?;
    let (kept, tail) = read_all(disk, &headers, from, visit)?;
    // A process before this one may have renamed a segment to a spare and ended: used as a spare
    // while the disk still has the old name, it would come back after a loss of power as that
    // segment.
    disk.sync_names().map_err(|e| write_error(disk, "sync", "the directory", e))?;
    remove_surplus(disk, &files.spares, config.spare_segments)?;
    let spares = files.spares.iter().take(config.spare_segments);
    let spares = spares.map(|number| format::spare_name(*number)).collect();
    segments.fill(kept, spares, files.spares.last().copied().unwrap_or(0));
    make_ready(segments, config, headers.last().map(|last| last.header), tail)
}

/// Checks every header, and each against the one before.
pub(super) fn read_headers(disk: &dyn Disk, numbers: &[u64]) -> Result<Vec<SegmentFile>, Error> {
    let mut headers: Vec<SegmentFile> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let next = SegmentFile::read(disk, *number)?;
        if let Some(last) = headers.last() {
            check_follows(&last.header, &next)?;
        }
        headers.push(next);
    }
    Ok(headers)
}

pub(super) fn check_follows(last: &SegmentHeader, next: &SegmentFile) -> Result<(), Error> {
    let SegmentFile { name, header } = next;
    if header.log_id != last.log_id {
        let (found, expected) = (header.log_id, last.log_id);
        return Err(Error::Foreign { file: name.clone(), found, expected });
    }
    let damaged =
        |what| Err(Error::Corrupt { file: name.clone(), offset: 0, position: header.base, what });
    if header.number != last.number + 1 {
        let before = format::segment_name(header.number - 1);
        return damaged(format!("the file before it, {before}, is missing"));
    }
    if header.base < last.base || header.base.0 > last.room_end() {
        let (first, end) = (last.base, last.room_end());
        return damaged(format!("it should begin at a position from {first} to {end}"));
    }
    Ok(())
}

/// What has to be written once more.
#[derive(Debug, Default)]
struct Tail {
    /// Everything before it is known to be on disk.
    synced: u64,
    groups: Vec<Group>,
    /// Where the log ends.
    end: u64,
}

/// Reads what is needed, and tells which segments there are.
fn read_all(
    disk: &dyn Disk,
    headers: &[SegmentFile],
    from: Position,
    visit: Visit<'_>,
) -> Result<(Vec<Segment>, Tail), Error> {
    let mut reading = Reading { disk, from, visit };
    let oldest = headers.first().map(|first| first.header.base).unwrap_or_default();
    if from < oldest {
        return Err(Error::Trimmed { oldest });
    }
    let mut kept = Vec::with_capacity(headers.len());
    for pair in headers.windows(2) {
        kept.push(reading.whole(&pair[0], pair[1].header.base)?);
    }
    let mut tail = Tail::default();
    if let Some(last) = headers.last() {
        let (segment, found) = reading.last(last)?;
        kept.push(segment);
        tail = found;
    }
    if tail.end < from.0 {
        return Err(Error::Behind { from, end: Position(tail.end) });
    }
    Ok((kept, tail))
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    from: Position,
    visit: Visit<'a>,
}

impl Reading<'_> {
    /// A segment that has to be valid up to `end`.
    fn whole(&mut self, file: &SegmentFile, end: Position) -> Result<Segment, Error> {
        let mut segment = Segment::new(file.header);
        if end > self.from {
            let mut scan = file.scan(self.disk, file.header.base.0, end.0)?;
            while scan.at() < end.0 {
                if let ControlFlow::Break(bad) = self.group(file, &mut scan, &mut segment)? {
                    let what = format!("{}; groups up to position {end} were on disk", bad.what);
                    return Err(corrupt(file, &bad, what));
                }
            }
        }
        segment.end = end.0;
        Ok(segment)
    }

    /// The segment that was being written.
    fn last(&mut self, file: &SegmentFile) -> Result<(Segment, Tail), Error> {
        let mut segment = Segment::new(file.header);
        let mut synced = file.header.base.0;
        let mut scan = file.scan(self.disk, synced, u64::MAX)?;
        let end = loop {
            match self.group(file, &mut scan, &mut segment)? {
                ControlFlow::Continue(known) => synced = synced.max(known),
                ControlFlow::Break(end) => break end,
            }
        };
        let evidence = scan.evidence_behind(end.position);
        if let Some(at) = evidence.map_err(Error::io("read", &file.name))? {
            let what = format!("{}; a group at position {at} says it was on disk", end.what);
            return Err(corrupt(file, &end, what));
        }
        let groups = copy_groups(file, file.scan(self.disk, synced, end.position)?)?;
        Ok((segment, Tail { synced, groups, end: end.position }))
    }

    /// Takes the next group: what it says was synced when it was written, or how groups end.
    fn group(
        &mut self,
        file: &SegmentFile,
        scan: &mut Scan,
        segment: &mut Segment,
    ) -> Result<ControlFlow<End, u64>, Error> {
        let group = match scan.next().map_err(Error::io("read", &file.name))? {
            Next::Group(group) => group,
            Next::End(end) => return Ok(ControlFlow::Break(end)),
        };
        self.visit(&group)?;
        segment.add(group.header.position, group.end());
        Ok(ControlFlow::Continue(group.header.synced))
    }

    fn visit(&mut self, group: &GroupView<'_>) -> Result<(), Error> {
        if group.end() <= self.from.0 {
            return Ok(());
        }
        for record in group.records().filter(|record| record.position >= self.from) {
            if (self.visit)(record).is_break() {
                return Err(Error::Stopped { at: record.position });
            }
        }
        Ok(())
    }
}

/// The groups of a part that was just found valid.
fn copy_groups(file: &SegmentFile, mut scan: Scan) -> Result<Vec<Group>, Error> {
    let mut groups = Vec::new();
    while scan.at() < scan.limit() {
        match scan.next().map_err(Error::io("read", &file.name))? {
            Next::Group(group) => groups.push(Group::copied(&group.header, group.bytes())),
            Next::End(end) => {
                let what = format!("{}; a group says that one begins here", end.what);
                return Err(corrupt(file, &end, what));
            }
        }
    }
    Ok(groups)
}

fn corrupt(file: &SegmentFile, end: &End, what: String) -> Error {
    let (file, position) = (file.name.clone(), Position(end.position));
    Error::Corrupt { file, offset: end.offset, position, what }
}

/// Deletes files that wait to be used again, but for as many as are wanted.
fn remove_surplus(disk: &dyn Disk, spares: &[u64], spares_max: usize) -> Result<(), Error> {
    for number in spares.iter().skip(spares_max) {
        let name = format::spare_name(*number);
        disk.remove(&name).map_err(|e| write_error(disk, "remove", &name, e))?;
    }
    Ok(())
}

/// Begins the segment that is written from now on, with what has to be written once more.
fn make_ready(
    segments: &Segments,
    config: &Config,
    last: Option<SegmentHeader>,
    mut tail: Tail,
) -> Result<Current, Error> {
    let disk = segments.disk();
    let base = Position(tail.synced);
    let number = match last {
        None => 1,
        // Nothing of it is needed that is not in the new one, so that takes its place. Else a node
        // that starts again and again would fill the disk.
        Some(last) if last.base == base => last.number,
        Some(last) => last.number + 1,
    };
    // What was not known to be synced was written for a segment that may have been larger.
    let bytes: u64 = tail.groups.iter().map(|group| group.padded_bytes() as u64).sum();
    let header = SegmentHeader {
        number,
        generation: disk.unique(),
        base,
        segment_bytes: config.segment_bytes.max(bytes + format::HEADER_BYTES),
        log_id: last.map_or_else(|| disk.unique(), |last| last.log_id),
    };
    let file = begin(segments, &header, &mut tail.groups)
        .map_err(|e| write_error(disk, "begin a segment in", "the directory", e))?;
    Ok(Current { file, header, end: tail.end })
}

/// Writes a segment with its first groups, and brings it to disk before it has its name; so a file
/// under the name of a segment has always a valid header.
pub(super) fn begin(
    segments: &Segments,
    header: &SegmentHeader,
    groups: &mut [Group],
) -> std::io::Result<Box<dyn DiskFile>> {
    let disk = segments.disk();
    let (spare, is_new) = match segments.take_spare() {
        Some(spare) => (spare, false),
        None => (segments.new_spare_name(), true),
    };
    let written = write_spare(disk, &spare, is_new, header, groups);
    let name = format::segment_name(header.number);
    let file = written.and_then(|file| disk.rename(&spare, &name).map(|()| file));
    let file = file.inspect_err(|_| {
        // What a sync failed for is not to be used again. If it cannot be removed the next opening
        // finds a spare, which holds nothing.
        disk.remove(&spare).ok();
    })?;
    disk.sync_names()?;
    let mut segment = Segment::new(*header);
    groups.iter().for_each(|group| segment.add(group.position(), group.end()));
    segments.begun(segment);
    Ok(file)
}

fn write_spare(
    disk: &dyn Disk,
    name: &str,
    is_new: bool,
    header: &SegmentHeader,
    groups: &mut [Group],
) -> std::io::Result<Box<dyn DiskFile>> {
    let file = if is_new { disk.create(name)? } else { disk.open(name)? };
    file.reserve(header.segment_bytes)?;
    for group in groups {
        let offset = header.offset_of(group.position());
        file.write_at(group.sign(header.generation, header.base.0), offset)?;
    }
    file.write_at(&header.encode(), 0)?;
    file.sync_data()?;
    Ok(file)
}
