//! State that is not in memory, in a pipeline with a log: loading it before a call, and letting it
//! go when memory is short.
//!
//! - A partition waits for its state; its worker goes on with others. Loading is done on threads
//!   of its own, as much at a time as a call needs, bounded in bytes.
//! - State may leave memory when a checkpoint has it. Which writes a checkpoint has follows from
//!   where in the log the partition's commits are.
//! - When the tenant's memory is nearly used up each of its partitions gives up a part of its own.
//!   If there is nothing that may leave, the partition asks for a checkpoint and takes no batch
//!   until there was one. So a tenant's state takes more than its quota of memory only by what one
//!   batch of each partition writes, and no write is refused for want of it.
//! - A partition nobody sends anything to gives up all it can.

use std::collections::VecDeque;

use sluicebox_core::partition::Wanted;
use sluicebox_store::log::{Log, Position};

use super::IDLE_SWEEPS;
use super::partition::Driver;
use crate::backing::{Slots, in_order};
use crate::error::Error;

/// State loaded at a time; more than this is loaded in several steps.
const LOAD_BYTES: usize = 16 * 1024 * 1024;

/// Checkpoints a partition without room waits for: the first may have begun before.
const ROUNDS: u64 = 2;

/// How far the store has what the partition wrote.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Periods that ended, each with the place in the log that all its commits are before.
    ended: VecDeque<(Vec<u32>, Position)>,
    /// What was committed in the period that goes on is before this.
    end: Position,
    /// The last horizon that was looked at.
    horizon: Position,
    /// It has no room: which round of checkpoints it was then.
    short: Option<u64>,
}

/// How much of its state a partition has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// Nothing is in memory.
    All,
    /// Some, and there is more.
    Piece,
    /// Nothing can leave before there is a checkpoint.
    Later,
}

impl Keeping {
    /// What was written up to now, in periods that end here, came before this in the log. It need
    /// not be on disk: a partition that stood still, and did not go after all, begins again at
    /// once.
    fn begin(&mut self, periods: Vec<u32>, log: &dyn Log) {
        self.end = log.status().appended;
        self.ended.push_back((periods, self.end));
    }

    /// The next period that a checkpoint up to `horizon` has all of; none if there is none more.
    fn kept(&mut self, horizon: Position) -> Option<Vec<u32>> {
        self.ended.pop_front_if(|(_, end)| *end <= horizon).map(|(periods, _)| periods)
    }

    /// A commit is in the log.
    pub(super) fn committed(&mut self, position: Position) {
        self.end = self.end.max(Position(position.0 + 1));
    }

    /// Something was written that the store may not have.
    fn is_fresh(&self) -> bool {
        self.end > self.horizon
    }
}

impl Driver {
    /// Puts the store behind the state, with all that was written before this.
    pub(super) fn back_state(&mut self) {
        let Some(durable) = &self.segment.durable else { return };
        self.machine.back_state();
        self.keeping.begin(self.machine.next_periods(), &*durable.pipeline.log);
    }

    /// Looks whether there is a new checkpoint, and what that means for the state. Between batches:
    /// what is not in the log would be taken for kept.
    pub(super) fn note_horizon(&mut self) {
        let Some(durable) = &self.segment.durable else { return };
        let horizon = durable.pipeline.backing.horizon();
        let keeping = &mut self.keeping;
        if horizon <= keeping.horizon {
            return;
        }
        keeping.horizon = horizon;
        keeping.ended.push_back((self.machine.next_periods(), keeping.end));
        while let Some(periods) = keeping.kept(horizon) {
            self.machine.kept(&periods);
        }
    }

    /// Lets state go if the tenant has little memory left. False if no batch may be taken before
    /// there was a checkpoint.
    pub(super) fn has_memory(&mut self) -> bool {
        let Some(durable) = &self.segment.durable else { return true };
        let backing = durable.pipeline.backing.clone();
        let tenant = self.segment.shared.tenant.clone();
        let (used, most) = (tenant.state_bytes().used(), tenant.state_bytes().most());
        if used <= most / 8 * 7 {
            self.keeping.short = None;
            return true;
        }
        // What everybody together has too much of, each gives up in proportion.
        let share = (most / 4 * 3).saturating_mul(256) / used.max(1);
        let is_more = self.machine.make_room(u8::try_from(share).unwrap_or(u8::MAX));
        self.note_state();
        let rounds = backing.rounds();
        if tenant.state_bytes().room() > most / 32 {
            self.keeping.short = None;
            return true;
        }
        if is_more {
            // The rest after others' turns.
            self.mailbox.schedule();
            return false;
        }
        if self.keeping.short.is_some_and(|since| rounds >= since + ROUNDS) {
            // What others hold does not leave: this is the batch that may be too much.
            self.keeping.short = None;
            return true;
        }
        self.keeping.short.get_or_insert(rounds);
        backing.hurry(&self.mailbox);
        false
    }

    /// Lets go of state nobody asks for, a piece at a time.
    pub(super) fn give_up_state(&mut self) -> GivenUp {
        if self.segment.durable.is_none() {
            return GivenUp::All;
        }
        // Instances may be wanted elsewhere while it is busy; its state is not.
        if self.life.idle_sweeps.get() < IDLE_SWEEPS || !self.is_between_batches() {
            return GivenUp::Later;
        }
        self.note_horizon();
        if self.keeping.is_fresh() {
            return GivenUp::Later;
        }
        self.machine.make_room(0);
        self.note_state();
        match self.machine.state_bytes() - self.machine.held_bytes() {
            0 => GivenUp::All,
            _ => GivenUp::Piece,
        }
    }

    /// True if all it wrote is in the log: there is no batch that has halted, and no commit that
    /// waits for room there.
    fn is_between_batches(&self) -> bool {
        !self.stopped && self.machine.halted().is_none() && !self.recording.is_pending()
    }

    /// Reads what the next call needs. False if it cannot be read: the partition has stopped.
    pub(super) async fn load(&mut self, wanted: Wanted) -> bool {
        let stage = wanted.stage;
        match self.fetch(wanted).await {
            Ok((keys, read)) => {
                self.segment.stages[stage].metrics.state_loads.add(read as u64);
                if read < keys.len() {
                    self.machine.loaded_short();
                }
                true
            }
            Err(error) => self.cannot_read(&error),
        }
    }

    /// Brings the first of these keys into memory, and says how many that were.
    pub(super) async fn fetch(
        &mut self,
        Wanted { stage, keys }: Wanted,
    ) -> Result<(Vec<Box<[u8]>>, usize), Error> {
        let durable = self.segment.durable.as_ref();
        let durable = durable.expect("only such a partition has state in a store");
        let of = durable.state_of(&self.segment.shared, stage);
        let backing = durable.pipeline.backing.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let keys = in_order(keys);
            let read = backing.read(of, &keys, LOAD_BYTES);
            (keys, read)
        });
        let read = reading.await.map_err(|error| Error::Internal(error.to_string()));
        let (keys, read) = read?;
        let read: Slots = read?;
        for (index, slots) in read.by_key() {
            let slots = slots.iter().map(|(_, name, value)| (&name[..], &value[..]));
            self.machine.load(stage, &keys[index], slots);
        }
        Ok((keys, read.keys))
    }

    fn cannot_read(&mut self, error: &Error) -> bool {
        self.stop(format!("its state cannot be read: {error}; the node has to be restarted"));
        false
    }
}

#[cfg(test)]
mod tests {
    use sluicebox_core::codec::kind;
    use sluicebox_store::log::{Class, MemoryLog};

    use super::*;

    #[test]
    fn what_was_written_before_a_partition_begins_again_is_kept_when_all_of_it_is() {
        let log = MemoryLog::default();
        let append = || log.append(Class::Commit, kind::COMMIT, &[b"commit"]).expect("room");
        append();
        log.hold();
        let last = append();
        // It stood still, did not go, and begins again before its last commit is on disk.
        let mut keeping = Keeping::default();
        keeping.begin(vec![7], &log);
        assert!(log.synced() <= last);
        assert_eq!(keeping.kept(log.synced()), None, "a checkpoint does not have the last commit");
        log.release();
        assert_eq!(keeping.kept(log.synced()), Some(vec![7]));
        assert_eq!(keeping.kept(log.synced()), None);
    }

    #[test]
    fn a_partition_is_fresh_until_a_checkpoint_is_behind_its_last_commit() {
        let mut keeping = Keeping::default();
        assert!(!keeping.is_fresh());
        keeping.committed(Position(100));
        keeping.horizon = Position(100);
        assert!(keeping.is_fresh(), "the record at the horizon is not in the checkpoint");
        keeping.horizon = Position(101);
        assert!(!keeping.is_fresh());
    }
}
