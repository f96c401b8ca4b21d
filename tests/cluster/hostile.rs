//! Whoever reaches the port of nodes and is none of them, and a node that says odd things.

use sluicebox_tests::client::Raw;
use sluicebox_tests::cluster::Cluster;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Setup, refused};
use sluicebox_tests::peer::Peer;

use super::{ECHO, clients, one_each};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[tokio::test]
async fn strangers_at_the_port_of_nodes_get_nothing_and_disturb_nobody() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    let address = cluster.address("b");
    let question = b"GET /peer/v1/state HTTP/1.1\r\nhost: node\r\n\r\n";
    for bytes in [&question[..], &[0; 4096], &[22, 3, 1, 255, 255, 1, 2, 3], b"PRI * HTTP/2.0\r\n"]
    {
        let mut raw = Raw::connect(address).await;
        raw.write(bytes).await;
        let answer = raw.until_closed().await;
        assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
    }
    let foreign = Peer::of(&Cluster::of(&["a"]), "a");
    let another = foreign.ask(("b", address), "GET /peer/v1/state").await;
    assert!(another.is_none(), "one of another authority was answered");
    cluster.issue("stranger");
    let stranger = Peer::of(&cluster, "stranger").ask(("b", address), "GET /peer/v1/state").await;
    assert!(stranger.is_none(), "one that is in no list was answered");
    for (at, pipeline) in pipelines.iter().enumerate() {
        let through = &clients[(at + 1) % 3];
        assert_eq!(through.call(pipeline, "k", "on").await.is(200).text(), "on");
    }
    // What is for nodes is not for clients.
    clients[0].plain("/peer/v1/state").await.problem(404, "route.unknown");
}

#[tokio::test]
async fn a_node_that_asks_nonsense_is_told_so_and_goes_no_further() {
    let cluster = Cluster::of(&NAMES);
    let nodes = cluster.start(Setup::dev).await;
    let clients = clients(&nodes);
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    let address = cluster.address("b");
    let peer = Peer::of(&cluster, "c");
    for (request, status) in [
        ("GET /peer/v1/state?seen=x", 200),
        ("POST /peer/v1/state", 404),
        ("GET /peer/v1/else", 404),
        ("DELETE /peer/v1/state", 405),
        ("GET /peer/v1/still?pipeline=%00", 200),
        ("GET /peer/v1/tenants/dev/pipelines/none/page?from=zz", 404),
        ("POST /peer/v1/tenants/dev/pipelines/none/take?pipeline=x", 404),
        ("POST /peer/v1/tenants/dev/pipelines/none/open", 400),
        ("POST /peer/v1/tenants/dev/pipelines/none/take?pipeline=1&kept=99999999999", 409),
        ("POST /peer/v1/tenants/dev/pipelines/none/take?pipeline=1&kept=1", 503),
        ("POST /peer/v1/tenants/dev/pipelines/none/settled?pipeline=1", 200),
        ("POST /peer/v1/tenants/dev/pipelines/none/prepare?pipeline=1", 400),
        ("GET /peer/v1/tenants/../pipelines", 400),
        ("GET /peer/v1/tenants/dev/tokens/00", 404),
        ("GET /peer/v1/tenants/dev/components-data/..", 404),
        ("GET /peer/v1/tenants/dev/assets/00", 404),
        // A request that was passed on is not passed on again.
        ("GET /v1/tenants/dev/pipelines/ELSEWHERE", 503),
        ("PUT /v1/tenants/dev/pipelines/ELSEWHERE", 503),
    ] {
        let request = request.replace("ELSEWHERE", &pipelines[0]);
        let answer = peer.ask(("b", address), &request).await.expect("it is a node");
        assert_eq!(answer.status, status, "{request}: {answer:?}");
    }
    assert_eq!(clients[2].call(&pipelines[1], "k", "on").await.is(200).text(), "on");
}

#[tokio::test]
async fn nodes_that_disagree_about_the_list_make_nothing_new() {
    let cluster = Cluster::of(&["a", "b"]);
    let first = cluster.setup(Setup::dev(), "a").start().await;
    let other = format!("{},z=127.0.0.1:9", cluster.list());
    let second = cluster.setup(Setup::dev(), "b").set("cluster.nodes", &other);
    let second = second.start().await;
    let client = first.client();
    let said = eventually("the nodes see that they disagree", SOON, || async {
        let reply = client.put("components/echo", sluicebox_tests::guests::bytes(ECHO)).await;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        (reply.status == 503 && text.contains("list of nodes")).then_some(text)
    })
    .await;
    assert!(said.contains("peer.unavailable"), "{said}");
    let nodes = client.plain("/v1/nodes").await.is(200).json();
    assert_eq!(nodes[1]["why"], "has another list of nodes", "{nodes}");
    drop(second);
}

#[test]
fn a_node_does_not_start_with_what_shows_nobody_who_it_is() {
    let cluster = Cluster::of(&["a", "b"]);
    let foreign = Cluster::of(&["a"]);
    let text = |path: std::path::PathBuf| path.to_str().expect("a plain name").to_owned();
    for (field, value, code, said) in [
        ("cluster.node", "c".to_owned(), "config.invalid", "1 mistake"),
        ("cluster.key", String::new(), "config.invalid", "1 mistake"),
        ("cluster.certificate", "none.crt".to_owned(), "tls.unusable", "cluster.certificate"),
        ("cluster.certificate", text(cluster.file("b.crt")), "link.identity", "certificate"),
        ("cluster.key", text(cluster.file("b.key")), "link.identity", "key"),
        ("cluster.authority", text(foreign.file("authority.crt")), "link.identity", "authority"),
    ] {
        let setup = cluster.setup(Setup::dev(), "a").set(field, &value);
        let refused = refused(setup.command());
        assert_eq!(refused.code, code, "{field}: {refused:?}");
        assert!(refused.message.contains(said), "{field}: {refused:?}");
    }
}
