//! One run of a query: its events in, its results out, both at once.
//!
//! - Requests are sent from some connections, and a request that is refused is sent again; none is
//!   so far behind the others that its events would be late.
//! - What is expected is known before the first event is sent.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sluicebox_bench::client::{Client, get, with_body};
use sluicebox_bench::events::{Tally, count_frames};
use sluicebox_bench::load::all;
use sluicebox_bench::node::{Node, Tenant};
use sluicebox_bench::root;
use sluicebox_core::frame::{Frame, FrameLimits, HEADER_BYTES};
use sluicebox_nexmark::generator::frames;
use sluicebox_nexmark::{Generator, What, model};
use tokio::sync::Notify;

use super::EVENT_RATE;

const FRAMES: &str = "application/vnd.sluicebox.frame";
/// Connections that send, and the events of a request.
const CONNECTIONS: usize = 16;
const REQUEST: u64 = 2_048;
/// How many requests one may be ahead of another: half of what `lateness` of the manifests allows.
const AHEAD: u64 = 2 * EVENT_RATE / REQUEST;
/// Results not read, of a query that gives each event or bid: less than its output retains.
const WINDOW: u64 = 60_000;
/// How long a sender leaves a node alone that said it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// What has not come for so long never will.
const STALL: Duration = Duration::from_secs(60);

/// What is to come out.
enum Expected {
    /// Each event, or each bid: so many.
    Each(u64),
    /// These lines.
    Lines(Vec<String>),
    /// So many lines, of which the last of each category say it all: these.
    Averages(u64, Vec<String>),
}

/// One run.
pub(super) struct Drive {
    query: &'static str,
    pipeline: String,
    generator: Generator,
    count: u64,
    expected: Expected,
}

/// What senders and the reader share.
#[derive(Default)]
struct Shared {
    next: Cell<u64>,
    open: RefCell<BTreeSet<u64>>,
    /// A request was accepted, or results were read.
    moved: Notify,
    sent: Cell<Tally>,
    read: Cell<Tally>,
}

impl Drive {
    /// Prepares a run with so many events.
    pub(super) fn new(query: &'static str, round: u64, count: u64) -> Result<Self> {
        let generator = Generator::new(round, EVENT_RATE);
        let list = || generator.events(0..count).chain([generator.closing(count)]);
        let bids = || list().filter(|e| matches!(e.what, What::Bid(_))).count();
        let expected = match query {
            "q0" => Expected::Each(count + 1),
            "q1" => Expected::Each(bids() as u64),
            "q2" => Expected::Lines(model::q2(list())),
            "q3" => Expected::Lines(model::q3(list())),
            "q4" => {
                let last = model::q4(list());
                let sold = last.iter().map(|line| part(line, "auctions")).sum::<Result<u64>>()?;
                Expected::Averages(sold, last)
            }
            "q5" => Expected::Lines(model::q5(list())),
            "q7" => Expected::Lines(model::q7(list())),
            "q8" => Expected::Lines(model::q8(list())),
            "q11" => Expected::Lines(model::q11(list())),
            _ => bail!("{query} is not measured"),
        };
        let pipeline = format!("nexmark-{query}-{round}");
        Ok(Self { query, pipeline, generator, count, expected })
    }

    /// How many results there are, if it is known.
    pub(super) fn results(&self) -> usize {
        match &self.expected {
            Expected::Each(count) | Expected::Averages(count, _) => *count as usize,
            Expected::Lines(lines) => lines.len(),
        }
    }

    /// Runs it: from the first event sent to the last result read.
    pub(super) async fn run(&self, node: &Node, tenant: &Tenant) -> Result<Duration> {
        let path = root()?.join(format!("examples/nexmark/{}.toml", self.query));
        let manifest = std::fs::read_to_string(path)?;
        let name = format!("name = \"nexmark-{}\"", self.query);
        ensure!(manifest.contains(&name), "the manifest of {} has another name", self.query);
        let manifest = manifest.replace(&name, &format!("name = \"{}\"", self.pipeline));
        node.apply(tenant, &self.pipeline, &manifest).await?;
        let shared = Shared::default();
        let begun = Instant::now();
        let sending = all((0..CONNECTIONS).map(|_| self.send(node, tenant, &shared)));
        let sending = async {
            sending.await?;
            // When all others are there, nothing is late behind the last.
            let last = frames([self.generator.closing(self.count)]);
            let mut client = node.connect().await?;
            self.sent(&shared, &last)?;
            self.ask(node, tenant, &mut client, &last).await
        };
        let ((), last) = tokio::try_join!(sending, Box::pin(self.read(node, tenant, &shared)))?;
        Ok(last - begun)
    }

    async fn send(&self, node: &Node, tenant: &Tenant, shared: &Shared) -> Result<()> {
        let mut client = node.connect().await?;
        loop {
            let number = shared.next.get();
            let from = number * REQUEST;
            if from >= self.count {
                return Ok(());
            }
            if !self.may_send(number, shared) {
                shared.moved.notified().await;
                continue;
            }
            shared.next.set(number + 1);
            shared.open.borrow_mut().insert(number);
            let to = (from + REQUEST).min(self.count);
            let body = frames(self.generator.events(from..to));
            self.sent(shared, &body)?;
            self.ask(node, tenant, &mut client, &body).await?;
            shared.open.borrow_mut().remove(&number);
            shared.moved.notify_waiters();
        }
    }

    /// Whether it is not too far ahead of what is sent, or read.
    fn may_send(&self, number: u64, shared: &Shared) -> bool {
        let open = shared.open.borrow().first().copied().unwrap_or(number);
        let unread = match self.expected {
            // Not each event gives one: so many of those that were sent do, about.
            Expected::Each(results) => {
                let due = number * REQUEST * results / self.count;
                due.saturating_sub(shared.read.get().events)
            }
            _ => 0,
        };
        number - open < AHEAD && unread <= WINDOW
    }

    /// Notes what is sent, and so will be; marks only where events come out as they went in.
    fn sent(&self, shared: &Shared, body: &[u8]) -> Result<()> {
        if self.query == "q0" {
            let mut sent = shared.sent.get();
            sent.join(count_frames(body)?);
            shared.sent.set(sent);
        }
        Ok(())
    }

    async fn ask(
        &self,
        node: &Node,
        tenant: &Tenant,
        client: &mut Client,
        body: &[u8],
    ) -> Result<()> {
        let mut headers = tenant.headers();
        headers.push(("content-type", FRAMES));
        let path = tenant.path(&format!("pipelines/{}/events", self.pipeline));
        let request = with_body("POST", &path, &headers, body);
        loop {
            let reply = client.ask(&request).await?;
            match reply.status {
                202 => return Ok(()),
                429 | 503 => {}
                _ => return Err(reply.unexpected().into()),
            }
            if reply.closes() {
                *client = node.connect().await?;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }

    /// Reads results until all are there, and checks them. Gives the moment the last one came.
    async fn read(&self, node: &Node, tenant: &Tenant, shared: &Shared) -> Result<Instant> {
        let mut client = node.connect().await?;
        let (mut cursor, mut lines) = (String::new(), Vec::new());
        let mut last = Instant::now();
        while shared.read.get().events < self.results() as u64 {
            let query = format!("?wait=100ms{cursor}");
            let path = format!("pipelines/{}/outputs/results{query}", self.pipeline);
            let mut headers = tenant.headers();
            headers.push(("accept", FRAMES));
            let reply = client.ask(&get(&tenant.path(&path), &headers)).await?;
            ensure!(reply.status == 200, reply.unexpected());
            let next = reply.header("sluicebox-cursor").context("a page without a cursor")?;
            cursor = format!("&cursor={next}");
            let tally = count_frames(reply.body)?;
            if tally.events == 0 {
                ensure!(last.elapsed() < STALL, "results do not come: {:?}", shared.read.get());
                continue;
            }
            last = Instant::now();
            if !matches!(self.expected, Expected::Each(_)) {
                take_lines(reply.body, &mut lines)?;
            }
            let mut read = shared.read.get();
            read.join(tally);
            shared.read.set(read);
            shared.moved.notify_waiters();
        }
        self.check(shared, lines)?;
        Ok(last)
    }

    fn check(&self, shared: &Shared, mut lines: Vec<String>) -> Result<()> {
        let (sent, read) = (shared.sent.get(), shared.read.get());
        ensure!(self.query != "q0" || sent == read, "{sent:?} went in, {read:?} came out");
        lines.sort();
        match &self.expected {
            Expected::Lines(expected) => ensure!(lines == *expected, "results are not the model's"),
            Expected::Averages(_, last) => {
                let missing = last.iter().find(|line| lines.binary_search(line).is_err());
                ensure!(missing.is_none(), "not among the averages: {missing:?}");
            }
            Expected::Each(_) => {}
        }
        Ok(())
    }
}

/// The payloads of the events in frames.
fn take_lines(body: &[u8], lines: &mut Vec<String>) -> Result<()> {
    let mut rest = Bytes::copy_from_slice(body);
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_le_bytes([rest[12], rest[13], rest[14], rest[15]]) as usize;
        let frame = Frame::parse(rest.split_to(length), &FrameLimits::FORMAT)?;
        for event in frame.events() {
            lines.push(std::str::from_utf8(event.payload)?.to_owned());
        }
    }
    Ok(())
}

/// A number in a line of JSON.
fn part(line: &str, name: &str) -> Result<u64> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    value[name].as_u64().with_context(|| format!("no {name}: {line}"))
}
