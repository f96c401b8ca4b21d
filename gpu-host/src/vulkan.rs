//! A device by Vulkan 1.3: the system's library, one adapter, one queue that computes.
//!
//! - A machine without Vulkan, or without a device as it is wanted, is [`Error::None`]: a value.
//! - Steps are checked, all of them, before anything is recorded (`device::check`); what is
//!   recorded asserts it once more. All unsafe code is in the folder of this file.
//! - Memory that was given back, and kernels that were unloaded, stay until no work uses them.
//! - Memory that the processor reaches is used in place, without a submission. Other memory goes
//!   through two buffers: reads of it, and writes that do not fit, wait for the work before them.
//! - Limits of the driver that it keeps to itself are found out when it is opened (`probe`).
//!
//! Of a uniform binding, a kernel with an index out of range may read up to 252 bytes of the same
//! block behind it, if the driver bounds only so coarsely. Whoever places buffers sees to what is
//! there.
//!
//! Leaves to others: the time work may take, and ending the process if it does not end at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::device::check::{Stock, check, inside};
use crate::device::{Block, Device, Done, Info, Kind, Limits, Loaded, Run, Span, Step, Ticket};
use crate::kernel::{Access, Kernel, LOOK_ITERATIONS, Slot, SpirvOptions};

mod adapter;
#[cfg(feature = "contract")]
pub mod bare;
mod buffer;
mod command;
mod gpu;
mod instance;
mod pipeline;
mod probe;
mod queue;
mod recording;

use adapter::{Adapter, Use};
use buffer::Buffer;
use command::{Command, Dispatch, Groups, Part};
use gpu::Gpu;
pub use instance::Complaints;
use instance::Instance;
use pipeline::{Pipeline, Words};
use queue::Queue;

/// Pieces of memory that we take for ourselves, at most.
const OWN_BLOCKS_MAX: usize = 64;

/// Which device it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// One with memory of its own before one without, and either before the processor.
    #[default]
    Best,
    /// One of a kind.
    Kind(Kind),
    /// One whose name has this in it, in small letters or large ones.
    Name(String),
}

impl Choice {
    fn takes(&self, info: &Info) -> bool {
        match self {
            Self::Best => true,
            Self::Kind(kind) => info.kind == *kind,
            Self::Name(part) => info.name.to_lowercase().contains(&part.to_lowercase()),
        }
    }
}

/// How it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which device it is to be.
    pub choice: Choice,
    /// Has the validation layer look at each call; it must be installed. For tests.
    pub validation: bool,
    /// Uses memory in place that the processor reaches. Without, all goes the way it does on a
    /// device whose memory it does not reach; for tests.
    pub in_place: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { choice: Choice::Best, validation: false, in_place: true }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Vulkan {
    info: Info,
    queue: Queue,
    stock: Holdings,
    /// Blocks and kernels until now.
    named: u64,
    memory: Use,
    /// Bound where a kernel is run for nothing.
    blank: Arc<Buffer>,
    /// Why it is lost, if it is.
    lost: Option<String>,
}

/// What is in it.
#[derive(Debug)]
struct Holdings {
    limits: Limits,
    blocks: BTreeMap<Block, Held>,
    kernels: BTreeMap<Loaded, Arc<Pipeline>>,
}

#[derive(Debug)]
struct Held {
    buffer: Arc<Buffer>,
    /// As it was asked for; the buffer may have a few more.
    bytes: u64,
}

impl Stock for Holdings {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn block_bytes(&self, block: Block) -> Option<u64> {
        self.blocks.get(&block).map(|held| held.bytes)
    }

    fn slots(&self, kernel: Loaded) -> Option<&[Slot]> {
        self.kernels.get(&kernel).map(|pipeline| pipeline.slots())
    }
}

impl Vulkan {
    /// Opens a device.
    ///
    /// # Errors
    /// [`Error::None`] with the reason if there is none as it is wanted; what the driver says.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let instance = Instance::open(options.validation)?;
        let adapter = Adapter::choose(&instance, &options.choice)?;
        let gpu = Gpu::open(instance, adapter)?;
        let mut info = gpu.adapter.info.clone();
        let limits = info.limits;
        let blank = Arc::new(Buffer::new(&gpu, limits.offset_bytes, Use::Far)?);
        let stock = Holdings { limits, blocks: BTreeMap::new(), kernels: BTreeMap::new() };
        let memory = if options.in_place { Use::Near } else { Use::Far };
        let is_mapped = gpu.adapter.memory_type(u32::MAX, memory).is_some_and(|(_, it)| it);
        info.copies_wait = !is_mapped;
        let queue = Queue::new(&gpu);
        let mut opened = Self { info, queue, stock, named: 0, memory, blank, lost: None };
        opened.info.limits.iterations = probe::iterations(&mut opened)?;
        opened.stock.limits = opened.info.limits;
        Ok(opened)
    }

    /// What the validation layer says of it, now and when it is gone.
    #[must_use]
    pub fn complaints(&self) -> Complaints {
        self.queue.gpu().instance.complaints()
    }

    fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    /// Does something unless the device is lost, and sees whether it is then.
    fn alive<T>(&mut self, what: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(why) = &self.lost {
            return Err(Error::Lost(why.clone()));
        }
        what(self).inspect_err(|error| {
            if let Error::Lost(why) = error {
                self.lost = Some(why.clone());
            }
        })
    }

    fn take(&mut self, bytes: u64) -> Result<Block, Error> {
        if bytes == 0 {
            return Err(Error::Wrong("a block of no bytes".to_owned()));
        }
        // What was given back and is done with is there again.
        self.queue.land()?;
        let gpu = self.queue.gpu();
        if self.stock.blocks.len() + OWN_BLOCKS_MAX >= gpu.adapter.blocks_max {
            return Err(Error::Memory { bytes });
        }
        let buffer = Arc::new(Buffer::new(gpu, bytes, self.memory)?);
        self.queue.clear(&buffer)?;
        let block = Block(self.name());
        self.stock.blocks.insert(block, Held { buffer, bytes });
        Ok(block)
    }

    /// The buffer of a block, if so many bytes are in it.
    fn reach(&self, block: Block, offset: u64, bytes: usize) -> Result<Arc<Buffer>, Error> {
        let span = Span { block, offset, bytes: bytes as u64 };
        inside(span, &self.stock).map_err(Error::Wrong)?;
        Ok(Arc::clone(&self.stock.blocks[&block].buffer))
    }

    fn compile(&mut self, kernel: &Kernel) -> Result<Loaded, Error> {
        let gpu = self.queue.gpu();
        fits(kernel, &gpu.adapter).map_err(Error::Wrong)?;
        let options = SpirvOptions { robust_buffer_access2: gpu.adapter.is_robust };
        let spirv = kernel.spirv(&options).map_err(|why| Error::Driver(why.to_string()))?;
        self.install(&Words { spirv: &spirv, entry: kernel.entry_name() }, kernel.slots())
    }

    fn install(&mut self, module: &Words<'_>, slots: &[Slot]) -> Result<Loaded, Error> {
        let pipeline = Arc::new(Pipeline::new(self.queue.gpu(), module, slots)?);
        // Some drivers compile at the first dispatch, even if it has no group.
        let blanks = slots.iter().map(|_| Part::all(&self.blank)).collect();
        let warm_up = Dispatch::new(&pipeline, blanks, Groups::NONE, 0);
        self.queue.run(Command::Run(warm_up))?;
        let loaded = Loaded(self.name());
        self.stock.kernels.insert(loaded, pipeline);
        Ok(loaded)
    }

    fn part(&self, span: Span) -> Part {
        Part::new(&self.stock.blocks[&span.block].buffer, span.offset, span.bytes)
    }

    /// A step that was checked.
    fn command(&self, step: &Step) -> Command {
        match step {
            Step::Fill { at, word } => Command::fill(self.part(*at), *word),
            Step::Copy { from, to, offset } => {
                let to = Span { block: *to, offset: *offset, bytes: from.bytes };
                Command::copy(self.part(*from), self.part(to))
            }
            Step::Run(run) => Command::Run(self.dispatch(run)),
        }
    }

    fn dispatch(&self, run: &Run) -> Dispatch {
        let bindings = run.bindings.iter().map(|span| self.part(*span)).collect();
        let groups = Groups { grid: run.grid, from: run.from, count: run.groups };
        // Where the driver cuts loops, work ends before that, and says so. A kernel may make twice
        // as many iterations as it has fuel.
        let most = self.info.limits.iterations.map_or(u64::MAX, |most| most / 2);
        // With a multiple of these it looks at once whether it is cancelled.
        let look = u64::from(LOOK_ITERATIONS);
        let most = if most < look { most } else { most - most % look };
        let fuel = u32::try_from(most).map_or(run.fuel, |most| run.fuel.min(most));
        Dispatch::new(&self.stock.kernels[&run.kernel], bindings, groups, fuel)
    }
}

impl Device for Vulkan {
    fn info(&self) -> &Info {
        &self.info
    }

    fn allocate(&mut self, bytes: u64) -> Result<Block, Error> {
        self.alive(|it| it.take(bytes))
    }

    fn free(&mut self, block: Block) {
        self.stock.blocks.remove(&block);
    }

    fn write(&mut self, block: Block, offset: u64, bytes: &[u8]) -> Result<Duration, Error> {
        self.alive(|it| {
            let buffer = it.reach(block, offset, bytes.len())?;
            let begun = Instant::now();
            it.queue.write(&buffer, offset, bytes)?;
            // Where the processor does not reach it the device copies it once more, and is not
            // waited for: that is taken to last as long.
            let copies = if buffer.is_mapped() { 1 } else { 2 };
            Ok(begun.elapsed() * copies)
        })
    }

    fn read(&mut self, block: Block, offset: u64, into: &mut [u8]) -> Result<Duration, Error> {
        self.alive(|it| {
            let buffer = it.reach(block, offset, into.len())?;
            let begun = Instant::now();
            it.queue.read(&buffer, offset, into)?;
            Ok(begun.elapsed())
        })
    }

    fn load(&mut self, kernel: &Arc<Kernel>) -> Result<Loaded, Error> {
        self.alive(|it| it.compile(kernel))
    }

    fn unload(&mut self, kernel: Loaded) {
        self.stock.kernels.remove(&kernel);
    }

    fn submit(&mut self, steps: &[Step]) -> Result<Ticket, Error> {
        self.alive(|it| {
            check(steps, &it.stock)?;
            let commands = steps.iter().map(|step| it.command(step)).collect();
            it.queue.submit(commands).map(Ticket)
        })
    }

    fn wait(&mut self, ticket: Ticket, longest: Duration) -> Result<Option<Done>, Error> {
        self.alive(|it| {
            if !it.queue.has(ticket.0) {
                return Err(Error::Wrong(format!("there is no ticket {}", ticket.0)));
            }
            it.queue.wait(ticket.0, longest)
        })
    }

    fn cancel(&mut self, ticket: Ticket) {
        self.queue.cancel(ticket.0);
    }
}

/// Whether a kernel is within what a device can do.
fn fits(kernel: &Kernel, adapter: &Adapter) -> Result<(), String> {
    let limits = &adapter.info.limits;
    let threads = kernel.threads();
    let in_all: u64 = threads.iter().map(|threads| u64::from(*threads)).product();
    let fits_axis = (0..3).all(|axis| threads[axis] <= adapter.threads_max[axis]);
    if in_all > u64::from(limits.group_threads) || !fits_axis {
        let (most, axes) = (limits.group_threads, adapter.threads_max);
        return Err(format!("workgroups of {threads:?}, at most {most} in all and {axes:?}"));
    }
    if kernel.group_bytes() > limits.group_bytes {
        let (bytes, most) = (kernel.group_bytes(), limits.group_bytes);
        return Err(format!("{bytes} bytes that a workgroup shares, at most {most}"));
    }
    if kernel.slots().len() > limits.bindings as usize {
        let (slots, most) = (kernel.slots().len(), limits.bindings);
        return Err(format!("{slots} slots, at most {most}"));
    }
    for slot in kernel.slots() {
        let most = match slot.access {
            Access::Uniform => adapter.uniform_bytes_max,
            Access::Read | Access::ReadWrite => limits.binding_bytes,
        };
        if slot.bytes_min > most {
            return Err(format!(
                "slot {} of {} bytes, at most {most}",
                slot.number, slot.bytes_min
            ));
        }
    }
    Ok(())
}
