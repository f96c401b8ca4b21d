//! What was used: the part of a commit that says it stage by stage, and the record of what no
//! commit has.
//!
//! - A commit says what it used in all, and in an extension what of that stages used other than the
//!   root of the segment. The root used the rest, which is not written: a segment of one stage has
//!   no such extension, and records of before mean that the root used everything.
//! - Memory and disk, times their time, what a GPU did, links, and everything of pipelines without
//!   a log is measured beside the commits. What was measured since the last such record is in the
//!   next one.

use super::wire::{Reader, put, put_bytes};
use super::{RecordError, RecordWriter, Usage, kind};
use crate::bill::{Used, Whose, read_used};
use crate::ids::{Name, StageId};

/// The extension with what each stage used.
pub(super) const BY_STAGE: u64 = 26;

/// Least bytes of a stage in it, and of a line.
const STAGE_BYTES_MIN: usize = 4;
const LINE_BYTES_MIN: usize = 5;

/// What was measured, by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Up to when, in microseconds since 1970.
    pub time: u64,
    /// Each line.
    pub lines: Vec<UsageLine>,
}

/// What one of them used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageLine {
    /// The tenant.
    pub tenant: Name,
    /// The pipeline; `None` if it is of none.
    pub pipeline: Option<Name>,
    /// The stage; `None` if it is of none. Only with a pipeline.
    pub stage: Option<Name>,
    /// How much.
    pub used: Used,
}

impl UsageLine {
    /// Whose it is.
    #[must_use]
    pub fn whose(&self) -> Whose<'_> {
        let Self { tenant, pipeline, stage, .. } = self;
        Whose { tenant, pipeline: pipeline.as_ref(), stage: stage.as_ref() }
    }
}

impl RecordWriter {
    /// Appends to a commit what stages used that are not the root; nothing if none did.
    pub fn by_stage(&mut self, used: &[(StageId, Usage)]) {
        if used.is_empty() {
            return;
        }
        self.extension(BY_STAGE, |out| {
            put(out, used.len() as u64);
            for (stage, Usage { fuel, events, reruns }) in used {
                for number in [u64::from(stage.0), *fuel, *events, *reruns] {
                    put(out, number);
                }
            }
        });
    }

    /// Writes the record of what was measured.
    pub fn usage(&mut self, record: &UsageRecord) {
        self.begin(kind::USAGE);
        self.number(record.time);
        self.number(record.lines.len() as u64);
        for line in &record.lines {
            let mut out = Vec::new();
            put_bytes(&mut out, line.tenant.as_str().as_bytes());
            for name in [&line.pipeline, &line.stage] {
                put_bytes(&mut out, name.as_ref().map_or("", Name::as_str).as_bytes());
            }
            line.used.put(&mut out);
            self.raw(&out);
        }
    }
}

/// Reads the extension of a commit by `root` that used so much `in_all`.
pub(super) fn by_stage(
    reader: &mut Reader<'_>,
    (root, in_all): (StageId, Usage),
) -> Result<Vec<(StageId, Usage)>, RecordError> {
    let stages = reader.list(STAGE_BYTES_MIN, "what stages used", |reader| {
        let stage = StageId(reader.number_u32("a stage that used something")?);
        let fuel = reader.number("what a stage used")?;
        let events = reader.number("what a stage used")?;
        Ok((stage, Usage { fuel, events, reruns: reader.number("what a stage used")? }))
    })?;
    let others = stages.iter().try_fold((0_u64, 0_u64), |(fuel, reruns), (_, used)| {
        Some((fuel.checked_add(used.fuel)?, reruns.checked_add(used.reruns)?))
    });
    let fits = others.is_some_and(|(fuel, reruns)| fuel <= in_all.fuel && reruns <= in_all.reruns);
    let is_root = stages.iter().any(|(stage, _)| *stage == root);
    let ascend = stages.windows(2).all(|pair| pair[0].0 < pair[1].0);
    if fits && ascend && !is_root { Ok(stages) } else { Err(reader.bad("what stages used")) }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<UsageRecord, RecordError> {
    let time = reader.number("the time")?;
    let lines = reader.list(LINE_BYTES_MIN, "what was used", |reader| {
        let tenant = reader.name("a tenant")?;
        let pipeline = name_or_none(reader)?;
        let stage = name_or_none(reader)?;
        if pipeline.is_none() && stage.is_some() {
            return Err(reader.bad("a stage of no pipeline"));
        }
        Ok(UsageLine { tenant, pipeline, stage, used: read_used(reader)? })
    })?;
    reader.extensions()?;
    Ok(UsageRecord { time, lines })
}

/// A name, or none, which is written as no bytes.
fn name_or_none(reader: &mut Reader<'_>) -> Result<Option<Name>, RecordError> {
    let text = reader.text(crate::limits::NAME_BYTES_MAX, "a name")?;
    let name = (!text.is_empty()).then(|| Name::new(text)).transpose();
    name.map_err(|_| reader.bad("a name"))
}
