//! The bill: what tenants used, as far as the log says it, and what is measured for it.
//!
//! ```text
//! commits, ingests ──────────────────────────────► log ─► checkpoints' thread ─► books ─► store
//! meter: memory, disk, links, GPU, no log ─► record ┘                              │
//!                                                              requests, other nodes ◄┘
//! ```
//!
//! - The books are what the records say, and nothing else: they are a fold of the log, kept with
//!   checkpoints, and so are the same behind any crash.
//! - What no commit has is measured by the [`Meter`], and written into the log now and then.
//!   Until then it is in memory: a crash loses it, and bills nothing twice.
//! - Each node bills what it ran. A bill of several nodes is made by whoever is asked.
//!
//! What is counted how is in `core/bill` and `docs/guide/bill.md`; how it is told, in
//! `describe/bill.rs`.

mod meter;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluicebox_core::bill::{Books, Prices};
use sluicebox_core::codec::{RecordWriter, UsageRecord, kind};
use sluicebox_core::ids::Name;
use sluicebox_store::log::{Class, Log};

use crate::components::blocking;
use crate::config::BillConfig;
use crate::error::Error;
use crate::mailbox::lock;
use crate::node::Node;
use crate::running::Running;
use crate::running::event_time::now_micros;
use meter::Meter;

/// How often is measured where there are few pipelines; more take longer, so that it stays cheap.
const LOOK: Duration = Duration::from_secs(1);
const PIPELINES_A_LOOK: usize = 500;

/// So many intervals pass between records of nothing but time that goes by: an idle node rests.
const IDLE_INTERVALS: u32 = 10;

/// Lines of one record: with the longest names, less than the smallest log takes at once.
const LINES_MAX: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bill {
    books: Arc<Mutex<Books>>,
    meter: Mutex<Meter>,
    prices: Prices,
    interval: Duration,
}

impl Bill {
    /// Of a node whose log has what is in these books so far.
    pub(crate) fn new(books: Arc<Mutex<Books>>, config: &BillConfig) -> Self {
        let (prices, interval) = (config.prices(), config.interval);
        Self { books, meter: Mutex::default(), prices, interval }
    }

    /// What everything costs.
    pub(crate) fn prices(&self) -> &Prices {
        &self.prices
    }

    /// A tenant's account in bytes, for another node. It may be large: workers do not wait for it.
    ///
    /// # Errors
    /// It was not made.
    pub(crate) async fn account(&self, tenant: Name) -> Result<Vec<u8>, Error> {
        let books = self.books.clone();
        blocking(move || Ok(lock(&books).keep(&tenant, 0))).await
    }

    /// Books with nothing but a tenant's account.
    ///
    /// # Errors
    /// They were not made.
    pub(crate) async fn books_of(&self, tenant: Name) -> Result<Books, Error> {
        let books = self.books.clone();
        blocking(move || Ok(lock(&books).only(&tenant))).await
    }

    /// Measures what a pipeline did up to now that ends here, or goes on as another version.
    pub(crate) fn last_look(&self, running: &Running) {
        lock(&self.meter).last_look(running);
    }

    /// Measures, and puts what was measured into the log if that is due, so long after the last
    /// time. Whether it was.
    fn measure(&self, node: &Node, since: Duration) -> bool {
        let mut meter = lock(&self.meter);
        meter.look(node, Instant::now());
        let due = if meter.has_work() { self.interval } else { self.interval * IDLE_INTERVALS };
        let is_due = since >= due;
        if is_due {
            write(&mut meter, node.log().as_ref());
        }
        is_due
    }

    /// Measures a last time, and puts what is not in the log into it.
    pub(crate) fn close(&self, node: &Node) {
        let mut meter = lock(&self.meter);
        meter.look(node, Instant::now());
        write(&mut meter, node.log().as_ref());
    }
}

/// Measures and writes, for as long as the node runs.
pub(crate) async fn run(node: Arc<Node>) {
    let mut wrote = Instant::now();
    loop {
        let pipelines = u32::try_from(node.all_running().len() / PIPELINES_A_LOOK);
        tokio::time::sleep(LOOK * (1 + pipelines.unwrap_or(u32::MAX).min(600))).await;
        // Beside the workers: with many pipelines it takes a while.
        let (own, since) = (node.clone(), wrote.elapsed());
        match blocking(move || Ok(own.bill().measure(&own, since))).await {
            Ok(true) => wrote = Instant::now(),
            Ok(false) => {}
            Err(error) => tracing::error!("what was used is not measured: {error}"),
        }
    }
}

/// Puts what was measured into the log. What that has no room for waits.
fn write(meter: &mut Meter, log: &dyn Log) {
    let time = now_micros();
    let mut writer = RecordWriter::new();
    let mut lines = meter.lines();
    while !lines.is_empty() {
        let rest = lines.split_off(lines.len().min(LINES_MAX));
        let record = UsageRecord { time, lines };
        writer.usage(&record);
        if log.append(Class::Ingest, kind::USAGE, &writer.parts()).is_err() {
            return;
        }
        meter.written(&record.lines);
        lines = rest;
    }
    meter.tidy();
}
