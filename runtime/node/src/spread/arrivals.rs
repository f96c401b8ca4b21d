//! What another node says by its trunk.
//!
//! Whoever is at the other end has shown a node's certificate, or is the same user of the same
//! machine, and is believed what it has: of partitions that are there it says what they consumed,
//! what they sent and what left them, and of all others nothing. Everything is checked all the
//! same, so that what is wrong ends its link and nothing else, and memory is bounded by what is
//! here, not by what it says. What is for a partition that is not here, or not yet, is answered
//! with *later*, and so is what comes from one that this node does not know to be there: it comes
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sluicebox_core::frame::{Frame, FrameLimits};
use sluicebox_core::ids::{EdgeId, OutputId, PipelineId, StageId};
use sluicebox_core::message::{At, Message};
use sluicebox_core::position::{Arrival, Place, RunHeader, Source};

use super::Site;
use super::reports::Kept;
use crate::mailbox::returns::{Left, Returned, Way};
use crate::mailbox::{Delivery, Mailbox};
use crate::node::Node;
use crate::running::Running;
use crate::running::event_time::Words;
use crate::worker::said::answer_of;

/// Bytes of a message: a run with the largest frame a commit may hold.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The same of one without a frame, which says something of as many sources or requests as there
/// are. Each takes more memory when it is read.
const WORDS_BYTES_MAX: usize = 4 << 20;

/// No output has so many events that its offsets come near this; one that does would run over when
/// its partition goes on elsewhere.
const OFFSET_MAX: u64 = 1 << 62;

/// Bytes that other nodes may have put into an inbox beyond its room. A node has no more under way
/// than a window for each partition, and waits when it is told *later*.
const FOREIGN_BYTES_MAX: usize = 32 << 20;

/// What ends a link.
type Wrong = String;

impl Node {
    /// Takes a message of a peer.
    ///
    /// # Errors
    /// It is nothing a node says; its link is to be ended.
    pub(crate) fn heard(&self, from: u16, bytes: &Bytes) -> Result<(), Wrong> {
        if bytes.len() > WORDS_BYTES_MAX && !Message::has_frame(bytes) {
            return Err(format!("a message without events has {} bytes", bytes.len()));
        }
        let message = Message::decode(bytes).map_err(|error| error.to_string())?;
        match message {
            Message::Run { to, run, frame, .. } => self.run_came((from, to), run, (bytes, frame)),
            Message::Settled { of, places } => self.settled(from, of, places),
            Message::Later { of, .. } => self.returned(from, of, Returned::Later),
            Message::Output { pipeline, output, partition, first, frame } => {
                let frame = offset_fits(first, parse(bytes, frame)?)?;
                self.left_there(from, (pipeline, output, partition), (first, frame))
            }
            Message::DeadLetters { of, first, frame } => {
                let frame = offset_fits(first, parse(bytes, frame)?)?;
                let left = Left { way: Way::DeadLetters, first, frame };
                self.returned(from, of, Returned::Left(left))
            }
            Message::Kept { pipeline, partition, outputs, dead_letters } => {
                if let Some(running) = self.spread(pipeline)
                    && let Some(reports) = &running.shared().part
                    && reports.home() == from
                {
                    reports.note_kept(&running, partition, &Kept { outputs, dead_letters });
                }
                Ok(())
            }
            Message::Marks { to, ingest, sources } => {
                self.marks_came(from, to, (ingest, &sources));
                Ok(())
            }
            Message::Moved { pipeline } => {
                self.ask_where(pipeline, from);
                Ok(())
            }
            Message::Requests { deltas } => {
                for (request, delta) in deltas {
                    let of = self.requests().pipeline_of(request);
                    if of.is_some_and(|of| self.has_given(of, from)) {
                        self.requests().adjust(request, delta);
                    }
                }
                Ok(())
            }
        }
    }

    /// A run came for a partition that is here.
    fn run_came(
        &self,
        (from, to): (u16, At),
        run: RunHeader,
        (bytes, frame): (&Bytes, &[u8]),
    ) -> Result<(), Wrong> {
        let later = || self.say(from, &Message::Later { of: to, source: run.source });
        let Some(mailbox) = self.mailbox_at(to).filter(|at| at.site() == Site::Here) else {
            later();
            return Ok(());
        };
        let sender = self.sender((from, to), run.source)?;
        let mut gate = mailbox.gate();
        let Some(gate) = gate.as_mut() else {
            later();
            return Ok(());
        };
        match gate.look_at(&run) {
            Arrival::Gap { .. } => later(),
            Arrival::Repeat => {
                gate.note_sender(run.source, from);
                let places = vec![(run.source, gate.settled(run.source))];
                self.say(from, &Message::Settled { of: to, places });
            }
            Arrival::Next { .. } if sender == Site::Here => {
                return Err("a run of a partition that is here".to_owned());
            }
            Arrival::Next { .. } if sender != Site::There(from) => {
                // It may have gone there: whoever knows tells.
                self.ask_again_where(to.pipeline);
                later();
            }
            Arrival::Next { .. } if mailbox.room.over() > FOREIGN_BYTES_MAX => later(),
            Arrival::Next { skip } => {
                let frame = parse(bytes, frame)?;
                if skip as usize >= frame.len() {
                    return Err(format!("run {} is shorter than it was", run.seq));
                }
                gate.note_sender(run.source, from);
                // In the lock, so that it is queued in the order in which it was noted.
                mailbox.push_over(Delivery::of(run, frame, skip).foreign());
                gate.enter(run.source, run.seq);
            }
        }
        Ok(())
    }

    /// A peer says how far a partition that is here has consumed what is sent from there. It is
    /// believed of what it has, and for good: what is said of the past stays true. What it has
    /// since a moment ago it says again.
    fn marks_came(&self, from: u16, to: At, (ingest, sources): (u64, &[(StageId, u16, u64)])) {
        let Some(running) = self.spread(to.pipeline) else { return };
        let Some(time) = running.event_time() else { return };
        let (Some(segment), true) =
            (segment_at(&running, to.root), to.partition < running.partitions())
        else {
            return;
        };
        let is_home = running.shared().part.as_ref().is_some_and(|part| part.home() == from);
        let source = |(root, partition, mark): &(StageId, u16, u64)| {
            let is_there = running.shared().sites.of(*partition) == Site::There(from);
            let segment = segment_at(&running, *root).filter(|_| is_there)?;
            Some((segment, *partition, *mark))
        };
        let words = Words {
            ingest: if is_home { ingest } else { 0 },
            sources: sources.iter().filter_map(source).collect(),
        };
        time.told((segment, to.partition), &words);
    }

    /// Where a source is that has sent something to a partition which is here.
    fn sender(&self, (from, to): (u16, At), source: Source) -> Result<Site, Wrong> {
        let wrong = || Err(not_a_sender(source, to.root));
        let Some(running) = self.spread(to.pipeline) else { return wrong() };
        match source {
            Source::Ingest => match &running.shared().part {
                Some(part) if part.home() == from => Ok(Site::There(from)),
                _ => wrong(),
            },
            Source::Edge { edge, partition } => {
                let leads = || edges_to(&running, to.root).contains(&edge);
                let is_one = partition < running.partitions() && leads();
                if is_one { Ok(running.shared().sites.of(partition)) } else { wrong() }
            }
        }
    }

    /// This is the home of a pipeline, and a peer has some of it, or had.
    fn has_given(&self, pipeline: PipelineId, to: u16) -> bool {
        let running = self.spread(pipeline).filter(|running| !running.is_part());
        running.is_some_and(|running| running.shared().sites.have_been_at(to))
    }

    /// A partition that is there has consumed what this node sent.
    fn settled(&self, from: u16, of: At, places: Vec<(Source, Place)>) -> Result<(), Wrong> {
        let there = |mailbox: &Arc<Mailbox>| mailbox.site() == Site::There(from);
        let running = self.spread(of.pipeline);
        let Some((running, mailbox)) = running.zip(self.mailbox_at(of).filter(there)) else {
            return Ok(());
        };
        let (edges, partitions) = (edges_to(&running, of.root), running.partitions());
        for (source, place) in places {
            let sends = match source {
                Source::Ingest => true,
                Source::Edge { edge, partition } => partition < partitions && edges.contains(&edge),
            };
            if !sends {
                return Err(not_a_sender(source, of.root));
            }
            // No more than one place for each is kept.
            let _is_within = mailbox.returned(Returned::Settled(source, place));
        }
        Ok(())
    }

    /// Something about a partition that is there.
    fn returned(&self, from: u16, of: At, what: Returned) -> Result<(), Wrong> {
        match self.mailbox_at(of).filter(|at| at.site() == Site::There(from)) {
            Some(mailbox) if !mailbox.returned(what) => {
                Err("more than may be under way".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Events left by an output of a partition that is there.
    fn left_there(
        &self,
        from: u16,
        (pipeline, output, partition): (PipelineId, OutputId, u16),
        (first, frame): (u64, Frame),
    ) -> Result<(), Wrong> {
        let Some(running) = self.spread(pipeline).filter(|running| !running.is_part()) else {
            return Ok(());
        };
        let Some((mailbox, reply)) = with_output(&running, output, partition) else {
            return Err(format!("output {} of partition {partition} is none", output.0));
        };
        if mailbox.site() != Site::There(from) {
            return Ok(());
        }
        if reply {
            // It is in the log of that node: who waits need not wait for ours.
            answer_of(pipeline, &mailbox.segment, &frame);
        }
        let left = Left { way: Way::Output(output), first, frame };
        match mailbox.returned(Returned::Left(left)) {
            true => Ok(()),
            false => Err("more than may be under way".to_owned()),
        }
    }

    /// The mailbox of a partition of a segment, of a pipeline that is spread.
    fn mailbox_at(&self, at: At) -> Option<Arc<Mailbox>> {
        let running = self.spread(at.pipeline)?;
        let segment = running.mailboxes().get(segment_at(&running, at.root)?)?;
        segment.get(usize::from(at.partition)).cloned()
    }

    fn say(&self, to: u16, message: &Message<'_>) {
        if let Some(trunk) = self.trunks().get(to) {
            trunk.want();
            trunk.say(message);
        }
    }
}

/// The segment with this root.
fn segment_at(running: &Running, root: StageId) -> Option<usize> {
    running.shared().roots.iter().position(|known| *known == root)
}

/// The events of a frame whose first has this offset have one each.
fn offset_fits(first: u64, frame: Frame) -> Result<Frame, Wrong> {
    match first.checked_add(frame.len() as u64) {
        Some(end) if end <= OFFSET_MAX => Ok(frame),
        _ => Err(format!("no event has an offset behind {first}")),
    }
}

fn not_a_sender(source: Source, root: StageId) -> Wrong {
    format!("{source:?} does not send to stage {}", root.0)
}

/// The edges that go to the segment with this root.
fn edges_to(running: &Running, root: StageId) -> BTreeSet<EdgeId> {
    let goes_there = |to: &[Arc<Mailbox>]| {
        let durable = to.first().and_then(|mailbox| mailbox.segment.durable.as_ref());
        durable.is_some_and(|durable| durable.root() == root)
    };
    let segments = running.mailboxes().iter().filter_map(|segment| segment.first());
    let edges = segments.flat_map(|from| &from.segment.durable).flat_map(|own| &own.edges);
    edges.filter(|(_, to)| goes_there(to)).map(|(edge, _)| *edge).collect()
}

/// The mailbox of the partition that an output belongs to, and whether it answers requests.
fn with_output(
    running: &Running,
    output: OutputId,
    partition: u16,
) -> Option<(Arc<Mailbox>, bool)> {
    running.partition(partition).find_map(|mailbox| {
        let outputs = &mailbox.segment.durable.as_ref()?.outputs;
        let (.., reply) = outputs.iter().find(|(known, ..)| *known == output)?;
        Some((mailbox.clone(), *reply))
    })
}

/// A frame that is in a message, sharing its memory.
fn parse(bytes: &Bytes, frame: &[u8]) -> Result<Frame, Wrong> {
    Frame::parse(bytes.slice_ref(frame), &FrameLimits::FORMAT).map_err(|error| error.to_string())
}
