//! Several nodes of which not all have a device.

use hyper::Method;
use sluicebox_tests::cluster::{Cluster, until_up};
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Setup;

use super::{GRANT, say};

#[tokio::test]
async fn a_pipeline_moves_only_to_where_there_is_one() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let mut nodes = Vec::new();
    for (name, device) in [("a", "interpreter"), ("b", "off"), ("c", "interpreter")] {
        let setup = Setup::dev().set("gpu.device", device);
        nodes.push(cluster.setup(setup, name).start().await);
    }
    for node in &nodes {
        until_up(&node.client(), 3).await;
    }
    let client = nodes[0].client();
    client.push("gpu").await;
    // Which node makes it follows from its name: of so many some are to be made by b.
    for number in 0..12 {
        let name = format!("g{number}");
        let manifest = single(&name, "gpu", GRANT).replace("best-effort", "exactly-once");
        client.put(&format!("pipelines/{name}"), manifest).await.is(201);
        let node = client.describe(&name).await["node"].clone();
        assert!(node == "a" || node == "c", "{name} is on {node}");
        let again = single(&name, "gpu", GRANT).replace("best-effort", "exactly-once");
        assert_eq!(client.apply(&name, again).await["changed"], false);
        assert_eq!(client.describe(&name).await["node"], node);
    }
    // What keeps nothing cannot be moved.
    let mut refused = 0;
    for number in 0..64 {
        let name = format!("best-{number}");
        let path = format!("pipelines/{name}");
        let reply = client.put(&path, single(&name, "gpu", GRANT)).await;
        if reply.status != 201 {
            reply.problem(503, "gpu.none");
            client.get(&path).await.problem(404, "pipeline.unknown");
            refused += 1;
            break;
        }
        client.delete(&path).await.is(204);
    }
    assert!(refused > 0, "none of 64 was to be made where there is no device");
    let name = "g0".to_owned();
    assert_eq!(say(&client, &name, "double 4").await, "8");
    let home = client.describe(&name).await["node"].as_str().expect("it has one").to_owned();
    let other = if home == "a" { "c" } else { "a" };
    let move_to = |node: &str| {
        let path = client.path(&format!("pipelines/{name}/move?to={node}"));
        let client = client.clone();
        async move { client.ask(Method::POST, &path, &[], "").await }
    };
    let reply = move_to("b").await;
    let problem = reply.problem(409, "pipeline.conflict");
    assert!(problem["detail"].as_str().expect("a text").contains("gpu.device"), "{problem}");
    assert_eq!(client.describe(&name).await["node"], *home);
    move_to(other).await.is(200);
    assert_eq!(say(&client, &name, "double 5").await, "10");
    assert_eq!(client.describe(&name).await["node"], *other);
}

#[tokio::test]
async fn nothing_stays_of_one_that_no_device_takes() {
    let cluster = Cluster::of(&["a", "b"]);
    // More than the interpreter has.
    let full = Setup::dev().set("gpu.device", "interpreter").set("gpu.memory-bytes", "1GiB");
    let setups = [("a", full), ("b", Setup::dev().set("gpu.device", "off"))];
    let mut nodes = Vec::new();
    for (name, setup) in setups {
        nodes.push(cluster.setup(setup, name).start().await);
    }
    for node in &nodes {
        until_up(&node.client(), 2).await;
    }
    let client = nodes[0].client();
    client.push("gpu").await;
    let mut moved = 0;
    for number in 0..8 {
        let name = format!("g{number}");
        let path = format!("pipelines/{name}");
        let manifest = single(&name, "gpu", GRANT).replace("best-effort", "exactly-once");
        let reply = client.put(&path, manifest).await;
        // As the node with the device says it, or the one that would have moved it there.
        if reply.status == 409 {
            let problem = reply.problem(409, "pipeline.conflict");
            assert!(
                problem["detail"].as_str().expect("a text").contains("guarantees"),
                "{problem}"
            );
            moved += 1;
        } else {
            reply.problem(429, "gpu.oversold");
        }
        client.get(&path).await.problem(404, "pipeline.unknown");
    }
    assert!(moved > 0, "none of 8 was to be made where there is no device");
}
