//! Counters and gauges of the stage's own, exported by the host with the stage's labels.
//!
//! Names are `[a-z][a-z0-9_]*`, at most 64 bytes, and at most 32 of them a stage; others are
//! dropped and counted by the host. One update is one call of the host: add up over a batch first.

use crate::host;

/// Adds to a counter.
pub fn count(name: &str, delta: u64) {
    host::metric_count(name, delta);
}

/// Sets a gauge.
pub fn gauge(name: &str, value: f64) {
    host::metric_gauge(name, value);
}
