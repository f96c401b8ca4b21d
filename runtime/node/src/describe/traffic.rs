//! What came in by ingest, and how long things took, for who shows rates and percentiles.
//!
//! All of it only grows: two readings make a rate, or the times of what was between them.

use serde::{Deserialize, Serialize};

use crate::metrics::{Latency, PipelineMetrics};

/// How often something took how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimeTaken {
    /// More than so many microseconds.
    pub micros_min: u64,
    /// And at most so many; without a bound if it is left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub micros_max: Option<u64>,
    /// How often.
    pub count: u64,
}

impl TimeTaken {
    /// All of them that there were, the shortest first.
    pub(super) fn all(latency: &Latency) -> Vec<Self> {
        let row = |(micros_min, micros_max, count)| Self { micros_min, micros_max, count };
        latency.buckets().map(row).collect()
    }
}

/// What came in by ingest, since the node has the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IngestDetail {
    /// Events accepted.
    pub events: u64,
    /// Bytes of the bodies they came in.
    pub bytes: u64,
    /// Events not accepted.
    pub rejected: u64,
    /// Events that had come before.
    pub duplicates: u64,
    /// Time until they were acknowledged.
    pub acknowledged: Vec<TimeTaken>,
    /// Time until the result of one that was waited for.
    pub result: Vec<TimeTaken>,
}

impl IngestDetail {
    pub(super) fn of(metrics: &PipelineMetrics) -> Self {
        Self {
            events: metrics.events.get(),
            bytes: metrics.bytes.get(),
            rejected: metrics.rejected.get().iter().map(|(_, count)| count).sum(),
            duplicates: metrics.duplicates.get(),
            acknowledged: TimeTaken::all(&metrics.ingest_latency),
            result: TimeTaken::all(&metrics.wait_latency),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_buckets_with_something_in_them_are_told() {
        let latency = Latency::default();
        assert_eq!(TimeTaken::all(&latency), []);
        for micros in [1, 50, 51, 90_000_000] {
            latency.observe(Duration::from_micros(micros));
        }
        let row = |micros_min, micros_max, count| TimeTaken { micros_min, micros_max, count };
        let last = row(30_000_000, None, 1);
        let expected = [row(0, Some(50), 2), row(50, Some(100), 1), last.clone()];
        assert_eq!(TimeTaken::all(&latency), expected);
        let text = serde_json::to_string(&last).expect("JSON");
        assert_eq!(text, r#"{"micros-min":30000000,"count":1}"#);
    }
}
