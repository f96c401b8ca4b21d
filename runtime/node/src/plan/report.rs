//! What a node says of itself when another makes a plan.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use sluicebox_core::ids::PipelineId;

use crate::config::memory_share;
use crate::mailbox::Mailbox;
use crate::mailbox::load::Done;
use crate::node::Node;
use crate::running::Running;
use crate::spread::Site;

/// Where the system says which start of which machine this is: the same for all nodes of it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Partitions that one is said to send to, those that get most.
const SENT_MAX: usize = 64;

/// Of a node that does not say it: more than there is, less than sums overflow at.
pub(super) const MEMORY_BYTES_UNKNOWN: u64 = 1 << 50;

/// A node, and all it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report {
    /// The machine it is on.
    pub(crate) host: String,
    /// Thousandths of processors that its workers may use, and that the machine has.
    pub(crate) cpu_milli: u64,
    pub(crate) host_cpu_milli: u64,
    /// Bytes of memory that its partitions may take, and those of all nodes of the machine.
    #[serde(default = "unknown_memory")]
    pub(crate) memory_bytes: u64,
    #[serde(default = "unknown_memory")]
    pub(crate) host_memory_bytes: u64,
    /// Thousandths of a device that its GPU has; 0 without one.
    #[serde(default)]
    pub(crate) gpu_milli: u64,
    pub(crate) pipelines: Vec<PipelineReport>,
}

/// A pipeline of which some is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PipelineReport {
    pub(crate) tenant: String,
    pub(crate) name: String,
    /// This is its home.
    pub(crate) is_home: bool,
    /// Its partitions can be on other nodes.
    pub(crate) may_move: bool,
    /// It has stages that need a GPU.
    #[serde(default)]
    pub(crate) needs_gpu: bool,
    /// What is there of it.
    pub(crate) here: Vec<PartitionReport>,
    /// At its home: the other partitions, with their nodes.
    pub(crate) away: BTreeMap<u16, String>,
    /// At its home: bytes of ingest a second for each partition that gets any.
    pub(crate) ingest: BTreeMap<u16, u64>,
}

/// A partition in all segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PartitionReport {
    pub(crate) partition: u16,
    /// It can leave now.
    pub(crate) may_move: bool,
    pub(crate) cpu_milli: u64,
    /// Bytes of state and of events that wait, in memory.
    #[serde(default)]
    pub(crate) memory_bytes: u64,
    pub(crate) state_bytes: u64,
    /// Bytes a second that leave it by outputs, and that it sends to others.
    pub(crate) output: u64,
    pub(crate) sent: BTreeMap<u16, u64>,
    /// What it has done in each segment, by root, if its pipeline scales and its home is elsewhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) done: BTreeMap<String, Done>,
}

impl Node {
    /// What this node does, for a plan.
    pub(crate) fn report(&self) -> Report {
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let workers = self.workers().len() as u64;
        let memory_bytes = self.config().cluster.memory_bytes as u64;
        let all = self.all_by_id();
        Report {
            host: self.host(),
            cpu_milli: workers.min(cores) * 1000,
            host_cpu_milli: cores * 1000,
            memory_bytes,
            host_memory_bytes: memory_bytes.max(memory_share() as u64),
            gpu_milli: if self.gpus().may_be_there() { 1000 } else { 0 },
            pipelines: all.iter().map(|(id, running)| self.report_of(*id, running)).collect(),
        }
    }

    /// The machine this node is on, as it is told or as far as the system says.
    fn host(&self) -> String {
        match &self.config().cluster.host {
            Some(host) => host.to_string(),
            None => booted(self.cluster().map_or("", |own| own.name().as_str())),
        }
    }

    fn report_of(&self, id: PipelineId, running: &Arc<Running>) -> PipelineReport {
        let is_home = !running.is_part();
        let sites = &running.shared().sites;
        let is_asked = !is_home && running.pipeline().scaling.is_some();
        let done =
            |mailbox: &Arc<Mailbox>| (mailbox.segment.root_name().to_owned(), Done::of(mailbox));
        let (mut here, mut ingest) = (Vec::new(), BTreeMap::new());
        for (at, site) in sites.all() {
            let rates = self.flows().of(id, at);
            if is_home && rates.ingest >= 1.0 {
                ingest.insert(at, rates.ingest as u64);
            }
            if site != Site::Here {
                continue;
            }
            let stands = |halted: bool| !halted && !sites.is_leaving(at);
            let mailboxes = || running.partition(at);
            let state = mailboxes().map(|mailbox| mailbox.state_bytes.load(Ordering::Relaxed));
            let state_bytes = state.sum::<usize>() as u64;
            let waiting = mailboxes().map(|mailbox| mailbox.room.bytes() as u64);
            let mut sent: Vec<(u16, u64)> = rates
                .sent
                .iter()
                .filter(|(to, rate)| **to != at && **rate >= 1.0)
                .map(|(to, rate)| (*to, *rate as u64))
                .collect();
            sent.sort_unstable_by_key(|(to, rate)| (Reverse(*rate), *to));
            sent.truncate(SENT_MAX);
            here.push(PartitionReport {
                partition: at,
                may_move: stands(mailboxes().any(|mailbox| mailbox.halted().is_some())),
                cpu_milli: rates.cpu_milli as u64,
                memory_bytes: state_bytes + waiting.sum::<u64>(),
                state_bytes,
                output: rates.output as u64,
                sent: sent.into_iter().collect(),
                done: mailboxes().filter(|_| is_asked).map(done).collect(),
            });
        }
        PipelineReport {
            tenant: running.tenant().to_string(),
            name: running.name().to_string(),
            is_home,
            may_move: crate::moving::why_in_one_place(running).is_none(),
            needs_gpu: running.pipeline().needs_gpu(),
            here,
            away: if is_home { self.away(running) } else { BTreeMap::new() },
            ingest,
        }
    }
}

const fn unknown_memory() -> u64 {
    MEMORY_BYTES_UNKNOWN
}

/// The name of this machine, or that of the node if the system does not say.
fn booted(own: &str) -> String {
    let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    match digits.len() {
        8 => format!("host-{digits}"),
        _ => format!("host-of-{own}"),
    }
}
