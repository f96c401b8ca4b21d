//! What can be used, and an amount of each.
//!
//! ```text
//! used   mask n: bit i for item i, if there is any of it · for each bit, from the lowest: amount n
//! ```
//!
//! The number of an item is in records and checkpoints: it never changes, and none is used again.

use crate::codec::RecordError;
use crate::codec::wire::{Reader, put};

/// What can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Item {
    /// Instructions, and what the host does for a guest, by its weight.
    Fuel = 0,
    /// Events that a stage took.
    Events = 1,
    /// Calls that were taken back, whose fuel is among the fuel.
    Reruns = 2,
    /// Bytes of events that came in at the edge, as they are in frames.
    BytesIn = 3,
    /// Bytes of events that left by outputs.
    BytesOut = 4,
    /// Bytes of events that went over edges to other partitions, wherever those are.
    BytesBetween = 5,
    /// Those of them that went to another node through shared memory.
    LinkMemory = 6,
    /// Those of them that went to another node by network.
    LinkNetwork = 7,
    /// Memory of instances, those that wait among them, times its time.
    Memory = 8,
    /// Keyed state in memory, times its time.
    State = 9,
    /// What is kept on disk, times its time.
    Disk = 10,
    /// Time of a GPU.
    Gpu = 11,
    /// Time of copies to and from a GPU.
    GpuCopy = 12,
    /// Memory of a GPU, times its time.
    GpuMemory = 13,
}

impl Item {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Fuel,
        Self::Events,
        Self::Reruns,
        Self::BytesIn,
        Self::BytesOut,
        Self::BytesBetween,
        Self::LinkMemory,
        Self::LinkNetwork,
        Self::Memory,
        Self::State,
        Self::Disk,
        Self::Gpu,
        Self::GpuCopy,
        Self::GpuMemory,
    ];

    /// Its name, with the unit where it is not a mere number.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Events => "events",
            Self::Reruns => "reruns",
            Self::BytesIn => "bytes-in",
            Self::BytesOut => "bytes-out",
            Self::BytesBetween => "bytes-between",
            Self::LinkMemory => "link-bytes-memory",
            Self::LinkNetwork => "link-bytes-network",
            Self::Memory => "memory-kib-ms",
            Self::State => "state-kib-ms",
            Self::Disk => "disk-kib-ms",
            Self::Gpu => "gpu-ns",
            Self::GpuCopy => "gpu-copy-ns",
            Self::GpuMemory => "gpu-memory-kib-ms",
        }
    }

    /// How much of it a price is for: 10^9 of fuel, a million events or reruns, a GiB, a GiB for an
    /// hour, an hour.
    #[must_use]
    pub const fn priced_by(self) -> u64 {
        const GIB: u64 = 1 << 30;
        const GIB_HOUR: u64 = (1 << 20) * 3_600_000;
        match self {
            Self::Fuel => 1_000_000_000,
            Self::Events | Self::Reruns => 1_000_000,
            Self::BytesIn
            | Self::BytesOut
            | Self::BytesBetween
            | Self::LinkMemory
            | Self::LinkNetwork => GIB,
            Self::Memory | Self::State | Self::Disk | Self::GpuMemory => GIB_HOUR,
            Self::Gpu | Self::GpuCopy => 3_600_000_000_000,
        }
    }
}

/// An amount of each item. Amounts that are larger than a number can be stay the largest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used([u64; Item::ALL.len()]);

impl Used {
    /// So much of one item.
    #[must_use]
    pub fn of(item: Item, amount: u64) -> Self {
        Self::default().and(item, amount)
    }

    /// And so much of another.
    #[must_use]
    pub fn and(mut self, item: Item, amount: u64) -> Self {
        self.more(item, amount);
        self
    }

    /// How much of an item.
    #[must_use]
    pub fn get(&self, item: Item) -> u64 {
        self.0[item as usize]
    }

    /// Adds to an item.
    pub fn more(&mut self, item: Item, amount: u64) {
        let known = &mut self.0[item as usize];
        *known = known.saturating_add(amount);
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        Item::ALL.into_iter().for_each(|item| self.more(item, other.get(item)));
    }

    /// True if there is nothing of anything.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.0 == Self::default().0
    }

    const fn bit(item: Item) -> u64 {
        1 << (item as u8)
    }

    /// Appends it in bytes.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let there = |item: &Item| self.get(*item) > 0;
        let bits = Item::ALL.into_iter().filter(there).map(Self::bit);
        put(out, bits.sum::<u64>());
        for item in Item::ALL.into_iter().filter(there) {
            put(out, self.get(item));
        }
    }
}

/// Reads what [`Used::put`] wrote. An item that is not known here is wrong: it would be lost.
pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Used, RecordError> {
    let mask = reader.number("what was used")?;
    if mask >> Item::ALL.len() != 0 {
        return Err(reader.bad("what was used"));
    }
    let mut used = Used::default();
    for item in Item::ALL.into_iter().filter(|item| mask & Used::bit(*item) != 0) {
        used.more(item, reader.positive("how much was used")?);
    }
    Ok(used)
}
