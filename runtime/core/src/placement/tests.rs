//! Placement: what each rule comes to on small situations. What holds for all of them, and the
//! targets, are in `tests/placement.rs` of the crate.

use std::collections::BTreeSet;

use super::*;
use crate::ids::Name;

const MB: u64 = 1_000_000;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

const fn cores(cpu_milli: u64) -> Resources {
    Resources { cpu_milli, memory_bytes: 1 << 30, gpu_milli: 0 }
}

/// A situation of hosts with nodes of 1000 thousandths each, filled up to the last.
#[derive(Default)]
struct Town(Situation);

impl Town {
    /// Hosts with so many nodes each, called `n0`, `n1` and so on through all hosts.
    fn new(hosts: &[usize]) -> Self {
        let mut town = Self::default();
        town.0.policy.fill_percent = 100;
        for (host, nodes) in hosts.iter().enumerate() {
            let has = 1000 * *nodes as u64;
            let capacity = Resources { memory_bytes: 1 << 40, ..cores(has) };
            let name = name(&format!("h{host}"));
            town.0.hosts.push(Host { name, capacity, labels: BTreeSet::new() });
            (0..*nodes).for_each(|_| town.node(host));
        }
        town
    }

    fn node(&mut self, host: usize) {
        self.0.nodes.push(Node {
            name: name(&format!("n{}", self.0.nodes.len())),
            host,
            capacity: Resources { memory_bytes: 1 << 40, ..cores(1000) },
            labels: BTreeSet::new(),
            tenant: None,
            is_up: true,
        });
    }

    /// A new partition that needs so much.
    fn item(&mut self, cpu_milli: u64) -> usize {
        self.0.items.push(Item {
            tenant: name("t"),
            pipeline: name("p"),
            segment: name("s"),
            partition: self.0.items.len() as u16,
            needs: cores(cpu_milli),
            requires: BTreeSet::new(),
            is_isolated: false,
            now: None,
        });
        self.0.items.len() - 1
    }

    /// The same on a node, with little state.
    fn item_on(&mut self, node: usize, cpu_milli: u64) -> usize {
        let item = self.item(cpu_milli);
        let now = Now { node, may_move: true, state_bytes: 0, is_copied: false };
        self.0.items[item].now = Some(now);
        item
    }

    fn now(&mut self, item: usize) -> &mut Now {
        self.0.items[item].now.as_mut().expect("it runs")
    }

    fn edge(&mut self, from: usize, to: usize, bytes_per_second: u64) {
        self.0.edges.push(Edge { from, to, bytes_per_second });
    }

    fn front(&mut self, item: usize, node: usize, bytes_per_second: u64) {
        self.0.fronts.push(Front { item, node, bytes_per_second });
    }

    fn place(&self) -> Placement {
        place(&self.0)
    }

    fn line(&self, item: usize) -> String {
        Explained { situation: &self.0, placement: &self.place(), item }.to_string()
    }
}

#[test]
fn what_talks_is_together_and_the_rest_is_spread() {
    let mut town = Town::new(&[1, 1]);
    let items = [0; 4].map(|_| town.item(300));
    town.edge(items[0], items[3], MB);
    town.edge(items[1], items[2], MB);
    let placement = town.place();
    let [a, b, c, d] = items.map(|item| placement.node(item));
    assert_eq!((a, b), (d, c));
    assert_ne!(a, b, "there is as much room on the other node");
    assert_eq!(placement.after, Traffic { in_node: 2 * MB, in_host: 0, network: 0 });
}

#[test]
fn a_pipeline_that_fits_no_node_is_split_where_least_goes() {
    let mut town = Town::new(&[1, 2, 1]);
    let items = [0; 4].map(|_| town.item(500));
    town.edge(items[0], items[2], 9 * MB);
    town.edge(items[2], items[1], MB);
    town.edge(items[1], items[3], 8 * MB);
    let placement = town.place();
    let [a, b, c, d] = items.map(|item| placement.node(item));
    assert_eq!((a, b), (c, d));
    // Both pieces on the one host with two nodes.
    assert_eq!(placement.after, Traffic { in_node: 17 * MB, in_host: MB, network: 0 });
}

#[test]
fn what_is_isolated_is_only_on_nodes_of_its_tenant() {
    let mut town = Town::new(&[1, 1]);
    town.0.nodes[0].tenant = Some(name("own"));
    let shared = town.item(100);
    let own = town.item(100);
    let stranger = town.item(100);
    town.0.items[own].tenant = name("own");
    town.0.items[own].is_isolated = true;
    town.0.items[stranger].is_isolated = true;
    town.edge(shared, own, MB);
    town.front(shared, 0, MB);
    let placement = town.place();
    assert_eq!((placement.node(shared), placement.node(own)), (Some(1), Some(0)));
    let unplaced = Fate::Unplaced { on: None, why: Obstacle::NoNode };
    assert_eq!(placement.fates[stranger], unplaced);
    // One that is no longer where it may be goes, whatever its state.
    let mut town = Town::new(&[1, 1]);
    town.0.nodes[0].tenant = Some(name("own"));
    let item = town.item_on(0, 100);
    town.now(item).state_bytes = u64::MAX;
    let why = Going::Forbidden;
    assert_eq!(town.place().fates[item], Fate::Goes { from: Some(0), to: 1, why });
    town.now(item).may_move = false;
    assert_eq!(town.place().fates[item], Fate::Unplaced { on: Some(0), why: Obstacle::Held });
}

#[test]
fn labels_are_had_by_the_node_or_its_host() {
    let mut town = Town::new(&[1, 1, 1]);
    town.0.nodes[1].labels.insert(name("ssd"));
    town.0.hosts[2].labels.insert(name("eu"));
    for (label, node) in [("ssd", Some(1)), ("eu", Some(2)), ("us", None)] {
        let item = town.item(10);
        town.0.items[item].requires.insert(name(label));
        assert_eq!(town.place().node(item), node);
    }
}

#[test]
fn what_a_dead_node_has_waits_there_unless_it_is_elsewhere_too() {
    let mut town = Town::new(&[1, 1]);
    let alone = town.item_on(0, 400);
    let copied = town.item_on(0, 400);
    town.now(copied).is_copied = true;
    town.0.nodes[0].is_up = false;
    let placement = town.place();
    assert_eq!(placement.fates[alone], Fate::Unavailable { node: 0 });
    let goes = Fate::Goes { from: Some(0), to: 1, why: Going::NodeDown };
    assert_eq!(placement.fates[copied], goes);
    assert_eq!(placement.moves.len(), 1);
}

#[test]
fn a_move_must_spare_a_quarter_and_its_price() {
    let mut town = Town::new(&[1, 1]);
    let item = town.item_on(0, 100);
    town.front(item, 1, 1000 * MB);
    town.front(item, 0, 751 * MB);
    // 2490 of the 10,000 million that being here costs: less than a quarter.
    let stays = Staying::NotWorth { better: 1, spares: 2490 * MB, must_spare: 2_500_034_952 };
    assert_eq!(town.place().fates[item], Fate::Stays { node: 0, why: stays });
    town.0.fronts[1].bytes_per_second = 749 * MB;
    let why = Going::Pays { spares: 2510 * MB };
    assert_eq!(town.place().fates[item], Fate::Goes { from: Some(0), to: 1, why });
    // 300 s of what it spares beyond the quarter are 3,000 MB; an eighth of that over the network.
    town.now(item).state_bytes = 301 * MB;
    assert!(matches!(town.place().fates[item], Fate::Stays { why: Staying::NotWorth { .. }, .. }));
    town.now(item).state_bytes = 298 * MB;
    assert!(matches!(town.place().fates[item], Fate::Goes { .. }));
    town.now(item).may_move = false;
    assert_eq!(town.place().fates[item], Fate::Stays { node: 0, why: Staying::Held });
}

#[test]
fn what_talks_moves_together_when_neither_would_alone() {
    let mut town = Town::new(&[1, 1]);
    let [a, b] = [0; 2].map(|_| town.item_on(0, 100));
    town.edge(a, b, 10 * MB);
    town.front(a, 1, 4 * MB);
    town.front(b, 1, 4 * MB);
    let placement = town.place();
    assert_eq!((placement.node(a), placement.node(b)), (Some(1), Some(1)));
    assert_eq!(placement.after, Traffic { in_node: 18 * MB, in_host: 0, network: 0 });
}

#[test]
fn what_has_no_traffic_does_not_go_along() {
    let mut town = Town::new(&[1, 1]);
    let [a, b, idle] = [0; 3].map(|node| town.item_on(node, 10));
    town.front(a, 1, 10 * MB);
    town.front(b, 1, 10 * MB);
    let placement = town.place();
    assert_eq!([a, b, idle].map(|item| placement.node(item)), [Some(1), Some(1), Some(0)]);
    let pays = |item: usize| {
        let Fate::Goes { why: Going::Pays { spares }, .. } = placement.fates[item] else {
            return false;
        };
        spares > 0
    };
    assert!(pays(a) && pays(b), "{:?}", placement.fates);
}

#[test]
fn two_whose_places_are_full_change_them_in_one_step() {
    let mut town = Town::new(&[1, 1]);
    let [a, b] = [0, 1].map(|node| town.item_on(node, 900));
    town.front(a, 1, MB);
    town.front(b, 0, MB);
    let placement = town.place();
    assert_eq!((placement.node(a), placement.node(b)), (Some(1), Some(0)));
    assert_eq!(placement.moves.iter().map(|m| m.step).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn a_full_node_gives_up_what_loses_least() {
    let mut town = Town::new(&[1, 1]);
    let items = [400, 400, 300].map(|needs| town.item_on(0, needs));
    town.edge(items[0], items[1], MB);
    let placement = town.place();
    let short = Some(Resource::Cpu);
    let goes = Fate::Goes { from: Some(0), to: 1, why: Going::MadeRoom { short } };
    assert_eq!(placement.fates[items[2]], goes);
    assert_eq!(placement.moves.len(), 1);
    // With nowhere to go one is said to have no place, and nobody new moves in.
    town.0.nodes[1].is_up = false;
    let new = town.item(10);
    let placement = town.place();
    let unplaced = |on| Fate::Unplaced { on, why: Obstacle::Full };
    assert_eq!(placement.fates[items[2]], unplaced(Some(0)));
    assert_eq!(placement.fates[new], unplaced(None));
    assert_eq!(placement.moves, []);
}

#[test]
fn memory_is_needed_as_processors_are() {
    const GB: u64 = 1 << 30;
    let mut town = Town::new(&[1, 1]);
    let items = [3, 4, 2].map(|needs| {
        let item = town.item_on(0, 10);
        town.0.items[item].needs.memory_bytes = needs * GB;
        item
    });
    town.0.nodes[0].capacity.memory_bytes = 8 * GB;
    town.edge(items[0], items[1], MB);
    let placement = town.place();
    let short = Some(Resource::Memory);
    let goes = Fate::Goes { from: Some(0), to: 1, why: Going::MadeRoom { short } };
    assert_eq!(placement.fates[items[2]], goes);
    assert_eq!(placement.moves.len(), 1);
    let said = Explained { situation: &town.0, placement: &placement, item: items[2] }.to_string();
    assert!(said.contains("it makes room, as n0 is short of memory"), "{said}");
    // Nor does anything come to where there is none, whatever traffic it would spare.
    town.0.nodes[1].capacity.memory_bytes = GB;
    town.front(items[2], 1, 100 * MB);
    let placement = town.place();
    assert_eq!(placement.moves, []);
    let said = Explained { situation: &town.0, placement: &placement, item: items[2] }.to_string();
    assert!(said.contains("is on n0, which is no place for it"), "{said}");
}

#[test]
fn a_host_is_full_though_its_nodes_are_not() {
    let mut town = Town::new(&[2, 1]);
    town.0.hosts[0].capacity.cpu_milli = 1000;
    let items = [700, 700].map(|needs| town.item(needs));
    let placement = town.place();
    let hosts = items.map(|item| placement.node(item).map(|node| town.0.nodes[node].host));
    assert!(hosts == [Some(0), Some(1)] || hosts == [Some(1), Some(0)]);
    let mut town = Town::new(&[2, 1]);
    town.0.hosts[0].capacity.cpu_milli = 1000;
    let [kept, goes] = [0, 1].map(|node| town.item_on(node, 700));
    town.front(kept, 0, MB);
    let placement = town.place();
    assert_eq!((placement.node(kept), placement.node(goes)), (Some(0), Some(2)));
}

#[test]
fn who_needs_a_device_gets_it_though_others_are_there() {
    let mut town = Town::new(&[1, 1]);
    town.0.hosts[0].capacity.gpu_milli = 1000;
    town.0.nodes[0].capacity.gpu_milli = 1000;
    for _ in 0..3 {
        town.item_on(0, 300);
    }
    let item = town.item(300);
    town.0.items[item].needs.gpu_milli = 500;
    let placement = town.place();
    assert_eq!(placement.node(item), Some(0));
    let made_room = |fate: &&Fate| {
        matches!(fate, Fate::Goes { from: Some(0), to: 1, why: Going::MadeRoom { .. } })
    };
    assert_eq!(placement.fates.iter().filter(made_room).count(), 1);
    // And who needs none does not begin there.
    let mut town = Town::new(&[1, 1]);
    town.0.nodes[0].capacity.gpu_milli = 1000;
    let item = town.item(300);
    assert_eq!(town.place().node(item), Some(1));
}

#[test]
fn the_target_is_left_only_for_what_has_no_place_otherwise() {
    let mut town = Town::new(&[1, 1]);
    town.0.policy.fill_percent = 80;
    let items = [500, 500, 400].map(|needs| town.item(needs));
    town.edge(items[0], items[1], 100 * MB);
    let placement = town.place();
    assert_ne!(placement.node(items[0]), placement.node(items[1]), "together they are too much");
    assert!(placement.node(items[2]).is_some());
}

#[test]
fn numbers_without_measure_are_borne() {
    let mut town = Town::new(&[1, 1]);
    let items = [u64::MAX, 1, 1, 1].map(|needs| town.item_on(0, needs));
    items.into_iter().for_each(|item| town.now(item).state_bytes = u64::MAX);
    for a in items {
        items.into_iter().for_each(|b| town.edge(a, b, u64::MAX));
        town.front(a, 1, u64::MAX);
    }
    let links = LinkCosts { node: u16::MAX, host: 0, network: 7 };
    town.0.policy = Policy { links, payback_seconds: 0, ..town.0.policy };
    let placement = town.place();
    assert!(matches!(placement.fates[items[0]], Fate::Unplaced { on: Some(0), .. }));
    assert!(placement.is_settled);
    assert_eq!(
        place(&Situation::default()),
        Placement { is_settled: true, ..Placement::default() }
    );
}

#[test]
#[should_panic(expected = "two of the same name")]
fn names_are_had_once() {
    let mut town = Town::new(&[1]);
    town.item(1);
    town.item(1);
    town.0.items[1].partition = 0;
    town.place();
}

#[test]
fn each_fate_is_told_in_a_line() {
    let mut town = Town::new(&[2, 1]);
    let [new, moved, kept] = [town.item(100), town.item_on(0, 100), town.item_on(2, 100)];
    town.front(new, 0, MB);
    town.front(new, 1, MB / 4);
    town.front(moved, 2, MB);
    assert_eq!(
        town.line(new),
        "t/p/s[0] begins on n0; 80 % of 1250000 bytes/s in the node, 100 % in the host"
    );
    assert_eq!(
        town.line(moved),
        "t/p/s[1] goes from n0 to n2: spares 10000000; \
         100 % of 1000000 bytes/s in the node, 100 % in the host"
    );
    assert_eq!(town.line(kept), "t/p/s[2] stays on n2: no other node would spare traffic");
    town.now(moved).state_bytes = 1 << 40;
    assert_eq!(
        town.line(moved),
        "t/p/s[1] stays on n0: n2 would spare 10000000, and a move must spare more than \
         36652922545; 0 % of 1000000 bytes/s in the node, 0 % in the host"
    );
    let large = town.item(1001);
    assert_eq!(
        town.line(large),
        "t/p/s[3] has no place: needs 1001 thousandths of a core of cpu, \
         and no node has more than 1000"
    );
    town.0.nodes[2].is_up = false;
    assert_eq!(town.line(kept), "t/p/s[2] is unavailable: n2 is down and has its data");
}
