//! When the log is followed, when a checkpoint is written, and what happens if either fails.

use std::sync::Mutex;

use bytes::Bytes;
use sluicebox_core::codec::{ApplyRecord, IngestRecord, IngestRun, NameTable, RecordWriter};
use sluicebox_core::frame::{FrameBuilder, Head};
use sluicebox_core::ids::{Name, PipelineId, StageId};
use sluicebox_core::recovery::Sink as _;
use sluicebox_store::error::Error as StoreError;
use sluicebox_store::log::{
    Class, Error as LogError, MemoryLog, Refusal, Status, Subscription, Visit,
};
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
    fn delete_prefixes(&mut self, prefixes: &[Vec<u8>]) -> Result<u64, StoreError> {
        self.0.delete_prefixes(prefixes)
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

/// A log whose next reading ends with an error behind so many records, if it is told to.
#[derive(Debug, Default)]
struct Unsteady {
    log: MemoryLog,
    fails_behind: Mutex<Option<usize>>,
}

impl Log for Unsteady {
    fn append(&self, class: Class, kind: u8, parts: &[&[u8]]) -> Result<Position, Refusal> {
        self.log.append(class, kind, parts)
    }
    fn record_bytes_max(&self) -> usize {
        self.log.record_bytes_max()
    }
    fn synced(&self) -> Position {
        self.log.synced()
    }
    fn subscribe(&self) -> Subscription {
        self.log.subscribe()
    }
    fn read(&self, from: Position, visit: Visit<'_>) -> Result<Position, LogError> {
        let Some(mut left) = self.fails_behind.lock().unwrap().take() else {
            return self.log.read(from, visit);
        };
        self.log.read(from, &mut |record| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            visit(record)
        })?;
        Err(LogError::Failed { reason: "told to".into() })
    }
    fn trim(&self, horizon: Position) -> Result<(), LogError> {
        self.log.trim(horizon)
    }
    fn status(&self) -> Status {
        self.log.status()
    }
    fn close(&self) -> Result<(), LogError> {
        self.log.close()
    }
}

/// A log, a store and what stands between them.
struct Bed {
    log: Arc<Unsteady>,
    store: Arc<Watched>,
    checkpointer: Checkpointer,
    config: LogConfig,
    last: Instant,
}

impl Bed {
    /// It is never time, but after so many bytes of log.
    fn new(log_bytes: usize) -> Self {
        let (log, store) = (Arc::new(Unsteady::default()), Arc::new(Watched::default()));
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

/// The stage that [`ingest`] feeds.
const STAGE: StageId = StageId(1);

/// An event that waits for a stage of pipeline 1.
fn ingest(log: &dyn Log, seq: u64) {
    let mut frame = FrameBuilder::new();
    frame.push(&Head::data(1), b"k", &seq.to_le_bytes(), &[]);
    let run = IngestRun { stage: STAGE, partition: 0, previous: seq - 1, frame: frame.finish() };
    let mut writer = RecordWriter::new();
    writer.ingest(&IngestRecord {
        pipeline: PipelineId(1),
        seq,
        time: 1,
        producer: None,
        ids: Vec::new(),
        runs: vec![run],
        replayed: Vec::new(),
        high: None,
    });
    log.append(Class::Ingest, writer.kind(), &writer.parts()).unwrap();
}

/// Applies a pipeline of this number, with one stage.
fn apply(log: &dyn Log, number: u64) {
    let mut writer = RecordWriter::new();
    writer.apply(&ApplyRecord {
        tenant: Name::new("t").unwrap(),
        name: Name::new(&format!("p{number}")).unwrap(),
        pipeline: PipelineId(number),
        version: 1,
        partitions: 1,
        manifest: b"{}",
        names: NameTable { stages: vec![(STAGE, Name::new("s").unwrap())], ..NameTable::default() },
        discarded: Vec::new(),
    });
    log.append(Class::Commit, writer.kind(), &writer.parts()).unwrap();
}

#[test]
fn the_log_is_followed_before_a_checkpoint_is_due() {
    let mut bed = Bed::new(ENOUGH_FOR_EVER);
    for number in 1..4 {
        apply(&*bed.log, number);
        assert!(!bed.look().unwrap());
        assert_eq!(bed.read_to(), bed.log.synced());
        assert_eq!(bed.checkpointer.reader.fold.pipelines().count() as u64, number);
    }
    assert_eq!(bed.store.extent(), Extent::default());
}

#[test]
fn a_checkpoint_is_made_when_enough_waits_or_it_is_time() {
    let mut bed = Bed::new(20);
    apply(&*bed.log, 1);
    assert!(bed.look().unwrap(), "a record is more than that");
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 1));
    assert!(!bed.look().unwrap(), "nothing came since");
    bed.config.checkpoint_log_bytes = ENOUGH_FOR_EVER;
    apply(&*bed.log, 2);
    assert!(!bed.look().unwrap(), "it is not time");
    bed.config.checkpoint_interval = Duration::ZERO;
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 2));
}

#[test]
fn what_comes_while_a_checkpoint_is_written_is_read_then_and_written_with_the_next() {
    let mut bed = Bed::new(1);
    apply(&*bed.log, 1);
    let end = bed.log.synced();
    let log = bed.log.clone();
    *bed.store.first.lock().unwrap() = Some(Box::new(move || apply(&*log, 2)));
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (end.0, 1));
    assert_eq!(bed.read_to(), bed.log.synced(), "it was followed meanwhile");
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 2));
}

#[test]
fn a_record_that_cannot_be_read_is_not_passed_over_and_what_stands_stays() {
    let mut bed = Bed::new(1);
    apply(&*bed.log, 1);
    assert!(bed.look().unwrap());
    let before = bed.store.extent();
    apply(&*bed.log, 2);
    let nonsense = bed.log.append(Class::Commit, 99, &[b"nonsense"]).unwrap();
    for _ in 0..3 {
        let failed = bed.look();
        assert!(matches!(failed, Err(Trouble::Reading(_))), "{failed:?}");
        assert_eq!(bed.store.extent(), before);
        assert!(bed.read_to() <= nonsense, "what is before it was read once");
    }
    // Also when it comes while a checkpoint is written: that one stands.
    let mut bed = Bed::new(1);
    apply(&*bed.log, 1);
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
fn reading_that_failed_goes_on_behind_the_last_record() {
    let mut bed = Bed::new(1);
    (1..=3).for_each(|number| apply(&*bed.log, number));
    for behind in [1, 0, 1] {
        *bed.log.fails_behind.lock().unwrap() = Some(behind);
        let failed = bed.look();
        assert!(matches!(failed, Err(Trouble::Reading(_))), "{failed:?}");
    }
    assert_eq!(bed.checkpointer.reader.fold.pipelines().count(), 2);
    assert!(bed.look().unwrap());
    assert_eq!((bed.store.extent().horizon, bed.kept()), (bed.log.synced().0, 3));
}

#[test]
fn frames_that_could_not_be_read_are_read_for_the_next_checkpoint() {
    let mut bed = Bed::new(ENOUGH_FOR_EVER);
    apply(&*bed.log, 1);
    (1..=3).for_each(|seq| ingest(&*bed.log, seq));
    // Followed before, so that it is the frames that are read now.
    assert!(!bed.look().unwrap());
    bed.config.checkpoint_log_bytes = 1;
    *bed.log.fails_behind.lock().unwrap() = Some(2);
    let failed = bed.look();
    assert!(matches!(failed, Err(Trouble::Reading(_))), "{failed:?}");
    ingest(&*bed.log, 4);
    assert!(bed.look().unwrap());
    let of = Of::new(&Name::new("t").unwrap(), PipelineId(1));
    let all = PageLimit { entries: usize::MAX, bytes: usize::MAX };
    let prefixes = sluicebox_store::store::keys::of_pipeline_but_state(of.tenant, 1);
    let found = prefixes.map(|prefix| bed.store.scan(&prefix, &prefix, all).unwrap().entries.len());
    assert_eq!(found.sum::<usize>(), 4, "each event that waits, and nothing else");
    assert!(bed.checkpointer.disk.of_pipeline(PipelineId(1)) > 0);
}

/// Lets the thread of a bed run until something holds, and ends it.
fn run_until(mut bed: Bed, holds: impl Fn(&Health, &Watched) -> bool) -> Arc<Backing> {
    bed.config.checkpoint_interval = Duration::ZERO;
    let Bed { checkpointer, config, store, .. } = bed;
    let (backing, stop) = (checkpointer.backing.clone(), Arc::new(AtomicBool::new(false)));
    let told = stop.clone();
    let thread = std::thread::spawn(move || checkpointer.run(&config, &told));
    let begun = Instant::now();
    while !holds(backing.checkpoints(), &store) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", backing.checkpoints());
        std::thread::sleep(Duration::from_millis(5));
    }
    store.get(b"key").expect("it can be read as long as the node runs");
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("a panic is caught");
    store.get(b"key").expect_err("it is closed");
    backing
}

#[test]
fn it_is_told_that_none_can_be_made_and_that_they_are_made_again() {
    let bed = Bed::new(1);
    apply(&*bed.log, 1);
    bed.store.refuses.store(true, Ordering::Relaxed);
    let (store, seen) = (bed.store.clone(), AtomicBool::new(false));
    let backing = run_until(bed, |health, _| {
        if health.condition() == Condition::Failing {
            seen.store(true, Ordering::Relaxed);
            store.refuses.store(false, Ordering::Relaxed);
        }
        seen.load(Ordering::Relaxed) && health.condition() == Condition::Good
    });
    assert_eq!(backing.checkpoints().made(), 1);
    assert!(backing.checkpoints().failed() > 0);
}

#[test]
fn a_panic_stops_checkpoints_and_is_told() {
    let bed = Bed::new(1);
    apply(&*bed.log, 1);
    *bed.store.first.lock().unwrap() = Some(Box::new(|| panic!("a bug")));
    let backing = run_until(bed, |health, _| health.condition() == Condition::Stopped);
    assert_eq!(backing.checkpoints().made(), 0);
}

#[test]
fn a_checkpoint_that_failed_goes_into_the_next() {
    let mut bed = Bed::new(1);
    apply(&*bed.log, 1);
    bed.store.refuses.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let failed = bed.look();
        assert!(matches!(failed, Err(Trouble::Writing(_))), "{failed:?}");
        assert_eq!(bed.store.extent().horizon, 0);
    }
    bed.store.refuses.store(false, Ordering::Relaxed);
    apply(&*bed.log, 2);
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

#[test]
fn what_partitions_brought_goes_into_the_next_checkpoint_with_the_names_of_its_slots() {
    let backing = Arc::new(Backing::new(Arc::new(MemoryStore::new()), u64::MAX));
    let mut collected = Collected::new(1, backing.clone(), OUTPUTS);
    let (tenant, id) = (Name::new("t").unwrap(), PipelineId(1));
    collected.applied(&tenant, id);
    let mut writer = RecordWriter::new();
    let mut state = writer.changed();
    let slots: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", None)];
    for (slot, value) in slots {
        state.change(STAGE, &sluicebox_core::state::Change { key: b"k", slot, value });
    }
    state.end();
    let bytes = writer.to_bytes();
    let changed = codec::Changed::read(&bytes).unwrap();
    // Whoever runs them has looked at it before.
    assert!(backing.note((id, STAGE), b"a").is_some());
    collected.note_brought(id, &changed);
    let of = Of::new(&tenant, id);
    let (frozen, _) = collected.freeze();
    let found: Vec<_> = frozen.iter().flat_map(|changes| changes.each()).collect();
    let key = |slot: &[u8]| {
        let mut key = Vec::new();
        of.slot(STAGE, b"k", slot, &mut key);
        key
    };
    let name = |slot: &[u8]| of.slot_name(STAGE, Some(slot));
    let expected = [
        (key(b"a"), Some(&b"1"[..])),
        (key(b"b"), Some(b"2")),
        (key(b"c"), None),
        (name(b"a"), Some(b"")),
        (name(b"b"), Some(b"")),
    ];
    let expected: Vec<_> = expected.iter().map(|(key, value)| (&key[..], *value)).collect();
    assert_eq!(found, expected);
    assert_eq!(collected.take_changed().into_iter().collect::<Vec<_>>(), [(id, STAGE)]);
}
