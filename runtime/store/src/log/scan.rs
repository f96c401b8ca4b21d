//! Walks the groups of one segment in order, checking each before anything of it is believed.
//!
//! Keeps true: a group is given whole and valid or not at all; memory is one window, which grows no
//! further than the largest group whose header was valid and which the file has room for; reads are
//! large and in order, nothing is read twice, nor anything behind the limit of a scan.
//!
//! Leaves to others: what an invalid group means (`recover.rs`, `inspect.rs`); that bytes were not
//! recycled while they were read (`segments.rs`).

use std::io;
use std::ops::Range;

use super::Record;
use super::disk::{Disk, DiskFile};
use super::error::Error;
use super::format::{self, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, HeaderFault};
use super::format::{Records, SECTOR_BYTES, SegmentHeader};

/// Bytes read at once. Large enough that a read costs little beside checking what was read.
const READ_BYTES: usize = 1 << 20;

/// Written parts of a file that are told apart. Behind an end there is none, or a few after a loss
/// of power; from the last of so many on all is read.
const PARTS_MAX: usize = 256;

/// A part of a file in memory.
#[derive(Debug, Default)]
struct Window {
    buffer: Vec<u8>,
    /// Where in the file it begins.
    offset: u64,
    /// How much of the buffer was read.
    filled: usize,
}

impl Window {
    /// The bytes from `offset` on, `bytes` of them; fewer where the file ends. What is behind them
    /// may be read as well, up to `stop`.
    fn slice(
        &mut self,
        file: &dyn DiskFile,
        offset: u64,
        bytes: usize,
        stop: u64,
    ) -> io::Result<&[u8]> {
        let has = |window: &Self| {
            let end = window.offset + window.filled as u64;
            offset >= window.offset && offset + bytes as u64 <= end
        };
        if !has(self) {
            let ahead = stop.saturating_sub(offset).min(READ_BYTES as u64) as usize;
            self.load(file, offset, bytes.max(ahead))?;
        }
        let start = (offset - self.offset) as usize;
        Ok(&self.buffer[start..(start + bytes).min(self.filled)])
    }

    /// Moves the window to `offset`; what is known already is not read again.
    fn load(&mut self, file: &dyn DiskFile, offset: u64, wanted: usize) -> io::Result<()> {
        let end = self.offset + self.filled as u64;
        let kept = if offset >= self.offset && offset < end {
            let start = (offset - self.offset) as usize;
            self.buffer.copy_within(start..self.filled, 0);
            self.filled - start
        } else {
            0
        };
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        (self.offset, self.filled) = (offset, kept);
        self.filled += file.read_at(&mut self.buffer[kept..wanted], offset + kept as u64)?;
        Ok(())
    }
}

/// A valid group.
#[derive(Debug)]
pub(super) struct GroupView<'a> {
    pub(super) header: GroupHeader,
    bytes: &'a [u8],
}

impl<'a> GroupView<'a> {
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        Records::of(&self.header, self.bytes)
    }

    /// Header and records, and the padding.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the next one can begin.
    pub(super) fn end(&self) -> u64 {
        self.header.position + self.header.padded()
    }
}

/// Where the valid groups of a segment end, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The first position without a valid group.
    pub(super) position: u64,
    /// Where in the file the first wrong byte is, or the record or group it is in.
    pub(super) offset: u64,
    /// True if a group was begun there: its header is valid, the rest is not.
    pub(super) begun: bool,
    pub(super) what: &'static str,
}

/// What is next in a segment.
#[derive(Debug)]
pub(super) enum Next<'a> {
    Group(GroupView<'a>),
    End(End),
}

/// A segment being read.
#[derive(Debug)]
pub(super) struct Scan {
    file: Box<dyn DiskFile>,
    header: SegmentHeader,
    window: Window,
    /// Position of the next group.
    at: u64,
    /// No group begins here or goes beyond.
    limit: u64,
}

impl Scan {
    /// Begins at `at`, where a group begins; goes no further than `limit`.
    pub(super) fn new(file: Box<dyn DiskFile>, header: SegmentHeader, at: u64, limit: u64) -> Self {
        let limit = limit.min(header.room_end());
        Self { file, header, window: Window::default(), at, limit }
    }

    /// Position of the next group.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// No group goes beyond it.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Reads the next group, checks it and goes behind it; or says how the valid ones end.
    pub(super) fn next(&mut self) -> io::Result<Next<'_>> {
        let (position, offset) = (self.at, self.header.offset_of(self.at));
        let end =
            |at, begun, what| Ok(Next::End(End { position, offset: offset + at, begun, what }));
        if self.at >= self.limit {
            return end(0, false, "the segment is full");
        }
        let stop = self.header.offset_of(self.limit);
        let Some(header) = self.group_header(position, stop)? else {
            return end(0, false, "no valid group begins here");
        };
        if position + header.padded() > self.limit {
            return end(0, true, "a group goes beyond the end of its segment");
        }
        let bytes = header.padded() as usize;
        let generation = self.header.generation;
        let group = self.window.slice(&*self.file, offset, bytes, stop)?;
        if group.len() < bytes {
            return end(0, true, "the file ends inside a group");
        }
        if let Err(fault) = format::check_group(&header, group, generation) {
            return end(fault.at, true, fault.what);
        }
        self.at = position + header.padded();
        Ok(Next::Group(GroupView { header, bytes: group }))
    }

    /// Looks behind an end for a group that was begun when something behind that end was on disk
    /// already; gives its position. Then what ends there is damaged, not torn.
    ///
    /// Only what was written is read: most of the newest segment never was. Before its end this
    /// would save nothing, as groups follow one another.
    pub(super) fn evidence_behind(&mut self, end: u64) -> io::Result<Option<u64>> {
        for part in self.written_behind(end)? {
            for offset in part.clone().step_by(SECTOR_BYTES as usize) {
                let position = self.header.position_of(offset);
                let header = self.group_header(position, part.end)?;
                if header.is_some_and(|header| header.synced > end) {
                    return Ok(Some(position));
                }
            }
        }
        Ok(None)
    }

    /// The parts of the file behind the sector of an end that may hold a group, in whole sectors.
    ///
    /// What is left out was never written and holds zero bytes. No group begins there, as one
    /// begins with its magic; so nothing is found by reading it, nor missed by not reading it.
    ///
    /// All parts are asked for before one is read. Systems take what they have in memory of a hole
    /// for written, and read ahead: asked again after each reading, they would call the next piece
    /// written as well, up to the end of the file.
    fn written_behind(&self, end: u64) -> io::Result<Vec<Range<u64>>> {
        let mut parts = Vec::new();
        let stop = self.header.offset_of(self.limit);
        let mut offset = self.header.offset_of(end) + SECTOR_BYTES;
        while offset < stop {
            let Some(written) = self.file.written(offset)? else { break };
            // A sector of which anything was written may begin with a group.
            let start = (written.start - written.start % SECTOR_BYTES).max(offset);
            let is_last = parts.len() + 1 == PARTS_MAX;
            let part_end = if is_last { stop } else { written.end.min(stop) };
            offset = part_end.next_multiple_of(SECTOR_BYTES);
            if start < offset {
                parts.push(start..offset);
            }
        }
        Ok(parts)
    }

    /// Reads ahead up to `stop`, a place in the file.
    fn group_header(&mut self, position: u64, stop: u64) -> io::Result<Option<GroupHeader>> {
        let offset = self.header.offset_of(position);
        let bytes = self.window.slice(&*self.file, offset, GROUP_HEADER_BYTES, stop)?;
        let bytes = <&[u8; GROUP_HEADER_BYTES]>::try_from(bytes).ok();
        let generation = self.header.generation;
        Ok(bytes.and_then(|bytes| GroupHeader::decode(bytes, generation, position)))
    }
}

/// A segment file, its header checked against its name and its length.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) header: SegmentHeader,
}

impl SegmentFile {
    /// Opens the segment of that number and checks its header.
    pub(super) fn read(disk: &dyn Disk, number: u64) -> Result<Self, Error> {
        let name = format::segment_name(number);
        let cannot = |e| Error::io("read", &name)(e);
        let file = disk.open(&name).map_err(cannot)?;
        let length = file.bytes().map_err(cannot)?;
        let mut bytes = [0; HEADER_BYTES as usize];
        let read = file.read_at(&mut bytes, 0).map_err(cannot)?;
        let damaged = |what: &str| {
            let (file, what) = (name.clone(), what.to_owned());
            Error::Corrupt { file, offset: 0, position: super::Position(0), what }
        };
        if read < bytes.len() {
            return Err(damaged("the file ends inside its header of 4096 bytes"));
        }
        let header = SegmentHeader::decode(&bytes).map_err(|fault| match fault {
            HeaderFault::Damaged(what) => damaged(what),
            HeaderFault::Newer { format, reader_min } => {
                let (file, supported) = (name.clone(), format::FORMAT);
                Error::FormatNewer { file, format, reader_min, supported }
            }
        })?;
        if header.number != number {
            let what = "its header has the number of another segment, so it bears a wrong name";
            return Err(damaged(what));
        }
        if length < header.segment_bytes {
            let (should, position) = (header.segment_bytes, header.base);
            let what = format!("the file ends here, it should have {should} bytes");
            return Err(Error::Corrupt { file: name, offset: length, position, what });
        }
        Ok(Self { name, header })
    }

    /// Reads its groups from `at` on.
    pub(super) fn scan(&self, disk: &dyn Disk, at: u64, limit: u64) -> Result<Scan, Error> {
        let file = disk.open(&self.name).map_err(Error::io("open", &self.name))?;
        Ok(Scan::new(file, self.header, at, limit))
    }
}
