//! How long partitions stand still when they move, by how much state they have.
//!
//! One stage passes events on, the next counts those of each key in its state. Counters are filled
//! in first, all of them in one partition; then that partition goes to the other node and comes
//! back, again and again, and so does the whole pipeline. Meanwhile events come in at a fixed rate,
//! and some clients each send one after the other and wait for its result.
//!
//! The pause is what these clients see: the longest time without a result around the move, less
//! what it is without a move, as a busy machine has pauses of its own. Each result must be one more
//! than the last of its key; at the end many other keys are looked at too.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use sluicebox_bench::client::{Client, with_body};
use sluicebox_bench::cluster::{Cluster, Move, NAMES, Way};
use sluicebox_bench::events::{keyed_by, numbered_key};
use sluicebox_bench::load::{Pour, Until, all, pour, wait_until};
use sluicebox_bench::node::{Node, Setup, Tenant};
use sluicebox_bench::options::Options;
use sluicebox_bench::pipelines::{COUNT, Chain, ECHO};
use sluicebox_bench::report::{Report, Target, number};
use sluicebox_bench::rounds::Rounds;
use sluicebox_bench::runtime;
use sluicebox_core::key;

use super::{PARTITIONS, in_partitions};

/// The pause with the most state, in milliseconds.
const PAUSE: f64 = 100.0;
/// State of the partition that moves.
const SIZES: [usize; 3] = [1, 16, 64];
/// What a counter takes in the store, key and value.
const ENTRY_BYTES: usize = 50;
/// The partition that moves.
const MOVES: u16 = 1;
const PIPELINE: &str = "counts";
/// Events of one request that fills in.
const REQUEST_EVENTS: usize = 4096;
/// Clients that wait for results; each has a key of its own, before all others.
const CLIENTS: usize = 4;
/// Events that come in meanwhile: of a request, and from one request to the next.
const BESIDE: usize = 20;
const EVERY: Duration = Duration::from_millis(10);
/// Between two moves.
const REST: Duration = Duration::from_millis(800);
/// Around the moment in which the node has them stand still.
const AROUND: Duration = Duration::from_millis(200);
/// Keys that are looked at in the end.
const LOOKS: usize = 500;
/// Between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// Where the steps of moves are told, and the lines that have them.
const LOG: &str = "warn,sluicebox_node::moving=debug";
const STEPS: &str = "steps=";

pub(super) fn run(options: &Options) -> Result<()> {
    let sizes = if options.quick { &SIZES[..1] } else { &SIZES[..] };
    let sizes = sizes.iter().filter(|size| options.only.len() < 2 || named(options, **size));
    for size in sizes {
        for whole in [false, true] {
            runtime()?.block_on(drive(*size, whole, options))?;
        }
    }
    Ok(())
}

/// Only some sizes, as in `pause 64`.
fn named(options: &Options, size: usize) -> bool {
    options.only.iter().any(|only| *only == size.to_string())
}

async fn drive(size: usize, whole: bool, options: &Options) -> Result<()> {
    let settings = vec![
        ("QUOTA__STATE_BYTES", "4GiB".to_owned()),
        ("QUOTA__EVENTS_PER_SECOND", "100000000".to_owned()),
        ("QUOTA__BYTES_PER_SECOND", "100GiB".to_owned()),
    ];
    let setup = Setup { settings, log: LOG, ..Setup::default() };
    let cluster = Cluster::start(Way::Ring, &setup).await?;
    let done = moved(&cluster, (size, whole), options).await;
    done.with_context(|| format!("the logs end with:\n{}", cluster.logs()))
}

async fn moved(cluster: &Cluster, (size, whole): (usize, bool), options: &Options) -> Result<()> {
    let tenant = Tenant::dev();
    let node = &cluster.nodes[0];
    node.push(&tenant, COUNT).await?;
    node.push(&tenant, &format!("hostile/{ECHO}")).await?;
    let chain = Chain {
        name: PIPELINE,
        exactly_once: true,
        stages: &[ECHO, COUNT],
        rekey: true,
        output: "reply",
        ..Chain::default()
    };
    node.apply(&tenant, PIPELINE, &in_partitions(&chain.manifest())).await?;
    let home = cluster.home_of(&tenant, PIPELINE).await?;
    let numbers =
        (0..).filter(|number| whole || is_in(*number)).take(size * (1 << 20) / ENTRY_BYTES);
    let moving = Moving {
        cluster,
        node: &cluster.nodes[home],
        home,
        tenant: &tenant,
        partitions: if whole { None } else { Some(&[MOVES]) },
        counts: numbers.map(|number| (number, Cell::new(1))).collect(),
        stop: Cell::new(false),
        moments: RefCell::default(),
    };
    moving.fill().await?;
    let rounds = if options.quick { 1 } else { 5 };
    let begun = Instant::now();
    let clients = all((0..CLIENTS).map(|at| moving.ask(at)));
    let (moves, ..) = tokio::try_join!(moving.go(rounds), moving.beside(), clients)?;
    moving.look().await?;
    let what = if whole { "the whole pipeline" } else { "one of four partitions" };
    let mut report = Report::new(&format!("{what} moves, with {size} MiB of state in it"));
    let per_second = moving.moments.borrow().len() as f64 / begun.elapsed().as_secs_f64();
    report.row("results a second meanwhile", per_second, " /s", Target::None);
    for (at, name) in ["out", "back"].iter().enumerate() {
        moving.show(name, moves.iter().skip(at).step_by(2), &mut report);
    }
    moving.show_steps(&mut report);
    Ok(())
}

/// A key of the partition that moves.
fn is_in(number: usize) -> bool {
    let group = key::group_of(numbered_key(number).as_bytes());
    key::partition_of(group, PARTITIONS) == MOVES
}

struct Moving<'a> {
    cluster: &'a Cluster,
    /// The home, to which clients speak.
    node: &'a Node,
    home: usize,
    tenant: &'a Tenant,
    /// None: all of it.
    partitions: Option<&'a [u16]>,
    /// The number of each key, and how often it was counted.
    counts: Vec<(usize, Cell<u64>)>,
    stop: Cell<bool>,
    /// When each result came.
    moments: RefCell<Vec<Instant>>,
}

impl Moving<'_> {
    /// Counts each key once.
    async fn fill(&self) -> Result<()> {
        let chunks = self.counts.chunks(REQUEST_EVENTS);
        let batch = |chunk: &[(usize, Cell<u64>)]| keyed_by(chunk.iter().map(|(key, _)| *key));
        let batches: Vec<_> = chunks.map(batch).collect();
        let poured = pour(&Pour {
            address: self.node.address,
            tenant: self.tenant,
            pipeline: PIPELINE,
            batches: &batches,
            connections: 4,
            until: Until::Sent,
        })
        .await?;
        ensure!(poured.events == self.counts.len() as u64, "{} events were taken", poured.events);
        // The last of all, and so all of them, are counted then.
        for (number, count) in self.counts.iter().rev().step_by(REQUEST_EVENTS / 3) {
            let mut client = self.node.connect().await?;
            self.count(&mut client, (*number, count)).await?;
        }
        Ok(())
    }

    /// Sends one event of a key and waits for its result, which must be one more than the last.
    async fn count(&self, client: &mut Client, of: (usize, &Cell<u64>)) -> Result<()> {
        let (number, count) = of;
        let path = self.tenant.path(&format!("pipelines/{PIPELINE}/events?wait=30s"));
        let key = numbered_key(number);
        let request = with_body("POST", &path, &[("sluicebox-key", &key)], b"");
        loop {
            let reply = client.ask(&request).await?;
            match reply.status {
                200 => {
                    let found = reply.body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
                    let expected = count.get() + 1;
                    ensure!(found == Some(expected), "{key}: {found:?}, and {expected} was next");
                    count.set(expected);
                    return Ok(());
                }
                // It was not taken.
                429 | 503 => {
                    if reply.closes() {
                        *client = self.node.connect().await?;
                    }
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                _ => return Err(reply.unexpected().into()),
            }
        }
    }

    /// One of the clients that wait for results.
    async fn ask(&self, at: usize) -> Result<()> {
        let (number, count) = &self.counts[at];
        let mut client = self.node.connect().await?;
        while !self.stop.get() {
            self.count(&mut client, (*number, count)).await?;
            self.moments.borrow_mut().push(Instant::now());
        }
        Ok(())
    }

    /// Events that come in meanwhile, at a fixed rate, of all other keys in turn.
    async fn beside(&self) -> Result<()> {
        let path = self.tenant.path(&format!("pipelines/{PIPELINE}/events"));
        let headers = [("content-type", "application/vnd.sluicebox.frame")];
        let mut client = self.node.connect().await?;
        let mut due = Instant::now();
        // Far from each other, so that no two of them lie in one place.
        let mut keys = (0..).map(|n: usize| n * 7919 % (self.counts.len() - CLIENTS) + CLIENTS);
        while !self.stop.get() {
            wait_until(due).await;
            due += EVERY;
            let chosen: Vec<_> = keys.by_ref().take(BESIDE).map(|at| &self.counts[at]).collect();
            let batch = keyed_by(chosen.iter().map(|(number, _)| *number));
            let request: Bytes = with_body("POST", &path, &headers, &batch.body);
            loop {
                let reply = client.ask(&request).await?;
                if reply.status == 202 {
                    break;
                }
                ensure!(matches!(reply.status, 429 | 503), reply.unexpected());
                if reply.closes() {
                    client = self.node.connect().await?;
                }
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            chosen.iter().for_each(|(_, count)| count.set(count.get() + 1));
        }
        Ok(())
    }

    /// Moves out and back, so many times.
    async fn go(&self, rounds: usize) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        tokio::time::sleep(REST).await;
        for _ in 0..rounds {
            for to in [(self.home + 1) % NAMES.len(), self.home] {
                let named = (self.tenant, PIPELINE);
                moves.push(self.cluster.moves(named, self.partitions, to).await?);
                tokio::time::sleep(REST).await;
            }
        }
        self.stop.set(true);
        Ok(moves)
    }

    /// Looks at many keys: each was counted as often as its events were taken.
    async fn look(&self) -> Result<()> {
        let mut client = self.node.connect().await?;
        let every = (self.counts.len() / LOOKS).max(1);
        for (number, count) in self.counts.iter().step_by(every) {
            self.count(&mut client, (*number, count)).await?;
        }
        Ok(())
    }

    fn show<'m>(&self, name: &str, moves: impl Iterator<Item = &'m Move>, report: &mut Report) {
        let moments = self.moments.borrow();
        let [mut pause, mut seen, mut before, mut usual, mut told, mut took] =
            std::array::from_fn(|_| Rounds::default());
        for Move { begun, ended, pause: said } in moves {
            // State is copied before, while the partition runs; then it stands still.
            let stands = (*begun).max(*ended - *said - AROUND);
            let longest = longest_gap(&moments, (stands, *ended + AROUND));
            let copying = longest_gap(&moments, (*begun, stands));
            let quiet = longest_gap(&moments, (*ended + AROUND, *ended + REST));
            pause.add(longest.max(copying) - quiet);
            seen.add(longest);
            before.add(copying);
            usual.add(quiet);
            told.add(said.as_secs_f64() * 1e3);
            took.add((*ended - *begun).as_secs_f64() * 1e3);
        }
        // A whole pipeline stands still while all of its state goes over.
        let target = self.partitions.map_or(Target::None, |_| Target::AtMost(PAUSE));
        report.row(&format!("{name}: pause, median"), pause.median(), " ms", target);
        // The longest gap of all, less the usual one: whatever the reason.
        let all = |of: &Rounds| [0.0, 0.5, 1.0].map(|share| number(of.quantile(share))).join(" / ");
        report.note(&format!(
            "least / median / most in ms: pause {}; longest gap at the end of the move {}, before \
             {}, usual gap {}; the node says {}; the move took {}",
            all(&pause),
            all(&seen),
            all(&before),
            all(&usual),
            all(&told),
            all(&took),
        ));
    }

    /// The steps of the last moves, as both nodes tell them.
    fn show_steps(&self, report: &mut Report) {
        for (node, name) in self.cluster.nodes.iter().zip(NAMES) {
            let mut lines = node.lines(STEPS);
            let last = lines.split_off(lines.len().saturating_sub(8));
            last.iter().for_each(|line| report.note(&format!("{name}: {line}")));
        }
    }
}

/// The longest time between two moments, one of which may lie outside the window, in milliseconds.
fn longest_gap(moments: &[Instant], (begun, ended): (Instant, Instant)) -> f64 {
    let from = moments.partition_point(|moment| *moment < begun).saturating_sub(1);
    let to = moments.partition_point(|moment| *moment <= ended);
    let inside = &moments[from..moments.len().min(to + 1)];
    let gaps = inside.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default().as_secs_f64() * 1e3
}
