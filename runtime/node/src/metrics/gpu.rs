//! Figures of the GPU: the process that has it, and what each tenant has used of it.

use super::encode::Row;

/// The process and its device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct GpuSeen {
    /// 1 while a device is there.
    pub(crate) up: u64,
    /// How often it was started.
    pub(crate) starts: u64,
    /// How often it ended by itself, or did not start.
    pub(crate) failures: u64,
    /// Of these, as a kernel did not end.
    pub(crate) hangs: u64,
    /// How long the last start took.
    pub(crate) start_micros: u64,
    /// Time for which a device worked.
    pub(crate) busy_micros: u64,
    /// Memory of the device that may be used.
    pub(crate) memory_bytes: u64,
    /// Instances that have something of it.
    pub(crate) sessions: u64,
    /// Measures that do not hold the process in.
    pub(crate) measures_absent: u64,
}

/// A tenant with stages that may use it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct GpuTenantSeen {
    /// Millionths of the device's time that it is promised.
    pub(crate) share: u64,
    /// Time of the device that was charged to it.
    pub(crate) device_micros: u64,
    /// Pieces of work that were its.
    pub(crate) chunks: u64,
    /// Time that copies there and back took, which was charged to it too.
    pub(crate) copy_micros: u64,
    /// Bytes that were written, and read.
    pub(crate) up_bytes: u64,
    pub(crate) down_bytes: u64,
    /// Device memory that it is promised, and that it holds.
    pub(crate) guaranteed_bytes: u64,
    pub(crate) held_bytes: u64,
    /// Of these, what constants take that nothing needs now.
    pub(crate) kept_bytes: u64,
    /// What it held, times how long.
    pub(crate) memory_byte_seconds: u64,
    /// Such constants that have made room.
    pub(crate) evictions: u64,
    /// Buffers in borrowed memory that went to whom it was promised.
    pub(crate) recalls: u64,
    /// Submissions that have not ended.
    pub(crate) queued: u64,
    /// Buffers, kernels and graphs.
    pub(crate) handles: u64,
}

pub(super) const GPU_ROWS: &[Row<GpuSeen>] = &[
    Row::gauge("gpu_up", "1 while the process that has the GPU runs", |g| g.up),
    Row::counter("gpu_starts", "Starts of the process that has the GPU", |g| g.starts),
    Row::counter("gpu_failures", "Ends by itself of that process", |g| g.failures),
    Row::counter("gpu_hangs", "Ends of that process as a kernel did not end", |g| g.hangs),
    Row::seconds("gpu_start_seconds", "Time its last start took", |g| g.start_micros as f64 / 1e6),
    Row::micros("gpu_busy_seconds", "Time for which the device worked", |g| g.busy_micros),
    Row::gauge("gpu_memory_bytes", "Memory of the device", |g| g.memory_bytes),
    Row::gauge("gpu_sessions", "Instances that have something of the device", |g| g.sessions),
    Row::gauge("gpu_measures_absent", "Measures that do not hold that process in", |g| {
        g.measures_absent
    }),
];

pub(super) const GPU_TENANT_ROWS: &[Row<GpuTenantSeen>] = &[
    Row::seconds("gpu_share", "Part of the device's time that the tenant is promised", |t| {
        t.share as f64 / 1e6
    }),
    Row::micros("gpu_device_seconds", "Time of the device charged to the tenant", |t| {
        t.device_micros
    }),
    Row::counter("gpu_chunks", "Pieces of work of the tenant", |t| t.chunks),
    Row::micros("gpu_copy_seconds", "Time of copies to the device and back", |t| t.copy_micros),
    Row::counter("gpu_up_bytes", "Bytes the tenant wrote to the device", |t| t.up_bytes),
    Row::counter("gpu_down_bytes", "Bytes the tenant read from the device", |t| t.down_bytes),
    Row::gauge("gpu_guaranteed_bytes", "Device memory that the tenant is promised", |t| {
        t.guaranteed_bytes
    }),
    Row::gauge("gpu_held_bytes", "Device memory that the tenant holds", |t| t.held_bytes),
    Row::gauge("gpu_kept_bytes", "Of these, constants that nothing needs now", |t| t.kept_bytes),
    Row::counter("gpu_evictions", "Such constants that have made room", |t| t.evictions),
    Row::counter("gpu_recalls", "Buffers in borrowed memory that others were promised", |t| {
        t.recalls
    }),
    Row::counter("gpu_memory_byte_seconds", "Device memory it held, times how long", |t| {
        t.memory_byte_seconds
    }),
    Row::gauge("gpu_queued", "Submissions of the tenant that have not ended", |t| t.queued),
    Row::gauge("gpu_handles", "Buffers, kernels and graphs of the tenant", |t| t.handles),
];
