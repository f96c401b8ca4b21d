//! The log on a disk: opening, the calls of the contract, and the thread that writes.
//!
//! Keeps true: one process has the directory; the thread is joined by `close`, or by the drop, so
//! that nothing writes in a directory whose lock is gone.
//!
//! Leaves to others: writing (`writer.rs`), reading back (`recover.rs`, `segments.rs`), the bytes
//! (`format.rs`), the files (`disk.rs`).

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::disk::{DirDisk, Disk};
use super::error::Error;
use super::recover::recover;
use super::segments::Segments;
use super::shared::Shared;
use super::writer::Writer;
use super::{Class, Config, Log, Position, Refusal, Status, Subscription, Visit};

/// A log in files.
#[derive(Debug)]
pub struct DurableLog {
    shared: Arc<Shared>,
    /// None once it was joined, or if somebody else drives the writer.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DurableLog {
    /// Opens the log of a directory, which is made if there is none, and gives every record from
    /// `from` on to `visit`. When this returns they are on disk, and the log takes records.
    ///
    /// # Errors
    /// [`Error::Directory`] if the directory cannot be used; [`Error::Corrupt`],
    /// [`Error::Behind`], [`Error::Foreign`] and [`Error::FormatNewer`] if what is in it cannot be
    /// trusted; [`Error::Trimmed`]; [`Error::Stopped`] if `visit` wanted no more.
    pub fn open(
        path: &Path,
        config: Config,
        from: Position,
        visit: Visit<'_>,
    ) -> Result<Self, Error> {
        Self::open_on(Arc::new(DirDisk::open(path)?), config, from, visit)
    }

    /// The same over any disk.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: Config,
        from: Position,
        visit: Visit<'_>,
    ) -> Result<Self, Error> {
        let (log, writer) = Self::open_stepped(disk, config, from, visit)?;
        let thread = thread::Builder::new().name("log".into()).spawn(move || writer.run());
        let thread = thread.map_err(Error::io("start the writer's thread for", "the directory"))?;
        *log.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(log)
    }

    /// The same without a thread: nothing is written but by steps of the writer.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        config: Config,
        from: Position,
        visit: Visit<'_>,
    ) -> Result<(Self, Writer), Error> {
        config.check()?;
        let segments = Segments::new(disk, config.spare_segments);
        let current = recover(&segments, &config, from, visit)?;
        let shared = Arc::new(Shared::new(config, segments, current.end));
        let writer = Writer::new(Arc::clone(&shared), current);
        Ok((Self { shared, thread: Mutex::new(None) }, writer))
    }
}

impl Log for DurableLog {
    fn append(&self, class: Class, kind: u8, parts: &[&[u8]]) -> Result<Position, Refusal> {
        self.shared.append(class, kind, parts)
    }

    fn record_bytes_max(&self) -> usize {
        self.shared.config.record_bytes_max
    }

    fn synced(&self) -> Position {
        self.shared.synced()
    }

    fn subscribe(&self) -> Subscription {
        self.shared.subscribe()
    }

    fn read(&self, from: Position, visit: Visit<'_>) -> Result<Position, Error> {
        self.shared.segments.read(from, visit)
    }

    fn trim(&self, horizon: Position) -> Result<(), Error> {
        let trimmed = self.shared.segments.trim(horizon.min(self.synced()));
        self.shared.kick();
        trimmed
    }

    fn status(&self) -> Status {
        let (oldest, segments, spares) = self.shared.segments.counts();
        let synced = self.synced();
        let state = self.shared.state();
        Status {
            health: state.health,
            reason: state.reason.clone(),
            appended: state.appended(),
            synced,
            oldest,
            segments,
            spares,
            pending_bytes: state.pending_bytes(),
            figures: state.figures,
        }
    }

    fn close(&self) -> Result<(), Error> {
        self.shared.begin_close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic there has made the log fail, which is told below.
        thread.map(JoinHandle::join).transpose().ok();
        if self.shared.is_all_synced() {
            return Ok(());
        }
        let reason = self.shared.state().reason.clone();
        Err(Error::Failed { reason: reason.unwrap_or_else(|| "not all was written".into()) })
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        // Best effort: who wants to know closes it.
        self.close().ok();
    }
}
