//! Which nodes and hosts an item, or several together, have traffic with, and what a place costs.

use super::situation::{LinkCosts, Policy};
use super::view::View;

/// Weighted bytes a second.
pub(super) type Cost = u128;

/// Traffic of what was read last, by node and host. Made once, used for each item in turn.
#[derive(Debug)]
pub(super) struct Touch {
    by_node: Vec<u64>,
    by_host: Vec<u64>,
    /// Nodes and hosts that have an entry.
    pub(super) nodes: Vec<usize>,
    pub(super) hosts: Vec<usize>,
    total: u64,
    links: LinkCosts,
}

impl Touch {
    pub(super) fn new(view: &View<'_>) -> Self {
        let given = view.situation.policy.links;
        let host = given.host.max(given.node);
        let links = LinkCosts { node: given.node, host, network: given.network.max(host) };
        Self {
            by_node: vec![0; view.nodes.len()],
            by_host: vec![0; view.nodes_of.len()],
            nodes: Vec::new(),
            hosts: Vec::new(),
            total: 0,
            links,
        }
    }

    /// Reads the traffic of an item with everything that has a place. Gives how much was read.
    pub(super) fn read(&mut self, view: &View<'_>, at: &[Option<usize>], item: usize) -> usize {
        self.clear();
        self.add(view, at, item, |_| false)
    }

    /// Reads the traffic of several items, without that among them.
    pub(super) fn read_all(
        &mut self,
        view: &View<'_>,
        at: &[Option<usize>],
        items: &[usize],
        is_inside: impl Fn(usize) -> bool,
    ) -> usize {
        self.clear();
        items.iter().map(|item| self.add(view, at, *item, &is_inside)).sum()
    }

    fn clear(&mut self) {
        self.nodes.drain(..).for_each(|node| self.by_node[node] = 0);
        self.hosts.drain(..).for_each(|host| self.by_host[host] = 0);
        self.total = 0;
    }

    fn add(
        &mut self,
        view: &View<'_>,
        at: &[Option<usize>],
        item: usize,
        is_inside: impl Fn(usize) -> bool,
    ) -> usize {
        let (ties, anchors) = (view.ties.row(item), view.anchors.row(item));
        for (other, bytes) in ties.iter().filter(|(other, _)| !is_inside(*other)) {
            if let Some(node) = at[*other] {
                self.add_one(view, node, *bytes);
            }
        }
        anchors.iter().for_each(|(node, bytes)| self.add_one(view, *node, *bytes));
        ties.len() + anchors.len() + 1
    }

    fn add_one(&mut self, view: &View<'_>, node: usize, bytes: u64) {
        let host = view.host_of[node];
        if self.by_node[node] == 0 {
            self.nodes.push(node);
        }
        if self.by_host[host] == 0 {
            self.hosts.push(host);
        }
        self.by_node[node] += bytes;
        self.by_host[host] += bytes;
        self.total += bytes;
    }

    /// What being on a node costs.
    pub(super) fn cost(&self, view: &View<'_>, node: usize) -> Cost {
        let in_node = self.by_node[node];
        let in_host = self.by_host[view.host_of[node]] - in_node;
        let network = self.total - in_host - in_node;
        self.weighted(in_node, self.links.node)
            + self.weighted(in_host, self.links.host)
            + self.weighted(network, self.links.network)
    }

    /// What being away from everything costs: as much as any place can.
    pub(super) fn cost_far(&self) -> Cost {
        self.weighted(self.total, self.links.network)
    }

    /// Nodes that may spare something: all of the hosts there is traffic with.
    pub(super) fn near<'v>(&'v self, view: &'v View<'_>) -> impl Iterator<Item = usize> + 'v {
        self.hosts.iter().flat_map(|host| view.nodes_of[*host].iter().copied())
    }

    /// What a tie costs twice if its ends change places, as each is taken to come to the other.
    pub(super) fn cost_of_exchange(&self, view: &View<'_>, nodes: [usize; 2], bytes: u64) -> Cost {
        let is_inside = view.host_of[nodes[0]] == view.host_of[nodes[1]];
        let far = if is_inside { self.links.host } else { self.links.network };
        2 * self.weighted(bytes, far - self.links.node)
    }

    fn weighted(&self, bytes: u64, cost: u16) -> Cost {
        Cost::from(bytes) * Cost::from(cost)
    }
}

/// What a move must spare besides anything: state over the network, spread over the time in which
/// it must have paid.
pub(super) fn price(view: &View<'_>, item: usize) -> Cost {
    let policy: &Policy = &view.situation.policy;
    let state = view.item(item).now.map_or(0, |now| now.state_bytes);
    let bytes = Cost::from(state) + Cost::from(policy.move_bytes);
    bytes * Cost::from(policy.links.network) / Cost::from(policy.payback_seconds.max(1))
}

/// The share of a cost that a move must spare.
pub(super) fn share(view: &View<'_>, cost: Cost) -> Cost {
    cost * Cost::from(view.situation.policy.gain_percent) / 100
}
