//! Tenants in a cluster: tokens are looked at where a request is handled, and one with a process of
//! its own has it on one node.

use std::sync::Arc;

use sluicebox_tests::client::Client;
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::node::{Home, Node, Setup};

use super::{ECHO, kept, one_each};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Nodes that share a tenants file, which stays for as long as the home it is in is held, with
/// tokens of acme and other.
async fn with_tenants(
    cluster: &Cluster,
    settings: &[(&str, &str)],
) -> (Arc<Home>, Vec<Node>, [String; 2]) {
    let owner = Home::new();
    let token = |name| owner.tenant(&["add", name])["token"].as_str().expect("a token").to_owned();
    let tokens = [token("acme"), token("other")];
    let file = owner.tenants();
    let mut nodes = Vec::new();
    for name in NAMES {
        let setup = Setup::with_tokens(&[("acme", &tokens[0]), ("other", &tokens[1])])
            .set("node.tenants-file", file.to_str().expect("a plain name"));
        let setup = settings.iter().fold(setup, |setup, (field, value)| setup.set(field, value));
        nodes.push(cluster.setup(setup, name).start().await);
    }
    for node in &nodes {
        until_up(&node.tenant("acme"), 3).await;
    }
    (owner, nodes, tokens)
}

#[tokio::test]
async fn a_token_opens_what_it_opens_on_whichever_node() {
    let cluster = Cluster::of(&NAMES);
    let (_file, nodes, tokens) = with_tenants(&cluster, &[]).await;
    let clients: Vec<Client> = nodes.iter().map(|node| node.tenant("acme")).collect();
    clients[0].push(ECHO).await;
    let pipelines = one_each(&clients[0], NAMES).await;
    for pipeline in &pipelines {
        for node in &nodes {
            let acme = node.tenant("acme");
            assert_eq!(acme.call(pipeline, "k", "x").await.is(200).text(), "x");
            // Another tenant's names do not exist, and without a token nothing does.
            let other = node.tenant("other");
            let reply = other.get(&format!("pipelines/{pipeline}")).await;
            reply.problem(404, "pipeline.unknown");
            let stranger = node.client_of("acme", Some(&tokens[1]));
            let reply = stranger.get(&format!("pipelines/{pipeline}")).await;
            reply.problem(404, "tenant.unknown");
            let nobody = node.client_of("acme", None);
            let reply = nobody.get(&format!("pipelines/{pipeline}")).await;
            reply.problem(401, "auth.token");
        }
    }
}

#[tokio::test]
async fn a_tenant_with_a_process_has_it_on_one_node() {
    let cluster = Cluster::of(&NAMES);
    let (_file, nodes, _) = with_tenants(&cluster, &[("isolation.processes", "true")]).await;
    let clients: Vec<Client> = nodes.iter().map(|node| node.tenant("acme")).collect();
    clients[1].push(ECHO).await;
    clients[2].apply("p", kept("p")).await;
    clients[0].apply("q", kept("q")).await;
    for client in &clients {
        for pipeline in ["p", "q"] {
            assert_eq!(client.call(pipeline, "k", "x").await.is(200).text(), "x");
        }
        let all = client.get("pipelines").await.is(200).json();
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{all}");
    }
    let mut with_process = 0;
    for node in &nodes {
        let figures = node.tenant("acme").plain("/metrics").await;
        let up = "sluicebox_process_up{tenant=\"acme\"} 1";
        with_process += usize::from(figures.text().contains(up));
    }
    assert_eq!(with_process, 1);
}
