//! An open device: its queue, and the one count that says how far the queue has come.
//!
//! - Each submission raises the count to a value of its own, one after the other: what was
//!   submitted with a value is done when the count has reached it.
//! - A device that never came to an end is left as it is (`abandon`): its driver would wait for it
//!   for ever. Only the end of the process gives back what it has.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ash::ext::robustness2;
use ash::vk;

use super::adapter::Adapter;
use super::instance::Instance;
use crate::Error;

/// An open device, as long as this lives. Whoever makes something of it holds this.
pub(super) struct Gpu {
    pub(super) device: ash::Device,
    pub(super) adapter: Adapter,
    /// Set 1 of every kernel: the control words, at an offset of their own for each dispatch.
    pub(super) control_layout: vk::DescriptorSetLayout,
    queue: vk::Queue,
    timeline: vk::Semaphore,
    is_abandoned: AtomicBool,
    /// For longer than the device.
    pub(super) instance: Instance,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("adapter", &self.adapter.info.name).finish_non_exhaustive()
    }
}

/// What the driver says as an error of ours.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(vk::Result) -> Error {
    move |why| match why {
        vk::Result::ERROR_DEVICE_LOST => Error::Lost(format!("could not {doing}")),
        why => Error::Driver(format!("could not {doing}: {why}")),
    }
}

impl Gpu {
    /// Opens it.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn open(instance: Instance, adapter: Adapter) -> Result<Arc<Self>, Error> {
        let queues = [vk::DeviceQueueCreateInfo::default()
            .queue_family_index(adapter.family)
            .queue_priorities(&[1.0])];
        let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true);
        let mut second = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        let mut third = vk::PhysicalDeviceVulkan13Features::default()
            .synchronization2(true)
            .shader_zero_initialize_workgroup_memory(true);
        let mut robust =
            vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
        let extensions = [robustness2::NAME.as_ptr()];
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&core)
            .push_next(&mut second)
            .push_next(&mut third);
        if adapter.is_robust {
            info = info.enabled_extension_names(&extensions).push_next(&mut robust);
        }
        // SAFETY: the adapter is of this instance. Features of the core are those that every 1.3
        // has; the other one was asked for. All that `info` points at lives until behind the call.
        let device = unsafe { instance.raw().create_device(adapter.raw, &info, None) };
        let device = device.map_err(failed("open the device"))?;
        // SAFETY: it was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(adapter.family, 0) };
        // From here on `drop` gives back what there is: destroying what is null does nothing.
        let mut made = Self {
            device,
            adapter,
            control_layout: vk::DescriptorSetLayout::null(),
            queue,
            timeline: vk::Semaphore::null(),
            is_abandoned: AtomicBool::new(false),
            instance,
        };
        made.timeline = timeline(&made.device)?;
        made.control_layout = control_layout(&made.device)?;
        Ok(Arc::new(made))
    }

    /// Submits recorded commands, which raise the count to `value` once they and all before them
    /// are done.
    ///
    /// # Errors
    /// What the driver says. Nothing of it is done, then.
    ///
    /// # Safety
    /// The commands are recorded whole, and the device does not have them now. They and all that
    /// they use stay until the count is at `value`, which is higher than each before. No other
    /// thread submits.
    pub(super) unsafe fn submit(
        &self,
        commands: vk::CommandBuffer,
        value: u64,
    ) -> Result<(), Error> {
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let signal = [vk::SemaphoreSubmitInfo::default()
            .semaphore(self.timeline)
            .value(value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
        let submit = [vk::SubmitInfo2::default()
            .command_buffer_infos(&commands)
            .signal_semaphore_infos(&signal)];
        // SAFETY: the caller's; `submit` lives until behind the call.
        unsafe { self.device.queue_submit2(self.queue, &submit, vk::Fence::null()) }
            .map_err(failed("submit"))
    }

    /// How far the queue has come.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn count(&self) -> Result<u64, Error> {
        // SAFETY: it is of this device, and a timeline.
        unsafe { self.device.get_semaphore_counter_value(self.timeline) }
            .map_err(failed("ask how far it is"))
    }

    /// Waits until the count is at `value`. Whether it is.
    ///
    /// # Errors
    /// The device is lost.
    pub(super) fn wait(&self, value: u64, longest: Duration) -> Result<bool, Error> {
        let (semaphores, values) = ([self.timeline], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: it is of this device, and a timeline; `info` lives until behind the call.
        match unsafe { self.device.wait_semaphores(&info, nanos) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(why) => Err(failed("wait")(why)),
        }
    }

    /// Nothing that was made of it is given back from now on.
    pub(super) fn abandon(self: &Arc<Self>) {
        self.is_abandoned.store(true, Ordering::Relaxed);
        Box::leak(Box::new(Arc::clone(self)));
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Relaxed)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: all that was made of the device holds this, so that it is gone; what was
        // submitted was waited for (`Queue`), or this would never be dropped.
        unsafe { self.device.destroy_semaphore(self.timeline, None) };
        // SAFETY: as before.
        unsafe { self.device.destroy_descriptor_set_layout(self.control_layout, None) };
        // SAFETY: as before.
        unsafe { self.device.destroy_device(None) };
    }
}

fn timeline(device: &ash::Device) -> Result<vk::Semaphore, Error> {
    let mut timeline =
        vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut timeline);
    // SAFETY: the feature is on; what `info` points at lives until behind the call.
    unsafe { device.create_semaphore(&info, None) }.map_err(failed("make a semaphore"))
}

fn control_layout(device: &ash::Device) -> Result<vk::DescriptorSetLayout, Error> {
    let bindings = [vk::DescriptorSetLayoutBinding::default()
        .binding(0)
        .descriptor_type(vk::DescriptorType::STORAGE_BUFFER_DYNAMIC)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)];
    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: what `info` points at lives until behind the call.
    unsafe { device.create_descriptor_set_layout(&info, None) }.map_err(failed("lay a control out"))
}
