//! What a placement is held against: the same rules of capacity and tenants, and no look at rates.

use std::collections::BTreeSet;

use sluicebox_core::ids::Name;
use sluicebox_core::placement::{Resources, Situation, Traffic};

use crate::dice::Dice;

/// How to choose a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Baseline {
    Random,
    RoundRobin,
    Hash,
    FirstFit,
}

/// The node of each item; `None` where nothing had room.
pub(crate) fn place(baseline: Baseline, situation: &Situation, seed: u64) -> Vec<Option<usize>> {
    let mut dice = Dice::new(seed);
    let mut usage = Usage::new(situation);
    let count = situation.nodes.len();
    let mut next = 0;
    let mut places = Vec::with_capacity(situation.items.len());
    for (at, item) in situation.items.iter().enumerate() {
        let start = match baseline {
            Baseline::Random => dice.below(count),
            Baseline::RoundRobin => next,
            Baseline::Hash => {
                let text = format!("{}/{}/{}", item.pipeline, item.segment, item.partition);
                (sluicebox_core::key::hash(text.as_bytes()) % count as u64) as usize
            }
            Baseline::FirstFit => 0,
        };
        let nodes = (0..count).map(|step| (start + step) % count);
        let percent = u64::from(situation.policy.fill_percent);
        let place = nodes.clone().find(|node| usage.fits(situation, at, *node, percent));
        let place =
            place.or_else(|| nodes.clone().find(|node| usage.fits(situation, at, *node, 100)));
        if let Some(node) = place {
            usage.add(situation, at, node);
            next = (node + 1) % count;
        }
        places.push(place);
    }
    places
}

/// What nodes and hosts have in use, counted apart from the code under test.
pub(crate) struct Usage {
    nodes: Vec<[u64; 3]>,
    hosts: Vec<[u64; 3]>,
}

const fn three(amount: &Resources) -> [u64; 3] {
    [amount.cpu_milli, amount.memory_bytes, amount.gpu_milli]
}

impl Usage {
    pub(crate) fn new(situation: &Situation) -> Self {
        Self {
            nodes: vec![[0; 3]; situation.nodes.len()],
            hosts: vec![[0; 3]; situation.hosts.len()],
        }
    }

    pub(crate) fn add(&mut self, situation: &Situation, item: usize, node: usize) {
        let needs = three(&situation.items[item].needs);
        let host = situation.nodes[node].host;
        for (at, needs) in needs.into_iter().enumerate() {
            self.nodes[node][at] += needs;
            self.hosts[host][at] += needs;
        }
    }

    pub(crate) fn take(&mut self, situation: &Situation, item: usize, node: usize) {
        let needs = three(&situation.items[item].needs);
        let host = situation.nodes[node].host;
        for (at, needs) in needs.into_iter().enumerate() {
            self.nodes[node][at] -= needs;
            self.hosts[host][at] -= needs;
        }
    }

    /// The node takes the item's tenant, has its labels, and has room.
    pub(crate) fn fits(&self, situation: &Situation, item: usize, node: usize, fill: u64) -> bool {
        let needs = three(&situation.items[item].needs);
        let host = situation.nodes[node].host;
        let capacities =
            [three(&situation.nodes[node].capacity), three(&situation.hosts[host].capacity)];
        let fits = |used: &[u64; 3], all: [u64; 3]| {
            (0..3).all(|at| {
                let all = if at == 2 { all[at] } else { all[at] * fill / 100 };
                needs[at] == 0 || used[at] + needs[at] <= all
            })
        };
        may_take(situation, item, node)
            && fits(&self.nodes[node], capacities[0])
            && fits(&self.hosts[host], capacities[1])
    }

    /// The nodes and hosts that use more of something than they have, with what and how much.
    pub(crate) fn over_all(&self, situation: &Situation) -> BTreeSet<String> {
        let mut over = BTreeSet::new();
        let mut look = |name: &Name, used: &[u64; 3], all: &Resources| {
            let all = three(all);
            let of = (0..3).filter(|at| used[*at] > all[*at]);
            over.extend(of.map(|at| format!("{name} {at}")));
        };
        for (node, used) in situation.nodes.iter().zip(&self.nodes) {
            look(&node.name, used, &node.capacity);
        }
        for (host, used) in situation.hosts.iter().zip(&self.hosts) {
            look(&host.name, used, &host.capacity);
        }
        over
    }
}

pub(crate) fn may_take(situation: &Situation, item: usize, node: usize) -> bool {
    let (item, node) = (&situation.items[item], &situation.nodes[node]);
    let host = &situation.hosts[node.host];
    let tenant = node.tenant.as_ref().map_or(!item.is_isolated, |t| *t == item.tenant);
    let has = |label| node.labels.contains(label) || host.labels.contains(label);
    node.is_up && tenant && item.requires.iter().all(has)
}

/// How far everything goes.
pub(crate) fn traffic(situation: &Situation, places: &[Option<usize>]) -> Traffic {
    let mut traffic = Traffic::default();
    let mut add = |a: Option<usize>, b: Option<usize>, bytes: u64| {
        let (Some(a), Some(b)) = (a, b) else { return };
        if a == b {
            traffic.in_node += bytes;
        } else if situation.nodes[a].host == situation.nodes[b].host {
            traffic.in_host += bytes;
        } else {
            traffic.network += bytes;
        }
    };
    for edge in &situation.edges {
        add(places[edge.from], places[edge.to], edge.bytes_per_second);
    }
    for front in &situation.fronts {
        add(places[front.item], Some(front.node), front.bytes_per_second);
    }
    traffic
}
