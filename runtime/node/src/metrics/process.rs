//! Figures of tenants' processes, seen from outside: what a process says of itself is checked
//! against what the system counts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use sluicebox_confine::cgroup::{Group, Used};

use super::encode::Row;
use super::{ByWord, Counter, Gauge, lock};

/// One tenant's process, over all its starts.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    /// 1 while it is up.
    pub up: Gauge,
    /// How often it was started.
    pub starts: Counter,
    /// How often it ended, by why: `rest`, `failed`, `memory`.
    pub ends: ByWord,
    /// How long its last start took.
    pub start_micros: Gauge,
    /// The process that runs; 0 for none.
    pub pid: AtomicU32,
    /// Its control group, if it has one.
    pub group: Mutex<Option<Arc<Group>>>,
    /// Processes that the kernel ended, as their group had no memory left.
    pub memory_kills: Counter,
}

/// The same with what the system counts, which is read once for all rows.
pub(super) struct Seen {
    figures: Arc<ProcessMetrics>,
    group: Used,
    /// See [`ProcessMetrics::used`].
    used: Option<(f64, u64)>,
}

impl Seen {
    pub(super) fn new(figures: Arc<ProcessMetrics>) -> Self {
        let group = figures.used_by_group();
        let used = figures.used(&group);
        Self { figures, group, used }
    }
}

impl ProcessMetrics {
    /// Processor time of the process that runs, in seconds, and bytes of memory it has in use; in
    /// a group, with all that it has started.
    fn used(&self, group: &Used) -> Option<(f64, u64)> {
        let process = || self.used_by_process();
        let seconds = group.cpu_micros.map(|micros| micros as f64 / 1e6);
        let seconds = seconds.or_else(|| Some(process()?.0))?;
        let bytes = group.memory_bytes.or_else(|| Some(process()?.1))?;
        Some((seconds, bytes))
    }

    fn used_by_group(&self) -> Used {
        let group = lock(&self.group).clone();
        group.map(|group| group.used()).unwrap_or_default()
    }

    fn used_by_process(&self) -> Option<(f64, u64)> {
        let pid = self.pid.load(Ordering::Relaxed);
        let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).ok();
        let stat = read("stat").filter(|_| pid != 0)?;
        // The second field may hold anything, and ends with the last parenthesis.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let ticks = ticks()? + ticks()?;
        let resident: u64 = read("statm")?.split(' ').nth(1)?.parse().ok()?;
        let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Some((seconds, resident * rustix::param::page_size() as u64))
    }
}

pub(super) const PROCESS_ROWS: &[Row<Seen>] = &[
    Row::gauge("process_up", "1 while the tenant's process runs", |s| s.figures.up.get()),
    Row::counter("process_starts", "Starts of the tenant's process", |s| s.figures.starts.get()),
    Row::words("process_ends", "Ends of the tenant's process, by why", "why", |s| {
        s.figures.ends.get()
    }),
    Row::seconds("process_start_seconds", "Time the last start took", |s| {
        s.figures.start_micros.get() as f64 / 1e6
    }),
    Row::seconds("process_used_seconds", "Processor time of the process that runs", |s| {
        s.used.map_or(0.0, |used| used.0)
    }),
    Row::gauge("process_resident_bytes", "Memory the process that runs has in use", |s| {
        s.used.map_or(0, |used| used.1)
    }),
    Row::seconds(
        "process_throttled_seconds",
        "Time for which isolation.cpu-percent-max kept the process that runs from working",
        |s| s.group.throttled_micros.unwrap_or(0) as f64 / 1e6,
    ),
    Row::counter(
        "process_memory_kills",
        "Processes of the tenant's that the system ended for isolation.memory-bytes-max",
        |s| s.figures.memory_kills.get(),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_counts_for_the_process_that_runs() {
        let metrics = ProcessMetrics::default();
        assert_eq!(metrics.used(&Used::default()), None);
        metrics.pid.store(std::process::id(), Ordering::Relaxed);
        let (_, bytes) = Seen::new(Arc::new(metrics)).used.unwrap();
        assert!(bytes > 1 << 16, "{bytes}");
    }
}
