//! What a join keeps of a key: the events of one side in one span of time, and notes beside them.
//!
//! Which bucket an event belongs to, and when it goes, is said in `join.rs`.

use crate::event::Event;
use crate::join::Item;
use crate::kept::Kept;

/// Which input an event came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left = 0,
    Right = 1,
}

impl Side {
    pub(super) fn at(event: &Event<'_>) -> Option<Self> {
        match event.input() {
            0 => Some(Self::Left),
            1 => Some(Self::Right),
            _ => None,
        }
    }

    pub(super) const fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// The id of a bucket of this side.
    pub(super) const fn id(self, bucket: u64) -> u64 {
        bucket * 2 + self as u64
    }

    /// The bucket of an id.
    pub(super) const fn of(id: u64) -> (u64, Self) {
        (id / 2, if id.is_multiple_of(2) { Self::Left } else { Self::Right })
    }
}

/// What is noted of a key beside its buckets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notes {
    /// Length of the buckets; 0 before there are any.
    pub(super) bucket: u64,
    /// Events in all buckets.
    pub(super) events: u64,
}

impl Kept for Notes {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.bucket, self.events).write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (bucket, events) = Kept::read(bytes)?;
        Some(Self { bucket, events })
    }
}

/// The events of one side in one bucket, as they came. `paired` is kept for outer joins only.
#[derive(Clone, Debug)]
pub(super) enum Bucket<L, R> {
    Left(Vec<Waiting<L>>),
    Right(Vec<Waiting<R>>),
}

#[derive(Clone, Debug)]
pub(super) struct Waiting<T> {
    pub(super) item: Item<T>,
    pub(super) paired: bool,
}

impl<T> Waiting<T> {
    pub(super) const fn new(time: u64, value: T) -> Self {
        Self { item: Item { time, value }, paired: false }
    }
}

impl<T: Kept> Kept for Waiting<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.item.time, self.paired).write(bytes);
        self.item.value.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (time, paired, value) = Kept::read(bytes)?;
        Some(Self { item: Item { time, value }, paired })
    }
}

impl<L: Kept, R: Kept> Kept for Bucket<L, R> {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Left(waiting) => (false, waiting.clone()).write(bytes),
            Self::Right(waiting) => (true, waiting.clone()).write(bytes),
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        if bool::read(bytes)? {
            Kept::read(bytes).map(Self::Right)
        } else {
            Kept::read(bytes).map(Self::Left)
        }
    }
}

impl<L, R> Bucket<L, R> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Left(waiting) => waiting.len(),
            Self::Right(waiting) => waiting.len(),
        }
    }
}

/// Notes that the events in this range have a partner.
pub(super) fn mark<T>(all: &mut [Waiting<T>], first: u64, last: u64) {
    for one in all.iter_mut().filter(|one| (first..=last).contains(&one.item.time)) {
        one.paired = true;
    }
}
