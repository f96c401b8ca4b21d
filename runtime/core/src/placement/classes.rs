//! Which nodes may take which items: items that may go to the same nodes are one class.

use std::collections::{BTreeMap, BTreeSet};

use super::situation::{Item, Node, Situation};
use crate::ids::Name;

/// Index of a class.
pub(super) type Class = usize;

/// The classes, with the nodes of each. Nodes are by their index in the situation.
#[derive(Debug)]
pub(super) struct Classes {
    /// Bits of the nodes of each class, 64 in a word.
    allowed: Vec<Vec<u64>>,
    of_item: Vec<Class>,
    met: BTreeMap<(Class, Class), Option<Class>>,
}

impl Classes {
    pub(super) fn of(situation: &Situation) -> Self {
        let mut known: BTreeMap<(&Name, bool, &BTreeSet<Name>), Class> = BTreeMap::new();
        let mut allowed: Vec<Vec<u64>> = Vec::new();
        let mut of_item = Vec::with_capacity(situation.items.len());
        for item in &situation.items {
            let class = known.entry((&item.tenant, item.is_isolated, &item.requires));
            of_item.push(*class.or_insert_with(|| {
                let nodes = situation.nodes.iter().map(|node| may_take(situation, node, item));
                allowed.push(bits(nodes));
                allowed.len() - 1
            }));
        }
        Self { allowed, of_item, met: BTreeMap::new() }
    }

    /// The class of an item, by its index in the situation.
    pub(super) fn of_item(&self, item: usize) -> Class {
        self.of_item[item]
    }

    /// True if the node may take items of the class.
    pub(super) fn allows(&self, class: Class, node: usize) -> bool {
        self.allowed[class][node / 64] >> (node % 64) & 1 == 1
    }

    /// How many nodes there are for a class.
    pub(super) fn breadth(&self, class: Class) -> u32 {
        self.allowed[class].iter().map(|word| word.count_ones()).sum()
    }

    /// The class of what belongs to both; `None` if no node may take both.
    pub(super) fn meet(&mut self, a: Class, b: Class) -> Option<Class> {
        if a == b {
            return Some(a);
        }
        let pair = (a.min(b), a.max(b));
        if let Some(known) = self.met.get(&pair) {
            return *known;
        }
        let words = self.allowed[a].iter().zip(&self.allowed[b]).map(|(a, b)| a & b);
        let both: Vec<u64> = words.collect();
        let met = if both == self.allowed[a] {
            Some(a)
        } else if both == self.allowed[b] {
            Some(b)
        } else if both.iter().all(|word| *word == 0) {
            None
        } else {
            self.allowed.push(both);
            Some(self.allowed.len() - 1)
        };
        self.met.insert(pair, met);
        met
    }
}

/// The node is up, takes the tenant, and has the labels, itself or by its host.
fn may_take(situation: &Situation, node: &Node, item: &Item) -> bool {
    let tenant_fits = match &node.tenant {
        Some(tenant) => *tenant == item.tenant,
        None => !item.is_isolated,
    };
    let host = &situation.hosts[node.host];
    let has = |label| node.labels.contains(label) || host.labels.contains(label);
    node.is_up && tenant_fits && item.requires.iter().all(has)
}

fn bits(flags: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut words = Vec::new();
    for (at, flag) in flags.enumerate() {
        if at % 64 == 0 {
            words.push(0);
        }
        words[at / 64] |= u64::from(flag) << (at % 64);
    }
    words
}
