//! What figures are counted in: sums, gauges, sums by word, times in buckets.
//!
//! All are added to from any thread; nothing waits.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::lock;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that is there now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds, or takes away.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value; a short disagreement between threads is not shown as less than nothing.
    #[must_use]
    pub fn get(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// Counters by a word from our own code, such as a stable code; for paths that are not hot.
#[derive(Debug, Default)]
pub struct ByWord(Mutex<BTreeMap<&'static str, u64>>);

impl ByWord {
    /// Adds to the counter of a word.
    pub fn add(&self, word: &'static str, amount: u64) {
        *lock(&self.0).entry(word).or_default() += amount;
    }

    /// All words that were ever counted.
    #[must_use]
    pub fn get(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0).iter().map(|(word, count)| (*word, *count)).collect()
    }
}

/// Upper ends of the buckets of a latency, in microseconds; the last has no end.
pub(super) const LATENCY_MICROS: [u64; 14] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Latency {
    pub(super) counts: [Counter; LATENCY_MICROS.len() + 1],
    pub(super) micros: Counter,
}

impl Latency {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_MICROS.partition_point(|end| *end < micros);
        self.counts[bucket].inc();
        self.micros.add(micros);
    }

    /// The buckets with something in them: how many took more than so many microseconds, at most
    /// so many, if there is a bound; the shortest first.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, Option<u64>, u64)> {
        let begins = [0].into_iter().chain(LATENCY_MICROS);
        let ends = LATENCY_MICROS.into_iter().map(Some).chain([None]);
        let counts = self.counts.iter().map(Counter::get);
        let all = begins.zip(ends).zip(counts).map(|((begin, end), count)| (begin, end, count));
        all.filter(|(_, _, count)| *count > 0)
    }
}
