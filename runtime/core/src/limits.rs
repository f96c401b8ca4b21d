//! Every bound in the system that users may not change, why it has that value, and how they relate.
//!
//! Bounds users may change live in the configuration of the crate that enforces them, or in the
//! pipeline's manifest; their defaults and hard ceilings are here when more than one crate needs
//! them. The relations that must hold are asserted at compile time at the end of this file.

/// Longest key in bytes. Keys are copied into every event and hashed for every hop; 512 holds any
/// identifier or URL path people use as one.
pub const KEY_BYTES_MAX: usize = 512;

/// Events in a frame given to a stage. The cost of a call is spread over the frame; beyond 256 the
/// gain is under 1 ns an event and the latency of the last event grows.
pub const BATCH_EVENTS_MAX: usize = 256;

/// Bytes in a frame given to a stage, unless one event alone is larger. Stays inside a core's
/// second-level cache, and a page-faulting allocator is never asked for a megabyte block a batch.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Largest event a pipeline may allow.
pub const EVENT_BYTES_HARD: usize = 16 * 1024 * 1024;

/// Largest event unless the manifest says otherwise.
pub const EVENT_BYTES_DEFAULT: usize = 1024 * 1024;

/// All extension fields of one event together.
pub const FIELDS_BYTES_MAX: usize = 16 * 1024;

/// Handles of buffers of a device that a stage may lend to the events of one emitted frame, and
/// that one event may name. Each is asked about at the process of the device. A frame of the most
/// events has one for each of them.
pub const ATTACHMENTS_MAX: usize = 256;

/// Event times are below this, so that a double holds them exactly.
pub const TIME_END: u64 = 1 << 53;

/// Longest slot name in a key's state.
pub const SLOT_BYTES_MAX: usize = 64;

/// A key's state, all slots together, unless the manifest says otherwise.
pub const KEY_STATE_BYTES_DEFAULT: usize = 1024 * 1024;

/// Fixed number of key groups: the granularity of re-partitioning, part of the on-disk format.
pub const KEY_GROUPS: u16 = 1024;

/// Offsets kept of all changes of the number of partitions, for the outputs of a pipeline or for a
/// ring: over so many, readers get the results of a key in their order. For 8 partitions and one
/// output that is some thousand changes.
pub const FENCE_OFFSETS_MAX: usize = 16 * 1024;

/// Longest failure message kept; the rest is cut.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Longest log line kept; the rest is cut.
pub const LOG_LINE_BYTES_MAX: usize = 4096;

/// Names of tenants, pipelines, stages, ports, inputs and outputs.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest name of a node: that of a name in the DNS.
pub const NODE_BYTES_MAX: usize = 253;

/// Longest id of a producer that numbers its requests; it is in every record of one.
pub const PRODUCER_BYTES_MAX: usize = 128;

/// Keys that may be parked at one stage in one partition. Each is looked at when its pause is over,
/// so that their number bounds what trying again costs others.
pub const PARKED_KEYS_MAX: usize = 10_000;

/// Bytes of all events parked at one stage in one partition, overheads included: what a stage that
/// is broken for every key may hold of the memory before its events become dead letters.
pub const PARKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a page in the image of an instance: what the machine's own pages have, so that what
/// was not touched is not copied.
pub const IMAGE_PAGE_BYTES: usize = 4096;

/// Pages and head of one image together. A stream that has more to itself is no short stream, and
/// one that copies so much holds up the others of its worker.
pub const IMAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Timers one key may have at one stage. A window has one, so that this is as many windows of a key
/// as may be open.
pub const TIMERS_A_KEY_MAX: usize = 1024;

/// Bytes of all timers of one stage in one partition, overheads included: they cannot leave memory.
/// A million keys with a timer each.
pub const TIMERS_BYTES_MAX: usize = 256 * 1024 * 1024;

const _: () = {
    assert!(KEY_BYTES_MAX < u16::MAX as usize);
    assert!(BATCH_EVENTS_MAX.is_power_of_two());
    // What the host writes besides is short.
    assert!(ATTACHMENTS_MAX * 8 < FIELDS_BYTES_MAX / 2);
    assert!(EVENT_BYTES_DEFAULT <= EVENT_BYTES_HARD);
    // A frame of one event of the largest size still has a length that fits its header.
    assert!(EVENT_BYTES_HARD + FIELDS_BYTES_MAX + KEY_BYTES_MAX + 48 < u32::MAX as usize);
};
