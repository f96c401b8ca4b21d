//! What is somewhere is everywhere: applied, fed, read, listed and deleted through any node.

use sluicebox_tests::client::{NDJSON, payload};
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::follow;
use sluicebox_tests::node::Setup;
use sluicebox_tests::session;

use super::{ECHO, clients, home, kept, one_each};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[tokio::test]
async fn a_pipeline_is_reached_through_every_node_and_lives_on_one() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[1], NAMES).await;
    for (at, pipeline) in pipelines.iter().enumerate() {
        for (through, client) in clients.iter().enumerate() {
            assert_eq!(home(client, pipeline).await, NAMES[at]);
            let text = format!("through-{through}");
            let reply = client.call(pipeline, "k", text.clone()).await.is(200);
            assert_eq!(reply.text(), text, "{pipeline} through {}", NAMES[through]);
        }
        // What came in through any of them is in one output, read alike through any of them.
        let expected = ["through-0", "through-1", "through-2"];
        for client in &clients {
            let records = client.records(pipeline, "outputs/reply", 3).await;
            let found: Vec<_> = records.iter().map(payload).collect();
            assert_eq!(found, expected.map(|text| text.as_bytes().to_vec()));
        }
    }
    for client in &clients {
        let all = client.get("pipelines").await.is(200).json();
        let names: Vec<_> = all.as_array().expect("a list").iter().map(|p| &p["name"]).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let components = client.get("components").await.is(200).json();
        assert_eq!(components.as_array().map(Vec::len), Some(1), "{components}");
    }
    // Nothing is made twice: the same manifest through another node changes nothing.
    for client in &clients {
        let again = client.apply(&pipelines[2], kept(&pipelines[2])).await;
        assert_eq!((&again["created"], &again["changed"]), (&false.into(), &false.into()));
    }
    clients[0].delete(&format!("pipelines/{}", pipelines[2])).await.is(204);
    for client in &clients {
        let gone = client.get(&format!("pipelines/{}", pipelines[2])).await;
        gone.problem(404, "pipeline.unknown");
    }
    let figures = clients[0].plain("/metrics").await;
    for peer in ["b", "c"] {
        assert!(figures.text().contains(&format!("sluicebox_peer_up{{peer=\"{peer}\"}} 1")));
        let passed = format!("sluicebox_peer_passed_total{{peer=\"{peer}\"}} 0");
        assert!(!figures.text().contains(&passed), "nothing was passed on to {peer}");
    }
}

#[tokio::test]
async fn a_pipeline_keeps_what_it_runs_where_it_runs() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let first = clients(&nodes);
    first[0].push(ECHO).await;
    let pipelines = one_each(&first[0], NAMES).await;
    // The component goes from where it was uploaded to; the pipelines do not need it there.
    first[1].delete("components/echo").await.is(204);
    for pipeline in &pipelines {
        assert_eq!(first[0].call(pipeline, "k", "still").await.is(200).text(), "still");
    }
    for (at, name) in NAMES.iter().enumerate() {
        let old = nodes.remove(at);
        let setup = Setup::as_before(&old);
        drop(old);
        nodes.insert(at, cluster.setup(setup, name).start().await);
    }
    let clients = clients(&nodes);
    for client in &clients {
        until_up(client, 3).await;
    }
    for (at, pipeline) in pipelines.iter().enumerate() {
        let through = &clients[(at + 1) % 3];
        assert_eq!(through.call(pipeline, "k", "again").await.is(200).text(), "again");
        let records = through.records(pipeline, "outputs/reply", 2).await;
        assert_eq!(records.iter().map(payload).collect::<Vec<_>>(), [b"still", b"again"]);
    }
    // To apply it anew the name has to stand for something again.
    let changed = kept(&pipelines[0]).replace("partitions = 1", "partitions = 2");
    let refused = clients[2].put(&format!("pipelines/{}", pipelines[0]), changed.clone()).await;
    refused.problem(400, "manifest.invalid");
    clients[2].push(ECHO).await;
    clients[1].apply(&pipelines[0], changed).await;
    assert_eq!(clients[2].call(&pipelines[0], "k", "more").await.is(200).text(), "more");
}

#[tokio::test]
async fn replies_that_go_on_and_bodies_that_come_slowly_go_through() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    let path = clients[0].path(&format!("pipelines/{}/outputs/reply", pipelines[1]));
    let follower = follow::follow((nodes[0].address(), false), &path, &[]).await;
    let mut follower = follower.expect("a stream");
    let stream = clients[0].path(&format!("pipelines/{}/streams/k?output=reply", pipelines[1]));
    let headers = [("content-type", NDJSON)];
    let opened = session::open((nodes[2].address(), false), &stream, &headers).await;
    let mut session = opened.expect("a session");
    for word in ["one", "two"] {
        session.send(format!("\"{word}\"\n")).await;
        let followed = follower.next().await.expect("it goes on");
        assert_eq!(followed.data["data"], word);
    }
    session.end();
    let all = clients[2].records(&pipelines[1], "outputs/reply", 2).await;
    assert!(all.len() >= 2, "{all:?}");
}

#[tokio::test]
async fn a_request_as_large_as_may_be_goes_through_and_a_larger_one_is_refused() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(|| Setup::dev().set("http.body-bytes-max", "1MiB")).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    let line = format!("\"{}\"\n", "x".repeat(1000));
    let whole = line.repeat(1000);
    for (at, pipeline) in pipelines.iter().enumerate() {
        let through = &clients[(at + 2) % 3];
        let taken = through.lines(pipeline, whole.clone()).await.is(202).json();
        assert_eq!(taken["accepted"], 1000);
        let refused = through.lines(pipeline, line.repeat(1100)).await;
        refused.problem(413, "request.too-large");
        eventually("all events are in the output", SOON, || async {
            let detail = through.describe(pipeline).await;
            let events = detail["output"][0]["events"].as_u64();
            (events == Some(1000)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_asset_has_one_home_also_after_a_restart() {
    let cluster = Cluster::of(&NAMES);
    let mut nodes = cluster.start(Setup::dev).await;
    let first = clients(&nodes);
    first[0].push(ECHO).await;
    let path = first[0].path("assets");
    let pushed = first[0].ask(http::Method::POST, &path, &[], "an asset").await.is(201).json();
    let digest = pushed["digest"].as_str().expect("a digest").to_owned();
    let with_asset = |name: &str| {
        format!(
            "{}assets = {{ table = \"{digest}\" }}\n",
            kept(name).trim_end_matches('\n').to_owned() + "\n"
        )
    };
    let mut places = std::collections::BTreeSet::new();
    for at in 0..12 {
        let name = format!("p{at}");
        first[at % 3].apply(&name, with_asset(&name)).await;
        places.insert(home(&first[0], &name).await);
    }
    assert_eq!(places.len(), 3, "{places:?}");
    for (at, name) in NAMES.iter().enumerate() {
        let old = nodes.remove(at);
        let setup = cluster.setup(Setup::as_before(&old).at(old.address()), name);
        drop(old);
        nodes.insert(at, setup.start().await);
    }
    for client in &first {
        until_up(client, 3).await;
    }
    for client in &first {
        let components = client.get("components").await.is(200).json();
        assert_eq!(components.as_array().map(Vec::len), Some(1), "{components}");
        client.apply("p0", with_asset("p0").replace("partitions = 1", "partitions = 2")).await;
    }
}

#[tokio::test]
async fn a_name_with_codes_in_it_is_no_other_name_for_the_same() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    for client in &clients {
        let refused = client.put("pipelines/%70", kept("p")).await;
        refused.problem(400, "name.invalid");
        client.get("pipelines/%70").await.problem(404, "pipeline.unknown");
    }
    let all = clients[0].get("pipelines").await.is(200).json();
    assert_eq!(all.as_array().map(Vec::len), Some(0), "{all}");
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    for at in 0..12 {
        let name = format!("p{at}");
        clients[at % 3].put(&format!("pipelines/{name}?dry-run"), kept(&name)).await.is(200);
    }
    let mut holders = 0;
    for node in &nodes {
        let kept = node.home().data().join("catalog");
        let mut folders = vec![kept];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_string_lossy().contains("components-data") {
                    files += 1;
                }
            }
        }
        holders += usize::from(files > 0);
    }
    assert_eq!(holders, 1, "only where it was uploaded to");
}
