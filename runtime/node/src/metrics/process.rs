//! Figures of tenants' processes, seen from outside: what a process says of itself is checked
//! against what the system counts.

use std::sync::atomic::{AtomicU32, Ordering};

use super::encode::Row;
use super::{ByWord, Counter, Gauge};

/// One tenant's process, over all its starts.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    /// 1 while it is up.
    pub up: Gauge,
    /// How often it was started.
    pub starts: Counter,
    /// How often it ended, by why: `rest`, `failed`.
    pub ends: ByWord,
    /// How long its last start took.
    pub start_micros: Gauge,
    /// The process that runs; 0 for none.
    pub pid: AtomicU32,
}

impl ProcessMetrics {
    /// Processor time of the process that runs, in seconds, and bytes of memory it has in use.
    fn used(&self) -> Option<(f64, u64)> {
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

pub(super) const PROCESS_ROWS: &[Row<ProcessMetrics>] = &[
    Row::gauge("process_up", "1 while the tenant's process runs", |m| m.up.get()),
    Row::counter("process_starts", "Starts of the tenant's process", |m| m.starts.get()),
    Row::words("process_ends", "Ends of the tenant's process, by why", "why", |m| m.ends.get()),
    Row::seconds("process_start_seconds", "Time the last start took", |m| {
        m.start_micros.get() as f64 / 1e6
    }),
    Row::seconds("process_used_seconds", "Processor time of the process that runs", |m| {
        m.used().map_or(0.0, |used| used.0)
    }),
    Row::gauge("process_resident_bytes", "Memory the process that runs has in use", |m| {
        m.used().map_or(0, |used| used.1)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_counts_for_the_process_that_runs() {
        let metrics = ProcessMetrics::default();
        assert_eq!(metrics.used(), None);
        metrics.pid.store(std::process::id(), Ordering::Relaxed);
        let (_, bytes) = metrics.used().unwrap();
        assert!(bytes > 1 << 16, "{bytes}");
    }
}
