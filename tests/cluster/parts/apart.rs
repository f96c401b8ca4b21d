//! Nodes on machines of their own: a way between two of them loses what goes in one direction, in
//! the midst of a move or of ordinary traffic; a node is killed, or stands still; a wire is too
//! narrow.
//! What is acknowledged is counted once, whoever asks has an answer, and nodes say who is cut off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use sluicebox_tests::client::Client;
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::lan::Lan;
use tokio::task::JoinSet;

use crate::faults::until_state;
use crate::load::{Following, Load};

use super::{NAMES, Places, Scene, ask};

/// Nobody waits longer for an answer, whatever is cut off: a way that is silent is given up after
/// the time that `Cluster` sets, which may come several times in one request.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long a move may take to say how it went. Behind a certain record it waits for a while for
/// the other node.
const MOVE_MAX: Duration = Duration::from_secs(45);

/// Runs a test on three machines.
pub(super) fn on_machines<F: Future<Output = ()>>(test: impl FnOnce(Arc<Lan>) -> F + Send) {
    if let Some(lan) = Lan::of(&NAMES) {
        lan.run(|| test(lan.clone()));
    }
}

/// A scene whose nodes are on three machines, with words in six partitions, all at home.
struct Machines {
    lan: Arc<Lan>,
    scene: Scene,
    home: usize,
    second: usize,
    third: usize,
}

impl Machines {
    async fn with_words(lan: &Arc<Lan>, cluster: Cluster) -> Self {
        let (lan, scene) = (lan.clone(), Scene::with_words(cluster, 6).await);
        let (home, second, third) = (scene.home, scene.other(1), scene.other(2));
        Self { lan, scene, home, second, third }
    }

    fn begin(&self) -> (Load, Following) {
        // Who reads a page through another node than the home may find it cut off within.
        let home = vec![self.scene.at_home().clone()];
        (Load::begin(self.scene.through.clone()), Following::begin(home))
    }

    /// Two partitions on each.
    async fn spread(&self) {
        self.scene.moved(&[2, 3], self.second).await;
        self.scene.moved(&[4, 5], self.third).await;
        self.scene.until_linked("network").await;
    }

    fn cut(&self, from: usize, to: usize) {
        self.lan.cut(NAMES[from], NAMES[to]);
    }

    fn heal(&self, from: usize, to: usize) {
        self.lan.heal(NAMES[from], NAMES[to]);
    }

    fn client(&self, at: usize) -> &Client {
        &self.scene.through[at]
    }

    /// Waits until each of two nodes says that it does not reach the other, and sees that both
    /// reach everybody else.
    async fn until_apart(&self, one: usize, other: usize) {
        for (at, lost) in [(one, other), (other, one)] {
            until_state(self.client(at), NAMES[lost], "unreachable").await;
            for kept in (0..NAMES.len()).filter(|kept| ![at, lost].contains(kept)) {
                until_state(self.client(at), NAMES[kept], "up").await;
            }
        }
    }

    /// Waits until the description says of the partitions at a node that they are away, and of no
    /// others.
    async fn until_away(&self, partitions: [u64; 2]) {
        eventually("a description says what is away", SOON, || async {
            let reply = self.scene.at_home().get("pipelines/words").await;
            let detail = (reply.status == 200).then(|| reply.json())?;
            let all = detail["partition"].as_array().expect("a list");
            let away = all.iter().filter(|partition| partition["unavailable"].is_string());
            let away: BTreeSet<u64> =
                away.map(|partition| partition["partition"].as_u64().expect("a number")).collect();
            (away == BTreeSet::from(partitions)).then_some(())
        })
        .await;
    }

    /// Everything is at home again, and counted once.
    async fn ends_well(&self, (load, following): (Load, Following)) {
        self.scene.all_up().await;
        self.scene.all_back().await;
        load.goes_on(20).await;
        let slowest = load.slowest();
        assert!(slowest < ANSWER_MAX, "a request waited for {slowest:?}");
        let sent = load.ends_counted_once(self.client(self.second)).await;
        following.has_seen(self.scene.at_home(), &sent).await;
    }
}

#[test]
fn ways_lose_what_goes_in_one_direction_and_nothing_is_lost_or_doubled() {
    on_machines(|lan| async move {
        let machines = Machines::with_words(&lan, Cluster::on(&lan, &NAMES)).await;
        let Machines { home, second, third, .. } = machines;
        let (load, following) = machines.begin();
        load.goes_on(20).await;
        machines.spread().await;
        load.goes_on(50).await;
        for (from, to) in [(home, second), (second, home), (second, third), (third, second)] {
            machines.cut(from, to);
            machines.until_apart(from, to).await;
            if [from, to].contains(&home) {
                machines.until_away([2, 3]).await;
            }
            load.goes_on(20).await;
            machines.heal(from, to);
            machines.scene.all_up().await;
            load.goes_on(50).await;
        }
        machines.ends_well((load, following)).await;
    });
}

/// Moves partitions from one node to another and cuts a way after so long. It says how it went
/// within a time, and all of them are at one of the two.
async fn cut_within_a_move(
    machines: &Machines,
    (from, to): (usize, usize),
    (cut, after): ((usize, usize), Duration),
) {
    let Machines { scene, home, second, third, .. } = machines;
    let query = format!("to={}&partitions=2,3", NAMES[to]);
    let asker = machines.client(*third).clone();
    let mut asked = JoinSet::new();
    let began = Instant::now();
    asked.spawn(async move { ask(&asker, "words", &query).await.status });
    tokio::time::sleep(after).await;
    machines.cut(cut.0, cut.1);
    let statuses = asked.join_all().await;
    assert!(matches!(statuses[..], [200 | 404 | 409 | 429 | 503]), "{statuses:?}");
    assert!(began.elapsed() < MOVE_MAX, "it moved for {:?}", began.elapsed());
    machines.until_apart(*home, *second).await;
    machines.heal(cut.0, cut.1);
    scene.all_up().await;
    let places = scene.settled(machines.client(*third)).await;
    let there: Places = [2, 3].map(|at| (at, NAMES[*second].to_owned())).into();
    assert!(places.is_empty() || places == there, "{places:?} from {from} to {to}");
}

#[test]
fn a_way_is_lost_within_a_move_and_partitions_are_at_one_node() {
    on_machines(|lan| async move {
        let machines = Machines::with_words(&lan, Cluster::on(&lan, &NAMES)).await;
        let Machines { home, second, .. } = machines;
        let (load, following) = machines.begin();
        load.goes_on(20).await;
        for (round, cut) in
            [(home, second), (second, home), (home, second), (second, home)].into_iter().enumerate()
        {
            let places = machines.scene.settled(machines.client(home)).await;
            let (from, to) = if places.is_empty() { (home, second) } else { (second, home) };
            let after = Duration::from_millis(5 + 25 * round as u64);
            cut_within_a_move(&machines, (from, to), (cut, after)).await;
            load.goes_on(20).await;
        }
        machines.ends_well((load, following)).await;
    });
}

#[test]
fn machines_die_and_stand_still_and_nothing_is_lost_or_doubled() {
    on_machines(|lan| async move {
        let mut machines = Machines::with_words(&lan, Cluster::on(&lan, &NAMES)).await;
        let Machines { home, second, third, .. } = machines;
        let load = Load::begin(machines.scene.through.clone());
        load.goes_on(20).await;
        machines.spread().await;
        let places = machines.scene.settled(machines.scene.at_home()).await;
        for victim in [second, home, third] {
            load.goes_on(20).await;
            machines.scene.killed_and_started(victim).await;
        }
        machines.scene.all_up().await;
        assert_eq!(machines.scene.settled(machines.scene.at_home()).await, places);
        for victim in [second, home] {
            let stopped = machines.scene.nodes[victim].process().expect("it runs");
            kill_process(stopped, Signal::STOP).expect("it runs");
            until_state(machines.client(third), NAMES[victim], "unreachable").await;
            kill_process(stopped, Signal::CONT).expect("it is there");
            machines.scene.all_up().await;
            load.goes_on(20).await;
        }
        machines.scene.all_back().await;
        load.goes_on(20).await;
        load.ends_counted_once(machines.client(third)).await;
    });
}

#[test]
fn a_wire_that_is_too_narrow_delays_and_loses_and_partitions_move_all_the_same() {
    on_machines(|lan| async move {
        let machines = Machines::with_words(&lan, Cluster::on(&lan, &NAMES)).await;
        let Machines { home, second, .. } = machines;
        let (load, following) = machines.begin();
        load.goes_on(20).await;
        for name in NAMES {
            lan.narrow(name, "2mbit", "100ms");
        }
        machines.spread().await;
        load.goes_on(50).await;
        machines.scene.moved(&[2], home).await;
        machines.scene.moved(&[1], second).await;
        load.goes_on(50).await;
        machines.ends_well((load, following)).await;
    });
}

#[test]
fn nodes_that_are_told_to_be_on_other_machines_are_not_linked_through_memory() {
    on_machines(|lan| async move {
        // They see the same folder and the same kernel, and could be.
        let cluster = Cluster::on(&lan, &NAMES).that_meets();
        let machines = Machines::with_words(&lan, cluster).await;
        let Machines { home, second, third, .. } = machines;
        let load = Load::begin(machines.scene.through.clone());
        load.goes_on(20).await;
        machines.spread().await;
        load.goes_on(100).await;
        for (from, to) in [(home, second), (second, home), (second, third)] {
            assert_eq!(machines.scene.sent(from, to, "ring").await, [0, 0]);
        }
        let nodes = machines.client(third).plain("/v1/nodes").await.is(200).json();
        for node in nodes.as_array().expect("a list") {
            assert_eq!(node["host"], node["name"], "{nodes}");
        }
        let plan = eventually("the plan has traffic", SOON, || async {
            let plan = machines.client(second).get("plan").await.is(200).json();
            (plan["before"]["network"].as_u64() > Some(0)).then_some(plan)
        })
        .await;
        let hosts: BTreeSet<&str> = plan["nodes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|node| node["host"].as_str().expect("a name"))
            .collect();
        assert_eq!(hosts, BTreeSet::from(NAMES), "{plan}");
        assert_eq!(plan["before"]["in-host"], 0, "{plan}");
        load.ends_counted_once(machines.client(third)).await;
    });
}
