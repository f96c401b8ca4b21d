//! How the GPU's process stands, and what was used of it: for those who wait, look and count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluicebox_engine::gpu::Refused;
use sluicebox_gpu::device::Info;
use sluicebox_gpu::wire::{Figures, TenantFigures, Used};
use tokio::sync::watch;

use super::confined::Measure;
use crate::mailbox::lock;

/// Where it is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Nobody wants it.
    AtRest,
    /// It is being started.
    Starting,
    /// It has its device.
    Up(Up),
    /// It did not start, or ended by itself; it is tried again in a while.
    Failed {
        /// What those are told who want it.
        why: Refused,
        /// Waiting for the next try is no use.
        is_final: bool,
    },
}

impl Phase {
    /// As it is called in figures and for people.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::AtRest => "at-rest",
            Self::Starting => "starting",
            Self::Up(_) => "up",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A process that has its device.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    pub(crate) info: Info,
    /// What handles are made with.
    pub(crate) generation: u32,
    /// The number of the process.
    pub(crate) pid: u32,
    /// What holds it in, and what does not.
    pub(crate) measures: Arc<[Measure]>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Status {
    phase: watch::Sender<Phase>,
    sums: Mutex<Sums>,
    starts: AtomicU64,
    failures: AtomicU64,
    hangs: AtomicU64,
    start_micros: AtomicU64,
    /// Devices that were lost, with their process or without.
    losses: AtomicU64,
    /// The last time it was looked for there was none.
    is_absent: AtomicBool,
    /// Why it is not there, until it is.
    why: Mutex<Option<Refused>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::AtRest),
            sums: Mutex::default(),
            starts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            hangs: AtomicU64::new(0),
            start_micros: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            is_absent: AtomicBool::new(false),
            why: Mutex::default(),
        }
    }
}

/// What was used.
#[derive(Debug, Default)]
struct Sums {
    /// Of the process that runs.
    now: Figures,
    /// Of those before it.
    busy_nanos: u64,
    tenants: BTreeMap<u64, TenantFigures>,
}

/// Numbers of the process since the node began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    /// It was up.
    pub(crate) starts: u64,
    /// It ended by itself, or was not up in time.
    pub(crate) failures: u64,
    /// Of these, because a kernel did not end.
    pub(crate) hangs: u64,
    /// Nanoseconds in which a device worked.
    pub(crate) busy_nanos: u64,
    /// Microseconds from start to device, the last time.
    pub(crate) start_micros: u64,
}

impl Status {
    /// Where it is, as it changes.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Whether there was none the last time it was looked for.
    pub(super) fn is_absent(&self) -> bool {
        self.is_absent.load(Ordering::Relaxed)
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// To be said before anybody is told of it.
    pub(super) fn note_loss(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// Why it was not there the last time it was wanted, until it is there.
    pub(super) fn why(&self) -> Option<Refused> {
        lock(&self.why).clone()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        match &phase {
            Phase::Up(_) => {
                self.is_absent.store(false, Ordering::Relaxed);
                *lock(&self.why) = None;
            }
            Phase::Failed { is_final, why } => {
                self.is_absent.store(*is_final, Ordering::Relaxed);
                *lock(&self.why) = Some(why.clone());
            }
            Phase::AtRest | Phase::Starting => {}
        }
        self.phase.send_replace(phase);
    }

    pub(super) fn note_start(&self, micros: u64) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        self.start_micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_hang(&self) {
        self.hangs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_figures(&self, figures: Figures) {
        lock(&self.sums).now = figures;
    }

    /// The process is gone, and nobody has anything. What tenants have used until it was asked last
    /// stays theirs, as long as they are there.
    pub(super) fn end_figures(&self, is_there: impl Fn(u64) -> bool) {
        let mut sums = lock(&self.sums);
        let figures = std::mem::take(&mut sums.now);
        sums.busy_nanos = sums.busy_nanos.saturating_add(figures.busy_nanos);
        sums.tenants.retain(|tenant, _| is_there(*tenant));
        for figures in figures.tenants.into_iter().filter(|figures| is_there(figures.tenant)) {
            let before = sums.tenants.entry(figures.tenant).or_default();
            before.used = sum(before.used, figures.used);
            before.memory_byte_seconds =
                before.memory_byte_seconds.saturating_add(figures.memory_byte_seconds);
            before.evictions = before.evictions.saturating_add(figures.evictions);
            before.recalls = before.recalls.saturating_add(figures.recalls);
        }
    }

    /// What a tenant has used, as of some moments ago.
    pub(super) fn tenant(&self, tenant: u64) -> TenantFigures {
        let sums = lock(&self.sums);
        let now = sums.now.tenants.iter().find(|figures| figures.tenant == tenant);
        let mut figures = now.cloned().unwrap_or_default();
        if let Some(before) = sums.tenants.get(&tenant) {
            figures.used = sum(figures.used, before.used);
            figures.memory_byte_seconds =
                figures.memory_byte_seconds.saturating_add(before.memory_byte_seconds);
            figures.evictions = figures.evictions.saturating_add(before.evictions);
            figures.recalls = figures.recalls.saturating_add(before.recalls);
        }
        figures
    }

    pub(crate) fn counts(&self) -> Counts {
        let busy_nanos = {
            let sums = lock(&self.sums);
            sums.busy_nanos.saturating_add(sums.now.busy_nanos)
        };
        Counts {
            starts: self.starts.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            hangs: self.hangs.load(Ordering::Relaxed),
            busy_nanos,
            start_micros: self.start_micros.load(Ordering::Relaxed),
        }
    }
}

/// What is waited for now is only of one of them. A process may say anything.
fn sum(a: Used, b: Used) -> Used {
    Used {
        device_nanos: a.device_nanos.saturating_add(b.device_nanos),
        chunks: a.chunks.saturating_add(b.chunks),
        copy_nanos: a.copy_nanos.saturating_add(b.copy_nanos),
        up_bytes: a.up_bytes.saturating_add(b.up_bytes),
        down_bytes: a.down_bytes.saturating_add(b.down_bytes),
        queued: a.queued.max(b.queued),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(tenant: u64, device_nanos: u64) -> Figures {
        let used = Used { device_nanos, chunks: 1, ..Used::default() };
        let tenant = TenantFigures { tenant, used, memory_byte_seconds: 2, ..Default::default() };
        Figures { busy_nanos: device_nanos, tenants: vec![tenant], ..Figures::default() }
    }

    #[test]
    fn what_was_used_of_processes_that_ended_is_not_forgotten() {
        let status = Status::default();
        status.set_figures(figures(1, 5));
        status.end_figures(|_| true);
        status.set_figures(figures(1, 7));
        let now = status.tenant(1);
        assert_eq!((now.used.device_nanos, now.used.chunks, now.memory_byte_seconds), (12, 2, 4));
        assert_eq!(status.counts().busy_nanos, 12);
        status.end_figures(|_| false);
        assert_eq!(status.tenant(1), TenantFigures::default());
        assert_eq!(status.counts().busy_nanos, 12, "the device worked, for whomever");
    }
}
