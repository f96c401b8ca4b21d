//! The shared side of a partition: its inbox, and how its worker learns that there is work.
//!
//! - Any thread may push; only the owning worker takes. Both hold the lock for a few instructions.
//! - An inbox is bounded in bytes. A run is taken while there is any room, so that one larger than
//!   the bound still passes; the excess is one run for each thread that pushes.
//! - Whoever found no room is told when there is some again: partitions by being scheduled, ingest
//!   by a notification.
//! - A partition is in its worker's ready list at most once, so the list is bounded by the number
//!   of partitions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use sluicebox_core::frame::{Frame, FrameBuilder};
use sluicebox_core::partition::Halt;
use sluicebox_core::state::KeyedState;
use tokio::sync::{Notify, oneshot};

use crate::running::SegmentRuntime;

/// Events in one batch of a partition: calls are smaller, commits are not made smaller than they
/// need be, so that runs between partitions stay long.
pub(crate) const BATCH_EVENTS: usize = 1024;
/// Bytes in one batch of a partition.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// The state of a partition's stages, by name.
pub(crate) type States = Vec<(String, KeyedState)>;

/// What a worker is asked to do with a partition besides running it.
#[derive(Debug)]
pub(crate) enum Command {
    /// Go on after a halt.
    Resume,
    /// End open streams, then give up the state and be forgotten.
    Retire {
        /// Where what it held goes.
        reply: oneshot::Sender<Retired>,
        /// Give up what cannot be finished as well, rather than wait for it.
        carry: bool,
    },
}

/// What a partition held when it was retired.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// State by stage.
    pub states: States,
    /// Events that were not handled: stage they enter by, partition, and the events.
    pub left_over: Vec<(String, u16, Frame)>,
}

/// One worker, as others see it.
#[derive(Debug, Default)]
pub(crate) struct WorkerHandle {
    ready: Mutex<Vec<Arc<Mailbox>>>,
    pub(crate) notify: Notify,
}

impl WorkerHandle {
    /// Moves what became ready into `out`.
    pub(crate) fn take_ready(&self, out: &mut Vec<Arc<Mailbox>>) {
        out.append(&mut lock(&self.ready));
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) segment: Arc<SegmentRuntime>,
    pub(crate) partition: u16,
    pub(crate) owner: Arc<WorkerHandle>,
    inbox: Mutex<Inbox>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// In the owner's ready list, or about to be.
    queued: AtomicBool,
    /// Tells ingest that there is room again.
    pub(crate) room: Notify,
    /// Partitions that wait for room here.
    blocked: Mutex<Vec<Arc<Self>>>,
    commands: Mutex<VecDeque<Command>>,
    /// State carried over from the version before; taken when the partition first runs.
    inherited: Mutex<Option<States>>,
    halted: Mutex<Option<Halt>>,
    pub(crate) state_bytes: AtomicUsize,
    pub(crate) open_streams: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inbox {
    frames: VecDeque<Frame>,
    /// Events of the first frame that were taken already.
    taken: usize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailbox {
    pub(crate) fn new(
        segment: Arc<SegmentRuntime>,
        partition: u16,
        owner: Arc<WorkerHandle>,
        bytes_max: usize,
        inherited: Option<States>,
    ) -> Arc<Self> {
        Arc::new(Self {
            segment,
            partition,
            owner,
            inbox: Mutex::default(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            queued: AtomicBool::new(false),
            room: Notify::new(),
            blocked: Mutex::default(),
            commands: Mutex::default(),
            inherited: Mutex::new(inherited),
            halted: Mutex::default(),
            state_bytes: AtomicUsize::new(0),
            open_streams: AtomicUsize::new(0),
        })
    }

    /// Bytes queued.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// True if a push would be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes() < self.bytes_max
    }

    /// Queues a run and wakes the owner; gives it back if there is no room.
    pub(crate) fn push(self: &Arc<Self>, frame: Frame) -> Result<(), Frame> {
        if !self.has_room() {
            return Err(frame);
        }
        self.push_over(frame);
        Ok(())
    }

    /// Queues a run whatever the room; for a caller that has looked just before.
    pub(crate) fn push_over(self: &Arc<Self>, frame: Frame) {
        self.segment.shared.entered();
        self.bytes.fetch_add(frame.bytes().len(), Ordering::Relaxed);
        lock(&self.inbox).frames.push_back(frame);
        self.schedule();
    }

    /// As [`Mailbox::push`] for a partition, which is scheduled again when there is room.
    pub(crate) fn push_or_block(
        self: &Arc<Self>,
        frame: Frame,
        from: &Arc<Self>,
    ) -> Result<(), Frame> {
        let Err(frame) = self.push(frame) else { return Ok(()) };
        {
            let mut blocked = lock(&self.blocked);
            if !blocked.iter().any(|other| Arc::ptr_eq(other, from)) {
                blocked.push(from.clone());
            }
        }
        // Room may have come between the two locks, and then nobody would schedule us.
        self.push(frame)
    }

    /// Takes the next batch, and the number of frames that are thereby done with.
    pub(crate) fn take(&self) -> Option<(Frame, usize)> {
        let mut inbox = lock(&self.inbox);
        let before = inbox.frames.len();
        let batch = inbox.next_batch()?;
        let done = before - inbox.frames.len();
        drop(inbox);
        let was_full = !self.has_room();
        self.bytes.fetch_sub(batch.freed, Ordering::Relaxed);
        if was_full && self.has_room() {
            self.tell_room();
        }
        Some((batch.frame, done))
    }

    /// Takes everything that is queued, as it is.
    pub(crate) fn take_all(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((frame, done)) = self.take() {
            self.segment.shared.left(done);
            frames.push(frame);
        }
        frames
    }

    /// True if nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.inbox).frames.is_empty()
    }

    /// Puts the partition on its worker's ready list, once.
    pub(crate) fn schedule(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.owner.ready).push(self.clone());
            self.owner.notify.notify_one();
        }
    }

    /// Called by the owner just before it runs the partition: from now on it may be queued again.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    pub(crate) fn command(self: &Arc<Self>, command: Command) {
        lock(&self.commands).push_back(command);
        self.schedule();
    }

    pub(crate) fn next_command(&self) -> Option<Command> {
        lock(&self.commands).pop_front()
    }

    pub(crate) fn take_inherited(&self) -> Option<States> {
        lock(&self.inherited).take()
    }

    pub(crate) fn set_halted(&self, halt: Option<Halt>) {
        *lock(&self.halted) = halt;
    }

    pub(crate) fn halted(&self) -> Option<Halt> {
        lock(&self.halted).clone()
    }

    #[cold]
    fn tell_room(&self) {
        for partition in std::mem::take(&mut *lock(&self.blocked)) {
            partition.schedule();
        }
        self.room.notify_waiters();
    }
}

/// The waker of a partition's task.
impl Wake for Mailbox {
    fn wake(self: Arc<Self>) {
        self.schedule();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.schedule();
    }
}

struct Batch {
    frame: Frame,
    freed: usize,
}

impl Inbox {
    /// One whole frame if it is within the bounds or the only choice; else a part of the first, or
    /// several small ones together.
    fn next_batch(&mut self) -> Option<Batch> {
        let first = self.frames.front()?;
        let fits =
            |frame: &Frame| frame.len() <= BATCH_EVENTS && frame.bytes().len() <= BATCH_BYTES;
        if self.taken > 0 || (!fits(first) && first.len() > 1) {
            return Some(self.part_of_first());
        }
        let first = self.frames.pop_front()?;
        let mut freed = first.bytes().len();
        let joins = |events: usize, bytes: usize, next: Option<&Frame>| {
            next.is_some_and(|next| {
                events + next.len() <= BATCH_EVENTS && bytes + next.bytes().len() <= BATCH_BYTES
            })
        };
        if !joins(first.len(), freed, self.frames.front()) {
            return Some(Batch { frame: first, freed });
        }
        let mut builder = FrameBuilder::new();
        append(&mut builder, &first);
        while joins(builder.len(), builder.bytes_len(), self.frames.front()) {
            let Some(next) = self.frames.pop_front() else { break };
            freed += next.bytes().len();
            append(&mut builder, &next);
        }
        Some(Batch { frame: builder.finish(), freed })
    }

    fn part_of_first(&mut self) -> Batch {
        let first = self.frames[0].clone();
        let mut starts = Vec::new();
        first.index_into(&mut starts);
        let from = self.taken;
        let most = (from + BATCH_EVENTS).min(first.len());
        let within = |to: &usize| (starts[*to] - starts[from]) as usize <= BATCH_BYTES;
        let to = (from + 1..=most).take_while(within).last().unwrap_or(from + 1);
        let bytes = &first.bytes()[starts[from] as usize..starts[to] as usize];
        let mut builder = FrameBuilder::new();
        builder.push_packed(bytes, (to - from) as u32);
        self.taken = to;
        let mut freed = bytes.len();
        if to == first.len() {
            freed += sluicebox_core::frame::HEADER_BYTES;
            self.frames.pop_front();
            self.taken = 0;
        }
        Batch { frame: builder.finish(), freed }
    }
}

fn append(builder: &mut FrameBuilder, frame: &Frame) {
    let events = &frame.bytes()[sluicebox_core::frame::HEADER_BYTES..];
    builder.push_packed(events, frame.len() as u32);
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::Head;

    use super::*;

    fn frame(events: usize, payload: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        for at in 0..events {
            builder.push(&Head::data(at as u64), b"k", &vec![0; payload], &[]);
        }
        builder.finish()
    }

    fn drain(frames: Vec<Frame>) -> Vec<usize> {
        let total: usize = frames.iter().map(|frame| frame.bytes().len()).sum();
        let mut inbox = Inbox { frames: frames.into(), taken: 0 };
        let mut freed = 0;
        let mut sizes = Vec::new();
        while let Some(batch) = inbox.next_batch() {
            freed += batch.freed;
            sizes.push(batch.frame.len());
        }
        assert_eq!(freed, total, "every byte that entered is freed");
        sizes
    }

    #[test]
    fn small_runs_are_joined_and_large_ones_divided() {
        assert_eq!(drain(vec![frame(3, 1), frame(4, 1), frame(5, 1)]), [12]);
        assert_eq!(drain(vec![frame(1000, 1), frame(100, 1), frame(1, 1)]), [1000, 101]);
        assert_eq!(drain(vec![frame(2500, 1), frame(1, 1)]), [1024, 1024, 452, 1]);
        let large = BATCH_BYTES;
        assert_eq!(drain(vec![frame(1, large), frame(1, 1)]), [1, 1]);
        assert_eq!(drain(vec![frame(3, large / 2 + 100)]), [1, 1, 1]);
    }
}
