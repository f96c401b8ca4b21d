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
    // Which node makes it follows from its name.
    let (mut made, mut refused) = (None, 0);
    for number in 0..64 {
        let name = format!("g{number}");
        let manifest = single(&name, "gpu", GRANT).replace("best-effort", "exactly-once");
        let reply = client.put(&format!("pipelines/{name}"), manifest).await;
        if reply.status == 201 {
            made = Some(name);
        } else {
            reply.problem(503, "gpu.none");
            refused += 1;
        }
        if made.is_some() && refused > 0 {
            break;
        }
    }
    assert!(refused > 0, "none of 64 was to be made where there is no device");
    let name = made.expect("one was made where there is one");
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
