//! A server on the fake device, as the process around it drives it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::super::Server;
use crate::Error;
use crate::device::{Block, Device, Done, Info, Loaded, Step, Ticket};
use crate::fake::{Costs, Fake};
use crate::host::{Binding, Host, Op, Owner, Settings, TenantLimits, Verdict};
use crate::kernel::Kernel;
use crate::slice::{self, Stage, Tenant};
use crate::wire::{Act, Answer, Ask, Refusal, Reply, Terms, Want};

pub(super) const BLOCK_BYTES: u64 = 4096;
const MEMORY_BYTES: u64 = 64 * BLOCK_BYTES;

/// Adds 1 to each word.
pub(super) const ADD: &str = "
    @group(0) @binding(0) var<storage, read_write> all: array<u32>;
    @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
        all[id.x] += 1u;
    }";

/// Counts for ever: it never comes to 0.
pub(super) const ENDLESS: &str = "
    @group(0) @binding(0) var<storage, read_write> count: u32;
    @compute @workgroup_size(1) fn main() {
        loop { count = (count + 2u) | 1u; if count == 0u { break; } }
    }";

/// The fake device, in two hands.
#[derive(Debug)]
pub(super) struct Shared {
    info: Info,
    probe: Arc<Mutex<Probe>>,
}

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) fake: Fake,
    /// Does not hear that it is to end something.
    pub(super) is_deaf: bool,
    /// Devices that can still be made.
    pub(super) spares: usize,
}

impl Device for Shared {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&mut self, bytes: u64) -> Result<Block, Error> {
        self.probe.lock().unwrap().fake.allocate(bytes)
    }

    fn free(&mut self, block: Block) {
        self.probe.lock().unwrap().fake.free(block);
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error> {
        self.probe.lock().unwrap().fake.write(block, offset, bytes)
    }

    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error> {
        self.probe.lock().unwrap().fake.read(block, offset, into)
    }

    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error> {
        self.probe.lock().unwrap().fake.load(kernel)
    }

    fn unload(&mut self, kernel: Loaded) {
        self.probe.lock().unwrap().fake.unload(kernel);
    }

    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error> {
        self.probe.lock().unwrap().fake.submit(steps)
    }

    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error> {
        self.probe.lock().unwrap().fake.wait(ticket, longest)
    }

    fn cancel(&mut self, ticket: Ticket) {
        let mut probe = self.probe.lock().unwrap();
        if !probe.is_deaf {
            probe.fake.cancel(ticket);
        }
    }
}

fn fake(memory_bytes: u64) -> Fake {
    let step = Duration::from_micros(5);
    let costs = Costs { step, bytes_per_micro: 64, operations_per_micro: 10 };
    Fake::new(memory_bytes).with_costs(costs)
}

pub(super) fn owner(tenant: u64, number: u32, instance: u64) -> Owner {
    Owner { stage: Stage { tenant: Tenant(tenant), number }, instance }
}

pub(super) fn terms() -> Terms {
    let bytes = 16 * BLOCK_BYTES;
    Terms { weight: 250_000, cap: None, guaranteed_bytes: bytes, borrowable_bytes: bytes }
}

/// What is said of a number.
pub(super) type Heard = (u64, Answer, Vec<u8>);

pub(super) struct Rig {
    pub(super) server: Server<Shared>,
    pub(super) probe: Arc<Mutex<Probe>>,
    number: u64,
    /// How often each number was answered: ends of submissions, and all else.
    pub(super) heard: BTreeMap<u64, [usize; 2]>,
    /// Numbers of submissions that were seen in the host, and those that were not told of yet.
    seen: BTreeSet<u64>,
    taken: Vec<u64>,
}

impl Rig {
    /// With two tenants, each of two stages, and begun.
    pub(super) fn new() -> Self {
        let mut rig = Self::empty(MEMORY_BYTES);
        for tenant in 1..=2 {
            assert_eq!(rig.says(Want::Tenant { tenant, terms: terms() }), Answer::Done);
            for number in 0..2 {
                let stage = owner(tenant, number, 0).stage;
                assert_eq!(rig.says(Want::Stage { stage, weight: 1_000 }), Answer::Done);
            }
        }
        rig
    }

    /// Without a tenant.
    pub(super) fn empty(memory_bytes: u64) -> Self {
        let probe = Probe { fake: fake(memory_bytes), is_deaf: false, spares: 2 };
        let probe = Arc::new(Mutex::new(probe));
        let made = Arc::clone(&probe);
        let make = move || {
            let mut probe = made.lock().unwrap();
            let spares = probe.spares.checked_sub(1);
            probe.spares = spares.ok_or_else(|| Error::None("no more".to_owned()))?;
            let now = probe.fake.now();
            probe.fake = fake(memory_bytes);
            probe.fake.advance(now);
            let info = probe.fake.info().clone();
            drop(probe);
            Ok(Shared { info, probe: Arc::clone(&made) })
        };
        let slices = slice::Settings { probe_groups: 1, ..slice::Settings::default() };
        let settings =
            Settings { slices, block_bytes: BLOCK_BYTES, generation: 5, ..Settings::default() };
        let limits = TenantLimits { queue: 2, fuel: 10_000, ..TenantLimits::default() };
        let server = Server::new(Host::new(settings, make).unwrap()).with_limits(limits);
        let mut rig = Self {
            server,
            probe,
            number: 0,
            heard: BTreeMap::new(),
            seen: BTreeSet::new(),
            taken: Vec::new(),
        };
        let begun = rig.replies();
        assert!(matches!(begun[..], [(0, Answer::Begun { generation: 5, .. }, _)]), "{begun:?}");
        rig
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Probe> {
        self.probe.lock().unwrap()
    }

    pub(super) fn now(&self) -> Duration {
        self.lock().fake.now()
    }

    pub(super) fn advance(&self, time: Duration) {
        self.lock().fake.advance(time);
    }

    /// Asks for something, by a number of its own.
    pub(super) fn ask(&mut self, want: Want, tail: &[u8]) -> u64 {
        self.number += 1;
        let ask = Ask { number: self.number, want };
        let mut packet = ask.head(tail.len()).unwrap();
        packet.extend(tail);
        let now = self.now();
        self.server.take(now, &packet).unwrap();
        self.see();
        self.number
    }

    /// Looks which submissions are new in the host.
    fn see(&mut self) {
        let numbers: BTreeSet<u64> = self.server.submissions.values().copied().collect();
        self.taken.extend(numbers.difference(&self.seen));
        self.seen.extend(numbers);
    }

    /// The submissions that the host has taken since this was asked last, in their order.
    pub(super) fn taken(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.taken)
    }

    pub(super) fn asks(&mut self, who: Owner, act: Act) -> u64 {
        self.ask(Want::Of(who, act), &[])
    }

    /// All that is said until now.
    pub(super) fn replies(&mut self) -> Vec<Heard> {
        let mut replies = Vec::new();
        while let Some((mut packet, tail)) = self.server.next_packet() {
            packet.extend(tail);
            let (Reply { number, answer }, tail) = Reply::read(&packet).unwrap();
            let is_end = matches!(answer, Answer::Ended { .. });
            let heard = self.heard.entry(number).or_default();
            heard[usize::from(!is_end)] += 1;
            assert!(is_end || heard[0] == 0, "an end is the last that is said of {number}");
            replies.push((number, answer, tail.to_vec()));
        }
        replies
    }

    /// The one answer to what is answered at once, and its bytes.
    #[track_caller]
    pub(super) fn answer(&mut self, want: Want, tail: &[u8]) -> (Answer, Vec<u8>) {
        let before = self.replies();
        assert_eq!(before, [], "nothing waits to be said");
        let number = self.ask(want, tail);
        let mut replies = self.replies();
        if replies.is_empty() {
            // What is copied is so in the next turn.
            self.turn(Duration::ZERO);
            replies = self.replies();
        }
        assert_eq!(replies.len(), 1, "{replies:?}");
        let (answered, answer, tail) = replies.remove(0);
        assert_eq!(answered, number);
        (answer, tail)
    }

    #[track_caller]
    pub(super) fn says(&mut self, want: Want) -> Answer {
        self.answer(want, &[]).0
    }

    #[track_caller]
    pub(super) fn does(&mut self, who: Owner, act: Act) -> Answer {
        self.says(Want::Of(who, act))
    }

    /// One turn.
    pub(super) fn turn(&mut self, longest: Duration) -> Verdict {
        let now = self.now();
        let verdict = self.server.drive(now, longest);
        self.see();
        verdict
    }

    /// Goes on until there is nothing to do, trying what is to be tried. What was said.
    pub(super) fn run(&mut self) -> Vec<Heard> {
        let mut replies = Vec::new();
        for _ in 0..10_000 {
            self.try_kernels();
            let verdict = self.turn(Duration::from_secs(1));
            replies.extend(self.replies());
            match verdict {
                Verdict::Busy => {}
                Verdict::Later(at) => self.advance(at - self.now()),
                Verdict::Idle | Verdict::Hung { .. } | Verdict::Gone(_) => return replies,
            }
        }
        panic!("there is no end to it");
    }

    pub(super) fn try_kernels(&mut self) {
        while let Some(trial) = self.server.next_trial() {
            self.server.tried(trial.number, &trial.check());
        }
    }

    #[track_caller]
    pub(super) fn buffer(&mut self, who: Owner, words: &[u32]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let buffer = handle(self.does(who, Act::Create { bytes: bytes.len() as u64 }));
        let write = Want::Of(who, Act::Write { buffer, offset: 0 });
        assert_eq!(self.answer(write, &bytes).0, Answer::Done);
        buffer
    }

    #[track_caller]
    pub(super) fn words(&mut self, who: Owner, buffer: u64) -> Vec<u32> {
        let Answer::Bytes(bytes) = self.does(who, Act::Size { buffer }) else { panic!() };
        let read = Want::Of(who, Act::Read { buffer, offset: 0, bytes });
        let (answer, bytes) = self.answer(read, &[]);
        assert_eq!(answer, Answer::Done);
        bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    #[track_caller]
    pub(super) fn kernel(&mut self, who: Owner, source: &str) -> u64 {
        let act = Act::Kernel { entry: "main".to_owned() };
        self.ask(Want::Of(who, act), source.as_bytes());
        self.try_kernels();
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1, "{replies:?}");
        handle(replies.remove(0).1)
    }

    /// A graph of one dispatch of a kernel with one slot.
    #[track_caller]
    pub(super) fn graph(&mut self, who: Owner, source: &str, groups: u32) -> u64 {
        let kernel = self.kernel(who, source);
        let steps = vec![Op::Dispatch { kernel, grid: [groups, 1, 1], slots: vec![0] }];
        let graph = handle(self.does(who, Act::Record { steps }));
        assert_eq!(self.does(who, Act::Free { handle: kernel }), Answer::Done);
        graph
    }
}

/// A submission that may take so many milliseconds.
pub(super) fn submit(graph: u64, buffer: u64, millis: u64, waits: bool) -> Act {
    let time_max = Duration::from_millis(millis);
    Act::Submit { graph, bindings: vec![Binding::whole(buffer)], time_max, waits }
}

#[track_caller]
pub(super) fn handle(answer: Answer) -> u64 {
    let Answer::Handle(handle) = answer else { panic!("{answer:?} is no handle") };
    handle
}

#[track_caller]
pub(super) fn code(answer: Answer) -> String {
    let Answer::Refused(Refusal { code, .. }) = answer else { panic!("{answer:?} is no refusal") };
    code
}
