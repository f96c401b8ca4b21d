//! Looking at a node's data directory from outside: its log, and the room on its disk. And at what
//! the machine offers its processes.
//!
//! - Nothing is changed and no lock is taken, so that it can be done beside a running node and on
//!   a directory that no node starts on.
//! - Beside a running node the end of the log moves and segments are recycled. What looks like
//!   damage is looked at again, and believed when it is still in the same place.
//! - A record is told in a few words, whatever its size. One that this program cannot read is told
//!   as well, as no node of this version starts with it.
//!
//! Leaves to others: how it is shown (the command), what comes of the records (`recover`).

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sluicebox_confine::cgroup::Place;
use sluicebox_core::codec::{
    self, CommitRecord, FrameAt, IngestRecord, JoinRecord, Record, RecordError,
};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_store::log::disk::DirDisk;
use sluicebox_store::log::{self, inspect};

pub use sluicebox_store::log::Position;
pub use sluicebox_store::log::inspect::{Inspection, Problem, Segment, Verdict};

use crate::config::GroupPlace;
use crate::error::Error;

/// The folder of the log in a data directory.
const LOG: &str = "log";

/// How often a log that seems damaged is looked at, if each time in another place.
const LOOKS_MAX: usize = 8;

/// A log as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Its folder.
    pub folder: PathBuf,
    /// Its files, and whether it is sound.
    pub found: Inspection,
    /// How many records there are of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first record that this program cannot read.
    pub unreadable: Option<(Position, RecordError)>,
}

impl Look {
    /// The first thing that is wrong, with the file it is in.
    #[must_use]
    pub fn problem(&self) -> Option<(&str, &Problem)> {
        let mut segments = self.found.segments.iter();
        segments.find_map(|segment| Some((segment.file.as_str(), segment.problem.as_ref()?)))
    }

    /// Where the records end that count.
    #[must_use]
    pub fn end(&self) -> Position {
        self.found.segments.last().map(|segment| segment.end).unwrap_or_default()
    }

    /// Records of all kinds.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.kinds.values().sum()
    }
}

/// A record, told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where it begins.
    pub position: Position,
    /// Its kind, by name.
    pub kind: &'static str,
    /// The pipeline it is of.
    pub pipeline: Option<PipelineId>,
    /// Tenant and pipeline, if the log has a version of it before this record.
    pub name: Option<String>,
    /// What it says, by name.
    pub facts: Vec<(&'static str, Fact)>,
}

/// One thing a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A number.
    Number(u64),
    /// Words, which may come from a producer.
    Text(String),
}

/// Looks at the log of a data directory. `None` if there is none.
///
/// # Errors
/// What the system refuses. Whatever is wrong with the log itself is in what is given back.
pub fn log(data_dir: &Path) -> Result<Option<Look>, Error> {
    let folder = data_dir.join(LOG);
    let disk = match DirDisk::read_only(&folder) {
        Err(log::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        disk => disk?,
    };
    let mut before = None;
    for _ in 1..LOOKS_MAX {
        match look(&disk, &folder) {
            Ok(look) if look.found.verdict != Verdict::Damaged => return Ok(Some(look)),
            Ok(look) => {
                let place =
                    look.problem().map(|(file, problem)| (file.to_owned(), problem.clone()));
                if place.is_some() && before == place {
                    return Ok(Some(look));
                }
                before = place;
            }
            // A file that was there a moment ago may have been recycled.
            Err(_) => {}
        }
    }
    look(&disk, &folder).map(Some)
}

fn look(disk: &DirDisk, folder: &Path) -> Result<Look, Error> {
    let (mut kinds, mut unreadable) = (BTreeMap::<_, u64>::new(), None);
    let found = inspect::inspect(disk, &mut |record| {
        *kinds.entry(kind_name(record.kind)).or_default() += 1;
        if unreadable.is_none()
            && let Err(error) = codec::decode(record.kind, record.body)
        {
            unreadable = Some((record.position, error));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Look { folder: folder.to_owned(), found, kinds, unreadable })
}

/// Tells each record before `end` that lies in a valid group, in the order of the log.
///
/// # Errors
/// What the system refuses.
pub fn records(look: &Look, show: &mut dyn FnMut(Told) -> ControlFlow<()>) -> Result<(), Error> {
    let disk = DirDisk::read_only(&look.folder)?;
    let (end, mut known) = (look.end(), BTreeMap::new());
    inspect::inspect(&disk, &mut |record| {
        if record.position >= end {
            return ControlFlow::Break(());
        }
        show(told(&record, &mut known))
    })?;
    Ok(())
}

/// What a version of a pipeline said of names.
struct Known {
    /// Tenant and pipeline.
    name: String,
    stages: Vec<(StageId, Name)>,
}

fn told(record: &log::Record<'_>, known: &mut BTreeMap<PipelineId, Known>) -> Told {
    let kind = kind_name(record.kind);
    let decoded = codec::decode(record.kind, record.body);
    let pipeline = decoded.as_ref().ok().and_then(pipeline_of);
    if let Ok(Record::Apply(apply)) = &decoded {
        let name = format!("{}/{}", apply.tenant, apply.name);
        known.insert(apply.pipeline, Known { name, stages: apply.names.stages.clone() });
    }
    let known = pipeline.and_then(|pipeline| known.get(&pipeline));
    let facts = match &decoded {
        Ok(record) => facts_of(record, known),
        Err(error) => vec![("unreadable", Fact::Text(error.to_string()))],
    };
    let name = known.map(|known| known.name.clone());
    Told { position: record.position, kind, pipeline, name, facts }
}

/// What people call a kind of record.
const fn kind_name(kind: u8) -> &'static str {
    match kind {
        codec::kind::INGEST => "ingest",
        codec::kind::COMMIT => "commit",
        codec::kind::APPLY => "apply",
        codec::kind::DELETE => "delete",
        codec::kind::CHECKPOINT => "checkpoint",
        codec::kind::OPEN => "open",
        codec::kind::MOVE => "move",
        codec::kind::LEAVE => "leave",
        codec::kind::JOIN => "join",
        codec::kind::RELEASE => "release",
        codec::kind::USAGE => "usage",
        _ => "unknown",
    }
}

const fn pipeline_of(record: &Record<'_>) -> Option<PipelineId> {
    match record {
        Record::Ingest(record) => Some(record.pipeline),
        Record::Commit(record) => Some(record.head.pipeline),
        Record::Apply(record) => Some(record.pipeline),
        Record::Delete(record) => Some(record.pipeline),
        Record::Open(record) => Some(record.pipeline),
        Record::Move(record) => Some(record.pipeline),
        Record::Leave(record) => Some(record.pipeline),
        Record::Join(record) => Some(record.pipeline),
        Record::Release(record) => Some(record.pipeline),
        Record::Checkpoint(_) | Record::Usage(_) => None,
    }
}

fn facts_of(record: &Record<'_>, known: Option<&Known>) -> Vec<(&'static str, Fact)> {
    match record {
        Record::Ingest(record) => ingest_facts(record),
        Record::Commit(record) => commit_facts(record, known),
        Record::Apply(record) => {
            let mut facts = vec![
                ("version", Fact::Number(record.version.into())),
                ("partitions", Fact::Number(record.partitions.into())),
                ("stages", Fact::Number(record.names.stages.len() as u64)),
            ];
            push_some(&mut facts, "discarded", record.discarded.len() as u64);
            facts
        }
        Record::Delete(_) => Vec::new(),
        Record::Checkpoint(record) => vec![
            ("horizon", Fact::Number(record.horizon)),
            ("generation", Fact::Number(record.generation)),
        ],
        Record::Open(record) => vec![("kept", Fact::Number(record.kept.len() as u64))],
        Record::Move(record) => vec![("to", Fact::Text(record.to.clone()))],
        Record::Leave(record) => vec![
            ("to", Fact::Text(record.to.clone())),
            ("partitions", partitions(&record.partitions)),
        ],
        Record::Join(record) => join_facts(record),
        Record::Release(record) => vec![("partitions", partitions(&record.partitions))],
        Record::Usage(record) => vec![("lines", Fact::Number(record.lines.len() as u64))],
    }
}

fn join_facts(record: &JoinRecord<'_>) -> Vec<(&'static str, Fact)> {
    let mut facts = vec![("from", Fact::Text(record.from.clone()))];
    facts.extend(record.home.clone().map(|home| ("home", Fact::Text(home))));
    facts.push(("partitions", partitions(&record.partitions)));
    facts.push(("kept", Fact::Number(record.kept.len() as u64)));
    push_some(&mut facts, "changes", record.changed.iter().count() as u64);
    facts
}

/// Partitions, one behind the other.
fn partitions(partitions: &[u16]) -> Fact {
    let each: Vec<String> = partitions.iter().map(u16::to_string).collect();
    Fact::Text(each.join(","))
}

fn ingest_facts(record: &IngestRecord<'_>) -> Vec<(&'static str, Fact)> {
    let mut facts = vec![
        ("seq", Fact::Number(record.seq)),
        ("runs", Fact::Number(record.runs.len() as u64)),
        ("events", Fact::Number(events(record.runs.iter().map(|run| &run.frame)))),
    ];
    if let Some(producer) = &record.producer {
        facts.push(("producer", Fact::Text(producer.id.to_owned())));
        facts.push(("sequence", Fact::Number(producer.sequence)));
    }
    push_some(&mut facts, "ids", record.ids.len() as u64);
    let replayed = record.replayed.iter().flat_map(|run| run.offsets.ranges());
    push_some(&mut facts, "replayed", replayed.map(|range| range.end - range.start).sum());
    facts
}

fn commit_facts(record: &CommitRecord<'_>, known: Option<&Known>) -> Vec<(&'static str, Fact)> {
    let CommitRecord { head, sent, usage, .. } = record;
    let mut stages = known.into_iter().flat_map(|known| &known.stages);
    let name = stages.find(|(stage, _)| *stage == head.stage);
    let stage = name.map(|(_, name)| Fact::Text(name.to_string()));
    let mut facts = vec![
        ("stage", stage.unwrap_or_else(|| Fact::Number(head.stage.0.into()))),
        ("partition", Fact::Number(head.partition.into())),
        ("number", Fact::Number(head.number)),
        ("version", Fact::Number(head.version.into())),
        ("events", Fact::Number(usage.events)),
    ];
    push_some(&mut facts, "changes", record.state.iter().count() as u64);
    push_some(&mut facts, "passed-on", events(sent.runs.iter().map(|run| &run.frame)));
    push_some(&mut facts, "results", events(sent.outputs.iter().map(|run| &run.frame)));
    push_some(&mut facts, "dead-letters", events(sent.dead_letters.iter().map(|run| &run.frame)));
    push_some(&mut facts, "fuel", usage.fuel);
    push_some(&mut facts, "reruns", usage.reruns);
    facts
}

/// Most records say nothing of most things.
fn push_some(facts: &mut Vec<(&'static str, Fact)>, name: &'static str, number: u64) {
    if number > 0 {
        facts.push((name, Fact::Number(number)));
    }
}

fn events<'a>(frames: impl Iterator<Item = &'a FrameAt>) -> u64 {
    frames.map(|frame| u64::from(frame.events)).sum()
}

/// Bytes of the file system a path is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// That can still be written by the user who asks.
    pub free_bytes: u64,
    /// In all.
    pub bytes: u64,
}

/// How much room there is where a path is, or where it would be made.
///
/// # Errors
/// What the system refuses.
pub fn room(path: &Path) -> io::Result<Room> {
    let exists = path.ancestors().find(|ancestor| ancestor.exists());
    let exists = exists.filter(|path| !path.as_os_str().is_empty());
    let found = rustix::fs::statvfs(exists.unwrap_or_else(|| Path::new(".")))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Room { free_bytes: bytes(found.f_bavail), bytes: bytes(found.f_blocks) })
}

/// To what control groups would hold tenants' processes of a node that is started where this is
/// called, and where; `None` if none are wanted. Changes nothing.
///
/// # Errors
/// Why there can be none.
pub fn groups(place: &GroupPlace) -> Option<Result<String, sluicebox_confine::Error>> {
    Some(Place::find(&place.wanted()?).map(|place| place.to_string()))
}

#[cfg(test)]
mod tests;
