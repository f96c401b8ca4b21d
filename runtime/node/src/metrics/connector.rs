//! Figures of sources and sinks, and how each is doing.

use std::sync::Mutex;
use std::time::Instant;

use tokio::sync::Notify;

use super::encode::Row;
use super::{Counter, Gauge, lock};

/// A source or a sink, over all versions of its pipeline.
#[derive(Debug)]
pub struct ConnectorMetrics {
    /// Events taken in, or handed on.
    pub events: Counter,
    /// Bytes of their payloads.
    pub bytes: Counter,
    /// What could not become an event; what was left out since the receiver will never take it.
    pub rejected: Counter,
    /// Attempts that failed and are made again.
    pub failures: Counter,
    /// Events of an output that were dropped before the sink came to them.
    pub lost: Counter,
    /// What waits: events of an output, bytes of a file.
    pub lag: Gauge,
    state: Mutex<ConnectorState>,
    resume: Notify,
}

/// How a source or sink is doing.
#[derive(Debug, Clone)]
pub struct ConnectorState {
    /// `running`, `waiting`, `failing` or `halted`.
    pub word: &'static str,
    /// Since when.
    pub since: Instant,
    /// How far it is, in words of its kind.
    pub place: String,
    /// The code of what went wrong last, and what it was.
    pub error: Option<(&'static str, String)>,
}

/// All words for a state.
const STATES: [&str; 4] = ["running", "waiting", "failing", "halted"];

/// Bytes of a message that are kept.
const MESSAGE_BYTES_MAX: usize = 512;

impl Default for ConnectorMetrics {
    fn default() -> Self {
        let state = ConnectorState {
            word: STATES[0],
            since: Instant::now(),
            place: String::new(),
            error: None,
        };
        Self {
            events: Counter::default(),
            bytes: Counter::default(),
            rejected: Counter::default(),
            failures: Counter::default(),
            lost: Counter::default(),
            lag: Gauge::default(),
            state: Mutex::new(state),
            resume: Notify::new(),
        }
    }
}

impl ConnectorMetrics {
    /// How it is doing.
    #[must_use]
    pub fn state(&self) -> ConnectorState {
        lock(&self.state).clone()
    }

    /// It does what it is for.
    pub(crate) fn runs(&self) {
        let mut state = lock(&self.state);
        if state.word != STATES[0] {
            (state.word, state.since, state.error) = (STATES[0], Instant::now(), None);
        }
    }

    /// It is so far.
    pub(crate) fn is_at(&self, place: String) {
        lock(&self.state).place = place;
    }

    /// It waits for somebody.
    pub(crate) fn waits(&self, code: &'static str, why: &str) {
        self.set(STATES[1], code, why);
    }

    /// Something went wrong, and is tried again. True if that is news.
    pub(crate) fn fails(&self, code: &'static str, why: &str) -> bool {
        self.failures.inc();
        self.set(STATES[2], code, why)
    }

    /// It stands until somebody lets it go on, which it waits for.
    pub(crate) async fn halts(&self, code: &'static str, why: &str) {
        let mut told = std::pin::pin!(self.resume.notified());
        told.as_mut().enable();
        self.set(STATES[3], code, why);
        told.await;
    }

    /// Lets it go on if it has halted, and try again at once if it fails.
    pub(crate) fn resume(&self) {
        self.resume.notify_waiters();
    }

    /// Waits until somebody says to go on.
    pub(crate) async fn resumed(&self) {
        self.resume.notified().await;
    }

    fn set(&self, word: &'static str, code: &'static str, why: &str) -> bool {
        let end = why.floor_char_boundary(MESSAGE_BYTES_MAX);
        let mut state = lock(&self.state);
        let news = state.word != word || state.error.as_ref().is_none_or(|(old, _)| *old != code);
        if state.word != word {
            (state.word, state.since) = (word, Instant::now());
        }
        state.error = Some((code, why[..end].to_owned()));
        news
    }

    fn states(&self) -> Vec<(&'static str, u64)> {
        let now = self.state().word;
        STATES.into_iter().map(|word| (word, u64::from(word == now))).collect()
    }
}

pub(super) const SOURCE_ROWS: &[Row<ConnectorMetrics>] = &[
    Row::counter("source_events", "Events a source took in", |m| m.events.get()),
    Row::counter("source_bytes", "Bytes of these events", |m| m.bytes.get()),
    Row::counter("source_rejected", "What could not become an event", |m| m.rejected.get()),
    Row::counter("source_failures", "Attempts that failed", |m| m.failures.get()),
    Row::gauge("source_lag_bytes", "Bytes that are there and were not read", |m| m.lag.get()),
    Row::gauges("source_state", "1 for what it is doing", "state", |m| m.states()),
];

pub(super) const SINK_ROWS: &[Row<ConnectorMetrics>] = &[
    Row::counter("sink_events", "Events a sink handed on", |m| m.events.get()),
    Row::counter("sink_bytes", "Bytes of these events", |m| m.bytes.get()),
    Row::counter("sink_dropped", "Events left out, as the receiver will never take them", |m| {
        m.rejected.get()
    }),
    Row::counter("sink_failures", "Attempts that failed", |m| m.failures.get()),
    Row::counter("sink_lost", "Events dropped before the sink came to them", |m| m.lost.get()),
    Row::gauge("sink_lag_events", "Events that wait for the sink", |m| m.lag.get()),
    Row::gauges("sink_state", "1 for what it is doing", "state", |m| m.states()),
];
