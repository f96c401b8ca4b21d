//! Looks at a log as it lies in a directory: what is in it, and whether it is sound.
//!
//! Nothing is changed and no lock is taken, so that it can be used beside a running node and on a
//! log that does not open. Beside a running node the end may move while it is looked at, and a
//! segment may be recycled under the reader; then look again.
//!
//! Leaves to others: what the records mean.

use super::disk::Disk;
use super::error::Error;
use super::format;
use super::recover::Files;
use super::scan::{End, Next, Scan, SegmentFile};
use super::{Position, Record, Visit};

pub use super::format::SegmentHeader;

/// A segment as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its file.
    pub file: String,
    /// What it says of itself; `None` if that cannot be believed.
    pub header: Option<SegmentHeader>,
    /// Valid groups in it that are of the log.
    pub groups: u64,
    /// Records in these.
    pub records: u64,
    /// Bytes in the bodies of these.
    pub body_bytes: u64,
    /// Where they end.
    pub end: Position,
    /// What is wrong with it, if anything.
    pub problem: Option<Problem>,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub offset: u64,
    /// Where in the log.
    pub position: Position,
    /// What was found.
    pub what: String,
}

/// How a log was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no segment.
    Empty,
    /// Everything is valid up to there.
    Clean(Position),
    /// A group was being written at the end when the writer was stopped; an opening leaves it out.
    Torn(Position),
    /// Something that was on disk is damaged or missing; the log does not open. The first segment
    /// with a problem says what.
    Damaged,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// In the order of the log.
    pub segments: Vec<Segment>,
    /// Files that wait to be used again.
    pub spares: Vec<String>,
    /// How it is, all in all.
    pub verdict: Verdict,
}

/// Walks a whole log, and gives each of its records to `visit`; where that wants no more, the rest
/// is only counted.
///
/// # Errors
/// What the system refuses. Whatever is wrong with the log itself is in what is given back.
pub fn inspect(disk: &dyn Disk, visit: Visit<'_>) -> Result<Inspection, Error> {
    let files = Files::list(disk)?;
    let mut walk = Walk { disk, visit, is_wanted: true };
    let mut found: Vec<(Segment, Option<End>)> = Vec::new();
    let opened: Vec<_> =
        files.segments.iter().map(|number| SegmentFile::read(disk, *number)).collect();
    for (at, file) in opened.iter().enumerate() {
        let next = opened.get(at + 1).and_then(|next| next.as_ref().ok());
        let number = files.segments[at];
        let before = at.checked_sub(1).and_then(|before| opened[before].as_ref().ok());
        found.push(match file {
            Ok(file) => walk.segment(file, before, next.map(|next| next.header.base))?,
            Err(error) => (unreadable(number, error), None),
        });
    }
    let verdict = verdict_of(&found);
    let spares = files.spares.iter().map(|number| format::spare_name(*number)).collect();
    let segments = found.into_iter().map(|(segment, _)| segment).collect();
    Ok(Inspection { segments, spares, verdict })
}

fn verdict_of(found: &[(Segment, Option<End>)]) -> Verdict {
    let Some((last, end)) = found.last() else { return Verdict::Empty };
    if found.iter().any(|(segment, _)| segment.problem.is_some()) {
        return Verdict::Damaged;
    }
    if end.is_some_and(|end| end.begun) {
        Verdict::Torn(last.end)
    } else {
        Verdict::Clean(last.end)
    }
}

fn unreadable(number: u64, error: &Error) -> Segment {
    let (offset, position) = match error {
        Error::Corrupt { offset, position, .. } => (*offset, *position),
        _ => (0, Position(0)),
    };
    let what = match error {
        Error::Corrupt { what, .. } => what.clone(),
        other => other.to_string(),
    };
    Segment {
        file: format::segment_name(number),
        header: None,
        groups: 0,
        records: 0,
        body_bytes: 0,
        end: position,
        problem: Some(Problem { offset, position, what }),
    }
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    visit: Visit<'a>,
    is_wanted: bool,
}

impl Walk<'_> {
    /// Walks one segment up to where the next begins, if there is one.
    fn segment(
        &mut self,
        file: &SegmentFile,
        before: Option<&SegmentFile>,
        next: Option<Position>,
    ) -> Result<(Segment, Option<End>), Error> {
        let base = file.header.base;
        let mut segment = Segment {
            file: file.name.clone(),
            header: Some(file.header),
            groups: 0,
            records: 0,
            body_bytes: 0,
            end: base,
            problem: None,
        };
        let limit = next.map_or(u64::MAX, |next| next.0);
        let mut scan = file.scan(self.disk, base.0, limit)?;
        let end = self.groups(&mut scan, &mut segment, file)?;
        segment.end = Position(end.position);
        segment.problem = match next {
            Some(next) if end.position < next.0 => {
                let what = format!("{}; groups up to position {next} were on disk", end.what);
                Some(Problem { offset: end.offset, position: segment.end, what })
            }
            Some(_) => None,
            None => behind(&mut scan, &end, file)?,
        };
        if let Some(Err(error)) =
            before.map(|before| super::recover::check_follows(&before.header, file))
        {
            segment.problem = unreadable(file.header.number, &error).problem;
        }
        Ok((segment, next.is_none().then_some(end)))
    }

    fn groups(
        &mut self,
        scan: &mut Scan,
        segment: &mut Segment,
        file: &SegmentFile,
    ) -> Result<End, Error> {
        loop {
            match scan.next().map_err(Error::io("read", &file.name))? {
                Next::End(end) => return Ok(end),
                Next::Group(group) => {
                    segment.groups += 1;
                    for record in group.records() {
                        segment.records += 1;
                        segment.body_bytes += record.body.len() as u64;
                        self.show(record);
                    }
                }
            }
        }
    }

    fn show(&mut self, record: Record<'_>) {
        if self.is_wanted {
            self.is_wanted = (self.visit)(record).is_continue();
        }
    }
}

/// Whether something behind the end says that it was on disk.
fn behind(scan: &mut Scan, end: &End, file: &SegmentFile) -> Result<Option<Problem>, Error> {
    let evidence = scan.evidence_behind(end.position).map_err(Error::io("read", &file.name))?;
    Ok(evidence.map(|at| Problem {
        offset: end.offset,
        position: Position(end.position),
        what: format!("{}; a group at position {at} says it was on disk", end.what),
    }))
}
