//! What stages count themselves: counters and gauges whose names are theirs.
//!
//! Keeps true: a stage has so many of them and no more, of names that a label can have; what it
//! asks for beyond that is counted.

use super::{StageMetrics, lock};

/// Metrics of its own that a stage may have (see `wit/host.wit`); more are dropped and counted.
pub const GUEST_METRICS_MAX: usize = 32;

/// Longest name of a stage's own metric.
const GUEST_NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum GuestValue {
    Counter(u64),
    Gauge(f64),
}

/// Names and meaning of what stages count themselves; the label `name` is theirs.
pub(super) const GUEST_COUNTER: (&str, &str) = ("guest_count", "A counter of the stage's own");
pub(super) const GUEST_GAUGE: (&str, &str) = ("guest_gauge", "A gauge of the stage's own");

impl StageMetrics {
    /// Adds to a counter of the stage's own.
    pub fn guest_count(&self, name: &str, delta: u64) {
        self.guest(name, GuestValue::Counter(0), |value| match value {
            GuestValue::Counter(sum) => {
                *sum = sum.saturating_add(delta);
                true
            }
            GuestValue::Gauge(_) => false,
        });
    }

    /// Sets a gauge of the stage's own.
    pub fn guest_gauge(&self, name: &str, value: f64) {
        self.guest(name, GuestValue::Gauge(0.0), |kept| {
            let same_kind = matches!(kept, GuestValue::Gauge(_));
            if same_kind {
                *kept = GuestValue::Gauge(value);
            }
            same_kind
        });
    }

    /// Changes one of the stage's own metrics, or counts that it could not.
    fn guest(&self, name: &str, fresh: GuestValue, change: impl FnOnce(&mut GuestValue) -> bool) {
        let mut guest = lock(&self.guest);
        let known = guest.contains_key(name);
        if !known && (guest.len() >= GUEST_METRICS_MAX || !is_guest_name(name)) {
            self.guest_dropped.inc();
            return;
        }
        let done = match guest.get_mut(name) {
            Some(value) => change(value),
            None => change(guest.entry(name.to_owned()).or_insert(fresh)),
        };
        if !done {
            self.guest_dropped.inc();
        }
    }
}

/// `[a-z][a-z0-9_]*`, at most 64 bytes.
fn is_guest_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= GUEST_NAME_BYTES_MAX
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
        && name.bytes().all(allowed)
}
