//! WASI 0.2 with nothing behind it: no files, no environment, no network; the batch's recorded
//! time and seed as clock and randomness; standard output and error to the stage's log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{SeedableRng, TryRng};
use sluicebox_core::limits::LOG_LINE_BYTES_MAX;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use super::Recorded;
use crate::invoker::{LogLevel, LogLine, Metric, Said};

/// Bytes of standard output or error a guest may write at once.
const WRITE_PERMIT: usize = 4096;

/// Different metric names a call may use.
const METRICS_MAX: usize = 32;

/// Bytes `wasi:random` gives in one call.
pub(crate) const RANDOM_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn context(
    recorded: &Arc<Recorded>,
    said: &Arc<SharedSaid>,
    secret: [u8; 32],
) -> WasiCtx {
    let random = || BatchRandom::new(recorded.clone(), secret);
    let mut builder = WasiCtxBuilder::new();
    builder
        .wall_clock(BatchClock(recorded.clone()))
        .monotonic_clock(BatchClock(recorded.clone()))
        .secure_random(random())
        .insecure_random(random())
        .insecure_random_seed(0)
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stdout(LogStream { said: said.clone() })
        .stderr(LogStream { said: said.clone() });
    builder.build()
}

struct BatchClock(Arc<Recorded>);

impl HostWallClock for BatchClock {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.time_micros())
    }
}

impl HostMonotonicClock for BatchClock {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        // An instance is made before it knows a time, and Go ends itself where this is 0.
        self.0.time_micros().saturating_mul(1_000).max(1)
    }
}

/// Starts anew at the first use in a batch, from a keyed hash of the batch's seed: the same for a
/// batch that runs again, and nothing a guest could foresee.
struct BatchRandom {
    recorded: Arc<Recorded>,
    secret: [u8; 32],
    /// The seed of the batch it was used in last, and what grew from it. Most stages never ask.
    grown: Option<Box<(u64, StdRng)>>,
}

impl BatchRandom {
    fn new(recorded: Arc<Recorded>, secret: [u8; 32]) -> Self {
        Self { recorded, secret, grown: None }
    }

    fn current(&mut self) -> &mut StdRng {
        let seed = self.recorded.seed();
        if self.grown.as_ref().is_some_and(|grown| grown.0 != seed) {
            self.grown = None;
        }
        let secret = &self.secret;
        let grown = self.grown.get_or_insert_with(|| {
            let grown = blake3::keyed_hash(secret, &seed.to_le_bytes());
            Box::new((seed, StdRng::from_seed(*grown.as_bytes())))
        });
        &mut grown.1
    }
}

impl TryRng for BatchRandom {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.current().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.current().try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.current().try_fill_bytes(out)
    }
}

/// What the guest says during a call; shared between its imports and its standard streams, which
/// all run on one thread at a time.
#[derive(Debug)]
pub(crate) struct SharedSaid {
    lines_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<LogLine>,
    lines_dropped: u64,
    metrics: BTreeMap<String, Metric>,
    metrics_dropped: u64,
    /// A line of standard output that has not ended yet.
    open: Vec<u8>,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.lines.is_empty()
            && self.metrics.is_empty()
            && self.open.is_empty()
            && self.lines_dropped == 0
            && self.metrics_dropped == 0
    }
}

impl SharedSaid {
    pub(crate) fn new(lines_max: u32) -> Self {
        Self { lines_max: lines_max as usize, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_room(&self) -> bool {
        self.inner().lines.len() < self.lines_max
    }

    pub(super) fn drop_line(&self) {
        self.inner().lines_dropped += 1;
    }

    pub(super) fn line(&self, level: LogLevel, text: &str) {
        let mut inner = self.inner();
        if inner.lines.len() >= self.lines_max {
            inner.lines_dropped += 1;
            return;
        }
        let end = text.floor_char_boundary(LOG_LINE_BYTES_MAX);
        inner.lines.push(LogLine { level, text: text[..end].to_owned() });
    }

    pub(super) fn metric(&self, name: Option<&str>, metric: Metric) {
        let mut inner = self.inner();
        let room = inner.metrics.len() < METRICS_MAX;
        match name {
            Some(name) if room || inner.metrics.contains_key(name) => {
                let entry = inner.metrics.entry(name.to_owned()).or_insert(match metric {
                    Metric::Count(_) => Metric::Count(0),
                    gauge @ Metric::Gauge(_) => gauge,
                });
                match (entry, metric) {
                    (Metric::Count(sum), Metric::Count(delta)) => *sum = sum.saturating_add(delta),
                    (entry, metric) => *entry = metric,
                }
            }
            _ => inner.metrics_dropped += 1,
        }
    }

    /// Text written to a standard stream, cut into lines.
    fn write(&self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let mut open = std::mem::take(&mut self.inner().open);
            open.extend_from_slice(&rest[..end.min(LOG_LINE_BYTES_MAX)]);
            self.line(LogLevel::Info, &String::from_utf8_lossy(&open));
            rest = &rest[end + 1..];
        }
        let mut inner = self.inner();
        let room = LOG_LINE_BYTES_MAX.saturating_sub(inner.open.len());
        inner.open.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    pub(crate) fn take(&self) -> Said {
        let mut inner = self.inner();
        if inner.is_empty() {
            return Said::default();
        }
        let open = std::mem::take(&mut inner.open);
        drop(inner);
        if !open.is_empty() {
            self.line(LogLevel::Info, &String::from_utf8_lossy(&open));
        }
        let inner = std::mem::take(&mut *self.inner());
        Said {
            lines: inner.lines,
            lines_dropped: inner.lines_dropped,
            metrics: inner.metrics.into_iter().collect(),
            metrics_dropped: inner.metrics_dropped,
        }
    }
}

/// Standard output and error of a guest.
struct LogStream {
    said: Arc<SharedSaid>,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, and it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { said: self.said.clone() })
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.said.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_PERMIT)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_becomes_bounded_lines() {
        let said = SharedSaid::new(3);
        said.write(b"one\ntw");
        said.write(b"o\nthree");
        said.line(LogLevel::Warn, &"x".repeat(5000));
        let taken = said.take();
        let texts: Vec<_> = taken.lines.iter().map(|line| line.text.len()).collect();
        assert_eq!(texts, [3, 3, 4096]);
        assert_eq!(taken.lines_dropped, 1, "the open line came last and found no room");
        said.write(&[b'y'; 10_000]);
        assert_eq!(said.take().lines[0].text.len(), LOG_LINE_BYTES_MAX);
    }

    #[test]
    fn metrics_add_up_and_are_bounded_in_names() {
        let said = SharedSaid::new(3);
        for at in 0..40 {
            said.metric(Some(&format!("m{at}")), Metric::Count(1));
            said.metric(Some("m0"), Metric::Count(1));
        }
        said.metric(None, Metric::Gauge(1.0));
        let taken = said.take();
        assert_eq!(taken.metrics.len(), METRICS_MAX);
        assert_eq!(taken.metrics[0], ("m0".to_owned(), Metric::Count(41)));
        assert_eq!(taken.metrics_dropped, 9);
    }

    #[test]
    fn randomness_follows_the_seed_of_the_batch() {
        let recorded = Arc::new(Recorded::default());
        let make = || BatchRandom::new(recorded.clone(), [1; 32]);
        let (mut one, mut other) = (make(), make());
        recorded.set(0, 7);
        let first = one.try_next_u64();
        assert_eq!(first, other.try_next_u64());
        recorded.set(0, 8);
        assert_ne!(first, one.try_next_u64());
    }
}
