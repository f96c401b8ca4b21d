//! Two nodes of one cluster on this machine: certificates, addresses, and what is asked of them
//! together.
//!
//! Each cluster has loopback addresses of its own, so that several run beside each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{get, with_body};
use crate::node::{Home, Node, Setup, Tenant, command};

/// What the nodes are called.
pub const NAMES: [&str; 2] = ["a", "b"];

/// Where nodes reach each other, on addresses of their own.
const PORT: u16 = 7421;

/// How long nodes may take to know each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// How nodes are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By memory that both share.
    Ring,
    /// By the network, with TLS.
    Network,
}

/// Two running nodes.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of [`NAMES`].
    pub nodes: [Node; 2],
    // The directories go after the nodes.
    _homes: [Home; 2],
    _certificates: TempDir,
}

/// What a move came to.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// When it was asked for.
    pub begun: Instant,
    /// When it was said to be done.
    pub ended: Instant,
    /// How long the node says that nothing was taken.
    pub pause: Duration,
}

impl Cluster {
    /// Starts both, and waits until they know each other.
    ///
    /// # Errors
    /// One does not start.
    pub async fn start(way: Way, setup: &Setup) -> Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let certificates = TempDir::with_prefix("sluicebox-bench-")?;
        let path = |file: &str| certificates.path().join(file).display().to_string();
        let made = command()?
            .args(["certs", "--dir"])
            .arg(certificates.path())
            .args(NAMES)
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "no certificates were made");
        let [.., high, low] = std::process::id().to_be_bytes();
        let addresses = NAMES.map(|_| {
            let ip = Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed));
            SocketAddr::new(IpAddr::V4(ip), PORT)
        });
        let list: Vec<String> =
            NAMES.iter().zip(addresses).map(|(name, at)| format!("{name}={at}")).collect();
        let homes = [Home::new()?, Home::new()?];
        let start = |at: usize| {
            let name = NAMES[at];
            let mut setup = setup.clone();
            setup.settings.extend([
                ("CLUSTER__NODE", name.to_owned()),
                ("CLUSTER__NODES", list.join(",")),
                ("CLUSTER__LISTEN", addresses[at].to_string()),
                ("CLUSTER__CERTIFICATE", path(&format!("{name}.crt"))),
                ("CLUSTER__KEY", path(&format!("{name}.key"))),
                ("CLUSTER__AUTHORITY", path("authority.crt")),
            ]);
            if way == Way::Ring {
                setup.settings.push(("CLUSTER__MEETING_DIR", path("meeting")));
            }
            homes[at].start(&setup)
        };
        let nodes = [start(0)?, start(1)?];
        let cluster = Self { nodes, _homes: homes, _certificates: certificates };
        cluster.until_up().await?;
        Ok(cluster)
    }

    async fn until_up(&self) -> Result<()> {
        let begun = Instant::now();
        for node in &self.nodes {
            loop {
                let all = ask(node, "GET", "/v1/nodes").await?;
                let is_up = |one: &&Value| one["state"] != "unreachable";
                if all.as_array().is_some_and(|all| all.iter().filter(is_up).count() == NAMES.len())
                {
                    break;
                }
                ensure!(begun.elapsed() < PATIENCE, "the nodes do not reach each other: {all}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The last lines of both logs, for a bench that failed.
    #[must_use]
    pub fn logs(&self) -> String {
        self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n--\n")
    }

    /// On which of the nodes a pipeline lives.
    ///
    /// # Errors
    /// Nobody has it.
    pub async fn home_of(&self, tenant: &Tenant, pipeline: &str) -> Result<usize> {
        let path = tenant.path(&format!("pipelines/{pipeline}"));
        let detail = ask(&self.nodes[0], "GET", &path).await?;
        let home = NAMES.iter().position(|name| detail["node"] == *name);
        home.with_context(|| format!("a pipeline of neither: {detail}"))
    }

    /// Moves partitions of a pipeline, or all of it, to the so-many-th node.
    ///
    /// # Errors
    /// It does not move.
    pub async fn moves(
        &self,
        (tenant, pipeline): (&Tenant, &str),
        partitions: Option<&[u16]>,
        to: usize,
    ) -> Result<Move> {
        let mut path = tenant.path(&format!("pipelines/{pipeline}/move?to={}", NAMES[to]));
        if let Some(partitions) = partitions {
            let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            path = format!("{path}&partitions={}", numbers.join(","));
        }
        let begun = Instant::now();
        let moved = ask(&self.nodes[0], "POST", &path).await?;
        let ended = Instant::now();
        let millis = moved["pause-millis"].as_u64();
        let millis = millis.with_context(|| format!("no pause in {moved}"))?;
        Ok(Move { begun, ended, pause: Duration::from_millis(millis) })
    }
}

async fn ask(node: &Node, method: &str, path: &str) -> Result<Value> {
    let mut client = node.connect().await?;
    let request = if method == "GET" { get(path, &[]) } else { with_body(method, path, &[], b"") };
    let reply = client.ask(&request).await?;
    ensure!(reply.status == 200, "{path}: {}", reply.unexpected());
    Ok(serde_json::from_slice(reply.body)?)
}
