//! When the log is followed, when a checkpoint is written, and what happens if either fails.

use std::sync::Mutex;

use bytes::Bytes;
use sluicebox_core::codec::{ApplyRecord, NameTable, RecordWriter};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::recovery::Sink as _;
use sluicebox_store::error::Error as StoreError;
use sluicebox_store::log::{Class, MemoryLog};
use sluicebox_store::store::{Change, Checkpoint, Extent, Measured, MemoryStore, Page, PageLimit};

use super::*;
use crate::config::Config;

const OUTPUTS: Outputs = Outputs { output_bytes_max: 1 << 20, dead_letter_bytes: 1 << 20 };

/// Bytes of log that no test writes: the largest setting.
const ENOUGH_FOR_EVER: usize = 64 << 30;

static NEVER: AtomicBool = AtomicBool::new(false);

/// A store that refuses when it is told to, and to which something can happen at the first write.
#[derive(Default)]
struct Watched {
    store: MemoryStore,
    refuses: AtomicBool,
    first: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

struct Watching<'a>(Box<dyn Checkpoint + 'a>, &'a Watched);

impl Checkpoint for Watching<'_> {
    fn write(&mut self, piece: &[Change<'_>]) -> Result<(), StoreError> {
        if let Some(first) = self.1.first.lock().unwrap().take() {
            first();
        }
        if self.1.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::Closed);
        }
        self.0.write(piece)
    }
    fn delete_prefix(&mut self, prefix: &[u8]) -> Result<u64, StoreError> {
        self.0.delete_prefix(prefix)
    }
    fn commit(self: Box<Self>, metadata: &[(&str, &[u8])]) -> Result<(), StoreError> {
        self.0.commit(metadata)
    }
}

impl Store for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }
    fn scan(&self, prefix: &[u8], from: &[u8], limit: PageLimit) -> Result<Page, StoreError> {
        self.store.scan(prefix, from, limit)
    }
    fn measure(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: PageLimit,
    ) -> Result<Measured, StoreError> {
        self.store.measure(prefix, from, limit)
    }
    fn extent(&self) -> Extent {
        self.store.extent()
    }
    fn metadata(&self, name: &str) -> Option<Bytes> {
        self.store.metadata(name)
    }
    fn begin(&self, horizon: u64) -> Result<Box<dyn Checkpoint + '_>, StoreError> {
        Ok(Box::new(Watching(self.store.begin(horizon)?, self)))
    }
    fn close(&self) {
        self.store.close();
    }
}

/// A log, a store and what stands between them.
struct Bed {
    log: Arc<MemoryLog>,
    store: Arc<Watched>,
    checkpointer: Checkpointer,
    config: LogConfig,
    last: Instant,
}

impl Bed {
    /// It is never time, but after so many bytes of log.
    fn new(log_bytes: usize) -> Self {
        let (log, store) = (Arc::new(MemoryLog::default()), Arc::new(Watched::default()));
        let backing = Arc::new(Backing::new(store.clone(), u64::MAX));
        let collected = Collected::new(1, backing.clone(), OUTPUTS);
        let begin = log.synced();
        let behind = (store.clone() as Arc<dyn Store>, backing, Arc::default());
        let checkpointer = Checkpointer::new(log.clone(), behind, (Fold::new(), collected), begin);
        let mut config = Config::default().log;
        config.checkpoint_log_bytes = log_bytes;
        config.checkpoint_interval = Duration::from_hours(24);
        Self { log, store, checkpointer, config, last: Instant::now() }
    }

    fn look(&mut self) -> Result<bool, Trouble> {
        let written = self.checkpointer.look(&self.config, &mut self.last, &NEVER)?;
        Ok(written.is_some())
    }

    /// Pipelines in the checkpoint that stands.
    fn kept(&self) -> usize {
        let kept = self.store.get(&entries::fold(self.store.extent().horizon)).unwrap();
        kept.map_or(0, |kept| Fold::from_kept(&kept).unwrap().pipelines().count())
    }

    fn read_to(&self) -> Position {
        self.checkpointer.reader.read_to
    }
}

/// Applies a pipeline of this number and without stages.
fn apply(log: &MemoryLog, number: u64) {
    let mut writer = RecordWriter::new();
    writer.apply(&ApplyRecord {
        tenant: Name::new("t").unwrap(),
        name: Name::new(&format!("p{number}")).unwrap(),
        pipeline: PipelineId(number),
        version: 1,
        partitions: 1,
        manifest: b"{}",
        names: NameTable::default(),
        discarded: Vec::new(),
    });
    log.append(Class::Commit, writer.kind(), &writer.parts()).unwrap();
}

#[test]
fn the_log_is_followed_before_a_checkpoint_is_due() {
    let mut bed = Bed::new(ENOUGH_FOR_EVER);
    for number in 1..4 {
        apply(&bed.log, number);
        assert!(!bed.look().unwrap());
        assert_eq!(bed.read_to(), bed.log.synced());
        assert_eq!(bed.checkpointer.reader.fold.pipelines().count() as u64, number);
    }
    assert_eq!(bed.store.extent(), Extent::default());
}

#[test]
fn a_checkpoint_is_made_when_enough_waits_or_it_is_time() {
    let mut bed = Bed::new(20);
    apply(&bed.log, 1);
    assert!(bed.look().unwrap(), "a record is more than that");
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 1));
    assert!(!bed.look().unwrap(), "nothing came since");
    bed.config.checkpoint_log_bytes = ENOUGH_FOR_EVER;
    apply(&bed.log, 2);
    assert!(!bed.look().unwrap(), "it is not time");
    bed.config.checkpoint_interval = Duration::ZERO;
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 2));
}

#[test]
fn what_comes_while_a_checkpoint_is_written_is_read_then_and_written_with_the_next() {
    let mut bed = Bed::new(1);
    apply(&bed.log, 1);
    let end = bed.log.synced();
    let log = bed.log.clone();
    *bed.store.first.lock().unwrap() = Some(Box::new(move || apply(&log, 2)));
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (end.0, 1));
    assert_eq!(bed.read_to(), bed.log.synced(), "it was followed meanwhile");
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 2));
}

#[test]
fn a_record_that_cannot_be_read_ends_it_and_what_stands_stays() {
    let mut bed = Bed::new(1);
    apply(&bed.log, 1);
    assert!(bed.look().unwrap());
    let before = bed.store.extent();
    apply(&bed.log, 2);
    bed.log.append(Class::Commit, 99, &[b"nonsense"]).unwrap();
    let read_to = bed.read_to();
    let ended = bed.look();
    assert!(matches!(ended, Err(Trouble::Reading(_))), "{ended:?}");
    assert_eq!((bed.store.extent(), bed.read_to()), (before, read_to));
    // Also when it comes while a checkpoint is written: that one stands.
    let mut bed = Bed::new(1);
    apply(&bed.log, 1);
    let (end, log) = (bed.log.synced(), bed.log.clone());
    let nonsense = move || {
        log.append(Class::Commit, 99, &[b"nonsense"]).unwrap();
    };
    *bed.store.first.lock().unwrap() = Some(Box::new(nonsense));
    let ended = bed.look();
    assert!(matches!(ended, Err(Trouble::Reading(_))), "{ended:?}");
    assert_eq!((bed.store.extent().horizon, bed.kept()), (end.0, 1));
}

#[test]
fn a_checkpoint_that_failed_goes_into_the_next() {
    let mut bed = Bed::new(1);
    apply(&bed.log, 1);
    bed.store.refuses.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let failed = bed.look();
        assert!(matches!(failed, Err(Trouble::Writing(_))), "{failed:?}");
        assert_eq!(bed.store.extent().horizon, 0);
    }
    bed.store.refuses.store(false, Ordering::Relaxed);
    apply(&bed.log, 2);
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 2));
}

#[test]
fn what_is_discarded_while_a_checkpoint_is_written_goes_with_the_next_two() {
    let backing = Arc::new(Backing::new(Arc::new(MemoryStore::new()), u64::MAX));
    let mut collected = Collected::new(1, backing, OUTPUTS);
    collected.applied(&Name::new("t").unwrap(), PipelineId(1));
    assert_eq!(collected.freeze().1.len(), 0);
    collected.discarded(PipelineId(1), StageId(1));
    collected.release();
    let prefixes = collected.freeze().1.len();
    assert!(prefixes > 0);
    collected.release();
    // Changes from before it were written behind it.
    assert_eq!(collected.freeze().1.len(), prefixes);
    collected.release();
    assert_eq!(collected.freeze().1.len(), 0);
}
