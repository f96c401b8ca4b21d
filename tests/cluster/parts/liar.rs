//! A node that has partitions is taken over: with its certificate it says whatever it likes. The
//! others go on, count what is theirs once, answer their own clients, and say what was wrong.
//!
//! What it says by links is in `says`, what it wants of others in `wants`, what it offers them in
//! `offers`, how many places it takes in `places`, what it writes into memory that it shares in
//! `memory`.

#[path = "liar/memory.rs"]
mod memory;
#[path = "liar/offers.rs"]
mod offers;
#[path = "liar/places.rs"]
mod places;
#[path = "liar/says.rs"]
mod says;
#[path = "liar/wants.rs"]
mod wants;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use sluicebox_core::frame::{Frame, FrameBuilder, Head};
use sluicebox_core::ids::PipelineId;
use sluicebox_tests::client::Client;
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::liar::Liar;
use sluicebox_tests::node::{Node, program};
use sluicebox_tests::peer::Peer;
use tokio::task::JoinSet;

use crate::load::{Following, Load};
use crate::{ECHO, home};

use super::{NAMES, Scene, ask, in_four, kept};

/// Where nodes ask each other about pipelines.
const PIPELINES: &str = "/peer/v1/tenants/dev/pipelines";

/// What memory may come and go beside what lies are made of.
const RESIDENT_BYTES_MORE: u64 = 300 << 20;

/// Words at their home and at a second node, a pipeline of the same home with partitions at a
/// third, one that is all at home, and one whose home is the third, with a partition at the second.
/// The third is killed, and played by the test.
struct TakenOver {
    scene: Scene,
    liar: Liar,
    words: PipelineId,
    /// With partitions 1 and 3 at the liar.
    shared: PipelineId,
    /// The name of the one that is all at home.
    own: String,
    /// Whose home the liar is, with partition 0 at the second node.
    theirs: PipelineId,
    their: Their,
    second: usize,
    third: usize,
}

/// What the liar said when it was none.
struct Their {
    /// The name of the pipeline whose home it is, and its manifest.
    name: String,
    manifest: Value,
    /// How it is, and what that pipeline consists of.
    state: Bytes,
    shape: Value,
}

/// The numbers of pipelines, as the log of a node has them.
fn numbers(data: &Path) -> BTreeMap<String, PipelineId> {
    let inspect = ["log", "inspect", "--records", "--output", "json", "--data-dir"];
    let said = std::process::Command::new(program()).args(inspect).arg(data).output();
    let text = String::from_utf8(said.expect("the program can be started").stdout).expect("UTF-8");
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let named = |row: Value| {
        let name = row["name"].as_str()?.split_once('/')?.1.to_owned();
        Some((name, PipelineId(row["pipeline"].as_u64()?)))
    };
    rows.filter_map(named).collect()
}

impl TakenOver {
    async fn with(cluster: Cluster) -> Self {
        let scene = Scene::with_words(cluster, 6).await;
        let (second, third) = (scene.other(1), scene.other(2));
        scene.through[0].push(ECHO).await;
        scene.moved(&[2, 3], second).await;
        let shared = made_at(&scene, scene.home, in_four).await;
        let own = made_at(&scene, scene.home, kept).await;
        let theirs = made_at(&scene, third, in_four).await;
        for (name, to, partitions) in [(&shared, third, "1,3"), (&theirs, second, "0")] {
            let query = format!("to={}&partitions={partitions}", NAMES[to]);
            eventually("some of it is there", SOON, || async {
                let reply = ask(scene.at_home(), name, &query).await;
                (reply.status == 200).then_some(())
            })
            .await;
        }
        let number = |at: usize, name: &str| {
            let numbers = numbers(&scene.nodes[at].home().data());
            *numbers.get(name).unwrap_or_else(|| panic!("{name} in {numbers:?}"))
        };
        let (words, shared) = (number(scene.home, "words"), number(scene.home, &shared));
        let (name, theirs) = (theirs.clone(), number(third, &theirs));
        let asked = async |question: String| {
            let asks = Peer::of(&scene.cluster, NAMES[second]);
            let there = (NAMES[third], scene.cluster.address(NAMES[third]));
            asks.ask(there, &question).await.expect("it is a node").is(200)
        };
        let shape = format!("GET {PIPELINES}/{name}/shape?pipeline={}", theirs.0);
        let their = Their {
            manifest: scene.at_home().describe(&name).await["manifest"].clone(),
            state: asked("GET /peer/v1/state".to_owned()).await.body,
            shape: asked(shape).await.json(),
            name,
        };
        let process = scene.nodes[third].process().expect("it runs");
        kill_process(process, Signal::KILL).expect("it runs");
        let liar = Liar::of(&scene.cluster, NAMES[third]);
        Self { scene, liar, words, shared, own, theirs, their, second, third }
    }

    /// Words that are sent through those that are left, and somebody who reads them.
    async fn begin(&self) -> (Load, Following) {
        let under_way = (Load::begin(self.through()), Following::begin(self.through()[..1].into()));
        under_way.0.goes_on(30).await;
        under_way
    }

    /// A node has no more than so many bytes in memory.
    fn under(&self, most: u64, at: usize) {
        let now = resident(&self.scene.nodes[at]);
        assert!(now < most, "{now} bytes, at most {most}");
    }

    /// Clients of those that are left.
    fn through(&self) -> Vec<Client> {
        [self.scene.home, self.second].map(|at| self.scene.through[at].clone()).into()
    }

    /// Where a node listens for others.
    fn port(&self, at: usize) -> (&'static str, SocketAddr) {
        (NAMES[at], self.scene.cluster.address(NAMES[at]))
    }

    fn at_home(&self) -> (&'static str, SocketAddr) {
        self.port(self.scene.home)
    }

    /// How often a node has ended links of the liar for what came by them.
    async fn wrong(&self, at: usize) -> u64 {
        let text = self.scene.through[at].plain("/metrics").await.is(200).text().to_owned();
        let name = format!("sluicebox_peer_wrong_total{{peer=\"{}\"}} ", NAMES[self.third]);
        let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted");
        value.parse().expect("a number")
    }

    /// The load is over, everything was counted once, and both nodes are up and say what was wrong.
    async fn ends_well(&self, (load, following): (Load, Following)) {
        load.goes_on(20).await;
        let slowest = load.slowest();
        assert!(slowest < Duration::from_secs(15), "a request waited for {slowest:?}");
        let sent = load.ends_counted_once(self.scene.at_home()).await;
        following.has_seen(self.scene.at_home(), &sent).await;
        for client in self.through() {
            until_up(&client, 2).await;
        }
    }
}

/// Applies a pipeline under one name after another until its home is this node.
async fn made_at(scene: &Scene, at: usize, manifest: impl Fn(&str) -> String) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..64 {
        let name = format!("q{}", NEXT.fetch_add(1, Ordering::Relaxed));
        scene.at_home().apply(&name, manifest(&name)).await;
        if home(scene.at_home(), &name).await == NAMES[at] {
            return name;
        }
        scene.at_home().delete(&format!("pipelines/{name}")).await.is(204);
    }
    panic!("64 names and none of them at {}", NAMES[at]);
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 33
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.next() as usize % most).map(|_| self.next() as u8).collect()
    }
}

/// Bytes that the process of a node has in memory.
fn resident(node: &Node) -> u64 {
    let process = node.process().expect("it runs").as_raw_nonzero();
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the system says it") * rustix::param::page_size() as u64
}

/// A client that calls a pipeline again and again, and is answered with what it sent.
struct Calls {
    stop: Arc<AtomicBool>,
    calling: JoinSet<u64>,
}

impl Calls {
    fn begin(client: &Client, pipeline: &str) -> Self {
        let (stop, mut calling) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let (told, client, pipeline) = (stop.clone(), client.clone(), pipeline.to_owned());
        calling.spawn(async move {
            let mut number = 0;
            while !told.load(Ordering::Acquire) {
                number += 1;
                let text = format!("call {number}");
                let reply = client.call(&pipeline, "k", text.clone()).await.is(200);
                assert_eq!(reply.text(), text);
            }
            number
        });
        Self { stop, calling }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Release);
        let made = self.calling.join_all().await;
        assert!(made.iter().sum::<u64>() > 10, "{made:?} calls");
    }
}

/// A frame of one event, a word.
fn a_word(word: &str) -> Frame {
    let mut builder = FrameBuilder::new();
    builder.push(&Head::data(1), word.as_bytes(), format!("\"{word}\"").as_bytes(), &[]);
    builder.finish()
}
