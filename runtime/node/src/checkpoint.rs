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
//! - One that fails or is stopped changes nothing that counts; its changes go into the next one.
//! - Restart time follows from the settings: how much log there may be, and how much state.
//! - Behind each it is counted what every pipeline keeps on disk, for the quotas (`weigh`).
//!
//! Reading a checkpoint back is the business of `checkpoint/load.rs` and `recover`.

mod collect;
mod entries;
mod load;
mod rests;
mod weigh;

pub(crate) use collect::{Collected, Outputs};
pub(crate) use entries::{Of, key_of_waiting};
pub(crate) use load::{Loaded, load};

use self::rests::{Rests, give_way, speed};
use self::weigh::Weights;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicebox_core::codec;
use sluicebox_core::recovery::Fold;
use sluicebox_store::checkpoint::{Pace, Plan, Speed, Written, write};
use sluicebox_store::log::{Log, Position};
use sluicebox_store::store::{PageLimit, Store};

use crate::backing::Backing;
use crate::config::LogConfig;
use crate::disk_use::DiskUse;
use crate::error::Error;

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
    fold: Fold,
    collected: Collected,
    /// The log is folded up to here.
    read_to: Position,
}

/// What went wrong.
#[derive(Debug)]
enum Trouble {
    /// What was read half-way cannot be read again from where it began.
    Reading(Error),
    /// A checkpoint was not written; the next one may be.
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
        let reader = Reader { log, fold, collected, read_to };
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
        give_way();
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            match self.look(config, &mut last, stop) {
                Ok(None) => {}
                Ok(Some(written)) => tracing::info!(
                    horizon = self.horizon.0,
                    entries = written.entries,
                    bytes = written.bytes,
                    millis = written.took.as_millis() as u64,
                    "checkpoint"
                ),
                Err(Trouble::Writing(error)) => {
                    tracing::error!("no checkpoint, tried again later: {error}");
                }
                Err(Trouble::Reading(error)) => {
                    tracing::error!("no more checkpoints until the node is restarted: {error}");
                    break;
                }
            }
        }
        self.store.close();
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
        if !(much || old || hurry) || stop.load(Ordering::Relaxed) {
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
            reader.log.trim(end).map_err(|error| Trouble::Writing(error.into()))?;
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

    /// Folds every record that begins before `end`.
    fn fold_to(&mut self, end: Position, rests: &mut Rests) -> Result<(), Error> {
        let Self { log, fold, collected, read_to } = self;
        let mut wrong = None;
        log.read(*read_to, &mut |record| {
            if record.position >= end {
                return ControlFlow::Break(());
            }
            rests.after(record.body.len());
            match codec::decode(record.kind, record.body) {
                Ok(decoded) => {
                    if let Err(stopped) = fold.apply(record.position.0, &decoded, collected) {
                        // It runs on, and would not start again: our bug, to be seen early.
                        tracing::error!("a pipeline does not follow from its log: {stopped}");
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
        *read_to = end;
        Ok(())
    }

    /// Brings the changes up to date with what was read.
    fn settle(&mut self, horizon: Position, rests: &mut Rests) -> Result<(), Error> {
        let Self { log, fold, collected, read_to } = self;
        collected.settle(fold, (log.as_ref(), *read_to), rests)?;
        collected.keep_fold(fold, *read_to, horizon);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
