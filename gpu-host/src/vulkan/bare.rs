//! For measuring against: the same driver with nothing around it, and kernels without their passes.
//!
//! - A trip is what nobody who submits one dispatch and waits for it can leave out; if it is timed,
//!   with the two readings of the device's clock that accounts are made from.
//! - A kernel without passes is trusted: it must end, and keep to its own variables.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use super::adapter::Adapter;
use super::gpu::{Gpu, failed};
use super::instance::Instance;
use super::pipeline::{Pipeline, Words};
use super::{Options, Vulkan};
use crate::Error;
use crate::device::Loaded;
use crate::kernel::Slot;

/// A kernel of one invocation that does nothing, as a driver is given it.
const EMPTY: [u32; 35] = [
    // The head: magic number, version 1.3, no generator, five names, nothing.
    0x0723_0203,
    0x0001_0300,
    0,
    5,
    0,
    // Shaders, in plain memory.
    2 << 16 | 17,
    1,
    3 << 16 | 14,
    0,
    1,
    // The entry point: number 3, `main`, of one invocation.
    5 << 16 | 15,
    5,
    3,
    0x6E69_616D,
    0,
    6 << 16 | 16,
    3,
    17,
    1,
    1,
    1,
    // Nothing, and a function that takes and gives nothing.
    2 << 16 | 19,
    1,
    3 << 16 | 33,
    2,
    1,
    // The function.
    5 << 16 | 54,
    1,
    3,
    0,
    2,
    2 << 16 | 248,
    4,
    1 << 16 | 253,
    1 << 16 | 56,
];

/// How long a trip may take.
const TRIP_TIME_MAX: Duration = Duration::from_secs(10);

/// A device, one list of commands and one kernel.
#[derive(Debug)]
pub struct Bare {
    gpu: Arc<Gpu>,
    pipeline: Pipeline,
    pool: Pool,
    trips: u64,
}

/// What of it the driver has to be given back.
#[derive(Debug)]
struct Pool {
    gpu: Arc<Gpu>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    readings: vk::QueryPool,
}

impl Bare {
    /// Opens a device.
    ///
    /// # Errors
    /// As of [`Vulkan::open`].
    pub fn open(options: &Options) -> Result<Self, Error> {
        let instance = Instance::open(options.validation)?;
        let adapter = Adapter::choose(&instance, &options.choice)?;
        let gpu = Gpu::open(instance, adapter)?;
        let pipeline = Pipeline::new(&gpu, &Words { spirv: &EMPTY, entry: "main" }, &[])?;
        let pool = Pool::new(&gpu)?;
        Ok(Self { gpu, pipeline, pool, trips: 0 })
    }

    /// Records one group of the kernel, submits it and waits for it. Nanoseconds by the device's
    /// clock, if it is timed.
    ///
    /// # Errors
    /// What the driver says.
    pub fn trip(&mut self, is_timed: bool) -> Result<u64, Error> {
        self.record(is_timed)?;
        // SAFETY: recorded just now; it stays until it was waited for, as `trip` or `drop` do. This
        // is `&mut`, and the only place that submits.
        unsafe { self.gpu.submit(self.pool.commands, self.trips + 1) }?;
        self.trips += 1;
        if !self.gpu.wait(self.trips, TRIP_TIME_MAX)? {
            return Err(Error::Lost("an empty kernel does not end".to_owned()));
        }
        if !is_timed {
            return Ok(0);
        }
        let (mut readings, flags) = ([0_u64; 2], vk::QueryResultFlags::TYPE_64);
        let device = &self.gpu.device;
        // SAFETY: as many as the pool has, each of 64 bits, all written by the commands.
        unsafe { device.get_query_pool_results(self.pool.readings, 0, &mut readings, flags) }
            .map_err(failed("read its clock"))?;
        Ok(self.gpu.adapter.nanos(readings[0], readings[1]))
    }

    fn record(&mut self, is_timed: bool) -> Result<(), Error> {
        let (device, commands) = (&self.gpu.device, self.pool.commands);
        let keep = vk::CommandPoolResetFlags::empty();
        // SAFETY: the trip before was waited for.
        unsafe { device.reset_command_pool(self.pool.pool, keep) }.map_err(failed("record"))?;
        let once = vk::CommandBufferBeginInfo::default()
            .flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: its pool was reset.
        unsafe { device.begin_command_buffer(commands, &once) }.map_err(failed("record"))?;
        if is_timed {
            // SAFETY: the list is begun, and the pool has as many.
            unsafe { device.cmd_reset_query_pool(commands, self.pool.readings, 0, 2) };
            self.read_clock(0);
        }
        let (compute, pipeline) = (vk::PipelineBindPoint::COMPUTE, self.pipeline.raw());
        // SAFETY: the list is begun; the pipeline computes, and lives as long as this.
        unsafe { device.cmd_bind_pipeline(commands, compute, pipeline) };
        // SAFETY: a pipeline is bound, and it uses no set.
        unsafe { device.cmd_dispatch(commands, 1, 1, 1) };
        if is_timed {
            self.read_clock(1);
        }
        // SAFETY: it was begun.
        unsafe { device.end_command_buffer(commands) }.map_err(failed("record"))
    }

    fn read_clock(&self, at: u32) {
        let (commands, readings) = (self.pool.commands, self.pool.readings);
        let behind = vk::PipelineStageFlags2::ALL_COMMANDS;
        // SAFETY: the list is begun; the pool has as many, and was reset.
        unsafe { self.gpu.device.cmd_write_timestamp2(commands, behind, readings, at) };
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if matches!(self.gpu.wait(self.trips, TRIP_TIME_MAX), Ok(false)) {
            self.gpu.abandon();
        }
    }
}

impl Pool {
    fn new(gpu: &Arc<Gpu>) -> Result<Self, Error> {
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(gpu.adapter.family);
        // SAFETY: the device was opened with this family.
        let pool = unsafe { gpu.device.create_command_pool(&info, None) };
        let pool = pool.map_err(failed("make a pool of commands"))?;
        // From here on `drop` gives back what there is.
        let (commands, readings) = (vk::CommandBuffer::null(), vk::QueryPool::null());
        let mut made = Self { gpu: Arc::clone(gpu), pool, commands, readings };
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool is of this device, and nobody else uses it.
        let commands = unsafe { gpu.device.allocate_command_buffers(&info) };
        let commands = commands.map_err(failed("make a list of commands"))?;
        made.commands = commands.first().copied().unwrap_or_default();
        let info =
            vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(2);
        // SAFETY: of this device, whose queue tells the time.
        let readings = unsafe { gpu.device.create_query_pool(&info, None) };
        made.readings = readings.map_err(failed("make a clock"))?;
        Ok(made)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.gpu.is_abandoned() {
            return;
        }
        // SAFETY: it was made here, and what was submitted of it was waited for (`Bare`).
        unsafe { self.gpu.device.destroy_command_pool(self.pool, None) };
        // SAFETY: as before.
        unsafe { self.gpu.device.destroy_query_pool(self.readings, None) };
    }
}

impl Vulkan {
    /// Makes a kernel ready that has none of the passes of [`Kernel`](crate::kernel::Kernel).
    ///
    /// # Errors
    /// As of [`load`](crate::device::Device::load).
    pub fn load_trusted(
        &mut self,
        spirv: &[u32],
        entry: &str,
        slots: &[Slot],
    ) -> Result<Loaded, Error> {
        self.alive(|it| it.install(&Words { spirv, entry }, slots))
    }
}
