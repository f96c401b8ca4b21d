//! Writing a checkpoint: the frozen changes of many partitions, in key order, at a given pace.
//!
//! - Entries are written in pieces of bounded size, in the order of their keys over all
//!   partitions, and the horizon is moved only after the last. Besides the frozen changes
//!   themselves it takes a few bytes an entry and one piece of memory.
//! - Where two sets of changes have one key, the later in the list counts.
//! - The pace is kept from piece to piece: after each the writer sleeps as long as its bytes may
//!   take. So the log, which shares the disk, waits for one piece at most. Whoever gives the pace
//!   is asked again and again, and may change it, or do something small of its own meanwhile.
//!
//! Leaves to others: the thread it runs on, when it is time, and what is frozen: only changes
//! that the log has on disk may be.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::dirty::{Changes, Position};
use crate::error::Error;
use crate::priority::Stretches;
use crate::store::{Change, Checkpoint, Store};

/// Bytes of a piece unless its limit says otherwise: what a disk takes in some hundredths of a
/// second, so that a commit beside it waits no longer.
pub const PIECE_BYTES_DEFAULT: usize = 8 * 1024 * 1024;
/// A pause is looked at this often for a reason to stop.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Prefixes that are discarded between two looks whether to stop.
const DISCARDED_MAX: usize = 4096;

/// What a checkpoint is to hold.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Up to where the store is complete then.
    pub horizon: u64,
    /// Replaces the store's metadata.
    pub metadata: &'a [(&'a str, &'a [u8])],
    /// Prefixes under which everything goes, before any change is written.
    pub discarded: &'a [Vec<u8>],
    /// The changes since the last checkpoint, of all partitions, older before newer.
    pub changes: &'a [Arc<Changes>],
}

/// How fast a checkpoint is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// Keys and values in a piece; an entry that is larger is a piece of its own.
    pub piece_bytes: usize,
    /// Keys and values written in a second; `None` is as fast as can be.
    pub bytes_per_second: Option<u64>,
}

/// How a checkpoint is written.
pub struct Pace<'a> {
    /// Asked at the beginning, after each piece and some times in a pause; the time until it
    /// answers is part of the pause.
    pub speed: &'a mut dyn FnMut() -> Speed,
    /// Set from elsewhere to give up after the piece under way.
    pub stop: &'a AtomicBool,
}

/// What writing a checkpoint came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Puts and deletes.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Pieces they were written in.
    pub pieces: u64,
    /// Entries that went with discarded prefixes.
    pub discarded: u64,
    /// From beginning to end.
    pub took: Duration,
    /// Part of it in which nothing was done, to keep the pace.
    pub paused: Duration,
}

/// Writes and commits a checkpoint. `None` if it was told to stop; then nothing is committed, and
/// the same changes have to go into the next.
///
/// # Errors
/// What the store answers; nothing is committed then either.
pub fn write(
    store: &dyn Store,
    plan: &Plan<'_>,
    pace: &mut Pace<'_>,
) -> Result<Option<Written>, Error> {
    let start = Instant::now();
    let mut writer = Writer {
        checkpoint: store.begin(plan.horizon)?,
        piece_bytes_max: (pace.speed)().piece_bytes,
        pace,
        piece: Vec::new(),
        piece_bytes: 0,
        allowed: 0.0,
        looked: start,
        written: Written::default(),
    };
    for prefixes in plan.discarded.chunks(DISCARDED_MAX) {
        writer.written.discarded += writer.checkpoint.delete_prefixes(prefixes)?;
        if writer.pace.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    let mut stretches = Stretches::begin();
    for change in Merged::new(plan.changes) {
        stretches.step();
        if !writer.take(change)? {
            return Ok(None);
        }
    }
    if !writer.finish_piece()? {
        return Ok(None);
    }
    writer.checkpoint.commit(plan.metadata)?;
    Ok(Some(Written { took: start.elapsed(), ..writer.written }))
}

struct Writer<'a, 'p, 'r, 's> {
    checkpoint: Box<dyn Checkpoint + 'a>,
    pace: &'r mut Pace<'s>,
    piece: Vec<Change<'p>>,
    piece_bytes: usize,
    piece_bytes_max: usize,
    /// Bytes that may have been written by the time it last looked.
    allowed: f64,
    looked: Instant,
    written: Written,
}

impl<'p> Writer<'_, 'p, '_, '_> {
    /// False if it is time to stop.
    fn take(&mut self, change: Change<'p>) -> Result<bool, Error> {
        let bytes = change.key.len() + change.value.map_or(0, <[u8]>::len);
        let goes_on = self.piece_bytes + bytes <= self.piece_bytes_max || self.finish_piece()?;
        self.piece.push(change);
        self.piece_bytes += bytes;
        Ok(goes_on)
    }

    /// False if it is time to stop.
    fn finish_piece(&mut self) -> Result<bool, Error> {
        if !self.piece.is_empty() {
            self.checkpoint.write(&self.piece)?;
            self.written.pieces += 1;
            self.written.entries += self.piece.len() as u64;
            self.written.bytes += self.piece_bytes as u64;
            self.piece.clear();
            self.piece_bytes = 0;
        }
        Ok(self.pause())
    }

    /// Sleeps until the bytes so far are due.
    fn pause(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            let Speed { piece_bytes, bytes_per_second } = (self.pace.speed)();
            self.piece_bytes_max = piece_bytes;
            if self.pace.stop.load(Ordering::Relaxed) {
                return false;
            }
            let Some(rate) = bytes_per_second.map(|rate| rate.max(1) as f64) else { return true };
            let now = Instant::now();
            self.allowed += rate * (now - self.looked).as_secs_f64();
            self.looked = now;
            let over = self.written.bytes as f64 - self.allowed;
            if over <= 0.0 {
                self.written.paused += begun.elapsed();
                return true;
            }
            thread::sleep(Duration::from_secs_f64((over / rate).min(PAUSE_MAX.as_secs_f64())));
        }
    }
}

/// All changes in the order of their keys, one for each key.
struct Merged<'a> {
    changes: &'a [Arc<Changes>],
    orders: Vec<std::vec::IntoIter<Position>>,
    heads: BinaryHeap<Reverse<Head<'a>>>,
}

/// The next change of one set.
#[derive(PartialEq, Eq)]
struct Head<'a> {
    key: &'a [u8],
    value: Option<&'a [u8]>,
    set: usize,
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Order {
        // Of one key the newest comes first; those after it are passed over.
        self.key.cmp(other.key).then(other.set.cmp(&self.set))
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl<'a> Merged<'a> {
    fn new(changes: &'a [Arc<Changes>]) -> Self {
        let orders = changes.iter().map(|changes| changes.order().into_iter()).collect();
        let mut merged = Self { changes, orders, heads: BinaryHeap::new() };
        for set in 0..changes.len() {
            let head = merged.pull(set);
            merged.heads.extend(head.map(Reverse));
        }
        merged
    }

    fn pull(&mut self, set: usize) -> Option<Head<'a>> {
        let (key, value) = self.changes[set].entry(self.orders[set].next()?);
        Some(Head { key, value, set })
    }

    /// Takes the least head and puts the next of its set in its place.
    fn advance(&mut self) -> Option<Head<'a>> {
        let set = self.heads.peek()?.0.set;
        let next = self.pull(set);
        let mut top = self.heads.peek_mut()?;
        Some(match next {
            Some(next) => std::mem::replace(&mut top.0, next),
            None => std::collections::binary_heap::PeekMut::pop(top).0,
        })
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let head = self.advance()?;
        while self.heads.peek().is_some_and(|Reverse(next)| next.key == head.key) {
            self.advance();
        }
        Some(Change { key: head.key, value: head.value })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::dirty::Dirty;
    use crate::store::{Extent, Measured, MemoryStore, Page, PageLimit};

    const ALL: PageLimit = PageLimit { entries: usize::MAX, bytes: usize::MAX };

    static NEVER: AtomicBool = AtomicBool::new(false);

    /// Writes as fast as can be.
    fn at_once(store: &dyn Store, plan: &Plan<'_>, piece_bytes: usize) -> Result<Written, Error> {
        let speed = Speed { piece_bytes, bytes_per_second: None };
        let mut pace = Pace { speed: &mut || speed, stop: &NEVER };
        write(store, plan, &mut pace).map(|written| written.expect("nobody said to stop"))
    }

    fn plan(horizon: u64, changes: &[Arc<Changes>]) -> Plan<'_> {
        Plan { horizon, metadata: &[], discarded: &[], changes }
    }

    fn numbered(keys: std::ops::Range<u32>) -> Vec<Arc<Changes>> {
        let mut dirty = Dirty::new(1);
        for key in keys {
            dirty.put(&key.to_be_bytes(), &[7; 96]);
        }
        dirty.freeze()
    }

    /// Notes the sizes of pieces, and fails or stops at one of them.
    #[derive(Debug, Default)]
    struct Watched {
        store: MemoryStore,
        pieces: Mutex<Vec<usize>>,
        fail_at: Option<usize>,
        stop_at: Option<(usize, Arc<AtomicBool>)>,
    }

    struct Watching<'a>(Box<dyn Checkpoint + 'a>, &'a Watched);

    impl Checkpoint for Watching<'_> {
        fn write(&mut self, piece: &[Change<'_>]) -> Result<(), Error> {
            let mut pieces = self.1.pieces.lock().unwrap();
            if self.1.fail_at == Some(pieces.len()) {
                return Err(Error::Closed);
            }
            if let Some((at, stop)) = &self.1.stop_at {
                stop.store(*at == pieces.len(), Ordering::Relaxed);
            }
            pieces.push(piece.iter().map(|c| c.key.len() + c.value.map_or(0, <[u8]>::len)).sum());
            self.0.write(piece)
        }
        fn delete_prefixes(&mut self, prefixes: &[Vec<u8>]) -> Result<u64, Error> {
            self.0.delete_prefixes(prefixes)
        }
        fn commit(self: Box<Self>, metadata: &[(&str, &[u8])]) -> Result<(), Error> {
            self.0.commit(metadata)
        }
    }

    impl Store for Watched {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
            self.store.get(key)
        }
        fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, Error> {
            self.store.scan(prefix, from, limit)
        }
        fn measure(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Measured, Error> {
            self.store.measure(prefix, from, limit)
        }
        fn extent(&self) -> Extent {
            self.store.extent()
        }
        fn metadata(&self, name: &str) -> Option<Bytes> {
            self.store.metadata(name)
        }
        fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, Error> {
            Ok(Box::new(Watching(self.store.begin(horizon)?, self)))
        }
        fn close(&self) {
            self.store.close();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_store_holds_what_was_changed_last(
            rounds in prop::collection::vec(
                prop::collection::vec((0..3_usize, 0..40_u8, prop::option::of(any::<u8>())), 0..80),
                1..4,
            ),
            piece_bytes in 1..64_usize,
        ) {
            let store = MemoryStore::new();
            let mut model = BTreeMap::new();
            let mut partitions = [Dirty::new(1), Dirty::new(2), Dirty::new(3)];
            for (round, changes) in rounds.iter().enumerate() {
                for (partition, key, value) in changes {
                    let key = [b'k', *partition as u8, *key];
                    match value {
                        Some(value) => partitions[*partition].put(&key, &[*value]),
                        None => partitions[*partition].delete(&key),
                    }
                    model.insert(key.to_vec(), value.map(|value| vec![value]));
                }
                // The first round is set aside twice, as after a checkpoint that failed.
                let frozen: Vec<_> = partitions.iter_mut().flat_map(Dirty::freeze).collect();
                if round > 0 {
                    at_once(&store, &plan(round as u64, &frozen), piece_bytes).unwrap();
                    partitions.iter_mut().for_each(Dirty::release);
                    let expected = model.clone().into_iter().filter_map(|(k, v)| Some((k, v?)));
                    let kept = store.scan(b"", b"", ALL).unwrap().entries.into_iter();
                    let kept = kept.map(|(key, value)| (key.to_vec(), value.to_vec()));
                    prop_assert!(kept.eq(expected));
                }
            }
        }
    }

    #[test]
    fn pieces_are_bounded_and_in_order_over_all_partitions() {
        let store = Watched::default();
        let changes = [numbered(500..1_000), numbered(0..500)].concat();
        let metadata: [(&str, &[u8]); 1] = [("name", b"value")];
        let plan = Plan { metadata: &metadata, ..plan(9, &changes) };
        let written = at_once(&store, &plan, 1_050).unwrap();
        assert_eq!((written.entries, written.bytes, written.pieces), (1_000, 100_000, 100));
        assert_eq!(*store.pieces.lock().unwrap(), [1_000; 100]);
        assert_eq!(store.extent(), Extent { horizon: 9, reach: 9 });
        assert_eq!(store.metadata("name").as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn what_is_discarded_goes_first() {
        let store = MemoryStore::new();
        at_once(&store, &plan(1, &numbered(0..10)), 100).unwrap();
        let discarded = [vec![0, 0, 0], vec![9]];
        let changes = numbered(5..7);
        let plan = Plan { discarded: &discarded, ..plan(2, &changes) };
        let written = at_once(&store, &plan, 100).unwrap();
        assert_eq!(written.discarded, 10);
        assert_eq!(store.scan(b"", b"", ALL).unwrap().entries.len(), 2);
    }

    #[test]
    fn an_error_commits_nothing() {
        let store = Watched { fail_at: Some(3), ..Watched::default() };
        let failed = at_once(&store, &plan(1, &numbered(0..100)), 1_000);
        assert!(matches!(failed, Err(Error::Closed)), "{failed:?}");
        assert_eq!(store.extent(), Extent { horizon: 0, reach: 1 });
    }

    #[test]
    fn told_to_stop_it_stops_and_commits_nothing() {
        let stop = Arc::new(AtomicBool::new(false));
        for at in [0, 5, 9] {
            let stop_at = Some((at, Arc::clone(&stop)));
            let store = Watched { stop_at, ..Watched::default() };
            let mut speed = || Speed { piece_bytes: 1_000, bytes_per_second: None };
            let mut pace = Pace { speed: &mut speed, stop: &stop };
            assert_eq!(write(&store, &plan(1, &numbered(0..100)), &mut pace).unwrap(), None);
            assert_eq!((store.pieces.lock().unwrap().len(), store.extent().horizon), (at + 1, 0));
        }
    }

    /// Thirty kilobytes at a pace.
    fn paced(speed: &mut dyn FnMut() -> Speed) -> Written {
        let mut pace = Pace { speed, stop: &NEVER };
        write(&MemoryStore::new(), &plan(1, &numbered(0..300)), &mut pace).unwrap().unwrap()
    }

    #[test]
    fn the_pace_is_kept() {
        let speed = Speed { piece_bytes: 2_000, bytes_per_second: Some(200_000) };
        let written = paced(&mut || speed);
        assert!(written.took >= Duration::from_millis(150), "30 kB took {written:?}");
        assert!(written.paused > Duration::ZERO && written.paused <= written.took);
    }

    #[test]
    fn the_pace_can_change_while_it_is_kept() {
        // At the first pace the first piece alone would take half an hour.
        let mut asked = 0;
        let written = paced(&mut || {
            asked += 1;
            let slow = Speed { piece_bytes: 2_000, bytes_per_second: Some(1) };
            let fast = Speed { piece_bytes: 7_000, bytes_per_second: Some(1 << 30) };
            if asked < 4 { slow } else { fast }
        });
        assert!(asked > 4, "it is asked in a pause, and for each piece: {asked}");
        assert_eq!(written.pieces, 1 + 4, "the first was small, the others are not");
        assert!(written.took < Duration::from_secs(60), "{written:?}");
    }
}
