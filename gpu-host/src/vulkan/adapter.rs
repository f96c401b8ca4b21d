//! A device before it is opened: which one it is to be, and what it has.
//!
//! Keeps true: what is chosen has Vulkan 1.3 and a queue that computes and tells the time. All that
//! is asked of the driver is asked once, here.

#![expect(unsafe_code, reason = "calls of Vulkan")]

use std::fmt;

use ash::ext::robustness2;
use ash::vk;

use super::Choice;
use super::instance::{Instance, VERSION};
use crate::Error;
use crate::device::{Info, Kind, Limits};

/// A driver may bound a storage buffer at a multiple of this behind its end. Spans are words, so
/// that there is nothing behind them.
const ROBUST_BYTES_MAX: u64 = 4;

/// Descriptors the driver has that are left for ours.
const OWN_BINDINGS: u32 = 1;

/// What a device has, for those who use it.
#[derive(Clone)]
pub(super) struct Adapter {
    pub(super) raw: vk::PhysicalDevice,
    /// Where its queue is from.
    pub(super) family: u32,
    pub(super) info: Info,
    /// Buffers are bounded by the driver, as `robustBufferAccess2` says.
    pub(super) is_robust: bool,
    /// Invocations of a workgroup on each axis.
    pub(super) threads_max: [u32; 3],
    /// Bytes of a uniform binding.
    pub(super) uniform_bytes_max: u64,
    /// Bytes of one block.
    pub(super) block_bytes_max: u64,
    /// Blocks, ours included.
    pub(super) blocks_max: usize,
    clock: Clock,
    memory: vk::PhysicalDeviceMemoryProperties,
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What its time is counted in.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// The bits that count.
    mask: u64,
    tick_nanos: f32,
}

/// What memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Kernels use it, and the processor where it can.
    Near,
    /// Kernels use it, and the processor does not.
    Far,
    /// The processor uses it.
    Host,
}

impl Adapter {
    /// The best that is wanted.
    ///
    /// # Errors
    /// [`Error::None`] with what there is and why it does not do.
    pub(super) fn choose(instance: &Instance, choice: &Choice) -> Result<Self, Error> {
        // SAFETY: of an instance that lives.
        let all = unsafe { instance.raw().enumerate_physical_devices() };
        let all = all.map_err(|why| Error::None(format!("no driver lists devices: {why}")))?;
        let (mut found, mut reasons) = (Vec::new(), Vec::new());
        for raw in all {
            match Self::of(instance.raw(), raw) {
                Ok(adapter) if choice.takes(&adapter.info) => found.push(adapter),
                Ok(adapter) => reasons.push(format!("{} is not wanted", adapter.info.name)),
                Err(why) => reasons.push(why),
            }
        }
        // The first of the best kind, as drivers list the better first.
        let best = found.into_iter().min_by_key(|adapter| match adapter.info.kind {
            Kind::Discrete => 0,
            Kind::Integrated => 1,
            Kind::Software | Kind::Fake => 2,
        });
        best.ok_or_else(|| match &reasons[..] {
            [] => Error::None("no driver has a device".to_owned()),
            _ => Error::None(reasons.join("; ")),
        })
    }

    fn of(instance: &ash::Instance, raw: vk::PhysicalDevice) -> Result<Self, String> {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut third = vk::PhysicalDeviceMaintenance3Properties::default();
        let mut robust = vk::PhysicalDeviceRobustness2PropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceProperties2::default()
            .push_next(&mut driver)
            .push_next(&mut third)
            .push_next(&mut robust);
        // SAFETY: of an instance that lives; each structure in the chain is of its own kind, and
        // one that the driver does not know is left as it is.
        unsafe { instance.get_physical_device_properties2(raw, &mut properties) };
        let properties = properties.properties;
        let name = text(properties.device_name_as_c_str());
        if properties.api_version < VERSION {
            return Err(format!("{name} has no Vulkan 1.3"));
        }
        let Some((family, bits)) = family(instance, raw) else {
            return Err(format!("{name} has no queue that computes and tells the time"));
        };
        // SAFETY: of an instance that lives.
        let memory = unsafe { instance.get_physical_device_memory_properties(raw) };
        let is_robust = has_robustness(instance, raw)
            && robust.robust_storage_buffer_access_size_alignment <= ROBUST_BYTES_MAX;
        let version = text(driver.driver_info_as_c_str());
        let limits = properties.limits;
        let info = Info {
            name,
            driver: format!("{} {version}", text(driver.driver_name_as_c_str())),
            kind: kind(properties.device_type),
            memory_bytes: largest_heap(&memory),
            // Until it is known where memory is to be.
            copies_wait: true,
            loads_wait: true,
            limits: limits_of(&limits),
        };
        let mask = if bits < 64 { (1 << bits) - 1 } else { u64::MAX };
        Ok(Self {
            raw,
            family,
            info,
            is_robust,
            threads_max: limits.max_compute_work_group_size,
            uniform_bytes_max: u64::from(limits.max_uniform_buffer_range),
            block_bytes_max: third.max_memory_allocation_size,
            blocks_max: limits.max_memory_allocation_count as usize,
            clock: Clock { mask, tick_nanos: limits.timestamp_period },
            memory,
        })
    }

    /// Nanoseconds between two readings of its clock, which may have begun anew between them.
    pub(super) fn nanos(&self, from: u64, to: u64) -> u64 {
        let ticks = to.wrapping_sub(from) & self.clock.mask;
        (ticks as f64 * f64::from(self.clock.tick_nanos)) as u64
    }

    /// Which of these types of memory is best for a use, and whether it can be mapped.
    pub(super) fn memory_type(&self, types: u32, wanted: Use) -> Option<(u32, bool)> {
        let near = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let host = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let cached = host | vk::MemoryPropertyFlags::HOST_CACHED;
        // Reading memory that is not cached takes a trip for each word: not in place, then.
        let by_rank = match wanted {
            Use::Near => [near | cached, near, vk::MemoryPropertyFlags::empty()],
            Use::Far => [near, vk::MemoryPropertyFlags::empty(), near],
            Use::Host => [cached, host, host],
        };
        let of_type = |at: u32| self.memory.memory_types[at as usize].property_flags;
        let fitting = |flags: vk::MemoryPropertyFlags| {
            let mut types = (0..self.memory.memory_type_count).filter(|at| types & (1 << at) != 0);
            types.find(|at| of_type(*at).contains(flags))
        };
        let at = by_rank.into_iter().find_map(fitting)?;
        let is_mapped = match wanted {
            Use::Near => of_type(at).contains(cached),
            Use::Far => false,
            Use::Host => true,
        };
        Some((at, is_mapped))
    }
}

/// A family that computes, best one that does nothing else, and the bits its clock has.
fn family(instance: &ash::Instance, raw: vk::PhysicalDevice) -> Option<(u32, u32)> {
    // SAFETY: of an instance that lives.
    let all = unsafe { instance.get_physical_device_queue_family_properties(raw) };
    let families = (0..).zip(all).filter(|(_, family)| {
        let computes = family.queue_flags.contains(vk::QueueFlags::COMPUTE);
        computes && family.timestamp_valid_bits > 0 && family.queue_count > 0
    });
    let best =
        families.min_by_key(|(_, family)| family.queue_flags.contains(vk::QueueFlags::GRAPHICS));
    best.map(|(at, family)| (at, family.timestamp_valid_bits))
}

fn has_robustness(instance: &ash::Instance, raw: vk::PhysicalDevice) -> bool {
    // SAFETY: of an instance that lives.
    let extensions = unsafe { instance.enumerate_device_extension_properties(raw) };
    let has = |extension: &vk::ExtensionProperties| {
        extension.extension_name_as_c_str() == Ok(robustness2::NAME)
    };
    if !extensions.is_ok_and(|extensions| extensions.iter().any(has)) {
        return false;
    }
    let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut robust);
    // SAFETY: of an instance that lives, and of a device that knows the structure.
    unsafe { instance.get_physical_device_features2(raw, &mut features) };
    robust.robust_buffer_access2 == vk::TRUE
}

fn limits_of(limits: &vk::PhysicalDeviceLimits) -> Limits {
    let [x, y, z] = limits.max_compute_work_group_count;
    let bindings = limits
        .max_per_stage_descriptor_storage_buffers
        .min(limits.max_per_stage_resources)
        .min(limits.max_descriptor_set_storage_buffers)
        .saturating_sub(OWN_BINDINGS)
        .min(limits.max_per_stage_descriptor_uniform_buffers)
        .min(limits.max_descriptor_set_uniform_buffers);
    Limits {
        groups: x.min(y).min(z),
        group_threads: limits.max_compute_work_group_invocations,
        group_bytes: limits.max_compute_shared_memory_size,
        // Spans are words.
        binding_bytes: u64::from(limits.max_storage_buffer_range & !3),
        bindings,
        offset_bytes: limits
            .min_storage_buffer_offset_alignment
            .max(limits.min_uniform_buffer_offset_alignment)
            .max(4),
        iterations: None,
    }
}

fn kind(of: vk::PhysicalDeviceType) -> Kind {
    match of {
        vk::PhysicalDeviceType::DISCRETE_GPU | vk::PhysicalDeviceType::VIRTUAL_GPU => {
            Kind::Discrete
        }
        vk::PhysicalDeviceType::CPU => Kind::Software,
        _ => Kind::Integrated,
    }
}

fn largest_heap(memory: &vk::PhysicalDeviceMemoryProperties) -> u64 {
    let heaps = memory.memory_heaps_as_slice().iter();
    let near = heaps.filter(|heap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL));
    near.map(|heap| heap.size).max().unwrap_or(0)
}

fn text(of: Result<&std::ffi::CStr, std::ffi::FromBytesUntilNulError>) -> String {
    of.map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}
