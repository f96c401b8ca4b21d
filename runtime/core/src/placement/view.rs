//! A situation in one order, whatever order it was given in: everything is by rank from here on.
//!
//! Ranks follow names, so that two situations which differ in the order of their lists have the
//! same view. Ties are the edges of an item in both directions, those of the same ends together.

use super::classes::{Class, Classes};
use super::situation::{Front, Item, Node, RATE_MAX, Resources, Situation};

/// Index of a group: the items of one pipeline.
pub(super) type Pipeline = usize;

/// See the module. `items[rank]` and so on give the index in the situation.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) situation: &'a Situation,
    pub(super) items: Vec<usize>,
    pub(super) nodes: Vec<usize>,
    /// The rank of each node of the situation.
    pub(super) node_ranks: Vec<usize>,
    /// The host of each node, both by rank.
    pub(super) host_of: Vec<usize>,
    /// The nodes of each host, by rank.
    pub(super) nodes_of: Vec<Vec<usize>>,
    /// What each host has, by rank.
    pub(super) host_capacities: Vec<Resources>,
    /// Other items, and bytes a second.
    pub(super) ties: Rows,
    /// Nodes, and bytes a second.
    pub(super) anchors: Rows,
    pub(super) class: Vec<Class>,
    pub(super) pipeline: Vec<Pipeline>,
}

impl<'a> View<'a> {
    pub(super) fn of(situation: &'a Situation, classes: &Classes) -> Self {
        let hosts = sorted(&situation.hosts, |host| &host.name);
        let nodes = sorted(&situation.nodes, |node| &node.name);
        let items = sorted(&situation.items, |item| {
            (&item.tenant, &item.pipeline, &item.segment, item.partition)
        });
        let (host_ranks, node_ranks) = (ranks(&hosts), ranks(&nodes));
        let item_ranks = ranks(&items);
        let host_of: Vec<usize> =
            nodes.iter().map(|node| host_ranks[situation.nodes[*node].host]).collect();
        let mut nodes_of = vec![Vec::new(); hosts.len()];
        host_of.iter().enumerate().for_each(|(node, host)| nodes_of[*host].push(node));
        let ties = situation.edges.iter().filter(|edge| edge.from != edge.to).flat_map(|edge| {
            let (from, to) = (item_ranks[edge.from], item_ranks[edge.to]);
            [(from, to, edge.bytes_per_second), (to, from, edge.bytes_per_second)]
        });
        let anchors = situation.fronts.iter().map(|front: &Front| {
            (item_ranks[front.item], node_ranks[front.node], front.bytes_per_second)
        });
        let host_capacities = hosts.iter().map(|host| situation.hosts[*host].capacity).collect();
        Self {
            ties: Rows::of(items.len(), ties),
            anchors: Rows::of(items.len(), anchors),
            class: items.iter().map(|item| classes.of_item(*item)).collect(),
            pipeline: pipelines(situation, &items),
            situation,
            items,
            nodes,
            node_ranks,
            host_of,
            nodes_of,
            host_capacities,
        }
    }

    pub(super) fn item(&self, rank: usize) -> &'a Item {
        &self.situation.items[self.items[rank]]
    }

    pub(super) fn node(&self, rank: usize) -> &'a Node {
        &self.situation.nodes[self.nodes[rank]]
    }
}

/// Indices in the order of a name that each has alone.
fn sorted<'a, T, K: Ord>(list: &'a [T], name: impl Fn(&'a T) -> K) -> Vec<usize> {
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_cached_key(|at| name(&list[*at]));
    let twice = order.windows(2).any(|pair| name(&list[pair[0]]) == name(&list[pair[1]]));
    assert!(!twice, "two of the same name in a situation");
    order
}

fn ranks(order: &[usize]) -> Vec<usize> {
    let mut ranks = vec![0; order.len()];
    order.iter().enumerate().for_each(|(rank, at)| ranks[*at] = rank);
    ranks
}

/// Numbers the pipelines; items come sorted by tenant and pipeline.
fn pipelines(situation: &Situation, items: &[usize]) -> Vec<Pipeline> {
    let name = |at: usize| {
        let item = &situation.items[items[at]];
        (&item.tenant, &item.pipeline)
    };
    let mut last = 0;
    let mut numbers = Vec::with_capacity(items.len());
    for at in 0..items.len() {
        if at > 0 && name(at) != name(at - 1) {
            last += 1;
        }
        numbers.push(last);
    }
    numbers
}

/// For each item a list of others with bytes a second, sorted, each once.
#[derive(Debug)]
pub(super) struct Rows {
    starts: Vec<usize>,
    entries: Vec<(usize, u64)>,
}

impl Rows {
    pub(super) fn of(rows: usize, entries: impl Iterator<Item = (usize, usize, u64)>) -> Self {
        let mut all: Vec<(usize, usize, u64)> = entries.filter(|(.., bytes)| *bytes > 0).collect();
        all.sort_unstable_by_key(|(row, other, _)| (*row, *other));
        all.dedup_by(|next, kept| {
            let same = (next.0, next.1) == (kept.0, kept.1);
            if same {
                kept.2 = kept.2.saturating_add(next.2);
            }
            same
        });
        let mut starts = vec![0; rows + 1];
        all.iter().for_each(|(row, ..)| starts[row + 1] += 1);
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let entries = all.into_iter().map(|(_, other, bytes)| (other, bytes.min(RATE_MAX)));
        Self { starts, entries: entries.collect() }
    }

    pub(super) fn row(&self, row: usize) -> &[(usize, u64)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// What stands for one other in a row; 0 if it is not there.
    pub(super) fn between(&self, row: usize, other: usize) -> u64 {
        let row = self.row(row);
        row.binary_search_by_key(&other, |(other, _)| *other).map_or(0, |at| row[at].1)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
