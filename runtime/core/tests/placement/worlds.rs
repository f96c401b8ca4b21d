//! Fleets and pipelines from a seed: what a placement has to do with.
//!
//! Half of the hosts have one node, half have four that may use half of the host each. One host in
//! eight has devices. Few tenants have many pipelines, some are isolated by process and have nodes
//! of their own. Pipelines are chains, fans, joins and shuffles of one to 64 partitions, few of
//! them large; edges that keep the key lead to joins and to stages with devices for the most part,
//! as others do not leave a segment. A third of the pipelines has its clients at one node.

use std::collections::BTreeSet;

use sluicebox_core::ids::Name;
use sluicebox_core::placement::{
    Edge, Fate, Front, Host, Item, Node, Now, Placement, Policy, Resources, Situation,
};

use crate::dice::Dice;

const GIB: u64 = 1 << 30;

/// What a fleet is made like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Nodes, about.
    pub(crate) nodes: usize,
    /// How much of the processors the items need together.
    pub(crate) fill_percent: u64,
    /// Thousandths of a core that an item needs on the average.
    pub(crate) item_milli: u64,
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A fleet whose pipelines all have to be placed.
pub(crate) fn fleet(seed: u64, size: Size) -> Situation {
    // Neighbouring seeds of the dice give the same numbers one roll apart.
    let mut world = World { dice: Dice::new(seed << 32), size, made: Situation::default() };
    world.hosts();
    let cores: u64 = world.made.hosts.iter().map(|host| host.capacity.cpu_milli).sum();
    let wanted = cores * size.fill_percent / 100;
    let (mut used, mut number) = (0, 0);
    while used < wanted {
        let first = world.made.items.len();
        world.pipeline(number);
        used += world.made.items[first..].iter().map(|item| item.needs.cpu_milli).sum::<u64>();
        number += 1;
    }
    world.made.policy = Policy::default();
    world.made
}

struct World {
    dice: Dice,
    size: Size,
    made: Situation,
}

/// A segment as made: its items from here on, bytes a second that leave it.
#[derive(Clone, Copy)]
struct Made {
    first: usize,
    rate: u64,
}

impl World {
    fn hosts(&mut self) {
        let mut number = 0;
        while self.made.nodes.len() < self.size.nodes {
            let gpu_milli = if number % 8 == 7 { 4000 } else { 0 };
            let capacity = Resources { cpu_milli: 16_000, memory_bytes: 64 * GIB, gpu_milli };
            let labels = BTreeSet::from([name(&format!("zone-{}", number % 3))]);
            let host = self.made.hosts.len();
            self.made.hosts.push(Host { name: name(&format!("h{number}")), capacity, labels });
            let nodes = if number % 2 == 0 { 1 } else { 4 };
            for node in 0..nodes {
                let part = |all: u64| if nodes == 1 { all } else { all / 2 };
                let capacity = Resources {
                    cpu_milli: part(capacity.cpu_milli),
                    memory_bytes: part(capacity.memory_bytes),
                    gpu_milli: capacity.gpu_milli,
                };
                // One node in forty is bound to one of few tenants.
                let bound = self.made.nodes.len() % 40 == 39;
                let tenant =
                    bound.then(|| name(&format!("own-{}", self.made.nodes.len() / 40 % 4)));
                self.made.nodes.push(Node {
                    name: name(&format!("h{number}-n{node}")),
                    host,
                    capacity,
                    labels: BTreeSet::new(),
                    tenant,
                    is_up: true,
                });
            }
            number += 1;
        }
    }

    /// Few are large: each doubling is had by a third fewer.
    fn partitions(&mut self) -> u16 {
        let mut partitions = 1;
        while partitions < 64 && self.dice.below(3) != 0 {
            partitions *= 2;
        }
        partitions
    }

    fn pipeline(&mut self, number: usize) {
        // The first tenants have most.
        let of_hundred = self.dice.below(100);
        let tenant = of_hundred * of_hundred / 200;
        let own = self.made.nodes.iter().filter(|node| node.tenant.is_some()).count();
        let is_isolated = own > 0 && self.dice.one_in(60);
        let tenant = match is_isolated {
            true => name(&format!("own-{}", self.dice.below(own.min(4)))),
            false => name(&format!("tenant-{tenant}")),
        };
        let partitions = if is_isolated { 2 } else { self.partitions() };
        let zone = self.dice.one_in(20).then(|| name(&format!("zone-{}", self.dice.below(3))));
        let segments = 2 + self.dice.below(6);
        let rate = (1 + self.dice.below(50) as u64) * 20_000 * u64::from(partitions);
        let pipeline = name(&format!("p{number}"));
        let base = Item {
            tenant,
            pipeline,
            segment: name("s"),
            partition: 0,
            needs: Resources::default(),
            requires: zone.into_iter().collect(),
            is_isolated,
            now: None,
        };
        let shape = self.dice.below(4);
        let mut made: Vec<Made> = Vec::new();
        for at in 0..segments {
            // Devices are where only one host in eight has them, and one stage in thirty needs one.
            let on_device = !is_isolated && partitions <= 16 && self.dice.one_in(30);
            let first = self.segment(&base, at, partitions, on_device);
            let from: Vec<usize> = match shape {
                _ if at == 0 => Vec::new(),
                // A fan: all from the first; a join: the last from all; else a chain.
                1 => vec![0],
                2 if at + 1 == segments => (0..at).collect(),
                2 => vec![0],
                _ => vec![at - 1],
            };
            let mut rate_in = if at == 0 { rate } else { 0 };
            for from in from {
                let aligned = on_device || (shape == 2 && at + 1 == segments);
                let aligned = (aligned && !self.dice.one_in(4)) || self.dice.one_in(6);
                let bytes = made[from].rate;
                rate_in += bytes;
                self.edges(made[from].first, first, partitions, (bytes, aligned));
            }
            made.push(Made { first, rate: rate_in * (30 + self.dice.below(90) as u64) / 100 });
        }
        if self.dice.one_in(3) {
            let node = self.dice.below(self.made.nodes.len());
            for item in made[0].first..made[0].first + usize::from(partitions) {
                let bytes_per_second = rate / u64::from(partitions);
                self.made.fronts.push(Front { item, node, bytes_per_second });
            }
        }
    }

    fn segment(&mut self, base: &Item, at: usize, partitions: u16, on_device: bool) -> usize {
        let first = self.made.items.len();
        let milli = 1 + self.dice.below(2 * self.size.item_milli as usize) as u64;
        for partition in 0..partitions {
            let mut item = base.clone();
            item.segment = name(&format!("s{at}"));
            item.partition = partition;
            item.needs = Resources {
                cpu_milli: 1 + milli * (50 + self.dice.below(100) as u64) / 100,
                memory_bytes: (16 + self.dice.below(200) as u64) << 20,
                gpu_milli: if on_device { 100 } else { 0 },
            };
            self.made.items.push(item);
        }
        first
    }

    /// Aligned, or all to all with some keys hotter than others.
    fn edges(&mut self, from: usize, to: usize, partitions: u16, kind: (u64, bool)) {
        let (rate, aligned) = kind;
        let partitions = usize::from(partitions);
        let each = rate / partitions as u64;
        for a in 0..partitions {
            if aligned {
                let bytes_per_second = each;
                self.made.edges.push(Edge { from: from + a, to: to + a, bytes_per_second });
                continue;
            }
            for b in 0..partitions {
                let heat = if b == 0 { 300 } else { 50 + self.dice.below(100) as u64 };
                let bytes_per_second = each * heat / 100 / partitions as u64;
                self.made.edges.push(Edge { from: from + a, to: to + b, bytes_per_second });
            }
        }
    }
}

/// Changes what happens to a fleet between two placements: nodes fail, items may not move, needs
/// and rates rise, data is copied or not.
pub(crate) fn shaken(situation: &Situation, dice: &mut Dice) -> Situation {
    let mut after = situation.clone();
    for node in &mut after.nodes {
        node.is_up = !dice.one_in(10);
        if dice.one_in(10) {
            node.capacity.cpu_milli /= 2;
        }
    }
    for item in &mut after.items {
        if dice.one_in(8) {
            item.needs.cpu_milli *= 3;
        }
        if let Some(now) = &mut item.now {
            now.may_move = !dice.one_in(6);
            now.is_copied = dice.one_in(2);
        }
    }
    let edges = after.edges.iter_mut().filter(|_| dice.one_in(10));
    edges.for_each(|edge| edge.bytes_per_second *= 10);
    after
}

/// The situation after all moves.
pub(crate) fn applied(situation: &Situation, placement: &Placement) -> Situation {
    let mut after = situation.clone();
    for (at, item) in after.items.iter_mut().enumerate() {
        let node = placement.node(at);
        let before = item.now;
        let moved = node.map(|node| Now {
            node,
            may_move: before.is_none_or(|now| now.may_move),
            state_bytes: before.map_or(1 << 20, |now| now.state_bytes),
            is_copied: before.is_some_and(|now| now.is_copied),
        });
        item.now = match placement.fates[at] {
            Fate::Unplaced { on, .. } => on.and(before),
            _ => moved,
        };
    }
    after
}

/// All rates, and what they need of processors, between 90 and 110 % of what they were.
pub(crate) fn noisy(situation: &Situation, dice: &mut Dice) -> Situation {
    let mut after = situation.clone();
    let mut vary = |rate: &mut u64| *rate = *rate * (90 + dice.below(21) as u64) / 100;
    after.edges.iter_mut().for_each(|edge| vary(&mut edge.bytes_per_second));
    after.fronts.iter_mut().for_each(|front| vary(&mut front.bytes_per_second));
    after.items.iter_mut().for_each(|item| vary(&mut item.needs.cpu_milli));
    after
}

/// The same in another order; `items[i]` is where the item `i` is now.
pub(crate) struct Shuffled {
    pub(crate) situation: Situation,
    pub(crate) items: Vec<usize>,
    pub(crate) nodes: Vec<usize>,
}

pub(crate) fn shuffled(situation: &Situation, dice: &mut Dice) -> Shuffled {
    let hosts = order(situation.hosts.len(), dice);
    let nodes = order(situation.nodes.len(), dice);
    let items = order(situation.items.len(), dice);
    let mut to = situation.clone();
    for (from, at) in hosts.iter().enumerate() {
        to.hosts[*at] = situation.hosts[from].clone();
    }
    for (from, at) in nodes.iter().enumerate() {
        let node = &situation.nodes[from];
        to.nodes[*at] = Node { host: hosts[node.host], ..node.clone() };
    }
    for (from, at) in items.iter().enumerate() {
        let item = &situation.items[from];
        let now = item.now.map(|now| Now { node: nodes[now.node], ..now });
        to.items[*at] = Item { now, ..item.clone() };
    }
    for (from, at) in order(situation.edges.len(), dice).into_iter().enumerate() {
        let edge = situation.edges[from];
        to.edges[at] = Edge { from: items[edge.from], to: items[edge.to], ..edge };
    }
    for (from, at) in order(situation.fronts.len(), dice).into_iter().enumerate() {
        let front = situation.fronts[from];
        to.fronts[at] = Front { item: items[front.item], node: nodes[front.node], ..front };
    }
    Shuffled { situation: to, items, nodes }
}

fn order(count: usize, dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, dice.below(at + 1));
    }
    order
}
