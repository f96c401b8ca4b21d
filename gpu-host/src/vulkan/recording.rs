//! One submission as the driver takes it: its commands, the descriptors and control words of its
//! dispatches, and the clock before and behind.
//!
//! - Each command sees what those before it have written, of earlier submissions too, and the clock
//!   is read between: no two submissions are timed at once.
//! - Each dispatch has control words of its own, which the processor can write and read at any
//!   time.
//! - What the clock said is copied to where the processor reads it: a driver that is asked for it
//!   may wait until all is done that was submitted since.
//! - A recording is used again and again. It grows, and does not shrink.
//!
//! Leaves to `Queue` that nothing of it is touched but the cancel words while the device has it.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ash::vk;

use super::adapter::Use;
use super::buffer::Buffer;
use super::command::{Command, Dispatch, Groups, Part};
use super::gpu::{Gpu, failed};
use super::pipeline::descriptor_type;
use crate::Error;
use crate::device::End;
use crate::kernel::{CONTROL_WORDS, trap, word};

const CONTROL_BYTES: u64 = CONTROL_WORDS as u64 * 4;
/// So that dispatches do not share a line of a cache.
const CONTROL_STRIDE_MIN: u64 = 64;

/// Before and behind.
const READINGS: u32 = 2;
/// Bytes of a reading.
const READING_BYTES: u64 = 8;

/// See the module.
pub(super) struct Recording {
    gpu: Arc<Gpu>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    readings: vk::QueryPool,
    /// What they were.
    clock: Buffer,
    descriptors: vk::DescriptorPool,
    room: Room,
    control: Option<Buffer>,
    /// Dispatches that are recorded.
    runs: u32,
    is_timed: bool,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// What a recording has room for.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    runs: u32,
    storage: u32,
    uniform: u32,
}

impl Room {
    fn for_commands(commands: &[Command]) -> Self {
        let mut room = Self::default();
        for command in commands {
            let Command::Run(dispatch) = command else { continue };
            room.runs += 1;
            for slot in dispatch.pipeline().slots() {
                match descriptor_type(slot.access) {
                    vk::DescriptorType::UNIFORM_BUFFER => room.uniform += 1,
                    _ => room.storage += 1,
                }
            }
        }
        room
    }

    fn holds(&self, other: &Self) -> bool {
        self.runs >= other.runs && self.storage >= other.storage && self.uniform >= other.uniform
    }

    /// Room for both, and not for one more only.
    fn grown(&self, other: &Self) -> Self {
        let grown = |ours: u32, theirs: u32| ours.max(theirs.next_power_of_two()).max(4);
        Self {
            runs: grown(self.runs, other.runs),
            storage: grown(self.storage, other.storage),
            uniform: grown(self.uniform, other.uniform),
        }
    }
}

impl Recording {
    /// An empty one.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self, Error> {
        let clock = Buffer::new(gpu, u64::from(READINGS) * READING_BYTES, Use::Host)?;
        // From here on `drop` gives back what there is: destroying what is null does nothing.
        let mut made = Self {
            gpu: Arc::clone(gpu),
            pool: vk::CommandPool::null(),
            commands: vk::CommandBuffer::null(),
            readings: vk::QueryPool::null(),
            clock,
            descriptors: vk::DescriptorPool::null(),
            room: Room::default(),
            control: None,
            runs: 0,
            is_timed: false,
        };
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(gpu.adapter.family);
        // SAFETY: the device was opened with this family.
        let pool = unsafe { gpu.device.create_command_pool(&info, None) };
        made.pool = pool.map_err(failed("make a pool of commands"))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(made.pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool is of this device, and nobody else uses it.
        let commands = unsafe { gpu.device.allocate_command_buffers(&info) };
        let commands = commands.map_err(failed("make a list of commands"))?;
        made.commands = commands.first().copied().unwrap_or_default();
        let info = vk::QueryPoolCreateInfo::default()
            .query_type(vk::QueryType::TIMESTAMP)
            .query_count(READINGS);
        // SAFETY: of this device, whose queue tells the time.
        let readings = unsafe { gpu.device.create_query_pool(&info, None) };
        made.readings = readings.map_err(failed("make a clock"))?;
        Ok(made)
    }

    /// What is submitted.
    pub(super) fn raw(&self) -> vk::CommandBuffer {
        self.commands
    }

    /// Records commands in place of what was there.
    ///
    /// # Errors
    /// What the driver says. There is nothing to be submitted, then.
    ///
    /// # Safety
    /// The device does not have it now.
    pub(super) unsafe fn record(
        &mut self,
        commands: &[Command],
        is_timed: bool,
    ) -> Result<(), Error> {
        // SAFETY: the caller's.
        unsafe { self.make_room(&Room::for_commands(commands)) }?;
        let device = &self.gpu.device;
        let keep = vk::CommandPoolResetFlags::empty();
        // SAFETY: the caller's: none of its commands is with the device.
        unsafe { device.reset_command_pool(self.pool, keep) }.map_err(failed("record"))?;
        (self.runs, self.is_timed) = (0, is_timed);
        let once = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: its pool was reset.
        unsafe { device.begin_command_buffer(self.commands, &once) }.map_err(failed("record"))?;
        let control = self.control_set()?;
        self.barrier();
        self.read_clock(0);
        for (nth, command) in commands.iter().enumerate() {
            if nth > 0 {
                self.barrier();
            }
            self.command(command, control)?;
        }
        self.read_clock(1);
        self.keep_readings();
        // For what comes behind it, and for the processor.
        self.barrier();
        // SAFETY: it was begun.
        unsafe { self.gpu.device.end_command_buffer(self.commands) }.map_err(failed("record"))
    }

    /// Has its dispatches end soon; at any time.
    pub(super) fn cancel(&self) {
        for run in 0..self.runs {
            self.words(run)[word::CANCEL as usize].store(1, Ordering::Release);
        }
    }

    /// Why it ended: what the first dispatch says that was ended early.
    pub(super) fn end(&self) -> End {
        let trap = |run| self.words(run)[word::TRAP as usize].load(Ordering::Acquire);
        match (0..self.runs).map(trap).find(|trap| *trap != 0) {
            None => End::Whole,
            Some(trap::FUEL) => End::Fuel,
            Some(_) => End::Cancelled,
        }
    }

    /// Nanoseconds it took, once the device is done with it.
    pub(super) fn nanos(&self) -> u64 {
        if !self.is_timed {
            return 0;
        }
        let words = self.clock.words(0, READINGS as usize * 2);
        let word = |at: usize| words[at].load(Ordering::Acquire).to_ne_bytes();
        let reading = |at: usize| {
            let [[a, b, c, d], [e, f, g, h]] = [word(at * 2), word(at * 2 + 1)];
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        self.gpu.adapter.nanos(reading(0), reading(1))
    }

    fn stride(&self) -> u64 {
        let offset_bytes = self.gpu.adapter.info.limits.offset_bytes;
        CONTROL_BYTES.max(CONTROL_STRIDE_MIN).next_multiple_of(offset_bytes)
    }

    fn words(&self, run: u32) -> &[std::sync::atomic::AtomicU32] {
        let control = self.control.as_ref().expect("there is one where there is a run");
        control.words(u64::from(run) * self.stride(), CONTROL_WORDS)
    }

    /// # Safety
    /// The device does not have it now.
    unsafe fn make_room(&mut self, wanted: &Room) -> Result<(), Error> {
        let device = &self.gpu.device;
        if self.room.holds(wanted) {
            if self.descriptors != vk::DescriptorPool::null() {
                let all = vk::DescriptorPoolResetFlags::empty();
                // SAFETY: the caller's: nothing that is with the device uses its sets.
                unsafe { device.reset_descriptor_pool(self.descriptors, all) }
                    .map_err(failed("clear descriptors"))?;
            }
            return Ok(());
        }
        let room = self.room.grown(wanted);
        self.room = Room::default();
        // SAFETY: the caller's, as before.
        unsafe { device.destroy_descriptor_pool(self.descriptors, None) };
        self.descriptors = vk::DescriptorPool::null();
        let size = |kind, count| vk::DescriptorPoolSize::default().ty(kind).descriptor_count(count);
        let sizes = [
            size(vk::DescriptorType::STORAGE_BUFFER, room.storage),
            size(vk::DescriptorType::UNIFORM_BUFFER, room.uniform),
            size(vk::DescriptorType::STORAGE_BUFFER_DYNAMIC, 1),
        ];
        let info =
            vk::DescriptorPoolCreateInfo::default().max_sets(room.runs + 1).pool_sizes(&sizes);
        // SAFETY: `sizes` lives until behind the call.
        let descriptors = unsafe { device.create_descriptor_pool(&info, None) };
        self.descriptors = descriptors.map_err(failed("make room for descriptors"))?;
        let bytes = u64::from(room.runs) * self.stride();
        self.control = Some(Buffer::new(&self.gpu, bytes, Use::Host)?);
        self.room = room;
        Ok(())
    }

    /// The set of the control words, if there is a dispatch.
    fn control_set(&self) -> Result<vk::DescriptorSet, Error> {
        let Some(control) = &self.control else { return Ok(vk::DescriptorSet::null()) };
        let set = self.set(self.gpu.control_layout)?;
        let buffer = [vk::DescriptorBufferInfo::default()
            .buffer(control.raw())
            .offset(0)
            .range(CONTROL_BYTES)];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .dst_binding(0)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER_DYNAMIC)
            .buffer_info(&buffer);
        // SAFETY: the set is new and has this binding; the buffer is as large.
        unsafe { self.gpu.device.update_descriptor_sets(&[write], &[]) };
        Ok(set)
    }

    fn set(&self, layout: vk::DescriptorSetLayout) -> Result<vk::DescriptorSet, Error> {
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.descriptors)
            .set_layouts(&layouts);
        // SAFETY: the pool is of this device, was made with room for all sets that are recorded,
        // and nobody else uses it.
        let sets = unsafe { self.gpu.device.allocate_descriptor_sets(&info) };
        Ok(sets.map_err(failed("take descriptors"))?.first().copied().unwrap_or_default())
    }

    fn command(&mut self, command: &Command, control: vk::DescriptorSet) -> Result<(), Error> {
        let (device, list) = (&self.gpu.device, self.commands);
        match command {
            Command::Fill { at, word } if at.bytes() > 0 => {
                let (buffer, offset, bytes) = (at.buffer().raw(), at.offset(), at.bytes());
                // SAFETY: the list is begun; a part is inside its buffer, and a fill is of words.
                unsafe { device.cmd_fill_buffer(list, buffer, offset, bytes, *word) };
            }
            Command::Copy { from, to } if from.bytes() > 0 => {
                let region = [vk::BufferCopy::default()
                    .src_offset(from.offset())
                    .dst_offset(to.offset())
                    .size(from.bytes())];
                let (from, to) = (from.buffer().raw(), to.buffer().raw());
                // SAFETY: the list is begun; both parts are inside their buffers, as long as each
                // other, and do not overlap.
                unsafe { device.cmd_copy_buffer(list, from, to, &region) };
            }
            Command::Run(dispatch) => self.dispatch(dispatch, control)?,
            Command::Fill { .. } | Command::Copy { .. } => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, dispatch: &Dispatch, control: vk::DescriptorSet) -> Result<(), Error> {
        let run = self.runs;
        self.runs += 1;
        let words = self.words(run);
        let set = |word: u32, value| words[word as usize].store(value, Ordering::Relaxed);
        set(word::CANCEL, 0);
        set(word::TRAP, 0);
        set(word::FUEL, dispatch.fuel);
        for (word, groups) in word::GROUPS.into_iter().zip(dispatch.groups.grid) {
            set(word, groups);
        }
        let pipeline = dispatch.pipeline();
        let set = self.set(pipeline.set_layout())?;
        self.bind(set, dispatch);
        let (sets, compute) = ([set, control], vk::PipelineBindPoint::COMPUTE);
        let offset = u64::from(run) * self.stride();
        let offset = [u32::try_from(offset).map_err(|_| too_many())?];
        let (device, list) = (&self.gpu.device, self.commands);
        // SAFETY: the list is begun; the pipeline computes, and stays as the command holds it.
        unsafe { device.cmd_bind_pipeline(list, compute, pipeline.raw()) };
        let layout = pipeline.layout();
        // SAFETY: the sets are as the pipeline's layout wants them, the second with one offset, at
        // which there are control words.
        unsafe { device.cmd_bind_descriptor_sets(list, compute, layout, 0, &sets, &offset) };
        let Groups { from, count, .. } = dispatch.groups;
        // The end of an axis is no place for groups to begin, not even for none.
        let is_none = count.contains(&0);
        let ([x, y, z], [wide, high, deep]) =
            if is_none { ([0; 3], [0; 3]) } else { (from, count) };
        // SAFETY: a pipeline and all its sets are bound; it was made for dispatches that begin
        // anywhere; the groups are in the grid, which callers have held to the device's limits.
        unsafe { device.cmd_dispatch_base(list, x, y, z, wide, high, deep) };
        Ok(())
    }

    fn bind(&self, set: vk::DescriptorSet, dispatch: &Dispatch) {
        let uniform_bytes_max = self.gpu.adapter.uniform_bytes_max;
        let slots = || dispatch.pipeline().slots().iter().zip(dispatch.bindings());
        let buffers: Vec<_> = slots()
            .map(|(slot, part): (_, &Part)| {
                let is_uniform = descriptor_type(slot.access) == vk::DescriptorType::UNIFORM_BUFFER;
                // What is behind that is out of a kernel's sight: its type ends before.
                let most = if is_uniform { uniform_bytes_max } else { u64::MAX };
                [vk::DescriptorBufferInfo::default()
                    .buffer(part.buffer().raw())
                    .offset(part.offset())
                    .range(part.bytes().min(most))]
            })
            .collect();
        let writes: Vec<_> = slots()
            .zip(&buffers)
            .map(|((slot, _), buffer)| {
                vk::WriteDescriptorSet::default()
                    .dst_set(set)
                    .dst_binding(slot.number)
                    .descriptor_type(descriptor_type(slot.access))
                    .buffer_info(buffer)
            })
            .collect();
        // SAFETY: the set is new and has these bindings, as its layout is of the same slots; parts
        // are inside their buffers, and `buffers` lives until behind the call.
        unsafe { self.gpu.device.update_descriptor_sets(&writes, &[]) };
    }

    /// Waits for all before, of earlier submissions too, and shows what they have written.
    fn barrier(&self) {
        let all = vk::PipelineStageFlags2::ALL_COMMANDS;
        let both = vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE;
        let barrier = [vk::MemoryBarrier2::default()
            .src_stage_mask(all)
            .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
            .dst_stage_mask(all | vk::PipelineStageFlags2::HOST)
            .dst_access_mask(both)];
        let info = vk::DependencyInfo::default().memory_barriers(&barrier);
        // SAFETY: the list is begun; `barrier` lives until behind the call.
        unsafe { self.gpu.device.cmd_pipeline_barrier2(self.commands, &info) };
    }

    /// A reading, behind all before; none of what is not timed.
    fn read_clock(&self, at: u32) {
        if !self.is_timed {
            return;
        }
        let (device, list) = (&self.gpu.device, self.commands);
        if at == 0 {
            // SAFETY: the list is begun, and the pool has as many.
            unsafe { device.cmd_reset_query_pool(list, self.readings, 0, READINGS) };
        }
        let behind = vk::PipelineStageFlags2::ALL_COMMANDS;
        // SAFETY: as before; it was reset, and is written once.
        unsafe { device.cmd_write_timestamp2(list, behind, self.readings, at) };
    }

    /// Copies what the clock said to where the processor reads it.
    fn keep_readings(&self) {
        if !self.is_timed {
            return;
        }
        let (list, readings, clock) = (self.commands, self.readings, self.clock.raw());
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        let device = &self.gpu.device;
        // SAFETY: the list is begun; as many as the pool has, each of 64 bits, all written by the
        // commands before; the buffer has as many bytes and begins at one of them.
        unsafe {
            device.cmd_copy_query_pool_results(
                list,
                readings,
                0,
                READINGS,
                clock,
                0,
                READING_BYTES,
                flags,
            );
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.gpu.is_abandoned() {
            return;
        }
        let device = &self.gpu.device;
        // SAFETY: it was made here, and the device does not have it (`Queue`).
        unsafe { device.destroy_command_pool(self.pool, None) };
        // SAFETY: as before.
        unsafe { device.destroy_query_pool(self.readings, None) };
        // SAFETY: as before.
        unsafe { device.destroy_descriptor_pool(self.descriptors, None) };
    }
}

fn too_many() -> Error {
    Error::Wrong("more steps than one submission can have".to_owned())
}
