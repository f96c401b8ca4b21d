//! Stages with a GPU, through the real program: what they can do, what they cannot do to others,
//! and what becomes of them when the process that has the device ends.
//!
//! Everything runs on the interpreter, which every machine has; what a driver could do otherwise
//! runs on Mesa's software Vulkan as well, which `cargo xtask test` installs. Without it those
//! tests say so, and fail in automation.
//!
//! Leaves to others: what a device promises and what kernels are refused (`gpu-host`), the SDK.

#[path = "gpu/attached.rs"]
mod attached;
#[path = "gpu/cluster.rs"]
mod cluster;
#[path = "gpu/confined.rs"]
mod confined;
#[path = "gpu/does.rs"]
mod does;
#[path = "gpu/examples.rs"]
mod examples;
#[path = "gpu/grants.rs"]
mod grants;
#[path = "gpu/hostile.rs"]
mod hostile;
#[path = "gpu/process.rs"]
mod process;

use std::sync::Arc;

use serde_json::Value;
use sluicebox_gpu::device::Kind;
use sluicebox_gpu::vulkan::{Choice, Options, Vulkan};
use sluicebox_tests::client::Client;
use sluicebox_tests::eventually::{SOON, eventually};
use sluicebox_tests::node::{Node, Setup};

/// What a stage with a GPU says of itself.
const GRANT: &str = "grants = { gpu = { deadline = \"8s\" } }";

/// A node in development mode with such a device.
fn with_device(device: &str) -> Setup {
    Setup::dev().set("gpu.device", device)
}

/// Devices there are on this machine.
fn devices() -> Vec<&'static str> {
    let choice = Choice::Kind(Kind::Software);
    match Vulkan::open(&Options { choice, ..Options::default() }) {
        Ok(_) => vec!["interpreter", "software"],
        Err(why) => {
            let is_ci = std::env::var_os("CI").is_some();
            assert!(!is_ci, "automation has a software Vulkan: {why}");
            #[expect(clippy::print_stderr, reason = "a test that does less says so")]
            {
                eprintln!("only on the interpreter, as there is no software Vulkan: {why}");
            }
            vec!["interpreter"]
        }
    }
}

/// A pipeline of one stage that does what events say; `more` is said of the stage.
async fn apply(client: &Client, name: &str, more: &str) {
    client.push("gpu").await;
    client.apply(name, sluicebox_tests::manifest::single(name, "gpu", more)).await;
}

/// What the stage says to a command.
async fn say(client: &Client, pipeline: &str, command: &str) -> String {
    let reply = client.call(pipeline, "k", command.to_owned()).await;
    assert_eq!(reply.status, 200, "{command}: {}", reply.text());
    reply.text().to_owned()
}

/// What the node says of its GPU.
async fn gpu(client: &Client) -> Value {
    client.get("gpu").await.is(200).json()
}

/// The number of the process that has the node's device.
async fn process_of(node: &Node) -> u32 {
    eventually("the node has a process with a device", SOON, || async {
        let parent = node.process().expect("it runs").as_raw_nonzero().to_string();
        let children = std::fs::read_dir("/proc").expect("there is a /proc").filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut fields = stat.rsplit_once(") ")?.1.split(' ');
            let is_child = fields.nth(1)? == parent;
            let mut words = command.split(|byte| *byte == 0);
            (is_child && words.nth(1)? == b"gpu-host").then_some(pid)
        });
        children.last()
    })
    .await
}

/// A pipeline's stage on a node with a device.
struct Bed {
    node: Arc<Node>,
    client: Client,
}

impl Bed {
    async fn new(setup: Setup, more: &str) -> Self {
        let node = Arc::new(setup.start().await);
        let client = node.client();
        apply(&client, "gpu", &format!("{GRANT}\n{more}")).await;
        Self { node, client }
    }

    async fn say(&self, command: &str) -> String {
        say(&self.client, "gpu", command).await
    }
}
