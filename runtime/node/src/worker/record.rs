//! Commits of a partition with a log: written, numbered, passed on.
//!
//! - A batch says which parts of which runs it is; the machine checks that they follow.
//! - A commit that the log has taken may be read by the next partition at once, since everything
//!   read from it lies behind it in the log. What leaves the node waits until it is on disk.
//! - A commit that the log refuses for want of room is kept, and the partition takes no other batch
//!   until it is in.
//! - A commit that is too large for the log is taken back, and the batch is run again in two
//!   halves, and so on. An event whose commit is too large even alone is given up on.

use std::collections::VecDeque;
use std::sync::Arc;

use sluicebox_core::codec::{Batch, Piece, RecordWriter, Usage, kind};
use sluicebox_core::frame::{Frame, FrameBuilder};
use sluicebox_core::ids::{EdgeId, OutputId, RequestId, StageId};
use sluicebox_core::partition::{Halt, Leads, Recorded, SegmentIds, StageIds, TooLarge};
use sluicebox_core::position::{Arrival, Place, Positions, RunHeader, Source};
use sluicebox_store::log::{Class, Position, Refusal};

use super::partition::Driver;
use super::said::answer;
use super::spans::Followed;
use crate::backing::StateOf;
use crate::checkpoint::Of;
use crate::durable::Durable;
use crate::mailbox::{Delivery, Mailbox};
use crate::ring::Output;
use crate::running::PipelineShared;

/// What a segment of a pipeline with a log knows besides.
#[derive(Debug)]
pub(crate) struct SegmentDurable {
    pub pipeline: Arc<Durable>,
    pub version: u32,
    pub stages: Vec<StageIds>,
    /// The partitions behind each edge that leaves.
    pub edges: Vec<(EdgeId, Vec<Arc<Mailbox>>)>,
    /// The rings of its outputs, and which of them answers requests.
    pub outputs: Vec<(OutputId, Arc<Output>, bool)>,
}

impl SegmentDurable {
    /// The root of the segment.
    pub(crate) fn root(&self) -> StageId {
        self.stages.first().expect("a segment has a root").stage
    }

    /// Which stage sends over an edge that leaves.
    fn sender_of(&self, edge: EdgeId) -> usize {
        let sends = |stage: &StageIds| stage.leads.contains(&Leads::Edge(edge));
        self.stages.iter().position(sends).unwrap_or(0)
    }

    /// The numbers of one partition.
    pub(crate) fn ids(&self, partition: u16) -> Arc<SegmentIds> {
        let (pipeline, version, stages) = (self.pipeline.id, self.version, self.stages.clone());
        Arc::new(SegmentIds { pipeline, version, partition, stages })
    }

    /// Where the state of a stage is in the store.
    pub(super) fn state_of(&self, shared: &PipelineShared, stage: usize) -> StateOf {
        let pipeline = self.pipeline.id;
        let tenant = Of::new(shared.tenant.name(), pipeline).tenant;
        StateOf { tenant, pipeline, stage: self.stages[stage].stage }
    }
}

/// What a partition with a log keeps besides.
#[derive(Debug, Default)]
pub(super) struct Recording {
    writer: RecordWriter,
    /// What the batch under way is made of.
    pub parts: Vec<Delivery>,
    /// What comes before everything that is queued: parts of a batch that was divided.
    pub divided: VecDeque<Vec<Delivery>>,
    /// What its calls used, stage by stage: fuel of all, events of those that stood.
    pub used: Vec<Usage>,
    /// The part that comes next is one event, whose commit was too large.
    lost: bool,
    /// There are images in the commit of the batch that was run last.
    pub images: bool,
    /// There are to be none in that of the next.
    pub no_images: bool,
    /// A commit the log has not taken yet; it is in `writer`.
    pending: Option<Box<Recorded>>,
    /// Events of the batch, in a pipeline without a log.
    pub(super) events: u64,
}

/// The first `events` events of a batch, and the others.
fn halves(parts: Vec<Delivery>, events: u32) -> (Vec<Delivery>, Vec<Delivery>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut left = events;
    for part in parts {
        let middle = part.range.start + left.min(part.range.len() as u32);
        left -= middle - part.range.start;
        for (half, range) in
            [(&mut first, part.range.start..middle), (&mut second, middle..part.range.end)]
        {
            if !range.is_empty() {
                half.push(Delivery { range, ..part.clone() });
            }
        }
    }
    (first, second)
}

impl Recording {
    /// A call of a stage used so much fuel for so many events, if they stood.
    pub(super) fn called(&mut self, stage: usize, fuel: u64, events: u64) {
        if self.used.len() <= stage {
            self.used.resize(stage + 1, Usage::default());
        }
        self.used[stage].add(&Usage { fuel, events, reruns: 0 });
    }

    /// What stood does so no more; its fuel was burnt.
    pub(super) fn taken_back(&mut self) {
        self.used.iter_mut().for_each(|used| used.events = 0);
    }

    /// What each stage took of a batch that is committed without a log: of the root it is what came
    /// out of the inbox.
    pub(super) fn taken(&mut self) -> impl Iterator<Item = u64> + use<> {
        let mut taken: Vec<u64> = self.used.drain(..).map(|used| used.events).collect();
        let root = std::mem::take(&mut self.events);
        match taken.first_mut() {
            Some(first) => *first = root,
            None => taken.push(root),
        }
        taken.into_iter()
    }

    /// True if a commit waits for room in the log.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

/// What a batch of these parts is for a reader at `positions`, or which of them does not follow.
pub(super) fn pieces(positions: &Positions, parts: &[Delivery]) -> Result<Vec<Piece>, String> {
    let mut reached = positions.clone();
    let piece = |part: &Delivery| {
        let run = part.run.as_ref().ok_or("events came that are no run")?;
        let from = reached.at(run.source);
        match reached.classify(run) {
            Arrival::Next { skip } if skip == part.range.start => {}
            _ => {
                let range = &part.range;
                return Err(format!("{run:?} came from event {range:?} on, and {from:?} is next"));
            }
        }
        let to = Place::within(run.seq, part.range.end, part.frame.len() as u32);
        reached.advance(run.source, to).map_err(|error| error.to_string())?;
        Ok(Piece { source: run.source, from, to, events: part.range.len() as u32 })
    };
    parts.iter().map(piece).collect()
}

impl Driver {
    /// Starts the next part of a batch that was divided. False if there is none, or it does not
    /// follow from what was consumed.
    pub(super) fn start_divided(&mut self, now: u64) -> bool {
        let Some(parts) = self.recording.divided.pop_front() else { return false };
        let alone = parts.iter().map(|part| part.range.len()).sum::<usize>() == 1;
        let mut builder = FrameBuilder::new();
        parts.iter().for_each(|part| part.append_to(&mut builder));
        let frame = builder.finish();
        self.spans = Followed::again(&self.segment, &frame);
        if alone && std::mem::take(&mut self.recording.lost) {
            let positions = &self.machine.progress().expect("it has a ledger").positions;
            let pieces = pieces(positions, &parts).expect("it was a batch before");
            self.recording.parts = parts;
            self.machine.start_lost(frame, pieces, now);
            return true;
        }
        self.start_recorded(frame, parts, now)
    }

    /// Takes a batch back whose commit is too large, to be run again in halves.
    fn divide(&mut self, bytes: usize) {
        if std::mem::take(&mut self.recording.images) {
            // Those can wait, events cannot.
            self.recording.no_images = true;
            self.machine.set_aside();
            self.drop_instances();
            let parts = std::mem::take(&mut self.recording.parts);
            if !parts.is_empty() {
                self.recording.divided.push_front(parts);
            }
            return self.mailbox.schedule();
        }
        drop(self.machine.take_back());
        self.drop_instances();
        let parts = std::mem::take(&mut self.recording.parts);
        let events: usize = parts.iter().map(|part| part.range.len()).sum();
        tracing::warn!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            partition = self.mailbox.partition,
            events,
            "a commit of {bytes} bytes is larger than the log takes; its batch is divided",
        );
        // Of parked events the machine takes fewer the next time.
        if events > 0 {
            self.recording.lost = events == 1;
            let (first, second) = halves(parts, events as u32 / 2);
            let halves = [second, first].into_iter().filter(|half| !half.is_empty());
            halves.for_each(|half| self.recording.divided.push_front(half));
        }
        self.mailbox.schedule();
    }

    /// Starts a batch of runs. False if they do not follow from what was consumed.
    pub(super) fn start_recorded(&mut self, frame: Frame, parts: Vec<Delivery>, now: u64) -> bool {
        let progress = self.machine.progress().expect("a partition with a log has a ledger");
        let pieces = pieces(&progress.positions, &parts);
        self.recording.parts = parts;
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(why) => {
                self.stop(format!("{why}; the node has to be restarted"));
                return false;
            }
        };
        self.machine.start_batch(frame, pieces, now);
        true
    }

    /// Ends a batch: its commit is written and goes into the log, if that has room.
    pub(super) fn commit_recorded(&mut self) {
        self.spans.commits(|| self.local.clock.now());
        let durable = self.segment.durable.as_ref().expect("only such a segment records");
        let bytes_max = durable.pipeline.log.record_bytes_max();
        let Recording { writer, used, .. } = &mut self.recording;
        let recorded = match self.machine.finish_recorded((used, bytes_max), writer, |_, _| {}) {
            Ok(recorded) => recorded,
            Err(TooLarge { bytes }) => {
                self.recording.taken_back();
                return self.divide(bytes);
            }
        };
        self.recording.used.clear();
        self.recording.parts.clear();
        self.recording.pending = Some(Box::new(recorded));
        self.log();
    }

    /// Puts the commit that waits into the log. False if it waits on.
    pub(super) fn log(&mut self) -> bool {
        let Some(durable) = &self.segment.durable else { return true };
        let Some(recorded) = self.recording.pending.take() else { return true };
        let parts = self.recording.writer.parts();
        match durable.pipeline.log.append(Class::Commit, kind::COMMIT, &parts) {
            Ok(position) => {
                self.keeping.committed(position);
                self.pass_on_recorded(*recorded, position);
                return true;
            }
            Err(Refusal::Busy | Refusal::Full) => self.local.releases.when_room(&self.mailbox),
            Err(Refusal::Failed | Refusal::Closed) => {
                self.stop("the log has failed; the node has to be restarted".to_owned());
            }
            Err(Refusal::TooLarge { bytes_max }) => {
                self.stop(format!("a commit has more than the {bytes_max} bytes it was held to"));
            }
        }
        self.recording.pending = Some(recorded);
        false
    }

    /// Runs go to the next partitions at once; what leaves the node waits for the disk.
    fn pass_on_recorded(&mut self, recorded: Recorded, position: Position) {
        let Recorded { batch, sent, usage, requests, .. } = recorded;
        let segment = self.segment.clone();
        let durable = segment.durable.as_ref().expect("only such a segment records");
        let from = self.mailbox.partition;
        for run in sent.runs {
            let source = Source::Edge { edge: run.edge, partition: from };
            let header = RunHeader { source, seq: run.seq, previous: run.previous };
            let there = durable.edges.iter().find(|(edge, _)| *edge == run.edge);
            let (_, there) = there.expect("every edge that leaves has its partitions");
            let to = there[usize::from(run.partition)].clone();
            self.mailbox.load.has_sent(run.partition, run.frame.bytes().len());
            let delivery = Delivery::of(header, run.frame, 0).logged(position);
            self.outgoing.push((to, delivery.of_stage(durable.sender_of(run.edge))));
        }
        for run in sent.outputs {
            let known = durable.outputs.iter().find(|(output, ..)| *output == run.output);
            let (_, ring, reply) = known.expect("every output has its ring").clone();
            self.mailbox.load.left(run.frame.bytes().len());
            // Who waits does so at the home.
            let segment = (reply && segment.shared.part.is_none()).then(|| segment.clone());
            let leaving = self.leaves_by(&ring, &run.frame);
            self.local.releases.after(position, move || {
                ring.append(from, &run.frame);
                leaving.end();
                if let Some(segment) = segment {
                    answer(&segment, &run.frame);
                }
            });
        }
        if let Some(dead) = sent.dead_letters {
            self.count_dead_letters(&dead.frame);
            let root = durable.root();
            let at = segment.shared.dead_letters.at(root, from);
            let ring = segment.shared.dead_letters.ring.clone();
            self.local.releases.after(position, move || ring.append(at, &dead.frame));
        }
        let pipeline = durable.pipeline.clone();
        let root = durable.root();
        self.local.releases.after(position, move || pipeline.used(root, &usage));
        self.tell_others(position, batch, &requests);
        if segment.shared.part.is_none() && !requests.is_empty() {
            self.local.releases.after(position, move || {
                for (request, delta) in requests {
                    segment.shared.requests.adjust(request, delta);
                }
            });
        }
        self.committed(Some(position));
        self.deliver();
    }

    /// Other nodes are told, once it is on disk: what is consumed of theirs, and the home what
    /// left.
    fn tell_others(&self, position: Position, batch: Batch, requests: &[(RequestId, i64)]) {
        let is_gated = self.mailbox.gate().is_some();
        if is_gated && !batch.pieces.is_empty() {
            let mailbox = self.mailbox.clone();
            self.local.releases.after(position, move || mailbox.settle(&batch.pieces));
        }
        if let Some(reports) = &self.segment.shared.part {
            let (reports, requests) = (reports.clone(), requests.to_vec());
            self.local.releases.after(position, move || reports.requests(&requests));
        }
    }

    /// The partition stops for good, as if halted; what it holds is in the log.
    pub(super) fn stop(&mut self, message: String) {
        tracing::error!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            partition = self.mailbox.partition,
            "stopped: {message}",
        );
        let stage = self.segment.root_name().to_owned();
        self.mailbox.set_halted(Some(Halt { stage, message }));
        self.mailbox.set_stopped();
        self.stopped = true;
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::{FrameBuilder, Head};

    use super::*;

    fn part(seq: u64, previous: u64, range: std::ops::Range<u32>) -> Delivery {
        let mut builder = FrameBuilder::new();
        (0..4).for_each(|at| builder.push(&Head::data(at), b"k", b"", &[]));
        let run = RunHeader { source: Source::Ingest, seq, previous };
        Delivery {
            frame: builder.finish(),
            range,
            run: Some(run),
            at: Position(0),
            foreign: false,
            stage: 0,
            hop: None,
        }
    }

    #[test]
    fn parts_become_pieces_that_follow_one_another() {
        let positions = Positions::default();
        let parts = [part(1, 0, 0..4), part(3, 1, 0..2)];
        let found = pieces(&positions, &parts).expect("they follow");
        let ends: Vec<Place> = found.iter().map(|piece| piece.to).collect();
        assert_eq!(ends, [Place::after(1), Place { seq: 3, index: 2 }]);
        assert_eq!(found[1].from, Place::after(1));
        assert_eq!(found[1].events, 2);
    }

    #[test]
    fn a_batch_is_divided_by_its_events_whatever_runs_they_are_of() {
        let parts = || vec![part(1, 0, 1..4), part(2, 1, 0..4), part(3, 2, 0..2)];
        let ranges = |half: &[Delivery]| {
            let range = |part: &Delivery| (part.run.expect("a run").seq, part.range.clone());
            half.iter().map(range).collect::<Vec<_>>()
        };
        for events in 0..=9 {
            let (first, second) = halves(parts(), events);
            let count = |half: &[Delivery]| half.iter().map(|part| part.range.len()).sum::<usize>();
            assert_eq!((count(&first), count(&second)), (events as usize, 9 - events as usize));
            let mut positions = Positions::default();
            positions.advance(Source::Ingest, Place { seq: 1, index: 1 }).expect("forward");
            for half in [first, second] {
                for piece in pieces(&positions, &half).expect("they follow") {
                    positions.advance(piece.source, piece.to).expect("forward");
                }
            }
        }
        let (first, second) = halves(parts(), 4);
        assert_eq!(ranges(&first), [(1, 1..4), (2, 0..1)]);
        assert_eq!(ranges(&second), [(2, 1..4), (3, 0..2)]);
    }

    #[test]
    fn a_repeat_a_gap_and_a_wrong_beginning_are_refused() {
        let mut positions = Positions::default();
        positions.advance(Source::Ingest, Place { seq: 3, index: 2 }).expect("forward");
        assert!(pieces(&positions, &[part(3, 1, 2..4)]).is_ok());
        assert!(pieces(&positions, &[part(3, 1, 0..4)]).is_err(), "two are consumed");
        assert!(pieces(&positions, &[part(2, 1, 0..4)]).is_err(), "a repeat");
        assert!(pieces(&positions, &[part(5, 4, 0..4)]).is_err(), "4 is missing");
        assert!(pieces(&positions, &[part(4, 3, 0..4)]).is_err(), "the rest of 3 is missing");
    }
}
