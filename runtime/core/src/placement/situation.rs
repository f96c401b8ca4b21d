//! What a placement is decided from, as plain data: machines, processes, partitions, rates.
//!
//! Whatever numbers are in it, no sum overflows: rates above `RATE_MAX` count as that.

use std::collections::BTreeSet;

use crate::ids::Name;

/// Index of a host in `Situation::hosts`.
pub type HostIndex = usize;

/// Index of a node in `Situation::nodes`.
pub type NodeIndex = usize;

/// Index of an item in `Situation::items`.
pub type ItemIndex = usize;

/// Bytes a second that an edge can have: 64 GiB, more than any link. Sums of 2^27 such edges fit.
pub(super) const RATE_MAX: u64 = 1 << 36;

/// All that is known when a placement is decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// The machines.
    pub hosts: Vec<Host>,
    /// The processes on them.
    pub nodes: Vec<Node>,
    /// What is to be placed.
    pub items: Vec<Item>,
    /// Traffic between items. Two of the same ends count together.
    pub edges: Vec<Edge>,
    /// Traffic between items and the nodes where it enters or leaves the system.
    pub fronts: Vec<Front>,
    /// What is worth a move.
    pub policy: Policy,
}

/// Something a partition needs and a node has so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Time of processors.
    Cpu,
    /// Memory.
    Memory,
    /// Time of devices.
    Gpu,
}

impl Resource {
    /// All, in the order in which they are looked at.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Gpu];

    /// The word for people.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Gpu => "gpu",
        }
    }
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Thousandths of a device.
    pub gpu_milli: u64,
}

impl Resources {
    /// In the order of [`Resource::ALL`].
    pub(super) const fn amounts(&self) -> [u64; 3] {
        [self.cpu_milli, self.memory_bytes, self.gpu_milli]
    }
}

/// A machine. What its nodes use together is bounded by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, unique among hosts.
    pub name: Name,
    /// What it has.
    pub capacity: Resources,
    /// What items may ask for; all its nodes have it too.
    pub labels: BTreeSet<Name>,
}

/// A process on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique among nodes.
    pub name: Name,
    /// Where it runs.
    pub host: HostIndex,
    /// What it may use at most, whatever its host has left.
    pub capacity: Resources,
    /// What items may ask for.
    pub labels: BTreeSet<Name>,
    /// The only tenant whose partitions it takes; `None`: all that are not isolated by process.
    pub tenant: Option<Name>,
    /// Whether it answers.
    pub is_up: bool,
}

/// A partition of a segment of a pipeline of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose it is.
    pub tenant: Name,
    /// The pipeline.
    pub pipeline: Name,
    /// The segment, by the stage it begins with.
    pub segment: Name,
    /// Which of the segment's partitions.
    pub partition: u16,
    /// What it uses.
    pub needs: Resources,
    /// Labels its node or its host must have.
    pub requires: BTreeSet<Name>,
    /// Only on nodes that are bound to its tenant.
    pub is_isolated: bool,
    /// Where it runs; `None` if nowhere yet.
    pub now: Option<Now>,
}

/// Where a partition runs, and what it would take to move it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The node.
    pub node: NodeIndex,
    /// Whether it may be moved now. One that is being moved, for example, may not.
    pub may_move: bool,
    /// Bytes of state that would go over the link.
    pub state_bytes: u64,
    /// Its data is also elsewhere, so that it can go on without its node.
    pub is_copied: bool,
}

/// Traffic from one item to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// The item that sends.
    pub from: ItemIndex,
    /// The item that receives.
    pub to: ItemIndex,
    /// Bytes a second, smoothed by whoever measures.
    pub bytes_per_second: u64,
}

/// Traffic between an item and the node where it enters or leaves the system: ingest, outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Front {
    /// The item.
    pub item: ItemIndex,
    /// The node with the connections of clients.
    pub node: NodeIndex,
    /// Bytes a second, both ways together.
    pub bytes_per_second: u64,
}

/// What a byte costs by how far it goes, relative to each other. Not less with the distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCosts {
    /// Within a node: a frame is handed over.
    pub node: u16,
    /// Between nodes of a host: a ring in shared memory, with one copy and a check.
    pub host: u16,
    /// Between hosts: copies, encryption, the network.
    pub network: u16,
}

impl Default for LinkCosts {
    /// From round trips measured: 0.04 to 0.6 µs, 4 to 5 µs, and 12 µs plus the way of the network.
    fn default() -> Self {
        Self { node: 0, host: 1, network: 10 }
    }
}

/// What is worth a move, and how full nodes are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What distance costs.
    pub links: LinkCosts,
    /// Up to which part of its cpu and memory a node is filled as long as there is another way; the
    /// rest is for rates that rise. At most 100.
    pub fill_percent: u8,
    /// What a move must spare of the item's traffic cost, besides its price.
    pub gain_percent: u8,
    /// Seconds in which a move must have paid its price.
    pub payback_seconds: u32,
    /// What a move costs whatever the state: the pause, as bytes over the network.
    pub move_bytes: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            links: LinkCosts::default(),
            fill_percent: 80,
            gain_percent: 25,
            payback_seconds: 300,
            move_bytes: 1024 * 1024,
        }
    }
}
