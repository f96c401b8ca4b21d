//! A device without any driver: kernels are interpreted, and time is counted, not measured.
//!
//! - All that a device promises, it promises. It is stricter where a real one is undefined, and the
//!   same calls give the same bytes and the same times on every machine.
//! - Time passes while somebody waits ([`Device::wait`]) or says so ([`Fake::advance`]), and then
//!   work is done, as much as fits into it. So an endless kernel is endless, and can be cancelled.
//! - What a step or a copy takes is a price for it and for each byte or operation ([`Costs`]). No
//!   time passes by a copy: it is beside the device's work.
//! - It fails when it is told to: lost at a certain submission, or out of memory.
//!
//! Leaves to others: what kernels come to (`kernel::interpret`).

mod work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::device::check::{Stock, check, inside};
use crate::device::{Block, Device, Done, Info, Kind, Limits, Loaded, Run, Span, Step, Ticket};
use crate::kernel::interpret::Program;
use crate::kernel::{Access, Kernel, Slot};
use work::{Job, Memory, Work};

/// Limits that most GPUs keep, but for the offset, which is what the strictest ask for.
const LIMITS: Limits = Limits {
    groups: 65_535,
    group_threads: 1024,
    group_bytes: 32 * 1024,
    binding_bytes: 128 * 1024 * 1024,
    bindings: 8,
    offset_bytes: 256,
    iterations: None,
};

/// What things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// Each step, whatever it does, and each copy there or back.
    pub step: Duration,
    /// Bytes that are filled or copied in a microsecond; at least 1.
    pub bytes_per_micro: u64,
    /// Operations of kernels in a microsecond; at least 1. One of them moves a few words, or
    /// computes with them.
    pub operations_per_micro: u64,
}

impl Default for Costs {
    fn default() -> Self {
        let step = Duration::from_micros(5);
        Self { step, bytes_per_micro: 8_000, operations_per_micro: 1_000 }
    }
}

impl Costs {
    /// What is written or read at once.
    fn copy(&self, bytes: usize) -> Duration {
        let nanos = (bytes as u64).saturating_mul(1_000) / self.bytes_per_micro.max(1);
        self.step.saturating_add(Duration::from_nanos(nanos))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Fake {
    info: Info,
    costs: Costs,
    stock: Holdings,
    memory: Memory,
    /// In the order in which it was submitted; the first is under way.
    queue: VecDeque<(Ticket, Work)>,
    ended: BTreeMap<Ticket, Ended>,
    /// Nanoseconds of the clock, and up to where the device has worked.
    now: u64,
    worked: u64,
    /// Blocks, kernels and submissions until now.
    named: u64,
    faults: Faults,
}

/// What is in it, as long as it was not given back.
#[derive(Debug)]
struct Holdings {
    limits: Limits,
    blocks: BTreeMap<Block, u64>,
    kernels: BTreeMap<Loaded, (Arc<Program>, Vec<Slot>)>,
}

/// Work that is done, and when it is.
#[derive(Debug)]
struct Ended {
    at: u64,
    result: Result<Done, Error>,
    /// What it has read, and written.
    uses: [Vec<Span>; 2],
}

#[derive(Debug, Default)]
struct Faults {
    submits_until_lost: Option<u64>,
    allocations_until_full: Option<u64>,
    is_lost: bool,
}

impl Stock for Holdings {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn block_bytes(&self, block: Block) -> Option<u64> {
        self.blocks.get(&block).copied()
    }

    fn slots(&self, kernel: Loaded) -> Option<&[Slot]> {
        self.kernels.get(&kernel).map(|(_, slots)| &slots[..])
    }
}

impl Fake {
    /// A device with so much memory.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        let info = Info {
            name: "fake".to_owned(),
            driver: concat!("sluicebox ", env!("CARGO_PKG_VERSION")).to_owned(),
            kind: Kind::Fake,
            memory_bytes,
            copies_wait: false,
            loads_wait: false,
            limits: LIMITS,
        };
        let stock = Holdings { limits: LIMITS, blocks: BTreeMap::new(), kernels: BTreeMap::new() };
        Self {
            info,
            costs: Costs::default(),
            stock,
            memory: Memory::default(),
            queue: VecDeque::new(),
            ended: BTreeMap::new(),
            now: 0,
            worked: 0,
            named: 0,
            faults: Faults::default(),
        }
    }

    /// The same with other costs.
    #[must_use]
    pub fn with_costs(mut self, costs: Costs) -> Self {
        self.costs = costs;
        self
    }

    /// Its clock, which begins at 0.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Lets time pass, and the device work.
    pub fn advance(&mut self, time: Duration) {
        self.now = self.now.saturating_add(nanos(time));
        self.catch_up();
    }

    /// Has the device lost at a submission that is still to come: 1 is the next.
    pub fn lose_at_submit(&mut self, number: u64) {
        self.faults.submits_until_lost = Some(number);
    }

    /// Has the memory full at an allocation that is still to come, and at all after it, whatever is
    /// free: 1 is the next.
    pub fn fill_up_at_allocate(&mut self, number: u64) {
        self.faults.allocations_until_full = Some(number);
    }

    fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    fn expect_alive(&self) -> Result<(), Error> {
        if self.faults.is_lost {
            return Err(Error::Lost("it was told to be".to_owned()));
        }
        Ok(())
    }

    /// Works until now.
    fn catch_up(&mut self) {
        let now = self.now;
        while self.worked < now && !self.queue.is_empty() {
            self.work(now);
        }
    }

    /// Works on what is first, until it is done or the time has come.
    fn work(&mut self, until: u64) {
        let Some((ticket, work)) = self.queue.front_mut() else {
            return;
        };
        let time = until.saturating_sub(self.worked);
        let before = work.took();
        let ended = work.advance(&mut self.memory, &self.costs, time);
        self.worked = self.worked.saturating_add(work.took() - before);
        if let Some(end) = ended {
            let took = Duration::from_nanos(work.took());
            let result = end.map(|end| Done { took, end });
            let uses = work.take_uses();
            self.ended.insert(*ticket, Ended { at: self.worked, result, uses });
            self.queue.pop_front();
            self.sweep();
        }
    }

    /// Gives back memory that is no longer named or used.
    fn sweep(&mut self) {
        let uses = self.queue.iter().flat_map(|(_, work)| work.uses().into_iter().flatten());
        let used: Vec<Block> = uses.map(|span| span.block).collect();
        self.memory.keep(|block| self.stock.blocks.contains_key(&block) || used.contains(&block));
    }

    /// Whether work that has not ended writes some bytes, or, `for_write`, reads them.
    fn is_used(&self, span: &Span, for_write: bool) -> bool {
        let ended = self.ended.values().filter(|ended| ended.at > self.now);
        let ended = ended.map(|ended| [&ended.uses[0][..], &ended.uses[1][..]]);
        let mut all = self.queue.iter().map(|(_, work)| work.uses()).chain(ended);
        all.any(|[reads, writes]| {
            let meets = |spans: &[Span]| spans.iter().any(|used| used.overlaps(span));
            meets(writes) || (for_write && meets(reads))
        })
    }

    /// The bytes of a block, if they are there and no work uses them.
    fn reach(
        &mut self,
        block: Block,
        offset: u64,
        bytes: usize,
        for_write: bool,
    ) -> Result<&mut [u8], Error> {
        self.expect_alive()?;
        self.catch_up();
        let span = Span { block, offset, bytes: bytes as u64 };
        inside(span, &self.stock).map_err(Error::Wrong)?;
        if self.is_used(&span, for_write) {
            return Err(Error::Wrong("work that has not ended uses the memory".to_owned()));
        }
        Ok(self.memory.at(&span))
    }

    /// A step that was checked.
    fn job(&self, step: &Step) -> Job {
        match step {
            Step::Fill { at, word } => Job::Fill { at: *at, word: *word },
            Step::Copy { from, to, offset } => {
                let to = Span { block: *to, offset: *offset, bytes: from.bytes };
                Job::Copy { from: *from, to }
            }
            Step::Run(run) => {
                let (program, slots) = &self.stock.kernels[&run.kernel];
                let Run { bindings, grid, from, groups, fuel, .. } = run.clone();
                let slots = slots.iter().map(|slot| slot.access == Access::ReadWrite);
                let bindings = bindings.into_iter().zip(slots).collect();
                let program = Arc::clone(program);
                Job::Run { program, bindings, grid, from, groups, fuel }
            }
        }
    }
}

impl Device for Fake {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&mut self, bytes: u64) -> Result<Block, Error> {
        self.expect_alive()?;
        if bytes == 0 {
            return Err(Error::Wrong("a block of no bytes".to_owned()));
        }
        self.catch_up();
        let full = &mut self.faults.allocations_until_full;
        *full = full.map(|number| number.saturating_sub(1));
        let is_free = self.memory.bytes() <= self.info.memory_bytes.saturating_sub(bytes)
            && bytes <= self.info.memory_bytes;
        if *full == Some(0) || !is_free {
            return Err(Error::Memory { bytes });
        }
        let block = Block(self.name());
        self.memory.add(block, bytes)?;
        self.stock.blocks.insert(block, bytes);
        Ok(block)
    }

    fn free(&mut self, block: Block) {
        self.catch_up();
        self.stock.blocks.remove(&block);
        self.sweep();
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error> {
        self.reach(block, offset, bytes.len(), true)?.copy_from_slice(bytes);
        Ok(self.costs.copy(bytes.len()))
    }

    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error> {
        into.copy_from_slice(self.reach(block, offset, into.len(), false)?);
        Ok(self.costs.copy(into.len()))
    }

    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error> {
        self.expect_alive()?;
        fits(kernel, &self.info.limits).map_err(Error::Wrong)?;
        let program = Program::of(kernel).map_err(|why| Error::Driver(why.to_string()))?;
        let loaded = Loaded(self.name());
        self.stock.kernels.insert(loaded, (Arc::new(program), kernel.slots().to_vec()));
        Ok(loaded)
    }

    fn unload(&mut self, kernel: Loaded) {
        self.stock.kernels.remove(&kernel);
    }

    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error> {
        self.expect_alive()?;
        self.catch_up();
        check(steps, &self.stock)?;
        let until_lost = &mut self.faults.submits_until_lost;
        *until_lost = until_lost.map(|number| number.saturating_sub(1));
        if *until_lost == Some(0) {
            self.faults.is_lost = true;
            // What was in it is gone.
            self.queue.clear();
            self.ended.clear();
            self.stock.blocks.clear();
            self.stock.kernels.clear();
            self.sweep();
        }
        self.expect_alive()?;
        let ticket = Ticket(self.name());
        let work = Work::new(steps.iter().map(|step| self.job(step)).collect());
        if self.queue.is_empty() {
            self.worked = self.worked.max(self.now);
        }
        self.queue.push_back((ticket, work));
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error> {
        self.expect_alive()?;
        self.catch_up();
        let until = self.now.saturating_add(nanos(longest));
        while !self.ended.contains_key(&ticket) {
            if self.queue.iter().all(|(queued, _)| *queued != ticket) {
                return Err(Error::Wrong(format!("there is no ticket {}", ticket.0)));
            }
            if self.worked >= until {
                break;
            }
            self.work(until);
        }
        let at = self.ended.get(&ticket).map_or(u64::MAX, |ended| ended.at);
        if at > until {
            self.now = until;
            return Ok(None);
        }
        self.now = self.now.max(at);
        self.ended.remove(&ticket).map(|ended| ended.result).transpose()
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.catch_up();
        if let Some((_, work)) = self.queue.iter_mut().find(|(queued, _)| *queued == ticket) {
            work.cancel();
        }
    }
}

/// Whether a kernel is within the limits.
fn fits(kernel: &Kernel, limits: &Limits) -> Result<(), String> {
    let threads: u64 = kernel.threads().iter().map(|threads| u64::from(*threads)).product();
    let found = [
        ("invocations in a workgroup", threads, u64::from(limits.group_threads)),
        ("bytes that a workgroup shares", kernel.group_bytes().into(), limits.group_bytes.into()),
        ("slots", kernel.slots().len() as u64, limits.bindings.into()),
    ];
    let slots = kernel.slots().iter();
    let slots = slots.map(|slot| ("bytes of a slot", slot.bytes_min, limits.binding_bytes));
    match found.into_iter().chain(slots).find(|(_, count, most)| count > most) {
        Some((what, count, most)) => Err(format!("{count} {what}, at most {most}")),
        None => Ok(()),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
