//! A device and tenants in virtual time, to try the scheduler and what it is compared with.
//!
//! - `dice` is chance from a seed, the only one there is; `trace` makes what tenants submit;
//!   `shared` runs it through the scheduler, and `watch` looks on; `fixed` runs it on partitions
//!   of the device and in order of arrival. `scenes` puts these together to what is asked of the
//!   scheduler.
//! - Equal seeds give equal figures: there is no clock here, and no thread.
//!
//! For tests and `benches/slice.rs`, which takes this file by its path: so the children have one.

#[path = "simulate/dice.rs"]
pub(crate) mod dice;
#[path = "simulate/fixed.rs"]
pub(crate) mod fixed;
#[path = "simulate/scenes.rs"]
pub(crate) mod scenes;
#[path = "simulate/shared.rs"]
pub(crate) mod shared;
#[path = "simulate/trace.rs"]
pub(crate) mod trace;
#[path = "simulate/watch.rs"]
pub(crate) mod watch;

/// Time between two pieces of work on the device, unless the next is there already.
pub(crate) const GAP_NANOS: u64 = 20_000;

/// Nanoseconds of a millisecond and of a second.
pub(crate) const MILLI: u64 = 1_000_000;
/// See [`MILLI`].
pub(crate) const SECOND: u64 = 1_000_000_000;

/// How a tenant fared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fared {
    /// From arrival to end, of jobs that were done; ascending nanoseconds.
    pub(crate) latencies: Vec<u64>,
    /// Jobs that gave up before they began.
    pub(crate) dropped: usize,
    /// Nanoseconds of the whole device that it was given.
    pub(crate) served: u64,
}

impl Fared {
    /// The latency that so many of a hundred jobs keep; none if there was no job.
    pub(crate) fn percentile(&self, percent: usize) -> Option<u64> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.checked_sub(1)?).copied()
    }
}

/// The part of a span of time in which tenants together had the device.
pub(crate) fn utilisation(fared: &[Fared], span: u64) -> f64 {
    fared.iter().map(|tenant| tenant.served).sum::<u64>() as f64 / span as f64
}

/// The part of jobs that gave up.
pub(crate) fn dropped(fared: &[Fared]) -> f64 {
    let dropped: usize = fared.iter().map(|tenant| tenant.dropped).sum();
    let done: usize = fared.iter().map(|tenant| tenant.latencies.len()).sum();
    dropped as f64 / (dropped + done).max(1) as f64
}
