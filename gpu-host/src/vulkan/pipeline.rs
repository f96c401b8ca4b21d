//! A kernel as the driver has it.
//!
//! Its bindings are at set 0, ours (the control words) at set 1, by an offset of their own for each
//! dispatch. Dispatches may begin at any group.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::ffi::CString;
use std::fmt;
use std::sync::Arc;

use ash::vk;

use super::gpu::{Gpu, failed};
use crate::Error;
use crate::kernel::{Access, Slot};

/// See the module. Leaves to `Queue` that it is dropped only once no work uses it.
pub(super) struct Pipeline {
    gpu: Arc<Gpu>,
    slots: Vec<Slot>,
    set: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// A module that `Kernel` wrote.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    pub(super) spirv: &'a [u32],
    /// The name of its entry point.
    pub(super) entry: &'a str,
}

/// What a descriptor is to the driver.
pub(super) fn descriptor_type(access: Access) -> vk::DescriptorType {
    match access {
        Access::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
        Access::Read | Access::ReadWrite => vk::DescriptorType::STORAGE_BUFFER,
    }
}

impl Pipeline {
    /// Makes it.
    ///
    /// # Errors
    /// What the driver says.
    pub(super) fn new(gpu: &Arc<Gpu>, module: &Words<'_>, slots: &[Slot]) -> Result<Self, Error> {
        // From here on `drop` gives back what there is: destroying what is null does nothing.
        let mut made = Self {
            gpu: Arc::clone(gpu),
            slots: slots.to_vec(),
            set: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            pipeline: vk::Pipeline::null(),
        };
        made.set = set_layout(&gpu.device, slots)?;
        let sets = [made.set, gpu.control_layout];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: both are of this device; `sets` lives until behind the call.
        let layout = unsafe { gpu.device.create_pipeline_layout(&info, None) };
        made.layout = layout.map_err(failed("lay a kernel out"))?;
        made.compile(module)?;
        Ok(made)
    }

    pub(super) fn raw(&self) -> vk::Pipeline {
        self.pipeline
    }

    pub(super) fn layout(&self) -> vk::PipelineLayout {
        self.layout
    }

    pub(super) fn set_layout(&self) -> vk::DescriptorSetLayout {
        self.set
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn compile(&mut self, words: &Words<'_>) -> Result<(), Error> {
        let no_name = |_| Error::Driver("an entry point whose name has a zero".to_owned());
        let entry = CString::new(words.entry).map_err(no_name)?;
        let device = &self.gpu.device;
        let info = vk::ShaderModuleCreateInfo::default().code(words.spirv);
        // SAFETY: it was written by naga of a module that its validator has passed, for the
        // features that the device is opened with.
        let module = unsafe { device.create_shader_module(&info, None) };
        let module = module.map_err(failed("read a kernel"))?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        let info = [vk::ComputePipelineCreateInfo::default()
            .flags(vk::PipelineCreateFlags::DISPATCH_BASE)
            .stage(stage)
            .layout(self.layout)];
        let no_cache = vk::PipelineCache::null();
        // SAFETY: all of `info` is of this device and lives until behind the call; the layout has
        // each binding of the module, as both are made of the same slots.
        let made = unsafe { device.create_compute_pipelines(no_cache, &info, None) };
        // SAFETY: it is of this device, and a pipeline does not need its module once it is made.
        unsafe { device.destroy_shader_module(module, None) };
        match made {
            Ok(made) => self.pipeline = made.first().copied().unwrap_or_default(),
            Err((_, why)) => return Err(failed("compile a kernel")(why)),
        }
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.gpu.is_abandoned() {
            return;
        }
        let device = &self.gpu.device;
        // SAFETY: it was made here, and no work uses it any more (`Queue`).
        unsafe { device.destroy_pipeline(self.pipeline, None) };
        // SAFETY: as before.
        unsafe { device.destroy_pipeline_layout(self.layout, None) };
        // SAFETY: as before.
        unsafe { device.destroy_descriptor_set_layout(self.set, None) };
    }
}

fn set_layout(device: &ash::Device, slots: &[Slot]) -> Result<vk::DescriptorSetLayout, Error> {
    let bindings: Vec<_> = slots
        .iter()
        .map(|slot| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(slot.number)
                .descriptor_type(descriptor_type(slot.access))
                .descriptor_count(1)
                .stage_flags(vk::ShaderStageFlags::COMPUTE)
        })
        .collect();
    let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: the numbers differ, as those of a kernel's slots do; `bindings` lives until behind
    // the call.
    unsafe { device.create_descriptor_set_layout(&info, None) }.map_err(failed("lay bindings out"))
}
