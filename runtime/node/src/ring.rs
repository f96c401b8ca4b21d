//! What left a pipeline by one output, kept for readers: one ring of whole frames a partition.
//!
//! - Offsets count the events of a partition from 0 and never go back; a reader's place is a
//!   [`Cursor`]. A ring drops its oldest frames to make room and counts the events it dropped.
//! - Memory is bounded: each partition may hold its share of the bound; a frame larger than that
//!   share is kept alone, as long as all such frames together stay within the bound once more. So
//!   do partitions that take nothing any more, until their frames are dropped.
//! - The number of partitions grows and never shrinks. A cursor from before is good, and what a key
//!   left behind is read in its order (`fences`).
//! - Readers never hold up a writer: appending is one short lock on one partition, and copies no
//!   payload; reading clones handles of frames. `watch` tells of the events of one key.
//! - A larger output may take the place of one, with what it holds: who appends to or waits at
//!   either does so at both.
//! - Nothing outlives the output. A new one has another incarnation, so a cursor from before a
//!   restart is refused instead of pointing at other events.
//!
//! - What a sink has not handed on is not dropped; partitions wait instead (`hold`).
//!
//! Used for outputs and for dead letters. How a page looks outside is decided in `http/outputs`.

mod bounds;
mod cursor;
mod elsewhere;
mod fences;
mod hold;
mod partitions;
mod stats;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use sluicebox_core::frame::{Event, Frame, FrameBuilder};
use tokio::sync::Notify;

use crate::counted::Counted;
use crate::mailbox::Mailbox;
use cursor::Place;
pub use cursor::{Cursor, CursorError};
use fences::{Fences, limit};
use hold::Holds;
use partitions::Partitions;
pub use stats::{OutputStats, PartitionStats};
use watch::Watchers;
pub use watch::{News, Told, Watch};

/// What a kept frame costs besides its bytes: its entry and its allocation's own bookkeeping.
const FRAME_OVERHEAD_BYTES: usize = 96;

/// The events that left by one output and are still kept.
#[derive(Debug)]
pub struct Output {
    incarnation: u64,
    partitions: Partitions,
    fences: Fences,
    shared: Arc<Shared>,
}

/// What an output has besides its partitions.
#[derive(Debug)]
struct Shared {
    /// Bytes a partition may hold in frames of ordinary size.
    share_bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    /// Bytes in frames larger than a share, over all partitions.
    oversize_bytes: AtomicUsize,
    /// Readers in `wait`; while there are none, appending wakes nobody and takes no second lock.
    waiting: AtomicUsize,
    news: Notify,
    watchers: Arc<Watchers>,
    appended: AtomicU64,
    dropped: AtomicU64,
    /// Sinks hold something of it.
    held: AtomicBool,
    /// Partitions that wait for sinks.
    held_up: Mutex<Vec<Weak<Mailbox>>>,
}

#[derive(Debug, Default)]
struct Ring {
    frames: VecDeque<Kept>,
    bytes: usize,
    holds: Holds,
    /// Offset of the next event.
    next: u64,
}

#[derive(Debug)]
struct Kept {
    /// Offset of the frame's first event.
    first: u64,
    frame: Frame,
    since: Instant,
    /// It was larger than a share when it came, and counts among those.
    oversize: bool,
}

/// What a reader gets at once.
#[derive(Debug)]
pub struct Page {
    /// In reading order; at most one partition after the other.
    pub chunks: Vec<Chunk>,
    /// Where to go on.
    pub next: Cursor,
}

/// Consecutive events of one partition, in one frame.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The partition.
    pub partition: u16,
    /// Offset of the first event of `frame`.
    pub first_offset: u64,
    /// The frame as it was appended.
    pub frame: Frame,
    /// Events of the frame before the chunk.
    pub skip: usize,
    /// Events of the frame in the chunk.
    pub take: usize,
}

impl Chunk {
    /// The events with their offsets.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event<'_>)> {
        let offsets = self.first_offset + self.skip as u64..;
        offsets.zip(self.frame.events().skip(self.skip).take(self.take))
    }

    /// The chunk as a frame of its own: the one that was appended, unless the chunk is only a
    /// part of it.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        if self.take == self.frame.len() {
            return self.frame.clone();
        }
        let mut builder = FrameBuilder::new();
        for (_, event) in self.events() {
            builder.push(&event.head, event.key, event.payload, event.fields.bytes());
        }
        builder.finish()
    }
}

impl Page {
    /// The cursor in front of the page's first event, from which each can be passed.
    #[must_use]
    pub fn begin(&self) -> Cursor {
        let mut cursor = self.next.clone();
        // Of several chunks of a partition the first has the last word.
        for chunk in self.chunks.iter().rev() {
            cursor.stand_before(chunk.partition, chunk.first_offset + chunk.skip as u64);
        }
        cursor
    }
}

/// The reader's place is no longer kept, is of another incarnation, or never was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the events behind the cursor are no longer kept")]
pub struct Trimmed {
    /// A cursor at the oldest events that are kept.
    pub oldest: Cursor,
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.frames.front().map_or(self.next, |kept| kept.first)
    }

    /// Index of the frame that holds `offset`, which is at least the oldest.
    fn index_of(&self, offset: u64) -> usize {
        self.frames.partition_point(|kept| kept.first + kept.frame.len() as u64 <= offset)
    }
}

fn cost_of(frame: &Frame) -> usize {
    frame.bytes().len() + FRAME_OVERHEAD_BYTES
}

impl Output {
    /// An empty output. `bytes_max` bounds all partitions together; `incarnation` differs for each
    /// output a node ever makes.
    #[must_use]
    pub fn new(partitions: u16, bytes_max: usize, incarnation: u64) -> Self {
        let partitions = partitions.max(1);
        let shared = Shared {
            share_bytes: AtomicUsize::new(bytes_max / usize::from(partitions)),
            bytes_max: AtomicUsize::new(bytes_max),
            oversize_bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            news: Notify::new(),
            watchers: Arc::default(),
            appended: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            held: AtomicBool::new(false),
            held_up: Mutex::default(),
        };
        let (partitions, fences) = (Partitions::new(partitions.into()), Fences::default());
        Self { incarnation, partitions, fences, shared: Arc::new(shared) }
    }

    /// An output that holds what this one does, each partition being the one `from` says, or new.
    #[must_use]
    pub fn arranged(
        &self,
        incarnation: u64,
        partitions: u16,
        from: impl Fn(u16) -> Option<u16>,
    ) -> Self {
        let known = |at: u16| self.partitions.get(usize::from(from(at)?)).cloned();
        let partitions = (0..partitions).map(|at| known(at).unwrap_or_default()).collect();
        let fences = Fences::default();
        Self { incarnation, partitions, fences, shared: self.shared.clone() }
    }

    /// True if a partition holds something.
    #[must_use]
    pub fn holds(&self, partition: u16) -> bool {
        let ring = self.partitions.get(usize::from(partition));
        ring.is_some_and(|ring| !lock(ring).frames.is_empty())
    }

    /// Number of partitions, those included that take nothing any more.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions.len() as u16
    }

    /// Which output this is, of all a node ever makes.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Appends the events of a frame to a partition, dropping its oldest frames if need be, and
    /// wakes the readers that wait. A partition that does not exist takes nothing.
    pub fn append(&self, partition: u16, frame: &Frame) {
        let Some(ring) = self.partitions.get(usize::from(partition)) else { return };
        if frame.is_empty() {
            return;
        }
        let since = Instant::now();
        let cost = cost_of(frame);
        let share_bytes = self.shared.share_bytes.load(Ordering::Relaxed);
        {
            let mut ring = lock(ring);
            while ring.bytes + cost > share_bytes && !ring.holds_oldest() {
                let Some(old) = ring.frames.pop_front() else { break };
                self.forget(&mut ring, &old);
            }
            let first = ring.next;
            ring.next += frame.len() as u64;
            let is_large = cost > share_bytes;
            let oversize = is_large && self.admit_oversize(cost);
            if !is_large || oversize || ring.is_held() {
                ring.bytes += cost;
                ring.note_held(cost);
                ring.frames.push_back(Kept { first, frame: frame.clone(), since, oversize });
            } else {
                self.shared.dropped.fetch_add(frame.len() as u64, Ordering::Relaxed);
            }
            self.shared.watchers.tell(partition, first, frame);
        }
        self.shared.appended.fetch_add(frame.len() as u64, Ordering::Relaxed);
        // A reader counts itself before it looks: either it is seen here, or it saw the frame.
        // The partition's lock orders the two.
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
            self.shared.news.notify_waiters();
        }
    }

    /// From here on keys are in other partitions. `offset` says how far each had come; it is given
    /// its number, and what it would append next.
    pub fn fence(&self, offset: impl Fn(u16, u64) -> u64) {
        let rings = (0_u16..).zip(self.partitions.iter());
        let fence = rings.map(|(partition, ring)| offset(partition, lock(ring).next)).collect();
        let all_behind = |fence: &fences::Fence| {
            let mut ends = fence.iter().zip(self.partitions.iter());
            ends.all(|(end, ring)| *end <= lock(ring).oldest())
        };
        self.fences.put_up(fence, all_behind);
    }

    /// What is behind the cursor, about `bytes_max` bytes of it.
    ///
    /// # Errors
    /// [`Trimmed`], with the cursor to go on from.
    pub fn read(&self, cursor: &Cursor, bytes_max: usize) -> Result<Page, Trimmed> {
        self.read_limited(cursor, usize::MAX, bytes_max)
    }

    /// As [`Output::read`], and not more than `events_max` events. The first frame is given even
    /// if it is larger than `bytes_max`.
    ///
    /// # Errors
    /// [`Trimmed`], with the cursor to go on from.
    pub fn read_limited(
        &self,
        cursor: &Cursor,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Trimmed> {
        let mut place = self.place(cursor).ok_or_else(|| self.trimmed())?;
        let mut page =
            Reading { chunks: Vec::new(), events_left: events_max, bytes_left: bytes_max };
        let fence = self.fences.ahead(&place.offsets);
        let count = place.offsets.len();
        let start = usize::from(place.start);
        for step in 0..count {
            let partition = (start + step) % count;
            let Some(ring) = self.partitions.get(partition) else { continue };
            let offset = &mut place.offsets[partition];
            let ring = lock(ring);
            // From the oldest on nothing can be trimmed: the oldest is what is there now.
            if cursor.is_oldest() {
                *offset = ring.oldest();
            }
            if *offset < ring.oldest() || *offset > ring.next {
                drop(ring);
                return Err(self.trimmed());
            }
            let end = limit(fence.as_ref(), partition);
            if page.take_from(&ring, (partition as u16, end), offset) {
                // Partitions take turns at being first, so that a busy one starves no other.
                place.start = ((partition + 1) % count) as u16;
            }
            if page.is_full() && !cursor.is_oldest() {
                break;
            }
        }
        Ok(Page { chunks: page.chunks, next: Cursor::at(place) })
    }

    /// Offset of the oldest event of a partition that is kept, or of the next one.
    #[must_use]
    pub fn kept_from(&self, partition: u16) -> u64 {
        self.partitions.get(usize::from(partition)).map_or(0, |ring| lock(ring).oldest())
    }

    /// Waits until something is behind the cursor, or it is trimmed. Cancelling loses nothing.
    pub async fn wait(&self, cursor: &Cursor) {
        let _counted = Counted::new(&self.shared.waiting);
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            news.as_mut().enable();
            if self.has_news(cursor) {
                return;
            }
            news.await;
        }
    }

    /// Watches for events of a key that are appended from now on.
    #[must_use]
    pub fn watch(&self, key: &[u8]) -> Watch {
        Watch::begin(&self.shared.watchers, key)
    }

    /// True if a read from the cursor would give events or fail.
    #[must_use]
    pub fn has_news(&self, cursor: &Cursor) -> bool {
        let Some(place) = self.place(cursor) else { return true };
        let fence = self.fences.ahead(&place.offsets);
        let mut rings = self.partitions.iter().zip(&place.offsets).enumerate();
        rings.any(|(partition, (ring, offset))| {
            let ring = lock(ring);
            let offset = if cursor.is_oldest() { ring.oldest() } else { *offset };
            let end = ring.next.min(limit(fence.as_ref(), partition));
            offset < end || offset < ring.oldest() || offset > ring.next
        })
    }

    /// A cursor behind everything that is there now.
    #[must_use]
    pub fn latest(&self) -> Cursor {
        self.cursor_of(|ring| ring.next)
    }

    /// A cursor at the oldest events that are kept now.
    #[must_use]
    pub fn oldest(&self) -> Cursor {
        self.cursor_of(Ring::oldest)
    }

    /// A cursor at the first events appended at or after `time`.
    #[must_use]
    pub fn since(&self, time: Instant) -> Cursor {
        self.cursor_of(|ring| {
            let index = ring.frames.partition_point(|kept| kept.since < time);
            ring.frames.get(index).map_or(ring.next, |kept| kept.first)
        })
    }

    /// The cursor's place, with an offset for each partition; `None` if it is of another output.
    fn place(&self, cursor: &Cursor) -> Option<Place> {
        let Some(place) = cursor.place() else { return self.oldest().place().cloned() };
        let count = self.partitions.len();
        // A partition that was not there yet began at 0; one that is not there was never used.
        let used = place.offsets.iter().skip(count).any(|offset| *offset > 0);
        if place.incarnation != self.incarnation || used {
            return None;
        }
        let mut place = place.clone();
        place.offsets.resize(count, 0);
        place.start %= count as u16;
        Some(place)
    }

    fn cursor_of(&self, offset: impl Fn(&Ring) -> u64) -> Cursor {
        let offsets = self.partitions.iter().map(|ring| offset(&lock(ring))).collect();
        Cursor::at(Place { incarnation: self.incarnation, start: 0, offsets })
    }

    fn trimmed(&self) -> Trimmed {
        Trimmed { oldest: self.oldest() }
    }
}

/// A page under construction.
struct Reading {
    chunks: Vec<Chunk>,
    events_left: usize,
    bytes_left: usize,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.events_left == 0 || self.bytes_left == 0
    }

    /// Takes what fits before `end`, moves the offset behind it, and says whether there was
    /// anything.
    fn take_from(&mut self, ring: &Ring, (partition, end): (u16, u64), offset: &mut u64) -> bool {
        let first = ring.index_of(*offset);
        let before = self.chunks.len();
        for kept in ring.frames.iter().skip(first) {
            if *offset >= end {
                break;
            }
            let fits = kept.frame.bytes().len() <= self.bytes_left || self.chunks.is_empty();
            if self.is_full() || !fits {
                // What is left is too small for the next frame: the page ends here.
                self.bytes_left = 0;
                break;
            }
            let skip = (*offset - kept.first) as usize;
            let before_end = usize::try_from(end - *offset).unwrap_or(usize::MAX);
            let take = (kept.frame.len() - skip).min(self.events_left).min(before_end);
            let frame = kept.frame.clone();
            self.bytes_left = self.bytes_left.saturating_sub(frame.bytes().len());
            self.events_left -= take;
            self.chunks.push(Chunk { partition, first_offset: kept.first, frame, skip, take });
            *offset += take as u64;
        }
        self.chunks.len() > before
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    lock_of(ring)
}

fn lock_of<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic between two consistent states of a ring.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
