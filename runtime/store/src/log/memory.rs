//! The log in memory; the reference the other is compared with, and the log of simulations.
//!
//! Nothing is durable. What a disk would do is done by call: a log that is held back syncs nothing
//! until it is told to, a crash leaves what was synced, and it can be full or have failed.
//!
//! Keeps true: what of the contract does not depend on a disk, bounds on what waits included.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::Error;
use super::format::{self, GROUP_HEADER_BYTES};
use super::{Class, Config, Figures, Health, Log, Position, Progress, Record, Refusal, Status};
use super::{Subscription, Visit};

#[derive(Debug, Clone)]
struct Kept {
    position: u64,
    kind: u8,
    body: Vec<u8>,
}

impl Kept {
    fn record(&self) -> Record<'_> {
        Record { position: Position(self.position), kind: self.kind, body: &self.body }
    }
}

#[derive(Debug)]
struct State {
    records: VecDeque<Kept>,
    /// Nothing before it is kept.
    oldest: u64,
    appended: u64,
    synced: u64,
    is_held: bool,
    is_closed: bool,
    health: Health,
    reason: Option<String>,
    figures: Figures,
    progress: Option<watch::Sender<Progress>>,
}

impl State {
    fn pending_bytes(&self) -> usize {
        (self.appended - self.synced) as usize
    }

    fn sync(&mut self, end: u64) {
        if end > self.synced && self.health == Health::Healthy {
            self.figures.add_sync(std::time::Duration::ZERO, end - self.synced);
            self.synced = end;
            self.tell();
        }
    }

    fn tell(&self) {
        let progress = Progress { synced: Position(self.synced), health: self.health };
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
    }

    fn admit(&self, class: Class, bytes: usize, config: &Config) -> Result<(), Refusal> {
        let ingest = class == Class::Ingest;
        let reserve = if ingest { 0 } else { config.reserve_bytes };
        let pending = self.pending_bytes();
        match self.health {
            Health::Failed => Err(Refusal::Failed),
            _ if self.is_closed => Err(Refusal::Closed),
            Health::Full if ingest => Err(Refusal::Full),
            _ if pending > 0 && pending + bytes > config.pending_bytes_max + reserve => {
                Err(Refusal::Busy)
            }
            _ => Ok(()),
        }
    }
}

/// A log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    config: Config,
    state: Mutex<State>,
    followers: Subscription,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl MemoryLog {
    /// An empty one, with the bounds of these settings.
    #[must_use]
    pub fn new(config: Config) -> Self {
        // As on a disk, no record begins at 0.
        let begin = GROUP_HEADER_BYTES as u64;
        Self::with(config, VecDeque::new(), 0, begin)
    }

    fn with(config: Config, records: VecDeque<Kept>, oldest: u64, end: u64) -> Self {
        let progress = Progress { synced: Position(end), health: Health::Healthy };
        let (sender, followers) = watch::channel(progress);
        let state = State {
            records,
            oldest,
            appended: end,
            synced: end,
            is_held: false,
            is_closed: false,
            health: Health::Healthy,
            reason: None,
            figures: Figures::default(),
            progress: Some(sender),
        };
        Self { config, state: Mutex::new(state), followers }
    }

    /// A panic elsewhere cannot leave it half changed: all that can panic comes before the changes.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is synced but by [`sync`](Self::sync).
    pub fn hold(&self) {
        self.state().is_held = true;
    }

    /// Syncs the records that begin before `end`.
    pub fn sync(&self, end: Position) {
        let mut state = self.state();
        let behind = state.records.partition_point(|kept| kept.position < end.0);
        let last = behind.checked_sub(1).and_then(|at| state.records.get(at));
        if let Some(end) = last.map(|kept| format::behind(&kept.record()).0) {
            state.sync(end);
        }
    }

    /// Syncs everything, and each record as it comes.
    pub fn release(&self) {
        let mut state = self.state();
        state.is_held = false;
        let end = state.appended;
        state.sync(end);
    }

    /// Lets the disk be full, or have room again.
    pub fn set_full(&self, is_full: bool) {
        let mut state = self.state();
        if state.health == Health::Failed {
            return;
        }
        state.health = if is_full { Health::Full } else { Health::Healthy };
        state.tell();
        let end = state.appended;
        if !state.is_held {
            state.sync(end);
        }
    }

    /// Lets it fail for good.
    pub fn fail(&self, reason: &str) {
        let mut state = self.state();
        state.health = Health::Failed;
        state.reason = Some(reason.to_owned());
        state.tell();
    }

    /// What an opening finds after a crash now: what was synced. This one is as it was.
    #[must_use]
    pub fn after_crash(&self) -> Self {
        let state = self.state();
        let synced = state.records.iter().take_while(|kept| kept.position < state.synced);
        Self::with(self.config, synced.cloned().collect(), state.oldest, state.synced)
    }
}

impl Log for MemoryLog {
    fn append(&self, class: Class, kind: u8, parts: &[&[u8]]) -> Result<Position, Refusal> {
        let body = parts.concat();
        let bytes_max = self.config.record_bytes_max;
        if body.len() > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        let bytes = format::record_bytes(body.len());
        let mut state = self.state();
        state.admit(class, bytes, &self.config)?;
        let position = state.appended;
        state.records.push_back(Kept { position, kind, body });
        state.appended += bytes as u64;
        state.figures.records += 1;
        if !state.is_held {
            let end = state.appended;
            state.sync(end);
        }
        Ok(Position(position))
    }

    fn record_bytes_max(&self) -> usize {
        self.config.record_bytes_max
    }

    fn synced(&self) -> Position {
        Position(self.state().synced)
    }

    fn subscribe(&self) -> Subscription {
        let state = self.state();
        let sender = state.progress.as_ref();
        sender.map_or_else(|| self.followers.clone(), watch::Sender::subscribe)
    }

    fn read(&self, from: Position, visit: Visit<'_>) -> Result<Position, Error> {
        let state = self.state();
        if from.0 < state.oldest {
            return Err(Error::Trimmed { oldest: Position(state.oldest) });
        }
        let start = state.records.partition_point(|kept| kept.position < from.0);
        let synced = state.synced;
        let wanted = state.records.range(start..).take_while(|kept| kept.position < synced);
        // Copied, so that the visitor may use the log.
        let wanted: Vec<Kept> = wanted.cloned().collect();
        drop(state);
        for kept in &wanted {
            if visit(kept.record()).is_break() {
                return Ok(format::behind(&kept.record()));
            }
        }
        Ok(Position(synced).max(from))
    }

    fn trim(&self, horizon: Position) -> Result<(), Error> {
        let mut state = self.state();
        let horizon = horizon.0.min(state.synced);
        let behind = state.records.partition_point(|kept| kept.position < horizon);
        state.records.drain(..behind);
        state.oldest = state.oldest.max(horizon);
        Ok(())
    }

    fn status(&self) -> Status {
        let state = self.state();
        Status {
            health: state.health,
            reason: state.reason.clone(),
            appended: Position(state.appended),
            synced: Position(state.synced),
            oldest: Position(state.oldest),
            segments: 1,
            spares: 0,
            pending_bytes: state.pending_bytes(),
            figures: state.figures,
        }
    }

    fn close(&self) -> Result<(), Error> {
        let mut state = self.state();
        let end = state.appended;
        state.sync(end);
        (state.is_closed, state.progress) = (true, None);
        if state.synced == end {
            return Ok(());
        }
        let reason = state.reason.clone().unwrap_or_else(|| "the disk is full".into());
        Err(Error::Failed { reason })
    }
}
