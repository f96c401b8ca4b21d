//! Checkpoints: what the log says moves to the store, so that the log can be recycled.
//!
//! ```text
//! at every look:  read the log from where the last look ended ─► fold, changes
//! every so often: write the changes to the store ─► move the horizon ─► recycle the log before it
//! ```
//!
//! - A checkpoint is made from the log alone, by a thread of its own: workers do nothing for it,
//!   and only what is on disk goes into it.
//! - The log is followed as it grows, also while a checkpoint is written, so that there is little
//!   left to read when one is due; how it stays out of the way of others is in `rests`.
//! - It holds everything recovery would need from before the horizon: state, the fold, runs that
//!   wait for their reader, what is kept of outputs and dead letters, known ids.
//! - One that fails or is stopped changes nothing that counts; its changes go into the next one,
//!   which is tried with growing pauses. Reading that fails goes on where it stopped. How it stands
//!   is said in `health`, and the thread never ends before the node does.
//! - Restart time follows from the settings: how much log there may be, and how much state.
//! - Behind each it is counted what every pipeline keeps on disk, for the quotas (`weigh`).
//!
//! Reading a checkpoint back is the business of `checkpoint/load.rs` and `recover`.

mod collect;
mod entries;
mod health;
mod load;
mod rests;
mod weigh;

pub(crate) use collect::{Collected, Outputs};
pub(crate) use entries::{Of, fold as key_of_fold, key_of_waiting, without_places};
pub(crate) use health::{Condition, Health};
pub(crate) use load::{Loaded, load, load_joined, load_opened};

use self::load::load_arrived;
use self::rests::{Rests, speed};
use self::weigh::Weights;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicebox_core::codec::{self, Record};
use sluicebox_core::ids::PipelineId;
use sluicebox_core::recovery::Fold;
use sluicebox_store::checkpoint::{Pace, Plan, Speed, Written, write};
use sluicebox_store::log::{Log, Position};
use sluicebox_store::priority::give_way;
use sluicebox_store::store::{PageLimit, Store};

use crate::backing::Backing;
use crate::config::LogConfig;
use crate::disk_use::DiskUse;
use crate::error::Error;
use crate::moving::Groups;

/// How often the thread looks at the log.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes of the log that are read at once: beside a checkpoint that is written no more between two
/// looks at its pace, and at a stop no more before it ends.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    reader: Reader,
    store: Arc<dyn Store>,
    backing: Arc<Backing>,
    weights: Weights,
    disk: Arc<DiskUse>,
    /// The last checkpoint that stands.
    horizon: Position,
}

/// Follows the log.
#[derive(Debug)]
struct Reader {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    backing: Arc<Backing>,
    fold: Fold,
    collected: Collected,
    /// The log is folded up to here.
    read_to: Position,
    /// A pipeline that came from another node, whose entries are to be looked at before going on.
    arrived: Option<PipelineId>,
}

/// What went wrong. It is tried again.
#[derive(Debug)]
enum Trouble {
    /// The log could not be read further.
    Reading(Error),
    /// A checkpoint was not written.
    Writing(Error),
}

impl Checkpointer {
    /// Goes on from what recovery found: `fold` and `collected` are those at `read_to`.
    pub(crate) fn new(
        log: Arc<dyn Log>,
        (store, backing, disk): (Arc<dyn Store>, Arc<Backing>, Arc<DiskUse>),
        (fold, collected): (Fold, Collected),
        read_to: Position,
    ) -> Self {
        let horizon = Position(store.extent().horizon);
        let weights = Weights::new(store.metadata(weigh::METADATA).as_deref(), &fold);
        let (stored, backed) = (store.clone(), backing.clone());
        let reader =
            Reader { log, store: stored, backing: backed, fold, collected, read_to, arrived: None };
        Self { reader, store, backing, weights, disk, horizon }
    }

    /// Counts what is kept, before anything is taken in. To be called once, before it runs.
    pub(crate) fn begin(&mut self, config: &LogConfig, stop: &AtomicBool) {
        let Self { reader, .. } = self;
        reader.collected.look_at_kept(&reader.fold);
        self.weigh(config, PageLimit { entries: 0, bytes: 0 }, stop);
    }

    /// Makes checkpoints when it is time, until told to stop.
    pub(crate) fn run(mut self, config: &LogConfig, stop: &AtomicBool) {
        if !give_way() {
            tracing::warn!("checkpoints are made at the priority of workers: the system refuses");
        }
        let (store, backing) = (self.store.clone(), self.backing.clone());
        backing.made_by(std::thread::current());
        // What it had half done is not used any more; the store and what reads it are whole.
        let made = catch_unwind(AssertUnwindSafe(|| self.make(config, stop)));
        if made.is_err() {
            backing.checkpoints().note_stopped();
            tracing::error!(
                "the thread of checkpoints has panicked, which is a bug: no more are made, and \
                 when {} times log.checkpoint-log-bytes wait for one no more events are taken; \
                 restart the node",
                crate::recover::CHECKPOINTS_BEHIND
            );
            // Partitions read from the store for as long as the node runs.
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
        }
        store.close();
    }

    fn make(&mut self, config: &LogConfig, stop: &AtomicBool) {
        let (mut last, mut next) = (Instant::now(), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            // Whoever waits for a checkpoint ends the pause.
            std::thread::park_timeout(LOOK);
            if Instant::now() < next {
                continue;
            }
            let looked = self.look(config, &mut last, stop);
            // Not only behind checkpoints: over a quota nothing comes in that would bring one.
            if matches!(looked, Ok(None)) && self.weights.is_due() {
                self.weigh(config, PageLimit { entries: 0, bytes: 0 }, stop);
            }
            if let Some(pause) = self.judge(looked) {
                next = Instant::now() + pause;
            }
        }
    }

    /// Says how it went. Gives a pause if it has to be tried again.
    fn judge(&self, looked: Result<Option<Written>, Trouble>) -> Option<Duration> {
        let health = self.backing.checkpoints();
        match looked {
            Ok(Some(written)) => {
                health.note_good(true);
                tracing::info!(
                    horizon = self.horizon.0,
                    entries = written.entries,
                    bytes = written.bytes,
                    millis = written.took.as_millis() as u64,
                    "checkpoint"
                );
                None
            }
            Ok(None) => {
                if self.reader.waiting(self.horizon) == 0 {
                    health.note_good(false);
                }
                None
            }
            Err(trouble) => {
                let pause = health.note_failed();
                let (doing, error) = match &trouble {
                    Trouble::Reading(error) => ("the log cannot be read", error),
                    Trouble::Writing(error) => ("it cannot be written", error),
                };
                let millis = pause.as_millis() as u64;
                tracing::error!(millis, "no checkpoint, tried again in a while: {doing}: {error}");
                Some(pause)
            }
        }
    }

    /// Follows the log, and writes a checkpoint if it is time. `None` if it is not, or if it was
    /// told to stop.
    fn look(
        &mut self,
        config: &LogConfig,
        last: &mut Instant,
        stop: &AtomicBool,
    ) -> Result<Option<Written>, Trouble> {
        let waiting = self.reader.waiting(self.horizon);
        let hurry = self.backing.take_hurry();
        if waiting == 0 {
            if hurry {
                self.backing.reached(self.horizon);
            }
            return Ok(None);
        }
        let mut rests = Rests::new(config, waiting);
        self.reader.follow(u64::MAX, &mut rests, stop).map_err(Trouble::Reading)?;
        let much = waiting >= config.checkpoint_log_bytes as u64;
        let old = last.elapsed() >= config.checkpoint_interval;
        let again = self.backing.checkpoints().condition() == Condition::Failing;
        if !(much || old || hurry || again) || stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        *last = Instant::now();
        self.reader.settle(self.horizon, &mut rests).map_err(Trouble::Reading)?;
        self.write(config, hurry, stop)
    }

    /// Writes a checkpoint of what was settled. `None` if it was told to stop.
    fn write(
        &mut self,
        config: &LogConfig,
        hurry: bool,
        stop: &AtomicBool,
    ) -> Result<Option<Written>, Trouble> {
        let Self { reader, store, backing, weights, horizon, .. } = self;
        let end = reader.read_to;
        let (changes, discarded) = reader.collected.freeze();
        weights.note(reader.collected.take_changed());
        let metadata = [(weigh::METADATA, &weights.keep()[..])];
        let plan =
            Plan { horizon: end.0, metadata: &metadata, discarded: &discarded, changes: &changes };
        let mut followed = Ok(());
        let mut pace = Pace {
            speed: &mut || {
                let waiting = reader.waiting(*horizon);
                if followed.is_ok() {
                    followed = reader.follow(PART_BYTES, &mut Rests::new(config, waiting), stop);
                }
                // Partitions that can do nothing before it stands need not be spared.
                let in_hurry = hurry || backing.is_waited_for();
                let speed = speed(config, waiting);
                if in_hurry { Speed { bytes_per_second: None, ..speed } } else { speed }
            },
            stop,
        };
        let written = write(store.as_ref(), &plan, &mut pace);
        // What stands, stands, whatever was read meanwhile.
        if let Ok(Some(_)) = &written {
            reader.collected.release();
            *horizon = end;
            backing.reached(end);
        }
        followed.map_err(Trouble::Reading)?;
        let written = written.map_err(|error| Trouble::Writing(error.into()))?;
        if let Some(written) = &written {
            let behind = backing.recyclable(end);
            reader.log.trim(behind).map_err(|error| Trouble::Writing(error.into()))?;
            let whole = |number| usize::try_from(number).unwrap_or(usize::MAX);
            let limit = PageLimit { entries: whole(written.entries), bytes: whole(written.bytes) };
            self.weigh(config, limit, stop);
        }
        Ok(written)
    }

    /// Counts what each pipeline keeps, going through as much of it as was written.
    fn weigh(&mut self, config: &LogConfig, written: PageLimit, stop: &AtomicBool) {
        let Self { reader, store, weights, disk, horizon, .. } = self;
        let fold = &reader.fold;
        let mut rests = Rests::new(config, reader.waiting(*horizon));
        if let Err(error) = weights.go_on((store.as_ref(), fold), written, &mut rests, stop) {
            tracing::error!("what is kept on disk was not counted: {error}");
        }
        let (state, others) = (weights.by_pipeline(), reader.collected.kept());
        let bytes = |id| [&state, others].map(|of| of.get(&id).copied().unwrap_or(0));
        let kept = fold.pipelines().map(|(id, folded)| {
            let [state, others] = bytes(id);
            (id, folded.tenant(), state.saturating_add(others))
        });
        disk.set(&kept.collect::<Vec<_>>());
    }
}

/// What a record that was folded says of partitions that come or go means to what is in the store.
pub(crate) fn note_partitions(fold: &Fold, record: &Record<'_>, collected: &mut Collected) {
    let groups = |id: PipelineId, partitions: &[u16]| {
        fold.pipeline(id).map(|folded| Groups::of_fold((id, folded), partitions))
    };
    match record {
        Record::Join(join) => {
            let groups = groups(join.pipeline, &join.partitions);
            groups.iter().for_each(|groups| collected.note_joined(groups));
        }
        Record::Release(release) => {
            let groups = groups(release.pipeline, &release.partitions);
            groups.iter().for_each(|groups| collected.note_released(groups));
        }
        _ => {}
    }
}

/// What partitions that came brought with their record goes into the next checkpoint. Behind
/// [`note_partitions`], and whatever is done about what lies in the store of them.
pub(crate) fn note_brought(record: &Record<'_>, collected: &mut Collected) {
    if let Record::Join(join) = record {
        collected.note_brought(join.pipeline, &join.changed);
    }
}

impl Reader {
    /// Bytes of the log that wait behind a horizon.
    fn waiting(&self, horizon: Position) -> u64 {
        self.log.synced().0.saturating_sub(horizon.0)
    }

    /// Reads on, up to what is synced by now, in at most about so many bytes.
    fn follow(
        &mut self,
        bytes_max: u64,
        rests: &mut Rests,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        let end = self.log.synced().min(Position(self.read_to.0.saturating_add(bytes_max)));
        while self.read_to < end && !stop.load(Ordering::Relaxed) {
            self.fold_to(end.min(Position(self.read_to.0 + PART_BYTES)), rests)?;
        }
        Ok(())
    }

    /// Folds every record that begins before `end`. Goes on behind the last one that was folded,
    /// whatever went wrong.
    fn fold_to(&mut self, end: Position, rests: &mut Rests) -> Result<(), Error> {
        while self.read_to < end {
            self.look_at_arrived()?;
            self.fold_until_arrival(end, rests)?;
        }
        self.look_at_arrived()
    }

    /// Looks at what has come of a pipeline from another node. Tried again if it fails.
    fn look_at_arrived(&mut self) -> Result<(), Error> {
        let Some(id) = self.arrived else { return Ok(()) };
        let Self { store, backing, fold, collected, .. } = self;
        load_arrived(store.as_ref(), (fold, id), (backing, collected))?;
        self.arrived = None;
        Ok(())
    }

    /// Folds records before `end`, up to one that says that a pipeline has come.
    fn fold_until_arrival(&mut self, end: Position, rests: &mut Rests) -> Result<(), Error> {
        let Self { log, fold, collected, read_to, arrived, .. } = self;
        let mut wrong = None;
        let from = *read_to;
        log.read(from, &mut |record| {
            if record.position >= end {
                return ControlFlow::Break(());
            }
            rests.after(record.body.len());
            match codec::decode(record.kind, record.body) {
                Ok(decoded) => {
                    read_to.0 = record.position.0 + 1;
                    if let Err(stopped) = fold.apply(record.position.0, &decoded, collected) {
                        // It runs on, and would not start again: our bug, to be seen early.
                        tracing::error!("a pipeline does not follow from its log: {stopped}");
                    } else if let Record::Open(opened) = decoded {
                        *arrived = Some(opened.pipeline);
                        return ControlFlow::Break(());
                    } else {
                        note_partitions(fold, &decoded, collected);
                        note_brought(&decoded, collected);
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    wrong = Some(format!("the log at position {}: {error}", record.position));
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(wrong) = wrong {
            return Err(Error::Internal(wrong));
        }
        if arrived.is_none() {
            *read_to = end;
        }
        Ok(())
    }

    /// Brings the changes up to date with what was read.
    fn settle(&mut self, horizon: Position, rests: &mut Rests) -> Result<(), Error> {
        let Self { log, fold, collected, read_to, .. } = self;
        collected.settle(fold, (log.as_ref(), *read_to), rests)?;
        collected.keep_fold(fold, *read_to, horizon);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
