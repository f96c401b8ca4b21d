//! Sources and sinks, for the people who look.

use serde::{Deserialize, Serialize};

use crate::metrics::ConnectorMetrics;
use crate::running::Running;

/// A source or a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConnectorDetail {
    /// Its name.
    pub name: String,
    /// What it is: `file`, `webhook`.
    pub kind: String,
    /// `running`, `waiting` for room or a quota, `failing` and trying again, or `halted`.
    pub state: String,
    /// For how long it has been so.
    pub seconds: u64,
    /// How far it is.
    pub place: String,
    /// What waits: bytes of files for a source, events for a sink.
    pub lag: u64,
    /// Events taken in or handed on since the node started.
    pub events: u64,
    /// What was left out.
    pub rejected: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The code of what is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

pub(super) fn sources(running: &Running) -> Vec<ConnectorDetail> {
    let detail = |source: &sluicebox_core::pipeline::Source| {
        detail(&source.name, source.kind.word(), &running.metrics().source(&source.name))
    };
    running.pipeline().sources.iter().map(detail).collect()
}

pub(super) fn sinks(running: &Running) -> Vec<ConnectorDetail> {
    let detail = |sink: &sluicebox_core::pipeline::Sink| {
        detail(&sink.name, sink.kind.word(), &running.metrics().sink(&sink.name))
    };
    running.pipeline().sinks.iter().map(detail).collect()
}

fn detail(name: &str, kind: &str, metrics: &ConnectorMetrics) -> ConnectorDetail {
    let state = metrics.state();
    let (code, why) = state.error.map(|(code, why)| (code.to_owned(), why)).unzip();
    ConnectorDetail {
        name: name.to_owned(),
        kind: kind.to_owned(),
        state: state.word.to_owned(),
        seconds: state.since.elapsed().as_secs(),
        place: state.place,
        lag: metrics.lag.get(),
        events: metrics.events.get(),
        rejected: metrics.rejected.get(),
        failures: metrics.failures.get(),
        code,
        why,
    }
}
