//! A host on the fake device: what each part offers, what is refused, and a naive model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use sluicebox_core::error::Classify;

use super::*;
use crate::device::{Block, Done, Loaded, Step, Ticket};
use crate::fake::{Costs, Fake};
use crate::kernel::Kernel;
use crate::slice;

mod buffers;
mod ends;
mod graphs;
mod kernels;
mod model;
mod room;
mod witness;
mod work;

/// Adds 1 to each word.
const ADD: &str = "
    @group(0) @binding(0) var<storage, read_write> all: array<u32>;
    @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
        all[id.x] += 1u;
    }";

/// Adds the words of a buffer to those of another.
const SUM: &str = "
    @group(0) @binding(0) var<storage, read> more: array<u32>;
    @group(0) @binding(1) var<storage, read_write> all: array<u32>;
    @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
        all[id.x] += more[id.x];
    }";

/// Counts for ever: it never comes to 0.
const ENDLESS: &str = "
    @group(0) @binding(0) var<storage, read_write> count: u32;
    @compute @workgroup_size(1) fn main() {
        loop { count = (count + 2u) | 1u; if count == 0u { break; } }
    }";

const BLOCK_BYTES: u64 = 4096;
const MEMORY_BYTES: u64 = 64 * BLOCK_BYTES;
const A: Tenant = Tenant(1);
const B: Tenant = Tenant(2);

/// What is known of the device besides what the host says.
#[derive(Debug)]
struct Probe {
    fake: Fake,
    busy: u128,
    blocks: BTreeMap<Block, u64>,
    kernels: BTreeSet<Loaded>,
    loads: usize,
    submits: usize,
    /// Does not hear that it is to end something.
    is_deaf: bool,
    /// Devices that can still be made.
    spares: usize,
}

impl Probe {
    fn held(&self) -> u64 {
        self.blocks.values().sum()
    }
}

/// The fake device, in two hands.
#[derive(Debug)]
struct Shared {
    info: Info,
    probe: Arc<Mutex<Probe>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap()
    }
}

impl Device for Shared {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&mut self, bytes: u64) -> Result<Block, Error> {
        let mut probe = self.lock();
        let block = probe.fake.allocate(bytes)?;
        probe.blocks.insert(block, bytes);
        Ok(block)
    }

    fn free(&mut self, block: Block) {
        let mut probe = self.lock();
        probe.fake.free(block);
        assert!(probe.blocks.remove(&block).is_some(), "it is given back once");
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error> {
        self.lock().fake.write(block, offset, bytes)
    }

    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error> {
        self.lock().fake.read(block, offset, into)
    }

    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error> {
        let mut probe = self.lock();
        probe.loads += 1;
        let loaded = probe.fake.load(kernel)?;
        probe.kernels.insert(loaded);
        Ok(loaded)
    }

    fn unload(&mut self, kernel: Loaded) {
        let mut probe = self.lock();
        probe.fake.unload(kernel);
        assert!(probe.kernels.remove(&kernel), "it is unloaded once");
    }

    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error> {
        let mut probe = self.lock();
        probe.submits += 1;
        probe.fake.submit(steps)
    }

    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error> {
        let mut probe = self.lock();
        let done = probe.fake.wait(ticket, longest)?;
        probe.busy += done.map_or(0, |done| done.took.as_nanos());
        Ok(done)
    }

    fn cancel(&mut self, ticket: Ticket) {
        let mut probe = self.lock();
        if !probe.is_deaf {
            probe.fake.cancel(ticket);
        }
    }
}

fn slow_fake() -> Fake {
    let step = Duration::from_micros(5);
    let costs = Costs { step, bytes_per_micro: 64, operations_per_micro: 10 };
    Fake::new(MEMORY_BYTES).with_costs(costs)
}

/// A host with what it drives.
struct Rig {
    host: Host<Shared>,
    probe: Arc<Mutex<Probe>>,
}

fn settings() -> Settings {
    let slices = slice::Settings { probe_groups: 1, ..slice::Settings::default() };
    let watch_time_max = Duration::from_millis(500);
    Settings { slices, block_bytes: BLOCK_BYTES, watch_time_max, ..Settings::default() }
}

fn terms() -> TenantTerms {
    TenantTerms {
        weight: 250_000,
        cap: None,
        guaranteed_bytes: 16 * BLOCK_BYTES,
        borrowable_bytes: 16 * BLOCK_BYTES,
        limits: TenantLimits { queue: 4, fuel: 10_000, ..TenantLimits::default() },
    }
}

fn with_limits(limits: TenantLimits) -> TenantTerms {
    TenantTerms { limits, ..terms() }
}

fn owner(tenant: Tenant, number: u32, instance: u64) -> Owner {
    Owner { stage: Stage { tenant, number }, instance }
}

impl Rig {
    fn empty() -> Self {
        let probe = Probe {
            fake: slow_fake(),
            busy: 0,
            blocks: BTreeMap::new(),
            kernels: BTreeSet::new(),
            loads: 0,
            submits: 0,
            is_deaf: false,
            spares: 1,
        };
        let probe = Arc::new(Mutex::new(probe));
        let made = Arc::clone(&probe);
        let make = move || {
            let mut probe = made.lock().unwrap();
            let spares = probe.spares.checked_sub(1);
            probe.spares = spares.ok_or_else(|| Error::None("no more".to_owned()))?;
            let now = probe.fake.now();
            probe.fake = slow_fake();
            probe.fake.advance(now);
            probe.blocks.clear();
            probe.kernels.clear();
            let info = probe.fake.info().clone();
            drop(probe);
            Ok(Shared { info, probe: Arc::clone(&made) })
        };
        Self { host: Host::new(settings(), make).unwrap(), probe }
    }

    /// With A and B, each of two stages.
    fn new(terms: TenantTerms) -> Self {
        let mut rig = Self::empty();
        for tenant in [A, B] {
            rig.open(tenant, terms);
        }
        rig
    }

    fn open(&mut self, tenant: Tenant, terms: TenantTerms) {
        let now = self.now();
        self.host.open(now, tenant, terms).unwrap();
        for number in 0..2 {
            self.host.open_stage(Stage { tenant, number }, 1_000).unwrap();
        }
    }

    fn probe(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap()
    }

    fn now(&self) -> Duration {
        self.probe().fake.now()
    }

    fn advance(&self, time: Duration) {
        self.probe().fake.advance(time);
    }

    /// One turn that waits up to so long.
    fn turn(&mut self, longest: Duration) -> Verdict {
        let now = self.now();
        self.host.drive(now, longest)
    }

    /// Goes on until there is nothing to do, or it has hung. What has happened.
    fn run(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..10_000 {
            let verdict = self.turn(Duration::from_secs(1));
            events.extend(std::iter::from_fn(|| self.host.poll()));
            match verdict {
                Verdict::Busy => {}
                Verdict::Later(at) => self.advance(at - self.now()),
                Verdict::Idle | Verdict::Hung { .. } | Verdict::Gone(_) => return events,
            }
        }
        panic!("there is no end to it");
    }

    /// How all submissions end that are there, in the order in which they do.
    fn ends(&mut self) -> Vec<(u64, End)> {
        let ended = self.run().into_iter().filter_map(|event| match event {
            Event::Ended { submission, end, .. } => Some((submission, end)),
            _ => None,
        });
        ended.collect()
    }

    fn buffer(&mut self, who: Owner, words: &[u32]) -> u64 {
        let now = self.now();
        let buffer = self.host.create(now, who, words.len() as u64 * 4).unwrap();
        self.host.write(who, buffer, 0, &bytes_of(words)).unwrap();
        buffer
    }

    fn words(&mut self, who: Owner, buffer: u64) -> Result<Vec<u32>, Refused> {
        let mut bytes = vec![0xA5; self.host.bytes(who, buffer)? as usize];
        self.host.read(who, buffer, 0, &mut bytes)?;
        Ok(bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
    }

    fn kernel(&mut self, who: Owner, source: &str) -> u64 {
        self.host.kernel(who, source, "main").unwrap()
    }

    /// A graph of one dispatch of a kernel with one slot.
    fn graph(&mut self, who: Owner, source: &str, groups: u32) -> u64 {
        let kernel = self.kernel(who, source);
        let op = Op::Dispatch { kernel, grid: [groups, 1, 1], slots: vec![0] };
        let graph = self.host.record(who, &[op]).unwrap();
        let now = self.now();
        self.host.drop_handle(now, who, kernel).unwrap();
        graph
    }

    fn submit(&mut self, who: Owner, graph: u64, buffers: &[u64]) -> Result<u64, Refused> {
        let bindings = buffers.iter().map(|buffer| Binding::whole(*buffer)).collect();
        self.host.submit(who, &Order { graph, bindings, deadline: None })
    }

    /// Begins something that never ends by itself, with as much fuel as there is.
    fn begin_endless(&mut self, who: Owner) -> (u64, u64) {
        let now = self.now();
        let before = self.host.open_space(who.tenant()).unwrap().terms;
        let fuel = u32::MAX;
        let limits = TenantLimits { fuel, ..before.limits };
        self.host.change(now, who.tenant(), TenantTerms { limits, ..before }).unwrap();
        let graph = self.graph(who, ENDLESS, 1);
        let buffer = self.buffer(who, &[7]);
        let submission = self.submit(who, graph, &[buffer]).unwrap();
        self.host.change(now, who.tenant(), before).unwrap();
        assert_eq!(self.turn(Duration::from_millis(1)), Verdict::Busy);
        (submission, buffer)
    }

    /// Closes all tenants, and sees that all was given back and paid for.
    fn close_all(&mut self) {
        // Those that are about to go do so before.
        self.run();
        let now = self.now();
        let mut paid = self.host.bill_in_all(now);
        for tenant in self.host.spaces.keys().copied().collect::<Vec<_>>() {
            let bill = self.host.bill(now, Tenant(tenant)).unwrap();
            paid = less(paid, bill);
            self.host.close(now, Tenant(tenant)).unwrap();
        }
        let closed = self.run();
        let bills = closed.iter().filter_map(|event| match event {
            Event::Closed { bill, .. } => Some(*bill),
            _ => None,
        });
        let now = self.now();
        let rest = bills.fold(self.host.bill_in_all(now), less);
        assert_eq!(rest, paid, "what those who were gone have paid stays");
        let probe = self.probe();
        assert_eq!((probe.blocks.len(), probe.kernels.len()), (0, 0), "all is given back");
        drop(probe);
        let busy = self.probe().busy;
        assert_eq!(self.host.bill_in_all(now).used.device_nanos, busy);
        assert_eq!(self.host.ledger.free(), MEMORY_BYTES / BLOCK_BYTES);
        let host = &self.host;
        let left = [host.parts.len(), host.deadlines.len(), host.flights.len(), host.events.len()];
        assert_eq!((left, host.spaces.len()), ([0; 4], 0), "nothing is left");
    }
}

/// What is left of a bill when another is paid.
fn less(all: Bill, part: Bill) -> Bill {
    let Used { device_nanos, chunks, copy_nanos, up_bytes, down_bytes } = part.used;
    Bill {
        used: Used {
            device_nanos: all.used.device_nanos - device_nanos,
            chunks: all.used.chunks - chunks,
            copy_nanos: all.used.copy_nanos - copy_nanos,
            up_bytes: all.used.up_bytes - up_bytes,
            down_bytes: all.used.down_bytes - down_bytes,
        },
        memory_byte_nanos: all.memory_byte_nanos - part.memory_byte_nanos,
    }
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The code with which something is refused.
#[track_caller]
fn code<T: fmt::Debug>(answer: Result<T, Refused>) -> &'static str {
    answer.expect_err("it is refused").code()
}
