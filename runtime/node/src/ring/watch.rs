//! Watching an output for the events of one key, as they are appended.
//!
//! - A reader of one key would otherwise be woken by every event of every key. While nobody
//!   watches, appending looks at one number.
//! - What a watch holds is bounded: beyond that it says that it *lags*, and its reader gets what is
//!   missing from the ring, by cursor, which it has to be able to do anyway.
//! - Events are told under the lock of their partition, so that whoever knows how far a partition
//!   has come ([`super::Output::latest`]) has been told all before.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use sluicebox_core::frame::{Event, Frame, HEADER_BYTES};

/// Events a watch holds at most, and bytes of the frames they lie in.
const EVENTS_MAX: usize = 512;
const BYTES_MAX: usize = 1 << 20;

/// Everybody who watches an output.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    count: AtomicUsize,
    by_key: Mutex<ByKey>,
}

/// Who watches a key.
type ByKey = HashMap<Box<[u8]>, Vec<Weak<Shared>>>;

impl Watchers {
    /// Tells of the events of a frame, the first of which has this offset. Under the lock of the
    /// partition.
    pub(super) fn tell(&self, partition: u16, first: u64, frame: &Frame) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let by_key = lock(&self.by_key);
        let mut start = HEADER_BYTES as u32;
        for (offset, event) in (first..).zip(frame.events()) {
            if let Some(watches) = by_key.get(event.key) {
                let told = Told { partition, offset, frame: frame.clone(), start };
                watches.iter().filter_map(Weak::upgrade).for_each(|watch| watch.tell(&told));
            }
            start += event.size() as u32;
        }
    }

    fn leave(&self, key: &[u8], shared: &Arc<Shared>) {
        let mut by_key = lock(&self.by_key);
        if let Some(watches) = by_key.get_mut(key) {
            watches.retain(|watch| !std::ptr::eq(watch.as_ptr(), Arc::as_ptr(shared)));
            if watches.is_empty() {
                by_key.remove(key);
            }
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Told>,
    /// Of frames that some of the events lie in.
    bytes: usize,
    lags: bool,
}

impl Shared {
    fn tell(&self, told: &Told) {
        let mut queue = lock(&self.queue);
        if queue.lags {
            return;
        }
        let same = queue.events.back().is_some_and(|last| last.is_beside(told));
        let bytes = if same { 0 } else { told.frame.bytes().len() };
        if queue.events.len() >= EVENTS_MAX || queue.bytes + bytes > BYTES_MAX.max(bytes) {
            // What is there can be read as well; it must not be kept from being dropped.
            *queue = Queue { lags: true, ..Queue::default() };
        } else {
            queue.bytes += bytes;
            queue.events.push_back(told.clone());
        }
        drop(queue);
        self.waker.wake();
    }
}

/// One event, in the frame it was appended with.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its partition.
    pub partition: u16,
    /// Its offset there.
    pub offset: u64,
    frame: Frame,
    start: u32,
}

impl Told {
    /// The event.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        self.frame.event_at(self.start)
    }

    fn is_beside(&self, other: &Self) -> bool {
        std::ptr::eq(self.frame.bytes().as_ptr(), other.frame.bytes().as_ptr())
    }
}

/// What a watch has to say.
#[derive(Debug)]
pub enum News {
    /// These were appended, in this order.
    Events(VecDeque<Told>),
    /// More was appended than it holds: read the ring, from where you are.
    Lags,
}

/// A watch over one key. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    key: Box<[u8]>,
    watchers: Arc<Watchers>,
    shared: Arc<Shared>,
}

impl Watch {
    pub(super) fn begin(watchers: &Arc<Watchers>, key: &[u8]) -> Self {
        let shared = Arc::new(Shared::default());
        let mut by_key = lock(&watchers.by_key);
        // Counted in the lock that telling takes: whoever misses the count came before.
        watchers.count.fetch_add(1, Ordering::SeqCst);
        by_key.entry(key.into()).or_default().push(Arc::downgrade(&shared));
        drop(by_key);
        Self { key: key.into(), watchers: Arc::clone(watchers), shared }
    }

    /// What came since the last look; a watch that lagged does no longer.
    pub fn take(&self) -> News {
        let queue = std::mem::take(&mut *lock(&self.shared.queue));
        if queue.lags { News::Lags } else { News::Events(queue.events) }
    }

    /// Ready if there is something to take; else the caller is woken when there is.
    pub fn poll_news(&self, context: &Context<'_>) -> Poll<()> {
        self.shared.waker.register(context.waker());
        let queue = lock(&self.shared.queue);
        if queue.lags || !queue.events.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.leave(&self.key, &self.shared);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic between two consistent states.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use sluicebox_core::frame::{FrameBuilder, Head};

    use super::super::Output;
    use super::*;

    fn frame(keys: &[&str], payload_bytes: usize) -> Frame {
        let mut builder = FrameBuilder::new();
        let payload = vec![b'x'; payload_bytes];
        keys.iter().for_each(|k| builder.push(&Head::data(1), k.as_bytes(), &payload, &[]));
        builder.finish()
    }

    fn offsets(watch: &Watch) -> Option<Vec<(u16, u64)>> {
        match watch.take() {
            News::Events(events) => Some(
                events
                    .iter()
                    .map(|told| {
                        assert_eq!(told.event().key, &*watch.key);
                        (told.partition, told.offset)
                    })
                    .collect(),
            ),
            News::Lags => None,
        }
    }

    #[test]
    fn a_watch_is_told_of_its_key_from_when_it_begins() {
        let output = Output::new(2, 1 << 20, 1);
        output.append(0, &frame(&["a", "b", "a"], 1));
        let watch = output.watch(b"a");
        let other = output.watch(b"b");
        output.append(0, &frame(&["b", "a", "c", "a"], 1));
        output.append(1, &frame(&["a"], 1));
        assert_eq!(offsets(&watch), Some(vec![(0, 4), (0, 6), (1, 0)]));
        assert_eq!(offsets(&watch), Some(vec![]));
        assert_eq!(offsets(&other), Some(vec![(0, 3)]));
    }

    #[test]
    fn two_may_watch_one_key_and_one_that_ends_leaves_nothing() {
        let output = Output::new(1, 1 << 20, 1);
        let (first, second) = (output.watch(b"a"), output.watch(b"a"));
        output.append(0, &frame(&["a"], 1));
        assert_eq!(offsets(&first), Some(vec![(0, 0)]));
        drop(first);
        output.append(0, &frame(&["a"], 1));
        assert_eq!(offsets(&second), Some(vec![(0, 0), (0, 1)]));
        let watchers = Arc::clone(&second.watchers);
        drop(second);
        assert_eq!(watchers.count.load(Ordering::Relaxed), 0);
        assert!(lock(&watchers.by_key).is_empty());
    }

    #[test]
    fn beyond_what_it_holds_a_watch_lags_until_it_is_looked_at() {
        let output = Output::new(1, 1 << 20, 1);
        let watch = output.watch(b"a");
        let many = vec!["a"; EVENTS_MAX];
        output.append(0, &frame(&many, 1));
        assert_eq!(offsets(&watch).map(|all| all.len()), Some(EVENTS_MAX));
        output.append(0, &frame(&many, 1));
        output.append(0, &frame(&["a"], 1));
        assert_eq!(offsets(&watch), None);
        output.append(0, &frame(&["a"], 1));
        assert_eq!(offsets(&watch), Some(vec![(0, 2 * EVENTS_MAX as u64 + 1)]));
        // A frame larger than the bound alone is held, a second one is not.
        output.append(0, &frame(&["a"], BYTES_MAX + 1));
        assert_eq!(offsets(&watch).map(|all| all.len()), Some(1));
        output.append(0, &frame(&["a"], BYTES_MAX / 2));
        output.append(0, &frame(&["a"], BYTES_MAX));
        assert_eq!(offsets(&watch), None);
    }
}
