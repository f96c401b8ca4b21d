//! Several nodes through the real program: any of them takes what another has, one that is gone
//! takes nothing with it but what it has, and a pipeline is on one of them or on several.
//!
//! Leaves to others: what one node does (`api`, `durable`), links (`runtime/link`).

#[path = "cluster/along.rs"]
mod along;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/hostile.rs"]
mod hostile;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/moves.rs"]
mod moves;
#[path = "cluster/parts.rs"]
mod parts;
#[path = "cluster/shared.rs"]
mod shared;
#[path = "cluster/tenants.rs"]
mod tenants;

use sluicebox_tests::client::Client;
use sluicebox_tests::manifest::single;
use sluicebox_tests::node::Node;

/// The guest that echoes events.
const ECHO: &str = "hostile/echo";

/// A pipeline that gives back what it gets, and keeps it.
fn kept(name: &str) -> String {
    single(name, "echo", "").replace("best-effort", "exactly-once")
}

/// The node a pipeline lives on, as one of them says.
async fn home(client: &Client, pipeline: &str) -> String {
    client.describe(pipeline).await["node"].as_str().expect("it lives somewhere").to_owned()
}

/// Applies pipelines until each of the three nodes has one; gives them in the order of the nodes.
async fn one_each(client: &Client, names: [&str; 3]) -> [String; 3] {
    let mut found: [Option<String>; 3] = Default::default();
    for at in 0..64 {
        let name = format!("p{at}");
        client.apply(&name, kept(&name)).await;
        let place = home(client, &name).await;
        let at = names.iter().position(|known| *known == place).expect("a node of ours");
        if found[at].is_some() {
            client.delete(&format!("pipelines/{name}")).await.is(204);
        } else {
            found[at] = Some(name);
        }
        if let [Some(a), Some(b), Some(c)] = &found {
            return [a.clone(), b.clone(), c.clone()];
        }
    }
    panic!("64 pipelines and none on one of the nodes: {found:?}");
}

/// Clients of nodes.
fn clients(nodes: &[Node]) -> Vec<Client> {
    nodes.iter().map(Node::client).collect()
}
