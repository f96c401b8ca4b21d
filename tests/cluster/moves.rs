//! A pipeline that moves from node to node, under load and through kills: counted once, in order,
//! with everything it keeps.

use std::time::Duration;

use http::Method;
use sluicebox_tests::client::Client;
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::{Node, Setup};
use tokio::task::JoinSet;

use super::load::{Load, with_words};
use super::{ECHO, clients, home, kept};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Asks for a move; the reply, if there was one.
async fn ask_to_move(client: &Client, pipeline: &str, to: &str) -> u16 {
    let path = client.path(&format!("pipelines/{pipeline}/move?to={to}"));
    client.ask(Method::POST, &path, &[], "").await.status
}

/// Moves a pipeline, and waits until it is there.
async fn moved(client: &Client, pipeline: &str, to: &str) {
    eventually("the pipeline has moved", SOON, || async {
        let status = ask_to_move(client, pipeline, to).await;
        assert!(matches!(status, 200 | 404 | 409 | 503), "{status}");
        let place = client.get(&format!("pipelines/{pipeline}")).await;
        (place.status == 200 && place.json()["node"] == to).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_moves_under_load_and_nothing_is_lost_or_doubled() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let through = clients(&nodes);
    with_words(&through[0], 4).await;
    let load = Load::begin(through.clone());
    load.goes_on(50).await;
    for to in ["a", "b", "c", "b", "a"] {
        if home(&through[0], "words").await != to {
            moved(&through[1], "words", to).await;
        }
        for client in &through {
            assert_eq!(home(client, "words").await, to);
        }
        load.goes_on(50).await;
    }
    load.ends_counted_once(&through[2]).await;
    // It is nowhere else, whatever node is asked.
    for client in &through {
        let all = client.get("pipelines").await.is(200).json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    }
}

#[tokio::test]
async fn what_has_moved_is_there_after_a_restart_and_gone_where_it_was() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let through = clients(&nodes);
    with_words(&through[0], 4).await;
    let load = Load::begin(through.clone());
    load.goes_on(30).await;
    let first = home(&through[0], "words").await;
    let to = NAMES.into_iter().find(|name| *name != first).expect("two others");
    moved(&through[0], "words", to).await;
    load.goes_on(30).await;
    for (at, name) in NAMES.iter().enumerate() {
        let old = nodes.remove(at);
        let setup = cluster.setup(Setup::as_before(&old).at(old.address()), name);
        drop(old.kill());
        nodes.insert(at, setup.start().await);
        load.goes_on(20).await;
    }
    for client in &through {
        until_up(client, 3).await;
        assert_eq!(home(client, "words").await, to);
    }
    // And on from there, to where it was.
    moved(&through[1], "words", &first).await;
    load.goes_on(30).await;
    load.ends_counted_once(&through[1]).await;
}

#[tokio::test]
async fn nodes_that_die_while_a_pipeline_moves_lose_nothing() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let through = clients(&nodes);
    with_words(&through[0], 4).await;
    let load = Load::begin(through.clone());
    load.goes_on(20).await;
    let rounds = std::env::var("SLUICEBOX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    for round in 0..rounds {
        for client in &through {
            until_up(client, 3).await;
        }
        let from = eventually("the pipeline is somewhere", SOON, || async {
            let reply = through[0].get("pipelines/words").await;
            (reply.status == 200).then(|| reply.json()["node"].as_str().expect("a name").to_owned())
        })
        .await;
        let from = NAMES.iter().position(|name| *name == from).expect("a node of ours");
        let to = (from + 1 + round % 2) % 3;
        // Whoever asks may be killed, and gets no answer then.
        let asker = through[3 - from - to].clone();
        let mut asked = JoinSet::new();
        asked.spawn(async move { ask_to_move(&asker, "words", NAMES[to]).await });
        tokio::time::sleep(Duration::from_millis(3 * round as u64 % 40)).await;
        let victim = if round % 3 == 2 { to } else { from };
        let old = nodes.remove(victim);
        let setup = cluster.setup(Setup::as_before(&old).at(old.address()), NAMES[victim]);
        drop(old.kill());
        let statuses = asked.join_all().await;
        assert!(matches!(statuses[..], [200 | 404 | 409 | 503]), "{statuses:?}");
        nodes.insert(victim, setup.start().await);
        load.goes_on(20).await;
    }
    load.ends_counted_once(&through[0]).await;
    for client in &through {
        until_up(client, 3).await;
        let all = client.get("pipelines").await.is(200).json();
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    }
}

#[tokio::test]
async fn what_cannot_move_says_why_and_goes_on() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let through = clients(&nodes);
    through[0].push(ECHO).await;
    through[0].apply("kept", kept("kept")).await;
    through[0].apply("not-kept", single("not-kept", "echo", "")).await;
    let own = home(&through[0], "kept").await;
    let other = NAMES.into_iter().find(|name| *name != own).expect("two others");
    let ask = |pipeline: &'static str, to: String| {
        let path = through[1].path(&format!("pipelines/{pipeline}/move{to}"));
        let client = through[1].clone();
        async move { client.ask(Method::POST, &path, &[], "").await }
    };
    ask("kept", String::new()).await.problem(400, "request.query");
    ask("kept", "?to=z".to_owned()).await.problem(400, "request.query");
    ask("kept", "?to=..".to_owned()).await.problem(400, "request.query");
    ask("kept", "?from=a".to_owned()).await.problem(400, "request.query");
    ask("kept", format!("?to={own}")).await.problem(409, "pipeline.conflict");
    ask("none", format!("?to={other}")).await.problem(404, "pipeline.unknown");
    let place = home(&through[0], "not-kept").await;
    let elsewhere = NAMES.into_iter().find(|name| *name != place).expect("two others");
    let refused = ask("not-kept", format!("?to={elsewhere}")).await;
    let problem = refused.problem(409, "pipeline.conflict");
    assert!(problem["detail"].as_str().expect("a text").contains("keeps nothing"), "{problem}");
    for pipeline in ["kept", "not-kept"] {
        assert_eq!(through[2].call(pipeline, "k", "on").await.is(200).text(), "on");
    }
    // To a node that is gone it does not go, and runs on.
    let at = NAMES.iter().position(|name| *name == other).expect("a node of ours");
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    drop(nodes[at].take().expect("it runs").kill());
    let from = NAMES.iter().position(|name| *name == own).expect("a node of ours");
    let path = through[from].path(&format!("pipelines/kept/move?to={other}"));
    let refused = through[from].ask(Method::POST, &path, &[], "").await;
    refused.problem(503, "peer.unavailable");
    assert_eq!(through[from].call("kept", "k", "still").await.is(200).text(), "still");
}
