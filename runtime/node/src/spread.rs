//! Pipelines whose partitions are on several nodes.
//!
//! ```text
//!          home                                          another node
//!  ingest ─► log ─► mailbox ─► forwarder ══ trunk ══► gate ─► mailbox ─► partition ─► log
//!                       ▲          │ log                                    │
//!  outputs ◄── log ◄────┴──────────┴════════ trunk ══ settled, outputs ◄────┘
//! ```
//!
//! - A pipeline has a home, with its ingest, its versions, its outputs and its dead letters. Each
//!   of its partitions is on one node, in all segments; the state of a partition is in the log and
//!   the store of that node, and nowhere else. What another node than the home has is a *part*.
//! - Every node that has a part runs the pipeline whole, with a mailbox for each partition. Behind
//!   that of a partition which is elsewhere is a forwarder (`worker/forward`) in the place of the
//!   partition: it sends what is on disk, and takes it for consumed when the other node's log has
//!   it consumed. So both logs are whole by themselves, and neither is read by the other node.
//! - What leaves a part by outputs is kept by the home, which logs it as if it had left there
//!   (`reports`, and the forwarder at the home). So readers, cursors and what is kept of outputs
//!   are those of a pipeline that is in one place.
//! - Trunks lose what is under way when they break, and everything is sent again that nobody has
//!   answered; the numbers of runs and offsets say what came before (`mailbox/gate`).
//!
//! Why it is so is in ADR 0039. Moving partitions is the business of `moving`, where they are best
//! of `core/placement`.

pub(crate) mod arrivals;
pub(crate) mod receive;
mod refresh;
pub(crate) mod reports;
pub(crate) mod trunk;
pub(crate) mod whereabouts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use dashmap::DashMap;
use sluicebox_core::ids::{Name, PipelineId};

use crate::cluster::Cluster;
use crate::mailbox::Mailbox;
use crate::moving::Copied;
use crate::node::Locks;
use crate::running::Running;
pub(crate) use reports::Reports;
pub(crate) use trunk::Trunks;
pub(crate) use whereabouts::Whereabouts;

/// What a node has of pipelines whose partitions are on several nodes.
#[derive(Debug)]
pub(crate) struct Spread {
    /// Those of which some partitions are elsewhere, and parts of those whose home is elsewhere.
    pub(crate) running: DashMap<PipelineId, Arc<Running>>,
    /// Parts of the log that could not be started.
    pub(crate) broken: DashMap<PipelineId, Broken>,
    pub(crate) trunks: Arc<Trunks>,
    pub(crate) whereabouts: Whereabouts,
    /// Held by whoever takes partitions of a pipeline in, or lets a part of it go, by its name.
    pub(crate) joining: Locks<(Name, Name)>,
    /// The same by its number.
    pub(crate) joining_number: Locks<PipelineId>,
    /// What was taken of partitions that are not here yet, since the node was started.
    pub(crate) copies: DashMap<PipelineId, Copied>,
}

/// A part that is in the log and could not be started.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) tenant: Name,
    pub(crate) name: Name,
    /// The peer that is its home, if it is known.
    pub(crate) home: Option<u16>,
}

impl Spread {
    /// Of a node that works with these, and has nothing yet.
    pub(crate) fn new(cluster: Option<&Cluster>) -> Self {
        Self {
            running: DashMap::new(),
            broken: DashMap::new(),
            trunks: Arc::new(Trunks::new(cluster)),
            whereabouts: Whereabouts::default(),
            joining: DashMap::new(),
            joining_number: DashMap::new(),
            copies: DashMap::new(),
        }
    }
}

/// Where a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// On this node.
    Here,
    /// On its way from one to another: nobody takes what waits for it.
    Between,
    /// On another: the so-many-th of the peers.
    There(u16),
}

/// Where the partitions of a pipeline are, in all segments alike.
#[derive(Debug)]
pub(crate) struct Sites {
    at: Box<[AtomicU32]>,
    leaving: Box<[AtomicBool]>,
    copied: Box<[AtomicBool]>,
    /// A bit for each peer that has had one since the node was started.
    been: [AtomicU64; PEERS_MAX / 64],
}

/// Peers there may be.
const PEERS_MAX: usize = 256;

const HERE: u32 = 0;
const BETWEEN: u32 = 1;
const THERE: u32 = 2;

impl Sites {
    /// So many, all of them here.
    pub(crate) fn new(partitions: u16) -> Self {
        let at = (0..partitions).map(|_| AtomicU32::new(HERE)).collect();
        let none = || (0..partitions).map(|_| AtomicBool::new(false)).collect();
        Self { at, leaving: none(), copied: none(), been: Default::default() }
    }

    /// Where one is.
    #[inline]
    pub(crate) fn of(&self, partition: u16) -> Site {
        let site = self.at.get(usize::from(partition));
        match site.map_or(HERE, |site| site.load(Ordering::Acquire)) {
            HERE => Site::Here,
            BETWEEN => Site::Between,
            there => Site::There((there - THERE) as u16),
        }
    }

    /// From now on it is there.
    pub(crate) fn set(&self, partition: u16, site: Site) {
        let number = match site {
            Site::Here => HERE,
            Site::Between => BETWEEN,
            Site::There(peer) => THERE + u32::from(peer),
        };
        if let Some(at) = self.at.get(usize::from(partition)) {
            at.store(number, Ordering::Release);
        }
        if let Site::There(peer) = site
            && let Some(been) = self.been.get(usize::from(peer / 64))
        {
            been.fetch_or(1 << (peer % 64), Ordering::AcqRel);
        }
    }

    /// A peer has one, or has had one since the node was started.
    pub(crate) fn have_been_at(&self, peer: u16) -> bool {
        let been = self.been.get(usize::from(peer / 64));
        been.is_some_and(|been| been.load(Ordering::Acquire) >> (peer % 64) & 1 == 1)
    }

    /// Notes whether one has left from here by the log, and what it had is not let go yet.
    pub(crate) fn set_leaving(&self, partition: u16, leaving: bool) {
        if let Some(at) = self.leaving.get(usize::from(partition)) {
            at.store(leaving, Ordering::Release);
        }
    }

    /// One is on its way: the node it goes to may not have it yet, and what it had is here. It can
    /// neither go on nor come back.
    pub(crate) fn is_leaving(&self, partition: u16) -> bool {
        let at = self.leaving.get(usize::from(partition));
        at.is_some_and(|leaving| leaving.load(Ordering::Acquire))
    }

    /// Notes whether the state of one is copied to where it is about to go.
    pub(crate) fn set_copied(&self, partition: u16, copied: bool) {
        if let Some(at) = self.copied.get(usize::from(partition)) {
            at.store(copied, Ordering::Release);
        }
    }

    /// Another node may read the state of one: it goes there, or is about to.
    pub(crate) fn is_given(&self, partition: u16) -> bool {
        let at = self.copied.get(usize::from(partition));
        at.is_some_and(|copied| copied.load(Ordering::Acquire)) || self.is_leaving(partition)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u16 {
        self.at.len() as u16
    }

    /// Each with where it is.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u16, Site)> {
        (0..self.count()).map(|at| (at, self.of(at)))
    }

    /// All of them are here.
    pub(crate) fn are_all_here(&self) -> bool {
        self.at.iter().all(|site| site.load(Ordering::Acquire) == HERE)
    }
}

impl Running {
    /// All partitions of the segments of one number.
    pub(crate) fn partition(&self, partition: u16) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.mailboxes().iter().filter_map(move |segment| segment.get(usize::from(partition)))
    }

    /// Some of its partitions are elsewhere, or it is a part.
    pub(crate) fn is_spread(&self) -> bool {
        self.shared().part.is_some() || !self.shared().sites.are_all_here()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_where_they_were_put() {
        let sites = Sites::new(4);
        assert!(sites.are_all_here());
        sites.set(1, Site::There(3));
        sites.set(2, Site::Between);
        let all: Vec<Site> = sites.all().map(|(_, site)| site).collect();
        assert_eq!(all, [Site::Here, Site::There(3), Site::Between, Site::Here]);
        assert!(!sites.are_all_here());
        assert_eq!(sites.of(9), Site::Here);
        sites.set(2, Site::Here);
        sites.set(3, Site::There(200));
        let been: Vec<u16> = (0..300).filter(|peer| sites.have_been_at(*peer)).collect();
        assert_eq!(been, [3, 200]);
        sites.set_leaving(1, true);
        assert!(sites.is_leaving(1) && !sites.is_leaving(2) && !sites.is_leaving(9));
        sites.set_copied(2, true);
        let given: Vec<u16> = (0..4).filter(|at| sites.is_given(*at)).collect();
        assert_eq!(given, [1, 2]);
        sites.set_copied(2, false);
        assert!(!sites.is_given(2) && !sites.is_given(9));
    }
}
