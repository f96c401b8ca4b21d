//! The plan: made from what really goes on at all nodes, and shown to who asks, through any node.

use serde_json::Value;
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::Setup;

use crate::ECHO;

use super::{NAMES, Scene, ask, in_four, key_in};

fn rows<'a>(plan: &'a Value, name: &str) -> &'a [Value] {
    plan[name].as_array().expect("a list")
}

#[tokio::test]
async fn a_partition_whose_traffic_is_elsewhere_is_planned_to_go_there() {
    let scene = Scene::of(Cluster::of(&NAMES[..2]), Setup::dev).await;
    scene.through[0].push(ECHO).await;
    scene.through[0].apply("kept", in_four("kept")).await;
    let scene = scene.about("kept").await;
    let (home, other) = (scene.home, scene.other(1));
    scene.moved(&[2, 3], other).await;
    // Much goes to one of them, and back; nothing to the others.
    let (query, large) = (format!("?key={}", key_in(3)), "x".repeat(64 << 10));
    let plan = eventually("the plan has a move", SOON, || async {
        for _ in 0..20 {
            scene.at_home().send("kept", &query, &[], large.clone()).await.is(202);
        }
        let plan = scene.through[other].get("plan").await.is(200).json();
        (!rows(&plan, "moves").is_empty()).then_some(plan)
    })
    .await;
    let moves = rows(&plan, "moves");
    assert_eq!(moves.len(), 1, "{plan}");
    let named = |name: &str| moves[0][name].as_str().expect("a name").to_owned();
    assert_eq!((named("pipeline"), named("from")), ("kept".into(), NAMES[other].into()));
    assert_eq!((named("to"), &moves[0]["partition"]), (NAMES[home].into(), &3.into()));
    let said = |at: u64| {
        let mut all = rows(&plan, "partitions").iter();
        let found = all.find(|row| row["partition"] == at).expect("it is shown");
        (found["node"].as_str().expect("a name"), found["why"].as_str().expect("a reason"))
    };
    assert!(said(3).1.starts_with(&format!("goes from {}", NAMES[other])), "{plan}");
    let stays = format!("stays on {}: no other node would spare traffic", NAMES[other]);
    assert_eq!(said(2), (NAMES[other], &*stays));
    assert_eq!(said(0).0, NAMES[home]);
    // Both are on this machine, and say so.
    let hosts: Vec<&Value> = rows(&plan, "nodes").iter().map(|node| &node["host"]).collect();
    assert!(hosts.len() == 2 && hosts[0] == hosts[1], "{plan}");
    assert!(plan["before"]["in-host"].as_u64() > plan["after"]["in-host"].as_u64(), "{plan}");
    // Whoever does as it says finds nothing more to do.
    ask(scene.at_home(), "kept", &format!("to={}&partitions=3", NAMES[home])).await.is(200);
    let after = scene.at_home().get("plan?pipeline=kept").await.is(200).json();
    assert!(rows(&after, "moves").is_empty(), "{after}");
    scene.at_home().get("plan?pipeline=none").await.problem(404, "pipeline.unknown");
    scene.at_home().get("plan?all").await.problem(400, "request.query");
}

fn balanced() -> Setup {
    Setup::dev().set("cluster.balance", "true").set("cluster.balance-interval", "1s")
}

#[tokio::test]
async fn nodes_that_are_told_to_move_it_there_by_themselves() {
    let scene = Scene::of(Cluster::of(&NAMES[..2]), balanced).await;
    scene.through[0].push(ECHO).await;
    scene.through[0].apply("kept", in_four("kept")).await;
    let scene = scene.about("kept").await;
    let other = scene.other(1);
    scene.moved(&[2, 3], other).await;
    let (query, large) = (format!("?key={}", key_in(3)), "x".repeat(64 << 10));
    let back = eventually("it is moved home", SOON * 4, || async {
        for _ in 0..20 {
            // While it moves there may be no room.
            let reply = scene.at_home().send("kept", &query, &[], large.clone()).await;
            assert!(matches!(reply.status, 202 | 429), "{reply:?}");
        }
        let detail = scene.at_home().describe("kept").await;
        let mut all = rows(&detail, "partition").iter();
        all.all(|row| row["partition"] != 3 || row["node"].is_null()).then_some(detail)
    });
    let back = back.await;
    // What has no traffic stays where it was put.
    let second = rows(&back, "partition").iter().find(|row| row["partition"] == 2);
    assert_eq!(second.expect("it is shown")["node"], NAMES[other], "{back:#}");
    let metrics = scene.at_home().plain("/metrics").await.is(200);
    assert!(
        metrics.text().contains("sluicebox_partitions_balanced_total{} 1"),
        "{}",
        metrics.text()
    );
}
