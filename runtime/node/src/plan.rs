//! The plan: on which node each partition is, why, and which moves would spare traffic.
//!
//! ```text
//! every node: counts ─► rates ─► report ─┐
//!                                         ├─► situation ─► core/placement ─► plan, in words
//! the node that is asked ────────────────┘
//! ```
//!
//! - It is made when somebody asks, from what all nodes say at that moment. Nothing is moved by it,
//!   unless nodes are told to: `balance`.
//! - All load counts, whoever's it is; what is shown is of the tenant that asks.
//! - What moves is a partition in all segments: they are one item. What is taken in and what leaves
//!   goes by the pipeline's home, so that a partition is drawn there by both.
//! - Of memory what partitions hold counts: state that is in use, and events that wait. What is on
//!   disk does not, nor do instances, which are made when wanted, within bounds of their own.
//!
//! How it is decided is `core/placement`, and moving is `moving`.

pub(crate) mod balance;
pub(crate) mod rates;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sluicebox_core::ids::{Name, PipelineId};
use sluicebox_core::placement::{
    Edge, Explained, Fate, Front, Host, Item, Move, Node as Place, Now, Placement, Policy,
    Resources, Situation, Traffic, place,
};

use crate::components::blocking;
use crate::error::Error;
use crate::node::Node;
use crate::running::Running;
pub(crate) use rates::Flows;
use report::{MEMORY_BYTES_UNKNOWN, Report};

/// Edges that are looked at to say why; beyond it only moves are explained.
const LOOKS_MAX: usize = 200_000_000;

/// Where partitions are, why, and what would move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The nodes, with all they do.
    pub nodes: Vec<PlannedNode>,
    /// The partitions of the tenant.
    pub partitions: Vec<PlannedPartition>,
    /// What is to be done, in order; any number of first steps is good.
    pub moves: Vec<PlannedMove>,
    /// Bytes a second between partitions, ingest and outputs, of all tenants: now.
    pub before: PlannedTraffic,
    /// The same when all of it is done.
    pub after: PlannedTraffic,
}

/// A node of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedNode {
    /// Its name; empty for a node that is alone.
    pub name: String,
    /// The machine it is on.
    pub host: String,
    /// `up`, or why it is not.
    pub state: String,
    /// Thousandths of processors its partitions use.
    pub cpu_milli: u64,
    /// Those its workers may use.
    pub cpu_milli_most: u64,
    /// Bytes of memory its partitions hold.
    pub memory_bytes: u64,
    /// Those they may.
    pub memory_bytes_most: u64,
    /// Partitions, each in all segments, of all tenants.
    pub partitions: usize,
}

/// A partition of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedPartition {
    /// Its pipeline.
    pub pipeline: String,
    /// Its number, in all segments.
    pub partition: u16,
    /// Where it is.
    pub node: String,
    /// Thousandths of a processor it uses.
    pub cpu_milli: u64,
    /// Bytes of memory it holds.
    pub memory_bytes: u64,
    /// Why it stays, or goes.
    pub why: String,
}

/// A move of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedMove {
    /// From 0; those of one step belong together.
    pub step: u32,
    /// The pipeline.
    pub pipeline: String,
    /// The number of the partition.
    pub partition: u16,
    /// Where it is.
    pub from: String,
    /// Where it would go.
    pub to: String,
    /// Bytes of state that go with it.
    pub state_bytes: u64,
}

/// Bytes a second, by how far they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlannedTraffic {
    /// Within a node.
    pub in_node: u64,
    /// Between nodes of a machine.
    pub in_host: u64,
    /// Between machines.
    pub network: u64,
}

impl From<Traffic> for PlannedTraffic {
    fn from(Traffic { in_node, in_host, network }: Traffic) -> Self {
        Self { in_node, in_host, network }
    }
}

/// What the nodes said: each with its report, or why there is none.
type Said = Vec<(String, Result<Report, String>)>;

/// A partition in all segments: tenant, pipeline, number.
type Key = (String, String, u16);

impl Node {
    /// All pipelines with a log that run here, whole or in part.
    pub(crate) fn all_by_id(&self) -> Vec<(PipelineId, Arc<Running>)> {
        let all = self.all_running().into_iter().chain(self.all_spread());
        let by_id = all.filter_map(|running| Some((running.durable()?.id, running)));
        by_id.collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    /// Plans where partitions go, and shows it to a tenant: of all its pipelines, or of one.
    ///
    /// # Errors
    /// There is no such pipeline.
    pub async fn plan(&self, tenant: &Name, pipeline: Option<&Name>) -> Result<Plan, Error> {
        let said = self.ask_all().await;
        let (tenant, asked) = (tenant.clone(), pipeline.cloned());
        let plan = blocking(move || Ok(plan(&said, (&tenant, asked.as_ref())))).await?;
        let name = pipeline.map_or("", Name::as_str);
        plan.ok_or_else(|| Error::not_found("pipeline", name))
    }

    /// What is to be done, of all tenants, in order.
    async fn steps(&self) -> Result<Vec<Step>, Error> {
        let said = self.ask_all().await;
        blocking(move || Ok(steps(&said))).await
    }

    /// What each node says of itself, this one first.
    async fn ask_all(&self) -> Said {
        let own = self.cluster().map_or_else(String::new, |own| own.name().to_string());
        let mut said: Said = vec![(own, Ok(self.report()))];
        for peer in self.cluster().into_iter().flat_map(|cluster| cluster.peers()) {
            let report = match peer.is_up() {
                true => peer.report().await.map_err(|error| error.to_string()),
                false => Err(peer.look().why.unwrap_or_else(|| "it is not reached".to_owned())),
            };
            said.push((peer.name().to_string(), report));
        }
        said
    }
}

/// A partition that is to go somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    tenant: Name,
    pipeline: Name,
    partition: u16,
    to: String,
}

fn steps(said: &Said) -> Vec<Step> {
    let situation = situation(said);
    let moves = place(&situation).moves;
    let step = |one: &Move| {
        let Item { tenant, pipeline, partition, .. } = &situation.items[one.item];
        let (tenant, pipeline) = (tenant.clone(), pipeline.clone());
        Step { tenant, pipeline, partition: *partition, to: node_name(said, one.to) }
    };
    moves.iter().map(step).collect()
}

/// Makes a plan from what the nodes said. `None` if there is no such pipeline.
fn plan(said: &Said, (tenant, pipeline): (&Name, Option<&Name>)) -> Option<Plan> {
    let situation = situation(said);
    let placement = place(&situation);
    let is_shown = |item: &Item| {
        item.tenant == *tenant && pipeline.is_none_or(|pipeline| item.pipeline == *pipeline)
    };
    let shown: Vec<usize> =
        (0..situation.items.len()).filter(|at| is_shown(&situation.items[*at])).collect();
    if shown.is_empty() && pipeline.is_some() {
        return None;
    }
    let explains = shown.len().saturating_mul(situation.edges.len()) <= LOOKS_MAX;
    let partition = |at: &usize| planned_partition((&situation, &placement), said, (*at, explains));
    let moves = placement.moves.iter().filter(|one| is_shown(&situation.items[one.item]));
    Some(Plan {
        nodes: said.iter().enumerate().map(|node| planned_node(&situation, node)).collect(),
        partitions: shown.iter().map(partition).map(|row| with_names(row, said)).collect(),
        moves: moves
            .map(|one| PlannedMove {
                step: one.step,
                pipeline: situation.items[one.item].pipeline.to_string(),
                partition: situation.items[one.item].partition,
                from: one.from.map_or_else(String::new, |from| node_name(said, from)),
                to: node_name(said, one.to),
                state_bytes: one.state_bytes,
            })
            .collect(),
        before: placement.before.into(),
        after: placement.after.into(),
    })
}

fn planned_node(
    situation: &Situation,
    (at, (name, report)): (usize, &(String, Result<Report, String>)),
) -> PlannedNode {
    let is_here = |item: &&Item| item.now.is_some_and(|now| now.node == at);
    let items = || situation.items.iter().filter(is_here);
    PlannedNode {
        name: name.clone(),
        host: situation.hosts[situation.nodes[at].host].name.to_string(),
        state: report.as_ref().map_or_else(String::clone, |_| "up".to_owned()),
        cpu_milli: items().map(|item| item.needs.cpu_milli).fold(0, u64::saturating_add),
        cpu_milli_most: situation.nodes[at].capacity.cpu_milli,
        memory_bytes: items().map(|item| item.needs.memory_bytes).fold(0, u64::saturating_add),
        memory_bytes_most: situation.nodes[at].capacity.memory_bytes,
        partitions: items().count(),
    }
}

fn planned_partition(
    (situation, placement): (&Situation, &Placement),
    said: &Said,
    (at, explains): (usize, bool),
) -> PlannedPartition {
    let item = &situation.items[at];
    let stays = matches!(placement.fates[at], Fate::Stays { .. });
    let why = match explains || !stays {
        true => {
            let line = Explained { situation, placement, item: at }.to_string();
            // What it is about stands before it.
            line.split_once("] ").map_or_else(|| line.clone(), |(_, why)| why.to_owned())
        }
        false => "stays; ask for its pipeline alone to see why".to_owned(),
    };
    let node = item.now.map(|now| node_name(said, now.node));
    PlannedPartition {
        pipeline: item.pipeline.to_string(),
        partition: item.partition,
        node: node.unwrap_or_default(),
        cpu_milli: item.needs.cpu_milli,
        memory_bytes: item.needs.memory_bytes,
        why,
    }
}

/// What a node is called while it is decided where partitions go: names there are plainer.
fn plain_name(at: usize) -> String {
    format!("node-{at}")
}

/// The same with the names of nodes as they are.
fn with_names(row: PlannedPartition, said: &Said) -> PlannedPartition {
    let mut why = row.why;
    // The longer ones first, as one may begin with another.
    for at in (0..said.len()).rev() {
        why = why.replace(&plain_name(at), shown_name(said, at));
    }
    PlannedPartition { why, ..row }
}

/// How a node is called for people.
fn shown_name(said: &Said, at: usize) -> &str {
    match said.get(at) {
        Some((name, _)) if !name.is_empty() => name,
        _ => "this node",
    }
}

fn node_name(said: &Said, at: usize) -> String {
    said.get(at).map_or_else(String::new, |(name, _)| name.clone())
}

/// What is decided from.
fn situation(said: &Said) -> Situation {
    let mut situation = Situation { policy: Policy::default(), ..Situation::default() };
    for (at, (_, report)) in said.iter().enumerate() {
        add_node(&mut situation, at, report.as_ref().ok());
    }
    let homes = homes(said);
    let mut at: BTreeMap<Key, usize> = BTreeMap::new();
    let reports = || said.iter().enumerate().filter_map(|(n, (_, r))| Some((n, r.as_ref().ok()?)));
    for (node, report) in reports() {
        add_items(&mut situation, &mut at, (node, report));
    }
    for (node, report) in reports() {
        add_away(&mut situation, &mut at, (report, said));
        add_flows(&mut situation, &at, (node, report, &homes));
    }
    situation
}

fn add_node(situation: &mut Situation, at: usize, report: Option<&Report>) {
    let name = Name::new(&plain_name(at)).expect("a good name");
    let host =
        report.and_then(|report| Name::new(&report.host).ok()).unwrap_or_else(|| name.clone());
    let gpu_milli = report.map_or(0, |report| report.gpu_milli);
    let has = |cpu_milli, memory_bytes: u64| {
        let memory_bytes = memory_bytes.min(MEMORY_BYTES_UNKNOWN);
        Resources { cpu_milli, memory_bytes, gpu_milli }
    };
    let none = || has(0, 0);
    let capacity = report.map_or_else(none, |own| has(own.cpu_milli, own.memory_bytes));
    let of_host = report.map_or_else(none, |own| has(own.host_cpu_milli, own.host_memory_bytes));
    let known = situation.hosts.iter().position(|known| known.name == host);
    if let Some(known) = known {
        let all = &mut situation.hosts[known].capacity;
        all.gpu_milli = gpu_milli.max(all.gpu_milli);
        all.memory_bytes = of_host.memory_bytes.max(all.memory_bytes);
    }
    let host = known.unwrap_or_else(|| {
        let labels = Default::default();
        situation.hosts.push(Host { name: host, capacity: of_host, labels });
        situation.hosts.len() - 1
    });
    let (labels, is_up) = (Default::default(), report.is_some());
    situation.nodes.push(Place { name, host, capacity, labels, tenant: None, is_up });
}

/// Adds an item, unless it is there.
fn add_item(
    situation: &mut Situation,
    at: &mut BTreeMap<Key, usize>,
    key: Key,
    (needs, now): (Resources, Now),
) {
    let (Ok(tenant), Ok(pipeline)) = (Name::new(&key.0), Name::new(&key.1)) else { return };
    let (partition, items) = (key.2, situation.items.len());
    if *at.entry(key).or_insert(items) == items {
        situation.items.push(Item {
            tenant,
            pipeline,
            segment: Name::new("partition").expect("a good name"),
            partition,
            needs,
            requires: Default::default(),
            is_isolated: false,
            now: Some(now),
        });
    }
}

/// What is on a node.
fn add_items(
    situation: &mut Situation,
    at: &mut BTreeMap<Key, usize>,
    (node, report): (usize, &Report),
) {
    for pipeline in &report.pipelines {
        for here in &pipeline.here {
            let key = (pipeline.tenant.clone(), pipeline.name.clone(), here.partition);
            // How much of a device it needs is for the device to divide: only where there is one.
            let gpu_milli = u64::from(pipeline.needs_gpu);
            let (cpu_milli, memory_bytes) = (here.cpu_milli, here.memory_bytes);
            let memory_bytes = memory_bytes.min(MEMORY_BYTES_UNKNOWN);
            let needs = Resources { cpu_milli, memory_bytes, gpu_milli };
            let may_move = pipeline.may_move && here.may_move;
            let now = Now { node, may_move, state_bytes: here.state_bytes, is_copied: false };
            add_item(situation, at, key, (needs, now));
        }
    }
}

/// What is on nodes that say nothing, as its home has it.
fn add_away(
    situation: &mut Situation,
    at: &mut BTreeMap<Key, usize>,
    (report, said): (&Report, &Said),
) {
    for pipeline in &report.pipelines {
        for (partition, there) in &pipeline.away {
            let key = (pipeline.tenant.clone(), pipeline.name.clone(), *partition);
            let Some(node) = said.iter().position(|(name, _)| name == there) else { continue };
            let now = Now { node, may_move: false, state_bytes: 0, is_copied: false };
            add_item(situation, at, key, (Resources::default(), now));
        }
    }
}

/// What goes to and fro: between partitions, and between them and their home.
fn add_flows(
    situation: &mut Situation,
    at: &BTreeMap<Key, usize>,
    (node, report, homes): (usize, &Report, &BTreeMap<(&str, &str), usize>),
) {
    for pipeline in &report.pipelines {
        let item = |partition: u16| {
            at.get(&(pipeline.tenant.clone(), pipeline.name.clone(), partition)).copied()
        };
        for (partition, bytes_per_second) in &pipeline.ingest {
            if let Some(item) = item(*partition) {
                situation.fronts.push(Front { item, node, bytes_per_second: *bytes_per_second });
            }
        }
        let home = homes.get(&(&*pipeline.tenant, &*pipeline.name)).copied();
        for here in &pipeline.here {
            let Some(from) = item(here.partition) else { continue };
            for (to, bytes_per_second) in &here.sent {
                let Some(to) = item(*to) else { continue };
                situation.edges.push(Edge { from, to, bytes_per_second: *bytes_per_second });
            }
            if let Some(node) = home.filter(|_| here.output > 0) {
                let bytes_per_second = here.output;
                situation.fronts.push(Front { item: from, node, bytes_per_second });
            }
        }
    }
}

/// The nodes that say they are the home of a pipeline, by tenant and name.
fn homes(said: &Said) -> BTreeMap<(&str, &str), usize> {
    let reports = said
        .iter()
        .enumerate()
        .filter_map(|(at, (_, report))| report.as_ref().ok().map(|report| (at, report)));
    let all = reports.flat_map(|(at, report)| {
        let homes = report.pipelines.iter().filter(|pipeline| pipeline.is_home);
        homes.map(move |pipeline| ((&*pipeline.tenant, &*pipeline.name), at))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::report::{PartitionReport, PipelineReport};
    use super::*;
    use crate::mailbox::load::Done;

    fn node(host: &str, pipelines: Vec<PipelineReport>) -> Result<Report, String> {
        let (cpu_milli, host_cpu_milli) = (2_000, 4_000);
        let (memory_bytes, host_memory_bytes, gpu_milli) = (1 << 30, 1 << 31, 0);
        let host = host.to_owned();
        Ok(Report {
            host,
            cpu_milli,
            host_cpu_milli,
            memory_bytes,
            host_memory_bytes,
            gpu_milli,
            pipelines,
        })
    }

    fn partition(partition: u16, cpu_milli: u64, sent: &[(u16, u64)]) -> PartitionReport {
        let sent = sent.iter().copied().collect();
        PartitionReport {
            partition,
            may_move: true,
            cpu_milli,
            memory_bytes: 2_000,
            state_bytes: 1_000,
            output: 0,
            sent,
            done: BTreeMap::new(),
        }
    }

    fn words(is_home: bool, here: Vec<PartitionReport>, away: &[(u16, &str)]) -> PipelineReport {
        PipelineReport {
            tenant: "acme".to_owned(),
            name: "words".to_owned(),
            is_home,
            may_move: true,
            needs_gpu: false,
            here,
            away: away.iter().map(|(at, node)| (*at, (*node).to_owned())).collect(),
            ingest: BTreeMap::new(),
        }
    }

    fn planned(said: &Said) -> Plan {
        plan(said, (&Name::new("acme").expect("good"), None)).expect("no pipeline is asked for")
    }

    #[test]
    fn what_talks_much_is_brought_together() {
        let home = words(true, vec![partition(0, 300, &[(1, 9_000_000)])], &[(1, "b")]);
        let part = words(false, vec![partition(1, 300, &[(0, 9_000_000)])], &[]);
        let said = vec![
            ("a".to_owned(), node("host-1", vec![home])),
            ("b".to_owned(), node("host-2", vec![part])),
        ];
        let plan = planned(&said);
        assert_eq!(plan.moves.len(), 1, "{plan:?}");
        assert_eq!((plan.before.network, plan.after.network), (18_000_000, 0));
        assert_eq!(plan.partitions.len(), 2);
        let goes = plan.partitions.iter().find(|at| at.partition == plan.moves[0].partition);
        let goes = goes.expect("it is shown");
        assert!(goes.why.starts_with("goes from "), "{goes:?}");
        assert_eq!((plan.nodes[0].cpu_milli, plan.nodes[0].cpu_milli_most), (300, 2_000));
        // Asked by another tenant, nothing of it is shown.
        let other = super::plan(&said, (&Name::new("other").expect("good"), None)).expect("all");
        assert!(other.partitions.is_empty() && other.moves.is_empty());
        let none = Name::new("none").expect("good");
        assert!(super::plan(&said, (&Name::new("acme").expect("good"), Some(&none))).is_none());
    }

    #[test]
    fn nodes_may_have_any_name_that_a_node_can_have() {
        let here = vec![partition(0, 1_200, &[]), partition(1, 1_200, &[])];
        let said = vec![
            ("a.example.com".to_owned(), node("host-1", vec![words(true, here, &[])])),
            ("b.example.com".to_owned(), node("host-2", Vec::new())),
        ];
        let plan = planned(&said);
        assert_eq!((&*plan.moves[0].from, &*plan.moves[0].to), ("a.example.com", "b.example.com"));
        let goes = plan.partitions.iter().find(|at| at.partition == plan.moves[0].partition);
        let why = "goes from a.example.com to b.example.com: it makes room, as a.example.com is \
                   short of cpu";
        assert_eq!(goes.map(|at| (&*at.node, &*at.why)), Some(("a.example.com", why)));
    }

    #[test]
    fn a_node_that_does_too_much_gives_some_away() {
        let here = (0..4).map(|at| partition(at, 600, &[])).collect();
        let said = vec![
            ("a".to_owned(), node("host-1", vec![words(true, here, &[])])),
            ("b".to_owned(), node("host-2", Vec::new())),
        ];
        let plan = planned(&said);
        assert!(!plan.moves.is_empty(), "2,400 of 2,000 thousandths: {plan:?}");
        assert!(plan.moves.iter().all(|one| (&*one.from, &*one.to) == ("a", "b")));
    }

    #[test]
    fn a_node_whose_memory_is_held_gives_some_away_and_says_so() {
        let mut here: Vec<PartitionReport> = (0..3).map(|at| partition(at, 10, &[])).collect();
        here.iter_mut().for_each(|at| at.memory_bytes = 400 << 20);
        let said = vec![
            ("a".to_owned(), node("host-1", vec![words(true, here, &[])])),
            ("b".to_owned(), node("host-2", Vec::new())),
        ];
        let plan = planned(&said);
        let (held, most) = (1200 << 20, 1 << 30);
        assert_eq!((plan.nodes[0].memory_bytes, plan.nodes[0].memory_bytes_most), (held, most));
        assert!(!plan.moves.is_empty(), "{plan:?}");
        assert!(plan.moves.iter().all(|one| (&*one.from, &*one.to) == ("a", "b")));
        let gone = &plan.partitions[usize::from(plan.moves[0].partition)];
        assert_eq!(gone.why, "goes from a to b: it makes room, as a is short of memory");
        assert_eq!(gone.memory_bytes, 400 << 20);
    }

    #[test]
    fn what_nodes_say_is_read_and_of_a_node_of_before_what_it_says() {
        let old = r#"{"host":"h","cpu-milli":2000,"host-cpu-milli":4000,"pipelines":[
            {"tenant":"acme","name":"words","is-home":false,"may-move":true,"here":[
                {"partition":3,"may-move":true,"cpu-milli":7,"state-bytes":9,"output":0,"sent":{}}
            ],"away":{},"ingest":{}}
        ]}"#;
        let old: Report = serde_json::from_str(old).expect("what such a node says");
        // It says nothing of memory, and is given none of it to heed.
        assert_eq!(old.memory_bytes, MEMORY_BYTES_UNKNOWN);
        let here = &old.pipelines[0].here[0];
        assert_eq!((here.partition, here.state_bytes, here.memory_bytes), (3, 9, 0));
        assert!(here.done.is_empty(), "it says no counts, and is not believed to have none");
        let mut counts = partition(3, 7, &[(1, 5)]);
        let done = Done { arrived: 11, taken: 12, busy_micros: 13, waiting: 14 };
        counts.done = BTreeMap::from([("count".to_owned(), done)]);
        let report = node("h", vec![words(false, vec![counts], &[])]).expect("it is one");
        let text = serde_json::to_string(&report).expect("JSON");
        for count in ["\"arrived\":11", "\"taken\":12", "\"busy-micros\":13", "\"waiting\":14"] {
            assert!(text.contains(count), "{text}");
        }
        assert_eq!(serde_json::from_str::<Report>(&text).ok(), Some(report));
    }

    #[test]
    fn what_is_on_a_node_that_says_nothing_is_unavailable_and_stays() {
        let home = words(true, vec![partition(0, 10, &[])], &[(1, "b")]);
        let said = vec![
            ("a".to_owned(), node("host-1", vec![home])),
            ("b".to_owned(), Err("it is silent".to_owned())),
        ];
        let plan = planned(&said);
        assert!(plan.moves.is_empty(), "{plan:?}");
        assert_eq!(plan.nodes[1].state, "it is silent");
        assert!(plan.partitions[1].why.starts_with("is unavailable"), "{plan:?}");
    }

    #[test]
    fn what_may_not_move_stays_and_a_node_alone_has_a_plan() {
        let mut home = words(true, vec![partition(0, 2_500, &[])], &[]);
        home.may_move = false;
        let plan = planned(&vec![(String::new(), node("host-1", vec![home]))]);
        assert!(plan.moves.is_empty(), "{plan:?}");
        assert_eq!(
            plan.partitions[0].why,
            "is on this node, which is no place for it, and may not \
            move now"
        );
    }
}
