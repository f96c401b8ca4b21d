//! The log of the simulation, of which a crash takes the end, and what is found in it.

use bytes::Bytes;
use sluicebox_core::codec::{Record, RecordWriter, decode};
use sluicebox_core::frame::Frame;
use sluicebox_core::ids::StageId;
use sluicebox_core::position::{RunHeader, Source};

use crate::stages::root_behind;

pub(crate) struct Entry {
    pub(crate) position: u64,
    kind: u8,
    body: Bytes,
}

impl Entry {
    pub(crate) fn record(&self) -> Record<'_> {
        decode(self.kind, &self.body).expect("a record that was written")
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The runs in it, each with the partition it is for.
    pub(crate) fn runs(&self) -> Vec<((StageId, u16), RunHeader, Frame)> {
        let frame = |at: &sluicebox_core::codec::FrameAt| at.frame(&self.body).expect("a frame");
        match self.record() {
            Record::Ingest(record) => {
                let header =
                    |previous| RunHeader { source: Source::Ingest, seq: record.seq, previous };
                let runs = record.runs.iter();
                runs.map(|r| ((r.stage, r.partition), header(r.previous), frame(&r.frame)))
                    .collect()
            }
            Record::Commit(record) => {
                let run = |run: &sluicebox_core::codec::EdgeRun| {
                    let source = Source::Edge { edge: run.edge, partition: record.head.partition };
                    let header = RunHeader { source, seq: run.seq, previous: run.previous };
                    ((root_behind(run.edge), run.partition), header, frame(&run.frame))
                };
                record.sent.runs.iter().map(run).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
    /// How many of them are on disk.
    pub(crate) synced: usize,
}

impl Log {
    /// Gives the record its place.
    pub(crate) fn append(&mut self, writer: &RecordWriter) -> u64 {
        let last = self.entries.last();
        let position = last.map_or(4096, |last| last.position + last.body.len() as u64 + 16);
        self.entries.push(Entry { position, kind: writer.kind(), body: writer.to_bytes() });
        position
    }

    pub(crate) fn is_synced(&self, position: u64) -> bool {
        self.entries[..self.synced].last().is_some_and(|last| position <= last.position)
    }

    pub(crate) fn at(&self, position: u64) -> &Entry {
        let at = self.entries.binary_search_by_key(&position, |entry| entry.position);
        &self.entries[at.expect("a record begins there")]
    }

    /// All runs for a partition that a reader with `wanted` does not have.
    pub(crate) fn runs_for(
        &self,
        reader: (StageId, u16),
        wanted: impl Fn(&RunHeader) -> bool,
    ) -> Vec<(RunHeader, Frame)> {
        let runs = self.entries.iter().flat_map(Entry::runs);
        let mine = runs.filter(|(to, run, _)| *to == reader && wanted(run));
        mine.map(|(_, run, frame)| (run, frame)).collect()
    }
}
