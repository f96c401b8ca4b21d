//! In the place of a partition that is on another node: sends it what is for it, and writes down
//! what it says.
//!
//! - A run is sent when its record is on disk here, in the order in which it was queued, and kept
//!   until the other node's log has it consumed. So much is under way at most; the rest waits in
//!   the mailbox, whose room bounds it as that of any partition.
//! - What is consumed there is a commit here: one that moves the places and does nothing else. So
//!   the log knows what waits, and a restart sends that again.
//! - At the home, what left there by outputs and as dead letters is in the same commits, and from
//!   there on it is as if it had left here. What came before is known by its offset.
//!
//! - With event time it says up to when the other has everything that is sent from here: `marks`.
//!
//! It believes the other node what it consumed, of what was sent to it and nothing else.

mod marks;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_core::codec::{Batch, CommitHead, DeadRun, OutputRun, Piece, RecordWriter};
use sluicebox_core::codec::{Sent, Usage, kind};
use sluicebox_core::frame::Frame;
use sluicebox_core::message::{At, Message};
use sluicebox_core::partition::{Progress, SegmentIds};
use sluicebox_core::position::{Place, Positions, RunHeader, Source};
use sluicebox_link::way::Class;
use sluicebox_store::log::{self, Position, Refusal};
use tokio::sync::oneshot;

use self::marks::Marks;
use super::Local;
use super::partition::park;
use super::spans;
use crate::error::Error;
use crate::mailbox::returns::{Left, Way};
use crate::mailbox::{Command, Delivery, Inherited, Mailbox, Retired};
use crate::metrics::HopWay;
use crate::running::SegmentRuntime;
use crate::spread::Site;
use crate::spread::trunk::{self, Trunk};
use crate::worker::record::SegmentDurable;

/// Bytes of runs that are taken and not consumed, about.
const WINDOW_BYTES: usize = 1 << 20;

/// Bytes of events that go into one commit, about.
const COMMIT_BYTES: usize = 1 << 20;

/// How long nothing may be heard of what was sent before it is sent again: an answer may be lost
/// that nobody repeats.
const QUIET: Duration = Duration::from_secs(3);

/// How long a partition is left alone that could not take a run.
const LATER: Duration = Duration::from_millis(20);

/// Forwards to a partition that is at a peer, until it is not there any more.
pub(super) async fn run(mailbox: Arc<Mailbox>, local: Rc<Local>, peer: u16) {
    let segment = mailbox.segment.clone();
    let shared = segment.shared.clone();
    let (Some(durable), Some(trunk)) = (&segment.durable, shared.trunks.get(peer)) else { return };
    trunk.want();
    let ids = durable.ids(mailbox.partition);
    let progress = mailbox.take_inherited().progress.unwrap_or_default();
    let mut forwarder = Forwarder {
        at: At { pipeline: ids.pipeline, root: durable.root(), partition: ids.partition },
        trunk: trunk.clone(),
        mailbox,
        segment: segment.clone(),
        local,
        ids,
        progress,
        taken: VecDeque::new(),
        bytes: 0,
        sent: 0,
        session: 0,
        settled: Positions::default(),
        left: VecDeque::new(),
        writer: RecordWriter::new(),
        pending: None,
        kept_at: Position(0),
        owed: false,
        heard: Instant::now(),
        marks: Marks::default(),
        stopped: false,
    };
    while forwarder.turn(durable, peer).await {}
}

struct Forwarder {
    at: At,
    trunk: Arc<Trunk>,
    mailbox: Arc<Mailbox>,
    segment: Arc<SegmentRuntime>,
    local: Rc<Local>,
    ids: Arc<SegmentIds>,
    progress: Progress,
    /// Runs that are not consumed; the first so many were sent in this session.
    taken: VecDeque<Delivery>,
    bytes: usize,
    sent: usize,
    session: u64,
    /// What the other node says it has consumed.
    settled: Positions,
    /// What left there and is not in the log here.
    left: VecDeque<Left>,
    writer: RecordWriter,
    /// A commit the log has not taken yet; it is in `writer`.
    pending: Option<Pending>,
    /// The last commit that is here.
    kept_at: Position,
    /// The other node is to be told what is here, once all that is counted is in the log.
    owed: bool,
    /// When something was heard last of what was sent, or it was sent.
    heard: Instant,
    /// Up to when the other node has everything.
    marks: Marks,
    /// Something is wrong that only a restart mends.
    stopped: bool,
}

/// What a commit moves on.
struct Pending {
    pieces: Vec<Piece>,
    sent: Sent<Frame>,
    /// Runs that are thereby done with.
    done: usize,
}

impl Forwarder {
    /// One turn. False when there is nothing to forward to any more.
    async fn turn(&mut self, durable: &SegmentDurable, peer: u16) -> bool {
        while let Some(command) = self.mailbox.next_command() {
            match command {
                Command::Leave(reply) => return !self.end(reply),
                Command::Retire { reply, .. } => {
                    let _unwanted = reply.send(self.retired());
                    return false;
                }
                Command::Codes(reply) => drop(reply.send(Vec::new())),
                Command::Resume | Command::GiveUp => {}
            }
        }
        if self.mailbox.site() != Site::There(peer) && self.pending.is_none() {
            self.mailbox.put_back(self.taken.drain(..).collect());
            let progress = Some(std::mem::take(&mut self.progress));
            self.mailbox.set_inherited(Inherited { progress, ..Inherited::default() });
            return false;
        }
        let later = self.hear(durable);
        if later {
            self.sent = 0;
            let pause = tokio::time::sleep(LATER);
            tokio::select! {
                biased;
                () = park() => {}
                () = pause => {}
            }
            // Whatever woke it, it begins again with what comes first.
            self.mailbox.schedule();
            park().await;
            return true;
        }
        if !self.stopped {
            self.send(durable);
            self.say_marks();
        }
        let rests = self.taken.is_empty() && self.mailbox.is_empty();
        self.mailbox.set_sleeps_until(if rests { u64::MAX } else { 0 });
        self.wait().await;
        true
    }

    /// Waits until something happens; after a while for what was sent and not answered.
    async fn wait(&mut self) {
        let quiet = (self.sent > 0).then(|| self.heard + QUIET);
        let Some(until) = quiet.into_iter().chain(self.marks_again()).min() else {
            park().await;
            return;
        };
        let until = tokio::time::sleep_until(until.into());
        tokio::select! {
            biased;
            () = park() => {}
            () = until => {}
        }
        if self.sent > 0 && self.heard.elapsed() >= QUIET {
            (self.sent, self.heard) = (0, Instant::now());
        }
    }

    /// Takes what the other node says, and writes it down. True if it wants to be left alone.
    fn hear(&mut self, durable: &SegmentDurable) -> bool {
        let returns = self.mailbox.take_returns();
        for (source, place) in returns.settled.iter() {
            let _moved = self.settled.advance(source, place);
        }
        self.left.extend(returns.left);
        if returns.anew {
            self.session = 0;
        }
        if returns.is_news {
            self.heard = Instant::now();
        }
        let is_news = self.trunk.session() != self.session;
        while !self.stopped && self.log(durable) && self.write(durable) {}
        self.owed |= is_news;
        // A commit that waits has its offsets counted already.
        if self.owed && self.pending.is_none() {
            self.say_kept(durable);
        }
        returns.later
    }

    /// Begins a commit of what there is to be written. False if there is nothing.
    fn write(&mut self, durable: &SegmentDurable) -> bool {
        let (pieces, done) = self.consumed();
        let sent = self.leaving(durable);
        if pieces.is_empty() && sent.outputs.is_empty() && sent.dead_letters.is_none() {
            return false;
        }
        let head = CommitHead {
            pipeline: self.ids.pipeline,
            version: self.ids.version,
            stage: self.at.root,
            partition: self.at.partition,
            number: self.progress.number + 1,
            time: self.local.clock.now(),
        };
        let batch = Batch { pieces, ends: None };
        self.writer.commit(&head, &batch).finish(&sent, &Usage::default());
        self.pending = Some(Pending { pieces: batch.pieces, sent, done });
        true
    }

    /// What of the runs that were sent is consumed, by source; they are let go.
    fn consumed(&mut self) -> (Vec<Piece>, usize) {
        let mut pieces: BTreeMap<Source, Piece> = BTreeMap::new();
        let (mut done, mut kept) = (0, VecDeque::new());
        let sent = self.sent;
        for (at, mut delivery) in std::mem::take(&mut self.taken).into_iter().enumerate() {
            let known = delivery.run.filter(|_| at < sent);
            let to = known.and_then(|run| reached(&delivery, &run, &self.settled));
            if let (Some(run), Some(to)) = (known, to) {
                let end = if to.seq > run.seq { delivery.range.end } else { to.index };
                let events = end - delivery.range.start;
                let from = self.progress.positions.at(run.source);
                let new = Piece { source: run.source, from, to, events: 0 };
                let piece = pieces.entry(run.source).or_insert(new);
                (piece.to, piece.events) = (to, piece.events + events);
                self.bytes -= delivery.bytes();
                delivery.range.start = end;
                if delivery.range.is_empty() {
                    self.note_taken(&delivery);
                    self.marks.is_done(at);
                    done += 1;
                    self.sent -= 1;
                    self.mailbox.is_forwarded(run.source);
                    continue;
                }
                self.bytes += delivery.bytes();
            }
            kept.push_back(delivery);
        }
        self.marks.are_counted();
        self.taken = kept;
        (pieces.into_values().collect(), done)
    }

    /// Events that left there and are new here.
    fn leaving(&mut self, durable: &SegmentDurable) -> Sent<Frame> {
        let mut sent = Sent { runs: Vec::new(), outputs: Vec::new(), dead_letters: None };
        let (mut bytes, most) = (0, COMMIT_BYTES.min(durable.pipeline.log.record_bytes_max() / 2));
        let Progress { offsets, dead_letters, .. } = &mut self.progress;
        while let Some(Left { way, first, frame }) = self.left.pop_front() {
            let next = match way {
                Way::Output(output) => offsets.entry(output).or_default(),
                Way::DeadLetters => &mut *dead_letters,
            };
            let known = durable.outputs.iter().any(|(output, ..)| Way::Output(*output) == way);
            if first < *next || !(known || way == Way::DeadLetters) {
                continue;
            }
            let is_over = bytes > 0 && bytes + frame.bytes().len() > most;
            if is_over || way == Way::DeadLetters && sent.dead_letters.is_some() {
                self.left.push_front(Left { way, first, frame });
                break;
            }
            *next = first + frame.len() as u64;
            bytes += frame.bytes().len();
            match way {
                Way::Output(output) => sent.outputs.push(OutputRun { output, first, frame }),
                Way::DeadLetters => sent.dead_letters = Some(DeadRun { first, frame }),
            }
        }
        sent
    }

    /// Puts the commit that waits into the log. False if it waits on.
    fn log(&mut self, durable: &SegmentDurable) -> bool {
        let Some(pending) = self.pending.take() else { return true };
        let parts = self.writer.parts();
        match durable.pipeline.log.append(log::Class::Commit, kind::COMMIT, &parts) {
            Ok(position) => {
                self.stand(durable, pending, position);
                return true;
            }
            Err(Refusal::Busy | Refusal::Full) => self.local.releases.when_room(&self.mailbox),
            Err(refusal) => self.stop(&format!("the log does not take a commit: {refusal:?}")),
        }
        self.pending = Some(pending);
        false
    }

    /// A commit is in the log.
    fn stand(&mut self, durable: &SegmentDurable, pending: Pending, position: Position) {
        let Pending { pieces, sent, done } = pending;
        self.progress.number += 1;
        self.kept_at = position;
        for piece in &pieces {
            let moved = self.progress.positions.advance(piece.source, piece.to);
            moved.expect("what is consumed lies behind what was");
        }
        self.segment.shared.left(done);
        self.owed |= !sent.outputs.is_empty() || sent.dead_letters.is_some();
        let partition = self.at.partition;
        for run in sent.outputs {
            let known = durable.outputs.iter().find(|(output, ..)| *output == run.output);
            let Some((_, ring, _)) = known else { continue };
            let ring = ring.clone();
            self.local.releases.after(position, move || {
                ring.append_at(partition, run.first, &run.frame);
            });
        }
        if let Some(dead) = sent.dead_letters {
            let letters = &self.segment.shared.dead_letters;
            let (at, ring) = (letters.at(self.at.root, partition), letters.ring.clone());
            self.local
                .releases
                .after(position, move || ring.append_at(at, dead.first, &dead.frame));
        }
    }

    /// Says what is here of what left there, once it is on disk.
    fn say_kept(&mut self, durable: &SegmentDurable) {
        self.owed = false;
        if self.segment.shared.part.is_some() {
            return;
        }
        let next = |output| self.progress.offsets.get(output).copied().unwrap_or(0);
        let outputs = durable.outputs.iter().map(|(output, ..)| (*output, next(output))).collect();
        let At { pipeline, root, partition } = self.at;
        let dead_letters = vec![(root, self.progress.dead_letters)];
        let trunk = self.trunk.clone();
        self.local.releases.after(self.kept_at, move || {
            trunk.say(&Message::Kept { pipeline, partition, outputs, dead_letters });
        });
    }

    /// Sends what was not sent in this session, as far as it is on disk.
    fn send(&mut self, durable: &SegmentDurable) {
        let session = self.trunk.session();
        if session != self.session {
            (self.session, self.sent) = (session, 0);
        }
        while self.bytes < WINDOW_BYTES
            && let Some(delivery) = self.mailbox.take_to_forward()
        {
            self.bytes += delivery.bytes();
            self.taken.push_back(delivery);
        }
        let synced = durable.pipeline.log.synced();
        while let Some(delivery) = self.taken.get(self.sent) {
            if delivery.at >= synced && delivery.at > Position(0) {
                let mailbox = self.mailbox.clone();
                self.local.releases.after(delivery.at, move || mailbox.schedule());
                return;
            }
            let Some(run) = delivery.run else { return };
            let (skip, frame) = (delivery.range.start, delivery.frame.bytes());
            let message = Message::Run { to: self.at, run, skip, frame: &frame[..] };
            match self.trunk.send(session, (&message, frame), &self.mailbox) {
                trunk::Sent::Taken => {
                    self.note_passed(self.sent);
                    if self.sent == 0 {
                        self.heard = Instant::now();
                    }
                    self.sent += 1;
                }
                trunk::Sent::Full | trunk::Sent::Down => return,
            }
        }
    }

    /// A run went out, by the link there is.
    fn note_passed(&mut self, at: usize) {
        let Some(delivery) = self.taken.get_mut(at) else { return };
        let size = (delivery.range.len(), delivery.bytes());
        if let Some(hop) = &mut delivery.hop {
            hop.way = self.trunk.class().map(|class| match class {
                Class::Ring => HopWay::Ring,
                Class::Network => HopWay::Network,
            });
            self.segment.shared.hops.passed((*hop, self.segment.at), size);
        }
    }

    /// A run is consumed there.
    fn note_taken(&self, delivery: &Delivery) {
        if let Some(hop) = delivery.hop {
            self.segment.shared.hops.took((hop, self.segment.at));
            spans::went(&self.segment, (&delivery.frame, &hop));
        }
    }

    /// Puts back what is not consumed; true if it is over.
    fn end(&mut self, reply: oneshot::Sender<Result<Inherited, Error>>) -> bool {
        if self.pending.is_some() || self.stopped {
            let what = "the log";
            let busy = Error::Busy { what, retry_after: Duration::from_secs(1) };
            let _gone = reply.send(Err(busy));
            return false;
        }
        self.mailbox.put_back(self.taken.drain(..).collect());
        let progress = Some(std::mem::take(&mut self.progress));
        let inherited = Inherited { progress, ..Inherited::default() };
        self.mailbox.set_absent();
        if let Err(Ok(unwanted)) = reply.send(Ok(inherited)) {
            self.mailbox.set_inherited(unwanted);
        }
        true
    }

    fn retired(&mut self) -> Retired {
        let own: Vec<Delivery> = self.taken.drain(..).chain(self.mailbox.take_all()).collect();
        let (root, partition) = (self.segment.root_name(), self.at.partition);
        let left_over = own.into_iter().map(|own| (root.to_owned(), partition, own)).collect();
        let progress = Some((self.at.root, std::mem::take(&mut self.progress)));
        let watermark = (root.to_owned(), 0);
        Retired { states: Vec::new(), progress, watermark, left_over, is_short: false }
    }

    fn stop(&mut self, why: &str) {
        tracing::error!(
            tenant = %self.segment.shared.tenant.name(),
            pipeline = %self.segment.shared.name,
            partition = self.at.partition,
            "stopped: {why}; the node has to be restarted",
        );
        self.mailbox.set_stopped();
        self.stopped = true;
    }
}

/// How far a run is consumed that is kept, if by more than it was.
fn reached(delivery: &Delivery, run: &RunHeader, settled: &Positions) -> Option<Place> {
    let at = settled.at(run.source);
    if run.seq < at.seq {
        return Some(Place::after(run.seq));
    }
    let is_within = run.seq == at.seq && at.index > delivery.range.start;
    is_within.then(|| Place::within(run.seq, at.index, delivery.range.end))
}
