//! Writes a checked kernel as SPIR-V.
//!
//! - Indices are kept in range where memory is an invocation's or a workgroup's own, and in buffers
//!   by the device (`robustBufferAccess2`) or by checks with the same meaning: reads give 0, writes
//!   vanish. Restricting them there instead would let a write hit the last element.
//! - Loops get no second bound: each has a counter already, or an end that shows in its form
//!   (`fuel`), so that no compiler may take one for endless.
//! - Workgroup memory is zeroed by the driver. Without a device that can, a kernel is not loaded.
//! - Nothing but the base of Vulkan 1.1 and that is asked of a device.

use naga::back::spv::{
    BindingInfo, Capability, Error, Options, PipelineOptions, WriterFlags,
    ZeroInitializeWorkgroupMemoryMode, write_vec,
};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};

use super::SpirvOptions;
use super::rejected::Rejected;

/// As words.
pub(super) fn spirv(
    module: &Module,
    info: &ModuleInfo,
    options: &SpirvOptions,
) -> Result<Vec<u32>, Rejected> {
    let buffer = match options.robust_buffer_access2 {
        true => BoundsCheckPolicy::Unchecked,
        false => BoundsCheckPolicy::ReadZeroSkipWrite,
    };
    let bindings = module.global_variables.iter().filter_map(|(_, global)| global.binding);
    let binding_map = bindings.map(|at| {
        let info =
            BindingInfo { descriptor_set: at.group, binding: at.binding, binding_array_size: None };
        (at, info)
    });
    let options = Options {
        lang_version: (1, 3),
        flags: WriterFlags::empty(),
        fake_missing_bindings: false,
        binding_map: binding_map.collect(),
        capabilities: Some([Capability::Shader].into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer,
            image_load: BoundsCheckPolicy::Restrict,
            binding_array: BoundsCheckPolicy::Restrict,
        },
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::Native,
        force_loop_bounding: false,
        use_storage_input_output_16: false,
        emit_int_div_checks: true,
        ..Options::default()
    };
    let entry_point = module.entry_points[0].name.clone();
    let pipeline = PipelineOptions { shader_stage: ShaderStage::Compute, entry_point };
    write_vec(module, info, &options, Some(&pipeline)).map_err(|error| match error {
        // The compiler has no checks for these.
        Error::FeatureNotImplemented(_) if buffer != BoundsCheckPolicy::Unchecked => {
            let what = "atomics at computed places of buffers need a device with \
                        robustBufferAccess2";
            Rejected::unsupported(0, what)
        }
        error => Rejected::failed(&error.to_string()),
    })
}
