//! Finished spans on their way out: bounded, and nobody waits for room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::otlp::Span;
use crate::mailbox::lock;
use crate::metrics::TraceMetrics;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Mutex<VecDeque<Span>>,
    most: usize,
    /// So many are worth a wake.
    batch: usize,
    full: Notify,
    pub(super) metrics: Arc<TraceMetrics>,
}

impl Queue {
    pub(super) fn new(most: usize, batch: usize, metrics: Arc<TraceMetrics>) -> Self {
        let (spans, full) = (Mutex::default(), Notify::new());
        Self { spans, most, batch: batch.min(most), full, metrics }
    }

    /// Takes what there is room for, and counts the rest.
    pub(super) fn push(&self, new: Vec<Span>) {
        let (before, after, lost) = {
            let mut spans = lock(&self.spans);
            let before = spans.len();
            let room = self.most - before;
            let lost = new.len().saturating_sub(room);
            spans.extend(new.into_iter().take(room));
            (before, spans.len(), lost)
        };
        self.metrics.queued.add((after - before) as i64);
        if lost > 0 {
            self.metrics.dropped.add("queue", lost as u64);
        }
        // Once: who takes them takes all there are.
        if before < self.batch && after >= self.batch {
            self.full.notify_one();
        }
    }

    /// The next batch.
    pub(super) fn take(&self) -> Vec<Span> {
        let taken: Vec<Span> = {
            let mut spans = lock(&self.spans);
            let count = spans.len().min(self.batch);
            spans.drain(..count).collect()
        };
        self.metrics.queued.add(-(taken.len() as i64));
        taken
    }

    /// There is a whole batch.
    pub(super) fn has_batch(&self) -> bool {
        lock(&self.spans).len() >= self.batch
    }

    /// Returns when there came to be a whole batch.
    pub(super) async fn filled(&self) {
        self.full.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_counted_and_a_batch_wakes_once() {
        let queue = Queue::new(10, 4, Arc::default());
        let spans = |count| vec![Span::default(); count];
        queue.push(spans(3));
        assert!(!queue.has_batch());
        queue.push(spans(9));
        queue.push(spans(1));
        assert_eq!(queue.metrics.dropped.get(), [("queue", 3)]);
        assert_eq!(queue.metrics.queued.get(), 10);
        queue.filled().await;
        let taken: Vec<usize> = (0..4).map(|_| queue.take().len()).collect();
        assert_eq!(taken, [4, 4, 2, 0]);
        assert_eq!(queue.metrics.queued.get(), 0);
    }
}
