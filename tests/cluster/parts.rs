//! Partitions of a pipeline on several nodes: they go and come back under load, counted once, in
//! order, with everything they keep.
//!
//! Nodes that die or stand still are in `faults`, and between the steps of a move in `copies`,
//! nodes on machines that are cut off from each other in `apart`, one that was taken over in
//! `liar`, what else clients do and what is refused in `serves`, where partitions would better be
//! in `plan`, event time in `time`, traces in `traces`.

#[path = "parts/apart.rs"]
mod apart;
#[path = "parts/bytes.rs"]
mod bytes;
#[path = "parts/copies.rs"]
mod copies;
#[path = "parts/faults.rs"]
mod faults;
#[path = "parts/liar.rs"]
mod liar;
#[path = "parts/plan.rs"]
mod plan;
#[path = "parts/serves.rs"]
mod serves;
#[path = "parts/time.rs"]
mod time;
#[path = "parts/traces.rs"]
mod traces;

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;
use sluicebox_core::key;
use sluicebox_tests::client::{Client, NDJSON, Reply};
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually, eventually_equal};
use sluicebox_tests::node::{Node, Setup};

use super::load::{Following, Load, each_is_counted, each_word, with_words};
use super::{clients, home, kept};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Which partition is on which node, of those that are not at home.
type Places = BTreeMap<u64, String>;

/// Nodes, and a pipeline of theirs, known by its home and the others.
struct Scene {
    cluster: Cluster,
    nodes: Vec<Node>,
    through: Vec<Client>,
    pipeline: &'static str,
    home: usize,
}

impl Scene {
    /// Of nodes that are started, and have no pipeline yet.
    async fn of(cluster: Cluster, setup: impl Fn() -> Setup) -> Self {
        let nodes = cluster.start(setup).await;
        Self::with(cluster, nodes)
    }

    fn with(cluster: Cluster, nodes: Vec<Node>) -> Self {
        let through = clients(&nodes);
        Self { cluster, nodes, through, pipeline: "", home: 0 }
    }

    /// The same with words that are counted in so many partitions.
    async fn with_words(cluster: Cluster, partitions: u16) -> Self {
        let nodes = cluster.start(|| cluster.fresh()).await;
        let scene = Self::with(cluster, nodes);
        with_words(&scene.through[0], partitions).await;
        scene.about("words").await
    }

    /// From here on it is about this pipeline, which was applied.
    async fn about(self, pipeline: &'static str) -> Self {
        let place = home(&self.through[0], pipeline).await;
        let home = NAMES.iter().position(|name| *name == place).expect("a node of ours");
        Self { pipeline, home, ..self }
    }

    /// The number of the so-many-th node behind the home.
    fn other(&self, nth: usize) -> usize {
        (self.home + nth) % self.through.len()
    }

    /// A client of the home.
    fn at_home(&self) -> &Client {
        &self.through[self.home]
    }

    /// Has partitions move, whichever way the request goes, and sees that they are there.
    async fn moved(&self, partitions: &[u64], to: usize) {
        let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        let query = format!("to={}&partitions={}", NAMES[to], numbers.join(","));
        let client = &self.through[self.other(1)];
        let reply = eventually("the partitions move", SOON, || async {
            let reply = ask(client, self.pipeline, &query).await;
            // On a busy machine a node counts as away for a moment.
            (reply.status != 503).then_some(reply)
        })
        .await;
        let moved = reply.is(200).json();
        assert_eq!(moved["partitions"], Value::from(partitions), "{moved}");
        assert_eq!((&moved["name"], &moved["to"]), (&self.pipeline.into(), &NAMES[to].into()));
        for client in &self.through {
            let places = self.settled(client).await;
            for at in partitions {
                let there = (to != self.home).then_some(NAMES[to]);
                assert_eq!(places.get(at).map(String::as_str), there, "{at} in {places:?}");
            }
        }
    }

    /// Has all of them come home, without saying which.
    async fn all_back(&self) {
        let query = format!("to={}", NAMES[self.home]);
        eventually("all partitions are at home", SOON, || async {
            let places = self.settled(self.at_home()).await;
            if places.is_empty() {
                return Some(());
            }
            let reply = ask(&self.through[self.other(1)], self.pipeline, &query).await;
            assert!(matches!(reply.status, 200 | 503), "{places:?}: {reply:?}");
            None
        })
        .await;
    }

    /// Where partitions are once each is said to be somewhere by the node that has it.
    async fn settled(&self, client: &Client) -> Places {
        eventually("every partition is somewhere", SOON, || async {
            let reply = client.get(&format!("pipelines/{}", self.pipeline)).await;
            (reply.status == 200).then(|| places(&reply.json())).flatten()
        })
        .await
    }

    /// Waits until all that is away is reached this way.
    async fn until_linked(&self, way: &str) {
        let ways = || async {
            let detail = self.at_home().describe(self.pipeline).await;
            let all = detail["partition"].as_array().expect("a list").clone();
            let away = all.iter().filter(|partition| partition["node"].is_string());
            away.map(|partition| (partition["partition"].as_u64(), partition["way"].clone()))
                .collect::<BTreeMap<_, _>>()
        };
        let away = ways().await;
        assert!(!away.is_empty(), "all partitions are at home");
        let expected = away.into_keys().map(|at| (at, way.into())).collect();
        eventually_equal(expected, SOON, ways).await;
    }

    /// Waits until the home tells of the edge between the stages of words how much went this way,
    /// and how long that took, to people and to who watches.
    async fn until_counted(&self, way: &str) {
        eventually(&format!("what goes by {way} is counted"), SOON, || async {
            let detail = self.at_home().describe("words").await;
            let mut hops = detail["hop"].as_array().expect("a list").iter();
            let hop = hops.find(|hop| hop["way"] == way)?;
            assert_eq!((&hop["from"], &hop["to"]), (&"split".into(), &"count".into()));
            let is_counted = |name: &str| hop[name].as_u64() > Some(0);
            let took = !hop["waited"].as_array().expect("rows").is_empty();
            (is_counted("events") && is_counted("bytes") && took).then_some(())
        })
        .await;
        let text = self.at_home().plain("/metrics").await.is(200).text().to_owned();
        for what in ["events_total", "bytes_total", "seconds_count"] {
            let is_its = |line: &&str| {
                let of = ["from=\"split\"", "to=\"count\"", &format!("way=\"{way}\"")];
                line.starts_with(&format!("sluicebox_hop_{what}{{"))
                    && of.iter().all(|label| line.contains(label))
            };
            let line = text.lines().find(is_its).unwrap_or_else(|| panic!("no {what}: {text}"));
            assert!(!line.ends_with(" 0"), "{line}");
        }
    }

    /// What a node has sent to another by a way: messages, bytes.
    async fn sent(&self, from: usize, to: usize, way: &str) -> [u64; 2] {
        let text = self.through[from].plain("/metrics").await.is(200).text().to_owned();
        ["messages", "bytes"].map(|what| {
            let peer = NAMES[to];
            let name = format!("sluicebox_link_{what}_total{{peer=\"{peer}\",way=\"{way}\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            let value = value.unwrap_or_else(|| panic!("no {name}in the figures of {from}"));
            value.parse().expect("a number")
        })
    }

    /// Kills a node, and starts it again.
    async fn killed_and_started(&mut self, at: usize) {
        let old = self.nodes.remove(at);
        let setup = self.again(&old, NAMES[at]);
        drop(old.kill());
        self.nodes.insert(at, setup.start().await);
    }

    /// How a node is started again, where it was.
    fn again(&self, node: &Node, name: &str) -> Setup {
        self.cluster.setup(Setup::as_before(node).at(node.address()), name)
    }

    /// Waits until all nodes reach each other.
    async fn all_up(&self) {
        for client in &self.through {
            until_up(client, self.through.len()).await;
        }
    }
}

/// Asks for a move; the reply.
async fn ask(client: &Client, pipeline: &str, query: &str) -> Reply {
    let path = client.path(&format!("pipelines/{pipeline}/move?{query}"));
    client.ask(Method::POST, &path, &[], "").await
}

/// Where the partitions are by a description; nothing if one of them is not there, or not yet.
fn places(detail: &Value) -> Option<Places> {
    let mut places = Places::new();
    let mut at_home = Vec::new();
    for partition in detail["partition"].as_array().expect("a list") {
        if !partition["unavailable"].is_null() {
            return None;
        }
        let at = partition["partition"].as_u64().expect("a number");
        match partition["node"].as_str() {
            Some(node) => {
                let before = places.insert(at, node.to_owned());
                assert!(before.is_none_or(|before| before == node), "one partition, two nodes");
            }
            None => at_home.push(at),
        }
    }
    assert!(at_home.iter().all(|at| !places.contains_key(at)), "in all segments alike: {detail}");
    Some(places)
}

/// A pipeline that gives back what it gets, in four partitions.
fn in_four(name: &str) -> String {
    let manifest = kept(name).replace("partitions = 1", "partitions = 4");
    manifest.replace("from = \"stage-0\"\n", "from = \"stage-0\"\nretain-bytes = \"64MiB\"\n")
}

/// A key of a partition, of four.
fn key_in(partition: u16) -> String {
    let mut keys = (0..).map(|n| format!("k{n}"));
    let found = keys.find(|name| key::partition_of(key::group_of(name.as_bytes()), 4) == partition);
    found.expect("there are many keys")
}

/// Two nodes by this way: partitions go and come back, others go and come back.
async fn go_and_come_back(cluster: Cluster, way: &str) {
    let scene = Scene::with_words(cluster, 4).await;
    let (home, other) = (scene.home, scene.other(1));
    let load = Load::begin(scene.through.clone());
    let following = Following::begin(scene.through.clone());
    load.goes_on(50).await;
    scene.moved(&[2, 3], other).await;
    scene.until_linked(way).await;
    load.goes_on(50).await;
    for way in [way, "worker"] {
        scene.until_counted(way).await;
    }
    // Runs one way, outputs the other.
    for (from, to) in [(home, other), (other, home)] {
        let [messages, bytes] = scene.sent(from, to, way).await;
        assert!(messages > 0 && bytes > messages, "{from} to {to}: {messages} of {bytes} bytes");
    }
    scene.moved(&[2, 3], home).await;
    load.goes_on(50).await;
    scene.moved(&[0, 1, 3], other).await;
    load.goes_on(50).await;
    scene.moved(&[1], home).await;
    load.goes_on(50).await;
    scene.all_back().await;
    load.goes_on(50).await;
    let sent = load.ends_counted_once(&scene.through[other]).await;
    following.has_seen(scene.at_home(), &sent).await;
    for client in &scene.through {
        let all = client.get("pipelines").await.is(200).json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "a part is no pipeline: {all}");
    }
}

#[tokio::test]
async fn partitions_go_and_come_back_over_the_network_and_nothing_is_lost_or_doubled() {
    go_and_come_back(Cluster::of(&NAMES[..2]), "network").await;
}

#[tokio::test]
async fn partitions_go_and_come_back_through_memory_and_nothing_is_lost_or_doubled() {
    go_and_come_back(Cluster::of(&NAMES[..2]).that_meets(), "ring").await;
}

/// Three nodes with two of six partitions each; then some go from one to another.
async fn on_three_nodes(cluster: Cluster, way: &str) {
    let scene = Scene::with_words(cluster, 6).await;
    let (home, second, third) = (scene.home, scene.other(1), scene.other(2));
    let load = Load::begin(scene.through.clone());
    let following = Following::begin(scene.through.clone());
    load.goes_on(30).await;
    scene.moved(&[2, 3], second).await;
    scene.moved(&[4, 5], third).await;
    scene.until_linked(way).await;
    load.goes_on(100).await;
    // Each sends words to each, not by way of the home.
    for (from, to) in [(home, second), (home, third), (second, third), (third, second)] {
        eventually(&format!("{from} sends to {to}"), SOON, || async {
            scene.sent(from, to, way).await.iter().all(|sent| *sent > 0).then_some(())
        })
        .await;
    }
    scene.moved(&[2], third).await;
    load.goes_on(50).await;
    scene.moved(&[5], second).await;
    load.goes_on(50).await;
    // All that is elsewhere, and one that was at home, to one node.
    scene.moved(&[0, 2, 3, 4, 5], third).await;
    load.goes_on(50).await;
    scene.moved(&[3, 4], home).await;
    load.goes_on(50).await;
    let sent = load.ends_counted_once(&scene.through[second]).await;
    following.has_seen(scene.at_home(), &sent).await;
}

#[tokio::test]
async fn partitions_on_three_nodes_send_to_each_other_and_move_between_them() {
    on_three_nodes(Cluster::of(&NAMES), "network").await;
}

#[tokio::test]
async fn partitions_on_three_nodes_send_to_each_other_through_memory() {
    on_three_nodes(Cluster::of(&NAMES).that_meets(), "ring").await;
}

#[tokio::test]
async fn what_partitions_keep_comes_along_however_often_they_go() {
    let mut scene = Scene::with_words(Cluster::of(&NAMES[..2]), 4).await;
    let (home, other) = (scene.home, scene.other(1));
    for round in 1..=4 {
        let headers = [("content-type", NDJSON)];
        scene.at_home().send("words", "", &headers, each_word()).await.is(202);
        each_is_counted(scene.at_home(), round).await;
        // Nothing of what they keep changes meanwhile, and what earlier visits left goes.
        scene.moved(&[1, 2, 3], other).await;
        scene.moved(&[1, 2, 3], home).await;
        scene.moved(&[1, 2, 3], other).await;
        if round % 2 == 0 {
            scene.killed_and_started(other).await;
            scene.all_up().await;
        }
        scene.moved(&[1], home).await;
        scene.moved(&[2], home).await;
    }
    scene.all_back().await;
    each_is_counted(scene.at_home(), 4).await;
}

#[tokio::test]
async fn partitions_are_where_they_were_after_all_nodes_were_stopped_and_started() {
    let mut scene = Scene::with_words(Cluster::of(&NAMES).that_meets(), 6).await;
    let load = Load::begin(scene.through.clone());
    load.goes_on(30).await;
    scene.moved(&[0, 2], scene.other(1)).await;
    scene.moved(&[5], scene.other(2)).await;
    load.goes_on(50).await;
    let places = scene.settled(scene.at_home()).await;
    assert_eq!(places.len(), 3, "{places:?}");
    let mut setups = Vec::new();
    for (node, name) in scene.nodes.iter().zip(NAMES) {
        setups.push(scene.again(node, name));
        node.terminate();
    }
    for node in scene.nodes.drain(..) {
        let (status, _) = node.ended().await;
        assert!(status.success(), "{status}");
    }
    for setup in setups {
        scene.nodes.push(setup.start().await);
    }
    scene.all_up().await;
    for client in &scene.through {
        assert_eq!(scene.settled(client).await, places);
    }
    scene.until_linked("ring").await;
    load.goes_on(50).await;
    scene.moved(&[1], scene.other(2)).await;
    scene.all_back().await;
    load.goes_on(30).await;
    load.ends_counted_once(&scene.through[0]).await;
}
