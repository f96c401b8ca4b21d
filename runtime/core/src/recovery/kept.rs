//! A fold in bytes, as a checkpoint keeps it beside the state: recovery goes on from it with the
//! records behind the horizon.
//!
//! ```text
//! format u8 · oldest reader u8 · maybe last position · maybe generation [horizon n]
//! n × { pipeline n · tenant bytes · name bytes · version n · partitions n · manifest bytes
//!       · names · 3 × maybe highest number · maybe position it stopped at
//!       · ingest: last n · n × { stage n · partition n · seq n }
//!       · n × { stage n · partition n · number n · dead letters n
//!               · n × { source · seq n · index n }
//!               · n × { source · seq n · seq - previous n · skip n · events n
//!                       · position n · start n · bytes n } }
//!       · n × { edge n · partition n · last n · n × { partition n · seq n } }
//!       · n × { output n · partition n · next n } }
//! extensions                                                   maybe: 0 u8, or 1 u8 · n
//!   19: pipeline n · n × { root n · partition n · 0 n · n × { gap n · length n } }  replayed
//!   20: pipeline n · n × { root n · fuel n · events n · reruns n }                 usage
//!   21: pipeline n · n × { n × { output n · partition n · next n } }               fences
//!   22: pipeline n · high n · n × { root n · floor n }
//!       · n × { root n · partition n · watermark n }                           event time
//!   23: pipeline n · name of a node bytes                                      moved there
//!   24: pipeline n · name of the home bytes (empty: none)
//!       · n × { partition n · name of a node bytes } · n × leaving partition n
//!       · n × { edge n · partition n · last run sent elsewhere n }         partitions away
//! ```
//!
//! Format and oldest reader are 1; 3 if any pipeline has moved, and 4 if partitions of any are or
//! were on another node: a reader that skips what it does not know would run what is another
//! node's by now.
//!
//! Numbers, texts, sources, names and extensions are as in `codec`. Everything is checked: the
//! bytes come from a disk.

use std::collections::{BTreeMap, BTreeSet};

use super::backlog::{Backlog, Waiting};
use super::parts::Parts;
use super::pipeline::{Fence, Folded, ReaderState};
use super::{Fold, Stopped, Wrong};
use crate::codec::wire::{Reader, put, put_bytes};
use crate::codec::{CheckpointRecord, RecordError, RecordWriter, Usage};
use crate::codec::{format_of, kind, name_table, source};
use crate::ids::{EdgeId, OutputId, PipelineId, StageId};
use crate::position::{Counter, Place, Positions, RunHeader};
use crate::replayed::Replayed;

/// The extension with the dead letters that were replayed.
const REPLAYED: u64 = 19;
/// The extension with what commits used.
const USAGE: u64 = 20;
/// The extension with the fences.
const FENCES: u64 = 21;
/// The extension with event times: the highest, and watermarks.
const TIME: u64 = 22;
/// The extension with the node a pipeline went to.
const MOVED: u64 = 23;
/// The extension with where partitions are.
const PARTS: u64 = 24;

impl Fold {
    /// The fold in bytes. What a record said is in them, not the state and not the frames of the
    /// backlog.
    #[must_use]
    pub fn keep(&self) -> Vec<u8> {
        let mut writer = RecordWriter::new();
        let needed = self.pipelines.values().map(|folded| match folded {
            Folded { parts, .. } if *parts != Parts::default() => kind::LEAVE,
            Folded { moved: Some(_), .. } => kind::MOVE,
            _ => kind::KEPT,
        });
        let format = needed.map(format_of).fold(format_of(kind::KEPT), u8::max);
        writer.begin_in(format, kind::KEPT);
        option(&mut writer, self.last);
        option(&mut writer, self.checkpoint.map(|checkpoint| checkpoint.generation));
        if let Some(checkpoint) = self.checkpoint {
            writer.number(checkpoint.horizon);
        }
        list(&mut writer, self.pipelines.iter(), |writer, (id, folded)| {
            writer.number(id.0);
            keep_pipeline(writer, folded);
        });
        keep_more(&mut writer, &self.pipelines);
        writer.to_bytes().into()
    }

    /// One pipeline in bytes, for another node to open: as in [`keep`](Self::keep), without last
    /// position and checkpoint of this log, and as if it had not moved. `None` if it is not there.
    #[must_use]
    pub fn keep_one(&self, pipeline: PipelineId) -> Option<Vec<u8>> {
        let folded = Folded { moved: None, ..self.pipelines.get(&pipeline)?.clone() };
        let pipelines = BTreeMap::from([(pipeline, folded)]);
        Some(Self { pipelines, checkpoint: None, last: None }.keep())
    }

    /// The fold that was kept.
    ///
    /// # Errors
    /// The bytes are damaged, or of a newer format.
    pub fn from_kept(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(kind::KEPT, bytes);
        reader.format()?;
        let last = optional(&mut reader, "the last position")?;
        let checkpoint = match optional(&mut reader, "the generation")? {
            Some(generation) => {
                Some(CheckpointRecord { generation, horizon: reader.number("the horizon")? })
            }
            None => None,
        };
        let pipelines = reader.list(20, "the pipelines", |reader| {
            let id = PipelineId(reader.number("a pipeline")?);
            Ok((id, pipeline(reader, id)?))
        })?;
        let mut pipelines: BTreeMap<PipelineId, Folded> = pipelines.into_iter().collect();
        reader.extensions_known(|id, reader| more(id, reader, &mut pipelines))?;
        Ok(Self { pipelines, checkpoint, last })
    }
}

/// What came to be kept of pipelines later, as extensions: those of each that have any.
fn keep_more(writer: &mut RecordWriter, pipelines: &BTreeMap<PipelineId, Folded>) {
    for (id, folded) in pipelines {
        if folded.replayed != Replayed::default() {
            writer.extension(REPLAYED, |out| {
                put(out, id.0);
                folded.replayed.put(out);
            });
        }
        if !folded.usage.is_empty() {
            writer.extension(USAGE, |out| {
                put(out, id.0);
                put(out, folded.usage.len() as u64);
                for (root, Usage { fuel, events, reruns }) in &folded.usage {
                    for number in [root.0.into(), *fuel, *events, *reruns] {
                        put(out, number);
                    }
                }
            });
        }
        if !folded.fences.is_empty() {
            writer.extension(FENCES, |out| keep_fences(out, (*id, &folded.fences)));
        }
        let known = |reader: &ReaderState| reader.watermark > 0;
        if folded.high > 0 || !folded.floors.is_empty() || folded.readers.values().any(known) {
            writer.extension(TIME, |out| keep_time(out, (*id, folded)));
        }
        if let Some(to) = &folded.moved {
            writer.extension(MOVED, |out| {
                put(out, id.0);
                put_bytes(out, to.as_bytes());
            });
        }
        if folded.parts != Parts::default() {
            writer.extension(PARTS, |out| keep_parts(out, (*id, &folded.parts)));
        }
    }
}

fn keep_parts(out: &mut Vec<u8>, (id, parts): (PipelineId, &Parts)) {
    let Parts { home, away, leaving, came } = parts;
    put(out, id.0);
    put_bytes(out, home.as_deref().unwrap_or_default().as_bytes());
    put(out, away.len() as u64);
    for (partition, node) in away {
        put(out, (*partition).into());
        put_bytes(out, node.as_bytes());
    }
    put(out, leaving.len() as u64);
    leaving.iter().for_each(|partition| put(out, (*partition).into()));
    put(out, came.len() as u64);
    for ((edge, partition), last) in came {
        for number in [edge.0.into(), (*partition).into(), *last] {
            put(out, number);
        }
    }
}

fn keep_time(out: &mut Vec<u8>, (id, folded): (PipelineId, &Folded)) {
    let known = folded.readers.iter().filter(|(_, reader)| reader.watermark > 0);
    for number in [id.0, folded.high, folded.floors.len() as u64] {
        put(out, number);
    }
    for (root, floor) in &folded.floors {
        put(out, root.0.into());
        put(out, *floor);
    }
    put(out, known.clone().count() as u64);
    for ((root, partition), reader) in known {
        for number in [root.0.into(), (*partition).into(), reader.watermark] {
            put(out, number);
        }
    }
}

fn keep_fences(out: &mut Vec<u8>, (id, fences): (PipelineId, &[Fence])) {
    put(out, id.0);
    put(out, fences.len() as u64);
    for fence in fences {
        put(out, fence.len() as u64);
        for ((output, partition), next) in fence {
            for number in [output.0.into(), (*partition).into(), *next] {
                put(out, number);
            }
        }
    }
}

fn more(
    extension: u64,
    reader: &mut Reader<'_>,
    pipelines: &mut BTreeMap<PipelineId, Folded>,
) -> Result<(), RecordError> {
    if ![REPLAYED, USAGE, FENCES, TIME, MOVED, PARTS].contains(&extension) {
        return Ok(());
    }
    let id = PipelineId(reader.number("a pipeline")?);
    let folded = pipelines.get_mut(&id).ok_or_else(|| reader.bad("a pipeline"))?;
    if extension == REPLAYED {
        folded.replayed = Replayed::read(reader)?;
        return Ok(());
    }
    if extension == FENCES {
        folded.fences = fences(reader)?;
        return Ok(());
    }
    if extension == TIME {
        return event_time(reader, folded);
    }
    if extension == MOVED {
        folded.moved = Some(reader.node("the node it went to")?);
        return Ok(());
    }
    if extension == PARTS {
        folded.parts = parts(reader, folded.partitions)?;
        return Ok(());
    }
    let usage = reader.list(4, "the usage", |reader| {
        let root = StageId(reader.number_u32("the usage")?);
        let fuel = reader.number("the usage")?;
        let events = reader.number("the usage")?;
        Ok((root, Usage { fuel, events, reruns: reader.number("the usage")? }))
    })?;
    folded.usage = usage.into_iter().collect();
    Ok(())
}

fn parts(reader: &mut Reader<'_>, partitions: u16) -> Result<Parts, RecordError> {
    let home = reader.node_or_none("the home")?;
    let away = reader.list(3, "what is away", |reader| {
        let partition = reader.partition("what is away")?;
        if partition >= partitions {
            return Err(reader.bad("what is away"));
        }
        Ok((partition, reader.node("the node that has it")?))
    })?;
    let away: BTreeMap<u16, String> = away.into_iter().collect();
    let leaving = reader.list(1, "what is leaving", |r| r.partition("what is leaving"))?;
    let leaving: BTreeSet<u16> = leaving.into_iter().collect();
    if !leaving.iter().all(|partition| away.contains_key(partition)) {
        return Err(reader.bad("what is leaving"));
    }
    let came = reader.list(3, "what was sent elsewhere", |reader| {
        let edge = EdgeId(reader.number_u32("an edge")?);
        Ok(((edge, reader.partition("a sender")?), reader.number("a run")?))
    })?;
    Ok(Parts { home, away, leaving, came: came.into_iter().collect() })
}

fn event_time(reader: &mut Reader<'_>, folded: &mut Folded) -> Result<(), RecordError> {
    folded.high = reader.time("the highest event time")?;
    let floors = reader.list(2, "the floors", |reader| {
        Ok((StageId(reader.number_u32("a floor")?), reader.time("a floor")?))
    })?;
    folded.floors = floors.into_iter().collect();
    let watermarks = reader.list(3, "the watermarks", |reader| {
        let root = StageId(reader.number_u32("a watermark")?);
        Ok(((root, reader.partition("a watermark")?), reader.time("a watermark")?))
    })?;
    for (to, watermark) in watermarks {
        let found = folded.readers.get_mut(&to).ok_or_else(|| reader.bad("a watermark"))?;
        found.watermark = watermark;
    }
    Ok(())
}

fn fences(reader: &mut Reader<'_>) -> Result<Vec<Fence>, RecordError> {
    reader.list(1, "the fences", |reader| {
        let fence = reader.list(3, "a fence", |reader| {
            let output = OutputId(reader.number_u32("an output")?);
            Ok(((output, reader.partition("an output")?), reader.number("an offset")?))
        })?;
        Ok(fence.into_iter().collect())
    })
}

fn keep_pipeline(writer: &mut RecordWriter, folded: &Folded) {
    writer.name(&folded.tenant);
    writer.name(&folded.name);
    writer.number(folded.version.into());
    writer.number(folded.partitions.into());
    writer.bytes(&folded.manifest);
    writer.names(&folded.names);
    for highest in folded.highest {
        option(writer, highest.map(u64::from));
    }
    option(writer, folded.stopped.as_ref().map(|stopped| stopped.position));
    writer.number(folded.ingest.last());
    list(writer, folded.ingest.iter(), |writer, ((stage, partition), seq)| {
        numbers(writer, &[stage.0.into(), partition.into(), seq]);
    });
    list(writer, folded.readers.iter(), |writer, ((stage, partition), state)| {
        numbers(writer, &[stage.0.into(), (*partition).into(), state.number, state.dead_letters]);
        list(writer, state.positions.iter(), |writer, (source, place)| {
            writer.source(source);
            numbers(writer, &[place.seq, place.index.into()]);
        });
        list(writer, state.backlog.iter(), keep_waiting);
    });
    list(writer, folded.sent.iter(), |writer, ((edge, partition), counter)| {
        numbers(writer, &[edge.0.into(), (*partition).into(), counter.last()]);
        list(writer, counter.iter(), |writer, (to, seq)| numbers(writer, &[to.into(), seq]));
    });
    list(writer, folded.offsets.iter(), |writer, ((output, partition), next)| {
        numbers(writer, &[output.0.into(), (*partition).into(), *next]);
    });
}

fn keep_waiting(writer: &mut RecordWriter, waiting: &Waiting) {
    let Waiting { run, skip, events, position, range } = waiting;
    writer.source(run.source);
    numbers(writer, &[run.seq, run.seq - run.previous, (*skip).into(), (*events).into()]);
    numbers(writer, &[*position, range.start as u64, range.len() as u64]);
}

fn pipeline(reader: &mut Reader<'_>, id: PipelineId) -> Result<Folded, RecordError> {
    let tenant = reader.name("a tenant")?;
    let name = reader.name("a pipeline's name")?;
    let version = reader.number_u32("a version")?;
    let partitions = reader.partitions()?;
    let manifest = reader.bytes(usize::MAX, "a manifest")?.to_vec();
    let names = name_table(reader)?;
    let mut highest = [None; 3];
    for highest in &mut highest {
        let found = optional(reader, "the highest number")?;
        *highest = found.map(u32::try_from).transpose().map_err(|_| reader.bad("the highest"))?;
    }
    let stopped = optional(reader, "where it stopped")?;
    let stopped = stopped.map(|position| Stopped { pipeline: id, position, wrong: Wrong::Earlier });
    let last = reader.number("the last ingest")?;
    let ingest = reader.list(3, "the entries", |reader| {
        let stage = StageId(reader.number_u32("an entry")?);
        Ok(((stage, reader.partition("an entry")?), reader.number("an entry")?))
    })?;
    let ingest = Counter::restore(last, ingest).ok_or_else(|| reader.bad("the entries"))?;
    let readers = reader.list(6, "the readers", |reader| {
        let stage = StageId(reader.number_u32("a reader")?);
        Ok(((stage, reader.partition("a reader")?), reader_state(reader)?))
    })?;
    let sent = reader.list(4, "what was sent", |reader| {
        let edge = EdgeId(reader.number_u32("an edge")?);
        Ok(((edge, reader.partition("a sender")?), counter(reader)?))
    })?;
    let offsets = reader.list(3, "the offsets", |reader| {
        let output = OutputId(reader.number_u32("an output")?);
        Ok(((output, reader.partition("an output")?), reader.number("an offset")?))
    })?;
    Ok(Folded {
        tenant,
        name,
        version,
        partitions,
        manifest,
        names,
        highest,
        ingest,
        readers: readers.into_iter().collect(),
        sent: sent.into_iter().collect(),
        offsets: offsets.into_iter().collect(),
        replayed: Replayed::default(),
        usage: BTreeMap::new(),
        fences: Vec::new(),
        high: 0,
        floors: BTreeMap::new(),
        stopped,
        moved: None,
        parts: Parts::default(),
    })
}

fn reader_state(reader: &mut Reader<'_>) -> Result<ReaderState, RecordError> {
    let number = reader.number("a commit")?;
    let dead_letters = reader.number("an offset of dead letters")?;
    let mut positions = Positions::default();
    let places = reader.list(3, "the places", |reader| {
        let source = source(reader)?;
        let seq = reader.positive("a place")?;
        Ok((source, Place { seq, index: reader.number_u32("a place")? }))
    })?;
    for (source, place) in places {
        positions.advance(source, place).map_err(|_| reader.bad("the places"))?;
    }
    let waiting = reader.list(8, "the backlog", waiting)?;
    let backlog = Backlog::restore(waiting).ok_or_else(|| reader.bad("the backlog"))?;
    Ok(ReaderState { number, positions, dead_letters, watermark: 0, backlog })
}

fn waiting(reader: &mut Reader<'_>) -> Result<Waiting, RecordError> {
    let source = source(reader)?;
    let seq = reader.positive("a waiting run")?;
    let back = reader.positive("a waiting run")?;
    let previous = seq.checked_sub(back).ok_or_else(|| reader.bad("a waiting run"))?;
    let skip = reader.number_u32("a waiting run")?;
    let events = reader.number_u32("a waiting run")?;
    let position = reader.number("a waiting run")?;
    let start = usize::try_from(reader.number("a waiting run")?).ok();
    let length = usize::try_from(reader.number("a waiting run")?).ok();
    let range = start.zip(length).and_then(|(start, length)| {
        let end = start.checked_add(length)?;
        Some(start..end)
    });
    let range = range.ok_or_else(|| reader.bad("a waiting run"))?;
    if skip >= events {
        return Err(reader.bad("a waiting run"));
    }
    Ok(Waiting { run: RunHeader { source, seq, previous }, skip, events, position, range })
}

fn counter(reader: &mut Reader<'_>) -> Result<Counter<u16>, RecordError> {
    let last = reader.number("a counter")?;
    let previous: BTreeMap<u16, u64> = reader
        .list(2, "a counter", |r| Ok((r.partition("a destination")?, r.number("a counter")?)))?
        .into_iter()
        .collect();
    Counter::restore(last, previous).ok_or_else(|| reader.bad("a counter"))
}

fn option(writer: &mut RecordWriter, number: Option<u64>) {
    writer.byte(number.is_some().into());
    if let Some(number) = number {
        writer.number(number);
    }
}

fn optional(reader: &mut Reader<'_>, part: &'static str) -> Result<Option<u64>, RecordError> {
    match reader.byte(part)? {
        0 => Ok(None),
        1 => reader.number(part).map(Some),
        _ => Err(reader.bad(part)),
    }
}

fn numbers(writer: &mut RecordWriter, numbers: &[u64]) {
    numbers.iter().for_each(|number| writer.number(*number));
}

fn list<T>(
    writer: &mut RecordWriter,
    items: impl Iterator<Item = T>,
    mut each: impl FnMut(&mut RecordWriter, T),
) {
    let items: Vec<T> = items.collect();
    writer.number(items.len() as u64);
    items.into_iter().for_each(|item| each(writer, item));
}
