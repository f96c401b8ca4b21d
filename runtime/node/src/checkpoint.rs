//! Checkpoints: what the log says moves to the store, so that the log can be recycled.
//!
//! ```text
//! every so often:  read the log from where the last one ended ─► fold, changes
//!                  ─► write them to the store ─► move the horizon ─► recycle the log before it
//! ```
//!
//! - A checkpoint is made from the log alone, by a thread of its own: workers do nothing for it,
//!   and
//!   only what is on disk goes into it.
//! - It holds everything recovery would need from before the horizon: state, the fold, runs that
//!   wait for their reader, what is kept of outputs and dead letters, known ids.
//! - One that fails or is stopped changes nothing that counts; its changes go into the next one.
//! - Restart time follows from the settings: how much log there may be, and how much state.
//!
//! Reading a checkpoint back is the business of `checkpoint/load.rs` and `recover`.

mod collect;
mod entries;
mod load;

pub(crate) use collect::{Collected, Outputs};
pub(crate) use entries::{Of, key_of_waiting};
pub(crate) use load::{Loaded, load};

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluicebox_core::codec;
use sluicebox_core::recovery::Fold;
use sluicebox_store::checkpoint::{Pace, Plan, Written, write};
use sluicebox_store::log::{Log, Position};
use sluicebox_store::store::Store;

use crate::backing::Backing;
use crate::config::LogConfig;
use crate::error::Error;

/// How often the thread looks whether it is time.
const LOOK: Duration = Duration::from_millis(250);

/// Bytes written between two pauses: what a disk takes in a few milliseconds.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    backing: Arc<Backing>,
    fold: Fold,
    collected: Collected,
    /// The log is folded up to here.
    read_to: Position,
    /// The last checkpoint that stands.
    horizon: Position,
}

impl Checkpointer {
    /// Goes on from what recovery found: `fold` and `collected` are those at `read_to`.
    pub(crate) fn new(
        log: Arc<dyn Log>,
        (store, backing): (Arc<dyn Store>, Arc<Backing>),
        (fold, collected): (Fold, Collected),
        read_to: Position,
    ) -> Self {
        let horizon = Position(store.extent().horizon);
        Self { log, store, backing, fold, collected, read_to, horizon }
    }

    /// Makes checkpoints when it is time, until told to stop.
    pub(crate) fn run(mut self, config: &LogConfig, stop: &AtomicBool) {
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            let behind = self.log.synced().0.saturating_sub(self.horizon.0);
            let much = behind >= config.checkpoint_log_bytes as u64;
            let old = last.elapsed() >= config.checkpoint_interval;
            let hurry = self.backing.take_hurry();
            if behind == 0 && hurry {
                self.backing.reached(self.horizon);
            }
            if behind == 0 || !(much || old || hurry) {
                continue;
            }
            last = Instant::now();
            if let Err(error) = self.prepare() {
                // What was read half-way cannot be read again from where it began.
                tracing::error!("no more checkpoints until the node is restarted: {error}");
                break;
            }
            match self.write(config, stop) {
                Ok(None) => {}
                Ok(Some(written)) => tracing::info!(
                    horizon = self.horizon.0,
                    entries = written.entries,
                    bytes = written.bytes,
                    millis = written.took.as_millis() as u64,
                    "checkpoint"
                ),
                Err(error) => tracing::error!("no checkpoint, tried again later: {error}"),
            }
        }
        self.store.close();
    }

    /// Brings the changes up to date with the log.
    fn prepare(&mut self) -> Result<(), Error> {
        let end = self.log.synced();
        self.fold_to(end)?;
        self.collected.settle(&self.fold, self.log.as_ref(), end)?;
        self.collected.keep_fold(&self.fold, end, self.horizon);
        Ok(())
    }

    /// Writes a checkpoint of what was prepared. `None` if it was told to stop.
    fn write(&mut self, config: &LogConfig, stop: &AtomicBool) -> Result<Option<Written>, Error> {
        let end = self.read_to;
        let (changes, discarded) = self.collected.freeze();
        let plan = Plan { horizon: end.0, metadata: &[], discarded: &discarded, changes: &changes };
        let pace = Pace {
            piece_bytes: PIECE_BYTES,
            bytes_per_second: Some(config.checkpoint_bytes_per_second as u64),
            stop,
        };
        let Some(written) = write(self.store.as_ref(), &plan, &pace)? else { return Ok(None) };
        self.collected.release();
        self.horizon = end;
        self.backing.reached(end);
        self.log.trim(end)?;
        Ok(Some(written))
    }

    /// Reads on in the log.
    fn fold_to(&mut self, end: Position) -> Result<(), Error> {
        let Self { log, fold, collected, read_to, .. } = self;
        let mut wrong = None;
        log.read(*read_to, &mut |record| {
            if record.position >= end {
                return ControlFlow::Break(());
            }
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
}
