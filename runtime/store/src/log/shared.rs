//! What appenders and the writer share: the group being filled, bounds, health, and who follows.
//!
//! Keeps true: one short lock for an append, under which nothing waits for a disk; what waits to be
//! written is bounded, with a reserve for commits; `synced` is told after everything before it is
//! on disk and can be read, never earlier; a change that others wait for is always told.
//!
//! Leaves to `writer.rs`: when a group is taken and what becomes of it.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::format;
use super::group::Group;
use super::segments::Segments;
use super::{Class, Config, Figures, Health, Position, Progress, Refusal, Subscription};

/// What appenders and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) segments: Segments,
    synced: AtomicU64,
    state: Mutex<State>,
    /// The writer waits here when there is nothing to write, or to try again.
    wake: Condvar,
    followers: Subscription,
}

#[derive(Debug)]
pub(super) struct State {
    filling: Group,
    /// Bytes of the group being written.
    writing_bytes: usize,
    /// The buffer that is not in use.
    buffer: Vec<u8>,
    pub(super) health: Health,
    pub(super) reason: Option<String>,
    pub(super) figures: Figures,
    /// True while the writer waits for something to write.
    idle: bool,
    /// There may be room on the disk again.
    kicked: bool,
    pub(super) closing: bool,
    /// Dropped when the writer ends, so that nobody waits for more.
    progress: Option<watch::Sender<Progress>>,
}

impl State {
    pub(super) fn pending_bytes(&self) -> usize {
        let filling = if self.filling.is_empty() { 0 } else { self.filling.padded_bytes() };
        filling + self.writing_bytes
    }

    /// Where the next record would go.
    pub(super) fn appended(&self) -> Position {
        let used = if self.filling.is_empty() { 0 } else { self.filling.used_bytes() as u64 };
        Position(self.filling.position() + used)
    }

    fn admit(&self, class: Class, bytes: usize, config: &Config) -> Result<(), Refusal> {
        if self.health == Health::Failed {
            return Err(Refusal::Failed);
        }
        if self.closing {
            return Err(Refusal::Closed);
        }
        if self.health == Health::Full && class == Class::Ingest {
            return Err(Refusal::Full);
        }
        let pending = self.pending_bytes();
        let pending_max = match class {
            Class::Ingest => config.pending_bytes_max,
            Class::Commit => config.pending_bytes_max.saturating_add(config.reserve_bytes),
        };
        // One record is always taken, however small the bound is.
        let is_over = pending > 0 && pending.saturating_add(bytes) > pending_max;
        let fits = (self.filling.used_bytes() + bytes) as u64 <= config.room();
        if is_over || !fits { Err(Refusal::Busy) } else { Ok(()) }
    }

    fn tell(&mut self, synced: u64) {
        let progress = Progress { synced: Position(synced), health: self.health };
        if let Some(sender) = &self.progress {
            sender.send_replace(progress);
        }
    }
}

impl Shared {
    pub(super) fn new(config: Config, segments: Segments, end: u64) -> Self {
        let synced = Position(end);
        let (sender, followers) = watch::channel(Progress { synced, health: Health::Healthy });
        let state = State {
            filling: Group::at(end, Vec::new()),
            writing_bytes: 0,
            buffer: Vec::new(),
            health: Health::Healthy,
            reason: None,
            figures: Figures::default(),
            idle: false,
            kicked: false,
            closing: false,
            progress: Some(sender),
        };
        Self {
            config,
            segments,
            synced: AtomicU64::new(end),
            state: Mutex::new(state),
            wake: Condvar::new(),
            followers,
        }
    }

    /// Nothing panics between two changes that belong together.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(
        &self,
        class: Class,
        kind: u8,
        parts: &[&[u8]],
    ) -> Result<Position, Refusal> {
        let body_bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let bytes_max = self.config.record_bytes_max;
        if body_bytes > bytes_max {
            return Err(Refusal::TooLarge { bytes_max });
        }
        let mut state = self.state();
        state.admit(class, format::record_bytes(body_bytes), &self.config)?;
        let position = state.filling.push(kind, parts, body_bytes);
        state.figures.records += 1;
        let idle = mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.wake.notify_one();
        }
        Ok(position)
    }

    pub(super) fn synced(&self) -> Position {
        Position(self.synced.load(Ordering::Acquire))
    }

    pub(super) fn subscribe(&self) -> Subscription {
        let state = self.state();
        let sender = state.progress.as_ref();
        sender.map_or_else(|| self.followers.clone(), watch::Sender::subscribe)
    }

    /// Lets the writer try again now.
    pub(super) fn kick(&self) {
        self.state().kicked = true;
        self.wake.notify_one();
    }

    /// Takes no more records; the writer ends when everything is written.
    pub(super) fn begin_close(&self) {
        self.state().closing = true;
        self.wake.notify_one();
    }

    /// True if everything that was appended is on disk.
    pub(super) fn is_all_synced(&self) -> bool {
        self.state().pending_bytes() == 0
    }

    pub(super) fn take_group(&self) -> Option<Group> {
        let mut state = self.state();
        if state.filling.is_empty() {
            return None;
        }
        let next = Group::at(state.filling.end(), mem::take(&mut state.buffer));
        let group = mem::replace(&mut state.filling, next);
        state.writing_bytes = group.padded_bytes();
        Some(group)
    }

    /// The group that was taken is on disk.
    pub(super) fn written(&self, group: Group, took: Duration) {
        let (end, bytes) = (group.end(), group.padded_bytes() as u64);
        let buffer = group.into_buffer(self.config.pending_bytes_max);
        let mut state = self.state();
        state.writing_bytes = 0;
        state.buffer = buffer;
        state.health = Health::Healthy;
        state.figures.add_sync(took, bytes);
        self.synced.store(end, Ordering::Release);
        state.tell(end);
    }

    /// Nothing is written any more: who waits for a change is told that there will be none.
    pub(super) fn end(&self) {
        self.state().progress = None;
    }

    pub(super) fn set_health(&self, health: Health, reason: String) {
        let mut state = self.state();
        let is_new = state.health != health;
        state.health = health;
        state.reason = Some(reason);
        if is_new {
            state.tell(self.synced.load(Ordering::Acquire));
        }
    }

    /// Waits until there is something to write; false if the log is being closed and there is not.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        while state.filling.is_empty() {
            if state.closing {
                return false;
            }
            state.idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        true
    }

    /// Waits before something is tried again; not if the log is being closed.
    pub(super) fn pause(&self) {
        let state = self.state();
        let waits = |state: &mut State| !mem::take(&mut state.kicked) && !state.closing;
        let pause = self.config.retry_pause;
        drop(self.wake.wait_timeout_while(state, pause, waits));
    }
}
